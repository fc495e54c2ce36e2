"""The border between data frames and the tables kernels read."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from core.errors import DataError
from core.funding import FundingSchedule
from core.records import dtype_of
from engine.grid_v4.loop import Funding
from engine.types import Bar

PRICE_COLUMNS: Final = ("open", "high", "low", "close")
Records = npt.NDArray[Any]


def times_ms(frame: Any) -> npt.NDArray[np.int64]:
    """Return the open times of ``frame`` in ms UTC; its timestamp column may hold datetimes."""
    column = frame["timestamp"]
    if column.dtype.kind == "M" or hasattr(column.dtype, "tz"):
        if getattr(column.dtype, "tz", None) is not None:
            column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        return np.array(column.to_numpy().astype("datetime64[ms]").astype(np.int64))
    return np.array(column, dtype=np.int64)


def bar_table(frame: Any) -> Records:
    """Return the candles of ``frame`` as a table of ``Bar``, shape (n_bars,).

    Raises:
        DataError: a column is missing, holds NaN, or times do not rise.
    """
    missing = [name for name in ("timestamp", *PRICE_COLUMNS) if name not in frame.columns]
    if missing:
        raise DataError(f"candles lack the columns {', '.join(missing)}")
    bars = np.zeros(len(frame), dtype_of(Bar))
    bars["ts_ms"] = times_ms(frame)
    for name in PRICE_COLUMNS:
        bars[name] = np.asarray(frame[name], dtype=np.float64)
        if not np.all(bars[name] > 0.0):
            raise DataError(f"candle column {name} holds NaN or a price that is not positive")
    if np.any(np.diff(bars["ts_ms"]) <= 0):
        raise DataError("candle timestamps must rise from row to row")
    return bars


def detail_rows(bars: Records, detail: Records, bar_ms: int) -> npt.NDArray[np.int64]:
    """Return the first sub-bar of each bar, shape (n_bars + 1,), for sub-bars within the bars.

    A sub-bar that lies in no bar would be counted to the bar before it: leave such out first.
    """
    edges = np.append(bars["ts_ms"], bars["ts_ms"][-1] + bar_ms if len(bars) else 0)
    return np.searchsorted(detail["ts_ms"], edges).astype(np.int64)


def within_bars(bars: Records, detail: Records, bar_ms: int) -> Records:
    """Return the sub-bars that lie in one of ``bars``."""
    if len(bars) == 0 or len(detail) == 0:
        return detail[:0]
    row = np.searchsorted(bars["ts_ms"], detail["ts_ms"], side="right") - 1
    inside = (row >= 0) & (detail["ts_ms"] < bars["ts_ms"][np.maximum(row, 0)] + bar_ms)
    return np.ascontiguousarray(detail[inside])


def funding_rows(schedule: FundingSchedule) -> Records:
    """Return a schedule as a table of ``Funding``, shape (n_bars,)."""
    table = np.zeros(schedule.due.size, dtype_of(Funding))
    table["due"], table["known"] = schedule.due, schedule.known
    return table
