"""The simulated exchange of GridStrategyV4: walks a bar's path over its orders (steps 0 and 9)."""

from __future__ import annotations

from core.jit import kernel
from core.market import Market
from core.params import StrategyParams
from core.records import Table
from engine.exit_ladder import find_next_tp
from engine.grid_v4.book import find_next_entry
from engine.grid_v4.execution import fill_entry, fill_take_profit, liquidate, trigger_stop
from engine.grid_v4.types import State
from engine.margin import is_margin_short, liquidation_crossing
from engine.matching import (
    ENTRY,
    EXIT,
    NOTHING,
    direction_of,
    is_untouched,
    next_event,
    turning_points,
)
from engine.types import LONG, SHORT, Bar, Tape, sign_of


@kernel
def walk_leg(
    state: State,
    params: StrategyParams,
    market: Market,
    start: float,
    end: float,
    heading: float,
    jump: bool,
    tape: Tape,
) -> None:
    """Walk the price from ``start`` to ``end``, down if ``heading`` is -1, up if it is 1.

    On a ``jump`` nothing traded in between: limits fill at their price, stops at ``end``, and
    the margin is judged at ``end`` by the caller.
    """
    position = start
    while not state.orders_gone:
        event, price = next_event(state, params, market, position, end, heading)
        if not jump and is_margin_short(state, market, position, price):
            crossing = liquidation_crossing(state, market, position, price)
            if event == NOTHING or crossing != price:
                liquidate(state, params, market, crossing, tape)
                return
        if event == NOTHING:
            return
        position_side = LONG if heading < 0.0 else SHORT
        if event == EXIT:
            fill_take_profit(state, params, market, 1 - position_side, tape)
        elif event == ENTRY:
            fill_entry(state, params, market, position_side, tape)
        else:
            trigger_stop(state, params, market, position_side, end if jump else price, tape)
        position = price


@kernel
def walk_bar(state: State, params: StrategyParams, market: Market, bar: Bar, tape: Tape) -> None:
    """Walk one bar from its open: to the nearer extreme by the path rule, the other, the close."""
    if is_untouched(state, market, bar.low, bar.high):
        return
    first, second = turning_points(params, bar)
    start = bar.open
    for leg in range(3):
        end = first if leg == 0 else (second if leg == 1 else bar.close)
        walk_leg(state, params, market, start, end, direction_of(start, end), False, tape)
        start = end


@kernel
def offer_again(state: State, params: StrategyParams) -> None:
    """Put the orders that the bar before refused in front of the path once more."""
    for position_side in (LONG, SHORT):
        position = state.sides[position_side]
        find_next_entry(position, params, 0)
        find_next_tp(position, sign_of(position_side), state.now.bar)


@kernel
def walk_gap(
    state: State, params: StrategyParams, market: Market, start: float, end: float, tape: Tape
) -> None:
    """Let the book meet a jump of the price from one close to the next open."""
    if params.refuse_first_touch:
        offer_again(state, params)
        for heading in (-1.0, 1.0):
            walk_leg(state, params, market, start, start, heading, True, tape)
    if start != end and not is_untouched(state, market, min(start, end), max(start, end)):
        walk_leg(state, params, market, start, end, direction_of(start, end), True, tape)


@kernel
def walk_detail(
    state: State,
    params: StrategyParams,
    market: Market,
    bars: Table[Bar],
    first: int,
    stop: int,
    tape: Tape,
) -> None:
    """Walk the sub-bars ``first`` to ``stop - 1`` of a bar, each by its own path.

    Where a sub-bar does not open at the close before it, the price is at the open at once, and
    what it jumped past happens there.
    """
    previous = state.now.price
    for row in range(first, stop):
        sub = bars[row]
        if sub.open != previous:
            heading = direction_of(previous, sub.open)
            walk_leg(state, params, market, sub.open, sub.open, heading, False, tape)
        walk_bar(state, params, market, sub, tape)
        previous = sub.close
