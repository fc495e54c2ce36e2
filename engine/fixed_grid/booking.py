"""Books what an exchange reports to the fixed grid: executions in parts, closes by others.

A position is known by its cycle: no two entry orders begin in the same step. Every function returns
the quantity it found no position for, base.
"""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from core.market import Market, lots_nearest
from engine.fixed_grid.frozen import FixedParams
from engine.fixed_grid.levels import drop_rung, stop_bound
from engine.fixed_grid.positions import (
    close_hedge_part,
    close_own,
    drop_working,
    enter_position,
    free_slot,
    open_hedge,
    release,
    sum_legs,
    write_record,
)
from engine.fixed_grid.stops import give_stop, nearest_sharing
from engine.fixed_grid.types import FixedState, FixedTape, Side
from engine.ledger import find_fill
from engine.types import (
    LONG,
    OPEN,
    RECOVERY_HEDGE_CLOSE,
    RECOVERY_HEDGE_OPEN,
    RECOVERY_LADDER,
    STOP,
    TAKE_PROFIT,
)

HALF_LOT: Final = 0.5


@kernel
def row_of_cycle(own: Side, cycle: int) -> int:
    """Return the row of the position of a cycle, -1 if there is none."""
    for row in range(own.n_fills):
        if own.fills[row].cycle == cycle:
            return row
    return -1


@kernel
def is_slot_taken(own: Side, slot: int) -> bool:
    """Return whether a position has this slot."""
    found = False
    for row in range(own.n_fills):
        found = found or own.fills[row].slot == slot
    return found


@kernel
def book_entry(
    state: FixedState,
    params: FixedParams,
    market: Market,
    cycle: int,
    slot: int,
    price: float,
    qty: float,
    fee: float,
    tape: FixedTape,
) -> None:
    """Book that ``qty`` of an entry order traded: a new position, or a further part of one.

    What is left of the working order goes on resting. Exits of a new position follow at the next
    step, its stop at once.
    """
    own, working = state.sides[params.side], state.working
    row = row_of_cycle(own, cycle)
    if row < 0:
        if is_slot_taken(own, slot):  # of a replaced order that filled all the same
            slot = free_slot(state, params)
        row = enter_position(state, params, market, cycle, slot, price, qty, fee, tape)
        give_stop(state, params, row)
    else:
        _extend(state, params, market, row, price, qty, fee, tape)
    if working.price > 0.0 and working.cycle == cycle:
        working.qty = lots_nearest(market, working.qty - qty)
        if working.qty < HALF_LOT * market.step_size:
            drop_working(state)


@kernel
def _extend(
    state: FixedState,
    params: FixedParams,
    market: Market,
    row: int,
    price: float,
    qty: float,
    fee: float,
    tape: FixedTape,
) -> None:
    """Add a further part of its order to a position, at the mean price."""
    own = state.sides[params.side]
    position = own.fills[row]
    if price != position.price:
        position.price = (position.price * position.entry_qty + price * qty) / (
            position.entry_qty + qty
        )
    position.qty = lots_nearest(market, position.qty + qty)
    position.entry_qty = lots_nearest(market, position.entry_qty + qty)
    sum_legs(state, own, market)
    label = OPEN + params.side
    write_record(state, tape, label, params.side, position.fill_id, position, price, qty, 0.0, fee)
    state.last_entry_fill = state.now.step_s
    state.exits_stale = True


@kernel
def book_close_order(
    state: FixedState,
    params: FixedParams,
    market: Market,
    cycle: int,
    rung: int,
    price: float,
    qty: float,
    fee: float,
    tape: FixedTape,
) -> float:
    """Book that ``qty`` of a close order traded, or of the rung numbered ``rung`` (else -1)."""
    own = state.sides[params.side]
    row = row_of_cycle(own, cycle)
    if row < 0:
        return qty
    label = TAKE_PROFIT + params.side
    if rung >= 0:
        label = RECOVERY_LADDER
        _fill_rung(state, market, own.fills[row].slot, rung, qty)
    return _close(state, params, market, row, price, qty, fee, label, tape)


@kernel
def _fill_rung(state: FixedState, market: Market, slot: int, number: int, qty: float) -> None:
    ladder = state.ladders[slot]
    for k in range(ladder.n_rungs):
        rung = ladder.rungs[k]
        if rung.number != number:
            continue
        rung.qty = lots_nearest(market, rung.qty - qty)
        if rung.qty < HALF_LOT * market.step_size:
            drop_rung(ladder, k)
        state.nearest.stale = True
        return


@kernel
def _close(
    state: FixedState,
    params: FixedParams,
    market: Market,
    row: int,
    price: float,
    qty: float,
    fee: float,
    label: int,
    tape: FixedTape,
) -> float:
    """Close at most what the position in ``row`` holds; return what is left."""
    position = state.sides[params.side].fills[row]
    part = min(qty, position.qty)
    left = lots_nearest(market, qty - part)
    if part >= HALF_LOT * market.step_size:
        close_own(state, params, market, row, part, price, fee * (part / qty), label, tape)
    return left


@kernel
def begin_stop(state: FixedState, params: FixedParams, market: Market, trigger: float) -> None:
    """Note that a stop order has fired at ``trigger`` (quote)."""
    if params.side == LONG:
        state.counters.stops_long += 1
    else:
        state.counters.stops_short += 1
    if trigger == stop_bound(params, market):
        state.fired_at_stop_price = True
        drop_working(state)


@kernel
def book_stop(
    state: FixedState,
    params: FixedParams,
    market: Market,
    cycle: int,
    price: float,
    qty: float,
    fee: float,
    tape: FixedTape,
) -> float:
    """Book that ``qty`` of a fired stop traded; ``cycle`` -1: of the shared one.

    Executions of the shared stop are dealt nearest stop first, older first.
    """
    own, label = state.sides[params.side], STOP + params.side
    left = qty
    if cycle >= 0:
        row = row_of_cycle(own, cycle)
        if row >= 0:
            left = _close(state, params, market, row, price, qty, fee, label, tape)
    else:
        while left >= HALF_LOT * market.step_size:
            row = nearest_sharing(own, params)
            if row < 0:
                break
            share = fee * (left / qty)
            left = _close(state, params, market, row, price, left, share, label, tape)
    if own.n_fills == 0:
        drop_working(state)
    return left


@kernel
def book_market_close(
    state: FixedState,
    params: FixedParams,
    market: Market,
    cycle: int,
    price: float,
    qty: float,
    fee: float,
    label: int,
    tape: FixedTape,
) -> float:
    """Book that ``qty`` of a market order traded that closes the own leg of a cycle."""
    own = state.sides[params.side]
    row = row_of_cycle(own, cycle)
    if row < 0:
        return qty
    return _close(state, params, market, row, price, qty, fee, label, tape)


@kernel
def book_hedge_open(
    state: FixedState,
    params: FixedParams,
    market: Market,
    cycle: int,
    price: float,
    qty: float,
    fee: float,
    tape: FixedTape,
) -> float:
    """Book that ``qty`` of a hedge traded; its first part changes the stage of the position."""
    own, hedges = state.sides[params.side], state.sides[params.hedge_side]
    row = row_of_cycle(own, cycle)
    if row < 0:
        return qty
    position = own.fills[row]
    if position.hedge_id < 0:
        open_hedge(state, params, market, row, price, qty, fee, tape)
        return 0.0
    leg = hedges.fills[find_fill(hedges, position.hedge_id)]
    leg.price = (leg.price * leg.qty + price * qty) / (leg.qty + qty)
    leg.qty = lots_nearest(market, leg.qty + qty)
    leg.entry_qty = leg.qty
    sum_legs(state, hedges, market)
    write_record(
        state,
        tape,
        RECOVERY_HEDGE_OPEN,
        params.hedge_side,
        leg.fill_id,
        position,
        price,
        qty,
        0.0,
        fee,
    )
    return 0.0


@kernel
def book_hedge_close(
    state: FixedState,
    params: FixedParams,
    market: Market,
    cycle: int,
    price: float,
    qty: float,
    fee: float,
    label: int,
    releases: bool,
    tape: FixedTape,
) -> float:
    """Book that ``qty`` of a market order traded that closes the hedge of a cycle.

    Where it ``releases`` the position is open again once the hedge is gone.
    """
    own, hedges = state.sides[params.side], state.sides[params.hedge_side]
    row = row_of_cycle(own, cycle)
    if row < 0 or own.fills[row].hedge_id < 0:
        return qty
    position = own.fills[row]
    leg = hedges.fills[find_fill(hedges, position.hedge_id)]
    part = min(qty, leg.qty)
    left = lots_nearest(market, qty - part)
    if part < HALF_LOT * market.step_size:
        return left
    is_last = lots_nearest(market, leg.qty - part) <= 0.0
    close_hedge_part(state, params, market, row, part, price, fee * (part / qty), label, tape)
    if is_last and releases and label == RECOVERY_HEDGE_CLOSE:
        release(state, position, tape)
    return left


@kernel
def give_up(
    state: FixedState,
    params: FixedParams,
    market: Market,
    side: int,
    price: float,
    qty: float,
    fee: float,
    label: int,
    tape: FixedTape,
) -> float:
    """Book that others have closed ``qty`` of a side, worst first."""
    own, left = state.sides[params.side], qty
    row = 0
    while row < own.n_fills and left >= HALF_LOT * market.step_size:
        position = own.fills[row]
        before = own.n_fills
        if side == params.side:
            if position.qty > 0.0:
                share = fee * (left / qty)
                left = _close(state, params, market, row, price, left, share, label, tape)
        elif position.hedge_id >= 0:
            left = book_hedge_close(
                state,
                params,
                market,
                position.cycle,
                price,
                left,
                fee * (left / qty),
                label,
                False,
                tape,
            )
        if own.n_fills == before:
            row += 1
    return left
