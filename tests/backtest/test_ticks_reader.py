"""Recordings are read as they were made, in the order they were made; what is wrong is said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from backtest.ticks.demo import DEMO_START_NS, demo_ticks
from backtest.ticks.depth import best_of_depth, read_depth
from backtest.ticks.files import DEPTH, Events, open_tick_file
from backtest.ticks.reader import TickReport, TickSession, open_sessions
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
    SECOND_NS,
    TRADES,
    EventKind,
    Stream,
    file_name,
    matching_stream,
    symbol_in_name,
)
from engine.registry import SHORT_GRID
from engine.short_grid.volatility import candle_deviation
from tests.engine.short_grid_ticks import REAL_TICKS

PARAMS = SHORT_GRID.read({})
T0 = DEMO_START_NS
needs_ticks = pytest.mark.skipif(not REAL_TICKS.is_dir(), reason="needs recorded ticks")


def write(
    folder: Path, name: str, columns: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> Path:
    table = pa.table({key: pa.array(values) for key, values in columns.items()})
    folder.mkdir(exist_ok=True)
    pq.write_table(table.replace_schema_metadata(dict(metadata or {})), folder / name)
    return folder / name


def recorded_columns(events: Events, stream: Stream) -> dict[str, Any]:
    """Return events of one stream in the columns the recorder writes."""
    common = {
        "local_ns": events["t_ns"],
        "transaction_ms": events["transaction_ms"],
        "event_ms": events["event_ms"],
        "seq": events["seq"],
    }
    own = {
        BOOKS: {
            "update_id": "number",
            "bid": "price",
            "bid_qty": "qty",
            "ask": "price2",
            "ask_qty": "qty2",
        },
        TRADES: {"trade_id": "number", "price": "price", "qty": "qty", "qty_without_rpi": "qty2"},
        MARKS: {"mark_price": "price", "funding_rate": "rate", "next_funding_ms": "number"},
    }[stream]
    columns = {**common, **{name: events[field] for name, field in own.items()}}
    if stream is TRADES:
        columns["buyer_is_maker"] = events["side"] != BUY
    return {name: columns[name] for name in (*stream.columns, *stream.optional)}


def record(folder: Path, events: Events, symbols: tuple[str, ...], span_ns: int) -> int:
    """Write events as a recorder would: a file per symbol, stream and ``span_ns``."""
    kinds = {EventKind.BOOK: BOOKS, EventKind.TRADE: TRADES, EventKind.MARK: MARKS}
    count = 0
    for index, symbol in enumerate(symbols):
        for kind, stream in kinds.items():
            own = events[(events["symbol"] == index) & (events["kind"] == kind)]
            for start in range(T0, int(events["t_ns"][-1]) + 1, span_ns):
                part = own[(own["t_ns"] >= start) & (own["t_ns"] < start + span_ns)]
                if len(part):
                    name = f"{symbol}-{stream.name}-{start}.parquet"
                    meta = {META_SYMBOL: symbol, META_SESSION: "one"}
                    write(folder, name, recorded_columns(part, stream), meta)
                    count += 1
    return count


def read(session: TickSession) -> tuple[Events, TickReport]:
    report = TickReport()
    return session.events(PARAMS, report), report


def test_a_recording_is_read_back_event_for_event_in_its_order(tmp_path: Path) -> None:
    demo = demo_ticks(3)
    events = demo.events[demo.events["kind"] != EventKind.REPLY].copy()
    events["seq"] = np.arange(len(events))
    # Ties in time that only seq can order.
    events["t_ns"] = events["t_ns"] // (20 * MS_NS) * (20 * MS_NS)
    events["event_ms"] = np.minimum(events["event_ms"], events["t_ns"] // MS_NS)
    assert record(tmp_path, events, demo.symbols, 60 * SECOND_NS) > 30
    (session,) = open_sessions(tmp_path)
    assert session.symbols == demo.symbols
    found, report = read(session)
    unset = events["kind"] == EventKind.MARK
    for name in events.dtype.names or ():
        expected = events[name].copy()
        if name == "transaction_ms":
            expected[unset] = -1  # marks have none
        assert np.array_equal(found[name], expected, equal_nan=name.startswith(("p", "q"))), name
    assert report.n_events == {
        symbol: int((events["symbol"] == index).sum()) for index, symbol in enumerate(demo.symbols)
    }


def test_blocks_joined_are_the_whole(tmp_path: Path) -> None:
    demo = demo_ticks(2, ("KITUSDT", "ORBUSDT"))
    record(tmp_path, demo.events, demo.symbols, 30 * SECOND_NS)
    (session,) = open_sessions(tmp_path)
    whole, report = read(session)
    other = TickReport()
    blocks = list(session.blocks(PARAMS, other, 7 * SECOND_NS))
    assert len(blocks) == 18
    joined = np.concatenate(blocks)
    assert joined["seq"].tolist() == list(range(len(whole)))
    for name in whole.dtype.names or ():
        assert np.array_equal(joined[name], whole[name], equal_nan=name.startswith(("p", "q")))
    assert other.rejected == report.rejected
    assert sum(len(reasons) for reasons in report.rejected.values()) > 3


def test_only_the_symbols_asked_for_are_read(tmp_path: Path) -> None:
    demo = demo_ticks(1, ("KITUSDT", "ORBUSDT"))
    record(tmp_path, demo.events, demo.symbols, 60 * SECOND_NS)
    (session,) = open_sessions(tmp_path, ["ORBUSDT"])
    events, _ = read(session)
    assert session.symbols == ("ORBUSDT",)
    assert len(events) == int((demo.events["symbol"] == 1).sum()) - 1  # without the candles


def books(times_s: list[float], **changed: Any) -> dict[str, Any]:
    n = len(times_s)
    local = np.array([T0 + int(s * SECOND_NS) for s in times_s], dtype=np.int64)
    columns = {
        "local_ns": local,
        "transaction_ms": local // MS_NS - 4,
        "event_ms": local // MS_NS - 3,
        "update_id": np.arange(n) + 1,
        "bid": np.full(n, 10.0),
        "bid_qty": np.full(n, 5.0),
        "ask": np.full(n, 10.01),
        "ask_qty": np.full(n, 6.0),
    }
    return {**columns, **changed}


def test_a_clock_behind_the_exchanges_is_moved_by_the_sessions_smallest_lead(
    tmp_path: Path,
) -> None:
    one, other = books([0, 1, 2]), books([0, 1, 2])
    one["event_ms"] = one["local_ns"] // MS_NS + [1_500, 1_480, 1_490]
    other["event_ms"] = other["local_ns"] // MS_NS + [1_400, 1_450, 1_470]
    write(tmp_path, "AUSDT-book.parquet", one)
    write(tmp_path, "BUSDT-book.parquet", other)
    (session,) = open_sessions(tmp_path)
    events, report = read(session)
    lag_ms = events["t_ns"] / MS_NS - events["event_ms"]
    assert lag_ms.min() == 0.0
    assert lag_ms.max() == 100.0
    assert any("moved by 1,500.0 ms" in note for note in report.notes)


def test_a_clock_ahead_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "AUSDT-book.parquet", books([0, 1]))
    (session,) = open_sessions(tmp_path)
    events, report = read(session)
    assert events["t_ns"].tolist() == [T0, T0 + SECOND_NS]
    assert report.notes == []


def test_silence_is_a_gap_also_before_and_after_a_symbols_books(tmp_path: Path) -> None:
    write(tmp_path, "AUSDT-book.parquet", books([0, 5, 30, 60]))
    write(tmp_path, "BUSDT-book.parquet", books([20, 29, 38, 47]))
    (session,) = open_sessions(tmp_path)
    _, report = read(session)
    gaps = {(g.symbol, (g.start_ns - T0) / 1e9, (g.end_ns - T0) / 1e9) for g in report.gaps}
    assert gaps == {("AUSDT", 5, 30), ("AUSDT", 30, 60), ("BUSDT", 0, 20), ("BUSDT", 47, 60)}
    assert "AUSDT: no books for 25.0 s" in report.gaps[0].text()


def test_files_far_apart_in_time_are_sessions_of_their_own(tmp_path: Path) -> None:
    write(tmp_path, "AUSDT-book-2.parquet", books([1_000, 1_001]))
    write(tmp_path, "AUSDT-book-1.parquet", books([0, 1]))
    sessions = open_sessions(tmp_path)
    assert [session.start_ns - T0 for session in sessions] == [0, 1_000 * SECOND_NS]


def test_rows_out_of_order_are_put_in_order_and_said(tmp_path: Path) -> None:
    columns = books([0, 2, 1, 3])
    write(tmp_path, "AUSDT-book.parquet", columns)
    (session,) = open_sessions(tmp_path)
    events, report = read(session)
    assert (np.diff(events["t_ns"]) > 0).all()
    assert report.notes == ["AUSDT-book.parquet: 1 rows earlier than the row before; put in order"]


def test_bad_rows_stay_in_the_recording_and_are_counted(tmp_path: Path) -> None:
    ask = np.array([10.01, 9.0, np.nan, 10.01])
    write(tmp_path, "AUSDT-book.parquet", books([0, 1, 2, 3], ask=ask))
    (session,) = open_sessions(tmp_path)
    events, report = read(session)
    assert len(events) == 4
    assert report.rejected["AUSDT"] == {
        "price not finite or not positive": 1,
        "ask not above bid": 1,
    }
    assert "AUSDT: 1 of 4 events: ask not above bid" in report.lines()


def trades_of_exchange(times_s: list[float]) -> dict[str, Any]:
    n = len(times_s)
    return {
        "exch_ns": [T0 + int(s * SECOND_NS) for s in times_s],
        "price": np.full(n, 10.0),
        "qty": np.full(n, 1.0),
        "buyer_is_maker": [True] * n,
    }


def test_trades_before_the_first_book_are_left_out_where_they_come_from_a_request(
    tmp_path: Path,
) -> None:
    levels = {
        "local_ns": [T0 + 5 * SECOND_NS, T0 + 6 * SECOND_NS],
        "bid0": [10.0, 10.0],
        "bid_qty0": [1.0, 1.0],
        "ask0": [10.1, 10.1],
        "ask_qty0": [1.0, 1.0],
    }
    write(tmp_path, "dex-AUSDT-book5-1.parquet", levels)
    write(tmp_path, "dex-AUSDT-trades-1.parquet", trades_of_exchange([0, 4.9, 5.5, 6]))
    (session,) = open_sessions(tmp_path)
    events, report = read(session)
    assert events["kind"].tolist() == [1, 2, 2, 1]
    assert any("2 trades before the first book left out" in note for note in report.notes)
    assert any("no receive time" in note for note in report.notes)


def test_trades_no_order_made_are_left_out(tmp_path: Path) -> None:
    columns = {
        "local_ns": [T0, T0 + 1, T0 + 2],
        "transaction_ms": [1, 1, 1],
        "event_ms": [1, 1, 1],
        "trade_id": [1, 2, 3],
        "price": [10.0] * 3,
        "qty": [1.0] * 3,
        "buyer_is_maker": [True, True, False],
        "order_type": ["MARKET", "INSURANCE_FUND", "MARKET"],
    }
    write(tmp_path, "AUSDT-trades.parquet", columns)
    (session,) = open_sessions(tmp_path)
    events, report = read(session)
    assert events["number"].tolist() == [1, 3]
    assert any("1 trades that no order made left out" in note for note in report.notes)


def depth_rows(rows: list[tuple[int, int, int, float, float]]) -> dict[str, Any]:
    """Return depth columns of (message, is_snapshot, side, price, qty)."""
    message, snapshot, side, price, qty = (np.array(x) for x in zip(*rows, strict=True))
    local = T0 + message * SECOND_NS
    return {
        "local_ns": local,
        "transaction_ms": local // MS_NS,
        "event_ms": local // MS_NS,
        "first_u": message,
        "last_u": message,
        "prev_u": message - 1,
        "is_snapshot": snapshot,
        "side": side,
        "price": price,
        "qty": qty,
    }


DEPTH_ROWS = depth_rows(
    [
        (0, 0, 1, 9.9, 1.0),  # before any snapshot
        (2, 1, 1, 9.0, 1.0),
        (2, 1, 1, 8.0, 2.0),
        (2, 1, -1, 10.0, 3.0),
        (2, 1, -1, 11.0, 4.0),
        (1, 0, 1, 9.5, 1.0),  # older than the snapshot
        (3, 0, 1, 9.0, 0.0),
        (3, 0, -1, 10.0, 5.0),
        (4, 0, 1, 9.2, 6.0),
        (4, 0, -1, 10.0, 0.0),
        (5, 0, -1, 11.0, 0.0),  # no ask left
        (6, 0, -1, 10.5, 7.0),
    ]
)


def test_depth_is_played_back_to_best_bid_and_ask() -> None:
    best = best_of_depth(DEPTH_ROWS)
    assert best["update_id"].tolist() == [2, 3, 4, 6]
    assert best["bid"].tolist() == [9.0, 8.0, 9.2, 9.2]
    assert best["bid_qty"].tolist() == [1.0, 2.0, 6.0, 6.0]
    assert best["ask"].tolist() == [10.0, 10.0, 11.0, 10.5]
    assert best["ask_qty"].tolist() == [3.0, 5.0, 4.0, 7.0]


def test_depth_stands_in_for_books_where_there_are_none(tmp_path: Path) -> None:
    write(tmp_path, "AUSDT-depth.parquet", DEPTH_ROWS)
    (session,) = open_sessions(tmp_path)
    events, report = read(session)
    assert events["price"].tolist() == [9.0, 8.0, 9.2, 9.2]
    assert any("played back from depth" in note for note in report.notes)
    write(tmp_path, "AUSDT-book.parquet", books([0, 1, 2, 6]))
    (session,) = open_sessions(tmp_path)
    events, report = read(session)
    assert events["price"].tolist() == [10.0] * 4
    assert any("not used, there are books" in note for note in report.notes)


def candles(answer_s: int, open_s: range, close: Any, timeframe_s: int = 60) -> dict[str, Any]:
    n = len(open_s)
    return {
        "local_ns": np.full(n, T0 + answer_s * SECOND_NS),
        "open_ms": T0 // MS_NS + np.array(open_s) * 1_000,
        "timeframe_s": np.full(n, timeframe_s),
        "open": close,
        "high": close,
        "low": close,
        "close": close,
        "volume": np.ones(n),
    }


def test_candles_make_known_what_was_closed_when_they_were_answered(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    close = 10 * np.exp(np.cumsum(rng.normal(0, 1e-3, 60)))
    write(tmp_path, "AUSDT-candles-1.parquet", candles(0, range(-60 * 50, 0, 60), close[:50]))
    later = candles(300, range(0, 600, 60), close[50:])
    write(tmp_path, "AUSDT-candles-2.parquet", later)
    write(tmp_path, "AUSDT-book.parquet", books([0, 1, 299, 301]))
    (session,) = open_sessions(tmp_path)
    events, report = read(session)
    replies = events[events["kind"] == EventKind.REPLY]
    times = np.arange(60) * 60_000
    assert (replies["t_ns"] - T0).tolist() == [0, 300 * SECOND_NS]
    assert replies["price"][0] == candle_deviation(times[:50], close[:50], 60)
    assert replies["price"][1] == candle_deviation(times[:55], close[:55], 60)
    assert replies["qty"].tolist() == [0.0, 0.0]
    assert any("5 candles not closed when answered" in note for note in report.notes)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"time": [1]}, "columns time are of no known recording; must have all of one of: book:"),
        (books([0], local_ns=np.array([T0 / 1e9])), "local_ns is double; must be whole numbers"),
        (books([0], local_ns=np.array([T0 // MS_NS])), "must be ns since 1970"),
        (books([0], bid=np.array(["x"])), "column bid is string; must be numbers"),
        (books([0, 1], update_id=pa.array([1, None])), "column update_id is empty in row 1"),
    ],
)
def test_an_unusable_file_is_refused_with_its_reason(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    write(tmp_path, "AUSDT-book.parquet", columns)
    with pytest.raises(DataError, match=message):
        [read(session) for session in open_sessions(tmp_path)]


def test_an_unusable_folder_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_sessions(tmp_path / "none")
    with pytest.raises(DataError, match="holds no Parquet file"):
        open_sessions(tmp_path)
    (tmp_path / "AUSDT-book.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"AUSDT-book.parquet: cannot be read as Parquet"):
        open_sessions(tmp_path)


def test_a_symbol_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    write(tmp_path, "BTCUSDT-book.parquet", books([0]))
    with pytest.raises(DataError, match="no ticks of BTCUSD; did you mean BTCUSDT"):
        open_sessions(tmp_path, ["BTCUSD"])


def test_a_file_that_names_no_symbol_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "ticks.parquet", books([0]))
    with pytest.raises(DataError, match="its name holds no symbol"):
        open_sessions(tmp_path)


def test_two_files_of_the_same_at_the_same_time_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "AUSDT-book-1.parquet", books([0, 5]))
    write(tmp_path, "AUSDT-book-2.parquet", books([4, 6]))
    with pytest.raises(DataError, match="hold book of AUSDT at the same time"):
        open_sessions(tmp_path)


def test_a_file_without_rows_is_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, "AUSDT-book-1.parquet", books([]))
    assert open_tick_file(path) is None
    write(tmp_path, "AUSDT-book-2.parquet", books([0, 1]))
    assert len(open_sessions(tmp_path)) == 1


@pytest.mark.parametrize(
    ("stem", "symbol"),
    [
        ("BTCUSDT-perp-bookTicker-20230404-05", "BTCUSDT"),
        ("aster-BNBUSDT-book5-2025", "BNBUSDT"),
        ("hyperliquid-WLFI-trades-20250903", "WLFI"),
        ("1000PEPEUSDT-book-1", "1000PEPEUSDT"),
        ("ticks-of-today", None),
    ],
)
def test_a_name_says_its_symbol(stem: str, symbol: str | None) -> None:
    assert symbol_in_name(stem) == symbol


def test_recorded_streams_are_told_apart_by_their_columns() -> None:
    for stream in RECORDED:
        assert matching_stream({*stream.columns, *stream.optional}, RECORDED) is stream
        fewer = set(stream.columns) - {list(stream.columns)[-1]}
        assert matching_stream(fewer, RECORDED) is None
    assert matching_stream(DEPTH.columns, RECORDED) is None
    assert (
        file_name("AUSDT", CANDLES, T0 + 3_700 * SECOND_NS) == "AUSDT-candles-20260101T01.parquet"
    )


@needs_ticks
def test_every_recorded_file_is_read() -> None:
    rows, symbols = 0, set()
    for session in open_sessions(REAL_TICKS):
        events, report = read(session)
        assert (np.diff(events["t_ns"]) >= 0).all()
        assert events["t_ns"][0] >= session.start_ns
        assert events["t_ns"][-1] <= session.end_ns
        rows += len(events)
        symbols |= {(session.start_ns, symbol) for symbol in session.symbols}
        stamped = events["event_ms"] > 0
        if stamped.any():
            assert (events["t_ns"] / MS_NS - events["event_ms"])[stamped].min() >= -1e-3
        assert all(n > 0 for n in report.n_events.values())
        assert not any("seen" in r or "crossed" in r for rs in report.rejected.values() for r in rs)
    assert len(symbols) == 10
    assert rows == 209_131


@needs_ticks
@pytest.mark.slow
@pytest.mark.parametrize("name", ["BTCUSDT-perp-{}-20230404-05", "ETHUSDT-perp-{}-20240718-19"])
def test_depth_played_back_meets_the_recorded_best_bid_and_ask(name: str) -> None:
    depth = open_tick_file(REAL_TICKS / f"{name.format('depth')}.parquet")
    best = open_tick_file(REAL_TICKS / f"{name.format('bookTicker')}.parquet")
    assert depth
    assert best
    played = read_depth(depth)
    ticker = pq.read_table(best.path).to_pandas()
    at = np.searchsorted(ticker["update_id"].to_numpy(), played["update_id"], side="right") - 1
    known = (at >= 0) & (played["update_id"] <= ticker["update_id"].iloc[-1])
    assert known.sum() > 3_000
    for column in ("bid", "bid_qty", "ask", "ask_qty"):
        same = ticker[column].to_numpy()[at[known]] == played[column][known]
        assert same.mean() > 0.999, (column, same.mean())
