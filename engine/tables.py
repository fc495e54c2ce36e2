"""The border between data frames and the tables kernels read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from core.errors import DataError
from core.funding import FundingSchedule, schedule_funding
from core.records import dtype_of
from engine.types import Bar

PRICE_COLUMNS: Final = ("open", "high", "low", "close")
Records = npt.NDArray[Any]


class Funding:
    """Funding of one bar."""

    due: float  # sum of the rates settled in (t_i, t_{i+1}]
    known: float  # last settled rate at t_i


class BarLog:
    """The account at the close of one bar."""

    equity: float  # quote
    wallet: float  # quote
    funding: float  # quote received in this bar
    long_qty: float  # base
    short_qty: float  # base
    long_centre: float  # r of the long generation, quote; 0 = none yet
    long_pct: float  # its entry spacing
    short_centre: float
    short_pct: float


@dataclass(frozen=True, eq=False)
class RunTables:
    """Everything a run reads but parameters and market rules.

    Attributes:
        bars: candles, (n_bars,).
        signals: indicators and regime, (n_bars,).
        funding: rates due and known, (n_bars,).
        funding_source: where the rates are from, see ``core.funding.FundingSchedule``.
        detail: finer candles within the bars, (n_sub,).
        detail_from: first finer candle of each bar, (n_bars + 1,).
        first_bar: no step before it acts.
    """

    bars: Records
    signals: Records
    funding: Records
    funding_source: str
    detail: Records
    detail_from: npt.NDArray[np.int64]
    first_bar: int

    @property
    def regimes(self) -> npt.NDArray[np.int64]:
        """The regime code of every step, (n_bars,): that of the bar before, 0 for the first."""
        regimes = np.zeros(len(self.bars), np.int64)
        regimes[1:] = self.signals["regime"][:-1]
        return regimes

    @property
    def first_acting_bar(self) -> int:
        """The first bar whose step acts, the number of bars if none does."""
        ready = np.flatnonzero(self.signals["ready"][:-1]) + 1
        ready = ready[ready >= self.first_bar]
        return int(ready[0]) if ready.size else len(self.bars)


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
    missing = [name for name in ("timestamp", *PRICE_COLUMNS) if name not in frame]
    if missing:
        raise DataError(f"candles lack the columns {', '.join(missing)}")
    bars = np.zeros(len(frame["timestamp"]), dtype_of(Bar))
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
    """Return the sub-bars of those ``bars`` that have all of theirs.

    A bar with a sub-bar missing, in the middle or at its end, is walked as the candle it is: its
    way between the sub-bars that are there is not known, and it may stop short of its close. The
    shortest distance of two sub-bars is taken for their length.
    """
    if len(bars) == 0 or len(detail) < 2:  # noqa: PLR2004 - a distance needs two
        return detail[:0]
    row = np.searchsorted(bars["ts_ms"], detail["ts_ms"], side="right") - 1
    inside = (row >= 0) & (detail["ts_ms"] < bars["ts_ms"][np.maximum(row, 0)] + bar_ms)
    counts = np.bincount(row[inside], minlength=len(bars))
    whole = counts >= bar_ms // int(np.diff(detail["ts_ms"]).min())
    return np.ascontiguousarray(detail[inside & whole[np.maximum(row, 0)]])


def sub_bar_tables(
    bars: Records, detail: Any, bar_ms: int
) -> tuple[Records, npt.NDArray[np.int64]]:
    """Return the finer candles of the frame ``detail`` within ``bars``, and the first of each bar.

    None for ``detail``: there are none.

    Raises:
        DataError: they cannot be used.
    """
    inside = bars[:0] if detail is None else within_bars(bars, bar_table(detail), bar_ms)
    return inside, detail_rows(bars, inside, bar_ms)


def settled_funding(bars: Records, settled: Any, bar_ms: int) -> FundingSchedule:
    """Return the funding of ``bars`` from a frame of settlements: columns timestamp and rate."""
    rates = np.array(settled["rate"], dtype=np.float64)
    return schedule_funding(
        np.array(bars["ts_ms"]), np.array(bars["close"]), times_ms(settled), rates, bar_ms
    )


def funding_rows(schedule: FundingSchedule) -> Records:
    """Return a schedule as a table of ``Funding``, shape (n_bars,)."""
    table = np.zeros(schedule.due.size, dtype_of(Funding))
    table["due"], table["known"] = schedule.due, schedule.known
    return table


def build_tables(
    bars: Records, signals: Records, settled: Any, detail: Any, bar_ms: int, first_bar: int
) -> RunTables:
    """Return the tables of a run over ``bars`` with their ``signals``.

    Args:
        bars: candles, (n_bars,).
        signals: indicators and regime, (n_bars,).
        settled: frame of funding settlements, columns timestamp and rate.
        detail: frame of finer candles; None: there are none.
        bar_ms: length of a bar.
        first_bar: no step before it acts.

    Raises:
        DataError: funding rates or finer candles cannot be used.
    """
    schedule = settled_funding(bars, settled, bar_ms)
    inside, rows = sub_bar_tables(bars, detail, bar_ms)
    return RunTables(
        bars, signals, funding_rows(schedule), schedule.source, inside, rows, first_bar
    )
