"""The dead man's countdown: renewed in time, tried again where that fails, reported once."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from core.errors import NetworkError
from live.execution.dead_man import COUNTDOWN_MS, RENEW_MS, REPORT_AFTER_MS, RETRY_MS, DeadMan
from live.health.events import Events, Notice
from live.health.logger import session_logger


class Keeper:
    """A countdown, the exchange it runs at, and the time.

    Attributes:
        said: (ms, countdown ms) of every request.
        is_down: whether the exchange refuses them.
        notices: texts for a person.
    """

    def __init__(self) -> None:
        self.time_ms, self.is_down = 1_000_000, False
        self.said: list[tuple[int, int]] = []
        self.notices: list[str] = []
        self.desk = SimpleNamespace(limits_rest=True, foreign_rests=False)
        events = Events()
        events.subscribe(Notice, lambda notice: self.notices.append(notice.text))
        mine, desk = cast("Any", self), cast("Any", self.desk)
        self.dead_man = DeadMan(mine, desk, mine, events, session_logger("BTCUSDT"))

    def now_ms(self) -> int:
        """Return the time."""
        return self.time_ms

    def countdown_cancel_all(self, countdown_ms: int) -> None:
        """Note a request."""
        self.said.append((self.time_ms, countdown_ms))
        if self.is_down:
            raise NetworkError("out of reach")

    def live_for(self, seconds: int) -> None:
        """Look every second."""
        for _ in range(seconds):
            self.dead_man.renew()
            self.time_ms += 1_000


@pytest.fixture
def keeper() -> Keeper:
    """A countdown that was never said."""
    return Keeper()


def test_it_is_renewed_in_time_while_limits_rest(keeper: Keeper) -> None:
    keeper.live_for(3 * RENEW_MS // 1_000 + 1)
    times = [ms for ms, countdown_ms in keeper.said if countdown_ms == COUNTDOWN_MS]
    assert [b - a for a, b in pairwise(times)] == [RENEW_MS] * 3
    keeper.desk.limits_rest = False
    keeper.live_for(200)
    assert len(keeper.said) == 4
    assert keeper.dead_man.due_s() == math.inf


def test_a_renewal_that_fails_is_tried_again_before_the_countdown_ends(keeper: Keeper) -> None:
    keeper.live_for(1)
    keeper.is_down = True
    keeper.live_for((COUNTDOWN_MS - RENEW_MS) // 1_000)
    tries = [ms for ms, _ in keeper.said[1:]]
    assert len(tries) >= 5
    assert {b - a for a, b in pairwise(tries)} == {RETRY_MS}


def test_one_that_fails_for_a_minute_is_reported_once_and_again_after_it_has_passed(
    keeper: Keeper,
) -> None:
    keeper.is_down = True
    keeper.live_for(REPORT_AFTER_MS // 1_000)
    assert keeper.notices == []
    keeper.live_for(600)
    assert len(keeper.notices) == 1
    keeper.is_down = False
    keeper.live_for(40)
    keeper.is_down = True
    keeper.live_for(200)
    assert len(keeper.notices) == 2


def test_where_foreign_orders_rest_it_is_switched_off_once_and_reported_once(
    keeper: Keeper,
) -> None:
    keeper.live_for(1)
    keeper.desk.foreign_rests = keeper.is_down = True
    keeper.live_for(100)
    keeper.is_down = False
    keeper.live_for(100)
    assert [countdown_ms for _, countdown_ms in keeper.said[-2:]] == [0, 0]
    assert len(keeper.notices) == 1
    assert "foreign orders rest" in keeper.notices[0]
    n_said = len(keeper.said)
    keeper.live_for(100)
    assert len(keeper.said) == n_said


def test_a_clock_that_is_set_back_delays_no_renewal(keeper: Keeper) -> None:
    keeper.live_for(1)
    keeper.time_ms -= 3_600_000
    assert keeper.dead_man.due_s() == 0.0
    keeper.live_for(1)
    assert len(keeper.said) == 2
