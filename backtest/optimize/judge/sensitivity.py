"""Sensitivity: what becomes of the score when one parameter is a little off.

A choice that only works at its very values was fitted to the past. Each parameter is moved alone,
by 10 and 20 % either way; a fall off a cliff is flagged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final, NamedTuple

from backtest.optimize.judge.robust import DISQUALIFIED
from backtest.optimize.trial.space import Entry

Params = Mapping[str, Any]
Score = Callable[[Params], float]
Clip = Callable[[str, Any], Any]
Run = Callable[[Score, Iterable[Params]], Iterable[float]]
"""Like ``map``: applies a function to every item, in order, one after another or side by side."""

STEPS: Final = (-0.10, 0.10, -0.20, 0.20)
"""Shares of the value; the nearer first, so that of two that meet the nearer is kept."""
CLIFF_SHARE: Final = 0.5
CLIFF_FLOOR: Final = 0.05
"""Score a fall must cost besides, so that around a score of 0 not everything is a cliff. Where the
score is a return it is the 5 points that one differing tie can move; of a ratio it is little."""
NO_EFFECT_SHARE: Final = 0.01
"""Of the choice's absolute score: a parameter whose moves change less has no effect there."""
PRODUCT_SHARE: Final = 0.25
"""Of what the smaller of two single moves changes: if both moved against each other change less,
only the product of the two matters."""
MOST_PAIRED: Final = 6
"""Parameters, those of the largest effect, of which every pair is tried together."""
_FACTOR: Final = 1.2
_TICKS: Final = "▁▂▃▄▅▆▇█"
_CROSS: Final = "x"


class Point(NamedTuple):
    """One value tried.

    Attributes:
        step: intended move as a share of the value; 0 the choice itself; NaN another category.
        value: of the parameter.
        score: NaN if it could not be run.
    """

    step: float
    value: Any
    score: float


class Curve(NamedTuple):
    """The score over the values of one parameter.

    Attributes:
        name: of the parameter.
        points: by value, the choice among them; categories in the order of the search space.
        cliffs: values at which it falls.
    """

    name: str
    points: tuple[Point, ...]
    cliffs: tuple[Any, ...]

    def effect(self) -> float:
        """Return the largest change of the score at any value tried; NaN: one has no score."""
        scores = [point.score for point in self.points]
        if not all(map(math.isfinite, scores)):
            return math.nan
        return max(scores) - min(scores)


class Pair(NamedTuple):
    """Two parameters of which only the product, or only the ratio, matters around the choice."""

    one: str
    other: str
    kind: str
    """``product`` or ``ratio``."""


@dataclass(frozen=True)
class Sensitivity:
    """All curves around one choice.

    Attributes:
        centre: score of the choice itself.
        disqualified: score at or under which a set is disqualified.
        curves: one per parameter searched.
        pairs: parameters that act as one.
    """

    centre: float
    disqualified: float
    curves: tuple[Curve, ...]
    pairs: tuple[Pair, ...] = ()

    def without_effect(self) -> list[str]:
        """Return the parameters whose moves within 20 % change nothing worth mentioning.

        None where the choice itself is disqualified or without a score.
        """
        if not _qualified(self.centre, self.disqualified):
            return []
        return [
            curve.name
            for curve in self.curves
            if curve.effect() <= NO_EFFECT_SHARE * abs(self.centre)
        ]

    def cliffs(self) -> dict[str, tuple[Any, ...]]:
        """Return the values at which the score falls, by parameter; only where there are any."""
        return {curve.name: curve.cliffs for curve in self.curves if curve.cliffs}


def measure_sensitivity(
    params: Params,
    entries: Mapping[str, Entry],
    clip: Clip,
    score: Score,
    *,
    disqualified: float = DISQUALIFIED,
    run: Run = map,
) -> Sensitivity:
    """Return the score's curve over each searched parameter around ``params``.

    A number moves by a share of its absolute value (of the range searched where it is 0), an int
    by at least 1, then into its bounds; values met twice are tried once. A category is tried at all
    its choices, which are no small steps and therefore never cliffs.

    A cliff is a fall at any of these steps: by more than half of the choice's absolute score and
    more than 0.05, or to where sets are disqualified, or to a set that cannot be run (NaN). A
    choice that is itself disqualified or without a score has no cliffs: there is nothing to fall
    from.

    Args:
        params: the choice, all that ``score`` needs.
        entries: the search space; its parameters are moved.
        clip: (name, value) to the nearest value the parameter may have, in its type.
        score: of a set of parameters; NaN if it cannot be run.
        disqualified: a set whose score is at or under it is disqualified.
        run: applies ``score`` to all sets, in order; ``ThreadPoolExecutor().map`` side by side.
    """
    moves = {name: _moves(params[name], name, entry, clip) for name, entry in entries.items()}
    sets = [dict(params)]
    sets += [{**params, name: value} for name, tried in moves.items() for _, value in tried]
    scores = iter([float(found) for found in run(score, sets)])
    centre = next(scores)
    curves = []
    for name, tried in moves.items():
        points = [Point(0.0, params[name], centre)]
        points += [Point(step, value, next(scores)) for step, value in tried]
        cliffs = tuple(item.value for item in points if _is_cliff(item, centre, disqualified))
        curves.append(Curve(name, _ordered(points, entries[name]), cliffs))
    return Sensitivity(centre, disqualified, tuple(curves))


def with_pairs(
    found: Sensitivity,
    params: Params,
    entries: Mapping[str, Entry],
    clip: Clip,
    score: Score,
    *,
    run: Run = map,
) -> Sensitivity:
    """Return ``found`` with the pairs of parameters that act as a product or as a ratio.

    Around the choice each of two is multiplied by 1.2 alone, then one is multiplied and the other
    divided by it, then both multiplied. They act as a product if what the second does is less than
    a quarter of what either does alone, both ways round; as a ratio if what the third does is. Only
    the six numbers of the largest effect are paired, and only where no move meets a bound and every
    set has a score that is not disqualified.

    Args:
        found: what ``measure_sensitivity`` answered for the rest.
        params: the choice.
        entries: the search space.
        clip: as there.
        score: as there.
        run: as there.
    """
    if not _qualified(found.centre, found.disqualified):
        return found
    named = [
        curve
        for curve in found.curves
        if entries[curve.name].kind == "float"
        and params[curve.name] != 0
        and _free(curve.name, params, clip)
        and curve.effect() > NO_EFFECT_SHARE * abs(found.centre)
    ]
    named.sort(key=lambda curve: -curve.effect())
    paired = {curve.name for curve in named[:MOST_PAIRED]}
    names = [name for name in entries if name in paired]
    alone = [(name, "", factor, 1.0) for name in names for factor in (_FACTOR, 1.0 / _FACTOR)]
    both = [
        (one, other, up, across)
        for one, other in combinations(names, 2)
        for up in (_FACTOR, 1.0 / _FACTOR)
        for across in (_FACTOR, 1.0 / _FACTOR)
    ]
    moves = [*alone, *both]
    sets = [_moved(params, move) for move in moves]
    results = [float(value) for value in run(score, sets)]
    scores = dict(zip(moves, results, strict=True))
    pairs = [
        Pair(one, other, kind)
        for one, other in combinations(names, 2)
        for kind in ("product", "ratio")
        if _acts_as_one(one, other, kind, scores, found)
    ]
    return replace(found, pairs=tuple(pairs))


def _free(name: str, params: Params, clip: Clip) -> bool:
    """Return whether a parameter can be multiplied and divided by 1.2 within its bounds."""
    values = (params[name] * _FACTOR, params[name] / _FACTOR)
    return all(clip(name, value) == value for value in values)


def _moved(params: Params, move: tuple[str, str, float, float]) -> dict[str, Any]:
    one, other, factor, across = move
    moved = {**params, one: params[one] * factor}
    return moved | {other: params[other] * across} if other else moved


def _acts_as_one(
    one: str,
    other: str,
    kind: str,
    scores: Mapping[tuple[str, str, float, float], float],
    found: Sensitivity,
) -> bool:
    up, down = _FACTOR, 1.0 / _FACTOR
    alone = [scores[name, "", factor, 1.0] for name in (one, other) for factor in (up, down)]
    moves = ((up, down), (down, up)) if kind == "product" else ((up, up), (down, down))
    both = [scores[one, other, first, second] for first, second in moves]
    if not all(_qualified(value, found.disqualified) for value in (*alone, *both)):
        return False
    smaller = min(
        max(abs(value - found.centre) for value in alone[:2]),
        max(abs(value - found.centre) for value in alone[2:]),
    )
    return max(abs(value - found.centre) for value in both) < PRODUCT_SHARE * smaller


def sparkline(scores: Iterable[float], disqualified: float, scale: tuple[float, float]) -> str:
    """Return one character per score, its height between the two ends of ``scale``."""
    low, high = scale
    marks = []
    for found in scores:
        if not _qualified(found, disqualified):
            marks.append(_CROSS)
            continue
        height = (found - low) / (high - low) if high > low else 0.5
        marks.append(_TICKS[round(min(max(height, 0.0), 1.0) * (len(_TICKS) - 1))])
    return "".join(marks)


def _moves(value: Any, name: str, entry: Entry, clip: Clip) -> list[tuple[float, Any]]:
    """Return (step, value) of every other value to try, each value once."""
    if entry.low is None or entry.high is None:
        return [(math.nan, choice) for choice in entry.choices if choice != value]
    yardstick = abs(value) if value != 0 else entry.high - entry.low
    found: list[tuple[float, Any]] = []
    for step in STEPS:
        move = step * yardstick
        if entry.kind == "int":
            move = math.copysign(max(1, math.floor(abs(move) + 0.5)), step)
        moved = clip(name, value + move)
        if moved != value and moved not in [other for _, other in found]:
            found.append((step, moved))
    return found


def _is_cliff(point: Point, centre: float, disqualified: float) -> bool:
    moved = abs(point.step) > 0.0  # of another category it is NaN
    if not moved or not _qualified(centre, disqualified):
        return False
    if not _qualified(point.score, disqualified):
        return True
    return centre - point.score > max(CLIFF_SHARE * abs(centre), CLIFF_FLOOR)


def _qualified(score: float, disqualified: float) -> bool:
    return math.isfinite(score) and score > disqualified


def _ordered(points: list[Point], entry: Entry) -> tuple[Point, ...]:
    if entry.kind == "cat":
        return tuple(sorted(points, key=lambda point: entry.choices.index(point.value)))
    return tuple(sorted(points, key=lambda point: point.value))
