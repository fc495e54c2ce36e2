"""Binance's futures below ccxt: answers are canned per endpoint, in the order they are wanted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
from requests.adapters import BaseAdapter

from config import LIVE_CONFIG
from live.exchange.binance import BinanceExecutor, open_exchange
from tests.support.clocks.virtual import VirtualClock

START_MS = 1_760_000_400_000  # 2025-10-09 09:00 UTC
BAR_MS = 900_000
KEY = "kEy" * 20
SECRET = "sEcReT" * 10

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]] | Exception
Reaction = Answer | Callable[["Sent"], Answer]

INFO = {
    "symbols": [
        {
            "symbol": "BTCUSDT",
            "status": "TRADING",
            "liquidationFee": "0.012500",
            "filters": [
                {
                    "filterType": "PRICE_FILTER",
                    "tickSize": "0.10",
                    "minPrice": "556.80",
                    "maxPrice": "4529764",
                },
                {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001"},
                {
                    "filterType": "MARKET_LOT_SIZE",
                    "stepSize": "0.001",
                    "minQty": "0.002",
                    "maxQty": "120",
                },
                {"filterType": "MAX_NUM_ORDERS", "limit": 200},
                {"filterType": "MIN_NOTIONAL", "notional": "100"},
                {
                    "filterType": "PERCENT_PRICE",
                    "multiplierUp": "1.0500",
                    "multiplierDown": "0.9600",
                },
            ],
        }
    ]
}


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as the exchange saw it."""

    method: str
    path: str
    params: dict[str, str]
    url: str
    headers: dict[str, str]
    at_ms: int

    @property
    def batch(self) -> list[dict[str, str]]:
        """The orders of a batch."""
        return list(json.loads(self.params["batchOrders"]))


class CannedExchange(BaseAdapter):
    """Answers what a test wants.

    Attributes:
        clock: everybody's time.
        ahead_ms: the exchange's clock minus ours.
        sent: every request but those for the time.
        latency_ms: how long each answer takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock(START_MS)
        self.ahead_ms = 0
        self.latency_ms = 0
        self.sent: list[Sent] = []
        self.time_requests = 0
        self._answers: dict[str, list[Reaction]] = {}
        self._always: dict[str, Reaction] = {}
        self.always("GET /fapi/v1/exchangeInfo", (200, INFO))

    def executor(self, **changes: Any) -> BinanceExecutor:
        """Return the real executor on top of this."""
        arguments: dict[str, Any] = {
            "api_key": KEY,
            "api_secret": SECRET,
            "clock": self.clock,
            "session": self.session(),
            "bar_ms": BAR_MS,
            "settings": LIVE_CONFIG | changes.pop("settings", {}),
        }
        return open_exchange(changes.pop("coin", "BTC"), **arguments | changes)

    def session(self) -> requests.Session:
        """Return an HTTP session that ends here."""
        session = requests.Session()
        session.mount("https://", self)
        return session

    def then(self, endpoint: str, *answers: Reaction) -> None:
        """Answer the next requests of ``GET /fapi/v1/...`` in turn."""
        self._answers.setdefault(endpoint, []).extend(answers)

    def always(self, endpoint: str, answer: Reaction) -> None:
        """Answer every request of an endpoint that no answer is waiting for."""
        self._always[endpoint] = answer

    def asked(self, endpoint: str) -> list[Sent]:
        """Return the requests of an endpoint."""
        return [sent for sent in self.sent if f"{sent.method} {sent.path}" == endpoint]

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Answer a request that the requests library would have sent."""
        parts = urlsplit(str(request.url))
        body = request.body.decode() if isinstance(request.body, bytes) else request.body or ""
        sent = Sent(
            method=str(request.method),
            path=str(parts.path),
            params=dict(parse_qsl(f"{parts.query}&{body}", keep_blank_values=True)),
            url=str(request.url),
            headers={name: str(value) for name, value in request.headers.items()},
            at_ms=self.clock.now,
        )
        self.clock.now += self.latency_ms
        reaction = self._reaction(sent)
        answer = reaction(sent) if callable(reaction) else reaction
        if isinstance(answer, Exception):
            raise answer
        return _response(request, *answer)

    def close(self) -> None:
        """Nothing to close."""

    def _reaction(self, sent: Sent) -> Reaction:
        endpoint = f"{sent.method} {sent.path}"
        if sent.path == "/fapi/v1/time":
            self.time_requests += 1
            reported = self.clock.now - self.latency_ms // 2 + self.ahead_ms
            usual: Reaction = (200, {"serverTime": reported})
            return self._answers[endpoint].pop(0) if self._answers.get(endpoint) else usual
        self.sent.append(sent)
        if self._answers.get(endpoint):
            return self._answers[endpoint].pop(0)
        assert endpoint in self._always, f"nobody expected {endpoint} {sent.params}"
        return self._always[endpoint]


def _response(
    request: requests.PreparedRequest, status: int, body: Any, headers: dict[str, str] | None = None
) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response._content = (body if isinstance(body, str) else json.dumps(body)).encode()  # noqa: SLF001 - the way to build one
    response.headers.update({"Content-Type": "application/json", **(headers or {})})
    response.url = str(request.url)
    response.reason = {503: "Service Unavailable"}.get(status, "canned")
    response.request = request
    return response


def refusal(code: int, text: str = "no", status: int = 400) -> Answer:
    """Return an error answer with one of the exchange's codes."""
    return status, {"code": code, "msg": text}


def order_row(client_id: str, **changes: Any) -> dict[str, Any]:
    """Return a normal order as the exchange tells it."""
    row = {
        "orderId": 1_000 + sum(map(ord, client_id)),
        "symbol": "BTCUSDT",
        "status": "NEW",
        "clientOrderId": client_id,
        "price": "50000",
        "origQty": "0.010",
        "executedQty": "0",
        "type": "LIMIT",
        "timeInForce": "GTX",
        "reduceOnly": False,
        "side": "BUY",
        "positionSide": "LONG",
    }
    return row | changes


def algo_row(client_id: str, **changes: Any) -> dict[str, Any]:
    """Return a conditional order as the exchange tells it."""
    row = {
        "algoId": 7_000,
        "clientAlgoId": client_id,
        "algoType": "CONDITIONAL",
        "orderType": "STOP_MARKET",
        "symbol": "BTCUSDT",
        "side": "SELL",
        "positionSide": "LONG",
        "quantity": "0.000",
        "algoStatus": "NEW",
        "actualOrderId": "",
        "triggerPrice": "45000.00",
        "closePosition": True,
    }
    return row | changes


def kline(open_ms: int, **changes: Any) -> list[Any]:
    """Return a candle as the exchange tells it."""
    row = {
        "open_ms": open_ms,
        "open": "100.0",
        "high": "103.0",
        "low": "98.0",
        "close": "101.0",
        "volume": "12.5",
        "close_ms": open_ms + BAR_MS - 1,
    }
    return [*(row | changes).values(), "0", 5, "0", "0", "0"]
