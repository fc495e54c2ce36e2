"""Names of the fixed grid's orders: their subject, as client ids carry it (A10).

``{cycle:6}-{kind}{slot:2}{r}-{entry ticks:7}-{steps since the cycle:5}`` in base 36, behind the
prefix of the instance: at most 36 characters. ``r`` is the rung, the reason, or a count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_STEM: Final = re.compile(r"([0-9a-z]{6})-([ETLSXHU])([0-9a-z]{2})([0-9a-z])-([0-9a-z]{7})")
_WHOLE: Final = re.compile(_STEM.pattern + r"-([0-9a-z]{5})")

ENTRY: Final = "E"
CLOSE: Final = "T"
RUNG: Final = "L"
STOP: Final = "S"
MARKET_CLOSE: Final = "X"
HEDGE_OPEN: Final = "H"
HEDGE_CLOSE: Final = "U"
SHARED: Final = 0
"""Cycle of a shared stop: it is of several positions."""


def in_base_36(number: int, width: int) -> str:
    """Return a number that is not negative in digits and small letters, ``width`` of them.

    Raises:
        ValueError: it does not fit.
    """
    text, left = "", number
    for _ in range(width):
        left, digit = divmod(left, 36)
        text = DIGITS[digit] + text
    if left:
        raise ValueError(f"{number} has no {width} digits in base 36")
    return text


@dataclass(frozen=True, slots=True)
class OrderName:
    """The subject of an order.

    Attributes:
        cycle: s since 2020 of the step that wanted the entry; 0 of a shared stop.
        kind: E entry, T close, L rung, S stop, X market close, H and U a hedge's open and close.
        slot: of the position; 0 of a shared stop.
        mark: rung, reason, or a count.
        entry_ticks: entry price of the position, of an entry its own price; of a shared stop a
            number that stands for the symbol.
    """

    cycle: int
    kind: str
    slot: int
    mark: int
    entry_ticks: int

    @property
    def stem(self) -> str:
        """As text, without the step."""
        return (
            f"{in_base_36(self.cycle, 6)}-{self.kind}{in_base_36(self.slot, 2)}"
            f"{DIGITS[self.mark]}-{in_base_36(self.entry_ticks, 7)}"
        )

    def at_step(self, steps: int) -> str:
        """As text, of an order sent ``steps`` steps after the cycle's."""
        return f"{self.stem}-{in_base_36(steps, 5)}"

    @property
    def is_shared_stop(self) -> bool:
        """Whether it stops all positions that have no stop of their own."""
        return self.kind == STOP and self.cycle == SHARED


def read_stem(text: str) -> OrderName:
    """Return what ``OrderName.stem`` was made of.

    Raises:
        ValueError: it is none.
    """
    match = _STEM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} names no order of the fixed grid")
    return _name(match)


def read_name(text: str) -> tuple[OrderName, int] | None:
    """Return the name and the steps since its cycle; None: it is no order of the fixed grid.

    ``text`` is a client id without the prefix of the instance.
    """
    match = _WHOLE.fullmatch(text)
    return None if match is None else (_name(match), int(match[6], 36))


def _name(match: re.Match[str]) -> OrderName:
    return OrderName(
        int(match[1], 36), match[2], int(match[3], 36), int(match[4], 36), int(match[5], 36)
    )
