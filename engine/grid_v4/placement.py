"""Which entries should rest now, and how large they are (step 8)."""

from __future__ import annotations

from typing import Final

from core.grid import minimum_quantity, order_quantity
from core.jit import kernel
from core.market import Market
from core.params import StrategyParams
from core.risk import value_at_risk
from engine.grid_v4.book import cancel_from
from engine.grid_v4.generation import lay_entries, position_cap
from engine.grid_v4.protection import is_beyond_stop
from engine.grid_v4.sizes import order_scale
from engine.grid_v4.types import FAR, NO_LEVEL, GridFill, PositionSide, State
from engine.ledger import equity_at
from engine.types import LONG, MAX_FILLS, SHORT, sign_of

SHARE_SLACK: Final = 1e-9
"""Largest floating-point error of a closed share."""
ROUNDED_TICKS: Final = 2.0
"""Ticks that the rounding of a stop may put between a level and the distance that reaches it."""
NOTHING_CUT: Final = -1.0
"""A stop distance that no stop has."""


@kernel
def entries_allowed(state: State, params: StrategyParams, position_side: int) -> bool:
    """Return whether regime and breaker let the side open positions."""
    if state.halted or (position_side == SHORT and not params.allow_short):
        return False
    return state.now.regime * sign_of(position_side) >= 0.0


@kernel
def is_var_blocked(state: State, params: StrategyParams) -> bool:
    """Return whether the value at risk of the exposure exceeds the drawdown budget (step 7)."""
    if not params.var_block_enabled:
        return False
    price = state.now.price
    exposure = (state.sides[LONG].qty + state.sides[SHORT].qty) * price
    if exposure == 0.0:
        return False
    at_risk = value_at_risk(exposure, state.now.sigma, params.var_horizon_bars)
    return at_risk > params.max_drawdown_pct * equity_at(state, price)


@kernel
def room_for_entries(
    state: State, params: StrategyParams, position_side: int, equity: float, committed: float
) -> float:
    """Return the notional that the caps leave to the side's entry orders, quote; may be negative.

    ``committed`` is the notional of both positions and of the entries placed before, quote.
    """
    return min(
        position_cap(state, params, position_side, equity)
        - state.sides[position_side].qty * state.now.price,
        params.max_capital_pct * equity * params.leverage - committed,
    )


@kernel
def place_entries(
    state: State, params: StrategyParams, market: Market, position_side: int, committed: float
) -> float:
    """Decide the resting entries of the side; return the capital then committed, quote.

    Where every limit still admits and cuts off the same levels there is nothing to decide: the
    common case, settled by a few comparisons.

    Args:
        state: reads now and position; writes the levels' orders.
        params: limits.
        market: minimums.
        position_side: LONG or SHORT.
        committed: notional of both positions and of the entries placed before, quote.
    """
    position = state.sides[position_side]
    price = state.now.price
    equity = equity_at(state, price)
    room = room_for_entries(state, params, position_side, equity, committed)
    if state.entry_share < 1.0:
        held = (state.sides[LONG].qty + state.sides[SHORT].qty) * price
        whole = room_for_entries(state, params, position_side, equity, held)
        room = min(room, state.entry_share * whole)
    if not is_choice_current(state, params, market, position_side, equity, room):
        choose_levels(state, params, market, position_side, equity, room)
    return committed + position.resting_notional


@kernel
def is_choice_current(
    state: State,
    params: StrategyParams,
    market: Market,
    position_side: int,
    equity: float,
    room: float,
) -> bool:
    """Return whether choosing the entries of the side anew would choose the same.

    The orders that rest must fit, no level passed over may have become passive, and the level that
    a limit cut off must be cut off again. What else a choice reads, fills and generation, takes
    ``settled`` away where it changes.
    """
    position = state.sides[position_side]
    memo = position.memo
    if not (
        position.settled
        and memo.holds
        and position.resting_notional <= room
        and position.stop_distance >= position.stop_needed
        and sign_of(position_side) * state.now.price <= memo.passive_to
    ):
        return False
    if memo.cut_level == NO_LEVEL or position.stop_distance <= memo.cut_stop:
        return True
    level_price = position.entries[memo.cut_level]
    if sign_of(position_side) * (state.now.price - level_price) <= 0.0:
        return False
    share = equity * params.order_pct * params.leverage
    scale = order_scale(state, params, position_side)
    qty = order_quantity(market, share, scale, level_price)
    return qty > 0.0 and position.resting_notional + qty * level_price > room


@kernel
def choose_levels(
    state: State,
    params: StrategyParams,
    market: Market,
    position_side: int,
    equity: float,
    room: float,
) -> None:
    """Choose the entries of the side out of its armed levels, nearest first.

    ``room`` is the notional (quote) that entry orders may have together. The first level that
    fails a limit ends the side; a level whose order would be under the exchange's minimum is
    passed over.
    """
    position = state.sides[position_side]
    price, sign = state.now.price, sign_of(position_side)
    share = equity * params.order_pct * params.leverage
    scale = order_scale(state, params, position_side)
    lay_entries(params, market, position, position_side)
    begin_orders(state, params, position)
    slots = min(params.max_inventory_per_side - position.n_busy, MAX_FILLS - position.n_fills)
    qty_held, cost_held = position.qty, position.cost
    for k in range(params.grid_levels):
        level_price = position.entries[k]
        rest = not position.levels[k].armed  # what is left of an order partly filled, if anything
        if rest and position.levels[k].qty <= 0.0:
            continue
        qty = owed_quantity(market, position, k, sign * (price - level_price), share, scale)
        if qty < 0.0:
            position.memo.passive_to = min(position.memo.passive_to, sign * level_price)
            continue
        if qty == 0.0:
            position.memo.holds = False
            continue
        if is_cut_off(
            params,
            market,
            position_side,
            position,
            k,
            qty,
            1 if rest else slots,  # the fill of a rest is counted already
            room,
            qty_held,
            cost_held,
        ):
            position.memo.cut_level = k
            position.memo.holds = position.memo.holds and not rest  # gone, not weighed again
            break
        if params.stop2_enabled and qty_held > 0.0:
            widen_stop_need(position, market, sign * (cost_held / qty_held - level_price))
        add_order(position, k, qty)
        slots -= 0 if rest else 1
        qty_held, cost_held = qty_held + qty, cost_held + qty * level_price
    end_orders(state, params, market, position)


@kernel
def is_cut_off(
    params: StrategyParams,
    market: Market,
    position_side: int,
    position: PositionSide,
    k: int,
    qty: float,
    slots: int,
    room: float,
    qty_held: float,
    cost_held: float,
) -> bool:
    """Return whether a limit ends the side at level ``k``; note what would cut it off again.

    Args:
        params: limits.
        market: tick size.
        position_side: LONG or SHORT.
        position: writes ``cut_stop``.
        k: level.
        qty: of its order, base.
        slots: fills and orders the side may still have.
        room: notional that entry orders may have together, quote.
        qty_held: of the position that nearer orders make, base.
        cost_held: of that position, quote.
    """
    price, distance = position.entries[k], position.stop_distance
    if slots <= 0:
        position.memo.cut_stop = FAR
        return True
    if is_beyond_stop(params, market, position_side, price, qty_held, cost_held, distance):
        reached = sign_of(position_side) * (cost_held / qty_held - price)
        position.memo.cut_stop = reached - ROUNDED_TICKS * market.tick_size
        return True
    return position.resting_notional + qty * price > room


@kernel
def is_busy(params: StrategyParams, fill: GridFill) -> bool:
    """Return whether so little of a fill is closed that it still occupies its level."""
    return fill.qty > (1.0 - params.tp_concentration + SHARE_SLACK) * fill.entry_qty


@kernel
def arm_levels(position: PositionSide, params: StrategyParams) -> None:
    """Arm every level but those that a busy fill of this generation came from."""
    for k in range(params.grid_levels):
        position.levels[k].armed = position.entries[k] > 0.0
    position.n_busy = 0
    for row in range(position.n_fills):
        fill = position.fills[row]
        fill.busy = is_busy(params, fill)
        if fill.busy:
            position.n_busy += 1
            if fill.generation == position.generation:
                position.levels[fill.level].armed = False


@kernel
def owed_quantity(
    market: Market, position: PositionSide, k: int, distance: float, share: float, scale: float
) -> float:
    """Return the order quantity of level ``k``: its own while it rests, else a new one.

    0 where the order would be too small, -1 where the level is not strictly passive
    (``distance``, quote, not positive).
    """
    resting = position.levels[k].qty
    if resting > 0.0:
        return resting
    if distance <= 0.0:
        return -1.0
    return order_quantity(market, share, scale, position.entries[k])


@kernel
def widen_stop_need(position: PositionSide, market: Market, distance: float) -> None:
    """Note that an order rests at ``distance`` (quote) from the position that nearer ones make."""
    position.stop_needed = max(position.stop_needed, distance + market.tick_size)


@kernel
def begin_orders(state: State, params: StrategyParams, position: PositionSide) -> None:
    """Start a new choice of entry orders."""
    arm_levels(position, params)
    position.settled, position.next_entry = True, 0.0
    position.resting_notional, position.stop_needed = 0.0, 0.0
    memo = position.memo
    memo.holds, memo.passive_to, memo.cut_level, memo.cut_stop = True, FAR, NO_LEVEL, NOTHING_CUT
    if position.n_fills >= MAX_FILLS:
        state.counters.capacity_reached += 1


@kernel
def add_order(position: PositionSide, k: int, qty: float) -> None:
    """Let ``qty`` rest at level ``k``, which is farther than the orders added before."""
    level = position.levels[k]
    if level.qty == 0.0:
        level.touched = 0
    level.qty = qty
    if position.next_entry == 0.0:
        position.next_entry, position.next_entry_level = position.entries[k], k
    position.resting_notional += qty * position.entries[k]


@kernel
def end_orders(
    state: State, params: StrategyParams, market: Market, position: PositionSide
) -> None:
    """Finish a choice: what lies beyond the last order is gone; say if nothing is large enough."""
    memo = position.memo
    cut = memo.cut_level != NO_LEVEL
    cancel_from(position, params, memo.cut_level if cut else params.grid_levels)
    fresh = position.resting_notional == 0.0 and not position.traded
    if fresh and not cut and not memo.holds:
        note_too_small(state, params, market, position)
    if (fresh and cut) or position.n_fills >= MAX_FILLS:
        memo.holds = False  # may yet be too small, or is counted at every step


@kernel
def note_too_small(
    state: State, params: StrategyParams, market: Market, position: PositionSide
) -> None:
    """Keep the capital with which the nearest level's order would reach the minimum."""
    nearest = position.entries[0]
    if state.too_small or nearest <= 0.0:
        return
    state.too_small = True
    notional = minimum_quantity(market, nearest) * nearest
    state.capital_needed = notional / (params.order_pct * params.leverage)
