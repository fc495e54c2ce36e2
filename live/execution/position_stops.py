"""Stops of a strategy that stops its positions one by one: several a side, each with a quantity."""

from __future__ import annotations

from typing import Final

from core.errors import GridError, StateError
from core.orders import OrderKind
from engine.contract import RestingOrder
from live.exchange.port import Clock
from live.exchange.types import Answer, CancelResult, OrderReply
from live.execution.books import LiveSession
from live.execution.fills import Fills, entry_fill
from live.execution.market_exits import MarketExits
from live.execution.order_desk import OrderDesk
from live.execution.order_register import OrderRecord, OrderState
from live.execution.stop_orders import LONGEST_PAUSE_S, UNPROTECTED_LIMIT_S
from live.execution.symbol_facts import SymbolFacts
from live.health.events import Events, Notice, Unprotected

STOP_LIMIT_CODE: Final = -4045
"""The exchange takes no further conditional order."""


MOST_STOPS: Final = 10
"""So many conditional orders every account may have on a symbol."""


class PositionStops:
    """The stops that the strategy wants, by their names.

    A stop moves new first: the exchange takes several with quantities, and each reduces only. One
    that is passed already is done at market, and so is what has no stop for
    ``UNPROTECTED_LIMIT_S``. Where the exchange takes no more of them more positions share one.

    Args:
        session: the book and what was sent for it.
        desk: sends and cancels.
        fills: books what was traded.
        exits: does at market what a stop came too late for.
        facts: rules of the symbol.
        clock: of all times.
        events: which sides lack a stop is published there after every look.
    """

    def __init__(
        self,
        session: LiveSession,
        desk: OrderDesk,
        fills: Fills,
        exits: MarketExits,
        facts: SymbolFacts,
        clock: Clock,
        events: Events,
    ) -> None:
        self._session, self._desk, self._fills = session, desk, fills
        self._exits, self._facts, self._clock, self._events = exits, facts, clock, events
        self._lacking_since_ms: dict[str, int] = {}
        """Since when a stop of a name should rest and does not, ms UTC."""
        self._sides: dict[str, str] = {}
        self._failure: GridError | None = None
        self._has_fired = False
        self._dropped: set[str] = set()
        """Client ids of the stops that were not wanted any more."""
        self.looks = 0
        """Looks in a row at which some stop was not where it should be."""

    @property
    def pause_s(self) -> float:
        """How long the next look may wait: 1, 2, 4, ... s while a stop is lacking; else 0."""
        return min(2.0 ** min(self.looks - 1, 10), LONGEST_PAUSE_S) if self.looks else 0.0

    @property
    def unprotected(self) -> frozenset[str]:
        """The sides where a position had no stop at the last look."""
        return frozenset(self._sides[owner] for owner in self._lacking_since_ms)

    def price_of(self, position_side: str) -> float:  # noqa: ARG002
        """Return 0: no stop closes the whole side, so an entry may lie beyond one."""
        return 0.0

    def keep(self) -> set[str] | None:
        """Have every stop where it should be.

        Returns:
            The sides where one is not, or may not be; None if the ledger has changed.

        Raises:
            StateError: the disk refuses.
            GridError: the exchange could not be asked, or does not let a position be closed whose
                stop is passed.
        """
        self._failure = None
        wanted = {order.owner: order for order in self._desired()}
        self._has_fired = False
        replies = self._lay_missing(wanted)
        self._drop_superseded(wanted)
        has_fired = self._has_fired
        if has_fired:
            self._fills.take()
        self._note_lacking(wanted, replies)
        has_closed = self._close_due(wanted, replies)
        has_shared = self._share_more(replies)
        if self._failure is not None:
            raise self._failure
        if has_fired or has_closed or has_shared:
            return None
        return {wanted[owner].position_side for owner in wanted if not self._rests(wanted[owner])}

    def tidy(self) -> None:
        """Nothing: what a new stop replaces goes when it is laid."""

    # --- what should be ---------------------------------------------------------------------------

    def _desired(self) -> list[RestingOrder]:
        """Return the stops of the ledger as it is when all trades are listed."""
        strategy, orders = self._session.strategy, self._session.orders
        unlisted = [
            entry_fill(record, self._clock.now_ms(), record.price, record.unlisted, 0.0)
            for record in orders.alive(OrderKind.ENTRY)
            if record.unlisted
        ]
        return [order for order in strategy.desired(unlisted) if order.kind is OrderKind.STOP]

    def _alive(self, owner: str | None = None) -> list[OrderRecord]:
        stops = self._session.orders.alive(OrderKind.STOP)
        return [r for r in stops if owner is None or r.owner == owner]

    def _is_at(self, record: OrderRecord, order: RestingOrder) -> bool:
        rules = self._facts.rules
        is_there = round(record.price / rules.tick_size) == round(order.price / rules.tick_size)
        return is_there and round(record.qty / rules.step_size) == round(
            order.qty / rules.step_size
        )

    def _rests(self, order: RestingOrder) -> bool:
        """Return whether the exchange has a stop as it should be."""
        return any(
            record.state is OrderState.OPEN
            and not record.fired_order_id
            and self._is_at(record, order)
            for record in self._alive(order.owner)
        )

    # --- laying and dropping ----------------------------------------------------------------------

    def _lay_missing(self, wanted: dict[str, RestingOrder]) -> dict[str, OrderReply]:
        replies = {}
        for owner, order in wanted.items():
            if any(self._is_at(record, order) for record in self._alive(owner)):
                continue
            if len(self._alive()) >= MOST_STOPS:  # room first: what has its successor goes
                self._drop_superseded(wanted)
            self._report_cancelled(order)
            record = self._session.orders.new(
                OrderKind.STOP,
                order.position_side,
                order.price,
                order.qty,
                self._session.progress.bar,
                level=order.level,
                generation=order.generation,
                closes_all=False,
                owner=owner,
            )
            try:
                (replies[owner],) = self._desk.send([record])
            except StateError:
                raise
            except GridError as error:
                self._failure = self._failure or error
                if record.state is OrderState.INTENDED and not record.sent_ms:
                    record.state = OrderState.DONE
        return replies

    def _report_cancelled(self, order: RestingOrder) -> None:
        """Say that a stop is laid again which somebody else has cancelled."""
        if any(
            record.owner == order.owner
            and record.client_id not in self._dropped
            and record.state is OrderState.DONE
            and record.order_id
            and not record.fired_order_id
            and self._is_at(record, order)
            for record in self._session.orders
        ):
            text = f"the stop at {order.price:g} was cancelled by somebody else; it is laid again"
            self._events.publish(Notice(text))

    def _drop_superseded(self, wanted: dict[str, RestingOrder]) -> None:
        """Take off what is not wanted, and what a newer one has replaced."""
        gone = []
        for record in self._alive():
            order = wanted.get(record.owner)
            if order is None or (not self._is_at(record, order) and self._rests(order)):
                gone.append(record)
        known = {client_id for client_id in self._dropped if self._session.orders.get(client_id)}
        self._dropped = known | {record.client_id for record in gone}
        try:
            self._has_fired |= self._desk.cancel(gone) is CancelResult.GONE
        except GridError as error:
            self._failure = self._failure or error

    def _share_more(self, replies: dict[str, OrderReply]) -> bool:
        """Where the exchange takes no further stop, let more positions share one."""
        if any(reply.code == STOP_LIMIT_CODE for reply in replies.values()):
            self._session.strategy.fewer_stops()
            self._session.log.warning(
                "the exchange takes no further stop: more positions share one"
            )
            return True
        return False

    # --- positions without a stop -----------------------------------------------------------------

    def _note_lacking(
        self, wanted: dict[str, RestingOrder], replies: dict[str, OrderReply]
    ) -> None:
        """Publish on which sides a position has no stop now; a superseded one protects too."""
        now_ms, texts = self._clock.now_ms(), dict[str, str]()
        lacking = [owner for owner in wanted if not self._is_protected(owner)]
        self._sides = {owner: wanted[owner].position_side for owner in wanted}
        self._lacking_since_ms = {
            owner: self._lacking_since_ms.get(owner, now_ms) for owner in lacking
        }
        for owner in lacking:
            reply = replies.get(owner)
            why = "the exchange was not reached"
            if reply is not None:
                why = f"{reply.answer.value} ({reply.text})"
            texts[wanted[owner].position_side] = (
                f"the stop at {wanted[owner].price:g} does not rest: {why}; entries are off, and "
                f"it is closed at market after {UNPROTECTED_LIMIT_S:.0f} s; both are tried again"
            )
        has_failed = any(reply.answer is not Answer.ACCEPTED for reply in replies.values())
        self.looks = self.looks + 1 if lacking or has_failed else 0
        self._events.publish(Unprotected(texts))

    def _is_protected(self, owner: str) -> bool:
        return any(
            record.state is OrderState.OPEN and not record.fired_order_id
            for record in self._alive(owner)
        )

    def _close_due(self, wanted: dict[str, RestingOrder], replies: dict[str, OrderReply]) -> bool:
        """Close at market whose stop is passed or is lacking for too long; whether one was."""
        until_ms = self._clock.now_ms() - 1e3 * UNPROTECTED_LIMIT_S
        has_closed = False
        for owner, order in wanted.items():
            reply, since_ms = replies.get(owner), self._lacking_since_ms.get(owner)
            is_passed = reply is not None and reply.answer is Answer.PASSED
            if not is_passed and (since_ms is None or since_ms > until_ms):
                continue
            try:
                self._exits.stop_fills_at_market(
                    order.position_side, self._session.strategy.stopped_by(owner)
                )
                self._exits.finish()
                has_closed = True
            except StateError:
                raise
            except GridError as error:
                self._failure = self._failure or error
        return has_closed
