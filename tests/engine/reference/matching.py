"""Section 6: the book meets the path of a bar, one event after the other.

On each leg the next event is whichever comes first along it; at the same price: take-profit,
entry, stop, liquidation, long before short, older first. Orders that the path has jumped past are
met at once, in the order of their prices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.engine.reference.grid import wick_stop
from tests.engine.reference.ledger import (
    STOP_LABEL,
    TAKE_PROFIT_LABEL,
    Account,
    EntryOrder,
    Side,
    Step,
    TakeProfitOrder,
)
from tests.engine.reference.liquidation import liquidate, liquidation_price_between
from tests.engine.reference.market import BOTH_SIDES, LONG

TAKE_PROFIT, ENTRY, STOP, LIQUIDATION = range(4)

Candle = tuple[float, float, float, float]
"""Open, high, low, close."""


@dataclass(eq=False)
class Event:
    """Something that happens when the path is at ``at``."""

    at: float
    kind: int
    sign: int = LONG
    rank: float = 0.0
    """Rises with the distance at which the order's price is met."""
    age: int = 0
    order: EntryOrder | TakeProfitOrder | None = None


def candle_path(candle: Candle, how: str) -> list[float]:
    """Return O, L, H, C or O, H, L, C: low first when the bar closes at or above its open."""
    first, high, low, last = candle
    low_first = last >= first if how == "auto" else how == "low_first"
    return [first, low, high, last] if low_first else [first, high, low, last]


def walk_gap(account: Account, step: Step, last_close: float) -> None:
    """Step 0: walk C_{i-1} -> O_i over the old book; stops fill at O_i, no liquidation check."""
    walk_leg(account, step, last_close, step.price, is_gap=True)


def walk_bar(account: Account, step: Step, candles: list[Candle]) -> None:
    """Step 9: walk the bar, or its sub-bars each by its own path, jumping gaps between them."""
    for candle in candles:
        path = candle_path(candle, account.params["intrabar_path"])
        for start, end in pairwise(path):
            if walk_leg(account, step, start, end, is_gap=False):
                return


def walk_leg(account: Account, step: Step, start: float, end: float, *, is_gap: bool) -> bool:
    """Do the events from ``start`` to ``end`` in order; return True after a liquidation."""
    here = start
    while True:
        events = list(order_events(account, here, end))
        if not is_gap:
            price = liquidation_price_between(account, here, end)
            if price is not None:
                events.append(Event(price, LIQUIDATION))
        if not events:
            return False
        onward = 1.0 if end >= here else -1.0
        event = min(events, key=lambda e: (onward * e.at, e.kind, -e.sign, e.rank, e.age))
        here = event.at
        if event.kind == LIQUIDATION:
            liquidate(account, step, here)
            return True
        stop_base = end if is_gap else here
        if event.kind == STOP and account.equity(stop_base) <= 0.0:  # a stop comes too late
            liquidate(account, step, stop_base)
            return True
        execute(account, step, event, stop_base)


def order_events(account: Account, start: float, end: float) -> Iterator[Event]:
    """Yield every resting order that the leg reaches, with the price where it does.

    Long entries, short take-profits and long stops wait for a fall, their mirrors for a rise.
    """
    extra = account.params["fill_through_bps"] / 10_000.0
    beyond = account.params["fill_through_ticks"] * account.market.tick_size
    for sign in BOTH_SIDES:
        side = account.sides[sign]
        for entry in side.entries:
            trigger = entry.price * (1.0 - sign * extra) - sign * beyond
            at = reached(start, end, trigger, falling=sign == LONG)
            if at is not None:
                yield Event(at, ENTRY, sign, -sign * entry.price, entry.age, entry)
        for order in side.take_profits:
            trigger = order.price * (1.0 + sign * extra) + sign * beyond
            at = reached(start, end, trigger, falling=sign != LONG)
            if at is not None:
                yield Event(at, TAKE_PROFIT, sign, sign * order.price, order.age, order)
        if side.stop is not None:
            at = reached(start, end, side.stop, falling=sign == LONG)
            if at is not None:
                yield Event(at, STOP, sign)


def reached(start: float, end: float, trigger: float, *, falling: bool) -> float | None:
    """Return where the leg first is at or past ``trigger``, or None."""
    if (start <= trigger) if falling else (start >= trigger):
        return start
    if (end <= trigger) if falling else (end >= trigger):
        return trigger
    return None


def execute(account: Account, step: Step, event: Event, stop_base: float) -> None:
    """Book one event; a stop fills at ``stop_base`` before slippage."""
    side = account.sides[event.sign]
    if isinstance(event.order, EntryOrder):
        side.entries.remove(event.order)
        account.open_fill(step, event.sign, event.order)
        side.filled_since = True
        if account.params["stop2_enabled"]:
            side.stop = wick_stop(
                account.market, event.sign, side.average_entry, side.stop_distance
            )
    elif isinstance(event.order, TakeProfitOrder):
        side.take_profits.remove(event.order)
        take_profit(account, step, event.sign, event.order)
        side.filled_since = True
    else:
        stop_out(account, step, side, stop_base)


def take_profit(account: Account, step: Step, sign: int, order: TakeProfitOrder) -> None:
    """Close the fills the order was made for, best first, at its limit."""
    for fill, lots in order.parts:
        fee = account.params["fee_maker"] * order.price * account.market.qty(lots)
        account.close_fill(
            step, fill, lots, price=order.price, fee=fee, label=TAKE_PROFIT_LABEL[sign]
        )


def stop_out(account: Account, step: Step, side: Side, price: float) -> None:
    """Stage 2: close the whole side; its orders are gone for the rest of the bar."""
    parts = [(fill, fill.lots) for fill in side.worst_first()]
    account.close_at_market(step, parts, price, STOP_LABEL[side.sign])
    account.note_stop(side.sign, step.bar)
    side.forced_close = True
    side.cancel_orders()
