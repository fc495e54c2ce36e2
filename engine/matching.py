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
from engine.book import clear_side, find_next_entry, set_stop
from engine.ledger import (
    close_at_market,
    close_fill,
    close_side,
    equity_at,
    find_fill,
    open_fill,
    register_stop,
    worst_fill,
)
from engine.protection import excess_margin, has_position, liquidation_crossing
from engine.take_profit import advance_ladder, best_fill_at, find_next_tp
from engine.types import (
    LIQUIDATION,
    LONG,
    SHORT,
    STOP,
    TAKE_PROFIT,
    Bar,
    PositionSide,
    State,
    Tape,
    sign_of,
)

LOW_FIRST: Final = 1
HIGH_FIRST: Final = 2
# Events on a leg, in their order at the same price.
NOTHING: Final = 0
EXIT: Final = 1
ENTRY: Final = 2
STOPPED: Final = 3


@kernel
def liquidate(
    state: State, params: StrategyParams, market: Market, price: float, tape: Tape
) -> None:
    """Close everything at ``price``; the fee never leaves less than zero equity.

    Fee ``min(rate * notional, equity)``, shared by notional. Where the price has jumped so far
    that equity is negative, so is the fee: the exchange's insurance fund bears the rest.
    """
    notional = price * (state.sides[LONG].qty + state.sides[SHORT].qty)
    left = equity_at(state, price)
    fee_total = min(market.liquidation_fee * notional, left)
    for side in (LONG, SHORT):
        position = state.sides[side]
        while position.n_fills > 0:
            row = worst_fill(position, sign_of(side))
            qty = position.fills[row].qty
            fee = fee_total * (price * qty / notional)
            close_fill(state, params, market, side, row, qty, price, fee, LIQUIDATION, tape)
        clear_side(state, params, side)
    state.counters.liquidations += 1
    state.orders_gone = True
    if fee_total >= left:
        state.ended = True
        state.wallet = 0.0


@kernel
def execute_exits(
    state: State, params: StrategyParams, market: Market, tape: Tape,
) -> None:  # fmt: skip
    """Carry out the market exits on the tape at the step's price."""
    price = state.now.price
    for k in range(tape.n_exits):
        out = tape.exits[k]
        if out.label == LIQUIDATION:
            liquidate(state, params, market, price, tape)
            return
        row = find_fill(state.sides[out.side], out.fill_id)
        close_at_market(state, params, market, out.side, row, out.qty, price, out.label, tape)


@kernel
def fill_entry(
    state: State, params: StrategyParams, market: Market, side: int, tape: Tape
) -> None:
    """Fill the nearest entry order of ``side`` at its price; its wick stop moves.

    With ``refuse_first_touch`` the bar that first reaches an order does not fill it.
    """
    position = state.sides[side]
    k = position.next_entry_level
    level = position.levels[k]
    if params.refuse_first_touch and not 0 < level.touched < state.now.bar:
        level.touched = state.now.bar
        position.settled = False
        find_next_entry(position, params, k + 1)
        return
    price, qty = position.entries[k], level.qty
    level.qty = 0.0
    open_fill(state, market, side, k, price, qty, price * qty * params.fee_maker, tape)
    find_next_entry(position, params, k + 1)
    set_stop(state, params, market, side)


@kernel
def refuse_take_profit(position: PositionSide, price: float, bar: int) -> None:
    """Note that the path reached the take-profits at ``price`` for the first time in ``bar``."""
    for row in range(position.n_fills):
        fill = position.fills[row]
        if fill.tp_price == price and fill.tp_touched == 0:
            fill.tp_touched = bar
            position.tp_stale = True


@kernel
def fill_take_profit(
    state: State, params: StrategyParams, market: Market, side: int, tape: Tape
) -> None:
    """Fill the nearest take-profit order of ``side``: all slices at that price, best fill first."""
    position = state.sides[side]
    price, sign = position.next_tp, sign_of(side)
    refusing = state.now.bar if params.refuse_first_touch else 0
    row = best_fill_at(position, sign, price, refusing)
    while row >= 0:
        fill = position.fills[row]
        qty = fill.tp_qty
        advance_ladder(position, fill)
        fee = price * qty * params.fee_maker
        close_fill(state, params, market, side, row, qty, price, fee, TAKE_PROFIT + side, tape)
        row = best_fill_at(position, sign, price, refusing)
    if refusing > 0:
        refuse_take_profit(position, price, refusing)
    find_next_tp(position, sign, refusing)


@kernel
def trigger_stop(
    state: State, params: StrategyParams, market: Market, side: int, basis: float,
    tape: Tape,
) -> None:  # fmt: skip
    """Close ``side`` by its wick stop at ``basis``; its orders are gone for the rest of the bar.

    Where the price has jumped so far that no equity is left, it is a liquidation instead.
    """
    if equity_at(state, basis) <= 0.0:
        liquidate(state, params, market, basis, tape)
        return
    register_stop(state, params, side)
    close_side(state, params, market, side, basis, STOP + side, tape)
    clear_side(state, params, side)


@kernel
def trigger_passed_stops(
    state: State, params: StrategyParams, market: Market, tape: Tape
) -> None:
    """Trigger the wick stops that the price had passed when they were set (end of step 8)."""
    price = state.now.price
    for side in (LONG, SHORT):
        stop, sign = state.sides[side].stop_price, sign_of(side)
        if stop > 0.0 and sign * price <= sign * stop:
            trigger_stop(state, params, market, side, price, tape)


@kernel
def next_event(
    state: State, params: StrategyParams, market: Market, position: float, end: float,
    heading: float,
) -> tuple[int, float]:  # fmt: skip
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
def walk_leg(
    state: State, params: StrategyParams, market: Market, start: float, end: float,
    heading: float, jump: bool, tape: Tape,
) -> None:  # fmt: skip
    """Walk the price from ``start`` to ``end``, down if ``heading`` is -1, up if it is 1.

    On a ``jump`` nothing traded in between: limits fill at their price, stops at ``end``, and
    the margin is judged at ``end`` by the caller.
    """
    position = start
    while not state.orders_gone:
        event, price = next_event(state, params, market, position, end, heading)
        if not jump and has_position(state) and excess_margin(state, market, price) <= 0.0:
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
    if not has_position(state):
        return True
    return excess_margin(state, market, low) > 0.0 and excess_margin(state, market, high) > 0.0


@kernel
def walk_bar(
    state: State, params: StrategyParams, market: Market, bar: Bar, tape: Tape
) -> None:
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
    state: State, params: StrategyParams, market: Market, start: float, end: float,
    tape: Tape,
) -> None:  # fmt: skip
    """Let the book meet a jump of the price from one close to the next open."""
    if params.refuse_first_touch:
        offer_again(state, params)
        for heading in (-1.0, 1.0):
            walk_leg(state, params, market, start, start, heading, True, tape)
    if start != end and not is_untouched(state, market, min(start, end), max(start, end)):
        walk_leg(state, params, market, start, end, direction_of(start, end), True, tape)


@kernel
def walk_detail(
    state: State, params: StrategyParams, market: Market, bars: Table[Bar], first: int, stop: int,
    tape: Tape,
) -> None:  # fmt: skip
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
