"""Books what an exchange reports: executions, in whole or in part, funding, closes by others.

The simulated exchange fills orders whole and works prices and fees out (``engine.execution``); a
real one says what was traded, at which price and for which fee. The ledger underneath is the same.
"""

from __future__ import annotations

import math

from core.jit import kernel
from core.market import Market, lots_nearest
from engine.exit_ladder import advance_ladder, best_fill_at, find_next_tp
from engine.ledger import close_fill, find_fill, settle_funding, worst_fill
from engine.types import LONG, SHORT, TAKE_PROFIT, Account, SideLedger, Tape, sign_of


@kernel
def book_take_profit(
    state: Account,
    market: Market,
    position_side: int,
    order_price: float,
    price: float,
    qty: float,
    fee: float,
    tape: Tape,
) -> float:
    """Book that ``qty`` of the take-profit order at ``order_price`` traded at ``price``.

    Closes the fills the order was made for, best first; where the ledger knows of no more of
    them, the best fills there are. Returns what no fill could be found for, base.
    """
    position, sign = state.sides[position_side], sign_of(position_side)
    left = qty
    while left > 0.5 * market.step_size and position.n_fills > 0:
        row = best_fill_at(position, sign, order_price, 0)
        if row < 0:
            row = _best_fill(position, sign)
            part = min(left, position.fills[row].qty)
        else:
            part = _take_from_slice(position, market, row, left)
        close_fill(
            state,
            market,
            position_side,
            row,
            part,
            price,
            fee * (part / qty),
            TAKE_PROFIT + position_side,
            tape,
        )
        left = lots_nearest(market, left - part)
    find_next_tp(position, sign, 0)
    return left


@kernel
def _take_from_slice(position: SideLedger, market: Market, row: int, most: float) -> float:
    """Take up to ``most`` from the next slice of the fill in ``row``; return how much."""
    fill = position.fills[row]
    part = min(most, fill.tp_qty)
    rest = lots_nearest(market, fill.tp_qty - part)
    if rest > 0.0:
        fill.tp_qty = rest
    else:
        advance_ladder(position, fill)
    return part


@kernel
def _best_fill(position: SideLedger, sign: float) -> int:
    """Return the row of the best entry (longs: lowest; ties: older), -1 when flat."""
    best = -1
    for row in range(position.n_fills):
        if best < 0 or sign * position.fills[row].price < sign * position.fills[best].price:
            best = row
    return best


@kernel
def book_exit(
    state: Account,
    market: Market,
    position_side: int,
    fill_id: int,
    price: float,
    qty: float,
    fee: float,
    label: int,
    tape: Tape,
) -> float:
    """Book that ``qty`` of fill ``fill_id`` was closed at market; return what it did not have."""
    row = find_fill(state.sides[position_side], fill_id)
    if row < 0:
        return qty
    part = min(qty, state.sides[position_side].fills[row].qty)
    close_fill(state, market, position_side, row, part, price, fee * (part / qty), label, tape)
    return lots_nearest(market, qty - part)


@kernel
def book_side(
    state: Account,
    market: Market,
    position_side: int,
    price: float,
    qty: float,
    fee: float,
    label: int,
    tape: Tape,
) -> float:
    """Book that ``qty`` of a side was closed, worst fill first; return what it did not have.

    For what closes a side as a whole: its wick stop, a liquidation, somebody else's order.
    """
    position = state.sides[position_side]
    left = qty
    while left > 0.5 * market.step_size and position.n_fills > 0:
        row = worst_fill(position, sign_of(position_side))
        part = min(left, position.fills[row].qty)
        close_fill(state, market, position_side, row, part, price, fee * (part / qty), label, tape)
        left = lots_nearest(market, left - part)
    return left


@kernel
def book_funding(state: Account, amount: float, rate: float, mark: float) -> None:
    """Book a funding payment of ``amount`` (quote received) settled at ``rate`` and ``mark``.

    The fills get their shares by rate and mark; the wallet gets what was really paid. A rate that
    nobody knows (NaN) follows from the payment and what was open.
    """
    if not math.isfinite(rate):
        exposure = mark * (state.sides[SHORT].qty - state.sides[LONG].qty)
        rate = amount / exposure if exposure != 0.0 else 0.0
    difference = amount - settle_funding(state, rate, mark)
    state.wallet += difference
    state.funding += difference
