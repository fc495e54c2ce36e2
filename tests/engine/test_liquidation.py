"""Cross-margin liquidation: where it happens, what it costs, and that nothing is owed after it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.reference.scenarios import Ohlc
from tests.support.markets.scenario import BUYS_990, LONG, SHORT, Changes, Scenario, flat, play


def identity_error(scene: Scenario) -> float:
    """Return by how much records and funding miss the last wallet, quote."""
    booked = sum(trade["pnl"] - trade["fee"] for trade in scene.trades)
    paid = float(scene.result["log"]["funding"].sum())
    return float(abs(10_000.0 + booked + paid - scene.result["log"]["wallet"][-1]))


def liquidation_scene(rows: list[Ohlc], changes: Changes, **more: Any) -> Scenario:
    """Return a scenario at leverage 100 without a stop."""
    unprotected = {"leverage": 100.0, "grid_levels": 1, "stop2_enabled": False}
    return play(rows, {**unprotected, **changes}, **more)


def test_liquidation_happens_where_equity_meets_maintenance() -> None:
    scene = liquidation_scene([BUYS_990, (985.0, 985.0, 850.0, 850.0), flat(850.0)], {})
    # 101.010 at 990: 9980.00002 + 101.010 * (x - 990) = 1.0101 * x
    price = 90019.89998 / 99.9999
    assert scene.trades[1]["label"] == "LIQUIDATION"
    assert scene.trades[1]["price"] == pytest.approx(price, rel=1e-12)
    assert scene.trades[1]["fee"] == pytest.approx(0.005 * 101.010 * price, rel=1e-9)
    wallet = scene.result["log"]["wallet"]
    assert wallet[2] == pytest.approx(0.005 * 101.010 * price, rel=1e-9)  # as much was left
    assert scene.metrics["liquidations"] == 1
    assert scene.entry_prices(3) == [841.5]  # of a new grid, at 850


def test_a_hedged_account_is_liquidated_on_both_legs_at_one_price() -> None:
    # High first: short 99.009 at 1010, then long 101.010 at 990 and 102.040 at 980.
    scene = liquidation_scene(
        [(1000.0, 1011.0, 800.0, 800.0), flat(800.0)], {"grid_levels": 2, "allow_short": True}
    )
    legs = {t["direction"]: 0.0 for t in scene.trades}
    cost, wallet = {"LONG": 0.0, "SHORT": 0.0}, 10_000.0
    for trade in scene.trades[:3]:
        legs[trade["direction"]] += trade["qty"]
        cost[trade["direction"]] += trade["qty"] * trade["price"]
        wallet -= trade["fee"]
    slope = legs["LONG"] - legs["SHORT"] - 0.01 * (legs["LONG"] + legs["SHORT"])
    price = (cost["LONG"] - cost["SHORT"] - wallet) / slope
    closed = scene.trades[3:]
    assert [(t["label"], t["direction"]) for t in closed] == [
        ("LIQUIDATION", "LONG"),
        ("LIQUIDATION", "LONG"),
        ("LIQUIDATION", "SHORT"),
    ]
    assert [t["fill_id"] for t in closed] == [1, 2, 0]
    assert [t["price"] for t in closed] == pytest.approx([price] * 3, rel=1e-12)
    assert scene.metrics["liquidations"] == 1
    assert identity_error(scene) < 1e-6


def test_a_liquidation_fee_above_equity_takes_all_and_ends_the_run() -> None:
    rows = [BUYS_990, (985.0, 985.0, 850.0, 850.0), (850.0, 1100.0, 800.0, 1000.0), flat(1000.0)]
    scene = liquidation_scene(rows, {}, rules={"liquidation_fee": 0.05})
    assert scene.result["equity_curve"][2:].tolist() == [0.0, 0.0, 0.0]
    assert len(scene.trades) == 2
    assert identity_error(scene) < 1e-6


def test_a_gap_far_beyond_bankruptcy_ends_at_exactly_nothing() -> None:
    rows = [BUYS_990, flat(500.0), (500.0, 1100.0, 400.0, 1000.0)]
    for changes in ({}, {"stop2_enabled": True}):
        scene = liquidation_scene(rows, changes)
        assert scene.result["equity_curve"][2:].tolist() == [0.0, 0.0]
        assert scene.result["log"]["wallet"][-1] == 0.0
        assert [t["label"] for t in scene.trades] == ["BUY_OPEN_LONG", "LIQUIDATION"]
        assert identity_error(scene) < 1e-6


def test_both_sides_orders_are_gone_for_the_bar_of_a_liquidation() -> None:
    scene = liquidation_scene(
        [BUYS_990, (985.0, 1020.0, 850.0, 900.0)],
        {"allow_short": True, "intrabar_path": "low_first"},
    )
    assert [t["label"] for t in scene.trades] == ["BUY_OPEN_LONG", "LIQUIDATION"]
    assert [scene.at(2).state.sides[side].n_fills for side in (LONG, SHORT)] == [1, 0]


def test_maintenance_grows_with_the_bracket_of_the_notional() -> None:
    # 100,000 notional: above the floor of 50,000 the rate is 2 % less 500.
    tiers = ((0.0, 0.01, 0.0), (50_000.0, 0.02, 500.0))
    scene = liquidation_scene(
        [BUYS_990, (985.0, 985.0, 850.0, 850.0)], {}, rules={"brackets": tiers}
    )
    # 9980.00002 + 101.010 * (x - 990) = 0.02 * 101.010 * x - 500
    price = (101.010 * 990.0 - 9980.00002 - 500.0) / (101.010 * 0.98)
    assert scene.trades[1]["price"] == pytest.approx(price, rel=1e-12)


def test_a_step_whose_open_lacks_margin_liquidates_at_the_open() -> None:
    scene = liquidation_scene([BUYS_990, (899.0, 1000.0, 899.0, 1000.0)], {})
    assert scene.records[1][:3] == (2, "LIQUIDATION", 899.0)
    # 9980.00002 - 101.010 * 91 = 788.09: more than the fee of half a percent.
    left = 9980.00002 - 101.010 * 91.0 - 0.005 * 101.010 * 899.0
    assert scene.result["log"]["wallet"][-1] == pytest.approx(left)
    assert scene.entries(2) == []
