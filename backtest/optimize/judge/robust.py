"""The robust choice: the middle of the best trials instead of the best one.

The best of many trials is the one that was luckiest. What the best tenth have in common is less so:
their median, parameter by parameter, and their medoid, the trial nearest to all the others. Where
they scatter as far as random draws they have nothing in common; that they lie near each other shows
no more than where the sampler went.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest.optimize.trial.objective import PENALTY
from backtest.optimize.trial.space import Entry
from core.errors import DataError

Floats = npt.NDArray[np.float64]

DISQUALIFIED: Final = 1.0 - PENALTY
"""Score that no trial with a flawed window is above; under it, it does not count."""
TOP_SHARE: Final = 0.10
TOP_LEAST: Final = 5
_NEAR_ZERO: Final = 0.10
"""Share of the range below which a mean is no yardstick any more: the range is then."""
_DRAWS: Final = 1000


class NothingToChooseError(DataError):
    """Every trial is disqualified: an answer about the space, not a mistake of anybody's."""


class ScoredTrial(NamedTuple):
    """One finished trial: its number, the parameters searched, and its score on the train part."""

    number: int
    params: Mapping[str, Any]
    score: float


@dataclass(frozen=True, kw_only=True)
class RobustChoice:
    """The two candidates in the middle of the best trials.

    Attributes:
        median_params: of every parameter the median, or the mode; no trial need have had them.
        medoid_params: of the trial nearest to the others.
        medoid_number: of that trial.
        top_numbers: of the best trials, best first.
        top_params: theirs, in the same order.
        scored: trials they were chosen from.
    """

    median_params: dict[str, Any]
    medoid_params: dict[str, Any]
    medoid_number: int
    top_numbers: tuple[int, ...]
    top_params: tuple[dict[str, Any], ...]
    scored: int

    def sentence(self) -> str:
        """Return how many trials the choice rests on, for a person."""
        return (
            f"the middle of the best {len(self.top_numbers)} of {self.scored} scored trials; "
            f"the medoid is trial {self.medoid_number}"
        )


class Spread(NamedTuple):
    """How far the best trials scatter in one parameter.

    Attributes:
        name: of the parameter.
        centre: their median or mode.
        cv: coefficient of variation; of categories the share that is not the mode.
        random_cv: what even draws from the whole range would have: no nearer to each other than
            that, the best trials have nothing in common in this parameter.
    """

    name: str
    centre: Any
    cv: float
    random_cv: float


class Stability(NamedTuple):
    """Scatter of all parameters among the best trials of one search; ``score`` is the mean."""

    spreads: tuple[Spread, ...]
    score: float
    random_score: float


def robust_candidates(
    trials: Sequence[ScoredTrial],
    entries: Mapping[str, Entry],
    *,
    disqualified: float = DISQUALIFIED,
) -> RobustChoice:
    """Return median and medoid of the best tenth of the trials, of at least 5 if there are.

    The median of an int parameter is a whole number, the lower of two; of equally frequent
    categories the one of the better trial is the mode. The medoid has the smallest sum of Gower's
    distances to the other best trials (Kaufman and Rousseeuw, "Clustering by Means of Medoids",
    1987), among equals it is the better trial. Trials of equal score rank by their number.

    Args:
        trials: in any order.
        entries: the search space.
        disqualified: a trial whose score is at or under it, or not finite, does not count.

    Raises:
        NothingToChooseError: no trial has a score that counts.
        DataError: a trial lacks a parameter.
    """
    counted = [item for item in trials if math.isfinite(item.score) and item.score > disqualified]
    if not counted:
        raise NothingToChooseError(
            f"none of {len(trials)} trials has a score above {disqualified:g}, where trials are "
            "disqualified: nothing to choose from; widen the search space or run more trials"
        )
    counted.sort(key=lambda item: (-item.score, item.number))
    size = max(math.ceil(TOP_SHARE * len(counted)), min(TOP_LEAST, len(counted)))
    top = counted[:size]
    params = tuple(_searched(item, entries) for item in top)
    distances = np.array([[gower_distance(a, b, entries) for b in params] for a in params])
    medoid = int(np.argmin(distances.sum(axis=1).round(12)))  # rounding: equal sums stay equal
    return RobustChoice(
        median_params={name: _centre(_column(params, name), entries[name]) for name in entries},
        medoid_params=params[medoid],
        medoid_number=top[medoid].number,
        top_numbers=tuple(item.number for item in top),
        top_params=params,
        scored=len(counted),
    )


def choose(median_score: float, medoid_score: float) -> Literal["median", "medoid"]:
    """Return which candidate to take by its score on the train part; NaN: it could not be run.

    The median wins a tie, being less one trial's luck; where neither has a score it is the medoid,
    which is at least a combination that was tried.
    """
    if math.isnan(median_score):
        return "medoid"
    return "medoid" if medoid_score > median_score else "median"


def gower_distance(
    one: Mapping[str, Any], other: Mapping[str, Any], entries: Mapping[str, Entry]
) -> float:
    """Return the mean distance over the parameters, from 0 to 1.

    Of numbers the difference as a share of the range searched (of logarithms where these were
    drawn), of categories 0 or 1 (Gower, "A General Coefficient of Similarity", Biometrics 27,
    1971).
    """
    total = 0.0
    for name, entry in entries.items():
        a, b = one[name], other[name]
        if entry.low is None or entry.high is None:
            total += float(a != b)
        elif entry.log:
            total += abs(math.log(a / b)) / math.log(entry.high / entry.low)
        else:
            total += abs(a - b) / (entry.high - entry.low)
    return total / len(entries)


def measure_stability(top: Sequence[Mapping[str, Any]], entries: Mapping[str, Entry]) -> Stability:
    """Return how far the best trials scatter, parameter by parameter and on average.

    Nearness is not an edge: the sampler draws ever more near what has scored well, on pure noise
    too, so trials of one search lie nearer to each other than random draws whatever the market.
    What independent searches agree on is another matter (``agreement``).

    The coefficient of variation is ``sd / |mean|`` (ddof 1). Where ``|mean|`` is under a tenth of
    the range searched, that tenth takes its place, so that a parameter around 0 is judged by its
    range. Of categories it is the share that is not the mode. One trial alone has no spread: NaN.

    Args:
        top: parameters of the best trials, best first.
        entries: the search space.
    """
    spreads = []
    for name, entry in entries.items():
        values = _column(top, name)
        cv = _variation(values, entry)
        spreads.append(Spread(name, _centre(values, entry), cv, _random_variation(entry)))
    score = float(np.mean([item.cv for item in spreads]))
    random_score = float(np.mean([item.random_cv for item in spreads]))
    return Stability(tuple(spreads), score, random_score)


def variation_text(value: float) -> str:
    """Return a coefficient of variation with two digits."""
    return "-" if math.isnan(value) else f"{value:.2f}"


def _searched(trial: ScoredTrial, entries: Mapping[str, Entry]) -> dict[str, Any]:
    if missing := [name for name in entries if name not in trial.params]:
        raise DataError(
            f"trial {trial.number} has no value for {', '.join(missing)}, which the search space "
            "holds; the trials must be of the same search"
        )
    return {name: trial.params[name] for name in entries}


def _column(params: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return [item[name] for item in params]


def _centre(values: Sequence[Any], entry: Entry) -> Any:
    """Return the median, of a whole number the lower one; of categories the mode."""
    if entry.kind == "cat":
        return Counter(values).most_common(1)[0][0]
    median = float(np.median(np.array(values, dtype=np.float64)))
    return math.ceil(median - 0.5) if entry.kind == "int" else median


def _variation(values: Sequence[Any], entry: Entry) -> float:
    if len(values) < 2:  # noqa: PLR2004 - no spread
        return math.nan
    if entry.low is None or entry.high is None:
        mode = _centre(values, entry)
        return [value != mode for value in values].count(True) / len(values)
    numbers = np.array(values, dtype=np.float64)
    yardstick = max(abs(float(numbers.mean())), _NEAR_ZERO * (entry.high - entry.low))
    return float(numbers.std(ddof=1)) / yardstick


def _random_variation(entry: Entry) -> float:
    """Return the variation of draws that lie evenly over the range."""
    if entry.low is None or entry.high is None:
        return 1.0 - 1.0 / len(entry.choices)
    low, high = entry.low, entry.high
    shares: Floats = (np.arange(_DRAWS) + 0.5) / _DRAWS
    if entry.kind == "int":  # each whole number is as wide as the others
        low, high = low - 0.5, high + 0.5
    drawn = low * (high / low) ** shares if entry.log else low + shares * (high - low)
    values = np.rint(drawn) if entry.kind == "int" else drawn
    return _variation(values.tolist(), entry)
