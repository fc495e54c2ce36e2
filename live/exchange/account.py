"""The account: its modes, positions, wallet, trades and funding."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Final

from core.errors import AccountError
from live.exchange.connection import Connection
from live.exchange.market import MarketCalls
from live.exchange.replies.account import (
    QUOTE,
    SIDES,
    execution_page,
    funding_income,
    futures_balance,
    is_hedged,
    open_sides,
    symbol_settings,
)
from live.exchange.replies.rules import highest_leverage
from live.exchange.transport import Request
from live.exchange.types import Balance, Execution, FundingPayment, SidePosition

WEEK_MS: Final = 7 * 24 * 3_600_000
"""Longest span of one question about the past."""
HISTORY_MS: Final = 180 * 24 * 3_600_000
"""How far back the exchange tells trades; it tells income half as far."""
PAGE_ROWS: Final = 1_000
PRICE_KEPT_MS: Final = 60_000

_log: Final = logging.getLogger("live.exchange.binance")
_ALREADY_HEDGED: Final = -4059
_ALREADY_CROSSED: Final = -4046
_CROSSED: Final = "CROSSED"


class AccountCalls(MarketCalls):
    """What the account's owner may ask and set."""

    def __init__(self, connection: Connection, symbol: str) -> None:
        """Ask nothing yet."""
        super().__init__(connection, symbol)
        self._prices: dict[str, tuple[int, float]] = {}
        self._converted: set[str] = set()

    def prepare_account(self, leverage: float) -> None:
        """Set hedge mode, cross margin and leverage where they are not set; read them back.

        The exchange takes whole leverages from 1 on: a fraction is rounded up, which allows no
        more than the strategy uses, as that sizes its own orders.

        Raises:
            AccountError: they cannot be set, with what to do.
        """
        self._connection.require_keys()
        whole_leverage = math.ceil(max(1.0, leverage))
        most = self._connection.read(
            self._brackets_request(), lambda reply: highest_leverage(reply, self._symbol)
        )
        if whole_leverage > most:
            raise AccountError(
                f"leverage {leverage:g} is above the {most} that {self._symbol} allows; lower it"
            )
        self._set_hedge_mode()
        self._set_margin(whole_leverage)

    def positions(self) -> dict[str, SidePosition]:
        """Return the position of LONG and of SHORT.

        The exchange may leave flat sides out; their mark price is then asked for.
        """
        request = Request("fapiPrivateV3GetPositionRisk", {"symbol": self._symbol}, weight=5)
        sides = self._connection.read(request, lambda reply: open_sides(reply, self._symbol))
        marks = [side.mark_price for side in sides.values()]
        for direction in SIDES:
            if direction not in sides:
                marks = marks or [self._mark_price()]
                sides[direction] = SidePosition(
                    qty=0.0, avg_entry=0.0, mark_price=marks[0], liquidation_price=0.0
                )
        return {direction: sides[direction] for direction in SIDES}

    def balance(self) -> Balance:
        """Return the futures wallet."""
        request = Request("fapiPrivateV3GetBalance", weight=5)
        return self._connection.read(request, futures_balance)

    def executions(self, from_id: int, start_ms: int) -> list[Execution]:
        """Return our trades with ``trade_id >= from_id``, all pages, by rising id.

        ``from_id`` 0: from ``start_ms`` on, at most 180 days back. A fee paid in another asset
        than USDT (BNB) is valued at that asset's last price when the trade is read.
        """
        trades: list[Execution] = []
        if from_id <= 0:
            trades = self._first_executions(start_ms)
            if not trades:
                return []
            from_id = trades[-1].trade_id + 1
        while page := self._execution_page({"fromId": from_id}, from_id):
            trades += page
            if len(page) < PAGE_ROWS:
                break
            from_id = page[-1].trade_id + 1
        return trades

    def funding_payments(self, start_ms: int) -> list[FundingPayment]:
        """Return funding income from ``start_ms`` on, all pages, by time.

        At most 90 days back, which is how far the exchange tells it.
        """
        payments: dict[str, FundingPayment] = {}
        for since_ms, until_ms in self._weeks(start_ms, HISTORY_MS // 2):
            page = self._income_page(since_ms, until_ms)
            while fresh := [item for item in page if item.income_id not in payments]:
                payments |= {item.income_id: item for item in fresh}
                page = self._income_page(fresh[-1].ts_ms, until_ms)
        return sorted(payments.values(), key=lambda item: (item.ts_ms, item.income_id))

    def _set_hedge_mode(self) -> None:
        mode = Request("fapiPrivateGetPositionSideDual", weight=30)
        if self._connection.read(mode, is_hedged):
            return
        self._set(
            Request("fapiPrivatePostPositionSideDual", {"dualSidePosition": "true"}),
            "hedge mode",
            _ALREADY_HEDGED,
        )
        if not self._connection.read(mode, is_hedged):
            raise AccountError("the account is still in one-way mode; set hedge mode by hand")

    def _set_margin(self, leverage: int) -> None:
        config = Request("fapiPrivateGetSymbolConfig", {"symbol": self._symbol}, weight=5)

        def settings() -> tuple[str, int]:
            return self._connection.read(config, lambda reply: symbol_settings(reply, self._symbol))

        margin, now = settings()
        if margin != _CROSSED:
            query: dict[str, object] = {"symbol": self._symbol, "marginType": _CROSSED}
            request = Request("fapiPrivatePostMarginType", query)
            self._set(request, "cross margin", _ALREADY_CROSSED)
        if now != leverage:
            query = {"symbol": self._symbol, "leverage": leverage}
            self._set(Request("fapiPrivatePostLeverage", query), f"leverage {leverage}")
        if (margin, now) == (_CROSSED, leverage):
            return
        margin, now = settings()
        if (margin, now) != (_CROSSED, leverage):
            raise AccountError(
                f"{self._symbol} is at {margin} margin with leverage {now}, must be {_CROSSED} "
                f"with {leverage}; set it by hand"
            )

    def _set(self, request: Request, what: str, *already: int) -> None:
        """Change a setting; saying it twice does no harm, so it is repeated like a question.

        Raises:
            AccountError: the exchange refuses, usually as orders or positions are open.
        """
        try:
            self._connection.find(request, lambda reply: reply, frozenset(already))
        except AccountError as refused:
            raise AccountError(
                f"{what} cannot be set for {self._symbol}: {refused}; if open orders or positions "
                "are in the way, close them and start again"
            ) from None
        _log.info("%s set for %s", what, self._symbol)

    def _first_executions(self, start_ms: int) -> list[Execution]:
        """Return the first page of the first week that has trades."""
        for since_ms, until_ms in self._weeks(start_ms, HISTORY_MS):
            if page := self._execution_page({"startTime": since_ms, "endTime": until_ms}, 0):
                return page
        return []

    def _weeks(self, start_ms: int, longest_ms: int) -> Iterator[tuple[int, int]]:
        """Yield (first ms, last ms) spans of at most 7 days from ``start_ms`` to now."""
        now_ms = self._connection.server_ms()
        since_ms = max(start_ms, now_ms - longest_ms)
        while since_ms <= now_ms:
            yield since_ms, min(since_ms + WEEK_MS - 1, now_ms)
            since_ms += WEEK_MS

    def _execution_page(self, span: dict[str, int], from_id: int) -> list[Execution]:
        query = {"symbol": self._symbol, "limit": PAGE_ROWS, **span}
        return self._connection.read(
            Request("fapiPrivateGetUserTrades", query, weight=5),
            lambda reply: execution_page(reply, self._symbol, from_id, self._in_quote),
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
            lambda reply: funding_income(reply, self._symbol, since_ms, self._in_quote),
        )

    def _in_quote(self, amount: float, asset: str) -> float:
        """Return an amount in USDT; what was paid in another asset at that asset's last price.

        The exchange does not tell the price it took, so this is off by what the asset moved
        since; said once in the log.
        """
        if asset == QUOTE or amount == 0:
            return amount
        if asset not in self._converted:
            self._converted.add(asset)
            _log.warning(
                "amounts in %s are valued at the last %s%s price; pay fees in %s for exact books",
                asset,
                asset,
                QUOTE,
                QUOTE,
            )
        return amount * self._asset_price(asset)

    def _asset_price(self, asset: str) -> float:
        now_ms = self._connection.clock.now_ms()
        read_ms, price = self._prices.get(asset, (now_ms - PRICE_KEPT_MS, 0.0))
        if now_ms - read_ms >= PRICE_KEPT_MS:
            price = self._price_of(f"{asset}{QUOTE}")
            self._prices[asset] = (now_ms, price)
        return price
