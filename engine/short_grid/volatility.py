"""Volatility regime: live volatility against a baseline of closed candles.

All volatilities are in bps per sqrt(second). Without a baseline there is no regime, and without a
regime there are no new entries: the live value never takes its place, but where recordings hold no
candles and a person asked for it.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from core.jit import kernel
from core.recording import SECOND_NS, Event
from engine.short_grid.params import ShortGridParams

BASELINE_LIFE: Final = 5.0
"""A baseline older than this many refreshes counts as none."""
MIN_RETURNS: Final = 30
"""Returns a candle deviation needs."""
TIMEFRAMES_S: Final = (60, 300, 900)


class Regime:
    """Baseline and what follows from it and the live volatility."""

    baseline: float  # bps per sqrt(s), 0 = none
    baseline_t_ns: int
    blended: float  # bps per sqrt(s)
    drift: float  # blended / baseline, bounded
    tail: float  # live / baseline
    vol: float  # bps over the spacing horizon
    vol_30s: float  # bps
    tail_until_ns: int  # no adds before


def candle_deviation(
    open_ms: npt.NDArray[np.int64], close: npt.NDArray[np.float64], timeframe_s: int
) -> float:
    """Return the deviation of log returns of consecutive candles, bps per sqrt(s); 0 if too few.

    Args:
        open_ms: open times, ascending, (n,); candles may be missing.
        close: closing prices, (n,).
        timeframe_s: length of a candle.
    """
    consecutive = np.diff(open_ms) == timeframe_s * 1_000
    returns = np.diff(np.log(close))[consecutive]
    if len(returns) < MIN_RETURNS:
        return 0.0
    return float(np.std(returns, ddof=1) * 1e4 / math.sqrt(timeframe_s))


@kernel
def baseline_of(params: ShortGridParams, s_1m: float, s_5m: float, s_15m: float) -> float:
    """Return the weighted mean of the deviations that are there (above 0), 0 if none is."""
    total = weight = 0.0
    if s_1m > 0.0:
        total += params.vol_weight_1m * s_1m
        weight += params.vol_weight_1m
    if s_5m > 0.0:
        total += params.vol_weight_5m * s_5m
        weight += params.vol_weight_5m
    if s_15m > 0.0:
        total += params.vol_weight_15m * s_15m
        weight += params.vol_weight_15m
    return total / weight if weight > 0.0 else 0.0


@kernel
def take_candles(regime: Regime, params: ShortGridParams, event: Event) -> None:
    """Take the deviations of an answered request for candles; an empty answer changes nothing."""
    found = baseline_of(params, event.price, event.qty, event.rate)
    if found > 0.0 and math.isfinite(found):
        regime.baseline, regime.baseline_t_ns = found, event.t_ns


@kernel
def step_regime(
    regime: Regime, params: ShortGridParams, sigma: float, t_ns: int, holding: bool
) -> None:
    """Do a step at ``t_ns`` with live volatility ``sigma``; ``holding``: a tail pauses adds."""
    if params.baseline_live:
        regime.baseline, regime.baseline_t_ns = sigma, t_ns
    elif t_ns - regime.baseline_t_ns > BASELINE_LIFE * params.vol_refresh_s * SECOND_NS:
        regime.baseline = 0.0
    if regime.baseline <= 0.0:
        regime.blended = regime.drift = regime.tail = regime.vol = regime.vol_30s = 0.0
        return
    weight = params.vol_live_weight
    regime.blended = (1.0 - weight) * regime.baseline + weight * sigma
    ratio = regime.blended / regime.baseline
    regime.drift = min(max(ratio, params.drift_min), params.drift_max)
    regime.tail = sigma / regime.baseline
    regime.vol = regime.blended * math.sqrt(params.spacing_horizon_s)
    regime.vol_30s = regime.blended * math.sqrt(30.0)
    if holding and regime.tail >= params.tail_ratio:
        scale = min(max(regime.tail / params.tail_ratio, 1.0), 3.0)
        regime.tail_until_ns = t_ns + int(params.tail_cooldown_s * scale * SECOND_NS)
