"""Worked by hand: time, liquidation, funding, refusals and figures of the fixed grid.

Unless an example says otherwise: one order of 1 unit, take-profit and grid step 1 %, stop 5 %,
p = 1000 at the first step, tick 0.1. So the first entry lies at 999.9; filled, T = 1009.9 (of
1009.899) and S = 949.9 (of 949.905). Minute i is bar i.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.fixed_grid_reference import run_fixed_grid
from tests.engine.fixed_grid_reference.params import Params, load_warnings, reachable_stuck_distance
from tests.engine.fixed_grid_reference.scenarios import (
    ENTRY,
    FILLED,
    MARKET,
    MINUTE_MS,
    QUIET,
    START,
    STUCK,
    Book,
    columns,
    flat,
    path,
    summary,
    trade,
)

# Steps and candles.


def without(rows: list[list[Any]], *missing: int) -> list[list[Any]]:
    """Return columns without some rows."""
    return [[x for i, x in enumerate(column) if i not in missing] for column in rows]


def test_a_hole_is_walked_as_one_candle_with_one_step_at_its_open() -> None:
    candles = flat(1000.0, 15) + path(*[1000.0 - i for i in range(16)]) + flat(985.0, 15)
    whole = run_fixed_grid(columns(candles), {**QUIET, "max_orders": 5}, MARKET)
    assert [r["bar"] for r in whole.records][:2] == [15, 24]
    holed = run_fixed_grid(without(columns(candles), 20), {**QUIET, "max_orders": 5}, MARKET)
    # One step in the hole (at 1000): 990.0 is not laid before the next quarter begins.
    assert [r["timestamp"] for r in holed.records][:1] == [START + 15 * MINUTE_MS]
    assert [(r["bar"], r["price"]) for r in holed.records if r["label"] == "BUY_OPEN_LONG"] == [
        (15, 999.9)
    ]
    assert len(holed.equity) == len(holed.bars) == 15 + 1 + 15
    assert holed.counters["holes"] == 1
    assert holed.counters["steps"] == 31


def test_a_hole_with_a_candle_of_its_own_is_walked_over_that_one() -> None:
    rows = without(columns(flat(1000.0, 45)), *range(17, 30))
    quarter = columns([(1000.0, 1000.0, 990.0, 995.0)], 15 * MINUTE_MS, START + 15 * MINUTE_MS)
    run = run_fixed_grid(rows, {**QUIET}, MARKET, quarter_candles=quarter)
    assert [(r["timestamp"], r["label"], r["price"]) for r in run.records][:1] == [
        (START + 15 * MINUTE_MS, "BUY_OPEN_LONG", 999.9)
    ]
    empty = without(columns(flat(1000.0, 45)), *range(15, 30))
    assert len(run_fixed_grid(empty, {**QUIET}, MARKET, quarter_candles=quarter).records) == 2
    assert run_fixed_grid(empty, {**QUIET}, MARKET).records == []


def test_steps_of_five_minutes_walk_five_candles_and_rules_read_the_step() -> None:
    book = Book()
    candles = [*flat(1000.0, 2), (1000.0, 1000.0, 999.0, 999.0), *flat(999.0, 12)]
    run = run_fixed_grid(
        columns(candles),
        {**QUIET, "step_s": 300, "wait_time": 300.0, "max_orders": 2},
        MARKET,
        observer=book,
    )
    entry = run.records[0]
    assert (entry["bar"], entry["timestamp"]) == (2, START + 2 * MINUTE_MS)
    # Filled in the step of minute 0; d = 1/2: 300 s have passed at minute 5.
    assert book.entries == [999.9, 990.0, 990.0]


def test_candles_coarser_than_a_step_are_refused() -> None:
    with pytest.raises(ValueError, match="step_s=900"):
        run_fixed_grid(columns(flat(1000.0, 3), 15 * MINUTE_MS), QUIET, MARKET)
    run = run_fixed_grid(
        columns([FILLED, *flat(999.0)], 15 * MINUTE_MS), {**QUIET, "step_s": 900}, MARKET
    )
    assert summary(run) == [ENTRY]


# Liquidation and funding.


def test_a_liquidation_at_a_step_closes_all_and_no_entry_is_laid() -> None:
    book = Book()
    # 5 units at 999.9 with 500 of capital and leverage 20; maintenance 1 % of 4525 = 45.25:
    # equity at 905 = 500 - 1.0 - 474.5 = 24.5 is under it.
    run = trade(
        [FILLED, *flat(905.0, 2)],
        book,
        stop_loss_enabled=False,
        quantity=5.0,
        initial_capital=500.0,
        leverage=20.0,
    )
    record = run.records[1]
    assert (record["bar"], record["label"], record["price"]) == (1, "LIQUIDATION", 905.0)
    assert record["fee"] == pytest.approx(500.0 - 0.99990 - 474.5)
    assert book.entries == [999.9, None]
    assert run.equity[1:] == [pytest.approx(0.0, abs=1e-9)] * 14


def test_what_a_liquidation_leaves_trades_on_from_the_next_step() -> None:
    book = Book()
    # At 909.1 equity is 499.0001 - 454 = 45.0001, maintenance 45.455; without a fee it stays, and
    # 5 * 909 / 125 = 36.36 of margin fits.
    trade(
        [FILLED, *flat(909.1, 2)],
        book,
        stop_loss_enabled=False,
        quantity=5.0,
        initial_capital=500.0,
        leverage=125.0,
        market={"liquidation_fee": 0.0},
    )
    assert book.entries[:3] == [999.9, None, 909.0]


def test_a_liquidation_inside_a_bar_happens_where_margin_runs_out() -> None:
    run = trade(
        [FILLED, *path(999.0, 880.0)],
        stop_loss_enabled=False,
        quantity=5.0,
        initial_capital=600.0,
        leverage=20.0,
    )
    record = run.records[1]
    # 600 - 0.9999 + 5*(x - 999.9) = 0.01*5*x  ->  x = 4400.4999 / 4.95
    assert record["label"] == "LIQUIDATION"
    assert record["price"] == pytest.approx(4400.4999 / 4.95)


def test_funding_is_paid_by_both_legs_at_the_close() -> None:
    due = [(START + 2 * MINUTE_MS, 0.001), (START + 8 * MINUTE_MS + 5, 0.001)]
    run = trade([*STUCK, *flat(985.0, 8)], funding=due, recovery_mode="hedge")
    # At minute 2 the long pays 999 * 0.001 (C of minute 1); at minute 8 both legs balance.
    assert run.funding == pytest.approx(-0.999)
    assert run.wallet[1] - run.wallet[0] == pytest.approx(-0.999)


# What is refused, and what is said at load.


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"direction": "both"}, "direction"),
        ({"quantity": 1.0, "quantity_usd": 100.0}, "exactly one"),
        ({"quantity": 0.0, "quantity_usd": 0.0}, "exactly one"),
        ({"quantity": 0.25}, "off the lot"),
        ({"market": {"min_notional": 1100.0}}, "under the exchange's minimum"),
        ({"take_profit": 0.0004}, "2 \\* fee_maker"),
        ({"take_profit": float("nan")}, "finite"),
        ({"max_margin_usd": float("inf")}, "finite"),
        ({"grid_step": "0.01"}, "finite"),
        ({"max_margin_usd": 999.0}, "under one order's"),
        ({"stop_loss_pct": 0.4}, "outside"),
        ({"stop_loss_pct": 10.1}, "outside"),
        ({"position_timeout_min": 4.0}, "outside"),
        ({"ladder_pct": (3.0, 2.0)}, "rising"),
        ({"ladder_pct": (2.0, 2.0)}, "rising"),
        ({"step_s": 61}, "step_s"),
        ({"stop_price": 1001.0}, "beyond it"),
        ({"grid_levels": 5}, "grid_levels"),
        ({"recovery_mode": "martingale"}, "recovery_mode"),
        ({"max_stop_orders": 10}, "outside"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match) as refused:
        trade(flat(1000.0), **changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "candles",
    [
        [[START, START], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]],
        [[START], [1.0], [float("nan")], [1.0], [1.0]],
        [[START], [2.0], [1.0], [1.0], [1.0]],
        [[], [], [], [], []],
        [[START + 1], [1.0], [1.0], [1.0], [1.0]],
    ],
)
def test_bad_candles_are_refused(candles: list[list[Any]]) -> None:
    with pytest.raises(ValueError, match="candle"):
        run_fixed_grid(candles, QUIET, MARKET)


def test_recovery_that_no_position_can_reach_is_said_with_both_numbers() -> None:
    original = Params.from_mapping({"stop_loss_pct": 2.0})
    assert reachable_stuck_distance(original) == pytest.approx(2.7778, abs=1e-4)
    assert any("3.0" in line and "2.778" in line for line in load_warnings(original))
    assert not any("recovery" in line for line in load_warnings(Params()))
    sold = Params.from_mapping({"direction": "sell"})
    assert reachable_stuck_distance(sold) == pytest.approx(100.0 * 0.058 / 0.992)
    assert any(
        "capital" in w
        for w in load_warnings(Params.from_mapping({"leverage": 2.0, "max_margin_usd": 10_001.0}))
    )


# Metrics and health.


def test_figures_of_a_small_run() -> None:
    run = trade([FILLED, *path(999.0, 1010.0), *path(1010.0, 1009.0), *path(1009.0, 950.0)])
    # One win of 10 - 0.40196; then 1009.9 is bought and 959.4 stops it (959.405).
    assert summary(run) == [
        ENTRY,
        (1, "SELL_CLOSE_LONG", 1009.9, 1.0),
        (2, "BUY_OPEN_LONG", 1009.9, 1.0),
        (3, "STOP_LONG", 959.4, 1.0),
    ]
    win, loss = 10.0 - 0.00020 * 2009.8, 50.5 + 0.0002 * 1009.9 + 0.0005 * 959.4
    figures = run.metrics
    assert figures["total_trades"] == 2
    assert figures["win_rate_pct"] == 50.0
    assert figures["gross_profit"] == pytest.approx(win)
    assert figures["gross_loss"] == pytest.approx(loss)
    assert figures["profit_factor"] == pytest.approx(win / loss)
    mean = 50.0 * (win / 999.9 - loss / 1009.9)
    assert figures["average_profit_per_trade_pct"] == pytest.approx(mean)
    assert figures["hold_minutes_median"] == 1.0
    assert figures["turnover"] == pytest.approx((999.9 + 2 * 1009.9 + 959.4) / 1e6)
    assert figures["exposure_pct"] == pytest.approx(100.0 * 2 / 15)
    assert figures["longs_opened"] == 2
    assert figures["longs_closed"] == 1
    assert figures["long_exits"] == 2
    assert figures["margin_utilization_max"] == pytest.approx(1009.9 / 1e6)
    assert figures["final_capital"] == pytest.approx(1e6 + win - loss)


def test_health_goes_with_the_loss_and_the_stage() -> None:
    levels: list[str] = []
    # 2.5 % loss: 974.9; 3.75 %: 962.4; half of the timeout of 1440 minutes is far
    trade(
        [FILLED, *flat(999.0), *flat(974.9), *flat(962.4), *flat(975.0)],
        lambda account, _: levels.append(account.health),
        position_timeout_min=1440.0,
        max_orders=30,
    )
    assert levels[:5] == ["HEALTHY", "HEALTHY", "WARNING", "CRITICAL", "HEALTHY"]
    stuck: list[str] = []
    trade(STUCK, lambda account, _: stuck.append(account.health), max_orders=30)
    assert stuck[1:8] == ["HEALTHY", "HEALTHY", "WARNING", "WARNING", "WARNING", *["CRITICAL"] * 2]
