"""The table of endpoints: path, what it does, what it weighs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from live.simulated.account_endpoints import AccountEndpoints
from live.simulated.exchange import SimExchange
from live.simulated.faults import CANCEL, ORDER, READ, SETUP
from live.simulated.market_endpoints import MarketEndpoints
from live.simulated.orders import Json
from live.simulated.parameters import Params
from live.simulated.trade_endpoints import TradeEndpoints

KLINE_WEIGHTS: Final = ((99, 1), (499, 2), (1_000, 5), (1_500, 10))
ALL_SYMBOLS_WEIGHT: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One endpoint.

    Attributes:
        call: from parameters to the JSON of the reply.
        class_name: of faults.
        weight: request weight where the symbol is given.
        weight_of_all: request weight without a symbol, 0: the same.
        is_signed: whether it needs key and signature.
    """

    call: Callable[[Params], Json]
    class_name: str
    weight: int
    weight_of_all: int = 0
    is_signed: bool = True

    def weight_of(self, params: Params) -> int:
        """Return the request weight."""
        if "interval" in params:
            limit = params.get("limit", "500")
            asked = int(limit) if limit.isdigit() else 0
            return next((weight for most, weight in KLINE_WEIGHTS if asked <= most), 10)
        return self.weight_of_all if self.weight_of_all and "symbol" not in params else self.weight

    def orders_in(self, params: Params) -> int:
        """Return how many orders a request counts for."""
        if self.class_name != ORDER:
            return 0
        try:
            return len(json.loads(params.get("batchOrders", "[0]")))
        except json.JSONDecodeError:
            return 1


def routes_of(exchange: SimExchange) -> dict[tuple[str, str], Endpoint]:
    """Return the endpoints by method and path."""
    public = MarketEndpoints(exchange)
    table = {
        "ping": Endpoint(call=public.ping, class_name=READ, weight=1, is_signed=False),
        "time": Endpoint(call=public.time, class_name=READ, weight=1, is_signed=False),
        "exchangeInfo": Endpoint(
            call=public.exchange_info, class_name=READ, weight=1, is_signed=False
        ),
        "klines": Endpoint(call=public.klines, class_name=READ, weight=1, is_signed=False),
        "fundingRate": Endpoint(
            call=public.funding_rates, class_name=READ, weight=1, is_signed=False
        ),
        "premiumIndex": Endpoint(
            call=public.premium_index, class_name=READ, weight=1, is_signed=False
        ),
        "ticker/price": Endpoint(
            call=public.price, class_name=READ, weight=1, weight_of_all=2, is_signed=False
        ),
    }
    routes = {("GET", f"/fapi/v1/{name}"): endpoint for name, endpoint in table.items()}
    routes["GET", "/fapi/v2/ticker/price"] = table["ticker/price"]
    return routes | trade_routes(exchange) | account_routes(exchange)


def trade_routes(exchange: SimExchange) -> dict[tuple[str, str], Endpoint]:
    """Return the endpoints for orders and trades."""
    trade = TradeEndpoints(exchange)
    every = ALL_SYMBOLS_WEIGHT
    table: dict[tuple[str, str], tuple[Callable[[Params], Json], str, int, int]] = {
        ("POST", "order"): (trade.place, ORDER, 0, 0),
        ("POST", "batchOrders"): (trade.place_batch, ORDER, 5, 0),
        ("DELETE", "order"): (trade.cancel, CANCEL, 1, 0),
        ("DELETE", "batchOrders"): (trade.cancel_batch, CANCEL, 1, 0),
        ("DELETE", "allOpenOrders"): (trade.cancel_all, CANCEL, 1, 0),
        ("POST", "countdownCancelAll"): (trade.countdown, CANCEL, 10, 0),
        ("GET", "order"): (trade.query, READ, 1, 0),
        ("GET", "openOrders"): (trade.open_orders, READ, 1, every),
        ("GET", "allOrders"): (trade.all_orders, READ, 5, 0),
        ("GET", "userTrades"): (trade.trades, READ, 5, 0),
        ("POST", "algoOrder"): (trade.place_stop, ORDER, 0, 0),
        ("DELETE", "algoOrder"): (trade.cancel_stop, CANCEL, 1, 0),
        ("DELETE", "algoOpenOrders"): (trade.cancel_all_stops, CANCEL, 1, 0),
        ("GET", "algoOrder"): (trade.query_stop, READ, 1, 0),
        ("GET", "openAlgoOrders"): (trade.open_stops, READ, 1, every),
        ("GET", "allAlgoOrders"): (trade.all_stops, READ, 5, 0),
    }
    return {
        (method, f"/fapi/v1/{name}"): Endpoint(
            call=call, class_name=class_name, weight=weight, weight_of_all=weight_of_all
        )
        for (method, name), (call, class_name, weight, weight_of_all) in table.items()
    }


def account_routes(exchange: SimExchange) -> dict[tuple[str, str], Endpoint]:
    """Return the endpoints for positions, money and settings."""
    account = AccountEndpoints(exchange)
    table: dict[tuple[str, str], tuple[Callable[[Params], Json], str, int]] = {
        ("GET", "v2/positionRisk"): (account.positions_2, READ, 5),
        ("GET", "v3/positionRisk"): (account.positions_3, READ, 5),
        ("GET", "v2/account"): (account.account, READ, 5),
        ("GET", "v3/account"): (account.account, READ, 5),
        ("GET", "v2/balance"): (account.balance, READ, 5),
        ("GET", "v3/balance"): (account.balance, READ, 5),
        ("GET", "v1/income"): (account.income, READ, 30),
        ("GET", "v1/positionSide/dual"): (account.position_mode, READ, 30),
        ("POST", "v1/positionSide/dual"): (account.set_position_mode, SETUP, 1),
        ("POST", "v1/marginType"): (account.set_margin_type, SETUP, 1),
        ("POST", "v1/leverage"): (account.set_leverage, SETUP, 1),
        ("GET", "v1/commissionRate"): (account.commission, READ, 20),
        ("GET", "v1/leverageBracket"): (account.brackets, READ, 1),
        ("GET", "v1/apiTradingStatus"): (account.trading_status, READ, 1),
        ("GET", "v1/symbolConfig"): (account.symbol_config, READ, 5),
    }
    routes = {
        (method, f"/fapi/{name}"): Endpoint(call=call, class_name=class_name, weight=weight)
        for (method, name), (call, class_name, weight) in table.items()
    }
    rights = Endpoint(call=account.key_rights, class_name=READ, weight=1)
    return routes | {("GET", "/sapi/v1/account/apiRestrictions"): rights}
