"""Carries decisions out on paper: candles are matched as in a backtest, with its own functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from core.records import zeros
from core.times import BAR_MS
from engine.book import clear_side, set_stop
from engine.execution import execute_exits, trigger_passed_stops
from engine.ledger import close_side, settle_funding
from engine.matching import walk_bar, walk_gap
from engine.types import LONG, SHORT, Bar, Exit
from live.exchange.port import MarketReader
from live.execution.books import LiveSession
from live.feed.candles import CandleSource
from live.feed.funding_rates import FundingRates


class PaperBroker:
    """A broker that trades nothing; see ``live.execution.broker.Broker``.

    Each closed candle is walked over the orders that rested through it, then the funding settled
    in it is paid: what a backtest over the same candles does.

    Args:
        session: ledger and orders.
        candles: closed candles.
        reader: of the price a step happens at.
        rates: settled funding rates.
    """

    def __init__(
        self, session: LiveSession, candles: CandleSource, reader: MarketReader, rates: FundingRates
    ) -> None:
        self._session, self._candles = session, candles
        self._reader, self._rates = reader, rates
        self._bar = zeros(Bar)

    def settle(self, until_ms: int) -> None:
        """Walk the candles that have closed since the newest step, and pay their funding.

        Bars that were missed meet the orders of the last step there was.
        """
        session = self._session
        first, last = session.progress.bar, until_ms // BAR_MS
        if first < 0:
            return
        for bar in range(first, last):
            if not session.strategy.state.ended:
                self._live_through(bar, is_missed=bar > first)
        session.collect()

    def _live_through(self, bar: int, *, is_missed: bool) -> None:
        strategy = self._session.strategy
        state, params, market = strategy.state, strategy.frozen_params, strategy.rules
        candle, walked = self._candles.candle(bar), self._bar
        walked.ts_ms, walked.open, walked.close = candle.ts_ms, candle.open, candle.close
        walked.high, walked.low = candle.high, candle.low
        if is_missed:
            self._session.go_to(bar * BAR_MS)
            before = self._candles.candle(bar - 1).close
            walk_gap(state, params, market, before, candle.open, strategy.tape)
        walk_bar(state, params, market, walked, strategy.tape)
        due = self._rates.due(bar * BAR_MS, (bar + 1) * BAR_MS)
        if strategy.params.funding_enabled and due != 0.0:
            settle_funding(state, due, candle.close)

    def price(self, bar: int) -> float:
        """Return the open of ``bar``, the first price after the candle before it closed."""
        return self._reader.opening_price(bar * BAR_MS)

    def mark(self) -> float:
        """Return the last traded price."""
        return self._reader.last_price()

    def last_close(self, bar: int) -> float:
        """Return the close of ``bar``, quote."""
        return float(self._candles.candle(bar).close)

    def open_bar(self, bar: int, price: float) -> None:
        """Let the book meet the gap from the last close to ``price``."""
        strategy = self._session.strategy
        before = self._candles.candle(bar - 1).close
        walk_gap(
            strategy.state, strategy.frozen_params, strategy.rules, before, price, strategy.tape
        )
        self._session.collect()

    def finish_exits(self) -> None:
        """Nothing: exits are done when they are decided."""

    def close(self, exits: Sequence[Exit]) -> None:  # noqa: ARG002 - they stand on the tape
        """Do the exits on the tape at the step's price."""
        strategy = self._session.strategy
        execute_exits(strategy.state, strategy.frozen_params, strategy.rules, strategy.tape)
        self._session.collect()

    def lay_out(self) -> None:
        """The book is the strategy's own; only stops that were passed when set are left to do."""
        strategy = self._session.strategy
        trigger_passed_stops(strategy.state, strategy.frozen_params, strategy.rules, strategy.tape)
        self._session.collect()

    def watch(self) -> None:
        """Nothing: what happens inside a candle is known when it has closed."""

    def secure(self) -> None:
        """Nothing: stops are watched by the candles."""

    def patience_s(self) -> float:
        """Return infinity: nothing is waited for."""
        return math.inf

    def check_positions(self) -> None:
        """Nothing: the ledger is all there is."""

    def withdraw(self) -> None:
        """Take entries and take-profits off, as of the candle that is forming; stops stay."""
        strategy = self._session.strategy
        state, params, market = strategy.state, strategy.frozen_params, strategy.rules
        for side in (LONG, SHORT):
            clear_side(state, params, side)
            set_stop(state, params, market, side)
        self._session.save()

    def flatten(self, label: int) -> None:
        """Close everything at the last price; no order rests for a later candle to meet."""
        strategy = self._session.strategy
        state, params, market = strategy.state, strategy.frozen_params, strategy.rules
        price = self._reader.last_price()
        for side in (LONG, SHORT):
            close_side(state, params, market, side, price, label, strategy.tape)
            clear_side(state, params, side)
        self._session.collect()
        self._session.save()
