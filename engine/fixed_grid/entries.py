"""The one working order: where it should lie, and the gates it must pass (A5)."""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from core.market import Market, lots_nearest
from engine.fixed_grid.frozen import FixedParams
from engine.fixed_grid.levels import affordable, entry_price, entry_qty, is_under_minimum, reached
from engine.fixed_grid.positions import drop_working, free_slot, margin_used, take_age
from engine.fixed_grid.types import (
    EPOCH_2020_S,
    GATE_COOLDOWN,
    GATE_MARGIN,
    GATE_MINIMUM,
    GATE_MISMATCH,
    GATE_ORDERS,
    GATE_PAUSE,
    GATE_PRICE,
    GATE_SIZE,
    GATE_STOPPED,
    GATE_STOPPING,
    NO_GATE,
    NO_TIME,
    FixedState,
)
from engine.ledger import equity_at

# What a long wait is shortened to by the share of open positions.
SPARSE: Final = 1.0 / 6.0
THIN: Final = 1.0 / 3.0
FULL: Final = 2.0 / 3.0


@kernel
def arrange_entry(state: FixedState, params: FixedParams, market: Market) -> None:
    """Lay, keep, replace or cancel the working order (phase 8)."""
    working = state.working
    price = entry_price(state, params, market)
    keeps = working.price > 0.0 and params.sign * (price - working.price) <= 0.0
    if keeps:
        price, qty = working.price, working.qty
    else:
        qty = entry_qty(params, market, price)
    gate = failed_gate(state, params, market, price, qty, keeps)
    state.gate = gate
    if gate != NO_GATE:
        state.counters.blocked[gate] += 1
        if gate == GATE_MARGIN and is_only_margin(state, params, market, price, qty, keeps):
            state.counters.margin_exhausted += 1
        if gate != GATE_COOLDOWN:
            drop_working(state)
        return
    if keeps:
        return
    working.price, working.qty, working.touched = price, qty, 0
    working.age = take_age(state)
    working.cycle, working.slot = state.now.step_s - EPOCH_2020_S, free_slot(state, params)


@kernel
def failed_gate(
    state: FixedState, params: FixedParams, market: Market, price: float, qty: float, keeps: bool
) -> int:
    """Return the first gate that an order of ``qty`` at ``price`` fails, NO_GATE if none.

    M and the quantity held are without the working order; the cooldown binds what would be laid.
    """
    gate = failed_session_gate(state)
    if gate != NO_GATE:
        return gate
    if is_priced_out(state, params, price):
        return GATE_PRICE
    gate = failed_size_gate(state, params, market, price, qty)
    if gate == NO_GATE and not keeps and not has_cooled_down(state, params):
        return GATE_COOLDOWN
    return gate


@kernel
def failed_size_gate(
    state: FixedState, params: FixedParams, market: Market, price: float, qty: float
) -> int:
    """Return the first cap or minimum that an order of ``qty`` at ``price`` fails."""
    others = state.sides[params.side].n_fills - n_own_of_working(state, params, price)
    if others >= params.max_orders:
        return GATE_ORDERS
    if is_oversized(state, params, market, qty):
        return GATE_SIZE
    needed = margin_used(state, params, with_working=False) + qty * price / params.leverage
    if not affordable(needed, min(params.max_margin_usd, equity_at(state, state.now.price))):
        return GATE_MARGIN
    if price <= 0.0 or is_under_minimum(market, qty, price):
        return GATE_MINIMUM
    return NO_GATE


@kernel
def n_own_of_working(state: FixedState, params: FixedParams, price: float) -> int:
    """Return 1 where the working order stays and has filled in part: no position besides it.

    An order at another ``price`` would be a new one, and what the old one filled a position.
    """
    own, working = state.sides[params.side], state.working
    if working.price <= 0.0 or price != working.price:
        return 0
    for row in range(own.n_fills):
        if own.fills[row].cycle == working.cycle:
            return 1
    return 0


@kernel
def failed_session_gate(state: FixedState) -> int:
    """Return the gate of the session that no entry passes, NO_GATE if there is none."""
    if state.paused:
        return GATE_PAUSE
    if state.stopping:
        return GATE_STOPPING
    if state.stopped:
        return GATE_STOPPED
    return GATE_MISMATCH if state.mismatch else NO_GATE


@kernel
def is_only_margin(
    state: FixedState, params: FixedParams, market: Market, price: float, qty: float, keeps: bool
) -> bool:
    """Return whether an order that fails the margin gate passes all behind it."""
    if price <= 0.0 or is_under_minimum(market, qty, price):
        return False
    return keeps or has_cooled_down(state, params)


@kernel
def is_oversized(state: FixedState, params: FixedParams, market: Market, qty: float) -> bool:
    """Return whether position and order together are over ``max_position_size``."""
    if params.max_position_size <= 0.0:
        return False
    held = lots_nearest(market, state.sides[params.side].qty + qty)
    return held > params.max_position_size * (1.0 + 1e-12)


@kernel
def is_priced_out(state: FixedState, params: FixedParams, price: float) -> bool:
    """Return whether p is past ``pause_price`` or the entry at or beyond ``stop_price``."""
    if params.pause_price > 0.0:
        chased = params.sign * (state.now.price - params.pause_price)
        if chased >= -1e-12 * params.pause_price:
            return True
    if params.stop_price <= 0.0:
        return False
    return params.sign * (price - params.stop_price) <= 1e-12 * params.stop_price


@kernel
def has_cooled_down(state: FixedState, params: FixedParams) -> bool:
    """Return whether enough time has passed since the last entry fill or loss exit.

    ``W = max(wait_time, step_s)`` times 2, 1, 1/2 or 1/4 by the density of open positions. No wait
    without ``wait_time``, or if a take-profit or rung filled strictly after.
    """
    since = max(state.last_entry_fill, state.last_loss_exit)
    if params.cooldown_s <= 0.0 or since == NO_TIME or state.last_profit_exit > since:
        return True
    density = state.sides[params.side].n_fills / params.max_orders
    factor = 0.25
    if reached(density, FULL):
        factor = 2.0
    elif reached(density, THIN):
        factor = 1.0
    elif reached(density, SPARSE):
        factor = 0.5
    return reached(state.now.step_s - since, params.cooldown_s * factor)
