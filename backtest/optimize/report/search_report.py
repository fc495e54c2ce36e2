"""The printed report of a search: about one screen, for a person deciding what to do with it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from backtest.optimize.judge.agreement import AGREES, Agreement
from backtest.optimize.judge.evidence import EvidenceLine
from backtest.optimize.judge.findings import Known
from backtest.optimize.judge.robust import variation_text
from backtest.optimize.judge.sensitivity import Curve, Sensitivity, sparkline
from backtest.optimize.judge.verdict import Verdict, nothing_gained
from backtest.optimize.report.lines import WIDTH, short

_TICKS: Final = "▁▂▃▄▅▆▇█"
_ASCII_TICKS: Final = "12345678"
_NAME_WIDTH: Final = 27
_MARKS: Final = {True: "yes", False: "no", None: "-"}


def verdict_text(verdict: Verdict) -> str:
    """Return the answer, why, and what to do: the first thing a reader sees."""
    lines = [f"Verdict: {verdict.answer.value.upper()}"]
    rows = [("why", verdict.why), ("do", (verdict.to_do,))]
    for label, texts in rows:
        for k, text in enumerate(texts):
            lines.append(
                textwrap.fill(
                    text,
                    WIDTH,
                    initial_indent=f"  {label if k == 0 else '':<4}",
                    subsequent_indent=" " * 8,
                )
            )
    return "\n".join(lines)


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
    best, notes = choice.best, []
    if choice.outcome.score < known.baseline_score:
        notes.append("higher than the choice: even in training the search is no gain, keep it")
    if nothing_gained(known):
        notes.append("nothing in this space made money on train")
    remarks = "".join(f"\n               {note}" for note in notes)
    return (
        f"Config now     train score {known.baseline_score:.3f}{remarks}\n"
        f"Robust choice  train score {choice.outcome.score:.3f}, the {choice.kind}; {other}\n"
        f"               {choice.candidates.sentence()}\n"
        f"Best trial     score {best.outcome.score:.3f}, trial {best.number}: not tested; the best "
        "of many is partly luck"
    )


def _parameters(known: Known, current: Mapping[str, Any], *, blocks: bool) -> str:
    choice, agreement = known.choice, known.agreement
    head = (
        f"{'parameter':<{_NAME_WIDTH}}{'config':>10} -> {'chosen':<10}{'apart':>6}{'random':>8}"
        f"  {'seeds':<10}{'-20..+20 %':<11}"
    )
    rows = [head.rstrip(), "-" * len(head)]
    found = known.sensitivity
    curves = {curve.name: curve for curve in found.curves} if found else {}
    idle = found.without_effect() if found else []
    seeds = {item.name: item for item in agreement.parameters} if agreement else {}
    for name, value in choice.params.items():
        drawn = _curve(curves[name], found, blocks=blocks) if found else ""
        if name in idle:
            drawn = f"{drawn:<6}no effect"
        own = seeds.get(name)
        near = (
            f"{variation_text(own.spread):>6}{variation_text(own.random_spread):>8}  {own.word:<10}"
            if own
            else f"{'-':>6}{'-':>8}  {'':<10}"
        )
        values = f"{name:<{_NAME_WIDTH}}{short(current[name]):>10} -> {short(value):<10}"
        rows.append(f"{values}{near}{drawn}".rstrip())
    rows.append(textwrap.fill(_agreement(agreement), WIDTH))
    return "\n".join([*rows, _cliffs(found)])


def _agreement(found: Agreement | None) -> str:
    if found is None:
        return "Seeds: not compared, so nothing is known of how stable these values are"
    if math.isnan(found.p_value):
        return f"Seeds: only {found.n_chosen} of {found.n_seeds} searches had something to choose"
    agreeing = sum(item.word == AGREES for item in found.parameters)
    return (
        f"Seeds: {found.n_seeds} independent searches of {found.n_trials} trials; apart: how far "
        "their choices lie from each other, as a share of the range; agrees: nearer than choices "
        f"of searches whose scores say nothing (p < 0.05): {agreeing} of {len(found.parameters)}, "
        f"about {0.05 * len(found.parameters):.0f} would by chance"
    )


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
    texts = [
        f"Sensitivity: the score falls off a cliff within 20 % of {names}"
        if names
        else "Sensitivity: no cliff within 20 % of any value (x: disqualified)"
    ]
    texts += [
        f"{pair.one} and {pair.other} act as a {pair.kind}: only their {pair.kind} matters here"
        for pair in found.pairs
    ]
    return "\n".join(textwrap.fill(text, WIDTH, subsequent_indent=" " * 13) for text in texts)


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
