"""The holdout: bars nobody has looked at, run once with the choice and with what is in use now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest.optimize.judge.block_bootstrap import gain_p_value
from backtest.optimize.search.trial_ledger import SeenBefore
from backtest.optimize.trial.prepare import Coins, Prepared
from core.performance import bar_returns, drawdown_curve
from core.times import DAY_MS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SEED: Final = 1
"""Of the bootstrap: the same holdout always has the same p value."""


@dataclass(frozen=True, eq=False)
class PortfolioRun:
    """All coins over one range, each with the same capital of its own.

    Attributes:
        times_ms: open times of the bars all coins have, ms UTC, shape (n_bars,).
        equity: of all together at their closes, quote, shape (n_bars,).
        initial: before the first bar, quote.
        per_coin: metrics of each coin's own run.
    """

    times_ms: Ints
    equity: Floats
    initial: float
    per_coin: dict[str, dict[str, Any]]

    @property
    def return_pct(self) -> float:
        """Total return, percent."""
        return (float(self.equity[-1]) / self.initial - 1.0) * 100.0

    @property
    def max_drawdown_pct(self) -> float:
        """Largest fall from the highest equity so far, percent of it."""
        return float(drawdown_curve(self.equity, self.initial).max()) * 100.0

    @cached_property
    def daily_returns(self) -> Floats:
        """Return of each UTC day, shape (n_days,)."""
        ends = np.flatnonzero(np.diff(self.times_ms // DAY_MS, append=-1))
        return bar_returns(self.equity[ends], self.initial)

    @cached_property
    def p_value(self) -> float:
        """Probability of doing as well per day without any edge; NaN where there is none to tell.

        By a bootstrap of blocks of days.
        """
        return gain_p_value(self.daily_returns, _SEED)


@dataclass(frozen=True, eq=False)
class HoldoutResult:
    """The result on the holdout.

    Attributes:
        choice: run with the chosen parameters.
        baseline: with those in use now.
        before: what earlier searches have seen of it.
    """

    choice: PortfolioRun
    baseline: PortfolioRun
    before: SeenBefore

    @cached_property
    def better_p_value(self) -> float:
        """Probability of being so much better per day than what is in use now, if neither is.

        NaN where there are too few days, or no difference.
        """
        return gain_p_value(self.choice.daily_returns - self.baseline.daily_returns, _SEED)


def judge_holdout(
    prepared: Prepared,
    taken: Coins,
    choice: Mapping[str, Any],
    baseline: Mapping[str, Any],
    before: SeenBefore,
) -> HoldoutResult:
    """Run the holdout with two parameter sets.

    Args:
        prepared: plan and parameters of the search.
        taken: what ``Holdout.take`` answered.
        choice: values drawn.
        baseline: values of all parameters in use now, with the capital of the search.
        before: as in ``HoldoutResult``.
    """
    return HoldoutResult(_run(prepared, taken, choice), _run(prepared, taken, baseline), before)


def _run(prepared: Prepared, taken: Coins, drawn: Mapping[str, Any]) -> PortfolioRun:
    plan = prepared.plan
    runs = prepared.evaluate_range(drawn, start_ms=plan.holdout_ms, data=taken)
    times = plan.times_ms[plan.plan.holdout_start :]
    curves = [run.equity_at(times) for run in runs.values()]
    return PortfolioRun(
        times_ms=times,
        equity=np.sum(curves, axis=0),
        initial=prepared.params.initial_capital * len(runs),
        per_coin={coin: run.metrics for coin, run in runs.items()},
    )
