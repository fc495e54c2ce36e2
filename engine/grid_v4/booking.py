"""Books entries, fired stops and liquidations that an exchange reports to GridStrategyV4.

What closes a position, and funding, is booked by ``engine.booking`` for every strategy.
"""

from __future__ import annotations

from core.jit import kernel
from core.market import Market, lots_nearest
from core.params import StrategyParams
from engine.grid_v4.book import clear_side, find_next_entry, set_stop
from engine.grid_v4.execution import open_level_fill
from engine.grid_v4.placement import is_busy
from engine.grid_v4.protection import register_stop
from engine.grid_v4.types import PositionSide, State
from engine.ledger import sum_fills, write_trade
from engine.types import OPEN, Tape


@kernel
def book_entry(
    state: State,
    params: StrategyParams,
    market: Market,
    position_side: int,
    generation: int,
    level: int,
    price: float,
    qty: float,
    fee: float,
    tape: Tape,
) -> None:
    """Book that ``qty`` (base) of an entry order traded at ``price`` for ``fee``.

    Later parts of an order belong to the fill that its first part opened. What is left of the
    order goes on resting; the wick stop moves. An order of an earlier generation, filled before
    it could be cancelled, occupies no level.
    """
    position = state.sides[position_side]
    row = _fill_of_order(position, params, generation, level)
    if row >= 0:
        _extend_fill(state, market, position_side, row, price, qty, fee, tape)
    else:
        open_level_fill(state, market, position_side, generation, level, price, qty, fee, tape)
    if generation == position.generation:
        order = position.levels[level]
        order.qty = max(0.0, lots_nearest(market, order.qty - qty))
    find_next_entry(position, params, 0)
    set_stop(state, params, market, position_side)


@kernel
def _fill_of_order(
    position: PositionSide, params: StrategyParams, generation: int, level: int
) -> int:
    """Return the row of the fill that an earlier part of this order opened, or -1."""
    for row in range(position.n_fills):
        fill = position.fills[row]
        here = fill.level == level and fill.generation == generation
        if here and is_busy(params, fill):
            return row
    return -1


@kernel
def _extend_fill(
    state: State,
    market: Market,
    position_side: int,
    row: int,
    price: float,
    qty: float,
    fee: float,
    tape: Tape,
) -> None:
    """Add another part of its order to the fill in ``row``, at the mean price."""
    position = state.sides[position_side]
    fill = position.fills[row]
    fill.price = (fill.price * fill.qty + price * qty) / (fill.qty + qty)
    fill.qty = lots_nearest(market, fill.qty + qty)
    fill.entry_qty = lots_nearest(market, fill.entry_qty + qty)
    fill.entry_fee += fee
    sum_fills(position, market)
    write_trade(
        state, tape, OPEN + position_side, position_side, fill.fill_id, price, qty, 0.0, fee
    )


@kernel
def begin_stop(state: State, params: StrategyParams, position_side: int) -> None:
    """Note that the wick stop of the side has fired: a stop event, and its orders are gone."""
    register_stop(state, params, position_side)
    clear_side(state, params, position_side)


@kernel
def begin_liquidation(state: State, params: StrategyParams) -> None:
    """Note that the exchange liquidates: every order is gone for the rest of the bar."""
    state.counters.liquidations += 1
    state.orders_gone = True
    for position_side in range(2):
        clear_side(state, params, position_side)
