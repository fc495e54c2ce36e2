"""What is asked of an order before it is taken, in the order in which the exchange asks it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from tests.support.exchanges.simulated.filters import MAX_OPEN_ORDERS, MAX_OPEN_STOPS, ApiError
from tests.support.exchanges.simulated.matching import Book
from tests.support.exchanges.simulated.orders import (
    BUY,
    LONG,
    SELL,
    SHORT,
    ZERO,
    Order,
    Stop,
    is_closing,
)
from tests.support.exchanges.simulated.parameters import Params, is_true, number_of, text_of

CLIENT_ID: Final = re.compile(r"[\.A-Z\:/a-z0-9_-]{1,36}")
CONDITIONAL: Final = {
    "STOP",
    "STOP_MARKET",
    "TAKE_PROFIT",
    "TAKE_PROFIT_MARKET",
    "TRAILING_STOP_MARKET",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When and where an order arrives.

    Attributes:
        now_ms: ms UTC.
        price: of the path, which is also the mark.
        is_trading: whether the symbol takes orders.
    """

    now_ms: int
    price: Decimal
    is_trading: bool


@dataclass(frozen=True, slots=True)
class OrderEntry:
    """Takes orders onto a book or refuses them.

    Attributes:
        book: where they go.
        moment: tells when and where the price stands.
    """

    book: Book
    moment: Callable[[], Moment]

    def place(self, params: Params) -> Order:
        """Take a normal order; what is marketable has been executed when this returns."""
        moment = self.moment()
        kind = text_of(params, "type")
        if kind in CONDITIONAL:
            raise ApiError(-4120)
        if kind not in {"LIMIT", "MARKET"}:
            raise ApiError(-1116)
        time_in_force = self._time_in_force(params, kind)
        side, direction = self._sides(params)
        client_id = params.get("newClientOrderId") or f"web_{self.book.changes}"
        self._check_client_id(client_id, self.book.open_orders.values())
        qty = number_of(params, "quantity")
        price = number_of(params, "price") if kind == "LIMIT" else None
        self._check_open(moment)
        self._check_filters(side, direction, qty, price, moment)
        takes = price is None or self._crosses(side, price, moment.price)
        self._check_account(side, direction, qty, price, moment)
        if takes and time_in_force == "GTX":
            raise ApiError(-5022)
        order = self.book.new_order(
            client_id=client_id,
            side=side,
            direction=direction,
            kind=kind,
            qty=qty,
            price=price or ZERO,
            time_in_force=time_in_force,
            now_ms=moment.now_ms,
        )
        if takes:
            self.book.fill_taker(order, moment.price, moment.now_ms)
        return order

    def place_stop(self, params: Params) -> Stop:
        """Take a stop that closes a whole side; other conditional orders are not simulated."""
        moment = self.moment()
        if text_of(params, "algoType") != "CONDITIONAL":
            raise ApiError(-1130, "algoType")
        if text_of(params, "type") != "STOP_MARKET" or not is_true(params, "closePosition"):
            raise ApiError(-1116)
        side, direction = self._sides(params)
        if not is_closing(side, direction):
            raise ApiError(-1117)
        if params.get("quantity"):
            raise ApiError(-4137)
        client_id = params.get("clientAlgoId") or f"web_{self.book.changes}"
        self._check_client_id(client_id, self.book.open_stops.values())
        trigger = number_of(params, "triggerPrice")
        self._check_open(moment)
        self.book.filters.check_tick(trigger)
        self._check_stops(side, direction)
        if self._crosses(BUY if side == SELL else SELL, trigger, moment.price):
            raise ApiError(-2021)
        return self.book.new_stop(
            client_id=client_id,
            side=side,
            direction=direction,
            trigger=trigger,
            now_ms=moment.now_ms,
        )

    def _check_stops(self, side: str, direction: str) -> None:
        """Refuse one stop too many, a second one for a side, one without a position."""
        stops = self.book.open_stops.values()
        if self.book.stops_need_position:
            if not self.book.account.positions[direction].qty:
                raise ApiError(-4509)
            if any(stop.direction == direction and stop.side == side for stop in stops):
                raise ApiError(-4130)
        if len(stops) >= MAX_OPEN_STOPS:
            raise ApiError(-4045)

    def _sides(self, params: Params) -> tuple[str, str]:
        """Return BUY or SELL and LONG or SHORT."""
        side = text_of(params, "side")
        if side not in {BUY, SELL}:
            raise ApiError(-1117)
        direction = params.get("positionSide", "BOTH")
        if not self.book.account.is_hedged or direction not in {LONG, SHORT}:
            raise ApiError(-4061)
        if "reduceOnly" in params:
            raise ApiError(-1106, "reduceonly")
        return side, direction

    @staticmethod
    def _time_in_force(params: Params, kind: str) -> str:
        if kind == "MARKET":
            return "GTC"
        time_in_force = text_of(params, "timeInForce")
        if time_in_force not in {"GTC", "GTX"}:
            raise ApiError(-1115)
        return time_in_force

    @staticmethod
    def _check_client_id(client_id: str, live: Iterable[Order | Stop]) -> None:
        if not CLIENT_ID.fullmatch(client_id):
            raise ApiError(-4015)
        if any(item.client_id == client_id for item in live):
            raise ApiError(-4116)

    @staticmethod
    def _check_open(moment: Moment) -> None:
        if not moment.is_trading:
            raise ApiError(-4141)

    @staticmethod
    def _crosses(side: str, price: Decimal, market: Decimal) -> bool:
        """Return whether a limit of ``side`` is satisfied by the market's price."""
        return market <= price if side == BUY else market >= price

    def _check_filters(
        self, side: str, direction: str, qty: Decimal, price: Decimal | None, moment: Moment
    ) -> None:
        filters = self.book.filters
        filters.check_qty(qty)
        if price is not None:
            filters.check_tick(price)
            filters.check_band(side, price, moment.price)
        if not is_closing(side, direction):
            filters.check_notional(price or moment.price, qty)

    def _check_account(
        self, side: str, direction: str, qty: Decimal, price: Decimal | None, moment: Moment
    ) -> None:
        """Refuse what there is no position or no margin for, and one order too many."""
        book, account = self.book, self.book.account
        if is_closing(side, direction):
            if book.closing_qty(direction) + qty > account.positions[direction].qty:
                raise ApiError(-2022)
        else:
            at = price or book.filters.market_price(moment.price, side, book.costs.slippage)
            opening = sum(book.opening_notional().values(), ZERO)
            if at * qty / account.leverage > account.available(moment.price, opening):
                raise ApiError(-2019)
        if price is not None and len(book.open_orders) >= MAX_OPEN_ORDERS:
            raise ApiError(-2025)
