"""Small figures of the optimizer's page, one per parameter: its sensitivity, and the trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from bokeh.models import ColumnDataSource, FactorRange, NumeralTickFormatter
from bokeh.models.annotations import Span

from backtest.optimize.report.chart_data import (
    DARK,
    FAIR,
    Document,
    Floats,
    Ints,
    cloud_limits,
    course,
    disqualified,
    look_up,
    numbers,
    onto,
    rows,
    score_limits,
)
from backtest.optimize.report.report_figures import plain_chart
from backtest.report.figures import INK, LOSS, hover
from backtest.report.parameter_table import value_text

MAX_SHOWN: Final = 2_000
"""Trials drawn over the values of their parameters."""
BEST_SHOWN: Final = 500
"""Of these, the best; the others are every so many of the rest."""
_HEIGHT: Final = 176


def sensitivity_charts(document: Document) -> dict[str, Any]:
    """Return the score over the values of each parameter, by parameter, all on one axis."""
    curves = [row for row in rows(document, "sensitivity") if np.isfinite(_scores(row)).any()]
    if not curves:
        return {}
    limits = score_limits(*map(_scores, curves))
    return {
        row["name"]: _sensitivity_chart(
            row, limits, look_up(document, f"robust_params.{row['name']}")
        )
        for row in curves
    }


def trial_charts(document: Document) -> dict[str, Any]:
    """Return the trials' scores over the values of each parameter, by parameter.

    The trials that the choice rests on are orange, the choice is the line. Trials below the axis
    lie on its lower end.
    """
    trials = sorted(rows(document, "trials"), key=lambda trial: int(trial["number"]))
    scores = course(document).score
    kept = drawn_trials(scores)
    if len(kept) == 0:
        return {}
    limits = cloud_limits(scores)
    place = {int(row): rank for rank, row in enumerate(np.argsort(-scores, kind="stable"))}
    top = look_up(document, "top_trials_used") or 0
    kept = np.array(sorted(kept.tolist(), key=lambda row: -place[row]))  # the best in front
    params = [trials[row].get("params") or {} for row in kept]
    source = ColumnDataSource(
        {
            "trial": np.array([trials[row]["number"] for row in kept], np.int32),
            "score": scores[kept],
            "drawn": onto(scores[kept], limits),
            "colour": [FAIR if place[int(row)] < top else INK for row in kept],
        }
    )
    charts = {}
    for name in look_up(document, "space") or params[-1]:
        values = [row.get(name) for row in params]
        log = bool(look_up(document, f"space.{name}.log"))
        chart = _parameter_chart(name, values, limits, log=log)
        source.add(_places(values), name)
        cloud = chart.scatter(
            name, "drawn", source=source, color="colour", size=4, alpha=0.5, line_color=None
        )
        _mark(chart, look_up(document, f"robust_params.{name}"))
        _show_points(chart, cloud, name)
        charts[name] = chart
    return charts


def drawn_trials(scores: Floats) -> Ints:
    """Return which trials are drawn: all with a score, or the best and an even share of the rest.

    Args:
        scores: of all trials, (n_trials,).
    """
    known = np.flatnonzero(np.isfinite(scores))
    if len(known) <= MAX_SHOWN:
        return known
    ranked = known[np.argsort(-scores[known], kind="stable")]
    rest = np.sort(ranked[BEST_SHOWN:])
    sample = rest[np.linspace(0, len(rest) - 1, MAX_SHOWN - BEST_SHOWN).astype(np.int64)]
    return np.sort(np.concatenate((ranked[:BEST_SHOWN], sample)))


def _sensitivity_chart(row: Document, limits: tuple[float, float], chosen: Any) -> Any:
    name, scores = row["name"], _scores(row)
    lost = ~np.isfinite(scores) | disqualified(scores)
    chart = _parameter_chart(name, row["values"], limits)
    if row.get("cliff"):
        chart.title.text, chart.title.text_color = f"{name}: cliff", LOSS
    source = ColumnDataSource(
        {
            name: _places(row["values"]),
            "score": scores,
            "line": np.where(lost, math.nan, scores),
            "drawn": onto(np.where(lost, limits[0], scores), limits),
            "marker": np.where(lost, "x", "circle").tolist(),
            "colour": np.where(lost, LOSS, INK).tolist(),
        }
    )
    _mark(chart, chosen)
    chart.line(name, "line", source=source, color=INK, line_width=1.4)
    points = chart.scatter(
        name, "drawn", source=source, color="colour", size=7, marker="marker", line_width=2
    )
    _show_points(chart, points, name)
    return chart


def _scores(row: Document) -> Floats:
    return numbers(row.get("scores") or [])


def _parameter_chart(
    name: str, values: Sequence[Any], limits: tuple[float, float], *, log: bool = False
) -> Any:
    """Return an empty chart over the values of a parameter, a place per value if no numbers."""
    if _are_categories(values):
        places = sorted({value_text(value) for value in values if value is not None})
        chart = plain_chart(_HEIGHT, name, limits, x_range=FactorRange(factors=places))
    else:
        chart = plain_chart(_HEIGHT, name, limits, x_axis_type="log" if log else "linear")
        chart.xaxis.formatter = NumeralTickFormatter(format="0.[000000]")
        chart.xaxis.ticker.desired_num_ticks = 4
        if all(isinstance(value, int) for value in values if value is not None):
            chart.xaxis.ticker.min_interval = 1  # there is nothing between whole numbers
    chart.yaxis.ticker.desired_num_ticks = 4
    return chart


def _are_categories(values: Sequence[Any]) -> bool:
    return any(isinstance(value, bool | str | list) for value in values)


def _places(values: Sequence[Any]) -> Any:
    """Return where ``values`` lie on the axis; a missing one lies nowhere."""
    if _are_categories(values):
        return ["" if value is None else value_text(value) for value in values]
    return numbers(values)


def _mark(chart: Any, chosen: Any) -> None:
    """Draw a line at the value of the choice, if there is one."""
    if chosen is None:
        return
    if isinstance(chart.x_range, FactorRange):
        if value_text(chosen) not in chart.x_range.factors:
            return
        place = chart.x_range.factors.index(value_text(chosen)) + 0.5
    else:
        place = float(chosen)
    chart.add_layout(Span(location=place, dimension="height", line_color=DARK, line_dash="dashed"))


def _show_points(chart: Any, points: Any, name: str) -> None:
    shown = [("trial", "@trial")] if "trial" in points.data_source.data else []
    value = f"@{name}" if isinstance(chart.x_range, FactorRange) else f"@{name}{{0.[000000]}}"
    hover(chart, [points], [*shown, (name, value), ("score", "@score{0.0000}")], "mouse")
