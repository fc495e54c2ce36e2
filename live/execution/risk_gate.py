"""Whether entries may be laid: asked at every turn, beyond what the strategy itself decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from engine.contract import View


@dataclass(frozen=True, slots=True)
class Allowance:
    """Whether a symbol may have entries now; where not, ``reason`` says why."""

    entries: bool
    reason: str = ""


class RiskGate(Protocol):
    """Judges from the account of one symbol, and what else it knows, such as other symbols."""

    def allows(self, symbol: str, view: View) -> Allowance:
        """Return what ``symbol`` may do; without entries those that rest are cancelled.

        Take-profits and stops are never held back: they make risk smaller.
        """
        ...


class NoLimit:
    """A gate that is always open: a session alone is limited by its own parameters."""

    def allows(self, symbol: str, view: View) -> Allowance:  # noqa: ARG002 - a gate is asked with both
        """Allow everything."""
        return Allowance(entries=True)
