"""The demo market: always the same, and with everything a grid has to live through."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.market.demo import BAR_MS, DEMO_COINS, DEMO_END_MS, DEMO_START_MS, demo_market
from backtest.market.demo_minutes import MINUTES_PER_BAR, Bars, split_into_minutes
from backtest.market.timeframes import parse_time
from core.errors import DataError
from core.frames import check_candles, check_funding
from core.times import DAY_MS, HOUR_MS, MINUTE_MS

BARS_PER_DAY = DAY_MS // BAR_MS
DETAIL_FROM = parse_time("2024-08-15", "start")


@pytest.mark.parametrize(
    ("coin", "data_hash"),
    [("BTC", "c4d3c3dbdbd4c341"), ("ETH", "8bc0b3d23fd84b8f"), ("SOL", "08f4eaa20b1f032d")],
)
def test_the_demo_market_is_the_same_on_every_machine(coin: str, data_hash: str) -> None:
    assert demo_market(coin).data_hash == data_hash


@pytest.mark.parametrize("coin", DEMO_COINS)
def test_candles_and_funding_are_valid_and_without_gaps(coin: str) -> None:
    market = demo_market(coin)
    check_candles(market.candles, "demo", BAR_MS)
    check_funding(market.funding, "demo")
    assert market.gaps == []
    assert market.zero_volume_bars == 0
    assert market.source == "demo"
    times = market.candles["timestamp"].to_numpy()
    assert times[0] <= parse_time("2024-01-01", "start") - 3_000 * BAR_MS, "room for the warm-up"
    assert times[-1] + BAR_MS == DEMO_END_MS == parse_time("2026-01-01", "end")
    settled = market.funding["timestamp"].to_numpy()
    assert settled.tolist() == list(range(DEMO_START_MS, DEMO_END_MS + 1, 8 * HOUR_MS))


@pytest.mark.parametrize("coin", DEMO_COINS)
def test_prices_are_on_the_tick_and_volumes_on_the_lot(coin: str) -> None:
    market = demo_market(coin)
    assert market.rules is not None
    for column in ("open", "high", "low", "close"):
        values = market.candles[column].to_numpy()
        decimals = round(-np.log10(market.rules["tick_size"]))
        assert np.array_equal(values, np.round(values, decimals))
    volume = market.candles["volume"].to_numpy()
    assert np.array_equal(volume, np.round(volume, round(-np.log10(market.rules["step_size"]))))


@pytest.mark.parametrize("coin", DEMO_COINS)
def test_a_crash_of_thirty_percent_in_a_day_is_recovered_from(coin: str) -> None:
    candles = demo_market(coin).candles
    close = candles["close"].to_numpy()
    over_a_day = close[BARS_PER_DAY:] / close[:-BARS_PER_DAY] - 1.0
    bottom = int(over_a_day.argmin()) + BARS_PER_DAY
    assert over_a_day.min() < -0.30
    widest = ((candles["high"] - candles["low"]) / candles["open"]).to_numpy()
    assert widest.max() > 0.15
    assert abs(int(widest.argmax()) - bottom) < BARS_PER_DAY
    assert close[bottom : bottom + 25 * BARS_PER_DAY].max() > 1.25 * close[bottom]


@pytest.mark.parametrize("coin", DEMO_COINS)
def test_there_are_uptrends_downtrends_and_ranges(coin: str) -> None:
    close = demo_market(coin).candles["close"].to_numpy()
    monthly = close[30 * BARS_PER_DAY :: BARS_PER_DAY] / close[: -30 * BARS_PER_DAY : BARS_PER_DAY]
    assert np.mean(monthly > 1.15) > 0.10
    assert np.mean(monthly < 0.87) > 0.08
    assert np.mean(np.abs(monthly - 1.0) < 0.08) > 0.25


@pytest.mark.parametrize("coin", DEMO_COINS)
def test_wild_bars_come_in_clusters(coin: str) -> None:
    size = np.abs(np.diff(np.log(demo_market(coin).candles["close"].to_numpy())))
    for lag in (1, 4, 24):
        assert np.corrcoef(size[:-lag], size[lag:])[0, 1] > 0.08


@pytest.mark.parametrize("coin", DEMO_COINS)
def test_most_bars_open_at_the_last_close(coin: str) -> None:
    candles = demo_market(coin).candles
    off = candles["open"].to_numpy()[1:] != candles["close"].to_numpy()[:-1]
    assert 50 < off.sum() < 500


@pytest.mark.parametrize("coin", DEMO_COINS)
def test_volume_follows_the_hour_of_the_day(coin: str) -> None:
    candles = demo_market(coin).candles
    hourly = candles.groupby(candles["timestamp"] // HOUR_MS % 24)["volume"].mean()
    assert hourly.idxmax() in {14, 15}
    assert hourly.max() > 2.0 * hourly.min()


@pytest.mark.parametrize("coin", DEMO_COINS)
def test_funding_goes_with_the_premium_known_at_the_settlement(coin: str) -> None:
    market = demo_market(coin)
    close = market.candles["close"]
    premium = (close / close.rolling(96).mean() - 1.0).to_numpy()
    settled_at = ((market.funding["timestamp"] - DEMO_START_MS) // BAR_MS).to_numpy()
    known = settled_at >= 96
    rates = market.funding["rate"].to_numpy()
    assert np.corrcoef(rates[known], premium[settled_at[known] - 1])[0, 1] > 0.8
    assert np.abs(rates).max() <= 0.003
    assert np.mean(rates > 0.0003) > 0.02
    assert np.mean(rates < 0.0) > 0.05


def test_coins_move_together_but_not_alike() -> None:
    returns = [
        np.diff(np.log(demo_market(coin).candles["close"].to_numpy())) for coin in DEMO_COINS
    ]
    between = np.corrcoef(returns)[np.triu_indices(3, 1)]
    assert between.min() > 0.4
    assert between.max() < 0.95


@pytest.mark.parametrize("detail", [False, True])
def test_a_window_is_a_part_of_the_whole(*, detail: bool) -> None:
    end_ms = DETAIL_FROM + 10 * DAY_MS
    wide = demo_market("BTC", DETAIL_FROM, end_ms, detail=detail)
    part = demo_market("btc/usdt", DETAIL_FROM + 3 * DAY_MS - 7, end_ms - DAY_MS, detail=detail)
    inside = wide.candles["timestamp"].between(DETAIL_FROM + 3 * DAY_MS, end_ms - DAY_MS - 1)
    pd.testing.assert_frame_equal(part.candles, wide.candles[inside].reset_index(drop=True))
    assert int(part.funding["timestamp"].iloc[-1]) == end_ms - DAY_MS, "meets the last bar"
    if detail:
        assert part.detail is not None
        assert wide.detail is not None
        offset = 3 * DAY_MS // MINUTE_MS
        expected = wide.detail.iloc[offset : offset + len(part.detail)].reset_index(drop=True)
        pd.testing.assert_frame_equal(part.detail, expected)
        assert len(part.detail) == len(part.candles) * 15


@pytest.mark.parametrize("coin", DEMO_COINS)
def test_minutes_add_up_to_their_candle_exactly(coin: str) -> None:
    market = demo_market(coin, DETAIL_FROM, DETAIL_FROM + 10 * DAY_MS, detail=True)
    assert market.detail is not None
    check_candles(market.detail, "detail", MINUTE_MS)
    groups = market.detail.groupby(market.detail["timestamp"] // BAR_MS * BAR_MS)
    ends = {"open": "first", "high": "max", "low": "min", "close": "last"}
    summed = groups.agg(ends).reset_index()
    pd.testing.assert_frame_equal(summed, market.candles[["timestamp", *ends]], check_exact=True)
    assert market.rules is not None
    lots = groups["volume"].sum().to_numpy() / market.rules["step_size"]
    expected = market.candles["volume"].to_numpy() / market.rules["step_size"]
    assert np.array_equal(np.rint(lots), np.rint(expected))


def bar_strategy() -> st.SearchStrategy[tuple[int, int, int, int, int]]:
    prices = st.lists(st.integers(1, 400), min_size=4, max_size=4).map(sorted)
    volume = st.integers(0, 10**9)
    return st.tuples(prices, st.booleans(), volume).map(
        lambda drawn: (
            drawn[0][1 + drawn[1]],
            drawn[0][3],
            drawn[0][0],
            drawn[0][2 - drawn[1]],
            drawn[2],
        )
    )


@settings(max_examples=60)
@given(st.lists(bar_strategy(), min_size=1, max_size=6), st.integers(0, 10_000))
def test_any_bar_is_split_exactly(rows: list[tuple[int, ...]], first_bar: int) -> None:
    table = np.array(rows, dtype=np.int64)
    bars = Bars(*table.T)
    minutes = split_into_minutes(bars, first_bar, seed=1)
    shape = (len(rows), MINUTES_PER_BAR)
    opens, highs, lows, closes, volumes = (
        getattr(minutes, name).reshape(shape) for name in ("open", "high", "low", "close", "volume")
    )
    assert np.array_equal(opens[:, 0], bars.open)
    assert np.array_equal(closes[:, -1], bars.close)
    assert np.array_equal(opens[:, 1:], closes[:, :-1])
    assert np.array_equal(highs.max(axis=1), bars.high)
    assert np.array_equal(lows.min(axis=1), bars.low)
    assert np.array_equal(volumes.sum(axis=1), bars.volume)
    assert (volumes >= 0).all()
    assert (lows <= np.minimum(opens, closes)).all()
    assert (highs >= np.maximum(opens, closes)).all()


def test_other_coins_are_refused_with_those_there_are() -> None:
    with pytest.raises(DataError, match="the demo has no coin DOGE; it has: BTC, ETH, SOL"):
        demo_market("DOGE")


def test_a_range_outside_the_demo_is_refused() -> None:
    with pytest.raises(DataError, match="the demo runs from 2023-11-30 00:00 to 2026-01-01 00:00"):
        demo_market("BTC", DEMO_END_MS, DEMO_END_MS + DAY_MS)
    whole = demo_market("BTC", DEMO_START_MS - DAY_MS, DEMO_END_MS + DAY_MS)
    assert whole.data_hash == demo_market("BTC").data_hash
