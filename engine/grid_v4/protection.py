"""Circuit breaker, two-stage stops and liquidation (steps 2 to 4)."""

from __future__ import annotations

from core.jit import kernel
from core.market import Market, lots_down
from core.params import StrategyParams
from engine.grid_v4.types import PositionSide, State
from engine.ledger import equity_at, partial_close_qty, worst_fill, write_trade
from engine.margin import excess_margin, stop_level
from engine.types import (
    CIRCUIT_BREAKER_HALT,
    LIQUIDATION,
    LONG,
    NO_DIRECTION,
    SHORT,
    STOP,
    Tape,
    add_exit,
    sign_of,
)


@kernel
def switch_breaker(state: State, params: StrategyParams, tape: Tape) -> None:
    """Halt on a z-score under ``halt_z_threshold``, resume above ``resume_z_threshold``.

    Reads: now.z. Writes: halted, one record per halt.
    """
    if not params.circuit_breaker_enabled:
        return
    if state.halted:
        if state.now.z > params.resume_z_threshold:
            state.halted = False
    elif state.now.z < params.halt_z_threshold:
        state.halted = True
        state.counters.halts += 1
        write_trade(
            state, tape, CIRCUIT_BREAKER_HALT, NO_DIRECTION, -1, state.now.price, 0.0, 0.0, 0.0
        )


@kernel
def stop_unit(state: State, params: StrategyParams, position: PositionSide) -> float:
    """Return the unit of stop distances, quote.

    The larger of ATR and the exit spacing per ``grid_spacing_k``, so that in calm markets a stop
    does not lie inside its own grid.
    """
    return params.atr_sl_mult * max(state.now.atr, position.stop_floor)


@kernel
def is_beyond_stop(
    params: StrategyParams,
    market: Market,
    position_side: int,
    price: float,
    qty: float,
    cost: float,
    distance: float,
) -> bool:
    """Return whether ``price`` lies beyond the stop of a position of ``qty`` bought for ``cost``.

    The stop is on the tick away from the price, so a price short of the exact distance is never
    beyond it: that settles nearly all cases without a division.
    """
    if qty <= 0.0 or not params.stop2_enabled:
        return False
    if position_side == LONG:
        if price * qty >= cost - distance * qty:
            return False
    elif price * qty <= cost + distance * qty:
        return False
    stop = stop_level(market, position_side, cost / qty, distance)
    return stop > 0.0 and sign_of(position_side) * price < sign_of(position_side) * stop


@kernel
def stage1_exits(state: State, params: StrategyParams, market: Market, tape: Tape) -> None:
    """Decide the exits of stage 1, judged on the last close.

    Closes ``stop1_close_pct`` of a side, worst fills first; all of it where there is one fill or
    the rest would be under the minimum; once until the side is flat.

    Reads: now.prev_close, fills, generation. Writes: stage1_done, stop events.
    """
    if state.halted or not params.stop1_enabled or equity_at(state, state.now.price) <= 0.0:
        return  # without equity the exchange liquidates, there is nothing to stop
    for position_side in (LONG, SHORT):
        position = state.sides[position_side]
        if position.n_fills == 0 or position.stage1_done:
            continue
        distance = params.stop1_mult * stop_unit(state, params, position)
        loss = sign_of(position_side) * (position.avg_entry - state.now.prev_close)
        if not loss > distance:
            continue
        position.stage1_done = True
        register_stop(state, params, position_side)
        _split_stage1(state, params, market, position_side, tape)


@kernel
def _split_stage1(
    state: State, params: StrategyParams, market: Market, position_side: int, tape: Tape
) -> None:
    """Spread stage 1 over the fills of the side, worst first."""
    position = state.sides[position_side]
    wanted = lots_down(market, params.stop1_close_pct * position.qty)
    rest = position.qty - wanted
    if position.n_fills == 1 or wanted < market.min_qty or rest < market.min_qty - 1e-12:
        wanted = position.qty
    sign = sign_of(position_side)
    previous = -1
    while wanted > 0.5 * market.step_size:
        row = _next_worst(position, sign, previous)
        if row < 0:
            break
        fill = position.fills[row]
        qty = partial_close_qty(market, fill.qty, min(fill.qty, wanted))
        add_exit(tape, position_side, fill.fill_id, qty, STOP + position_side)
        wanted -= qty
        previous = row


@kernel
def _next_worst(position: PositionSide, sign: float, previous: int) -> int:
    """Return the row that follows ``previous`` in the order worst first, older first; -1: none."""
    if previous < 0:
        return worst_fill(position, sign)
    best = -1
    last = sign * position.fills[previous].price
    for row in range(position.n_fills):
        price = sign * position.fills[row].price
        after = price < last or (price == last and row > previous)
        if after and (best < 0 or price > sign * position.fills[best].price):
            best = row
    return best


@kernel
def liquidation_exits(state: State, market: Market, tape: Tape) -> None:
    """Decide to close everything if the margin does not suffice at the price (step 4)."""
    if excess_margin(state, market, state.now.price) > 0.0:
        return
    for position_side in (LONG, SHORT):
        position = state.sides[position_side]
        for row in range(position.n_fills):
            fill = position.fills[row]
            add_exit(tape, position_side, fill.fill_id, fill.qty, LIQUIDATION)


@kernel
def register_stop(state: State, params: StrategyParams, position_side: int) -> None:
    """Count a stop event (one stage on one side) and start the cooldown where it completes one."""
    if position_side == LONG:
        state.counters.stops_long += 1
    else:
        state.counters.stops_short += 1
    needed = params.stop_cooldown_thresh
    if state.n_stop_events == needed:
        for k in range(1, needed):
            state.stop_events[k - 1] = state.stop_events[k]
        state.n_stop_events -= 1
    state.stop_events[state.n_stop_events] = state.now.bar
    state.n_stop_events += 1
    oldest = state.stop_events[0]
    if state.n_stop_events == needed and state.now.bar - oldest <= params.stop_cooldown_bars:
        state.cooldown_bar = state.now.bar
