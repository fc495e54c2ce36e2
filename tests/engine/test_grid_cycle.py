"""The cycle a grid earns from: levels bought, sold one level up, armed again; when it moves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.orders import OrderKind
from tests.support.markets.scenario import BUYS_990, LONG, SHORT, SHORT_ONLY, Changes, flat, play

UP = {"regime": 2, "er": 0.7}
TRAILING: Changes = {"trailing_enabled": True, "regen_drift_mult": 1.0}


def test_a_level_is_bought_sold_one_level_up_and_armed_again_in_the_same_generation() -> None:
    cycle = play([(1000.0, 1000.0, 989.0, 995.0), (995.0, 1001.0, 995.0, 999.0), flat(999.0)])
    assert cycle.records == [
        (1, "BUY_OPEN_LONG", 990.0, 1.010),
        (2, "SELL_CLOSE_LONG", 1000.0, 1.010),
    ]
    assert cycle.entry_prices(2) == [980.0, 970.0]
    assert cycle.entries(3)[0] == (0, 990.0, 1.011)  # 10009.698 * 0.1 / 990
    assert [cycle.side(bar).generation for bar in (1, 2, 3)] == [1, 1, 1]


def test_a_short_level_is_sold_bought_back_one_level_down_and_armed_again() -> None:
    rows = [(1000.0, 1011.0, 1000.0, 1005.0), (1005.0, 1005.0, 999.0, 1001.0), flat(1001.0)]
    cycle = play(rows, {"allow_short": True}, everywhere=SHORT_ONLY)
    assert cycle.records == [
        (1, "SELL_OPEN_SHORT", 1010.0, 0.990),
        (2, "BUY_CLOSE_SHORT", 1000.0, 0.990),
    ]
    assert cycle.entry_prices(2, SHORT) == [1020.0, 1030.0]
    assert cycle.entries(3, SHORT)[0][:2] == (0, 1010.0)
    assert [cycle.side(bar, SHORT).generation for bar in (1, 2, 3)] == [1, 1, 1]


def test_a_fill_that_is_mostly_closed_frees_its_level_and_its_place() -> None:
    rows = [BUYS_990, (985.0, 1001.0, 985.0, 999.0), flat(999.0)]
    one = play(rows, {"tp_concentration": 0.6, "max_inventory_per_side": 1})
    assert one.entry_prices(2) == []
    assert one.records[1] == (2, "SELL_CLOSE_LONG", 1000.0, 0.606)
    assert one.side(3).n_fills == 1
    assert one.entry_prices(3) == [990.0]
    assert one.side(3).generation == 1


@settings(max_examples=25, deadline=None)
@given(
    price=st.integers(20, 5000).map(float),
    fee=st.floats(-0.001, 0.01),
    spacing=st.floats(0.0005, 0.05),
    fall=st.floats(0.8, 1.0),
    mode=st.sampled_from(["geometric", "arithmetic"]),
    side=st.sampled_from([LONG, SHORT]),
)
@example(price=1000.0, fee=0.01, spacing=0.001, fall=0.99, mode="geometric", side=LONG)
def test_a_take_profit_is_the_nearest_passive_exit_from_its_fills_break_even_on(
    price: float, fee: float, spacing: float, fall: float, mode: str, side: int
) -> None:
    sign = 1.0 if side == LONG else -1.0
    here = price * (1.0 - sign * (1.0 - fall))
    worst = price * (1.0 - sign * 0.3)
    scene = play(
        [(price, max(price, worst), min(price, worst), here), flat(here)],
        {
            "fee_maker": fee,
            "spacing_floor": spacing,
            "grid_mode": mode,
            "regen_drift_mult": 0.1,
            "tp_concentration": 0.6,
            "stop2_enabled": False,
            "allow_short": True,
        },
        everywhere={"atr": 0.01} if side == LONG else SHORT_ONLY | {"atr": 0.01},
        warm=flat(price),
    )
    position = scene.side(2, side)
    assert position.n_fills == 3
    for row in range(3):
        fill = position.fills[row]
        break_even = fill.price * (1.0 + sign * fee) / (1.0 - sign * fee)
        assert sign * fill.tp_price > sign * here
        assert sign * fill.tp_price >= sign * break_even - 1e-7
        exits = [
            level
            for level in scene.lattice(2, side)
            if sign * level > sign * here and sign * level >= sign * break_even - 1e-7
        ]
        assert not exits or fill.tp_price == exits[0]


def test_tp_below_entry_drops_the_break_even_condition() -> None:
    rows = [BUYS_990, flat(950.0)]
    changes = {"stop2_enabled": False, "regen_drift_mult": 1.0, "max_inventory_per_side": 1}
    # The grid is remade at 950: exits 921.5, 931, 940.5, 950, 959.5, 969, 978.5.
    assert play(rows, changes).take_profits(2) == {990.4: 1.010}  # 990 * 1.0002 / 0.9998
    assert play(rows, {**changes, "tp_below_entry": True}).take_profits(2) == {959.5: 1.010}


@pytest.mark.parametrize(
    ("share", "changes", "rules", "expected"),
    [
        (0.6, {}, {}, {1000.0: 0.606, 1010.0: 0.202, 1020.0: 0.202}),
        # 505 lots in two slices of 252 leave one lot over: it goes to the first.
        (0.5, {}, {}, {1000.0: 0.506, 1010.0: 0.252, 1020.0: 0.252}),
        (0.6, {}, {"min_qty": 0.3}, {1000.0: 0.606, 1010.0: 0.404}),
        # Of three slices of 134 the outer joins the middle one, the inner one the head.
        (0.6, {"grid_levels": 4}, {"min_qty": 0.2}, {1000.0: 0.742, 1020.0: 0.268}),
        (0.6, {"grid_levels": 4}, {"min_qty": 0.5}, {1000.0: 1.010}),
        (1.0, {}, {}, {1000.0: 1.010}),
    ],
)
def test_a_ladder_is_cut_to_lots_and_joins_what_is_too_small_inwards(
    share: float, changes: Changes, rules: Changes, expected: dict[float, float]
) -> None:
    scene = play([BUYS_990, flat(985.0)], {"tp_concentration": share, **changes}, rules=rules)
    assert scene.take_profits(2) == pytest.approx(expected)


def test_slices_at_the_same_price_are_one_order_that_closes_the_best_fill_first() -> None:
    # Both levels are bought, the price returns above 990: 1000 is the first exit of both.
    scene = play([(1000.0, 1000.0, 979.0, 992.0), (992.0, 1001.0, 992.0, 1000.0)])
    orders = [order for order in scene.at(2).book if order.kind is OrderKind.TAKE_PROFIT]
    assert [order.price for order in orders] == [1000.0]
    assert orders[0].qty == pytest.approx(2.030)
    sold = [(t["fill_id"], t["qty"], t["price"]) for t in scene.trades if t["bar"] == 2]
    assert sold == [(1, 1.020, 1000.0), (0, 1.010, 1000.0)]


def test_what_is_bought_inside_a_bar_is_not_sold_by_the_orders_of_that_bar() -> None:
    rows = [BUYS_990, (985.0, 1005.0, 979.0, 1005.0), flat(1005.0)]
    scene = play(rows)
    assert scene.records[1:] == [
        (2, "BUY_OPEN_LONG", 980.0, 1.020),
        (2, "SELL_CLOSE_LONG", 1000.0, 1.010),
    ]
    assert scene.take_profits(3) == {1010.0: 1.020}


def test_a_grid_that_drifted_stays_until_it_is_flat_or_has_traded() -> None:
    drift = {"regen_drift_mult": 1.0, "stop2_enabled": False}
    flat_side = play([flat(1000.0), flat(1010.0), flat(1010.1)], drift)
    assert [flat_side.side(bar).reference for bar in (2, 3)] == [1000.0, 1010.1]
    no_longs = {"regime": -1}
    # Bought in generation 1, remade at 985 with spacing 9.85; then 15 lower without a trade.
    rows = [
        BUYS_990,
        flat(985.0),
        flat(970.0),
        flat(970.0),
        (970.0, 970.0, 960.0, 965.0),
        flat(960.0),
    ]
    held = play(rows, drift, at={1: no_longs, 2: no_longs})
    assert [held.side(bar).reference for bar in (2, 3)] == [985.0, 985.0]
    assert held.side(4).reference == 970.0  # its entries are allowed again
    assert held.records[1] == (5, "BUY_OPEN_LONG", 960.3, 1.039)
    assert held.side(6).reference == 960.0


def test_entries_that_become_allowed_again_get_a_grid_around_the_price() -> None:
    gated = play([flat(1000.0), flat(1001.0), flat(1002.0)], at={1: {"regime": -2}})
    assert [gated.entry_prices(bar) for bar in (1, 2, 3)] == [
        [990.0, 980.0, 970.0],
        [],
        [991.9, 981.9, 971.9],
    ]
    assert [gated.side(bar).generation for bar in (1, 2, 3)] == [1, 1, 2]
    breaker: Changes = {"circuit_breaker_enabled": True, "halt_z_threshold": -3.0}
    halted = play([flat(1000.0), flat(1001.0), flat(1002.0)], breaker, at={1: {"z": -3.5}})
    assert [halted.side(bar).reference for bar in (1, 2, 3)] == [1000.0, 1000.0, 1002.0]


@pytest.mark.parametrize(
    ("label", "changes"),
    [
        ("STOP_LONG", {"stop1_enabled": True}),
        ("PRUNE_GAP", {"prune_enabled": ("GAP",), "gap_prune_mult": 1.0}),
    ],
)
def test_a_stop_or_prune_of_a_part_moves_the_grid(label: str, changes: dict[str, Any]) -> None:
    rows = [(1000.0, 1000.0, 973.0, 974.0), flat(975.0)]
    scene = play(rows, {"stop2_enabled": True, **changes})
    assert {record[1] for record in scene.records if record[0] == 2} == {label}
    assert scene.side(2).n_fills > 0
    assert (scene.side(2).generation, scene.side(2).reference) == (2, 975.0)


def test_a_trailing_grid_moves_half_way_and_counts_the_shift() -> None:
    scene = play([flat(1000.0), flat(1030.0), flat(1040.0)], TRAILING, everywhere=UP)
    assert [scene.side(bar).reference for bar in (1, 2, 3)] == [1000.0, 1000.0, 1020.0]
    assert scene.side(3).entry_pct == pytest.approx(0.01 * 0.65)
    assert scene.metrics["trailing_shifts"] == 1
    assert scene.entry_prices(3) == [1013.3, 1006.7, 1000.1]


@pytest.mark.parametrize(
    ("cap", "reference", "shifts"), [(0.0, 1020.0, 1), (1015.0, 1015.0, 1), (990.0, 1000.0, 0)]
)
def test_a_trailing_grid_stops_at_its_cap_and_never_moves_down(
    cap: float, reference: float, shifts: int
) -> None:
    rows = [flat(1000.0), flat(1040.0)]
    scene = play(rows, {**TRAILING, "trailing_cap_price": cap}, everywhere=UP)
    assert scene.side(2).reference == reference
    assert scene.metrics["trailing_shifts"] == shifts


def test_a_grid_trails_only_in_an_uptrend_with_a_high_efficiency_ratio() -> None:
    rows = [flat(1000.0), flat(1040.0)]
    drifted = play(rows, TRAILING, everywhere={"regime": 1, "er": 0.65})
    assert drifted.side(2).reference == 1040.0
    assert drifted.metrics["trailing_shifts"] == 0
    off = play(rows, {"regen_drift_mult": 1.0}, everywhere=UP)
    assert off.side(2).reference == 1040.0


def test_the_reserve_is_released_while_trailing_is_active() -> None:
    # Orders of just under 1000: three fit under 3500, two under 75 % of it.
    caps: Changes = {"trailing_enabled": True, "max_position_pct": 0.35, "spacing_floor": 0.01}
    counts = [
        len(play([flat(1000.0)], {**caps, **more}, everywhere=signal).entries(1))
        for more, signal in (({}, {}), ({}, UP), ({"trailing_enabled": False}, {}))
    ]
    assert counts == [2, 3, 3]


def test_a_price_above_the_whole_lattice_is_offered_one_tick_above_it() -> None:
    scene = play(
        [(1000.0, 1000.0, 890.0, 900.0), flat(1035.0)],
        {"stop2_enabled": False, "regen_drift_mult": 20.0, "fill_through_bps": 1000.0},
    )
    assert scene.take_profits(2) == {1035.1: 1.010}


@settings(max_examples=15, deadline=None)
@given(rises=st.lists(st.integers(0, 60), min_size=2, max_size=5))
def test_a_grid_in_trailing_conditions_never_moves_down(rises: list[int]) -> None:
    prices = [1000.0]
    for rise in rises:
        prices.append(prices[-1] + rise - 10)
    scene = play([flat(price) for price in prices], TRAILING, everywhere=UP)
    state = [scene.side(bar) for bar in range(1, len(prices) + 1)]
    references = [float(side.reference) for side in state]
    assert references == sorted(references)
