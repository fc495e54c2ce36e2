"""The dead man's countdown: if this process dies, stops are left and no entries."""

from __future__ import annotations

import logging
import math
from typing import Final

from core.errors import GridError
from live.exchange.port import Clock, Exchange
from live.execution.order_desk import OrderDesk
from live.health.events import Events, Notice

COUNTDOWN_MS: Final = 120_000
"""So long after the last renewal the exchange cancels the symbol's limit orders."""
RENEW_MS: Final = 40_000
"""Twice in the time it runs a renewal may fail. It costs weight 10, a fifth of all that is used."""
RETRY_MS: Final = 10_000
"""Between two tries where a renewal fails; some fit in before the countdown ends."""
REPORT_AFTER_MS: Final = 60_000
"""So long it may fail before a person hears of it: the countdown of before still runs then."""


class DeadMan:
    """Renews the exchange's countdown while limit orders of ours rest.

    It cancels every normal order of the symbol, whoever laid it: where foreign ones rest it is
    switched off, which is reported once. One that cannot be renewed is tried again every
    ``RETRY_MS``, and reported when it has not been for ``REPORT_AFTER_MS``.

    Args:
        exchange: where the countdown runs.
        desk: what rests there.
        clock: of all times.
        events: what a person should hear of is published there.
        log: of the session.
    """

    def __init__(
        self, exchange: Exchange, desk: OrderDesk, clock: Clock, events: Events, log: logging.Logger
    ) -> None:
        self._exchange, self._desk, self._clock = exchange, desk, clock
        self._events, self._log = events, log
        self._renewed_ms: int | None = None
        self._tried_ms: int | None = None
        self._failing_since_ms: int | None = None
        self._reported: str = ""

    def due_s(self) -> float:
        """Return the seconds until it must be renewed; infinity where nothing rests."""
        if not self._desk.limits_rest or self._desk.foreign_rests:
            return math.inf
        return self._left_ms() / 1e3

    def _left_ms(self) -> int:
        """Return how long the next renewal, or the next try of one that failed, may wait, ms."""
        return max(self._rest_ms(self._renewed_ms, RENEW_MS), self._retry_left_ms())

    def _retry_left_ms(self) -> int:
        return self._rest_ms(self._tried_ms, RETRY_MS)

    def _rest_ms(self, since_ms: int | None, wait_ms: int) -> int:
        """Return what is left of a wait; 0 where there is none, or our clock was set back."""
        age_ms = wait_ms if since_ms is None else self._clock.now_ms() - since_ms
        return wait_ms - age_ms if 0 <= age_ms < wait_ms else 0

    def renew(self, *, lays: bool = False) -> None:
        """Renew the countdown where that is due; where it cannot be, trading goes on.

        Args:
            lays: orders are about to be laid; one that runs from earlier must not take them.
        """
        if self._desk.foreign_rests:
            self._switch_off()
            return
        if not (lays or self._desk.limits_rest) or self._left_ms():
            return
        if self._say(COUNTDOWN_MS):
            self._renewed_ms = self._clock.now_ms()

    def _switch_off(self) -> None:
        """Let the countdown run no more: it would take the orders of others."""
        if self._renewed_ms is not None and not self._retry_left_ms() and self._say(0):
            self._renewed_ms = None
        self._report("foreign orders rest on this symbol: if this process dies its entries stay")

    def _say(self, countdown_ms: int) -> bool:
        self._tried_ms = now_ms = self._clock.now_ms()
        try:
            self._exchange.countdown_cancel_all(countdown_ms)
        except GridError as error:
            if self._failing_since_ms is None or now_ms < self._failing_since_ms:
                self._failing_since_ms = now_ms
                self._log.warning("the countdown cannot be renewed: %s", error)
            if countdown_ms and now_ms - self._failing_since_ms >= REPORT_AFTER_MS:
                self._report(
                    "the countdown cannot be renewed: if this process dies its entries stay"
                )
            return False
        self._failing_since_ms, self._tried_ms = None, None
        if countdown_ms:
            self._reported = ""
        return True

    def _report(self, text: str) -> None:
        if text != self._reported:
            self._reported = text
            self._events.publish(Notice(text))
