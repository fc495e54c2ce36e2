"""Public endpoints: time, rules, candles, prices, funding rates."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from live.simulated.exchange import SimExchange
from live.simulated.filters import ApiError, Filters, plain
from live.simulated.market import INTERVALS, OTHER_COIN, symbol_view
from live.simulated.orders import Json
from live.simulated.parameters import Params, limit_of, text_of, whole_of

OTHER_FILTERS: Final = Filters(
    tick=Decimal("0.01"),
    step=Decimal("0.01"),
    min_qty=Decimal("0.01"),
    max_qty=Decimal(9_000),
    max_market_qty=Decimal(9_000),
    min_notional=Decimal(5),
    price_band=Decimal("0.05"),
    price_digits=3,
    qty_digits=2,
)
RATE_LIMITS: Final = [
    {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2_400},
    {"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": 1_200},
    {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 300},
]


class MarketEndpoints:
    """Answers of the endpoints, given parameters that are counted."""

    def __init__(self, exchange: SimExchange) -> None:
        self._exchange = exchange

    def ping(self, params: Params) -> Json:
        """Tell nothing."""
        del params
        return {}

    def time(self, params: Params) -> Json:
        """Tell the exchange's own clock."""
        del params
        return {"serverTime": self._exchange.clock_ms}

    def exchange_info(self, params: Params) -> Json:
        """Tell the rules of every symbol."""
        del params
        exchange = self._exchange
        fee = plain(exchange.account.liquidation_fee)
        known = [
            symbol_view(market.coin, market.filters, market.status, fee)
            for market in exchange.markets.values()
        ]
        return {
            "timezone": "UTC",
            "serverTime": exchange.clock_ms,
            "futuresType": "U_MARGINED",
            "rateLimits": RATE_LIMITS,
            "exchangeFilters": [],
            "assets": [{"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "-10000"}],
            "symbols": [*known, symbol_view(OTHER_COIN, OTHER_FILTERS, "TRADING", fee)],
        }

    def klines(self, params: Params) -> Json:
        """Tell candles; the last one is still forming."""
        walk = self._exchange.market_of(params).walk
        if text_of(params, "interval") != INTERVALS[walk.candles.step_ms]:
            raise ApiError(-1120)
        return walk.candles.klines(
            walk.forming(),
            whole_of(params, "startTime"),
            whole_of(params, "endTime"),
            limit_of(params, 500, 1_500),
        )

    def funding_rates(self, params: Params) -> Json:
        """Tell the rates that have been settled."""
        market = self._exchange.market_of(params)
        return market.walk.funding.history(
            market.symbol,
            self._exchange.now_ms,
            whole_of(params, "startTime"),
            whole_of(params, "endTime"),
            limit_of(params, 100, 1_000),
        )

    def premium_index(self, params: Params) -> Json:
        """Tell mark price and coming settlement; as in reality the rate is the coming one."""
        market = self._exchange.market_of(params)
        due_ms, rate = market.walk.funding.next_due(self._exchange.now_ms)
        price = plain(market.price)
        return {
            "symbol": market.symbol,
            "markPrice": price,
            "indexPrice": price,
            "estimatedSettlePrice": price,
            "lastFundingRate": plain(rate),
            "interestRate": "0.00010000",
            "nextFundingTime": due_ms,
            "time": self._exchange.now_ms,
        }

    def price(self, params: Params) -> Json:
        """Tell the last price; without a symbol as a list of all."""
        prices = {market.symbol: market.price for market in self._exchange.markets.values()}
        prices |= {f"{asset}USDT": price for asset, price in self._exchange.asset_prices.items()}
        rows = {
            symbol: {"symbol": symbol, "price": plain(price), "time": self._exchange.now_ms}
            for symbol, price in prices.items()
        }
        symbol = params.get("symbol")
        if not symbol:
            return list(rows.values())
        if symbol not in rows:
            raise ApiError(-1121)
        return rows[symbol]
