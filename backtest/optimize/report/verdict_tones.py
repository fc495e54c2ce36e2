"""In which colour the optimizer's page shows a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from markupsafe import Markup

from backtest.optimize.judge.evidence import LUCK
from backtest.optimize.report.chart_data import Document, look_up
from backtest.report.template import NOTHING

TONES: Final = {"agrees": "gain", "as": "open"}
"""Class of a verdict by its first word."""
PASSES: Final = {True: ("gain", "yes"), False: ("loss", "no"), None: ("open", "open")}
"""Class and word for whether a line of evidence meets its criterion."""
ANSWERS: Final = {"held": "gain", "undecided": "fair", "failed": "loss"}
"""Class of an answer."""


def criterion(line: Mapping[str, Any], *, failed: bool = False) -> tuple[str, str]:
    """Return class and word for whether a line of evidence meets its criterion.

    What luck may explain is never shown as a gain, though the line's own criterion be met; nor is
    anything where the whole has ``failed``.
    """
    tone, word = PASSES[line.get("passes")]
    doubtful = failed or LUCK in (line.get("verdict") or "")
    return ("fair" if tone == "gain" and doubtful else tone), word


def answer(data: Document) -> tuple[str, str]:
    """Return class and word of the verdict on the choice."""
    word = look_up(data, "verdict.answer")
    return ANSWERS.get(word, "open"), word or "not known"


def verdict(text: str | None) -> Markup:
    """Return a verdict in the colour of its first word."""
    tone = TONES.get((text or "").partition(" ")[0], "open")
    return Markup('<b class="{}">{}</b>').format(tone, text or NOTHING)
