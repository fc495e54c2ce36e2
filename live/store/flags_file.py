"""Decisions that the exchange does not tell: a session is paused, or stopped for good."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.errors import StateError
from core.files import parse_json
from live.store.durable_file import plain_symbol, read_file, write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags of a session whose state is at the exchange."""

    paused: bool = False
    stopped: bool = False


class FlagsFile:
    """``{SYMBOL}_fixed_flags.json`` in ``folder``; written when something in it changes.

    Args:
        symbol: such as BTCUSDT.
        folder: made when first written.
    """

    def __init__(self, symbol: str, folder: Path) -> None:
        self.path = folder / f"{plain_symbol(symbol)}_fixed_flags.json"
        self._kept: Flags | None = None

    def read(self) -> Flags:
        """Return what is kept; without a file nothing is.

        Raises:
            StateError: the file cannot be read.
        """
        body = read_file(self.path)
        if body is None:
            return Flags()
        try:
            found: Any = parse_json(body)
            self._kept = Flags(paused=bool(found["paused"]), stopped=bool(found["stopped"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(
                f"{self.path} cannot be read: {error}; it says whether the session was paused or "
                "stopped: correct it, or move it away if it was neither"
            ) from None
        return self._kept

    def keep(self, strategy: Any) -> None:
        """Write what a strategy has decided, where that has changed.

        Raises:
            StateError: it cannot be written.
        """
        flags = Flags(paused=strategy.paused, stopped=strategy.is_stopping_price_reached)
        if flags == (self._kept or Flags()):
            return
        write_atomically(self.path, json.dumps(asdict(flags)).encode())
        self._kept = flags
