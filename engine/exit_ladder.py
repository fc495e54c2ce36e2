"""The take-profits of a side that matching and booking meet: which is next, and what follows it."""

from __future__ import annotations

from core.jit import kernel
from engine.types import Fill, SideLedger


@kernel
def find_next_tp(position: SideLedger, sign: float, refusing: int) -> None:
    """Point ``next_tp`` at the nearest take-profit of the side not refused in bar ``refusing``."""
    nearest = 0.0
    for row in range(position.n_fills):
        fill = position.fills[row]
        if refusing > 0 and fill.tp_touched == refusing:
            continue
        price = fill.tp_price
        if price > 0.0 and (nearest == 0.0 or sign * price < sign * nearest):
            nearest = price
    position.next_tp = nearest


@kernel
def best_fill_at(position: SideLedger, sign: float, tp_price: float, refusing: int) -> int:
    """Return the best-entered fill (ties: older) whose next take-profit is ``tp_price``, or -1.

    ``refusing`` is the bar in which a first touch does not fill; 0 where every touch does.
    """
    best = -1
    for row in range(position.n_fills):
        fill = position.fills[row]
        if refusing > 0 and not 0 < fill.tp_touched < refusing:
            continue
        if fill.tp_price == tp_price and (
            best < 0 or sign * fill.price < sign * position.fills[best].price
        ):
            best = row
    return best


@kernel
def advance_ladder(position: SideLedger, fill: Fill) -> None:
    """Move a fill on to its next slice after the current one filled."""
    if fill.tp_count == 0:
        fill.tp_price, fill.tp_qty = 0.0, 0.0
        return
    fill.tp_price, fill.tp_qty = position.exits[fill.tp_next], fill.tp_slice
    fill.tp_touched = 0
    fill.tp_next += fill.tp_stride
    fill.tp_count -= 1
