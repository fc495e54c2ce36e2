"""The exchange's public REST interface as a backtest needs it, over live trading's client.

That client knows limits, deadlines, repeats and errors; here are the tables and the paging. An
answer that cannot be read is never an empty market.
"""

from __future__ import annotations

import difflib
import functools
import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

import pandas as pd

from backtest.market.market_data import QUOTE, candle_table, funding_table
from backtest.market.renames import of_many
from backtest.market.timeframes import format_time, timeframe_ms
from core.errors import DataError, GridError, NetworkError, RateLimitError, ReplyError
from core.files import read_json, write_atomically
from core.times import MINUTE_MS
from live.exchange.replies.market import funding_rows, kline_rows
from live.exchange.replies.rules import perpetual_rules
from live.exchange.request import Request

if TYPE_CHECKING:
    from live.exchange.connection import Connection

T = TypeVar("T")
Rules = dict[str, dict[str, float]]
"""``tick_size step_size min_qty min_notional liquidation_fee`` by coin."""

CANDLE_ROWS: Final = 1_500
"""Candles per request, the exchange's most."""
FUNDING_ROWS: Final = 1_000
DOWNLOAD_SETTINGS: Final = {
    "request_timeout_s": 60.0,  # for all of a request; a page of candles has 200 kB
    "recv_window_ms": 10_000,
    "retries": 4,
    "max_weight_share": 0.5,  # live sessions on the same address have the rest
}
MARKETS_FILE: Final = "markets.json"

_log: Final = logging.getLogger(__name__)
_CANDLE_WEIGHT: Final = 10
_NO_SUCH_SYMBOL: Final = -1121


class BinanceRest:
    """Candles, funding rates and market rules of USDT-margined perpetuals."""

    def __init__(self, connect: Callable[[], Connection] | None = None) -> None:
        """Take a connection from ``connect`` when first needed; it needs no keys."""
        self._connect = connect or public_connection

    @functools.cached_property
    def _connection(self) -> Connection:
        return self._connect()

    def server_ms(self) -> int:
        """Return the exchange's time, ms UTC: what is finished by it is finished.

        This computer's clock may be minutes or days off.

        Raises:
            NetworkError: the exchange cannot be reached.
        """
        try:
            return self._connection.server_ms()
        except GridError as error:
            raise _unreachable(error) from error

    def candles(
        self, symbol: str, timeframe: str, start_ms: int, end_ms: int
    ) -> Iterator[pd.DataFrame]:
        """Yield the candles of ``[start_ms, end_ms)`` that have closed, page by page.

        What has closed is judged by the exchange's time before it was asked.

        Raises:
            DataError: the exchange does not know the symbol.
            NetworkError: it cannot be reached, or five answers in a row were unreadable.
        """
        step_ms = timeframe_ms(timeframe)
        closed_ms = self.server_ms() // step_ms * step_ms
        request = Request(
            "fapiPublicGetKlines",
            {"symbol": symbol, "interval": timeframe, "limit": CANDLE_ROWS},
            weight=_CANDLE_WEIGHT,
        )
        yield from self._pages(
            request,
            lambda reply: candle_table([list(row) for row in kline_rows(reply)]),
            (start_ms, min(end_ms, closed_ms)),
            step_ms,
        )

    def funding(self, symbol: str, start_ms: int, end_ms: int) -> Iterator[pd.DataFrame]:
        """Yield the funding rates settled in ``[start_ms, end_ms)``; errors as in ``candles``."""
        yield from self._pages(
            Request("fapiPublicGetFundingRate", {"symbol": symbol, "limit": FUNDING_ROWS}),
            lambda reply: funding_table([list(row) for row in funding_rows(reply, symbol)]),
            (start_ms, end_ms),
            MINUTE_MS,
        )

    def rules(self) -> Rules:
        """Return the rules of all USDT-margined perpetuals by coin; errors as in ``candles``."""
        return self._ask(
            Request("fapiPublicGetExchangeInfo"), lambda reply: perpetual_rules(reply, QUOTE)
        )

    def _pages(
        self,
        request: Request,
        parse: Callable[[Any], pd.DataFrame],
        span: tuple[int, int],
        step_ms: int,
    ) -> Iterator[pd.DataFrame]:
        """Yield pages until the range is done; the exchange answers the oldest rows first.

        Rows are at least ``step_ms`` apart. A page that is not full does not end it: the
        exchange may have lowered its limit.
        """
        start_ms, end_ms = span
        while start_ms < end_ms:
            since = start_ms

            def read(reply: Any, since: int = since) -> pd.DataFrame:
                return _in_range(parse(reply), since, end_ms)

            query = {**request.params, "startTime": since, "endTime": end_ms - 1}
            page = self._ask(Request(request.endpoint, query, weight=request.weight), read)
            if page.empty:
                return
            yield page
            start_ms = int(page["timestamp"].iloc[-1]) + step_ms

    def _ask(self, request: Request, parse: Callable[[Any], T]) -> T:
        """Return the parsed answer; an unreadable one is asked for again, like a lost one."""
        try:
            return self._connection.read(request, parse)
        except GridError as error:
            if error.code == _NO_SUCH_SYMBOL:
                symbol = request.params.get("symbol")
                raise DataError(f"the exchange has no market {symbol}") from None
            raise _unreachable(error) from error


@final
class _SystemTime:
    """This computer's clock."""

    def now_ms(self) -> int:
        """Return the time, ms UTC."""
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def public_connection() -> Connection:
    """Return a connection to the exchange without keys."""
    from live.exchange.connection import Connection  # noqa: PLC0415 - ccxt takes 0.4 s to import

    return Connection(
        api_key="",
        api_secret="",
        testnet=False,
        clock=_SystemTime(),
        session=None,
        settings=DOWNLOAD_SETTINGS,
        seed="",
    )


def market_rules(coin: str, cache_dir: Path, rest: BinanceRest) -> dict[str, float]:
    """Return a coin's market rules, from ``markets.json`` where they have been looked up before.

    Removing that file looks them up anew.

    Raises:
        DataError: the exchange has no such coin; the text names the nearest ones.
        NetworkError: they are not known yet and the exchange cannot be reached.
    """
    path = cache_dir / MARKETS_FILE
    known = _read_rules(path)
    if coin in known:
        return known[coin]
    known = rest.rules()
    try:
        write_atomically(path, json.dumps(known, indent=1, sort_keys=True).encode())
    except OSError as error:
        _log.warning("cannot keep %s: %s; going on without it", path, error)
    if coin not in known:
        nearest = difflib.get_close_matches(coin, known, n=3, cutoff=0.5)
        many = of_many(coin, known)
        raise DataError(f"unknown coin {coin}; nearest: {', '.join(nearest) or 'none'}{many}")
    return known[coin]


def _read_rules(path: Path) -> Rules:
    try:
        rules = read_json(path)
        return {
            str(coin): {str(name): float(value) for name, value in items.items()}
            for coin, items in rules.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        _log.warning("cannot read %s (%s); asking the exchange", path, error)
        return {}


def _in_range(page: pd.DataFrame, start_ms: int, end_ms: int) -> pd.DataFrame:
    """Return a page that is in order and inside what was asked for.

    Raises:
        ReplyError: it is not, so it answers something else.
    """
    times = page["timestamp"]
    first_minute = start_ms - start_ms % MINUTE_MS  # settlement times are cut to it
    if len(page) and not (
        times.is_monotonic_increasing and times.iloc[0] >= first_minute and times.iloc[-1] < end_ms
    ):
        raise ReplyError(
            f"rows from {format_time(int(times.iloc[0]))} to {format_time(int(times.iloc[-1]))} "
            f"answer a request from {format_time(start_ms)} to {format_time(end_ms)}"
        )
    return page


def _unreachable(error: GridError) -> NetworkError:
    advice = "check the network, or use --demo or --data DIR, which need none"
    if isinstance(error, RateLimitError):
        advice = "wait that long, or use --demo or --data DIR"
    return NetworkError(f"no answer from the exchange ({error}); {advice}")
