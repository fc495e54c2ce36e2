"""The demo's ticks: the same everywhere, with everything they are said to hold."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from backtest.ticks.demo import DEMO_TICK_COINS, DemoTicks, demo_ticks
from core.recording import BUY, SECOND_NS, EventKind
from core.records import zeros_table
from engine.short_grid.feed import Rejection, check_events, new_feeds
from engine.short_grid.observation import Outlook, new_observation, observe_events
from tests.engine.short_grid_ticks import params


@pytest.fixture(scope="module")
def hour() -> DemoTicks:
    return demo_ticks(60)


@pytest.fixture(scope="module")
def log(hour: DemoTicks) -> Any:
    universe, table = new_observation(len(hour.symbols), params())
    rows: Any = zeros_table(Outlook, 36_000 * len(hour.symbols))
    return rows[: observe_events(universe, table, params(), hour.events, 0, rows)]


def digest(events: Any) -> str:
    data = b"".join(np.ascontiguousarray(events[name]).tobytes() for name in events.dtype.names)
    return hashlib.sha256(data).hexdigest()[:16]


def test_the_market_is_the_same_every_time() -> None:
    assert digest(demo_ticks(3).events) == digest(demo_ticks(3).events)
    assert digest(demo_ticks(3).events) == "2c8c6f675d2fc458"


def test_a_shorter_market_is_the_beginning_of_a_longer_one(hour: DemoTicks) -> None:
    short = demo_ticks(5).events
    assert digest(short) == digest(hour.events[: len(short)])


def test_events_are_in_their_total_order(hour: DemoTicks) -> None:
    events = hour.events
    assert (np.diff(events["t_ns"]) >= 0).all()
    assert events["seq"].tolist() == list(range(len(events)))
    assert set(events["kind"]) == {EventKind.BOOK, EventKind.TRADE, EventKind.MARK, EventKind.REPLY}


def test_good_prices_and_sizes_are_whole_ticks_and_steps(hour: DemoTicks) -> None:
    for index, symbol in enumerate(hour.symbols):
        coin = DEMO_TICK_COINS[symbol]
        own = hour.events[hour.events["symbol"] == index]
        own = own[np.isin(own["kind"], (EventKind.BOOK, EventKind.TRADE))]
        ticks = own["price"] * coin.ticks_per_unit
        off = np.abs(ticks - np.round(ticks)) > 1e-6
        assert off.mean() < 0.002  # outliers and what is not a number
        steps = own["qty"] * coin.steps_per_unit
        assert (np.abs(steps - np.round(steps)) < 1e-6).all()


def test_every_fault_occurs_and_none_without_faults(hour: DemoTicks) -> None:
    feeds = new_feeds(len(hour.symbols))
    check_events(feeds, hour.events)
    counts = {r: sum(int(feeds[i].rejected[r]) for i in range(4)) for r in Rejection}
    assert all(counts[reason] > 5 for reason in Rejection if reason != Rejection.NONE)
    clean = demo_ticks(10, faults=False)
    feeds = new_feeds(len(clean.symbols))
    check_events(feeds, clean.events)
    assert sum(int(feeds[i].rejected[r]) for i in range(4) for r in Rejection) == 0


def test_spreads_are_those_the_strategy_trades(log: Any) -> None:
    for index in range(4):
        spreads = log["spread"][(log["symbol"] == index) & (log["n_steps"] > 0)]
        assert 7.0 < np.median(spreads) < 40.0


def test_pumps_exhaust_themselves_while_a_book_stands(log: Any) -> None:
    trigger = (log["pump_peak"] >= 2.0) & (log["exhaust"] >= 1.0) & (log["n_steps"] > 600)
    rising = log["r_30s"] > 20.0
    for index in range(4):
        assert (trigger & rising & (log["symbol"] == index)).sum() > 50


def test_all_coins_are_squeezed_at_once(log: Any) -> None:
    by_step = log["r_60s"].reshape(-1, 4)
    assert np.median(by_step, axis=1).max() > 150.0


def test_coins_go_stale_one_by_one_and_all_fall_silent_together(hour: DemoTicks, log: Any) -> None:
    for index in range(4):
        assert (log["stale"] & (log["symbol"] == index)).sum() > 300
    assert np.diff(hour.events["t_ns"]).max() > 55 * SECOND_NS


def test_late_messages_make_a_coin_stale(hour: DemoTicks) -> None:
    stamped = hour.events[hour.events["event_ms"] > 0]
    lag = stamped["t_ns"] / 1e6 - stamped["event_ms"]
    assert (lag > 500.0).sum() > 100
    assert np.median(lag) < 50.0


def test_buyers_dominate_pumps(hour: DemoTicks, log: Any) -> None:
    trades = hour.events[hour.events["kind"] == EventKind.TRADE]
    assert 0.4 < (trades["side"] == BUY).mean() < 0.75
    assert np.corrcoef(log["ti_2s"], log["r_2s"])[0, 1] > 0.2
