"""The words of an order that decisions, execution and exchange share."""

from __future__ import annotations

from enum import Enum
from typing import Final

POSITION_SIDES: Final = ("LONG", "SHORT")


class OrderKind(Enum):
    """The purpose of an order; the value stands in client ids and state files."""

    ENTRY = "E"
    """Post-only limit that opens or adds to a side."""
    TAKE_PROFIT = "T"
    """Post-only limit that reduces a side."""
    STOP = "S"
    """Conditional market order that closes the whole side: the wick stop."""
    EXIT = "X"
    """Market order that reduces a side."""
