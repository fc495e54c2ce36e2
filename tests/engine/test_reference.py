"""The oracle itself, against numbers worked out by hand.

The quiet market they run on is described in ``tests.engine.reference.scenarios``.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.reference.scenarios import (
    BAR_MS,
    BUYS_990,
    START,
    WARM,
    random_market,
    random_settlements,
    run,
    summary,
    trade_random,
)


def test_a_fresh_grid_rests_three_levels_of_a_tenth_of_equity_each() -> None:
    resting = run([WARM]).trace(1)
    assert resting["entries"]["LONG"] == [
        (-1, 990.0, 1.010),
        (-2, 980.0, 1.020),
        (-3, 970.0, 1.030),
    ]
    assert resting["entries"]["SHORT"] == []
    assert resting["wick_stops"]["LONG"] is None


def test_a_level_is_bought_sold_one_level_up_and_armed_again() -> None:
    result = run([(1000.0, 1000.0, 989.0, 995.0), (995.0, 1001.0, 995.0, 999.0), (999.0,) * 4])
    assert summary(result) == [
        (1, "BUY_OPEN_LONG", 990.0, 1.010),
        (2, "SELL_CLOSE_LONG", 1000.0, 1.010),
    ]
    holding, again = result.trace(2), result.trace(3)
    assert [level for level, _, _ in holding["entries"]["LONG"]] == [-2, -3]
    assert holding["take_profits"]["LONG"] == [(1000.0, 1.010)]
    assert holding["wick_stops"]["LONG"] == 975.0
    assert again["entries"]["LONG"][0] == (-1, 990.0, 1.011)  # 10009.698 * 0.1 / 990
    assert result.trades[1]["pnl"] == pytest.approx(10.1)
    # 10.1 gross, 0.02 % of 999.9 and of 1010 paid
    assert result.wallet[-1] == pytest.approx(10_000 + 10.1 - 0.19998 - 0.202, abs=1e-9)
    assert result.equity[1] == pytest.approx(10_000 - 0.19998 + 5 * 1.010, abs=1e-9)


def test_the_stop_moves_with_every_entry_inside_a_bar_and_then_closes_the_side() -> None:
    result = run([(1000.0, 1000.0, 960.0, 962.0), (962.0,) * 4])
    # average 2998.6 / 3.06 = 979.9346, less 15 = 964.9346, down to the tick
    assert summary(result) == [
        (1, "BUY_OPEN_LONG", 990.0, 1.010),
        (1, "BUY_OPEN_LONG", 980.0, 1.020),
        (1, "BUY_OPEN_LONG", 970.0, 1.030),
        (1, "STOP_LONG", 964.9, 1.010),
        (1, "STOP_LONG", 964.9, 1.020),
        (1, "STOP_LONG", 964.9, 1.030),
    ]
    assert result.counters["stops_long"] == 1
    assert [t["fill_id"] for t in result.trades] == [0, 1, 2, 0, 1, 2]
    assert result.trades[3]["fee"] == pytest.approx(0.0005 * 964.9 * 1.010)
    assert result.trace(2)["generations"]["LONG"].reference == 962.0


def test_a_bar_that_closes_lower_takes_profit_first_then_buys_and_stops() -> None:
    result = run([BUYS_990, (995.0, 1001.0, 955.0, 958.0)])
    # held then are 980 and 970: average 1998.7 / 2.05 = 974.9756, less 15, down to the tick
    assert summary(result)[1:] == [
        (2, "SELL_CLOSE_LONG", 1000.0, 1.010),
        (2, "BUY_OPEN_LONG", 980.0, 1.020),
        (2, "BUY_OPEN_LONG", 970.0, 1.030),
        (2, "STOP_LONG", 959.9, 1.020),
        (2, "STOP_LONG", 959.9, 1.030),
    ]


def test_a_bar_that_closes_higher_is_stopped_before_its_take_profit() -> None:
    result = run([BUYS_990, (995.0, 1001.0, 955.0, 996.0)])
    assert summary(result)[1:] == [
        (2, "BUY_OPEN_LONG", 980.0, 1.020),
        (2, "BUY_OPEN_LONG", 970.0, 1.030),
        (2, "STOP_LONG", 964.9, 1.010),
        (2, "STOP_LONG", 964.9, 1.020),
        (2, "STOP_LONG", 964.9, 1.030),
    ]


def test_a_gap_through_the_stop_fills_entries_at_their_price_and_the_stop_at_the_open() -> None:
    result = run([BUYS_990, (950.0,) * 4], {"slippage": 0.001})
    # sold at 950 less 0.1 % = 949.05, down to the tick
    assert summary(result)[1:] == [
        (2, "BUY_OPEN_LONG", 980.0, 1.020),
        (2, "BUY_OPEN_LONG", 970.0, 1.030),
        (2, "STOP_LONG", 949.0, 1.010),
        (2, "STOP_LONG", 949.0, 1.020),
        (2, "STOP_LONG", 949.0, 1.030),
    ]
    assert {t["ts_ms"] for t in result.trades[1:]} == {START + 2 * BAR_MS}
    assert [level[1] for level in result.trace(2)["entries"]["LONG"]] == [940.5, 931.0, 921.5]


def test_sub_bars_jump_a_gap_so_that_the_stop_fills_at_the_path_price() -> None:
    sub_bars = [(985.0,) * 4, (960.0,) * 4]
    result = run([BUYS_990, (985.0, 985.0, 960.0, 960.0)], detail={2: sub_bars})
    assert [row[1:3] for row in summary(result)[1:]] == [
        ("BUY_OPEN_LONG", 980.0),
        ("BUY_OPEN_LONG", 970.0),
        ("STOP_LONG", 960.0),
        ("STOP_LONG", 960.0),
        ("STOP_LONG", 960.0),
    ]


def test_a_ladder_sells_most_at_the_first_level_and_arms_it_again() -> None:
    result = run(
        [BUYS_990, (985.0, 1012.0, 985.0, 1005.0), (1005.0,) * 4], {"tp_concentration": 0.6}
    )
    # 1010 lots: 404 in two slices of 202, 606 first
    assert result.trace(2)["take_profits"]["LONG"] == [
        (1000.0, 0.606),
        (1010.0, 0.202),
        (1020.0, 0.202),
    ]
    assert summary(result)[1:3] == [
        (2, "SELL_CLOSE_LONG", 1000.0, 0.606),
        (2, "SELL_CLOSE_LONG", 1010.0, 0.202),
    ]
    # of 202 lots left 40.4 -> 40 each, 122 first; 80 % is closed, so the level is free
    assert result.trace(3)["take_profits"]["LONG"] == [
        (1010.0, 0.122),
        (1020.0, 0.040),
        (1030.0, 0.040),
    ]
    # 970 lies beyond the stop of 0.202 and 1.010 at 990 and 1.020 at 980: 985.43 - 15 -> 970.4
    assert [level for level, _, _ in result.trace(3)["entries"]["LONG"]] == [-1, -2]


def test_a_slice_under_the_minimum_quantity_joins_the_next_inner_one() -> None:
    result = run([BUYS_990, (985.0,) * 4], {"tp_concentration": 0.6}, market={"min_qty": 0.3})
    assert result.trace(2)["take_profits"]["LONG"] == [(1000.0, 0.606), (1010.0, 0.404)]


def test_a_fill_above_the_whole_lattice_is_offered_at_its_break_even() -> None:
    result = run(
        [(1000.0, 1000.0, 984.0, 985.0), (950.0,) * 4],
        {"stop2_enabled": False, "regen_drift_mult": 1.0, "max_inventory_per_side": 1},
    )
    # the grid is remade at 950, its exits end at 978.5; 990 * 1.0002 / 0.9998 = 990.396
    assert result.trace(2)["generations"]["LONG"].reference == 950.0
    assert result.trace(2)["take_profits"]["LONG"] == [(990.4, 1.010)]


def test_a_price_above_the_whole_lattice_is_followed_one_tick_away() -> None:
    result = run(
        [(1000.0, 1000.0, 890.0, 900.0), (1035.0,) * 4],
        {"stop2_enabled": False, "regen_drift_mult": 20.0, "fill_through_bps": 1000.0},
    )
    assert summary(result)[0] == (1, "BUY_OPEN_LONG", 990.0, 1.010)  # 891 was traded
    assert result.trace(2)["take_profits"]["LONG"] == [(1035.1, 1.010)]


def test_stage_1_sells_half_worst_fill_first_and_the_grid_moves() -> None:
    bars = [(1000.0, 1000.0, 972.0, 972.0), (973.0,) * 4, (973.0,) * 4]
    result = run(bars, {"stop1_enabled": True})
    # average 1999.5 / 2.03 = 984.98, C = 972 is more than 10 under it; half of 2030 lots is 1015
    assert summary(result)[2:4] == [(2, "STOP_LONG", 973.0, 1.010), (2, "STOP_LONG", 973.0, 0.005)]
    assert result.trace(2)["generations"]["LONG"].reference == 973.0
    assert result.counters["stops_long"] == 1


def test_a_halt_cancels_entries_and_leaves_take_profits_and_stops() -> None:
    result = run(
        [BUYS_990, (985.0,) * 4, (985.0,) * 4],
        {"circuit_breaker_enabled": True, "halt_z_threshold": -3.0},
        signals={1: {"z": -3.5}},
    )
    halted, resumed = result.trace(2), result.trace(3)
    assert summary(result)[1] == (2, "CIRCUIT_BREAKER_HALT", 985.0, 0.0)
    assert result.trades[1]["direction"] == ""
    assert halted["entries"]["LONG"] == []
    assert halted["take_profits"]["LONG"] == [(1000.0, 1.010)]
    assert halted["wick_stops"]["LONG"] == 975.0
    assert resumed["generations"]["LONG"].reference == 985.0


def test_funding_is_paid_after_matching_at_the_close_and_shrinks_with_the_fill() -> None:
    due = [(START + BAR_MS, 0.5), (START + 2 * BAR_MS, 0.001)]
    result = run([BUYS_990, (985.0,) * 4], funding=due)
    # nothing is held at the first; at the second 1.010 * 985 * 0.001
    assert result.wallet[1] == pytest.approx(10_000 - 0.19998 - 0.99485, abs=1e-9)
    assert result.trace(2)["funding_rate"] == 0.001


def test_liquidation_happens_where_equity_meets_maintenance() -> None:
    changes = {"leverage": 100.0, "grid_levels": 1, "stop2_enabled": False}
    result = run([BUYS_990, (985.0, 985.0, 850.0, 850.0), (850.0,) * 4], changes)
    # 101.010 at 990: 9980.00002 + 101.010 * (x - 990) = 1.0101 * x at x = 90019.89998 / 99.9999
    price = 90019.89998 / 99.9999
    assert result.trades[1]["label"] == "LIQUIDATION"
    assert result.trades[1]["price"] == pytest.approx(price, rel=1e-12)
    assert result.wallet[2] == pytest.approx(0.005 * 101.010 * price, rel=1e-9)
    assert result.counters["liquidations"] == 1
    assert result.trace(3)["entries"]["LONG"]


def test_a_liquidation_fee_above_equity_takes_all_and_ends_the_run() -> None:
    changes = {"leverage": 100.0, "grid_levels": 1, "stop2_enabled": False}
    bars = [BUYS_990, (985.0, 985.0, 850.0, 850.0), (850.0, 1100.0, 800.0, 1000.0)]
    result = run(bars, changes, market={"liquidation_fee": 0.05})
    assert result.equity[2:] == pytest.approx([0.0, 0.0], abs=1e-9)
    assert len(result.trades) == 2


def test_trailing_lifts_the_reference_halfway_to_the_price() -> None:
    trend = {"regime": 2, "er": 0.7}
    result = run(
        [WARM, (1040.0,) * 4],
        {"trailing_enabled": True, "regen_drift_mult": 1.0},
        signals={0: trend, 1: trend},
    )
    generation = result.trace(2)["generations"]["LONG"]
    assert generation.reference == 1020.0
    assert generation.entry_pct == pytest.approx(0.01 * 0.65)
    assert result.counters["trailing_shifts"] == 1


def test_what_is_open_at_the_end_is_closed_at_the_last_close() -> None:
    result = run([BUYS_990], {"slippage": 0.001})
    assert summary(result)[1:] == [(1, "CLOSE_END", 984.0, 1.010)]  # 984.015 down to the tick
    assert result.equity[-1] == result.wallet[-1]


MOVES = st.lists(
    st.tuples(
        *[st.integers(-150, 150)] * 2,
        *[st.integers(0, 200)] * 2,
        st.sampled_from([0, 0, 0, 1, 2, -1, -2]),
        st.integers(-4, 1),
    ),
    min_size=15,
    max_size=50,
)
SETTINGS = st.fixed_dictionaries(
    {
        "leverage": st.sampled_from([1.0, 3.0, 20.0, 100.0]),
        "grid_mode": st.sampled_from(["geometric", "arithmetic"]),
        "fill_through_bps": st.sampled_from([0.0, 5.0]),
        "stop2_enabled": st.booleans(),
        "tp_below_entry": st.booleans(),
        "max_drawdown_pct": st.sampled_from([0.15, 1.0]),
    }
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(moves=MOVES, changes=SETTINGS)
def test_trades_and_funding_reproduce_the_wallet(
    moves: list[tuple[int, ...]], changes: dict[str, Any]
) -> None:
    market = random_market(moves)
    result = trade_random(market, changes)
    booked = sum(t["pnl"] - t["fee"] for t in result.trades)
    for i, rate in random_settlements(market[0]).items():
        for t in result.trades:
            if t["bar"] < i and t["label"] != "CIRCUIT_BREAKER_HALT":
                side = 1.0 if t["direction"] == "LONG" else -1.0
                held = t["qty"] if "OPEN" in t["label"] else -t["qty"]
                booked -= side * held * market[0][i - 1][4] * rate
    assert result.wallet[-1] == pytest.approx(10_000 + booked, abs=1e-6)
    assert result.equity[-1] == pytest.approx(max(result.wallet[-1], 0.0), abs=1e-6)
    still_open: dict[int, float] = {}
    for trade in result.trades:
        sign = 1.0 if "OPEN" in trade["label"] else -1.0
        rest = still_open.get(trade["fill_id"], 0.0) + sign * trade["qty"]
        still_open[trade["fill_id"]] = rest
        assert rest > -1e-9
        if trade["label"] != "LIQUIDATION":
            assert trade["price"] * 10 == pytest.approx(round(trade["price"] * 10), abs=1e-6)
    assert all(abs(rest) < 1e-9 for rest in still_open.values())


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(moves=MOVES, changes=SETTINGS, data=st.data())
def test_no_decision_depends_on_a_later_candle(
    moves: list[tuple[int, ...]], changes: dict[str, Any], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(moves) - 1))
    bars, signals = random_market(moves)
    other = list(bars)
    for i in range(k, len(bars)):
        ts, first, high, low, _ = bars[i]
        other[i] = (ts, first if i == k else first + 7.0, high + 30.0, low - 30.0, first + 20.0)
    before = trade_random((bars, signals), changes)
    after = trade_random((other, signals), changes)
    for i in range(k + 1):
        assert before.steps.get(i) == after.steps.get(i)
    assert before.equity[:k] == after.equity[:k]
