"""Average true range, and the window means that are scaled by it or taken over it.

Public functions accept lists, Series or arrays of bars, oldest first, and answer a float64 array
``(n_bars,)`` that is causal and NaN until warm. The ``*_series`` kernels below them take float64
arrays as they are, unchecked.
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from core.errors import ConfigError, DataError
from core.jit import kernel

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]

MEAN_WINDOW: Final = 672
"""Bars in the ATR mean and the volume ratio: 7 days of 15 minutes."""
MEAN_MIN_COUNT: Final = 28
"""Finite values those means need at the start of the data."""


def as_series(**columns: npt.ArrayLike) -> list[FloatArray]:
    """Return fresh, contiguous float64 copies of ``columns``, in order.

    Copies, because kernels are compiled for writable contiguous arrays and pandas hands out
    read-only ones.

    Raises:
        DataError: a column is not one row of numbers, or the lengths differ.
    """
    series = []
    for name, values in columns.items():
        try:
            column = np.array(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{name} holds something that is not a number ({error}); pass floats, NaN for none"
            ) from None
        if column.ndim != 1:
            raise DataError(
                f"{name} has shape {column.shape} but must be one row of values (n_bars,); "
                "pass a single column"
            )
        series.append(column)
    if len({len(column) for column in series}) > 1:
        lengths = ", ".join(f"{n} {len(c)}" for n, c in zip(columns, series, strict=True))
        raise DataError(
            f"columns of different lengths ({lengths}) must have one value per bar each; "
            "pass columns of one table"
        )
    return series


def as_times(ts_ms: npt.ArrayLike, n_bars: int) -> IntArray:
    """Return a fresh int64 copy of the open times of ``n_bars`` bars, in ms UTC.

    Raises:
        DataError: there is not exactly one time per bar.
    """
    times = np.array(ts_ms, dtype=np.int64)
    if times.shape != (n_bars,):
        raise DataError(
            f"ts_ms has shape {times.shape} but must be ({n_bars},), one open time per bar; "
            "pass columns of one table"
        )
    return times


def check_period(name: str, value: int, least: int = 1) -> int:
    """Return ``value`` as a plain int.

    Raises:
        ConfigError: it is not a whole number of at least ``least`` bars.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name} = {value!r} must be a whole number of at least {least} bars")
    return int(value)


def calculate_atr(
    highs: npt.ArrayLike, lows: npt.ArrayLike, closes: npt.ArrayLike, period: int = 14
) -> FloatArray:
    """Return Wilder's average true range, in price, from bar ``period`` on.

    ``TR_t = max(H-L, abs(H-C'), abs(L-C'))`` from bar 1 on; the first value is the mean of the
    first ``period`` true ranges; then ``ATR = ATR' + (TR - ATR')/period`` (Wilder 1978, ch. III).
    """
    high, low, close = as_series(highs=highs, lows=lows, closes=closes)
    return atr_series(high, low, close, check_period("period", period))


def calculate_z_score(closes: npt.ArrayLike, atr: npt.ArrayLike, period: int = 20) -> FloatArray:
    """Return ``(C - mean of the last period closes) / ATR``, in ATRs; 0 where ATR is 0."""
    close, ranges = as_series(closes=closes, atr=atr)
    return z_score_series(close, ranges, check_period("period", period))


def calculate_rolling_volatility(closes: npt.ArrayLike, period: int = 14) -> FloatArray:
    """Return the sample standard deviation (ddof 1) of the last ``period`` log returns, per bar.

    The first value is at bar ``period``. A close that is not positive has no log return.
    """
    (close,) = as_series(closes=closes)
    return volatility_series(close, check_period("period", period, least=2))


def calculate_rolling_mean(
    values: npt.ArrayLike, window: int = MEAN_WINDOW, min_count: int = MEAN_MIN_COUNT
) -> FloatArray:
    """Return the mean of the finite ones among the last ``window`` values.

    NaN where fewer than ``min_count`` of them are finite.
    """
    (series,) = as_series(values=values)
    window, min_count = check_period("window", window), check_period("min_count", min_count)
    return rolling_mean_series(series, window, min_count)


@kernel
def true_range(high: float, low: float, prev_close: float) -> float:
    """Return Wilder's true range, in price."""
    return max(high - low, abs(high - prev_close), abs(low - prev_close))


@kernel
def atr_series(high: FloatArray, low: FloatArray, close: FloatArray, period: int) -> FloatArray:
    """See :func:`calculate_atr`."""
    n = close.size
    out = np.full(n, math.nan)
    total = 0.0
    atr = 0.0
    for i in range(1, n):
        tr = true_range(high[i], low[i], close[i - 1])
        if i < period:
            total += tr
            continue
        atr = (total + tr) / period if i == period else atr + (tr - atr) / period
        out[i] = atr
    return out


@kernel
def z_score_series(close: FloatArray, atr: FloatArray, period: int) -> FloatArray:
    """See :func:`calculate_z_score`."""
    n = close.size
    out = np.full(n, math.nan)
    for i in range(period - 1, n):
        # Each window is summed afresh: short, and free of what came before it.
        total = 0.0
        for k in range(i - period + 1, i + 1):
            total += close[k]
        distance = close[i] - total / period
        if math.isnan(distance):
            continue
        out[i] = distance / atr[i] if atr[i] != 0.0 else 0.0
    return out


@kernel
def log_return_series(close: FloatArray, lag: int) -> FloatArray:
    """Return ``ln(C_t / C_{t-lag})``; NaN where a close is not positive."""
    n = close.size
    out = np.full(n, math.nan)
    for i in range(lag, n):
        if close[i] > 0.0 and close[i - lag] > 0.0:
            out[i] = math.log(close[i] / close[i - lag])
    return out


@kernel
def volatility_series(close: FloatArray, period: int) -> FloatArray:
    """See :func:`calculate_rolling_volatility`."""
    n = close.size
    out = np.full(n, math.nan)
    returns = log_return_series(close, 1)
    for i in range(period, n):
        total = 0.0
        for k in range(i - period + 1, i + 1):
            total += returns[k]
        mean = total / period
        squares = 0.0
        for k in range(i - period + 1, i + 1):
            deviation = returns[k] - mean
            squares += deviation * deviation
        out[i] = math.sqrt(squares / (period - 1.0))
    return out


@kernel
def rolling_mean_series(values: FloatArray, window: int, min_count: int) -> FloatArray:
    """See :func:`calculate_rolling_mean`.

    A running sum in two parts, the sum and what rounding took from it (Knuth's TwoSum, exact;
    Neumaier 1974). Their total errs by some 1e-27 of the largest value so far, so the mean is the
    same to the last bit wherever the series starts: a live buffer agrees with the full history.
    """
    n = values.size
    out = np.full(n, math.nan)
    total = 0.0
    lost = 0.0
    n_finite = 0
    n_nonzero = 0
    for i in range(n):
        for step in range(2):
            k = i - step * window
            if k < 0 or not math.isfinite(values[k]):
                continue
            sign = 1 - 2 * step  # the new value enters, then the one that leaves the window
            term = sign * values[k]
            moved = total + term
            shift = moved - total
            lost += (total - (moved - shift)) + (term - shift)
            total = moved
            n_finite += sign
            if term != 0.0:
                n_nonzero += sign
        if n_nonzero == 0:  # exactly zero, not the last trace of a remainder
            total = 0.0
            lost = 0.0
        if n_finite >= min_count:
            out[i] = (total + lost) / n_finite
    return out


@kernel
def relative_atr_series(atr: FloatArray, close: FloatArray) -> FloatArray:
    """Return ``ATR/C``; NaN where the close is not positive."""
    n = close.size
    out = np.full(n, math.nan)
    for i in range(n):
        if close[i] > 0.0:
            out[i] = atr[i] / close[i]
    return out


@kernel
def volume_ratio_series(volume: FloatArray, window: int, min_count: int) -> FloatArray:
    """Return ``V_t`` over the mean of the last ``window`` volumes, ``V_t`` included.

    1 where that mean is 0; NaN where fewer than ``min_count`` of them are finite.
    """
    n = volume.size
    out = np.full(n, math.nan)
    mean = rolling_mean_series(volume, window, min_count)
    for i in range(n):
        if not math.isnan(mean[i]):
            out[i] = volume[i] / mean[i] if mean[i] != 0.0 else 1.0
    return out
