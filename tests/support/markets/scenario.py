"""Small markets for the compiled engine: candles from tuples, signals under full control.

The quiet parameters are those of ``tests.engine.reference.scenarios``: a long grid made at 1000
with entries 990, 980, 970 and exits 970, 980 .. 1030; 10 % of equity per order; A = 10, so the wick
stop lies 15 under the average entry; no slippage, maker fee 0.02 %, taker fee 0.05 %; every other
mechanism off. A test switches on what it is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd

from core.funding import schedule_funding
from core.market import MarketRules
from core.orders import OrderKind
from core.records import dtype_of, freeze
from core.signals import Signal, SignalArray
from engine.grid_v4.generation import lay_entries, lay_exits
from engine.grid_v4.loop import exit_step, order_step, run_bars
from engine.grid_v4.types import PositionSide
from engine.grid_v4.walk import walk_gap
from engine.strategy import GridStrategyV4
from engine.tables import BarLog, bar_table, build_tables, detail_rows, funding_rows, within_bars
from tests.engine.reference.scenarios import BAR_MS, MARKET, QUIET, SIGNAL, START, WARM, Ohlc

LONG, SHORT = 0, 1
BARS_PER_DAY: Final = 96
SHORT_ONLY: Final[dict[str, Any]] = {"regime": -1}
"""Signal that keeps longs out; with an efficiency ratio of 0 it leaves the spacing alone."""
BUYS_990: Final[Ohlc] = (1000.0, 1000.0, 984.0, 985.0)
BUYS_990_980: Final[Ohlc] = (1000.0, 1000.0, 979.0, 985.0)

Record = tuple[int, str, float, float]
"""Bar, label, price, quantity."""
Changes = Mapping[str, Any]


def flat(price: float) -> Ohlc:
    """Return a bar that trades at one price only."""
    return (price,) * 4


def candle_frame(
    rows: Sequence[Ohlc], start_ms: int = START, step_ms: int = BAR_MS
) -> pd.DataFrame:
    """Return ``rows`` as candles from ``start_ms`` on."""
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4)
    assert np.all(columns[:, 1] >= columns.max(axis=1)), "a high lies under its bar"
    assert np.all(columns[:, 2] <= columns.min(axis=1)), "a low lies above its bar"
    frame = pd.DataFrame(columns, columns=["open", "high", "low", "close"])
    frame.insert(0, "timestamp", start_ms + step_ms * np.arange(len(frame)))
    return frame.assign(volume=1.0)


def signal_table(
    n_bars: int, everywhere: Changes | None = None, at: Mapping[int, Changes] | None = None
) -> SignalArray:
    """Return calm signals, changed ``everywhere`` and at single bars (read by the next step)."""
    table = np.zeros(n_bars, dtype_of(Signal))
    for i in range(n_bars):
        row = {**SIGNAL, **(everywhere or {}), **(at or {}).get(i, {})}
        for name, value in row.items():
            table[name][i] = value
    return table


def settlement_frame(n_bars: int, rates: Mapping[int, float], start_ms: int) -> pd.DataFrame:
    """Return settlements: ``rates`` by the bar at whose open they are due, and zeros daily.

    The zeros keep the funding model out of stretches without a settlement.
    """
    merged = dict.fromkeys(range(0, n_bars + BARS_PER_DAY, BARS_PER_DAY), 0.0) | dict(rates)
    times = [start_ms + k * BAR_MS for k in sorted(merged)]
    return pd.DataFrame({"timestamp": times, "rate": [merged[k] for k in sorted(merged)]})


@dataclass(frozen=True)
class Scenario:
    """One market and one setting, run on demand."""

    candles: pd.DataFrame
    signals: SignalArray
    config: dict[str, Any]
    rules: MarketRules
    funding: pd.DataFrame
    detail: pd.DataFrame | None

    @cached_property
    def result(self) -> dict[str, Any]:
        """The answer of ``GridStrategyV4.run``."""
        bars = bar_table(self.candles)
        tables = build_tables(bars, self.signals, self.funding, self.detail, BAR_MS, first_bar=0)
        return GridStrategyV4(self.config, self.rules).run_tables(tables).to_dict()

    @property
    def trades(self) -> list[dict[str, Any]]:
        """All trade records."""
        return list(self.result["trades"])

    @property
    def records(self) -> list[Record]:
        """Every record but the closing ones at the end."""
        return [
            (t["bar"], t["label"], t["price"], t["qty"])
            for t in self.trades
            if t["label"] != "CLOSE_END"
        ]

    @property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the run."""
        return dict(self.result["metrics"])

    def count(self, label: str) -> int:
        """Return how many records carry ``label``."""
        return sum(trade["label"] == label for trade in self.trades)

    def at(self, bar: int) -> GridStrategyV4:
        """Return the strategy after step 8 of ``bar``, before the bar is walked."""
        strategy = GridStrategyV4(self.config, self.rules)
        params = freeze(strategy.params)
        market: Any = self.rules.to_record(strategy.params.liquidation_fee)
        bars: Any = bar_table(self.candles)
        signals: Any = self.signals
        sub_bars = bars[:0]
        if self.detail is not None:
            sub_bars = within_bars(bars, bar_table(self.detail), BAR_MS)
        schedule = schedule_funding(
            np.array(bars["ts_ms"]),
            np.array(bars["close"]),
            np.array(self.funding["timestamp"]),
            np.array(self.funding["rate"]),
        )
        funding: Any = funding_rows(schedule)
        rows: Any = detail_rows(bars, sub_bars, BAR_MS)
        log: Any = np.zeros(len(bars), dtype_of(BarLog))
        run_bars(
            strategy.state,
            params,
            market,
            bars[:bar],
            signals,
            funding,
            sub_bars,
            rows,
            0,
            0,
            strategy.tape,
            log,
        )
        now, before = bars[bar], bars[bar - 1]
        strategy.open_step(
            bar,
            int(now.ts_ms),
            float(now.open),
            float(before.close),
            signals[bar - 1],
            float(funding[bar].known),
        )
        walk_gap(strategy.state, params, market, before.close, now.open, strategy.tape)
        exit_step(strategy.state, params, market, strategy.tape)
        order_step(strategy.state, params, market, strategy.tape)
        return strategy

    def side(self, bar: int, side: int = LONG) -> PositionSide:
        """Return one side's part of the state after step 8 of ``bar``."""
        return self.at(bar).state.sides[side]

    def entries(self, bar: int, side: int = LONG) -> list[tuple[int, float, float]]:
        """Return (level, price, qty) of the entries that rest through ``bar``."""
        name = ("LONG", "SHORT")[side]
        return [
            (order.level, order.price, order.qty)
            for order in self.at(bar).book
            if order.kind is OrderKind.ENTRY and order.position_side == name
        ]

    def entry_prices(self, bar: int, side: int = LONG) -> list[float]:
        """Return the prices of the entries that rest through ``bar``, nearest first."""
        return [price for _, price, _ in self.entries(bar, side)]

    def take_profits(self, bar: int, side: int = LONG) -> dict[float, float]:
        """Return price -> quantity of the take-profits that rest through ``bar``."""
        return self.at(bar).book.take_profits(side)

    def stop(self, bar: int, side: int = LONG) -> float:
        """Return the wick stop that rests through ``bar``, 0 if there is none."""
        return float(self.side(bar, side).stop_price)

    def lattice(self, bar: int, side: int = LONG) -> list[float]:
        """Return the exit levels in the direction of profit, level ``-grid_levels`` first."""
        count = 2 * self.config["grid_levels"] + 1
        exits = self._laid_out(bar, side).exits
        return [float(exits[k]) for k in range(count)]

    def levels(self, bar: int, side: int = LONG) -> list[float]:
        """Return the entry levels of the generation, whether or not an order rests there."""
        entries = self._laid_out(bar, side).entries
        return [float(entries[k]) for k in range(self.config["grid_levels"])]

    def _laid_out(self, bar: int, side: int) -> PositionSide:
        """Return a side of which every price of its generation was asked for."""
        strategy = self.at(bar)
        position = strategy.state.sides[side]
        lay_entries(strategy.frozen_params, strategy.rules, position, side)
        lay_exits(strategy.frozen_params, strategy.rules, position, side)
        return position


def play(
    rows: Sequence[Ohlc],
    changes: Changes | None = None,
    *,
    everywhere: Changes | None = None,
    at: Mapping[int, Changes] | None = None,
    rules: Changes | None = None,
    funding: Mapping[int, float] | None = None,
    detail: Mapping[int, Sequence[Ohlc]] | None = None,
    start_ms: int = START,
    warm: Ohlc = WARM,
) -> Scenario:
    """Return the scenario of ``rows`` after one warm bar, which is bar 0.

    Args:
        rows: open, high, low, close of bar 1 and on.
        changes: parameters other than the quiet ones.
        everywhere: signal values of all bars.
        at: signal values by bar; the step after it reads them.
        rules: market rules other than those of the quiet market.
        funding: rates by the bar at whose open they are settled.
        detail: equal sub-bars of single bars, which fill the bar.
        start_ms: open time of bar 0.
        warm: bar 0.
    """
    candles = candle_frame([warm, *rows], start_ms)
    market = {**MARKET, **(rules or {})}
    sub_bars = [
        candle_frame(parts, start_ms + bar * BAR_MS, BAR_MS // len(parts))
        for bar, parts in (detail or {}).items()
    ]
    return Scenario(
        candles=candles,
        signals=signal_table(len(candles), everywhere, at),
        config={**QUIET, **(changes or {})},
        rules=MarketRules(**{**market, "brackets": tuple(market["brackets"])}),
        funding=settlement_frame(len(candles), funding or {}, start_ms),
        detail=pd.concat(sub_bars, ignore_index=True) if sub_bars else None,
    )
