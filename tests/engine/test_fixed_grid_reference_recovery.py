"""Worked by hand: what becomes of stuck positions in the fixed grid (A7).

Unless an example says otherwise: one order of 1 unit, take-profit and grid step 1 %, stop 5 %,
p = 1000 at the first step, tick 0.1. So the first entry lies at 999.9; filled, T = 1009.9 (of
1009.899) and S = 949.9 (of 949.905). Minute i is bar i. A position is stuck after 5 minutes where
p is 2 % from T: p <= 989.702.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.fixed_grid_reference.scenarios import (
    ENTRY,
    FILLED,
    STUCK,
    Book,
    flat,
    path,
    summary,
    told,
    trade,
)


def test_a_position_is_stuck_once_it_is_old_and_far_enough() -> None:
    run = trade([FILLED, *flat(985.0, 8)])
    assert told(run, "STUCK") == [(5, None)]
    assert run.counters["stuck_total"] == 1
    assert not told(trade([FILLED, *flat(989.8, 8)]), "STUCK")
    assert told(trade([FILLED, *flat(989.7, 8)]), "STUCK") == [(5, None)]


def test_mode_none_only_marks() -> None:
    run = trade([*STUCK, *path(985.0, 1010.0)])
    assert told(run, "STUCK") == [(6, None)]
    assert summary(run) == [ENTRY, (7, "SELL_CLOSE_LONG", 1009.9, 1.0)]
    assert run.metrics["stuck_resolved"] == run.metrics["stuck_recovered"] == 1
    assert run.metrics["recovery_attempts"] == 0


def test_mode_aggressive_closes_at_market() -> None:
    run = trade(STUCK, recovery_mode="aggressive", slippage=0.0005)
    # 985 * 0.9995 = 984.5075 -> 984.5
    assert summary(run)[:2] == [ENTRY, (6, "RECOVERY_CLOSE", 984.5, 1.0)]
    assert run.records[1]["fee"] == pytest.approx(0.0005 * 984.5)
    assert run.metrics["stuck_released"] == 1
    assert run.metrics["stuck_recovered"] == 0


def test_mode_ladder_lays_rungs_once_with_the_remainder_on_the_nearest() -> None:
    book = Book()
    run = trade(
        [*STUCK, *flat(980.0), *path(980.0, 1000.0), *flat(1000.0), *path(1000.0, 1012.0)],
        book,
        recovery_mode="ladder",
        ladder_pct=(1.0, 1.5, 4.0, 5.0),
    )
    # 10 lots over 4 rungs: 4, 2, 2, 2. 985*1.01 = 994.85 -> 994.9; *1.015 = 999.775 -> 999.8;
    # 1024.4 and 1034.25 are cut to T = 1009.9 and merge to 4 lots.
    assert book.closes[6] == [994.9, 999.8, 1009.9]
    assert book.closes[7] == [994.9, 999.8, 1009.9]
    assert summary(run) == [
        ENTRY,
        (8, "RECOVERY_LADDER", 994.9, 0.4),
        (8, "RECOVERY_LADDER", 999.8, 0.2),
        (10, "RECOVERY_LADDER", 1009.9, 0.4),
    ]
    assert run.metrics["stuck_recovered"] == 1
    assert run.metrics["total_trades"] == 1
    assert run.metrics["longs_closed"] == 3


def test_rungs_without_a_lot_are_dropped_and_small_ones_join_the_next() -> None:
    book = Book()
    trade(STUCK, book, recovery_mode="ladder", quantity=0.2, ladder_pct=(1.0, 1.5, 2.0))
    assert book.closes[6] == [994.9]
    book = Book()
    trade(
        STUCK,
        book,
        recovery_mode="ladder",
        quantity=0.6,
        ladder_pct=(1.0, 1.5, 2.0),
        market={"min_qty": 0.4},
    )
    # 2, 2, 2 lots with a minimum of 4: the third joins the second, the first takes what is next.
    assert book.closes[6] == [994.9]


def test_the_stop_of_a_ladder_shrinks_with_it() -> None:
    run = trade([*STUCK, *path(985.0, 996.0, 940.0)], recovery_mode="ladder", ladder_pct=(1.0, 4.0))
    assert summary(run) == [ENTRY, (7, "RECOVERY_LADDER", 994.9, 0.5), (8, "STOP_LONG", 949.9, 0.5)]
    assert run.metrics["stuck_released"] == run.metrics["stuck_recovered"] == 0


HEDGE: dict[str, Any] = {"recovery_mode": "hedge", "slippage": 0.0005}


def test_a_hedge_opens_the_other_side_and_takes_the_exits_away() -> None:
    book = Book()
    run = trade([*STUCK, *path(985.0, 900.0), *flat(900.0)], book, **HEDGE)
    # h = 985 * 0.9995 = 984.5075 -> 984.5; the stop at 949.9 does not act any more
    assert summary(run) == [ENTRY, (6, "RECOVERY_HEDGE_OPEN", 984.5, 1.0)]
    hedge = run.records[1]
    assert (hedge["direction"], hedge["fill_id"], hedge["slot"]) == ("SHORT", 1, 0)
    assert book.closes[6] == book.own_stops[6] == []
    equity = run.equity[7]
    assert equity == pytest.approx(run.wallet[7] + (900.0 - 999.9) + (984.5 - 900.0))


def test_a_hedge_is_released_when_the_price_is_back_and_the_exits_are_laid_anew() -> None:
    book = Book()
    run = trade(
        [*STUCK, *flat(980.0), *flat(989.3), *flat(989.5), *flat(989.5, 4), *flat(988.0, 3)],
        book,
        **HEDGE,
    )
    # 0.5 % over 984.5 is 989.4225: not at 989.3 (step 8), but at 989.5 (step 9).
    # The hedge buys back at 989.5*1.0005 = 989.99475 -> 990.0. Opened anew at 9: at step 14 the
    # position is stuck a second time (p = 988 <= 989.702) and closed: 988*0.9995 = 987.506 -> .5
    assert summary(run)[2:4] == [
        (9, "RECOVERY_HEDGE_CLOSE", 990.0, 1.0),
        (14, "RECOVERY_CLOSE", 987.5, 1.0),
    ]
    assert run.records[2]["pnl"] == pytest.approx(984.5 - 990.0)
    assert book.closes[8] == []
    assert book.closes[9] == [1009.9]
    assert book.own_stops[9] == [949.9]
    assert run.counters["stuck_total"] == 1
    assert run.metrics["recovery_attempts"] == 2


def test_a_hedge_that_stands_too_long_ends_with_both_legs_the_long_one_first() -> None:
    hours = [*STUCK, *flat(980.0, 60)]
    run = trade(hours, **HEDGE, hedge_max_hours=1.0)
    # 980*0.9995 = 979.51 -> 979.5 sold; 980*1.0005 = 980.49 -> 980.5 bought; opened at 6, so at 66
    assert summary(run)[2:4] == [
        (66, "RECOVERY_HEDGE_CLOSE", 979.5, 1.0),
        (66, "RECOVERY_HEDGE_CLOSE", 980.5, 1.0),
    ]
    assert [r["direction"] for r in run.records[2:4]] == ["LONG", "SHORT"]
    up = [(2000.0 - o, 2000.0 - low, 2000.0 - h, 2000.0 - c) for o, h, low, c in hours]
    sold = trade(up, **HEDGE, hedge_max_hours=1.0, direction="sell")
    assert [r["direction"] for r in sold.records[:4]] == ["SHORT", "LONG", "LONG", "SHORT"]
    assert run.metrics["total_trades"] == 1


def test_a_hedge_over_the_margin_cap_or_under_the_minimum_is_a_market_close() -> None:
    over = trade(STUCK, recovery_mode="hedge", max_margin_usd=1900.0)
    assert summary(over)[1] == (6, "RECOVERY_CLOSE", 985.0, 1.0)
    within = trade(STUCK, recovery_mode="hedge", max_margin_usd=1999.9 - 15.0)
    assert summary(within)[1] == (6, "RECOVERY_HEDGE_OPEN", 985.0, 1.0)
    small = trade(STUCK, recovery_mode="hedge", market={"min_notional": 990.0})
    assert summary(small)[1] == (6, "RECOVERY_CLOSE", 985.0, 1.0)
    assert over.metrics["recovery_attempts"] == within.metrics["recovery_attempts"] == 1


def test_the_margin_of_a_hedge_counts_the_working_order() -> None:
    # 999.9 + the order at 999.9/1.05 = 952.28 -> 952.2 + the hedge at 985.0 = 2937.1
    more: dict[str, Any] = {"recovery_mode": "hedge", "max_orders": 2, "grid_step": 0.05}
    within = trade(STUCK, max_margin_usd=2937.1, **more)
    assert summary(within)[1] == (6, "RECOVERY_HEDGE_OPEN", 985.0, 1.0)
    over = trade(STUCK, max_margin_usd=2937.0, **more)
    assert summary(over)[1] == (6, "RECOVERY_CLOSE", 985.0, 1.0)


@pytest.mark.parametrize("mode", ["aggressive", "ladder", "hedge"])
def test_a_loss_beyond_the_switched_off_stop_is_closed_when_it_gets_stuck(mode: str) -> None:
    # 5 % under 999.9 is 949.905
    run = trade([FILLED, *flat(949.9, 8)], recovery_mode=mode, stop_loss_enabled=False)
    assert summary(run)[1] == (5, "RECOVERY_CLOSE", 949.9, 1.0)
    near = trade([FILLED, *flat(950.0, 8)], recovery_mode="ladder", stop_loss_enabled=False)
    assert summary(near) == [ENTRY]


def test_mode_none_never_closes_and_a_ladder_is_judged_once() -> None:
    marked = trade([FILLED, *flat(940.0, 8)], stop_loss_enabled=False)
    assert summary(marked) == [ENTRY]
    later = trade([*STUCK, *flat(940.0, 8)], recovery_mode="ladder", stop_loss_enabled=False)
    assert summary(later) == [ENTRY]


LADDERED: dict[str, Any] = {"recovery_mode": "ladder", "escalation_min": 5.0}
WAITS = [*STUCK, *flat(985.0, 6)]
"""The ladder of step 6 has stood for 5 minutes at step 11."""


def test_an_escalation_closes_at_market() -> None:
    run = trade(WAITS, **LADDERED, escalation="close")
    assert summary(run)[1] == (11, "RECOVERY_ESCALATION", 985.0, 1.0)
    assert told(run, "ESCALATION") == [(11, "close")]


def test_an_escalation_hedges_what_the_ladder_left() -> None:
    candles = [*STUCK, *path(985.0, 995.0), *path(995.0, 985.0), *flat(985.0, 6)]
    run = trade(candles, **LADDERED, escalation="hedge", ladder_pct=(1.0, 4.0))
    assert summary(run)[1:] == [
        (7, "RECOVERY_LADDER", 994.9, 0.5),
        (11, "RECOVERY_HEDGE_OPEN", 985.0, 0.5),
    ]


def test_an_alert_is_reported_again_every_two_hours() -> None:
    run = trade([*STUCK, *flat(985.0, 300)], **LADDERED, escalation="alert")
    assert told(run, "ESCALATION") == [(11, "alert"), (131, "alert"), (251, "alert")]
    assert summary(run) == [ENTRY]


def test_within_a_phase_the_worst_comes_first() -> None:
    # Bought at steps 0 (999.9) and 1 (990.0, T = 999.9): at 970 and step 6 both are stuck.
    candles = [FILLED, *path(999.0, 985.0), *flat(985.0, 4), *flat(970.0, 2)]
    run = trade(candles, recovery_mode="aggressive", max_orders=2, stuck_distance_pct=2.5)
    closes = [(r["bar"], r["fill_id"]) for r in run.records if r["label"] == "RECOVERY_CLOSE"]
    assert closes == [(6, 0), (6, 1)]
