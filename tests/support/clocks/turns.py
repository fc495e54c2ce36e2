"""Several sessions on one virtual clock: one of them runs at a time, so that a run can be repeated.

Time goes on when every seat is asleep, to the earliest wish; then those that are due wake one after
the other. A session that is killed leaves its seat empty: time stands still until one sits down.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable

from live.simulated.exchange import SimExchange


class Turns:
    """Who may run.

    Attributes:
        seats: number of sessions that must sleep before time goes on.
        passes: whether time is going on because all sleep.
        order: in which those that are due at once run; others follow as they came.
    """

    def __init__(self, exchange: SimExchange, seats: int) -> None:
        self._exchange, self.seats, self.passes = exchange, seats, False
        self.order: list[Hashable] = []
        self._changed = threading.Condition()
        self._asleep: dict[Hashable, int] = {}
        self._running: Hashable | None = None

    def sleep(self, who: Hashable, until_ms: int) -> bool:
        """Sleep until ``until_ms`` of the exchange or until an event; whether it is reached."""
        with self._changed:
            self._asleep[who] = until_ms
            self._give_up_turn(who)
            while self._running != who:
                self._go_on()
                if self._running != who:
                    self._changed.wait(0.2)
            return self._exchange.now_ms >= until_ms

    def leave(self, who: Hashable, *, for_good: bool) -> None:
        """Go, asleep or running; ``for_good``: nobody takes the seat."""
        with self._changed:
            self._asleep.pop(who, None)
            self._give_up_turn(who)
            self.seats -= for_good
            self._changed.notify_all()

    def _give_up_turn(self, who: Hashable) -> None:
        if self._running == who:
            self._running = None

    def _go_on(self) -> None:
        """Let the next one run; where nobody is due let time go on first."""
        if self._running is not None:
            return
        if len(self._asleep) < self.seats and not self._due():
            return
        self.passes = True
        while not self._due():
            if not self._exchange.pass_sleep(min(self._asleep.values())):
                now_ms = self._exchange.now_ms  # an event wakes them all
                self._asleep = {who: min(ms, now_ms) for who, ms in self._asleep.items()}
        self.passes = False
        self._running = min(self._due())[1]
        del self._asleep[self._running]
        self._changed.notify_all()

    def _due(self) -> list[tuple[int, Hashable]]:
        now_ms, order = self._exchange.now_ms, self.order
        return [
            (order.index(who) if who in order else len(order) + came, who)
            for came, (who, ms) in enumerate(self._asleep.items())
            if ms <= now_ms
        ]
