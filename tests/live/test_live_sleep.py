"""Sessions that sleep through fills, as real ones do: positions have stops, books agree."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pandas as pd
import pytest

from live.execution.stop_orders import UNPROTECTED_LIMIT_S
from live.session.shutdown import Ending
from live.simulated.faults import BY_CHANCE, ONLY_AT, READ, FaultKind
from tests.support.markets.synthetic import RULES
from tests.support.processes.live_session import Scene, backtest, rows_of
from tests.support.processes.watched_day import (
    CALM_SEED,
    DOCUMENTED,
    HOUR_BARS,
    MUCH_AT_A_TIME,
    NO_LOSS_LIMIT,
    WARM,
    AccountObserver,
    assert_books_agree,
    assert_nothing_twice,
    assert_one_order_a_fill,
    busy_day,
    errors_of,
    fill_nearest,
    fill_on_a_flat_side,
    finish,
    no_waiting_for_the_disk,  # noqa: F401 - pytest uses it
    wild_hour,
    wild_market,
)

POLL_S: Final = 60.0
SHORT_POLL_S: Final = 5.0
PATIENCE_MS: Final = 30_000
"""Time to find out about a request that went wrong: its window, tries and pauses."""
READABLE_MS: Final = 2_000
"""Time it may take where orders and positions can be read."""
LAGS_MS: Final = {FaultKind.LATE_TRADES: 20_000, FaultKind.LATE_CANDLES: 20_000}
DELAYS_MS: Final = {FaultKind.DELAY: 3_000, FaultKind.CLOCK_JUMP: 50}
LATE: Final = {FaultKind.LATE_TRADES, FaultKind.LATE_CANDLES, FaultKind.NO_CANDLES}
REFUSALS: Final = (-4045, -1111, -2019, -4131, -4130, -1015, -1008, -4400, -2027, -4003)


def let_go_wrong(scene: Scene, kind: FaultKind, chance: float) -> None:
    """Let requests go wrong with ``chance``; five times as often where few can."""
    scene.exchange.faults.rate(
        kind,
        5.0 * chance if kind in ONLY_AT else chance,
        delay_ms=DELAYS_MS.get(kind, 0),
        lag_ms=LAGS_MS.get(kind, 1_000),
    )


def assert_all_is_well(
    scene: Scene, observer: AccountObserver, unprotected_ms: float, least: int = 5
) -> None:
    """At the end of a time: nothing doubled, nothing lost, nothing unprotected for longer."""
    observer.look()
    assert observer.longest_unprotected_ms <= unprotected_ms
    end, trades = finish(scene)
    assert_books_agree(end, trades)
    assert_nothing_twice(end)
    assert_one_order_a_fill(trades)
    assert observer.doubled == []
    assert len(trades) >= least


@pytest.mark.slow
@pytest.mark.parametrize("kind", BY_CHANCE, ids=lambda kind: kind.name)
def test_an_hour_with_much_trading_and_one_fault(kind: FaultKind, tmp_path: Path) -> None:
    with wild_hour(tmp_path, POLL_S, **MUCH_AT_A_TIME) as scene:
        observer = AccountObserver(scene.exchange)
        let_go_wrong(scene, kind, 0.1)
        assert scene.run_to(WARM + HOUR_BARS) is Ending.ASKED
        assert scene.exchange.faults.injected[kind] > 1
        patience_ms = READABLE_MS if kind in LATE else PATIENCE_MS
        assert_all_is_well(scene, observer, 1e3 * POLL_S + patience_ms)


@pytest.mark.slow
def test_an_hour_with_much_trading_and_every_fault(tmp_path: Path) -> None:
    with wild_hour(tmp_path, POLL_S, **MUCH_AT_A_TIME) as scene:
        observer = AccountObserver(scene.exchange)
        for kind in BY_CHANCE:
            let_go_wrong(scene, kind, 0.006)
        assert scene.run_to(WARM + HOUR_BARS) is Ending.ASKED
        assert len(scene.exchange.faults.injected) > 10
        assert_all_is_well(scene, observer, 1e3 * POLL_S + PATIENCE_MS)


@pytest.mark.slow
@pytest.mark.parametrize("poll_s", [SHORT_POLL_S, POLL_S])
def test_without_faults_a_position_waits_one_poll_for_its_stop(
    poll_s: float, tmp_path: Path
) -> None:
    with wild_hour(tmp_path, poll_s) as scene:
        observer = AccountObserver(scene.exchange)
        scene.exchange.faults.rate(FaultKind.DELAY, 1.0, delay_ms=50)  # a way there takes its time
        assert scene.run_to(WARM + 2) is Ending.ASKED
        assert errors_of(scene) == 0
        assert scene.alerts.texts == []
        assert_all_is_well(scene, observer, 1e3 * poll_s + READABLE_MS)


@pytest.mark.slow
@pytest.mark.parametrize("lag_ms", [3_000, 15_000, 40_000])
def test_trades_that_are_listed_late_leave_no_position_without_its_stop(
    lag_ms: int, tmp_path: Path
) -> None:
    with wild_hour(tmp_path, SHORT_POLL_S) as scene:
        observer = AccountObserver(scene.exchange)
        scene.exchange.faults.rate(FaultKind.LATE_TRADES, 1.0, lag_ms=lag_ms)
        assert scene.run_to(WARM + 1) is Ending.ASKED
        assert_all_is_well(scene, observer, 1e3 * SHORT_POLL_S + READABLE_MS, least=4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FaultKind.LATE_CANDLES, FaultKind.NO_CANDLES, FaultKind.HTML])
def test_candles_that_are_late_leave_no_position_without_its_stop(
    kind: FaultKind, tmp_path: Path
) -> None:
    settings = {**NO_LOSS_LIMIT, **MUCH_AT_A_TIME, "poll_s": SHORT_POLL_S}
    with busy_day(tmp_path, seed=CALM_SEED, settings=settings) as scene:
        exchange, open_ms = scene.exchange, scene.opens_ms(WARM + 1)
        observer = AccountObserver(exchange)

        def begin() -> None:
            exchange.faults.next(kind, [READ], path="klines", times=10**6, lag_ms=120_000)

        scene.clock.at(open_ms - 10_000, begin)
        scene.clock.at(open_ms + 10_000, lambda: fill_on_a_flat_side(exchange))
        scene.clock.at(open_ms + 120_000, exchange.faults.clear)
        assert scene.run_until(open_ms + 200_000) is Ending.ASKED
        assert exchange.faults.injected[kind] > 1
        assert_all_is_well(scene, observer, 1e3 * SHORT_POLL_S + READABLE_MS, least=1)


@pytest.mark.slow
@pytest.mark.parametrize("code", REFUSALS)
def test_a_side_whose_stop_is_refused_for_a_minute_is_closed_at_market(
    code: int, tmp_path: Path
) -> None:
    with busy_day(tmp_path, settings={**NO_LOSS_LIMIT, "poll_s": SHORT_POLL_S}) as scene:
        exchange, filled_ms = scene.exchange, scene.opens_ms(WARM) + 20_000
        observer = AccountObserver(exchange)
        reported, rested = list[int](), list[int]()

        def look(*_: object) -> None:
            observer.look()
            reported.append(
                exchange.now_ms if any("LONG" in t for t in scene.alerts.texts) else 10**15
            )
            if not exchange.account.is_flat and any(
                order.position_side == "LONG" and not order.closes
                for order in exchange.book.open_orders.values()
            ):
                rested.append(exchange.now_ms)

        exchange.before_request = exchange.after_request = look
        exchange.faults.rate(FaultKind.REFUSED_STOP, 1.0, code=code)
        scene.clock.at(filled_ms, lambda: fill_nearest(exchange))
        limit_ms = round(1e3 * (UNPROTECTED_LIMIT_S + SHORT_POLL_S)) + 10_000
        assert scene.run_until(filled_ms + limit_ms) is Ending.ASKED
        demanded_ms = 7_000 if code == -1015 else 0  # by the exchange, before the next request
        at_once_ms = filled_ms + 1e3 * SHORT_POLL_S + READABLE_MS + demanded_ms
        assert min(reported) <= at_once_ms
        assert max(rested) <= at_once_ms
        assert exchange.account.is_flat
        closed_ms = exchange.account.trades[-1].ts_ms
        assert closed_ms - filled_ms >= 1e3 * UNPROTECTED_LIMIT_S
        end, trades = finish(scene)
    assert_books_agree(end, trades)
    assert [trade.label[:4] for trade in trades] == ["BUY_", "STOP"]


@pytest.mark.slow
@pytest.mark.parametrize("ahead_ms", [-300, 300])
def test_a_clock_that_is_a_little_off_changes_no_trade(ahead_ms: int, tmp_path: Path) -> None:
    rows = []
    for off_ms in (0, ahead_ms):
        with busy_day(tmp_path / f"{off_ms}", ahead_ms=off_ms) as early:
            early.exchange.advance(10_000)  # else the first candle has not opened for everybody
            scene = early.reopened()
            assert scene.run_to(WARM + 24) is Ending.ASKED
            assert errors_of(scene) == 0
            rows.append(scene.rows())
    assert len(rows[0]) > 10
    assert rows[1] == rows[0]


@pytest.mark.slow
@pytest.mark.parametrize("jump_ms", [-3_600_000, 3_600_000])
def test_a_clock_that_jumps_an_hour_leaves_no_position_without_its_stop(
    jump_ms: int, tmp_path: Path
) -> None:
    with wild_hour(tmp_path, POLL_S, **MUCH_AT_A_TIME) as scene:
        observer, clock = AccountObserver(scene.exchange), scene.clock

        def jump(ms: int) -> None:
            clock.ahead_ms += ms

        clock.at(scene.opens_ms(WARM) + 200_000, lambda: jump(jump_ms))
        clock.at(scene.opens_ms(WARM) + 800_000, lambda: jump(-jump_ms))
        assert scene.run_until(scene.opens_ms(WARM + 2)) is Ending.ASKED
        assert_all_is_well(scene, observer, 1e3 * POLL_S + PATIENCE_MS)


@pytest.mark.slow
def test_a_ban_of_two_minutes_is_waited_out_and_changes_nothing_else(tmp_path: Path) -> None:
    with wild_hour(tmp_path, POLL_S, max_errors_in_row=1) as scene:
        exchange, banned_ms = scene.exchange, scene.opens_ms(WARM + 1) + 300_000
        observer = AccountObserver(exchange)
        observer.excused.append((banned_ms, banned_ms + 200_000))
        scene.clock.at(banned_ms, lambda: exchange.faults.next(FaultKind.BANNED, retry_after=130))
        assert scene.run_to(WARM + HOUR_BARS) is Ending.ASKED
        assert exchange.faults.injected[FaultKind.BANNED] == 1
        assert errors_of(scene) == 0
        assert exchange.limits.banned_until_ms < exchange.now_ms
        assert_all_is_well(scene, observer, 1e3 * POLL_S + READABLE_MS)


@pytest.mark.slow
def test_the_trades_of_the_hour_are_those_of_a_backtest(tmp_path: Path) -> None:
    candles, funding = wild_market()
    rates = pd.DataFrame(funding, columns=["timestamp", "rate"])
    with wild_hour(tmp_path, POLL_S) as scene:
        assert scene.run_to(WARM + 2) is Ending.ASKED
        reported = backtest(candles, DOCUMENTED, RULES, WARM, rates, scene.capital)
    wanted = [row for row in rows_of(reported["trades"]) if row[3] < WARM + 2]
    assert scene.rows() == wanted
    assert len(wanted) > 10
