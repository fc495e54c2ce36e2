"""Cancels: repeated until it is certain that an order no longer rests.

Cancelling twice does no harm, so cancels are repeated like questions. «Unknown order» (-2011) is an
order that is gone, filled included: what it traded is taken from the account's trades.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final

from core.errors import GridError, ReplyError
from live.exchange_errors import GONE_CODES
from live.exchange_types import ExchangeOrder, OrderKind
from live.executor_orders import OrderCalls
from live.executor_transport import Request
from live.order_replies import batch_elements, normal_order, refusal_code
from live.reply_shapes import as_row, wrong

BATCH_CANCELS: Final = 10
"""Orders one request may cancel."""

_log: Final = logging.getLogger("live.executor")
_UNKNOWN_ORDER: Final = -2011
_DONE: Final = "200"


class CancelCalls(OrderCalls):
    """Taking orders off the book."""

    def cancel_orders(self, orders: list[ExchangeOrder]) -> list[bool]:
        """Cancel; True where the order is certainly no longer open (cancelled, filled or gone).

        Normal orders go ten to a request, conditional ones have no batch. Once an order can
        neither be cancelled nor looked up the exchange is out of reach: the rest is left open.

        Raises:
            CredentialsError: there are no keys.
        """
        self._connection.require_keys()
        gone = [False] * len(orders)
        try:
            for place, is_gone in self._cancel_all(orders):
                gone[place] = is_gone
        except GridError as error:
            _log.warning("%d orders may still be open: %s", gone.count(False), error)
        return gone

    def _cancel_all(self, orders: Sequence[ExchangeOrder]) -> Iterator[tuple[int, bool]]:
        """Yield (place in ``orders``, whether it is gone), each as it becomes known.

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

    def _cancel_batch(self, orders: Sequence[ExchangeOrder], *, by_id: bool) -> Iterator[bool]:
        """Cancel normal orders, by the exchange's identities or by ours; one kind a request."""
        names = [order.order_id if by_id else order.client_id for order in orders]
        # The exchange takes these parameters in small letters only; ccxt spells the second so.
        query = {"symbol": self._symbol, "orderidlist" if by_id else "origClientOrderIdList": names}
        request = Request("fapiPrivateDeleteBatchOrders", query, urgent=True)
        try:
            done = self._connection.read(
                request, lambda reply: self._cancelled(reply, names, by_id=by_id)
            )
        except GridError as error:
            _log.warning("cancelling %s: %s", [order.client_id for order in orders], error)
            done = set()
        for name, order in zip(names, orders, strict=True):
            yield name in done or self._is_gone(order)

    def _cancelled(self, reply: Any, names: Sequence[str], *, by_id: bool) -> set[str]:
        """Return which of ``names`` a batch's answer says are gone.

        Refusals do not say whose they are. If all of them are «unknown order», all orders the
        answer does not name are gone; else those are left to be looked up.
        """
        told: set[str] = set()
        gone: set[str] = set()
        codes: set[int] = set()
        for element in batch_elements(reply, len(names)):
            code = refusal_code(element)
            if code is not None:
                codes.add(code)
                continue
            order = normal_order(element.fields, self._symbol)
            name = order.order_id if by_id else order.client_id
            if name not in names:
                raise ReplyError(f"cancelled {names}, told of {name}")
            told.add(name)
            if not order.is_open:
                gone.add(name)
        return gone | (set(names) - told if codes == {_UNKNOWN_ORDER} else set())

    def _cancel_stop(self, order: ExchangeOrder) -> bool:
        identity = {"algoId": order.order_id}
        if not order.order_id:
            identity = {"clientAlgoId": order.client_id}
        request = Request(
            "fapiPrivateDeleteAlgoOrder", {"symbol": self._symbol, **identity}, urgent=True
        )
        try:
            told = self._connection.find(request, _stop_reply, GONE_CODES)
        except GridError as error:
            _log.warning("cancelling %s: %s", order.client_id, error)
            return self._is_gone(order)
        return told is None or order.client_id == told or self._is_gone(order)

    def _is_gone(self, order: ExchangeOrder) -> bool:
        """Look an order up whose cancel was refused, or not answered."""
        if order.kind is OrderKind.STOP or not order.order_id:
            now = self.find_order(order.client_id, order.kind)
        else:
            now = self.order_by_id(order.order_id)
        return now is None or not now.is_open


def _stop_reply(reply: Any) -> str:
    """Return the client id in the answer to a conditional order's cancel.

    Raises:
        ReplyError: it does not say that it was done.
    """
    row = as_row(reply, "cancel")
    if str(row.get("code")) != _DONE:
        raise wrong("cancel.code", row.get("code"), _DONE)
    return row.text("clientAlgoId")
