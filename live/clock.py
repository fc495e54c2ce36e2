"""The computer's clock."""

from __future__ import annotations

import threading
import time


class SystemClock:
    """UTC time of this machine; a wait can be cut short."""

    def __init__(self) -> None:
        self._woken = threading.Event()

    def now_ms(self) -> int:
        """Return the time, ms UTC."""
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        """Wait; ``wake`` ends it early."""
        if seconds > 0.0 and self._woken.wait(seconds):
            self._woken.clear()

    def wake(self) -> None:
        """End the wait that is under way, or else the next one."""
        self._woken.set()
