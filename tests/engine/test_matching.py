"""The bar walk: what fills first, at which price, for which fee; and the slow walker's verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.market.demo import DEMO_START_MS, demo_market
from config import PRESETS
from core.market import MarketRules
from engine.strategy import GridStrategyV4
from tests.engine.reference.scenarios import BAR_MS, START, Ohlc
from tests.support.markets.oracle import first_difference, run_both
from tests.support.markets.scenario import (
    BUYS_990,
    BUYS_990_980,
    SHORT_ONLY,
    Changes,
    candle_frame,
    flat,
    play,
)

SELL_990 = ("SELL_CLOSE_LONG", 1000.0)
BUY_980, BUY_970 = ("BUY_OPEN_LONG", 980.0), ("BUY_OPEN_LONG", 970.0)
HIGH_FIRST = [SELL_990, BUY_980, BUY_970, ("STOP_LONG", 959.9), ("STOP_LONG", 959.9)]
"""980 and 970 average 974.98: stopped 15 lower."""
LOW_FIRST = [BUY_980, BUY_970, *[("STOP_LONG", 964.9)] * 3]
"""990, 980 and 970 average 979.93."""


@pytest.mark.parametrize(
    ("path", "close", "expected"),
    [
        ("auto", 958.0, HIGH_FIRST),
        ("auto", 996.0, LOW_FIRST),
        ("auto", 995.0, LOW_FIRST),  # closes where it opened
        ("low_first", 958.0, LOW_FIRST),
        ("high_first", 996.0, HIGH_FIRST),
    ],
)
def test_the_path_decides_whether_profit_or_loss_comes_first(
    path: str, close: float, expected: list[tuple[str, float]]
) -> None:
    scene = play([BUYS_990, (995.0, 1001.0, 955.0, close)], {"intrabar_path": path})
    assert [r[1:3] for r in scene.records[1:]] == expected


def test_a_limit_fills_when_the_path_touches_its_price() -> None:
    assert play([(1000.0, 1000.0, 990.0, 995.0)]).count("BUY_OPEN_LONG") == 1
    assert play([(1000.0, 1000.0, 990.1, 995.0)]).count("BUY_OPEN_LONG") == 0


@pytest.mark.parametrize(
    ("low", "high", "filled"),
    [(989.1, 1011.0, []), (989.0, 1011.0, [990.0]), (989.1, 1011.1, [1010.0])],
)
def test_fill_through_demands_more_of_the_path_and_gives_no_better_price(
    low: float, high: float, filled: list[float]
) -> None:
    # 10 basis points beyond 990 and 1010 are 989.01 and 1011.01.
    scene = play([(1000.0, high, low, 1000.0)], {"fill_through_bps": 10.0, "allow_short": True})
    assert [r[2] for r in scene.records] == filled


def test_fill_through_holds_for_take_profits_too() -> None:
    rows = [BUYS_990, (985.0, 1000.9, 985.0, 999.0), (999.0, 1001.0, 999.0, 999.0)]
    assert play(rows).records[1][0] == 2
    assert play(rows, {"fill_through_bps": 10.0}).records[1] == (
        3,
        "SELL_CLOSE_LONG",
        1000.0,
        1.010,
    )


def test_fill_through_ticks_demands_whole_ticks_more() -> None:
    fills = [
        play([(1000.0, 1000.0, low, 995.0)], {"fill_through_ticks": 2}).count("BUY_OPEN_LONG")
        for low in (989.9, 989.8)
    ]
    assert fills == [0, 1]


REFUSE: Changes = {"refuse_first_touch": True}
TOUCHES_990: Ohlc = (1000.0, 1000.0, 989.0, 995.0)
BUYS_THEN_TOUCHES_1000 = [TOUCHES_990, (995.0, 995.0, 989.0, 995.0), (995.0, 1000.5, 995.0, 999.0)]


def test_the_bar_that_first_reaches_a_limit_may_refuse_it() -> None:
    again = (999.0, 1001.0, 999.0, 1000.0)
    scene = play([*BUYS_THEN_TOUCHES_1000, again], REFUSE)
    assert scene.records == [
        (2, "BUY_OPEN_LONG", 990.0, 1.010),
        (4, "SELL_CLOSE_LONG", 1000.0, 1.010),
    ]
    twice = [(1000.0, 1000.0, 989.0, 995.0), (995.0, 995.0, 988.0, 995.0)]
    assert play([(1000.0, 1000.0, 988.0, 995.0)], REFUSE, detail={1: twice}).records == []


def test_a_gap_fills_a_limit_that_an_earlier_bar_refused() -> None:
    scene = play([*BUYS_THEN_TOUCHES_1000, flat(1005.0), flat(1005.0)], REFUSE)
    assert scene.records[1:] == [(4, "SELL_CLOSE_LONG", 1000.0, 1.010)]


def test_a_bar_at_one_price_fills_a_refused_buy_that_rests_above_it() -> None:
    scene = play([TOUCHES_990, flat(985.0), flat(985.0)], REFUSE)
    assert scene.records == [(2, "BUY_OPEN_LONG", 990.0, 1.010)]


def test_a_gap_fills_limits_at_their_price_in_the_name_of_the_new_bar() -> None:
    down = play([flat(1000.0), flat(975.0)], {"stop2_enabled": False})
    assert down.records == [(2, "BUY_OPEN_LONG", 990.0, 1.010), (2, "BUY_OPEN_LONG", 980.0, 1.020)]
    assert down.trades[0]["timestamp"] == START + 2 * BAR_MS
    up = play([BUYS_990_980, flat(985.0), flat(1020.0)])
    assert [r[:3] for r in up.records[2:]] == [
        (3, "SELL_CLOSE_LONG", 990.0),
        (3, "SELL_CLOSE_LONG", 1000.0),
    ]


def test_a_gap_meets_the_book_of_the_step_before() -> None:
    # The uptrend of step 2 keeps shorts out, but theirs of step 1 fill on the way to its open.
    scene = play([flat(1000.0), flat(1015.0)], {"allow_short": True}, at={1: {"regime": 1}})
    assert scene.records == [(2, "SELL_OPEN_SHORT", 1010.0, 0.990)]
    assert scene.trades[0]["regime"] == "UPTREND"


def test_at_the_same_price_a_take_profit_comes_before_an_entry() -> None:
    # Short at 1010, three fifths bought back at 1000, the next slice at 990: where a long rests.
    both: Changes = {"allow_short": True, "tp_concentration": 0.6}
    rows = [(1000.0, 1011.0, 1000.0, 1005.0), (1005.0, 1005.0, 990.0, 995.0)]
    assert [r[1:3] for r in play(rows, both).records if r[0] == 2] == [
        ("BUY_CLOSE_SHORT", 1000.0),
        ("BUY_CLOSE_SHORT", 990.0),
        ("BUY_OPEN_LONG", 990.0),
    ]


def test_at_the_same_price_an_entry_comes_before_the_stop_it_moves() -> None:
    # The stop of the fill at 990 lies 10 under it, on the level 980.
    changes = {"atr_sl_mult": 2.0 / 3.0}
    scene = play([BUYS_990, (985.0, 985.0, 980.0, 981.0), flat(981.0)], changes)
    assert scene.stop(2) == 980.0
    assert [r[1] for r in scene.records] == ["BUY_OPEN_LONG", "BUY_OPEN_LONG"]
    assert scene.stop(3) == 974.9


def test_limits_pay_the_maker_fee_and_market_exits_the_taker_fee() -> None:
    rows = [BUYS_990, (985.0, 1000.0, 985.0, 999.0), (999.0, 999.0, 989.0, 995.0)]
    fees = [trade["fee"] for trade in play(rows, {"fee_maker": 0.0001}).trades]
    assert fees == pytest.approx(
        [
            0.0001 * 990.0 * 1.010,
            0.0001 * 1000.0 * 1.010,
            0.0001 * 990.0 * 1.011,
            0.0005 * 995.0 * 1.011,
        ]
    )


def test_slippage_goes_against_us_to_the_tick() -> None:
    changes: Changes = {"slippage": 0.0005, "allow_short": True}
    long = play([BUYS_990], changes)
    assert long.trades[-1]["label"] == "CLOSE_END"
    assert long.trades[-1]["price"] == 984.5  # 985 * 0.9995 = 984.5075
    short = play([(1000.0, 1016.0, 1000.0, 1015.0)], changes, everywhere=SHORT_ONLY)
    assert short.trades[-1]["price"] == 1015.6  # 1015 * 1.0005 = 1015.5075
    stopped = play([(1000.0, 1000.0, 960.0, 962.0)], changes)
    assert stopped.records[-1][1:3] == ("STOP_LONG", 964.4)  # 964.9 * 0.9995 = 964.41755
    worst_first = play([BUYS_990_980], changes).trades[-2:]
    assert [trade["fill_id"] for trade in worst_first] == [0, 1]
    assert play([BUYS_990], {**changes, "slippage": 0.5}).trades[-1]["price"] == 492.5


def test_a_short_is_stopped_by_a_rising_wick() -> None:
    scene = play([(1000.0, 1040.0, 1000.0, 1038.0)], {"allow_short": True}, everywhere=SHORT_ONLY)
    # 0.990, 0.980 and 0.970 at 1010, 1020 and 1030 average 1019.932: 15 more, up to the tick.
    assert [r[1:3] for r in scene.records] == [
        *[("SELL_OPEN_SHORT", price) for price in (1010.0, 1020.0, 1030.0)],
        *[("STOP_SHORT", 1035.0)] * 3,
    ]
    assert [t["fill_id"] for t in scene.trades[3:]] == [0, 1, 2]


def test_sub_bars_change_the_order_of_events() -> None:
    # The bar closes up, so its low would come first; the sub-bars show the high came first.
    bar: Ohlc = (995.0, 1001.0, 955.0, 996.0)
    parts = [(995.0, 1001.0, 995.0, 1000.0), (1000.0, 1000.0, 955.0, 996.0)]
    scene = play([BUYS_990, bar], detail={2: parts})
    assert [r[1:3] for r in scene.records[1:]] == HIGH_FIRST
    assert [r[1:3] for r in play([BUYS_990, bar]).records[1:]] == LOW_FIRST


def test_sub_bars_jump_a_gap_so_that_a_stop_fills_at_the_price_of_the_path() -> None:
    scene = play([BUYS_990, (985.0, 985.0, 960.0, 960.0)], detail={2: [flat(985.0), flat(960.0)]})
    assert [r[1:3] for r in scene.records[1:]] == [BUY_980, BUY_970, *[("STOP_LONG", 960.0)] * 3]


@pytest.mark.parametrize("kept", [[0, 1], [0, 2], [1, 2]])
def test_a_bar_that_lacks_a_sub_bar_is_walked_as_the_candle_it_is(kept: list[int]) -> None:
    bar: Ohlc = (995.0, 1001.0, 955.0, 996.0)
    parts = [(995.0, 1001.0, 995.0, 1000.0), (1000.0, 1000.0, 955.0, 996.0), flat(996.0)]
    first = [BUYS_990, flat(985.0), flat(985.0)]
    whole = play([BUYS_990, bar], detail={1: first, 2: parts})
    assert [r[1:3] for r in whole.records[1:]] == HIGH_FIRST
    frame = whole.detail
    assert frame is not None
    lost = frame.drop(index=[3 + k for k in range(3) if k not in kept])
    assert [r[1:3] for r in replace(whole, detail=lost).records[1:]] == LOW_FIRST


def test_entries_bought_in_one_sub_bar_have_no_take_profit_in_the_next() -> None:
    parts = [BUYS_990, (985.0, 1005.0, 985.0, 1005.0)]
    scene = play([(1000.0, 1005.0, 984.0, 1005.0), flat(1005.0)], detail={1: parts})
    assert [r[1] for r in scene.records] == ["BUY_OPEN_LONG"]
    assert scene.take_profits(2) == {1010.0: 1.010}


@pytest.fixture(scope="module")
def demo() -> Any:
    """Return 1,500 bars of the demo market with their minutes."""
    return demo_market("SOL", DEMO_START_MS, DEMO_START_MS + 1500 * BAR_MS, detail=True)


def test_one_sub_bar_per_bar_that_repeats_it_changes_nothing(demo: Any) -> None:
    rules = MarketRules.from_dict(demo.rules)
    runs = [
        GridStrategyV4(PRESETS["documented"], rules).run(
            demo.candles, funding=demo.funding, detail=detail
        )
        for detail in (None, demo.candles)
    ]
    assert len(runs[0]["trades"]) > 100
    assert runs[0]["trades"] == runs[1]["trades"]
    assert np.array_equal(runs[0]["equity_curve"], runs[1]["equity_curve"])


def test_minutes_agree_with_the_slow_walker(demo: Any) -> None:
    rules = MarketRules.from_dict(demo.rules)
    ours, theirs = run_both(
        demo.candles[:400],
        demo.funding,
        PRESETS["documented"],
        rules,
        detail=demo.detail[: 400 * 15],
    )
    assert len(ours["trades"]) > 10
    assert first_difference(ours["trades"], theirs.trades) == ""


def random_candles(seed: int, n_bars: int, wildness: float, gap_share: float) -> pd.DataFrame:
    """Return candles around 1000 with gaps in ``gap_share`` of the opens."""
    random = np.random.default_rng(seed)
    opens, closes, last = [], [], 1000.0
    for move in random.normal(0.0, wildness, n_bars):
        jump = random.normal(0.0, 2.0 * wildness) if random.random() < gap_share else 0.0
        opens.append(round(last * float(np.exp(jump)), 1))
        last = max(round(opens[-1] * float(np.exp(move)), 1), 1.0)
        closes.append(last)
    body_top, body_low = np.maximum(opens, closes), np.minimum(opens, closes)
    wicks = np.abs(random.normal(0.0, wildness, (2, n_bars)))
    high = np.round(body_top * (1.0 + wicks[0]), 1)
    low = np.maximum(np.round(body_low * (1.0 - wicks[1]), 1), 0.1)
    frame = candle_frame(list(zip(opens, high, low, closes, strict=True)))
    return frame.assign(volume=random.gamma(2.0, 1.0, n_bars))


def random_funding(seed: int, n_bars: int) -> pd.DataFrame:
    """Return settlements every two hours or more from before the first bar to after the last."""
    random = np.random.default_rng(seed + 1)
    rows = np.flatnonzero(random.random(n_bars // 8 + 12) < 0.6)
    times = START + (8 * rows - 32) * BAR_MS
    return pd.DataFrame({"timestamp": times, "rate": random.normal(0.0001, 0.0004, len(times))})


SETTINGS = st.fixed_dictionaries(
    {
        "leverage": st.sampled_from([1.0, 3.0, 20.0, 60.0]),
        "allow_short": st.booleans(),
        "grid_mode": st.sampled_from(["geometric", "arithmetic"]),
        "grid_levels": st.integers(1, 12),
        "grid_spacing_k": st.sampled_from([0.3, 1.0, 2.0]),
        "tp_concentration": st.sampled_from([0.3, 0.6, 1.0]),
        "tp_below_entry": st.booleans(),
        "fill_through_bps": st.sampled_from([0.0, 3.0]),
        "intrabar_path": st.sampled_from(["auto", "low_first", "high_first"]),
        "atr_sl_mult": st.sampled_from([0.8, 3.5, 20.0]),
        "stop1_enabled": st.booleans(),
        "stop2_enabled": st.booleans(),
        "order_pct": st.sampled_from([0.02, 0.1, 0.4]),
        "fee_maker": st.sampled_from([-0.0001, 0.0, 0.0002, 0.002]),
        "prune_enabled": st.sets(
            st.sampled_from(["DEVIANCE", "OLDEST", "GAP", "FUNDING", "OFFSET"])
        ),
        "max_position_age_hours": st.sampled_from([3.0, 24.0]),
        "trailing_activation_er": st.sampled_from([0.2, 0.65]),
        "regime_timeframe_mult": st.sampled_from([1, 4]),
        "max_drawdown_pct": st.sampled_from([0.02, 0.15, 1.0]),
        "halt_z_threshold": st.sampled_from([-3.0, -1.5]),
    }
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    wildness=st.sampled_from([0.002, 0.008, 0.03]),
    gap_share=st.sampled_from([0.0, 0.1]),
    changes=SETTINGS,
)
def test_random_bars_trade_as_the_slow_walker_does(
    seed: int, wildness: float, gap_share: float, changes: dict[str, Any]
) -> None:
    candles = random_candles(seed, 300, wildness, gap_share)
    config = {**PRESETS["documented"], **changes, "prune_enabled": sorted(changes["prune_enabled"])}
    rules = MarketRules(tick_size=0.1, step_size=0.001, min_qty=0.001, min_notional=5.0)
    ours, theirs = run_both(candles, random_funding(seed, 300), config, rules)
    assert first_difference(ours["trades"], theirs.trades) == ""
    assert ours["equity_curve"] == pytest.approx(np.array(theirs.equity), rel=1e-9, abs=1e-6)
