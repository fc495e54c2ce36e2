"""In which colour the optimizer's page shows a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from markupsafe import Markup

from backtest.optimize.judge.evidence import LUCK
from backtest.optimize.report.chart_data import Document
from backtest.report.template import NOTHING

TONES: Final = {
    "STABLE": "gain",
    "MODERATE": "fair",
    "UNSTABLE": "loss",
    "EXCELLENT": "gain",
    "GOOD": "gain",
    "ACCEPTABLE": "fair",
    "WARNING": "loss",
}
"""Class of a verdict by its first word."""
PASSES: Final = {True: ("gain", "yes"), False: ("loss", "no"), None: ("open", "open")}
"""Class and word for whether a line of evidence meets its criterion."""
OUT_OF_SAMPLE: Final = {
    True: ("gain", "passed"),
    False: ("loss", "failed"),
    None: ("open", "not known"),
}


def criterion(line: Mapping[str, Any], *, failed: bool = False) -> tuple[str, str]:
    """Return class and word for whether a line of evidence meets its criterion.

    What luck may explain is never shown as a gain, though the line's own criterion be met; nor is
    anything where the whole has ``failed``.
    """
    tone, word = PASSES[line.get("passes")]
    doubtful = failed or LUCK in (line.get("verdict") or "")
    return ("fair" if tone == "gain" and doubtful else tone), word


def out_of_sample(data: Document) -> tuple[str, str]:
    """Return class and words for whether the choice held; with warnings it is no plain success."""
    tone, word = OUT_OF_SAMPLE[data.get("oos_pass")]
    if tone == "gain" and data.get("oos_warnings"):
        return "fair", f"{word}, with warnings"
    return tone, word


def verdict(text: str | None) -> Markup:
    """Return a verdict in the colour of its first word, of a weaker one if it has a but."""
    first, but, _ = (text or "").partition(", but ")
    tone = TONES.get(first.partition(" ")[0], "open")
    if but and tone == "gain":
        tone = "fair"
    return Markup('<b class="{}">{}</b>').format(tone, text or NOTHING)
