"""Where a run's entry levels lay: every generation's, from its centre and spacing in the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest.runs.coin_result import CoinResult
from core.grid import fill_ladder
from core.market import MarketRules
from core.params import StrategyParams
from engine.types import LIQUIDATION

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SIDES: Final = (("long", -1.0), ("short", 1.0))
"""Name of a side in the log, and where its entries lie from the centre."""
MAX_LEVEL_LINES: Final = 12_000
"""Of each side in a chart; where there are more, the grids that stood longest are drawn."""


@dataclass(frozen=True, eq=False)
class Generations:
    """The generations of one side, in their order.

    Attributes:
        first: first bar of each, (n,).
        last: last bar of each, (n,).
        centre: quote, (n,).
        entry_pct: distance between levels, relative, (n,).
    """

    first: Ints
    last: Ints
    centre: Floats
    entry_pct: Floats

    def longest(self, most: int) -> Generations:
        """Return the ``most`` that stood longest, in their order."""
        lasting = np.argsort(self.first - self.last, kind="stable")[:most]
        rows = np.sort(lasting)
        return Generations(
            self.first[rows], self.last[rows], self.centre[rows], self.entry_pct[rows]
        )


def standing_log(result: CoinResult) -> npt.NDArray[Any]:
    """Return a run's log up to the liquidation that left nothing, if one did: no grid stands then.

    Args:
        result: of a coin's run.
    """
    bars = result.trades["bar"][result.trades["label"] == LIQUIDATION]
    if bars.size and float(result.equity_curve[-1]) <= 0.0:
        return result.log[: int(bars[-1]) + 1]
    return result.log


def levels_sentence(result: CoinResult) -> str:
    """Return what the faint lines of the price chart are, and how many grids they leave out."""
    most = max(1, MAX_LEVEL_LINES // int(result.params.grid_levels))
    counts = {side: len(generations(standing_log(result), side).first) for side, _ in SIDES}
    stood = "while they stood; regime, breaker and limits decide which of them had an order."
    if not any(counts.values()):
        return "No grid ever stood."
    if max(counts.values()) <= most:
        return f"Faint lines in the price chart are the entry levels of both grids {stood}"
    parts = [f"{min(most, count):,} of {count:,} {side}" for side, count in counts.items()]
    return (
        f"Faint lines in the price chart are the entry levels of the grids that stood longest "
        f"({' and '.join(parts)} ones; the others are not drawn), {stood}"
    )


def generations(log: npt.NDArray[Any], side: str) -> Generations:
    """Return the generations of ``side`` (long or short) out of a run's log, (n_bars,)."""
    centre, pct = np.array(log[f"{side}_centre"]), np.array(log[f"{side}_pct"])
    starts = np.ones(len(log), bool)
    starts[1:] = (centre[1:] != centre[:-1]) | (pct[1:] != pct[:-1])
    first = np.flatnonzero(starts)
    last = np.append(first[1:] - 1, len(log) - 1) if first.size else first
    exists = centre[first] > 0.0
    return Generations(first[exists], last[exists], centre[first[exists]], pct[first[exists]])


def entry_levels(
    found: Generations, heading: float, params: StrategyParams, rules: MarketRules
) -> Floats:
    """Return the entry prices of each generation, nearest first, 0 where a level is no price.

    Args:
        found: generations of one side.
        heading: -1 below the centre, +1 above.
        params: number of levels, mode, round numbers.
        rules: tick size.

    Returns:
        Quote, shape (n, grid_levels).
    """
    market = rules.to_record(params.liquidation_fee)
    prices: Any = np.zeros((len(found.first), params.grid_levels))
    for row, centre, pct in zip(prices, found.centre, found.entry_pct, strict=True):
        fill_ladder(
            row,
            0,
            1,
            params.grid_levels,
            centre,
            pct,
            heading,
            int(params.grid_mode),
            params.round_number_nudge,
            0.0,
            market,
        )
    return np.asarray(prices, dtype=np.float64)


def level_segments(
    result: CoinResult, log: npt.NDArray[Any], heading: float, side: str, most: int
) -> Any:
    """Return the entry levels of one side as horizontal segments.

    Args:
        result: of a coin's run.
        log: of its bars, as far as a grid stood.
        heading: -1 below the centre, +1 above.
        side: long or short.
        most: segments; where there are more, the generations that stood longest are kept.

    Returns:
        (first bar, last bar, price) of each, arrays of shape (n_segments,), and the number of
        generations left out.
    """
    params: StrategyParams = result.params
    every = generations(log, side)
    kept = every.longest(max(1, most // params.grid_levels))
    prices = entry_levels(kept, heading, params, result.market)
    count = params.grid_levels
    first, last, flat = np.repeat(kept.first, count), np.repeat(kept.last, count), prices.ravel()
    real = flat > 0.0
    return (first[real], last[real], flat[real]), len(every.first) - len(kept.first)
