"""Everything a finished search says, in the order in which it may be looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backtest.optimize.final_choice import FinalChoice, choose_final, sensitivity_of
from backtest.optimize.holdout_run import HoldoutResult, judge_holdout
from backtest.optimize.luck_of_choosing import LuckOfChoosing, measure_luck, static_grid_returns
from backtest.optimize.monte_carlo import PermutationTest, permutation_test
from backtest.optimize.prepare import Prepared
from backtest.optimize.search_run import Searched
from backtest.optimize.sensitivity import Sensitivity
from backtest.optimize.space import Space
from backtest.optimize.walk_forward import WalkForward, walk_forward


@dataclass(frozen=True, kw_only=True)
class Known:
    """What can be said without the holdout.

    Attributes:
        choice: the parameters recommended.
        baseline_score: train score of the parameters in use now.
        sensitivity: of their train score.
        walk: judged on the test windows.
        luck: judged by the number of trials.
    """

    choice: FinalChoice
    baseline_score: float
    sensitivity: Sensitivity
    walk: WalkForward
    luck: LuckOfChoosing


@dataclass(frozen=True, kw_only=True)
class Unseen:
    """What bars that no train window has seen say about the choice.

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

    Raises:
        DataError: the trials are too few, or none has a score that counts.
    """
    trials = searched.trials
    choice = choose_final(trials, space, prepared.evaluate)
    return Known(
        choice=choice,
        baseline_score=prepared.evaluate(with_capital(prepared, baseline)).score,
        sensitivity=sensitivity_of(choice, space, prepared.evaluate, jobs=jobs),
        walk=walk_forward(trials, choice.outcome, prepared.plan),
        luck=measure_luck(
            trials, choice.outcome.daily_returns, static_grid_returns(prepared), n_ever=n_ever,
            seed=seed,
        ),
    )  # fmt: skip


def judge_unseen(
    prepared: Prepared,
    choice: Mapping[str, Any],
    baseline: Mapping[str, Any],
    *,
    looks_before: int,
    permutations: int,
    seed: int,
    jobs: int,
    warmup_bars: int,
) -> Unseen:
    """Take the holdout, once, and judge the choice on it; nothing may be chosen after that.

    Args:
        prepared: of the search.
        choice: the chosen parameters.
        baseline: all parameters in use now.
        looks_before: how often bars of the holdout were looked at by earlier searches.
        permutations: of the Monte-Carlo test; 0: none.
        seed: of the permutations.
        jobs: runs at a time.
        warmup_bars: before the first bar of a run.
    """
    taken = prepared.holdout.take()
    monte_carlo = None
    if permutations:
        monte_carlo = permutation_test(
            prepared, taken, choice, n=permutations, seed=seed, jobs=jobs, warmup_bars=warmup_bars
        )
    current = with_capital(prepared, baseline)
    holdout = judge_holdout(prepared, taken, choice, current, looks_before)
    return Unseen(holdout=holdout, monte_carlo=monte_carlo)


def with_capital(prepared: Prepared, baseline: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters in use now with the capital of the search, so returns compare."""
    return {**baseline, "initial_capital": prepared.params.initial_capital}
