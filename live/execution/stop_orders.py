"""The wick stops at the exchange: every side that holds something has one, whatever else fails."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from core.errors import ExchangeError, GridError, StateError
from core.orders import POSITION_SIDES, OrderKind
from engine.contract import RestingOrder
from live.exchange.port import Clock, Exchange
from live.exchange.types import Answer, CancelResult, Meaning, OrderReply
from live.execution.books import LiveSession
from live.execution.fills import Fills, entry_fill
from live.execution.market_exits import MarketExits
from live.execution.order_desk import OrderDesk
from live.execution.order_register import OrderRecord, OrderState
from live.execution.symbol_facts import SymbolFacts
from live.health.events import Events, Unprotected

UNPROTECTED_LIMIT_S: Final = 60.0
"""How long a side may be without its stop before it is closed at market."""
LONGEST_PAUSE_S: Final = 64.0
"""Between two looks at a side that has no stop."""
LISTED_LATE_MS: Final = 120_000
"""So long after it was accepted a stop may be denied and missing from the list."""
REPORT_MS: Final = 60_000
"""Between two log lines about a side that can neither be stopped nor closed."""
NOT_TAKEN: Final = frozenset({Answer.NOT_SENT, Answer.UNKNOWN})
"""Answers that say nothing about whether the exchange would take a stop."""


class StopOrders:
    """One closing stop a side, where the ledger wants it.

    A side is wanted protected until its exit is booked. A stop moves new first: one with a quantity
    is laid at the new price, then the closing one goes and comes again there, then the first is
    taken off. Where the exchange does not take both, the old one goes first, and comes back if the
    new one is refused.

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
        facts: SymbolFacts,
        clock: Clock,
        events: Events,
    ) -> None:
        self._exchange, self._session, self._desk = exchange, session, desk
        self._fills, self._exits, self._facts = fills, exits, facts
        self._clock, self._events = clock, events
        self._unprotected_since_ms: dict[str, int] = {}
        self._reported_ms: dict[str, int] = {}
        self._takes_both = True
        self._moving: set[str] = set()
        """Sides whose stop is at its new price with a quantity, and closes all at its old one."""
        self._unwritten: StateError | None = None
        self._failure: GridError | None = None
        self.looks = 0
        """Looks in a row at which some side did not get the stop it should have."""

    @property
    def pause_s(self) -> float:
        """How long the next look may wait: 1, 2, 4, ... s while a side lacks its stop; else 0."""
        if not self.looks:
            return 0.0
        return min(2.0 ** min(self.looks - 1, 10), LONGEST_PAUSE_S)

    @property
    def unprotected(self) -> frozenset[str]:
        """The sides that had no stop at the last look."""
        return frozenset(self._unprotected_since_ms)

    def price_of(self, position_side: str) -> float:
        """Return the trigger of the stop laid last for a side; 0: none rests.

        While a stop moves, its predecessor rests beside it until the limits are laid.
        """
        resting = self._resting(position_side)
        return resting[-1].price if resting else 0.0

    def keep(self) -> set[str] | None:
        """Move the stops to where they should be; a stop that is passed already is done at market.

        A side that stays without its stop for ``UNPROTECTED_LIMIT_S`` is closed at market; until
        that is booked both are tried at every look.

        Returns:
            The position sides whose stop is not where it should be, or may not be; None if the
            ledger has changed.

        Raises:
            StateError: the disk refuses: stops that rest stay as they are, a side without one has
                got it all the same, as the exchange refuses a second.
            GridError: the exchange could not be asked, or does not let a side be closed whose stop
                is passed.
        """
        self._unwritten = self._failure = None
        wanted = {order.position_side: order for order in self._desired()}
        fresh = self._intend_all(wanted)
        has_fired, replies = False, dict[str, OrderReply]()
        for position_side in POSITION_SIDES:
            if position_side not in wanted:
                has_fired |= self._drop(self._alive(position_side)) is CancelResult.GONE
            elif position_side in fresh:
                reply, result = self._lay(fresh[position_side])
                has_fired |= result is CancelResult.GONE
                if reply is not None:
                    replies[position_side] = reply
        unclear = {d for d in wanted if not self._is_settled(d, fresh, replies)}
        if self._unwritten:
            self._note_unprotected(wanted, replies)
            raise self._unwritten
        if has_fired:
            self._fills.take()
        self._note_unprotected(wanted, replies)
        has_closed = self._close_due(replies, fresh)
        if self._failure is not None:
            raise self._failure
        return None if has_fired or has_closed else unclear

    def tidy(self) -> None:
        """End what ``keep`` has begun: the closing stops follow, and what they replace goes.

        It need not be done before other orders are laid: the side is protected at both prices.

        Raises:
            GridError: the exchange could not be asked, or the disk refused.
        """
        for order in self._desired():
            if order.position_side in self._moving:
                self._moving.discard(order.position_side)
                self._replace(order)
            closing = [r for r in self._resting(order.position_side) if r.closes_all]
            if any(self._is_at(record, order.price) for record in closing):
                extras = [r for r in self._resting(order.position_side) if not r.closes_all]
                if extras:
                    self._drop(extras)

    def _replace(self, order: RestingOrder) -> None:
        """Put the closing stop of a side where its stop with a quantity is already."""
        old = [record for record in self._alive(order.position_side) if record.closes_all]
        if any(self._is_at(record, order.price) for record in old):
            return
        record = self._intend(order)
        self._desk.write_down()
        if self._desk.cancel(old) is not CancelResult.UNTRADED:
            record.state = OrderState.DONE
            return  # it has fired, or may rest on: the next look says
        reply = self._place(record)
        if reply.answer not in {Answer.ACCEPTED, Answer.PASSED} and old:
            self._lay_again(old[0])

    # --- what should be ---------------------------------------------------------------------------

    def _desired(self) -> list[RestingOrder]:
        """Return the stops of the ledger as it is when all trades are listed."""
        strategy, orders = self._session.strategy, self._session.orders
        unlisted = [
            entry_fill(record, 0, record.price, record.unlisted, 0.0)
            for record in orders.alive(OrderKind.ENTRY)
            if record.unlisted
        ]
        return [order for order in strategy.desired(unlisted) if order.kind is OrderKind.STOP]

    def _alive(self, position_side: str) -> list[OrderRecord]:
        return self._session.orders.alive(OrderKind.STOP, position_side=position_side)

    def _resting(self, position_side: str) -> list[OrderRecord]:
        """Return the stops of a side that the exchange has accepted and that have not gone."""
        return [
            record
            for record in self._alive(position_side)
            if record.state is OrderState.OPEN and not record.fired_order_id
        ]

    def _is_at(self, record: OrderRecord, price: float) -> bool:
        tick = self._facts.rules.tick_size
        return round(record.price / tick) == round(price / tick)

    def _intend_all(self, wanted: dict[str, RestingOrder]) -> dict[str, OrderRecord]:
        """Write down a closing stop for every side whose own is missing or lies elsewhere."""
        fresh = {
            position_side: self._intend(order)
            for position_side, order in wanted.items()
            if not self._is_laid(order)
        }
        try:
            if fresh:
                self._desk.write_down()
        except StateError as error:
            for position_side in [d for d in fresh if self._resting(d)]:
                fresh.pop(position_side).state = OrderState.DONE  # the old one stays
            self._unwritten = error
        return fresh

    def _is_laid(self, order: RestingOrder) -> bool:
        """Return whether a side has its stop, or is on its way to it."""
        if any(
            record.closes_all and self._is_at(record, order.price)
            for record in self._alive(order.position_side)
        ):
            self._moving.discard(order.position_side)
            return True
        return order.position_side in self._moving and self._has_part_at(order)

    def _intend(
        self, order: RestingOrder, *, closes_all: bool = True, price: float = 0.0
    ) -> OrderRecord:
        return self._session.orders.new(
            OrderKind.STOP,
            order.position_side,
            price or order.price,
            order.qty,
            self._session.progress.bar,
            closes_all=closes_all,
        )

    def _is_settled(
        self, position_side: str, fresh: dict[str, OrderRecord], replies: dict[str, OrderReply]
    ) -> bool:
        """Return whether the stop of a side is known to be where it should be."""
        if position_side in fresh:
            return position_side in replies and replies[position_side].answer is Answer.ACCEPTED
        return bool(self._resting(position_side))  # else sent, and not known to have arrived

    # --- laying and moving ------------------------------------------------------------------------

    def _lay(self, record: OrderRecord) -> tuple[OrderReply | None, CancelResult]:
        """Lay or move a side's closing stop; return the last answer, and what its old one did."""
        old = [r for r in self._alive(record.position_side) if r is not record and r.closes_all]
        try:
            if not old:
                return self._place(record), CancelResult.UNTRADED
            return self._move(record, old)
        except StateError:
            raise
        except GridError as error:
            self._failure = error
            if record.state is OrderState.INTENDED and not record.sent_ms:
                record.state = OrderState.DONE  # it was not sent
            return None, CancelResult.UNTRADED

    def _place(self, record: OrderRecord) -> OrderReply:
        """Send a closing stop; one that the exchange has already is found out about."""
        (reply,) = self._desk.send([record], is_written=True)
        return self._adopt_existing(record, reply) if is_existing(reply) else reply

    def _adopt_existing(self, record: OrderRecord, reply: OrderReply) -> OrderReply:
        """Find the stop that a refusal speaks of (-4130), and read its trigger.

        It is usually ours and listed late. One of somebody else stays, and ours is laid beside it,
        with a quantity.
        """
        self._desk.refresh(is_leaving=True)
        if not self._resting(record.position_side):
            self._desk.revive_stops(record.position_side, LISTED_LATE_MS)
        closing = [r for r in self._resting(record.position_side) if r.closes_all]
        if closing:
            self._session.log.info(
                "%s has the stop %s already", record.position_side, closing[0].client_id
            )
            return OrderReply(client_id=closing[0].client_id, answer=Answer.ACCEPTED)
        bridge = self._bridge(record)
        (beside,) = self._desk.send([bridge])
        return reply if beside.answer is not Answer.ACCEPTED else beside

    def _bridge(self, record: OrderRecord) -> OrderRecord:
        """Return a stop with the quantity of the side, at the price of ``record``."""
        order = RestingOrder(record.position_side, OrderKind.STOP, record.price, record.qty, -1)
        bridge = self._intend(order, closes_all=False)
        bridge.qty = min(bridge.qty, self._facts.now.max_market_qty)
        return bridge

    def _move(
        self, record: OrderRecord, old: list[OrderRecord]
    ) -> tuple[OrderReply | None, CancelResult]:
        """Put a stop in the place of another one, so that the side has one at every moment."""
        if self._takes_both and not self._has_part_at(record):
            (reply,) = self._desk.send([self._bridge(record)])
            if reply.answer is not Answer.ACCEPTED:
                self._takes_both = reply.meaning is not Meaning.REFUSED
                if reply.answer in NOT_TAKEN or reply.answer is Answer.PASSED:
                    record.state = OrderState.DONE  # the old one stays
                    return reply, CancelResult.UNTRADED
            else:
                record.state = OrderState.DONE  # it follows in ``tidy``
                self._moving.add(record.position_side)
                return reply, CancelResult.UNTRADED
        result = self._desk.cancel(old)
        if result is not CancelResult.UNTRADED:
            record.state = OrderState.DONE
            return None, result
        reply = self._place(record)
        if reply.answer is not Answer.ACCEPTED and reply.answer is not Answer.PASSED:
            self._lay_again(old[0])
        return reply, result

    def _has_part_at(self, record: OrderRecord | RestingOrder) -> bool:
        step = self._facts.rules.step_size
        return any(
            self._is_at(part, record.price) and part.qty >= record.qty - 0.5 * step
            for part in self._resting(record.position_side)
            if not part.closes_all
        )

    def _lay_again(self, old: OrderRecord) -> None:
        """Lay the old stop again where the new one is refused and nothing else protects."""
        if self._resting(old.position_side):
            return
        order = RestingOrder(old.position_side, OrderKind.STOP, old.price, old.qty, -1)
        (reply,) = self._desk.send([self._intend(order)])
        self._session.log.warning(
            "the new stop of %s is refused; the old one at %g: %s",
            old.position_side,
            old.price,
            reply.answer.value,
        )

    def _drop(self, records: Iterable[OrderRecord]) -> CancelResult:
        """Take stops off; where that cannot be done they are taken off at the next look.

        One that may still arrive is waited for: the look that finds it takes it off.
        """
        result = CancelResult.UNTRADED
        for record in records:
            if record.state is OrderState.INTENDED and not record.sent_ms:
                record.state = OrderState.DONE
            elif not self._desk.may_arrive(record):
                result = min(result, self._desk.cancel([record]))
        return result

    # --- sides without a stop ---------------------------------------------------------------------

    def _note_unprotected(
        self, wanted: dict[str, RestingOrder], replies: dict[str, OrderReply]
    ) -> None:
        """Publish which sides have no stop now."""
        lacking = [position_side for position_side in wanted if not self._resting(position_side)]
        held = [d for d in lacking if self._is_held(d, replies.get(d))]
        now_ms = self._clock.now_ms()
        self._unprotected_since_ms = {d: self._unprotected_since_ms.get(d, now_ms) for d in held}
        has_failed = any(reply.answer is not Answer.ACCEPTED for reply in replies.values())
        self.looks = self.looks + 1 if lacking or has_failed else 0
        self._events.publish(Unprotected({d: _unprotected_text(replies.get(d)) for d in held}))

    def _is_held(self, position_side: str, reply: OrderReply | None) -> bool:
        """Return whether a side must be counted as held although its stop is refused.

        The refusal may say that no position is seen. That it is gone is believed where the account
        says so too and trades of others explain it: a fill may be seen later than its trade.
        """
        if reply is None or reply.answer is not Answer.NOTHING_TO_CLOSE:
            return True
        if position_side in self._unprotected_since_ms:
            return True
        closed = sum(qty for qty, _ in self._fills.foreign_closes.get(position_side, ()))
        held = self._session.strategy.view().side(position_side).qty
        if closed < held - 0.5 * self._facts.rules.step_size:
            return True
        try:
            return self._exchange.positions()[position_side].qty > 0.0
        except GridError as error:
            self._failure = self._failure or error
            return True

    def _close_due(self, replies: dict[str, OrderReply], fresh: dict[str, OrderRecord]) -> bool:
        """Close the sides whose stop is passed or is missing for too long; whether one is closed.

        One side that cannot be closed does not keep the other one open.
        """
        has_closed = False
        until_ms = self._clock.now_ms() - 1e3 * UNPROTECTED_LIMIT_S
        for position_side in POSITION_SIDES:
            reply = replies.get(position_side)
            is_passed = reply is not None and reply.answer is Answer.PASSED
            since_ms = self._unprotected_since_ms.get(position_side)
            if not is_passed and (since_ms is None or since_ms > until_ms):
                continue
            try:
                is_closed = self._close(position_side)
            except StateError:
                raise
            except GridError as error:
                self._failure = error
                is_closed = False
            has_closed |= is_closed
            if not is_closed and self._session.strategy.fills(position_side):
                self._report_stuck(position_side)
                if is_passed and self._failure is None:
                    self._failure = _passed_error(fresh[position_side])
        return has_closed

    def _report_stuck(self, position_side: str) -> None:
        now_ms = self._clock.now_ms()
        if now_ms - self._reported_ms.get(position_side, -REPORT_MS) >= REPORT_MS:
            self._reported_ms[position_side] = now_ms
            self._session.log.error(
                "%s can neither be stopped nor closed; both are tried again", position_side
            )

    def _close(self, position_side: str) -> bool:
        """Close a side at market instead of by its stop; return whether it is flat now."""
        strategy = self._session.strategy
        if strategy.fills(position_side):
            self._exits.stop_at_market(position_side)
            self._exits.finish()
            return not strategy.fills(position_side)
        return False


def is_existing(reply: OrderReply) -> bool:
    """Return whether a refusal says that the side has a closing stop already."""
    return reply.meaning is Meaning.STOP_EXISTS


def _passed_error(stop: OrderRecord) -> ExchangeError:
    return ExchangeError(
        f"the stop of {stop.position_side} at {stop.price:g} is passed, and the position could not "
        "be closed at market; it is tried again: look at the exchange"
    )


def _unprotected_text(reply: OrderReply | None) -> str:
    why = (
        "the exchange was not reached" if reply is None else f"{reply.answer.value} ({reply.text})"
    )
    return (
        f"it is not protected: {why}; its entries are off, and it is closed at market after "
        f"{UNPROTECTED_LIMIT_S:.0f} s; stop and market order are tried again until one is taken"
    )
