"""Endpoints for orders, conditional orders and trades."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from tests.support.exchanges.simulated.exchange import SimExchange
from tests.support.exchanges.simulated.filters import ApiError
from tests.support.exchanges.simulated.live_state import OPEN_ORDERS, OPEN_STOPS
from tests.support.exchanges.simulated.orders import Json, Order, Stop
from tests.support.exchanges.simulated.parameters import Params, limit_of, text_of, whole_of

DAY_MS: Final = 86_400_000
WINDOW_MS: Final = 7 * DAY_MS
UNFILLED_KEPT_MS: Final = 3 * DAY_MS
KEPT_MS: Final = 90 * DAY_MS
MAX_BATCH_PLACE: Final = 5
MAX_BATCH_CANCEL: Final = 10
ALL_DONE: Final = {"code": 200, "msg": "The operation of cancel all open order is done."}


class Timed(Protocol):
    """Anything with a time, ms UTC."""

    @property
    def ts_ms(self) -> int:
        """When it happened."""
        ...


Row = TypeVar("Row", bound=Timed)


def within(rows: Sequence[Row], params: Params, now_ms: int) -> list[Row]:
    """Return the rows of the time asked for: at most seven days, the last ones if none is."""
    start, end = whole_of(params, "startTime"), whole_of(params, "endTime")
    if start is not None and end is not None and end - start > WINDOW_MS:
        raise ApiError(-4165)
    if start is None:
        start = (now_ms if end is None else end) - WINDOW_MS
    if end is None:
        end = start + WINDOW_MS
    return [row for row in rows if start <= row.ts_ms <= end]


class TradeEndpoints:
    """Answers of the endpoints, given parameters that are signed and counted."""

    def __init__(self, exchange: SimExchange) -> None:
        self._exchange = exchange
        self._book = exchange.book

    # --- normal orders --------------------------------------------------------------------------

    def place(self, params: Params) -> Json:
        """Take one order."""
        self._exchange.check_symbol(params)
        order = self._exchange.entry.place(params)
        view = order.view(self._exchange.symbol)
        if params.get("newOrderRespType", "ACK") == "ACK":
            view |= {
                "status": "NEW",
                "avgPrice": "0",
                "executedQty": "0",
                "cumQty": "0",
                "cumQuote": "0",
            }
        return view

    def place_batch(self, params: Params) -> Json:
        """Take up to five orders, each for itself."""
        try:
            batch = json.loads(text_of(params, "batchOrders"))
        except json.JSONDecodeError:
            raise ApiError(-1130, "batchOrders") from None
        if not 1 <= len(batch) <= MAX_BATCH_PLACE:
            raise ApiError(-4082)
        return [self._place_one(item) for item in batch]

    def _place_one(self, item: dict[str, Json]) -> Json:
        texts = {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in item.items()
        }
        try:
            return self.place(texts)
        except ApiError as error:
            return error.body()

    def cancel(self, params: Params) -> Json:
        """Cancel one order."""
        self._exchange.check_symbol(params)
        order = self._find(params, -2011)
        if not order.is_open:
            raise ApiError(-2011)
        self._book.end_order(order, "CANCELED", self._exchange.stamp_ms)
        return order.view(self._exchange.symbol)

    def cancel_batch(self, params: Params) -> Json:
        """Cancel up to ten orders, each for itself."""
        names = {name.lower(): value for name, value in params.items()}
        key = "orderId" if "orderidlist" in names else "origClientOrderId"
        try:
            ids = json.loads(text_of(names, f"{key.lower()}list"))
        except json.JSONDecodeError:
            raise ApiError(-1130, f"{key}List") from None
        if len(ids) > MAX_BATCH_CANCEL:
            raise ApiError(-4032)
        return [self._cancel_one({**params, key: str(item)}) for item in ids]

    def _cancel_one(self, params: Params) -> Json:
        try:
            return self.cancel(params)
        except ApiError as error:
            return error.body()

    def cancel_all(self, params: Params) -> Json:
        """Cancel every normal order."""
        self._exchange.check_symbol(params)
        for order in list(self._book.open_orders.values()):
            self._book.end_order(order, "CANCELED", self._exchange.stamp_ms)
        return ALL_DONE

    def query(self, params: Params) -> Json:
        """Tell one order, open or not, as long as the exchange remembers it."""
        self._exchange.check_symbol(params)
        order = self._find(params, -2013)
        age = self._exchange.now_ms - order.ts_ms
        is_forgotten = not order.is_open and not order.filled and age > UNFILLED_KEPT_MS
        if is_forgotten or age > KEPT_MS:
            raise ApiError(-2013)
        return order.view(self._exchange.symbol)

    def open_orders(self, params: Params) -> Json:
        """Tell the open normal orders."""
        self._exchange.check_symbol(params, optional=True)
        return self._exchange.live.answer(OPEN_ORDERS)

    def all_orders(self, params: Params) -> Json:
        """Tell normal orders by id or time."""
        self._exchange.check_symbol(params)
        limit, first = limit_of(params, 500, 1_000), whole_of(params, "orderId")
        orders = list(self._book.orders.values())
        if first is not None:
            chosen = [order for order in orders if order.order_id >= first]
        else:
            chosen = within(orders, params, self._exchange.stamp_ms)
        return [order.view(self._exchange.symbol) for order in chosen[:limit]]

    def _find(self, params: Params, code: int) -> Order:
        number, client_id = whole_of(params, "orderId"), params.get("origClientOrderId")
        if number is None and not client_id:
            raise ApiError(-1102, "orderId or origClientOrderId")
        if number is not None:
            order = self._book.orders.get(number)
        else:
            order = self._book.order_of.get(client_id or "")
        if order is None:
            raise ApiError(code)
        return order

    # --- conditional orders ---------------------------------------------------------------------

    def place_stop(self, params: Params) -> Json:
        """Take one conditional order."""
        self._exchange.check_symbol(params)
        return self._exchange.entry.place_stop(params).view(self._exchange.symbol)

    def cancel_stop(self, params: Params) -> Json:
        """Cancel one conditional order."""
        stop = self._find_stop(params, -2011)
        if not stop.is_open:
            raise ApiError(-2011)
        self._book.end_stop(stop, "CANCELED", self._exchange.stamp_ms)
        return {
            "algoId": stop.algo_id,
            "clientAlgoId": stop.client_id,
            "code": "200",
            "msg": "success",
        }

    def cancel_all_stops(self, params: Params) -> Json:
        """Cancel every conditional order."""
        self._exchange.check_symbol(params)
        for stop in list(self._book.open_stops.values()):
            self._book.end_stop(stop, "CANCELED", self._exchange.stamp_ms)
        return ALL_DONE

    def query_stop(self, params: Params) -> Json:
        """Tell one conditional order, open or not."""
        return self._find_stop(params, -2013).view(self._exchange.symbol)

    def open_stops(self, params: Params) -> Json:
        """Tell the open conditional orders."""
        self._exchange.check_symbol(params, optional=True)
        return self._exchange.live.answer(OPEN_STOPS)

    def all_stops(self, params: Params) -> Json:
        """Tell conditional orders by time."""
        self._exchange.check_symbol(params)
        limit = limit_of(params, 500, 1_000)
        chosen = within(list(self._book.stops.values()), params, self._exchange.stamp_ms)
        return [stop.view(self._exchange.symbol) for stop in chosen[:limit]]

    def _find_stop(self, params: Params, code: int) -> Stop:
        number, client_id = whole_of(params, "algoId"), params.get("clientAlgoId")
        if number is None and not client_id:
            raise ApiError(-1102, "algoId or clientAlgoId")
        if number is not None:
            stop = self._book.stops.get(number)
        else:
            stop = self._book.stop_of.get(client_id or "")
        if stop is None:
            raise ApiError(code)
        return stop

    # --- trades ---------------------------------------------------------------------------------

    def trades(self, params: Params) -> Json:
        """Tell executions from an id on, or of a time; the latest ones where neither is given."""
        self._exchange.check_symbol(params)
        limit, first = limit_of(params, 500, 1_000), whole_of(params, "fromId")
        has_time = "startTime" in params or "endTime" in params
        trades = self._exchange.account.trades
        if first is not None:
            if has_time:
                raise ApiError(-1128)
            chosen = [trade for trade in trades if trade.trade_id >= first]
        else:
            chosen = within(trades, params, self._exchange.stamp_ms)
        order_id = whole_of(params, "orderId")
        if order_id is not None:
            chosen = [trade for trade in chosen if trade.order_id == order_id]
        page = chosen[-limit:] if first is None and "startTime" not in params else chosen[:limit]
        return [trade.view(self._exchange.symbol) for trade in page]
