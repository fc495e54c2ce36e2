"""One step of the fixed grid: ``protect`` decides market orders, ``arrange`` what should rest (A4).

Nothing here knows whether it runs in a backtest or live. A phase of ``protect`` is asked again
after its exits are done, until it decides none.
"""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from core.market import Market
from engine.fixed_grid.entries import arrange_entry
from engine.fixed_grid.frozen import FixedParams
from engine.fixed_grid.health import log_step
from engine.fixed_grid.levels import reached, resting_close_price
from engine.fixed_grid.nearest import NOBODY, find_nearest
from engine.fixed_grid.positions import drop_working, take_age
from engine.fixed_grid.recovery import close_both, escalation_exits, hedge_exits, stuck_exits
from engine.fixed_grid.stops import deal_stops
from engine.fixed_grid.types import STAGE_OPEN, FixedState, FixedTape, add_fixed_exit
from engine.margin import excess_margin, has_position
from engine.types import LIQUIDATION, NO_REGIME, STOP_PRICE

PHASE_STOP_PRICE: Final = 0
PHASE_LIQUIDATION: Final = 1
PHASE_HEDGES: Final = 2
PHASE_STUCK: Final = 3
PHASE_ESCALATION: Final = 4
FIXED_PHASES: Final = 5


@kernel
def open_fixed_step(
    state: FixedState, params: FixedParams, bar: int, ts_ms: int, price: float, prev_close: float
) -> None:
    """Begin a step: the clock is floored to it, ``price`` is the last price (quote)."""
    now = state.now
    now.bar, now.ts_ms, now.price, now.prev_close = bar, ts_ms, price, prev_close
    now.regime = NO_REGIME
    seconds = ts_ms // 1000
    now.step_s = seconds - seconds % params.step_s
    state.liquidated = False


@kernel
def go_on(state: FixedState, params: FixedParams, bar: int, ts_ms: int) -> None:
    """Move the clock to a candle inside a step; the price of the step stays."""
    now = state.now
    now.bar, now.ts_ms = bar, ts_ms
    seconds = ts_ms // 1000
    now.step_s = seconds - seconds % params.step_s


@kernel
def protect(
    state: FixedState, params: FixedParams, market: Market, phase: int, tape: FixedTape
) -> int:
    """Put the next market orders of a phase on the tape and return how many there are.

    They are done in their order before the phase is asked again.
    """
    tape.n_exits = 0
    if phase == PHASE_STOP_PRICE:
        stop_price_exits(state, params, tape)
    elif has_position(state):
        protect_positions(state, params, market, phase, tape)
    return int(tape.n_exits)


@kernel
def protect_positions(
    state: FixedState, params: FixedParams, market: Market, phase: int, tape: FixedTape
) -> None:
    """Decide what a phase wants of the positions there are."""
    if phase == PHASE_LIQUIDATION:
        liquidation_exits(state, params, market, tape)
    elif phase == PHASE_HEDGES:
        if state.sides[params.hedge_side].n_fills > 0:
            hedge_exits(state, params, tape)
    elif phase == PHASE_STUCK:
        if may_be_stuck(state, params):
            stuck_exits(state, params, market, tape)
    elif may_escalate(state, params):
        escalation_exits(state, params, market, tape)


@kernel
def liquidation_exits(
    state: FixedState, params: FixedParams, market: Market, tape: FixedTape
) -> None:
    """Decide to close everything if the margin does not suffice at the price (phase 3)."""
    if not state.liquidated and excess_margin(state, market, state.now.price) <= 0.0:
        state.liquidated = True
        add_fixed_exit(tape, params.side, -1, 0.0, LIQUIDATION, releases=False)


@kernel
def stop_price_exits(state: FixedState, params: FixedParams, tape: FixedTape) -> None:
    """Decide to close everything past ``stop_price``, or after a stop that lay at it (phase 1)."""
    if params.stop_price <= 0.0 or state.stopped:
        return
    beyond = params.sign * (params.stop_price - state.now.price)
    if not state.fired_at_stop_price and beyond < -1e-12 * params.stop_price:
        return
    state.stopped = True
    drop_working(state)
    own = state.sides[params.side]
    for row in range(own.n_fills):
        close_both(params, own.fills[row], STOP_PRICE, tape)


@kernel
def may_be_stuck(state: FixedState, params: FixedParams) -> bool:
    """Return whether a position can be stuck at all: the worst is far enough, one old enough.

    The worst entry has the farthest close price.
    """
    if state.nearest.stale:
        find_nearest(state, params)
    now = state.now
    if now.step_s - state.nearest.oldest_open < params.timeout_s:
        return False
    target = state.sides[params.side].fills[0].take_profit
    return reached(params.sign * (target - now.price) / target, params.stuck_share)


@kernel
def may_escalate(state: FixedState, params: FixedParams) -> bool:
    """Return whether a ladder has stood long enough."""
    if state.nearest.stale:
        find_nearest(state, params)
    nearest = state.nearest
    return nearest.n_ladders > 0 and state.now.step_s - nearest.oldest_ladder >= params.escalation_s


@kernel
def lay_exits(state: FixedState, params: FixedParams, market: Market) -> None:
    """Lay the close order of every open position where it belongs at this price (phase 7)."""
    own, price = state.sides[params.side], state.now.price
    state.n_displaced = 0
    for row in range(own.n_fills):
        position = own.fills[row]
        if position.stage != STAGE_OPEN:
            continue
        wanted = resting_close_price(params, market, position.take_profit, price)
        if position.close_price != wanted:
            position.close_price, position.close_touched = wanted, 0
            position.close_age = take_age(state)
            state.nearest.stale = True
        if wanted != position.take_profit:
            state.n_displaced += 1


@kernel
def are_exits_laid(state: FixedState, params: FixedParams) -> bool:
    """Return whether every close order lies where it belongs at this price: the common case."""
    if state.exits_stale or state.n_displaced > 0:
        return False
    if state.nearest.stale:
        find_nearest(state, params)
    nearest = state.nearest
    return nearest.exit_row == NOBODY or (
        params.sign * (nearest.exit_price - state.now.price) > 0.0
    )


@kernel
def arrange(state: FixedState, params: FixedParams, market: Market) -> None:
    """Decide what should rest from now on: close orders, stops, the entry (phases 7 and 8)."""
    if not are_exits_laid(state, params):
        lay_exits(state, params, market)
        if state.exits_stale:
            deal_stops(state, params)
            state.nearest.stale = True
        state.exits_stale = False
    if not state.liquidated:
        arrange_entry(state, params, market)
    log_step(state, params)
