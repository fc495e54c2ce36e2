"""Who carries a step's decisions out: an exchange, or a simulation of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engine.contract import Exit


class Broker(Protocol):
    """The broker of a runner: the acts around the decisions of a step."""

    def settle(self, until_ms: int) -> None:
        """Take in what happened on the account before ``until_ms``, ms UTC, and save."""
        ...

    def price(self, bar: int) -> float:
        """Return the reference price p of step ``bar``, quote."""
        ...

    def mark(self) -> float:
        """Return the price to value positions at now, quote."""
        ...

    def price_since(self, ts_ms: int) -> float | None:
        """Return that price if it was asked for at ``ts_ms`` or later, ms UTC; asks nothing."""
        ...

    def open_bar(self, bar: int, price: float) -> None:
        """Take in what happened since bar ``bar`` opened; its step has the clock already."""
        ...

    def finish_exits(self) -> None:
        """Do the market exits that were decided and are not known to be done."""
        ...

    def close(self, exits: Sequence[Exit]) -> None:
        """Do market exits at once; they are booked when this returns."""
        ...

    def lay_out(self) -> None:
        """Make the open orders those of the strategy's book."""
        ...

    def watch(self) -> None:
        """Between two steps: take fills in and move what must follow them."""
        ...

    def secure(self) -> None:
        """Have every position its stop, whatever the rest of a step waits for."""
        ...

    def renew(self) -> None:
        """Keep running what would take the entries off if this process died."""
        ...

    def renew_in_s(self) -> float:
        """Return the seconds until ``renew`` is due, infinity where it is not needed."""
        ...

    @property
    def unprotected(self) -> frozenset[str]:
        """The sides that should have a stop and had none at the last look."""
        ...

    def hold_entries(self, *, off: bool) -> None:
        """Lay no entries, and take off those that rest, until further notice."""
        ...

    def patience_s(self) -> float:
        """Return after how many seconds ``watch`` must look again at the latest."""
        ...

    def check_positions(self) -> None:
        """Compare ledger and account, and mend what does not agree."""
        ...

    def withdraw(self) -> None:
        """Cancel entries and take-profits; positions keep their stops."""
        ...

    def flatten(self, label: str) -> None:
        """Close what the ledger holds at market, with trade label ``label``, and its orders."""
        ...
