"""Carries out what the simulated exchange does to the positions of any strategy."""

from __future__ import annotations

from core.jit import kernel
from core.market import Market
from core.params import StrategyParams
from engine.ledger import close_at_market, close_fill, equity_at, find_fill, worst_fill
from engine.types import LIQUIDATION, LONG, SHORT, Account, Tape, sign_of


@kernel
def liquidate_positions(state: Account, market: Market, price: float, tape: Tape) -> None:
    """Close everything at ``price``; the fee never leaves less than zero equity.

    Fee ``min(rate * notional, equity)``, shared by notional. Where the price has jumped so far
    that equity is negative, so is the fee: the exchange's insurance fund bears the rest.
    The orders on the book are the caller's to take off.
    """
    notional = price * (state.sides[LONG].qty + state.sides[SHORT].qty)
    left = equity_at(state, price)
    fee_total = min(market.liquidation_fee * notional, left)
    for position_side in (LONG, SHORT):
        position = state.sides[position_side]
        while position.n_fills > 0:
            row = worst_fill(position, sign_of(position_side))
            qty = position.fills[row].qty
            fee = fee_total * (price * qty / notional)
            close_fill(state, market, position_side, row, qty, price, fee, LIQUIDATION, tape)
    state.counters.liquidations += 1
    state.orders_gone = True
    if fee_total >= left:
        state.ended = True
        state.wallet = 0.0


@kernel
def execute_market_exits(
    state: Account, params: StrategyParams, market: Market, price: float, tape: Tape
) -> bool:
    """Carry out the market exits on the tape while the price is ``price``.

    Returns True, with nothing more done, at the first that is a liquidation: that is the caller's.
    """
    for k in range(tape.n_exits):
        out = tape.exits[k]
        if out.label == LIQUIDATION:
            return True
        row = find_fill(state.sides[out.side], out.fill_id)
        close_at_market(state, params, market, out.side, row, out.qty, price, out.label, tape)
    return False
