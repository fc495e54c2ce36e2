"""Whether the exchange takes entries of this symbol from this account at present."""

from __future__ import annotations

import logging
from typing import Final

from core.errors import GridError
from live.exchange.port import Clock, Exchange
from live.execution.order_desk import OrderDesk
from live.execution.symbol_facts import SymbolFacts
from live.health.events import Events, Notice

LOOK_MS: Final = 10 * 60_000
"""Between two questions whether a restriction has ended."""


class EntryPermission:
    """Reads why entries are refused, and when they may be tried again.

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
        self._reported = ""

    def reason(self) -> str:
        """Return why no entry is laid now, '' if they may be; a person hears of it once."""
        reason = self._status() or self._restriction()
        if reason != self._reported:
            self._events.publish(
                Notice(f"entries are off: {reason}" if reason else "entries are on again")
            )
            self._reported = reason
        return reason

    def _status(self) -> str:
        facts = self._facts.now
        if facts.is_trading:
            return ""
        return f"{facts.symbol} is {facts.status}; exits and stops go on while they are taken"

    def _restriction(self) -> str:
        """Return why only what reduces is taken; after its time entries are tried again."""
        if not self._desk.restricted:
            return ""
        now_ms = self._clock.now_ms()
        if not self._look_ms:
            self._look_ms = self._next_look_ms(now_ms)
        elif not self._look_ms - LOOK_MS <= now_ms < self._look_ms:
            self._look_ms = self._next_look_ms(now_ms)
            if self._look_ms <= now_ms:
                self._look_ms, self._desk.restricted = 0, ""
                return ""
        return f"the exchange takes only orders that reduce ({self._desk.restricted})"

    def _next_look_ms(self, now_ms: int) -> int:
        """Return when to look again; not after now: entries may be tried."""
        try:
            locked = [rule for rule in self._exchange.quantitative_rules() if rule.is_locked]
        except GridError as error:
            self._log.info("the quantitative rules cannot be read: %s", error)
            return now_ms + LOOK_MS
        if locked:
            return min(now_ms + LOOK_MS, max(now_ms + 1, *(rule.recovers_ms for rule in locked)))
        return now_ms if self._look_ms else now_ms + LOOK_MS
