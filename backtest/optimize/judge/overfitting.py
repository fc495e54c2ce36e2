"""Probability of backtest overfitting by combinatorially symmetric cross-validation (CSCV).

The days are cut into blocks; every half of the blocks is taken once as "in sample", where the best
trial is chosen, and the other half shows where that choice ranks. Choosing is worth nothing when
the chosen trial lies in the lower half as often as in the upper one.

Source: Bailey, Borwein, Lopez de Prado and Zhu, "The Probability of Backtest Overfitting", Journal
of Computational Finance 20(4), 2017, section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata  # type: ignore[import-untyped]  # no stubs

from backtest.optimize.judge.block_bootstrap import stationary_places
from backtest.optimize.judge.deflated_sharpe import MIN_DAYS, Bools, Floats, as_matrix
from core.errors import ConfigError

BLOCKS: Final = 10
MAX_BLOCKS: Final = 16
"""12,870 splits; two blocks more would be 48,620."""
MIN_TRIALS: Final = 2
REPS: Final = 40
"""Draws of days for the interval."""
_FLAT: Final = 1e-12
"""A variance below this share of the mean square is rounding."""
_CHUNK: Final = 256
"""Splits worked on at a time, which bounds memory to about 2 kB per trial and array."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Overfitting:
    """The probability of backtest overfitting and what it was made of.

    Attributes:
        pbo: share of the splits in which the trial chosen in sample ranks in the lower half out of
            sample; one exactly in the middle counts half.
        logits: ``ln(w / (1 - w))`` of the chosen trial's relative rank out of sample,
            ``w = rank / (n_trials + 1)``, shape ``(n_splits,)``; positive: upper half.
        in_sample: the chosen trial's daily Sharpe ratio in sample, shape ``(n_splits,)``.
        out_of_sample: the same out of sample.
        loss_probability: share of the splits in which the chosen trial loses out of sample.
        n_days: of the returns.
        n_trials: that were compared.
        dropped: trials left out because a day of theirs has no value.
        low: 5 % point of ``pbo`` over days drawn again in blocks; NaN where it was not asked for.
        high: 95 % point.
        reason: why there is no ``pbo`` (it is NaN then); empty if there is one.
    """

    n_days: int
    n_trials: int
    dropped: int
    pbo: float = math.nan
    loss_probability: float = math.nan
    low: float = math.nan
    high: float = math.nan
    logits: Floats = field(default_factory=lambda: np.empty(0))
    in_sample: Floats = field(default_factory=lambda: np.empty(0))
    out_of_sample: Floats = field(default_factory=lambda: np.empty(0))
    reason: str = ""


def probability_of_overfitting(returns: npt.ArrayLike, blocks: int = BLOCKS) -> Overfitting:
    """Return the probability of backtest overfitting of choosing by Sharpe ratio.

    A trial without a trade has the Sharpe ratio 0, on its constant days too: doing nothing is a
    choice, better than losing. Where several trials are best in sample, their ranks out of sample
    are averaged. Blocks are whole days in order, their lengths differ by one day at most.

    Args:
        returns: daily returns of the trials, shape ``(n_days, n_trials)``.
        blocks: S, even; there are S choose S/2 splits.

    Returns:
        the probability; NaN with a ``reason`` for fewer than two trials or 60 days (30 a half).

    Raises:
        ConfigError: ``blocks`` is odd or outside [2, 16].
        DataError: ``returns`` are not a matrix.
    """
    if blocks % 2 or not 2 <= blocks <= MAX_BLOCKS:  # noqa: PLR2004 - two halves
        raise ConfigError(f"blocks = {blocks} must be an even number from 2 to {MAX_BLOCKS}")
    matrix = as_matrix(returns)
    finite = np.isfinite(matrix).all(axis=0)
    kept = matrix[:, finite]
    days, trials = kept.shape
    dropped = int((~finite).sum())
    if problem := _problem(days, trials):
        return Overfitting(n_days=days, n_trials=trials, dropped=dropped, reason=problem)
    logits, inside, outside = _walk_splits(kept, blocks)
    below = (logits < 0.0) + 0.5 * (logits == 0.0)
    return Overfitting(
        n_days=days,
        n_trials=trials,
        dropped=dropped,
        pbo=float(below.mean()),
        loss_probability=float((outside < 0.0).mean()),
        logits=logits,
        in_sample=inside,
        out_of_sample=outside,
    )


def with_interval(
    found: Overfitting, returns: npt.ArrayLike, seed: int, reps: int = REPS
) -> Overfitting:
    """Return ``found`` with the interval of its probability: how much the days at hand decide.

    The days are drawn again in blocks, the same for all trials (stationary bootstrap, see
    ``block_bootstrap``), and the probability is computed anew. Drawing days again mixes the halves,
    so a choice looks a little better out of sample than it is: the interval leans to small values.
    It is widened to hold the probability itself.

    Args:
        found: of the same returns.
        returns: daily returns of the trials, shape ``(n_days, n_trials)``.
        seed: of the draws.
        reps: draws.
    """
    if found.reason:
        return found
    matrix = as_matrix(returns)
    kept = matrix[:, np.isfinite(matrix).all(axis=0)]
    places = stationary_places(len(kept), reps, np.random.default_rng(seed))
    drawn = [probability_of_overfitting(kept[rows]).pbo for rows in places]
    low, high = np.quantile(drawn, (0.05, 0.95))
    return replace(found, low=min(float(low), found.pbo), high=max(float(high), found.pbo))


def _problem(days: int, trials: int) -> str:
    if trials < MIN_TRIALS:
        return f"trials with a return on every day: {trials}; to choose takes at least {MIN_TRIALS}"
    if days < 2 * MIN_DAYS:
        return f"{days} days are too few: at least {2 * MIN_DAYS}, {MIN_DAYS} for each half"
    return ""


def _walk_splits(returns: Floats, blocks: int) -> tuple[Floats, Floats, Floats]:
    """Return logit, Sharpe ratio in sample and out of sample of every split's choice."""
    cuts = np.arange(blocks + 1) * len(returns) // blocks
    counts = np.diff(cuts).astype(np.float64)
    sums = np.add.reduceat(returns, cuts[:-1], axis=0)
    squares = np.add.reduceat(returns * returns, cuts[:-1], axis=0)
    chosen = _halves(blocks)
    found = []
    for start in range(0, len(chosen), _CHUNK):
        part = chosen[start : start + _CHUNK]
        inside = _half_sharpes(part, counts, sums, squares)
        outside = _half_sharpes(~part, counts, sums, squares)
        found.append(_judge_choices(inside, outside))
    logits, best, then = np.concatenate(found, axis=1)
    return logits, best, then


def _halves(blocks: int) -> Bools:
    """Return every choice of half of the blocks, shape ``(n_splits, blocks)``."""
    picks = list(combinations(range(blocks), blocks // 2))
    chosen = np.zeros((len(picks), blocks), np.bool_)
    chosen[np.arange(len(picks))[:, None], picks] = True
    return chosen


def _half_sharpes(chosen: Bools, counts: Floats, sums: Floats, squares: Floats) -> Floats:
    """Return every trial's daily Sharpe ratio over the chosen blocks, ``(n_splits, n_trials)``.

    Block by block instead of one matrix product, so that equal trials get equal ratios to the last
    bit and ties stay ties. The variance is that of the days (ddof 1); constant days have the ratio
    0 if they are zero, else plus or minus infinity.
    """
    total = np.zeros((len(chosen), sums.shape[1]))
    square = np.zeros_like(total)
    for taken, block_sum, block_square in zip(chosen.T, sums, squares, strict=True):
        total += taken[:, None] * block_sum
        square += taken[:, None] * block_square
    days = (chosen @ counts)[:, None]
    mean = total / days
    variance = (square - days * mean * mean) / (days - 1.0)
    flat = variance <= _FLAT * square / days
    ratio: Floats = mean / np.sqrt(np.where(flat, 1.0, variance))
    ratio[flat] = np.where(mean[flat] == 0.0, 0.0, np.copysign(np.inf, mean[flat]))
    return ratio


def _judge_choices(inside: Floats, outside: Floats) -> Floats:
    """Return logit, ratio in sample and ratio out of sample of the best, shape ``(3, n_splits)``.

    Ranks out of sample run from 1 (worst) to ``n_trials``; equal trials share their mean rank.
    """
    highest = inside.max(axis=1)
    best = inside == highest[:, None]
    tied = best.sum(axis=1)
    rank = (rankdata(outside, axis=1) * best).sum(axis=1) / tied
    relative = rank / (inside.shape[1] + 1.0)
    then = np.where(best, outside, 0.0).sum(axis=1) / tied
    return np.stack((np.log(relative / (1.0 - relative)), highest, then))
