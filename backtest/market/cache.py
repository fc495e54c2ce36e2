"""Downloaded candles and funding rates, kept as Parquet files that survive a kill.

A file holds the rows and, in its metadata, the time ranges that were asked for. So a hole the
exchange really has, or the time before a listing, is not asked for again at every run. It is
believed when two looks in a row have found nothing there: one answer may be short or empty.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.market.market_data import slice_time
from core.files import write_atomically
from core.times import DAY_MS, MINUTE_MS

Ranges = list[tuple[int, int]]
"""Half-open time ranges ``[from, to)``, milliseconds, ascending and apart."""
Download = Callable[[int, int], Iterator[pd.DataFrame]]
"""Yields tables with what the exchange has in ``[from, to)``, in any order."""

_log: Final = logging.getLogger(__name__)
_COVERED: Final = "covered"
_LOOKED_TWICE: Final = "looked_twice"
"""In files whose holes were confirmed and whose candles had closed by the exchange's clock."""
_MOST_LOOKS: Final = 6


class SeriesCache:
    """One coin's candles of one length, or its funding rates, in one file.

    Several processes may use the same file: each write replaces it whole, so a reader sees one
    version or the other, and takes up first what others have written.
    """

    def __init__(
        self,
        path: Path,
        *,
        empty: pd.DataFrame,
        step_ms: int,
        check: Callable[[pd.DataFrame, str], None],
    ) -> None:
        """Read the file, if there is one.

        Args:
            path: the Parquet file.
            empty: the columns, as a table without rows.
            step_ms: usual distance of rows.
            check: raises DataError for a table (of the given origin) that cannot be believed.
        """
        self.path = path
        self.step_ms = step_ms
        self._empty = empty
        self._check = check
        self._now_ms: int | None = None
        self._rows, self._covered = self._read()

    def missing(self, start_ms: int, end_ms: int) -> Ranges:
        """Return the parts of a range that have never been asked for."""
        return uncovered(self._covered, start_ms, end_ms)

    def rows(self, start_ms: int, end_ms: int) -> pd.DataFrame:
        """Return the rows known in ``[start_ms, end_ms)``."""
        return slice_time(self._rows, start_ms, end_ms)

    def extend(
        self,
        start_ms: int,
        end_ms: int,
        download: Download,
        *,
        now_ms: int,
        arrived: Callable[[int], object],
        final_ms: int | None = None,
    ) -> None:
        """Download what is missing of a range and keep it, as far as it came.

        Args:
            start_ms: first instant wanted.
            end_ms: end of what is wanted, so chosen that its last candle is finished.
            download: where to get it.
            now_ms: the present, by the exchange's clock. What is kept as later than that, by a
                computer whose clock was ahead, is forgotten first.
            arrived: takes the number of rows of each part.
            final_ms: what is absent before it, after two looks, is not asked for again; None: a day
                before ``now_ms``, as rows of the last day may only be late.

        Raises:
            DataError: the exchange's rows cannot be believed; they are not kept.
            NetworkError: the download broke off; what came before is kept.
        """
        self._forget_after(now_ms)
        final_ms = now_ms - DAY_MS if final_ms is None else final_ms
        for first, last in self.missing(start_ms, end_ms):
            parts, complete = [self._empty], False
            try:
                asked = [(first, last)]
                for look in range(_MOST_LOOKS):
                    found = 0
                    for start, end in asked:
                        for part in download(start, end):
                            parts.append(slice_time(part, start, end))
                            arrived(len(parts[-1]))
                            found += len(parts[-1])
                    times = _merged(parts)["timestamp"].to_numpy()
                    asked = holes(times, first, last, self.step_ms)
                    if not asked or (look > 0 and found == 0):
                        break
                complete = True
            finally:
                rows = _merged(parts)
                self._add(rows, self._known(rows, first, last, final_ms if complete else None))

    def _forget_after(self, now_ms: int) -> None:
        """Drop rows that have not closed by ``now_ms``, and what is remembered of the future."""
        self._now_ms = now_ms
        self._rows, self._covered = self._until_now(self._rows, self._covered)

    def _until_now(self, rows: pd.DataFrame, covered: Ranges) -> tuple[pd.DataFrame, Ranges]:
        if self._now_ms is None:
            return rows, covered
        known = [(a, min(b, self._now_ms)) for a, b in covered if a < self._now_ms]
        return rows[rows["timestamp"] < self._now_ms].reset_index(drop=True), known

    def _known(
        self, rows: pd.DataFrame, start_ms: int, end_ms: int, final_ms: int | None
    ) -> Ranges:
        """Return where ``rows`` are all there is; ``final_ms`` is None if the download broke off.

        From there on rows may only be late: what lies after the newest one is not known.
        """
        times = rows["timestamp"].to_numpy()
        after = int(times[-1]) + MINUTE_MS if len(times) else start_ms  # none follow sooner
        after = min(after, end_ms)
        if final_ms is None:
            return uncovered(holes(times, start_ms, after, self.step_ms), start_ms, after)
        return [(start_ms, min(end_ms, max(after, final_ms)))]

    def _add(self, rows: pd.DataFrame, known: Ranges) -> None:
        others, others_covered = self._until_now(*self._read())
        merged = _merged([others, self._rows, rows])
        if not merged.empty:
            self._check(merged, f"{self.path.stem} from the exchange")
        self._rows = merged
        self._covered = union([*others_covered, *self._covered, *known])
        stored = merged.copy()
        stored.attrs = {_COVERED: self._covered, _LOOKED_TWICE: True}
        body = io.BytesIO()
        stored.to_parquet(body, index=False)
        try:
            write_atomically(self.path, body.getvalue())
        except OSError as error:
            _log.warning("cannot keep %s: %s; going on without it", self.path, error)

    def _read(self) -> tuple[pd.DataFrame, Ranges]:
        try:
            body = self.path.read_bytes()
        except FileNotFoundError:
            return self._empty, []
        except OSError as error:
            _log.warning("cannot read %s: %s; downloading again", self.path, error)
            return self._empty, []
        try:
            rows = pd.read_parquet(io.BytesIO(body))
            if _LOOKED_TWICE not in rows.attrs and _COVERED in rows.attrs:
                _log.warning(
                    "%s was kept by an earlier version, which believed this computer's clock and "
                    "any empty answer; downloading it again",
                    self.path,
                )
                return self._empty, []
            covered = union((int(first), int(last)) for first, last in rows.attrs[_COVERED])
            rows = rows[list(self._empty.columns)].astype(self._empty.dtypes)
            rows.attrs = {}
            if not rows.empty:
                self._check(rows, self.path.name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._set_aside(error)
            return self._empty, []
        return rows, covered

    def _set_aside(self, error: Exception) -> None:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.corrupt-{number}")).exists():
            number += 1
        _log.warning("%s is damaged (%s); kept as %s", self.path, error, aside.name)
        with contextlib.suppress(OSError):  # gone already, or a folder nothing can change
            self.path.rename(aside)


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Return the ranges sorted, with those that overlap or touch made one."""
    joined: Ranges = []
    for first, last in sorted(item for item in ranges if item[0] < item[1]):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def uncovered(ranges: Ranges, start_ms: int, end_ms: int) -> Ranges:
    """Return the parts of ``[start_ms, end_ms)`` outside all ``ranges``, which are as of union."""
    left: Ranges = []
    for first, last in ranges:
        if start_ms < min(first, end_ms):
            left.append((start_ms, min(first, end_ms)))
        start_ms = max(start_ms, last)
    if start_ms < end_ms:
        left.append((start_ms, end_ms))
    return left


def holes(times: npt.NDArray[np.int64], start_ms: int, end_ms: int, step_ms: int) -> Ranges:
    """Return the parts of ``[start_ms, end_ms)`` where rows ``step_ms`` apart are lacking.

    Args:
        times: ascending row times within the range.
        start_ms: start of the range; a row there is expected only if the next is not due sooner.
        end_ms: end of the range.
        step_ms: rows may be this far apart.
    """
    after = np.concatenate(([start_ms], times + 1))
    until = np.concatenate((times, [end_ms]))
    wide = until - after >= step_ms
    return [(int(a), int(b)) for a, b in zip(after[wide], until[wide], strict=True)]


def _merged(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of all parts by time; of rows with the same time the first part's."""
    rows = pd.concat(parts, ignore_index=True)
    rows = rows.drop_duplicates("timestamp")
    return rows.sort_values("timestamp", ignore_index=True)
