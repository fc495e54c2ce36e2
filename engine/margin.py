"""Margin of a ledger: what a price leaves of it, where it runs out, and stops on the tick."""

from __future__ import annotations

from core.jit import kernel
from core.market import Market, tick_down, tick_up
from core.risk import maintenance_margin, solve_liquidation_price
from engine.ledger import equity_at
from engine.types import LONG, SHORT, Account


@kernel
def excess_margin(state: Account, market: Market, price: float) -> float:
    """Return equity minus maintenance margin of both sides at ``price``, quote."""
    required = 0.0
    for position_side in (LONG, SHORT):
        qty = state.sides[position_side].qty
        if qty > 0.0:
            required += maintenance_margin(market.margin, qty * price)
    return equity_at(state, price) - required


@kernel
def has_position(state: Account) -> bool:
    """Return whether any side holds a fill."""
    return state.sides[LONG].n_fills > 0 or state.sides[SHORT].n_fills > 0


@kernel
def is_margin_short(state: Account, market: Market, start: float, end: float) -> bool:
    """Return whether equity falls to maintenance margin between ``start`` and ``end``.

    Excess margin is concave in the price, so the ends of the stretch tell.
    """
    if not has_position(state):
        return False
    return min(excess_margin(state, market, start), excess_margin(state, market, end)) <= 0.0


@kernel
def liquidation_crossing(state: Account, market: Market, start: float, end: float) -> float:
    """Return the price between ``start`` and ``end`` where equity falls to maintenance margin.

    ``excess_margin(end)`` must not be positive; where it is not positive at ``start`` either, the
    answer is ``start``.
    """
    if excess_margin(state, market, start) <= 0.0:
        return start
    long, short = state.sides[LONG], state.sides[SHORT]
    solved = solve_liquidation_price(
        market.margin, state.wallet, long.cost - short.cost, long.qty, short.qty, end
    )
    return min(max(solved, min(start, end)), max(start, end))


@kernel
def stop_level(market: Market, position_side: int, avg_entry: float, distance: float) -> float:
    """Return the stop price ``distance`` from ``avg_entry``, to the tick away; 0 if none fits."""
    if position_side == LONG:
        return max(0.0, tick_down(market, avg_entry - distance))
    return tick_up(market, avg_entry + distance)
