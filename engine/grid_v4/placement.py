"""Which entries should rest now, and how large they are (step 8)."""

from __future__ import annotations

from typing import Final

from core.funding import funding_harvest_factor
from core.grid import minimum_quantity, order_quantity
from core.jit import kernel
from core.kelly import kelly_scale
from core.market import Market
from core.params import StrategyParams
from core.risk import value_at_risk
from engine.grid_v4.book import cancel_from
from engine.grid_v4.generation import position_cap
from engine.grid_v4.protection import is_beyond_stop
from engine.grid_v4.types import GridFill, PositionSide, State
from engine.ledger import equity_at
from engine.types import KELLY_MEMORY, LONG, MAX_FILLS, SHORT, sign_of

SHARE_SLACK: Final = 1e-9
"""Largest floating-point error of a closed share."""


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
def kelly_factor(state: State, params: StrategyParams) -> float:
    """Return the order scale from closed fills that were entered in the current regime."""
    if not params.kelly_enabled:
        return 1.0
    regime = state.now.regime
    if state.kelly_trips == state.counters.round_trips and state.kelly_regime == regime:
        return state.kelly
    wins, losses, sum_wins, sum_losses = 0, 0, 0.0, 0.0
    for back in range(1, state.n_closed + 1):
        closed = state.closed[(state.closed_head - back) % KELLY_MEMORY]
        if closed.regime != regime:
            continue
        if closed.net_return > 0.0:
            wins += 1
            sum_wins += closed.net_return
        else:
            losses += 1
            sum_losses -= closed.net_return
        if wins + losses == params.kelly_window:
            break
    factor = params.kelly_default
    if wins + losses >= params.kelly_min_trades:
        factor = kelly_scale(
            wins, losses, sum_wins, sum_losses, params.kelly_fraction, params.kelly_min
        )
    state.kelly, state.kelly_regime = factor, regime
    state.kelly_trips = state.counters.round_trips
    return factor


@kernel
def order_scale(state: State, params: StrategyParams, position_side: int) -> float:
    """Return Kelly x cooldown x harvest for new orders of the side."""
    scale = kelly_factor(state, params)
    cooling = state.now.bar - state.cooldown_bar <= params.stop_cooldown_bars
    if params.stop_cooldown_enabled and cooling:
        scale *= params.stop_cooldown_factor
    if params.funding_harvest_enabled and state.now.regime == 0:
        scale *= funding_harvest_factor(
            state.now.funding_rate,
            sign_of(position_side),
            params.funding_harvest_threshold,
            params.funding_harvest_boost,
            params.funding_harvest_cut,
        )
    return scale


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

    Where all armed levels rest and every limit still holds there is nothing to decide: the common
    case, settled by three comparisons.

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
    if not (
        position.settled
        and position.resting_notional <= room
        and position.stop_distance >= position.stop_needed
    ):
        choose_levels(state, params, market, position_side, equity, room)
    return committed + position.resting_notional


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
    share, scale = (
        equity * params.order_pct * params.leverage,
        order_scale(state, params, position_side),
    )
    begin_orders(state, params, position)
    slots = min(params.max_inventory_per_side - position.n_busy, MAX_FILLS - position.n_fills)
    qty_held, cost_held = position.qty, position.cost
    too_small, chosen = 0, params.grid_levels
    for k in range(params.grid_levels):
        level_price = position.entries[k]
        rest = not position.levels[k].armed  # what is left of an order partly filled, if anything
        if rest and position.levels[k].qty <= 0.0:
            continue
        qty = owed_quantity(market, position, k, sign * (price - level_price), share, scale)
        if qty <= 0.0:
            position.settled = False
            too_small += 1 if qty == 0.0 else 0
            continue
        notional = qty * level_price
        if (
            (slots <= 0 and not rest)  # the fill of a rest is counted already
            or position.resting_notional + notional > room
            or is_beyond_stop(
                params,
                market,
                position_side,
                level_price,
                qty_held,
                cost_held,
                position.stop_distance,
            )
        ):
            chosen = k
            break
        if params.stop2_enabled and qty_held > 0.0:
            widen_stop_need(position, market, sign * (cost_held / qty_held - level_price))
        add_order(position, k, qty)
        slots -= 0 if rest else 1
        qty_held, cost_held = qty_held + qty, cost_held + notional
    cancel_from(position, params, chosen)
    fresh = not position.traded and chosen == params.grid_levels
    if fresh and too_small > 0 and position.resting_notional == 0.0:
        note_too_small(state, params, market, position)


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
