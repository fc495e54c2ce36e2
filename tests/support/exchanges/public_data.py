"""Binance's public market data without a network: canned answers below ccxt and the archive."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pandas as pd
import requests
from requests.adapters import BaseAdapter

from backtest.market.archive import ARCHIVE_URL, BinanceArchive
from backtest.market.fetch import fetch_market
from backtest.market.history import BinanceHistory
from backtest.market.market_data import MarketData, candle_table
from backtest.market.rest import DOWNLOAD_SETTINGS, BinanceRest
from backtest.market.timeframes import parse_time, timeframe_ms
from core.times import DAY_MS, HOUR_MS, MINUTE_MS
from live.exchange.connection import Connection

JAN = parse_time("2024-01-01", "JAN")
FEB = parse_time("2024-02-01", "FEB")
MAR = parse_time("2024-03-01", "MAR")
BAR = timeframe_ms("15m")

NOW = MAR + 9 * DAY_MS + 12 * HOUR_MS + 7 * MINUTE_MS

Answer = Callable[[], tuple[int, str]]


def kline(open_ms: int) -> list[Any]:
    """Return the candle that opens at ``open_ms``, as the exchange spells it."""
    price = 100.0 + (open_ms // 60_000) % 977 / 10
    prices = [price, price + 1.5, price - 1.25, price + 0.5]
    texts = [f"{value:.2f}" for value in prices]
    return [open_ms, *texts, "12.500", open_ms + 899_999, "0", 5, "0", "0", "0"]


def candles(start_ms: int, end_ms: int, step_ms: int = BAR) -> pd.DataFrame:
    """Return the candles of ``[start_ms, end_ms)`` as the project should have them."""
    rows = [kline(time)[:6] for time in range(start_ms, end_ms, step_ms)]
    return candle_table([[row[0], *map(float, row[1:])] for row in rows])


class ComputerClock:
    """The clock of the computer that downloads; the exchange's stands still meanwhile."""

    def __init__(self, binance: FakeBinance) -> None:
        self._binance = binance

    def now_ms(self) -> int:
        """Return what it shows, ms UTC."""
        waited_ms = round(1_000 * sum(self._binance.waits))
        return self._binance.now_ms + self._binance.ahead_ms + waited_ms

    def sleep(self, seconds: float) -> None:
        """Note a wait and let time go on."""
        self._binance.waits.append(seconds)


class FakeBinance(BaseAdapter):
    """Answers klines, funding rates and exchange information of made-up markets.

    Attributes:
        since_ms: when the markets were listed.
        now_ms: the exchange's time; the candle that holds it is the newest one answered.
        is_blocked: whether it answers nobody from this country (451).
        ahead_ms: how far this computer's clock is ahead of it.
        absent: open times the exchange has no candle for.
        next_answers: taken in turn instead of the usual answers.
        queries: path and parameters of every REST request.
        gets: addresses asked of the archive.
        waits: seconds slept between tries.
        files: the archive's content.
    """

    def __init__(self, now_ms: int = NOW, since_ms: int = JAN - 40 * 24 * HOUR_MS) -> None:
        super().__init__()
        self.since_ms = since_ms
        self.now_ms = now_ms
        self.ahead_ms = 0
        self.is_blocked = False
        self.absent: set[int] = set()
        self.next_answers: list[Answer] = []
        self.queries: list[tuple[str, dict[str, str]]] = []
        self.gets: list[str] = []
        self.waits: list[float] = []
        self.files: dict[str, bytes] = {}
        self.coins = ["BTC", "ETH", "1000PEPE"]

    def history(self) -> BinanceHistory:
        """Return the real client code on top of this fake."""
        return BinanceHistory(self.rest(), BinanceArchive(self.get))

    def rest(self) -> BinanceRest:
        """Return the real REST code on top of this fake."""

        def connect() -> Connection:
            session = requests.Session()
            session.mount("https://", self)
            return Connection(
                api_key="",
                api_secret="",
                testnet=False,
                clock=ComputerClock(self),
                session=session,
                settings=DOWNLOAD_SETTINGS,
                seed="",
            )

        return BinanceRest(connect)

    def fetch(
        self,
        cache_dir: Path,
        start_ms: int = FEB,
        end_ms: int = FEB + DAY_MS,
        *,
        coin: str = "BTC",
        detail: str | None = None,
    ) -> MarketData:
        """Return what ``fetch_market`` makes of this exchange."""
        return fetch_market(
            coin,
            start_ms,
            end_ms,
            timeframe="15m",
            detail=detail,
            cache_dir=cache_dir,
            now_ms=self.now_ms + self.ahead_ms,
            history=self.history(),
        )

    def asked(self, path: str) -> list[dict[str, str]]:
        """Return the parameters of all requests of one endpoint."""
        return [query for name, query in self.queries if name.endswith(path)]

    # --- REST, below the requests library -----------------------------------------------------

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Answer a request that the requests library would have sent."""
        parts = urlsplit(request.url or "")
        path, query = str(parts.path), dict(parse_qsl(str(parts.query)))
        if self.is_blocked:
            status, body = 451, '{"code": 0, "msg": "restricted location"}'
        elif path.endswith("/time"):
            status, body = 200, json.dumps({"serverTime": self.now_ms})
        else:
            self.queries.append((path, query))
            usual: Answer = lambda: self._usual(path, query)  # noqa: E731 - as the other answers
            status, body = (self.next_answers.pop(0) if self.next_answers else usual)()
        response = requests.Response()
        response.status_code = status
        response._content = body.encode()  # noqa: SLF001 - the way to build one
        response.headers["Content-Type"] = "application/json"
        if status == 429:
            response.headers["Retry-After"] = "7"
        if status == 418:
            response.headers["Retry-After"] = "7200"
        response.url = request.url or ""
        response.reason = "canned"
        return response

    def close(self) -> None:
        """Nothing to close."""

    def _usual(self, path: str, query: dict[str, str]) -> tuple[int, str]:
        if path.endswith("/exchangeInfo"):
            return 200, json.dumps({"symbols": [self._market(coin) for coin in self.coins]})
        first, last = int(query["startTime"]), int(query["endTime"])
        rows: list[Any]
        if path.endswith("/klines"):
            step = timeframe_ms(query["interval"])
            start = max(-(-first // step) * step, self.since_ms)
            times = range(start, min(last, self.now_ms) + 1, step)
            rows = [kline(time) for time in times if time not in self.absent]
        else:
            start = max(-(-first // (8 * HOUR_MS)) * 8 * HOUR_MS, self.since_ms)
            rows = [
                {"symbol": query["symbol"], "fundingTime": time + 7, "fundingRate": "0.00010000"}
                for time in range(start, min(last - 7, self.now_ms) + 1, 8 * HOUR_MS)
            ]
        return 200, json.dumps(rows[: int(query["limit"])])

    def _market(self, coin: str) -> dict[str, Any]:
        return {
            "symbol": f"{coin}USDT",
            "contractType": "PERPETUAL",
            "baseAsset": coin,
            "quoteAsset": "USDT",
            "liquidationFee": "0.012500",
            "filters": [
                {"filterType": "PRICE_FILTER", "tickSize": "0.10"},
                {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.002"},
                {"filterType": "MIN_NOTIONAL", "notional": "100"},
            ],
        }

    # --- archive ------------------------------------------------------------------------------

    def get(self, url: str) -> tuple[int, bytes]:
        """Answer an address of the archive."""
        self.gets.append(url)
        body = self.files.get(url)
        return (404, b"") if body is None else (200, body)

    def publish(self, path: str, rows: list[list[Any]], header: str = "") -> str:
        """Put a zip with these rows into the archive, with its checksum; return its address."""
        text = "\n".join([*([header] if header else []), *(",".join(map(str, r)) for r in rows)])
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w") as archive:
            archive.writestr(path.rpartition("/")[2] + ".csv", text)
        url = f"{ARCHIVE_URL}/{path}.zip"
        self.files[url] = body.getvalue()
        digest = hashlib.sha256(body.getvalue()).hexdigest()
        self.files[f"{url}.CHECKSUM"] = f"{digest}  {path.rpartition('/')[2]}.zip\n".encode()
        return url

    def publish_month(self, first_ms: int, end_ms: int, name: str, header: str = "") -> str:
        """Put a month of 15m candles into the archive."""
        rows = [kline(time) for time in range(first_ms, end_ms, BAR) if time not in self.absent]
        return self.publish(f"monthly/klines/BTCUSDT/15m/BTCUSDT-15m-{name}", rows, header)
