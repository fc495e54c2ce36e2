"""Carries decisions and events out on the state, as the simulated exchange does.

Limits fill at their price with the maker fee; stops and the exits of ``protect`` at market, with
slippage and the taker fee; a liquidation takes everything.
"""

from __future__ import annotations

from core.jit import kernel
from core.market import Market
from core.params import StrategyParams
from engine.book import clear_side, find_next_entry, set_stop
from engine.grid_v4.take_profit import advance_ladder, best_fill_at, find_next_tp
from engine.ledger import (
    close_at_market,
    close_fill,
    close_side,
    equity_at,
    find_fill,
    open_fill,
    register_stop,
    worst_fill,
)
from engine.types import (
    LIQUIDATION,
    LONG,
    SHORT,
    STOP,
    TAKE_PROFIT,
    PositionSide,
    State,
    Tape,
    sign_of,
)


@kernel
def liquidate(
    state: State, params: StrategyParams, market: Market, price: float, tape: Tape
) -> None:
    """Close everything at ``price``; the fee never leaves less than zero equity.

    Fee ``min(rate * notional, equity)``, shared by notional. Where the price has jumped so far
    that equity is negative, so is the fee: the exchange's insurance fund bears the rest.
    """
    notional = price * (state.sides[LONG].qty + state.sides[SHORT].qty)
    left = equity_at(state, price)
    fee_total = min(market.liquidation_fee * notional, left)
    for side in (LONG, SHORT):
        position = state.sides[side]
        while position.n_fills > 0:
            row = worst_fill(position, sign_of(side))
            qty = position.fills[row].qty
            fee = fee_total * (price * qty / notional)
            close_fill(state, params, market, side, row, qty, price, fee, LIQUIDATION, tape)
        clear_side(state, params, side)
    state.counters.liquidations += 1
    state.orders_gone = True
    if fee_total >= left:
        state.ended = True
        state.wallet = 0.0


@kernel
def execute_exits(state: State, params: StrategyParams, market: Market, tape: Tape) -> None:
    """Carry out the market exits on the tape at the step's price."""
    price = state.now.price
    for k in range(tape.n_exits):
        out = tape.exits[k]
        if out.label == LIQUIDATION:
            liquidate(state, params, market, price, tape)
            return
        row = find_fill(state.sides[out.side], out.fill_id)
        close_at_market(state, params, market, out.side, row, out.qty, price, out.label, tape)


@kernel
def fill_entry(state: State, params: StrategyParams, market: Market, side: int, tape: Tape) -> None:
    """Fill the nearest entry order of ``side`` at its price; its wick stop moves.

    With ``refuse_first_touch`` the bar that first reaches an order does not fill it.
    """
    position = state.sides[side]
    k = position.next_entry_level
    level = position.levels[k]
    if params.refuse_first_touch and not 0 < level.touched < state.now.bar:
        level.touched = state.now.bar
        position.settled = False
        find_next_entry(position, params, k + 1)
        return
    price, qty = position.entries[k], level.qty
    level.qty = 0.0
    open_fill(state, market, side, k, price, qty, price * qty * params.fee_maker, tape)
    find_next_entry(position, params, k + 1)
    set_stop(state, params, market, side)


@kernel
def refuse_take_profit(position: PositionSide, price: float, bar: int) -> None:
    """Note that the path reached the take-profits at ``price`` for the first time in ``bar``."""
    for row in range(position.n_fills):
        fill = position.fills[row]
        if fill.tp_price == price and fill.tp_touched == 0:
            fill.tp_touched = bar
            position.tp_stale = True


@kernel
def fill_take_profit(
    state: State, params: StrategyParams, market: Market, side: int, tape: Tape
) -> None:
    """Fill the nearest take-profit order of ``side``: all slices at that price, best fill first."""
    position = state.sides[side]
    price, sign = position.next_tp, sign_of(side)
    refusing = state.now.bar if params.refuse_first_touch else 0
    row = best_fill_at(position, sign, price, refusing)
    while row >= 0:
        fill = position.fills[row]
        qty = fill.tp_qty
        advance_ladder(position, fill)
        fee = price * qty * params.fee_maker
        close_fill(state, params, market, side, row, qty, price, fee, TAKE_PROFIT + side, tape)
        row = best_fill_at(position, sign, price, refusing)
    if refusing > 0:
        refuse_take_profit(position, price, refusing)
    find_next_tp(position, sign, refusing)


@kernel
def trigger_stop(
    state: State, params: StrategyParams, market: Market, side: int, basis: float, tape: Tape
) -> None:
    """Close ``side`` by its wick stop at ``basis``; its orders are gone for the rest of the bar.

    Where the price has jumped so far that no equity is left, it is a liquidation instead.
    """
    if equity_at(state, basis) <= 0.0:
        liquidate(state, params, market, basis, tape)
        return
    register_stop(state, params, side)
    close_side(state, params, market, side, basis, STOP + side, tape)
    clear_side(state, params, side)


@kernel
def trigger_passed_stops(state: State, params: StrategyParams, market: Market, tape: Tape) -> None:
    """Trigger the wick stops that the price had passed when they were set (end of step 8)."""
    price = state.now.price
    for side in (LONG, SHORT):
        stop, sign = state.sides[side].stop_price, sign_of(side)
        if stop > 0.0 and sign * price <= sign * stop:
            trigger_stop(state, params, market, side, price, tape)
