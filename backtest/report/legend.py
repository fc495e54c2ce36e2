"""Legends of the report's charts over time: rows of buttons above a chart, which wrap.

A legend that Bokeh draws has a fixed number of columns and runs out of a narrow page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from bokeh.models import Line, Scatter, Segment, Step

LegendEntry = tuple[str, list[Any]]
"""A name, and the renderers that a click on it hides or shows."""

_LINE: Final = "\u2501"
_AREA: Final = "\u25a0"
_MARKS: Final = {
    "triangle": "\u25b2",
    "inverted_triangle": "\u25bc",
    "x": "\u2715",
    "square": "\u25a0",
    "diamond": "\u25c6",
    "square_pin": "\u271a",
    "asterisk": "\u2731",
}


class LegendRow(NamedTuple):
    """One button.

    Attributes:
        name: what it says.
        models: ids of the renderers, parted by blanks.
        mark: a character that looks like what is drawn.
        shown: whether it is drawn unless clicked.
        later: whether it is drawn once the page stands.
    """

    name: str
    models: str
    mark: str
    colour: str
    shown: bool
    later: bool


def set_legend(chart: Any, items: Sequence[LegendEntry], later: Sequence[str] = ()) -> None:
    """Remember the legend of ``chart``, for ``legend_rows``.

    Args:
        chart: a figure.
        items: entries; one without renderers is left out.
        later: names of entries that are drawn only when the page stands, so that it opens sooner.
    """
    rows = []
    for name, drawn in items:
        if not drawn:
            continue
        mark, colour = _look(drawn[-1].glyph)
        models = " ".join(part.id for part in drawn)
        rows.append(LegendRow(name, models, mark, colour, drawn[0].visible, name in later))
        for part in drawn:
            part.visible = part.visible and name not in later
    chart.tags = [list(row) for row in rows]


def legend_rows(chart: Any) -> list[LegendRow]:
    """Return the legend of ``chart``, empty if it has none."""
    return [LegendRow(*row) for row in chart.tags]


def _look(glyph: Any) -> tuple[str, str]:
    style: Any = glyph  # its properties may be columns too; ours are not
    if isinstance(glyph, Scatter):
        return _MARKS[style.marker], style.fill_color
    if isinstance(glyph, Line | Segment | Step):
        return _LINE, style.line_color
    return _AREA, style.fill_color
