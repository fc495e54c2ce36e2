"""Whether an answer has the shape it must have. Nothing in it is believed before.

An unreadable answer must never look like an empty account: an empty list counts only if the
exchange sent a list, and a number only if it is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from core.errors import ReplyError

_SHOWN: Final = 60  # characters of a wrong value in an error
_MOST_DIGITS: Final = 40  # of a number in a text; real ones have fewer than 25
_WHOLE_LIMIT: Final = 1 << 63


def wrong(what: str, value: object, must_be: str) -> ReplyError:
    """Return the error for ``value``, which must be something else."""
    return ReplyError(f"{what} is {_shown(value)}, must be {must_be}; the answer is not believed")


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= _WHOLE_LIMIT:
        return "a number of too many digits"
    if isinstance(value, str):
        value = value[: 2 * _SHOWN]
    return repr(value)[:_SHOWN]


@dataclass(frozen=True, slots=True)
class Row:
    """One JSON object of an answer; every access checks.

    Attributes:
        what: name for errors, such as ``position``.
        fields: as received.
    """

    what: str
    fields: Mapping[str, Any]

    def get(self, key: str) -> Any:
        """Return a field as received, None where it is missing."""
        return self.fields.get(key)

    def number(self, key: str, low: float = -math.inf) -> float:
        """Return a finite number that is at least ``low``.

        Raises:
            ReplyError: it is something else, as of every method here.
        """
        return finite(self.fields.get(key), f"{self.what}.{key}", low)

    def positive(self, key: str) -> float:
        """Return a finite number above 0."""
        value = self.number(key)
        if value <= 0:
            raise wrong(f"{self.what}.{key}", value, "above 0")
        return value

    def integer(self, key: str) -> int:
        """Return a whole number that is not negative: an identity, a time or a count."""
        return whole(self.fields.get(key), f"{self.what}.{key}")

    def text(self, key: str, *allowed: str) -> str:
        """Return a text that is not empty, one of ``allowed`` if any are given.

        A text that would steer a terminal is none.
        """
        value = self.fields.get(key)
        if not isinstance(value, str) or not value.isprintable() or not value:
            raise wrong(f"{self.what}.{key}", value, "a text")
        if allowed and value not in allowed:
            raise wrong(f"{self.what}.{key}", value, f"one of {', '.join(allowed)}")
        return value

    def flag(self, key: str) -> bool:
        """Return a truth value, which the exchange also writes as a text."""
        value = self.fields.get(key)
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in {"true", "false"}:
            return value.lower() == "true"
        raise wrong(f"{self.what}.{key}", value, "true or false")


def finite(value: Any, what: str, low: float = -math.inf) -> float:
    """Return ``value``, a number or the text of one, as a finite float of at least ``low``."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        value = "" if isinstance(value, str) and len(value) > _MOST_DIGITS else value
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number) and number >= low:
            return number
    limit = "a finite number" if low == -math.inf else f"a finite number of at least {low:g}"
    raise wrong(what, value, limit)


def whole(value: Any, what: str) -> int:
    """Return ``value``, a whole number or the text of one, not negative."""
    if isinstance(value, str) and len(value) <= _MOST_DIGITS:
        value = int(value) if value.isascii() and value.isdecimal() else value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _WHOLE_LIMIT:
        return value
    raise wrong(what, value, "a whole number")


def as_row(reply: Any, what: str) -> Row:
    """Return an answer that must be one object.

    Raises:
        ReplyError: it is something else.
    """
    if not isinstance(reply, dict):
        raise wrong(what, reply, "an object")
    return Row(what, reply)


def as_rows(reply: Any, what: str) -> list[Row]:
    """Return an answer that must be a list of objects; it may be empty.

    Raises:
        ReplyError: it is something else.
    """
    if not isinstance(reply, list):
        raise wrong(what, reply, "a list")
    return [as_row(item, what) for item in reply]


def rows_of(reply: Any, what: str, symbol: str = "") -> list[Row]:
    """Return the rows of an answer that must be about ``symbol`` alone; '': about some symbol.

    Raises:
        ReplyError: it is not, or no list of objects.
    """
    rows = as_rows(reply, what)
    for row in rows:
        row.text("symbol", *([symbol] if symbol else []))
    return rows
