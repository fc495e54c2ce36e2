"""Which entries should rest now, and how large they are (step 8)."""

from __future__ import annotations

from core.funding import funding_harvest_factor
from core.grid import minimum_quantity, order_quantity
from core.jit import kernel
from core.kelly import kelly_scale
from core.market import Market
from core.params import StrategyParams
from core.risk import value_at_risk
from engine.generation import position_cap
from engine.ledger import equity_at
from engine.protection import is_beyond_stop
from engine.types import KELLY_MEMORY, LONG, MAX_FILLS, SHORT, PositionSide, State, sign_of


@kernel
def entries_allowed(state: State, params: StrategyParams, side: int) -> bool:
    """Return whether regime and breaker let ``side`` open positions."""
    if state.halted or (side == SHORT and not params.allow_short):
        return False
    return state.now.regime * sign_of(side) >= 0.0


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
    if not state.kelly_stale and state.kelly_regime == regime:
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
    state.kelly, state.kelly_regime, state.kelly_stale = factor, regime, False
    return factor


@kernel
def order_scale(state: State, params: StrategyParams, side: int) -> float:
    """Return Kelly x cooldown x harvest for new orders of ``side``."""
    scale = kelly_factor(state, params)
    cooling = state.now.bar - state.cooldown_bar <= params.stop_cooldown_bars
    if params.stop_cooldown_enabled and cooling:
        scale *= params.stop_cooldown_factor
    if params.funding_harvest_enabled and state.now.regime == 0:
        scale *= funding_harvest_factor(
            state.now.funding_rate, sign_of(side), params.funding_harvest_threshold,
            params.funding_harvest_boost, params.funding_harvest_cut,
        )  # fmt: skip
    return scale


@kernel
def place_entries(
    state: State, params: StrategyParams, market: Market, side: int, committed: float,
    distance: float, fresh: bool,
) -> float:  # fmt: skip
    """Decide the resting entries of ``side``, nearest first; return the capital then committed.

    The first level that fails a limit ends the side; a level whose order would be under the
    exchange's minimum is passed over.

    Args:
        state: reads now, position and levels; writes the levels' orders.
        params: limits.
        market: minimums.
        side: LONG or SHORT.
        committed: notional of both positions and of the entries placed before, quote.
        distance: of the stage-2 stop from the average entry, quote.
        fresh: whether the generation is of this step.
    """
    position = state.sides[side]
    price, sign = state.now.price, sign_of(side)
    equity = equity_at(state, price)
    cap = position_cap(state, params, side, equity)
    capital_cap = params.max_capital_pct * equity * params.leverage
    share, scale = equity * params.order_pct * params.leverage, order_scale(state, params, side)
    used, count, rows = position.qty * price, position.n_busy, position.n_fills
    qty_held, cost_held = position.qty, position.cost
    candidates, placed, ended = 0, 0, False
    position.next_entry = 0.0
    for k in range(params.grid_levels):
        level, level_price = position.levels[k], position.entries[k]
        resting = level.qty > 0.0
        open_to_place = level.armed and (resting or sign * level_price < sign * price)
        if ended or not open_to_place:
            level.qty = 0.0
            continue
        candidates += 1
        qty = level.qty if resting else order_quantity(market, share, scale, level_price)
        if qty <= 0.0:
            continue
        notional = qty * level_price
        beyond_stop = (
            params.stop2_enabled
            and qty_held > 0.0
            and is_beyond_stop(market, side, level_price, qty_held, cost_held, distance)
        )
        if rows >= MAX_FILLS:
            state.counters.capacity_reached += 1
        if (
            count >= params.max_inventory_per_side
            or rows >= MAX_FILLS
            or used + notional > cap
            or beyond_stop
            or committed + notional > capital_cap
        ):
            level.qty = 0.0
            ended = True
            continue
        level.qty = qty
        used, committed, count, rows = used + notional, committed + notional, count + 1, rows + 1
        qty_held, cost_held = qty_held + qty, cost_held + notional
        if placed == 0:
            position.next_entry, position.next_entry_level = level_price, k
        placed += 1
    if fresh and candidates > 0 and placed == 0 and not ended:
        note_too_small(state, params, market, position)
    return committed


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
