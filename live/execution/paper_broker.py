"""Carries decisions out on paper: candles are matched as in a backtest, with its own functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from core.orders import POSITION_SIDES
from engine.contract import Bar, CloseAll, Exit, ExitsDone, Gap, StopsChecked
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

    def settle(self, until_ms: int) -> None:
        """Walk the candles that have closed since the newest step, and pay their funding.

        Bars that were missed meet the orders of the last step there was.
        """
        session = self._session
        first, last = session.progress.bar, until_ms // session.bar_ms
        if first < 0:
            return
        self._candles.update(last - 1, oldest=first - 1)
        for bar in range(first, last):
            if not session.strategy.ended:
                self._live_through(bar, is_missed=bar > first)
        session.collect()

    def _live_through(self, bar: int, *, is_missed: bool) -> None:
        candle, bar_ms = self._candles.candle(bar), self._session.bar_ms
        self._session.strategy.simulate(
            Bar(
                ts_ms=int(candle.ts_ms),
                open=float(candle.open),
                high=float(candle.high),
                low=float(candle.low),
                close=float(candle.close),
                funding_rate=self._rates.due(bar * bar_ms, (bar + 1) * bar_ms),
                prev_close=self.last_close(bar - 1) if is_missed else 0.0,
            )
        )

    def price(self, bar: int) -> float:
        """Return the open of ``bar``, the first price after the candle before it closed."""
        return self._reader.opening_price(bar * self._session.bar_ms)

    def mark(self) -> float:
        """Return the last traded price."""
        return self._reader.last_price()

    def price_since(self, ts_ms: int) -> float | None:  # noqa: ARG002 - none is kept
        """Return None: a look asks for no price."""
        return None

    def last_close(self, bar: int) -> float:
        """Return the close of ``bar``, quote."""
        return float(self._candles.candle(bar).close)

    def open_bar(self, bar: int, price: float) -> None:
        """Let the book meet the gap from the last close to ``price``."""
        self._session.strategy.simulate(Gap(self.last_close(bar - 1), price))
        self._session.collect()

    def finish_exits(self) -> None:
        """Nothing: exits are done when they are decided."""

    def close(self, exits: Sequence[Exit]) -> None:  # noqa: ARG002 - the strategy knows them
        """Do the exits decided last at the step's price."""
        self._session.strategy.simulate(ExitsDone())
        self._session.collect()

    def lay_out(self) -> None:
        """The book is the strategy's own; only stops that were passed when set are left to do."""
        self._session.strategy.simulate(StopsChecked())
        self._session.collect()

    def watch(self) -> None:
        """Nothing: what happens inside a candle is known when it has closed."""

    def secure(self) -> None:
        """Nothing: stops are watched by the candles."""

    def renew(self) -> None:
        """Nothing: entries rest in this process only."""

    def renew_in_s(self) -> float:
        """Return infinity: there is nothing to renew."""
        return math.inf

    @property
    def unprotected(self) -> frozenset[str]:
        """None: the ledger's stop is the stop."""
        return frozenset()

    def hold_entries(self, *, off: bool) -> None:
        """Nothing: a ledger that is its own exchange has no outage."""

    def patience_s(self) -> float:
        """Return infinity: nothing is waited for."""
        return math.inf

    def check_positions(self) -> None:
        """Nothing: the ledger is all there is."""

    def withdraw(self) -> None:
        """Take entries and take-profits off, as of the candle that is forming; stops stay."""
        for position_side in POSITION_SIDES:
            self._session.strategy.cancel(position_side, keep_stop=True)
        self._session.save()

    def flatten(self, label: str) -> None:
        """Close everything at the last price; no order rests for a later candle to meet."""
        strategy = self._session.strategy
        strategy.simulate(CloseAll(self._reader.last_price(), label))
        for position_side in POSITION_SIDES:
            strategy.cancel(position_side, keep_stop=False)
        self._session.collect()
        self._session.save()
