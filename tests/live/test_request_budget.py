"""Waiting below the exchange's limits, on a clock that only waiting moves."""

from __future__ import annotations

import contextlib

import pytest

from core.errors import RateLimitError
from live.exchange.budget import LONGEST_WAIT_S, RequestBudget, demanded_wait, wait_until
from live.exchange.errors import HttpReply
from tests.support.clocks.virtual import VirtualClock
from tests.support.exchanges.canned import START_MS


def budget(clock: VirtualClock, share: float = 0.5) -> RequestBudget:
    return RequestBudget(clock, clock.now_ms, share)


def test_below_the_share_nothing_waits() -> None:
    clock = VirtualClock(START_MS)
    limits = budget(clock)
    limits.note({"X-MBX-USED-WEIGHT-1M": "1190"})
    limits.wait_for(10)
    assert clock.waits == []
    assert limits.weight_1m == 1_200


def test_above_the_share_it_waits_for_the_next_minute() -> None:
    clock = VirtualClock(START_MS + 20_000)
    limits = budget(clock)
    limits.note({"x-mbx-used-weight-1m": "1190"})
    limits.wait_for(11)
    assert clock.waits == [pytest.approx(40.25)]
    assert limits.weight_1m == 11


def test_requests_count_before_a_reply_tells() -> None:
    clock = VirtualClock(START_MS)
    limits = budget(clock)
    for _ in range(40):
        limits.wait_for(30)
    assert clock.waits == []
    limits.wait_for(1)
    assert len(clock.waits) == 1


def test_the_exchanges_count_replaces_ours() -> None:
    limits = budget(VirtualClock(START_MS))
    limits.wait_for(500)
    limits.note({"X-MBX-USED-WEIGHT-1M": "7"})
    assert limits.weight_1m == 7


@pytest.mark.parametrize(
    ("header", "used", "wait_s"),
    [("X-MBX-ORDER-COUNT-10S", "148", 10.25), ("X-MBX-ORDER-COUNT-1M", "598", 60.25)],
)
def test_orders_wait_for_their_own_windows(header: str, used: str, wait_s: float) -> None:
    clock = VirtualClock(START_MS)
    limits = budget(clock)
    limits.note({header: used})
    limits.wait_for(0, orders=2)
    assert clock.waits == []
    limits.wait_for(0, orders=3)
    assert clock.waits == [pytest.approx(wait_s)]


def test_a_question_does_not_wait_for_the_orders_windows() -> None:
    clock = VirtualClock(START_MS)
    limits = budget(clock)
    limits.note({"X-MBX-ORDER-COUNT-10S": "299"})
    limits.wait_for(5)
    assert clock.waits == []


def test_urgent_requests_may_use_what_questions_may_not() -> None:
    clock = VirtualClock(START_MS)
    limits = budget(clock)
    limits.note({"X-MBX-USED-WEIGHT-1M": "2200"})
    limits.wait_for(5, orders=5, urgent=True)
    assert clock.waits == []
    limits.note({"X-MBX-USED-WEIGHT-1M": "2279"})
    limits.wait_for(5, orders=5, urgent=True)
    assert len(clock.waits) == 1


def test_a_window_that_ended_is_empty() -> None:
    clock = VirtualClock(START_MS)
    limits = budget(clock)
    limits.note({"X-MBX-USED-WEIGHT-1M": "2399", "X-MBX-ORDER-COUNT-10S": "12"})
    assert (limits.weight_1m, limits.orders_10s) == (2_399, 12)
    clock.now += 60_000
    assert (limits.weight_1m, limits.orders_10s, limits.orders_1m) == (0, 0, 0)


def test_windows_follow_the_exchanges_clock() -> None:
    clock = VirtualClock(START_MS + 20_000)
    limits = RequestBudget(clock, lambda: clock.now_ms() + 15_000, 0.5)
    limits.note({"X-MBX-USED-WEIGHT-1M": "1200"})
    limits.wait_for(1)
    assert clock.waits == [pytest.approx(25.25)]


def test_unreadable_counts_are_passed_over() -> None:
    limits = budget(VirtualClock(START_MS))
    limits.wait_for(3)
    limits.note({"X-MBX-USED-WEIGHT-1M": "many"})
    assert limits.weight_1m == 3


def test_a_short_bar_is_waited_for() -> None:
    clock = VirtualClock(START_MS)
    limits = budget(clock)
    limits.pause(17.0)
    limits.pause(5.0)
    limits.wait_for(1)
    assert clock.waits == [17.0]
    limits.wait_for(1)
    assert clock.waits == [17.0]


class LightSleeper(VirtualClock):
    """Wakes after 4 s at the latest."""

    def sleep(self, seconds: float) -> None:
        """Let time go on, but not for long."""
        super().sleep(min(seconds, 4.0))


def test_a_sleeper_that_wakes_early_goes_on_waiting() -> None:
    clock = LightSleeper(START_MS)
    limits = budget(clock)
    limits.pause(17.0)
    limits.wait_for(1)
    assert clock.now == START_MS + 17_000
    limits.note({"X-MBX-USED-WEIGHT-1M": "1200"})
    limits.wait_for(1)
    assert clock.now == START_MS + 60_250


class SetBack(VirtualClock):
    """Is set back an hour in its first wait."""

    def sleep(self, seconds: float) -> None:
        """Let time go on, but show an earlier one."""
        super().sleep(seconds)
        if len(self.waits) == 1:
            self.now -= 3_600_000


def test_a_clock_set_back_in_a_wait_does_not_make_it_longer() -> None:
    clock = SetBack(START_MS)
    wait_until(clock, START_MS + 11_000)
    assert clock.waits == [11.0]


def test_a_clock_set_back_before_a_wait_makes_it_no_longer_than_any_wait_may_be() -> None:
    clock = VirtualClock(START_MS)
    sent_ms = clock.now_ms()
    clock.now -= 3_600_000
    wait_until(clock, sent_ms + 11_000)
    assert clock.waits == [LONGEST_WAIT_S]


def test_a_window_is_waited_for_to_its_end_however_often_a_signal_wakes() -> None:
    clock = LightSleeper(START_MS)
    wait_until(clock, START_MS + 11_000)
    assert clock.waits == [4.0, 4.0, 3.0]


@pytest.mark.parametrize("seconds", [30.0, LONGEST_WAIT_S + 100.0])
def test_a_clock_set_back_under_a_bar_does_not_make_it_longer(seconds: float) -> None:
    clock = VirtualClock(START_MS)
    limits = budget(clock)
    limits.pause(seconds)
    clock.now -= 3_600_000
    with contextlib.suppress(RateLimitError):
        limits.wait_for(1)
    clock.now += 120_000
    limits.wait_for(1)
    assert sum(clock.waits) <= LONGEST_WAIT_S


def test_nothing_is_sent_during_a_long_bar() -> None:
    clock = VirtualClock(START_MS)
    limits = budget(clock)
    limits.pause(LONGEST_WAIT_S + 100.0)
    with pytest.raises(RateLimitError) as refused:
        limits.wait_for(1)
    assert refused.value.retry_after == pytest.approx(LONGEST_WAIT_S + 100.0)
    assert clock.waits == []
    clock.now += 100_000
    limits.wait_for(1)
    assert clock.waits == [pytest.approx(LONGEST_WAIT_S)]


@pytest.mark.parametrize(
    ("reply", "wait_s"),
    [
        (HttpReply(429, headers={"Retry-After": "13"}), 13.0),
        (HttpReply(418, headers={"retry-after": "259200"}), 259_200.0),
        (HttpReply(429), 60.0),
        (HttpReply(429, headers={"Retry-After": "soon"}), 60.0),
        (HttpReply(418), 120.0),
        (HttpReply(418, f"IP banned until {START_MS + 300_000}."), 300.0),
        (HttpReply(418, f"IP banned until {START_MS - 300_000}."), 120.0),
        (HttpReply(400, "current limit is 300 orders per 10 SECOND."), 10.0),
        (HttpReply(400, "current limit is 1200 orders per MINUTE."), 60.0),
    ],
)
def test_the_wait_a_reply_demands(reply: HttpReply, wait_s: float) -> None:
    assert demanded_wait(reply, START_MS) == wait_s
