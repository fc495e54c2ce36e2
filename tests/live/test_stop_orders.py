"""Stops where something else fails: the disk, the list of trades, the program itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import StateError
from core.orders import OrderKind
from engine.grid_v4.decision import PROTECT_PHASES
from live.execution.books import LiveSession
from live.session.shutdown import Ending
from live.store.state_file import StateManager
from tests.support.processes.live_session import Scene
from tests.support.processes.watched_day import (
    NO_LOSS_LIMIT,
    WARM,
    busy_day,
    no_waiting_for_the_disk,  # noqa: F401 - a fixture
)

FILL_AFTER_MS = 20_000


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A session with entries at the exchange and nothing held yet, which looks every 5 s."""
    with busy_day(tmp_path, settings={"poll_s": 5.0, **NO_LOSS_LIMIT}) as scene:
        yield scene


def filled_at(scene: Scene, after_ms: int, *then: Callable[[], None]) -> int:
    """Let the nearest long entry fill in the middle of the first candle; return when."""

    def fill() -> None:
        for action in then:
            action()
        book = scene.exchange.book
        entries = [
            o for o in book.open_orders.values() if not o.closes and o.position_side == "LONG"
        ]
        book.fill_limit(max(entries, key=lambda order: order.price), scene.exchange.stamp_ms)

    when = scene.opens_ms(WARM) + after_ms
    scene.clock.at(when, fill)
    return when


def stops_of(scene: Scene) -> set[str]:
    return {stop.position_side for stop in scene.exchange.book.open_stops.values()}


def entries_of(scene: Scene) -> list[object]:
    return [order for order in scene.exchange.book.open_orders.values() if not order.closes]


def test_a_fill_between_the_last_look_and_the_signal_gets_its_stop(scene: Scene) -> None:
    filled_at(scene, FILL_AFTER_MS, scene.clock.stop.set)
    assert scene.run() is Ending.ASKED
    assert scene.position_gaps() == [0.0, 0.0]
    assert float(scene.exchange.account.positions["LONG"].qty) > 0.0
    assert stops_of(scene) == {"LONG"}
    assert not scene.exchange.book.open_orders


def test_a_side_without_a_stop_gets_one_though_the_disk_is_full(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StateError("no space left")

    with monkeypatch.context() as patch:
        filled_at(scene, FILL_AFTER_MS, lambda: patch.setattr(StateManager, "save", refuse))
        assert scene.run() is Ending.FAILED
    assert stops_of(scene) == {"LONG"}
    assert not scene.exchange.book.open_orders

    (stop,) = scene.exchange.book.open_stops.values()
    again = scene.reopened()
    assert again.run_until(scene.exchange.now_ms + 1_000) is Ending.ASKED
    assert again.position_gaps() == [0.0, 0.0]
    assert [s.client_id for s in again.exchange.book.open_stops.values()] == [stop.client_id]
    assert [r.client_id for r in again.session.orders.alive(OrderKind.STOP)] == [stop.client_id]


def test_a_stop_that_rests_stays_where_the_new_one_cannot_be_written_down(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StateError("no space left")

    filled_at(scene, FILL_AFTER_MS)
    with monkeypatch.context() as patch:
        filled_at(scene, 2 * FILL_AFTER_MS, lambda: patch.setattr(StateManager, "save", refuse))
        assert scene.run() is Ending.FAILED
    assert len(scene.exchange.account.trades) > 1
    assert stops_of(scene) == {"LONG"}
    assert len(scene.exchange.book.stops) == 1, "the first stop still stands"


def test_a_defect_of_the_program_cancels_entries_keeps_stops_and_is_reported(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled_at(scene, FILL_AFTER_MS)

    def break_down(session: LiveSession, bar: int) -> None:
        raise ZeroDivisionError(f"{session.progress.phase} of {PROTECT_PHASES} in {bar}")

    def from_now_on() -> None:
        monkeypatch.setattr(LiveSession, "begin_step", break_down)

    scene.clock.at(scene.opens_ms(WARM) + 2 * FILL_AFTER_MS, from_now_on)
    with pytest.raises(ZeroDivisionError):
        scene.run()
    assert stops_of(scene) == {"LONG"}
    assert not entries_of(scene)
    assert scene.alerts.count("SHUTDOWN defect: ZeroDivisionError") == 1
