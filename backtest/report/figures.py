"""Figures of the HTML report, drawn by Bokeh: linked charts over time, and distributions.

Lines are thinned to what a screen can show, trades never are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    CrosshairTool,
    DataRange1d,
    DatetimeTickFormatter,
    FactorRange,
    HoverTool,
    NoOverlap,
    NumeralTickFormatter,
    PanTool,
    Range1d,
    RangeTool,
    ResetTool,
    WheelZoomTool,
)
from bokeh.models.annotations import Legend, LegendItem, Span
from bokeh.plotting import figure

from backtest.report.legend import LegendEntry, set_legend
from backtest.report.png import thin
from core.performance import drawdown_curve

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

GAIN: Final = "#15803d"
LOSS: Final = "#b91c1c"
INK: Final = "#1d4ed8"
MUTED: Final = "#94a3b8"
COIN_COLOURS: Final = (
    "#d97706",
    "#6d28d9",
    "#0d9488",
    "#be185d",
    "#4d7c0f",
    "#0369a1",
    "#9f1239",
    "#57534e",
)
MAX_POINTS: Final = 8_000
"""Of a line: a week of two years still shows its shape when zoomed into."""
LEGEND_COLUMNS: Final = 7
_TIME: Final = "@time{%F %H:%M}"


class TimeAxis:
    """Charts over the same time: they zoom, pan and show the pointer's moment together."""

    def __init__(self, start_ms: int, end_ms: int) -> None:
        """Span the axis from ``start_ms`` to ``end_ms``, UTC."""
        self.start, self.end = float(start_ms), float(end_ms)
        margin = 0.01 * (self.end - self.start)
        low, high = self.start - margin, self.end + margin
        self.range = Range1d(start=low, end=high, bounds=(low, high), min_interval=3_600_000.0)
        self._crosshair = Span(dimension="height", line_color=MUTED, line_dash="dotted")

    def chart(self, height: int, title: str, number: str, *, values: Any = None) -> Any:
        """Return an empty chart of ``height`` pixels.

        Args:
            height: pixels.
            title: above the chart.
            number: format of the values, as numbro writes it.
            values: range of the values where the data alone do not decide it.
        """
        chart = figure(
            height=height,
            sizing_mode="stretch_width",
            title=title,
            x_range=self.range,
            y_range=values or DataRange1d(only_visible=True),
            x_axis_type="datetime",
            tools="",
            toolbar_location="above",
            window_axis="x",
            min_border_left=72,
        )
        drag = BoxZoomTool(dimensions="width")
        chart.add_tools(
            drag,
            PanTool(dimensions="width"),
            WheelZoomTool(dimensions="width"),
            ResetTool(),
            CrosshairTool(overlay=self._crosshair),
        )
        chart.toolbar.active_drag = drag
        chart.toolbar.logo = None
        chart.toolbar.autohide = True
        style_chart(chart)
        _write_dates(chart)
        chart.yaxis.formatter = NumeralTickFormatter(format=number)
        return chart

    def overview(self, time: Ints, values: Floats) -> Any:
        """Return a low chart of ``values`` whose shaded window chooses the time shown."""
        rows = thin(values, 2_000)
        chart = figure(
            height=74,
            sizing_mode="stretch_width",
            x_axis_type="datetime",
            tools="",
            toolbar_location=None,
            x_range=Range1d(start=self.range.start, end=self.range.end),
            min_border_left=72,
        )
        chart.line(time[rows].astype(np.float64), values[rows], color=MUTED, line_width=1)
        window = RangeTool(x_range=self.range)
        window.overlay.fill_color, window.overlay.fill_alpha = INK, 0.10
        chart.add_tools(window)
        style_chart(chart)
        _write_dates(chart)
        chart.yaxis.visible = False
        return chart


def style_chart(chart: Any) -> None:
    """Give a chart the page's colours and sizes."""
    chart.outline_line_color = None
    chart.min_border_right = 18
    chart.title.text_font_size, chart.title.text_color = "12.5px", "#334155"
    for axis in chart.axis:
        axis.axis_line_color = axis.major_tick_line_color = "#cbd5e1"
        axis.minor_tick_line_color = None
        axis.major_label_text_color, axis.major_label_text_font_size = "#64748b", "11px"
    chart.xgrid.grid_line_color, chart.ygrid.grid_line_color = None, "#eef2f7"


def _write_dates(chart: Any) -> None:
    """Write instants below ``chart``, as many as there is room for."""
    chart.xaxis.formatter = date_format()
    chart.xaxis.major_label_policy = NoOverlap(min_distance=10)


def date_format() -> DatetimeTickFormatter:
    """Return how instants are written on an axis: as coarse as the distance of ticks allows."""
    return DatetimeTickFormatter(
        hours="%d %b %H:%M",
        days="%d %b %Y",
        months="%b %Y",
        years="%Y",
        hourmin="%d %b %H:%M",
        minutes="%d %b %H:%M",
    )


def line_source(time: Ints, values: Floats, **others: Floats) -> ColumnDataSource:
    """Return ``time`` and ``values``, thinned to the extremes of ``values``."""
    rows = thin(values, MAX_POINTS)
    columns = {"time": time.astype(np.float64), "value": values, **others}
    return ColumnDataSource({name: column[rows] for name, column in columns.items()})


def add_legend(chart: Any, items: Sequence[LegendEntry]) -> None:
    """Put a legend above ``chart``; a click on an entry hides or shows it."""
    legend = Legend(
        items=[LegendItem(label=name, renderers=drawn) for name, drawn in items],
        orientation="horizontal",
        click_policy="hide",
        border_line_color=None,
        margin=0,
        spacing=8,
        label_text_font_size="11px",
        glyph_width=16,
        glyph_height=16,
        background_fill_alpha=0.0,
        ncols=LEGEND_COLUMNS,
        location="top_left",
    )
    chart.add_layout(legend, "above")


def hover(
    chart: Any,
    drawn: list[Any],
    rows: Sequence[tuple[str, str]],
    mode: Literal["vline", "mouse"] = "vline",
) -> None:
    """Show ``rows`` (name, format) of the point under the pointer."""
    chart.add_tools(
        HoverTool(
            renderers=drawn,
            tooltips=list(rows),
            mode=mode,
            point_policy="snap_to_data",
            line_policy="nearest",
            formatters={"@time": "datetime"},
            visible=False,
        )
    )


def equity_charts(
    axis: TimeAxis, time: Ints, equity: Floats, initial: float, held: Floats | None = None
) -> list[Any]:
    """Return the charts of equity and drawdown.

    Args:
        axis: shared.
        time: closes of the bars, ms UTC, shape (n_bars,).
        equity: quote, shape (n_bars,).
        initial: before the first bar, quote.
        held: what buying and holding would have been worth, hidden at first, shape (n_bars,).
    """
    chart = axis.chart(250, "Equity, USDT", "0,0.[00]")
    fall = -100.0 * drawdown_curve(equity, initial)
    drawn = chart.line("time", "value", source=line_source(time, equity), color=INK, line_width=1.6)
    start = Span(location=initial, dimension="width", line_color=MUTED, line_dash="dashed")
    chart.add_layout(start)
    items = [("equity", [drawn])]
    if held is not None:
        hold = chart.line("time", "value", source=line_source(time, held), color="#d97706")
        hold.visible = False
        items.append(("buy and hold (hidden at first)", [hold]))
    set_legend(chart, items)
    hover(chart, [drawn], [("close", _TIME), ("equity", "@value{0,0.00} USDT")])
    return [chart, drawdown_chart(axis, time, fall)]


def drawdown_chart(axis: TimeAxis, time: Ints, fall: Floats) -> Any:
    """Return the chart of ``fall``, percent under the highest equity so far, (n_bars,)."""
    source = line_source(time, fall)
    chart = axis.chart(140, "Drawdown, %", "0.[00]", values=DataRange1d(end=0.0))
    chart.varea("time", "value", 0.0, source=source, color=LOSS, alpha=0.22)
    drawn = chart.line("time", "value", source=source, color=LOSS, line_width=1)
    hover(chart, [drawn], [("close", _TIME), ("drawdown", "@value{0.00} %")])
    return chart


def inventory_chart(axis: TimeAxis, time: Ints, sides: Mapping[str, Floats]) -> Any:
    """Return the chart of both sides' positions, long above and short below the axis.

    Args:
        axis: shared.
        time: closes of the bars, ms UTC, shape (n_bars,).
        sides: notional of ``LONG`` and ``SHORT`` in percent of equity, each (n_bars,).
    """
    chart = axis.chart(170, "Inventory at the closes, % of equity", "0.[0]")
    items, lines = [], []
    for name, sign, colour in (("LONG", 1.0, GAIN), ("SHORT", -1.0, LOSS)):
        values = sign * sides[name]
        source = line_source(time, values)
        area = chart.varea_step(
            "time", 0.0, "value", source=source, step_mode="before", color=colour, alpha=0.30
        )
        line = chart.step(
            "time", "value", source=source, mode="before", color=colour, name=name.lower()
        )
        items.append((name.lower(), [area, line]))
        lines.append(line)
    set_legend(chart, items)
    hover(chart, lines, [("$name", "@value{0.00} % of equity"), ("close", _TIME)])
    return chart


def by_sign(values: Sequence[float]) -> list[str]:
    """Return a colour for each value: gains green, losses red."""
    return [GAIN if value >= 0.0 else LOSS for value in values]


def bars_chart(
    title: str,
    names: Sequence[str],
    values: Sequence[float],
    number: str,
    hint: str,
    *,
    colours: Sequence[str] | None = None,
) -> Any:
    """Return a bar chart, one bar per name.

    Args:
        title: above the chart.
        names: distinct.
        values: as many.
        number: format of the values.
        hint: format of a value when pointed at.
        colours: of the bars; None: by the sign of their values.
    """
    shown = list(colours or by_sign(values))
    source = ColumnDataSource({"name": list(names), "value": list(values), "colour": shown})
    chart = figure(
        height=220,
        sizing_mode="stretch_width",
        title=title,
        x_range=FactorRange(factors=list(names)),
        tools="",
        toolbar_location=None,
        min_border_left=60,
    )
    chart.vbar("name", 0.84, "value", 0.0, source=source, color="colour", alpha=0.85)
    chart.add_tools(HoverTool(tooltips=[("", "@name"), ("", hint)], mode="vline"))
    style_chart(chart)
    chart.yaxis.formatter = NumeralTickFormatter(format=number)
    most_labels = 10
    if len(names) > most_labels:
        chart.xaxis.major_label_orientation = 0.9
    return chart


def returns_chart(axis: TimeAxis, time: Ints, curves: Mapping[str, Floats], strong: str) -> Any:
    """Return a chart of several curves' returns in percent, the one called ``strong`` in front.

    Args:
        axis: shared.
        time: closes of the bars, ms UTC, shape (n_bars,).
        curves: percent since the start by name, each (n_bars,).
        strong: its name.
    """
    chart = axis.chart(280, "Return of each coin and of all together, %", "0.[00]")
    others = [name for name in curves if name != strong]
    colours = {name: COIN_COLOURS[k % len(COIN_COLOURS)] for k, name in enumerate(others)}
    items, lines = [], []
    for name in [*others, strong]:
        drawn = chart.line(
            "time",
            "value",
            source=line_source(time, curves[name]),
            color=colours.get(name, INK),
            line_width=1.2 if name in colours else 2.4,
            name=name,
        )
        items.append((name, [drawn]))
        lines.append(drawn)
    set_legend(chart, items)
    hover(chart, lines, [("$name", "@value{0.00} %"), ("close", _TIME)])
    return chart
