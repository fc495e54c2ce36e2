"""The faint lines of the price chart: where a strategy's orders lay, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from backtest.report.grid_levels import (
    MAX_LEVEL_LINES,
    SIDES,
    level_segments,
    levels_sentence,
    standing_log,
)
from backtest.runs.coin_result import CoinResult
from engine.fixed_grid.frozen import freeze_params
from engine.fixed_grid.levels import stop_trigger, take_profit_price
from engine.fixed_grid.params import FixedGridParams
from engine.fixed_grid.types import MARK_LADDER, MARK_RUNG
from engine.registry import FIXED_GRID, GRID_V4

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_LEVEL_COLOURS: Final = {"long": "#3b82f6", "short": "#a855f7"}
_CYCLE_COLOURS: Final = {"close orders": "#0d9488", "stops": "#b91c1c", "rungs": "#d97706"}
_OPENING: Final = ("BUY_OPEN_LONG", "SELL_OPEN_SHORT")


@dataclass(frozen=True, eq=False)
class LineSet:
    """Horizontal lines of one kind.

    Attributes:
        name: for the legend.
        colour: of all of them.
        first: bar each begins in, (n,).
        last: bar each ends in, (n,).
        price: quote, (n,).
    """

    name: str
    colour: str
    first: Ints
    last: Ints
    price: Floats


@dataclass(frozen=True)
class ChartLines:
    """The lines of one strategy.

    Attributes:
        lines: answers with them for a coin's result.
        sentence: answers with what they are, for the report.
    """

    lines: Callable[[CoinResult], list[LineSet]]
    sentence: Callable[[CoinResult], str]


def chart_lines(result: CoinResult) -> ChartLines:
    """Return the lines that belong to a result's strategy."""
    return _OF_STRATEGY.get(result.strategy, _OF_STRATEGY[GRID_V4.name])


def _grid_lines(result: CoinResult) -> list[LineSet]:
    """Return the entry levels of both grids while they stood."""
    log, found = standing_log(result), []
    for side, heading in SIDES:
        (first, last, price), _ = level_segments(result, log, heading, side, MAX_LEVEL_LINES)
        colour = _LEVEL_COLOURS[side]
        found.append(LineSet(f"{side} grid levels", colour, first, last, price))
    return found


def _cycle_lines(result: CoinResult) -> list[LineSet]:
    """Return close price, stop and rungs of every position of a fixed grid while it was open."""
    params: FixedGridParams = result.params
    rules = result.market
    frozen, market = freeze_params(params), rules.to_record(params.liquidation_fee)
    entries = {t["cycle"]: t for t in result.trade_dicts if t["label"] in _OPENING}
    ends = {trade["cycle"]: trade["bar"] for trade in result.trade_dicts}
    marks = result.marks
    ladders = marks[marks["kind"] == MARK_LADDER]
    laid = dict(zip(ladders["cycle"].tolist(), ladders["bar"].tolist(), strict=True))
    rungs = marks[marks["kind"] == MARK_RUNG]
    price = [trade["price"] for trade in entries.values()]
    first = np.array([trade["bar"] for trade in entries.values()], np.int64)
    last = np.array([ends[cycle] for cycle in entries], np.int64)
    moved = np.array([laid.get(cycle, ends[cycle]) for cycle in entries], np.int64)
    closes = np.array([take_profit_price(frozen, market, entry) for entry in price], np.float64)
    stops = np.array([stop_trigger(frozen, market, entry) for entry in price], np.float64)
    until = np.array([ends[cycle] for cycle in rungs["cycle"].tolist()], np.int64)
    sets = {
        "close orders": (first, moved, closes),
        "stops": (first, last, stops),
        "rungs": (rungs["bar"], until, rungs["price"]),
    }
    return [
        _longest(LineSet(name, _CYCLE_COLOURS[name], *columns)) for name, columns in sets.items()
    ]


def _longest(lines: LineSet) -> LineSet:
    """Return those of ``lines`` that lasted longest and are prices, as many as a chart takes."""
    lasting = np.argsort(lines.first - lines.last, kind="stable")[:MAX_LEVEL_LINES]
    rows = np.sort(lasting[lines.price[lasting] > 0.0])
    return LineSet(lines.name, lines.colour, lines.first[rows], lines.last[rows], lines.price[rows])


def _cycle_sentence(result: CoinResult) -> str:
    count = sum(trade["label"] in _OPENING for trade in result.trade_dicts)
    if not count:
        return "No position was ever opened."
    drawn = "every position" if count <= MAX_LEVEL_LINES else "the positions held longest"
    return (
        f"Faint lines in the price chart are close order and stop of {drawn} while it was open, "
        "and the rungs of ladders from the step that laid them."
    )


_OF_STRATEGY: Final[Mapping[str, ChartLines]] = {
    GRID_V4.name: ChartLines(_grid_lines, levels_sentence),
    FIXED_GRID.name: ChartLines(_cycle_lines, _cycle_sentence),
}
