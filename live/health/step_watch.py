"""Whether the thread that trades still does anything."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from live.exchange.request import InFlight

POLLS: Final = 2
"""Looks at the account that may be missed before a session is said to hang."""


@dataclass(frozen=True, slots=True)
class Standstill:
    """Nothing has been done for a while.

    Attributes:
        seconds: since the last sign of life.
        text: for a person, with the request that is waited for.
    """

    seconds: float
    text: str


@final
class StepWatch:
    """Signs of life of the trading thread: requests it begins, what it notes, waits it asked for.

    Args:
        poll_s: seconds between two looks at the account.
        in_flight: the request under way, None between requests.
        is_asleep: whether the thread waits by its own wish, for the next look or after a ban.
        monotonic: seconds that never go back.
    """

    def __init__(
        self,
        poll_s: float,
        in_flight: Callable[[], InFlight | None],
        is_asleep: Callable[[], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.poll_s = poll_s
        self._in_flight, self._is_asleep, self._monotonic = in_flight, is_asleep, monotonic
        self._trading = threading.get_ident()
        self._last_s = monotonic()

    def note(self) -> None:
        """Take in that something was done; only the thread that made this counts."""
        if threading.get_ident() == self._trading:
            self._last_s = self._monotonic()

    def standstill(self) -> Standstill | None:
        """Return for how long nothing was done, None if that is no longer than allowed."""
        now_s, request = self._monotonic(), self._in_flight()
        if self._is_asleep():
            self._last_s = now_s
        if request is not None:
            self._last_s = max(self._last_s, request.since_s)
        seconds = now_s - self._last_s
        if seconds <= POLLS * self.poll_s:
            return None
        text = f"the session has done nothing for {seconds:.0f} s"
        if request is not None:
            text += f"; {request.endpoint} has been under way for {now_s - request.since_s:.0f} s"
        return Standstill(seconds, text)
