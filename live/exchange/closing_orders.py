"""Who closes a position without its owner, known by the order's client id."""

from __future__ import annotations

from enum import Enum


class Closer(Enum):
    """Why the exchange itself sent an order."""

    LIQUIDATION = "liquidation"
    """The margin did not suffice."""
    AUTO_DELEVERAGING = "auto-deleveraging"
    """Somebody else's liquidation was met with our profitable position."""
    SETTLEMENT = "settlement"
    """The symbol was delisted or delivered."""


def closer_of(client_id: str) -> Closer | None:
    """Return why the exchange sent the order with ``client_id``; None if it did not."""
    if client_id.startswith("autoclose-"):
        return Closer.LIQUIDATION
    if client_id.startswith("adl_autoclose"):
        return Closer.AUTO_DELEVERAGING
    return Closer.SETTLEMENT if client_id.startswith("settlement_autoclose-") else None
