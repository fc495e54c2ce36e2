"""One Parquet file of ticks: told apart by its columns, checked, turned into events."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from core.errors import DataError
from core.recording import (
    BOOKS,
    BUY,
    CANDLES,
    MARKS,
    META_SESSION,
    META_SYMBOL,
    MS_NS,
    RECORDED,
    SELL,
    TRADES,
    UNKNOWN,
    Event,
    EventKind,
    Stream,
    matching_stream,
    symbol_in_name,
)
from core.records import dtype_of

Columns = dict[str, npt.NDArray[Any]]
Events = npt.NDArray[np.void]

BOOK_LEVELS: Final = Stream(
    "book5", {"local_ns": "i8", "bid0": "f8", "bid_qty0": "f8", "ask0": "f8", "ask_qty0": "f8"}
)
"""Snapshots of several levels; only the first is used."""
EXCHANGE_TRADES: Final = Stream(
    "exchange trades", {"exch_ns": "i8", "price": "f8", "qty": "f8", "buyer_is_maker": "?"}
)
"""Trades with the exchange's time only: taken as received when they were done."""
DEPTH: Final = Stream(
    "depth",
    {
        "local_ns": "i8",
        "transaction_ms": "i8",
        "event_ms": "i8",
        "first_u": "i8",
        "last_u": "i8",
        "prev_u": "i8",
        "is_snapshot": "i8",
        "side": "i8",
        "price": "f8",
        "qty": "f8",
    },
)
READABLE: Final = (*RECORDED, DEPTH, BOOK_LEVELS, EXCHANGE_TRADES)

_EARLIEST_NS: Final = 1_420_070_400_000_000_000  # 2015
_LATEST_NS: Final = 4_102_444_800_000_000_000  # 2100
_MARKET: Final = "MARKET"
"""``order_type`` of trades against the book; others (INSURANCE_FUND) are no aggressor's."""


@dataclass(frozen=True)
class TickFile:
    """A file and what it holds.

    Attributes:
        path: where it lies.
        symbol: the exchange's name.
        stream: kind of its rows.
        session: what its metadata call the session, empty without.
        first_ns: earliest time of a row, recorder's clock.
        last_ns: latest.
        lead_ns: smallest receive time minus E, None without stamps.
    """

    path: Path
    symbol: str
    stream: Stream
    session: str
    n_rows: int
    first_ns: int
    last_ns: int
    lead_ns: int | None

    @property
    def time_column(self) -> str:
        """Name of the column that orders the rows."""
        return time_column(self.stream)


def time_column(stream: Stream) -> str:
    """Return the name of the column of receive times, or what stands in for it."""
    return "exch_ns" if stream is EXCHANGE_TRADES else "local_ns"


def open_tick_file(path: Path) -> TickFile | None:
    """Return what ``path`` holds, None if it has no rows.

    Raises:
        DataError: the file cannot be read, is of no known kind, or names no symbol.
    """
    schema = _read_schema(path)
    stream = matching_stream(schema.names, READABLE)
    if stream is None:
        kinds = "; ".join(f"{item.name}: {' '.join(item.columns)}" for item in READABLE)
        raise DataError(
            f"{path.name}: columns {' '.join(schema.names)} are of no known recording; "
            f"must have all of one of: {kinds}"
        )
    metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    symbol = metadata.get(META_SYMBOL) or symbol_in_name(path.stem)
    if not symbol:
        raise DataError(
            f"{path.name}: its name holds no symbol; rename it like BTCUSDT-{stream.name}-1.parquet"
        )
    name = time_column(stream)
    wanted = {name: "i8"}
    if "event_ms" in stream.columns:
        wanted["event_ms"] = "i8"
    columns = read_columns(path, wanted)
    times = columns[name]
    if len(times) == 0:
        return None
    first, last = int(times.min()), int(times.max())
    if not _EARLIEST_NS <= first <= last <= _LATEST_NS:
        raise DataError(
            f"{path.name}: {name} runs from {first} to {last}; must be ns since 1970, UTC"
        )
    lead = None
    if "event_ms" in columns:
        stamped = columns["event_ms"] != UNKNOWN
        if stamped.any():
            lead = int((times - columns["event_ms"] * MS_NS)[stamped].min())
    return TickFile(
        path, symbol, stream, metadata.get(META_SESSION, ""), len(times), first, last, lead
    )


def _read_schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path.name}: cannot be read as Parquet: {reason}; repair or remove it"
        ) from None


def read_columns(path: Path, wanted: Mapping[str, str]) -> Columns:
    """Return columns of a file as arrays of the wanted dtypes; empty numbers become NaN.

    Raises:
        DataError: the file cannot be read, or a column is of another type or has empty places.
    """
    try:
        table = pq.read_table(path, columns=list(wanted), partitioning=None)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path.name}: cannot be read: {reason}; repair or remove it") from None
    return {name: _typed(path, name, table[name], dtype) for name, dtype in wanted.items()}


def _typed(path: Path, name: str, column: pa.ChunkedArray, dtype: str) -> npt.NDArray[Any]:
    kind = column.type
    expected = {"i8": "whole numbers", "f8": "numbers", "?": "true or false", "O": "text"}[dtype]
    fits = {
        "i8": pa.types.is_integer(kind),
        "f8": pa.types.is_floating(kind) or pa.types.is_integer(kind),
        "?": pa.types.is_boolean(kind),
        "O": pa.types.is_string(kind) or pa.types.is_large_string(kind),
    }[dtype]
    if not fits:
        raise DataError(f"{path.name}: column {name} is {kind}; must be {expected}")
    if column.null_count and dtype != "f8":
        row = int(np.argmax(column.is_null().to_numpy()))
        raise DataError(f"{path.name}: column {name} is empty in row {row}; must be {expected}")
    return np.array(column.to_numpy(), dtype=dtype)


def has_column(path: Path, name: str) -> bool:
    """Return whether the file has a column ``name``."""
    return name in _read_schema(path).names


@dataclass(frozen=True)
class FileEvents:
    """Events of one file, in the order of the file.

    Attributes:
        events: not yet numbered; ``seq`` is the recorded order, UNKNOWN where none was recorded.
        left_out: rows that are no market event, by reason.
    """

    events: Events
    left_out: Mapping[str, int]


def new_events(n_rows: int) -> Events:
    """Return zero-filled events."""
    return np.zeros(n_rows, dtype_of(Event))


def read_events(file: TickFile, symbol: int, shift_ns: int) -> FileEvents:
    """Return the events of a file of books, trades or marks.

    Args:
        file: what to read.
        symbol: its symbol's index.
        shift_ns: taken off the recorder's clock.

    Raises:
        DataError: the file cannot be read or has unusable columns.
    """
    wanted = {**file.stream.columns}
    optional = {**file.stream.optional}
    if file.stream is TRADES:
        optional["order_type"] = "O"
    wanted.update((k, v) for k, v in optional.items() if has_column(file.path, k))
    columns = read_columns(file.path, wanted)
    events = new_events(len(columns[file.time_column]))
    events["t_ns"] = columns[file.time_column] - shift_ns
    events["symbol"] = symbol
    for field in ("transaction_ms", "event_ms", "seq"):
        events[field] = columns.get(field, UNKNOWN)
    _FILLERS[file.stream.name](events, columns)
    left_out: dict[str, int] = {}
    if "order_type" in columns:
        market = columns["order_type"] == _MARKET
        if not market.all():
            left_out["trades that no order made"] = int((~market).sum())
            events = events[market]
    return FileEvents(events, left_out)


def fill_books(events: Events, columns: Columns) -> None:
    """Fill in best bids and asks."""
    events["kind"] = EventKind.BOOK
    events["number"] = columns["update_id"]
    events["price"], events["qty"] = columns["bid"], columns["bid_qty"]
    events["price2"], events["qty2"] = columns["ask"], columns["ask_qty"]


def _fill_levels(events: Events, columns: Columns) -> None:
    events["kind"], events["number"] = EventKind.BOOK, UNKNOWN
    events["price"], events["qty"] = columns["bid0"], columns["bid_qty0"]
    events["price2"], events["qty2"] = columns["ask0"], columns["ask_qty0"]


def _fill_trades(events: Events, columns: Columns) -> None:
    events["kind"] = EventKind.TRADE
    events["number"] = columns.get("trade_id", UNKNOWN)
    events["price"], events["qty"] = columns["price"], columns["qty"]
    without = columns.get("qty_without_rpi", columns["qty"])
    events["qty2"] = np.where(np.isnan(without), columns["qty"], without)
    events["side"] = np.where(columns["buyer_is_maker"], SELL, BUY)
    if "exch_ns" in columns:
        events["transaction_ms"] = columns["exch_ns"] // MS_NS


def _fill_marks(events: Events, columns: Columns) -> None:
    events["kind"] = EventKind.MARK
    events["price"], events["rate"] = columns["mark_price"], columns["funding_rate"]
    events["number"] = columns["next_funding_ms"]


_FILLERS: Final = {
    BOOKS.name: fill_books,
    BOOK_LEVELS.name: _fill_levels,
    TRADES.name: _fill_trades,
    EXCHANGE_TRADES.name: _fill_trades,
    MARKS.name: _fill_marks,
}


@functools.cache
def candle_columns() -> dict[str, str]:
    """Return the columns read of a file of candles."""
    return dict(CANDLES.columns)
