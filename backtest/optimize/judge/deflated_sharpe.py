"""Deflated Sharpe ratio: is the best Sharpe ratio of many trials more than the luck of choosing?

Everything here is per day: Sharpe ratios are mean / standard deviation of daily returns, not
annualised. An annual one is the daily one times sqrt(days per year); an annualised variance of
Sharpe ratios is the daily one times the days per year.

Source: Bailey and Lopez de Prado, "The Deflated Sharpe Ratio: Correcting for Selection Bias,
Backtest Overfitting and Non-Normality", Journal of Portfolio Management 40(5), 2014.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from core.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

MIN_DAYS: Final = 30
"""Days below which neither a Sharpe ratio nor a correlation is worth computing."""
EULER_MASCHERONI: Final = 0.5772156649015329
_ROUNDING: Final = 1e-12
"""Returns that differ by less than this share of the largest one differ by rounding only."""
_NORMAL: Final = NormalDist()


@dataclass(frozen=True, kw_only=True)
class DeflatedSharpe:
    """The deflated Sharpe ratio of one series of daily returns.

    Attributes:
        sharpe: of the returns, per day.
        sr0: the Sharpe ratio per day that the best of ``n_trials`` worthless trials is expected
            to have.
        psr: probability that the true Sharpe ratio is above 0, were this the only trial.
        dsr: probability that the true Sharpe ratio is above ``sr0``.
        n_days: of the returns.
        n_trials: trials it was chosen from.
        variance: of the trials' daily Sharpe ratios.
        skewness: of the returns; normal 0.
        kurtosis: of the returns, not in excess; normal 3.
        reason: why there is no ``dsr`` (it is NaN then); empty if there is one.
    """

    n_days: int
    n_trials: int
    sharpe: float = math.nan
    sr0: float = math.nan
    psr: float = math.nan
    dsr: float = math.nan
    variance: float = math.nan
    skewness: float = math.nan
    kurtosis: float = math.nan
    reason: str = ""


def expected_max_sharpe(n_trials: int, variance: float) -> float:
    """Return the expected highest Sharpe ratio of trials that are all worthless.

    ``SR0 = sqrt(V) * ((1 - g) * Z(1 - 1/N) + g * Z(1 - 1/(N*e)))`` with ``Z`` the normal quantile
    and ``g`` the Euler-Mascheroni constant (Bailey and Lopez de Prado 2014, equation 1). For
    ``N = 1``, where nothing is chosen and the formula has no value, it is 0.

    Args:
        n_trials: N, independent trials.
        variance: V, of the trials' Sharpe ratios; the answer is in the unit of its root.

    Raises:
        ConfigError: fewer than one trial, or no variance.
    """
    _require_trials(n_trials)
    if not (math.isfinite(variance) and variance >= 0.0):
        raise ConfigError(f"variance = {variance} of the trials' Sharpe ratios must be >= 0")
    if n_trials == 1:
        return 0.0
    first = _NORMAL.inv_cdf(1.0 - 1.0 / n_trials)
    second = _NORMAL.inv_cdf(1.0 - 1.0 / (n_trials * math.e))
    return math.sqrt(variance) * ((1.0 - EULER_MASCHERONI) * first + EULER_MASCHERONI * second)


def probabilistic_sharpe(
    sharpe: float, benchmark: float, n_days: int, skewness: float, kurtosis: float
) -> float:
    """Return the probability that the true Sharpe ratio is above ``benchmark``.

    ``Phi((SR - SR*) * sqrt(T - 1) / sqrt(1 - g3*SR + (g4 - 1)/4 * SR^2))`` (Bailey and Lopez de
    Prado, "The Sharpe Ratio Efficient Frontier", Journal of Risk 15(2), 2012, section 3). Days
    count as independent of each other: where they are not, it claims too much.

    Args:
        sharpe: SR, observed, per day.
        benchmark: SR*, per day.
        n_days: T.
        skewness: g3 of the daily returns.
        kurtosis: g4 of the daily returns, 3 if they are normal.

    Returns:
        the probability; NaN where the observed ratio has no standard error.
    """
    spread = 1.0 - skewness * sharpe + (kurtosis - 1.0) / 4.0 * sharpe * sharpe
    if n_days < 2 or not spread > 0.0:  # noqa: PLR2004 - one day has no spread
        return math.nan
    return _NORMAL.cdf((sharpe - benchmark) * math.sqrt(n_days - 1) / math.sqrt(spread))


def deflated_sharpe(
    returns: npt.ArrayLike,
    n_trials: int,
    *,
    trial_sharpes: npt.ArrayLike | None = None,
    variance: float | None = None,
) -> DeflatedSharpe:
    """Return the deflated Sharpe ratio of the chosen trial: ``PSR(SR0)`` (2014, equation 2).

    Args:
        returns: daily returns of the chosen trial, shape ``(n_days,)``.
        n_trials: independent trials it was chosen from (see ``effective_trials``); the number of
            all trials is the strict answer.
        trial_sharpes: daily Sharpe ratios of the trials, shape ``(n_trials_run,)``; those that are
            not finite have none and do not count. Either this or ``variance``.
        variance: of the trials' daily Sharpe ratios.

    Returns:
        the ratio and what it was made of; ``dsr`` NaN with a ``reason`` for fewer than 30 days,
        days without a value, constant returns, or fewer than two Sharpe ratios to choose from.

    Raises:
        ConfigError: fewer than one trial; both or neither of ``trial_sharpes`` and ``variance``.
        DataError: ``returns`` are not one series.
    """
    _require_trials(n_trials)
    series = np.array(returns, dtype=np.float64)
    if series.ndim != 1:
        raise DataError(f"returns of shape {series.shape} must be one series of daily returns")
    spread = _variance_of_trials(n_trials, trial_sharpes, variance)
    days = len(series)
    if problem := _problem(series):
        return DeflatedSharpe(n_days=days, n_trials=n_trials, variance=spread, reason=problem)
    sharpe = float(daily_sharpes(series[:, None])[0])
    skewness, kurtosis = _shape(series)
    luck = math.nan if math.isnan(spread) else expected_max_sharpe(n_trials, spread)
    dsr = probabilistic_sharpe(sharpe, luck, days, skewness, kurtosis)
    psr = probabilistic_sharpe(sharpe, 0.0, days, skewness, kurtosis)
    reason = ""
    if math.isnan(spread):
        reason = "fewer than two trials have a Sharpe ratio, so there is no variance among them"
    elif math.isnan(dsr):
        reason = "two returns take turns: the Sharpe ratio has no standard error"
    return DeflatedSharpe(
        n_days=days,
        n_trials=n_trials,
        sharpe=sharpe,
        sr0=luck,
        psr=psr,
        dsr=dsr,
        variance=spread,
        skewness=skewness,
        kurtosis=kurtosis,
        reason=reason,
    )


def daily_sharpes(returns: Floats) -> Floats:
    """Return mean / standard deviation (ddof 1) of every column, shape ``(n_trials,)``.

    Args:
        returns: daily, shape ``(n_days, n_trials)``.

    Returns:
        per day; NaN for a column that is constant or has a day without a value.
    """
    usable = varying_columns(returns)
    sharpes = np.full(returns.shape[1], np.nan)
    kept = returns[:, usable]
    sharpes[usable] = kept.mean(axis=0) / kept.std(axis=0, ddof=1) if usable.any() else np.nan
    return sharpes


def varying_columns(returns: Floats) -> Bools:
    """Return which columns are finite on every day and not constant, shape ``(n_trials,)``."""
    if len(returns) == 0:
        return np.zeros(returns.shape[1], np.bool_)
    finite = np.isfinite(returns).all(axis=0)
    known = np.where(finite, returns, 0.0)
    spread = known.max(axis=0) - known.min(axis=0)
    varying: Bools = finite & (spread > _ROUNDING * np.abs(known).max(axis=0))
    return varying


def as_matrix(returns: npt.ArrayLike) -> Floats:
    """Return a copy of daily returns by trial, shape ``(n_days, n_trials)``.

    Raises:
        DataError: they have another number of dimensions.
    """
    matrix = np.array(returns, dtype=np.float64)
    if matrix.ndim != 2:  # noqa: PLR2004
        raise DataError(
            f"returns of shape {matrix.shape} must have two dimensions: days, then trials"
        )
    return matrix


def _require_trials(n_trials: int) -> None:
    if n_trials < 1:
        raise ConfigError(f"n_trials = {n_trials} must be at least 1")


def _variance_of_trials(
    n_trials: int, trial_sharpes: npt.ArrayLike | None, variance: float | None
) -> float:
    """Return the variance of the trials' Sharpe ratios; NaN if there are too few to tell."""
    if (trial_sharpes is None) == (variance is None):
        raise ConfigError("give the trials' Sharpe ratios or their variance: one, and not both")
    if variance is not None:
        return variance
    sharpes = np.array(trial_sharpes, dtype=np.float64)
    known = sharpes[np.isfinite(sharpes)]
    if len(known) > 1:
        return float(known.var(ddof=1))
    return 0.0 if n_trials == 1 else math.nan


def _problem(series: Floats) -> str:
    """Return why a series of daily returns has no Sharpe ratio; empty if it has one."""
    days = len(series)
    if days < MIN_DAYS:
        return f"{days} days are too few: at least {MIN_DAYS}"
    if missing := days - int(np.isfinite(series).sum()):
        return f"{missing} of {days} days have no return"
    if not varying_columns(series[:, None])[0]:
        return f"the return is the same on all {days} days: no Sharpe ratio"
    return ""


def _shape(series: Floats) -> tuple[float, float]:
    """Return skewness and kurtosis: third and fourth moment about the mean, standardised.

    Population moments: with them kurtosis >= 1 + skewness^2 (Pearson 1916) holds for every
    sample, so that the variance of the Sharpe ratio is never negative.
    """
    centred = series - series.mean()
    scaled = centred / math.sqrt(float((centred * centred).mean()))
    return float((scaled**3).mean()), float((scaled**4).mean())
