"""The orders of one account and what the price does to them.

Everybody else's orders are the candle: a limit fills at its price as soon as the path trades there,
a market order at the path's price with slippage.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count
from typing import Final, NamedTuple

from live.simulated.account import FIRST_ID, Account
from live.simulated.filters import Filters
from live.simulated.orders import BUY, LONG, SELL, SHORT, ZERO, Order, Stop

# What the path meets first at one price.
EXIT_RANK: Final = 0
ENTRY_RANK: Final = 1
STOP_RANK: Final = 2


class Touch(NamedTuple):
    """The thing the path meets: an order, a stop, or with None the liquidation.

    Attributes:
        price: the path's price there.
        what: the order or stop.
    """

    price: Decimal
    what: Order | Stop | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Fees of notional, and slippage of the price at market."""

    maker: Decimal
    taker: Decimal
    slippage: Decimal


def meeting_price(
    waits_below: bool, level: Decimal, start: Decimal, end: Decimal
) -> Decimal | None:
    """Return the first price between ``start`` and ``end`` that reaches ``level``.

    Args:
        waits_below: whether prices at or under the level reach it; else at or over it.
        level: limit or trigger.
        start: where the path comes from.
        end: where it goes.
    """
    sign = 1 if waits_below else -1
    if sign * start <= sign * level:
        return start
    return level if sign * end <= sign * level else None


@dataclass(kw_only=True)
class Book:
    """Orders, open and past, of the account.

    Attributes:
        filters: of the symbol.
        costs: fees and slippage.
        stops_need_position: whether a stop that closes the position expires with it.
        partial_fills: chance that an execution of a limit leaves a rest.
        random: for partial fills.
        orders: every normal order by id; the open ones are in ``open_orders``.
        stops: every conditional order by id; the open ones are in ``open_stops``.
        order_of: the latest normal order by client id.
        stop_of: the latest conditional order by client id.
        changes: counts what happened to any order.
    """

    account: Account
    filters: Filters
    costs: Costs
    stops_need_position: bool = True
    partial_fills: float = 0.0
    random: random.Random
    orders: dict[int, Order] = field(default_factory=dict)
    open_orders: dict[int, Order] = field(default_factory=dict)
    stops: dict[int, Stop] = field(default_factory=dict)
    open_stops: dict[int, Stop] = field(default_factory=dict)
    order_of: dict[str, Order] = field(default_factory=dict)
    stop_of: dict[str, Stop] = field(default_factory=dict)
    changes: int = 0
    _order_ids: count[int] = field(default_factory=lambda: count(8 * FIRST_ID))

    # --- the book -------------------------------------------------------------------------------

    def new_order(
        self,
        *,
        client_id: str,
        side: str,
        position_side: str,
        kind: str,
        qty: Decimal,
        now_ms: int,
        price: Decimal = ZERO,
        time_in_force: str = "GTC",
        from_kind: str = "",
    ) -> Order:
        """Write an order down; a limit rests from now on."""
        order = Order(
            order_id=next(self._order_ids),
            client_id=client_id,
            side=side,
            position_side=position_side,
            kind=kind,
            time_in_force=time_in_force,
            price=price,
            qty=qty,
            ts_ms=now_ms,
            updated_ms=now_ms,
            from_kind=from_kind,
        )
        self.orders[order.order_id] = self.open_orders[order.order_id] = order
        self.order_of[client_id] = order
        self.changes += 1
        return order

    def new_stop(
        self,
        *,
        client_id: str,
        side: str,
        position_side: str,
        trigger: Decimal,
        now_ms: int,
        qty: Decimal = ZERO,
    ) -> Stop:
        """Let a stop for the whole side, or for ``qty`` of it, rest from now on."""
        stop = Stop(
            algo_id=next(self.account.pool.algo_ids),
            client_id=client_id,
            side=side,
            position_side=position_side,
            trigger=trigger,
            ts_ms=now_ms,
            updated_ms=now_ms,
            qty=qty,
        )
        self.stops[stop.algo_id] = self.open_stops[stop.algo_id] = stop
        self.stop_of[client_id] = stop
        self.changes += 1
        return stop

    def end_order(self, order: Order, status: str, now_ms: int) -> None:
        """Take an order off the book as CANCELED, EXPIRED or FILLED."""
        order.status, order.updated_ms = status, now_ms
        self.open_orders.pop(order.order_id, None)
        self.changes += 1

    def end_stop(self, stop: Stop, status: str, now_ms: int) -> None:
        """Take a stop off the book as CANCELED, EXPIRED, REJECTED or FINISHED."""
        stop.status, stop.updated_ms = status, now_ms
        self.open_stops.pop(stop.algo_id, None)
        self.changes += 1

    def closing_qty(self, position_side: str) -> Decimal:
        """Return what the open orders would close of a side, base."""
        orders = self.open_orders.values()
        return sum((o.rest for o in orders if o.closes and o.position_side == position_side), ZERO)

    def opening_notional(self) -> dict[str, Decimal]:
        """Return the notional that the open orders would open, by side, quote."""
        sums = {LONG: ZERO, SHORT: ZERO}
        for order in self.open_orders.values():
            if not order.closes:
                sums[order.position_side] += order.price * order.rest
        return sums

    # --- what the path meets --------------------------------------------------------------------

    def first_touch(self, start: Decimal, end: Decimal) -> Touch | None:
        """Return what a straight path from ``start`` to ``end`` meets first.

        At the same price: reducing limit, entry, stop; long before short; older first.
        """
        best: tuple[Decimal, int, bool, int] | None = None
        found: Touch | None = None
        for price, rank, touched in self._touches(start, end):
            age = touched.algo_id if isinstance(touched, Stop) else touched.order_id
            key = (abs(price - start), rank, touched.position_side == SHORT, age)
            if best is None or key < best:
                best, found = key, Touch(price, touched)
        return found

    def _touches(self, start: Decimal, end: Decimal) -> Iterator[tuple[Decimal, int, Order | Stop]]:
        for order in self.open_orders.values():
            price = meeting_price(order.side == BUY, order.price, start, end)
            if price is not None:
                yield price, EXIT_RANK if order.closes else ENTRY_RANK, order
        for stop in self.open_stops.values():
            price = meeting_price(stop.side == SELL, stop.trigger, start, end)
            if price is not None:
                yield price, STOP_RANK, stop

    # --- executions -----------------------------------------------------------------------------

    def fill_limit(self, order: Order, now_ms: int) -> None:
        """Execute a resting limit at its price, with the maker fee, whole or in part."""
        qty = self._portion(order)
        self._execute(order, order.price, qty, now_ms, is_maker=True)

    def fill_taker(self, order: Order, basis: Decimal, now_ms: int) -> None:
        """Execute an order at market at ``basis``, a limit never beyond its price."""
        price = self.filters.market_price(basis, order.side, self.costs.slippage)
        if order.kind == "LIMIT":
            price = min(price, order.price) if order.side == BUY else max(price, order.price)
        self._execute(order, price, order.rest, now_ms, is_maker=False)

    def trigger(self, stop: Stop, basis: Decimal, now_ms: int) -> None:
        """Close what a stop is for at market; without a position the stop is rejected.

        Where the price has jumped so far that no equity is left, it is a liquidation instead.
        """
        held = self.account.positions[stop.position_side].qty
        qty = min(stop.qty, held) if stop.qty else held
        if not qty:
            self.end_stop(stop, "REJECTED", now_ms)
            return
        if self.account.equity(basis) <= 0:
            self.liquidate(basis, now_ms)
            return
        order = self.new_order(
            client_id=f"algo-{stop.algo_id}",
            side=stop.side,
            position_side=stop.position_side,
            kind="MARKET",
            qty=qty,
            now_ms=now_ms,
            from_kind="STOP_MARKET",
        )
        stop.fired_ms, stop.fired_order_id = now_ms, order.order_id
        self.end_stop(stop, "FINISHED", now_ms)
        self.fill_taker(order, basis, now_ms)
        stop.fired_price = order.quote / order.filled

    def liquidate(self, price: Decimal, now_ms: int) -> None:
        """Take every order off and close both sides at ``price``."""
        for order in list(self.open_orders.values()):
            self.end_order(order, "CANCELED", now_ms)
        ids = {}
        for position_side, position in self.account.positions.items():
            if position.qty:
                side = SELL if position_side == LONG else BUY
                order = self.new_order(
                    client_id=f"autoclose-{now_ms}-{position_side}",
                    side=side,
                    position_side=position_side,
                    kind="MARKET",
                    qty=position.qty,
                    now_ms=now_ms,
                )
                order.filled, order.quote = order.qty, price * order.qty
                self.end_order(order, "FILLED", now_ms)
                ids[position_side] = order.order_id
        self.account.liquidate(price, now_ms, ids)
        for position_side in ids:
            self._expire_closing(position_side, now_ms)

    def close_by_exchange(
        self, position_side: str, qty: Decimal, price: Decimal, client_id: str, now_ms: int
    ) -> Order:
        """Close ``qty`` of a side without fee, as the exchange does at ADL and delisting."""
        order = self.new_order(
            client_id=client_id,
            side=SELL if position_side == LONG else BUY,
            position_side=position_side,
            kind="MARKET",
            qty=qty,
            now_ms=now_ms,
        )
        self.account.book_trade(
            order_id=order.order_id,
            side=order.side,
            position_side=position_side,
            price=price,
            qty=qty,
            fee=ZERO,
            ts_ms=now_ms,
            is_maker=False,
        )
        order.filled, order.quote = qty, price * qty
        self.end_order(order, "FILLED", now_ms)
        if not self.account.positions[position_side].qty:
            self._expire_closing(position_side, now_ms)
        return order

    def cancel_all(self, now_ms: int) -> None:
        """Cancel every normal order."""
        for order in list(self.open_orders.values()):
            self.end_order(order, "CANCELED", now_ms)

    def cancel_all_stops(self, now_ms: int) -> None:
        """Cancel every conditional order."""
        for stop in list(self.open_stops.values()):
            self.end_stop(stop, "CANCELED", now_ms)

    def _portion(self, order: Order) -> Decimal:
        """Return how much of a limit executes at once."""
        qty = order.rest
        if order.closes:
            qty = min(qty, self.account.positions[order.position_side].qty)
        lots = int(qty / self.filters.step)
        if lots > 1 and self.partial_fills and self.random.random() < self.partial_fills:
            return self.random.randint(1, lots - 1) * self.filters.step
        return qty

    def _execute(
        self, order: Order, price: Decimal, qty: Decimal, now_ms: int, *, is_maker: bool
    ) -> None:
        fee_rate = self.costs.maker if is_maker else self.costs.taker
        self.account.book_trade(
            order_id=order.order_id,
            side=order.side,
            position_side=order.position_side,
            price=price,
            qty=qty,
            fee=price * qty * fee_rate,
            ts_ms=now_ms,
            is_maker=is_maker,
        )
        order.filled += qty
        order.quote += price * qty
        order.status, order.updated_ms = "PARTIALLY_FILLED", now_ms
        self.changes += 1
        if not order.rest:
            self.end_order(order, "FILLED", now_ms)
        if order.closes and not self.account.positions[order.position_side].qty:
            self._expire_closing(order.position_side, now_ms)

    def _expire_closing(self, position_side: str, now_ms: int) -> None:
        """Expire what would close a side that has become flat."""
        for order in list(self.open_orders.values()):
            if order.closes and order.position_side == position_side:
                self.end_order(order, "EXPIRED", now_ms)
        if self.stops_need_position:
            for stop in list(self.open_stops.values()):
                if stop.position_side == position_side and not stop.qty:
                    self.end_stop(stop, "EXPIRED", now_ms)
