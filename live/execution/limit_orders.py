"""Makes the exchange's open limit orders those of the strategy's book, once the stops stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from core.orders import POSITION_SIDES, OrderKind
from engine.contract import RestingOrder
from live.exchange.types import Answer, CancelResult, Meaning
from live.execution.books import LiveSession
from live.execution.dead_man import DeadMan
from live.execution.entry_permission import EntryPermission
from live.execution.fills import Fills
from live.execution.order_desk import OrderDesk
from live.execution.order_register import OrderRecord, OrderState
from live.execution.position_stops import PositionStops
from live.execution.reconcile import Difference, Resting, reconcile
from live.execution.risk_gate import RiskGate
from live.execution.stop_orders import StopOrders
from live.execution.symbol_facts import SymbolFacts
from live.health.events import Events, Notice

ROUNDS: Final = 5
LIMITS: Final = (OrderKind.ENTRY, OrderKind.TAKE_PROFIT)


class RestingOrders:
    """Entries and take-profits that rest at the exchange.

    Args:
        last_price: the last traded price, quote; may be some seconds old.
        session: the book and what was sent for it.
        desk: sends and cancels.
        fills: books what was traded.
        stops: kept first.
        facts: rules of the symbol.
        permission: whether the exchange takes entries.
        dead_man: renewed before anything is laid.
        gate: is asked whether entries may be laid.
        events: a person hears there when it begins to refuse them.
    """

    def __init__(
        self,
        last_price: Callable[[], float],
        session: LiveSession,
        desk: OrderDesk,
        fills: Fills,
        stops: StopOrders | PositionStops,
        facts: SymbolFacts,
        permission: EntryPermission,
        dead_man: DeadMan,
        gate: RiskGate,
        events: Events,
    ) -> None:
        self._last_price, self._session, self._desk = last_price, session, desk
        self._fills, self._stops, self._facts = fills, stops, facts
        self._permission, self._dead_man = permission, dead_man
        self.entries_off = False
        """Whether a person, or an outage, keeps entries off the book."""
        self._gate, self._events, self._held_back = gate, events, ""
        self._withdrawn: set[str] = set()
        """Client ids of what was cancelled last because it is not wanted now."""
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
                at now. Every cancel answers with what its order traded, look or not.

        Raises:
            GridError: the exchange could not be asked, or the disk refused.
        """
        self._desk.resolve()
        self._compare()  # before fills are booked: what stays belongs to the grid of now
        for again in range(ROUNDS):
            is_known = not again and self._desk.has_seen_within(look_kept_ms)
            if not is_known and self._desk.refresh():
                self._fills.take()
                self._stops.keep()
                continue
            unprotected = self._stops.keep()
            if unprotected is None:
                continue  # the book is another
            without = unprotected | self._held_back_sides()
            difference = self._compare()
            gone = self._gone(difference, without)
            self._withdrawn = {record.client_id for record in gone}
            result = self._desk.cancel(gone)
            if result is CancelResult.STUCK:
                return
            if result is CancelResult.GONE:
                self._fills.take()
                continue  # something filled before it could be cancelled
            self._lay_limits(
                [
                    order
                    for order in difference.creates
                    if order.kind is OrderKind.TAKE_PROFIT or order.position_side not in without
                ]
            )
            self._stops.tidy()
            return
        self._session.log.warning(
            "orders have filled whose trades are not listed yet; none is laid until then"
        )

    def _compare(self) -> Difference:
        """Return what to send.

        An entry that stays may have been laid for another level of an older grid: from now on it
        fills the level it stands at.
        """
        orders = self._session.orders
        resting = [
            Resting(r.client_id, r.kind, r.position_side, r.price, r.rest, r.owner)
            for r in orders.alive(*LIMITS)
        ]
        desired = list(self._session.strategy.desired())
        if self._drops_lost_entry(desired):
            desired = list(self._session.strategy.desired())
        stops = {side: self._stops.price_of(side) for side in POSITION_SIDES}
        desired = [
            order
            for order in desired
            if order.kind is not OrderKind.STOP
            and not _is_beyond_stop(order, stops[order.position_side])
        ]
        difference = reconcile(desired, resting, self._facts.rules)
        for client_id, order in difference.kept:
            if order.kind is OrderKind.ENTRY:
                record = orders.known(client_id)
                record.level, record.generation = order.level, order.generation
        return difference

    def _drops_lost_entry(self, desired: list[RestingOrder]) -> bool:
        """Drop an entry that has a name of its own and is gone; return whether there was one.

        Somebody has cancelled it, or the countdown has: the next step decides on another one.
        """
        strategy, found = self._session.strategy, False
        named = [o for o in desired if o.kind is OrderKind.ENTRY and o.owner]
        orders = list(self._session.orders) if named else []
        for order in named:
            sent = [record for record in orders if record.owner == order.owner]
            is_gone = sent and all(record.state is OrderState.DONE for record in sent)
            if is_gone and sent[-1].order_id:
                strategy.drop_entry()
                found = True
                text = f"the entry at {order.price:g} was cancelled; the next step decides anew"
                if sent[-1].client_id not in self._withdrawn:
                    self._events.publish(Notice(text))
        return found

    def _held_back_sides(self) -> set[str]:
        """Return the sides that the gate allows no entries; a person hears of it once."""
        if self._permission.reason() or self.entries_off:
            return set(POSITION_SIDES)
        allowance = self._gate.allows(self._facts.now.symbol, self._session.strategy.view())
        if allowance.entries:
            self._held_back = ""
            return set()
        if allowance.reason != self._held_back:
            self._held_back = allowance.reason
            self._events.publish(Notice(f"entries are held back: {allowance.reason}"))
        return set(POSITION_SIDES)

    def _gone(self, difference: Difference, without: set[str]) -> list[OrderRecord]:
        """Return what is to be cancelled: what is not wanted, and entries of sides ``without``."""
        orders = self._session.orders
        return [
            record
            for record in orders.alive(*LIMITS)
            if record.client_id in difference.cancels
            or (record.kind is OrderKind.ENTRY and record.position_side in without)
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
            and self._facts.now.takes_price(
                "BUY" if self._is_buy(order) else "SELL", order.price, price
            )
        ]
        if self._permission.is_trying:
            first = [order for order in possible if order.kind is OrderKind.ENTRY][:1]
            possible = [order for order in possible if order.kind is not OrderKind.ENTRY] + first
        if possible:
            self._dead_man.renew(lays=True)
        replies = self._desk.send([self._intend(order) for order in possible])
        self._refused |= {
            (bar, order)
            for order, reply in zip(possible, replies, strict=True)
            if reply.answer in {Answer.REFUSED, Answer.NO_MARGIN}
            and reply.meaning is not Meaning.ENTRIES_OFF
        }

    def forget_refusals(self) -> None:
        """Offer again what was refused, as the rules have changed."""
        self._refused.clear()

    @staticmethod
    def _is_buy(order: RestingOrder) -> bool:
        return (order.kind is OrderKind.ENTRY) == (order.position_side == "LONG")

    def _intend(self, order: RestingOrder) -> OrderRecord:
        return self._session.orders.new(
            order.kind,
            order.position_side,
            order.price,
            order.qty,
            self._session.progress.bar,
            level=order.level,
            generation=order.generation,
            owner=order.owner,
        )


def _is_beyond_stop(order: RestingOrder, stop: float) -> bool:
    """Return whether an entry would fill after the stop of its side, 0: none, has fired."""
    if order.kind is not OrderKind.ENTRY or stop <= 0.0:
        return False
    return order.price <= stop if order.position_side == "LONG" else order.price >= stop
