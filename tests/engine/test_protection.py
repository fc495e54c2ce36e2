"""Protection of a grid: circuit breaker and two-stage stops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from config import PRESETS
from core.signals import compute_signals
from engine.strategy import GridStrategyV4, read_config
from tests.support.markets.scenario import (
    BUYS_990,
    BUYS_990_980,
    SHORT,
    Changes,
    candle_frame,
    flat,
    play,
)

BREAKER: Changes = {
    "circuit_breaker_enabled": True,
    "halt_z_threshold": -3.0,
    "resume_z_threshold": -1.0,
}
HALT = {1: {"z": -3.5}, 2: {"z": -2.0}, 3: {"z": -2.0}, 4: {"z": -2.0}}
"""Halts at step 2 and stays halted to the end of short scenarios."""
CRASH_BAR = 900


def crash_candles() -> pd.DataFrame:
    """Return 1,000 bars that swing gently; bar 900 falls by 8 %, twenty more by 0.2 % each."""
    bars = np.arange(1000)
    since = np.clip(bars - CRASH_BAR, 0, 20)
    level = np.where(bars < CRASH_BAR, 1.0, 0.92 * (1.0 - 0.002 * since))
    closes = 1000.0 * level * np.exp(0.003 * np.sin(bars / 3.0))
    opens = np.concatenate(([1000.0], closes[:-1]))
    high, low = np.maximum(opens, closes) * 1.002, np.minimum(opens, closes) * 0.998
    return candle_frame(list(zip(opens, high, low, closes, strict=True)))


class TestCircuitBreaker:
    """A z-score under the threshold stops what would buy into a crash or sell its bottom."""

    def test_halts_on_crash(self) -> None:
        """A crash halts the strategy through the real indicators until the z-score recovers."""
        candles = crash_candles()
        config = {**PRESETS["documented"], "regime_enabled": False, "allow_short": False}
        result = GridStrategyV4(config).run(candles)
        halts = [t for t in result["trades"] if t["label"] == "CIRCUIT_BREAKER_HALT"]
        assert [t["bar"] for t in halts] == [CRASH_BAR + 1]
        assert halts[0]["price"] == candles["open"][CRASH_BAR + 1]
        assert (halts[0]["qty"], halts[0]["direction"]) == (0.0, "")
        assert result["metrics"]["circuit_breaker_triggers"] == 1
        z = compute_signals(
            candles["timestamp"],
            candles["high"],
            candles["low"],
            candles["close"],
            candles["volume"],
            read_config(config),
        )["z"]
        resumed = CRASH_BAR + 2 + int(np.argmax(z[CRASH_BAR + 1 :] > -1.0))
        assert z[CRASH_BAR] < -3.0
        assert resumed > CRASH_BAR + 5

        def buys_while_down(trades: list[dict[str, Any]]) -> int:
            down = range(CRASH_BAR + 1, resumed)
            return sum(t["label"] == "BUY_OPEN_LONG" and t["bar"] in down for t in trades)

        unguarded = GridStrategyV4({**config, "circuit_breaker_enabled": False}).run(candles)
        assert buys_while_down(unguarded["trades"]) > 0
        assert buys_while_down(result["trades"]) == 0

    def test_halts_below_and_resumes_above_its_thresholds(self) -> None:
        """On a threshold nothing changes; the step after the bar reacts."""
        z_scores = (-3.0, -3.01, -3.5, -1.0, -0.99, 0.0)
        scene = play([flat(1000.0)] * 6, BREAKER, at={i: {"z": z} for i, z in enumerate(z_scores)})
        halted = [bool(scene.at(bar).state.halted) for bar in range(1, 7)]
        assert halted == [False, True, True, True, False, False]
        assert scene.records == [(2, "CIRCUIT_BREAKER_HALT", 1000.0, 0.0)]
        assert [len(scene.entries(bar)) for bar in (1, 2, 5)] == [3, 0, 3]

    def test_is_released_at_the_first_step_that_acts(self) -> None:
        """The z-score before the start does not halt it."""
        first_step = play(
            [flat(1000.0)] * 2, BREAKER, at={0: {"z": -9.0, "ready": False}, 1: {"z": -2.0}}
        )
        assert not first_step.at(2).state.halted
        assert first_step.count("CIRCUIT_BREAKER_HALT") == 0

    def test_a_halt_still_takes_profit(self) -> None:
        """The take-profit rests on and fills."""
        scene = play([BUYS_990, (985.0, 1001.0, 985.0, 999.0), flat(999.0)], BREAKER, at=HALT)
        assert scene.records[1:] == [
            (2, "CIRCUIT_BREAKER_HALT", 985.0, 0.0),
            (2, "SELL_CLOSE_LONG", 1000.0, 1.010),
        ]
        assert scene.entries(3) == []

    def test_a_halt_still_stops_at_the_wick(self) -> None:
        """The wick stop rests on, without the entries it would have moved with."""
        scene = play([BUYS_990, (985.0, 985.0, 960.0, 962.0)], BREAKER, at=HALT)
        assert scene.records[1:] == [
            (2, "CIRCUIT_BREAKER_HALT", 985.0, 0.0),
            (2, "STOP_LONG", 975.0, 1.010),
        ]

    def test_a_halt_still_pays_funding_and_liquidates(self) -> None:
        """Both happen at the exchange, whatever the strategy does."""
        held = play([BUYS_990, flat(985.0)], BREAKER, at=HALT, funding={3: 0.001})
        assert held.result["log"]["funding"][2] == pytest.approx(-1.010 * 985.0 * 0.001)
        ruin = {**BREAKER, "leverage": 100.0, "grid_levels": 1, "stop2_enabled": False}
        assert play([BUYS_990, (985.0, 985.0, 850.0, 850.0)], ruin, at=HALT).count("LIQUIDATION")

    @pytest.mark.parametrize(
        ("label", "changes"),
        [
            ("STOP_LONG", {"stop1_enabled": True, "stop2_enabled": False}),
            ("PRUNE_GAP", {"prune_enabled": ("GAP",), "gap_prune_mult": 1.0}),
            ("PRUNE_VAR_WARNING", {"var_deleverage_enabled": True, "max_drawdown_pct": 0.001}),
        ],
    )
    def test_a_halt_does_not_sell_the_bottom(self, label: str, changes: Changes) -> None:
        """Stage 1, pruning and de-leverage wait for the end of the halt."""
        rows = [(1000.0, 1000.0, 976.0, 976.0), flat(976.0), flat(976.0)]
        quiet = {**changes, "atr_sl_mult": 0.8 if label == "STOP_LONG" else 2.0}
        assert play(rows, quiet).records[2][:2] == (2, label)
        halted = play(rows, {**quiet, **BREAKER}, at={1: {"z": -3.5}, 2: {"z": -0.5}})
        assert [r[:2] for r in halted.records[2:4]] == [(2, "CIRCUIT_BREAKER_HALT"), (3, label)]


STAGE1: Changes = {"stop1_enabled": True}


def test_stage_1_sells_half_worst_fill_first_once_until_the_side_is_flat() -> None:
    rows = [(1000.0, 1000.0, 972.0, 972.0), *[flat(973.0)] * 3]
    scene = play(rows, STAGE1)
    # 990 and 980 average 984.98: 972 is more than 10 under it. Half of 2030 lots is 1015.
    assert scene.records[2:] == [(2, "STOP_LONG", 973.0, 1.010), (2, "STOP_LONG", 973.0, 0.005)]
    assert [t["fill_id"] for t in scene.trades[2:4]] == [0, 1]
    assert scene.metrics["stops_long"] == 1
    assert scene.side(4).stage1_done


def test_stage_1_may_come_again_after_the_side_was_flat() -> None:
    # 979 is more than 10 under 990; the next grid, at 979, buys 969.2, and 957.5 is 11.7 under it.
    rows = [
        (1000.0, 1000.0, 979.0, 979.0),
        flat(979.0),
        (979.0, 979.0, 968.0, 968.0),
        (968.0, 968.0, 957.5, 957.5),
        flat(957.5),
    ]
    scene = play(rows, {**STAGE1, "grid_levels": 1})
    assert [r[:2] for r in scene.records] == [
        (1, "BUY_OPEN_LONG"),
        (2, "STOP_LONG"),
        (3, "BUY_OPEN_LONG"),
        (5, "STOP_LONG"),
    ]
    assert scene.metrics["stops_long"] == 2


def test_stage_1_is_judged_on_the_close_and_not_on_the_wick() -> None:
    one: Changes = {**STAGE1, "grid_levels": 1}
    wick = play([BUYS_990, (985.0, 985.0, 976.0, 985.0), flat(980.0)], one)
    at_the_distance = play([(1000.0, 1000.0, 979.9, 980.0), flat(979.9)], one)
    assert wick.count("STOP_LONG") == at_the_distance.count("STOP_LONG") == 0
    past_it = play([(1000.0, 1000.0, 979.9, 979.9), flat(980.5)], one)
    assert past_it.records[1] == (2, "STOP_LONG", 980.5, 1.010)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_stage_1_closes_everything_where_a_part_would_be_under_the_minimum(share: float) -> None:
    rows = [(1000.0, 1000.0, 972.0, 972.0), flat(973.0)]
    changes = {**STAGE1, "stop1_close_pct": share}
    scene = play(rows, changes, rules={"min_qty": 1.0, "step_size": 0.01})
    assert [r[2:] for r in scene.records[2:]] == [(973.0, 1.01), (973.0, 1.02)]


def test_the_wick_stop_covers_a_side_from_its_first_fill_and_moves_with_every_entry() -> None:
    scene = play([(1000.0, 1000.0, 960.0, 962.0), flat(962.0)])
    # The average of the three is 979.9346; less 15, down to the tick.
    assert [r[1:] for r in scene.records] == [
        ("BUY_OPEN_LONG", 990.0, 1.010),
        ("BUY_OPEN_LONG", 980.0, 1.020),
        ("BUY_OPEN_LONG", 970.0, 1.030),
        ("STOP_LONG", 964.9, 1.010),
        ("STOP_LONG", 964.9, 1.020),
        ("STOP_LONG", 964.9, 1.030),
    ]
    assert scene.metrics["stops_long"] == 1
    assert scene.trades[3]["fee"] == pytest.approx(0.0005 * 964.9 * 1.010)


def test_the_wick_stop_fills_at_the_open_after_a_gap() -> None:
    scene = play([BUYS_990, flat(950.0)], {"slippage": 0.001})
    # 980 and 970 are bought on the way; 950 less 0.1 % is 949.05, down to the tick.
    assert [r[1:3] for r in scene.records[1:]] == [
        ("BUY_OPEN_LONG", 980.0),
        ("BUY_OPEN_LONG", 970.0),
        *[("STOP_LONG", 949.0)] * 3,
    ]
    assert scene.side(2).reference == 950.0


def test_a_take_profit_leaves_the_wick_stop_where_it_is_until_the_next_step() -> None:
    # 990 and 980 average 984.98, stop 969.9. Inside bar 2 the 980 goes at 990; the 990 alone
    # would be stopped at 975, but 972 touches nothing. At step 3 975 is passed: sold at 973.
    scene = play([BUYS_990_980, (985.0, 991.0, 972.0, 973.0), flat(973.0)])
    assert scene.stop(2) == 969.9
    assert scene.records[2:] == [
        (2, "SELL_CLOSE_LONG", 990.0, 1.020),
        (3, "STOP_LONG", 973.0, 1.010),
    ]


def test_after_a_stop_its_sides_orders_are_gone_for_the_bar_and_the_other_side_trades_on() -> None:
    rows = [BUYS_990, (985.0, 1025.0, 955.0, 1000.0), flat(1000.0)]
    scene = play(rows, {"allow_short": True, "intrabar_path": "low_first", "grid_levels": 2})
    assert [r[1] for r in scene.records if r[0] == 2] == [
        "BUY_OPEN_LONG",
        "STOP_LONG",
        "STOP_LONG",
        "SELL_OPEN_SHORT",
        "SELL_OPEN_SHORT",
    ]
    assert scene.take_profits(3) == {}


def test_a_stop_cancels_entries_that_the_path_has_not_gone_through_yet() -> None:
    # 970 would fill at 969.03, a thousandth beyond it; the stop at 969.9 comes first.
    scene = play([BUYS_990_980, (985.0, 985.0, 960.0, 962.0)], {"fill_through_bps": 10.0})
    assert scene.entry_prices(2) == [970.0]
    assert [r[1:3] for r in scene.records[2:]] == [("STOP_LONG", 969.9)] * 2


@pytest.mark.parametrize(("atr", "stop"), [(5.0, 975.0), (10.0, 975.0), (20.0, 960.0)])
def test_the_stop_unit_is_the_larger_of_atr_and_the_generations_exit_spacing(
    atr: float, stop: float
) -> None:
    assert play([BUYS_990, flat(985.0)], at={1: {"atr": atr}}).stop(2) == stop


def test_a_wider_grid_spacing_k_does_not_widen_the_stop_in_calm_markets() -> None:
    scene = play(
        [flat(1000.0), (1000.0, 1000.0, 975.0, 980.0), flat(980.0)],
        {"grid_spacing_k": 4.0, "spacing_floor": 0.02},
    )
    assert scene.entry_prices(1)[0] == 980.0
    assert scene.side(1).stop_floor == pytest.approx(5.0)
    assert scene.stop(3) == 972.5


@pytest.mark.parametrize(("second", "scale"), [(50, 0.5), (51, 1.0)])
def test_two_stop_events_within_48_bars_halve_orders_for_48_bars(second: int, scale: float) -> None:
    # Odd bars lie two tenths of a spacing higher, so that every step lays out and sizes anew.
    rows = [
        (1000.0, 1000.0, 970.0, 1000.0) if i in {2, second} else flat(1000.0 + 2.0 * (i % 2))
        for i in range(1, second + 50)
    ]
    scene = play(rows, {"grid_levels": 1, "stop_cooldown_enabled": True, "regen_drift_mult": 0.1})
    assert scene.metrics["stops_long"] == 2

    def size(bar: int) -> float:
        (_, price, qty), *_ = scene.entries(bar)
        return price * qty / (0.1 * float(scene.at(bar).state.wallet))

    sizes = [size(bar) for bar in (second, second + 1, second + 48, second + 49)]
    assert sizes == pytest.approx([1.0, scale, scale, 1.0], abs=0.002)


def test_a_stop_of_several_fills_is_one_event_and_both_sides_count_together() -> None:
    cooling: Changes = {"stop_cooldown_enabled": True, "allow_short": True}
    falls, rises = (1000.0, 1000.0, 960.0, 1000.0), (1000.0, 1040.0, 1000.0, 1000.0)
    once = play([falls, flat(1000.0)], cooling)
    assert (once.count("STOP_LONG"), once.metrics["stops_long"]) == (3, 1)
    assert once.entries(2)[0][2] > 1.0
    both = play([falls, rises, flat(1000.0)], cooling)
    assert (both.metrics["stops_long"], both.metrics["stops_short"]) == (1, 1)
    assert both.entries(3, SHORT)[0][2] < 0.51
    assert both.entries(3)[0][2] > 1.0  # it rested before the second stop
