"""A session's state from the exchange alone: orders, executions, funding, what rests (A10).

Every client id says what its order is about, so executions are booked in the order of time by the
functions that booked them when they happened. Files are output and never read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from core.errors import AccountError, GridError
from core.orders import POSITION_SIDES, OrderKind
from engine.contract import OrderIdentity, Rebuilding, RestingOrder
from live.exchange.port import Clock, Exchange
from live.exchange.types import ExchangeOrder, Execution, FundingPayment
from live.execution.books import KEEP_ORDERS_BARS, LiveSession
from live.execution.fills import Fills
from live.execution.order_register import OrderRecord, OrderState, owned_prefix


@dataclass(frozen=True, slots=True)
class Past:
    """One order of ours as the exchange remembers it."""

    record: OrderRecord
    order: ExchangeOrder
    identity: OrderIdentity


@dataclass(frozen=True, slots=True)
class Ladder:
    """Rungs that were laid together; prices by the orders' names."""

    ts_ms: int
    owners: dict[str, float]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The findings of a rebuild.

    Attributes:
        executions: booked.
        unexplained: base by side that the account holds and no order of ours explains.
    """

    executions: int
    unexplained: dict[str, float]


def rebuild(
    session: LiveSession,
    fills: Fills,
    exchange: Exchange,
    clock: Clock,
    instance: str,
    lot: float,
    log: logging.Logger,
) -> Rebuilt:
    """Bring a new session's ledger and orders to what the exchange tells.

    Args:
        session: with a strategy as it is before its first step.
        fills: books.
        exchange: the account.
        clock: of the exchange's candles.
        instance: of ``LIVE_CONFIG``; orders of others are left alone.
        lot: base.
        log: of the session.

    Raises:
        GridError: the exchange could not be asked: nothing is begun.
    """
    strategy = cast("Rebuilding", session.strategy)
    start_ms = exchange.history_start_ms() + 60_000
    # Trades before orders: so every trade's order is known, and a stop's as the one it became.
    executions = exchange.executions_since(start_ms)
    payments = exchange.funding_payments(start_ms)
    past = _ours(strategy, exchange, owned_prefix(instance), start_ms)
    past = _of_this_direction(session, past, executions)
    by_number = {number: item for item in past for number in _numbers(item)}
    own_stops = [item for item in past if item.record.kind is OrderKind.STOP]
    for item in past:
        session.orders.adopt(item.record)
    for event in _in_time(_ladders(past, session.bar_ms), executions, payments):
        if isinstance(event, Ladder):
            strategy.lay_again(event.owners, event.ts_ms)
        elif isinstance(event, FundingPayment):
            fills.book_past_funding(event)
        else:
            found = by_number.get(event.order_id)
            if found is not None and found.record.kind is OrderKind.STOP:
                strategy.note_own_stops(_resting_at(own_stops, event.ts_ms, found))
            fills.book_past(event, None if found is None else found.record)
    entered = {
        _cycle(item)
        for item in past
        if item.record.kind is OrderKind.ENTRY and item.order.filled_qty > 0.0
    }
    strategy.take_over([_resting(item) for item in past if item.order.is_open], entered)
    bar = clock.now_ms() // session.bar_ms
    session.go_to(bar * session.bar_ms)
    session.progress.bar = bar
    session.orders.forget_before(bar - KEEP_ORDERS_BARS)
    unexplained = _unexplained(session, exchange, lot)
    log.info(
        "rebuilt from the exchange: %d orders, %d executions and %d funding payments since %d ms; "
        "the equity's peak restarts",
        len(past),
        len(executions),
        len(payments),
        start_ms,
    )
    return Rebuilt(len(executions), unexplained)


def _ours(strategy: Rebuilding, exchange: Exchange, prefix: str, start_ms: int) -> list[Past]:
    """Return every order of ours, oldest first; what rests is asked for last."""
    orders = {(o.kind is OrderKind.STOP, o.order_id): o for o in exchange.order_history(start_ms)}
    orders |= {(o.kind is OrderKind.STOP, o.order_id): o for o in exchange.open_orders()}
    found = []
    for order in orders.values():
        if not order.client_id.startswith(prefix):
            continue
        identity = strategy.identify(order.client_id.removeprefix(prefix))
        if identity is not None:
            found.append(Past(_record(order, identity), order, identity))
    return sorted(found, key=lambda item: (item.order.created_ms, item.identity.bar))


def _of_this_direction(
    session: LiveSession, past: list[Past], executions: list[Execution]
) -> list[Past]:
    """Return the orders of cycles on the side that is traded now.

    Raises:
        AccountError: cycles of the other side are still open.
    """
    (side,) = session.strategy.params.position_sides
    entries = [item for item in past if item.record.kind is not OrderKind.EXIT]
    others = {_cycle(item) for item in entries if item.record.position_side != side}
    numbers = {number: item for item in past for number in _numbers(item)}
    held = 0.0
    for execution in executions:
        item = numbers.get(execution.order_id)
        if item is not None and _cycle(item) in others:
            opens = (execution.side == "BUY") == (execution.position_side == "LONG")
            held += execution.qty if opens else -execution.qty
    rest = [item.record.client_id for item in past if item.order.is_open and _cycle(item) in others]
    if held > 1e-9 or rest:  # noqa: PLR2004 - rounding
        raise AccountError(
            f"{held:g} of the other direction are still open, and {len(rest)} orders: close them "
            "with that direction and --flatten first"
        )
    return [item for item in past if _cycle(item) not in others]


def _cycle(item: Past) -> str:
    """Return the cycle of an order; of a shared stop the side it stops, as it is of several."""
    name = item.record.owner.partition("-")[0]
    return name if name.strip("0") else item.record.position_side


def _record(order: ExchangeOrder, identity: OrderIdentity) -> OrderRecord:
    return OrderRecord(
        client_id=order.client_id,
        kind=identity.kind,
        position_side=order.position_side,
        price=order.price,
        qty=order.qty,
        bar=identity.bar,
        label=identity.label,
        state=OrderState.OPEN if order.is_open else OrderState.DONE,
        order_id=order.order_id,
        fired_order_id=order.fired_order_id,
        reported_qty=order.filled_qty,
        sent_ms=order.created_ms,
        closes_all=False,
        opens=identity.opens,
        owner=identity.owner,
    )


def _numbers(item: Past) -> Iterator[str]:
    """Return by which numbers executions name an order: a stop's are those it became."""
    if item.record.kind is not OrderKind.STOP:
        yield item.order.order_id
    elif item.order.fired_order_id:
        yield item.order.fired_order_id


def _resting_at(stops: Iterable[Past], ts_ms: int, fired: Past) -> list[str]:
    """Return the names of the stops that rested when one fired; its own is among them."""
    return [
        item.record.owner
        for item in stops
        if item is fired
        or (
            item.order.created_ms <= ts_ms and (item.order.is_open or item.order.updated_ms > ts_ms)
        )
    ]


def _ladders(past: Iterable[Past], bar_ms: int) -> list[Ladder]:
    """Return the ladders that were laid, by the step of their first rung.

    The first order of a rung says where it was laid; what was cancelled by hand came again there.
    """
    found: dict[str, dict[str, tuple[int, float]]] = {}
    for item in past:
        name = item.record.owner
        is_rung = item.record.kind is OrderKind.TAKE_PROFIT and "-L" in name
        if is_rung:
            rungs = found.setdefault(name.partition("-")[0], {})
            rungs.setdefault(name, (item.identity.bar, item.record.price))
    return [
        Ladder(
            min(bar for bar, _ in rungs.values()) * bar_ms,
            {name: price for name, (_, price) in rungs.items()},
        )
        for rungs in found.values()
    ]


def _in_time(
    ladders: list[Ladder], executions: list[Execution], payments: list[FundingPayment]
) -> list[Any]:
    """Return all in the order of time: ladders, executions by number, funding."""
    ordered: list[tuple[int, int, int, Any]] = []
    ordered += [(ladder.ts_ms, 0, k, ladder) for k, ladder in enumerate(ladders)]
    ordered += [(item.ts_ms, 1, item.trade_id, item) for item in executions]
    ordered += [(item.ts_ms, 2, k, item) for k, item in enumerate(payments)]
    return [item[3] for item in sorted(ordered, key=lambda item: item[:3])]


def _resting(item: Past) -> RestingOrder:
    order = item.order
    rest = item.record.rest  # what trades after the look is booked as ever
    return RestingOrder(
        order.position_side, item.identity.kind, order.price, rest, -1, 0, item.record.owner
    )


def _unexplained(session: LiveSession, exchange: Exchange, lot: float) -> dict[str, float]:
    """Return what the account holds beyond the ledger, base by side."""
    view, held = session.strategy.view(), exchange.positions()
    surplus = {name: held[name].qty - view.side(name).qty for name in POSITION_SIDES}
    return {name: qty for name, qty in surplus.items() if qty > 0.5 * lot}


def adopt(
    session: LiveSession, exchange: Exchange, unexplained: dict[str, float], now_ms: int
) -> list[str]:
    """Make unexplained quantity positions of ours; return a text for each.

    Raises:
        GridError: it is of a side that is not traded.
    """
    strategy, held, texts = cast("Rebuilding", session.strategy), exchange.positions(), []
    for name, qty in unexplained.items():
        price = held[name].avg_entry
        if not strategy.adopt(name, qty, price, now_ms):
            raise GridError(f"{qty:g} {name} cannot be adopted: this session trades the other side")
        texts.append(f"{qty:g} {name} at {price:g} are adopted as a position")
    return texts
