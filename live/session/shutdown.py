"""The end of a session: entries and take-profits go, positions have their stops or are closed."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import Final

from core.errors import CredentialsError, GridError, RateLimitError, StateError
from engine.contract import CLOSE_END
from live.exchange.port import Clock
from live.execution.broker import Broker
from live.health.monitor import HealthMonitor

LAST_ATTEMPTS: Final = 5
"""Times a process that was asked to end tries to cancel orders, or to close everything."""
UNPROTECTED_S: Final = 120.0
"""How long such a process goes on where a position has no stop; a second signal ends it at once."""
LONGEST_PAUSE_S: Final = 30.0
"""Between two tries of one that was not asked; there is no end to them."""


class Ending(IntEnum):
    """Why a session ended; the value is the exit code."""

    ASKED = 0
    """A signal, one step only, or the candles of a replay are used up."""
    FAILED = 2
    """Errors in a row, or disk, keys or account refuse: entries are off, stops stay. Or a signal
    came before that, or the loss limit's close, was certain."""
    EMERGENCY = 3
    """The loss limit: everything is closed."""
    RUINED = 4
    """Nothing is left."""


class Shutdown:
    """Ends a session.

    Args:
        broker: cancels and closes.
        monitor: counts errors; goes on judging meanwhile.
        clock: for waiting.
        stop: set when the process is asked to end.
        log: of the session.
    """

    def __init__(
        self,
        broker: Broker,
        monitor: HealthMonitor,
        clock: Clock,
        stop: StopRequest,
        log: logging.Logger,
    ) -> None:
        self._broker, self._monitor = broker, monitor
        self._clock, self._stop, self._log = clock, stop, log

    def as_asked(self) -> Ending:
        """End because of a signal: entries and take-profits go, positions keep their stops."""
        self._log.info("asked to stop: entries and take-profits are cancelled, stops stay")
        return Ending.ASKED if self.withdraw() else Ending.FAILED

    def give_up(self, error: GridError) -> Ending:
        """End because trying again is of no use: the disk, the keys or the account refuse."""
        self._log.critical("trading stops, positions keep their stops: %s", error)
        self._monitor.error(error)
        self.withdraw()
        return Ending.FAILED

    def close_everything(self) -> Ending:
        """End because the loss limit is reached: close what is ours, trying until it is done."""
        self._log.critical("the loss limit is reached: everything is closed")
        try:
            is_done = self._insist(lambda: self._broker.flatten(CLOSE_END), "closing")
        except StateError as error:
            self._log.error("closing: %s", error)
            is_done = False
        if is_done:
            return Ending.EMERGENCY
        self._log.critical("positions may still be open at the exchange: close them by hand")
        return Ending.FAILED

    def withdraw(self) -> bool:
        """Cancel entries and take-profits, positions have their stops; return whether it is so.

        Tried until it is certain; a process that was asked to end, or whose keys are refused, tries
        ``LAST_ATTEMPTS`` times, and ``UNPROTECTED_S`` where a position has no stop.
        """
        try:
            is_done = self._insist(self._broker.withdraw, "cancelling")
        except StateError as error:
            self._log.error("they are cancelled, which cannot be written down: %s", error)
            return not self._broker.unprotected
        if not is_done:
            self._log.critical(
                "entries or take-profits may still be open at the exchange, or a position without "
                "its stop: look there"
            )
        return is_done

    def _insist(self, action: Callable[[], None], doing: str) -> bool:
        """Repeat ``action`` until it succeeds; return whether it has.

        Raises:
            StateError: the disk refuses.
        """
        left, pause_s = LAST_ATTEMPTS, 1.0
        until_ms = self._clock.now_ms() + 1e3 * UNPROTECTED_S
        while left > 0 or (self._broker.unprotected and self._clock.now_ms() < until_ms):
            try:
                action()
            except StateError:
                raise
            except GridError as error:
                self._log.error("%s: %s", doing, error)
                is_final = self._stop.is_set or isinstance(error, CredentialsError)
                left -= is_final
                ban_s = error.retry_after if isinstance(error, RateLimitError) else 0.0
                self._clock.sleep(1.0 if is_final else max(pause_s, ban_s))
                pause_s = min(2.0 * pause_s, LONGEST_PAUSE_S)
                self._monitor.check()
            else:
                return True
        return False


def withdraw_once(broker: Broker, log: logging.Logger) -> None:
    """Cancel entries and take-profits of a saved session that cannot go on, with one try.

    Its stops stay. What cannot be reached the exchange's countdown takes.
    """
    try:
        broker.withdraw()
    except GridError as error:
        log.warning("the entries of the saved session: %s", error)


SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether the process was asked to end.

    Args:
        wake: ends a wait that is under way.
    """

    def __init__(self, wake: Callable[[], None] | None = None) -> None:
        self._wakes = [] if wake is None else [wake]
        self.is_set = False

    def also(self, callback: Callable[[], None]) -> None:
        """Call this too when the process is asked to end; it must be safe in a signal handler."""
        self._wakes.append(callback)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take over SIGINT and SIGTERM for a while; from the main thread only.

        The first of them sets the request, a further one raises KeyboardInterrupt.
        """
        before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.is_set:
            raise KeyboardInterrupt
        self.set()

    def set(self) -> None:
        """Ask to end."""
        self.is_set = True
        for wake in self._wakes:
            wake()
