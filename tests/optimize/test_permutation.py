"""Bar permutation: the same bars where they were, with neither direction nor order left."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backtest.optimize.judge.permutation import BLOCK_BARS, p_value, permute_candles
from core.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]
Columns = dict[str, Floats]
NAMES = ("open", "high", "low", "close", "volume")
MOVES = st.floats(-0.05, 0.05)
WICKS = st.floats(0.0, 0.05)


@st.composite
def candles(draw: st.DrawFn) -> Columns:
    """Draw candles with gaps, wicks and equal bars; their volume is their number."""
    n_bars = draw(st.integers(1, 60))
    gaps, bodies = (draw(arrays(np.float64, n_bars, elements=MOVES)) for _ in range(2))
    over, under = (draw(arrays(np.float64, n_bars, elements=WICKS)) for _ in range(2))
    return from_logs(gaps, bodies, over, under, draw(st.floats(1e-4, 1e6)))


def from_logs(gaps: Floats, bodies: Floats, over: Floats, under: Floats, price: float) -> Columns:
    ends = np.log(price) + np.cumsum(gaps + bodies)
    opens, closes = np.exp(ends - bodies), np.exp(ends)
    return {
        "open": opens,
        "high": np.maximum(opens, closes) * np.exp(over),
        "low": np.minimum(opens, closes) * np.exp(-under),
        "close": closes,
        "volume": np.arange(float(len(gaps))),
    }


def permute(columns: Columns, seed: int, block_bars: int = BLOCK_BARS) -> Columns:
    opens, highs, lows, closes, volumes = (columns[name] for name in NAMES)
    return permute_candles(opens, highs, lows, closes, volumes, seed, block_bars)


def bars_of(columns: Columns) -> Floats:
    """Return gap, high, low and close of every bar as log changes, shape (n_bars, 4)."""
    logs = {name: np.log(columns[name]) for name in NAMES[:4]}
    gaps = np.concatenate(([0.0], logs["open"][1:] - logs["close"][:-1]))
    inside = [logs[name] - logs["open"] for name in ("high", "low", "close")]
    return np.column_stack((gaps, *inside))


def simple(n_bars: int, seed: int = 0) -> Columns:
    rng = np.random.default_rng(seed)
    gaps, bodies = rng.normal(0.0, 0.002, (2, n_bars))
    over, under = np.abs(rng.normal(0.0, 0.002, (2, n_bars)))
    return from_logs(gaps, bodies, over, under, 100.0)


def next_bar_correlation(columns: Columns) -> float:
    moves = np.diff(np.log(columns["close"]))
    return float(np.corrcoef(moves[1:], moves[:-1])[0, 1])


# --- properties ---------------------------------------------------------------------------------


@settings(deadline=None)
@given(candles(), st.integers(0, 2**32), st.integers(1, 12))
def test_every_bar_keeps_its_shape_or_its_mirror_image_and_its_volume(
    columns: Columns, seed: int, block_bars: int
) -> None:
    found = permute(columns, seed=seed, block_bars=block_bars)
    order = found["volume"].astype(np.int64)
    assert sorted(order.tolist()) == list(range(len(order)))
    assert order[0] == 0
    bars, was = bars_of(found)[1:], bars_of(columns)[order[1:]]
    mirrored = -was[:, [0, 2, 1, 3]]
    kept, turned = (
        np.isclose(bars, other, atol=1e-9)[:, 1:].all(axis=1) for other in (was, mirrored)
    )
    assert (kept | turned).all()
    # What single bars are too coarse for is spread over all gaps alike.
    drift = (bars[:, 0] - np.where(kept, was[:, 0], mirrored[:, 0]))[kept != turned]
    assert drift == pytest.approx(drift[:1].repeat(drift.size), abs=1e-9)


@settings(deadline=None)
@given(candles(), st.integers(0, 2**32), st.integers(1, 12))
def test_the_first_bar_and_the_last_close_stay(
    columns: Columns, seed: int, block_bars: int
) -> None:
    found = permute(columns, seed=seed, block_bars=block_bars)
    assert all(found[name][0] == columns[name][0] for name in NAMES)
    assert found["close"][-1] == pytest.approx(columns["close"][-1], rel=1e-12)


@settings(deadline=None)
@given(candles(), st.integers(0, 2**32), st.integers(1, 12))
def test_candles_stay_possible_on_a_tick_as_well(
    columns: Columns, seed: int, block_bars: int
) -> None:
    found = permute(columns, seed=seed, block_bars=block_bars)
    for rounded in (found, {name: np.round(found[name] / 0.01) for name in NAMES}):
        assert (rounded["high"] >= np.maximum(rounded["open"], rounded["close"])).all()
        assert (rounded["low"] <= np.minimum(rounded["open"], rounded["close"])).all()
    assert all((found[name] > 0.0).all() for name in NAMES[:4])
    assert all(len(found[name]) == len(columns["open"]) for name in NAMES)


@settings(deadline=None)
@given(candles(), st.integers(0, 2**32), st.integers(1, 12))
def test_a_bar_stays_in_its_block(columns: Columns, seed: int, block_bars: int) -> None:
    order = permute(columns, seed=seed, block_bars=block_bars)["volume"].astype(np.int64)
    assert np.abs(order - np.arange(len(order))).max() < block_bars


@settings(deadline=None)
@given(candles(), st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_candles(columns: Columns, seed: int) -> None:
    first = permute(columns, seed=seed)
    again = permute(columns, seed=seed)
    assert all(np.array_equal(first[name], again[name]) for name in NAMES)


# --- examples -----------------------------------------------------------------------------------


def test_another_seed_gives_another_order() -> None:
    columns = simple(100)
    orders = {tuple(permute(columns, seed=seed)["volume"]) for seed in range(5)}
    assert len(orders) == 5


def test_the_input_is_not_touched() -> None:
    columns = simple(50)
    before = {name: columns[name].copy() for name in NAMES}
    permute(columns, seed=1)
    assert all(np.array_equal(columns[name], before[name]) for name in NAMES)


def test_years_of_candles_end_at_the_same_price() -> None:
    columns = simple(100_000)
    found = permute(columns, seed=1)
    assert found["close"][-1] == pytest.approx(columns["close"][-1], rel=1e-9)


def test_reversion_and_trends_are_destroyed() -> None:
    rng = np.random.default_rng(3)
    still = np.zeros(20_000)
    bouncing = np.diff(rng.normal(0.0, 0.002, 20_001))  # each move is half undone by the next
    trending = np.convolve(rng.normal(0.0, 0.002, 20_001), (1.0, 1.0), "valid")
    for moves, before in ((bouncing, -0.5), (trending, 0.5)):
        columns = from_logs(still, moves, still, still, 100.0)
        assert next_bar_correlation(columns) == pytest.approx(before, abs=0.05)
        assert abs(next_bar_correlation(permute(columns, seed=1))) < 0.03


def test_volatility_stays_where_it_is() -> None:
    rng = np.random.default_rng(4)
    still = np.zeros(9_600)
    level = np.repeat(np.exp(rng.normal(0.0, 0.7, 100)), 96)  # calm days and wild ones
    columns = from_logs(still, 0.002 * level * rng.normal(size=9_600), still, still, 100.0)
    sizes = [
        np.abs(np.diff(np.log(item["close"]), prepend=0.0)[1:-1].reshape(-1, 2)).sum(axis=1)
        for item in (columns, permute(columns, seed=1))
    ]
    by_day = [item[: 47 * 99].reshape(99, -1).mean(axis=1) for item in sizes]
    assert np.corrcoef(*by_day)[0, 1] > 0.99


def test_half_of_the_bars_are_mirrored_and_the_end_costs_few() -> None:
    columns = simple(10_000)
    moves = np.diff(np.log(columns["close"]))
    found = permute(columns, seed=1)
    order = found["volume"].astype(np.int64)[1:]
    turned = np.diff(np.log(found["close"])) * moves[order - 1] < 0.0
    assert 0.47 < turned.mean() < 0.53


def test_a_bar_that_stands_still_may_be_mirrored_for_ever() -> None:
    still = np.zeros(30)
    flat = from_logs(still, still, still, still, 100.0)
    found = permute(flat, seed=1)
    assert all(found[name] == pytest.approx(np.full(30, 100.0)) for name in NAMES[:4])


def test_no_candle_at_all_is_answered_with_none() -> None:
    empty = {name: np.empty(0) for name in NAMES}
    assert all(len(column) == 0 for column in permute(empty, seed=1).values())


@pytest.mark.parametrize("price", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", NAMES[:4])
def test_a_price_that_is_none_is_refused(name: str, price: float) -> None:
    columns = simple(10)
    columns[name][4] = price
    with pytest.raises(DataError, match=f"{name} of bar 4"):
        permute(columns, seed=1)


def test_wrong_arguments_are_refused() -> None:
    columns = simple(10)
    with pytest.raises(ConfigError, match="block_bars = 0"):
        permute(columns, seed=1, block_bars=0)
    with pytest.raises(DataError, match="as long as open"):
        permute(columns | {"low": np.ones(9)}, seed=1)


# --- p value ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observed", "permuted", "expected"),
    [
        (1.0, [0.0] * 99, 0.01),
        (1.0, [0.0, 1.0, 2.0], 0.75),
        (0.5, [], 1.0),
        (math.nan, [0.0] * 99, 1.0),
        (1.0, [math.nan, 0.0, 0.0], 0.5),
        (-math.inf, [math.nan, -math.inf], 1.0),
    ],
)
def test_the_p_value_counts_what_is_unknown_against_the_result(
    observed: float, permuted: list[float], expected: float
) -> None:
    assert p_value(observed, permuted) == expected


@given(st.floats(), st.lists(st.floats(), max_size=50))
def test_the_p_value_is_a_share_and_never_zero(observed: float, permuted: list[float]) -> None:
    least = 1.0 / (len(permuted) + 1)
    assert least <= p_value(observed, permuted) <= 1.0


@given(st.floats(-10.0, 10.0), st.floats(0.0, 10.0), st.lists(st.floats(), max_size=50))
def test_a_better_result_never_has_a_higher_p_value(
    observed: float, gain: float, permuted: list[float]
) -> None:
    assert p_value(observed + gain, permuted) <= p_value(observed, permuted)
