"""The resting order that the path of a price meets first, of any strategy.

On each leg the next event is whichever the path reaches first; at the same price take-profit,
entry, stop, liquidation. A falling leg can only meet buy limits (long entries, short
take-profits) and the long stop, a rising one their mirror images.
"""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from core.market import Market
from core.params import StrategyParams
from engine.margin import is_margin_short
from engine.types import LONG, SHORT, Account, Bar

LOW_FIRST: Final = 1
HIGH_FIRST: Final = 2
# Events on a leg, in their order at the same price.
NOTHING: Final = 0
EXIT: Final = 1
ENTRY: Final = 2
STOPPED: Final = 3


@kernel
def next_event(
    state: Account,
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
def is_untouched(state: Account, market: Market, low: float, high: float) -> bool:
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
def turning_points(params: StrategyParams, bar: Bar) -> tuple[float, float]:
    """Return the extremes of a bar in the order in which its path reaches them."""
    low_first = bar.close >= bar.open
    if params.intrabar_path == LOW_FIRST:
        low_first = True
    elif params.intrabar_path == HIGH_FIRST:
        low_first = False
    return (bar.low, bar.high) if low_first else (bar.high, bar.low)
