"""Reconciliation: the requests that make the open orders the desired ones. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from core.market import MarketRules
from core.orders import OrderKind
from engine.contract import RestingOrder

_URGENCY: Final = (OrderKind.STOP, OrderKind.TAKE_PROFIT, OrderKind.ENTRY)


@dataclass(frozen=True, slots=True)
class Resting:
    """An order of ours that rests at the exchange.

    Attributes:
        client_id: our identity for it.
        kind: ENTRY, TAKE_PROFIT or STOP.
        position_side: LONG or SHORT.
        price: limit or trigger price, quote.
        rest: base not filled yet.
        owner: the name its strategy gives it, '' where it gives none.
    """

    client_id: str
    kind: OrderKind
    position_side: str
    price: float
    rest: float
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between the open orders and the desired ones.

    Attributes:
        cancels: client ids to cancel.
        creates: orders to lay, stops first, then take-profits, then entries from the price
            outwards.
        kept: (client id, desired order) of what stays as it is.
    """

    cancels: tuple[str, ...]
    creates: tuple[RestingOrder, ...]
    kept: tuple[tuple[str, RestingOrder], ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send."""
        return not self.cancels and not self.creates


def reconcile(
    desired: Iterable[RestingOrder], resting: Sequence[Resting], rules: MarketRules
) -> Difference:
    """Return what to cancel and what to create.

    An open order that matches a desired one in name, kind, side, price (to the tick) and quantity
    not yet filled (to the lot) is left alone, so it keeps its place in the queue; a stop closes the
    whole side and matches by price. Where more open orders match than are desired, the later ones
    go. Applied again to the outcome the answer is empty.

    Args:
        desired: what should rest.
        resting: what does, ours only.
        rules: tick and lot.
    """
    missing: dict[_Key, list[RestingOrder]] = {}
    for order in desired:
        missing.setdefault(_desired_key(order, rules), []).append(order)
    cancels: list[str] = []
    kept: list[tuple[str, RestingOrder]] = []
    for laid in resting:
        wanted = missing.get(_resting_key(laid, rules))
        if wanted:
            kept.append((laid.client_id, wanted.pop(0)))
        else:
            cancels.append(laid.client_id)
    creates = sorted((order for wanted in missing.values() for order in wanted), key=_urgency)
    return Difference(tuple(cancels), tuple(creates), tuple(kept))


_Key = tuple[OrderKind, str, str, int, int]


def _key(
    kind: OrderKind, owner: str, position_side: str, price: float, qty: float, rules: MarketRules
) -> _Key:
    lots = 0 if kind is OrderKind.STOP else round(qty / rules.step_size)
    return kind, owner, position_side, round(price / rules.tick_size), lots


def _desired_key(order: RestingOrder, rules: MarketRules) -> _Key:
    return _key(order.kind, order.owner, order.position_side, order.price, order.qty, rules)


def _resting_key(order: Resting, rules: MarketRules) -> _Key:
    return _key(order.kind, order.owner, order.position_side, order.price, order.rest, rules)


def _urgency(order: RestingOrder) -> tuple[int, int]:
    return _URGENCY.index(order.kind), order.level
