"""The account: its modes, rights, wallet and positions, whatever the symbol."""

from __future__ import annotations

import logging
import math
from typing import Any, Final, final

from core.errors import AccountError
from core.orders import POSITION_SIDES
from live.exchange.asset_prices import AssetPrices
from live.exchange.connection import Connection
from live.exchange.market import brackets_request
from live.exchange.replies.account import (
    all_open_sides,
    futures_balance,
    is_hedged,
    key_rights,
    open_sides,
    quantitative_rules,
    symbol_settings,
)
from live.exchange.replies.market import mark_price
from live.exchange.replies.orders import open_algo_orders, open_normal_orders
from live.exchange.replies.rules import highest_leverage
from live.exchange.request import Request
from live.exchange.types import (
    Balance,
    ExchangeOrder,
    KeyRights,
    QuantitativeRule,
    SidePosition,
    Usage,
)

_log: Final = logging.getLogger("live.exchange.binance")
_ALREADY_HEDGED: Final = -4059
_ALREADY_CROSSED: Final = -4046
_CROSSED: Final = "CROSSED"


@final
class Account:
    """One account at the exchange; the symbols' exchanges are made from it.

    Attributes:
        connection: its way to the exchange.
        prices: of the assets it pays in.
    """

    def __init__(self, connection: Connection) -> None:
        """Ask nothing yet."""
        self.connection: Final = connection
        self.prices: Final = AssetPrices(connection)

    def usage(self) -> Usage:
        """Return what the last replies said about limits and clock; asks nothing."""
        return self.connection.usage()

    def prepare(self, symbol: str, leverage: float) -> None:
        """Set hedge mode, cross margin and leverage where they are not set; read them back.

        The exchange takes whole leverages from 1 on: a fraction is rounded up, which allows no
        more than the strategy uses, as that sizes its own orders.

        Raises:
            AccountError: they cannot be set, with what to do.
        """
        self.connection.require_keys()
        whole_leverage = math.ceil(max(1.0, leverage))
        most = self.connection.read(
            brackets_request(symbol), lambda reply: highest_leverage(reply, symbol)
        )
        if whole_leverage > most:
            raise AccountError(
                f"leverage {leverage:g} is above the {most} that {symbol} allows; lower it"
            )
        self._set_hedge_mode(symbol)
        self._set_margin(symbol, whole_leverage)

    def positions(self, symbol: str) -> dict[str, SidePosition]:
        """Return a symbol's position of LONG and of SHORT.

        The exchange may leave flat sides out; their mark price is then asked for.
        """
        request = Request("fapiPrivateV3GetPositionRisk", {"symbol": symbol}, weight=5)
        sides = self.connection.read(request, lambda reply: open_sides(reply, symbol))
        marks = [side.mark_price for side in sides.values()]
        for position_side in POSITION_SIDES:
            if position_side not in sides:
                marks = marks or [self._mark_price(symbol)]
                sides[position_side] = SidePosition(
                    qty=0.0, avg_entry=0.0, mark_price=marks[0], liquidation_price=0.0
                )
        return {position_side: sides[position_side] for position_side in POSITION_SIDES}

    def all_positions(self) -> dict[tuple[str, str], SidePosition]:
        """Return every open position of the account by (symbol, LONG, SHORT or BOTH)."""
        request = Request("fapiPrivateV3GetPositionRisk", weight=5)
        return self.connection.read(request, all_open_sides)

    def all_open_orders(self) -> list[ExchangeOrder]:
        """Return every open order of the account, conditional ones included; weight 80."""
        normal = Request("fapiPrivateGetOpenOrders", weight=40)
        conditional = Request("fapiPrivateGetOpenAlgoOrders", weight=40)
        return self.connection.read(normal, open_normal_orders) + self.connection.read(
            conditional, open_algo_orders
        )

    def balance(self) -> Balance:
        """Return the futures wallet."""
        request = Request("fapiPrivateV3GetBalance", weight=5)
        return self.connection.read(request, futures_balance)

    def quantitative_rules(self, symbol: str = "") -> list[QuantitativeRule]:
        """Return where the account stands in the exchange's ratios of orders (-4400).

        Args:
            symbol: '' for all of them, at ten times the weight.
        """
        query = {"symbol": symbol} if symbol else {}
        request = Request("fapiPrivateGetApiTradingStatus", query, weight=1 if symbol else 10)
        return self.connection.read(request, quantitative_rules)

    def key_rights(self) -> KeyRights:
        """Return what the API key may do; demo trading has no such question.

        Raises:
            ExchangeError: refused, as on demo trading; who trades real money then stops.
        """
        self.connection.require_keys()
        return self.connection.read(Request("sapiGetAccountApiRestrictions"), key_rights)

    def _set_hedge_mode(self, symbol: str) -> None:
        mode = Request("fapiPrivateGetPositionSideDual", weight=30)
        if self.connection.read(mode, is_hedged):
            return
        self._set(
            symbol,
            Request("fapiPrivatePostPositionSideDual", {"dualSidePosition": "true"}),
            "hedge mode",
            _ALREADY_HEDGED,
        )
        if not self.connection.read(mode, is_hedged):
            raise AccountError("the account is still in one-way mode; set hedge mode by hand")

    def _set_margin(self, symbol: str, leverage: int) -> None:
        config = Request("fapiPrivateGetSymbolConfig", {"symbol": symbol}, weight=5)

        def settings() -> tuple[str, int]:
            return self.connection.read(config, lambda reply: symbol_settings(reply, symbol))

        margin, now = settings()
        if margin != _CROSSED:
            query: dict[str, Any] = {"symbol": symbol, "marginType": _CROSSED}
            request = Request("fapiPrivatePostMarginType", query)
            self._set(symbol, request, "cross margin", _ALREADY_CROSSED)
        if now != leverage:
            query = {"symbol": symbol, "leverage": leverage}
            request = Request("fapiPrivatePostLeverage", query)
            self._set(symbol, request, f"leverage {leverage}")
        if (margin, now) == (_CROSSED, leverage):
            return
        margin, now = settings()
        if (margin, now) != (_CROSSED, leverage):
            raise AccountError(
                f"{symbol} is at {margin} margin with leverage {now}, must be {_CROSSED} "
                f"with {leverage}; set it by hand"
            )

    def _set(self, symbol: str, request: Request, what: str, *already: int) -> None:
        """Change a setting; saying it twice does no harm, so it is repeated like a question.

        Raises:
            AccountError: the exchange refuses, usually as orders or positions are open.
        """
        try:
            self.connection.find(request, lambda reply: reply, frozenset(already))
        except AccountError as refused:
            raise AccountError(
                f"{what} cannot be set for {symbol}: {refused}; if open orders or positions "
                "are in the way, close them and start again"
            ) from None
        _log.info("%s set for %s", what, symbol)

    def _mark_price(self, symbol: str) -> float:
        request = Request("fapiPublicGetPremiumIndex", {"symbol": symbol})
        return self.connection.read(request, lambda reply: mark_price(reply, symbol))
