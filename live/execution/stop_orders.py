"""The wick stops at the exchange: every side that holds something has one, whatever else fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from core.errors import ExchangeError, StateError
from engine.contract import POSITION_SIDES, RestingOrder
from live.exchange.port import Clock, Exchange
from live.exchange.types import Answer, Fate, MarketFacts, OrderKind, OrderReply
from live.execution.books import LiveSession
from live.execution.fills import Fills, entry_fill
from live.execution.market_exits import MarketExits
from live.execution.order_desk import OrderDesk
from live.execution.order_register import OrderRecord, OrderState
from live.execution.reconcile import Difference, Resting, reconcile
from live.health.events import Events, Unprotected

UNPROTECTED_LIMIT_S: Final = 60.0
"""How long a side may be without its stop before it is closed at market."""


class StopOrders:
    """One closing stop a side, where the ledger wants it.

    Args:
        exchange: where they rest.
        session: the book and what was sent for it.
        desk: sends and cancels.
        fills: books what was traded.
        exits: does at market what a stop came too late for.
        facts: rules of the symbol.
        clock: of all times.
        events: which sides have no stop is published there after every look.
    """

    def __init__(
        self,
        exchange: Exchange,
        session: LiveSession,
        desk: OrderDesk,
        fills: Fills,
        exits: MarketExits,
        facts: MarketFacts,
        clock: Clock,
        events: Events,
    ) -> None:
        self._exchange, self._session, self._desk = exchange, session, desk
        self._fills, self._exits, self._facts = fills, exits, facts
        self._clock, self._events = clock, events
        self._unprotected_since_ms: dict[str, int] = {}
        self.looks = 0
        """Looks in a row at which some side did not get the stop it should have."""

    def keep(self) -> set[str] | None:
        """Move the stops to where they should be; a stop that is passed already is done at market.

        The exchange holds one closing stop a side: the old one goes first, the new one, which was
        written down before, follows at once, unless the old one has fired. A side that stays
        without its stop for ``UNPROTECTED_LIMIT_S`` is closed at market.

        Returns:
            The directions that should have a stop and may have none; None if the ledger has
            changed.

        Raises:
            StateError: the disk refuses: stops that rest stay as they are, a side without one has
                got it all the same, as the exchange refuses a second.
            GridError: the exchange could not be asked, or does not let a side be closed whose stop
                is passed.
        """
        difference = self._compare()
        records = {order.direction: self._intend(order) for order in difference.creates}
        unwritten = self._write_down(records)
        old = [] if unwritten else [self._session.orders.known(i) for i in difference.cancels]
        replies: dict[str, OrderReply] = {}
        uncertain, has_fired = set[str](), False
        for direction in POSITION_SIDES:
            result = self._desk.cancel([r for r in old if r.direction == direction])
            record = records.get(direction)
            if record is not None and result is Fate.UNTRADED:
                (replies[direction],) = self._desk.send([record], is_written=True)
            elif record is not None:
                record.state = OrderState.DONE  # it was not sent
                uncertain.add(direction)
            has_fired |= result is Fate.GONE
        if unwritten:
            raise unwritten
        if has_fired:
            self._fills.take()
        unprotected = self._note_unprotected(replies, uncertain)
        passed = [records[d] for d, reply in replies.items() if reply.answer is Answer.PASSED]
        has_closed = [self._close_passed(stop) for stop in passed]
        has_closed += [self._close_overdue(direction) for direction in self._overdue()]
        return None if has_fired or any(has_closed) else unprotected

    # --- what should be ---------------------------------------------------------------------------

    def _compare(self) -> Difference:
        resting = [
            Resting(r.client_id, r.kind, r.direction, r.price, r.rest)
            for r in self._session.orders.alive(OrderKind.STOP)
        ]
        return reconcile(self._desired(), resting, self._facts.rules)

    def _desired(self) -> list[RestingOrder]:
        """Return the stops of the ledger as it is when all trades are listed."""
        strategy, orders = self._session.strategy, self._session.orders
        unlisted = [
            entry_fill(record, 0, record.price, record.unlisted, 0.0)
            for record in orders.alive(OrderKind.ENTRY)
            if record.unlisted
        ]
        return [order for order in strategy.desired(unlisted) if order.kind == "STOP"]

    def _intend(self, order: RestingOrder) -> OrderRecord:
        return self._session.orders.new(
            OrderKind.STOP, order.direction, order.price, order.qty, self._session.progress.bar
        )

    def _write_down(self, records: dict[str, OrderRecord]) -> StateError | None:
        """Write new stops down; where that fails leave those that replace none in ``records``."""
        try:
            if records:
                self._desk.write_down()
        except StateError as error:
            for direction in list(records):
                if len(self._session.orders.alive(OrderKind.STOP, direction=direction)) > 1:
                    records.pop(direction).state = OrderState.DONE  # the old one stays
            return error
        return None

    # --- sides without a stop ---------------------------------------------------------------------

    def _note_unprotected(self, replies: Mapping[str, OrderReply], uncertain: set[str]) -> set[str]:
        """Take in which sides have no stop now; return them, and those of which it is not sure."""
        failed = {d: reply for d, reply in replies.items() if not self._is_settled(d, reply)}
        held = {
            direction: reply
            for direction, reply in failed.items()
            if reply.answer is not Answer.NOTHING_TO_CLOSE
            or self._exchange.positions()[direction].qty > 0.0
        }
        now_ms = self._clock.now_ms()
        self._unprotected_since_ms = {d: self._unprotected_since_ms.get(d, now_ms) for d in held}
        self.looks = self.looks + 1 if failed or uncertain else 0
        self._events.publish(
            Unprotected({direction: _unprotected_text(reply) for direction, reply in held.items()})
        )
        return uncertain | failed.keys()

    def _is_settled(self, direction: str, reply: OrderReply) -> bool:
        """Return whether a stop rests, or its side is closed at market because it came too late."""
        has_fills = bool(self._session.strategy.fills(direction))
        return reply.answer is Answer.ACCEPTED or (reply.answer is Answer.PASSED and has_fills)

    def _overdue(self) -> list[str]:
        """Return the sides that have been without their stop for too long."""
        until_ms = self._clock.now_ms() - 1e3 * UNPROTECTED_LIMIT_S
        return [d for d, since_ms in self._unprotected_since_ms.items() if since_ms <= until_ms]

    def _close_overdue(self, direction: str) -> bool:
        """Close a side that cannot be stopped; return whether that is done."""
        is_closed = self._close(direction)
        if not is_closed:  # its trades are not listed yet, or nothing trades at the exchange
            self._unprotected_since_ms[direction] = self._clock.now_ms()
            self._session.log.error(
                "%s can neither be stopped nor closed; both are tried again", direction
            )
        return is_closed

    def _close_passed(self, stop: OrderRecord) -> bool:
        """Close a side whose stop came too late; return whether there was anything.

        Raises:
            ExchangeError: it could not be closed.
        """
        if not self._session.strategy.fills(stop.direction):
            return False  # its trades are not listed yet
        if not self._close(stop.direction):
            raise ExchangeError(
                f"the stop of {stop.direction} at {stop.price:g} is passed, and the position could "
                "not be closed at market; it is tried again: look at the exchange"
            )
        return True

    def _close(self, position_side: str) -> bool:
        """Close a side at market instead of by its stop; return whether it is flat now."""
        strategy = self._session.strategy
        if strategy.fills(position_side):
            self._exits.stop_at_market(position_side)
            self._exits.finish()
            return not strategy.fills(position_side)
        return False


def _unprotected_text(reply: OrderReply) -> str:
    return (
        f"it is not protected: {reply.answer.value} ({reply.text}); its entries are off, and it is "
        f"closed at market after {UNPROTECTED_LIMIT_S:.0f} s"
    )
