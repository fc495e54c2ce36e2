"""Pruning: each pruning rule alone, their order, their pace, and the value-at-risk limits."""

from __future__ import annotations

import math

import pytest

from core.params import PruneRule
from engine.grid_v4.decision import DELEVERAGE
from engine.grid_v4.pruning import costly_fill
from engine.strategy import GridStrategyV4
from tests.engine.reference.scenarios import BAR_MS, START, Ohlc
from tests.support.markets.scenario import (
    BUYS_990,
    BUYS_990_980,
    LONG,
    SHORT,
    SHORT_ONLY,
    Changes,
    Scenario,
    flat,
    play,
)

RULES = tuple(rule.name or "" for rule in PruneRule)
UP = {"regime": 1, "er": 1.0}
OLD_LOW_NEW_HIGH: list[Ohlc] = [BUYS_990, flat(985.0), (999.0, 999.0, 993.5, 995.0)]
"""Fill 0 at 990 in bar 1; fill 1 at 994 in bar 3, of a narrower grid at 999: the worse, newer one.

The long entries are kept out at step 2 and allowed again, in an uptrend, at step 3.
"""
OLD_LOW_SIGNALS: dict[int, Changes] = {1: {"regime": -1}, 2: UP}
SELLS_1010_1020: Ohlc = (1000.0, 1021.0, 1000.0, 1015.0)


def rule(name: str, **changes: object) -> Changes:
    """Return the parameters with one pruning rule on and no wick stop in its way."""
    return {"stop2_enabled": False, "prune_enabled": (name,), **changes}


def prunes(scene: Scenario) -> list[tuple[int, str, int, float]]:
    """Return (bar, label, fill, price) of every prune."""
    return [
        (t["bar"], t["label"], t["fill_id"], t["price"])
        for t in scene.trades
        if t["label"].startswith("PRUNE")
    ]


def test_deviance_prunes_the_worst_fill_when_the_price_is_three_atr_from_kama() -> None:
    # KAMA 1000, ATR 5: 985 is three of them away, 984.9 more.
    scene = play([BUYS_990_980, flat(985.0), flat(984.9)], rule("DEVIANCE", deviance_sigma=3.0))
    assert prunes(scene) == [(3, "PRUNE_DEVIANCE", 0, 984.9)]
    above = {"kama": 960.0}
    favourable = play(
        [BUYS_990_980, flat(985.0), flat(984.9)],
        rule("DEVIANCE", deviance_sigma=3.0),
        everywhere=above,
    )
    assert prunes(favourable) == []


def test_deviance_of_a_short_looks_the_other_way() -> None:
    changes = rule("DEVIANCE", deviance_sigma=3.0, allow_short=True)
    scene = play([SELLS_1010_1020, flat(1015.0), flat(1015.1)], changes, everywhere=SHORT_ONLY)
    assert prunes(scene) == [(3, "PRUNE_DEVIANCE", 0, 1015.1)]


def test_oldest_prunes_the_oldest_fill_once_it_is_strictly_older_than_the_limit() -> None:
    rows = [*OLD_LOW_NEW_HIGH, *[flat(995.0)] * 95]
    scene = play(rows, rule("OLDEST", max_position_age_hours=24.0), at=OLD_LOW_SIGNALS)
    assert [t["price"] for t in scene.trades[:2]] == [990.0, 994.0]
    # Bought in bar 1, it is 24 hours old at step 97.
    assert prunes(scene) == [(98, "PRUNE_OLDEST", 0, 995.0)]


def test_gap_prunes_the_most_distant_fill_under_water() -> None:
    gap = rule("GAP", gap_prune_mult=3.0, max_inventory_per_side=2)
    scene = play([BUYS_990_980, flat(960.0), flat(959.9)], gap)
    assert prunes(scene) == [(3, "PRUNE_GAP", 0, 959.9)]
    # 1025 is far above both, but a winner waits for its take-profit.
    far = {**gap, "fill_through_bps": 1000.0, "regen_drift_mult": 20.0}
    winners = play([(1000.0, 1000.0, 880.0, 900.0), flat(1025.0), flat(1030.0)], far)
    assert winners.count("BUY_OPEN_LONG") == 2
    assert prunes(winners) == []


def test_gap_measures_in_spacings_of_its_side() -> None:
    # In an uptrend with an efficiency ratio of 1 the entries are 5 apart: 15 is the limit.
    gap = rule("GAP", gap_prune_mult=3.0, grid_levels=1)
    scene = play([(1000.0, 1000.0, 994.0, 994.0), flat(980.0), flat(979.9)], gap, everywhere=UP)
    assert prunes(scene) == [(3, "PRUNE_GAP", 0, 979.9)]


def test_funding_prunes_the_fill_that_paid_most_of_those_that_paid_too_much() -> None:
    # A fill may pay 5 per unit: 985 * 0.005 is under that, another 985 * 0.0001 is over.
    rows = [BUYS_990_980, flat(985.0), flat(985.0), flat(985.0)]
    scene = play(rows, rule("FUNDING", funding_cost_ratio=0.5), funding={2: 0.005, 3: 0.0001})
    assert prunes(scene) == [(3, "PRUNE_FUNDING", 1, 985.0)]  # 1.020 paid more than 1.010
    received = play(rows, rule("FUNDING", funding_cost_ratio=0.5), funding={2: -0.01})
    assert prunes(received) == []
    netted = {2: 0.005, 3: -0.001, 4: 0.001}
    assert prunes(play(rows, rule("FUNDING", funding_cost_ratio=0.5), funding=netted)) == []


def test_of_fills_that_paid_alike_but_for_rounding_the_older_is_pruned() -> None:
    strategy = GridStrategyV4(rule("FUNDING", funding_cost_ratio=0.5))
    side = strategy.state.sides[LONG]
    side.spacing, side.n_fills = 1.0, 3
    for row, paid in enumerate((0.9, 1.0, 1.0 + 1e-12)):
        side.fills[row].fill_id, side.fills[row].qty, side.fills[row].funding = row, 1.0, -paid
    assert costly_fill(strategy.state, strategy.frozen_params, LONG) == 1
    side.fills[2].funding = -1.0 - 1e-6
    assert costly_fill(strategy.state, strategy.frozen_params, LONG) == 2
    side.fills[1].funding = side.fills[2].funding = -0.5  # not more than half a spacing
    assert costly_fill(strategy.state, strategy.frozen_params, LONG) == 0


def test_funding_of_a_partly_closed_fill_shrinks_with_it() -> None:
    # 4.92 per unit is paid, then 60 % is sold at 1000: the rest still paid 4.92 per unit.
    changes = rule("FUNDING", funding_cost_ratio=0.5, tp_concentration=0.6)
    rows = [BUYS_990, (985.0, 1001.0, 985.0, 990.5), flat(990.5)]
    scene = play(rows, changes, funding={2: 0.005})
    assert scene.records[1] == (2, "SELL_CLOSE_LONG", 1000.0, 0.606)
    fill = scene.side(3).fills[0]
    assert fill.funding == pytest.approx(-0.005 * 985.0 * 0.404)
    assert prunes(scene) == []


EARNS_AND_SINKS: list[Ohlc] = [BUYS_990_980, (985.0, 990.5, 985.0, 985.0), flat(980.0), flat(979.9)]
"""Fill 1 earns 10.2 less 0.6 of fees, both entries included; fill 0 then loses 10.201."""


def test_offset_prunes_the_worst_fill_that_todays_profit_of_its_side_pays_for() -> None:
    profit = 10.2 - 0.0002 * (1.010 * 990.0 + 1.020 * 980.0 + 1.020 * 990.0)
    enough, short = 0.9999 * profit / 10.201, 1.0001 * profit / 10.201
    scene = play(EARNS_AND_SINKS, rule("OFFSET", offset_prune_ratio=enough))
    # At 980 the fill is exactly a spacing under water: not yet.
    assert prunes(scene) == [(4, "PRUNE_OFFSET", 0, 979.9)]
    assert prunes(play(EARNS_AND_SINKS, rule("OFFSET", offset_prune_ratio=short))) == []


def test_offset_counts_the_profit_of_the_utc_day_only() -> None:
    midnight = START + 96 * BAR_MS
    offset = rule("OFFSET", offset_prune_ratio=0.9)
    scenes = [play(EARNS_AND_SINKS, offset, start_ms=midnight - k * BAR_MS) for k in (3, 2)]
    # The profit is of bar 2. Three bars before midnight that is yesterday.
    assert [len(prunes(scene)) for scene in scenes] == [0, 1]


def test_offset_does_not_pay_with_the_other_sides_profit() -> None:
    # Short fill at 1010 bought back at 1000; long fill at 990 sinks.
    rows = [(1000.0, 1011.0, 1000.0, 1005.0), (1005.0, 1005.0, 989.0, 989.0), flat(979.9)]
    both = rule("OFFSET", offset_prune_ratio=0.1, allow_short=True, grid_levels=1)
    scene = play(rows, both)
    assert [r[1] for r in scene.records] == ["SELL_OPEN_SHORT", "BUY_CLOSE_SHORT", "BUY_OPEN_LONG"]


@pytest.mark.parametrize("first", range(len(RULES)))
def test_the_first_rule_that_matches_names_the_prune(first: int) -> None:
    changes = {
        "stop2_enabled": False,
        "prune_enabled": RULES[first:],
        "deviance_sigma": 3.0,
        "max_position_age_hours": 0.25,
        "gap_prune_mult": 0.5,
        "funding_cost_ratio": 0.0,
        "offset_prune_ratio": 0.5,
    }
    rows = [*EARNS_AND_SINKS[:2], flat(979.9)]
    scene = play(rows, changes, funding={3: 0.0001})
    assert prunes(scene) == [(3, f"PRUNE_{RULES[first]}", 0, 979.9)]


def test_a_side_is_pruned_one_fill_at_a_time_with_a_pause_between() -> None:
    rows = [(1000.0, 1000.0, 969.0, 969.0), *[flat(945.0)] * 10]
    gap = rule("GAP", gap_prune_mult=1.0, prune_cooldown_bars=4)
    # A prune remakes the grid at 945 with a spacing of 9.45; all three stay beyond it.
    assert [p[:3] for p in prunes(play(rows, gap))] == [
        (2, "PRUNE_GAP", 0),
        (6, "PRUNE_GAP", 1),
        (10, "PRUNE_GAP", 2),
    ]
    eager = play(rows, {**gap, "prune_cooldown_bars": 0})
    assert [p[:1] for p in prunes(eager)] == [(2,), (3,), (4,)]


def test_both_sides_are_pruned_in_one_step_long_first_each_with_its_own_pause() -> None:
    # Short at 1010 and long at 990 in bar 1: at step 4 they are older than half an hour.
    changes = rule("OLDEST", max_position_age_hours=0.5, allow_short=True, grid_levels=1)
    same = play([(1000.0, 1011.0, 989.0, 995.0), *[flat(995.0)] * 4], changes)
    assert [(p[0], p[2]) for p in prunes(same)] == [(4, 1), (4, 0)]
    # Long in bar 1; most of it is sold in bar 2, where a short is opened.
    later = [(1000.0, 1000.0, 989.0, 995.0), (995.0, 1010.0, 995.0, 999.0), *[flat(999.0)] * 4]
    apart = play(later, {**changes, "grid_levels": 3, "tp_concentration": 0.6})
    assert [(p[0], p[2]) for p in prunes(apart)] == [(4, 0), (5, 1)]


def test_nothing_is_pruned_while_halted() -> None:
    breaker = {"circuit_breaker_enabled": True, "halt_z_threshold": -3.0}
    rows = [BUYS_990_980, flat(960.0), flat(960.0), flat(960.0)]
    gap = {**rule("GAP", gap_prune_mult=1.0), **breaker}
    scene = play(rows, gap, at={1: {"z": -4.0}, 2: {"z": -2.0}, 3: {"z": 0.0}})
    assert [p[0] for p in prunes(scene)] == [4]


VAR: Changes = {
    "stop2_enabled": False,
    "var_deleverage_enabled": True,
    "max_drawdown_pct": 0.002,
    "max_inventory_per_side": 2,
}
"""Budget: three quarters of 0.2 % of equity, about 14.97."""


def test_deleverage_closes_the_worst_fill_when_the_joint_loss_nears_the_budget() -> None:
    # At 978 the two fills lose 12.12 and 2.04; at 977 they lose 13.13 and 3.06.
    scene = play([BUYS_990_980, flat(978.0), flat(977.0), flat(977.0)], VAR)
    assert prunes(scene) == [(3, "PRUNE_VAR_WARNING", 0, 977.0)]


def test_deleverage_closes_the_worst_fill_of_each_losing_side() -> None:
    # Longs at 990 and 980, then shorts of a grid remade at 950 at 959.5 and 969.0.
    rows = [(1000.0, 1000.0, 950.0, 950.0), (950.0, 970.0, 950.0, 965.0), flat(965.0)]
    hedged = play(
        rows, {**VAR, "allow_short": True, "regen_drift_mult": 1.0, "var_deleverage_enabled": False}
    )
    strategy = GridStrategyV4({**hedged.config, "var_deleverage_enabled": True}, hedged.rules)
    strategy.load_state_dict(hedged.at(3).state_dict())
    strategy.open_step(4, START + 4 * BAR_MS, 975.0, 965.0, hedged.signals[0], 0.0)
    exits = strategy.protect(DELEVERAGE)
    assert [(int(out.side), int(out.fill_id)) for out in exits] == [(LONG, 0), (SHORT, 2)]


def test_deleverage_spares_a_side_that_wins() -> None:
    # At 940 the short of 1010 wins 69.3, the longs of 990 and 980 lose 91.3.
    scene = play(
        [(1000.0, 1011.0, 940.0, 940.0), flat(940.0)],
        {**VAR, "allow_short": True, "grid_levels": 2},
    )
    assert [t["direction"] for t in scene.trades[:3]] == ["SHORT", "LONG", "LONG"]
    assert prunes(scene) == [(2, "PRUNE_VAR_WARNING", 1, 940.0)]


def test_deleverage_may_follow_a_prune_and_neither_heeds_nor_starts_its_pause() -> None:
    gap: Changes = {
        **VAR,
        "prune_enabled": ("GAP",),
        "gap_prune_mult": 1.0,
        "prune_cooldown_bars": 50,
        "max_drawdown_pct": 0.001,
    }
    one_step = play([(1000.0, 1000.0, 979.0, 979.5), flat(969.0)], gap)
    assert [p[:3] for p in prunes(one_step)] == [(2, "PRUNE_GAP", 0), (2, "PRUNE_VAR_WARNING", 1)]
    # At 977 the loss of both is over the budget of 14.97, but a gap of 13 is no two spacings.
    wide = {**gap, "max_drawdown_pct": 0.002, "gap_prune_mult": 1.5}
    next_step = play([BUYS_990_980, flat(977.0), flat(962.0)], wide)
    assert [p[:3] for p in prunes(next_step)] == [(2, "PRUNE_VAR_WARNING", 0), (3, "PRUNE_GAP", 1)]


def test_the_var_block_stops_entries_and_never_exits_and_is_counted_per_step() -> None:
    rows = [BUYS_990, flat(985.0), flat(985.0), flat(985.0), flat(985.0)]
    block: Changes = {
        "var_block_enabled": True,
        "max_drawdown_pct": 0.001,
        "var_horizon_bars": 4.0,
        "optimal_spread_enabled": False,
        "skew_enabled": False,
    }
    equity = 10_000 - 0.0002 * 990.0 * 1.010 - 5.0 * 1.010
    limit = 0.001 * equity / (1.65 * 1.010 * 985.0 * math.sqrt(4.0))
    at = {1: {"sigma": limit * 1.001}, 2: {"sigma": limit * 0.999}, 3: {"sigma": limit * 2.0}}
    scene = play(rows, block, at=at)
    assert [len(scene.entries(bar)) for bar in (1, 2, 3, 4, 5)] == [3, 0, 2, 0, 2]
    assert [scene.take_profits(bar) for bar in (2, 4)] == [{1000.0: 1.010}] * 2
    assert [scene.stop(bar) for bar in (2, 4)] == [975.0] * 2
    assert scene.metrics["var_blocks"] == 2
    flat_account = play([flat(1000.0)], block, everywhere={"sigma": 1.0})
    assert len(flat_account.entries(1)) == 3


def test_the_var_block_adds_the_notional_of_both_sides() -> None:
    block: Changes = {
        "var_block_enabled": True,
        "max_drawdown_pct": 0.001,
        "var_horizon_bars": 1.0,
        "optimal_spread_enabled": False,
        "skew_enabled": False,
        "allow_short": True,
    }
    rows = [(1000.0, 1011.0, 989.0, 1000.0), flat(1000.0)]
    wild = {"sigma": 0.001 * 10_000 / (1.65 * 1500.0)}  # 1500 of exposure
    hedged = play(rows, block, everywhere=wild)
    assert [hedged.entries(2, side) for side in (LONG, SHORT)] == [[], []]
    one_side = play(rows, {**block, "allow_short": False}, everywhere=wild)
    assert len(one_side.entries(2)) == 2
