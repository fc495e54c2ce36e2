"""Bad input is counted by its reason and never used; what is used is the last known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from backtest.ticks.files import Events, new_events
from core.recording import BUY, MS_NS, SECOND_NS, UNKNOWN, EventKind
from engine.short_grid.feed import Rejection, check_events, new_feeds
from engine.short_grid.observation import new_observation, observe_events, steps_between
from engine.short_grid.params import STEP_NS
from tests.engine.short_grid_reference.signals import Book, usable
from tests.engine.short_grid_ticks import SEEDS, START_NS, params, plain, random_events, walk


def book(
    t_ms: float, number: int, bid: float, ask: float, qty: float = 5.0, lag_ms: int = 5
) -> Any:
    event = new_events(1)
    event["t_ns"] = START_NS + int(t_ms * MS_NS)
    event["kind"], event["number"] = EventKind.BOOK, number
    event["event_ms"] = event["t_ns"] // MS_NS - lag_ms
    event["price"], event["price2"], event["qty"], event["qty2"] = bid, ask, qty, qty
    return event


def trade(t_ms: float, number: int, price: float, qty: float = 1.0) -> Any:
    event = new_events(1)
    event["t_ns"] = START_NS + int(t_ms * MS_NS)
    event["kind"], event["number"], event["side"] = EventKind.TRADE, number, BUY
    event["event_ms"] = UNKNOWN
    event["price"], event["qty"], event["qty2"] = price, qty, qty
    return event


def mark(t_ms: float, price: float, rate: float = 0.0001) -> Any:
    event = new_events(1)
    event["t_ns"] = START_NS + int(t_ms * MS_NS)
    event["kind"], event["event_ms"] = EventKind.MARK, event["t_ns"] // MS_NS
    event["price"], event["rate"], event["number"] = price, rate, 1_767_254_400_000
    return event


def fed(*events: Any) -> Any:
    """Return the feed of one symbol after ``events``."""
    feeds = new_feeds(1)
    assert check_events(feeds, np.concatenate(events)) == 0
    return feeds[0]


def rejected(feed: Any) -> dict[str, int]:
    return {r.name: int(feed.rejected[r]) for r in Rejection if feed.rejected[r]}


GOOD = book(0, 10, 100.0, 100.1)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (book(1, 11, float("nan"), 100.1), "PRICE"),
        (book(1, 11, 100.0, float("inf")), "PRICE"),
        (book(1, 11, 0.0, 100.1), "PRICE"),
        (book(1, 11, -5.0, 100.1), "PRICE"),
        (book(1, 11, 100.0, 100.1, qty=-1.0), "SIZE"),
        (book(1, 11, 100.0, 100.1, qty=float("nan")), "SIZE"),
        (book(1, 11, 100.1, 100.1), "CROSSED"),
        (book(1, 11, 100.2, 100.1), "CROSSED"),
        (book(1, 10, 100.0, 100.2), "OLD_UPDATE"),
        (book(1, 9, 100.0, 100.2), "OLD_UPDATE"),
        (book(1, 11, 121.0, 121.1), "OUTLIER"),
        (trade(1, 1, 0.0), "PRICE"),
        (trade(1, 1, 100.0, -1.0), "SIZE"),
        (trade(1, 1, 79.0), "OUTLIER"),
        (mark(1, float("nan")), "PRICE"),
        (mark(1, 100.0, float("nan")), "PRICE"),
        (mark(1, 150.0), "OUTLIER"),
    ],
)
def test_an_unusable_event_is_counted_and_changes_nothing(event: Any, reason: str) -> None:
    feed = fed(GOOD, event)
    assert rejected(feed) == {reason: 1}
    assert (feed.bid, feed.ask, feed.n_used, feed.mark) == (100.0, 100.1, 1, 0.0)


def test_an_empty_touch_is_a_size() -> None:
    assert not rejected(fed(book(0, 1, 100.0, 100.1, qty=0.0)))


def test_a_far_price_is_used_once_three_more_confirm_it() -> None:
    jumps = [book(i, 10 + i, 130.0 + i * 0.1, 130.2 + i * 0.1) for i in range(1, 5)]
    assert fed(GOOD, *jumps[:3]).bid == 100.0
    after = fed(GOOD, *jumps)
    assert after.bid == 130.4
    assert rejected(after) == {"OUTLIER": 3}


def test_a_repeated_far_book_confirms_nothing() -> None:
    same = [book(i, 11, 130.0, 130.2) for i in range(1, 8)]
    feed = fed(GOOD, *same)
    assert feed.bid == 100.0
    assert rejected(feed) == {"OUTLIER": 1, "OLD_UPDATE": 6}


def test_far_prices_in_different_places_confirm_nothing() -> None:
    jumps = [book(i, 10 + i, price, price + 1) for i, price in enumerate((130, 170, 130, 60), 1)]
    assert fed(GOOD, *jumps).bid == 100.0


def test_a_near_price_between_far_ones_starts_the_count_anew() -> None:
    events = [book(i, 10 + i, p, p + 0.1) for i, p in enumerate((130, 130, 130, 100, 130), 1)]
    assert fed(GOOD, *events).bid == 100.0


def test_trades_that_two_connections_deliver_count_once() -> None:
    numbers = [5, 6, 6, 7, 6, 7, 8]
    feed = fed(*(trade(i, n, 10.0) for i, n in enumerate(numbers)))
    assert feed.n_used == 4
    assert rejected(feed) == {"SEEN_TRADE": 3}


def test_a_gap_in_trades_is_counted_once_and_what_fills_it_later_is_used() -> None:
    feed = fed(*(trade(i, n, 10.0) for i, n in enumerate([5, 8, 6, 7, 6, 9])))
    assert feed.n_used == 5
    assert rejected(feed) == {"TRADE_GAP": 1, "SEEN_TRADE": 1}


def test_a_trade_too_far_behind_to_be_remembered_counts_as_seen() -> None:
    feed = fed(trade(0, 5, 10.0), trade(1, 100, 10.0), trade(2, 37, 10.0), trade(3, 39, 10.0))
    assert rejected(feed) == {"TRADE_GAP": 1, "SEEN_TRADE": 1}


@given(SEEDS)
@settings(max_examples=40)
def test_what_is_used_is_what_the_definition_says(seed: int) -> None:
    events = random_events(seed, 300, 20.0)
    good = usable(plain(events))
    feed = fed(events)
    assert feed.n_used == len(good)
    assert feed.n_used + sum(feed.rejected) - feed.rejected[Rejection.TRADE_GAP] == len(events)
    last = [item for item in good if isinstance(item, Book)][-1]
    assert (feed.bid, feed.ask, feed.book_t_ns) == (last.bid, last.ask, last.t)


def steady(seconds: float, every_ms: float, lag_ms: int = 5) -> Events:
    count = int(seconds * 1_000 / every_ms)
    return np.concatenate(
        [book(i * every_ms, i, 100.0, 100.1, lag_ms=lag_ms) for i in range(count)]
    )


def stale_steps(events: Events, until_ns: int, n_symbols: int) -> list[int]:
    log = walk(events, until_ns // STEP_NS, n_symbols)
    own = log[(log["symbol"] == 0) & (log["n_steps"] > 0)]
    return [int(row["step"]) - START_NS // STEP_NS for row in own if row["stale"]]


def test_a_symbol_silent_for_three_seconds_is_stale_while_others_are_heard() -> None:
    other = steady(8.0, 200.0)
    other["symbol"] = 1
    events = np.concatenate((steady(2.0, 100.0), other))
    events = events[np.argsort(events["t_ns"], kind="stable")]
    stale = stale_steps(events, START_NS + 8 * SECOND_NS, 2)
    assert stale == list(range(50, 81))  # the last book came at 1.9 s


def test_a_silent_connection_is_no_staleness_of_a_symbol() -> None:
    assert stale_steps(steady(2.0, 100.0), START_NS + 8 * SECOND_NS, 1) == []


def test_a_symbol_whose_messages_are_late_is_stale_until_they_are_not() -> None:
    events = np.concatenate((steady(2.0, 100.0, lag_ms=700), steady(4.0, 100.0)[20:]))
    stale = stale_steps(events, START_NS + 4 * SECOND_NS, 1)
    assert stale == list(range(1, 25))  # late ones are half of the last second's at step 25


def test_an_event_of_an_unknown_symbol_is_counted() -> None:
    universe, table = new_observation(1, params())
    events = np.concatenate((GOOD, GOOD))
    events["symbol"] = [1, -1]
    log: Any = walk(GOOD, START_NS // STEP_NS + 1)[:0]
    observe_events(universe, table, params(), events, 0, log)
    assert universe.n_unknown == 2
    assert table[0].feed.n_used == 0


def test_steps_run_in_silence() -> None:
    events = np.concatenate((GOOD, book(5_000, 11, 100.0, 100.1)))
    log = walk(events, START_NS // STEP_NS + 60)
    assert len(log) == 60
    assert steps_between(START_NS, START_NS + 6 * SECOND_NS) == 60
