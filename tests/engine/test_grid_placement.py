"""Where the levels of a grid lie, which of them rest, and how large their orders are."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.grid import move_off_round_number
from tests.support.markets.scenario import (
    BUYS_990,
    BUYS_990_980,
    LONG,
    SHORT,
    Changes,
    Scenario,
    flat,
    play,
)

STILL = [flat(1000.0)]
BOTH: Changes = {"allow_short": True}


def entry_levels(scene: Scenario, bar: int, side: int = LONG) -> list[float]:
    """Return the entry levels of the generation, whether or not an order rests there."""
    return scene.levels(bar, side)


def test_arithmetic_levels_are_equally_far_apart() -> None:
    scene = play(STILL, BOTH)
    assert entry_levels(scene, 1) == [990.0, 980.0, 970.0]
    assert entry_levels(scene, 1, SHORT) == [1010.0, 1020.0, 1030.0]
    assert scene.lattice(1) == [970.0, 980.0, 990.0, 1000.0, 1010.0, 1020.0, 1030.0]
    assert scene.lattice(1, SHORT) == scene.lattice(1)[::-1]


def test_geometric_levels_grow_by_a_ratio_and_go_to_the_tick_away_from_the_centre() -> None:
    scene = play(STILL, {**BOTH, "grid_mode": "geometric"})
    assert entry_levels(scene, 1) == [990.0, 980.2, 970.5]  # 990.099, 980.296, 970.590
    assert entry_levels(scene, 1, SHORT) == [1010.0, 1020.1, 1030.4]  # .., 1030.301
    assert scene.lattice(1) == [970.5, 980.2, 990.0, 1000.0, 1010.0, 1020.1, 1030.4]


def test_level_0_of_a_centre_off_the_tick_lies_above_it_for_longs_and_below_for_shorts() -> None:
    scene = play([flat(1000.04)], BOTH)
    assert [scene.lattice(1, side)[3] for side in (LONG, SHORT)] == [1000.1, 1000.0]
    assert entry_levels(scene, 1) == [990.0, 980.0, 970.0]  # 990.0396, 980.0392, 970.0388
    assert entry_levels(scene, 1, SHORT) == [1010.1, 1020.1, 1030.1]


def test_an_arithmetic_level_that_would_not_be_positive_does_not_exist() -> None:
    scene = play(STILL, {"spacing_floor": 0.4, "stop2_enabled": False})
    assert entry_levels(scene, 1) == [600.0, 200.0, 0.0]
    assert scene.entry_prices(1) == [600.0, 200.0]
    assert scene.lattice(1) == [0.0, 200.0, 600.0, 1000.0, 1400.0, 1800.0, 2200.0]


def test_levels_of_a_few_ticks_end_at_zero_and_do_not_begin_again() -> None:
    scene = play(
        [flat(0.3)],
        {"grid_levels": 5, "grid_mode": "geometric", "spacing_floor": 0.01},
        everywhere={"atr": 1e-4, "kama": 0.3},
    )
    assert entry_levels(scene, 1) == [0.2, 0.1, 0.0, 0.0, 0.0]  # 0.297, 0.294, 0.291 ...
    assert scene.lattice(1)[:6] == [0.0, 0.0, 0.0, 0.1, 0.2, 0.3]


@settings(max_examples=25, deadline=None)
@given(
    price=st.floats(1.5, 3000.0),
    pct=st.floats(0.0001, 0.05),
    nudge=st.sampled_from([0.0, 0.01]),
    tick=st.sampled_from([0.01, 0.1, 0.25]),
    mode=st.sampled_from(["geometric", "arithmetic"]),
)
def test_levels_are_on_the_tick_and_ordered_by_at_least_one(
    price: float, pct: float, nudge: float, tick: float, mode: str
) -> None:
    scene = play(
        [flat(price)],
        {
            **BOTH,
            "spacing_floor": pct,
            "fee_maker": 0.0,
            "round_number_nudge": nudge,
            "grid_mode": mode,
            "grid_levels": 6,
        },
        everywhere={"atr": 0.0, "regime": 0},
        rules={"tick_size": tick},
        warm=flat(price),
    )
    for side, sign in ((LONG, 1.0), (SHORT, -1.0)):
        entries = [level for level in entry_levels(scene, 1, side) if level > 0.0]
        exits = [level for level in scene.lattice(1, side) if level > 0.0]
        for nearer, farther in [*pairwise(entries), *pairwise(exits[::-1])]:
            assert sign * (nearer - farther) >= tick * (1.0 - 1e-9)
        for level in entries + exits:
            assert level / tick == pytest.approx(round(level / tick), abs=1e-6)
        assert all(sign * level < sign * price for level in entries)


def test_levels_at_round_numbers_move_away_from_the_centre_and_level_0_does_not() -> None:
    # 490, 480, 470 are multiples of 10: 489.265, 479.28, 469.295; 510.765, 520.78, 530.795.
    scene = play(
        [flat(500.0)], {"spacing_floor": 0.02, "round_number_nudge": 0.0015}, warm=flat(500.0)
    )
    assert entry_levels(scene, 1) == [489.2, 479.2, 469.2]
    assert scene.lattice(1) == [469.2, 479.2, 489.2, 500.0, 510.8, 520.8, 530.8]


@pytest.mark.parametrize(
    ("level", "moved"),
    [
        (990.0, True),
        (990.0 / 0.999, True),  # 0.10 % of itself above 990: the boundary belongs to it
        (990.0 / 1.001, True),
        (990.0 / 0.999 + 1e-6, False),
        (990.0 / 1.001 - 1e-6, False),
        (995.0, False),
    ],
)
def test_the_band_of_a_round_number_is_a_thousandth_of_the_level_inclusive(
    level: float, moved: bool
) -> None:
    below = move_off_round_number(level, 1000.0, 0.0015, 100.0)
    above = move_off_round_number(level, 900.0, 0.0015, 100.0)
    assert below == (level * (1.0 - 0.0015) if moved else level)
    assert above == (level * (1.0 + 0.0015) if moved else level)


def test_a_trend_narrows_the_entries_with_it_and_widens_the_ones_against_it() -> None:
    up = play(STILL, BOTH, everywhere={"regime": 1, "er": 0.4})
    assert entry_levels(up, 1) == [992.0, 984.0, 976.0]
    assert entry_levels(up, 1, SHORT) == [1014.0, 1028.0, 1042.0]
    down = play(STILL, BOTH, everywhere={"regime": -2, "er": 1.0})
    assert entry_levels(down, 1) == [980.0, 960.0, 940.0]
    assert entry_levels(down, 1, SHORT) == [1005.0, 1010.0, 1015.0]
    for scene in (up, down):
        assert scene.lattice(1) == [970.0, 980.0, 990.0, 1000.0, 1010.0, 1020.0, 1030.0]


def test_no_asymmetry_brings_entries_under_four_maker_fees() -> None:
    trend = {"regime": 1, "er": 0.4}
    assert entry_levels(play(STILL, {"fee_maker": 0.0021}, everywhere=trend), 1)[0] == 991.6
    assert entry_levels(play(STILL, {"fee_maker": 0.0019}, everywhere=trend), 1)[0] == 992.0


@pytest.mark.parametrize(
    ("rate", "long", "short"),
    [(0.0004, 988.0, 1008.4), (-0.0004, 991.6, 1012.0), (0.0003, 990.0, 1010.0)],
)
def test_funding_widens_the_side_that_pays_and_narrows_the_one_that_receives(
    rate: float, long: float, short: float
) -> None:
    changes: Changes = {**BOTH, "funding_bias_enabled": True, "spacing_floor": 0.01}
    scene = play(STILL, changes, funding={1: rate})
    assert entry_levels(scene, 1)[0] == long
    assert entry_levels(scene, 1, SHORT)[0] == short
    assert scene.lattice(1)[2:5] == [990.0, 1000.0, 1010.0]
    trend = play(STILL, changes, funding={1: rate}, everywhere={"regime": 1})
    assert entry_levels(trend, 1)[0] == 990.0


def test_a_full_long_grid_is_centred_lower_and_a_full_short_one_higher() -> None:
    skew: Changes = {
        **BOTH,
        "skew_enabled": True,
        "optimal_spread_enabled": False,
        "regen_drift_mult": 1.0,
        "max_position_pct": 0.1,
        "stop2_enabled": False,
    }
    wild = {"sigma": 0.01}
    long = play([BUYS_990, flat(985.0)], skew, everywhere=wild).side(2)
    equity = 10_000 - 0.19998 - 5.0 * 1.010
    used = 1.010 * 985.0 / (0.1 * equity)
    assert long.reference == 985.0
    assert long.centre == pytest.approx(985.0 * (1.0 - used * 0.5 * 0.01**2 * 96.0), rel=1e-12)
    sells_1010 = [(1000.0, 1016.0, 1000.0, 1015.0), flat(1015.0)]
    short = play(sells_1010, skew, everywhere=wild).side(2, SHORT)
    assert short.reference == 1015.0
    assert short.centre == pytest.approx(1015.0 * 1.0048, rel=1e-12)  # 1004.85 of a cap of 999.5
    empty = play(STILL, skew, everywhere=wild)
    assert [empty.side(1, side).centre for side in (LONG, SHORT)] == [1000.0, 1000.0]


def test_an_entry_rests_strictly_on_the_passive_side_of_the_price() -> None:
    # 990 is sold at 1000 in bar 2, so at bar 3 its level is armed and empty.
    rows = [BUYS_990, (985.0, 1000.1, 985.0, 989.9), flat(990.0), flat(990.1)]
    scene = play(rows)
    assert [scene.entry_prices(bar)[0] for bar in (3, 4)] == [980.0, 990.0]


def test_an_entry_that_rests_stays_although_the_price_has_reached_it() -> None:
    scene = play([(1000.0, 1000.0, 989.5, 989.5), flat(989.5)], {"fill_through_bps": 10.0})
    assert scene.records == []
    assert scene.entry_prices(2) == [990.0, 980.0, 970.0]


def test_the_quantity_of_an_order_stays_while_it_rests() -> None:
    rows = [BUYS_990, flat(985.0), (985.0, 1000.0, 985.0, 999.0), flat(999.0)]
    scene = play(rows)
    # Equity is 9994.7 at bar 2 and 10009.7 at bar 4: a new order at 980 would be 1.019 or 1.021.
    for bar in (1, 2, 4):
        assert scene.entries(bar)[-2:] == [(1, 980.0, 1.020), (2, 970.0, 1.030)]
    assert scene.entries(4)[0] == (0, 990.0, 1.011)


def test_an_order_too_small_after_its_scale_is_placed_at_the_minimum() -> None:
    # 150 at full scale, 75 at Kelly's half: under the minimum of 100, so 100 it is.
    small = play(
        STILL, {"initial_capital": 1500.0, "kelly_enabled": True}, rules={"min_notional": 100.0}
    )
    assert small.entries(1) == [(0, 990.0, 0.102), (1, 980.0, 0.103), (2, 970.0, 0.104)]
    assert not small.at(1).state.too_small
    large = play(
        STILL, {"initial_capital": 2500.0, "kelly_enabled": True}, rules={"min_notional": 100.0}
    )
    assert large.entries(1)[0] == (0, 990.0, 0.126)


def test_an_account_too_small_for_every_level_says_what_would_do() -> None:
    state = play(STILL, {"initial_capital": 900.0}, rules={"min_notional": 100.0}).at(1).state
    assert state.too_small
    assert state.capital_needed == pytest.approx(0.102 * 990.0 / 0.1)
    assert not play(STILL, rules={"min_notional": 100.0}).at(1).state.too_small


@settings(max_examples=25, deadline=None)
@given(
    price=st.floats(5.0, 5000.0),
    min_notional=st.floats(0.0, 200.0),
    step=st.sampled_from([0.001, 0.01, 1.0]),
    order_pct=st.floats(0.005, 0.3),
    leverage=st.sampled_from([1.0, 3.0, 20.0]),
    kelly=st.booleans(),
)
def test_the_capital_said_to_be_needed_suffices(
    price: float,
    min_notional: float,
    step: float,
    order_pct: float,
    leverage: float,
    *,
    kelly: bool,
) -> None:
    changes = {
        "order_pct": order_pct,
        "leverage": leverage,
        "kelly_enabled": kelly,
        "initial_capital": 1.0,
    }
    rules = {"min_notional": min_notional, "step_size": step, "min_qty": step}

    def first_step(capital: float) -> Scenario:
        more = {**changes, "initial_capital": capital}
        return play([flat(price)], more, rules=rules, warm=flat(price), everywhere={"atr": 0.0})

    poor = first_step(1.0)
    too_small = bool(poor.at(1).state.too_small)
    assert too_small == (poor.entries(1) == [])
    if too_small:
        needed = float(poor.at(1).state.capital_needed)
        assert first_step(needed).entries(1)[0][0] == 0
        poorer = first_step(max(1.0, 0.99 * needed))  # an account holds at least 1
        assert needed < 1.0 / 0.99 or all(level > 0 for level, _, _ in poorer.entries(1))


def test_thin_volume_cuts_the_cap() -> None:
    thin: Changes = {"max_position_pct": 0.35, "low_volume_threshold": 0.5}
    off: Changes = {"low_volume_threshold": 0.0}
    cases = [(0.49, {}), (0.5, {}), (0.49, off), (0.49, {"low_volume_factor": 0.3})]
    counts = [
        len(play(STILL, {**thin, **more}, everywhere={"volume_ratio": ratio}).entries(1))
        for ratio, more in cases
    ]
    assert counts == [2, 3, 3, 1]


def test_fills_and_resting_entries_together_stay_within_the_inventory_limit() -> None:
    scene = play([BUYS_990, flat(985.0)], {"max_inventory_per_side": 2})
    assert scene.entry_prices(1) == [990.0, 980.0]
    assert scene.entry_prices(2) == [980.0]


def test_position_and_resting_entries_together_stay_under_the_cap_of_the_side() -> None:
    scene = play([BUYS_990_980, flat(985.0)], {"max_position_pct": 0.25})
    assert scene.entry_prices(1) == [990.0, 980.0]
    assert scene.entry_prices(2) == []


def test_an_order_that_no_longer_fits_gives_way_although_it_rests() -> None:
    # At 985 position and orders are 2993.6 of 2998.4, at 995 they are 3003.7 of 3001.5.
    changes = {"max_position_pct": 0.3, "atr_sl_mult": 2.0}
    scene = play([BUYS_990, flat(985.0), flat(995.0)], changes)
    assert [scene.entry_prices(bar) for bar in (2, 3)] == [[980.0, 970.0], [980.0]]


def test_the_first_level_that_does_not_fit_ends_the_side() -> None:
    # 990 takes 999.9 and 980 only 999.6, but no level is skipped for its size.
    assert play(STILL, {"max_position_pct": 0.09997}).entry_prices(1) == []


@pytest.mark.parametrize(("pct", "shorts"), [(0.3, 0), (0.41, 1), (0.5, 2), (1.0, 3)])
def test_both_sides_share_the_capital_cap_long_first(pct: float, shorts: int) -> None:
    scene = play(STILL, {**BOTH, "max_capital_pct": pct})
    assert len(scene.entries(1)) == 3
    assert scene.entry_prices(1, SHORT) == [1010.0, 1020.0, 1030.0][:shorts]


def test_a_level_under_the_minimum_is_passed_over_and_the_next_one_rests() -> None:
    # Cut to lots, 10 % of equity is 999.9, 999.6, 999.1, 999.36, 999.4, 999.22 and 999.75.
    scene = play(
        STILL,
        {"grid_levels": 7, "max_inventory_per_side": 7, "stop2_enabled": False},
        rules={"min_notional": 999.5},
    )
    assert scene.entry_prices(1) == [990.0, 980.0, 930.0]


def test_no_entry_rests_beyond_the_stop_of_the_position_its_nearer_ones_would_make() -> None:
    five: Changes = {"grid_levels": 5, "max_inventory_per_side": 5}
    # 990, 980 and 970 average 979.93: their stop is 964.9, and 960 lies beyond it.
    assert play(STILL, five).entry_prices(1) == [990.0, 980.0, 970.0]
    open_ended = play(STILL, {**five, "stop2_enabled": False})
    assert open_ended.entry_prices(1) == [990.0, 980.0, 970.0, 960.0, 950.0]
    at_the_stop = play([BUYS_990, flat(985.0)], {"atr_sl_mult": 2.0 / 3.0})
    assert at_the_stop.stop(2) == 980.0
    assert at_the_stop.entry_prices(2)[0] == 980.0


def test_an_entry_that_a_nearer_stop_leaves_beyond_it_gives_way() -> None:
    # The stop lies 30 under the average while ATR is 20, then 15.
    five: Changes = {"grid_levels": 5, "max_inventory_per_side": 5}
    scene = play([BUYS_990, flat(985.0), flat(985.0)], five, at={1: {"atr": 20.0}})
    assert [scene.entry_prices(bar) for bar in (2, 3)] == [
        [980.0, 970.0, 960.0, 950.0],
        [980.0, 970.0],
    ]


def test_a_skew_that_leaves_no_positive_centre_leaves_no_levels() -> None:
    changes = {
        "skew_enabled": True,
        "gamma": 50.0,
        "as_time_horizon": 10_000.0,
        "optimal_spread_enabled": False,
        "regen_drift_mult": 1.0,
        "stop2_enabled": False,
        "round_number_nudge": 0.0015,
    }
    rows = [(1000.0, 1000.0, 985.0, 986.0), flat(950.0), flat(900.0), flat(900.0)]
    scene = play(rows, changes, everywhere={"sigma": 0.05})
    assert float(scene.side(3).centre) < 0.0
    assert scene.entries(3) == []
    assert scene.count("SELL_CLOSE_LONG") == 0
    assert len(scene.result["equity_curve"]) == len(rows) + 1
