"""Public market data of one symbol: rules, candles, prices, funding rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, final

import numpy as np

from core.errors import ReplyError
from core.market import MarketRules
from core.times import MINUTE_MS
from live.exchange.connection import Connection
from live.exchange.replies.market import candle_table, funding_page, ticker_price
from live.exchange.replies.rules import bracket_table, market_facts
from live.exchange.replies.shapes import as_row
from live.exchange.request import Request
from live.exchange.types import Candles, MarketFacts

CANDLE_ROWS: Final = 1_500
"""Candles per request, the exchange's most."""
FUNDING_ROWS: Final = 1_000

_INFO: Final = Request("fapiPublicGetExchangeInfo")
_INTERVALS: Final = {minutes * MINUTE_MS: f"{minutes}m" for minutes in (1, 5, 15)}
"""The exchange's names of the lengths of candles."""
_KLINE_WEIGHTS: Final = ((100, 1), (500, 2), (1_001, 5))  # (fewer rows than, weight)
_MOST_WEIGHT: Final = 10


@final
class Market:
    """Public questions about one symbol, with or without keys."""

    def __init__(self, connection: Connection, symbol: str, bar_ms: int) -> None:
        """Ask nothing yet; candles are of ``bar_ms``."""
        self._bar_ms, self._interval = bar_ms, _INTERVALS[bar_ms]
        self._connection = connection
        self._symbol = symbol
        self._rules: MarketRules | None = None

    def read_market(self) -> MarketFacts:
        """Return the symbol's rules and, with keys, the account's fees and brackets.

        Raises:
            DataError: the exchange has no such symbol.
        """
        info = self._connection.read(_INFO, self._checked_info)  # first: is there such a symbol?
        self._rules = market_facts(info, self._symbol).rules  # whatever the account's are
        brackets = commission = None
        if self._connection.has_keys:
            brackets = self._connection.read(brackets_request(self._symbol), self._checked_brackets)
            query = {"symbol": self._symbol}
            request = Request("fapiPrivateGetCommissionRate", query, weight=20)
            commission = self._connection.read(request, self._checked_commission)
        facts = market_facts(info, self._symbol, brackets=brackets, commission=commission)
        self._rules = facts.rules
        return facts

    def closed_candles(self, start_ms: int, end_ms: int) -> Candles:
        """Return the candles that opened in ``[start_ms, end_ms)`` and have closed.

        What has closed is judged by the exchange's time before it was asked: an answer made
        before a candle's close must not pass for its last word. A few candles are asked for once:
        a session has its stops to look after between tries.
        """
        bar_ms = self._bar_ms
        since_ms = -(-start_ms // bar_ms) * bar_ms
        end_ms = min(end_ms, self._connection.server_ms() // bar_ms * bar_ms)
        is_history = end_ms - since_ms > CANDLE_ROWS * bar_ms
        ask = self._connection.read if is_history else self._connection.read_once
        pages = [candle_table([], since_ms, end_ms, bar_ms)]
        while since_ms < end_ms:
            page = self._candle_page(since_ms, end_ms, ask)
            if len(page) == 0:
                break
            pages.append(page)
            since_ms = int(page["ts_ms"][-1]) + bar_ms
        return np.concatenate(pages)

    def opening_price(self, open_ms: int) -> float:
        """Return the first price of the candle that opened at ``open_ms``, still forming.

        Where nothing has traded in it yet: the last price.
        """
        page = self._candle_page(open_ms, open_ms + self._bar_ms, self._connection.read)
        return float(page["open"][0]) if len(page) else self.last_price()

    def last_price(self) -> float:
        """Return the last traded price, quote."""
        return price_of(self._connection, self._symbol)

    def funding_rates(self, start_ms: int, end_ms: int) -> list[tuple[int, float]]:
        """Return (settlement time ms, rate) settled in ``[start_ms, end_ms]``, by time.

        The exchange reports times some milliseconds late; they are cut to the minute.
        """
        rates: list[tuple[int, float]] = []
        since_ms, until_ms = start_ms, end_ms + MINUTE_MS - 1
        while since_ms <= until_ms:
            page = self._funding_page(since_ms, until_ms)
            if not page:
                break
            rates += page
            since_ms = page[-1][0] + 1
        settled = ((time_ms - time_ms % MINUTE_MS, rate) for time_ms, rate in rates)
        return [(time_ms, rate) for time_ms, rate in settled if start_ms <= time_ms <= end_ms]

    def _candle_page(
        self,
        since_ms: int,
        end_ms: int,
        ask: Callable[[Request, Callable[[Any], Candles]], Candles],
    ) -> Candles:
        rows = min(CANDLE_ROWS, -(-(end_ms - since_ms) // self._bar_ms))
        query = {
            "symbol": self._symbol,
            "interval": self._interval,
            "startTime": since_ms,
            "endTime": end_ms - 1,
            "limit": rows,
        }
        weight = next((cost for below, cost in _KLINE_WEIGHTS if rows < below), _MOST_WEIGHT)
        request = Request("fapiPublicGetKlines", query, weight=weight)
        return ask(request, lambda reply: candle_table(reply, since_ms, end_ms, self._bar_ms))

    def _funding_page(self, since_ms: int, until_ms: int) -> list[tuple[int, float]]:
        query = {
            "symbol": self._symbol,
            "startTime": since_ms,
            "endTime": until_ms,
            "limit": FUNDING_ROWS,
        }
        return self._connection.read(
            Request("fapiPublicGetFundingRate", query),
            lambda reply: funding_page(reply, self._symbol, since_ms),
        )

    def assume_rules(self, rules: MarketRules) -> None:
        """Take tick and lot from an earlier reading, until they are read."""
        self._rules = self._rules or rules

    def known_rules(self) -> MarketRules:
        """Return tick and lot step as last read; ``read_market`` reads them again."""
        if self._rules is None:
            facts = self._connection.read(_INFO, lambda reply: market_facts(reply, self._symbol))
            self._rules = facts.rules
        return self._rules

    def _checked_info(self, reply: Any) -> Any:
        """Return an answer with the symbol's rules as received, once it is sure to be one."""
        market_facts(reply, self._symbol)
        return reply

    def _checked_brackets(self, reply: Any) -> Any:
        """Return an answer with brackets as received, once it is sure to be one."""
        bracket_table(reply, self._symbol)
        return reply

    def _checked_commission(self, reply: Any) -> Any:
        row = as_row(reply, "commission")
        row.text("symbol", self._symbol)
        row.number("makerCommissionRate")
        if row.number("takerCommissionRate", 0.0) >= 1:
            raise ReplyError(f"a taker fee of {row.get('takerCommissionRate')} is not believed")
        return reply


def brackets_request(symbol: str) -> Request:
    """Return the question for a symbol's brackets of leverage and maintenance margin."""
    return Request("fapiPrivateGetLeverageBracket", {"symbol": symbol})


def price_of(connection: Connection, symbol: str) -> float:
    """Return the last traded price of a symbol, quote."""
    request = Request("fapiPublicV2GetTickerPrice", {"symbol": symbol})
    return connection.read(request, lambda reply: ticker_price(reply, symbol))
