"""The fixed grid from the exchange alone, beyond executions: ladders, and what rests (A10).

Executions are booked by the same functions as when they happened: ``engine.fixed_grid.booking``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.market import MarketRules
from engine.fixed_grid.booking import is_slot_taken, row_of_cycle
from engine.fixed_grid.frozen import FixedParams
from engine.fixed_grid.levels import make_ladder, tick_back, tick_onward
from engine.fixed_grid.order_names import OrderName
from engine.fixed_grid.positions import free_slot, insert_position, sum_legs, take_age
from engine.fixed_grid.stops import cover_sharing
from engine.fixed_grid.types import EPOCH_2020_S, STAGE_LADDER, STAGE_OPEN, FixedState


def restore_ladder(
    state: FixedState,
    params: FixedParams,
    market: Any,
    cycle: int,
    rungs: Mapping[int, float],
    step_s: int,
) -> None:
    """Lay a position's rungs as they were laid at ``step_s``, from the prices of those known.

    The price at which they were laid follows from any rung below the close price; so rungs that
    were not sent any more are laid as they would have been.
    """
    own = state.sides[params.side]
    row = int(row_of_cycle(own, cycle))
    if row < 0:
        return
    position = own.fills[row]
    ladder = state.ladders[position.slot]
    price = _price_at_laying(params, market, float(position.take_profit), rungs)
    make_ladder(params, market, position.take_profit, price, position.qty, ladder)
    for k in range(int(ladder.n_rungs)):
        rung = ladder.rungs[k]
        rung.price = rungs.get(int(rung.number), float(rung.price))
        rung.age = take_age(state)
    position.stage, position.stage_time = STAGE_LADDER, step_s
    position.stuck = position.recovered = True
    position.close_price = 0.0
    state.counters.stuck_total += 1
    state.counters.recovery_attempts += 1
    state.nearest.stale = state.exits_stale = True


def _price_at_laying(
    params: FixedParams, market: Any, target: float, rungs: Mapping[int, float]
) -> float:
    """Return p of ``rung = tick(p * (1 +- r))``: the one tick in the interval that allows.

    A rung at the close price was cut to it; where all that are known were, all lie there.
    """
    sign = float(params.sign)
    for number, price in sorted(rungs.items()):
        if price == target:
            continue
        wanted = price / (1.0 + sign * float(params.ladder[number]) / 100.0)
        slack = sign * 1e-6 * float(market.tick_size)
        return float(tick_back(market, sign, wanted + slack))
    return target


def restore_own_stops(state: FixedState, params: FixedParams, cycles: set[int]) -> None:
    """Note which positions have a stop order of their own."""
    own = state.sides[params.side]
    for row in range(int(own.n_fills)):
        position = own.fills[row]
        position.owns_stop = int(position.cycle) in cycles and position.stop > 0.0
    state.nearest.stale = True


def restore_resting(
    state: FixedState,
    params: FixedParams,
    entry: tuple[OrderName, float, float] | None,
    closes: Mapping[int, float],
    stops: set[int],
    shared_stop: float,
) -> None:
    """Take over what rests: entry (name, price, rest), close prices by cycle, stops.

    What does not rest is wanted again from the next step on; a stop at once.
    """
    working, own = state.working, state.sides[params.side]
    if entry is not None:
        name, working.price, working.qty = entry
        working.cycle, working.slot, working.touched = name.cycle, name.slot, 0
        working.age = take_age(state)
    for row in range(int(own.n_fills)):
        position = own.fills[row]
        if position.stage == STAGE_OPEN:
            position.close_price = closes.get(int(position.cycle), 0.0)
            position.close_age = take_age(state)
    restore_own_stops(state, params, stops)
    state.shared_stop = shared_stop
    cover_sharing(state, params)
    state.nearest.stale = state.exits_stale = True


def restore_old_position(
    state: FixedState, params: FixedParams, rules: MarketRules, name: OrderName, qty: float
) -> None:
    """Add a position whose executions are too old to be listed, from its close order alone."""
    market = rules.to_record(0.0)
    price = name.entry_ticks * rules.tick_size
    add_position(state, params, market, name.cycle, name.slot, round(price, 12), qty)
    own = state.sides[params.side]
    position = own.fills[int(row_of_cycle(own, name.cycle))]
    position.opened = position.filled = position.stage_time = name.cycle + EPOCH_2020_S


def add_position(
    state: FixedState,
    params: FixedParams,
    market: Any,
    cycle: int,
    slot: int,
    price: float,
    qty: float,
) -> None:
    """Add an open position of ``qty`` (base) entered at ``price`` (quote), on the tick."""
    own = state.sides[params.side]
    if is_slot_taken(own, slot):
        slot = int(free_slot(state, params))
    on_tick = float(tick_onward(market, float(params.sign), price - 1e-9 * price))
    insert_position(state, params, market, cycle, slot, on_tick, qty)
    sum_legs(state, own, market)
