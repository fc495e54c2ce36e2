"""Searches repeated beside the main one: on the train of one window alone, and with other seeds.

A walk-forward is clean if the parameters of a window come from a search that has seen nothing but
this window's train. So every window but the last, whose train is that of the main search, gets a
search of its own. And how stable a choice is shows in what independent searches choose: so the
main search is repeated with other seeds. All of them live in memory, choose by the same rule as
the main one (the middle of the best tenth) and never see a test or the holdout.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from backtest.optimize.judge.robust import ScoredTrial, choose, robust_candidates
from backtest.optimize.search.progress import side_by_side
from backtest.optimize.search.sampling import BATCH, Sampler
from backtest.optimize.trial.prepare import Prepared
from backtest.optimize.trial.space import Space
from core.errors import DataError

MOST_TRIALS: Final = 200
"""Of a repeated search: as many as the study has, but not more than these."""
DEFAULT_SEEDS: Final = 4

Score = Callable[[Mapping[str, Any]], float]


class Repetition(NamedTuple):
    """One search to do.

    Attributes:
        windows: it sees the trains of the first so many.
        seed: of its sampler.
    """

    windows: int
    seed: int


class RepeatedChoice(NamedTuple):
    """The middle of the best tenth of one repeated search.

    Attributes:
        kind: ``median`` or ``medoid``.
        params: every parameter searched.
        train_score: lowest of all coins and of the trains the search saw.
        top: trials it is the middle of.
    """

    kind: str
    params: dict[str, Any]
    train_score: float
    top: int


@dataclass(frozen=True, kw_only=True)
class RepeatedSearches:
    """Choices of all repeated searches; None: all their trials were disqualified.

    Attributes:
        n_trials: of each.
        windows: of the search on the trains up to window 1, 2, ..., all but the last.
        seeds: of the searches with other seeds on all trains.
    """

    n_trials: int
    windows: tuple[RepeatedChoice | None, ...]
    seeds: tuple[RepeatedChoice | None, ...]


def repeat_searches(
    prepared: Prepared,
    space: Space,
    first: Mapping[str, Any],
    *,
    n_trials: int,
    seed: int,
    seeds: int,
    jobs: int,
    stop: threading.Event | None = None,
) -> RepeatedSearches:
    """Search every window's own train, and all trains with other seeds, side by side.

    Args:
        prepared: of the main search.
        space: what is searched.
        first: parameters of each search's first trial: those in use now, moved into the space.
        n_trials: of the main search; each repetition has as many, at most ``MOST_TRIALS``.
        seed: of the main search; those of the others come from it.
        seeds: searches on all trains, the main one among them.
        jobs: searches at a time.
        stop: is set by whoever wants it to end.

    Raises:
        KeyboardInterrupt: ``stop`` was set before all was done.
    """
    count = min(n_trials, MOST_TRIALS)
    last = len(prepared.plan.plan.windows)
    asked = [Repetition(windows, seed) for windows in range(1, last)]
    asked += [Repetition(last, other_seed(seed, k)) for k in range(1, seeds)]
    asked.sort(key=lambda item: -item.windows)  # the longest first, so that none is left at the end

    def search(item: Repetition) -> RepeatedChoice | None:
        def score(params: Mapping[str, Any]) -> float:
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt
            return prepared.train_score(params, item.windows)

        return search_in_memory(score, space, first, seed=item.seed, n_trials=count)

    found = side_by_side(search, asked, jobs=jobs, title="repeated searches", stop=stop)
    by_item = dict(zip(asked, found, strict=True))
    return RepeatedSearches(
        n_trials=count,
        windows=tuple(by_item[Repetition(windows, seed)] for windows in range(1, last)),
        seeds=tuple(by_item[Repetition(last, other_seed(seed, k))] for k in range(1, seeds)),
    )


def other_seed(seed: int, k: int) -> int:
    """Return the seed of repetition ``k``, from 1; none of a person's own, which are small."""
    return int(np.random.SeedSequence((seed, k, 0)).generate_state(1)[0])


def search_in_memory(
    score: Score, space: Space, first: Mapping[str, Any], *, seed: int, n_trials: int
) -> RepeatedChoice | None:
    """Return the choice of a search of its own, None if every trial was disqualified.

    What is tried, and in which order it is learnt, is as in the search of one process.
    """
    sampler = Sampler(space.distributions(), seed)
    trials: list[ScoredTrial] = []
    for start in range(0, n_trials, BATCH):
        batch = []
        for number in range(start, min(start + BATCH, n_trials)):
            params = dict(first) if number == 0 else sampler.propose(number)
            batch.append(ScoredTrial(number, params, score(params)))
        for trial in batch:
            sampler.learn(trial.params, trial.score)
        trials += batch
    return middle(trials, space, score)


def middle(trials: Sequence[ScoredTrial], space: Space, score: Score) -> RepeatedChoice | None:
    """Return the better of median and medoid of the best tenth; None: none counts."""
    try:
        candidates = robust_candidates(trials, space.entries)
    except DataError:
        return None
    by_number = {trial.number: trial.score for trial in trials}
    medoid_score, median_score = (
        by_number[candidates.medoid_number],
        score(candidates.median_params),
    )
    kind = choose(median_score, medoid_score)
    top = len(candidates.top_numbers)
    if kind == "median":
        return RepeatedChoice(kind, candidates.median_params, median_score, top)
    return RepeatedChoice(kind, candidates.medoid_params, medoid_score, top)
