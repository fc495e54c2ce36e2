"""The computer's clock."""

from __future__ import annotations

import contextlib
import queue
import time


class SystemClock:
    """UTC time of this machine; a wait can be cut short, also out of a signal handler."""

    def __init__(self) -> None:
        # Not a threading.Event: one that a signal handler sets while the same thread begins to
        # wait for it never wakes, as its lock is not reentrant. SimpleQueue.put is.
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()

    def now_ms(self) -> int:
        """Return the time, ms UTC."""
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        """Wait; ``wake`` ends it early."""
        if seconds > 0.0:
            with contextlib.suppress(queue.Empty):
                self._wakes.get(timeout=seconds)

    def wake(self) -> None:
        """End the wait that is under way, or else the next one."""
        self._wakes.put(None)
