"""Raw regime from a Gaussian mixture: the alternative to the KAMA slope."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from core.atr import (
    FloatArray,
    IntArray,
    as_series,
    as_times,
    log_return_series,
    relative_atr_series,
)
from core.gaussian_mixture import COMPONENTS, GaussianMixture, fit_gaussian_mixture
from core.kama import DOWNTREND, NOISE, UPTREND
from core.times import BAR_MS, DAY_MS

GMM_WINDOW: Final = 2_880
"""Bars a fit sees: 30 days of 15 minutes."""
GMM_RETURN_BARS: Final = 24
"""Bars in the log return."""
GMM_LEAST_SPREAD: Final = 1e-12
"""Mean returns (log) closer than this differ by rounding only, and order nothing."""


def calculate_gmm_regime(
    ts_ms: npt.ArrayLike,
    closes: npt.ArrayLike,
    atr: npt.ArrayLike,
    seed: int = 42,
    *,
    bar_ms: int = BAR_MS,
) -> IntArray:
    """Return the raw regime of every bar: UPTREND, DOWNTREND or NOISE, shape ``(n_bars,)``.

    At the first bar that closes at or after 00:00 UTC a mixture of three Gaussians with full
    covariance is fitted to (24-bar log return, ATR/close) of the last 2,880 bars, that bar
    included; it serves from that bar until the next refit. The component with the highest mean
    return is UPTREND, the one with the lowest DOWNTREND. NOISE before the first fit, while the
    mixture cannot be fitted (flat prices), and where an input is not finite.

    Args:
        ts_ms: open times, ms UTC, ascending.
        closes: in price.
        atr: in price.
        seed: random state of the mixture.
        bar_ms: length of a bar.
    """
    close, ranges = as_series(closes=closes, atr=atr)
    times = as_times(ts_ms, close.size)
    features = gmm_features(close, ranges)
    usable = np.isfinite(features[:, 0]) & np.isfinite(features[:, 1])
    regime = np.full(close.size, NOISE, dtype=np.int64)
    for start, stop in pairwise([*refit_bars(times, bar_ms), close.size]):
        window = slice(start + 1 - GMM_WINDOW, start + 1)
        model = fit_mixture(features[window][usable[window]], seed)
        served = start + np.flatnonzero(usable[start:stop])
        if model is not None:
            regime[served] = component_regimes(model)[model.predict(features[served])]
    return regime


def gmm_features(close: FloatArray, atr: FloatArray) -> FloatArray:
    """Return (24-bar log return, ATR/close), shape ``(n_bars, 2)``, unscaled."""
    log_return = log_return_series(close, GMM_RETURN_BARS)
    return np.column_stack((log_return, relative_atr_series(atr, close)))


def refit_bars(ts_ms: IntArray, bar_ms: int = BAR_MS) -> npt.NDArray[np.intp]:
    """Return the bars at which a mixture is fitted, ascending.

    These are the first bars that close at or after a 00:00 UTC, as far as they and the bars
    behind them make up ``GMM_WINDOW``.
    """
    close_day = (ts_ms + bar_ms) // DAY_MS
    bars = np.flatnonzero(close_day[1:] > close_day[:-1]) + 1
    return bars[bars + 1 >= GMM_WINDOW]


def fit_mixture(rows: FloatArray, seed: int) -> GaussianMixture | None:
    """Return the mixture of three Gaussians fitted to ``rows``, or None.

    None where it cannot be fitted, or does not tell a rising component from a falling one. A fit
    that stops at the limit of iterations counts: its components are ordered all the same.
    """
    model = fit_gaussian_mixture(rows, seed)
    if model is None or not np.ptp(model.means[:, 0]) > GMM_LEAST_SPREAD:
        return None
    return model


def component_regimes(model: GaussianMixture) -> IntArray:
    """Return the regime of each component of ``model``, by mean return, shape ``(3,)``."""
    mean_return = model.means[:, 0]
    regimes = np.full(COMPONENTS, NOISE, dtype=np.int64)
    regimes[mean_return.argmax()] = UPTREND
    regimes[mean_return.argmin()] = DOWNTREND
    return regimes
