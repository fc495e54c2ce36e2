"""Our trades of one symbol, and the funding paid for it, as far back as the exchange lists them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Final, final

from core.errors import GridError
from live.exchange.asset_prices import AssetPrices
from live.exchange.connection import Connection
from live.exchange.errors import TOO_OLD_CODES
from live.exchange.replies.account import execution_page, funding_income
from live.exchange.replies.orders import every_algo_order, every_normal_order
from live.exchange.request import Request
from live.exchange.types import ExchangeOrder, Execution, FundingPayment

DAY_MS: Final = 24 * 3_600_000
WEEK_MS: Final = 7 * DAY_MS
"""Longest span of one question about the past."""
HISTORY_MS: Final = 89 * DAY_MS
"""How far back the exchange lists trades and income: the shortest three months."""
PAGE_ROWS: Final = 1_000

_log: Final = logging.getLogger("live.exchange.binance")


@final
class TradeHistory:
    """Trades and funding of one symbol on one account."""

    def __init__(self, connection: Connection, prices: AssetPrices, symbol: str) -> None:
        """Ask nothing yet."""
        self._connection, self._prices, self._symbol = connection, prices, symbol

    def history_start_ms(self) -> int:
        """Return the time before which the exchange lists no trades any more, ms UTC."""
        return self._connection.server_ms() - HISTORY_MS

    def executions(self, from_id: int, start_ms: int) -> list[Execution]:
        """Return our trades with ``trade_id >= from_id``, all pages, by rising id.

        ``from_id`` 0: from ``start_ms`` on. Either way at most ``HISTORY_MS`` back: what lies
        further back the exchange does not list, which is logged. A fee paid in another asset
        than USDT (BNB) is valued at that asset's last price when the trade is read.
        """
        if from_id <= 0:
            if start_ms and start_ms < self.history_start_ms():
                self._report_too_old()
            return self._since(start_ms)
        try:
            return self._from_id(from_id)
        except GridError as error:
            if error.code not in TOO_OLD_CODES:
                raise
        self._report_too_old()
        return [trade for trade in self._since(0) if trade.trade_id >= from_id]

    def executions_since(self, start_ms: int) -> list[Execution]:
        """Return our trades since ``start_ms``, ms UTC, all pages, by rising id.

        A trade may be listed late, after a younger one: whoever counts on having all of them
        asks from a time that overlaps what is known, and drops known ids.
        """
        return self._since(start_ms, to_the_last=False)

    def order_executions(self, order_id: str) -> list[Execution]:
        """Return the trades of one normal order, by rising id; of a fired stop its market order.

        One order has fewer trades than a page has rows, or its rest comes with later trades.
        """
        return self._page({"orderId": int(order_id)}, 0)

    def funding_payments(self, start_ms: int) -> list[FundingPayment]:
        """Return funding income from ``start_ms`` on, all pages, by time."""
        payments: dict[str, FundingPayment] = {}
        for since_ms, until_ms in self._weeks(start_ms):
            page = self._income_page(since_ms, until_ms)
            while fresh := [item for item in page if item.income_id not in payments]:
                payments |= {item.income_id: item for item in fresh}
                page = self._income_page(fresh[-1].ts_ms, until_ms)
        return sorted(payments.values(), key=lambda item: (item.ts_ms, item.income_id))

    def orders(self, start_ms: int) -> list[ExchangeOrder]:
        """Return every order since ``start_ms``, conditional ones included, each once."""
        found: dict[tuple[bool, str], ExchangeOrder] = {}
        for since_ms, until_ms in self._weeks(start_ms):
            for endpoint, parse in (
                ("fapiPrivateGetAllOrders", every_normal_order),
                ("fapiPrivateGetAllAlgoOrders", every_algo_order),
            ):
                is_algo = parse is every_algo_order
                first_ms, page = since_ms, self._order_page(endpoint, parse, since_ms, until_ms)
                while fresh := [o for o in page if (is_algo, o.order_id) not in found]:
                    found |= {(is_algo, order.order_id): order for order in fresh}
                    newest_ms = max(order.created_ms for order in fresh)
                    if len(page) < PAGE_ROWS or newest_ms <= first_ms:
                        break
                    first_ms = newest_ms
                    page = self._order_page(endpoint, parse, first_ms, until_ms)
        return list(found.values())

    def _order_page(
        self,
        endpoint: str,
        parse: Callable[[Any, str], list[ExchangeOrder]],
        since_ms: int,
        until_ms: int,
    ) -> list[ExchangeOrder]:
        query = {
            "symbol": self._symbol,
            "startTime": since_ms,
            "endTime": until_ms,
            "limit": PAGE_ROWS,
        }
        request = Request(endpoint, query, weight=5)
        return self._connection.read(request, lambda reply: parse(reply, self._symbol))

    def _since(self, start_ms: int, *, to_the_last: bool = True) -> list[Execution]:
        """Return our trades since ``start_ms``; ``to_the_last``: ask for those of this instant."""
        for since_ms, until_ms in self._weeks(start_ms):
            page = self._page({"startTime": since_ms, "endTime": until_ms}, 0)
            is_newest = until_ms - since_ms < WEEK_MS - 1 and len(page) < PAGE_ROWS
            if page and is_newest and not to_the_last:
                return page
            if page:
                return page + self._from_id(page[-1].trade_id + 1)
        return []

    def _from_id(self, from_id: int) -> list[Execution]:
        trades: list[Execution] = []
        while page := self._page({"fromId": from_id}, from_id):
            trades += page
            if len(page) < PAGE_ROWS:
                break
            from_id = page[-1].trade_id + 1
        return trades

    def _weeks(self, start_ms: int) -> Iterator[tuple[int, int]]:
        """Yield (first ms, last ms) spans of at most 7 days from ``start_ms`` to now."""
        now_ms = self._connection.server_ms()
        since_ms = max(start_ms, now_ms - HISTORY_MS)
        while since_ms <= now_ms:
            yield since_ms, min(since_ms + WEEK_MS - 1, now_ms)
            since_ms += WEEK_MS

    def _page(self, span: dict[str, int], from_id: int) -> list[Execution]:
        query = {"symbol": self._symbol, "limit": PAGE_ROWS, **span}
        return self._connection.read(
            Request("fapiPrivateGetUserTrades", query, weight=5),
            lambda reply: execution_page(reply, self._symbol, from_id, self._prices.in_quote),
        )

    def _income_page(self, since_ms: int, until_ms: int) -> list[FundingPayment]:
        query = {
            "symbol": self._symbol,
            "incomeType": "FUNDING_FEE",
            "startTime": since_ms,
            "endTime": until_ms,
            "limit": PAGE_ROWS,
        }
        return self._connection.read(
            Request("fapiPrivateGetIncome", query, weight=30),
            lambda reply: funding_income(reply, self._symbol, since_ms, self._prices.in_quote),
        )

    @staticmethod
    def _report_too_old() -> None:
        _log.warning(
            "trades more than three months old are no longer listed by the exchange; those before "
            "are not booked"
        )
