"""Endpoints for positions, money and the account's settings."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from tests.support.exchanges.simulated.account_views import account_view, balance_view
from tests.support.exchanges.simulated.exchange import SimExchange
from tests.support.exchanges.simulated.filters import ApiError, plain
from tests.support.exchanges.simulated.live_state import POSITIONS_2, POSITIONS_3
from tests.support.exchanges.simulated.orders import ZERO, Json
from tests.support.exchanges.simulated.parameters import (
    Params,
    is_true,
    limit_of,
    text_of,
    whole_of,
)

MAX_LEVERAGE: Final = 125
WINDOW_MS: Final = 7 * 86_400_000
SUCCESS: Final = {"code": 200, "msg": "success"}


class AccountEndpoints:
    """Answers of the endpoints, given parameters that are signed and counted."""

    def __init__(self, exchange: SimExchange) -> None:
        self._exchange = exchange
        self._account = exchange.account
        self._book = exchange.book

    # --- positions and money --------------------------------------------------------------------

    def positions_2(self, params: Params) -> Json:
        """Tell both sides, also empty ones."""
        self._exchange.check_symbol(params, optional=True)
        return self._exchange.live.answer(POSITIONS_2)

    def positions_3(self, params: Params) -> Json:
        """Tell the sides that hold something or have orders to."""
        self._exchange.check_symbol(params, optional=True)
        return self._exchange.live.answer(POSITIONS_3)

    def account(self, params: Params) -> Json:
        """Tell the whole account."""
        del params
        exchange = self._exchange
        opening = self._book.opening_notional()
        return account_view(
            self._account, exchange.symbol, exchange.price, exchange.now_ms, opening
        )

    def balance(self, params: Params) -> Json:
        """Tell the wallet."""
        del params
        opening = sum(self._book.opening_notional().values(), ZERO)
        return balance_view(self._account, self._exchange.price, self._exchange.now_ms, opening)

    def income(self, params: Params) -> Json:
        """Tell what changed the wallet, by time; the last seven days where no time is given."""
        limit, page = limit_of(params, 100, 1_000), whole_of(params, "page") or 1
        start, end = whole_of(params, "startTime"), whole_of(params, "endTime")
        if start is None and end is None:
            start = self._exchange.stamp_ms - WINDOW_MS
        kind = params.get("incomeType")
        chosen = [
            income
            for income in self._account.incomes
            if (start is None or income.ts_ms >= start)
            and (end is None or income.ts_ms <= end)
            and kind in {None, "", income.kind}
        ]
        rows = chosen[(page - 1) * limit : page * limit]
        return [income.view(self._exchange.symbol) for income in rows]

    # --- settings -------------------------------------------------------------------------------

    def position_mode(self, params: Params) -> Json:
        """Tell whether the account is in hedge mode."""
        del params
        return {"dualSidePosition": self._account.is_hedged}

    def set_position_mode(self, params: Params) -> Json:
        """Switch hedge mode (-4059, -4067, -4068)."""
        text_of(params, "dualSidePosition")
        is_hedged = is_true(params, "dualSidePosition")
        if is_hedged == self._account.is_hedged:
            raise ApiError(-4059)
        self._refuse_while_busy(-4067, -4068)
        self._account.is_hedged = is_hedged
        return SUCCESS

    def set_margin_type(self, params: Params) -> Json:
        """Switch between cross and isolated margin (-4046, -4047, -4048)."""
        self._exchange.check_symbol(params)
        margin_type = text_of(params, "marginType")
        if margin_type not in {"CROSSED", "ISOLATED"}:
            raise ApiError(-1130, "marginType")
        if margin_type == self._account.margin_type:
            raise ApiError(-4046)
        self._refuse_while_busy(-4047, -4048)
        self._account.margin_type = margin_type
        return SUCCESS

    def set_leverage(self, params: Params) -> Json:
        """Set the leverage (-4028, -2028)."""
        self._exchange.check_symbol(params)
        leverage = whole_of(params, "leverage")
        if leverage is None:
            raise ApiError(-1102, "leverage")
        if not 1 <= leverage <= MAX_LEVERAGE:
            raise ApiError(-4028, leverage)
        opening = sum(self._book.opening_notional().values(), ZERO)
        previous, self._account.leverage = self._account.leverage, leverage
        if leverage < previous and self._account.available(self._exchange.price, opening) < 0:
            self._account.leverage = previous
            raise ApiError(-2028)
        return {
            "leverage": leverage,
            "maxNotionalValue": "100000000",
            "symbol": self._exchange.symbol,
        }

    def commission(self, params: Params) -> Json:
        """Tell the account's fees."""
        self._exchange.check_symbol(params)
        costs = self._book.costs
        return {
            "symbol": self._exchange.symbol,
            "makerCommissionRate": plain(costs.maker),
            "takerCommissionRate": plain(costs.taker),
        }

    def brackets(self, params: Params) -> Json:
        """Tell the maintenance brackets."""
        self._exchange.check_symbol(params, optional=True)
        rows = list(self._account.brackets)
        caps = [row[0] for row in rows[1:]] + [9.0e18]
        brackets = [
            {
                "bracket": number,
                "initialLeverage": max(1, min(MAX_LEVERAGE, int(0.5 / rate))) if rate else 1,
                "notionalCap": cap,
                "notionalFloor": floor,
                "maintMarginRatio": rate,
                "cum": amount,
            }
            for number, ((floor, rate, amount), cap) in enumerate(zip(rows, caps, strict=True), 1)
        ]
        return [{"symbol": self._exchange.symbol, "notionalCoef": 1.0, "brackets": brackets}]

    def key_rights(self, params: Params) -> Json:
        """Tell what the key may do."""
        del params
        return {**self._exchange.key_rights}

    def symbol_config(self, params: Params) -> Json:
        """Tell margin type and leverage."""
        self._exchange.check_symbol(params, optional=True)
        return [
            {
                "symbol": self._exchange.symbol,
                "marginType": self._account.margin_type,
                "isAutoAddMargin": "false",
                "leverage": self._account.leverage,
                "maxNotionalValue": plain(Decimal(100_000_000)),
            }
        ]

    def _refuse_while_busy(self, with_orders: int, with_position: int) -> None:
        if self._book.open_orders or self._book.open_stops:
            raise ApiError(with_orders)
        if not self._account.is_flat:
            raise ApiError(with_position)
