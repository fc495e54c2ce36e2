"""Agreement of independent searches: do other seeds choose the same parameters?

That the best trials of one search lie near each other shows where its sampler went. What searches
that know nothing of each other choose is compared with what they would choose if their scores said
nothing: the same rule, median or medoid of the best tenth, over even draws from the space.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest.optimize.judge.repeated_searches import RepeatedChoice
from backtest.optimize.trial.space import Entry

Floats = npt.NDArray[np.float64]

SIGNIFICANT: Final = 0.05
DRAWS: Final = 400
AGREES, SCATTERS, UNKNOWN = "agrees", "as random", "not known"


@dataclass(frozen=True, kw_only=True)
class ParameterAgreement:
    """How near to each other the choices of all searches are in one parameter.

    Attributes:
        name: of the parameter.
        values: chosen, the main search's first.
        spread: mean distance between two of them, as a share of the range searched (of logarithms
            where these were drawn); of categories the share of pairs that differ.
        random_spread: the same of searches whose scores say nothing, mean of many.
        p_value: share of those that are at least as near.
        word: ``agrees`` if that is under 0.05, else ``as random``.
    """

    name: str
    values: tuple[Any, ...]
    spread: float
    random_spread: float
    p_value: float
    word: str


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of the choices of independent searches.

    Attributes:
        n_seeds: searches, the main one among them.
        n_chosen: of these, with a choice; the others had every trial disqualified.
        n_trials: of each search.
        spread: mean over the parameters.
        random_spread: likewise of searches whose scores say nothing.
        p_value: share of those that are at least as near on the whole; NaN with fewer than two
            choices.
        test_return_pct: of each choice, the main search's first, on the last test, which no train
            has seen, percent.
    """

    n_seeds: int
    n_chosen: int
    n_trials: int
    parameters: tuple[ParameterAgreement, ...]
    spread: float
    random_spread: float
    p_value: float
    test_return_pct: tuple[float, ...]

    @property
    def gained(self) -> int:
        """Number of choices that gained in the last test."""
        return sum(value > 0.0 for value in self.test_return_pct)

    @property
    def agree(self) -> bool:
        """Whether every search chose, and every choice gained where no train has been.

        Not whether they chose alike: most parameters of a large space hardly matter, so that on a
        planted edge that every search found the choices of 60 trials lay as far apart as random
        ones (0.30 and 0.33 of the range, at random 0.30 and 0.32).
        """
        return self.gained == self.n_chosen == self.n_seeds


def measure_agreement(
    choices: Sequence[RepeatedChoice],
    entries: Mapping[str, Entry],
    *,
    n_seeds: int,
    n_trials: int,
    test_return_pct: Sequence[float],
    seed: int,
) -> Agreement:
    """Return how near the choices are, by parameter and on the whole.

    Args:
        choices: of the searches that have one, the main search's first.
        entries: the search space.
        n_seeds: searches.
        n_trials: of each.
        test_return_pct: of each choice.
        seed: of the draws they are compared with.
    """
    chosen = np.array(
        [[place(item.params[name], entry) for name, entry in entries.items()] for item in choices]
    ).reshape(len(choices), len(entries))
    categories = np.array([entry.low is None for entry in entries.values()])
    spreads = pair_spread(chosen[None], categories)[0]
    if len(choices) < 2:  # noqa: PLR2004 - nothing to compare
        random = np.full((1, len(entries)), math.nan)
    else:
        random = pair_spread(random_choices(choices, entries, seed), categories)
    parameters = tuple(
        _one(name, [item.params[name] for item in choices], float(spreads[k]), random[:, k])
        for k, name in enumerate(entries)
    )
    return Agreement(
        n_seeds=n_seeds,
        n_chosen=len(choices),
        n_trials=n_trials,
        parameters=parameters,
        spread=float(spreads.mean()),
        random_spread=float(random.mean()),
        p_value=_share_as_near(float(spreads.mean()), random.mean(axis=1)),
        test_return_pct=tuple(test_return_pct),
    )


def _one(name: str, values: Sequence[Any], spread: float, random: Floats) -> ParameterAgreement:
    p_value = _share_as_near(spread, random)
    word = UNKNOWN if math.isnan(p_value) else AGREES if p_value < SIGNIFICANT else SCATTERS
    return ParameterAgreement(
        name=name,
        values=tuple(values),
        spread=spread,
        random_spread=float(random.mean()),
        p_value=p_value,
        word=word,
    )


def _share_as_near(spread: float, random: Floats) -> float:
    """Return ``(1 + #(random <= spread)) / (1 + n)``; NaN where there is nothing to compare."""
    if math.isnan(spread) or np.isnan(random).any():
        return math.nan
    near = int(np.count_nonzero(random <= spread + 1e-12))
    return (1 + near) / (1 + len(random))


def place(value: Any, entry: Entry) -> float:
    """Return where a value lies in its range, 0 to 1; of a category which choice it is."""
    if entry.low is None or entry.high is None:
        return float(entry.choices.index(value))
    if entry.log:
        return math.log(value / entry.low) / math.log(entry.high / entry.low)
    return float((value - entry.low) / (entry.high - entry.low))


def pair_spread(places: Floats, categories: npt.NDArray[np.bool_]) -> Floats:
    """Return the mean distance between two choices, shape ``(n, n_params)``.

    Args:
        places: shape ``(n, n_choices, n_params)``.
        categories: which parameters are, shape ``(n_params,)``.
    """
    pairs = list(combinations(range(places.shape[1]), 2))
    if not pairs:
        return np.full((len(places), places.shape[2]), math.nan)
    apart = [np.abs(places[:, a] - places[:, b]) for a, b in pairs]
    distances = [np.where(categories, (item > 0.0).astype(np.float64), item) for item in apart]
    mean: Floats = np.mean(distances, axis=0)
    return mean


def random_choices(
    choices: Sequence[RepeatedChoice], entries: Mapping[str, Entry], seed: int
) -> Floats:
    """Return what searches choose whose scores say nothing, ``(DRAWS, n_choices, n_params)``.

    Each has as many best trials as the real one, drawn evenly, and takes their median or their
    medoid as that one did.
    """
    rng = np.random.default_rng(seed)
    kinds = list(entries.values())
    categories = np.array([entry.low is None for entry in kinds])
    found = np.empty((DRAWS, len(choices), len(kinds)))
    for k, item in enumerate(choices):
        drawn = np.stack([_draws(entry, (DRAWS, item.top), rng) for entry in kinds], axis=2)
        found[:, k] = (
            _medians(drawn, kinds) if item.kind == "median" else _medoids(drawn, categories)
        )
    return found


def _draws(entry: Entry, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    if entry.low is None or entry.high is None:
        return rng.integers(len(entry.choices), size=shape).astype(np.float64)
    if entry.kind != "int":
        return rng.random(shape)  # by ratio, if that is how it is drawn: places are logarithms then
    low, high = int(entry.low), int(entry.high)
    if entry.log:
        first, last = math.log(low - 0.5), math.log(high + 0.5)
        whole = np.clip(np.rint(np.exp(rng.uniform(first, last, shape))), low, high)
        return np.asarray(np.log(whole / low) / math.log(high / low), dtype=np.float64)
    return (rng.integers(low, high + 1, size=shape) - low) / (high - low)


def _medians(drawn: Floats, kinds: Sequence[Entry]) -> Floats:
    """Return the middle of each search's best trials; of whole numbers the lower of two."""
    found = np.median(drawn, axis=1)
    for k, entry in enumerate(kinds):
        column = drawn[:, :, k]
        if entry.low is None or entry.high is None:
            counts = np.stack(
                [(column == c).sum(axis=1) for c in range(len(entry.choices))], axis=1
            )
            found[:, k] = counts.argmax(axis=1)
        elif entry.kind == "int":
            found[:, k] = np.sort(column, axis=1)[:, (column.shape[1] - 1) // 2]
    return found


def _medoids(drawn: Floats, categories: npt.NDArray[np.bool_]) -> Floats:
    """Return the trial of each search that is nearest to the others."""
    found = np.empty((len(drawn), drawn.shape[2]))
    for k, trials in enumerate(drawn):
        apart = np.abs(trials[:, None] - trials[None])
        apart = np.where(categories, (apart > 0.0).astype(np.float64), apart)
        found[k] = trials[int(apart.sum(axis=(1, 2)).argmin())]
    return found
