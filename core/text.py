"""Numbers and amounts of money as people read them."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final

MISSING: Final = "n/a"


def decimals_of(step: float) -> int:
    """Return the decimals that multiples of ``step`` need."""
    exponent = Decimal(repr(float(step))).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def number(value: float, decimals: int, *, signed: bool = False, unit: str = "") -> str:
    """Return ``value`` as text: ``1,234.50``, ``-$12.45``.

    NaN and infinity show as n/a; what rounds to zero is not negative.

    Args:
        value: any number.
        decimals: kept.
        signed: whether a positive number has its sign too.
        unit: stands between sign and digits.
    """
    if not math.isfinite(value):
        return MISSING
    digits = f"{abs(value):,.{decimals}f}"
    is_zero = not digits.strip("0.,")
    sign = "-" if value < 0.0 and not is_zero else "+" if signed else ""
    return f"{sign}{unit}{digits}"


def money(value: float, *, signed: bool = False) -> str:
    """Return an amount of quote: ``$1,234.50``, ``-$12.45``, signed ``+$12.45``."""
    return number(value, 2, signed=signed, unit="$")
