"""The printed report of a search: about one screen, for a person deciding what to do with it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from backtest.optimize.evidence import OOS_RULE, EvidenceLine
from backtest.optimize.findings import Known
from backtest.optimize.robust import stability_bar
from backtest.optimize.search_session import WIDTH, short
from backtest.optimize.sensitivity import Curve, Sensitivity, sparkline

_TICKS: Final = "▁▂▃▄▅▆▇█"
_ASCII_TICKS: Final = "12345678"
_NAME_WIDTH: Final = 27
_MARKS: Final = {True: "yes", False: "no", None: "-"}


def out_of_sample_line(*, passed: bool) -> str:
    """Return whether the choice held on candles it was not chosen on, and what that means."""
    return textwrap.fill(f"oos_pass: {'true' if passed else 'false'} ({OOS_RULE})", WIDTH)


def report(
    known: Known, lines: Sequence[EvidenceLine], current: Mapping[str, Any], *, encoding: str
) -> str:
    """Return scores, parameters with stability and sensitivity, and the evidence.

    Args:
        known: what the trials say.
        lines: the evidence.
        current: all parameters in use now.
        encoding: of where it is printed; curves are digits where it lacks block characters.
    """
    parameters = _parameters(known, current, blocks=has_blocks(encoding))
    evidence = [
        "Evidence, and whether its criterion is met:", *(_evidence(line) for line in lines)
    ]
    return "\n\n".join([_scores(known), parameters, "\n".join(evidence)])


def has_blocks(encoding: str) -> bool:
    """Return whether text in ``encoding`` can hold the curves' block characters."""
    try:
        _TICKS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _scores(known: Known) -> str:
    choice = known.choice
    other = f"the medoid has {choice.medoid_score:.3f}"
    if choice.kind == "medoid":
        score = (
            "contradicts itself" if math.isnan(choice.median_score)
            else f"has {choice.median_score:.3f}"
        )
        other = f"the median {score}"
    best = choice.best
    return (
        f"Best trial     score {best.outcome.score:.3f}, trial {best.number}: for reference, the "
        "best of many is partly luck\n"
        f"Robust choice  train score {choice.outcome.score:.3f}, the {choice.kind}; {other}\n"
        f"               {choice.candidates.sentence()}\n"
        f"Config now     train score {known.baseline_score:.3f}"
    )


def _parameters(known: Known, current: Mapping[str, Any], *, blocks: bool) -> str:
    choice, stability = known.choice, known.choice.stability
    head = (
        f"{'parameter':<{_NAME_WIDTH}}{'config':>10} -> {'chosen':<10}{'CV':>6}{'random':>8}"
        f"  {'':<20}{'-20..+20 %':<11}"
    )
    rows = [head.rstrip(), "-" * len(head)]
    for spread, curve in zip(stability.spreads, known.sensitivity.curves, strict=True):
        name = spread.name
        rows.append(
            f"{name:<{_NAME_WIDTH}}{short(current[name]):>10} -> {short(choice.params[name]):<10}"
            f"{_number(spread.cv):>6}{_number(spread.random_cv):>8}  "
            f"{stability_bar(spread.cv)} {spread.word:<9}"
            f"{_curve(curve, known.sensitivity, blocks=blocks)}".rstrip()
        )
    rows.append(
        f"Robustness score (mean CV) {_number(stability.score)}: {stability.word}; random draws "
        f"would have {_number(stability.random_score)}"
    )
    return "\n".join([*rows, _cliffs(known.sensitivity)])


def _curve(curve: Curve, found: Sensitivity, *, blocks: bool) -> str:
    drawn = sparkline((point.score for point in curve.points), found.disqualified, _scale(found))
    if not blocks:
        drawn = drawn.translate(str.maketrans(_TICKS, _ASCII_TICKS))
    falls = ", ".join(short(value) for value in curve.cliffs)
    return f"{drawn:<6}CLIFF at {falls}" if falls else drawn


def _scale(found: Sensitivity) -> tuple[float, float]:
    """Return the lowest and highest score of all curves that counts."""
    scores = [point.score for curve in found.curves for point in curve.points]
    counted = [score for score in scores if score > found.disqualified]
    return (min(counted), max(counted)) if counted else (0.0, 0.0)


def _cliffs(found: Sensitivity) -> str:
    names = ", ".join(found.cliffs())
    if not names:
        return "Sensitivity: no cliff within 10 % of any value (x: disqualified)"
    text = f"Sensitivity: the score falls off a cliff within 10 % of {names}"
    return textwrap.fill(text, WIDTH, subsequent_indent=" " * 13)


def _evidence(line: EvidenceLine) -> str:
    text = line.verdict if line.value == "-" else f"{line.value}: {line.verdict}"
    return textwrap.fill(
        text, WIDTH, initial_indent=f"{_MARKS[line.passes]:<4}{line.name:<25} ",
        subsequent_indent=" " * 30, break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
