"""How many trials were ever run on a data set, also by studies that have been deleted since.

The best of many trials is the better the more there were, so evidence about luck needs the number
of all of them. The ledger is a file of one JSON object per line; every search adds what it has
evaluated, and the looks at a holdout, each of which makes it a little less untouched.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from backtest.result_files import not_writable
from core.errors import DataError

LEDGER: Final = "trial_ledger.jsonl"
_SAME_SHARE: Final = 0.5
"""Share of the bars searched that another search must have seen to count as one on this data: a
search repeated a day later reads a few bars more, and is no new experiment."""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """The bars a search reads.

    Attributes:
        data_hash: of all of them.
        source: where they came from.
        coins: base coins.
        start_ms: open of the first bar, ms UTC.
        holdout_ms: open of the first bar set aside.
        end_ms: close of the last one.
    """

    data_hash: str
    source: str
    coins: tuple[str, ...]
    start_ms: int
    holdout_ms: int
    end_ms: int

    def shares_search_with(self, entry: Mapping[str, Any]) -> bool:
        """Return whether an entry of the ledger is of a search on (much of) the same bars."""
        if entry["data_hash"] == self.data_hash:
            return True
        span = (self.start_ms, self.holdout_ms)
        common = _overlap(span, (entry["start_ms"], entry["holdout_ms"]))
        return self._same_market(entry) and common >= _SAME_SHARE * (span[1] - span[0])

    def shares_holdout_with(self, entry: Mapping[str, Any]) -> bool:
        """Return whether an entry's holdout holds bars of this one's."""
        ours, theirs = (self.holdout_ms, self.end_ms), (entry["holdout_ms"], entry["end_ms"])
        return self._same_market(entry) and _overlap(ours, theirs) > 0

    def _same_market(self, entry: Mapping[str, Any]) -> bool:
        return entry["source"] == self.source and bool({*self.coins} & {*entry["coins"]})


class TrialLedger:
    """The ledger in a folder of results.

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
            pass
        except OSError as error:
            raise not_writable(self.path, error) from None

    def count_trials(self) -> int:
        """Return how many trials searches have entered for this data.

        Raises:
            DataError: the file cannot be read.
        """
        entries = self._entries()
        return sum(item["trials"] for item in entries if self._data.shares_search_with(item))

    def count_looks(self) -> int:
        """Return how often bars of this holdout were looked at.

        Raises:
            DataError: the file cannot be read.
        """
        entries = [item for item in self._entries() if item["holdout_read"]]
        return sum(self._data.shares_holdout_with(item) for item in entries)

    def add(self, study: str, *, trials: int = 0, holdout_read: bool = False) -> None:
        """Enter what a search has done.

        Raises:
            DataError: the file cannot be written.
        """
        entry = {
            "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
            "study": study,
            "trials": trials,
            "holdout_read": holdout_read,
            **asdict(self._data),
        }
        try:
            self._append(json.dumps(entry).encode())
        except OSError as error:
            raise not_writable(self.path, error) from None

    def _append(self, line: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, also by a kill
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            torn = file.read(1) not in {b"", b"\n"}
            file.write((b"\n" if torn else b"") + line + b"\n")
            os.fsync(file.fileno())

    def _entries(self) -> list[dict[str, Any]]:
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DataError(
                f"cannot read {self.path}: {error.strerror or error}; make it readable or choose "
                "another folder with --output DIR"
            ) from None
        entries = [_entry(line) for line in lines if line.strip()]
        if damaged := entries.count(None):
            _log.warning("%s: %d damaged lines do not count", self.path, damaged)
        return [entry for entry in entries if entry is not None]


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return what a line says, None if it is damaged."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict):
        return None
    numbers = ("trials", "start_ms", "holdout_ms", "end_ms")
    texts = ("data_hash", "source")
    whole = (
        all(type(entry.get(name)) is int for name in numbers)
        and all(isinstance(entry.get(name), str) for name in texts)
        and isinstance(entry.get("coins"), list)
        and isinstance(entry.get("holdout_read"), bool)
    )
    return entry if whole else None


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> int:
    return max(0, min(one[1], other[1]) - max(one[0], other[0]))
