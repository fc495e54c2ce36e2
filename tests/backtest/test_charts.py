"""Charts: every trade has its marker, lines are thinned and markers are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from backtest.report.png import MARKERS, equity_figure, png, thin, trades_figure
from engine.types import LABEL_NAMES
from tests.support.results.typed import typed

START_MS = 1_704_067_200_000
BAR_MS = 900_000


def result_with(labels: list[str], n_bars: int = 500) -> dict[str, Any]:
    times = START_MS + BAR_MS * np.arange(n_bars)
    close = 100.0 + np.sin(np.arange(n_bars) / 20.0)
    trades = [
        {"timestamp": int(times[i % n_bars]), "price": 100.0, "label": label}
        for i, label in enumerate(labels)
    ]
    candles = pd.DataFrame({"timestamp": times, "close": close})
    return {"coin": "BTC", "candles": candles, "trades": trades}


def legend_of(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("label", LABEL_NAMES)
def test_every_label_has_exactly_one_marker(label: str) -> None:
    assert len([marker for marker in MARKERS if label.startswith(marker.labels)]) == 1


@pytest.mark.parametrize(
    ("label", "name", "colour"),
    [
        ("BUY_OPEN_LONG", "open long", "green"),
        ("SELL_CLOSE_LONG", "close long", "blue"),
        ("SELL_OPEN_SHORT", "open short", "red"),
        ("BUY_CLOSE_SHORT", "close short", "orange"),
        ("STOP_SHORT", "stop", "darkred"),
        ("CIRCUIT_BREAKER_HALT", "circuit breaker", "purple"),
        ("LIQUIDATION", "liquidation", "black"),
        ("PRUNE_GAP", "prune", "grey"),
    ],
)
def test_colours_mean_what_the_manual_says(label: str, name: str, colour: str) -> None:
    (marker,) = (marker for marker in MARKERS if label.startswith(marker.labels))
    assert marker.name == name
    wanted, got = (
        np.array([int(to_hex(text)[i : i + 2], 16) for i in (1, 3, 5)])
        for text in (colour, marker.colour)
    )
    assert np.abs(wanted - got).max() < 100


def test_long_entries_are_triangles_that_point_up() -> None:
    assert MARKERS[1].labels == ("BUY_OPEN_LONG",)
    assert MARKERS[1].shape == "^"


def test_the_legend_counts_every_trade_record() -> None:
    labels = ["BUY_OPEN_LONG"] * 3 + ["STOP_LONG", "STOP_SHORT", "PRUNE_GAP", "PRUNE_OLDEST"]
    figure = trades_figure(typed(result_with(labels)))
    assert legend_of(figure) == ["open long (3 records)", "prune (2 records)", "stop (2 records)"]


def test_no_marker_is_thinned_away() -> None:
    figure = trades_figure(typed(result_with(["BUY_OPEN_LONG"] * 5_000, n_bars=20_000)))
    axes = figure.axes[0]
    (markers,) = axes.collections
    assert len(np.asarray(markers.get_offsets())) == 5_000
    assert len(np.asarray(axes.lines[0].get_xdata())) < 3_000


@pytest.mark.parametrize("labels", [[], list(LABEL_NAMES)])
def test_a_chart_is_drawn_as_png(labels: list[str]) -> None:
    body = png(trades_figure(typed(result_with(labels))))
    assert body.startswith(b"\x89PNG\r\n")
    assert len(body) < 200_000


@pytest.mark.slow
def test_the_same_result_gives_the_same_picture() -> None:
    result = result_with(["BUY_OPEN_LONG", "SELL_CLOSE_LONG"])
    assert png(trades_figure(typed(result))) == png(trades_figure(typed(result)))


def test_equity_stands_over_its_drawdown() -> None:
    equity = np.array([100.0, 120.0, 90.0, 130.0])
    figure = equity_figure("BTC", START_MS + BAR_MS * np.arange(4), equity, 100.0)
    upper, lower = figure.axes
    assert upper.get_position().y0 > lower.get_position().y0
    assert np.asarray(upper.lines[0].get_ydata()).tolist() == equity.tolist()
    assert np.asarray(lower.lines[0].get_ydata()).tolist() == pytest.approx([0, 0, -25, 0])
    assert upper.get_title(loc="left") == "BTC: +30.00 %, largest drawdown 25.00 %"


@pytest.mark.parametrize("equity", [[100.0], [0.0, 0.0], [100.0] * 300])
def test_a_flat_or_short_curve_is_drawn_too(equity: list[float]) -> None:
    times = START_MS + BAR_MS * np.arange(len(equity))
    assert png(equity_figure("BTC", times, np.array(equity), 100.0)).startswith(b"\x89PNG")


@given(arrays(np.float64, st.integers(1, 400), elements=st.floats(-1e6, 1e6)), st.integers(10, 100))
def test_thinning_keeps_ends_and_extremes(values: npt.NDArray[np.float64], most: int) -> None:
    rows = thin(values, most)
    assert rows[0] == 0
    assert rows[-1] == len(values) - 1
    assert np.all(np.diff(rows) > 0)
    assert values[rows].min() == values.min()
    assert values[rows].max() == values.max()
    assert len(rows) <= most + 4
