"""Effective number of trials: how many independent ones a search is worth.

A search tries mostly variations of one thing. Trials whose daily returns move together are fewer in
the arithmetic of luck: between the number of all of them, if they have nothing in common, and one,
if they are the same.

Source: Bailey and Lopez de Prado, "The Deflated Sharpe Ratio", Journal of Portfolio Management
40(5), 2014, appendix 3: ``N = r + (1 - r) * M`` with ``r`` the mean correlation of M trials. It
follows the correlation without a jump, which a number of clusters does not, and counts a few groups
of equal trials as more than these few: the strict side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backtest.optimize.judge.deflated_sharpe import MIN_DAYS, as_matrix, varying_columns


@dataclass(frozen=True, kw_only=True)
class EffectiveTrials:
    """The effective number of trials.

    Attributes:
        number: rounded up; at least 1.
        correlation: mean of all pairs, 0 where it is negative; NaN where there is none.
        left_out: trials with constant returns or a day without a value.
        reason: why every trial counts as its own; empty if they were correlated.
    """

    number: int
    left_out: int
    correlation: float = math.nan
    reason: str = ""


def effective_trials(returns: npt.ArrayLike) -> EffectiveTrials:
    """Return the effective number of trials by their daily returns.

    The mean of all correlations is taken from the variance of the sum of the standardised returns,
    ``(var(sum) - M) / (M (M - 1))``, without a matrix of all pairs.

    Args:
        returns: daily returns of the trials, shape ``(n_days, n_trials)``.

    Raises:
        DataError: ``returns`` are not a matrix.
    """
    matrix = as_matrix(returns)
    used = matrix[:, varying_columns(matrix)]
    count = used.shape[1]
    left_out = matrix.shape[1] - count
    if count <= 1:
        reason = "fewer than two trials have returns that vary: nothing to tell apart"
        return EffectiveTrials(number=1, left_out=left_out, reason=reason)
    if len(used) < MIN_DAYS:
        reason = f"{len(used)} days are too few to correlate: at least {MIN_DAYS}"
        return EffectiveTrials(number=count, left_out=left_out, reason=reason)
    scaled = used / np.abs(used).max(axis=0)  # squares of tiny returns would vanish
    standard = (scaled - scaled.mean(axis=0)) / scaled.std(axis=0)
    common = (float(standard.sum(axis=1).var()) - count) / (count * (count - 1))
    correlation = min(max(common, 0.0), 1.0)
    number = math.ceil(correlation + (1.0 - correlation) * count - 1e-9)
    return EffectiveTrials(number=number, left_out=left_out, correlation=correlation)
