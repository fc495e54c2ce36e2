"""The report's price chart: price, regimes behind it, every trade and what was held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from bokeh.models import ColumnDataSource

from backtest.report.chart_lines import chart_lines
from backtest.report.figures import GAIN, LOSS, MAX_POINTS, TimeAxis, hover
from backtest.report.legend import LegendEntry, set_legend
from backtest.report.png import MARKERS, Marker
from backtest.report.round_trips import round_trips
from backtest.runs.coin_result import CoinResult
from core.kama import BREAKOUT_DOWN, BREAKOUT_UP, DOWNTREND, UPTREND

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SHAPES: Final = {
    "^": "triangle",
    "v": "inverted_triangle",
    "x": "x",
    "s": "square",
    "D": "diamond",
    "P": "square_pin",
    "X": "asterisk",
}
"""The charts' marker shapes in Bokeh's names."""
FULL_DETAIL: Final = 60_000
"""Trade records up to which a marker also tells quantity, profit and fee, and holdings are drawn;
beyond, the page would grow past what a browser opens at once."""
_REGIMES: Final = (
    ("uptrend", UPTREND, "#86efac"),
    ("breakout up", BREAKOUT_UP, "#22c55e"),
    ("downtrend", DOWNTREND, "#fca5a5"),
    ("breakout down", BREAKOUT_DOWN, "#ef4444"),
)
_MANY: Final = 4_000
_SIZE: Final = 7.0
_SIZE_OF_MANY: Final = 4.5
"""Of a marker, pixels, where there are many."""
_TIME: Final = "@time{%F %H:%M}"


def price_chart(axis: TimeAxis, result: CoinResult) -> Any:
    """Return the chart of a coin's price with its grids and every trade record.

    A faint line runs at each entry level while its grid stood, whether or not an order rested
    there (regime and limits may have kept entries back); a stronger one at each entry's price from
    the entry to its last close.
    """
    chart = axis.chart(430, "Price, USDT", "0,0.[0000]")
    times = result.times_ms
    bar_ms = int(np.median(np.diff(times)))
    items = _add_regimes(chart, result.run.regime_log, times, bar_ms)
    price = _add_price(chart, result.candles, times, bar_ms)
    many = _add_levels(chart, result, times, bar_ms)
    many += _add_holdings(chart, result.trade_dicts, bar_ms)
    many += _add_trades(chart, result.trade_dicts)
    # What has no point in the time shown would count with all its points.
    chart.y_range.renderers = [drawn for _, (drawn,) in price]
    # Bokeh paints a page's charts twice before it rests: what is many is added after that.
    set_legend(chart, [*items, *price, *many], later=[name for name, _ in many])
    return chart


def regime_runs(regimes: Ints, code: int) -> tuple[Ints, Ints]:
    """Return first and last row of every run of ``code`` in ``regimes``, (n_bars,)."""
    edges = np.diff(np.concatenate(([False], regimes == code, [False])).astype(np.int8))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1


def price_columns(candles: Any, times: Ints, most: int = MAX_POINTS) -> dict[str, Any]:
    """Return lowest, highest and last price of at most ``most`` equal stretches of bars.

    Returns:
        ``time`` (start of the stretch, ms), ``low``, ``high`` and ``close`` (quote).
    """
    starts = np.arange(0, len(times), -(-len(times) // most))
    low, high, close = (
        np.array(candles[name], dtype=np.float64) for name in ("low", "high", "close")
    )
    ends = np.append(starts[1:], len(times)) - 1
    return {
        "time": times[starts].astype(np.float64),
        "low": np.minimum.reduceat(low, starts).astype(np.float32),
        "high": np.maximum.reduceat(high, starts).astype(np.float32),
        "close": close[ends].astype(np.float32),
    }


def _add_regimes(chart: Any, regimes: Ints, times: Ints, bar_ms: int) -> list[LegendEntry]:
    items = []
    for name, code, colour in _REGIMES:
        first, last = regime_runs(regimes, code)
        if first.size == 0:
            continue
        source = ColumnDataSource(
            {
                "start": times[first].astype(np.float64),
                "end": (times[last] + bar_ms).astype(np.float64),
            }
        )
        drawn = chart.vstrip(
            "start",
            "end",
            source=source,
            color=colour,
            fill_alpha=0.16,
            line_alpha=0.0,
            level="underlay",
        )
        items.append((name, [drawn]))
    return items


def _add_price(chart: Any, candles: Any, times: Ints, bar_ms: int) -> list[LegendEntry]:
    columns = price_columns(candles, times)
    source = ColumnDataSource(columns)
    span = chart.varea_step(
        "time", "low", "high", source=source, step_mode="after", color="#64748b", alpha=0.35
    )
    width = bar_ms * -(-len(times) // len(columns["time"]))
    drawn = chart.line(
        "time",
        "close",
        color="#334155",
        line_width=1.1,
        source=ColumnDataSource({"time": columns["time"] + width, "close": columns["close"]}),
    )
    return [("low to high", [span]), ("close", [drawn])]


def _add_levels(chart: Any, result: CoinResult, times: Ints, bar_ms: int) -> list[LegendEntry]:
    items = []
    for lines in chart_lines(result).lines(result):
        if not lines.price.size:
            continue
        source = ColumnDataSource(
            {
                "start": times[lines.first].astype(np.float64),
                "end": (times[lines.last] + bar_ms).astype(np.float64),
                "price": lines.price.astype(np.float32),
            }
        )
        drawn = chart.segment(
            "start",
            "price",
            "end",
            "price",
            source=source,
            color=lines.colour,
            alpha=0.28,
            line_width=0.8,
            name=lines.name.replace(" grid", ""),
        )
        items.append((lines.name, [drawn]))
    return items


def _add_holdings(
    chart: Any, trades: Sequence[Mapping[str, Any]], bar_ms: int
) -> list[LegendEntry]:
    if not trades or len(trades) > FULL_DETAIL:
        return []
    trips = round_trips(trades)
    items = []
    for name, won in (("held, ended in profit", True), ("held, ended in loss", False)):
        own = trips.only((trips.net > 0.0) == won)
        if not len(own.net):
            continue
        source = ColumnDataSource(
            {
                "start": own.entry_ms.astype(np.float64),
                "end": (own.entry_ms + np.maximum(own.holding_ms, bar_ms)).astype(np.float64),
                "price": own.price.astype(np.float32),
            }
        )
        drawn = chart.segment(
            "start",
            "price",
            "end",
            "price",
            source=source,
            color=GAIN if won else LOSS,
            alpha=0.55,
            line_width=1.4,
        )
        items.append((name, [drawn]))
    return items


def _add_trades(chart: Any, trades: Sequence[Mapping[str, Any]]) -> list[LegendEntry]:
    """Draw every record; return a legend entry per kind."""
    size = _SIZE if len(trades) < _MANY else _SIZE_OF_MANY
    detailed = len(trades) <= FULL_DETAIL
    by_label: dict[str, list[Mapping[str, Any]]] = {}
    for trade in trades:
        by_label.setdefault(trade["label"], []).append(trade)
    items: list[LegendEntry] = []
    for marker in MARKERS:
        labels = [label for label in by_label if label.startswith(marker.labels)]
        if labels:
            drawn = [
                _scatter(chart, marker, label, by_label[label], size, detailed=detailed)
                for label in labels
            ]
            count = sum(len(by_label[label]) for label in labels)
            items.append((f"{marker.name} ({_records(count)})", drawn))
    rows = [("trade", "$name"), ("bar", _TIME), ("price", "@price{0,0.[0000]}")]
    if detailed:
        rows += [
            ("quantity", "@qty{0.[000000]}"),
            ("gross profit", "@pnl{+0,0.00}"),
            ("fee", "@fee{0.0000}"),
        ]
    hover(chart, [point for _, drawn in items for point in drawn], rows, mode="mouse")
    return items


def _scatter(
    chart: Any,
    marker: Marker,
    label: str,
    shown: Sequence[Mapping[str, Any]],
    size: float,
    *,
    detailed: bool,
) -> Any:
    columns: dict[str, Any] = {
        "time": np.array([trade["timestamp"] for trade in shown], np.float64),
        "price": np.array([trade["price"] for trade in shown], np.float32),
    }
    if detailed:
        for name in ("qty", "pnl", "fee"):
            columns[name] = np.array([trade[name] for trade in shown], np.float32)
    return chart.scatter(
        "time",
        "price",
        source=ColumnDataSource(columns),
        marker=SHAPES[marker.shape],
        size=size * marker.size**0.5,
        color=marker.colour,
        fill_alpha=0.85,
        line_width=1.0,
        line_color=_outline(marker, many=size < _SIZE),
        name=label,
    )


def _outline(marker: Marker, *, many: bool) -> str | None:
    """Return the colour around a marker; among many, outlines cost time and hide their colours."""
    if marker.shape in "xX":
        return marker.colour
    return None if many else "#ffffff"


def _records(count: int) -> str:
    """Return a count of trade records; one stop event closes several fills, with one each."""
    return f"{count:,} record{'s' if count != 1 else ''}"
