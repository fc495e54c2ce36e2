"""Signals: the first asks to end in order, the second ends at once."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether the process was asked to end.

    Args:
        wake: ends a wait that is under way.
    """

    def __init__(self, wake: Callable[[], None] | None = None) -> None:
        self._wake = wake
        self.is_set = False

    def listen(self) -> None:
        """Take over SIGINT and SIGTERM; from the main thread only."""
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.is_set:
            raise KeyboardInterrupt
        self.set()

    def set(self) -> None:
        """Ask to end."""
        self.is_set = True
        if self._wake is not None:
            self._wake()
