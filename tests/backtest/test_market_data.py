"""Candles and funding rates that cannot be used; how coins and times are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.market.market_data import (
    MarketData,
    candle_table,
    empty_funding,
    funding_table,
    normalize_coin,
)
from backtest.market.timeframes import (
    TIMEFRAMES,
    format_span,
    format_time,
    parse_time,
    timeframe_ms,
)
from core.errors import ConfigError, DataError
from core.frames import check_candles, check_funding
from core.times import DAY_MS, HOUR_MS, MINUTE_MS

START = parse_time("2024-01-01", "START")
BAR = 15 * MINUTE_MS


def make_candles(n_bars: int = 20, bar_ms: int = BAR, start_ms: int = START) -> pd.DataFrame:
    close = 100.0 + np.arange(n_bars) % 7
    times = start_ms + bar_ms * np.arange(n_bars)
    rows = zip(times, close, close + 2.0, close - 1.0, close + 1.0, close / 10.0, strict=True)
    return candle_table(list(rows))


def change(column: str, row: int, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def apply(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.astype({column: object}) if isinstance(value, str) else frame
        frame.loc[row, column] = value
        return frame

    return apply


BROKEN: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "column": (lambda f: f.drop(columns=["low", "volume"]), "missing columns: low, volume; found"),
    "empty": (lambda f: f.iloc[:0], "has no rows"),
    "nan": (change("close", 4, np.nan), r"row 4 \(2024-01-01 01:00 UTC\): close is missing"),
    "infinite": (change("high", 4, np.inf), "row 4 .*: high is missing or not a number"),
    "text": (change("volume", 3, "many"), "row 3 .*: volume is missing or not a number"),
    "unsorted": (
        lambda f: f.iloc[[0, 1, 3, 2, *range(4, 20)]],
        r"row 3 \(2024-01-01 00:30 UTC\): is earlier than the row before; sort",
    ),
    "repeated": (
        lambda f: f.iloc[[0, 1, 2, 2, *range(3, 20)]],
        r"row 3 \(2024-01-01 00:30 UTC\): repeats the time of the row before",
    ),
    "coarser": (lambda f: f.iloc[::4], "candles are 1h apart, must be 15m"),
    "finer": (lambda _: make_candles(bar_ms=MINUTE_MS), "candles are 1m apart, must be 15m"),
    "mixed": (
        lambda f: pd.concat([f, make_candles(5, MINUTE_MS, START + 20 * BAR)]),
        "row 21 .*: opens 1m after the row before, must be a multiple of 15m",
    ),
    "shifted": (
        lambda f: f.assign(timestamp=f["timestamp"] + 60_000 * (f.index > 9)),
        r"row 10 \(2024-01-01 02:31 UTC\): opens 16m after",
    ),
    "closing times": (
        lambda f: f.assign(timestamp=f["timestamp"] + BAR - 1),
        "2024-01-01 00:14:59.999 looks like a close time",
    ),
    "time as date": (
        lambda f: f.assign(timestamp=pd.to_datetime(f["timestamp"], unit="ms")),
        "must be int64 ms UTC",
    ),
    "high below low": (change("high", 5, 90.0), "row 5 .*: high 90 is below low 104"),
    "open above": (change("open", 5, 120.0), "row 5 .*: open 120 is above high 107"),
    "open below": (change("open", 5, 100.0), "row 5 .*: open 100 is below low 104"),
    "close above": (change("close", 5, 120.0), "row 5 .*: close 120 is above high 107"),
    "close below": (change("close", 5, 100.0), "row 5 .*: close 100 is below low 104"),
    "price zero": (change("low", 5, 0.0), "row 5 .*: low 0 must be above 0"),
    "price negative": (change("low", 5, -3.0), "row 5 .*: low -3 must be above 0"),
    "volume": (change("volume", 5, -1.0), "row 5 .*: volume -1 is negative"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_unusable_candles_are_refused_naming_file_row_and_time(name: str) -> None:
    damage, message = BROKEN[name]
    with pytest.raises(DataError, match=rf"^my\.csv: .*{message}"):
        check_candles(damage(make_candles()), "my.csv", BAR)


def test_the_number_of_broken_rows_is_reported() -> None:
    candles = make_candles()
    candles.loc[3:7, "volume"] = -1.0
    with pytest.raises(DataError, match=r"row 3 .*\(5 rows like this\)"):
        check_candles(candles, "my.csv", BAR)


def test_gaps_of_whole_bars_and_flat_candles_are_allowed() -> None:
    candles = make_candles().drop(index=[5, 6, 11]).reset_index(drop=True)
    candles.loc[2, ["open", "high", "low", "close", "volume"]] = [50.0, 50.0, 50.0, 50.0, 0.0]
    check_candles(candles, "my.csv", BAR)
    market = MarketData("BTC", candles, empty_funding(), None, BAR, "test")
    assert market.gaps == [
        (START + 5 * BAR, START + 7 * BAR, 2),
        (START + 11 * BAR, START + 12 * BAR, 1),
    ]
    assert market.zero_volume_bars == 1


@pytest.mark.parametrize("kept", [[0], [0, 2], [0, 3, 9]])
def test_a_few_candles_with_gaps_do_not_pass_for_another_timeframe(kept: list[int]) -> None:
    check_candles(make_candles().iloc[kept], "my.csv", BAR)


@given(st.sets(st.integers(1, 58), max_size=40))
def test_gaps_account_for_every_missing_bar(missing: set[int]) -> None:
    candles = make_candles(60).drop(index=sorted(missing)).reset_index(drop=True)
    market = MarketData("BTC", candles, empty_funding(), None, BAR, "test")
    lost = {
        (time - START) // BAR for first, last, _ in market.gaps for time in range(first, last, BAR)
    }
    assert lost == missing
    assert sum(count for _, _, count in market.gaps) == len(missing)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[START, 0.1], [START, 0.1]], "row 1 .*: repeats"),
        ([[START + HOUR_MS, 0.1], [START, 0.1]], "row 1 .*: is earlier"),
        ([[START, 0.1], [START + HOUR_MS, np.nan]], "row 1 .*: rate is missing"),
        ([[START + i * BAR, 0.1] for i in range(9)], "rates stand 15m apart"),
    ],
)
def test_unusable_funding_is_refused(rows: list[list[float]], message: str) -> None:
    with pytest.raises(DataError, match=f"^f.csv: .*{message}"):
        check_funding(funding_table(rows), "f.csv")


def test_funding_at_uneven_settlements_is_allowed() -> None:
    hours = [0, 8, 16, 18, 20, 24, 48]
    check_funding(funding_table([[START + hour * HOUR_MS, 0.1] for hour in hours]), "f.csv")


def test_the_data_hash_changes_with_any_value_and_only_then() -> None:
    candles, funding = make_candles(), funding_table([[START, 0.0001]])
    market = MarketData("BTC", candles, funding, None, BAR, "test")
    same = MarketData("ETH", candles.copy(), funding.copy(), None, BAR, "elsewhere")
    assert market.data_hash == same.data_hash == "fd1eb8cae96c366e"
    for column in candles.columns:
        other = candles.copy()
        other[column] += np.arange(len(other)) == 7
        changed = MarketData("BTC", other, funding, None, BAR, "test")
        assert changed.data_hash != market.data_hash
    assert MarketData("BTC", candles, empty_funding(), None, BAR, "").data_hash != market.data_hash
    assert MarketData("BTC", candles, funding, candles, BAR, "").data_hash != market.data_hash


# --- names and times ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "BTC",
        "btc",
        " BTC ",
        "BTC/USDT",
        "btc/usdt",
        "BTC/USDT:USDT",
        "BTCUSDT",
        "btcusdt",
        "BTC-USDT",
    ],
)
def test_a_coin_is_recognised_in_every_spelling(text: str) -> None:
    assert normalize_coin(text) == "BTC"


@pytest.mark.parametrize("text", ["", "USDT", "BTC/USD", "BTC/USDT:BTC", "../BTC", "BTC USDT"])
def test_other_markets_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="must be a coin like BTC"):
        normalize_coin(text)


def test_times_and_timeframes_are_read_and_written() -> None:
    assert parse_time("1970-01-02", "start") == DAY_MS
    assert parse_time("1970-01-01T01:00+01:00", "start") == 0
    assert format_time(START + 90_000) == "2024-01-01 00:01:30.000"
    assert format_time(10**20) == "100000000000000000000 ms"
    assert [format_span(timeframe_ms(name)) for name in TIMEFRAMES] == list(TIMEFRAMES)
    assert (format_span(30_000), format_span(1_500)) == ("30s", "1500ms")
    with pytest.raises(ConfigError, match="start = 'soon' must be a UTC date like 2024-01-01"):
        parse_time("soon", "start")
    with pytest.raises(ConfigError, match="timeframe = '7m' must be one of 1m, 3m"):
        timeframe_ms("7m")
