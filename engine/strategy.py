"""``GridStrategyV4``: one strategy, run over candles or one step at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy.typing as npt

import config as settings
from core.errors import ConfigError, DataError
from core.fingerprint import fingerprint
from core.frames import empty_rates, read_candles, read_rates
from core.market import MarketRules
from core.params import StrategyParams, unknown_key
from core.records import freeze, to_jsonable, zeros
from core.signals import Signal, compute_signals
from core.times import BAR_MS
from engine.compiled_run import CompiledRun, Loop
from engine.contract import Strategy
from engine.grid_v4.book import OrderBook
from engine.grid_v4.decision import PROTECT_PHASES, arrange, open_step, protect
from engine.grid_v4.face import GridV4
from engine.grid_v4.loop import close_at_end, run_bars
from engine.grid_v4.types import State, load_state, new_state, own_counts
from engine.result_dict import ResultDict
from engine.results import RunContext, RunResult, run_metrics
from engine.tables import BarLog, RunTables, bar_table, build_tables
from engine.types import Exit, PositionTracker, Tape, take_trades

_log: Final = logging.getLogger(__name__)
__all__ = [
    "PROTECT_PHASES",
    "GridStrategyV4",
    "arrange",
    "create",
    "open_step",
    "protect",
    "read_config",
]

NAME: Final = "grid_v4"
"""Of the strategy, in results and on the command line."""
LOOP: Final = Loop(run_bars, close_at_end, BarLog)
CODE_FINGERPRINT: Final = fingerprint("engine.strategy")
"""Names the decision code a result was made with."""


def read_config(config: Mapping[str, Any] | StrategyParams | None) -> StrategyParams:
    """Return validated parameters; keys missing from ``config`` come from ``STRATEGY_PARAMS``.

    Raises:
        ConfigError: an unknown key, a wrong type, a value out of range or a contradiction.
    """
    if isinstance(config, StrategyParams):
        return config
    return StrategyParams.from_dict({**settings.STRATEGY_PARAMS, **(config or {})})


def known_market(coin: str) -> MarketRules:
    """Return the rules of ``coin`` in ``BACKTEST_CONFIG['markets']``.

    Raises:
        ConfigError: the coin is not named there.
    """
    markets: Any = settings.BACKTEST_CONFIG["markets"]
    if coin not in markets:
        raise ConfigError(unknown_key(coin, markets, "market"))
    return MarketRules.from_dict(markets[coin])


def create(params: StrategyParams, rules: MarketRules | None) -> Strategy:
    """Return the strategy as drivers see it.

    Args:
        params: validated.
        rules: of the symbol; None: for reading a saved state only.
    """
    return GridV4(params, rules, CODE_FINGERPRINT)


class GridStrategyV4:
    """Owner of one state record; the decisions are in :mod:`engine.grid_v4.decision`.

    Args:
        config: strategy parameters, complete, partial or already validated.
        market: rules of the symbol; a coin named in ``BACKTEST_CONFIG['markets']``; or None: rules
            inferred from the first price.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | StrategyParams | None = None,
        market: MarketRules | str | None = None,
    ) -> None:
        self.params = read_config(config)
        if isinstance(market, str):
            market = known_market(market)
        self.market = market
        self.frozen_params = freeze(self.params)
        """The parameters as kernels read them."""
        self._market = market.to_record(self.params.liquidation_fee) if market else None
        self.reset()

    def reset(self) -> None:
        """Forget everything: a fresh wallet, no positions, no trades."""
        self.state: State = new_state(self.params.initial_capital)
        self.tape: Tape = zeros(Tape)

    @property
    def rules(self) -> Any:
        """The market rules as kernels read them."""
        if self._market is None:
            raise DataError("a step needs market rules: pass market= when creating the strategy")
        return self._market

    # --- over candles ---------------------------------------------------------------------------

    def run(
        self,
        df: Any,
        *,
        funding: Any = None,
        detail: Any = None,
        first_bar: int = 0,
        signals: npt.NDArray[Any] | None = None,
        bar_ms: int = BAR_MS,
    ) -> ResultDict:
        """Backtest over the candles of ``df`` and return what happened.

        Args:
            df: a pandas, polars or arrow frame with the columns timestamp (open time: seconds to
                nanoseconds, datetimes of any zone, or the index) open high low close, optionally
                volume, and fundingRate: the rate settled at that bar's open, NaN where none. See
                ``core.frames.read_candles``: what files may hold, with the same refusals.
            funding: settlements as columns timestamp and rate; replaces fundingRate.
            detail: sub-bars to walk instead of the bar's four prices, columns as in ``df``.
            first_bar: bars before it warm the indicators up and are not traded.
            signals: as ``compute_signals`` answers for these candles, to spare the work.
            bar_ms: length of a candle.

        Returns:
            A dict of ``equity_curve`` (n_bars,), ``trades`` (list of dicts), ``regime_log``
            (regime code of every step), ``metrics``, ``log`` (account at every close),
            ``trade_table``, ``first_bar`` (whose step acted first), ``funding_source``,
            ``seconds`` and ``bars_per_second`` of the compiled loop. It is also an object:
            ``.trades`` (DataFrame) and ``.equity`` (Series) with times, ``.plot()``,
            ``.report(path)``; see ``engine.result_dict.ResultDict``.

        Raises:
            DataError: candles or funding rates cannot be used; the text names row and fault.
        """
        return self.run_result(
            df, funding=funding, detail=detail, first_bar=first_bar, signals=signals, bar_ms=bar_ms
        ).to_dict()

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
        """Backtest over the candles of ``df``; arguments and errors as of ``run``."""
        read = read_candles(df, "candles", bar_ms)
        for notice in read.notices:
            _log.warning("%s", notice)
        candles, rates = read.columns, read.rates
        if funding is not None:
            rates = read_settlements(funding)
        bars = bar_table(candles)
        rules, market = self.market, self._market
        if rules is None or market is None:
            rules = MarketRules.inferred(float(bars["close"][0]))
            market = rules.to_record(self.params.liquidation_fee)
        if signals is None:
            signals = compute_signals(
                bars["ts_ms"],
                candles["high"],
                candles["low"],
                candles["close"],
                candles["volume"],
                self.params,
                bar_ms=bar_ms,
            )
        finer = None if detail is None else read_candles(detail, "detail", None).columns
        tables = build_tables(bars, signals, rates, finer, bar_ms, first_bar)
        context = RunContext(NAME, self.params, rules, bar_ms, candles["volume"], read.notices)
        return replace(self._run_fresh(tables, market), context=context)

    def run_tables(self, tables: RunTables) -> RunResult:
        """Backtest over prepared tables, from a fresh wallet to everything closed at the end."""
        return self._run_fresh(tables, self.rules)

    def _run_fresh(self, tables: RunTables, market: Any) -> RunResult:
        """Run on a state of its own, which is this strategy's when it is done.

        So threads that share the strategy do not share a wallet, and each has its own result.
        """
        state, tape = new_state(self.params.initial_capital), zeros(Tape)
        run = CompiledRun(LOOP, tables, self.frozen_params, market, state, tape)
        started = time.perf_counter()
        run.advance(0, len(tables.bars))
        run.close()
        trades, seconds = run.trades, time.perf_counter() - started
        result = self.result_of(state, tables, run.log, trades, seconds)
        self.state, self.tape = state, tape
        return result

    def result_of(
        self, state: State, tables: RunTables, log: Any, trades: Any, seconds: float
    ) -> RunResult:
        """Return the result of a run that ended with ``state``.

        Args:
            state: when everything was closed.
            tables: what was read.
            log: account at every close, (n_bars,).
            trades: records, (n_trades,).
            seconds: of the compiled loop.
        """
        first = tables.first_acting_bar
        return RunResult(
            metrics=run_metrics(
                state,
                self.params.initial_capital,
                tables.bars,
                log,
                trades,
                first,
                own_counts(state),
            ),
            log=log,
            regime_log=tables.regimes,
            trades=trades,
            first_bar=first,
            funding_source=tables.funding_source,
            seconds=seconds,
            bars=tables.bars,
        )

    def compiled_run(self, tables: RunTables, log: Any = None) -> CompiledRun:
        """Return a compiled run that goes on from this strategy's state and changes it."""
        return CompiledRun(LOOP, tables, self.frozen_params, self.rules, self.state, self.tape, log)

    def take_trades(self) -> npt.NDArray[Any]:
        """Return the trade records on the tape as a table of ``Trade`` and empty it."""
        return take_trades(self.tape)

    # --- one step at a time ---------------------------------------------------------------------

    def open_step(
        self,
        bar: int,
        ts_ms: int,
        price: float,
        prev_close: float,
        signal: Signal,
        funding_rate: float,
    ) -> None:
        """See :func:`engine.grid_v4.decision.open_step`."""
        open_step(self.state, bar, ts_ms, price, prev_close, signal, funding_rate)

    def protect(self, phase: int) -> list[Exit]:
        """Return the market exits of one phase, in order; see ``grid_v4.decision.protect``."""
        n = protect(self.state, self.frozen_params, self.rules, phase, self.tape)
        return [self.tape.exits[k] for k in range(n)]

    def arrange(self) -> OrderBook:
        """Return the orders that should rest now; see :func:`engine.grid_v4.decision.arrange`."""
        arrange(self.state, self.frozen_params, self.rules)
        return self.book

    @property
    def book(self) -> OrderBook:
        """The orders that should rest now."""
        return OrderBook(self.state, self.params.grid_levels)

    def position(self, position_side: int) -> PositionTracker:
        """Return the position of the side."""
        return PositionTracker(self.state, position_side)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON-ready data."""
        return dict(to_jsonable(self.state))

    def load_state_dict(self, data: Mapping[str, Any]) -> None:
        """Restore ``state_dict`` output, also of state schema 1.

        Raises:
            ValueError: the fields or capacities differ from this version's.
        """
        load_state(self.state, data)


def read_settlements(funding: Any) -> dict[str, npt.NDArray[Any]]:
    """Return settlements as ``timestamp`` and ``rate``; none where the frame has no rows.

    Raises:
        DataError: they cannot have been settled.
    """
    if len(funding) == 0:
        return empty_rates()
    return read_rates(funding, "funding", settled_only=True)
