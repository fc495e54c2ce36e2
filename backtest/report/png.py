"""Charts of a result as PNG: equity over drawdown, and the price with every trade on it.

Drawn on matplotlib's Figure directly: no window, no global state.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from backtest.runs.coin_result import CoinResult
from core.performance import drawdown_curve

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.datetime64]

_SIZE_INCHES: Final = (12.0, 6.5)
_DPI: Final = 100
_MAX_POINTS: Final = 2_400
"""Of a line: two for each pixel across."""
_MANY_TRADES: Final = 2_000


@dataclass(frozen=True)
class Marker:
    """How trades of some labels are drawn; labels are given by how they begin."""

    name: str
    labels: tuple[str, ...]
    shape: str
    colour: str
    size: float = 1.0


# Later ones cover earlier ones; a halt trades nothing.
MARKERS: Final = (
    Marker("circuit breaker", ("CIRCUIT_BREAKER_HALT",), "P", "#7b2cbf", 0.6),
    Marker("open long", ("BUY_OPEN_LONG",), "^", "#2ca02c"),
    Marker("close long", ("SELL_CLOSE_LONG",), "v", "#1e5bd9"),
    Marker("open short", ("SELL_OPEN_SHORT",), "v", "#e31a1c"),
    Marker("close short", ("BUY_CLOSE_SHORT",), "^", "#ff9f1c"),
    Marker("prune", ("PRUNE_",), "x", "#7f7f7f"),
    Marker("ladder rung", ("RECOVERY_LADDER",), "v", "#0d9488"),
    Marker("hedge", ("RECOVERY_HEDGE_",), "P", "#6d28d9", 0.8),
    Marker("recovery close", ("RECOVERY_CLOSE", "RECOVERY_ESCALATION"), "x", "#be185d"),
    Marker("taken over", ("ADOPTED",), "s", "#854d0e"),
    Marker("closed at the end", ("CLOSE_END",), "s", "#17becf"),
    Marker("closed by somebody else", ("POSITION_SYNC",), "s", "#a16207"),
    Marker("stop", ("STOP_",), "D", "#8b0000"),
    Marker("liquidation", ("LIQUIDATION",), "X", "#000000", 3.0),
)


def equity_figure(title: str, timestamps: Any, equity: Floats, initial: float) -> Figure:
    """Draw equity over drawdown.

    Args:
        title: above the chart.
        timestamps: bar open times, ms UTC, shape (n_bars,).
        equity: quote, shape (n_bars,).
        initial: equity before the first bar, quote.
    """
    figure = new_figure()
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    times, fall = times_of(timestamps), -100.0 * drawdown_curve(equity, initial)
    rows = thin(equity)
    upper.plot(times[rows], equity[rows], color="#1f4e79", linewidth=1.1, label="equity")
    upper.axhline(initial, color="#888888", linewidth=0.9, linestyle="--", label="start")
    upper.set_ylabel("equity, USDT")
    upper.yaxis.set_major_formatter("{x:,.0f}")
    upper.legend(loc="upper left", frameon=False, ncols=2)
    total = (equity[-1] / initial - 1.0) * 100.0
    upper.set_title(f"{title}: {total:+.2f} %, largest drawdown {-fall.min():.2f} %", loc="left")
    rows = thin(fall)
    lower.fill_between(times[rows], fall[rows], 0.0, color="#c0392b", alpha=0.35, linewidth=0.0)
    lower.plot(times[rows], fall[rows], color="#c0392b", linewidth=0.7)
    lower.set_ylabel("drawdown, %")
    lower.set_ylim(top=0.0)
    finish(upper, lower)
    return figure


def trades_figure(result: CoinResult) -> Figure:
    """Draw a coin's price with a marker for every trade record."""
    candles, trades = result.candles, result.trade_dicts
    figure = new_figure()
    axes = figure.subplots()
    close = np.array(candles["close"], dtype=np.float64)
    times, rows = times_of(candles["timestamp"]), thin(close)
    axes.plot(times[rows], close[rows], color="#7d848c", linewidth=1.0, zorder=1)
    size = 26.0 if len(trades) < _MANY_TRADES else 12.0
    for order, marker in enumerate(MARKERS):
        shown = [t for t in trades if t["label"].startswith(marker.labels)]
        if shown:
            axes.scatter(
                times_of([t["timestamp"] for t in shown]),
                np.array([t["price"] for t in shown]),
                s=size * marker.size,
                marker=marker.shape,
                color=marker.colour,
                linewidths=1.2 if marker.shape == "x" else 0.4,
                edgecolors=None if marker.shape == "x" else "white",
                zorder=2 + order,
                label=f"{marker.name} ({len(shown):,} records)",
            )
    axes.set_ylabel("price, USDT")
    axes.yaxis.set_major_formatter("{x:,.6g}")
    axes.set_title(f"{result.coin}: {len(trades):,} trade records", loc="left")
    if trades:
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=5, frameon=False, fontsize=9
        )
    finish(axes)
    return figure


def png(figure: Figure) -> bytes:
    """Return ``figure`` as PNG, the same bytes for the same content."""
    body = io.BytesIO()
    figure.savefig(body, format="png", metadata={"Software": None})
    return body.getvalue()


def thin(values: Floats, most: int = _MAX_POINTS) -> npt.NDArray[np.int64]:
    """Return rows enough to draw ``values`` as a line: the extremes of every stretch, and the ends.

    Args:
        values: shape (n,).
        most: about how many rows may remain.
    """
    n = len(values)
    if n <= most:
        return np.arange(n)
    width = -(-2 * n // most)
    padded = np.pad(values, (0, -n % width), mode="edge").reshape(-1, width)
    starts = np.arange(0, n, width)
    kept = (starts + padded.argmin(axis=1), starts + padded.argmax(axis=1))
    return np.unique(np.minimum(np.concatenate(([0, n - 1], *kept)), n - 1)).astype(np.int64)


def times_of(timestamps: Any) -> Times:
    """Return instants (ms UTC) as matplotlib reads them."""
    return np.array(timestamps, dtype=np.int64).astype("datetime64[ms]")


class Picture(Figure):
    """A figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        return png(self)


def new_figure() -> Figure:
    """Return an empty figure of the size all charts have."""
    figure = Picture(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def finish(*stacked: Axes) -> None:
    """Give axes that stand above one another the look of all charts."""
    for axes in stacked:
        axes.grid(visible=True, color="#e6e6e6", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    locator: Any = AutoDateLocator()  # type: ignore[no-untyped-call] # matplotlib's gap
    formatter: Any = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    stacked[-1].xaxis.set_major_locator(locator)
    stacked[-1].xaxis.set_major_formatter(formatter)
