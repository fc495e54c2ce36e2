"""Walk-forward windows: nothing a test is judged on was trained on, and the holdout is apart."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backtest.optimize.trial.space import read_space
from backtest.optimize.trial.windows import (
    MIN_TEST_BARS,
    MIN_TRAIN_BARS,
    TRAIN_SHARE,
    Plan,
    longest_purge,
    plan_shared,
    plan_windows,
)
from core.errors import ConfigError, DataError
from core.params import PruneRule
from core.times import DAY_MS
from engine.strategy import read_config
from tests.support.markets.synthetic import BAR_MS, FIRST_MS

SIZES = {
    "n_bars": st.integers(0, 200_000),
    "first_bar": st.integers(0, 5_000),
    "windows": st.integers(1, 12),
    "holdout": st.one_of(st.just(0.15), st.floats(0.0, 0.5)),
    "purge_bars": st.integers(0, 4_000),
}
POSSIBLE = {
    **SIZES,
    "n_bars": st.integers(150_000, 300_000),
    "windows": st.integers(1, 6),
    "purge_bars": st.integers(0, 1_000),
}
"""Sizes of which most allow a plan."""
SHIPPED = read_config(None)
FIXED = read_space({"gamma": {"type": "float", "low": 0.3, "high": 2.0}})


def try_plan(**sizes: float) -> Plan | None:
    try:
        return plan_windows(**sizes)  # type: ignore[arg-type]  # drawn by name
    except DataError:
        return None


@given(**POSSIBLE)
@pytest.mark.slow
def test_train_purge_test_and_holdout_never_overlap(
    n_bars: int, first_bar: int, windows: int, holdout: float, purge_bars: int
) -> None:
    plan = try_plan(
        n_bars=n_bars, first_bar=first_bar, windows=windows, holdout=holdout, purge_bars=purge_bars
    )
    assume(plan is not None)
    assert plan is not None
    assert len(plan.windows) == windows
    assert plan.windows[0].train_end - first_bar >= MIN_TRAIN_BARS
    for window in plan.windows:
        assert window.test_start - window.train_end == purge_bars
        assert window.test_end - window.test_start >= MIN_TEST_BARS
    for earlier, later in pairwise(plan.windows):
        assert earlier.test_end <= later.train_end
    assert plan.windows[-1].test_end == plan.holdout_start
    assert 0 <= n_bars - plan.holdout_start - holdout * (n_bars - first_bar) <= 1


@given(**POSSIBLE)
def test_pieces_are_equally_long_and_trained_on_to_seventy_percent(
    n_bars: int, first_bar: int, windows: int, holdout: float, purge_bars: int
) -> None:
    plan = try_plan(
        n_bars=n_bars, first_bar=first_bar, windows=windows, holdout=holdout, purge_bars=purge_bars
    )
    assume(plan is not None)
    assert plan is not None
    edges = [first_bar, *(window.test_end for window in plan.windows)]
    lengths = [stop - start for start, stop in pairwise(edges)]
    assert max(lengths) - min(lengths) <= 1
    for start, length, window in zip(edges, lengths, plan.windows, strict=False):
        assert abs(window.train_end - start - TRAIN_SHARE * length) <= 1


@given(**SIZES)
def test_too_many_windows_name_the_most_that_are_possible_and_what_would_do(
    n_bars: int, first_bar: int, windows: int, holdout: float, purge_bars: int
) -> None:
    def plan(count: int, bars: int) -> Plan:
        return plan_windows(bars, first_bar, count, holdout, purge_bars)

    try:
        plan(windows, n_bars)
    except DataError as error:
        text = str(error)
    else:
        assume(False)
    possible = re.search(r"at most (\d+) for", text)
    if possible:
        most = int(possible[1])
        assert len(plan(most, n_bars).windows) == most < windows
        with pytest.raises(DataError):
            plan(most + 1, n_bars)
    else:
        assert "too few for any window" in text
        with pytest.raises(DataError):
            plan(1, n_bars)
    needed = re.search(r"dates with about (\d+) bars", text)
    assert needed
    assert plan(windows, first_bar + int(needed[1]))


def test_an_absurd_number_of_windows_is_refused_at_once() -> None:
    with pytest.raises(DataError, match="must be at most 4 "):
        plan_windows(24_000, 0, 10**12, 0.15, 960)


@pytest.mark.parametrize("windows", [0, -1, 2.5, True])
def test_the_number_of_windows_must_be_a_whole_positive_number(windows: int) -> None:
    with pytest.raises(ConfigError, match=f"windows = {windows!r}"):
        plan_windows(100_000, 0, windows, 0.15, 960)


@pytest.mark.parametrize("holdout", [-0.1, 0.51, float("nan")])
def test_the_holdout_must_be_a_share_of_at_most_half(holdout: float) -> None:
    with pytest.raises(ConfigError, match=f"holdout = {holdout!r}"):
        plan_windows(100_000, 0, 4, holdout, 960)


# --- the purge -----------------------------------------------------------------------------------


def test_the_purge_is_the_longest_holding_time_and_the_longest_memory() -> None:
    assert SHIPPED.max_position_age_hours == 72.0
    assert longest_purge(SHIPPED, FIXED, BAR_MS) == 72 * 4 + 672


def test_without_pruning_by_age_a_position_counts_as_held_for_a_week() -> None:
    params = replace(SHIPPED, prune_enabled=PruneRule.GAP)
    assert longest_purge(params, FIXED, BAR_MS) == 672 + 672


def test_the_mixture_remembers_its_window_and_its_return() -> None:
    params = replace(SHIPPED, use_ml_regime=True)
    assert longest_purge(params, FIXED, BAR_MS) == 72 * 4 + 2_880 + 24


def test_periods_of_the_trend_count_in_candles_of_its_timeframe() -> None:
    params = replace(SHIPPED, kama_slow=200, regime_timeframe_mult=16)
    assert longest_purge(params, FIXED, BAR_MS) == 72 * 4 + 3_200


def test_the_largest_values_of_the_space_count() -> None:
    space = read_space(
        {
            "max_position_age_hours": {"type": "float", "low": 6.0, "high": 100.1},
            "use_ml_regime": {"type": "cat", "choices": [False, True]},
            "prune_enabled": {"type": "cat", "choices": ["GAP", "OLDEST"]},
        }
    )
    assert longest_purge(SHIPPED, space, BAR_MS) == 672 + 2_904  # a week, where age is not pruned
    only_old = read_space({"max_position_age_hours": {"type": "float", "low": 6.0, "high": 200.1}})
    assert longest_purge(SHIPPED, only_old, BAR_MS) == 801 + 672


# --- one plan for several coins ------------------------------------------------------------------

GRID = FIRST_MS + BAR_MS * np.arange(12_000)


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.integers(0, 3_000), st.integers(0, 1_500))
def test_coins_with_holes_and_late_starts_share_the_windows_in_time(
    seed: int, late: int, early: int
) -> None:
    rng = np.random.default_rng(seed)
    loaded = {
        "A": GRID[rng.random(GRID.size) > 0.01],
        "B": GRID[late:][rng.random(GRID.size - late) > 0.02],
        "C": GRID[: GRID.size - early],
    }
    shared = plan_shared(loaded, BAR_MS, 2, 0.15, 100)
    for times in loaded.values():
        own, plan = shared.for_coin(times), shared.plan
        assert times[own.first_bar] == shared.start_ms
        assert shared.holdout_ms == times[own.holdout_start]
        for mine, common in zip(own.windows, plan.windows, strict=True):
            assert times[mine.train_end] == shared.time_of(common.train_end)
            assert mine.test_start - mine.train_end >= plan.purge_bars
            assert mine.test_end - mine.test_start >= MIN_TEST_BARS
            assert times[mine.test_start - 1] < shared.time_of(common.test_start)
        assert own.windows[-1].test_end == own.holdout_start < own.n_bars <= len(times)


def test_days_end_at_their_last_common_bar_before_the_holdout() -> None:
    # A hole over a whole day and one over the end of a day.
    kept = np.ones(GRID.size, np.bool_)
    kept[960:1_056] = False
    kept[2_000:2_020] = False
    shared = plan_shared({"A": GRID, "B": GRID[kept]}, BAR_MS, 2, 0.15, 100)
    ends = shared.day_ends_ms
    assert len(shared.days_ms) == len(ends) == len(set(shared.days_ms.tolist()))
    assert GRID[960] not in shared.days_ms  # 10 days after the first bar
    assert np.all(np.diff(shared.days_ms) % DAY_MS == 0)
    assert np.all((ends >= shared.days_ms) & (ends < shared.days_ms + DAY_MS))
    assert np.all(ends < shared.holdout_ms)
    assert ends[-1] == shared.times_ms[shared.plan.holdout_start - 1]
    cut_short = ends[shared.days_ms == GRID[1_920]]
    assert cut_short == [GRID[1_999]]


def test_without_a_holdout_the_plan_reaches_the_last_close() -> None:
    shared = plan_shared({"A": GRID}, BAR_MS, 2, 0.0, 100)
    assert shared.holdout_ms == shared.end_ms == GRID[-1] + BAR_MS
    assert shared.for_coin(GRID).holdout_start == GRID.size


def test_coins_without_a_common_bar_are_refused_with_their_ranges() -> None:
    with pytest.raises(DataError, match=r"no candle in common: A 2024-01-01 00:00 to .*, B 2024"):
        plan_shared({"A": GRID[:100], "B": GRID[200:]}, BAR_MS, 2, 0.15, 100)


def test_too_few_common_bars_name_the_coins_ranges() -> None:
    with pytest.raises(DataError, match=r"too few for any window.*all coins have count: A 2024"):
        plan_shared({"A": GRID, "B": GRID[10_000:]}, BAR_MS, 2, 0.15, 100)
