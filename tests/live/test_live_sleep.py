"""Sessions that sleep through fills, as real ones do: positions have stops, books agree."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pytest

from live.execution.stop_orders import UNPROTECTED_LIMIT_S
from live.session.shutdown import Ending
from live.simulated.faults import BY_CHANCE, ONLY_AT, READ, FaultKind, FaultPlan
from tests.support.markets.synthetic import RULES
from tests.support.processes.campaign import Campaign, campaign
from tests.support.processes.live_session import SceneClock, backtest, rows_of
from tests.support.processes.two_coins import other_market, other_wild_market
from tests.support.processes.watched_day import (
    CALM_SEED,
    DAY_BARS,
    DOCUMENTED,
    HOUR_BARS,
    MUCH_AT_A_TIME,
    NO_LOSS_LIMIT,
    WARM,
    busy_day,
    errors_of,
    fill_nearest,
    fill_on_a_flat_side,
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


COINS: Final = pytest.mark.parametrize("coins", [1, 2], ids=["one coin", "two coins"])


def wild(
    folder: Path, coins: int, longest_ms: float, poll_s: float = POLL_S, **changes: Any
) -> AbstractContextManager[Campaign]:
    """Return a campaign through an hour in which orders of every coin fill every two minutes."""
    other = other_wild_market() if coins > 1 else None
    return campaign(wild_hour(folder, poll_s, **changes), longest_ms, other)


def calm(
    folder: Path, coins: int, longest_ms: float, **settings: Any
) -> AbstractContextManager[Campaign]:
    """Return a campaign in which the first coin's orders fill when a test says so."""
    other = other_market(DAY_BARS // 8) if coins > 1 else None
    settings = {**NO_LOSS_LIMIT, "poll_s": SHORT_POLL_S, **settings}
    return campaign(busy_day(folder, seed=CALM_SEED, settings=settings), longest_ms, other)


def let_go_wrong(faults: FaultPlan, kind: FaultKind, chance: float) -> None:
    """Let requests go wrong with ``chance``; five times as often where few can."""
    faults.rate(
        kind,
        5.0 * chance if kind in ONLY_AT else chance,
        delay_ms=DELAYS_MS.get(kind, 0),
        lag_ms=LAGS_MS.get(kind, 1_000),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("coins", "kind"),  # two coins meet each of the others in a longer time, test_live_faults
    [*((1, kind) for kind in BY_CHANCE), *((2, kind) for kind in BY_CHANCE[::3])],
    ids=lambda item: item.name if isinstance(item, FaultKind) else f"{item} coins",
)
def test_an_hour_with_much_trading_and_one_fault(
    kind: FaultKind, coins: int, tmp_path: Path
) -> None:
    longest_ms = 1e3 * POLL_S + (READABLE_MS if kind in LATE else PATIENCE_MS)
    with wild(tmp_path, coins, longest_ms, **MUCH_AT_A_TIME) as hour:
        let_go_wrong(hour.faults, kind, 0.1)
        hour.run_to(WARM + HOUR_BARS)
        assert hour.faults.injected[kind] > 1
        assert len(hour.checked_trades(longest_ms)) >= 5 * coins


@pytest.mark.slow
@COINS
def test_an_hour_with_much_trading_and_every_fault(coins: int, tmp_path: Path) -> None:
    longest_ms = 1e3 * POLL_S + PATIENCE_MS
    with wild(tmp_path, coins, longest_ms, **MUCH_AT_A_TIME) as hour:
        for kind in BY_CHANCE:
            let_go_wrong(hour.faults, kind, 0.006)
        hour.run_to(WARM + HOUR_BARS)
        assert len(hour.faults.injected) > 10
        assert len(hour.checked_trades(longest_ms)) >= 5 * coins


@pytest.mark.slow
@COINS
@pytest.mark.parametrize("poll_s", [SHORT_POLL_S, POLL_S])
def test_without_faults_a_position_waits_one_poll_for_its_stop(
    poll_s: float, coins: int, tmp_path: Path
) -> None:
    longest_ms = 1e3 * poll_s + READABLE_MS
    with wild(tmp_path, coins, longest_ms, poll_s) as hour:
        hour.faults.rate(FaultKind.DELAY, 1.0, delay_ms=50)  # a way there takes its time
        hour.run_to(WARM + 2)
        assert hour.errors == 0
        assert [text for scene in hour.scenes for text in scene.alerts.texts] == []
        assert len(hour.checked_trades(longest_ms)) >= 5 * coins


@pytest.mark.slow
@COINS
@pytest.mark.parametrize("lag_ms", [3_000, 15_000, 40_000])
def test_trades_that_are_listed_late_leave_no_position_without_its_stop(
    lag_ms: int, coins: int, tmp_path: Path
) -> None:
    longest_ms = 1e3 * SHORT_POLL_S + READABLE_MS
    with wild(tmp_path, coins, longest_ms, SHORT_POLL_S) as hour:
        hour.faults.rate(FaultKind.LATE_TRADES, 1.0, lag_ms=lag_ms)
        hour.run_to(WARM + 1)
        assert len(hour.checked_trades(longest_ms)) >= 4 * coins


@pytest.mark.slow
@COINS
@pytest.mark.parametrize("kind", [FaultKind.LATE_CANDLES, FaultKind.NO_CANDLES, FaultKind.HTML])
def test_candles_that_are_late_leave_no_position_without_its_stop(
    kind: FaultKind, coins: int, tmp_path: Path
) -> None:
    longest_ms = 1e3 * SHORT_POLL_S + READABLE_MS
    with calm(tmp_path, coins, longest_ms, **MUCH_AT_A_TIME) as time:
        exchange, clock = time.exchange, time.scene.clock
        open_ms = time.scene.opens_ms(WARM + 1)

        def begin() -> None:
            exchange.faults.next(kind, [READ], path="klines", times=10**6, lag_ms=120_000)

        clock.at(open_ms - 10_000, begin)
        clock.at(open_ms + 10_000, lambda: fill_on_a_flat_side(exchange))
        clock.at(open_ms + 120_000, exchange.faults.clear)
        time.run_until(open_ms + 200_000)
        assert exchange.faults.injected[kind] > 1
        assert time.checked_trades(longest_ms)


@pytest.mark.slow
@COINS
@pytest.mark.parametrize("code", REFUSALS)
def test_a_side_whose_stop_is_refused_for_a_minute_is_closed_at_market(
    code: int, coins: int, tmp_path: Path
) -> None:
    longest_ms = 1e3 * (UNPROTECTED_LIMIT_S + SHORT_POLL_S) + 10_000
    other = other_market(DAY_BARS // 8) if coins > 1 else None
    stage = busy_day(tmp_path, settings={**NO_LOSS_LIMIT, "poll_s": SHORT_POLL_S})
    with campaign(stage, longest_ms, other) as time:
        exchange, scene = time.exchange, time.scene
        filled_ms = scene.opens_ms(WARM) + 20_000
        reported, rested = list[int](), list[int]()

        def look() -> None:
            if any("LONG" in text for text in scene.alerts.texts):
                reported.append(exchange.now_ms)
            if not exchange.account.is_flat and any(
                order.position_side == "LONG" and not order.closes
                for order in exchange.book.open_orders.values()
            ):
                rested.append(exchange.now_ms)

        time.at_requests(look)
        exchange.faults.rate(FaultKind.REFUSED_STOP, 1.0, code=code)
        scene.clock.at(filled_ms, lambda: fill_nearest(exchange))
        time.run_until(filled_ms + round(longest_ms))
        demanded_ms = 7_000 if code == -1015 else 0  # by the exchange, before the next request
        at_once_ms = filled_ms + 1e3 * SHORT_POLL_S + READABLE_MS + demanded_ms
        assert min(reported) <= at_once_ms
        assert max(rested) <= at_once_ms
        assert exchange.account.is_flat
        closed_ms = exchange.account.trades[-1].ts_ms
        assert closed_ms - filled_ms >= 1e3 * UNPROTECTED_LIMIT_S
        time.checked_trades(longest_ms)
        trades = scene.session.trades
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
@COINS
@pytest.mark.parametrize("jump_ms", [-3_600_000, 3_600_000])
def test_a_clock_that_jumps_an_hour_leaves_no_position_without_its_stop(
    jump_ms: int, coins: int, tmp_path: Path
) -> None:
    longest_ms = 1e3 * POLL_S + PATIENCE_MS
    with wild(tmp_path, coins, longest_ms, **MUCH_AT_A_TIME) as hour:
        for scene in hour.scenes:

            def jump(ms: int, clock: SceneClock = scene.clock) -> None:
                clock.ahead_ms += ms

            scene.clock.at(scene.opens_ms(WARM) + 200_000, partial(jump, jump_ms))
            scene.clock.at(scene.opens_ms(WARM) + 800_000, partial(jump, -jump_ms))
        hour.run_until(hour.scene.opens_ms(WARM + 2))
        assert hour.checked_trades(longest_ms)


@pytest.mark.slow
@COINS
def test_a_ban_of_two_minutes_is_waited_out_and_changes_nothing_else(
    coins: int, tmp_path: Path
) -> None:
    longest_ms = 1e3 * POLL_S + READABLE_MS
    with wild(tmp_path, coins, longest_ms, max_errors_in_row=1) as hour:
        exchange, scene = hour.exchange, hour.scene
        banned_ms = scene.opens_ms(WARM + 1) + 300_000
        scene.clock.at(banned_ms, lambda: exchange.faults.next(FaultKind.BANNED, retry_after=130))
        hour.run_to(WARM + HOUR_BARS)
        assert exchange.faults.injected[FaultKind.BANNED] == 1
        assert hour.errors == 0
        assert exchange.limits.banned_until_ms < exchange.now_ms
        assert len(hour.checked_trades(longest_ms)) >= 5 * coins


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
