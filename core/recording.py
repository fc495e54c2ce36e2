"""Recorded ticks: the events of a market and the columns they are stored in.

The recorder writes these columns, the reader of recordings reads them; both name them from here.
An event has one receive time ``t_ns`` (ns, UTC); events are ordered by ``(t_ns, seq)``, ``seq``
being the order in which one process read them. Stamps of the exchange (ms) serve only to judge
staleness, to find duplicates and to simulate.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Final

MS_NS: Final = 1_000_000
SECOND_NS: Final = 1_000_000_000
HOUR_NS: Final = 3_600 * SECOND_NS

BUY: Final = 1
SELL: Final = -1
UNKNOWN: Final = -1
"""In place of a stamp or number the source does not have."""


class EventKind(IntEnum):
    """Kind of an event, with the meaning of its fields."""

    BOOK = 1
    """Best bid and ask: price, qty | price2, qty2; number: update id ``u``."""
    TRADE = 2
    """Aggregated trade: price, qty, qty2 without retail price improvement; side of the aggressor;
    number: trade id ``a``."""
    USER = 3
    MARK = 4
    """Mark price: price; rate: funding rate; number: time of the next settlement, ms."""
    TIMER = 5
    CONTROL = 6
    REPLY = 7
    """Answer to a request for candles: price, qty, rate: deviation of 1m, 5m and 15m returns,
    bps per sqrt(s), 0 where unknown."""
    STEP = 8


class Event:
    """One event; see ``EventKind`` for what the fields of each kind hold."""

    t_ns: int  # receive clock, UTC
    seq: int
    kind: int
    symbol: int  # index in the table of symbols
    transaction_ms: int  # T, UNKNOWN if there is none
    event_ms: int  # E, UNKNOWN if there is none
    number: int
    side: int  # BUY or SELL of a trade's aggressor, else 0
    price: float  # quote
    qty: float  # base
    price2: float  # quote
    qty2: float  # base
    rate: float


@dataclass(frozen=True, eq=False)
class Stream:
    """Columns of one kind of recorded file: name -> dtype, in the order they are written.

    Attributes:
        name: stands in the file's name.
        columns: every file has them.
        optional: a file may have them; the recorder writes all of them.
    """

    name: str
    columns: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)


_STAMPS: Final = {"local_ns": "i8", "transaction_ms": "i8", "event_ms": "i8"}
_SEQ: Final = {"seq": "i8"}

BOOKS: Final = Stream(
    "book",
    {**_STAMPS, "update_id": "i8", "bid": "f8", "bid_qty": "f8", "ask": "f8", "ask_qty": "f8"},
    _SEQ,
)
TRADES: Final = Stream(
    "trades",
    {**_STAMPS, "trade_id": "i8", "price": "f8", "qty": "f8", "buyer_is_maker": "?"},
    {"qty_without_rpi": "f8", **_SEQ},
)
MARKS: Final = Stream(
    "mark",
    {
        "local_ns": "i8",
        "event_ms": "i8",
        "mark_price": "f8",
        "funding_rate": "f8",
        "next_funding_ms": "i8",
    },
    _SEQ,
)
CANDLES: Final = Stream(
    "candles",
    {
        "local_ns": "i8",
        "open_ms": "i8",
        "timeframe_s": "i8",
        "open": "f8",
        "high": "f8",
        "low": "f8",
        "close": "f8",
        "volume": "f8",
    },
    _SEQ,
)
"""Closed candles as they were answered: ``local_ns`` is the time of the answer."""

RECORDED: Final = (BOOKS, TRADES, MARKS, CANDLES)

META_SYMBOL: Final = "symbol"
META_SESSION: Final = "session"
"""Keys of a file's metadata: the exchange's symbol, and what started it (UTC text)."""

_SYMBOL_WORD: Final = re.compile(r"[A-Z0-9]+USDT")


def matching_stream(columns: Collection[str], streams: Collection[Stream]) -> Stream | None:
    """Return the one of ``streams`` whose columns are all in ``columns``, None if there is none."""
    return next((item for item in streams if item.columns.keys() <= set(columns)), None)


def file_name(symbol: str, stream: Stream, t_ns: int) -> str:
    """Return the name of a symbol's file of the hour that ``t_ns`` lies in."""
    hour = datetime.fromtimestamp(t_ns // HOUR_NS * 3_600, UTC)
    return f"{symbol}-{stream.name}-{hour:%Y%m%dT%H}.parquet"


def symbol_in_name(stem: str) -> str | None:
    """Return the symbol a file's name speaks of, None if it names none.

    A word that ends in USDT, else the first word of capitals only: ``aster-BNBUSDT-book5-…`` is
    BNBUSDT, ``hyperliquid-WLFI-book5-…`` WLFI.
    """
    words = re.split(r"[-_. ]+", stem)
    for word in words:
        if _SYMBOL_WORD.fullmatch(word):
            return word
    return next((word for word in words if word.isalnum() and word.isupper()), None)
