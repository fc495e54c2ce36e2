"""Signals: every indicator and the final regime of every bar, in one table.

The pieces are callable on their own, so that whoever changes one parameter recomputes only what
depends on it: ``compute_indicators`` (periods, ``regime_timeframe_mult``), ``compute_raw_regime``
(thresholds, mixture), ``settle_regime`` (veto and hysteresis).
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from core.adx import adx_series
from core.atr import (
    MEAN_MIN_COUNT,
    MEAN_WINDOW,
    FloatArray,
    IntArray,
    as_series,
    as_times,
    atr_series,
    relative_atr_series,
    rolling_mean_series,
    volatility_series,
    volume_ratio_series,
    z_score_series,
)
from core.jit import kernel
from core.kama import (
    BREAKOUT_DOWN,
    BREAKOUT_UP,
    NOISE,
    er_series,
    kama_series,
    regime_series,
    slope_series,
)
from core.params import StrategyParams
from core.records import dtype_of
from core.regime_gmm import calculate_gmm_regime
from core.times import BAR_MS


class Signal:
    """Everything known of one bar when it has closed."""

    er: float  # efficiency ratio of the last completed candle
    kama: float  # price; of the last completed candle
    atr: float  # price
    adx: float  # [0, 100]
    z: float  # ATRs from the mean close
    sigma: float  # standard deviation of log returns, per bar
    atr_mean: float  # 7-day mean of ATR/close
    volume_ratio: float  # volume over its 7-day mean
    regime: int  # core.kama code, after veto and hysteresis
    ready: bool  # all the floats have been finite at once, here or before


SignalArray: TypeAlias = npt.NDArray[np.record]
"""Structured array of ``Signal``, shape ``(n_bars,)``."""


def compute_signals(
    ts_ms: npt.ArrayLike,
    high: npt.ArrayLike,
    low: npt.ArrayLike,
    close: npt.ArrayLike,
    volume: npt.ArrayLike,
    params: StrategyParams,
    *,
    bar_ms: int = BAR_MS,
) -> SignalArray:
    """Return the table of ``Signal``, shape ``(n_bars,)``; row i uses bars up to i only.

    Args:
        ts_ms: open times of the bars, ms UTC, ascending; gaps are allowed.
        high: in price, like ``low`` and ``close``.
        low: see ``high``.
        close: see ``high``.
        volume: in base coin.
        params: periods, thresholds and switches.
        bar_ms: length of a bar.

    Raises:
        DataError: a column is not one row of numbers, or the lengths differ.
    """
    signals, slope = compute_indicators(ts_ms, high, low, close, volume, params, bar_ms=bar_ms)
    raw = compute_raw_regime(ts_ms, close, signals, slope, params, bar_ms=bar_ms)
    signals["regime"] = settle_regime(raw, signals["adx"], params)
    return signals


def compute_indicators(
    ts_ms: npt.ArrayLike,
    high: npt.ArrayLike,
    low: npt.ArrayLike,
    close: npt.ArrayLike,
    volume: npt.ArrayLike,
    params: StrategyParams,
    *,
    bar_ms: int = BAR_MS,
) -> tuple[SignalArray, FloatArray]:
    """Return (signals, slope): the table with its regime still NOISE, and the KAMA slope.

    The slope, in ATR per candle, is that of the last completed candle, like ``er`` and ``kama``.
    Arguments and errors as in :func:`compute_signals`.
    """
    highs, lows, closes, volumes = as_series(high=high, low=low, close=close, volume=volume)
    times = as_times(ts_ms, closes.size)
    er, kama, slope = trend_series(times, highs, lows, closes, params, bar_ms=bar_ms)
    atr = atr_series(highs, lows, closes, params.atr_period)
    relative_atr = relative_atr_series(atr, closes)
    columns = {
        "er": er,
        "kama": kama,
        "atr": atr,
        "adx": adx_series(highs, lows, closes, params.adx_period),
        "z": z_score_series(closes, atr, params.z_score_period),
        "sigma": volatility_series(closes, params.volatility_period),
        "atr_mean": rolling_mean_series(relative_atr, MEAN_WINDOW, MEAN_MIN_COUNT),
        "volume_ratio": volume_ratio_series(volumes, MEAN_WINDOW, MEAN_MIN_COUNT),
    }
    signals = np.zeros(closes.size, dtype_of(Signal))
    for name, column in columns.items():
        signals[name] = column
    signals["regime"] = NOISE
    signals["ready"] = _have_been_finite(list(columns.values()))
    return signals, slope


def trend_series(
    ts_ms: IntArray,
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    params: StrategyParams,
    *,
    bar_ms: int = BAR_MS,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return (er, kama, slope) of the last completed candle at every bar, each ``(n_bars,)``.

    Candles are ``regime_timeframe_mult`` bars long and aligned to UTC. NaN until one is complete
    and warm.
    """
    mult = params.regime_timeframe_mult
    if mult > 1:
        high, low, close, completed = aggregate_candles(ts_ms, high, low, close, mult, bar_ms)
    er = er_series(close, params.kama_period)
    kama = kama_series(close, er, params.kama_fast, params.kama_slow)
    slope = slope_series(kama, atr_series(high, low, close, params.atr_period))
    if mult == 1:
        return er, kama, slope
    return (
        read_completed(er, completed),
        read_completed(kama, completed),
        read_completed(slope, completed),
    )


def compute_raw_regime(
    ts_ms: npt.ArrayLike,
    close: npt.ArrayLike,
    signals: SignalArray,
    slope: FloatArray,
    params: StrategyParams,
    *,
    bar_ms: int = BAR_MS,
) -> IntArray:
    """Return the regime of every bar before veto and hysteresis, shape ``(n_bars,)``.

    From the KAMA slope or, with ``use_ml_regime``, the Gaussian mixture; NOISE throughout where
    the regime is switched off.

    Args:
        ts_ms: open times of the bars, ms UTC.
        close: in price.
        signals: as ``compute_indicators`` answers it.
        slope: as ``compute_indicators`` answers it.
        params: thresholds and switches.
        bar_ms: length of a bar.
    """
    if not params.regime_enabled:
        return np.full(slope.size, NOISE, dtype=np.int64)
    if params.use_ml_regime:
        return calculate_gmm_regime(ts_ms, close, signals["atr"], params.gmm_seed, bar_ms=bar_ms)
    er = np.array(signals["er"])
    return regime_series(slope, er, params.regime_threshold, params.er_trend_threshold)


def settle_regime(raw: IntArray, adx: npt.ArrayLike, params: StrategyParams) -> IntArray:
    """Return the final regime of every bar: ``raw`` after ADX veto, then hysteresis."""
    vetoed = np.array(raw, dtype=np.int64)
    if params.adx_veto_enabled:
        (strength,) = as_series(adx=adx)
        vetoed = veto_series(vetoed, strength, params.adx_trend_threshold)
    return hysteresis_series(vetoed, params.regime_hysteresis_bars)


@kernel
def is_breakout(regime: int) -> bool:
    """Return whether ``regime`` is a breakout of either direction."""
    return regime in (BREAKOUT_UP, BREAKOUT_DOWN)


@kernel
def veto_series(raw: IntArray, adx: FloatArray, threshold: float) -> IntArray:
    """Return ``raw`` with trends turned into NOISE where ADX is under ``threshold`` or NaN."""
    out = raw.copy()
    for i in range(raw.size):
        if not is_breakout(raw[i]) and not adx[i] >= threshold:
            out[i] = NOISE
    return out


@kernel
def hysteresis_series(raw: IntArray, bars: int) -> IntArray:
    """Return the current regime at every bar, NOISE before the first.

    It changes when the same other value has stood on ``bars`` successive bars, at once if that
    value is a breakout.
    """
    out = np.empty(raw.size, np.int64)
    current = NOISE
    standing = 0
    for i in range(raw.size):
        standing = standing + 1 if i > 0 and raw[i] == raw[i - 1] else 1
        if standing >= bars or is_breakout(raw[i]):
            current = raw[i]
        out[i] = current
    return out


@kernel
def aggregate_candles(
    ts_ms: IntArray, high: FloatArray, low: FloatArray, close: FloatArray, mult: int, bar_ms: int
) -> tuple[FloatArray, FloatArray, FloatArray, IntArray]:
    """Return (high, low, close, completed) of the candles of ``mult`` bars, aligned to UTC.

    A candle holds what bars there are of it, at least one. ``completed[i]``, shape ``(n_bars,)``,
    is the last candle that has ended when bar i closes, by its clock or because a bar of a later
    one exists; -1 if there is none.
    """
    n = close.size
    span = mult * bar_ms
    highs = np.empty(n)
    lows = np.empty(n)
    closes = np.empty(n)
    completed = np.empty(n, np.int64)
    candle = -1
    for i in range(n):
        if i == 0 or ts_ms[i] // span != ts_ms[i - 1] // span:
            candle += 1
            highs[candle] = high[i]
            lows[candle] = low[i]
        highs[candle] = max(highs[candle], high[i])
        lows[candle] = min(lows[candle], low[i])
        closes[candle] = close[i]
        ended = ts_ms[i] + bar_ms >= (ts_ms[i] // span + 1) * span
        completed[i] = candle if ended else candle - 1
    n_candles = candle + 1
    return highs[:n_candles].copy(), lows[:n_candles].copy(), closes[:n_candles].copy(), completed


@kernel
def read_completed(values: FloatArray, completed: IntArray) -> FloatArray:
    """Return ``values[completed[i]]`` for every bar i; NaN where no candle is complete."""
    out = np.full(completed.size, math.nan)
    for i in range(completed.size):
        if completed[i] >= 0:
            out[i] = values[completed[i]]
    return out


def _have_been_finite(columns: list[FloatArray]) -> npt.NDArray[np.bool_]:
    """Return whether all ``columns`` have been finite at once, at this bar or before."""
    finite = np.ones(columns[0].size, dtype=np.bool_)
    for column in columns:
        finite &= np.isfinite(column)
    return np.logical_or.accumulate(finite)
