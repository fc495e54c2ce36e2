"""Orders: sent, looked up, cancelled. Sending one twice is impossible.

What an unknown outcome leads to (no reply in time, a broken connection, an answer that cannot be
read): the order is looked up by its client id. Found: accepted. Not found proves nothing at once,
for the request may still wait at the exchange, or the order may not show yet. It is asked for
again a second later, and once more when the request is older than its receive window, from when
on the exchange itself refuses it. Only then «not sent» is the answer. Look an order so answered up
once more at the next poll all the same: the windows of two machines are being compared.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, final

from core.errors import ExchangeError, GridError, ReplyError
from core.orders import OrderKind
from live.exchange.budget import wait_until
from live.exchange.connection import Connection
from live.exchange.errors import DUPLICATE_CODES, GONE_CODES, meaning_of, order_answer
from live.exchange.market import Market
from live.exchange.order_fields import OrderFields, order_fields
from live.exchange.replies.orders import (
    algo_order,
    any_algo_order,
    batch_elements,
    normal_order,
    open_algo_orders,
    open_normal_orders,
    refusal_code,
)
from live.exchange.request import Outcome, Request
from live.exchange.types import Answer, ExchangeOrder, Meaning, OrderReply, OrderSpec

BATCH_ORDERS: Final = 5
"""Orders one request may place."""

_log: Final = logging.getLogger("live.exchange.binance")
_POST_ONLY: Final = frozenset({OrderKind.ENTRY, OrderKind.TAKE_PROFIT})
_SECOND_LOOK_MS: Final = 1_000
_WINDOW_MARGIN_MS: Final = 1_000  # the exchange takes timestamps up to 1 s ahead of its own time

Replies = dict[str, OrderReply]


@final
class Orders:
    """Placing orders of one symbol and asking for them."""

    def __init__(
        self, connection: Connection, market: Market, symbol: str, working_type: str
    ) -> None:
        """Ask nothing yet.

        Args:
            connection: the way to the exchange.
            market: knows tick and lot step.
            symbol: such as BTCUSDT.
            working_type: the price that fires stops, CONTRACT_PRICE or MARK_PRICE.
        """
        self._connection, self._market = connection, market
        self._symbol, self._working_type = symbol, working_type

    def open_orders(self) -> list[ExchangeOrder]:
        """Return every open order of the symbol, conditional ones and those of others included."""
        query = {"symbol": self._symbol}
        resting = self._connection.read(
            Request("fapiPrivateGetOpenOrders", query),
            lambda reply: open_normal_orders(reply, self._symbol),
        )
        return resting + self._connection.read(
            Request("fapiPrivateGetOpenAlgoOrders", query),
            lambda reply: open_algo_orders(reply, self._symbol),
        )

    def find_order(self, client_id: str, kind: OrderKind) -> ExchangeOrder | None:
        """Return the order with ``client_id``, open or not; None if the exchange has none.

        The exchange forgets cancelled ones that were never filled after 3 days, all after 90.
        """
        if kind is OrderKind.STOP:
            return self._find("fapiPrivateGetAlgoOrder", {"clientAlgoId": client_id}, client_id)
        return self._find("fapiPrivateGetOrder", {"origClientOrderId": client_id}, client_id)

    def order_by_id(self, order_id: str) -> ExchangeOrder | None:
        """Return a normal order by the exchange's identity; None if the exchange has none."""
        return self._find("fapiPrivateGetOrder", {"orderId": order_id})

    def create_orders(self, orders: list[OrderSpec]) -> list[OrderReply]:
        """Send ``orders`` in their order, a reply each.

        Neighbouring post-only orders go five to a request. Once an outcome cannot even be looked
        up the exchange is out of reach, and the rest is not sent.

        Raises:
            CredentialsError: there are no keys.
            ExchangeError: two orders have the same client id; nothing was sent.
        """
        self._connection.require_keys()
        twice = [name for name, count in Counter(o.client_id for o in orders).items() if count > 1]
        if twice:
            raise ExchangeError(f"client ids {twice} are given to more than one order; none sent")
        replies: Replies = {}
        for group in _groups(orders):
            if any(reply.answer is Answer.UNKNOWN for reply in replies.values()):
                replies |= _all_answered(group, Answer.NOT_SENT, "the exchange is out of reach")
            else:
                replies |= self._place(group)
        for order in orders:
            _report(order, replies[order.client_id])
        return [replies[order.client_id] for order in orders]

    def _find(
        self, endpoint: str, identity: dict[str, str], client_id: str | None = None
    ) -> ExchangeOrder | None:
        """Return an order; None if there is none, or if the name belongs to another symbol's.

        Names of conditional orders belong to the account, and the question has no symbol.
        """

        def parse(reply: Any) -> ExchangeOrder:
            if "Algo" in endpoint:
                order = any_algo_order(reply)
            else:
                order = normal_order(reply, self._symbol)
            if client_id is not None and order.client_id != client_id:
                raise ReplyError(f"asked for order {client_id}, answered for {order.client_id}")
            return order

        request = Request(endpoint, {"symbol": self._symbol, **identity}, urgent=True)
        order = self._connection.find(request, parse, GONE_CODES)
        return order if order is not None and order.symbol == self._symbol else None

    def _place(self, group: Sequence[OrderSpec]) -> Replies:
        """Send one request's worth of orders and find out what became of each."""
        rules = self._market.known_rules()
        replies: Replies = {}
        sendable: list[tuple[OrderSpec, OrderFields]] = []
        for spec in group:
            try:
                fields = order_fields(spec, self._symbol, rules, self._working_type)
            except ExchangeError as error:
                replies[spec.client_id] = _reply(spec, Answer.REFUSED, str(error))
            else:
                sendable.append((spec, fields))
        if not sendable:
            return replies
        specs = [spec for spec, _ in sendable]
        outcome = self._connection.attempt(_placing_request(sendable))
        answered = self._answers(specs, outcome)
        unknown = [
            spec
            for spec in specs
            if spec.client_id not in answered or answered[spec.client_id].answer is Answer.UNKNOWN
        ]
        if unknown:
            taken = {name for name, reply in answered.items() if reply.code in DUPLICATE_CODES}
            answered |= self._settle(unknown, outcome.sent_ms, taken)
        return replies | answered

    def _answers(self, specs: Sequence[OrderSpec], outcome: Outcome) -> Replies:
        """Return what a reply says of the orders; those it does not name are left out."""
        if outcome.error is not None:
            return {
                spec.client_id: self._refused(spec, outcome.error, outcome.code) for spec in specs
            }
        try:
            if specs[0].kind in _POST_ONLY:
                return self._batch_answers(specs, outcome.reply)
            read_order = algo_order if specs[0].kind is OrderKind.STOP else normal_order
            return _placed(specs, read_order(outcome.reply, self._symbol))
        except ReplyError as unreadable:
            _log.warning("answer to %s: %s", [spec.client_id for spec in specs], unreadable)
            return {}

    def _batch_answers(self, specs: Sequence[OrderSpec], reply: Any) -> Replies:
        """Return the answers of a batch.

        Accepted orders carry their client id and are told apart by it. Refusals carry nothing
        but a code. Where all that are not accepted got one answer, it is theirs. Otherwise the
        documented order of the reply decides, if every accepted order stands where it must by
        it; if not, none is attributed and they are looked up.
        """
        accepted: Replies = {}
        refusals: list[tuple[int, str]] = []
        in_order = True
        for spec, element in zip(specs, batch_elements(reply, len(specs)), strict=True):
            code = refusal_code(element)
            if code is None:
                order = normal_order(element.fields, self._symbol)
                accepted |= _placed(specs, order)
                in_order = in_order and order.client_id == spec.client_id
            else:
                refusals.append((code, str(element.get("msg"))))
        rest = [spec for spec in specs if spec.client_id not in accepted]
        if len(rest) != len(refusals):
            raise ReplyError("the answer to a batch names one order twice")
        refused = [
            self._refused(spec, self._connection.refusal(code, text), code)
            for spec, (code, text) in zip(rest, refusals, strict=True)
        ]
        if not in_order and len({reply.answer for reply in refused}) > 1:
            return accepted
        return accepted | {reply.client_id: reply for reply in refused}

    def _refused(self, spec: OrderSpec, error: GridError, code: int) -> OrderReply:
        return OrderReply(
            client_id=spec.client_id,
            answer=order_answer(error, code, spec.kind),
            text=str(error),
            code=code,
            meaning=meaning_of(error),
        )

    def _settle(self, specs: Sequence[OrderSpec], sent_ms: int, taken: set[str]) -> Replies:
        """Look orders of unknown outcome up until each is found or cannot appear any more.

        Args:
            specs: the orders.
            sent_ms: when their request was sent, ms UTC of our clock.
            taken: those whose client id the exchange says it has already. One that is not found
                all the same belongs to another symbol's order: it is refused, or it would be
                sent and refused for ever.
        """
        found: Replies = {}
        for _ in self._three_looks(sent_ms):
            for spec in specs:
                if spec.client_id in found:
                    continue
                reply = self._looked_up(spec)
                if reply.answer is Answer.UNKNOWN:  # out of reach: so are the others
                    return _all_answered(specs, Answer.UNKNOWN, reply.text) | found
                if reply.answer is not Answer.NOT_SENT:
                    found[spec.client_id] = reply
            if len(found) == len(specs):
                break
        return _not_found(specs, taken) | found

    def _three_looks(self, sent_ms: int) -> Iterator[None]:
        """Yield when it is time to look: now, a second later, when the request is too old."""
        clock = self._connection.clock
        yield
        wait_until(clock, clock.now_ms() + _SECOND_LOOK_MS)
        yield
        wait_until(clock, sent_ms + self._connection.recv_window_ms + _WINDOW_MARGIN_MS)
        yield

    def _looked_up(self, spec: OrderSpec) -> OrderReply:
        try:
            order = self.find_order(spec.client_id, spec.kind)
        except GridError as error:
            return _reply(spec, Answer.UNKNOWN, f"it cannot be looked up: {error}")
        if order is None:
            return _reply(spec, Answer.NOT_SENT, "")
        return _placed([spec], order)[spec.client_id]


def _groups(orders: Sequence[OrderSpec]) -> list[list[OrderSpec]]:
    """Return ``orders`` as they go into requests: post-only neighbours together."""
    groups: list[list[OrderSpec]] = []
    for order in orders:
        last = groups[-1] if groups else []
        together = order.kind in _POST_ONLY and bool(last) and last[0].kind in _POST_ONLY
        if together and len(last) < BATCH_ORDERS:
            last.append(order)
        else:
            groups.append([order])
    return groups


def _placing_request(sendable: Sequence[tuple[OrderSpec, OrderFields]]) -> Request:
    kind = sendable[0][0].kind
    fields = [item for _, item in sendable]
    if kind in _POST_ONLY:
        query = {"batchOrders": fields}
        return Request(
            "fapiPrivatePostBatchOrders", query, weight=5, orders=len(fields), urgent=True
        )
    endpoint = "Algo" if kind is OrderKind.STOP else ""
    return Request(f"fapiPrivatePost{endpoint}Order", fields[0], weight=0, orders=1, urgent=True)


def _placed(specs: Sequence[OrderSpec], order: ExchangeOrder) -> Replies:
    """Return the reply to the one of ``specs`` that the exchange names.

    A post-only order that would cross may also be taken and expire at once.

    Raises:
        ReplyError: it is none of them.
    """
    spec = next((spec for spec in specs if spec.client_id == order.client_id), None)
    if spec is None:
        raise ReplyError(
            f"sent orders {[s.client_id for s in specs]}, answered for {order.client_id}"
        )
    crossed = order.status == "EXPIRED" and order.filled_qty == 0
    if spec.kind in _POST_ONLY and crossed:
        return {spec.client_id: _reply(spec, Answer.WOULD_CROSS, order.status)}
    reply = OrderReply(
        client_id=spec.client_id, answer=Answer.ACCEPTED, order_id=order.order_id, text=order.status
    )
    return {spec.client_id: reply}


_MEANINGS: Final = {
    Answer.WOULD_CROSS: Meaning.LATER,
    Answer.NOT_SENT: Meaning.NOT_DONE,
    Answer.UNKNOWN: Meaning.UNKNOWN,
    Answer.REFUSED: Meaning.REFUSED,
}


def _reply(spec: OrderSpec, answer: Answer, text: str) -> OrderReply:
    return OrderReply(
        client_id=spec.client_id, answer=answer, text=text, meaning=_MEANINGS.get(answer)
    )


def _all_answered(specs: Sequence[OrderSpec], answer: Answer, text: str) -> Replies:
    return {spec.client_id: _reply(spec, answer, text) for spec in specs}


def _not_found(specs: Sequence[OrderSpec], taken: set[str]) -> Replies:
    """Return the replies to orders that the exchange does not have; ``taken``: see ``_settle``."""
    text = "its client id belongs to another order; it needs another one"
    clashing = [spec for spec in specs if spec.client_id in taken]
    return _all_answered(specs, Answer.NOT_SENT, "the exchange has no such order") | _all_answered(
        clashing, Answer.REFUSED, text
    )


def _report(spec: OrderSpec, reply: OrderReply) -> None:
    calm = reply.answer in (Answer.ACCEPTED, Answer.WOULD_CROSS)
    _log.log(
        logging.INFO if calm else logging.WARNING,
        "%s %s %s %s %g at %g: %s (%s)",
        spec.client_id,
        spec.kind.name,
        spec.side,
        spec.position_side,
        spec.qty,
        spec.price,
        reply.answer.value,
        reply.text,
    )
