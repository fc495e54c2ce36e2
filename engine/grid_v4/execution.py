"""Carries decisions and events out on the state, as the simulated exchange does.

Limits fill at their price with the maker fee; stops and the exits of ``protect`` at market, with
slippage and the taker fee; a liquidation takes everything.
"""

from __future__ import annotations

from core.jit import kernel
from core.market import Market
from core.params import StrategyParams
from engine.execution import execute_market_exits, liquidate_positions
from engine.exit_ladder import advance_ladder, best_fill_at, find_next_tp
from engine.grid_v4.book import clear_side, find_next_entry, set_stop
from engine.grid_v4.protection import register_stop
from engine.grid_v4.types import PositionSide, State
from engine.ledger import close_fill, close_side, equity_at, open_fill
from engine.types import LONG, SHORT, STOP, TAKE_PROFIT, Tape, sign_of


@kernel
def liquidate(
    state: State, params: StrategyParams, market: Market, price: float, tape: Tape
) -> None:
    """Close everything at ``price`` and take every order off the book."""
    liquidate_positions(state, market, price, tape)
    for position_side in (LONG, SHORT):
        clear_side(state, params, position_side)


@kernel
def execute_exits(state: State, params: StrategyParams, market: Market, tape: Tape) -> None:
    """Carry out the market exits on the tape at the step's price."""
    price = state.now.price
    if execute_market_exits(state, params, market, price, tape):
        liquidate(state, params, market, price, tape)


@kernel
def open_level_fill(
    state: State,
    market: Market,
    position_side: int,
    generation: int,
    level: int,
    price: float,
    qty: float,
    fee: float,
    tape: Tape,
) -> None:
    """Book an entry of ``qty`` at ``price`` (fee in quote) that came from a level of a grid."""
    position = state.sides[position_side]
    if position.n_fills == 0:
        position.stage1_done = False
    row = open_fill(state, market, position_side, price, qty, fee, tape)
    fill = position.fills[row]
    fill.generation, fill.level, fill.busy = generation, level, True


@kernel
def fill_entry(
    state: State, params: StrategyParams, market: Market, position_side: int, tape: Tape
) -> None:
    """Fill the nearest entry order of the side at its price; its wick stop moves.

    With ``refuse_first_touch`` the bar that first reaches an order does not fill it.
    """
    position = state.sides[position_side]
    k = position.next_entry_level
    level = position.levels[k]
    if params.refuse_first_touch and not 0 < level.touched < state.now.bar:
        level.touched = state.now.bar
        position.settled = False
        find_next_entry(position, params, k + 1)
        return
    price, qty = position.entries[k], level.qty
    level.qty = 0.0
    fee = price * qty * params.fee_maker
    open_level_fill(state, market, position_side, position.generation, k, price, qty, fee, tape)
    find_next_entry(position, params, k + 1)
    set_stop(state, params, market, position_side)


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
    state: State, params: StrategyParams, market: Market, position_side: int, tape: Tape
) -> None:
    """Fill the nearest take-profit order of the side: all slices at that price, best fill first."""
    position = state.sides[position_side]
    price, sign = position.next_tp, sign_of(position_side)
    refusing = state.now.bar if params.refuse_first_touch else 0
    row = best_fill_at(position, sign, price, refusing)
    while row >= 0:
        fill = position.fills[row]
        qty = fill.tp_qty
        advance_ladder(position, fill)
        fee = price * qty * params.fee_maker
        close_fill(
            state, market, position_side, row, qty, price, fee, TAKE_PROFIT + position_side, tape
        )
        row = best_fill_at(position, sign, price, refusing)
    if refusing > 0:
        refuse_take_profit(position, price, refusing)
    find_next_tp(position, sign, refusing)


@kernel
def trigger_stop(
    state: State,
    params: StrategyParams,
    market: Market,
    position_side: int,
    basis: float,
    tape: Tape,
) -> None:
    """Close the side by its wick stop at ``basis``; its orders are gone for the rest of the bar.

    Where the price has jumped so far that no equity is left, it is a liquidation instead.
    """
    if equity_at(state, basis) <= 0.0:
        liquidate(state, params, market, basis, tape)
        return
    register_stop(state, params, position_side)
    close_side(state, params, market, position_side, basis, STOP + position_side, tape)
    clear_side(state, params, position_side)


@kernel
def trigger_passed_stops(state: State, params: StrategyParams, market: Market, tape: Tape) -> None:
    """Trigger the wick stops that the price had passed when they were set (end of step 8)."""
    price = state.now.price
    for position_side in (LONG, SHORT):
        stop, sign = state.sides[position_side].stop_price, sign_of(position_side)
        if stop > 0.0 and sign * price <= sign * stop:
            trigger_stop(state, params, market, position_side, price, tape)
