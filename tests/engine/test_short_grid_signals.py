"""Signals equal their definition, know nothing of the future, and ignore how often is reported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.ticks.demo import demo_ticks
from backtest.ticks.files import Events, new_events
from backtest.ticks.reader import TickReport, open_sessions
from core.recording import MS_NS, SECOND_NS, EventKind
from core.records import zeros
from engine.registry import SHORT_GRID
from engine.short_grid.observation import SIGNAL_NAMES
from engine.short_grid.params import STEP_NS
from engine.short_grid.windows import Moments, PeakWindow, deepest_fall, push_max, score
from tests.engine.short_grid_reference.signals import SlowSignals
from tests.engine.short_grid_ticks import (
    REAL_TICKS,
    SEEDS,
    START_NS,
    params,
    plain,
    random_events,
    walk,
)

DEFAULTS = SHORT_GRID.read({}).to_dict()
TOLERANCE = 1e-9


def close(fast: float, slow: float) -> bool:
    return abs(fast - slow) <= TOLERANCE * max(1.0, abs(slow))


def assert_equal_to_slow(events: Events, steps: list[int], symbol: int = 0) -> int:
    """Compare every signal at ``steps`` from the first book on; return the values compared."""
    n_symbols = int(events["symbol"].max()) + 1
    log = walk(events, max(steps), n_symbols)
    rows = {int(row["step"]): row for row in log[log["symbol"] == symbol]}
    slow = SlowSignals(plain(events, symbol), DEFAULTS)
    compared = 0
    for k in steps:
        if slow.age(k) < 0:
            continue
        for name, expected in slow.all(k).items():
            found = float(rows[k][name])
            assert close(found, expected), (k, name, found, expected)
            compared += 1
    return compared


def some_steps(events: Events, count: int, every_of_first: int = 60) -> list[int]:
    first = int(events["t_ns"][0]) // STEP_NS + 1
    last = int(events["t_ns"][-1]) // STEP_NS + 30
    return sorted(
        {
            *range(first, min(first + every_of_first, last)),
            *np.linspace(first, last, count).astype(int).tolist(),
        }
    )


@given(SEEDS)
@settings(max_examples=8)
def test_signals_of_random_events_equal_the_slow_version(seed: int) -> None:
    events = random_events(seed, 400, 40.0)
    assert assert_equal_to_slow(events, some_steps(events, 8, 10)) > 100


def test_signals_of_the_demo_equal_the_slow_version() -> None:
    events = demo_ticks(2, ("KITUSDT",)).events
    assert assert_equal_to_slow(events, some_steps(events, 12)) > 500


@pytest.mark.slow
@pytest.mark.skipif(not REAL_TICKS.is_dir(), reason="needs recorded ticks")
@pytest.mark.parametrize("which", range(6))
def test_signals_of_recorded_ticks_equal_the_slow_version(which: int) -> None:
    session = open_sessions(REAL_TICKS)[which]
    events = session.events(SHORT_GRID.read({}), TickReport())
    for symbol in range(len(session.symbols)):
        own = events[events["symbol"] == symbol].copy()
        own["symbol"] = 0
        own = own[own["t_ns"] < own["t_ns"][0] + 150 * SECOND_NS]
        assert assert_equal_to_slow(own, some_steps(own, 25)) > 300


def test_every_signal_in_the_log_is_compared() -> None:
    events = random_events(1, 300, 20.0)
    names = SlowSignals(plain(events), DEFAULTS).all(int(events["t_ns"][-1]) // STEP_NS)
    assert names.keys() == set(SIGNAL_NAMES) - {"step", "n_steps"}


@given(SEEDS, st.integers(60, 240))
@settings(max_examples=20)
def test_no_signal_knows_an_event_of_its_own_time_or_later(seed: int, row: int) -> None:
    events = random_events(seed, 300, 20.0)
    step = int(events["t_ns"][row]) // STEP_NS
    changed = events.copy()
    later = changed["t_ns"] >= step * STEP_NS
    changed["price"][later] *= 1.01
    changed["price2"][later] *= 1.01
    changed["side"][later] *= -1
    changed["qty"][later] += 7.0
    last = int(events["t_ns"][-1]) // STEP_NS + 5
    whole, other = walk(events, last), walk(changed, last)
    known = whole["step"] <= step
    assert known.any()
    differs = {
        name
        for name in whole.dtype.names
        if not np.array_equal(whole[name][known], other[name][known])
    }
    assert not differs
    assert not np.array_equal(whole["mid"], other["mid"])


def doubled(events: Events) -> Events:
    """Return the events with every book said twice, as a newer update of the same."""
    books = events[events["kind"] == EventKind.BOOK].copy()
    again = np.concatenate((events, books))
    again["number"] *= 2
    again["number"][len(events) :] += 1
    trades = again["kind"] == EventKind.TRADE
    again["number"][trades] //= 2
    return again[np.argsort(again["t_ns"], kind="stable")]


@given(SEEDS)
@settings(max_examples=15)
def test_saying_every_book_twice_changes_no_signal(seed: int) -> None:
    events = random_events(seed, 300, 20.0, faults=False)
    last = int(events["t_ns"][-1]) // STEP_NS + 5
    once, twice = walk(events, last), walk(doubled(events), last)
    for name in (*SIGNAL_NAMES, "stale"):
        assert np.array_equal(once[name], twice[name]), name


@given(SEEDS)
@settings(max_examples=15)
def test_delays_within_a_step_change_no_signal(seed: int) -> None:
    events = random_events(seed, 300, 20.0, faults=False)
    last = int(events["t_ns"][-1]) // STEP_NS + 5
    moved = events.copy()
    moved["t_ns"] = moved["t_ns"] // STEP_NS * STEP_NS + STEP_NS - 1
    before, after = walk(events, last), walk(moved, last)
    for name in SIGNAL_NAMES:
        assert np.array_equal(before[name], after[name]), name


@given(SEEDS, st.integers(1, 10_000_000))
@settings(max_examples=15)
def test_a_shift_of_whole_steps_shifts_all_signals(seed: int, steps: int) -> None:
    events = random_events(seed, 300, 20.0)
    last = int(events["t_ns"][-1]) // STEP_NS + 5
    moved = events.copy()
    moved["t_ns"] += steps * STEP_NS
    moved["event_ms"] += steps * (STEP_NS // MS_NS)
    before, after = walk(events, last), walk(moved, last + steps)
    for name in SIGNAL_NAMES:
        if name != "step":
            assert np.array_equal(before[name], after[name]), name


@given(SEEDS)
@settings(max_examples=15)
def test_a_thousandfold_price_and_a_thousandth_of_the_quantity_change_no_signal(seed: int) -> None:
    events = random_events(seed, 300, 20.0, faults=False)
    last = int(events["t_ns"][-1]) // STEP_NS + 5
    scaled = events.copy()
    for price, qty in (("price", "qty"), ("price2", "qty2")):
        scaled[price] *= 1_000.0
        scaled[qty] /= 1_000.0
    before, after = walk(events, last), walk(scaled, last)
    for name in set(SIGNAL_NAMES) - {"mid", "spread_med"}:
        assert np.allclose(before[name], after[name], rtol=1e-7, atol=1e-7), name
    assert np.allclose(before["mid"] * 1_000.0, after["mid"], rtol=1e-12)


def quiet_market(seconds: float) -> Events:
    """Return one book, some trade, then the same book every second for ``seconds``."""
    lively = random_events(3, 200, 10.0, faults=False)
    calm = new_events(int(seconds))
    calm["t_ns"] = START_NS + 10 * SECOND_NS + np.arange(len(calm)) * SECOND_NS
    calm["kind"], calm["event_ms"] = EventKind.BOOK, calm["t_ns"] // MS_NS
    calm["number"] = 100_000 + np.arange(len(calm))
    last = lively[lively["kind"] == EventKind.BOOK][-1]
    for name, value in (("price", last["price"]), ("price2", last["price2"])):
        calm[name] = value
    calm["qty"], calm["qty2"] = 7.3, 2.9
    return np.concatenate((lively, calm))


def test_a_dead_market_never_looks_like_a_pump() -> None:
    """The variance decays to nothing; what is left of the mean's rounding is no signal."""
    events = quiet_market(1_500.0)
    log = walk(events, int(events["t_ns"][-1]) // STEP_NS)
    dead = log[-8_000:]
    assert np.abs(dead["pump"]).max() < 1e-3
    assert np.abs(dead["exhaust"]).max() < 1e-3


def test_a_score_waits_for_fifty_values_and_is_clipped() -> None:
    moments: Any = zeros(Moments)
    scores = [score(moments, float(i % 2), 0.1) for i in range(60)]
    assert not any(scores[:50])
    assert all(abs(value) > 0.5 for value in scores[50:])
    assert score(moments, 1e6, 0.1) == 5.0


@given(st.lists(st.floats(1.0, 100.0), min_size=1, max_size=60), st.integers(0, 20))
def test_the_latched_maximum_is_that_of_the_window(values: list[float], span: int) -> None:
    window: Any = zeros(PeakWindow)
    for k, value in enumerate(values):
        assert push_max(window, value, k, span) == max(values[max(0, k - span) : k + 1])


@given(SEEDS)
@settings(max_examples=10)
def test_the_deepest_fall_is_the_largest_over_all_earlier_mids(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mids = 100.0 * np.exp(np.cumsum(rng.normal(0, 5e-4, 400)))
    window: Any = zeros(PeakWindow)
    for k, mid in enumerate(mids):
        push_max(window, float(mid), k, len(window.values) - 1)
    slow = max((m - mids[-1]) / m * 1e4 * 0.5 ** ((399 - j) / 300) for j, m in enumerate(mids))
    assert deepest_fall(window, float(mids[-1]), 399, 300.0) == pytest.approx(slow, abs=1e-9)


def test_the_pump_is_remembered_for_its_latch_only() -> None:
    events = demo_ticks(3, ("LUMUSDT",)).events
    last = int(events["t_ns"][-1]) // STEP_NS
    log = walk(events, last, pump_latch_s=0.0)
    assert np.array_equal(log["pump"][log["n_steps"] > 0], log["pump_peak"][log["n_steps"] > 0])
    latched = walk(events, last)
    assert (latched["pump_peak"] >= latched["pump"]).all()
    assert params().pump_latch_s == 5.0
