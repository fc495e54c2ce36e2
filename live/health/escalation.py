"""An emergency that nobody acknowledges goes to a second channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

from live.health.alerts import Alerts

ACKNOWLEDGE_MS: Final = 5 * 60_000
"""How long a person has before the second channel is used."""


@final
class Escalation:
    """Emergencies that were sent and not acknowledged yet.

    Args:
        second: the second channel.
        acknowledged_ms: when a person last acknowledged, ms UTC; 0: never.
    """

    def __init__(self, second: Alerts, acknowledged_ms: Callable[[], int]) -> None:
        self._second, self._acknowledged_ms = second, acknowledged_ms
        self._since_ms: int | None = None
        self._text = ""

    def begin(self, text: str, now_ms: int) -> None:
        """Take in that an emergency was sent to the first channel."""
        if self._since_ms is None:
            self._since_ms = now_ms
        self._text = text

    def check(self, now_ms: int, *, at_the_end: bool = False) -> None:
        """Use the second channel where nobody has acknowledged in time.

        Args:
            now_ms: ms UTC.
            at_the_end: nobody will look again, so what is open goes out now.
        """
        if self._since_ms is None:
            return
        if self._acknowledged_ms() >= self._since_ms:
            self._since_ms = None
        elif at_the_end or now_ms - self._since_ms >= ACKNOWLEDGE_MS:
            self._second.send(f"{self._text} (nobody has acknowledged: --acknowledge does)")
            self._since_ms = None if at_the_end else now_ms
