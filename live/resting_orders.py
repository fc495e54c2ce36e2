"""Makes the exchange's open orders those of the strategy's book."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from core.errors import ExchangeError, UnknownOutcome
from engine.book import RestingOrder
from engine.types import DIRECTION_NAMES
from live.exchange_types import Answer, Fate, MarketFacts, OrderKind
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
        last_price: tells the last traded price, quote; may be some seconds old.
        session: the book and what was sent for it.
        desk: sends and cancels.
        intake: books what was traded.
        exits: does at market what a stop came too late for.
        facts: rules of the symbol.
    """

    def __init__(
        self, last_price: Callable[[], float], session: LiveSession, desk: OrderDesk,
        intake: Intake, exits: MarketExits, facts: MarketFacts,
    ) -> None:  # fmt: skip
        self._last_price, self._session, self._desk = last_price, session, desk
        self._intake, self._exits, self._facts = intake, exits, facts
        self._refused: set[tuple[int, RestingOrder]] = set()
        """Orders the symbol's rules or the margin forbade, by the bar they were sent in."""
        self.bare_looks = 0
        """Times in a row that some side did not get the stop it should have."""

    def protect(self) -> None:
        """Give every side the stop it should have, and send nothing else.

        Raises:
            GridError: the exchange could not be asked, or the disk refused.
        """
        difference = self._compare()
        self._lay_stops(self._gone(difference), difference)

    def lay_out(self, look_kept_ms: int = 0) -> None:
        """Send the difference between open orders and book, stops first.

        Nothing is laid while the account has traded what the ledger does not know yet: an order
        that filled a moment ago would be laid a second time. What cannot be laid now (the price is
        on its wrong side or too far away, a cancel is not certain) is sent when this is called
        again, what was refused in the next bar. A side without its stop gets no entries.

        Args:
            look_kept_ms: how long ago the open orders may have been looked at; 0: they are looked
                at now. Every cancel tells what its order traded, look or not.

        Raises:
            UnknownOutcome: the exchange lists trades later than the orders they filled.
            GridError: the exchange could not be asked, or the disk refused.
        """
        self._desk.resolve()
        self._compare()  # before fills are booked: what stays belongs to the grid of now
        for again in range(ROUNDS):
            is_known = not again and self._desk.has_seen_within(look_kept_ms)
            if not is_known and self._desk.refresh():
                self._intake.take()
                continue
            difference = self._compare()
            gone = self._gone(difference)
            bare = self._lay_stops(gone, difference)
            if bare is None:
                continue  # a side was closed: the book is another
            fate = self._desk.cancel([r for r in gone if r.kind is not OrderKind.STOP])
            if fate is Fate.STUCK:
                return
            if fate is Fate.GONE:
                self._intake.take()
                continue  # something filled before it could be cancelled
            self._lay_limits([
                order
                for order in difference.creates
                if order.kind == "TAKE_PROFIT"
                or (order.kind == "ENTRY" and order.direction not in bare)
            ])  # fmt: skip
            return
        raise UnknownOutcome("orders have filled whose trades the exchange does not list yet")

    def _compare(self) -> Difference:
        """Return what to send.

        An entry that stays may have been laid for another level of an older grid: from now on it
        fills the level it stands at.
        """
        orders = self._session.orders
        resting = [
            Resting(r.client_id, r.kind, r.direction, r.price, r.rest)
            for r in orders.alive(*LIMITS, OrderKind.STOP)
        ]
        difference = reconcile(self._session.strategy.book, resting, self._facts.rules)
        for client_id, order in difference.kept:
            if order.kind == "ENTRY":
                record = orders.known(client_id)
                record.level, record.generation = order.level, self._generation(order)
        return difference

    def _gone(self, difference: Difference) -> list[OrderRecord]:
        return [self._session.orders.known(client_id) for client_id in difference.cancels]

    def _lay_stops(self, gone: list[OrderRecord], difference: Difference) -> set[str] | None:
        """Move the wick stops; a stop that is passed already is done at market.

        The exchange holds one closing stop a side: the old one goes first, the new one follows at
        once, unless the old one has fired.

        Returns:
            The directions that should have a stop and have none; None if a side was closed.
        """
        bare: set[str] = set()
        fired = False
        passed: list[OrderRecord] = []
        old = [record for record in gone if record.kind is OrderKind.STOP]
        new = [order for order in difference.creates if order.kind == "STOP"]
        for direction in DIRECTION_NAMES:
            wanted = [order for order in new if order.direction == direction]
            fate = self._desk.cancel([r for r in old if r.direction == direction])
            if fate is not Fate.UNTRADED:
                fired |= fate is Fate.GONE
                bare |= {order.direction for order in wanted}
                continue
            records = [self._intend(order) for order in wanted]
            for record, reply in zip(records, self._desk.send(records), strict=True):
                if reply.answer is Answer.PASSED:
                    passed.append(record)
                elif reply.answer is not Answer.ACCEPTED:
                    bare.add(direction)
        self.bare_looks = self.bare_looks + 1 if bare else 0
        if fired:
            self._intake.take()
        for record in passed:
            self._close_passed(record)
        return None if passed or fired else bare

    def _close_passed(self, stop: OrderRecord) -> None:
        """Close a side whose stop came too late.

        Raises:
            ExchangeError: the exchange lets it neither be stopped nor closed.
        """
        self._exits.stop_at_market(stop.side)
        self._exits.finish()
        if self._session.strategy.state.sides[stop.side].n_fills > 0:
            raise ExchangeError(
                f"the stop of {stop.direction} at {stop.price:g} is passed, and the position could "
                "not be closed at market; it is tried again: look at the exchange"
            )

    def _lay_limits(self, wanted: list[RestingOrder]) -> None:
        """Lay the limits that are passive and near enough for the exchange to take."""
        bar = self._session.progress.bar
        self._refused = {item for item in self._refused if item[0] == bar}
        wanted = [order for order in wanted if (bar, order) not in self._refused]
        if not wanted:
            return
        price, reach = self._last_price(), self._facts.price_band
        possible = [
            order
            for order in wanted
            if (order.price < price) == self._is_buy(order)
            and abs(order.price / price - 1.0) < reach
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
            KINDS[order.kind], order.direction, order.price, order.qty,
            self._session.progress.bar, level=order.level, generation=self._generation(order),
        )  # fmt: skip
