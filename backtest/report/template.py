"""From a run's JSON document to an HTML page: every number shown is looked up in the document.

A number on the page carries the path of its value, so a test can hold one against the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from backtest.report.parameter_table import parameter_rows, value_text
from backtest.results.files import json_bytes
from engine.registry import DEFAULT, known_spec

FORMATS: Final = {
    "money": "{:,.2f}",
    "signed_money": "{:+,.2f}",
    "percent": "{:.2f} %",
    "signed_percent": "{:+.2f} %",
    "plain": "{:.2f}",
    "signed_plain": "{:+.2f}",
    "ratio": "{:,.2f}",
    "count": "{:,.0f}",
    "hours": "{:,.1f} h",
    "days": "{:,.1f} d",
    "exact": "{:.6f}",
}
"""How a kind of number reads; signed ones are coloured."""
NOTHING: Final = "-"

_TEMPLATES: Final = Path(__file__).parent / "templates"


class Numbers:
    """Numbers of a document by their path, such as ``metrics.total_return_pct``."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Read ``document`` as it stands in a JSON file: what is no number there is None."""
        self.json = json_bytes(document).decode()
        self.document: dict[str, Any] = json.loads(self.json)

    def at(self, path: str) -> Any:
        """Return what stands at ``path``; list indices are numbers."""
        value: Any = self.document
        for part in path.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        return value

    def num(self, path: str, kind: str) -> Markup:
        """Return the number at ``path`` as text, marked with its path."""
        value = self.at(path)
        tone = ""
        if kind.startswith("signed") and number_text(value, kind)[0] in "+-" and value:
            tone = " gain" if value > 0.0 else " loss"
        return Markup('<span class="num{}" data-path="{}">{}</span>').format(
            tone, path, number_text(value, kind)
        )

    def shade(self, path: str, most: float) -> str:
        """Return a background from red to green for the value at ``path`` in ``[-most, most]``."""
        value = self.at(path)
        if not value or most <= 0.0:
            return "#f8fafc"
        strength = 0.08 + 0.42 * min(abs(value) / most, 1.0)
        return f"rgba({'21,128,61' if value > 0.0 else '185,28,28'},{strength:.2f})"


def number_text(value: float | None, kind: str) -> str:
    """Return ``value`` as a person reads it; a dash if there is none, no sign if it is 0."""
    if value is None:
        return NOTHING
    text = FORMATS[kind].format(value)
    return text if any(digit in text for digit in "123456789") else text.lstrip("+-")


def parameter_table(
    params: Mapping[str, Any], changed: Mapping[str, Any], strategy: str = DEFAULT.name
) -> list[dict[str, Any]]:
    """Return every parameter as ``name value default meaning changed``, texts and a flag."""
    return [
        {
            "name": row.name,
            "value": value_text(params[row.name]),
            "default": row.default,
            "meaning": row.meaning,
            "changed": row.name in changed,
        }
        for row in parameter_rows(known_spec(strategy))
    ]


def render(
    template: str,
    numbers: Numbers,
    charts: Mapping[str, Any],
    texts: Mapping[str, Any],
    *,
    at_once: int = 1,
) -> bytes:
    """Return a self-contained page.

    Args:
        template: file name among the templates.
        numbers: of the run.
        charts: figures or layouts by the name the template gives their place; None where there is
            nothing to draw. The first are drawn at once, the others when they come into view.
        texts: everything else the template reads.
        at_once: how many are drawn at once, none of them None; these may share ranges and tools.
    """
    names = list(charts)
    first = {name: charts[name] for name in names[:at_once]}
    later = {name: charts[name] for name in names[at_once:] if charts[name] is not None}
    script, places = components(first, wrap_script=False)
    late_script, late_places = components(later, wrap_script=False) if later else ("", {})
    divs = {name: Markup('<p class="note">nothing to draw</p>') for name in charts}
    for name, div in {**places, **late_places}.items():
        divs[name] = Markup(div)  # noqa: S704 - of our figures
    library = Resources(mode="inline", components=["bokeh"], log_level="error").render_js()
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(
        document=numbers.document,
        at=numbers.at,
        num=numbers.num,
        charts=divs,
        embedded=embedded_json(numbers.json),
        libraries=Markup(library),  # noqa: S704 - the library's own
        script=Markup(script),  # noqa: S704 - of our figures
        late_script=Markup(late_script),  # noqa: S704 - of our figures
        **texts,
    )
    return page.encode()


def embedded_json(text: str) -> Markup:
    """Return JSON that cannot end the script element it stands in."""
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - escaped for where it stands


def year_rows(months: Sequence[Mapping[str, Any]], years: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return ``(year, twelve paths or None, path of the year)`` for the table of months."""
    at = {month["key"]: k for k, month in enumerate(months)}
    rows = []
    for k, year in enumerate(years):
        keys = [f"{year['key']}-{month:02d}" for month in range(1, 13)]
        cells = [
            f"attribution.by_month.{at[key]}.return_pct" if key in at else None for key in keys
        ]
        rows.append((year["key"], cells, f"attribution.by_year.{k}.return_pct"))
    return rows
