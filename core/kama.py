"""Efficiency ratio, Kaufman's adaptive moving average, and the regime read from its slope.

Public functions accept lists, Series or arrays of bars, oldest first, and answer an array
``(n_bars,)`` that is causal. The ``*_series`` kernels below them take float64 arrays, unchecked.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from core.atr import FloatArray, IntArray, as_series, check_period
from core.jit import kernel

NOISE: Final = 0
UPTREND: Final = 1
BREAKOUT_UP: Final = 2
DOWNTREND: Final = -1
BREAKOUT_DOWN: Final = -2

REGIME_NAMES: Final[dict[int, str]] = {
    NOISE: "NOISE",
    UPTREND: "UPTREND",
    BREAKOUT_UP: "BREAKOUT_UP",
    DOWNTREND: "DOWNTREND",
    BREAKOUT_DOWN: "BREAKOUT_DOWN",
}
"""Regime code to the name written into trades and logs."""


def calculate_er(closes: npt.ArrayLike, period: int = 10) -> FloatArray:
    """Return the efficiency ratio, in [0, 1], from bar ``period`` on.

    ``abs(C_t - C_{t-n}) / sum of the last n abs(C_k - C_{k-1})``, net move over path length; 0
    where the path length is 0 (Kaufman 1995).
    """
    (close,) = as_series(closes=closes)
    return er_series(close, check_period("period", period))


def calculate_kama(
    closes: npt.ArrayLike, er: npt.ArrayLike, fast_period: int = 2, slow_period: int = 30
) -> FloatArray:
    """Return Kaufman's adaptive moving average, in price.

    ``KAMA_t = KAMA_{t-1} + SC*(C_t - KAMA_{t-1})`` with
    ``SC = (ER*(2/(fast+1) - 2/(slow+1)) + 2/(slow+1))^2`` (Kaufman 1995). With ``n`` the first
    bar that has a finite ``er``, it starts from ``KAMA_{n-1} = C_{n-1}``, which is not part of
    the answer: the first value is at bar n.
    """
    close, ratio = as_series(closes=closes, er=er)
    fast_period = check_period("fast_period", fast_period)
    slow_period = check_period("slow_period", slow_period)
    return kama_series(close, ratio, fast_period, slow_period)


def detect_regime(
    kama: npt.ArrayLike,
    er: npt.ArrayLike,
    atr: npt.ArrayLike,
    threshold: float = 0.15,
    er_trend_thresh: float = 0.5,
) -> IntArray:
    """Return the raw regime of every bar, before ADX veto and hysteresis.

    With ``slope = (KAMA_t - KAMA_{t-1})/ATR_t``, 0 where ATR is 0, in this order: breakout where
    ``abs(slope) > 2*threshold``; trend where ``abs(slope) > threshold`` and
    ``er > er_trend_thresh``; else, and where an input is NaN, NOISE. The slope's sign decides
    between up and down.

    Args:
        kama: in price.
        er: efficiency ratio.
        atr: in price.
        threshold: slope of a trend, in ATR per bar.
        er_trend_thresh: efficiency ratio of a trend.
    """
    average, ratio, ranges = as_series(kama=kama, er=er, atr=atr)
    slope = slope_series(average, ranges)
    return regime_series(slope, ratio, float(threshold), float(er_trend_thresh))


@kernel
def er_series(close: FloatArray, period: int) -> FloatArray:
    """See :func:`calculate_er`."""
    n = close.size
    out = np.full(n, math.nan)
    for i in range(period, n):
        path = 0.0
        for k in range(i - period + 1, i + 1):
            path += abs(close[k] - close[k - 1])
        net = abs(close[i] - close[i - period])
        if math.isnan(path):
            continue
        # A straight path can sum to a rounding error less than the net move.
        out[i] = (net / path if net < path else 1.0) if path > 0.0 else 0.0
    return out


@kernel
def kama_series(close: FloatArray, er: FloatArray, fast: int, slow: int) -> FloatArray:
    """See :func:`calculate_kama`."""
    n = close.size
    out = np.full(n, math.nan)
    fast_sc = 2.0 / (fast + 1.0)
    slow_sc = 2.0 / (slow + 1.0)
    first = 0
    while first < n and not math.isfinite(er[first]):
        first += 1
    if first == n:
        return out
    kama = close[max(first - 1, 0)]
    for i in range(first, n):
        root = er[i] * (fast_sc - slow_sc) + slow_sc
        kama += root * root * (close[i] - kama)
        out[i] = kama
    return out


@kernel
def slope_series(kama: FloatArray, atr: FloatArray) -> FloatArray:
    """Return ``(KAMA_t - KAMA_{t-1})/ATR_t``, in ATR per bar; 0 where ATR is 0."""
    n = kama.size
    out = np.full(n, math.nan)
    for i in range(1, n):
        change = kama[i] - kama[i - 1]
        if not math.isnan(change):
            out[i] = change / atr[i] if atr[i] != 0.0 else 0.0
    return out


@kernel
def classify_regime(slope: float, er: float, threshold: float, er_trend_thresh: float) -> int:
    """Return the raw regime of one bar; see :func:`detect_regime`."""
    if math.isnan(slope) or math.isnan(er):
        return NOISE
    if abs(slope) > 2.0 * threshold:
        return BREAKOUT_UP if slope > 0.0 else BREAKOUT_DOWN
    if abs(slope) > threshold and er > er_trend_thresh:
        return UPTREND if slope > 0.0 else DOWNTREND
    return NOISE


@kernel
def regime_series(
    slope: FloatArray, er: FloatArray, threshold: float, er_trend_thresh: float
) -> IntArray:
    """Return :func:`classify_regime` of every bar."""
    n = slope.size
    out = np.zeros(n, np.int64)
    for i in range(n):
        out[i] = classify_regime(slope[i], er[i], threshold, er_trend_thresh)
    return out
