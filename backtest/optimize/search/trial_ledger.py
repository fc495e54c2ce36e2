"""How many trials were ever run on a data set, also by studies that have been deleted since.

The best of many trials is the better the more there were, so evidence about luck needs the number
of all of them. The ledger is a file of one JSON object per line: every search enters itself when it
starts and counts what it has evaluated up in its own line, so that no way of ending it hides its
trials; and every look at a holdout, each of which makes it a little less untouched.

It counts what searches started in the same working folder have done. What it cannot know: searches
from other folders and other machines (of these only the studies in a common storage), and another
way of looking at the bars, such as a backtest.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from backtest.results.files import check_writable
from core.errors import DataError
from core.files import LARGEST_DOCUMENT, append_line, parse_json, read_limited
from core.times import DAY_MS

LEDGER: Final = "trial_ledger.jsonl"
WEEK_MS: Final = 7 * DAY_MS
_SAME_SHARE: Final = 0.5
"""Share of the bars searched that another search must have seen to count as one on this data: a
search repeated a day later reads a few bars more, and is no new experiment. Of the closes two data
sets have in common it is the share that must agree: a copy may have been corrected."""
_COUNT: Final = b'{"trials": '
"""How a line begins; the number that follows has a fixed width, to be counted up in its place."""
_DIGITS: Final = 9

_log: Final = logging.getLogger(__name__)


class SeenBefore(NamedTuple):
    """Earlier searches' knowledge of a holdout: looks at it, searches that trained in it."""

    looks: int = 0
    trained: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """The bars a search reads.

    Attributes:
        data_hash: of all of them.
        source: where they came from; for the reader, a copy elsewhere is the same data.
        coins: base coins.
        start_ms: open of the first bar, ms UTC.
        holdout_ms: open of the first bar set aside.
        end_ms: close of the last one.
        closes: by coin, closes of some bars before the holdout by their open time, ms UTC.
    """

    data_hash: str
    source: str
    coins: tuple[str, ...]
    start_ms: int
    holdout_ms: int
    end_ms: int
    closes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def shares_search_with(self, entry: Mapping[str, Any]) -> bool:
        """Return whether an entry of the ledger is of a search on (much of) the same bars."""
        if entry["data_hash"] == self.data_hash:
            return True
        span = (self.start_ms, self.holdout_ms)
        common = _overlap(span, (entry["start_ms"], entry["holdout_ms"]))
        return common >= _SAME_SHARE * (span[1] - span[0]) and self._same_market(entry)

    def shares_holdout_with(self, entry: Mapping[str, Any]) -> bool:
        """Return whether an entry's holdout holds bars of this one's."""
        return self._holds(entry, "holdout_ms", "end_ms")

    def trained_by(self, entry: Mapping[str, Any]) -> bool:
        """Return whether the search of an entry chose by bars of this holdout."""
        return entry["trials"] > 0 and self._holds(entry, "start_ms", "holdout_ms")

    def _holds(self, entry: Mapping[str, Any], start: str, end: str) -> bool:
        ours = (self.holdout_ms, self.end_ms)
        return _overlap(ours, (entry[start], entry[end])) > 0 and self._same_market(entry)

    def _same_market(self, entry: Mapping[str, Any]) -> bool:
        """Return whether a coin is the same; where no close can be compared, its name decides."""
        theirs = entry.get("closes") or {}
        return any(
            _agree(self.closes.get(coin, {}), theirs.get(coin, {}))
            for coin in {*self.coins} & {*entry["coins"]}
        )


class TrialLedger:
    """The ledger in a folder.

    Args:
        folder: where the file is, or will be.
        data: what this search reads.
    """

    def __init__(self, folder: Path, data: DataSet) -> None:
        self.path, self._data = folder / LEDGER, data

    def check_usable(self) -> None:
        """Make sure the file can be read and written before time is spent on a search.

        Raises:
            DataError: it cannot.
        """
        try:
            self.path.open("r+b").close()
        except FileNotFoundError:
            check_writable(self.path.parent)
        except OSError as error:
            raise _not_written(self.path, error) from None

    def count_trials(self) -> int:
        """Return how many trials searches have entered for this data.

        Raises:
            DataError: the file cannot be read.
        """
        entries = self._entries()
        return sum(item["trials"] for item in entries if self._data.shares_search_with(item))

    def seen_before(self) -> SeenBefore:
        """Return what searches have seen of this holdout so far.

        Raises:
            DataError: the file cannot be read.
        """
        entries = self._entries()
        looks = [item for item in entries if item["holdout_read"]]
        return SeenBefore(
            looks=sum(self._data.shares_holdout_with(item) for item in looks),
            trained=sum(self._data.trained_by(item) for item in entries),
        )

    def begin(self, study: str) -> SearchEntry:
        """Enter a search that starts; its trials are counted in the entry returned.

        Raises:
            DataError: the file cannot be written.
        """
        return SearchEntry(self.path, self._append(study, holdout_read=False))

    def add_look(self, study: str) -> None:
        """Enter a look at the holdout.

        Raises:
            DataError: the file cannot be written.
        """
        self._append(study, holdout_read=True)

    def _append(self, study: str, *, holdout_read: bool) -> int:
        """Append an entry and return where in the file its count stands."""
        entry = {
            "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
            "study": study,
            "holdout_read": holdout_read,
            **asdict(self._data),
        }
        line = _COUNT + _number(0) + b", " + json.dumps(entry).encode()[1:]
        try:
            return append_line(self.path, line) + len(_COUNT)
        except OSError as error:
            raise _not_written(self.path, error) from None

    def _entries(self) -> list[dict[str, Any]]:
        try:
            lines = read_limited(self.path, LARGEST_DOCUMENT).splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DataError(
                f"cannot read {self.path}: {error.strerror or error}; make it readable, or start "
                "in another folder, where nothing is counted yet"
            ) from None
        entries = [_entry(line) for line in lines if line.strip()]
        if damaged := entries.count(None):
            _log.warning("%s: %d damaged lines do not count", self.path, damaged)
        return [entry for entry in entries if entry is not None]


class SearchEntry:
    """A search's own line of the ledger, in which its trials are counted up; thread-safe.

    Args:
        path: of the ledger.
        place: where in it the count stands.

    Raises:
        DataError: the file cannot be opened.
    """

    def __init__(self, path: Path, place: int) -> None:
        self._path, self._place, self._trials = path, place, 0
        self._lock = threading.Lock()
        try:
            self._file = path.open("r+b", buffering=0)
        except OSError as error:
            raise _not_written(path, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def count(self) -> None:
        """Count one more trial; from then on it counts whatever ends the program.

        Raises:
            DataError: the file cannot be written.
        """
        with self._lock:
            self._trials += 1
            try:
                os.pwrite(self._file.fileno(), _number(self._trials), self._place)
            except OSError as error:
                raise _not_written(self._path, error) from None


def _not_written(path: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write {path}: {error.strerror or error}; make room or rights there, for trials "
        "that are not counted would make luck look like skill"
    )


def _number(trials: int) -> bytes:
    return f"{trials:{_DIGITS}d}".encode()


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return what a line says, None if it is damaged."""
    try:
        entry = parse_json(line)
    except ValueError:
        return None
    if not isinstance(entry, dict):
        return None
    numbers = ("trials", "start_ms", "holdout_ms", "end_ms")
    closes = entry.get("closes", {})
    whole = (
        all(type(entry.get(name)) is int for name in numbers)
        and isinstance(entry.get("data_hash"), str)
        and isinstance(entry.get("coins"), list)
        and isinstance(entry.get("holdout_read"), bool)
        and isinstance(closes, dict)
        and all(isinstance(item, dict) for item in closes.values())
    )
    return entry if whole else None


def _agree(ours: Mapping[str, float], theirs: Mapping[str, float]) -> bool:
    """Return whether most closes of the same times are the same; so they are if there are none."""
    common = ours.keys() & theirs.keys()
    equal = sum(ours[time] == theirs[time] for time in common)
    return equal >= _SAME_SHARE * len(common)


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> int:
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))
