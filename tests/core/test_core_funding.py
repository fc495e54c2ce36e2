"""Funding: which rate is due and known when, holes in the record, the model, its consequences."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.funding import (
    FundingSchedule,
    funding_harvest_factor,
    funding_spacing_factor,
    generate_synthetic_funding_rates,
    schedule_funding,
)
from tests.support.markets.oracle import settlements
from tests.support.markets.synthetic import (
    BAR_MS,
    FIRST_MS,
    HOUR_MS,
    SEEDS,
    one_of,
    synthetic_candles,
)

PER_HOUR = 4  # bars
DAY_MS = 24 * HOUR_MS


def schedule(
    hours: int, real: list[tuple[float, float]], *, closes: Any = None, drop: Any = ()
) -> FundingSchedule:
    """Lay settlements (hours after the first bar's open, rate) onto ``hours`` of bars."""
    times = FIRST_MS + BAR_MS * np.delete(np.arange(hours * PER_HOUR), drop)
    prices = np.full(times.size, 100.0) if closes is None else closes
    settled = np.array([FIRST_MS + round(hour * HOUR_MS) for hour, _ in real], dtype=np.int64)
    rates = np.array([rate for _, rate in real], dtype=np.float64)
    return schedule_funding(times, prices, settled, rates)


def due(result: FundingSchedule) -> dict[float, float]:
    """Return the hour of each bar that pays -> its rate."""
    return {int(i) / PER_HOUR: float(result.due[i]) for i in np.flatnonzero(result.due)}


def test_a_rate_is_due_in_the_bar_it_ends_and_known_from_the_next() -> None:
    result = schedule(12, [(0.0, 0.1), (8.0, 0.2)])
    assert due(result) == {7.75: 0.2}
    assert result.known.tolist() == [0.1] * 32 + [0.2] * 16
    assert (result.n_real, result.n_synthetic, result.source) == (1, 0, "real")


def test_what_is_settled_with_the_last_close_is_due_in_the_last_bar() -> None:
    assert due(schedule(8, [(0.0, 0.1), (8.0, 0.2)])) == {7.75: 0.2}
    assert due(schedule(8, [(0.0, 0.1), (8.25, 0.2)])) == {}


def test_every_two_hours_means_every_two_hours() -> None:
    result = schedule(8, [(2.0 * k, 0.01 * (k + 1)) for k in range(5)])
    assert due(result) == pytest.approx({1.75: 0.02, 3.75: 0.03, 5.75: 0.04, 7.75: 0.05})
    assert result.known[[8, 15, 16]].tolist() == [0.02, 0.02, 0.03]


@pytest.mark.parametrize(
    ("late_ms", "bar"), [(0, 31), (7, 31), (59_999, 31), (60_000, 32), (900_000, 32)]
)
def test_times_are_floored_to_the_minute(late_ms: int, bar: int) -> None:
    result = schedule(12, [(0.0, 0.0), (8.0 + late_ms / HOUR_MS, 0.2)])
    assert np.flatnonzero(result.due).tolist() == [bar]
    assert np.flatnonzero(result.known).tolist() == list(range(bar + 1, 48))


def test_the_last_settled_rate_counts_for_a_day_inclusive() -> None:
    for age in (20.0, 24.0):
        known = schedule(6, [(-age, 0.3)]).known.tolist()
        still = round((24.0 - age) * PER_HOUR) + 1
        assert known == [0.3] * still + [0.0] * (24 - still)
    assert schedule(4, [(-24.25, 0.3)]).known.tolist() == [0.0] * 16


def test_settlements_inside_a_gap_of_the_candles_are_all_due_before_it() -> None:
    drop = np.arange(7 * PER_HOUR, 19 * PER_HOUR)  # 07:00 to 19:00
    result = schedule(24, [(0.0, 0.1), (8.0, 0.2), (16.0, 0.4), (20.0, 0.8)], drop=drop)
    assert np.flatnonzero(result.due).tolist() == [27, 31]
    assert result.due[[27, 31]].tolist() == pytest.approx([0.6, 0.8])
    assert result.known[[27, 28, 32]].tolist() == [0.1, 0.4, 0.8]


def test_a_rate_that_is_missing_is_not_a_settlement() -> None:
    assert due(schedule(12, [(0.0, 0.1), (4.0, math.nan), (8.0, 0.2)])) == {7.75: 0.2}


def test_order_does_not_matter() -> None:
    assert due(schedule(12, [(8.0, 0.2), (0.0, 0.1), (4.0, 0.3)])) == {3.75: 0.3, 7.75: 0.2}


# --- holes --------------------------------------------------------------------------------------


def test_the_model_begins_a_day_after_the_last_real_settlement() -> None:
    assert schedule(47, [(0.0, 0.1), (24.0, 0.2)]).n_synthetic == 0
    result = schedule(60, [(0.0, 0.1), (49.0, 0.2)])
    modelled = {hour - 0.25: 0.0001 for hour in (24, 32, 40, 48)}
    assert due(result) == pytest.approx({**modelled, 48.75: 0.2})
    assert (result.n_real, result.n_synthetic) == (1, 4)
    assert result.source == "real, 80% of settlements modelled"


@pytest.mark.parametrize("back", [25.0, 30.0, 33.0, 70.0, 1_000.0])
def test_when_real_rates_return_changes_nothing_before(back: float) -> None:
    """Hours after the last real one, whether or not more follow: the same rates are known."""
    hours = 80
    known = schedule(hours, [(0.0, 0.1), (4.0, 0.2), (back, 0.3)]).known
    never = schedule(hours, [(0.0, 0.1), (4.0, 0.2)]).known
    same = min(hours, round(back)) * PER_HOUR
    assert known[:same].tolist() == never[:same].tolist()
    assert known[28 * PER_HOUR - 1] == (0.2 if not back < 28.0 else 0.3)
    assert never[32 * PER_HOUR] == pytest.approx(0.0001)  # the first slot a day after 04:00


def test_before_the_first_real_settlement_the_model_serves() -> None:
    result = schedule(80, [(30.0, 0.1), (50.0, 0.2)])
    assert sorted(due(result)) == [7.75, 15.75, 23.75, 29.75, 49.75, 79.75]
    assert schedule(47, [(24.0, 0.1)]).n_synthetic == 2
    assert schedule(30, [(-1.0, 0.3), (25.0, 0.1)]).n_synthetic == 1  # at 24:00, 25 h after
    assert schedule(30, [(-25.0, 0.3), (25.0, 0.1)]).n_synthetic == 3  # it counts for nothing


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-30, 130), max_size=12, unique=True), st.integers(1, 120 * PER_HOUR - 1)
)
def test_what_is_known_follows_from_the_settlements_up_to_then(hours: list[int], bar: int) -> None:
    real = [(float(hour), 0.01 * (k + 1)) for k, hour in enumerate(sorted(hours))]
    past = [(hour, rate) for hour, rate in real if hour <= bar / PER_HOUR]
    whole, cut = schedule(120, real), schedule(120, past)
    assert whole.known[: bar + 1].tolist() == cut.known[: bar + 1].tolist()
    assert whole.due[:bar].tolist() == cut.due[:bar].tolist()


def test_a_series_of_its_own_is_modelled_throughout() -> None:
    result = schedule(20, [])
    assert due(result) == pytest.approx({7.75: 0.0001, 15.75: 0.0001})
    assert (result.n_real, result.n_synthetic, result.source) == (0, 2, "modelled")
    assert schedule(4, []).source == "none due"
    assert schedule(0, []).due.size == 0


def test_the_modelled_rate_follows_the_premium_of_the_close_and_is_clamped() -> None:
    closes = np.full(40 * PER_HOUR, 100.0)
    closes[31] = 100.5  # the bar that closes at 08:00, of 32 then closed
    closes[63], closes[95] = 130.0, 70.0
    rates = schedule(40, [], closes=closes).due
    mean = (31 * 100.0 + 100.5) / 32
    assert rates[31] == pytest.approx(0.0001 + 0.02 * (100.5 / mean - 1.0), rel=1e-12)
    assert (rates[63], rates[95]) == (0.0003, -0.0003)
    window = closes[32:128]  # 96 closes: the first 32 are out of it by 08:00 of the next day
    assert rates[127] == pytest.approx(0.0001 + 0.02 * (100.0 / window.mean() - 1.0), rel=1e-12)


def test_synthetic_rates_stand_at_settlement_hours_and_know_no_later_close() -> None:
    candles = synthetic_candles(600, 3)
    times, closes = candles["timestamp"].to_numpy(), candles["close"].to_numpy()
    rates = generate_synthetic_funding_rates(times, closes)
    at = np.flatnonzero(np.isfinite(rates))
    assert at.tolist() == [i for i in range(1, 600) if times[i] % (8 * HOUR_MS) == 0]
    assert (np.abs(rates[at]) <= 0.0003).all()
    assert len(set(rates[at].tolist())) > 3
    for k in at.tolist():
        other = np.concatenate((closes[:k], 3.0 * closes[k:]))
        assert np.array_equal(
            generate_synthetic_funding_rates(times, other)[: k + 1], rates[: k + 1], equal_nan=True
        )


def literal_schedule(candles: pd.DataFrame, real: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Read the rules word by word: for every bar, look at every settlement."""
    opens = [*candles["timestamp"].tolist(), int(candles["timestamp"].iloc[-1]) + BAR_MS]
    rates = settlements(candles, real)
    owed = [sum(r for t, r in rates if max(a, opens[0]) < t <= b) for a, b in pairwise(opens)]
    known = []
    for now in opens[:-1]:
        past = [(t, r) for t, r in rates if t <= now and now - t <= DAY_MS]
        known.append(past[-1][1] if past else 0.0)
    return owed, known


@settings(max_examples=20, deadline=None)
@given(
    seed=SEEDS,
    missing=one_of(0.0, 0.1, 0.7),
    every=one_of(8.0, 2.0, 1.0),
    lost=st.lists(st.tuples(st.integers(0, 240), st.integers(1, 60)), max_size=3),
    late=one_of(0, 13, 61_000),
)
def test_any_record_is_laid_out_as_the_rules_read(
    seed: int, missing: float, every: float, lost: list[tuple[int, int]], late: int
) -> None:
    candles = synthetic_candles(960, seed, missing=missing)
    hours = [h for h in np.arange(-30.0, 245.0, every) if not any(a <= h < a + n for a, n in lost)]
    rates = np.random.default_rng(seed).normal(0.0, 0.001, len(hours))
    times = [FIRST_MS + round(h * HOUR_MS) + late for h in hours]
    real = pd.DataFrame({"timestamp": np.array(times, dtype=np.int64), "rate": rates})
    result = schedule_funding(
        candles["timestamp"].to_numpy(),
        candles["close"].to_numpy(),
        real["timestamp"].to_numpy(),
        rates,
    )
    owed, known = literal_schedule(candles, real)
    np.testing.assert_allclose(result.due, owed, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(result.known, known, rtol=1e-12, atol=1e-15)


# --- what follows from a rate -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "long", "short"),
    [(0.0004, 1.2, 1 / 1.2), (-0.0004, 1 / 1.2, 1.2), (0.0003, 1.0, 1.0), (-0.0003, 1.0, 1.0)],
)
def test_the_side_that_pays_stands_wider_and_the_other_narrower(
    rate: float, long: float, short: float
) -> None:
    assert funding_spacing_factor(rate, 1.0, 0.0003, 1.2) == pytest.approx(long)
    assert funding_spacing_factor(rate, -1.0, 0.0003, 1.2) == pytest.approx(short)


@pytest.mark.parametrize(
    ("rate", "long", "short"),
    [(0.0003, 0.75, 1.25), (-0.0003, 1.25, 0.75), (0.0002, 1.0, 1.0), (0.0, 1.0, 1.0)],
)
def test_the_side_that_receives_trades_larger(rate: float, long: float, short: float) -> None:
    assert funding_harvest_factor(rate, 1.0, 0.0002, 1.25, 0.75) == long
    assert funding_harvest_factor(rate, -1.0, 0.0002, 1.25, 0.75) == short
