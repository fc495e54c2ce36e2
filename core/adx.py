"""Average directional index."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from core.atr import FloatArray, as_series, check_period, true_range
from core.jit import kernel

NEGLIGIBLE: Final = 1e-14
"""Sums under it count as 0, as in TA-Lib (TA_EPSILON); price or percent."""
UNDEFINED: Final = -1.0
"""Stands for a directional index without a range or without a move."""


def calculate_adx(
    highs: npt.ArrayLike, lows: npt.ArrayLike, closes: npt.ArrayLike, period: int = 14
) -> FloatArray:
    """Return Wilder's average directional index, in [0, 100], from bar ``2*period - 1`` on.

    TA-Lib's variant of Wilder (1978, ch. IV): directional moves and true range are summed over
    the first ``period - 1`` bars, then smoothed as ``S = S' - S'/period + value``;
    ``DX = 100*abs(+DI - -DI)/(+DI + -DI)``; the first value is the mean of the first ``period``
    DX; then ``ADX = (ADX'*(period-1) + DX)/period``. A bar whose DX has no range or no move to
    divide by adds nothing to the first mean and leaves later values as they were.
    """
    high, low, close = as_series(highs=highs, lows=lows, closes=closes)
    return adx_series(high, low, close, check_period("period", period, least=2))


@kernel
def directional_move(
    high: float, low: float, prev_high: float, prev_low: float
) -> tuple[float, float]:
    """Return Wilder's (+DM, -DM) of one bar, in price; at most one of them is not 0."""
    up = high - prev_high
    down = prev_low - low
    if down > 0.0 and up < down:
        return 0.0, down
    if up > 0.0 and up > down:
        return up, 0.0
    return 0.0, 0.0


@kernel
def directional_index(plus_dm: float, minus_dm: float, tr: float) -> float:
    """Return DX of the smoothed sums, in percent, or UNDEFINED."""
    if -NEGLIGIBLE < tr < NEGLIGIBLE:
        return UNDEFINED
    plus_di = 100.0 * (plus_dm / tr)
    minus_di = 100.0 * (minus_dm / tr)
    both = plus_di + minus_di
    if -NEGLIGIBLE < both < NEGLIGIBLE:
        return UNDEFINED
    return 100.0 * (abs(minus_di - plus_di) / both)


@kernel
def dx_series(high: FloatArray, low: FloatArray, close: FloatArray, period: int) -> FloatArray:
    """Return DX from bar ``period`` on, UNDEFINED where it is."""
    n = close.size
    out = np.full(n, math.nan)
    plus_sum = 0.0
    minus_sum = 0.0
    tr_sum = 0.0
    for i in range(1, n):
        plus, minus = directional_move(high[i], low[i], high[i - 1], low[i - 1])
        tr = true_range(high[i], low[i], close[i - 1])
        if i >= period:
            plus_sum -= plus_sum / period
            minus_sum -= minus_sum / period
            tr_sum -= tr_sum / period
        plus_sum += plus
        minus_sum += minus
        tr_sum += tr
        if i >= period:
            out[i] = directional_index(plus_sum, minus_sum, tr_sum)
    return out


@kernel
def adx_series(high: FloatArray, low: FloatArray, close: FloatArray, period: int) -> FloatArray:
    """See :func:`calculate_adx`."""
    n = close.size
    out = np.full(n, math.nan)
    dx = dx_series(high, low, close, period)
    first = 2 * period - 1
    if n <= first:
        return out
    total = 0.0
    for i in range(period, first + 1):
        if dx[i] != UNDEFINED:
            total += dx[i]
    adx = total / period
    out[first] = adx
    for i in range(first + 1, n):
        if dx[i] != UNDEFINED:
            adx = (adx * (period - 1.0) + dx[i]) / period
        out[i] = adx
    return out
