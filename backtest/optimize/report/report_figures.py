"""Figures of the optimizer's page, drawn by Bokeh; None where there is nothing to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.layouts import column
from bokeh.models import ColumnDataSource, Range1d
from bokeh.models.annotations import Span
from bokeh.plotting import figure

from backtest.optimize.report.chart_data import (
    BASELINE,
    DARK,
    Document,
    Windows,
    bar_limits,
    capital_before,
    cloud_limits,
    course,
    curve,
    disqualified,
    histogram,
    importance,
    look_up,
    numbers,
    onto,
    spreads,
    verdict_colours,
)
from backtest.report.figures import (
    COIN_COLOURS,
    GAIN,
    INK,
    LOSS,
    MUTED,
    TimeAxis,
    add_legend,
    bars_chart,
    drawdown_chart,
    hover,
    line_source,
    style_chart,
)
from core.performance import drawdown_curve


def progress_chart(document: Document) -> Any:
    """Return the score of each trial, those disqualified at the lower edge, and the best so far.

    Without trials it is an empty chart, never None.
    """
    trials = course(document)
    known = np.isfinite(trials.score)
    limits, out = cloud_limits(trials.score), disqualified(trials.score)
    title = "Score of each trial, train windows only" if known.any() else "No trial has a score"
    chart = plain_chart(280, title, limits)
    columns = {
        "trial": trials.number,
        "score": trials.score,
        "drawn": onto(trials.score, limits),
        "best": trials.best,
    }
    items, drawn = [], []
    for name, chosen, colour, marker in (
        ("trials", known & ~out, INK, "circle"),
        ("disqualified", out, LOSS, "x"),
    ):
        source = ColumnDataSource({key: values[chosen] for key, values in columns.items()})
        cloud = chart.scatter(
            "trial", "drawn", source=source, color=colour, size=6, alpha=0.5, marker=marker
        )
        if chosen.any():
            items.append((f"{name} ({chosen.sum():,})", [cloud]))
            drawn.append(cloud)
    steps = chart.step(trials.number, trials.best, mode="after", color=DARK, line_width=1.6)
    add_legend(chart, [*items, ("best so far", [steps])])
    hover(
        chart,
        drawn,
        [("trial", "@trial"), ("score", "@score{0.0000}"), ("best", "@best{0.0000}")],
        "mouse",
    )
    return chart


def importance_chart(document: Document) -> Any:
    """Return how much of the scores' variation each parameter explains."""
    shares = importance(document)
    if not shares:
        return None
    chart = bars_chart(
        "Importance: share of the variation of the score",
        list(shares),
        list(shares.values()),
        "0.[00]",
        "@value{0.000}",
        colours=[INK] * len(shares),
    )
    chart.height = 330
    return chart


def stability_chart(document: Document) -> Any:
    """Return how far apart seeds choose, in the verdicts' colours, and by luck alone."""
    found = spreads(document)
    if not found:
        return None
    names, values = list(found), [row["spread"] for row in found.values()]
    random = numbers(row.get("random_spread") for row in found.values())
    chart = bars_chart(
        "Stability: how far apart seeds choose (dash: at random)",
        names,
        values,
        "0.[00]",
        "@value{0.000}, at random @random{0.000}",
        colours=verdict_colours(found),
    )
    source = chart.renderers[0].data_source
    source.add(random, "random")
    chart.scatter("name", "random", source=source, marker="dash", size=16, color=DARK)
    chart.height = 330
    return chart


def pairs_chart(title: str, scores: Windows) -> Any:
    """Return train scores as broad bars with the test scores as narrow ones before them."""
    if not scores.names:
        return None
    limits = bar_limits(scores)
    chart = bars_chart(
        title,
        scores.names,
        scores.train.tolist(),
        "0.[00]",
        "train @value{0.000}, test @test{0.000}",
        colours=[MUTED] * len(scores.names),
    )
    chart.y_range = Range1d(start=limits[0], end=limits[1])
    source = chart.renderers[0].data_source
    source.add(scores.test, "test")
    source.add([LOSS if out else INK for out in disqualified(scores.test)], "shade")
    test = chart.vbar("name", 0.4, "test", 0.0, source=source, color="shade")
    add_legend(chart, [("train", [chart.renderers[0]]), ("test (red: penalised)", [test])])
    chart.height = 290
    return chart


def histogram_chart(
    title: str, values: Sequence[Any], mark: float | None, name: str, *, by_sign: bool = False
) -> Any:
    """Return a histogram.

    Args:
        title: above the chart.
        values: counted; None is not.
        mark: where a line stands; None: none.
        name: of the line.
        by_sign: bars below the mark are red and others green.
    """
    place = math.nan if mark is None else float(mark)
    found = histogram(values, place)
    if found is None:
        return None
    counts, edges = found
    chart = plain_chart(240, title, (0.0, 1.06 * float(counts.max())))
    colours = np.where((edges[:-1] + edges[1:]) / 2.0 < place, LOSS, GAIN) if by_sign else MUTED
    source = ColumnDataSource({"count": counts, "left": edges[:-1], "right": edges[1:]})
    source.add(np.broadcast_to(colours, counts.shape).tolist(), "colour")
    bars = chart.quad(
        "left", "right", "count", 0.0, source=source, color="colour", alpha=0.8, line_color="white"
    )
    hover(
        chart,
        [bars],
        [("from", "@left{0.000}"), ("to", "@right{0.000}"), ("count", "@count")],
        "mouse",
    )
    if mark is not None:
        chart.add_layout(Span(location=place, dimension="height", line_color=DARK, line_width=2))
        chart.title.text = f"{title} (line: {name})"
    return chart


def holdout_charts(document: Document) -> Any:
    """Return the choice's equity on the holdout against the current parameters', and its fall."""
    chosen = curve(document, "holdout.equity")
    if chosen is None:
        return None
    before = curve(document, "holdout.baseline_equity")
    every = [found for found in (chosen, before) if found is not None]
    axis = TimeAxis(
        min(int(found.time[0]) for found in every), max(int(found.time[-1]) for found in every)
    )
    chart = axis.chart(270, "Equity on the holdout, USDT", "0,0.[00]")
    start = capital_before(chosen, look_up(document, "holdout.return_pct"))
    chart.add_layout(Span(location=start, dimension="width", line_color=MUTED, line_dash="dashed"))
    items, lines = [], []
    colours = ((BASELINE, before, COIN_COLOURS[0]), ("chosen parameters", chosen, INK))
    for name, found, colour in colours:
        if found is not None:
            source = line_source(found.time, found.equity)
            line = chart.line(
                "time", "value", source=source, color=colour, line_width=1.6, name=name
            )
            items.append((name, [line]))
            lines.append(line)
    add_legend(chart, items)
    hover(chart, lines, [("$name", "@value{0,0.00} USDT"), ("time", "@time{%F %H:%M}")])
    fall = -100.0 * drawdown_curve(chosen.equity, start)
    return column(chart, drawdown_chart(axis, chosen.time, fall), sizing_mode="stretch_width")


def plain_chart(height: int, title: str, limits: tuple[float, float], **options: Any) -> Any:
    """Return an empty chart of two axes of numbers.

    Args:
        height: pixels.
        title: above the chart.
        limits: of the vertical axis.
        options: of ``bokeh.plotting.figure`` besides.
    """
    chart = figure(
        height=height,
        sizing_mode="stretch_width",
        title=title,
        y_range=Range1d(start=limits[0], end=limits[1]),
        tools="",
        toolbar_location=None,
        min_border_left=52,
        **options,
    )
    style_chart(chart)
    return chart
