"""A clock of a test's own (``live.exchange.port.Clock``)."""

from __future__ import annotations


class VirtualClock:
    """A clock that only waiting moves, and whoever sets ``now``.

    Attributes:
        now: ms UTC.
        waits: seconds, in turn.
    """

    def __init__(self, now: int = 0, step_ms: int = 0) -> None:
        """Show ``now``, and ``step_ms`` more every time it is read."""
        self.now, self._step_ms = now, step_ms
        self.waits: list[float] = []

    def now_ms(self) -> int:
        """Return the time, ms UTC."""
        self.now += self._step_ms
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time go on."""
        self.waits.append(seconds)
        self.now += round(seconds * 1_000)
