"""A live session killed anywhere in a busy hour ends it as one that was not killed.

A process that is killed leaves two things: the account at the exchange and its files. Between two
changes of these all moments are the same experiment, so every request (before it is processed,
and after that but before its reply) and every operation on a file (before and after) is sorted by
the world around it, and each world is tried once.
"""

from __future__ import annotations

import gc
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from engine.strategy import GridStrategyV4
from live.simulated.adapter import LoopbackAdapter
from live.simulated.server import SimServer
from live.store.state_file import decode
from tests.support.markets.oracle import BAR_MS
from tests.support.markets.synthetic import RULES
from tests.support.processes.busy_hour import (
    Hour,
    HourExchange,
    OrderRow,
    Outcome,
    Point,
    hour_wish,
    outcome_of,
)
from tests.support.processes.forked_sessions import ForkedSessions
from tests.support.processes.live_process import SYMBOL, CutOffError, trade

POLL_MS: Final = 5_000
"""How long a position may be without its stop."""
PARTS: Final[dict[str, Any]] = {"partial_fills": 0.7, "seed": 1}
World = tuple[Point, str]
"""The last moment of a world, and what happens then."""


TWO_COINS_KILLS: Final = 4
"""Moments of each kind at which a session is killed beside another one."""
Chosen = TypeVar("Chosen")


@pytest.fixture(scope="module", params=[1, 2], ids=["one coin", "two coins"])
def coins(request: pytest.FixtureRequest) -> int:
    """Return how many coins are traded on the account; the session of the first is killed."""
    return int(request.param)


def sample(moments: list[Chosen], coins: int) -> list[Chosen]:
    """Return the moments to be killed at: all, or some from beginning to end with two coins."""
    return moments if coins == 1 else moments[:: -(-len(moments) // TWO_COINS_KILLS)]


@pytest.fixture(scope="module")
def undisturbed(sessions: ForkedSessions, folder: Path, coins: int) -> Outcome:
    return Hour(sessions, folder, coins=coins).run()


@pytest.fixture(scope="module")
def points(sessions: ForkedSessions, folder: Path, coins: int) -> list[tuple[Point, str, str]]:
    """Return every moment of the hour, its world and what happens."""
    return Hour(sessions, folder, coins=coins).survey()


def worlds(points: list[tuple[Point, str, str]]) -> list[World]:
    """Return each world's last moment: whatever it leaves half written is there."""
    return list({world: (point, about) for point, world, about in points}.values())


def problem_of(found: Outcome, wanted: Outcome) -> str:
    """Return what is wrong with an outcome, '' if nothing is."""
    unprotected = (
        f"; {found.unprotected_ms} ms without a stop" if found.unprotected_ms > POLL_MS else ""
    )
    return found.difference(wanted) + unprotected


# --- in this process: a sample --------------------------------------------------------------------


@contextmanager
def dropped_at(number: int, when: str) -> Iterator[list[str]]:
    """Drop the session over its ``number``-th request that changes the account.

    Yields the requests of that kind.
    """
    send, seen = LoopbackAdapter.send, list[str]()

    def sent(adapter: LoopbackAdapter, request: Any, *rest: Any, **options: Any) -> Any:
        is_last = request.method != "GET" and len(seen) + 1 == number
        if request.method != "GET":
            seen.append(f"{request.method} {request.url}")
        if is_last and when == "before":
            raise CutOffError
        response = send(adapter, request, *rest, **options)
        if is_last:
            raise CutOffError
        return response

    # A process that is gone closes no sockets, and here it is only its memory that goes.
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore", ResourceWarning)
        patch.setattr(LoopbackAdapter, "send", sent)
        yield seen
        gc.collect()


def play(exchange: HourExchange, folder: Path, *arguments: str) -> None:
    """Go on to the orders of the second bar, in this process."""
    with SimServer(exchange) as server:
        assert trade(hour_wish(exchange, server.port, folder, *arguments, n_bars=1)) == 0


@pytest.fixture(scope="module")
def first_bar(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    exchange, folder = HourExchange(), tmp_path_factory.mktemp("first_bar")
    play(exchange, folder)
    return outcome_of(exchange, folder)


@pytest.mark.parametrize(("number", "when"), [(1, "after"), (2, "before"), (4, "after")])
def test_dropped_over_a_change_of_the_account_a_session_goes_on_with_the_same_orders(
    first_bar: Outcome, tmp_path: Path, number: int, when: str
) -> None:
    exchange = HourExchange()
    with dropped_at(number, when) as changes:
        play(exchange, tmp_path)
    assert len(changes) == number
    play(exchange, tmp_path, "--resume")
    assert not problem_of(outcome_of(exchange, tmp_path), first_bar), changes[-1]


# --- killed processes -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_hour_holds_every_kind_of_event(
    undisturbed: Outcome, points: list[Any], coins: int
) -> None:
    labels = {row["label"] for row in undisturbed.csv_rows}
    assert labels == {
        "BUY_OPEN_LONG",
        "SELL_OPEN_SHORT",
        "BUY_CLOSE_SHORT",
        "PRUNE_OLDEST",
        "STOP_LONG",
        "CIRCUIT_BREAKER_HALT",
    }
    done = {about for _, _, about in points}
    assert {"DELETE /fapi/v1/algoOrder", "POST /fapi/v1/order", "GET /fapi/v1/income"} <= done
    assert undisturbed.engine["funding"] != 0.0
    assert len(worlds(points)) > 50
    assert (len(undisturbed.beside) > 5) is (coins > 1)


def wrong_kills(
    sessions: ForkedSessions, folder: Path, chosen: list[World], wanted: Outcome, **options: Any
) -> list[str]:
    """Be killed at each of ``chosen`` and return what goes wrong."""
    wrong = []
    for point, about in chosen:
        problem = problem_of(Hour(sessions, folder, **options).run_killed(point), wanted)
        if problem:
            wrong.append(f"{point} ({about}): {problem}")
    return wrong


@pytest.mark.slow
def test_killed_in_any_world_the_hour_ends_as_if_nothing_had_happened(
    sessions: ForkedSessions, folder: Path, undisturbed: Outcome, points: list[Any], coins: int
) -> None:
    chosen = sample(worlds(points), coins)
    assert not wrong_kills(sessions, folder, chosen, undisturbed, coins=coins)


@pytest.mark.slow
def test_a_row_of_the_trade_log_torn_in_the_middle_is_made_whole(
    sessions: ForkedSessions, folder: Path, undisturbed: Outcome, points: list[Any], coins: int
) -> None:
    torn = [
        (Point("file", point.number, "torn"), about)
        for point, _, about in points
        if point.when == "before" and about.startswith(f"write {SYMBOL}_trades")
    ]
    assert len(torn) > 10
    assert not wrong_kills(sessions, folder, sample(torn, coins), undisturbed, coins=coins)


@pytest.mark.slow
def test_killed_among_orders_that_fill_in_parts_the_hour_ends_as_if_nothing_had_happened(
    sessions: ForkedSessions, folder: Path, coins: int
) -> None:
    options = {**PARTS, "coins": coins}
    wanted = Hour(sessions, folder, **options).run()
    assert len(wanted.csv_rows) > 12
    chosen = sample(worlds(Hour(sessions, folder, **options).survey())[::4], coins)
    assert not wrong_kills(sessions, folder, chosen, wanted, **options)


@pytest.mark.slow
def test_a_request_that_arrives_after_the_restart_is_not_sent_twice(
    sessions: ForkedSessions, folder: Path, undisturbed: Outcome, points: list[Any], coins: int
) -> None:
    posts = [
        (point, about)
        for point, _, about in points
        if point.source == "request" and point.when == "before" and about.startswith("POST")
    ]
    orders = [(point, about) for point, about in posts if about.endswith("rder")]
    batches = [(point, about) for point, about in posts if about.endswith("batchOrders")]
    countdowns = [(point, about) for point, about in posts if about.endswith("countdownCancelAll")]
    assert len(orders) >= 10
    assert len(batches) >= 5
    for point, about in sample(orders + batches + countdowns[::20], coins):
        found = Hour(sessions, folder, coins=coins).run_late(point.number)
        assert not problem_of(found, undisturbed), f"{point} ({about})"


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_again_and_again_the_hour_ends_as_if_nothing_had_happened(
    sessions: ForkedSessions, folder: Path, undisturbed: Outcome, when: str, coins: int
) -> None:
    hour, life = Hour(sessions, folder, coins=coins), 20
    with hour.served() as port:
        ending = -signal.SIGKILL
        while ending == -signal.SIGKILL:
            last = Point("request", hour.exchange.faults.n_requests + life, when)
            setattr(hour.exchange, f"{when}_request", hour.killer(last))
            ending = hour.session(hour.wish(port, "--resume"))
            life += 1
    assert ending == 0, hour.console()
    assert life > 30
    assert not problem_of(hour.outcome(), undisturbed)


# --- away for a while -----------------------------------------------------------------------------


def run_away(hour: Hour, from_s: int, back_s: int, until_s: int) -> list[OrderRow]:
    """Trade the hour until an instant, but for the time between two others.

    Returns:
        What rests then.
    """
    exchange, start_ms = hour.exchange, hour.exchange.start_ms
    with hour.served() as port:
        wish = hour.wish(port, until_ms=start_ms + from_s * 1_000)
        assert hour.session(wish) == 0, hour.console()
        assert exchange.now_ms == wish.until_ms
        while exchange.now_ms < start_ms + back_s * 1_000:
            exchange.pass_sleep(start_ms + back_s * 1_000)
        exchange.unprotected_ms = 0
        wish = hour.wish(port, "--resume", until_ms=start_ms + until_s * 1_000)
        assert hour.session(wish) == 0, hour.console()
        return exchange.resting()


@pytest.mark.slow
def test_a_minute_away_within_a_bar_changes_nothing(
    sessions: ForkedSessions, folder: Path, undisturbed: Outcome, coins: int
) -> None:
    hour = Hour(sessions, folder, coins=coins)
    run_away(hour, 1_360, 1_420, 3_640)
    trades = [(t.ts_ms - hour.exchange.start_ms) // 1_000 for t in hour.exchange.account.trades]
    assert any(1_360 < second < 1_420 for second in trades)
    assert not problem_of(hour.outcome(), undisturbed)


@pytest.mark.slow
def test_a_bar_that_was_missed_is_caught_up_and_only_the_latest_decides(
    sessions: ForkedSessions, folder: Path, coins: int
) -> None:
    hour = Hour(sessions, folder, coins=coins)
    gone_s = 1_340  # the countdown leaves the entries of a dead process two minutes
    resting = run_away(hour, gone_s, 3_000, 3_100)
    exchange, found = hour.exchange, hour.outcome()
    away = range(exchange.start_ms + 1_000 * gone_s, exchange.start_ms + 3_000_000)
    assert sum(trade.ts_ms in away for trade in exchange.account.trades) > 1
    orders = exchange.book.orders.values()
    laid = {(order.ts_ms - exchange.start_ms) // BAR_MS for order in orders}
    assert laid == {0, 1, 3}
    assert exchange.unprotected_ms == 0
    rows = [row for row in found.jsonl_rows if ":" in row["trade_id"]]
    end_ms = exchange.start_ms + 3_100_000  # the other coin's session goes on a little
    times = {
        f"{trade.trade_id}:0": trade.ts_ms // BAR_MS
        for trade in exchange.account.trades
        if trade.ts_ms <= end_ms
    }
    assert times.items() <= {row["trade_id"]: row["bar"] for row in rows}.items()
    strategy = GridStrategyV4({"grid_levels": 3}, RULES)
    strategy.load_state_dict(decode(found.engine))
    wanted = [
        (o.kind.name, o.position_side, round(o.price, 1), round(o.qty, 3)) for o in strategy.book
    ]
    assert wanted
    assert sorted(wanted) == resting
