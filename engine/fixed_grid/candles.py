"""Which candles a run walks, and which of them begin a step (A1, A15.9)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from core.errors import DataError
from core.funding import FundingSchedule, last_known_rates, merge_settlements
from core.records import dtype_of
from core.times import MINUTE_MS
from engine.tables import Records, funding_rows, times_ms
from engine.types import Bar

QUARTER_MS: Final = 15 * MINUTE_MS


class CandleFlags:
    """The facts of a candle besides its prices."""

    ready: bool  # always
    begins_step: bool
    is_hole: bool  # stands for an interval whose own candles are not all there


def candle_length_ms(ts_ms: npt.NDArray[np.int64], step_s: int) -> int:
    """Return the candles' length: the least distance of two, a step if there is one candle.

    Raises:
        DataError: longer than a step, no divisor of it, or opens off its own grid.
    """
    step_ms = step_s * 1000
    length = int(np.diff(ts_ms).min()) if ts_ms.size > 1 else step_ms
    if length > step_ms:
        raise DataError(
            f"candles of {length // 1000} s are coarser than a step of {step_s} s: load finer "
            "ones, or set step_s=900 for 15-minute candles"
        )
    if step_ms % length or np.any(ts_ms % length):
        raise DataError(f"candles of {length / 1000:g} s do not fit into steps of {step_s} s")
    return length


def walked_candles(
    bars: Records, step_s: int, quarters: Records | None = None
) -> tuple[Records, Records]:
    """Return the candles to walk with their flags, in order of time; shapes (n_bars,).

    A 15-minute interval whose candles are not all there becomes one candle with one step at its
    open: its own of ``quarters``, else the one its rows make. An interval with neither is not
    walked. The first and the last interval are no exception.

    Args:
        bars: table of ``Bar``, at least one row.
        step_s: length of a step.
        quarters: 15-minute candles for holes, a table of ``Bar``.

    Raises:
        DataError: the candles do not fit the step.
    """
    length = candle_length_ms(bars["ts_ms"], step_s)
    interval = bars["ts_ms"] // QUARTER_MS
    found, first, count = np.unique(interval, return_index=True, return_counts=True)
    whole = count * length == QUARTER_MS
    kept = bars[np.repeat(whole, count)]
    own = {} if quarters is None else {int(row["ts_ms"]) // QUARTER_MS: row for row in quarters}
    holes = [
        _hole(k, own, bars[at : at + n])
        for k, at, n in zip(found[~whole], first[~whole], count[~whole], strict=True)
    ]
    between = sorted(own.keys() - set(found.tolist()))
    holes += [_hole(k, own, bars[:0]) for k in between if found[0] < k < found[-1]]
    merged = np.array(holes, dtype_of(Bar)) if holes else bars[:0]
    walked = np.concatenate([kept, merged])
    flags: Any = np.zeros(len(walked), dtype_of(CandleFlags))
    flags["ready"] = True
    flags["is_hole"][len(kept) :] = True
    order = np.argsort(walked["ts_ms"], kind="stable")
    walked, flags = walked[order], flags[order]
    flags["begins_step"] = flags["is_hole"] | (walked["ts_ms"] % (step_s * 1000) == 0)
    return walked, flags


def _hole(interval: int, own: dict[int, Any], rows: Records) -> tuple[Any, ...]:
    row = own.get(int(interval))
    start = int(interval) * QUARTER_MS
    if row is not None:
        return (start, row["open"], row["high"], row["low"], row["close"])
    return (start, rows["open"][0], rows["high"].max(), rows["low"].min(), rows["close"][-1])


def settlements_of(candles: Any) -> Any:
    """Return the settlements in the column fundingRate of a frame, None without one."""
    if "fundingRate" not in candles.columns:
        return None
    rates = np.array(candles["fundingRate"], dtype=np.float64)
    known = np.isfinite(rates)
    return {"timestamp": times_ms(candles)[known], "rate": rates[known]}


def candle_funding(walked: Records, settled: Any) -> tuple[Records, str]:
    """Return the funding of every candle, a table of ``Funding``, and where the rates are from.

    A settlement is due in the last candle that opens before it. Holes in the record are modelled on
    15-minute closes, whatever the candles' length.

    Args:
        walked: table of ``Bar``, at least one row.
        settled: timestamp and rate of real settlements; None: there are none.
    """
    times, rates = np.empty(0, np.int64), np.empty(0)
    if settled is not None:
        times = np.array(times_ms(settled), dtype=np.int64)
        rates = np.array(settled["rate"], dtype=np.float64)
    opens = np.array(walked["ts_ms"])
    quarter, first = np.unique(opens // QUARTER_MS, return_index=True)
    closes = np.array(walked["close"])[np.append(first[1:], len(walked)) - 1]
    all_times, all_rates, modelled = merge_settlements(
        quarter * QUARTER_MS, closes, times, rates, QUARTER_MS
    )
    charged = all_times > opens[0]
    due = np.zeros(len(walked))
    bar = np.searchsorted(opens, all_times[charged], side="left") - 1
    np.add.at(due, bar, all_rates[charged])
    n_modelled = int(np.sum(modelled > opens[0]))
    schedule = FundingSchedule(
        due,
        last_known_rates(opens, all_times, all_rates),
        int(np.sum(charged)) - n_modelled,
        n_modelled,
    )
    return funding_rows(schedule), schedule.source
