"""How much of the choice is the luck of choosing among many: what the trials' daily returns say.

The deflated Sharpe ratio takes the variance that Sharpe ratios of worthless trials have by
sampling alone, ``1 / (n_days - 1)`` per day (Lo, "The Statistics of Sharpe Ratios", Financial
Analysts Journal 58(4), 2002, equation 9, at a ratio of 0). The variance across the trials at hand
holds their true differences too: the better the best ones are, the higher it would set the bar.

Measured on daily returns of Student's t with 5 degrees of freedom, equally correlated by r, of
which the best of M is judged at p < 0.05 among the effective number of trials (size: none has an
edge, 400 cases; power: true annual Sharpe ratios even between 0 and the one given, 100 cases; in
brackets with the variance across the trials and all trials counted):

====  ===  ===  =============  ============  ============  ============
days  M    r    size           Sharpe 2      Sharpe 4      Sharpe 8.7
====  ===  ===  =============  ============  ============  ============
365   60   0.5  0.3 % (1.8 %)  21 % (15 %)   84 % (44 %)   100 % (93 %)
365   200  0.9  0.5 % (5.0 %)  14 % (16 %)   80 % (31 %)   100 % (59 %)
1500  60   0.5  0.5 % (1.8 %)  87 % (50 %)   100 % (94 %)  100 %
1500  200  0.9  0.3 % (4.0 %)  83 % (36 %)   100 % (62 %)  100 % (97 %)
====  ===  ===  =============  ============  ============  ============
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backtest.optimize.judge.deflated_sharpe import DeflatedSharpe, deflated_sharpe
from backtest.optimize.judge.effective_trials import effective_trials
from backtest.optimize.judge.overfitting import (
    Overfitting,
    probability_of_overfitting,
    with_interval,
)
from backtest.optimize.judge.superior import SuperiorAbility, superior_predictive_ability
from backtest.optimize.search.study import FinishedTrial
from backtest.optimize.trial.prepare import Prepared
from backtest.optimize.trial.range_runs import RangeRun, run_range
from backtest.trust.compare import static_grid
from core.performance import bar_returns

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LuckOfChoosing:
    """The choice, once the number of trials is taken into account.

    Attributes:
        n_ever: trials ever run on this data.
        n_effective: how many different ones that were.
        raw: deflated Sharpe ratio of the choice, every trial counted.
        effective: the same, trials that move together counted less; the one to read.
        overfitting: probability of backtest overfitting among the trials.
        versus_nothing: is a trial better than not trading?
        versus_static: is a trial better than the grid without any mechanism?
    """

    n_ever: int
    n_effective: int
    raw: DeflatedSharpe
    effective: DeflatedSharpe
    overfitting: Overfitting
    versus_nothing: SuperiorAbility
    versus_static: SuperiorAbility


def measure_luck(
    trials: Sequence[FinishedTrial], choice: Floats, static: Floats, *, n_ever: int, seed: int
) -> LuckOfChoosing:
    """Return the statistics on daily returns before the holdout.

    Args:
        trials: of the study.
        choice: daily returns of the chosen parameters, shape (n_days,).
        static: of the static grid, shape (n_days,).
        n_ever: trials ever run on this data; those of the study at least count.
        seed: of the bootstrap.
    """
    returns = np.column_stack([item.outcome.daily_returns for item in trials])
    n_ever = max(n_ever, len(trials))
    # Of trials in other studies the returns are not known: as alike as those that are.
    alike = effective_trials(returns).number / len(trials)
    n_effective = min(n_ever, math.ceil(alike * n_ever))
    variance = 1.0 / max(len(returns) - 1, 1)
    return LuckOfChoosing(
        n_ever=n_ever,
        n_effective=n_effective,
        raw=deflated_sharpe(choice, n_ever, variance=variance),
        effective=deflated_sharpe(choice, n_effective, variance=variance),
        overfitting=with_interval(probability_of_overfitting(returns), returns, seed),
        versus_nothing=superior_predictive_ability(returns, np.zeros(len(returns)), seed),
        versus_static=superior_predictive_ability(returns, static, seed),
    )


def static_grid_returns(prepared: Prepared) -> Floats:
    """Return daily returns of the static grid on all bars before the holdout, shape (n_days,).

    Geometry, size limits and costs are those of the parameters that are not searched.
    """
    params = (prepared.how.static or static_grid)(prepared.params)
    runs = {coin: run_range(data, prepared.how, params) for coin, data in prepared.data.items()}
    return _returns_at(runs, prepared.plan.day_ends_ms, params.initial_capital)


def _returns_at(
    runs: Mapping[str, RangeRun], day_ends_ms: npt.NDArray[np.int64], initial: float
) -> Floats:
    equity = np.sum([run.equity_at(day_ends_ms) for run in runs.values()], axis=0)
    return bar_returns(equity, initial * len(runs))
