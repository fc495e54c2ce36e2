"""The robust choice of a search, how stable and how sensitive it is."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backtest.optimize.judge.robust import (
    TOP_LEAST,
    RobustChoice,
    ScoredTrial,
    Stability,
    choose,
    measure_stability,
    robust_candidates,
)
from backtest.optimize.judge.sensitivity import (
    Params,
    Score,
    Sensitivity,
    measure_sensitivity,
    with_pairs,
)
from backtest.optimize.search.progress import side_by_side
from backtest.optimize.search.study import FinishedTrial
from backtest.optimize.trial.space import Space
from backtest.optimize.trial.trial import Evaluate, TrialOutcome
from core.errors import DataError

MIN_TRIALS: Final = TOP_LEAST
"""Trials a search needs in all: the robust choice is the middle of so many."""


@dataclass(frozen=True, kw_only=True)
class FinalChoice:
    """The parameters a search recommends, and where they come from.

    Attributes:
        kind: ``median`` or ``medoid``, whichever is better on the train windows.
        params: every parameter searched.
        outcome: of a run with them.
        median_score: train score of the median; NaN: its values contradict each other.
        medoid_score: train score of the medoid.
        candidates: both, and the best trials they come from.
        stability: how far the best trials scatter.
        best: the trial of the highest score, for reference.
    """

    kind: str
    params: dict[str, Any]
    outcome: TrialOutcome
    median_score: float
    medoid_score: float
    candidates: RobustChoice
    stability: Stability
    best: FinishedTrial


def choose_final(trials: Sequence[FinishedTrial], space: Space, evaluate: Evaluate) -> FinalChoice:
    """Return the better of median and medoid of the best trials, by their train scores.

    The median need not be a trial, so it gets a run of its own; test windows have no say.

    Raises:
        DataError: there are fewer than five trials, or none has a score that counts.
    """
    if len(trials) < MIN_TRIALS:
        kept = "they are kept, the same command adds more" if trials else "run more"
        raise DataError(
            f"{len(trials)} trials are complete, a robust choice needs at least {MIN_TRIALS}; "
            f"{kept}"
        )
    scored = [ScoredTrial(item.number, item.params, item.outcome.score) for item in trials]
    candidates = robust_candidates(scored, space.entries)
    by_number = {item.number: item for item in trials}
    medoid = by_number[candidates.medoid_number].outcome
    median = evaluate(candidates.median_params)
    median_score = math.nan if median.note else median.score
    kind = choose(median_score, medoid.score)
    return FinalChoice(
        kind=kind,
        params=candidates.median_params if kind == "median" else candidates.medoid_params,
        outcome=median if kind == "median" else medoid,
        median_score=median_score,
        medoid_score=medoid.score,
        candidates=candidates,
        stability=measure_stability(candidates.top_params, space.entries),
        best=by_number[candidates.top_numbers[0]],
    )


def sensitivity_of(
    choice: FinalChoice,
    space: Space,
    evaluate: Evaluate,
    *,
    jobs: int,
    stop: threading.Event | None = None,
) -> Sensitivity:
    """Return how the train score changes when one parameter at a time is a little off.

    Raises:
        KeyboardInterrupt: ``stop`` was set before all was done.
    """

    def score(params: Mapping[str, Any]) -> float:
        outcome = evaluate(params)
        return math.nan if outcome.note else outcome.score

    def run(function: Score, sets: Iterable[Params]) -> list[float]:
        return side_by_side(function, list(sets), jobs=jobs, title="sensitivity", stop=stop)

    found = measure_sensitivity(choice.params, space.entries, space.clip, score, run=run)
    return with_pairs(found, choice.params, space.entries, space.clip, score, run=run)


def parameter_importance(trials: Sequence[FinishedTrial], space: Space) -> dict[str, float] | None:
    """Return each parameter's share in what makes trials good (PED-ANOVA); None: not known.

    Source: Watanabe, Bansal and Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter
    Importance in Arbitrary Subspaces", IJCAI 2023.
    """
    if len({item.outcome.score for item in trials}) < MIN_TRIALS:
        return None
    import optuna  # noqa: PLC0415 - 0.2 s
    from optuna.importance import get_param_importances  # noqa: PLC0415

    from backtest.optimize.search.trial_store import complete_trial  # noqa: PLC0415 - sqlalchemy

    study = optuna.create_study(direction="maximize")
    distributions = space.distributions()
    study.add_trials(
        [complete_trial(item.params, distributions, item.outcome.score) for item in trials]
    )
    shares = get_param_importances(study)
    return {name: float(shares[name]) for name in space.entries}
