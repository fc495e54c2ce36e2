"""``FixedGridStrategy``: one fixed grid, run over candles or one step at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from core.errors import DataError
from core.market import MarketRules
from core.records import load_jsonable, to_jsonable, zeros
from engine.compiled_run import CompiledRun, Loop
from engine.fixed_grid.candles import (
    candle_funding,
    candle_length_ms,
    settlements_of,
    walked_candles,
)
from engine.fixed_grid.frozen import freeze_params
from engine.fixed_grid.loop import FixedLog, close_fixed_at_end, run_fixed_bars
from engine.fixed_grid.metrics import fixed_metrics
from engine.fixed_grid.params import FixedGridParams
from engine.fixed_grid.sizes import check_market
from engine.fixed_grid.types import FixedState, FixedTape, new_fixed_state
from engine.result_dict import ResultDict
from engine.results import RunContext, RunResult
from engine.tables import RunTables, bar_table
from engine.types import NO_REGIME

NAME: Final = "fixed_grid"
"""Of the strategy, in results and on the command line."""
FIXED_LOOP: Final = Loop(run_fixed_bars, close_fixed_at_end, FixedLog, ("trades", "marks"))


class FixedGridStrategy:
    """Owner of one state record; the decisions are in :mod:`engine.fixed_grid.decision`.

    Args:
        params: validated.
        market: rules of the symbol; None: inferred from the first price.
    """

    def __init__(self, params: FixedGridParams, market: MarketRules | None = None) -> None:
        self.params, self.market = params, market
        self.frozen_params = freeze_params(params)
        """The parameters as kernels read them."""
        self.reset()

    def reset(self) -> None:
        """Forget everything: a fresh wallet, no positions, no trades."""
        self.state: FixedState = new_fixed_state(self.params.initial_capital)
        self.tape: FixedTape = zeros(FixedTape)

    @property
    def rules(self) -> Any:
        """The market rules as kernels read them."""
        return self.known_market.to_record(self.params.liquidation_fee)

    @property
    def known_market(self) -> MarketRules:
        """The market rules; a run infers them where none were given.

        Raises:
            DataError: there are none yet.
        """
        if self.market is None:
            raise DataError("a step needs market rules: pass market= when creating the strategy")
        return self.market

    def tables(
        self, candles: Any, *, settled: Any = None, quarters: Any = None, first_bar: int = 0
    ) -> RunTables:
        """Return what a run over ``candles`` reads.

        Args:
            candles: frame of timestamp (open time), open, high, low, close; no coarser than a step.
            settled: frame of settlements, timestamp and rate; None: those of the model.
            quarters: frame of 15-minute candles for holes.
            first_bar: rows of ``candles`` before it are not traded.

        Raises:
            DataError: the candles cannot be used.
        """
        bars = bar_table(candles)
        if len(bars) == 0:
            raise DataError("no candles to run over")
        begin = bars["ts_ms"][min(first_bar, len(bars) - 1)] if first_bar > 0 else 0
        of_holes = None if quarters is None else bar_table(quarters)
        walked, flags = walked_candles(bars, self.params.step_s, of_holes)
        return RunTables(
            walked,
            flags,
            *candle_funding(walked, settled),
            walked[:0],
            np.zeros(len(walked) + 1, np.int64),
            int(np.searchsorted(walked["ts_ms"], begin)),
        )

    def run(
        self, df: Any, *, funding: Any = None, quarters: Any = None, first_bar: int = 0
    ) -> ResultDict:
        """Backtest over the candles of ``df`` and return what happened.

        Args:
            df: columns timestamp (open time; ms or datetime) open high low close, no coarser than a
                step, and optionally fundingRate: the rate settled at that candle's open, NaN where
                none.
            funding: settlements as columns timestamp and rate; replaces fundingRate.
            quarters: 15-minute candles for intervals whose own candles are not all there.
            first_bar: candles before it are not traded.

        Returns:
            A dict as of ``GridStrategyV4.run``; an interval with missing candles is one bar.

        Raises:
            ConfigError: the market does not allow the parameters.
            DataError: the candles cannot be used.
        """
        return self.run_result(
            df, funding=funding, quarters=quarters, first_bar=first_bar
        ).to_dict()

    def run_result(
        self,
        df: Any,
        *,
        funding: Any = None,
        detail: Any = None,
        first_bar: int = 0,
        signals: Any = None,
        bar_ms: int | None = None,
        quarters: Any = None,
    ) -> RunResult:
        """Backtest over the candles of ``df``; arguments and errors as of ``run``.

        Raises:
            DataError: finer candles or signals are given, which no step reads.
        """
        if detail is not None or signals is not None:
            raise DataError(
                "the fixed grid walks candles as fine as its step and reads no indicators: leave "
                "detail and signals out"
            )
        settled = settlements_of(df) if funding is None else funding
        tables = self.tables(df, settled=settled, quarters=quarters, first_bar=first_bar)
        result = self.run_tables(tables)
        bar_ms = candle_length_ms(tables.bars["ts_ms"], self.params.step_s)
        return replace(result, context=RunContext(NAME, self.params, self.known_market, bar_ms))

    def run_tables(self, tables: RunTables) -> RunResult:
        """Backtest over prepared tables, from a fresh wallet to everything closed at the end."""
        first = min(tables.first_bar, len(tables.bars) - 1)
        price = float(tables.bars["open"][first])
        if self.market is None:
            self.market = MarketRules.inferred(price)
        check_market(self.params, self.market, price)
        self.reset()
        run = self.compiled_run(tables)
        started = time.perf_counter()
        run.advance(0, len(tables.bars))
        run.close()
        trades, seconds = run.trades, time.perf_counter() - started
        self.state.counters.holes = int(tables.signals["is_hole"][first:].sum())
        return RunResult(
            metrics=fixed_metrics(self.state, self.params, tables.bars, run.log, trades, first),
            log=run.log,
            regime_log=np.full(len(tables.bars), NO_REGIME, np.int64),
            trades=trades,
            first_bar=first,
            funding_source=tables.funding_source,
            seconds=seconds,
            marks=run.taken("marks"),
            bars=tables.bars,
        )

    def compiled_run(self, tables: RunTables, log: Any = None) -> CompiledRun:
        """Return a compiled run that goes on from this strategy's state and changes it."""
        return CompiledRun(
            FIXED_LOOP, tables, self.frozen_params, self.rules, self.state, self.tape, log
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON-ready data."""
        return dict(to_jsonable(self.state))

    def load_state_dict(self, data: Mapping[str, Any]) -> None:
        """Restore ``state_dict`` output.

        Raises:
            ValueError: the fields or capacities differ from this version's.
        """
        load_jsonable(self.state, data)
