"""Whether the exchange takes entries of this symbol from this account at present."""

from __future__ import annotations

import logging
from typing import Final

from core.errors import GridError
from live.exchange.port import Clock, Exchange
from live.execution.order_desk import OrderDesk, Restriction
from live.execution.symbol_facts import SymbolFacts
from live.health.events import Events, Notice

LOOK_MS: Final = 10 * 60_000
"""Between two questions whether a restriction has ended, and between two tries."""
RATIOS_CODE: Final = -4400
"""Quantitative rules: the only restriction whose end the exchange tells."""
NOT_RESTRICTED: Final = ("", 0)
"""The symbol's status and a restriction's code where there is neither."""


class EntryPermission:
    """Reads why entries are refused, and when they may be tried again.

    Most restrictions can only be tried. One entry is offered every ``LOOK_MS``; nothing is reported
    before it is taken.

    Args:
        exchange: is asked for its ratios of orders (-4400).
        desk: notes refusals that speak of a restriction.
        facts: status of the symbol.
        clock: of all times.
        events: what a person should hear of is published there.
        log: of the session.
    """

    def __init__(
        self,
        exchange: Exchange,
        desk: OrderDesk,
        facts: SymbolFacts,
        clock: Clock,
        events: Events,
        log: logging.Logger,
    ) -> None:
        self._exchange, self._desk, self._facts = exchange, desk, facts
        self._clock, self._events, self._log = clock, events, log
        self._look_ms = 0
        self._known: Restriction | None = None
        self._reported: tuple[str, int] = NOT_RESTRICTED
        self.is_trying = False
        """Whether a restriction stands and one entry may be offered, to see whether it does."""

    def reason(self) -> str:
        """Return why no entry is laid now, '' if they may be; a person hears of it once."""
        facts, restriction = self._facts.now, self._desk.restriction
        self.is_trying = self._may_try(restriction)
        if not facts.is_trading:
            text = f"{facts.symbol} is {facts.status}; exits and stops go on while they are taken"
            self._report((facts.status, 0), text)
            return text
        if restriction is not None:
            text = f"the exchange takes only orders that reduce ({restriction.text})"
            self._report(("", restriction.code), text)
            return "" if self.is_trying else text
        self._report(NOT_RESTRICTED, "")
        return ""

    def _report(self, state: tuple[str, int], text: str) -> None:
        """Let a person hear of another state: the symbol's status, and a restriction's code."""
        if state != self._reported:
            self._reported = state
            self._events.publish(
                Notice(f"entries are off: {text}" if text else "entries are on again")
            )

    def _may_try(self, restriction: Restriction | None) -> bool:
        """Return whether an entry may be offered although the last was refused."""
        now_ms = self._clock.now_ms()
        if restriction is not self._known:  # it was refused a moment ago
            self._known = restriction
            _, self._look_ms = self._look(restriction, now_ms)
            return False
        if restriction is None:
            return False
        if self.is_trying:
            return True  # until it is taken or refused
        if self._look_ms - LOOK_MS <= now_ms < self._look_ms:
            return False
        is_over, self._look_ms = self._look(restriction, now_ms)
        return is_over

    def _look(self, restriction: Restriction | None, now_ms: int) -> tuple[bool, int]:
        """Return whether a restriction may be over, as far as can be told, and when to look again.

        Of -4400 that is when it says so itself, if that is sooner than ``LOOK_MS``.
        """
        next_ms = now_ms + LOOK_MS
        if restriction is None or restriction.code != RATIOS_CODE:
            return True, next_ms
        try:
            locked = [rule for rule in self._exchange.quantitative_rules() if rule.is_locked]
        except GridError as error:
            self._log.info("the quantitative rules cannot be read: %s", error)
            return False, next_ms
        if locked:
            return False, min(next_ms, max(now_ms + 1, *(rule.recovers_ms for rule in locked)))
        return True, next_ms
