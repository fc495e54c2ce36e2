"""Books what an exchange reports: executions, in whole or in part, funding, strangers' closes.

The simulated exchange fills orders whole and works prices and fees out (``engine.execution``); a
real one says what was traded, at which price and for which fee. The ledger underneath is the same.
"""

from __future__ import annotations

from core.jit import kernel
from core.market import Market, lots_nearest
from core.params import StrategyParams
from engine.book import clear_side, find_next_entry, set_stop
from engine.grid_v4.take_profit import advance_ladder, best_fill_at, find_next_tp
from engine.ledger import (
    close_fill,
    find_fill,
    open_fill,
    register_stop,
    settle_funding,
    sum_fills,
    worst_fill,
    write_trade,
)
from engine.types import OPEN, TAKE_PROFIT, PositionSide, State, Tape, sign_of


@kernel
def book_entry(
    state: State,
    params: StrategyParams,
    market: Market,
    side: int,
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
    position = state.sides[side]
    row = _fill_of_order(position, generation, level)
    if row >= 0:
        _extend_fill(state, market, side, row, price, qty, fee, tape)
    else:
        armed = position.levels[level].armed
        open_fill(state, market, side, level, price, qty, fee, tape)
        if generation != position.generation:
            position.fills[position.n_fills - 1].generation = generation
            position.levels[level].armed = armed
    if generation == position.generation:
        order = position.levels[level]
        order.qty = max(0.0, lots_nearest(market, order.qty - qty))
    find_next_entry(position, params, 0)
    set_stop(state, params, market, side)


@kernel
def _fill_of_order(position: PositionSide, generation: int, level: int) -> int:
    """Return the row of the fill that an earlier part of this order opened, or -1."""
    for row in range(position.n_fills):
        fill = position.fills[row]
        if fill.busy and fill.level == level and fill.generation == generation:
            return row
    return -1


@kernel
def _extend_fill(
    state: State,
    market: Market,
    side: int,
    row: int,
    price: float,
    qty: float,
    fee: float,
    tape: Tape,
) -> None:
    """Add another part of its order to the fill in ``row``, at the mean price."""
    position = state.sides[side]
    fill = position.fills[row]
    fill.price = (fill.price * fill.qty + price * qty) / (fill.qty + qty)
    fill.qty = lots_nearest(market, fill.qty + qty)
    fill.entry_qty = lots_nearest(market, fill.entry_qty + qty)
    fill.entry_fee += fee
    sum_fills(position, market)
    write_trade(state, tape, OPEN + side, side, fill.fill_id, price, qty, 0.0, fee)


@kernel
def book_take_profit(
    state: State,
    params: StrategyParams,
    market: Market,
    side: int,
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
    position, sign = state.sides[side], sign_of(side)
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
            params,
            market,
            side,
            row,
            part,
            price,
            fee * (part / qty),
            TAKE_PROFIT + side,
            tape,
        )
        left = lots_nearest(market, left - part)
    find_next_tp(position, sign, 0)
    return left


@kernel
def _take_from_slice(position: PositionSide, market: Market, row: int, most: float) -> float:
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
def _best_fill(position: PositionSide, sign: float) -> int:
    """Return the row of the best entry (longs: lowest; ties: older), -1 when flat."""
    best = -1
    for row in range(position.n_fills):
        if best < 0 or sign * position.fills[row].price < sign * position.fills[best].price:
            best = row
    return best


@kernel
def book_exit(
    state: State,
    params: StrategyParams,
    market: Market,
    side: int,
    fill_id: int,
    price: float,
    qty: float,
    fee: float,
    label: int,
    tape: Tape,
) -> float:
    """Book that ``qty`` of fill ``fill_id`` was closed at market; return what it did not have."""
    row = find_fill(state.sides[side], fill_id)
    if row < 0:
        return qty
    part = min(qty, state.sides[side].fills[row].qty)
    close_fill(state, params, market, side, row, part, price, fee * (part / qty), label, tape)
    return lots_nearest(market, qty - part)


@kernel
def book_side(
    state: State,
    params: StrategyParams,
    market: Market,
    side: int,
    price: float,
    qty: float,
    fee: float,
    label: int,
    tape: Tape,
) -> float:
    """Book that ``qty`` of a side was closed, worst fill first; return what it did not have.

    For what closes a side as a whole: its wick stop, a liquidation, somebody else's order.
    """
    position = state.sides[side]
    left = qty
    while left > 0.5 * market.step_size and position.n_fills > 0:
        row = worst_fill(position, sign_of(side))
        part = min(left, position.fills[row].qty)
        close_fill(state, params, market, side, row, part, price, fee * (part / qty), label, tape)
        left = lots_nearest(market, left - part)
    return left


@kernel
def begin_stop(state: State, params: StrategyParams, side: int) -> None:
    """Note that the wick stop of ``side`` has fired: a stop event, and its orders are gone."""
    register_stop(state, params, side)
    clear_side(state, params, side)


@kernel
def begin_liquidation(state: State, params: StrategyParams) -> None:
    """Note that the exchange liquidates: every order is gone for the rest of the bar."""
    state.counters.liquidations += 1
    state.orders_gone = True
    for side in range(2):
        clear_side(state, params, side)


@kernel
def book_funding(state: State, amount: float, rate: float, mark: float) -> None:
    """Book a funding payment of ``amount`` (quote received) settled at ``rate`` and ``mark``.

    The fills get their shares by rate and mark; the wallet gets what was really paid.
    """
    difference = amount - settle_funding(state, rate, mark)
    state.wallet += difference
    state.funding += difference
