"""Orders out of the exchange's answers: normal ones and conditional («algo») ones.

A status word the exchange did not have before is refused where it is about an order that was asked
for. In a list of open orders it must not hide the others: there the order counts as open, with the
status ``UNKNOWN_STATUS``.
"""

from __future__ import annotations

from typing import Any, Final

from core.orders import OrderKind
from live.exchange.replies.shapes import Row, as_row, rows_of, wrong
from live.exchange.types import UNKNOWN_STATUS, ExchangeOrder

_OPEN: Final = frozenset({"NEW", "PARTIALLY_FILLED"})
_CLOSED: Final = frozenset({"FILLED", "CANCELED", "REJECTED", "EXPIRED", "EXPIRED_IN_MATCH"})
_ALGO_OPEN: Final = frozenset({"NEW", "TRIGGERING"})  # TRIGGERING: on its way, not yet gone
_ALGO_CLOSED: Final = frozenset({"TRIGGERED", "FINISHED", "CANCELED", "EXPIRED", "REJECTED"})
_POSITION_SIDES: Final = ("LONG", "SHORT", "BOTH")


def normal_order(reply: Any, symbol: str) -> ExchangeOrder:
    """Return an order of ``/order``, ``/batchOrders`` or ``/openOrders``.

    Raises:
        ReplyError: ``reply`` is no order of ``symbol``, or its status is not a known one.
    """
    row = as_row(reply, "order")
    row.text("symbol", symbol)
    row.text("status", *_OPEN, *_CLOSED)
    return _normal_order(row)


def _normal_order(row: Row) -> ExchangeOrder:
    position_side = row.text("positionSide", *_POSITION_SIDES)
    return ExchangeOrder(
        client_id=row.text("clientOrderId"),
        order_id=str(row.integer("orderId")),
        kind=_kind(row, position_side),
        position_side=position_side,
        price=row.number("price", 0.0),
        qty=row.number("origQty", 0.0),
        filled_qty=row.number("executedQty", 0.0),
        is_open=row.text("status") not in _CLOSED,
        status=_status(row, "status", _OPEN | _CLOSED),
        symbol=row.text("symbol"),
        created_ms=_time(row, "time"),
        updated_ms=_time(row, "updateTime"),
    )


def _time(row: Row, key: str) -> int:
    return 0 if row.get(key) is None else int(row.integer(key))


def _status(row: Row, key: str, known: frozenset[str]) -> str:
    status = row.text(key)
    return status if status in known else UNKNOWN_STATUS


def _kind(row: Row, position_side: str) -> OrderKind:
    """Return what a normal order is for; a stop that has fired is a market order."""
    if row.text("type") == "MARKET":
        return OrderKind.EXIT
    side = row.text("side", "BUY", "SELL")
    if position_side == "BOTH":
        reduces = row.get("reduceOnly") is not None and row.flag("reduceOnly")
    else:
        reduces = (side == "SELL") == (position_side == "LONG")
    return OrderKind.TAKE_PROFIT if reduces else OrderKind.ENTRY


def algo_order(reply: Any, symbol: str) -> ExchangeOrder:
    """Return a conditional order of ``/algoOrder`` or ``/openAlgoOrders``.

    Raises:
        ReplyError: ``reply`` is no conditional order of ``symbol``, or of no known status.
    """
    order = any_algo_order(reply)
    as_row(reply, "conditional order").text("symbol", symbol)
    return order


def any_algo_order(reply: Any) -> ExchangeOrder:
    """Return a conditional order of whatever symbol: their names belong to the account.

    Raises:
        ReplyError: ``reply`` is no conditional order, or of no known status.
    """
    row = as_row(reply, "conditional order")
    row.text("algoStatus", *_ALGO_OPEN, *_ALGO_CLOSED)
    return _algo_order(row)


def _algo_order(row: Row) -> ExchangeOrder:
    closes_all = row.get("closePosition") is not None and row.flag("closePosition")
    return ExchangeOrder(
        client_id=row.text("clientAlgoId"),
        order_id=str(row.integer("algoId")),
        kind=OrderKind.STOP,
        position_side=row.text("positionSide", *_POSITION_SIDES),
        price=row.number("triggerPrice", 0.0),
        qty=0.0 if closes_all else row.number("quantity", 0.0),
        filled_qty=0.0,
        is_open=row.text("algoStatus") not in _ALGO_CLOSED,
        status=_status(row, "algoStatus", _ALGO_OPEN | _ALGO_CLOSED),
        fired_order_id=_fired(row),
        closes_all=closes_all,
        symbol=row.text("symbol"),
        created_ms=_time(row, "createTime"),
        updated_ms=_time(row, "updateTime"),
    )


def _fired(row: Row) -> str:
    fired = row.get("actualOrderId")
    if fired is None or fired in ("", "0", 0):
        return ""
    return str(row.integer("actualOrderId"))


def open_normal_orders(reply: Any, symbol: str = "") -> list[ExchangeOrder]:
    """Return what rests of ``/openOrders``.

    Raises:
        ReplyError: it is no list of orders of ``symbol`` ('': of any).
    """
    rows = rows_of(reply, "order", symbol)
    return [order for row in rows if (order := _normal_order(row)).is_open]


def every_normal_order(reply: Any, symbol: str) -> list[ExchangeOrder]:
    """Return a page of ``/allOrders``.

    Raises:
        ReplyError: it is no list of orders of ``symbol``.
    """
    return [_normal_order(row) for row in rows_of(reply, "order", symbol)]


def every_algo_order(reply: Any, symbol: str) -> list[ExchangeOrder]:
    """Return a page of ``/allAlgoOrders``.

    Raises:
        ReplyError: it is no list of conditional orders of ``symbol``.
    """
    return [_algo_order(row) for row in rows_of(reply, "conditional order", symbol)]


def open_algo_orders(reply: Any, symbol: str = "") -> list[ExchangeOrder]:
    """Return what rests of ``/openAlgoOrders``.

    Raises:
        ReplyError: it is no list of conditional orders of ``symbol`` ('': of any).
    """
    rows = rows_of(reply, "conditional order", symbol)
    return [order for row in rows if (order := _algo_order(row)).is_open]


def batch_elements(reply: Any, length: int) -> list[Row]:
    """Return the elements of an answer to a batch, one for each order sent.

    Raises:
        ReplyError: it is no list of ``length`` objects.
    """
    if not isinstance(reply, list) or len(reply) != length:
        raise wrong("answer to a batch", reply, f"a list of {length}")
    return [as_row(item, "answer to a batch") for item in reply]


def refusal_code(row: Row) -> int | None:
    """Return the error code of a batch element, None if it is an order.

    Raises:
        ReplyError: it is neither.
    """
    code = row.get("code")
    if code is None:
        return None
    if isinstance(code, int) and not isinstance(code, bool) and code < 0:
        return code
    raise wrong("answer to a batch: code", code, "a negative whole number")
