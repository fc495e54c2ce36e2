"""Everything a finished search says, in the order in which it may be looked at."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backtest.optimize.judge.agreement import Agreement, measure_agreement
from backtest.optimize.judge.final_choice import FinalChoice, choose_final, sensitivity_of
from backtest.optimize.judge.holdout_run import HoldoutResult, judge_holdout
from backtest.optimize.judge.luck_of_choosing import (
    LuckOfChoosing,
    measure_luck,
    static_grid_returns,
)
from backtest.optimize.judge.monte_carlo import PermutationTest, compare_with_permuted
from backtest.optimize.judge.repeated_searches import (
    RepeatedChoice,
    RepeatedSearches,
    middle,
    repeat_searches,
)
from backtest.optimize.judge.robust import ScoredTrial
from backtest.optimize.judge.sensitivity import Sensitivity
from backtest.optimize.judge.walk_forward import WalkForward, mean_return_pct, walk_forward
from backtest.optimize.search.progress import Searched
from backtest.optimize.search.study import into_space
from backtest.optimize.search.trial_ledger import SeenBefore
from backtest.optimize.trial.prepare import Prepared
from backtest.optimize.trial.space import NOT_SEARCHABLE, Space


@dataclass(frozen=True, kw_only=True)
class Known:
    """The findings without the holdout.

    Attributes:
        choice: the parameters recommended.
        baseline_score: train score of the parameters in use now.
        walk: judged on the test windows; this and the next three: None if interrupted before.
        agreement: of searches with other seeds; None also if there was but one.
        sensitivity: of the choice's train score.
        luck: judged by the number of trials.
    """

    choice: FinalChoice
    baseline_score: float
    walk: WalkForward | None
    agreement: Agreement | None
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
    seeds: int,
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
        seed: of the search, and of the bootstrap.
        seeds: searches with seeds of their own, the main one among them; 0: no search at all is
            repeated, so there is no walk-forward either.
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
        walk=None,
        agreement=None,
        sensitivity=None,
        luck=None,
    )
    if seeds > 0:
        try:
            known = with_repetitions(
                known,
                prepared,
                space,
                searched,
                baseline,
                seed=seed,
                seeds=seeds,
                jobs=jobs,
                stop=stop,
            )
        except KeyboardInterrupt:
            return known
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


def with_repetitions(
    known: Known,
    prepared: Prepared,
    space: Space,
    searched: Searched,
    baseline: Mapping[str, Any],
    *,
    seed: int,
    seeds: int,
    jobs: int,
    stop: threading.Event | None,
) -> Known:
    """Return ``known`` with the clean walk-forward and the agreement of seeds.

    Raises:
        KeyboardInterrupt: ``stop`` was set before all was done.
    """
    repeated = repeat_searches(
        prepared,
        space,
        into_space(space, baseline)[0],
        n_trials=len(searched.trials),
        seed=seed,
        seeds=seeds,
        jobs=jobs,
        stop=stop,
    )
    agreement = None
    if seeds > 1:
        agreement = _agreement(prepared, space, searched, known.choice, repeated, seed)
    walk = _clean_walk(prepared, known.choice, repeated)
    return replace(known, walk=walk, agreement=agreement)


def _clean_walk(prepared: Prepared, choice: FinalChoice, repeated: RepeatedSearches) -> WalkForward:
    """Return the walk-forward of searches that saw each window's own train only.

    The last window's train is that of the main search, so its choice is taken there.
    """
    chosen = [
        None if item is None else (item.kind, prepared.evaluate(item.params))
        for item in repeated.windows
    ]
    return walk_forward([*chosen, (choice.kind, choice.outcome)], choice.outcome, prepared.plan)


def _agreement(
    prepared: Prepared,
    space: Space,
    searched: Searched,
    choice: FinalChoice,
    repeated: RepeatedSearches,
    seed: int,
) -> Agreement:
    """Return how far the main search, of as many trials as the others, and the others agree."""
    last = len(prepared.plan.plan.windows)
    own = RepeatedChoice(
        choice.kind, choice.params, choice.outcome.score, len(choice.candidates.top_numbers)
    )
    if len(searched.trials) > repeated.n_trials:
        scored = [
            ScoredTrial(item.number, item.params, item.outcome.score)
            for item in searched.trials[: repeated.n_trials]
        ]
        own = middle(scored, space, lambda params: prepared.train_score(params, last)) or own
    choices = [own, *(item for item in repeated.seeds if item is not None)]
    return measure_agreement(
        choices,
        space.entries,
        n_seeds=1 + len(repeated.seeds),
        n_trials=repeated.n_trials,
        test_return_pct=[
            mean_return_pct(prepared.evaluate(item.params).test, last) for item in choices
        ],
        seed=seed,
    )


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
    """Return the parameters in use now with what no search may choose as the search has it.

    With the same capital and on the same candles returns compare.
    """
    same = [name for name in NOT_SEARCHABLE if name in baseline]
    return {**baseline, **{name: getattr(prepared.params, name) for name in same}}
