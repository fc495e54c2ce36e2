"""The simulated exchange: walks a bar's path over the resting orders (steps 0 and 9).

On each leg the next event is whichever the path reaches first; at the same price take-profit,
entry, stop, liquidation. A falling leg can only meet buy limits (long entries, short
take-profits) and the long stop, a rising one their mirror images.
"""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from core.market import Market
from core.params import StrategyParams
from core.records import Table
from engine.book import find_next_entry
from engine.execution import fill_entry, fill_take_profit, liquidate, trigger_stop
from engine.grid_v4.protection import excess_margin, has_position, liquidation_crossing
from engine.grid_v4.take_profit import find_next_tp
from engine.types import LONG, SHORT, Bar, State, Tape, sign_of

LOW_FIRST: Final = 1
HIGH_FIRST: Final = 2
# Events on a leg, in their order at the same price.
NOTHING: Final = 0
EXIT: Final = 1
ENTRY: Final = 2
STOPPED: Final = 3


@kernel
def next_event(
    state: State,
    params: StrategyParams,
    market: Market,
    position: float,
    end: float,
    heading: float,
) -> tuple[int, float]:
    """Return the next event on the leg from ``position`` to ``end`` and the path's price there."""
    buyer = LONG if heading < 0.0 else SHORT  # whose entries and stop this leg can meet
    through = 1.0 + heading * params.fill_through_bps * 1e-4
    beyond = params.fill_through_ticks * market.tick_size
    take_profit = state.sides[1 - buyer].next_tp
    entry = state.sides[buyer].next_entry
    stop = state.sides[buyer].stop_price
    here, last = heading * position, heading * end
    event, nearest = NOTHING, last
    if take_profit > 0.0:
        key = max(here, heading * take_profit * through + beyond)
        if key <= nearest:
            event, nearest = EXIT, key
    if entry > 0.0:
        key = max(here, heading * entry * through + beyond)
        if key < nearest or (key == nearest and event == NOTHING):
            event, nearest = ENTRY, key
    if stop > 0.0:
        key = max(here, heading * stop)
        if key < nearest or (key == nearest and event == NOTHING):
            event, nearest = STOPPED, key
    return event, heading * nearest


@kernel
def direction_of(start: float, end: float) -> float:
    """Return -1 for a falling leg, else 1."""
    return -1.0 if end < start else 1.0


@kernel
def is_margin_short(state: State, market: Market, start: float, end: float) -> bool:
    """Return whether equity falls to maintenance margin between ``start`` and ``end``.

    Excess margin is concave in the price, so the ends of the stretch tell.
    """
    if not has_position(state):
        return False
    return min(excess_margin(state, market, start), excess_margin(state, market, end)) <= 0.0


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
        side = LONG if heading < 0.0 else SHORT
        if event == EXIT:
            fill_take_profit(state, params, market, 1 - side, tape)
        elif event == ENTRY:
            fill_entry(state, params, market, side, tape)
        else:
            trigger_stop(state, params, market, side, end if jump else price, tape)
        position = price


@kernel
def is_untouched(state: State, market: Market, low: float, high: float) -> bool:
    """Return whether nothing can happen between ``low`` and ``high``: the common case."""
    if state.orders_gone:
        return True
    long, short = state.sides[LONG], state.sides[SHORT]
    buys = max(long.next_entry, short.next_tp, long.stop_price)
    if buys >= low:
        return False
    for sell in (short.next_entry, long.next_tp, short.stop_price):
        if 0.0 < sell <= high:
            return False
    return not is_margin_short(state, market, low, high)


@kernel
def walk_bar(state: State, params: StrategyParams, market: Market, bar: Bar, tape: Tape) -> None:
    """Walk one bar from its open: to the nearer extreme by the path rule, the other, the close."""
    if is_untouched(state, market, bar.low, bar.high):
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
        walk_leg(state, params, market, start, end, direction_of(start, end), False, tape)
        start = end


@kernel
def offer_again(state: State, params: StrategyParams) -> None:
    """Put the orders that the bar before refused in front of the path once more."""
    for side in (LONG, SHORT):
        position = state.sides[side]
        find_next_entry(position, params, 0)
        find_next_tp(position, sign_of(side), state.now.bar)


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
