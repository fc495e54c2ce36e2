"""The cache on disk is extended, not fetched again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.market.cache import Ranges, holes, uncovered, union
from core.errors import NetworkError
from core.times import DAY_MS, HOUR_MS, MINUTE_MS
from tests.backtest.test_cache_damage import open_cache
from tests.support.exchanges.public_data import BAR, FEB, JAN, MAR, NOW, FakeBinance, candles, kline


@pytest.fixture
def binance() -> FakeBinance:
    return FakeBinance()


def asked_ranges(binance: FakeBinance) -> Ranges:
    """Return the candle ranges requested, joined, and forget all requests."""
    pages = [(int(q["startTime"]), int(q["endTime"]) + 1) for q in binance.asked("/klines")]
    binance.queries.clear()
    return union(pages)


# --- what is fetched ---------------------------------------------------------------------------


def test_what_is_cached_is_not_fetched_again(binance: FakeBinance, tmp_path: Path) -> None:
    first = binance.fetch(tmp_path, FEB, FEB + DAY_MS)
    binance.queries.clear()
    again = binance.fetch(tmp_path, FEB, FEB + DAY_MS)
    assert binance.queries == [], "not for candles, nor funding, nor rules"
    assert again.data_hash == first.data_hash
    part = binance.fetch(tmp_path, FEB + 5 * BAR, FEB + 9 * BAR)
    assert binance.queries == []
    pd.testing.assert_frame_equal(part.candles, candles(FEB + 5 * BAR, FEB + 9 * BAR))


def test_only_the_missing_ends_are_fetched(binance: FakeBinance, tmp_path: Path) -> None:
    binance.fetch(tmp_path, FEB, FEB + DAY_MS)
    assert asked_ranges(binance) == [(FEB, FEB + DAY_MS)]
    binance.fetch(tmp_path, FEB, FEB + 2 * DAY_MS)
    assert asked_ranges(binance) == [(FEB + DAY_MS, FEB + 2 * DAY_MS)]
    binance.fetch(tmp_path, FEB - DAY_MS, FEB + 2 * DAY_MS)
    assert asked_ranges(binance) == [(FEB - DAY_MS, FEB)]
    market = binance.fetch(tmp_path, FEB - 2 * DAY_MS, FEB + 3 * DAY_MS)
    assert asked_ranges(binance) == [
        (FEB - 2 * DAY_MS, FEB - DAY_MS),
        (FEB + 2 * DAY_MS, FEB + 3 * DAY_MS),
    ]
    expected = candles(FEB - 2 * DAY_MS, FEB + 3 * DAY_MS)
    pd.testing.assert_frame_equal(market.candles, expected)


def test_a_range_apart_leaves_the_middle_for_later(binance: FakeBinance, tmp_path: Path) -> None:
    binance.fetch(tmp_path, JAN, JAN + DAY_MS)
    binance.fetch(tmp_path, FEB, FEB + DAY_MS)
    assert asked_ranges(binance) == [(JAN, JAN + DAY_MS), (FEB, FEB + DAY_MS)]
    market = binance.fetch(tmp_path, JAN, FEB + DAY_MS)
    assert asked_ranges(binance) == [(JAN + DAY_MS, FEB)]
    assert market.gaps == []


def test_a_known_hole_is_not_asked_for_again(binance: FakeBinance, tmp_path: Path) -> None:
    binance.absent = set(range(FEB + HOUR_MS, FEB + 2 * HOUR_MS, BAR))
    binance.fetch(tmp_path, FEB, FEB + DAY_MS)
    binance.queries.clear()
    assert len(binance.fetch(tmp_path, FEB, FEB + DAY_MS).gaps) == 1
    assert binance.queries == []


def test_the_time_before_a_listing_is_not_asked_for_again(tmp_path: Path) -> None:
    binance = FakeBinance(since_ms=FEB)
    market = binance.fetch(tmp_path, FEB - 5 * DAY_MS, FEB + DAY_MS)
    assert int(market.candles["timestamp"].iloc[0]) == FEB
    binance.queries.clear()
    binance.fetch(tmp_path, FEB - 5 * DAY_MS, FEB + DAY_MS)
    assert binance.queries == []


def test_candles_that_are_late_at_the_newest_end_are_asked_for_again(
    binance: FakeBinance, tmp_path: Path
) -> None:
    newest = NOW - NOW % BAR - BAR
    binance.absent = {newest}
    market = binance.fetch(tmp_path, NOW - HOUR_MS, NOW)
    assert int(market.candles["timestamp"].iloc[-1]) == newest - BAR
    binance.absent = set()
    market = binance.fetch(tmp_path, NOW - HOUR_MS, NOW)
    assert int(market.candles["timestamp"].iloc[-1]) == newest


def test_later_runs_fetch_what_has_happened_since(binance: FakeBinance, tmp_path: Path) -> None:
    binance.fetch(tmp_path, MAR, NOW)
    binance.queries.clear()
    binance.now_ms += HOUR_MS
    market = binance.fetch(tmp_path, MAR, binance.now_ms)
    assert len(binance.asked("/klines")) == 1
    newest = NOW - NOW % BAR + 3 * BAR
    pd.testing.assert_frame_equal(market.candles, candles(MAR, newest + BAR))


def test_the_cache_serves_without_a_network(binance: FakeBinance, tmp_path: Path) -> None:
    market = binance.fetch(tmp_path, FEB, FEB + DAY_MS)
    binance.next_answers = [lambda: (401, "{}")] * 99
    again = binance.fetch(tmp_path, FEB, FEB + DAY_MS)
    assert again.data_hash == market.data_hash
    (tmp_path / "markets.json").unlink()
    assert binance.fetch(tmp_path, FEB, FEB + DAY_MS).rules is None


def test_without_a_network_the_error_says_how_far_the_cache_reaches(
    binance: FakeBinance, tmp_path: Path
) -> None:
    binance.fetch(tmp_path, NOW - DAY_MS, NOW)
    later = binance.now_ms = NOW + 2 * DAY_MS
    binance.next_answers = [lambda: (401, "{}")] * 99
    with pytest.raises(NetworkError, match=r"the cache reaches 2024-03-10 08:00: end there"):
        binance.fetch(tmp_path, NOW - DAY_MS, later)
    end_ms = NOW - NOW % DAY_MS + 8 * HOUR_MS
    assert binance.fetch(tmp_path, NOW - DAY_MS, end_ms).gaps == [], "and that is true"
    with pytest.raises(NetworkError, match=r"which need none$"):
        binance.fetch(tmp_path, NOW - 9 * DAY_MS, later)


def test_what_arrived_before_the_network_broke_is_kept(
    binance: FakeBinance, tmp_path: Path
) -> None:
    cache = open_cache(tmp_path / "BTC-15m.parquet")

    def broken(start_ms: int, end_ms: int) -> Iterator[pd.DataFrame]:
        yield candles(start_ms, start_ms + 50 * BAR)
        yield candles(end_ms - 10 * BAR, end_ms)
        raise NetworkError("cable pulled")

    with pytest.raises(NetworkError, match="cable pulled"):
        cache.extend(FEB, FEB + DAY_MS, broken, now_ms=NOW, arrived=lambda _: None)
    binance.fetch(tmp_path, FEB, FEB + DAY_MS)
    (first, last), *others = asked_ranges(binance)
    assert FEB + 49 * BAR < first <= FEB + 50 * BAR
    assert FEB + DAY_MS - 11 * BAR < last <= FEB + DAY_MS - 10 * BAR
    assert others == []


def test_a_market_without_any_rows_is_remembered_too(tmp_path: Path) -> None:
    path = tmp_path / "BTC-15m.parquet"
    nothing: list[tuple[int, int]] = []

    def empty(start_ms: int, end_ms: int) -> Iterator[pd.DataFrame]:
        nothing.append((start_ms, end_ms))
        yield from ()

    for _ in range(2):
        open_cache(path).extend(FEB, MAR, empty, now_ms=NOW, arrived=lambda _: None)
    assert nothing == [(FEB, MAR)] * 2, "looked twice, then never again"


# --- answers that lack something, once ----------------------------------------------------------


def whole(binance: FakeBinance, folder: Path) -> None:
    """Assert that a day of February is complete, and stays so without another request."""
    market = binance.fetch(folder, FEB, FEB + DAY_MS)
    pd.testing.assert_frame_equal(market.candles, candles(FEB, FEB + DAY_MS))
    assert len(market.funding) == 4
    binance.queries.clear()
    binance.fetch(folder, FEB, FEB + DAY_MS)
    assert binance.queries == []


SHORT = json.dumps([kline(time) for time in range(FEB, FEB + 30 * BAR, BAR)])
HOLED = json.dumps(
    [kline(time) for time in range(FEB, FEB + DAY_MS, BAR) if not 10 <= (time - FEB) // BAR < 20]
)


@pytest.mark.parametrize("body", ["[]", SHORT, HOLED], ids=["empty", "short", "holed"])
def test_an_answer_that_lacks_candles_once_leaves_no_gap(
    body: str, binance: FakeBinance, tmp_path: Path
) -> None:
    rules = lambda: binance._usual("/fapi/v1/exchangeInfo", {})  # noqa: E731, SLF001
    binance.next_answers = [rules, lambda: (200, body)]
    whole(binance, tmp_path)


@pytest.mark.parametrize("body", ["[]", SHORT, HOLED], ids=["empty", "short", "holed"])
def test_an_answer_that_lacks_candles_once_on_a_later_download_leaves_no_gap(
    body: str, binance: FakeBinance, tmp_path: Path
) -> None:
    binance.fetch(tmp_path, FEB - DAY_MS, FEB)
    binance.next_answers = [lambda: (200, body)]
    whole(binance, tmp_path)


def test_an_empty_answer_about_funding_once_leaves_no_gap(
    binance: FakeBinance, tmp_path: Path
) -> None:
    usual, empty = binance._usual, ["first"]  # noqa: SLF001 - to spoil one answer

    def spoiled(path: str, query: dict[str, str]) -> tuple[int, str]:
        if path.endswith("/fundingRate") and empty:
            empty.clear()
            return 200, "[]"
        return usual(path, query)

    binance._usual = spoiled  # type: ignore[method-assign]  # noqa: SLF001
    whole(binance, tmp_path)
    assert not empty


def test_a_gap_at_the_ends_of_a_range_is_confirmed_and_remembered(
    binance: FakeBinance, tmp_path: Path
) -> None:
    binance.absent = {
        *range(FEB, FEB + HOUR_MS, BAR),
        *range(FEB + 23 * HOUR_MS, FEB + DAY_MS, BAR),
    }
    market = binance.fetch(tmp_path, FEB, FEB + DAY_MS)
    asked = [(int(q["startTime"]), int(q["endTime"]) + 1) for q in binance.asked("/klines")]
    assert (FEB, FEB + DAY_MS) in asked
    assert (FEB, FEB + HOUR_MS) in asked, "a second look at the beginning"
    assert any(first > FEB + 22 * HOUR_MS for first, _ in asked), "and at the end"
    assert len(market.candles) == 22 * 4
    binance.queries.clear()
    binance.fetch(tmp_path, FEB, FEB + DAY_MS)
    assert binance.queries == []


# --- clocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_ms", [-3 * DAY_MS, -7 * MINUTE_MS, 7 * MINUTE_MS, 3 * DAY_MS])
def test_a_wrong_clock_leaves_a_correct_cache(
    ahead_ms: int, binance: FakeBinance, tmp_path: Path
) -> None:
    binance.ahead_ms = ahead_ms
    market = binance.fetch(tmp_path, NOW - 5 * DAY_MS, NOW + 9 * DAY_MS)
    closed = min(NOW, NOW + ahead_ms) // BAR * BAR
    assert int(market.candles["timestamp"].iloc[-1]) == closed - BAR
    binance.ahead_ms, binance.now_ms = 0, NOW + 2 * DAY_MS
    later = binance.fetch(tmp_path, NOW - 5 * DAY_MS, NOW + 2 * DAY_MS)
    start = -(-(NOW - 5 * DAY_MS) // BAR) * BAR
    expected = candles(start, binance.now_ms // BAR * BAR)
    pd.testing.assert_frame_equal(later.candles, expected)


def test_a_cache_that_an_earlier_version_poisoned_is_downloaded_again(
    binance: FakeBinance, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "BTC-15m.parquet"
    rows = candles(FEB, FEB + 40 * BAR)
    last = np.arange(len(rows)) == 39
    rows["close"] = np.where(last, rows["high"], rows["close"])  # it had not closed
    rows.attrs = {"covered": [(FEB - DAY_MS, NOW + 30 * DAY_MS)]}  # and the rest was not looked at
    rows.to_parquet(path, index=False)
    whole(binance, tmp_path)
    assert "was kept by an earlier version" in caplog.text


def test_what_is_kept_as_of_the_future_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "BTC-15m.parquet"

    def early(start_ms: int, end_ms: int) -> Iterator[pd.DataFrame]:
        yield candles(-(-start_ms // BAR) * BAR, min(end_ms, FEB + DAY_MS))

    ahead = FEB + 40 * DAY_MS
    open_cache(path).extend(FEB, FEB + 9 * DAY_MS, early, now_ms=ahead, arrived=lambda _: None)
    assert open_cache(path).missing(FEB, FEB + 9 * DAY_MS) == []
    now_ms = FEB + 5 * DAY_MS
    open_cache(path).extend(FEB - DAY_MS, FEB, early, now_ms=now_ms, arrived=lambda _: None)
    missing = open_cache(path).missing(FEB, FEB + 9 * DAY_MS)
    assert missing == [(now_ms, FEB + 9 * DAY_MS)]


# --- ranges ------------------------------------------------------------------------------------

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8)


def members(items: Ranges) -> set[int]:
    return {time for first, last in items for time in range(first, last)}


@given(ranges)
def test_a_union_holds_the_same_instants_in_ascending_ranges_apart(items: Ranges) -> None:
    joined = union(items)
    assert members(joined) == members(items)
    flat = [edge for item in joined for edge in item]
    assert flat == sorted(set(flat))


@given(ranges, st.integers(0, 60), st.integers(0, 60))
def test_uncovered_is_what_the_ranges_leave_out(items: Ranges, start: int, end: int) -> None:
    left = uncovered(union(items), start, end)
    assert members(left) == set(range(start, end)) - members(items)
    assert all(first < last for first, last in left)


@given(st.sets(st.integers(0, 29)), st.integers(0, 30), st.integers(0, 30))
def test_holes_are_where_bars_are_missing(present: set[int], start: int, length: int) -> None:
    end = start + length
    inside = sorted(10 * bar for bar in present if start <= bar < end)
    found = holes(np.array(inside, dtype=np.int64), 10 * start, 10 * end, 10)
    missing = {bar for bar in range(start, end) if bar not in present}
    assert {time // 10 for time in members(found) if time % 10 == 0} == missing
