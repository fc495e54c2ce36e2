"""Contracts of the indicators: oracles, hand-worked numbers, causality, inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.adx import calculate_adx
from core.atr import (
    calculate_atr,
    calculate_rolling_mean,
    calculate_rolling_volatility,
    calculate_z_score,
    volume_ratio_series,
)
from core.errors import ConfigError, DataError
from core.kama import calculate_er, calculate_kama
from tests.support.paths import MARKET

COINS = ("BTC", "ETH", "SOL")
BAR_MS = 900_000
FIRST_MS = 1_704_067_200_000  # 2024-01-01 00:00 UTC

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Candles:
    """Columns of a candle table."""

    ts_ms: npt.NDArray[np.int64]
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def from_bar_on(self, k: int, other: Candles) -> Candles:
        """Return these candles with everything but the time replaced from bar ``k`` on."""
        parts = {
            name: np.concatenate((getattr(self, name)[:k], getattr(other, name)[k:]))
            for name in ("high", "low", "close", "volume")
        }
        return Candles(self.ts_ms, **parts)


def random_candles(n: int, seed: int = 0, price: float = 20_000.0) -> Candles:
    """Return a random walk whose volatility comes and goes, so that every regime occurs."""
    rng = np.random.default_rng(seed)
    scale = 0.002 * np.exp(0.8 * np.sin(np.arange(n) / 37.0))
    steps = rng.normal(0.0, 1.0, n) * scale + 0.0015 * np.sin(np.arange(n) / 60.0)
    close = price * np.exp(np.cumsum(steps))
    open_ = np.concatenate(([price], close))[:n]
    high = np.maximum(open_, close) * (1.0 + np.abs(rng.normal(0.0, 0.001, n)))
    low = np.minimum(open_, close) * (1.0 - np.abs(rng.normal(0.0, 0.001, n)))
    return Candles(FIRST_MS + BAR_MS * np.arange(n), high, low, close, rng.exponential(100.0, n))


def real_candles(coin: str, n: int) -> Candles:
    """Return the first ``n`` recorded candles of ``coin``; skip where there are none."""
    path = MARKET / f"{coin}USDT-perp-15m.parquet"
    if not path.exists():
        pytest.skip("recorded market data is not on this machine")
    table = pd.read_parquet(path).head(n)
    names = ("timestamp", "high", "low", "close", "volume")
    return Candles(*(np.array(table[name]) for name in names))


def assert_equals_talib(ours: Floats, talibs: Floats, first: int) -> None:
    """Compare from TA-Lib's first valid bar ``first`` on; before it, both are NaN."""
    assert np.isnan(ours[:first]).all()
    assert np.isnan(talibs[:first]).all()
    np.testing.assert_allclose(ours[first:], talibs[first:], rtol=1e-9, atol=0.0)


INDICATORS: dict[str, Callable[[Candles], Floats]] = {
    "er": lambda c: calculate_er(c.close, period=10),
    "kama": lambda c: calculate_kama(c.close, calculate_er(c.close, period=10)),
    "atr": lambda c: calculate_atr(c.high, c.low, c.close, period=14),
    "adx": lambda c: calculate_adx(c.high, c.low, c.close, period=14),
    "z": lambda c: calculate_z_score(c.close, calculate_atr(c.high, c.low, c.close), period=20),
    "volatility": lambda c: calculate_rolling_volatility(c.close, period=14),
    "mean": lambda c: calculate_rolling_mean(c.volume, window=50, min_count=28),
}
FIRST_BAR = {"er": 10, "kama": 10, "atr": 14, "adx": 27, "z": 19, "volatility": 14, "mean": 27}

walks = st.builds(
    random_candles,
    st.integers(120, 400),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.01, 1.0, 150.0, 60_000.0]),
)


@settings(max_examples=30, deadline=None)
@given(candles=walks, period=st.integers(2, 40))
def test_kama_atr_and_adx_equal_talib_on_random_walks(candles: Candles, period: int) -> None:
    talib = pytest.importorskip("talib")
    high, low, close = candles.high, candles.low, candles.close
    kama = calculate_kama(close, calculate_er(close, period))
    assert_equals_talib(kama, talib.KAMA(close, period), period)
    atr = calculate_atr(high, low, close, period)
    assert_equals_talib(atr, talib.ATR(high, low, close, period), period)
    adx = calculate_adx(high, low, close, period)
    assert_equals_talib(adx, talib.ADX(high, low, close, period), 2 * period - 1)


@pytest.mark.slow
@pytest.mark.parametrize("coin", COINS)
def test_kama_atr_and_adx_equal_talib_on_real_candles(coin: str) -> None:
    talib = pytest.importorskip("talib")
    candles = real_candles(coin, 20_000)
    high, low, close = candles.high, candles.low, candles.close
    assert_equals_talib(calculate_kama(close, calculate_er(close, 10)), talib.KAMA(close, 10), 10)
    assert_equals_talib(calculate_atr(high, low, close, 14), talib.ATR(high, low, close, 14), 14)
    assert_equals_talib(calculate_adx(high, low, close, 14), talib.ADX(high, low, close, 14), 27)


@pytest.mark.parametrize("start", [0, 5, 20, 60])
def test_adx_equals_talib_where_prices_stand_still(start: int) -> None:
    talib = pytest.importorskip("talib")
    candles = random_candles(200, seed=3)
    for column in (candles.high, candles.low, candles.close):
        column[start : start + 70] = candles.close[start]
    ours = calculate_adx(candles.high, candles.low, candles.close, 14)
    assert_equals_talib(ours, talib.ADX(candles.high, candles.low, candles.close, 14), 27)


def test_efficiency_ratio_is_net_move_over_path() -> None:
    er = calculate_er([10.0, 12.0, 11.0, 14.0, 14.0], period=3)
    np.testing.assert_array_equal(er, [math.nan, math.nan, math.nan, 4 / 6, 2 / 4])


def test_efficiency_ratio_is_zero_without_a_path_and_one_on_a_straight_one() -> None:
    np.testing.assert_array_equal(calculate_er([5.0] * 6, period=4)[4:], [0.0, 0.0])
    np.testing.assert_array_equal(calculate_er(np.arange(1.0, 7.0), period=4)[4:], [1.0, 1.0])
    rounded = [1.0 + 1.1 * k for k in range(60)]  # the steps add up to less than the net move
    assert calculate_er(rounded, period=29)[29:].max() == 1.0


@settings(max_examples=50, deadline=None)
@given(closes=st.lists(st.floats(0.001, 1e6), min_size=3, max_size=60), period=st.integers(1, 10))
def test_efficiency_ratio_stays_between_zero_and_one(closes: list[float], period: int) -> None:
    er = calculate_er(closes, period)[period:]
    assert ((er >= 0.0) & (er <= 1.0)).all()


def test_kama_starts_from_the_close_before_the_first_efficiency_ratio() -> None:
    closes = [100.0, 110.0, 130.0, 120.0]
    er = [math.nan, math.nan, 1.0, 0.0]
    first = 110.0 + (2 / 3) ** 2 * (130.0 - 110.0)
    second = first + (2 / 31) ** 2 * (120.0 - first)
    expected = [math.nan, math.nan, first, second]
    kama = calculate_kama(closes, er, fast_period=2, slow_period=30)
    np.testing.assert_allclose(kama, expected, rtol=1e-14)
    assert calculate_kama([100.0, 109.0], [math.nan, 1.0])[1] == pytest.approx(104.0)
    assert calculate_kama([100.0, 109.0], [1.0, 1.0])[0] == 100.0  # nothing before it


def test_atr_is_first_a_mean_and_then_wilders_average() -> None:
    highs, lows, closes = [9.0, 12.0, 13.0, 12.0], [8.0, 10.0, 11.0, 6.0], [8.5, 11.0, 12.0, 7.0]
    # True ranges from bar 1 on: 12-8.5, 13-11, 12-6.
    first = (3.5 + 2.0) / 2
    expected = [math.nan, math.nan, first, first + (6.0 - first) / 2]
    np.testing.assert_array_equal(calculate_atr(highs, lows, closes, period=2), expected)


def test_z_score_counts_atrs_from_the_mean_close() -> None:
    z = calculate_z_score([1.0, 2.0, 6.0, 4.0], [math.nan, 2.0, 1.5, 0.5], period=3)
    np.testing.assert_array_equal(z, [math.nan, math.nan, (6.0 - 3.0) / 1.5, 0.0])


def test_z_score_is_zero_where_atr_is_zero_and_nan_where_it_is_not_warm() -> None:
    nan = math.nan
    z = calculate_z_score([1.0, 2.0, 6.0, 9.0], [nan, 0.0, 0.0, nan], period=2)
    np.testing.assert_array_equal(z, [nan, 0.0, 0.0, nan])
    np.testing.assert_array_equal(calculate_z_score([1.0, nan], [0.0, 0.0], period=2), [nan, nan])


def test_volatility_is_the_sample_deviation_of_log_returns() -> None:
    closes = random_candles(60, seed=1).close
    returns = np.diff(np.log(closes))
    expected = [returns[i - 14 : i].std(ddof=1) for i in range(14, 60)]
    volatility = calculate_rolling_volatility(closes, period=14)
    assert np.isnan(volatility[:14]).all()
    np.testing.assert_allclose(volatility[14:], expected, rtol=1e-10)


def test_volatility_of_flat_prices_is_exactly_zero() -> None:
    assert (calculate_rolling_volatility([7.3] * 30, period=14)[14:] == 0.0).all()


def test_volatility_is_nan_while_a_close_that_is_not_positive_is_in_the_window() -> None:
    volatility = calculate_rolling_volatility([1.0, 2.0, 0.0, 2.0, 3.0, 4.0, 5.0], period=2)
    np.testing.assert_array_equal(np.isnan(volatility), [True] * 5 + [False] * 2)


def slow_rolling_mean(values: Floats, window: int, min_count: int) -> Floats:
    """Return the mean of every window's finite values, each summed afresh and exactly."""
    out = np.full(len(values), math.nan)
    for i in range(len(values)):
        finite = [v for v in values[max(0, i - window + 1) : i + 1] if math.isfinite(v)]
        if len(finite) >= min_count:
            out[i] = math.fsum(finite) / len(finite)
    return out


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(1e-3, 1e12) | st.sampled_from([0.0, math.nan]), max_size=120),
    window=st.integers(1, 50),
    min_count=st.integers(1, 30),
)
def test_rolling_mean_equals_the_mean_of_each_window(
    values: list[float], window: int, min_count: int
) -> None:
    column = np.array(values, dtype=np.float64)
    expected = slow_rolling_mean(column, window, min_count)
    actual = calculate_rolling_mean(values, window, min_count)
    np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=0.0)


def test_rolling_mean_needs_28_finite_values_and_looks_back_672_bars() -> None:
    values = random_candles(1_500, seed=2).volume
    values[:14] = math.nan
    mean = calculate_rolling_mean(values)
    assert np.isnan(mean[:41]).all()
    assert mean[41] == pytest.approx(values[14:42].mean(), rel=1e-12)
    assert mean[1_400] == pytest.approx(values[1_400 - 671 : 1_401].mean(), rel=1e-12)


def test_rolling_mean_does_not_remember_where_the_series_began() -> None:
    values = random_candles(3_000, seed=4).volume * 1e-3
    values[:500] *= 1e9  # a plain running sum keeps a trace of these for ever
    whole = calculate_rolling_mean(values)
    late = calculate_rolling_mean(values[1_200:])
    np.testing.assert_array_equal(whole[1_200 + 671 :], late[671:])


def test_rolling_mean_of_zeros_is_exactly_zero_after_other_values_left() -> None:
    values = np.concatenate((random_candles(40, seed=5).volume * 1e25, [0.1] * 40, np.zeros(60)))
    assert (calculate_rolling_mean(values, window=50, min_count=28)[-11:] == 0.0).all()


def test_volume_ratio_is_one_where_nothing_was_traded() -> None:
    ratio = volume_ratio_series(np.array([0.0, 0.0, 4.0, 2.0]), 3, 2)
    np.testing.assert_array_equal(ratio, [math.nan, 1.0, 4.0 / (4.0 / 3.0), 1.0])


@pytest.mark.parametrize("name", INDICATORS)
def test_first_value_is_where_the_indicator_is_warm(name: str) -> None:
    values = INDICATORS[name](random_candles(100))
    assert np.isnan(values[: FIRST_BAR[name]]).all()
    assert np.isfinite(values[FIRST_BAR[name] :]).all()


@pytest.mark.parametrize("name", INDICATORS)
@settings(max_examples=15, deadline=None)
@given(k=st.integers(0, 299), seed=st.integers(0, 1_000))
def test_bars_from_k_on_change_no_value_before_k(name: str, k: int, seed: int) -> None:
    candles = random_candles(300, seed)
    changed = candles.from_bar_on(k, random_candles(300, seed + 1, price=77.0))
    before, after = INDICATORS[name](candles), INDICATORS[name](changed)
    assert before[:k].tobytes() == after[:k].tobytes()
    if k < 250:
        assert before.tobytes() != after.tobytes()


@pytest.mark.parametrize("name", INDICATORS)
@pytest.mark.parametrize("n", [0, 1, 5])
def test_too_few_bars_give_nan(name: str, n: int) -> None:
    values = INDICATORS[name](random_candles(n))
    assert values.shape == (n,)
    assert values.dtype == np.float64
    assert np.isnan(values).all()


@pytest.mark.parametrize("name", INDICATORS)
def test_flat_prices_are_no_error(name: str) -> None:
    flat = np.full(100, 3.7)
    candles = Candles(FIRST_MS + BAR_MS * np.arange(100), flat, flat, flat, np.zeros(100))
    expected = {"kama": 3.7}.get(name, 0.0)
    assert (INDICATORS[name](candles)[FIRST_BAR[name] :] == expected).all()


@pytest.mark.parametrize("name", ["er", "volatility", "adx"])
def test_ratios_do_not_depend_on_the_unit_of_price(name: str) -> None:
    candles = random_candles(200, seed=6)
    scaled = Candles(
        candles.ts_ms, candles.high * 1e3, candles.low * 1e3, candles.close * 1e3, candles.volume
    )
    np.testing.assert_allclose(INDICATORS[name](scaled), INDICATORS[name](candles), rtol=1e-9)


def test_lists_series_and_whole_numbers_are_accepted_and_left_alone() -> None:
    closes = [100, 103, 101, 104, 108, 107]
    series = pd.Series(closes)
    frozen = np.array(closes, dtype=np.float64)
    frozen.flags.writeable = False
    results = {calculate_er(form, period=2).tobytes() for form in (closes, series, frozen)}
    assert len(results) == 1
    assert series.tolist() == closes


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match=r"highs 3, lows 2, closes 3.*columns of one table"):
        calculate_atr([1.0, 2.0, 3.0], [1.0, 2.0], [1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    ("closes", "message"),
    [(np.ones((3, 2)), r"closes has shape \(3, 2\)"), (["1", "up"], "closes .* not a number")],
)
def test_what_is_not_a_column_of_numbers_is_refused(closes: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        calculate_er(cast(npt.ArrayLike, closes))


@pytest.mark.parametrize("period", [1, 0, -3, 2.5, True])
def test_a_period_that_is_no_number_of_bars_is_refused(period: int) -> None:
    with pytest.raises(ConfigError, match=r"period = .* must be a whole number of at least 2 bars"):
        calculate_rolling_volatility([1.0, 2.0], period)
