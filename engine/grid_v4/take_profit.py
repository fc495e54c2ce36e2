"""Take-profits: each fill's ladder on its side's exit lattice (step 8)."""

from __future__ import annotations

import math

from core.jit import kernel
from core.market import Market, lots_down, lots_nearest, tick_down, tick_up
from core.params import StrategyParams
from engine.exit_ladder import find_next_tp
from engine.grid_v4.generation import lay_exits
from engine.grid_v4.types import FAR, PositionSide, State
from engine.types import LONG, Fill, sign_of


@kernel
def break_even(params: StrategyParams, market: Market, position_side: int, entry: float) -> float:
    """Return the nearest price on the tick at which an exit pays both maker fees."""
    fee = params.fee_maker
    if position_side == LONG:
        return tick_up(market, entry * (1.0 + fee) / (1.0 - fee))
    return tick_down(market, entry * (1.0 - fee) / (1.0 + fee))


@kernel
def first_exit(
    position: PositionSide, params: StrategyParams, sign: float, bound: float, price: float
) -> int:
    """Return the index of the first exit level at or above ``bound`` and strictly passive.

    Answers ``2 * grid_levels + 1`` where no level qualifies. Mirrored for shorts.
    """
    size = 2 * params.grid_levels + 1
    index = 0
    while index < size:
        level = position.exits[index]
        if level > 0.0 and sign * level >= sign * bound and sign * level > sign * price:
            break
        index += 1
    return index


@kernel
def split_ladder(
    fill: Fill, params: StrategyParams, market: Market, first: int, n_levels: int
) -> None:
    """Share the fill over ``n_levels`` exit levels from lattice index ``first`` on.

    ``tp_concentration`` at the first, the rest in equal slices cut to the lot step, what is left
    of the cutting at the first; slices under the minimum quantity join inwards.
    """
    head, slice_qty, n_slices = fill.qty, 0.0, n_levels - 1
    fill.tp_stride, fill.tp_count, fill.tp_next = 1, 0, first + 1
    if n_slices > 0:
        rest = (1.0 - params.tp_concentration) * fill.qty
        slice_qty = lots_down(market, rest / n_slices)
    if slice_qty > 0.0:
        joined, count = 1, n_slices
        if slice_qty < market.min_qty:
            joined = max(1, math.ceil(market.min_qty / slice_qty - 1e-9))
            count = n_slices // joined
        head = lots_nearest(market, fill.qty - count * joined * slice_qty)
        fill.tp_stride, fill.tp_count = joined, count
        fill.tp_next = first + 1 + n_slices - count * joined
        fill.tp_slice = lots_nearest(market, joined * slice_qty)
        while head < market.min_qty and fill.tp_count > 0:
            head = lots_nearest(market, head + fill.tp_slice)
            fill.tp_next += joined
            fill.tp_count -= 1
    fill.tp_qty = head


@kernel
def place_take_profits(
    state: State, params: StrategyParams, market: Market, position_side: int
) -> None:
    """Lay out the take-profits of the side where fills, lattice or price ask for it.

    Fills that did not change keep theirs while the price stays where all of them hold.

    Reads: now.price, fills, exits. Writes: the fills' ladders, next_tp, the range of prices in
    which the layout stays as it is.
    """
    position = state.sides[position_side]
    memo = position.memo
    if position.n_fills == 0:
        position.next_tp, position.tp_stale = 0.0, True
        return
    in_range = memo.tp_valid_low <= sign_of(position_side) * state.now.price < memo.tp_valid_high
    others_hold = in_range and memo.tps_of == position.generation
    if others_hold and not position.tp_stale:
        return
    lay_exits(params, market, position, position_side)
    if not others_hold:
        memo.tp_valid_low, memo.tp_valid_high = -FAR, FAR
    memo.tps_of, position.tp_stale = position.generation, False
    for row in range(position.n_fills):
        fill = position.fills[row]
        if others_hold and fill.memo.tp_qty == fill.qty and fill.tp_price > 0.0:
            continue
        fill.memo.tp_qty = fill.qty
        _place_ladder(state, params, market, position_side, fill)
    find_next_tp(position, sign_of(position_side), 0)


@kernel
def _place_ladder(
    state: State, params: StrategyParams, market: Market, position_side: int, fill: Fill
) -> None:
    """Lay out one fill's ladder and narrow the side's range of validity."""
    position = state.sides[position_side]
    sign, price, before = sign_of(position_side), state.now.price, fill.tp_price
    size = 2 * params.grid_levels + 1
    bound = break_even(params, market, position_side, fill.price)
    lowest = -sign * FAR if params.tp_below_entry else bound
    first = first_exit(position, params, sign, lowest, price)
    if first == size:
        if position_side == LONG:
            passive = tick_up(market, price + market.tick_size)
        else:
            passive = tick_down(market, price - market.tick_size)
        if params.tp_below_entry:
            bound = passive
        fill.tp_price = max(bound, passive) if position_side == LONG else min(bound, passive)
        fill.tp_qty, fill.tp_count = fill.qty, 0
        if fill.tp_price == bound and sign * position.exits[size - 1] < sign * bound:
            latest = sign * bound - market.tick_size  # up to here break-even is passive
            position.memo.tp_valid_high = min(position.memo.tp_valid_high, latest)
        else:
            position.memo.tp_valid_low = FAR  # depends on the price itself: never valid
    else:
        fill.tp_price = position.exits[first]
        _lay_slices(params, market, position, fill, first)
        _narrow_validity(position, sign, lowest, first)
    if fill.tp_price != before:
        fill.tp_touched = 0


@kernel
def _lay_slices(
    params: StrategyParams, market: Market, position: PositionSide, fill: Fill, first: int
) -> None:
    """Split the fill over the exit levels that there are from ``first`` on."""
    size = 2 * params.grid_levels + 1
    n_levels = 1
    while n_levels < min(params.grid_levels, size - first) and position.exits[first + n_levels] > 0:
        n_levels += 1
    split_ladder(fill, params, market, first, n_levels)


@kernel
def _narrow_validity(position: PositionSide, sign: float, lowest: float, first: int) -> None:
    """Keep only prices at which ``first`` stays the first exit at or above ``lowest``."""
    position.memo.tp_valid_high = min(position.memo.tp_valid_high, sign * position.exits[first])
    if first > 0 and position.exits[first - 1] > 0.0:
        before = sign * position.exits[first - 1]
        if before >= sign * lowest:
            position.memo.tp_valid_low = max(position.memo.tp_valid_low, before)
