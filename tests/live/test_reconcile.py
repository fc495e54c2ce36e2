"""Reconciling: what is sent makes the open orders the desired ones, and nothing else."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.market import MarketRules
from core.orders import OrderKind
from engine.contract import RestingOrder
from live.execution.reconcile import Difference, Resting, reconcile

RULES = MarketRules(tick_size=0.1, step_size=0.001, min_qty=0.001, min_notional=5.0)
URGENCY = (OrderKind.STOP, OrderKind.TAKE_PROFIT, OrderKind.ENTRY)

Spot = tuple[OrderKind, str, int, int]
"""Kind, position side, price in ticks, quantity in lots: what an order is without float noise."""
SPOTS = st.tuples(
    st.sampled_from(URGENCY),
    st.sampled_from(["LONG", "SHORT"]),
    st.integers(997, 1001),
    st.integers(1, 3),
)
NOISE = st.sampled_from([0.0, 1e-13, -1e-13, 1e-10, -1e-10])
DESIRED = st.lists(st.tuples(SPOTS, NOISE, st.integers(0, 9)), max_size=12)
RESTING = st.lists(st.tuples(SPOTS, NOISE), max_size=12)


def desired_at(spot: Spot, noise: float = 0.0, level: int = 0) -> RestingOrder:
    kind, position_side, ticks, lots = spot
    return RestingOrder(
        position_side,
        kind,
        ticks * 0.1 * (1.0 + noise),
        lots * 0.001 * (1.0 - noise),
        level if kind is OrderKind.ENTRY else -1,
    )


def laid_at(spot: Spot, client_id: str, noise: float = 0.0) -> Resting:
    kind, position_side, ticks, lots = spot
    return Resting(
        client_id, kind, position_side, ticks / 10 * (1.0 + noise), lots / 1_000 * (1.0 + noise)
    )


def meaning(spot: Spot) -> Spot:
    """Return what of ``spot`` counts: of a stop not the quantity."""
    return (*spot[:3], 0) if spot[0] is OrderKind.STOP else spot


def applied(difference: Difference, resting: list[Resting]) -> list[Resting]:
    """Return the open orders after ``difference`` was sent."""
    left = [order for order in resting if order.client_id not in difference.cancels]
    return left + [
        Resting(f"new-{k}", order.kind, order.position_side, order.price, order.qty)
        for k, order in enumerate(difference.creates)
    ]


def market_of(
    wanted: list[tuple[Spot, float, int]], there: list[tuple[Spot, float]]
) -> tuple[list[RestingOrder], list[Resting]]:
    return (
        [desired_at(*row) for row in wanted],
        [laid_at(spot, f"id-{k}", noise) for k, (spot, noise) in enumerate(there)],
    )


@given(DESIRED, RESTING)
def test_what_was_sent_leaves_nothing_to_send(
    wanted: list[tuple[Spot, float, int]], there: list[tuple[Spot, float]]
) -> None:
    desired, resting = market_of(wanted, there)
    outcome = applied(reconcile(desired, resting, RULES), resting)

    again = reconcile(desired, outcome, RULES)

    assert again.is_empty
    assert len(again.kept) == len(desired)


@given(DESIRED, RESTING)
def test_only_what_is_surplus_goes_and_only_what_is_missing_comes(
    wanted: list[tuple[Spot, float, int]], there: list[tuple[Spot, float]]
) -> None:
    desired, resting = market_of(wanted, there)
    spot_of = {f"id-{k}": meaning(spot) for k, (spot, _) in enumerate(there)}
    owed = Counter(meaning(spot) for spot, _, _ in wanted)
    held = Counter(spot_of.values())

    difference = reconcile(desired, resting, RULES)

    assert Counter(spot_of[client_id] for client_id in difference.cancels) == held - owed
    created = Counter(
        meaning(
            (order.kind, order.position_side, round(order.price * 10), round(order.qty * 1_000))
        )
        for order in difference.creates
    )
    assert created == owed - held
    assert Counter(spot_of[client_id] for client_id, _ in difference.kept) == owed & held


@given(DESIRED, RESTING)
def test_kept_orders_match_what_they_are_kept_for(
    wanted: list[tuple[Spot, float, int]], there: list[tuple[Spot, float]]
) -> None:
    desired, resting = market_of(wanted, there)
    laid = {order.client_id: order for order in resting}

    difference = reconcile(desired, resting, RULES)

    kept_ids = [client_id for client_id, _ in difference.kept]
    assert sorted([*kept_ids, *difference.cancels]) == sorted(laid)
    for client_id, order in difference.kept:
        there_is = laid[client_id]
        assert there_is.kind is order.kind
        assert there_is.position_side == order.position_side
        assert there_is.price == pytest.approx(order.price, rel=1e-9)
        if order.kind is not OrderKind.STOP:
            assert there_is.rest == pytest.approx(order.qty, rel=1e-9)
    reported = [*difference.creates, *(order for _, order in difference.kept)]
    assert Counter(reported) == Counter(desired)


@given(DESIRED, RESTING)
def test_reconciling_changes_nothing_it_was_given_and_answers_alike(
    wanted: list[tuple[Spot, float, int]], there: list[tuple[Spot, float]]
) -> None:
    desired, resting = market_of(wanted, there)
    before = deepcopy((desired, resting))

    first = reconcile(desired, resting, RULES)

    assert (desired, resting) == before
    assert reconcile(iter(desired), tuple(resting), RULES) == first


@given(DESIRED)
def test_stops_are_laid_first_and_entries_last_from_the_price_outwards(
    wanted: list[tuple[Spot, float, int]],
) -> None:
    creates = reconcile([desired_at(*row) for row in wanted], [], RULES).creates

    urgency = [URGENCY.index(order.kind) for order in creates]
    assert urgency == sorted(urgency)
    levels = [order.level for order in creates if order.kind is OrderKind.ENTRY]
    assert levels == sorted(levels)


def test_of_several_open_orders_alike_the_first_laid_keeps_its_place() -> None:
    spot = (OrderKind.ENTRY, "LONG", 1_000, 2)
    resting = [laid_at(spot, name) for name in ("first", "second", "third")]

    difference = reconcile([desired_at(spot)], resting, RULES)

    assert difference.cancels == ("second", "third")
    assert [client_id for client_id, _ in difference.kept] == ["first"]
    assert not difference.creates


def test_a_stop_stays_whatever_quantity_it_was_laid_for() -> None:
    stop = laid_at((OrderKind.STOP, "SHORT", 1_000, 7), "stop")

    assert reconcile([desired_at((OrderKind.STOP, "SHORT", 1_000, 2))], [stop], RULES).is_empty


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ((OrderKind.STOP, "LONG", 1_001, 7), "other price"),
        ((OrderKind.STOP, "SHORT", 1_000, 7), "other side"),
        ((OrderKind.TAKE_PROFIT, "LONG", 1_000, 7), "other kind"),
    ],
)
def test_a_stop_is_replaced_where_more_than_its_quantity_differs(wanted: Spot, why: str) -> None:
    stop = laid_at((OrderKind.STOP, "LONG", 1_000, 7), "stop")

    difference = reconcile([desired_at(wanted)], [stop], RULES)

    assert difference.cancels == ("stop",), why
    assert len(difference.creates) == 1, why


@pytest.mark.parametrize("kind", [OrderKind.ENTRY, OrderKind.TAKE_PROFIT])
@pytest.mark.parametrize(("ticks", "lots"), [(1, 0), (-1, 0), (0, 1), (0, -1)])
def test_a_limit_order_one_tick_or_one_lot_off_is_replaced(
    kind: OrderKind, ticks: int, lots: int
) -> None:
    laid = laid_at((kind, "LONG", 1_000 + ticks, 5 + lots), "laid")

    difference = reconcile([desired_at((kind, "LONG", 1_000, 5))], [laid], RULES)

    assert difference.cancels == ("laid",)
    assert len(difference.creates) == 1


def test_float_noise_in_price_and_quantity_is_no_difference() -> None:
    laid = Resting("laid", OrderKind.ENTRY, "LONG", 0.3, 0.003)
    wanted = RestingOrder("LONG", OrderKind.ENTRY, 0.1 + 0.2, 0.001 + 0.002 + 1e-18, 0)
    assert wanted.price != laid.price

    assert reconcile([wanted], [laid], RULES).is_empty


def test_a_partly_filled_order_counts_with_what_is_left_of_it() -> None:
    laid = Resting("laid", OrderKind.TAKE_PROFIT, "LONG", 100.0, 0.004)

    assert reconcile(
        [RestingOrder("LONG", OrderKind.TAKE_PROFIT, 100.0, 0.004, -1)], [laid], RULES
    ).is_empty
    assert not reconcile(
        [RestingOrder("LONG", OrderKind.TAKE_PROFIT, 100.0, 0.005, -1)], [laid], RULES
    ).is_empty
