"""The printed report of a search: about one screen, for a person deciding what to do with it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from backtest.optimize.judge.evidence import OOS_RULE, EvidenceLine
from backtest.optimize.judge.findings import Known
from backtest.optimize.judge.robust import stability_bar, variation_text
from backtest.optimize.judge.sensitivity import Curve, Sensitivity, sparkline
from backtest.optimize.session import WIDTH, short

_TICKS: Final = "▁▂▃▄▅▆▇█"
_ASCII_TICKS: Final = "12345678"
_NAME_WIDTH: Final = 27
_MARKS: Final = {True: "yes", False: "no", None: "-"}


def out_of_sample_text(*, passed: bool, warnings: Sequence[str]) -> str:
    """Return whether the choice held on candles it was not chosen on, and what that means.

    Args:
        passed: ``oos_pass``.
        warnings: what it does not tell.
    """
    texts = [f"oos_pass: {'true' if passed else 'false'} ({OOS_RULE})"]
    texts += [f"warning: {text}" for text in warnings]
    return "\n".join(textwrap.fill(text, WIDTH) for text in texts)


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
    evidence = ["Evidence, and whether its criterion is met:", *(_evidence(line) for line in lines)]
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
            "contradicts itself"
            if math.isnan(choice.median_score)
            else f"has {choice.median_score:.3f}"
        )
        other = f"the median {score}"
    best, lower = choice.best, ""
    if choice.outcome.score < known.baseline_score:
        lower = "\n               higher than the choice: even in training the search is no gain"
    return (
        f"Best trial     score {best.outcome.score:.3f}, trial {best.number}: for reference, the "
        "best of many is partly luck\n"
        f"Robust choice  train score {choice.outcome.score:.3f}, the {choice.kind}; {other}\n"
        f"               {choice.candidates.sentence()}\n"
        f"Config now     train score {known.baseline_score:.3f}{lower}"
    )


def _parameters(known: Known, current: Mapping[str, Any], *, blocks: bool) -> str:
    choice, stability = known.choice, known.choice.stability
    head = (
        f"{'parameter':<{_NAME_WIDTH}}{'config':>10} -> {'chosen':<10}{'CV':>6}{'random':>8}"
        f"  {'':<20}{'-20..+20 %':<11}"
    )
    rows = [head.rstrip(), "-" * len(head)]
    found = known.sensitivity
    curves = {curve.name: curve for curve in found.curves} if found else {}
    for spread in stability.spreads:
        name = spread.name
        drawn = _curve(curves[name], found, blocks=blocks) if found else ""
        rows.append(
            f"{name:<{_NAME_WIDTH}}{short(current[name]):>10} -> {short(choice.params[name]):<10}"
            f"{variation_text(spread.cv):>6}{variation_text(spread.random_cv):>8}  "
            f"{stability_bar(spread.cv)} {spread.word:<9}{drawn}".rstrip()
        )
    rows.append(
        textwrap.fill(
            f"Robustness score (mean CV) {variation_text(stability.score)}: {stability.word}; "
            f"random draws would have {variation_text(stability.random_score)}. A search draws "
            "near what scored well, on noise too: nearness is no edge",
            WIDTH,
        )
    )
    return "\n".join([*rows, _cliffs(found)])


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


def _cliffs(found: Sensitivity | None) -> str:
    if found is None:
        return "Sensitivity: not reached: interrupted before"
    names = ", ".join(found.cliffs())
    if not names:
        return "Sensitivity: no cliff within 20 % of any value (x: disqualified)"
    text = f"Sensitivity: the score falls off a cliff within 20 % of {names}"
    return textwrap.fill(text, WIDTH, subsequent_indent=" " * 13)


def _evidence(line: EvidenceLine) -> str:
    text = line.verdict if line.value == "-" else f"{line.value}: {line.verdict}"
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=f"{_MARKS[line.passes]:<4}{line.name:<25} ",
        subsequent_indent=" " * 30,
        break_long_words=False,
        break_on_hyphens=False,
    )
