"""SPEC 6: the book meets the path of a candle, one event after the other.

On each leg the next event is whichever comes first along it; at the same price: take-profit,
entry, stop, liquidation, older first. Limits fill at their price, stops at their own price or at
the path's where it jumped past them, before slippage. Orders that the path has jumped past are
met at once, in the order of their prices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.engine.fixed_grid_reference.ledger import (
    CLOSE_LABEL,
    HEDGED,
    LADDER,
    RUNG,
    STOP_LABEL,
    Account,
    LimitOrder,
    Moment,
    Position,
)
from tests.engine.fixed_grid_reference.liquidation import (
    liquidate,
    liquidation_price_between,
    spare_margin,
)
from tests.engine.fixed_grid_reference.market import LONG
from tests.engine.fixed_grid_reference.prices import stop_price_tick

TAKE_PROFIT, ENTRY, STOP, LIQUIDATION = range(4)

Candle = tuple[float, float, float, float]
"""Open, high, low, close."""


@dataclass(eq=False)
class Event:
    """Something that happens when the path is at ``at``."""

    at: float
    kind: int
    rank: float = 0.0
    """Rises with the distance at which the order's price is met."""
    age: int = 0
    order: LimitOrder | None = None
    positions: tuple[Position, ...] = ()


def candle_path(candle: Candle, how: str) -> list[float]:
    """Return O, L, H, C or O, H, L, C: low first when the bar closes at or above its open."""
    first, high, low, last = candle
    low_first = last >= first if how == "auto" else how == "low_first"
    return [first, low, high, last] if low_first else [first, high, low, last]


def walk_gap(account: Account, now: Moment, last_close: float) -> None:
    """Walk from the last close to ``p`` over the old book; stops fill at ``p``."""
    if last_close != now.price:
        walk_leg(account, now, last_close, now.price, is_gap=True)


def walk_candle(account: Account, now: Moment, candle: Candle) -> None:
    """Walk a candle by its path; what lies before its open is jumped."""
    if is_untouched(account, candle[1], candle[2]):
        return
    for start, end in pairwise(candle_path(candle, account.params.intrabar_path)):
        if walk_leg(account, now, start, end, is_gap=False):
            return


def is_untouched(account: Account, high: float, low: float) -> bool:
    """Return whether nothing can happen between ``low`` and ``high``.

    The spare margin is concave in the price (maintenance rates rise with the notional), so two
    ends in order mean that all between is.
    """
    if next(order_events(account, high, low), None) is not None:
        return False
    if next(order_events(account, low, high), None) is not None:
        return False
    if not account.positions:
        return True
    return spare_margin(account, low) > 0.0 and spare_margin(account, high) > 0.0


def walk_leg(account: Account, now: Moment, start: float, end: float, *, is_gap: bool) -> bool:
    """Do the events from ``start`` to ``end`` in order; return True after a liquidation."""
    here = start
    onward = 1.0 if end >= start else -1.0
    while True:
        events = list(order_events(account, here, end))
        if not is_gap:
            price = liquidation_price_between(account, here, end)
            if price is not None:
                events.append(Event(price, LIQUIDATION))
        if not events:
            return False
        event = min(events, key=lambda e: (onward * e.at, e.kind, e.rank, e.age))
        here = event.at
        stop_base = end if is_gap else here
        too_late = event.kind == STOP and account.equity(stop_base) <= 0.0
        if event.kind == LIQUIDATION or too_late:
            liquidate(account, now, stop_base)
            return True
        execute(account, now, event, stop_base)


def order_events(account: Account, start: float, end: float) -> Iterator[Event]:
    """Yield every resting order that the leg reaches, with the price where it does.

    Buying: the entry and the stops wait for a fall, take-profits for a rise. Selling: mirrored.
    """
    sgn = account.params.sgn
    share = account.params.fill_through_bps / 10_000.0
    beyond = account.params.fill_through_ticks * account.market.tick_size
    order: LimitOrder | None = account.working
    if order is not None:
        trigger = order.price * (1.0 - sgn * share) - sgn * beyond
        at = first_reached(start, end, trigger, falling=sgn == LONG)
        if at is not None:
            yield Event(at, ENTRY, -sgn * order.price, order.age, order)
    for position in account.positions:
        for order in position.exits:
            trigger = order.price * (1.0 + sgn * share) + sgn * beyond
            at = first_reached(start, end, trigger, falling=sgn != LONG)
            if at is not None:
                yield Event(at, TAKE_PROFIT, sgn * order.price, order.age, order, (position,))
    for trigger, members in resting_stops(account):
        at = first_reached(start, end, trigger, falling=sgn == LONG)
        if at is not None:
            oldest = min(member.fill_id for member in members)
            yield Event(at, STOP, -sgn * trigger, oldest, None, members)


def resting_stops(account: Account) -> Iterator[tuple[float, tuple[Position, ...]]]:
    """Yield (trigger, positions closed) of every stop order on the book, worst position first."""
    sharing = []
    for position in account.positions:
        if position.stop is None or position.stage == HEDGED:
            continue
        if position.owns_stop:
            yield position.stop, (position,)
        else:
            sharing.append(position)
    if account.shared_stop is not None and sharing:
        yield account.shared_stop, tuple(sharing)


def first_reached(start: float, end: float, trigger: float, *, falling: bool) -> float | None:
    """Return where the leg first is at or past ``trigger``, or None."""
    if (start <= trigger) if falling else (start >= trigger):
        return start
    if (end <= trigger) if falling else (end >= trigger):
        return trigger
    return None


def execute(account: Account, now: Moment, event: Event, stop_base: float) -> None:
    """Book one event; a stop fills at ``stop_base`` before slippage."""
    if event.kind == ENTRY:
        give_stop(account, account.open_position(now))
    elif event.order is not None:
        fill_exit(account, now, event.positions[0], event.order)
    else:
        fire_stop(account, now, event.positions, stop_base)


def give_stop(account: Account, position: Position) -> None:
    """Protect what filled between steps: a stop of its own while there is room, else shared.

    The shared trigger never gets looser before the next step.
    """
    if position.stop is None:
        return
    own = sum(1 for other in account.positions if other.owns_stop)
    if own < account.params.max_stop_orders - 1:
        position.owns_stop = True
    elif account.shared_stop is None:
        account.shared_stop = position.stop
    elif account.params.sgn == LONG:
        account.shared_stop = max(account.shared_stop, position.stop)
    else:
        account.shared_stop = min(account.shared_stop, position.stop)


def fill_exit(account: Account, now: Moment, position: Position, order: LimitOrder) -> None:
    """Close what a take-profit or a rung was for, at its limit."""
    label = RUNG if position.stage == LADDER else CLOSE_LABEL[account.params.sgn]
    if order is position.close_order:
        position.close_order = None
    else:
        position.rungs.remove(order)
    fee = account.params.fee_maker * order.price * account.market.qty(order.lots)
    account.close_position(now, position, order.lots, price=order.price, fee=fee, label=label)


def fire_stop(account: Account, now: Moment, positions: tuple[Position, ...], base: float) -> None:
    """Close the positions of one stop order, worst first.

    The working order goes where the side is empty then or the stop lay at ``stop_price``.
    """
    sgn, market = account.params.sgn, account.market
    shared = not positions[0].owns_stop
    trigger = account.shared_stop if shared else positions[0].stop
    price = market.market_price(base, sgn, account.params.slippage)
    account.counters["stops_long" if sgn == LONG else "stops_short"] += 1
    account.tell(now, "STOP", positions[0], price=trigger, reason="shared" if shared else "own")
    for position in positions:
        fee = account.params.fee_taker * price * market.qty(position.lots)
        account.close_position(
            now, position, position.lots, price=price, fee=fee, label=STOP_LABEL[sgn]
        )
    bound = stop_price_tick(account.params, market)
    if bound is not None and trigger == bound:
        account.fired_at_stop_price = True
        account.working = None
    if not account.positions:
        account.working = None
