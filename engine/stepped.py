"""A backtest of a strategy that has only the face of drivers: the steps of a dry run, in turn.

Slower than a compiled loop by some hundred times, and enough to try an idea.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from core.frames import empty_rates
from core.market import MarketRules
from core.records import dtype_of
from core.signals import compute_signals
from core.times import BAR_MS
from engine.contract import Bar, CloseAll, ExitsDone, Gap, Moment, StopsChecked, Strategy
from engine.results import RunResult, run_metrics
from engine.tables import BarLog, RunTables, bar_table, build_tables
from engine.types import CLOSE_END, LABEL_NAMES, take_trades


class Stepped(Strategy, Protocol):
    """A strategy whose records can be read.

    Attributes:
        state: a record with the fields of ``engine.types.Account``.
        tape: where its trade records are written.
    """

    state: Any
    tape: Any


class SteppedBacktest:
    """Runs a strategy over candles by asking it as a dry run does; see ``contract.Backtest``.

    Args:
        create: answers with a fresh strategy for parameters and rules.
        params: of the strategy; its indicators are those of ``core.signals``.
        rules: of the symbol.
    """

    def __init__(
        self, create: Callable[[Any, MarketRules], Stepped], params: Any, rules: MarketRules
    ) -> None:
        self.params, self._rules, self._create = params, rules, create
        self.state = create(params, rules).state

    def run_result(
        self,
        df: Any,
        *,
        funding: Any = None,
        detail: Any = None,
        first_bar: int = 0,
        signals: npt.NDArray[Any] | None = None,
        bar_ms: int = BAR_MS,
    ) -> RunResult:
        """See ``contract.Backtest.run_result``."""
        tables = self._tables(df, funding, detail, first_bar, signals, bar_ms)
        strategy, started = self._create(self.params, self._rules), time.perf_counter()
        log = np.zeros(len(tables.bars), dtype_of(BarLog))
        trades = [
            *self._steps(strategy, tables, log),
            self._close(strategy, float(tables.bars["close"][-1]), log[-1]),
        ]
        seconds = time.perf_counter() - started
        self.state = strategy.state
        table, first = np.concatenate(trades), tables.first_acting_bar
        # A driver's step is counted from 1970, a run's from its first candle.
        table["bar"] = np.searchsorted(tables.bars["ts_ms"], table["ts_ms"], side="right") - 1
        capital = self.params.initial_capital
        metrics = run_metrics(strategy.state, capital, tables.bars, log, table, first, own={})
        return RunResult(metrics, log, tables.regimes, table, first, tables.funding_source, seconds)

    def _tables(
        self, df: Any, funding: Any, detail: Any, first_bar: int, signals: Any, bar_ms: int
    ) -> RunTables:
        bars = bar_table(df)
        if signals is None:
            signals = compute_signals(
                bars["ts_ms"],
                bars["high"],
                bars["low"],
                bars["close"],
                np.array(df["volume"], dtype=np.float64),
                self.params,
                bar_ms=bar_ms,
            )
        settled = empty_rates() if funding is None else funding
        return build_tables(bars, signals, settled, detail, bar_ms, first_bar)

    @staticmethod
    def _steps(
        strategy: Stepped, tables: RunTables, log: npt.NDArray[Any]
    ) -> Iterator[npt.NDArray[Any]]:
        """Do every step, log the account at its bar's close, and yield its trade records."""
        first = tables.first_acting_bar
        for i, bar in enumerate(tables.bars):
            before = strategy.view().funding
            if i >= first and not strategy.ended:
                _act(strategy, tables, i)
            yield take_trades(strategy.tape)
            _log(strategy, float(bar["close"]), log[i])
            log[i]["funding"] = strategy.view().funding - before

    @staticmethod
    def _close(strategy: Stepped, price: float, row: Any) -> npt.NDArray[Any]:
        """Close what is open after the last bar, log the account, and return the records."""
        strategy.simulate(CloseAll(price, LABEL_NAMES[CLOSE_END]))
        _log(strategy, price, row)
        return take_trades(strategy.tape)


def _act(strategy: Stepped, tables: RunTables, i: int) -> None:
    """Do step ``i``, and let what it leaves on the book rest through its bar."""
    bar, price = tables.bars[i], float(tables.bars["open"][i])
    prev_close, funding = float(tables.bars["close"][i - 1]), tables.funding[i]
    strategy.begin(
        Moment(int(bar["ts_ms"]), tables.signals[i - 1], price, prev_close, float(funding["known"]))
    )
    strategy.simulate(Gap(prev_close, price))
    phase = 0
    while phase < strategy.phases and not strategy.ended:
        exits = strategy.exits(phase)
        phase += not (exits and strategy.asks_again)
        if exits:
            strategy.simulate(ExitsDone())
    if strategy.ended:
        return
    strategy.arrange()
    strategy.simulate(StopsChecked())
    first, end = int(tables.detail_from[i]), int(tables.detail_from[i + 1])
    parts = tables.detail[first:end] if end > first else tables.bars[i : i + 1]
    for k, part in enumerate(parts):
        if k > 0:
            strategy.simulate(Gap(float(parts[k - 1]["close"]), float(part["open"])))
        is_last = k == len(parts) - 1
        strategy.simulate(
            Bar(
                ts_ms=int(part["ts_ms"]),
                open=float(part["open"]),
                high=float(part["high"]),
                low=float(part["low"]),
                close=float(part["close"]),
                funding_rate=float(funding["due"]) if is_last else 0.0,
            )
        )


def _log(strategy: Stepped, close: float, row: Any) -> None:
    """Write the account at ``close``; nothing is left where it ended."""
    view = strategy.view(close)
    row["equity"] = 0.0 if strategy.ended else view.equity
    row["wallet"] = view.wallet
    row["long_qty"], row["short_qty"] = view.long.qty, view.short.qty
    row["long_centre"], row["long_pct"] = view.long.centre, view.long.spacing_pct
    row["short_centre"], row["short_pct"] = view.short.centre, view.short.spacing_pct
