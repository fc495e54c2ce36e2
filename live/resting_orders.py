"""Makes the exchange's open orders those of the strategy's book."""

from __future__ import annotations

from typing import Final

from core.errors import UnknownOutcome
from engine.book import RestingOrder
from engine.types import DIRECTION_NAMES
from live.exchange_types import Answer, Exchange, MarketFacts, OrderKind
from live.intake import Intake
from live.market_exits import MarketExits
from live.order_desk import OrderDesk
from live.orders import OrderRecord
from live.reconcile import KINDS, Difference, Resting, reconcile
from live.session import LiveSession

ROUNDS: Final = 5
LIMITS: Final = (OrderKind.ENTRY, OrderKind.TAKE_PROFIT)


class RestingOrders:
    """The orders that rest at the exchange.

    Args:
        exchange: where they rest.
        session: the book and what was sent for it.
        desk: sends and cancels.
        intake: books what was traded.
        exits: does at market what a stop came too late for.
        facts: rules of the symbol.
    """

    def __init__(
        self, exchange: Exchange, session: LiveSession, desk: OrderDesk, intake: Intake,
        exits: MarketExits, facts: MarketFacts,
    ) -> None:  # fmt: skip
        self._exchange, self._session, self._desk = exchange, session, desk
        self._intake, self._exits, self._facts = intake, exits, facts

    def lay_out(self) -> None:
        """Send the difference between open orders and book, stops first.

        Nothing is laid while the account has traded what the ledger does not know yet: an order
        that filled a moment ago would be laid a second time. What cannot be laid now (the price is
        on its wrong side or too far away, margin is short, a cancel is not certain) is sent when
        this is called again.

        Raises:
            UnknownOutcome: the exchange lists trades later than the orders they filled.
            GridError: the exchange could not be asked, or the disk refused.
        """
        self._desk.resolve()
        for _ in range(ROUNDS):
            if self._desk.refresh():
                self._intake.take()
                continue
            difference, gone = self._difference()
            self._lay_stops(
                [record for record in gone if record.kind is OrderKind.STOP],
                [order for order in difference.creates if order.kind == "STOP"],
            )
            limits = [record for record in gone if record.kind is not OrderKind.STOP]
            if not self._desk.cancel(limits):
                return
            if limits and self._intake.take():
                continue  # something filled before it could be cancelled
            self._lay_limits([order for order in difference.creates if order.kind != "STOP"])
            return
        raise UnknownOutcome("orders have filled whose trades the exchange does not list yet")

    def _difference(self) -> tuple[Difference, list[OrderRecord]]:
        """Return what to send, and the records of what to cancel."""
        orders = self._session.orders
        resting = [
            Resting(r.client_id, r.kind, r.direction, r.price, r.rest)
            for r in orders.alive(*LIMITS, OrderKind.STOP)
        ]
        difference = reconcile(self._session.strategy.book, resting, self._facts.rules)
        gone = [record for record in map(orders.get, difference.cancels) if record is not None]
        return difference, gone

    def _lay_stops(self, old: list[OrderRecord], new: list[RestingOrder]) -> None:
        """Move the wick stops; a stop that is passed already is done at market.

        The exchange holds one closing stop a side: the old one goes first, the new one follows at
        once.
        """
        if not self._desk.cancel(old):
            return
        records = [self._intend(order) for order in new]
        replies = self._desk.send(records)
        for record, reply in zip(records, replies, strict=True):
            if reply.answer is Answer.PASSED:
                self._exits.stop_at_market(record.side)
        self._exits.finish()

    def _lay_limits(self, wanted: list[RestingOrder]) -> None:
        """Lay the limits that are passive and near enough for the exchange to take."""
        if not wanted:
            return
        price, reach = self._exchange.last_price(), self._facts.price_band
        possible = [
            order
            for order in wanted
            if (order.price < price) == self._is_buy(order)
            and abs(order.price / price - 1.0) < reach
        ]
        self._desk.send([self._intend(order) for order in possible])

    @staticmethod
    def _is_buy(order: RestingOrder) -> bool:
        return (order.kind == "ENTRY") == (order.direction == "LONG")

    def _intend(self, order: RestingOrder) -> OrderRecord:
        generation = 0
        if order.kind == "ENTRY":
            side = DIRECTION_NAMES.index(order.direction)
            generation = int(self._session.strategy.state.sides[side].generation)
        return self._session.orders.new(
            KINDS[order.kind], order.direction, order.price, order.qty,
            self._session.progress.bar, level=order.level, generation=generation,
        )  # fmt: skip
