"""Makes the exchange's open limit orders those of the strategy's book, once the stops stand."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from engine.book import RestingOrder
from engine.types import DIRECTION_NAMES
from live.exchange.types import Answer, Fate, MarketFacts, OrderKind
from live.execution.books import LiveSession
from live.execution.fills import Intake
from live.execution.order_desk import OrderDesk
from live.execution.order_register import OrderRecord
from live.execution.reconcile import KINDS, Difference, Resting, reconcile
from live.execution.stop_orders import StopOrders

_LOG: Final = logging.getLogger(__name__)
ROUNDS: Final = 5
LIMITS: Final = (OrderKind.ENTRY, OrderKind.TAKE_PROFIT)


class RestingOrders:
    """Entries and take-profits that rest at the exchange.

    Args:
        last_price: tells the last traded price, quote; may be some seconds old.
        session: the book and what was sent for it.
        desk: sends and cancels.
        intake: books what was traded.
        stops: kept first.
        facts: rules of the symbol.
    """

    def __init__(
        self,
        last_price: Callable[[], float],
        session: LiveSession,
        desk: OrderDesk,
        intake: Intake,
        stops: StopOrders,
        facts: MarketFacts,
    ) -> None:
        self._last_price, self._session, self._desk = last_price, session, desk
        self._intake, self._stops, self._facts = intake, stops, facts
        self._refused: set[tuple[int, RestingOrder]] = set()
        """Orders the symbol's rules or the margin forbade, by the bar they were sent in."""

    def lay_out(self, look_kept_ms: int = 0) -> None:
        """Send the difference between open orders and book, stops first.

        Nothing is laid while the account has traded what the ledger does not know yet: an order
        that filled a moment ago would be laid a second time. What cannot be laid now (the price is
        on its wrong side or too far away, a cancel is not certain) is sent when this is called
        again, what was refused in the next bar. A side without its stop has no entries.

        Args:
            look_kept_ms: how long ago the open orders may have been looked at; 0: they are looked
                at now. Every cancel tells what its order traded, look or not.

        Raises:
            GridError: the exchange could not be asked, or the disk refused.
        """
        self._desk.resolve()
        self._compare()  # before fills are booked: what stays belongs to the grid of now
        for again in range(ROUNDS):
            is_known = not again and self._desk.has_seen_within(look_kept_ms)
            if not is_known and self._desk.refresh():
                self._intake.take()
                self._stops.keep()
                continue
            bare = self._stops.keep()
            if bare is None:
                continue  # the book is another
            difference = self._compare()
            fate = self._desk.cancel(self._gone(difference, bare))
            if fate is Fate.STUCK:
                return
            if fate is Fate.GONE:
                self._intake.take()
                continue  # something filled before it could be cancelled
            self._lay_limits(
                [
                    order
                    for order in difference.creates
                    if order.kind == "TAKE_PROFIT" or order.direction not in bare
                ]
            )
            return
        _LOG.warning("orders have filled whose trades are not listed yet; none is laid until then")

    def _compare(self) -> Difference:
        """Return what to send.

        An entry that stays may have been laid for another level of an older grid: from now on it
        fills the level it stands at.
        """
        orders = self._session.orders
        resting = [
            Resting(r.client_id, r.kind, r.direction, r.price, r.rest)
            for r in orders.alive(*LIMITS)
        ]
        desired = (order for order in self._session.strategy.book if order.kind != "STOP")
        difference = reconcile(desired, resting, self._facts.rules)
        for client_id, order in difference.kept:
            if order.kind == "ENTRY":
                record = orders.known(client_id)
                record.level, record.generation = order.level, self._generation(order)
        return difference

    def _gone(self, difference: Difference, bare: set[str]) -> list[OrderRecord]:
        """Return what is to be cancelled: what is not wanted, and the entries of ``bare`` sides."""
        orders = self._session.orders
        return [
            record
            for record in orders.alive(*LIMITS)
            if record.client_id in difference.cancels
            or (record.kind is OrderKind.ENTRY and record.direction in bare)
        ]

    def _lay_limits(self, wanted: list[RestingOrder]) -> None:
        """Lay the limits that are passive and at a price the exchange takes."""
        bar = self._session.progress.bar
        self._refused = {item for item in self._refused if item[0] == bar}
        wanted = [order for order in wanted if (bar, order) not in self._refused]
        if not wanted:
            return
        price = self._last_price()
        possible = [
            order
            for order in wanted
            if (order.price < price) == self._is_buy(order)
            and self._facts.takes_price(
                "BUY" if self._is_buy(order) else "SELL", order.price, price
            )
        ]
        replies = self._desk.send([self._intend(order) for order in possible])
        self._refused |= {
            (bar, order)
            for order, reply in zip(possible, replies, strict=True)
            if reply.answer in {Answer.REFUSED, Answer.NO_MARGIN}
        }

    @staticmethod
    def _is_buy(order: RestingOrder) -> bool:
        return (order.kind == "ENTRY") == (order.direction == "LONG")

    def _generation(self, order: RestingOrder) -> int:
        """Return the grid that an entry belongs to, 0 for another order."""
        if order.kind != "ENTRY":
            return 0
        side = DIRECTION_NAMES.index(order.direction)
        return int(self._session.strategy.state.sides[side].generation)

    def _intend(self, order: RestingOrder) -> OrderRecord:
        return self._session.orders.new(
            KINDS[order.kind],
            order.direction,
            order.price,
            order.qty,
            self._session.progress.bar,
            level=order.level,
            generation=self._generation(order),
        )
