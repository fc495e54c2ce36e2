"""However a session ends: positions have their stops or are closed, and no entries rest."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import pytest

from core.files import write_durably
from live.session.shutdown import Ending
from live.simulated.exchange import SimExchange
from live.simulated.faults import FaultKind
from tests.support.processes.live_session import Scene
from tests.support.processes.watched_day import (
    CALM_SEED,
    HOUR_BARS,
    NO_LOSS_LIMIT,
    WARM,
    assert_all_stopped,
    assert_books_agree,
    assert_stopped_in_order,
    busy_day,
    crash,
    fill_nearest,
    fill_on_a_flat_side,
    finish,
    no_waiting_for_the_disk,  # noqa: F401 - pytest uses it
    wild_hour,
)

POLL_S: Final = 60.0
SHORT_POLL_S: Final = 5.0
CALM: Final = {**NO_LOSS_LIMIT, "poll_s": SHORT_POLL_S}
FOREIGN: Final = "g4a-zz-LE00-0"


def lay_foreign_order(exchange: SimExchange) -> None:
    """Let an order rest that bears our name and that no session knows."""
    exchange.book.new_order(
        client_id=FOREIGN,
        side="BUY",
        position_side="LONG",
        kind="LIMIT",
        qty=Decimal("0.01"),
        price=Decimal(1_000),
        time_in_force="GTX",
        now_ms=exchange.stamp_ms,
    )


def cut_off(scene: Scene, seconds: float) -> None:
    """Let no request arrive for some seconds from now on."""
    faults = scene.exchange.faults
    faults.rate(FaultKind.DROP, 1.0)
    scene.clock.at(scene.exchange.now_ms + round(1e3 * seconds), lambda: faults.end(FaultKind.DROP))


def when_reported(scene: Scene, words: str, action: Callable[[], None]) -> None:
    """Let ``action`` happen once a person is reported of ``words``."""
    send, done = scene.alerts.send, list[str]()

    def hear(text: str) -> None:
        send(text)
        if words in text and not done:
            done.append(text)
            action()

    scene.alerts.send = hear  # type: ignore[method-assign]  # at the seam


# --- a signal -----------------------------------------------------------------------------------


@cache
def moments_of_fills(folder: Path) -> list[int]:
    """Return when something filled in a wild hour, ms after its begin."""
    with wild_hour(folder, POLL_S) as scene:
        begin_ms = scene.opens_ms(WARM)
        assert scene.run_to(WARM + HOUR_BARS) is Ending.ASKED
        return sorted({trade.ts_ms - begin_ms for trade in scene.exchange.account.trades})


@pytest.fixture(scope="module")
def hour_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hour")


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1, 3, 6, 10, 14])
def test_a_signal_between_a_fill_and_the_next_look_leaves_no_position_unprotected(
    which: int, hour_folder: Path, tmp_path: Path
) -> None:
    with wild_hour(tmp_path, POLL_S) as scene:
        filled_ms = scene.opens_ms(WARM) + moments_of_fills(hour_folder)[which]
        assert scene.run_until(filled_ms + 1) is Ending.ASKED
        assert filled_ms in {trade.ts_ms for trade in scene.exchange.account.trades}
        assert scene.exchange.now_ms < filled_ms + 10_000
        assert_all_stopped(scene.exchange)
        end, trades = finish(scene)
    assert_books_agree(end, trades)


# --- errors in a row, and outages that last -----------------------------------------------------

QUARTER_H: Final = {"max_outage_h": 0.25}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "why"),
    [(FaultKind.REFUSED, "SHUTDOWN errors"), (FaultKind.HTML, "SHUTDOWN outage too long")],
    ids=["refused", "unreadable"],
)
def test_candles_that_cannot_be_had_end_the_session_with_stops_for_what_filled_meanwhile(
    kind: FaultKind, why: str, tmp_path: Path
) -> None:
    with busy_day(tmp_path, seed=CALM_SEED, settings={**CALM, **QUARTER_H}) as scene:
        exchange, open_ms = scene.exchange, scene.opens_ms(WARM + 1)
        spoil = partial(exchange.faults.next, kind, path="klines", times=10**6, code=-1120)
        scene.clock.at(open_ms - 5_000, spoil)
        scene.clock.at(open_ms + 8_000, lambda: fill_on_a_flat_side(exchange))
        assert scene.run() is Ending.FAILED
        assert scene.alerts.count(why) == 1
        assert_stopped_in_order(exchange)


@pytest.mark.slow
def test_unreadable_candles_of_a_few_minutes_end_nothing_and_are_one_message(
    tmp_path: Path,
) -> None:
    settings = {**CALM, "max_errors_in_row": 1}
    with busy_day(tmp_path, seed=CALM_SEED, settings=settings) as scene:
        exchange, open_ms = scene.exchange, scene.opens_ms(WARM + 1)
        exchange.faults.during(open_ms - 5_000, open_ms + 300_000, FaultKind.HTML, path="klines")
        rested = list[int]()
        scene.clock.at(open_ms + 250_000, lambda: rested.append(len(exchange.book.open_orders)))
        assert scene.run_until(open_ms + 400_000) is Ending.ASKED
    assert rested == [0]
    assert scene.session.progress.bar == scene.first_bar + WARM + 1
    assert scene.session.progress.done
    assert scene.alerts.count("WARN outage") == scene.alerts.count("OK outage") == 1


@pytest.mark.slow
def test_without_a_way_to_the_exchange_the_end_is_tried_until_there_is_one(tmp_path: Path) -> None:
    with busy_day(tmp_path, settings={**CALM, **QUARTER_H}) as scene:
        exchange, away_ms = scene.exchange, scene.opens_ms(WARM) + 20_000
        scene.clock.at(away_ms, lambda: cut_off(scene, 1_200.0))
        scene.clock.at(away_ms + 1_000, lambda: fill_nearest(exchange))
        assert scene.run() is Ending.FAILED
        assert exchange.now_ms > away_ms + 1_200_000
        assert_stopped_in_order(exchange)


@pytest.mark.slow
@pytest.mark.parametrize("max_outage_h", [0.25, 12.0], ids=["while it ends", "while it waits"])
def test_without_a_way_to_the_exchange_a_signal_ends_it_and_says_what_may_be_open(
    max_outage_h: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with busy_day(tmp_path, settings={**CALM, "max_outage_h": max_outage_h}) as scene:
        away_ms = scene.opens_ms(WARM) + 20_000
        scene.clock.at(away_ms, lambda: cut_off(scene, 36_000.0))
        assert scene.run_until(away_ms + 1_500_000) is Ending.FAILED
        assert away_ms + 1_500_000 <= scene.exchange.now_ms < away_ms + 1_800_000
        assert not scene.exchange.book.open_orders, "the countdown has taken them, unknown to us"
    last = [record for record in caplog.records if record.levelname == "CRITICAL"][-1]
    assert "may still be open" in last.message


@pytest.mark.slow
@pytest.mark.parametrize("jump_ms", [-3_600_000, 300_000])
def test_a_clock_that_is_set_while_there_is_no_way_to_the_exchange_ends_nothing(
    jump_ms: int, tmp_path: Path
) -> None:
    with busy_day(tmp_path, settings=CALM) as scene:
        clock, away_ms = scene.clock, scene.opens_ms(WARM) + 20_000

        def jump(ms: int) -> None:
            clock.ahead_ms += ms

        clock.at(away_ms, lambda: cut_off(scene, 600.0))
        clock.at(away_ms + 300_000, lambda: jump(jump_ms))
        assert scene.run_until(away_ms + 1_200_000) is Ending.ASKED
        assert scene.session.progress.bar == scene.first_bar + WARM + 1
        assert_all_stopped(scene.exchange)


# --- the disk -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [2, 3, 6, 9, 14, 20, 28, 40, 55, 70])
def test_a_disk_that_is_full_at_any_write_leaves_no_position_unprotected_and_no_entry(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = list[Path]()

    def write(path: Path, body: bytes, *rest: Any) -> None:
        if not path.name.startswith(".BTCUSDT_health"):  # not needed to trade
            writes.append(path)
        if len(writes) >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_durably(path, body, *rest)

    with wild_hour(tmp_path, POLL_S) as scene:
        monkeypatch.setattr("core.files.write_durably", write)
        assert scene.run_to(WARM + HOUR_BARS) is Ending.FAILED
        assert_all_stopped(scene.exchange)
        monkeypatch.undo()
        end, _ = finish(scene)
    assert end.position_gaps() == [0.0, 0.0]
    assert end.equity_gap() == pytest.approx(0.0, abs=1e-6)


# --- the loss limit -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("away_s", [60.0, 600.0])
def test_at_the_loss_limit_all_is_closed_once_there_is_a_way_to_the_exchange(
    away_s: float, tmp_path: Path
) -> None:
    with crash(tmp_path) as scene:
        exchange = scene.exchange
        limit_ms = list[int]()

        def away() -> None:
            limit_ms.append(exchange.now_ms)
            cut_off(scene, away_s)

        when_reported(scene, "EMERGENCY", away)
        assert scene.run() is Ending.EMERGENCY
        assert exchange.now_ms >= limit_ms[0] + 1e3 * away_s
        assert exchange.account.is_flat
        assert not exchange.book.open_orders
        assert not exchange.book.open_stops
    assert "CLOSE_END" in {trade.label for trade in scene.session.trades}


@pytest.mark.slow
def test_a_loss_that_a_stop_makes_between_two_steps_is_judged_at_the_next_look(
    tmp_path: Path,
) -> None:
    limits = {"equity_warn_pct": 0.01, "equity_emergency_pct": 0.02}
    settings = {"poll_s": SHORT_POLL_S, **limits}
    with busy_day(tmp_path, seed=CALM_SEED, settings=settings) as scene:
        exchange, open_ms = scene.exchange, scene.opens_ms(WARM)

        def fire() -> None:
            (stop,) = exchange.book.open_stops.values()
            exchange.book.trigger(stop, stop.trigger, exchange.stamp_ms)

        scene.clock.at(open_ms + 20_000, lambda: fill_nearest(exchange))
        scene.clock.at(open_ms + 40_000, fire)
        assert scene.run() is Ending.EMERGENCY
        assert open_ms + 40_000 <= exchange.now_ms <= open_ms + 42_000 + 1e3 * SHORT_POLL_S
        assert exchange.account.is_flat
        assert_all_stopped(exchange)


@pytest.mark.slow
def test_to_judge_equity_one_price_a_minute_is_asked_for_where_nothing_is_traded(
    tmp_path: Path,
) -> None:
    with busy_day(tmp_path, seed=CALM_SEED, settings=CALM) as scene:
        exchange, open_ms = scene.exchange, scene.opens_ms(WARM)
        asked = list[int]()
        scene.clock.at(open_ms + 20_000, lambda: fill_nearest(exchange))
        for after_ms in (60_000, 660_000):
            scene.clock.at(
                open_ms + after_ms,
                lambda: asked.append(exchange.faults.requests["GET /fapi/v2/ticker/price"]),
            )
        assert scene.run_until(open_ms + 700_000) is Ending.ASKED
        assert not exchange.account.is_flat
    assert 9 <= asked[1] - asked[0] <= 11


# --- foreign orders -----------------------------------------------------------------------------


@pytest.mark.slow
def test_an_order_that_bears_our_name_ends_the_session_with_its_stops_in_place(
    tmp_path: Path,
) -> None:
    with busy_day(tmp_path, settings=CALM) as scene:
        exchange, open_ms = scene.exchange, scene.opens_ms(WARM)
        scene.clock.at(open_ms + 20_000, lambda: fill_nearest(exchange))
        scene.clock.at(open_ms + 40_000, lambda: lay_foreign_order(exchange))
        assert scene.run() is Ending.FAILED
        assert exchange.now_ms < open_ms + 60_000
        assert not exchange.account.is_flat
        assert_all_stopped(exchange, FOREIGN)


@pytest.mark.slow
def test_an_order_that_bears_our_name_does_not_keep_the_loss_limit_from_closing(
    tmp_path: Path,
) -> None:
    with crash(tmp_path) as scene:
        exchange = scene.exchange
        when_reported(scene, "EMERGENCY", lambda: lay_foreign_order(exchange))
        assert scene.run() is Ending.EMERGENCY
        assert exchange.account.is_flat
        assert_all_stopped(exchange, FOREIGN)
