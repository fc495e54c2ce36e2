"""Sends orders so that none is ever sent twice, and keeps what is known of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from core.errors import AccountError, CredentialsError
from core.orders import OrderKind
from live.exchange.port import Clock, Exchange
from live.exchange.types import Answer, CancelResult, ExchangeOrder, Meaning, OrderReply
from live.execution.order_register import OUR_IDS, OrderRecord, OrderRegister, OrderState
from live.execution.symbol_facts import SymbolFacts
from live.health.events import Events, Notice

DENIALS: Final = 2
REFUSAL_KEPT_MS: Final = 4 * 3_600_000
LISTED_LATE_MS: Final = 120_000
"""So long after it was accepted an order may be denied and missing from the list."""


@dataclass(frozen=True, eq=False, slots=True)
class Restriction:
    """A refusal that says that only what reduces is taken; each is another one.

    Attributes:
        code: of the exchange.
        text: of the exchange.
    """

    code: int
    text: str


class OrderDesk:
    """Our orders at the exchange.

    Args:
        exchange: where they are.
        register: what is known of them.
        save: writes the register down; called before anything is sent.
        events: what a person should hear of is published there.
        foreign_orders: client ids of others' orders that were reported; added to.
        clock: of all times.
        facts: rules of the symbol, which orders are sent on.
        late_ms: how long after it was sent the exchange may still take a request.
        log: of the session.
    """

    def __init__(
        self,
        exchange: Exchange,
        register: OrderRegister,
        save: Callable[[], None],
        events: Events,
        foreign_orders: list[str],
        clock: Clock,
        facts: SymbolFacts,
        late_ms: int,
        log: logging.Logger,
    ) -> None:
        self._exchange, self._register, self._save = exchange, register, save
        self._events, self._foreign_orders = events, foreign_orders
        self._clock, self._facts, self._late_ms, self._log = clock, facts, late_ms, log
        self.restriction: Restriction | None = None
        """Why the exchange takes only what reduces; None: it does not say so."""
        self._late_until_ms: dict[str, int] = {}
        """Until when, ms UTC, orders that the exchange does not know may still arrive there."""
        for record in register.alive():  # the process before was killed over those
            if record.state is OrderState.INTENDED:
                record.sent_ms = record.sent_ms or self._clock.now_ms()  # written before it is
                self._may_be_late(record)
        self._reported: dict[tuple[str, OrderKind], dict[float, int]] = {}
        """When orders at a price were last refused, ms UTC, by side and kind."""
        self._seen_ms: int | None = None
        self.foreign_rests = False
        """Whether normal orders of others rested at the last look."""
        self.has_changed = False
        """Whether an order has gone or filled further since trades were asked for."""

    @property
    def limits_rest(self) -> bool:
        """Whether limit orders of ours rest, or may."""
        return bool(self._register.alive(OrderKind.ENTRY, OrderKind.TAKE_PROFIT))

    def write_down(self) -> None:
        """Write down what is meant to be sent.

        Raises:
            StateError: it cannot be; nothing may be sent then.
        """
        self._save()

    def send(self, records: Sequence[OrderRecord], *, is_written: bool = False) -> list[OrderReply]:
        """Write ``records`` down, then send them; return the answers in their order.

        An order whose outcome stays unknown remains INTENDED and counts as there until
        ``resolve`` has found out.

        Args:
            records: new ones.
            is_written: ``write_down`` was called since they were made.

        Raises:
            StateError: they could not be written down; nothing was sent.
            CredentialsError: the keys may not trade.
            GridError: the exchange refused the request as a whole; the orders stay INTENDED.
        """
        if not records:
            return []
        if not is_written:
            self._save()
        for record in records:
            record.sent_ms = self._clock.now_ms()
        replies = self._exchange.create_orders(
            [self._facts.on_rules(record.spec) for record in records]
        )
        for record, reply in zip(records, replies, strict=True):
            self._take_reply(record, reply)
        self._note_restriction(records, replies)
        self._report_refusals(records, replies)
        for reply in replies:
            if reply.answer is Answer.FORBIDDEN:
                raise CredentialsError(reply.text)
        return replies

    def _take_reply(self, record: OrderRecord, reply: OrderReply) -> None:
        if reply.answer is Answer.ACCEPTED:
            record.order_id = reply.order_id
            if record.state is OrderState.INTENDED:
                record.state = OrderState.OPEN
            return
        if reply.answer is Answer.UNKNOWN:
            self._may_be_late(record)
        elif reply.answer is not Answer.NOT_SENT:
            record.state = OrderState.DONE
        if reply.meaning is Meaning.RULES:
            self._facts.doubt()
        self._log.info("order %s %s", record.client_id, _refusal_text(record, reply))

    def _note_restriction(
        self, records: Sequence[OrderRecord], replies: Sequence[OrderReply]
    ) -> None:
        """Note whether entries are refused as only what reduces is taken; one accepted ends that.

        Where both come in one answer it is refused: what was accepted was so before.
        """
        entries = [
            reply
            for record, reply in zip(records, replies, strict=True)
            if record.kind is OrderKind.ENTRY
        ]
        refused = [reply for reply in entries if reply.meaning is Meaning.ENTRIES_OFF]
        if refused:
            self.restriction = Restriction(refused[-1].code, refused[-1].text)
        elif any(reply.answer is Answer.ACCEPTED for reply in entries):
            self.restriction = None

    def _may_be_late(self, record: OrderRecord) -> None:
        # A side's second closing stop is refused anyway; one with a quantity is not.
        if record.kind is not OrderKind.STOP or not record.closes_all:
            self._late_until_ms[record.client_id] = self._clock.now_ms() + self._late_ms

    def _report_refusals(
        self, records: Sequence[OrderRecord], replies: Sequence[OrderReply]
    ) -> None:
        """Alert a person to refused orders, once until those of that side and kind pass again.

        Where some pass and others do not, that goes on: each must pass, or be gone for four hours.
        """
        now_ms = self._clock.now_ms()
        for record, reply in zip(records, replies, strict=True):
            reported = self._reported.setdefault((record.position_side, record.kind), {})
            for price in [p for p, ms in reported.items() if now_ms - ms > REFUSAL_KEPT_MS]:
                del reported[price]
            if reply.meaning is Meaning.STOP_EXISTS:
                continue  # whoever laid it finds out which
            if reply.answer in {Answer.REFUSED, Answer.NO_MARGIN}:
                if not reported:
                    text = _refusal_text(record, reply)
                    self._events.publish(Notice(f"order {text}; it is tried again"))
                reported[record.price] = now_ms
            else:
                reported.pop(record.price, None)

    def resolve(self) -> None:
        """Find out about every order whose outcome is not known.

        What the exchange does not have by now was never taken, unless its request may still
        arrive: it stays INTENDED until that is over. Market exits stay INTENDED in any case: they
        are still to be done, and are sent again under the same identity.

        Raises:
            GridError: the exchange could not be asked.
        """
        now_ms = self._clock.now_ms()
        self._late_until_ms = {
            client_id: until_ms
            for client_id, until_ms in self._late_until_ms.items()
            if until_ms > now_ms
        }
        for record in self._register.alive():
            if record.state is not OrderState.INTENDED:
                continue
            found = self._exchange.find_order(record.client_id, record.kind)
            if found is not None:
                self.adopt(record, found)
            elif record.kind is not OrderKind.EXIT and record.client_id not in self._late_until_ms:
                record.state = OrderState.DONE

    def may_arrive(self, record: OrderRecord) -> bool:
        """Return whether an order that the exchange does not know may still arrive there."""
        until_ms = self._late_until_ms.get(record.client_id, 0)
        return record.state is OrderState.INTENDED and self._clock.now_ms() < until_ms

    def wait_s(self, *kinds: OrderKind) -> float:
        """Return the seconds until ``resolve`` finds out about orders of ``kinds`` (none: all).

        0 where nothing may still arrive.
        """
        until_ms = [
            self._late_until_ms[record.client_id]
            for record in self._register.alive(*kinds)
            if record.state is OrderState.INTENDED and record.client_id in self._late_until_ms
        ]
        return max(1e-3, (max(until_ms) - self._clock.now_ms()) / 1e3) if until_ms else 0.0

    def adopt(self, record: OrderRecord, found: ExchangeOrder) -> bool:
        """Take over what the exchange says of an order.

        What has traded more than the ledger has booked counts as there until it is booked: laid
        anew meanwhile, or its side decided on, it would be done twice.

        Returns:
            Whether it has.
        """
        record.order_id, record.missed = found.order_id, 0
        self.has_changed |= not found.is_open or found.filled_qty != record.reported_qty
        record.reported_qty = found.filled_qty
        record.fired_order_id = found.fired_order_id or record.fired_order_id
        is_behind = found.has_traded_beyond(record.booked_qty)
        if record.kind is OrderKind.STOP:
            is_behind = self._has_fired(record)
        record.state = OrderState.OPEN if found.is_open or is_behind else OrderState.DONE
        return is_behind

    def _has_fired(self, stop: OrderRecord) -> bool:
        """Return whether the market order that a stop became has trades that are not booked."""
        if not stop.fired_order_id or stop.booked_qty > 0.0:
            return False
        order = self._exchange.order_by_id(stop.fired_order_id)
        return order is not None and (order.is_open or order.filled_qty > 0.0)

    def cancel(self, records: Sequence[OrderRecord]) -> CancelResult:
        """Cancel ``records``; return what became of them.

        What is gone, but has traded what is not booked, counts as there until it is booked.

        Returns:
            STUCK: some may still be open; GONE: none is, and trades are to be booked; else
            UNTRADED.

        Raises:
            GridError: the exchange could not be asked.
        """
        if not records:
            return CancelResult.UNTRADED
        results = self._exchange.cancel_orders([_as_open(record) for record in records])
        return min(self._settle(*cancelled) for cancelled in zip(records, results, strict=True))

    def _settle(self, record: OrderRecord, result: CancelResult) -> CancelResult:
        """Take over what became of a cancelled order; where that is not clear it is looked up."""
        if result is CancelResult.UNTRADED:
            record.state = OrderState.DONE
        elif result is CancelResult.GONE:
            self.look_for(record)
        return CancelResult.UNTRADED if record.state is OrderState.DONE else result

    def refresh(self, *, is_leaving: bool = False) -> bool:
        """Bring the register in line with the exchange's open orders.

        Args:
            is_leaving: orders that bear our name and are not ours are reported, and change nothing.

        Returns:
            Whether some order has traded more than the ledger has booked.

        Raises:
            AccountError: orders that bear our name are not ours.
            GridError: the exchange could not be asked.
        """
        is_behind = False
        seen = {order.client_id: order for order in self._exchange.open_orders()}
        self._seen_ms, self.foreign_rests = self._clock.now_ms(), False
        for order in seen.values():
            record = self._register.get(order.client_id) or self._unwritten_stop(order)
            if record is None:
                self.foreign_rests |= order.kind is not OrderKind.STOP
                self._report_foreign(order, is_leaving=is_leaving)
            else:
                is_behind |= self.adopt(record, order)
        for record in self._register.alive():
            if record.state is OrderState.OPEN and record.client_id not in seen:
                is_behind |= self.look_for(record)
        return is_behind

    def has_seen_within(self, ms: int) -> bool:
        """Return whether the open orders were looked at less than ``ms`` ago."""
        return self._seen_ms is not None and 0 <= self._clock.now_ms() - self._seen_ms < ms

    def look_for(self, record: OrderRecord) -> bool:
        """Find out about an order that was taken and is not among the open ones; as ``adopt``.

        An exchange may answer from a copy that lags: only when it denies the order twice, and the
        order is older than ``LISTED_LATE_MS``, is it gone.

        Raises:
            GridError: the exchange could not be asked.
        """
        found = self._exchange.find_order(record.client_id, record.kind)
        if found is not None:
            return self.adopt(record, found)
        record.missed += 1
        self.has_changed = True  # it may have filled: the trades say
        if record.missed >= DENIALS and not self._is_young(record):
            record.state = OrderState.DONE
        return False

    def _is_young(self, record: OrderRecord) -> bool:
        """Return whether an order may still be listed late, as it was accepted a moment ago."""
        return 0 <= self._clock.now_ms() - record.sent_ms < LISTED_LATE_MS

    def revive_stops(self, position_side: str, age_ms: int) -> None:
        """Count the newest accepted closing stop of a side as there again.

        The exchange says that the side has a stop; it is one that was given up.

        Args:
            position_side: LONG or SHORT.
            age_ms: how long ago it may have been sent.
        """
        least_ms = self._clock.now_ms() - age_ms
        accepted = [
            record
            for record in self._register
            if record.kind is OrderKind.STOP
            and record.position_side == position_side
            and record.closes_all
            and record.order_id
            and not record.fired_order_id
            and record.sent_ms >= least_ms
        ]
        if accepted:
            newest = max(accepted, key=lambda record: record.sent_ms)
            newest.state, newest.missed = OrderState.OPEN, 0

    def _unwritten_stop(self, order: ExchangeOrder) -> OrderRecord | None:
        """Return the record of a stop of ours that a full disk kept out of the state, else None."""
        if order.kind is OrderKind.STOP and order.client_id.startswith(self._register.prefix):
            return self._register.adopt_stop(
                order.client_id, order.position_side, order.price, closes_all=order.closes_all
            )
        return None

    def _report_foreign(self, order: ExchangeOrder, *, is_leaving: bool) -> None:
        if OUR_IDS.match(order.client_id) and not is_leaving:
            raise shared_symbol_error(order.client_id)
        if order.client_id not in self._foreign_orders:
            self._foreign_orders.append(order.client_id)
            self._events.publish(
                Notice(
                    f"order {order.client_id} ({order.position_side} {order.qty:g} at "
                    f"{order.price:g}) is not ours; it is left alone"
                )
            )


def shared_symbol_error(client_id: str) -> AccountError:
    """Return the error that ``client_id``, which bears this program's name, is not ours."""
    return AccountError(
        f"order {client_id} bears this bot's name and is not in its state: another session trades "
        "this coin on this account, or the state is not its newest; one account takes one session "
        "a coin: stop the other one, or go on with its state (--resume), or cancel the order"
    )


def _refusal_text(record: OrderRecord, reply: OrderReply) -> str:
    return (
        f"{record.kind.name} {record.position_side} {record.qty:g} at {record.price:g}: "
        f"{reply.answer.value} ({reply.text})"
    )


def _as_open(record: OrderRecord) -> ExchangeOrder:
    return ExchangeOrder(
        client_id=record.client_id,
        order_id=record.order_id,
        kind=record.kind,
        position_side=record.position_side,
        price=record.price,
        qty=record.qty,
        filled_qty=record.booked_qty,
        is_open=True,
        status="",
    )
