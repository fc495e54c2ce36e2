"""Restrictions of an account: reported once, tried with one entry, over when that is taken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from core.errors import NetworkError
from live.exchange.types import QuantitativeRule
from live.execution.entry_permission import LOOK_MS, EntryPermission
from live.execution.order_desk import Restriction
from live.health.events import Events, Notice
from live.health.logger import session_logger

COOLING_OFF, RATIOS = -4192, -4400


class Gatekeeper:
    """A permission, and everything it looks at.

    Attributes:
        rules: of the exchange's ratios; None: they cannot be read.
        n_asked: how often they were asked for.
        notices: texts for a person.
    """

    def __init__(self) -> None:
        self.time_ms, self.n_asked = 1_000_000, 0
        self.rules: list[QuantitativeRule] | None = []
        self.notices: list[str] = []
        self.desk = SimpleNamespace(restriction=None)
        self.facts = SimpleNamespace(
            now=SimpleNamespace(symbol="BTCUSDT", status="TRADING", is_trading=True)
        )
        events = Events()
        events.subscribe(Notice, lambda notice: self.notices.append(notice.text))
        mine = cast("Any", self)
        desk, facts = cast("Any", self.desk), cast("Any", self.facts)
        log = session_logger("BTCUSDT")
        self.permission = EntryPermission(mine, desk, facts, mine, events, log)

    def now_ms(self) -> int:
        """Return the time."""
        return self.time_ms

    def quantitative_rules(self) -> list[QuantitativeRule]:
        """Return the ratios."""
        self.n_asked += 1
        if self.rules is None:
            raise NetworkError("out of reach")
        return self.rules

    def refuse(self, code: int) -> None:
        """Let the exchange refuse an entry."""
        self.desk.restriction = Restriction(code, f"code {code} at {self.time_ms}")

    def reason_after(self, ms: int) -> str:
        """Return the reason some time later."""
        self.time_ms += ms
        return self.permission.reason()


@pytest.fixture
def keeper() -> Gatekeeper:
    """An account without a restriction."""
    return Gatekeeper()


def locked(recovers_ms: int) -> QuantitativeRule:
    return QuantitativeRule(
        scope="BTCUSDT",
        indicator="UFR",
        value=0.999,
        trigger_value=0.99,
        is_locked=True,
        recovers_ms=recovers_ms,
    )


def test_without_a_restriction_entries_may_be_laid_and_nobody_hears_of_it(
    keeper: Gatekeeper,
) -> None:
    assert keeper.permission.reason() == ""
    assert keeper.notices == []


def test_one_entry_is_tried_every_ten_minutes_and_nothing_is_reported_before_it_is_taken(
    keeper: Gatekeeper,
) -> None:
    keeper.refuse(COOLING_OFF)
    assert "reduce" in keeper.permission.reason()
    for _ in range(3):
        assert keeper.reason_after(LOOK_MS - 1)
        assert not keeper.permission.is_trying
        assert keeper.reason_after(1) == ""
        assert keeper.permission.is_trying
        assert keeper.reason_after(5_000) == "", "until it is taken or refused"
        keeper.refuse(COOLING_OFF)
        assert keeper.permission.reason()
    assert len(keeper.notices) == 1
    keeper.desk.restriction = None
    assert keeper.permission.reason() == ""
    assert not keeper.permission.is_trying
    assert keeper.notices[1:] == ["entries are on again"]
    assert keeper.n_asked == 0, "the ratios say nothing of it"


def test_another_restriction_is_reported_too(keeper: Gatekeeper) -> None:
    for code in (COOLING_OFF, RATIOS):
        keeper.refuse(code)
        assert str(code) in keeper.permission.reason()
    assert len(keeper.notices) == 2


def test_the_ratios_are_read_until_the_exchange_says_that_they_have_recovered(
    keeper: Gatekeeper,
) -> None:
    keeper.rules = [locked(keeper.time_ms + 10**8)]
    keeper.refuse(RATIOS)
    assert keeper.permission.reason()
    assert keeper.reason_after(LOOK_MS), "it was read again and is still locked"
    keeper.rules = [locked(keeper.time_ms + LOOK_MS + 60_000)]
    assert keeper.reason_after(LOOK_MS)
    keeper.rules = []
    assert keeper.reason_after(59_999)
    assert keeper.reason_after(1) == ""
    assert keeper.permission.is_trying
    assert keeper.n_asked == 4


def test_ratios_that_cannot_be_read_keep_entries_off(keeper: Gatekeeper) -> None:
    keeper.rules = None
    keeper.refuse(RATIOS)
    for _ in range(3):
        assert keeper.reason_after(LOOK_MS)
    assert len(keeper.notices) == 1


def test_a_symbol_that_does_not_trade_is_reported_with_its_status(keeper: Gatekeeper) -> None:
    keeper.facts.now = SimpleNamespace(symbol="BTCUSDT", status="SETTLING", is_trading=False)
    assert "SETTLING" in keeper.permission.reason()
    assert keeper.reason_after(LOOK_MS)
    assert len(keeper.notices) == 1
