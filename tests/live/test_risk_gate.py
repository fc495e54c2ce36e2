"""Entries that a risk gate holds back, and events that reach whoever has subscribed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import StateError
from engine.contract import View
from live.execution.risk_gate import Allowance, NoLimit
from live.health.events import Events, Notice, Unprotected
from live.session.shutdown import Ending
from tests.support.processes.live_session import Scene
from tests.support.processes.watched_day import (
    NO_LOSS_LIMIT,
    WARM,
    busy_day,
    no_waiting_for_the_disk,  # noqa: F401 - a fixture
)

SYMBOL = "BTCUSDT"


class Switch:
    """A gate that a test opens and closes."""

    def __init__(self) -> None:
        self.allowance = Allowance(entries=True)
        self.asked: list[tuple[str, View]] = []

    def allows(self, symbol: str, view: View) -> Allowance:
        """Answer as it is set."""
        self.asked.append((symbol, view))
        return self.allowance


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Switch:
    switch = Switch()
    monkeypatch.setattr(NoLimit, "allows", lambda _, symbol, view: switch.allows(symbol, view))
    return switch


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with busy_day(tmp_path, settings=NO_LOSS_LIMIT) as scene:
        yield scene


def entries_of(scene: Scene) -> list[object]:
    return [order for order in scene.exchange.book.open_orders.values() if not order.closes]


@pytest.mark.slow
def test_a_closed_gate_takes_entries_off_and_leaves_what_closes_positions(
    scene: Scene, gate: Switch
) -> None:
    closed_ms, open_ms = (scene.opens_ms(WARM + bars) + 100_000 for bars in (12, 16))
    seen: list[tuple[int, int, int]] = []

    def close() -> None:
        gate.allowance = Allowance(entries=False, reason="the portfolio is at its limit")

    def look() -> None:
        book = scene.exchange.book
        exits = len(book.open_orders) - len(entries_of(scene))
        seen.append((len(entries_of(scene)), exits, len(book.open_stops)))

    def reopen() -> None:
        look()
        gate.allowance = Allowance(entries=True)

    scene.clock.at(closed_ms - 1_000, look)
    scene.clock.at(closed_ms, close)
    scene.clock.at(open_ms, reopen)
    scene.clock.at(open_ms + 1_000_000, look)
    scene.clock.at(open_ms + 1_100_000, scene.clock.stop.set)
    assert scene.run() is Ending.ASKED

    (before, _, _), (closed, exits, stops), (after, _, _) = seen
    assert before > 0
    assert closed == 0
    assert exits > 0
    assert stops > 0
    assert after > 0
    assert scene.alerts.count("entries are held back: the portfolio is at its limit") == 1
    assert {symbol for symbol, _ in gate.asked} == {SYMBOL}
    assert gate.asked[-1][1].equity > 0.0


def test_a_gate_without_limit_allows_everything(scene: Scene) -> None:
    view = scene.session.strategy.view()
    assert NoLimit().allows(SYMBOL, view) == Allowance(entries=True)


def test_every_subscriber_has_the_events_of_its_kind_in_their_order() -> None:
    events, heard = Events(), list[str]()
    events.subscribe(Notice, lambda notice: heard.append(f"first {notice.text}"))
    events.subscribe(Notice, lambda notice: heard.append(f"second {notice.text}"))
    events.subscribe(Unprotected, lambda now: heard.append(", ".join(now.sides)))

    for text in ("a", "b"):
        events.publish(Notice(text))
    events.publish(Unprotected({"LONG": "why"}))

    assert heard == ["first a", "second a", "first b", "second b", "LONG"]


def test_what_a_subscriber_raises_reaches_who_publishes() -> None:
    events = Events()

    def refuse(notice: Notice) -> None:
        raise StateError(notice.text)

    events.subscribe(Notice, refuse)
    with pytest.raises(StateError, match="the disk is full"):
        events.publish(Notice("the disk is full"))
