"""Market rules of recorded symbols, read off their prices and sizes where nobody says them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from backtest.ticks.files import Events
from core.errors import DataError
from core.recording import EventKind
from engine.short_grid.feed import new_feeds, used_books
from engine.short_grid.types import Rules, make_rules

MIN_NOTIONAL: Final = 5.0
"""Smallest order of most symbols, quote, where it is not known."""
LARGEST_EXPONENT: Final = 8
"""Decimals an exchange's prices and sizes have at most."""
CLOSE: Final = 1e-6
"""Largest distance from a whole number of steps, and relative to their number."""


def decimal_step(values: Any) -> float:
    """Return the largest step of 1, 2 or 5 times a power of ten that all ``values`` are made of.

    Raises:
        DataError: there are no values, or they have more than eight decimals.
    """
    known = np.unique(values[np.isfinite(values) & (values > 0.0)])
    if known.size == 0:
        raise DataError("there are no prices or sizes to read a step off")
    for exponent in range(-3, LARGEST_EXPONENT + 1):
        scaled = known * 10.0**exponent
        whole = np.round(scaled)
        off = np.abs(scaled - whole) > CLOSE * np.maximum(1.0, scaled * CLOSE)
        if not np.any(off | (whole < 1.0)):
            divisor = int(np.gcd.reduce(whole.astype(np.int64)))
            factor = next(n for n in (5, 2, 1) if divisor % n == 0)
            return float(factor * 10.0**-exponent)
    raise DataError(
        f"values have more than {LARGEST_EXPONENT} decimals, so no step can be read off them"
    )


def sound_books(events: Events, symbol: int) -> Events:
    """Return the books of one symbol that the strategy would use."""
    books = events[(events["symbol"] == symbol) & (events["kind"] == int(EventKind.BOOK))]
    used: Any = np.zeros(len(books), np.bool_)
    used_books(new_feeds(1)[0], books, used)
    found: Events = books[used]
    return found


def infer_rules(
    events: Events, symbols: tuple[str, ...], fee_maker_bps: float, fee_taker_bps: float
) -> tuple[list[Rules], list[str]]:
    """Return each symbol's rules as its recorded prices and sizes show them, and what to know.

    Raises:
        DataError: a symbol has no usable books.
    """
    found, notices = [], []
    for index, symbol in enumerate(symbols):
        books = sound_books(events, index)
        try:
            tick = decimal_step(np.concatenate([books["price"], books["price2"]]))
            step = decimal_step(np.concatenate([books["qty"], books["qty2"]]))
        except DataError as error:
            raise DataError(f"{symbol}: {error}") from None
        found.append(make_rules(tick, step, step, MIN_NOTIONAL, fee_maker_bps, fee_taker_bps))
        notices.append(f"{symbol} (tick {tick:g}, step {step:g})")
    notice = (
        "rules read off the recorded prices and sizes, smallest order "
        f"{MIN_NOTIONAL:g} USDT assumed: {', '.join(notices)}"
    )
    return found, [notice]


def given_rules(
    rules: Mapping[str, Mapping[str, float]],
    symbols: tuple[str, ...],
    fee_maker_bps: float,
    fee_taker_bps: float,
) -> list[Rules]:
    """Return rules that are known, in the order of ``symbols``."""
    return [
        make_rules(**rules[symbol], fee_maker_bps=fee_maker_bps, fee_taker_bps=fee_taker_bps)
        for symbol in symbols
    ]
