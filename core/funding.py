"""Funding: the synthetic model, which rate is due and known when, and what follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from core.exact_sum import exact_sum
from core.jit import kernel
from core.times import BAR_MS, HOUR_MS, MINUTE_MS

SETTLEMENT_MS: Final = 8 * HOUR_MS
HOLE_MS: Final = 24 * HOUR_MS
"""So long after the last real settlement the model's begin, until a real one comes."""
VALID_MS: Final = 24 * HOUR_MS
"""How long the last settled rate counts."""
MODEL_BARS: Final = 96
MODEL_BASE: Final = 0.0001
MODEL_SLOPE: Final = 0.02
MODEL_CLAMP: Final = 0.0003

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FundingSchedule:
    """Funding rates as the engine reads them, per bar.

    Attributes:
        due: sum of the rates settled in ``(t_i, t_{i+1}]``, shape (n_bars,).
        known: last rate settled at or before ``t_i``, 0 if older than 24 h, shape (n_bars,).
        n_real: settlements on record within the bars.
        n_synthetic: settlements made by the model.
    """

    due: Floats
    known: Floats
    n_real: int
    n_synthetic: int

    @property
    def source(self) -> str:
        """Return where the rates come from, in words."""
        if self.n_synthetic == 0:
            return "real" if self.n_real else "none due"
        if self.n_real == 0:
            return "modelled"
        share = self.n_synthetic / (self.n_real + self.n_synthetic)
        return f"real, {share:.0%} of settlements modelled"


def model_rates(settlements: Ints, ts_ms: Ints, closes: Floats, bar_ms: int) -> Floats:
    """Return the synthetic rate at each of ``settlements`` from the bars closed by then.

    ``0.0001 + 0.02 * (close / mean of at most 96 closes - 1)``, clamped to +-0.0003; NaN where no
    bar has closed yet.

    Args:
        settlements: ms UTC, shape (n,).
        ts_ms: bar open times, ms UTC, ascending, shape (n_bars,).
        closes: positive, shape (n_bars,).
        bar_ms: length of a bar.
    """
    closed = np.searchsorted(ts_ms, settlements - bar_ms, side="right")
    return model_rate_series(closed, closes)


@kernel
def model_rate_series(n_closed: Ints, closes: Floats) -> Floats:
    """Return the synthetic rate after so many closes, NaN after none; both of shape (n,)."""
    rates = np.full(n_closed.size, math.nan)
    for row in range(n_closed.size):
        n = n_closed[row]
        if n > 0:
            window = closes[max(0, n - MODEL_BARS) : n]
            premium = closes[n - 1] / (exact_sum(window) / window.size) - 1.0
            rate = MODEL_BASE + MODEL_SLOPE * premium
            rates[row] = min(MODEL_CLAMP, rate) if rate > -MODEL_CLAMP else -MODEL_CLAMP
    return rates


def generate_synthetic_funding_rates(
    timestamps: npt.ArrayLike, closes: npt.ArrayLike, bar_ms: int = BAR_MS
) -> Floats:
    """Return synthetic rates at bar opens that are 00, 08 or 16 UTC, NaN elsewhere, (n_bars,).

    The rate at ``t_i`` uses closes up to bar ``i - 1`` only.
    """
    ts_ms = np.array(timestamps, dtype=np.int64)
    prices = np.array(closes, dtype=np.float64)
    rates = np.full(ts_ms.size, np.nan)
    at = np.flatnonzero(ts_ms % SETTLEMENT_MS == 0)
    rates[at] = model_rates(ts_ms[at], ts_ms, prices, bar_ms)
    return rates


def _synthetic_times(start: int, end: int, real: Ints) -> Ints:
    """Return the settlement times to be modelled in ``(start, end]``.

    Those at least 24 h after the last of the ``real`` ones before them (ascending), and those
    before the first: whether real ones will come, or return, is known to nobody then.
    """
    if end <= start:
        return np.empty(0, np.int64)
    first = (start // SETTLEMENT_MS + 1) * SETTLEMENT_MS
    candidates = np.arange(first, end + 1, SETTLEMENT_MS, dtype=np.int64)
    if real.size == 0:
        return candidates
    last = np.searchsorted(real, candidates, side="right") - 1
    return candidates[(last < 0) | (candidates - real[np.maximum(last, 0)] >= HOLE_MS)]


def merge_settlements(
    ts_ms: Ints, closes: Floats, settlements: Ints, rates: Floats, bar_ms: int = BAR_MS
) -> tuple[Ints, Floats, Ints]:
    """Return real settlements and modelled ones in their holes, by time.

    What is settled up to an instant follows from the real settlements up to it alone: modelled
    ones begin 24 h after the last real one (without any: at the start), however soon real ones
    return.

    Arguments as in :func:`schedule_funding`.

    Returns:
        (times, rates, modelled): times floored to the minute, from 24 h before the bars on, and
        the times of those that were made by the model.
    """
    start, end = int(ts_ms[0]), int(ts_ms[-1]) + bar_ms
    times = settlements // MINUTE_MS * MINUTE_MS
    kept = np.isfinite(rates) & (times >= start - VALID_MS) & (times <= end)
    times, real_rates = times[kept], rates[kept]
    modelled = _synthetic_times(start, end, np.unique(times))
    all_times = np.concatenate((times, modelled))
    all_rates = np.concatenate((real_rates, model_rates(modelled, ts_ms, closes, bar_ms)))
    order = np.argsort(all_times, kind="stable")
    return all_times[order], all_rates[order], modelled


def schedule_funding(
    ts_ms: Ints, closes: Floats, settlements: Ints, rates: Floats, bar_ms: int = BAR_MS
) -> FundingSchedule:
    """Lay real settlements, and modelled ones in their holes, onto the bars.

    Args:
        ts_ms: bar open times, ms UTC, shape (n_bars,).
        closes: shape (n_bars,).
        settlements: times of real settlements, ms UTC, any order, shape (n,).
        rates: their rates; NaN rows are dropped, shape (n,).
        bar_ms: length of a bar.
    """
    if ts_ms.size == 0:
        return FundingSchedule(np.empty(0), np.empty(0), 0, 0)
    start = int(ts_ms[0])
    times, all_rates, modelled = merge_settlements(ts_ms, closes, settlements, rates, bar_ms)
    charged = times > start
    due = np.zeros(ts_ms.size)
    bar = np.searchsorted(ts_ms, times[charged], side="left") - 1
    np.add.at(due, bar, all_rates[charged])
    n_real = int(np.sum(charged)) - int(np.sum(modelled > start))
    return FundingSchedule(
        due, last_known_rates(ts_ms, times, all_rates), n_real, int(modelled.size)
    )


def last_known_rates(at_ms: Ints, times: Ints, rates: Floats) -> Floats:
    """Return the last rate settled at or before each of ``at_ms``, 0 if older than 24 h.

    Args:
        at_ms: instants, ms UTC, shape (n,).
        times: of settlements, ms UTC, ascending, shape (m,).
        rates: shape (m,).
    """
    known = np.zeros(at_ms.size)
    if times.size == 0:
        return known
    last = np.searchsorted(times, at_ms, side="right") - 1
    valid = (last >= 0) & (at_ms - times[np.maximum(last, 0)] <= VALID_MS)
    known[valid] = rates[last[valid]]
    return known


@kernel
def receives_funding(funding_rate: float, sign: float) -> bool:
    """Return whether the side (+1 long, -1 short) is paid at ``funding_rate``."""
    return funding_rate * sign < 0.0


@kernel
def funding_spacing_factor(
    funding_rate: float, sign: float, threshold: float, factor: float
) -> float:
    """Return the spacing multiplier of a side: wider where it pays, narrower where it receives."""
    if abs(funding_rate) <= threshold:
        return 1.0
    return 1.0 / factor if receives_funding(funding_rate, sign) else factor


@kernel
def funding_harvest_factor(
    funding_rate: float, sign: float, threshold: float, boost: float, cut: float
) -> float:
    """Return the size multiplier of a side: larger where it receives, smaller where it pays."""
    if abs(funding_rate) <= threshold:
        return 1.0
    return boost if receives_funding(funding_rate, sign) else cut
