"""A session that hangs is noticed within two looks, whatever it waits for."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from config import LIVE_CONFIG
from live.exchange.request import InFlight
from live.health.monitor import HealthMonitor
from live.health.step_watch import StepWatch
from tests.support.clocks.virtual import VirtualClock

POLL_S = 5.0


class Scene:
    """A watch over this thread, with a time and a request of the test's own."""

    def __init__(self) -> None:
        self.clock = VirtualClock(1_000_000)
        self.request: InFlight | None = None
        self.is_asleep = False
        self.watch = StepWatch(
            POLL_S, lambda: self.request, lambda: self.is_asleep, lambda: self.now_s
        )

    @property
    def now_s(self) -> float:
        """Seconds of the watch's clock."""
        return self.clock.now / 1e3


class Pager:
    """Keeps what a person is sent."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def send(self, text: str) -> None:
        """Keep it."""
        self.texts.append(text)


def test_a_step_that_does_nothing_is_noticed_after_two_polls() -> None:
    scene = Scene()
    scene.clock.sleep(10.0)
    assert scene.watch.standstill() is None
    scene.clock.sleep(0.5)
    found = scene.watch.standstill()
    assert found is not None
    assert found.text == "the session has done nothing for 10 s"


def test_a_request_that_hangs_is_named() -> None:
    scene = Scene()
    scene.clock.sleep(4.0)
    scene.request = InFlight("fapiPrivatePostBatchOrders", scene.now_s)
    scene.clock.sleep(11.0)
    found = scene.watch.standstill()
    assert found is not None
    assert "fapiPrivatePostBatchOrders has been under way for 11 s" in found.text


def test_requests_one_after_the_other_waits_and_notes_are_signs_of_life() -> None:
    scene = Scene()
    for _ in range(10):
        scene.clock.sleep(8.0)
        scene.request = InFlight("fapiPublicGetTime", scene.now_s - 1.0)
        assert scene.watch.standstill() is None
    scene.request, scene.is_asleep = None, True
    scene.clock.sleep(600.0)
    assert scene.watch.standstill() is None
    scene.is_asleep = False
    for _ in range(10):
        scene.clock.sleep(8.0)
        scene.watch.note()
        assert scene.watch.standstill() is None


def test_the_watching_threads_own_checks_are_no_sign_of_life() -> None:
    scene = Scene()
    scene.clock.sleep(11.0)
    other = threading.Thread(target=scene.watch.note)
    other.start()
    other.join()
    assert scene.watch.standstill() is not None


def test_in_a_hang_the_health_file_stands_still_and_a_person_hears_of_it_once(
    tmp_path: Path,
) -> None:
    scene, pager = Scene(), Pager()
    monitor = HealthMonitor("BTCUSDT", tmp_path, LIVE_CONFIG, scene.clock, pager)
    monitor.attach(scene.watch)
    monitor.check()
    path = tmp_path / "BTCUSDT_health.json"
    last = json.loads(path.read_text())["updated_at"]

    def check_elsewhere() -> dict[str, Any]:
        thread = threading.Thread(target=monitor.check)
        thread.start()
        thread.join()
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    scene.clock.sleep(10.5)
    assert check_elsewhere()["updated_at"] == last
    scene.clock.sleep(200.0)
    found = check_elsewhere()
    assert found["updated_at"] == last, "a health check that reads it would take it for alive"
    assert "done nothing for 210 s" in found["conditions"]["hang"]
    reported = [text for text in pager.texts if "hang" in text]
    assert reported == ["BTCUSDT WARN hang: the session has done nothing for 10 s"]
    monitor.check()  # by the thread that trades: it has come loose
    found = json.loads(path.read_text())
    assert "hang" not in found["conditions"]
    assert found["updated_at"] == scene.clock.now_ms()
    assert pager.texts[-1] == "BTCUSDT OK hang: in order again"
    monitor.close()


@pytest.mark.parametrize("poll_s", [1.0, 5.0, 60.0])
def test_the_monitor_looks_once_a_poll(tmp_path: Path, poll_s: float) -> None:
    scene = Scene()
    monitor = HealthMonitor("BTCUSDT", tmp_path, LIVE_CONFIG, scene.clock, Pager())
    watch = StepWatch(poll_s, lambda: None, lambda: False, lambda: scene.now_s)
    waits: list[float] = []

    def no_wait(seconds: float) -> bool:
        waits.append(seconds)
        return True

    monitor._stop.wait = no_wait  # type: ignore[method-assign,assignment]  # noqa: SLF001
    monitor.attach(watch)
    monitor.watch()
    monitor.close()
    assert waits == [min(30.0, poll_s)]
