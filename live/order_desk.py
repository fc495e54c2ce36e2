"""Sends orders so that none is ever sent twice, and keeps what is known of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from core.errors import AccountError
from live.exchange_types import Answer, Clock, Exchange, ExchangeOrder, OrderKind, OrderReply
from live.orders import OrderRecord, OrderRegister, OrderState

_LOG: Final = logging.getLogger(__name__)
DENIALS: Final = 2
SLACK: Final = 1e-9
_MAY_BE_THERE: Final = frozenset({Answer.UNKNOWN, Answer.NOT_SENT})


class OrderDesk:
    """Our orders at the exchange.

    Args:
        exchange: where they are.
        register: what is known of them.
        save: writes the register down; called before anything is sent.
        alert: tells a person.
        strangers: client ids of others' orders that were reported; added to.
        clock: tells the time.
        late_until_ms: ms UTC; until then the exchange may still take a request of the process
            that left ``register`` behind.
    """

    def __init__(
        self, exchange: Exchange, register: OrderRegister, save: Callable[[], None],
        alert: Callable[[str], None], strangers: list[str], clock: Clock, late_until_ms: int,
    ) -> None:  # fmt: skip
        self._exchange, self._register, self._save = exchange, register, save
        self._alert, self._strangers = alert, strangers
        self._clock, self._late_until_ms = clock, late_until_ms
        self._inherited = {
            record.client_id
            for record in register.alive()
            if record.state is OrderState.INTENDED and record.kind is not OrderKind.STOP
        }
        """Orders the process before was killed over. (A side's second stop is refused anyway.)"""
        self._told: set[str] = set()

    def send(self, records: Sequence[OrderRecord]) -> list[OrderReply]:
        """Write ``records`` down, then send them; return the answers in their order.

        An order whose outcome stays unknown remains INTENDED and counts as there until
        ``resolve`` has found out.

        Raises:
            StateError: they could not be written down; nothing was sent.
            GridError: the exchange refused the request as a whole; the orders stay INTENDED.
        """
        if not records:
            return []
        self._save()
        replies = self._exchange.create_orders([record.spec for record in records])
        for record, reply in zip(records, replies, strict=True):
            self._take_reply(record, reply)
        return replies

    def _take_reply(self, record: OrderRecord, reply: OrderReply) -> None:
        if reply.answer is Answer.ACCEPTED:
            record.order_id = reply.order_id
            if record.state is OrderState.INTENDED:
                record.state = OrderState.OPEN
        elif reply.answer not in _MAY_BE_THERE:
            record.state = OrderState.DONE
        if reply.answer is Answer.ACCEPTED:
            return
        text = (
            f"{record.kind.name} {record.direction} {record.qty:g} at {record.price:g}: "
            f"{reply.answer.value} ({reply.text})"
        )
        _LOG.info("order %s %s", record.client_id, text)
        if reply.answer in {Answer.REFUSED, Answer.NO_MARGIN} and text not in self._told:
            self._told.add(text)  # it is tried again at every look; a person is told once
            self._alert(f"order {text}")

    def resolve(self) -> None:
        """Find out about every order whose outcome is not known.

        What the exchange does not have by now was never taken, unless a process was killed over
        it and its request may still arrive: it stays INTENDED until that is over. Market exits
        stay INTENDED in any case: they are still to be done, and are sent again under the same
        identity.

        Raises:
            GridError: the exchange could not be asked.
        """
        if self._clock.now_ms() >= self._late_until_ms:
            self._inherited.clear()
        for record in self._register.alive():
            if record.state is not OrderState.INTENDED:
                continue
            found = self._exchange.find_order(record.client_id, record.kind)
            if found is not None:
                self.adopt(record, found)
            elif record.kind is not OrderKind.EXIT and record.client_id not in self._inherited:
                record.state = OrderState.DONE

    def wait_s(self, *kinds: OrderKind) -> float:
        """Return the seconds until ``resolve`` finds out about orders of ``kinds`` (none: all).

        0 where nothing of a killed process may still arrive.
        """
        if not any(
            record.state is OrderState.INTENDED and record.client_id in self._inherited
            for record in self._register.alive(*kinds)
        ):
            return 0.0
        return max(1e-3, (self._late_until_ms - self._clock.now_ms()) / 1e3)

    def adopt(self, record: OrderRecord, found: ExchangeOrder) -> bool:
        """Take over what the exchange says of an order.

        Returns:
            Whether it has traded more of it than the ledger has booked.
        """
        record.order_id, record.missed = found.order_id, 0
        record.fired_order_id = found.fired_order_id or record.fired_order_id
        is_behind = found.filled_qty > record.booked_qty * (1.0 + SLACK)
        if record.kind is OrderKind.STOP:
            is_behind = bool(record.fired_order_id) and record.booked_qty == 0.0
        # A market exit is done when it is booked: until then nothing else may be decided.
        is_alive = found.is_open or (record.kind is OrderKind.EXIT and is_behind)
        record.state = OrderState.OPEN if is_alive else OrderState.DONE
        return is_behind

    def cancel(self, records: Sequence[OrderRecord]) -> bool:
        """Cancel ``records``; return whether all are certainly gone.

        Raises:
            GridError: the exchange could not be asked.
        """
        if not records:
            return True
        orders = [_as_open(record) for record in records]
        gone = self._exchange.cancel_orders(orders)
        for record, is_gone in zip(records, gone, strict=True):
            if is_gone:
                record.state = OrderState.DONE
        return all(gone)

    def refresh(self) -> bool:
        """Bring the register in line with the exchange's open orders.

        Returns:
            Whether some order has traded more than the ledger has booked.

        Raises:
            AccountError: orders that bear our name are not ours.
            GridError: the exchange could not be asked.
        """
        is_behind = False
        seen = {order.client_id: order for order in self._exchange.open_orders()}
        for order in seen.values():
            record = self._register.get(order.client_id)
            if record is None:
                self._report_stranger(order)
            else:
                is_behind |= self.adopt(record, order)
        for record in self._register.alive():
            if record.state is OrderState.OPEN and record.client_id not in seen:
                is_behind |= self.look_for(record)
        return is_behind

    def look_for(self, record: OrderRecord) -> bool:
        """Find out about an order that was taken and is not among the open ones; as ``adopt``.

        An exchange may answer from a copy that lags: only when it denies the order twice is it
        gone.

        Raises:
            GridError: the exchange could not be asked.
        """
        found = self._exchange.find_order(record.client_id, record.kind)
        if found is not None:
            return self.adopt(record, found)
        record.missed += 1
        if record.missed >= DENIALS:
            record.state = OrderState.DONE
        return False

    def _report_stranger(self, order: ExchangeOrder) -> None:
        if order.client_id.startswith(self._register.prefix):
            raise company_error(order.client_id)
        if order.client_id not in self._strangers:
            self._strangers.append(order.client_id)
            self._alert(
                f"order {order.client_id} ({order.direction} {order.qty:g} at {order.price:g}) is "
                "not ours; it is left alone"
            )


def company_error(client_id: str) -> AccountError:
    """Return the error that ``client_id``, which bears our name, is not ours."""
    return AccountError(
        f"order {client_id} bears this bot's name and is not in its state: another instance "
        "trades this coin, or the state was deleted; stop the other one, or go on with --resume, "
        "or cancel the order, or choose another letter for LIVE_CONFIG['instance']"
    )


def _as_open(record: OrderRecord) -> ExchangeOrder:
    return ExchangeOrder(
        client_id=record.client_id, order_id=record.order_id, kind=record.kind,
        direction=record.direction, price=record.price, qty=record.qty,
        filled_qty=record.booked_qty, is_open=True, status="",
    )  # fmt: skip
