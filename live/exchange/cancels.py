"""Cancels: repeated until it is certain that an order no longer rests.

Cancelling twice does no harm, so cancels are repeated like questions. «Unknown order» (-2011) is an
order that is gone, filled included: what it traded is taken from the account's trades.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, final

from core.errors import GridError, ReplyError
from core.orders import OrderKind
from live.exchange.connection import Connection
from live.exchange.errors import GONE_CODES
from live.exchange.orders import Orders
from live.exchange.replies.orders import batch_elements, normal_order, refusal_code
from live.exchange.replies.shapes import as_row, wrong
from live.exchange.request import Request
from live.exchange.types import CancelResult, ExchangeOrder

BATCH_CANCELS: Final = 10
"""Orders one request may cancel."""
COUNTDOWN_WEIGHT: Final = 10

_log: Final = logging.getLogger("live.exchange.binance")
_UNKNOWN_ORDER: Final = -2011
_DONE: Final = "200"


@final
class Cancels:
    """Taking orders of one symbol off the book."""

    def __init__(self, connection: Connection, orders: Orders, symbol: str) -> None:
        """Ask nothing yet; ``orders`` looks up what a cancel leaves open."""
        self._connection, self._orders, self._symbol = connection, orders, symbol

    def cancel_orders(self, orders: list[ExchangeOrder]) -> list[CancelResult]:
        """Cancel; return what became of each, judged by the ``filled_qty`` known of it.

        Normal orders go ten to a request, conditional ones have no batch. Once an order can
        neither be cancelled nor looked up the exchange is out of reach: the rest is left open.

        Raises:
            CredentialsError: there are no keys.
        """
        self._connection.require_keys()
        cancel_results = [CancelResult.STUCK] * len(orders)
        try:
            for place, cancel_result in self._cancel_all(orders):
                cancel_results[place] = cancel_result
        except GridError as error:
            _log.warning(
                "%d orders may still be open: %s", cancel_results.count(CancelResult.STUCK), error
            )
        return cancel_results

    def countdown(self, countdown_ms: int) -> None:
        """Let the exchange cancel the symbol's normal orders unless this is said again in time.

        The whole account's orders of the symbol, foreign ones included; 0 switches it off.
        Said once, not again: whoever says it does so again before the last one ends, and has
        stops to look after meanwhile.

        Raises:
            GridError: it could not be said; the last one counts on.
        """
        self._connection.require_keys()
        query = {"symbol": self._symbol, "countdownTime": countdown_ms}
        request = Request(
            "fapiPrivatePostCountdownCancelAll", query, weight=COUNTDOWN_WEIGHT, urgent=True
        )
        self._connection.read_once(request, lambda reply: _check_countdown(reply, self._symbol))

    def _cancel_all(self, orders: Sequence[ExchangeOrder]) -> Iterator[tuple[int, CancelResult]]:
        """Yield (place in ``orders``, what became of it), each as it becomes known.

        Raises:
            GridError: the exchange is out of reach.
        """
        for by_id in (True, False):
            places = [
                place
                for place, order in enumerate(orders)
                if order.kind is not OrderKind.STOP and bool(order.order_id) == by_id
            ]
            for first in range(0, len(places), BATCH_CANCELS):
                batch = places[first : first + BATCH_CANCELS]
                done = self._cancel_batch([orders[place] for place in batch], by_id=by_id)
                yield from zip(batch, done, strict=True)
        for place, order in enumerate(orders):
            if order.kind is OrderKind.STOP:
                yield place, self._cancel_stop(order)

    def _cancel_batch(
        self, orders: Sequence[ExchangeOrder], *, by_id: bool
    ) -> Iterator[CancelResult]:
        """Cancel normal orders, by the exchange's identities or by ours; one kind a request."""
        known = {order.order_id if by_id else order.client_id: order for order in orders}
        # The exchange takes these parameters in small letters only; ccxt spells the second so.
        list_name = "orderidlist" if by_id else "origClientOrderIdList"
        query = {"symbol": self._symbol, list_name: list(known)}
        request = Request("fapiPrivateDeleteBatchOrders", query, urgent=True)
        try:
            cancel_results = self._connection.read(
                request, lambda reply: self._cancelled(reply, known, by_id=by_id)
            )
        except GridError as error:
            _log.warning("cancelling %s: %s", [order.client_id for order in orders], error)
            cancel_results = {}
        for name, order in known.items():
            yield cancel_results.get(name, CancelResult.STUCK) or self._looked_up_result(order)

    def _cancelled(
        self, reply: Any, known: Mapping[str, ExchangeOrder], *, by_id: bool
    ) -> dict[str, CancelResult]:
        """Return what a batch's answer says became of ``known``, by name.

        Refusals do not say whose they are. If all of them are «unknown order», all orders the
        answer does not name are gone; else those are left to be looked up.
        """
        cancel_results: dict[str, CancelResult] = {}
        codes: set[int] = set()
        for element in batch_elements(reply, len(known)):
            code = refusal_code(element)
            if code is not None:
                codes.add(code)
                continue
            order = normal_order(element.fields, self._symbol)
            name = order.order_id if by_id else order.client_id
            if name not in known:
                raise ReplyError(f"cancelled {list(known)}, answered for {name}")
            cancel_results[name] = _result_of(known[name], order)
        rest = CancelResult.GONE if codes == {_UNKNOWN_ORDER} else CancelResult.STUCK
        return dict.fromkeys(known, rest) | cancel_results

    def _cancel_stop(self, order: ExchangeOrder) -> CancelResult:
        identity = {"algoId": order.order_id}
        if not order.order_id:
            identity = {"clientAlgoId": order.client_id}
        request = Request(
            "fapiPrivateDeleteAlgoOrder", {"symbol": self._symbol, **identity}, urgent=True
        )
        try:
            found = self._connection.find(request, _stop_reply, GONE_CODES)
        except GridError as error:
            _log.warning("cancelling %s: %s", order.client_id, error)
            return self._looked_up_result(order)
        if found is None:
            return CancelResult.GONE
        return CancelResult.UNTRADED if found == order.client_id else self._looked_up_result(order)

    def _looked_up_result(self, order: ExchangeOrder) -> CancelResult:
        """Look an order up whose cancel was refused, or not answered."""
        if order.kind is OrderKind.STOP or not order.order_id:
            now = self._orders.find_order(order.client_id, order.kind)
        else:
            now = self._orders.order_by_id(order.order_id)
        return CancelResult.GONE if now is None else _result_of(order, now)


def _result_of(known: ExchangeOrder, now: ExchangeOrder) -> CancelResult:
    """Return what became of an order, known as ``known`` before and reported as ``now``."""
    if now.is_open:
        return CancelResult.STUCK
    has_fired = now.kind is OrderKind.STOP and now.status != "CANCELED"
    has_traded = now.has_traded_beyond(known.filled_qty)
    return CancelResult.GONE if has_fired or has_traded else CancelResult.UNTRADED


def _stop_reply(reply: Any) -> str:
    """Return the client id in the answer to a conditional order's cancel.

    Raises:
        ReplyError: it does not say that it was done.
    """
    row = as_row(reply, "cancel")
    if str(row.get("code")) != _DONE:
        raise wrong("cancel.code", row.get("code"), _DONE)
    return row.text("clientAlgoId")


def _check_countdown(reply: Any, symbol: str) -> None:
    """Raise ``ReplyError`` if an answer does not say that the countdown of ``symbol`` runs."""
    row = as_row(reply, "countdown")
    row.text("symbol", symbol)
    row.integer("countdownTime")
