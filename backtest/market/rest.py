"""The exchange's public REST interface, through ccxt's Binance USDT-M client.

ccxt signs, throttles and maps errors; the answers are parsed here. Its ``fetch_ohlcv`` makes an
empty list of an unreadable answer, which looks like a market without trades.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import pandas as pd

from backtest.market.market_data import QUOTE, candle_table, funding_table
from backtest.market.timeframes import format_time, timeframe_ms
from core.errors import DataError, NetworkError
from core.files import write_atomically
from core.times import MINUTE_MS

T = TypeVar("T")
Endpoint = Callable[[Mapping[str, Any]], Any]
Rules = dict[str, dict[str, float]]
"""``tick_size step_size min_qty min_notional liquidation_fee`` by coin."""

CANDLE_ROWS: Final = 1_500
"""Candles per request, the exchange's most. ccxt's own ``fetch_ohlcv`` asks for 1,000 at most."""
FUNDING_ROWS: Final = 1_000
WAITS_SECONDS: Final = (0.5, 1.0, 2.0, 4.0)
"""Before the second to fifth try."""
MARKETS_FILE: Final = "markets.json"

_log: Final = logging.getLogger(__name__)
_LONGEST_WAIT_SECONDS: Final = 60.0


class BinanceRest:
    """Candles, funding rates and market rules of USDT-margined perpetuals."""

    def __init__(
        self,
        connect: Callable[[], Any] | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Take a ccxt ``binanceusdm`` from ``connect`` when first needed; it needs no keys."""
        self._connect = connect or _connect
        self._sleep = sleep

    @functools.cached_property
    def _client(self) -> Any:
        return self._connect()

    def candles(
        self, symbol: str, timeframe: str, start_ms: int, end_ms: int
    ) -> Iterator[pd.DataFrame]:
        """Yield the candles of ``[start_ms, end_ms)``, page by page, the forming one included.

        Raises:
            DataError: the exchange does not know the symbol.
            NetworkError: it cannot be reached, or five answers in a row were unreadable.
        """
        query = {"symbol": symbol, "interval": timeframe, "limit": CANDLE_ROWS}
        step_ms = timeframe_ms(timeframe)
        yield from self._pages(
            self._client.fapiPublicGetKlines, query, _parse_candles, (start_ms, end_ms), step_ms
        )

    def funding(self, symbol: str, start_ms: int, end_ms: int) -> Iterator[pd.DataFrame]:
        """Yield the funding rates settled in ``[start_ms, end_ms)``; errors as in ``candles``."""
        yield from self._pages(
            self._client.fapiPublicGetFundingRate,
            {"symbol": symbol, "limit": FUNDING_ROWS},
            _parse_funding,
            (start_ms, end_ms),
            MINUTE_MS,
        )

    def rules(self) -> Rules:
        """Return the rules of all USDT-margined perpetuals by coin; errors as in ``candles``."""
        return self._ask(self._client.fapiPublicGetExchangeInfo, {}, _parse_rules)

    def _pages(
        self,
        endpoint: Endpoint,
        query: Mapping[str, Any],
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

            page_query = {**query, "startTime": since, "endTime": end_ms - 1}
            page = self._ask(endpoint, page_query, read)
            if page.empty:
                return
            yield page
            start_ms = int(page["timestamp"].iloc[-1]) + step_ms

    def _ask(self, endpoint: Endpoint, query: Mapping[str, Any], parse: Callable[[Any], T]) -> T:
        """Return the parsed answer; an unreadable one is asked for again, like a lost one."""
        import ccxt  # type: ignore[import-untyped]  # noqa: PLC0415 - no stubs; 0.4 s to import

        problem: Exception | None = None
        for wait in (0.0, *WAITS_SECONDS):
            if problem is not None:
                self._sleep(max(wait, self._told_to_wait(problem)))
            try:
                return parse(endpoint(query))
            except ccxt.BadSymbol:
                raise DataError(f"the exchange has no market {query.get('symbol')}") from None
            except (ccxt.OperationFailed, ValueError, TypeError, LookupError) as error:
                problem = error
            except ccxt.BaseError as error:  # refused: asking again changes nothing
                raise _unreachable(error) from error
        raise _unreachable(problem) from problem

    def _told_to_wait(self, problem: Exception) -> float:
        """Return the seconds the exchange asks for; going on sooner earns a ban.

        Raises:
            NetworkError: longer than a person would wait for.
        """
        import ccxt  # noqa: PLC0415 - as above

        if not isinstance(problem, ccxt.DDoSProtection | ccxt.RateLimitExceeded):
            return 0.0
        text = (self._client.last_response_headers or {}).get("Retry-After", "0")
        seconds = float(text) if text.isdigit() else 0.0
        if seconds > _LONGEST_WAIT_SECONDS:
            raise NetworkError(
                f"the exchange bars this address for {seconds:.0f} s after too many requests; "
                "wait that long, or use --demo or --data DIR"
            )
        return seconds


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
        raise DataError(f"unknown coin {coin}; nearest: {', '.join(nearest) or 'none'}")
    return known[coin]


def _read_rules(path: Path) -> Rules:
    try:
        rules = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(coin): {str(name): float(value) for name, value in items.items()}
            for coin, items in rules.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        _log.warning("cannot read %s (%s); asking the exchange", path, error)
        return {}


def _connect() -> Any:
    import ccxt  # noqa: PLC0415 - 0.4 s to import

    return ccxt.binanceusdm({"enableRateLimit": True})


def _parse_candles(reply: Any) -> pd.DataFrame:
    """Return klines as a table; ``[[open time, "open", "high", "low", "close", "volume", ...]]``.

    Raises:
        ValueError, TypeError, LookupError: the reply is no such list.
    """
    if not isinstance(reply, list):
        raise _unreadable(reply)
    return candle_table([[int(row[0]), *(float(row[i]) for i in range(1, 6))] for row in reply])


def _parse_funding(reply: Any) -> pd.DataFrame:
    """Return funding rates as a table; ``[{"fundingTime": ms, "fundingRate": "0.0001"}]``.

    Raises:
        ValueError, TypeError, LookupError: the reply is no such list.
    """
    if not isinstance(reply, list):
        raise _unreadable(reply)
    return funding_table([[int(row["fundingTime"]), float(row["fundingRate"])] for row in reply])


def _parse_rules(reply: Any) -> Rules:
    """Return rules out of ``exchangeInfo``.

    Raises:
        ValueError, TypeError, LookupError: the reply is something else.
    """
    rules: Rules = {}
    for market in reply["symbols"]:
        if market["contractType"] == "PERPETUAL" and market["quoteAsset"] == QUOTE:
            with contextlib.suppress(LookupError, ValueError, TypeError):  # odd one: not tradable
                rules[market["baseAsset"]] = _parse_filters(market)
    if not rules:
        raise _unreadable(reply)
    return rules


def _parse_filters(market: Any) -> dict[str, float]:
    filters = {item["filterType"]: item for item in market["filters"]}
    return {
        "tick_size": float(filters["PRICE_FILTER"]["tickSize"]),
        "step_size": float(filters["LOT_SIZE"]["stepSize"]),
        "min_qty": float(filters["LOT_SIZE"]["minQty"]),
        "min_notional": float(filters["MIN_NOTIONAL"]["notional"]),
        "liquidation_fee": float(market["liquidationFee"]),
    }


def _in_range(page: pd.DataFrame, start_ms: int, end_ms: int) -> pd.DataFrame:
    """Return a page that is in order and inside what was asked for.

    Raises:
        ValueError: it is not, so it answers something else.
    """
    times = page["timestamp"]
    first_minute = start_ms - start_ms % MINUTE_MS  # settlement times are cut to it
    if len(page) and not (
        times.is_monotonic_increasing and times.iloc[0] >= first_minute and times.iloc[-1] < end_ms
    ):
        raise ValueError(
            f"rows from {format_time(int(times.iloc[0]))} to {format_time(int(times.iloc[-1]))} "
            f"answer a request from {format_time(start_ms)} to {format_time(end_ms)}"
        )
    return page


def _unreadable(reply: Any) -> ValueError:
    return ValueError(f"unreadable answer {str(reply)[:60]!r}")


def _unreachable(problem: Exception | None) -> NetworkError:
    text = str(problem).partition("\n")[0][:200]
    return NetworkError(
        f"no answer from the exchange ({type(problem).__name__}: {text}); "
        "check the network, or use --demo or --data DIR, which need none"
    )
