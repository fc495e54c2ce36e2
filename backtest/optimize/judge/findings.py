"""Everything a finished search says, in the order in which it may be looked at."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backtest.optimize.judge.final_choice import FinalChoice, choose_final, sensitivity_of
from backtest.optimize.judge.holdout_run import HoldoutResult, judge_holdout
from backtest.optimize.judge.luck_of_choosing import (
    LuckOfChoosing,
    measure_luck,
    static_grid_returns,
)
from backtest.optimize.judge.monte_carlo import PermutationTest, compare_with_permuted
from backtest.optimize.judge.sensitivity import Sensitivity
from backtest.optimize.judge.walk_forward import WalkForward, walk_forward
from backtest.optimize.search.progress import Searched
from backtest.optimize.search.trial_ledger import SeenBefore
from backtest.optimize.trial.prepare import Prepared
from backtest.optimize.trial.space import Space


@dataclass(frozen=True, kw_only=True)
class Known:
    """The findings without the holdout.

    Attributes:
        choice: the parameters recommended.
        baseline_score: train score of the parameters in use now.
        walk: judged on the test windows.
        sensitivity: of their train score; this and the next: None if interrupted before.
        luck: judged by the number of trials.
    """

    choice: FinalChoice
    baseline_score: float
    walk: WalkForward
    sensitivity: Sensitivity | None
    luck: LuckOfChoosing | None


@dataclass(frozen=True, kw_only=True)
class Unseen:
    """The findings on bars that no train window has seen.

    Attributes:
        holdout: the bars set aside.
        monte_carlo: those and the last test, permuted; None: not asked for.
    """

    holdout: HoldoutResult
    monte_carlo: PermutationTest | None


def judge_trials(
    prepared: Prepared,
    space: Space,
    searched: Searched,
    baseline: Mapping[str, Any],
    *,
    n_ever: int,
    seed: int,
    jobs: int,
    stop: threading.Event | None = None,
) -> Known:
    """Choose parameters and judge them on the bars before the holdout.

    Args:
        prepared: of the search.
        space: what was searched.
        searched: the trials.
        baseline: all parameters in use now.
        n_ever: trials ever run on this data.
        seed: of the bootstrap.
        jobs: runs at a time.
        stop: is set by whoever wants it to end; then what takes long is left out.

    Raises:
        DataError: the trials are too few, or none has a score that counts.
    """
    trials = searched.trials
    choice = choose_final(trials, space, prepared.evaluate)
    known = Known(
        choice=choice,
        baseline_score=prepared.evaluate(with_capital(prepared, baseline)).score,
        walk=walk_forward(trials, choice.outcome, prepared.plan),
        sensitivity=None,
        luck=None,
    )
    try:
        found = sensitivity_of(choice, space, prepared.evaluate, jobs=jobs, stop=stop)
    except KeyboardInterrupt:
        return known
    known = replace(known, sensitivity=found)
    if stop is not None and stop.is_set():
        return known
    luck = measure_luck(
        trials,
        choice.outcome.daily_returns,
        static_grid_returns(prepared),
        n_ever=n_ever,
        seed=seed,
    )
    return replace(known, luck=luck)


def judge_unseen(
    prepared: Prepared,
    choice: Mapping[str, Any],
    baseline: Mapping[str, Any],
    *,
    permuted: Sequence[float] | None,
    before: SeenBefore,
    warmup_bars: int,
) -> Unseen:
    """Take the holdout, once, and judge the choice on it; nothing may be chosen after that.

    Args:
        prepared: of the search.
        choice: the chosen parameters.
        baseline: all parameters in use now.
        permuted: what ``permuted_returns`` answered for the choice; None: not asked for.
        before: what earlier searches have seen of the holdout.
        warmup_bars: before the first bar of a run.
    """
    taken = prepared.holdout.take()
    monte_carlo = None
    if permuted is not None:
        monte_carlo = compare_with_permuted(
            prepared, taken, choice, permuted, warmup_bars=warmup_bars
        )
    current = with_capital(prepared, baseline)
    holdout = judge_holdout(prepared, taken, choice, current, before)
    return Unseen(holdout=holdout, monte_carlo=monte_carlo)


def with_capital(prepared: Prepared, baseline: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters in use now with the capital of the search, so returns compare."""
    return {**baseline, "initial_capital": prepared.params.initial_capital}
