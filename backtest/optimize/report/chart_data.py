"""Series that the charts of a search draw, read from its results document.

Anything may be missing from the document, or None: it was not computed. Numbers are NaN then.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest.optimize.judge.robust import DISQUALIFIED
from backtest.report.figures import GAIN, MUTED

Document = Mapping[str, Any]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

DARK: Final = "#0f172a"
FAIR: Final = "#b45309"
VERDICT_COLOURS: Final = {"agrees": GAIN, "as random": MUTED}
BASELINE: Final = "current parameters"
"""Name of the curve of the parameters in force before the search."""
_MARGIN: Final = 0.07
"""Of the range of scores, left free above and below."""
_EDGE: Final = 0.02
"""Of an axis: how far above its end a point lies that belongs below it, so that it is seen."""
_TAIL: Final = 3.0
"""Times the distance of the best score to the worst quarter: how far below that an axis goes."""
_STUB: Final = 0.15
"""Of the highest score: the least depth of a bar that goes on below the axis."""
_MAX_BINS: Final = 40


class Course(NamedTuple):
    """The trials in their order.

    Attributes:
        number: of each trial, shape (n_trials,).
        score: NaN where there is none, (n_trials,).
        best: highest score so far; NaN as long as every trial was disqualified, (n_trials,).
    """

    number: Ints
    score: Floats
    best: Floats


class Curve(NamedTuple):
    """An equity curve: open or close times, ms UTC, and equity, quote, each (n_points,)."""

    time: Ints
    equity: Floats


class Windows(NamedTuple):
    """Scores of the choice: a name per coin and window, and the scores, each (n_windows,)."""

    names: list[str]
    train: Floats
    test: Floats


def look_up(document: Any, path: str) -> Any:
    """Return what stands at ``path`` (``holdout.equity.value``, ``windows.0.coin``) or None."""
    for part in path.split("."):
        if isinstance(document, Mapping):
            document = document.get(part)
        elif isinstance(document, list) and int(part) < len(document):
            document = document[int(part)]
        else:
            return None
    return document


def rows(document: Any, path: str) -> list[Any]:
    """Return the list at ``path``, empty if there is none."""
    return look_up(document, path) or []


def numbers(values: Iterable[Any]) -> Floats:
    """Return ``values`` as an array, NaN for None."""
    return np.array([math.nan if value is None else value for value in values], np.float64)


def course(document: Document) -> Course:
    """Return the trials sorted by number."""
    trials = sorted(rows(document, "trials"), key=lambda trial: int(trial["number"]))
    score = numbers(trial.get("score") for trial in trials)
    best = np.fmax.accumulate(score) if len(score) else score
    number = np.array([trial["number"] for trial in trials], np.int64)
    return Course(number, score, np.where(best > DISQUALIFIED, best, math.nan))


def disqualified(scores: Floats) -> Bools:
    """Return which scores are of disqualified trials or penalised windows; NaN is none."""
    return np.less_equal(scores, DISQUALIFIED)


def score_limits(*scores: Floats) -> tuple[float, float]:
    """Return an axis that holds every score that is not disqualified, and a margin.

    Penalties are so large that an axis of all scores would show nothing else; where there are only
    disqualified ones it holds these.
    """
    every = np.concatenate(scores)
    known = every[np.isfinite(every)]
    shown = known[~disqualified(known)]
    if len(shown) == 0:
        shown = known if len(known) else np.array([0.0, 1.0])
    low, high = float(shown.min()), float(shown.max())
    margin = _MARGIN * (high - low) or _MARGIN * abs(high) or _MARGIN
    return low - margin, high + margin


def onto(scores: Floats, limits: tuple[float, float]) -> Floats:
    """Return ``scores`` with those below the axis moved to just above its end, same shape."""
    low, high = limits
    return np.maximum(scores, low + _EDGE * (high - low))


def cloud_limits(scores: Floats) -> tuple[float, float]:
    """Return ``score_limits`` without the few trials that fare far worse than all others."""
    low, high = score_limits(scores)
    shown = scores[np.isfinite(scores) & ~disqualified(scores)]
    if len(shown) == 0:
        return low, high
    quarter, best = float(np.quantile(shown, 0.25)), float(shown.max())
    return max(low, quarter - _TAIL * (best - quarter)) if best > quarter else low, high


def bar_limits(*parts: Windows) -> tuple[float, float]:
    """Return an axis for bars of scores: with 0, and room for a penalised one below it."""
    scores = np.concatenate([values for part in parts for values in (part.train, part.test)])
    low, high = score_limits(scores)
    low, high = min(low, 0.0), max(high, 0.0)
    return (min(low, -_STUB * high) if disqualified(scores).any() else low), high


def importance(document: Document) -> dict[str, float]:
    """Return each parameter's share of the scores' variation, the largest first."""
    shares = look_up(document, "importance") or {}
    known = {name: float(share) for name, share in shares.items() if share is not None}
    return dict(sorted(known.items(), key=lambda item: -item[1]))


def spreads(document: Document) -> dict[str, Document]:
    """Return the stability of each parameter of which seeds were compared."""
    found: Mapping[str, Document] = look_up(document, "param_stability") or {}
    return {name: row for name, row in found.items() if row.get("spread") is not None}


def verdict_colours(found: Mapping[str, Document]) -> list[str]:
    """Return a colour for the verdict of each of ``spreads``."""
    return [VERDICT_COLOURS.get(row.get("verdict", ""), MUTED) for row in found.values()]


def windows(document: Document) -> Windows:
    """Return the scores of the choice; windows without any score are left out."""
    return _pairs(
        (f"{row['coin']} {row['window']}", look_up(row, "train.score"), look_up(row, "test.score"))
        for row in rows(document, "windows")
    )


def picks(document: Document) -> Windows:
    """Return the scores of what a search of each window's own train has chosen."""
    return _pairs(
        (f"window {row['window']}", row.get("train_score"), row.get("test_score"))
        for row in rows(document, "walk_forward.picks")
    )


def _pairs(found: Iterable[tuple[str, Any, Any]]) -> Windows:
    shown = [row for row in found if row[1:] != (None, None)]
    names = [name for name, _, _ in shown]
    return Windows(
        names, numbers(train for _, train, _ in shown), numbers(test for _, _, test in shown)
    )


def curve(document: Document, path: str) -> Curve | None:
    """Return the equity curve at ``path``, None if there are not two points of it."""
    values = numbers(rows(document, f"{path}.value"))
    times = np.array(rows(document, f"{path}.timestamp"), np.int64)
    known = np.isfinite(values)
    if len(times) != len(values) or known.sum() < 2:  # noqa: PLR2004 - a line has two ends
        return None
    return Curve(times[known], values[known])


def capital_before(chosen: Curve, return_pct: float | None) -> float:
    """Return the equity before the curve begins: what ``return_pct`` is measured against.

    Args:
        chosen: with the equity at the end.
        return_pct: percent; None, or everything lost: the first equity of the curve is returned.
    """
    if return_pct is None or return_pct <= -100.0:  # noqa: PLR2004 - percent
        return float(chosen.equity[0])
    return float(chosen.equity[-1]) / (1.0 + return_pct / 100.0)


def histogram(values: Iterable[Any], *also: float) -> tuple[Ints, Floats] | None:
    """Return counts (n_bins,) and edges (n_bins + 1,), None if nothing is known.

    Args:
        values: what is counted; None is not.
        also: values that lie within the edges besides; NaN is no value.
    """
    known = numbers(values)
    known = known[np.isfinite(known)]
    if len(known) == 0:
        return None
    bounds = np.concatenate((known, [value for value in also if math.isfinite(value)]))
    bins = min(_MAX_BINS, max(8, math.ceil(2.0 * math.sqrt(len(known)))))
    low, high = float(bounds.min()), float(bounds.max())
    largest = max(abs(low), abs(high))
    if high - low <= bins * np.spacing(largest):  # too near each other for bins between them
        low, high = low - max(0.5, 1e-6 * largest), high + max(0.5, 1e-6 * largest)
    counts, edges = np.histogram(known, bins, (low, high))
    return counts.astype(np.int64), edges
