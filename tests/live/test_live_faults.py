"""Faults at the exchange, on the way to it, on the account and on the disk."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
import requests

from config import LIVE_CONFIG
from core.errors import GridError, NetworkError, RateLimitError, ReplyError, UnknownOutcome
from live.exchange.binance import open_exchange
from live.session.shutdown import Ending
from live.simulated.adapter import InProcessAdapter, LoopbackAdapter
from live.simulated.clock import SimClock
from live.simulated.faults import BY_CHANCE, ONLY_AT, ORDER, READ, FaultKind
from live.simulated.server import SimServer
from tests.support.exchanges.bench import exchange_of
from tests.support.markets.oracle import BAR_MS
from tests.support.markets.synthetic import RULES
from tests.support.processes.campaign import Campaign, campaign
from tests.support.processes.live_session import Scene
from tests.support.processes.two_coins import other_market
from tests.support.processes.watched_day import (
    DAY_BARS,
    MUCH_AT_A_TIME,
    NO_LOSS_LIMIT,
    POLL_S,
    WARM,
    assert_all_stopped,
    assert_books_agree,
    assert_stopped_in_order,
    busy_day,
    crash,
    errors_of,
    no_waiting_for_the_disk,  # noqa: F401 - pytest uses it
)

PATIENCE_MS: Final = 30_000
"""Time to find out about requests that went wrong, before a stop is laid.

Looks begin ``poll_s`` apart, so from the fill to the next look it is at most that; then either

* two questions of the look time out, ``request_timeout_s`` = 10 s each, with pauses of at most
  0.625 s (0.5 s and a quarter of jitter): 21.3 s; or
* the stop's request times out, 10 s, and is found or known to be lost when its receive window and
  1 s are over, 11 s after it was sent; after a pause of 1 s the next look lays it, and one question
  of that look times out, 10.6 s: 22.6 s; or its second request does, 11 s: 23 s.

Three that time out in one look would take longer; that none of them has three is a fact of the
fixed seed of the faults.
"""
SIDES: Final = ("LONG", "SHORT")
KINDS: Final = ("ENTRY", "TAKE_PROFIT", "STOP", "EXIT")
DELAYS_MS: Final = {FaultKind.DELAY: 3_000, FaultKind.CLOCK_JUMP: 50}


# --- on the way to the exchange -----------------------------------------------------------------

ERRORS: Final[dict[FaultKind, type[GridError]]] = {
    FaultKind.DROP: UnknownOutcome,
    FaultKind.LOST_REPLY: UnknownOutcome,
    FaultKind.TIMEOUT: UnknownOutcome,
    FaultKind.UNKNOWN_503: UnknownOutcome,
    FaultKind.UNKNOWN_503_BARE: UnknownOutcome,
    FaultKind.BUSY_503: NetworkError,
    FaultKind.OVERLOAD_503: NetworkError,
    FaultKind.BAD_GATEWAY: UnknownOutcome,
    FaultKind.CODE_1007: UnknownOutcome,
    FaultKind.CODE_1000: UnknownOutcome,
    FaultKind.CODE_1001: NetworkError,
    FaultKind.RATE_LIMIT: RateLimitError,
    FaultKind.BANNED: RateLimitError,
    FaultKind.HTML: ReplyError,
    FaultKind.CUT_JSON: ReplyError,
}
"""Errors of a question that goes wrong, when it is asked once."""


@pytest.mark.parametrize("over_socket", [False, True], ids=["in process", "over a socket"])
def test_every_fault_becomes_the_error_that_says_what_it_means(over_socket: bool) -> None:
    exchange = exchange_of((100.0, 100.0, 100.0, 100.0))
    with SimServer(exchange) as server, requests.Session() as http:
        http.mount(
            "https://", LoopbackAdapter(server.port) if over_socket else InProcessAdapter(exchange)
        )
        executor = open_exchange(
            exchange.coin,
            api_key=exchange.api_key,
            api_secret=exchange.secret,
            clock=SimClock(exchange),
            session=http,
            settings={**LIVE_CONFIG, "retries": 0},
            bar_ms=BAR_MS,
        )
        for kind, error in ERRORS.items():
            exchange.faults.next(kind, path="openOrders")
            with pytest.raises(GridError) as caught:
                executor.open_orders()
            assert (kind, caught.type) == (kind, error)
            exchange.advance(30_000)  # what is to be waited after too many requests
            assert executor.open_orders() == []


BUSY_BARS: Final = {1: DAY_BARS, 2: DAY_BARS // 6}
"""Candles that are traded, by the number of coins: two need their time."""
COINS: Final = pytest.mark.parametrize("coins", [1, 2], ids=["one coin", "two coins"])
LONGEST_MS: Final = 1e3 * POLL_S + PATIENCE_MS


def busy(
    folder: Path, coins: int, longest_ms: float = LONGEST_MS, **options: Any
) -> AbstractContextManager[Campaign]:
    """Return a campaign through a day with much trading, or a quarter of one with two coins."""
    other = other_market(BUSY_BARS[2] + 1) if coins > 1 else None
    return campaign(busy_day(folder, **options), longest_ms, other)


@pytest.mark.slow
@COINS
@pytest.mark.parametrize(
    "kind", [kind for kind in BY_CHANCE if kind not in ONLY_AT], ids=lambda kind: kind.name
)
def test_a_day_in_which_every_tenth_request_goes_wrong(
    kind: FaultKind, coins: int, tmp_path: Path
) -> None:
    with busy(tmp_path, coins, settings=MUCH_AT_A_TIME) as day:
        day.faults.rate(kind, 0.1, delay_ms=DELAYS_MS.get(kind, 0))
        day.run_to(WARM + BUSY_BARS[coins])
        # All requests of the time of a ban fail; no other fault outlasts the tries.
        assert day.errors < (400 if kind is FaultKind.BANNED else 10)
        injected = day.faults.injected[kind]
        trades = day.checked_trades(LONGEST_MS)
    assert injected > 100 / (1 if coins == 1 else 4)
    assert len(trades) > 50 / (1 if coins == 1 else 4)


@pytest.mark.slow
@COINS
@pytest.mark.parametrize(("seed", "partial"), [(112, 0.0), (61, 0.5)])
def test_a_day_in_which_everything_goes_wrong(
    seed: int, partial: float, coins: int, tmp_path: Path
) -> None:
    with busy(tmp_path, coins, seed=seed, settings=MUCH_AT_A_TIME, partial_fills=partial) as day:
        for kind in BY_CHANCE:
            chance = 0.1 if kind in ONLY_AT else 0.1 / len(FaultKind)
            day.faults.rate(kind, chance, delay_ms=DELAYS_MS.get(kind, 0))
        day.run_to(WARM + BUSY_BARS[coins])
        injected = set(day.faults.injected)
        day.checked_trades(LONGEST_MS, fills_whole=not partial)
    assert injected == set(BY_CHANCE) if coins == 1 else len(injected) > 0.7 * len(BY_CHANCE)


@pytest.mark.slow
@COINS
def test_orders_that_mostly_get_no_answer_are_still_sent_once(coins: int, tmp_path: Path) -> None:
    unbounded_ms = 1e9  # stops too get no answer
    with busy(tmp_path, coins, unbounded_ms, settings=MUCH_AT_A_TIME) as day:
        day.faults.rate(FaultKind.LOST_REPLY, 0.3, [ORDER])
        day.faults.rate(FaultKind.TIMEOUT, 0.3, [ORDER])
        day.faults.rate(FaultKind.STALE, 0.5, [READ])
        day.run_to(WARM + BUSY_BARS[coins] // 2)
        assert day.checked_trades(unbounded_ms)


# --- partial fills ------------------------------------------------------------------------------


@pytest.mark.slow
@COINS
@pytest.mark.parametrize("seed", [112, 391])
def test_orders_that_fill_in_parts_are_booked_part_by_part(
    seed: int, coins: int, tmp_path: Path
) -> None:
    longest_ms = 1e3 * POLL_S
    with busy(tmp_path, coins, longest_ms, seed=seed, partial_fills=0.5) as day:
        day.run_to(WARM + BUSY_BARS[coins])
        assert [text for scene in day.scenes for text in scene.alerts.texts] == []
        trades = day.checked_trades(longest_ms, fills_whole=False)
    parts = Counter(trade.client_id for trade in trades if "OPEN" in trade.label)
    assert max(parts.values()) > 1
    orders = {
        order.client_id: order
        for market in day.exchange.markets.values()
        for order in market.book.orders.values()
    }
    for trade in trades:
        if "CLOSE" in trade.label:  # take-profits close at their price, and no more than they hold
            assert trade.price == float(orders[trade.client_id].price)
            assert "T" in trade.client_id.split("-")[3]


# --- the account --------------------------------------------------------------------------------


def once_held(scene: Scene, action: Callable[[str], object], bars: Iterable[int]) -> list[str]:
    """Let ``action`` happen within the first of ``bars`` in which a side holds something.

    Returns:
        The side it was done to, once it is done.
    """
    done: list[str] = []

    def look() -> None:
        for name, position in scene.exchange.account.positions.items():
            if position.qty and not done:
                done.append(name)
                action(name)

    for bar in bars:
        scene.clock.at(scene.opens_ms(bar) + 400_000, look)
    return done


def in_lots(qty: Decimal) -> float:
    """Return ``qty`` cut to the lot."""
    return int(qty / Decimal("0.001")) / 1_000


def test_what_a_person_closes_of_ours_leaves_the_ledger_with_its_trade(tmp_path: Path) -> None:
    with busy_day(tmp_path, settings=NO_LOSS_LIMIT) as scene:
        exchange = scene.exchange

        def close_half(name: str) -> None:
            qty = in_lots(exchange.account.positions[name].qty / 2)
            exchange.hand_trade(name, "SELL" if name == "LONG" else "BUY", qty)

        done = once_held(scene, close_half, range(WARM + 12, WARM + 40))
        assert scene.run_to(WARM + 48) is Ending.ASKED
        assert_stopped_in_order(exchange)
    assert done
    (sync,) = [trade for trade in scene.session.trades if trade.label == "POSITION_SYNC"]
    (by_hand,) = [
        trade
        for trade in exchange.account.trades
        if exchange.book.orders[trade.order_id].client_id.startswith("web_")
    ]
    steps = sync.bar - by_hand.ts_ms // BAR_MS
    assert (sync.direction, sync.qty, steps) == (done[0], float(by_hand.qty), 0)
    assert scene.position_gaps() == [0.0, 0.0]
    for stop in exchange.book.open_stops.values():
        assert float(stop.trigger) == scene.session.strategy.view().side(stop.position_side).stop
    assert scene.alerts.count("is not of this bot") == 1
    assert scene.alerts.count("is gone from the account") == 1


def test_what_is_not_ours_is_reported_once_and_never_touched(tmp_path: Path) -> None:
    with busy_day(tmp_path, config={"allow_short": False}) as scene:
        exchange = scene.exchange
        when = scene.opens_ms(WARM + 3) + 100_000
        scene.clock.at(when, lambda: exchange.hand_trade("SHORT", "SELL", 0.05))
        assert scene.run_to(WARM + 16) is Ending.ASKED
    assert exchange.account.positions["SHORT"].qty == Decimal("0.05")
    assert {
        order.client_id[:4]
        for order in exchange.book.orders.values()
        if order.position_side == "SHORT"
    } == {"web_"}
    assert scene.alerts.count("is not of this bot") == 1
    assert scene.alerts.count("WARN SHORT position") == 1
    assert "POSITION_SYNC" not in {trade.label for trade in scene.session.trades}
    assert errors_of(scene) == 0


def test_without_margin_entries_wait_and_positions_keep_their_stops(tmp_path: Path) -> None:
    with busy_day(tmp_path, settings=NO_LOSS_LIMIT) as scene:
        exchange = scene.exchange
        held, guarded = set[str](), set[str]()

        def withdraw(_: str) -> None:
            exchange.withdraw(float(exchange.account.wallet) - 600.0)

        def look() -> None:
            held.update(name for name, side in exchange.account.positions.items() if side.qty)
            guarded.update(stop.position_side for stop in exchange.book.open_stops.values())

        done = once_held(scene, withdraw, range(WARM + 12, WARM + 30))
        scene.clock.at(scene.opens_ms(WARM + 22) + 100_000, look)  # both sides lack margin by then
        assert scene.run_to(WARM + 40) is Ending.ASKED
        assert done
        assert held == guarded == {"SHORT"}
        assert_all_stopped(exchange)
    assert scene.alerts.count("no margin") in {1, 2}  # longs, shorts
    assert len(scene.alerts.texts) == scene.alerts.count("no margin")
    assert errors_of(scene) == 0
    assert scene.position_gaps() == [0.0, 0.0]


def test_what_was_refused_is_offered_again_in_the_next_bar_not_at_every_look(
    tmp_path: Path,
) -> None:
    with busy_day(tmp_path) as scene:
        requests = scene.exchange.faults.requests
        scene.exchange.withdraw(9_900.0)
        assert scene.run_to(WARM + 8) is Ending.ASKED
        assert requests["POST /fapi/v1/batchOrders"] <= 8 * 4  # 20 levels, 5 to a request
    assert scene.alerts.count("no margin") == 2


def test_an_account_too_small_for_any_order_sends_none_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = replace(RULES, min_notional=100.0)
    with busy_day(tmp_path, wallet=100.0, rules=rules) as scene:
        assert scene.run_to(WARM + 8) is Ending.ASKED
    assert scene.exchange.book.orders == {}
    said = [r.message for r in caplog.records if "under the exchange's minimum" in r.message]
    assert len(said) == 1
    assert scene.alerts.texts == []


@pytest.mark.slow
def test_the_rest_of_an_order_under_the_minimum_is_reported_once_and_kept_back(
    tmp_path: Path,
) -> None:
    rules = replace(RULES, min_notional=200.0)
    with busy_day(tmp_path, rules=rules, partial_fills=0.9) as scene:
        book, stop = scene.exchange.book, scene.clock.stop

        def look(*_: object) -> None:
            rests = [o for o in book.open_orders.values() if o.filled and not o.closes]
            if any(float(order.rest * order.price) < rules.min_notional for order in rests):
                stop.set()

        scene.exchange.before_request = look
        assert scene.run() is Ending.ASKED
        scene.exchange.before_request = None
        again = scene.reopened()  # the rest was cancelled: it is laid anew, and refused
        assert again.run_until(scene.exchange.now_ms + 5 * BAR_MS) is Ending.ASKED
        trades = scene.session.trades + again.session.trades
    assert again.alerts.count("refused") == 1
    assert errors_of(again) == 0
    assert_books_agree(again, trades)


def test_while_the_symbol_is_halted_nothing_breaks_and_it_is_reported_once(tmp_path: Path) -> None:
    with busy_day(tmp_path, settings=NO_LOSS_LIMIT) as scene:
        exchange = scene.exchange

        def halt(_: str) -> None:
            exchange.halt_symbol()
            scene.clock.at(exchange.now_ms + 8 * BAR_MS, exchange.resume_symbol)

        done = once_held(scene, halt, range(WARM + 12, WARM + 30))
        assert scene.run_to(WARM + 32) is Ending.ASKED
        assert done
        reported = Counter(" ".join(text.split()[:3]) for text in scene.alerts.texts)
        orders = {f"order {kind} {side}" for kind in KINDS for side in SIDES}
        stops = {f"BTCUSDT {word} {side}" for word in ("EMERGENCY", "OK") for side in SIDES}
        reported_status = {"the exchange's rules", "entries are off:", "entries are on"}
        assert set(reported) <= orders | stops | reported_status
        repeated = {text for text, times in reported.items() if times > 1}
        assert repeated <= {f"BTCUSDT EMERGENCY {side}" for side in SIDES} | {
            "the exchange's rules"
        }
        assert reported["the exchange's rules"] == 2
        assert errors_of(scene) == 0
        assert scene.position_gaps() == [0.0, 0.0]
        assert_all_stopped(exchange)


# --- endings ------------------------------------------------------------------------------------


def test_at_the_loss_limit_everything_of_ours_is_closed_and_nothing_else(tmp_path: Path) -> None:
    with crash(tmp_path) as scene:
        exchange = scene.exchange
        when = scene.opens_ms(WARM + 2) + 100_000
        scene.clock.at(when, lambda: exchange.hand_trade("SHORT", "SELL", 0.02))
        assert scene.run() is Ending.EMERGENCY
    held = {name: float(side.qty) for name, side in exchange.account.positions.items()}
    assert held == {"LONG": 0.0, "SHORT": 0.02}
    assert not exchange.book.open_orders
    assert not exchange.book.open_stops
    assert "CLOSE_END" in {trade.label for trade in scene.session.trades}
    assert scene.session.strategy.view().long.n_fills == 0
    assert scene.alerts.count("EMERGENCY") == 1


def test_what_cannot_be_closed_at_the_loss_limit_keeps_its_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with crash(tmp_path) as scene:
        exchange = scene.exchange
        exchange.before_request = lambda _, method, path: (
            exchange.halt_symbol()
            if (method, path) == ("POST", "/fapi/v1/order")
            else exchange.resume_symbol()
        )
        send = scene.alerts.send

        def send_and_stop_later(text: str) -> None:
            send(text)
            if "EMERGENCY" in text:  # it tries on and on; a person ends that
                scene.clock.at(exchange.now_ms + 120_000, scene.clock.stop.set)

        scene.alerts.send = send_and_stop_later  # type: ignore[method-assign]  # at the seam
        assert scene.run() is Ending.FAILED
        assert_stopped_in_order(exchange)
    assert "close them by hand" in caplog.text


def test_errors_in_a_row_end_the_session_and_leave_the_stops(tmp_path: Path) -> None:
    limit = 3
    with busy_day(tmp_path, settings={**NO_LOSS_LIMIT, "max_errors_in_row": limit}) as scene:
        faults = scene.exchange.faults

        def break_off(_: str) -> None:
            faults.next(FaultKind.REFUSED, path="klines", times=10**6, code=-1120)

        done = once_held(scene, break_off, range(WARM + 12, WARM + 30))
        assert scene.run() is Ending.FAILED
        assert done
        assert_stopped_in_order(scene.exchange)
    assert errors_of(scene) == limit + 1
    assert scene.alerts.count("SHUTDOWN errors") == 1


def test_a_full_disk_ends_trading_leaves_the_stops_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with busy_day(tmp_path, settings=NO_LOSS_LIMIT) as scene:
        exchange = scene.exchange
        sent: Counter[str] = Counter()

        def fill_disk(_: str) -> None:
            monkeypatch.setattr("core.files.write_durably", no_room)
            sent.update(exchange.faults.requests)

        done = once_held(scene, fill_disk, range(WARM + 12, WARM + 30))
        assert scene.run() is Ending.FAILED
        assert done
        assert_stopped_in_order(exchange)
        later = exchange.faults.requests - sent
        assert not [name for name in later if name.startswith("POST") and "rder" in name]
        assert "trading stops, positions keep their stops: cannot write" in caplog.text
        assert "may still be open" not in caplog.text
        monkeypatch.undo()
        again = scene.reopened()
        assert again.run_to(WARM + 40) is Ending.ASKED
    assert again.position_gaps() == [0.0, 0.0]
    assert again.equity_gap() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_a_stop_that_fires_while_nobody_watches_is_booked_when_somebody_does(
    tmp_path: Path,
) -> None:
    with busy_day(tmp_path, settings=NO_LOSS_LIMIT) as scene:
        exchange = scene.exchange
        done = once_held(scene, lambda _: scene.clock.stop.set(), range(WARM + 12, WARM + 30))
        assert scene.run() is Ending.ASKED
        n_trades = len(exchange.account.trades)
        while len(exchange.account.trades) == n_trades:
            exchange.run_until(exchange.now_ms + BAR_MS)
        again = scene.reopened()
        assert again.run_until(exchange.now_ms + 60_000) is Ending.ASKED
    assert done
    stopped = {t.client_id for t in again.session.trades if t.label.startswith("STOP")}
    assert len(stopped) == 1
    assert "S00" in stopped.pop()
    assert again.position_gaps() == [0.0, 0.0]
    assert again.equity_gap() == pytest.approx(0.0, abs=1e-6)
