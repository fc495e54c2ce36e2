"""Small exchanges for tests of the simulation itself, and two clients to ask them."""

from __future__ import annotations

import hashlib
import hmac
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import ccxt  # type: ignore[import-untyped]  # no stubs
import pytest
import requests

from core.market import MarketRules
from live.exchange.port import Clock
from live.simulated.adapter import LoopbackAdapter, attach
from live.simulated.clock import SimClock
from live.simulated.exchange import SimExchange
from live.simulated.filters import ApiError
from live.simulated.server import SimServer

START = 1_704_067_200_000
BAR = 900_000
SYMBOL = "BTC/USDT:USDT"
RULES = MarketRules(tick_size=0.1, step_size=0.001, min_qty=0.002, min_notional=5.0)
FLAT = (100.0, 100.0, 100.0, 100.0)
LIMIT = {
    "type": "LIMIT",
    "timeInForce": "GTX",
    "side": "BUY",
    "positionSide": "LONG",
    "price": "97",
    "quantity": "1",
}
STOP = {
    "algoType": "CONDITIONAL",
    "type": "STOP_MARKET",
    "closePosition": "true",
    "side": "SELL",
    "positionSide": "LONG",
    "triggerPrice": "97",
}
Ohlc = tuple[float, float, float, float]
TREND = [FLAT, FLAT, (100.0, 104.0, 96.0, 101.0), (101.0, 101.0, 90.0, 95.0)]


def exchange_of(*bars: Ohlc, **options: Any) -> SimExchange:
    """Return an exchange that stands at the open of the first of ``bars``."""
    rows = [(START + i * BAR, *ohlc, 10.0) for i, ohlc in enumerate(bars)]
    return SimExchange(rows, **{"rules": RULES, "wallet": 100_000.0, **options})


def lay(
    exchange: SimExchange, side: str, position_side: str, price: float, qty: float = 1.0
) -> int:
    """Rest a post-only limit and return its id."""
    order = exchange.entry.place(
        {
            **LIMIT,
            "side": side,
            "positionSide": position_side,
            "price": str(price),
            "quantity": str(qty),
        }
    )
    return order.order_id


def lay_stop(exchange: SimExchange, position_side: str, trigger: float) -> int:
    """Rest a stop for a whole side and return its id."""
    side = "SELL" if position_side == "LONG" else "BUY"
    stop = exchange.entry.place_stop(
        {**STOP, "side": side, "positionSide": position_side, "triggerPrice": str(trigger)}
    )
    return stop.algo_id


def refused(code: int) -> Any:
    """Expect the exchange to refuse with ``code``."""
    return pytest.raises(ApiError, match=f"^{code}:")


def executions(exchange: SimExchange) -> list[tuple[str, str, float, float, float]]:
    """Return side, position, price, quantity and time in bars of every trade."""
    return [
        (t.side, t.position_side, float(t.price), float(t.qty), (t.ts_ms - START) / BAR)
        for t in exchange.account.trades
    ]


def run_out(exchange: SimExchange) -> int:
    """Run to the end of the candles and return how often an event interrupted."""
    end = START + len(exchange.walk.candles) * BAR
    return sum(1 for _ in iter(lambda: exchange.run_until(end), True))


class Signed:
    """A client without ccxt: signs and sends what it is given."""

    def __init__(self, exchange: SimExchange, server: SimServer) -> None:
        self.exchange = exchange
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.mount("https://", LoopbackAdapter(server.port))

    def __call__(self, method: str, path: str, **params: Any) -> requests.Response:
        """Send a signed request; ``timestamp``, ``key`` and ``secret`` may be wrong on purpose."""
        key = params.pop("key", self.exchange.api_key)
        secret = params.pop("secret", self.exchange.secret)
        query = urlencode({"timestamp": self.exchange.now_ms, **params})
        digest = hmac.new(secret.encode(), query.encode(), hashlib.sha256).hexdigest()
        query = f"{query}&signature={digest}"
        url = f"https://fapi.binance.com/fapi/{path}"
        headers = {"X-MBX-APIKEY": key} if key else {}
        if method == "POST":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            return self.session.post(url, data=query, headers=headers, timeout=10)
        return self.session.request(method, f"{url}?{query}", headers=headers, timeout=10)

    def code(self, method: str, path: str, **params: Any) -> int:
        """Return the error code of a request that is refused."""
        response = self(method, path, **params)
        assert response.status_code >= 400, response.text
        return int(response.json()["code"])


class Bench:
    """An exchange, its server, and two clients: ccxt and a bare one; a context manager."""

    def __init__(self, *bars: Ohlc, **options: Any) -> None:
        self.exchange = exchange_of(*(bars or TREND), **{"start_bar": 1, **options})
        self.server = SimServer(self.exchange)
        self.server.start()
        self.clock: Clock = SimClock(self.exchange)
        self.signed = Signed(self.exchange, self.server)
        self.client = ccxt.binanceusdm(
            {
                "apiKey": self.exchange.api_key,
                "secret": self.exchange.secret,
                "enableRateLimit": False,
                "options": {"fetchCurrencies": False},
            }
        )
        attach(self.client, self.server.port, self.clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.client.session.close()
        self.signed.session.close()
        self.server.stop()

    def limit(self, price: float, client_id: str = "a", qty: float = 1.0, side: str = "buy") -> Any:
        """Send a post-only limit of the long side by ccxt."""
        more = {"positionSide": "LONG", "postOnly": True, "newClientOrderId": client_id}
        return self.client.create_order(SYMBOL, "limit", side, qty, price, more)

    def stop(self, trigger: float, client_id: str = "s") -> Any:
        """Send a stop for the long side by ccxt."""
        more = {
            "positionSide": "LONG",
            "stopLossPrice": trigger,
            "closePosition": True,
            "clientAlgoId": client_id,
        }
        return self.client.create_order(SYMBOL, "market", "sell", None, None, more)
