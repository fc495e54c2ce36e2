"""Endpoints for orders, conditional orders and trades."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from live.simulated.exchange import SimExchange
from live.simulated.filters import ApiError
from live.simulated.live_state import OPEN_ORDERS, OPEN_STOPS
from live.simulated.orders import Json, Order, Stop
from live.simulated.parameters import Params, limit_of, text_of, whole_of
from live.simulated.symbol_market import SymbolMarket

DAY_MS: Final = 86_400_000
WINDOW_MS: Final = 7 * DAY_MS
UNFILLED_KEPT_MS: Final = 3 * DAY_MS
KEPT_MS: Final = 90 * DAY_MS
TRADES_KEPT_MS: Final = 90 * DAY_MS
"""How far back trades are reported."""
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

    # --- normal orders --------------------------------------------------------------------------

    def place(self, params: Params) -> Json:
        """Take one order."""
        market = self._exchange.market_of(params)
        view = market.entry.place(params).view(market.symbol)
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
        market = self._exchange.market_of(params)
        order = _find(market, params, -2011)
        if not order.is_open:
            raise ApiError(-2011)
        market.book.end_order(order, "CANCELED", self._exchange.stamp_ms)
        return order.view(market.symbol)

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
        self._exchange.market_of(params).book.cancel_all(self._exchange.stamp_ms)
        return ALL_DONE

    def countdown(self, params: Params) -> Json:
        """Cancel every normal order when ``countdownTime`` (ms) is over; 0: never mind."""
        market, wait_ms = self._exchange.market_of(params), whole_of(params, "countdownTime")
        if wait_ms is None:
            raise ApiError(-1102, "countdownTime")
        market.walk.countdown_ms = self._exchange.now_ms + wait_ms if wait_ms else 0
        return {"symbol": market.symbol, "countdownTime": str(wait_ms)}

    def query(self, params: Params) -> Json:
        """Tell one order, open or not, as long as the exchange remembers it."""
        market = self._exchange.market_of(params)
        order = _find(market, params, -2013)
        age = self._exchange.now_ms - order.ts_ms
        is_forgotten = not order.is_open and not order.filled and age > UNFILLED_KEPT_MS
        if is_forgotten or age > KEPT_MS:
            raise ApiError(-2013)
        return order.view(market.symbol)

    def open_orders(self, params: Params) -> Json:
        """Tell the open normal orders."""
        return self._listed(params, OPEN_ORDERS)

    def _listed(self, params: Params, path: str) -> Json:
        markets = self._exchange.markets_of(params)
        return [row for market in markets for row in market.live.answer(path)]

    def all_orders(self, params: Params) -> Json:
        """Tell normal orders by id or time."""
        market = self._exchange.market_of(params)
        limit, first = limit_of(params, 500, 1_000), whole_of(params, "orderId")
        orders = list(market.book.orders.values())
        if first is not None:
            chosen = [order for order in orders if order.order_id >= first]
        else:
            chosen = within(orders, params, self._exchange.stamp_ms)
        return [order.view(market.symbol) for order in chosen[:limit]]

    # --- conditional orders ---------------------------------------------------------------------

    def place_stop(self, params: Params) -> Json:
        """Take one conditional order."""
        market = self._exchange.market_of(params)
        return market.entry.place_stop(params).view(market.symbol)

    def cancel_stop(self, params: Params) -> Json:
        """Cancel one conditional order."""
        market, stop = self._find_stop(params, -2011)
        if not stop.is_open:
            raise ApiError(-2011)
        market.book.end_stop(stop, "CANCELED", self._exchange.stamp_ms)
        return {
            "algoId": stop.algo_id,
            "clientAlgoId": stop.client_id,
            "code": "200",
            "msg": "success",
        }

    def cancel_all_stops(self, params: Params) -> Json:
        """Cancel every conditional order."""
        self._exchange.market_of(params).book.cancel_all_stops(self._exchange.stamp_ms)
        return ALL_DONE

    def query_stop(self, params: Params) -> Json:
        """Tell one conditional order, open or not."""
        market, stop = self._find_stop(params, -2013)
        return stop.view(market.symbol)

    def open_stops(self, params: Params) -> Json:
        """Tell the open conditional orders."""
        return self._listed(params, OPEN_STOPS)

    def all_stops(self, params: Params) -> Json:
        """Tell conditional orders by time."""
        market = self._exchange.market_of(params)
        limit = limit_of(params, 500, 1_000)
        chosen = within(list(market.book.stops.values()), params, self._exchange.stamp_ms)
        return [stop.view(market.symbol) for stop in chosen[:limit]]

    def _find_stop(self, params: Params, code: int) -> tuple[SymbolMarket, Stop]:
        """Return a conditional order: ids belong to the account, whatever symbol is named."""
        number, client_id = whole_of(params, "algoId"), params.get("clientAlgoId")
        if number is None and not client_id:
            raise ApiError(-1102, "algoId or clientAlgoId")
        found = [
            (market, stop)
            for market in self._exchange.markets.values()
            if (
                stop := market.book.stops.get(number)
                if number is not None
                else market.book.stop_of.get(client_id or "")
            )
        ]
        if not found:
            raise ApiError(code)
        return max(found, key=lambda item: (item[1].is_open, item[1].ts_ms))

    # --- trades ---------------------------------------------------------------------------------

    def trades(self, params: Params) -> Json:
        """Tell executions from an id on, or of a time; the latest ones where neither is given."""
        market = self._exchange.market_of(params)
        limit, first = limit_of(params, 500, 1_000), whole_of(params, "fromId")
        has_time = "startTime" in params or "endTime" in params
        oldest_ms = self._exchange.now_ms - TRADES_KEPT_MS
        if (whole_of(params, "startTime") or oldest_ms) < oldest_ms:
            raise ApiError(-4166)
        trades = [trade for trade in market.account.trades if trade.ts_ms >= oldest_ms]
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
        return [trade.view(market.symbol) for trade in page]


def _find(market: SymbolMarket, params: Params, code: int) -> Order:
    """Return a normal order by either of its ids."""
    number, client_id = whole_of(params, "orderId"), params.get("origClientOrderId")
    if number is None and not client_id:
        raise ApiError(-1102, "orderId or origClientOrderId")
    if number is not None:
        order = market.book.orders.get(number)
    else:
        order = market.book.order_of.get(client_id or "")
    if order is None:
        raise ApiError(code)
    return order
