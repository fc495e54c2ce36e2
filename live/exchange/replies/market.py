"""Candles, funding rates and prices out of the exchange's answers."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from core.records import zeros_table
from core.times import MINUTE_MS
from live.exchange.replies.shapes import as_row, finite, rows_of, whole, wrong
from live.exchange.types import Candle, Candles

_KLINE_FIELDS: Final = 7  # open time, open, high, low, close, volume, close time; more follow
_KLINE: Final = "candle"

KlineRow = tuple[int, float, float, float, float, float]
"""Open time ms, open, high, low, close, volume (base)."""


def candle_table(reply: Any, start_ms: int, end_ms: int, bar_ms: int) -> Candles:
    """Return klines as a table, shape (n_bars,).

    Args:
        reply: ``[[open time, "open", "high", "low", "close", "volume", close time, ...], ...]``.
        start_ms: no candle may open before this, ms UTC.
        end_ms: none may open at or after this.
        bar_ms: length of a candle.

    Raises:
        ReplyError: it is no such list, times are not multiples of that length, do not rise or
            answer another range, or a price is impossible.
    """
    if not isinstance(reply, list):
        raise wrong(_KLINE, reply, "a list")
    table: Any = zeros_table(Candle, len(reply))
    previous_ms = start_ms - 1
    for index, kline in enumerate(reply):
        row = _candle(kline, bar_ms)
        if not previous_ms < row[0] < end_ms:
            raise wrong(f"{_KLINE} {index} open time", row[0], f"in ({previous_ms}, {end_ms})")
        table[index] = row
        previous_ms = row[0]
    return np.asarray(table)


def kline_rows(reply: Any) -> list[KlineRow]:
    """Return klines of any length as (open time ms, open, high, low, close, volume).

    Whether prices are possible and times in order is not checked.

    Raises:
        ReplyError: it is no list of klines.
    """
    if not isinstance(reply, list):
        raise wrong(_KLINE, reply, "a list")
    return [_kline_row(kline) for kline in reply]


def _kline_row(kline: Any) -> KlineRow:
    if not isinstance(kline, list) or len(kline) < _KLINE_FIELDS:
        raise wrong(_KLINE, kline, f"a list of at least {_KLINE_FIELDS}")
    time_ms = whole(kline[0], f"{_KLINE} open time")
    first, high, low, last, volume = (finite(kline[i], _KLINE, 0.0) for i in range(1, 6))
    return time_ms, first, high, low, last, volume


def _candle(kline: Any, bar_ms: int) -> KlineRow:
    time_ms, first, high, low, last, volume = _kline_row(kline)
    if time_ms % bar_ms or whole(kline[6], f"{_KLINE} close time") != time_ms + bar_ms - 1:
        length = f"{bar_ms // MINUTE_MS} minutes"
        raise wrong(_KLINE, kline[:7], f"{length} that begin at a multiple of {length}")
    if not 0 < low <= min(first, last) <= max(first, last) <= high:
        raise wrong(_KLINE, kline[:5], "prices with low <= open, close <= high")
    return time_ms, first, high, low, last, volume


def funding_page(reply: Any, symbol: str, start_ms: int) -> list[tuple[int, float]]:
    """Return (settlement time ms as reported, rate) by time.

    Args:
        reply: ``[{"symbol": ..., "fundingTime": ms, "fundingRate": "0.0001"}, ...]``.
        symbol: the rates must be of.
        start_ms: none may be earlier.

    Raises:
        ReplyError: it is no such list, or not in order.
    """
    page = funding_rows(reply, symbol)
    previous_ms = start_ms - 1
    for time_ms, _ in page:
        if time_ms <= previous_ms:
            raise wrong("funding rate time", time_ms, "later than the one before")
        previous_ms = time_ms
    return page


def funding_rows(reply: Any, symbol: str) -> list[tuple[int, float]]:
    """Return (settlement time ms as reported, rate) as they come.

    Raises:
        ReplyError: ``reply`` is no list of funding rates of ``symbol``.
    """
    return [
        (row.integer("fundingTime"), row.number("fundingRate"))
        for row in rows_of(reply, "funding rate", symbol)
    ]


def ticker_price(reply: Any, symbol: str) -> float:
    """Return the last price of ``symbol``, quote.

    Raises:
        ReplyError: ``reply`` is no ``{"symbol": ..., "price": "50000.1"}``.
    """
    row = as_row(reply, "price")
    row.text("symbol", symbol)
    return row.positive("price")


def mark_price(reply: Any, symbol: str) -> float:
    """Return the mark price of ``symbol``, quote.

    Raises:
        ReplyError: ``reply`` is no ``{"symbol": ..., "markPrice": "50000.1", ...}``.
    """
    row = as_row(reply, "premium index")
    row.text("symbol", symbol)
    return row.positive("markPrice")


def server_time(reply: Any) -> int:
    """Return the exchange's time, ms UTC.

    Raises:
        ReplyError: ``reply`` is no ``{"serverTime": ms}``.
    """
    return as_row(reply, "server time").integer("serverTime")
