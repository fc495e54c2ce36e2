"""Endpoints for positions, money and the account's settings."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from live.simulated.account_views import account_view, balance_view
from live.simulated.exchange import SimExchange
from live.simulated.filters import ApiError, plain
from live.simulated.live_state import POSITIONS_2, POSITIONS_3
from live.simulated.orders import Json
from live.simulated.parameters import Params, is_true, limit_of, text_of, whole_of
from live.simulated.symbol_market import SymbolMarket

QUANTITATIVE: Final = -4400
WINDOW_MS: Final = 7 * 86_400_000
SUCCESS: Final = {"code": 200, "msg": "success"}


class AccountEndpoints:
    """Answers of the endpoints, given parameters that are signed and counted."""

    def __init__(self, exchange: SimExchange) -> None:
        self._exchange = exchange

    # --- positions and money --------------------------------------------------------------------

    def positions_2(self, params: Params) -> Json:
        """Tell both sides, also empty ones."""
        return self._positions(params, POSITIONS_2)

    def positions_3(self, params: Params) -> Json:
        """Tell the sides that hold something or have orders to."""
        return self._positions(params, POSITIONS_3)

    def _positions(self, params: Params, path: str) -> Json:
        markets = self._exchange.markets_of(params)
        return [row for market in markets for row in market.live.answer(path)]

    def account(self, params: Params) -> Json:
        """Tell the whole account."""
        del params
        return account_view(list(self._exchange.markets.values()), self._exchange.now_ms)

    def balance(self, params: Params) -> Json:
        """Tell the wallet."""
        del params
        return balance_view(list(self._exchange.markets.values()), self._exchange.now_ms)

    def income(self, params: Params) -> Json:
        """Tell what changed the wallet, by time; the last seven days where no time is given."""
        limit, page = limit_of(params, 100, 1_000), whole_of(params, "page") or 1
        start, end = whole_of(params, "startTime"), whole_of(params, "endTime")
        if start is None and end is None:
            start = self._exchange.stamp_ms - WINDOW_MS
        kind = params.get("incomeType")
        chosen = [
            (income, market.symbol)
            for market in self._exchange.markets_of(params)
            for income in market.account.incomes
            if (start is None or income.ts_ms >= start)
            and (end is None or income.ts_ms <= end)
            and kind in {None, "", income.kind}
        ]
        chosen.sort(key=lambda row: row[0].tran_id)
        rows = chosen[(page - 1) * limit : page * limit]
        return [income.view(symbol) for income, symbol in rows]

    # --- settings -------------------------------------------------------------------------------

    def position_mode(self, params: Params) -> Json:
        """Tell whether the account is in hedge mode."""
        del params
        return {"dualSidePosition": self._exchange.pool.is_hedged}

    def set_position_mode(self, params: Params) -> Json:
        """Switch hedge mode (-4059, -4067, -4068)."""
        text_of(params, "dualSidePosition")
        is_hedged = is_true(params, "dualSidePosition")
        if is_hedged == self._exchange.pool.is_hedged:
            raise ApiError(-4059)
        for market in self._exchange.markets.values():
            refuse_while_busy(market, -4067, -4068)
        self._exchange.pool.is_hedged = is_hedged
        return SUCCESS

    def set_margin_type(self, params: Params) -> Json:
        """Switch between cross and isolated margin (-4046, -4047, -4048)."""
        market = self._exchange.market_of(params)
        margin_type = text_of(params, "marginType")
        if margin_type not in {"CROSSED", "ISOLATED"}:
            raise ApiError(-1130, "marginType")
        if margin_type == market.account.margin_type:
            raise ApiError(-4046)
        refuse_while_busy(market, -4047, -4048)
        market.account.margin_type = margin_type
        return SUCCESS

    def set_leverage(self, params: Params) -> Json:
        """Set the leverage (-4028, -2028)."""
        market = self._exchange.market_of(params)
        account, leverage = market.account, whole_of(params, "leverage")
        if leverage is None:
            raise ApiError(-1102, "leverage")
        if not 1 <= leverage <= market.max_leverage:
            raise ApiError(-4028, leverage)
        previous, account.leverage = account.leverage, leverage
        if leverage < previous and account.available(market.price, market.opening) < 0:
            account.leverage = previous
            raise ApiError(-2028)
        return {"leverage": leverage, "maxNotionalValue": "100000000", "symbol": market.symbol}

    def commission(self, params: Params) -> Json:
        """Tell the account's fees."""
        market = self._exchange.market_of(params)
        costs = market.book.costs
        return {
            "symbol": market.symbol,
            "makerCommissionRate": plain(costs.maker),
            "takerCommissionRate": plain(costs.taker),
        }

    def brackets(self, params: Params) -> Json:
        """Tell the maintenance brackets."""
        return [brackets_view(market) for market in self._exchange.markets_of(params)]

    def key_rights(self, params: Params) -> Json:
        """Tell what the key may do."""
        del params
        return {**self._exchange.key_rights}

    def symbol_config(self, params: Params) -> Json:
        """Tell margin type and leverage."""
        return [
            {
                "symbol": market.symbol,
                "marginType": market.account.margin_type,
                "isAutoAddMargin": "false",
                "leverage": market.account.leverage,
                "maxNotionalValue": plain(Decimal(100_000_000)),
            }
            for market in self._exchange.markets_of(params)
        ]

    def trading_status(self, params: Params) -> Json:
        """Tell what the quantitative rules forbid, and until when (``apiTradingStatus``)."""
        now_ms, reported = self._exchange.now_ms, {}
        for market in self._exchange.markets_of(params):
            rule = market.restriction
            is_locked = rule.opening_code == QUANTITATIVE and (
                not rule.until_ms or now_ms < rule.until_ms
            )
            if is_locked:
                row = {"plannedRecoverTime": rule.until_ms, "isLocked": True, "indicator": "UFR"}
                reported[market.symbol] = [row | {"value": 0.999, "triggerValue": 0.995}]
        return {"indicators": reported, "updateTime": now_ms}


def brackets_view(market: SymbolMarket) -> dict[str, Json]:
    """Return one symbol's entry of ``leverageBracket``."""
    rows = list(market.account.brackets)
    caps = [row[0] for row in rows[1:]] + [9.0e18]
    most = market.max_leverage
    brackets = [
        {
            "bracket": number,
            "initialLeverage": max(1, min(most, int(0.5 / rate))) if rate else 1,
            "notionalCap": cap,
            "notionalFloor": floor,
            "maintMarginRatio": rate,
            "cum": amount,
        }
        for number, ((floor, rate, amount), cap) in enumerate(zip(rows, caps, strict=True), 1)
    ]
    return {"symbol": market.symbol, "notionalCoef": 1.0, "brackets": brackets}


def refuse_while_busy(market: SymbolMarket, with_orders: int, with_position: int) -> None:
    """Refuse a change of settings while anything of ``market`` is open."""
    if market.book.open_orders or market.book.open_stops:
        raise ApiError(with_orders)
    if not market.account.is_flat:
        raise ApiError(with_position)
