"""Checks of an order before it is taken, in the exchange's order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from live.simulated.filters import MAX_OPEN_ORDERS, MAX_OPEN_STOPS, ApiError
from live.simulated.matching import Book
from live.simulated.orders import BUY, LONG, SELL, SHORT, ZERO, Order, Stop, is_closing
from live.simulated.parameters import Params, is_true, number_of, text_of

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
        closed_code: refusal while the symbol takes no orders, 0 while it does.
    """

    now_ms: int
    price: Decimal
    closed_code: int = 0


@dataclass(slots=True)
class Restriction:
    """Which orders the exchange refuses although the symbol trades.

    Attributes:
        opening_code: refusal of orders that open a position, such as -4400; 0: none is refused.
        until_ms: ms UTC, when that ends; 0: it does not end by itself.
        all_code: refusal of every order, those that close included; 0: none is refused.
        max_open_stops: conditional orders that may rest (-4045).
        unseen_ms: how long after its first fill a side counts as flat for a closing stop (-4509).
    """

    opening_code: int = 0
    until_ms: int = 0
    all_code: int = 0
    max_open_stops: int = MAX_OPEN_STOPS
    unseen_ms: int = 0

    def check(self, *, closes: bool, now_ms: int) -> None:
        """Refuse an order."""
        if self.all_code:
            raise ApiError(self.all_code)
        if self.opening_code and not closes and (not self.until_ms or now_ms < self.until_ms):
            raise ApiError(self.opening_code)


@dataclass(slots=True)
class OrderEntry:
    """Takes orders onto a book or refuses them.

    Attributes:
        book: where they go.
        moment: tells when and where the price stands.
        restriction: what else is refused.
        is_algo_id_taken: whether another symbol's open conditional order has a client id.
    """

    book: Book
    moment: Callable[[], Moment]
    restriction: Restriction = field(default_factory=Restriction)
    is_algo_id_taken: Callable[[str], bool] = lambda _: False

    def place(self, params: Params) -> Order:
        """Take a normal order; what is marketable has been executed when this returns."""
        moment = self.moment()
        kind = text_of(params, "type")
        if kind in CONDITIONAL:
            raise ApiError(-4120)
        if kind not in {"LIMIT", "MARKET"}:
            raise ApiError(-1116)
        time_in_force = self._time_in_force(params, kind)
        side, position_side = self._sides(params)
        client_id = params.get("newClientOrderId") or f"web_{self.book.changes}"
        self._check_client_id(client_id, self.book.open_orders.values())
        qty = number_of(params, "quantity")
        price = number_of(params, "price") if kind == "LIMIT" else None
        self._check_open(moment)
        self.restriction.check(closes=is_closing(side, position_side), now_ms=moment.now_ms)
        self._check_filters(side, position_side, qty, price, moment)
        takes = price is None or self._crosses(side, price, moment.price)
        self._check_account(side, position_side, qty, price, moment)
        if takes and time_in_force == "GTX":
            raise ApiError(-5022)
        order = self.book.new_order(
            client_id=client_id,
            side=side,
            position_side=position_side,
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
        """Take a stop that closes a side, or ``quantity`` of it; no other conditional orders."""
        moment = self.moment()
        side, position_side, qty = self._stop_of(params)
        closes_all = not qty
        client_id = params.get("clientAlgoId") or f"web_{self.book.changes}"
        self._check_client_id(client_id, self.book.open_stops.values())
        if self.is_algo_id_taken(client_id):
            raise ApiError(-20132)
        trigger = number_of(params, "triggerPrice")
        self._check_open(moment)
        self.restriction.check(closes=True, now_ms=moment.now_ms)
        self.book.filters.check_tick(trigger)
        if closes_all:
            self._check_closing_stop(side, position_side, moment)
        else:
            self.book.filters.check_qty(qty, at_market=True)
        if len(self.book.open_stops) >= self.restriction.max_open_stops:
            raise ApiError(-4045)
        if self._crosses(BUY if side == SELL else SELL, trigger, moment.price):
            raise ApiError(-2021)
        return self.book.new_stop(
            client_id=client_id,
            side=side,
            position_side=position_side,
            trigger=trigger,
            now_ms=moment.now_ms,
            qty=qty,
        )

    def _stop_of(self, params: Params) -> tuple[str, str, Decimal]:
        """Return side, position side and quantity of a conditional order, 0 for the whole side."""
        if text_of(params, "algoType") != "CONDITIONAL":
            raise ApiError(-1130, "algoType")
        closes_all = is_true(params, "closePosition")
        if text_of(params, "type") != "STOP_MARKET" or not (closes_all or params.get("quantity")):
            raise ApiError(-1116)
        side, position_side = self._sides(params)
        if not is_closing(side, position_side):
            raise ApiError(-1117)
        if not closes_all:
            return side, position_side, number_of(params, "quantity")
        if params.get("quantity"):
            raise ApiError(-4137)
        return side, position_side, ZERO

    def _check_closing_stop(self, side: str, position_side: str, moment: Moment) -> None:
        """Refuse a second closing stop for a side, and one without a position that is seen."""
        if not self.book.stops_need_position:
            return
        if not self.book.account.positions[position_side].qty:
            raise ApiError(-4509)
        if moment.now_ms < self._opened_ms(position_side) + self.restriction.unseen_ms:
            raise ApiError(-4509)
        if any(
            stop.position_side == position_side and stop.side == side and not stop.qty
            for stop in self.book.open_stops.values()
        ):
            raise ApiError(-4130)

    def _opened_ms(self, position_side: str) -> int:
        """Return when the position of a side was opened, ms UTC; 0: long ago."""
        if not self.restriction.unseen_ms:
            return 0
        held, opened_ms = ZERO, 0
        for trade in self.book.account.trades:
            if trade.position_side == position_side:
                opens = not is_closing(trade.side, position_side)
                opened_ms = trade.ts_ms if opens and not held else opened_ms
                held += trade.qty if opens else -trade.qty
        return opened_ms

    def _sides(self, params: Params) -> tuple[str, str]:
        """Return BUY or SELL and LONG or SHORT."""
        side = text_of(params, "side")
        if side not in {BUY, SELL}:
            raise ApiError(-1117)
        position_side = params.get("positionSide", "BOTH")
        if not self.book.account.is_hedged or position_side not in {LONG, SHORT}:
            raise ApiError(-4061)
        if "reduceOnly" in params:
            raise ApiError(-1106, "reduceonly")
        return side, position_side

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
        if moment.closed_code:
            raise ApiError(moment.closed_code)

    @staticmethod
    def _crosses(side: str, price: Decimal, market: Decimal) -> bool:
        """Return whether a limit of ``side`` is satisfied by the market's price."""
        return market <= price if side == BUY else market >= price

    def _check_filters(
        self, side: str, position_side: str, qty: Decimal, price: Decimal | None, moment: Moment
    ) -> None:
        filters = self.book.filters
        filters.check_qty(qty, at_market=price is None)
        if price is not None:
            filters.check_tick(price)
            filters.check_band(side, price, moment.price)
        if not is_closing(side, position_side):
            filters.check_notional(price or moment.price, qty)

    def _check_account(
        self, side: str, position_side: str, qty: Decimal, price: Decimal | None, moment: Moment
    ) -> None:
        """Refuse what there is no position or no margin for, and one order too many."""
        book, account = self.book, self.book.account
        if is_closing(side, position_side):
            if book.closing_qty(position_side) + qty > account.positions[position_side].qty:
                raise ApiError(-2022)
        else:
            at = price or book.filters.market_price(moment.price, side, book.costs.slippage)
            opening = sum(book.opening_notional().values(), ZERO)
            if at * qty / account.leverage > account.available(moment.price, opening):
                raise ApiError(-2019)
        if price is not None and len(book.open_orders) >= MAX_OPEN_ORDERS:
            raise ApiError(-2025)
