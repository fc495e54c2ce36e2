"""When a side's grid is laid out anew, and where: generations, trailing up (steps 6 and 8)."""

from __future__ import annotations

from typing import Final

from core.funding import funding_spacing_factor
from core.grid import MIN_SPACING_MAKER_FEES, fill_ladder, trend_spacing_factor
from core.inventory import (
    calculate_optimal_spread,
    calculate_reservation_price,
    normalize_inventory,
)
from core.jit import kernel
from core.market import Market, tick_down, tick_up
from core.params import StrategyParams
from engine.grid_v4.types import PositionSide, State
from engine.ledger import equity_at
from engine.types import LONG, sign_of

TRAILING_STEP: Final = 0.5
"""Share of the way to the price that the reference moves when trailing."""


@kernel
def trailing_active(state: State, params: StrategyParams, position_side: int) -> bool:
    """Return whether regime and efficiency ratio let the long grid trail the price up."""
    return (
        position_side == LONG
        and params.trailing_enabled
        and state.now.regime > 0
        and state.now.er > params.trailing_activation_er
    )


@kernel
def position_cap(state: State, params: StrategyParams, position_side: int, equity: float) -> float:
    """Return the notional that position and resting entries of the side may reach, quote."""
    thin = state.now.volume_ratio < params.low_volume_threshold
    liquidity = params.low_volume_factor if thin else 1.0
    reserve = 1.0
    if (
        position_side == LONG
        and params.trailing_enabled
        and not trailing_active(state, params, position_side)
    ):
        reserve = 1.0 - params.trailing_reserve_pct
    return equity * params.max_position_pct * params.leverage * liquidity * reserve


@kernel
def exit_spacing(state: State, params: StrategyParams) -> float:
    """Return the spacing before asymmetry, relative to price."""
    now = state.now
    floor = max(params.spacing_floor, params.adaptive_floor_scale * now.atr_mean)
    pct = max(params.grid_spacing_k * now.atr / now.price, floor)
    if params.optimal_spread_enabled:
        spread = calculate_optimal_spread(
            now.sigma, params.gamma, params.kappa, params.as_time_horizon
        )
        pct = max(pct, spread / 2.0)
    return pct


@kernel
def entry_spacing(
    state: State, params: StrategyParams, position_side: int, exit_pct: float
) -> float:
    """Return the spacing of entries: ``exit_pct`` with the asymmetry of trend or funding."""
    now = state.now
    sign = sign_of(position_side)
    factor = trend_spacing_factor(now.regime, now.er, sign)
    if now.regime == 0 and params.funding_bias_enabled:
        factor = funding_spacing_factor(
            now.funding_rate, sign, params.funding_threshold, params.funding_bias_factor
        )
    return max(exit_pct * factor, MIN_SPACING_MAKER_FEES * params.fee_maker)


@kernel
def regenerate(state: State, params: StrategyParams, position_side: int, reference: float) -> None:
    """Begin a new generation of the side around ``reference``; none of its orders rest yet.

    Its prices are laid out where they are first asked for: many a generation is followed by
    another before the side holds a fill, or before it may open one.

    Reads: now, position. Writes: the side's generation and levels.
    """
    position = state.sides[position_side]
    position.generation += 1
    position.reference = reference
    position.exit_pct = exit_spacing(state, params)
    position.entry_pct = entry_spacing(state, params, position_side, position.exit_pct)
    position.spacing = position.entry_pct * reference
    position.stop_floor = position.exit_pct * reference / params.grid_spacing_k
    position.centre = reference
    if params.skew_enabled:
        price = state.now.price
        cap = position_cap(state, params, position_side, equity_at(state, price))
        used = normalize_inventory(position.qty * price, cap)
        position.centre = calculate_reservation_price(
            reference,
            sign_of(position_side) * used,
            params.gamma,
            state.now.sigma,
            params.as_time_horizon,
        )
    position.traded, position.cut = False, False
    position.tp_stale, position.settled = True, False
    for k in range(params.grid_levels):
        position.levels[k].qty = 0.0


@kernel
def lay_entries(
    params: StrategyParams, market: Market, position: PositionSide, position_side: int
) -> None:
    """Write the entry levels of the side's generation unless they stand already."""
    if position.memo.entries_of == position.generation:
        return
    position.memo.entries_of = position.generation
    count = params.grid_levels
    fill_ladder(
        position.entries,
        0,
        1,
        count,
        position.centre,
        position.entry_pct,
        -sign_of(position_side),
        params.grid_mode,
        params.round_number_nudge,
        0.0,
        market,
    )


@kernel
def lay_exits(
    params: StrategyParams, market: Market, position: PositionSide, position_side: int
) -> None:
    """Write the exit lattice of the side's generation unless it stands already.

    Level ``-grid_levels`` to ``+grid_levels`` in the direction of profit.
    """
    if position.memo.exits_of == position.generation:
        return
    position.memo.exits_of = position.generation
    count = params.grid_levels
    centre, pct = position.centre, position.exit_pct
    mode, nudge = params.grid_mode, params.round_number_nudge
    zero = tick_up(market, centre) if position_side == LONG else tick_down(market, centre)
    zero = max(0.0, zero)  # a strong skew may leave no positive centre
    position.exits[count] = zero
    up = 1 if position_side == LONG else -1
    fill_ladder(position.exits, count + up, up, count, centre, pct, 1.0, mode, nudge, zero, market)
    fill_ladder(
        position.exits, count - up, -up, count, centre, pct, -1.0, mode, nudge, zero, market
    )


@kernel
def trail_up(state: State, params: StrategyParams, market: Market) -> float:
    """Return the long grid's new reference if the price has left its top, else 0 (step 6)."""
    position = state.sides[LONG]
    if position.generation == 0 or not trailing_active(state, params, LONG):
        return 0.0
    lay_exits(params, market, position, LONG)
    if not state.now.price > position.exits[2 * params.grid_levels]:
        return 0.0
    moved = position.reference + TRAILING_STEP * (state.now.price - position.reference)
    if params.trailing_cap_price > 0.0:
        moved = min(moved, params.trailing_cap_price)
    return moved if moved > position.reference else 0.0


@kernel
def is_regeneration_due(
    state: State, params: StrategyParams, position_side: int, newly_allowed: bool
) -> bool:
    """Return whether the side gets a new grid around the price (step 8, other than trailing)."""
    position = state.sides[position_side]
    if position.generation == 0 or newly_allowed or position.cut:
        return True
    drift = abs(state.now.price - position.reference)
    return (
        drift > params.regen_drift_mult * position.spacing
        and (position.traded or position.n_fills == 0)
        and not trailing_active(state, params, position_side)
    )


@kernel
def renew_generation(
    state: State, params: StrategyParams, market: Market, position_side: int, allowed: bool
) -> None:
    """Trail or regenerate the side where a rule asks for it."""
    position = state.sides[position_side]
    newly_allowed = allowed and not position.was_allowed
    position.was_allowed = allowed
    trailed = trail_up(state, params, market) if position_side == LONG else 0.0
    if trailed > 0.0:
        state.counters.trailing_shifts += 1
    if is_regeneration_due(state, params, position_side, newly_allowed):
        regenerate(state, params, position_side, state.now.price)
    elif trailed > 0.0:
        regenerate(state, params, position_side, trailed)
