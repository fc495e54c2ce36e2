"""The book meets the path of a candle, one event after the other (SPEC 6).

On each leg the next event is whichever comes first along it; at the same price: take-profit, entry,
stop, liquidation. Limits fill at their price, stops at their own or at the path's where it jumped
past them. What the path has jumped past is met at once, in the order of prices.
"""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from core.market import Market
from engine.fixed_grid.frozen import FixedParams
from engine.fixed_grid.levels import drop_rung
from engine.fixed_grid.nearest import NOBODY, find_nearest, is_refused
from engine.fixed_grid.positions import close_own, liquidate, open_position
from engine.fixed_grid.stops import fire_stop, give_stop
from engine.fixed_grid.types import FixedState, FixedTape
from engine.ledger import equity_at
from engine.margin import is_margin_short, liquidation_crossing
from engine.types import RECOVERY_LADDER, TAKE_PROFIT, Bar

LOW_FIRST: Final = 1
HIGH_FIRST: Final = 2
# Events on a leg, in their order at the same price.
NOTHING: Final = 0
EXIT: Final = 1
ENTRY: Final = 2
STOPPED: Final = 3


@kernel
def passed(params: FixedParams, market: Market, price: float, away: float) -> float:
    """Return what the path must reach to fill a limit at ``price``; ``away`` +1: from below."""
    beyond = params.fill_through_ticks * market.tick_size
    return price * (1.0 + away * params.through_share) + away * beyond


@kernel
def meeting(start: float, end: float, trigger: float, away: float) -> float:
    """Return where a leg first is at ``trigger`` or past it, 0 if nowhere.

    ``away`` +1: past is above, -1: below.
    """
    if away * start >= away * trigger:
        return start
    return trigger if away * end >= away * trigger else 0.0


@kernel
def next_event(
    state: FixedState, params: FixedParams, market: Market, start: float, end: float
) -> tuple[int, float]:
    """Return the next event on the leg from ``start`` to ``end`` and the path's price there.

    Take-profits wait for the price to go the strategy's way, entries and stops for the other.
    """
    if state.nearest.stale:
        find_nearest(state, params)
    nearest, working, sign = state.nearest, state.working, params.sign
    heading = 1.0 if end >= start else -1.0
    event, at = NOTHING, end
    if nearest.exit_price > 0.0:
        price = meeting(start, end, passed(params, market, nearest.exit_price, sign), sign)
        if price > 0.0:
            event, at = EXIT, price
    if working.price > 0.0 and not is_refused(params, working.touched, state.now.bar):
        price = meeting(start, end, passed(params, market, working.price, -sign), -sign)
        if price > 0.0 and (event == NOTHING or heading * price < heading * at):
            event, at = ENTRY, price
    if nearest.stop_row != NOBODY:
        price = meeting(start, end, nearest.stop_price, -sign)
        if price > 0.0 and (event == NOTHING or heading * price < heading * at):
            event, at = STOPPED, price
    return event, at


@kernel
def walk_leg(
    state: FixedState,
    params: FixedParams,
    market: Market,
    start: float,
    end: float,
    jump: bool,
    tape: FixedTape,
) -> bool:
    """Do what happens between ``start`` and ``end``; return whether a liquidation ended it.

    On a ``jump`` nothing traded in between: limits fill at their price, stops at ``end``, and the
    margin is judged at ``end`` by the caller.
    """
    here = start
    while True:
        event, price = next_event(state, params, market, here, end)
        if not jump and is_margin_short(state, market, here, price):
            crossing = liquidation_crossing(state, market, here, price)
            if event == NOTHING or crossing != price:
                liquidate(state, params, market, crossing, tape)
                return True
        if event == NOTHING:
            return False
        here = price
        if event == EXIT:
            meet_exit(state, params, market, tape)
        elif event == ENTRY:
            meet_entry(state, params, market, tape)
        else:
            basis = end if jump else price
            if equity_at(state, basis) <= 0.0:
                liquidate(state, params, market, basis, tape)
                return True
            fire_stop(state, params, market, state.nearest.stop_row, basis, tape)


@kernel
def meet_entry(state: FixedState, params: FixedParams, market: Market, tape: FixedTape) -> None:
    """Fill the working order, unless this bar is the first to reach it and that does not count."""
    working = state.working
    if params.refuse_first_touch and working.touched == 0:
        working.touched = state.now.bar + 1
        return
    fee = params.fee_maker * working.price * working.qty
    row = open_position(state, params, market, fee, tape)
    give_stop(state, params, row)


@kernel
def meet_exit(state: FixedState, params: FixedParams, market: Market, tape: FixedTape) -> None:
    """Fill the nearest close order or rung, unless its first touch does not count."""
    nearest = state.nearest
    row, rung = nearest.exit_row, nearest.exit_rung
    position = state.sides[params.side].fills[row]
    ladder = state.ladders[position.slot]
    touched = position.close_touched if rung < 0 else ladder.rungs[rung].touched
    if params.refuse_first_touch and touched == 0:
        if rung < 0:
            position.close_touched = state.now.bar + 1
        else:
            ladder.rungs[rung].touched = state.now.bar + 1
        nearest.stale = True
        return
    if rung < 0:
        price, qty, label = position.close_price, position.qty, TAKE_PROFIT + params.side
        position.close_price = 0.0
    else:
        price, qty, label = ladder.rungs[rung].price, ladder.rungs[rung].qty, RECOVERY_LADDER
        drop_rung(ladder, rung)
    fee = params.fee_maker * price * qty
    close_own(state, params, market, row, qty, price, fee, label, tape)


@kernel
def is_untouched(
    state: FixedState, params: FixedParams, market: Market, low: float, high: float
) -> bool:
    """Return whether no order is met between ``low`` and ``high``: the common case."""
    if state.nearest.stale:
        find_nearest(state, params)
    nearest, working, sign = state.nearest, state.working, params.sign
    good, bad = (high, low) if sign > 0.0 else (low, high)
    if nearest.exit_price > 0.0 and (
        sign * good >= sign * passed(params, market, nearest.exit_price, sign)
    ):
        return False
    if working.price > 0.0 and (sign * bad <= sign * passed(params, market, working.price, -sign)):
        return False
    return nearest.stop_row == NOBODY or sign * bad > sign * nearest.stop_price


@kernel
def walk_gap(
    state: FixedState,
    params: FixedParams,
    market: Market,
    start: float,
    end: float,
    tape: FixedTape,
) -> None:
    """Let the book meet a jump of the price from one close to the next open."""
    if params.refuse_first_touch:
        state.nearest.stale = True  # what the bar before refused may fill now
    elif start == end:
        return
    if not is_untouched(state, params, market, min(start, end), max(start, end)):
        walk_leg(state, params, market, start, end, True, tape)


@kernel
def walk_bar(
    state: FixedState, params: FixedParams, market: Market, bar: Bar, tape: FixedTape
) -> None:
    """Walk one candle from its open: the nearer extreme by the path rule, the other, the close."""
    if is_untouched(state, params, market, bar.low, bar.high) and not is_margin_short(
        state, market, bar.low, bar.high
    ):
        return
    low_first = bar.close >= bar.open
    if params.intrabar_path == LOW_FIRST:
        low_first = True
    elif params.intrabar_path == HIGH_FIRST:
        low_first = False
    first, second = (bar.low, bar.high) if low_first else (bar.high, bar.low)
    start = bar.open
    for leg in range(3):
        end = first if leg == 0 else (second if leg == 1 else bar.close)
        if walk_leg(state, params, market, start, end, False, tape):
            return
        start = end
