"""Worked by hand: entries, take-profits, stops and gates of the fixed grid.

Unless an example says otherwise: one order of 1 unit, take-profit and grid step 1 %, stop 5 %,
p = 1000 at the first step, tick 0.1. So the first entry lies at 999.9; filled, T = 1009.9 (of
1009.899) and S = 949.9 (of 949.905). Minute i is bar i.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.fixed_grid_reference.scenarios import (
    ENTRY,
    FILLED,
    START,
    STUCK,
    Book,
    Ohlc,
    flat,
    path,
    summary,
    told,
    trade,
)

# Entries, take-profits and stops.


def test_a_cycle_pays_two_maker_fees_and_earns_the_take_profit() -> None:
    run = trade([FILLED, *path(999.0, 1010.0)])
    entry, close = run.records
    assert summary(run) == [ENTRY, (1, "SELL_CLOSE_LONG", 1009.9, 1.0)]
    assert entry["fee"] == pytest.approx(0.19998)
    assert close["fee"] == pytest.approx(0.20198)
    assert close["pnl"] == pytest.approx(10.0)
    assert run.wallet[-1] == pytest.approx(1e6 + 10.0 - 0.40196)
    assert entry["cycle"] == close["cycle"] == START // 1000 - 1_577_836_800
    assert entry["slot"] == close["slot"] == 0
    assert entry["fill_id"] == close["fill_id"] == 0
    assert {r["regime"] for r in run.records} == {"NONE"}


def test_the_entry_lies_a_tick_behind_follows_up_and_never_down() -> None:
    book = Book()
    trade([*flat(1000.0), *flat(1003.0), *flat(1002.95), *flat(1004.0)], book)
    assert book.entries[:4] == [999.9, 1002.9, 1002.9, 1003.9]


def test_the_next_entry_lies_a_grid_step_under_the_lowest() -> None:
    book = Book()
    trade([FILLED, *path(999.0, 985.0), *flat(985.0), *flat(960.0)], book, max_orders=4)
    # 999.9/1.01 = 990; 990/1.01 = 980.198 -> 980.1; at 960 the gap fills that; 980.1/1.01 = 970.396
    # -> 970.3, but a tick behind p is 959.9.
    assert book.entries[:4] == [999.9, 990.0, 980.1, 959.9]


def test_the_take_profit_rests_from_the_step_after_the_fill() -> None:
    run = trade([(1000.0, 1020.0, 999.0, 1000.0), *path(1000.0, 1012.0)], intrabar_path="low_first")
    assert summary(run) == [ENTRY, (1, "SELL_CLOSE_LONG", 1009.9, 1.0)]


def test_a_close_price_that_is_not_passive_lies_a_tick_beyond_the_price() -> None:
    book = Book()
    run = trade(
        [(1000.0, 1014.0, 999.0, 1014.0), *flat(1012.0), *path(1012.0, 1011.0, 1013.0)],
        book,
        intrabar_path="low_first",
    )
    # p = 1012 at step 1: 1012.1; not reached (the path ends lower); p = 1011 at step 3: 1011.1
    assert book.closes[1:4] == [[1012.1], [1012.1], [1011.1]]
    assert summary(run)[1:] == [(3, "SELL_CLOSE_LONG", 1011.1, 1.0)]


def test_a_stop_fills_at_its_price_with_taker_fee_and_slippage_to_the_tick() -> None:
    run = trade([FILLED, *path(999.0, 940.0)], slippage=0.0005)
    stop = run.records[1]
    # 949.9 * 0.9995 = 949.425 -> 949.4
    assert (stop["bar"], stop["label"], stop["price"]) == (1, "STOP_LONG", 949.4)
    assert stop["pnl"] == pytest.approx(-50.5)
    assert stop["fee"] == pytest.approx(0.0005 * 949.4)
    assert run.metrics["stops_long"] == 1


def test_a_stop_jumped_in_the_gap_fills_at_the_open() -> None:
    run = trade([FILLED, *flat(999.0), *flat(930.0)])
    assert summary(run)[1] == (2, "STOP_LONG", 930.0, 1.0)


def test_an_entry_and_its_stop_in_one_gap() -> None:
    # The old book's entry fills at its price on the way to 930, where its stop fills at once.
    run = trade([*flat(1000.0), *flat(930.0)])
    assert summary(run)[:2] == [(1, "BUY_OPEN_LONG", 999.9, 1.0), (1, "STOP_LONG", 930.0, 1.0)]


def test_a_stop_that_empties_the_side_takes_the_working_order_along() -> None:
    # A grid step of 5.5 % puts the next entry at 947.7, under the stop.
    lone = trade([FILLED, *path(999.0, 940.0)], max_orders=2, grid_step=0.055)
    assert summary(lone) == [ENTRY, (1, "STOP_LONG", 949.9, 1.0)]
    # With a second position left, the order stays: entries 999.9 and 990.0 (S 940.5), working
    # 980.1 fills before the first stop at 949.9.
    book = Book()
    both = trade([FILLED, *path(999.0, 988.0), *path(988.0, 945.0)], book, max_orders=3)
    assert summary(both)[2:] == [(2, "BUY_OPEN_LONG", 980.1, 1.0), (2, "STOP_LONG", 949.9, 1.0)]


def test_sell_prices_are_the_mirror_with_their_own_formulas() -> None:
    book = Book()
    run = trade(
        [(1000.0, 1001.0, 1000.0, 1001.0), *flat(1001.0), *path(1001.0, 985.0)],
        book,
        direction="sell",
        max_orders=2,
    )
    # e = 1000.1; T = 990.099 -> 990.0; S = 1050.105 -> 1050.2; next 1000.1*1.01 = 1010.101 -> .2
    assert book.entries[:3] == [1000.1, 1010.2, 1010.2]
    assert book.closes[1] == [990.0]
    assert book.own_stops[1] == [1050.2]
    assert summary(run)[:2] == [
        (0, "SELL_OPEN_SHORT", 1000.1, 1.0),
        (2, "BUY_CLOSE_SHORT", 990.0, 1.0),
    ]
    assert {r["direction"] for r in run.records} == {"SHORT"}


def test_break_even_holds_the_close_price_up() -> None:
    # 999.9 * 1.0200001 = 1019.8981, but at fees of 1 % break-even is 999.9 * 1.01 / 0.99 = 1020.1
    book = Book()
    trade([FILLED], book, take_profit=0.0200001, fee_maker=0.01)
    assert book.closes[1] == [1020.1]
    book = Book()
    trade([FILLED], book, take_profit=0.0207, fee_maker=0.01)
    assert book.closes[1] == [1020.6]  # 1020.598


def test_quantity_usd_is_cut_to_the_lot_at_the_entry_price() -> None:
    run = trade([FILLED], quantity=0.0, quantity_usd=2550.0)
    assert summary(run) == [(0, "BUY_OPEN_LONG", 999.9, 2.5)]


# Shared stops.


def three_positions(*, max_stop_orders: int, then: list[Ohlc]) -> tuple[Any, Book]:
    """Open 999.9 (S 949.9), 990.0 (S 940.5) and 980.1 (S 931.0), then walk ``then``."""
    book = Book()
    candles = [FILLED, *path(999.0, 985.0, 979.0), *flat(979.0), *then]
    return trade(candles, book, max_orders=3, max_stop_orders=max_stop_orders), book


def test_what_has_no_stop_of_its_own_shares_one_at_the_nearest_trigger() -> None:
    run, book = three_positions(max_stop_orders=2, then=path(979.0, 945.0, 938.0))
    # S: 949.9 own; 940.5 and 980.1*0.95 = 931.095 -> 931.0 share one at 940.5.
    assert book.own_stops[3] == [949.9]
    assert book.shared[3] == 940.5
    assert summary(run)[3:] == [
        (4, "STOP_LONG", 949.9, 1.0),
        # Step 5 deals anew: 940.5 has its own, 931.0 is what is left to share. What is bought in
        # between joins the shared one.
        (5, "BUY_OPEN_LONG", 944.9, 1.0),
        (5, "STOP_LONG", 940.5, 1.0),
    ]
    assert book.own_stops[5] == [940.5]
    assert book.shared[5] == 931.0


def test_a_shared_stop_closes_all_that_share_it_worst_first() -> None:
    run, _ = three_positions(max_stop_orders=2, then=path(979.0, 938.0))
    assert summary(run)[3:] == [
        (4, "STOP_LONG", 949.9, 1.0),
        (4, "STOP_LONG", 940.5, 1.0),
        (4, "STOP_LONG", 940.5, 1.0),
    ]
    assert [r["fill_id"] for r in run.records][3:] == [0, 1, 2]
    assert run.metrics["stops_long"] == 2


def test_enough_stop_orders_leave_every_position_its_own() -> None:
    run, book = three_positions(max_stop_orders=4, then=path(979.0, 938.0))
    assert book.own_stops[3] == [949.9, 940.5, 931.0]
    assert book.shared[3] is None
    assert summary(run)[3:] == [(4, "STOP_LONG", 949.9, 1.0), (4, "STOP_LONG", 940.5, 1.0)]


def test_a_fill_between_steps_takes_the_place_of_a_stop_that_is_gone() -> None:
    # One own stop is allowed. 999.9 has it (949.9); 956.8 shares alone at 956.8*0.95 = 908.96. In
    # bar 2 the first fires, so 915.5 gets its own (869.7) and is not closed at 908.9.
    candles = [FILLED, *path(999.0, 956.0, 908.0)]
    run = trade(candles, max_orders=3, max_stop_orders=2, grid_step=0.045)
    assert summary(run)[1:] == [
        (1, "BUY_OPEN_LONG", 956.8, 1.0),
        (2, "STOP_LONG", 949.9, 1.0),
        (2, "BUY_OPEN_LONG", 915.5, 1.0),
        (2, "STOP_LONG", 908.9, 1.0),
    ]


def test_a_fill_between_steps_that_shares_does_not_loosen_the_shared_stop() -> None:
    # 999.9 has the own stop; 980.1 (931.0) joins 990.0's at 940.5 while the price falls.
    run = trade([FILLED, *path(999.0, 985.0, 938.0)], max_orders=3, max_stop_orders=2)
    assert summary(run)[2:] == [
        (2, "BUY_OPEN_LONG", 980.1, 1.0),
        (2, "STOP_LONG", 949.9, 1.0),
        (2, "STOP_LONG", 940.5, 1.0),
        (2, "STOP_LONG", 940.5, 1.0),
    ]


def test_at_the_same_price_the_entry_comes_before_the_stop() -> None:
    # 999.9/1.0526 = 949.93 -> 949.9, where the stop lies too.
    run = trade([FILLED, *path(999.0, 949.0)], max_orders=2, grid_step=0.0526)
    assert summary(run)[1:] == [(1, "BUY_OPEN_LONG", 949.9, 1.0), (1, "STOP_LONG", 949.9, 1.0)]


# Prices that end the session or pause it.


def test_a_price_past_stop_price_closes_everything_and_ends_the_session() -> None:
    run = trade(
        [FILLED, *path(999.0, 985.0), *path(985.0, 981.0), *flat(981.0, 3)],
        stop_price=970.0,
        max_orders=2,
        stop_loss_enabled=False,
    )
    assert summary(run) == [ENTRY, (1, "BUY_OPEN_LONG", 990.0, 1.0)]
    assert not run.stopped
    # A stop rests at 970.0; both share the price, so both fire, older first.
    down = trade(
        [FILLED, *path(999.0, 985.0), *path(985.0, 965.0), *flat(990.0, 3)],
        stop_price=970.0,
        max_orders=2,
        stop_loss_enabled=False,
    )
    assert summary(down)[2:] == [(2, "STOP_LONG", 970.0, 1.0), (2, "STOP_LONG", 970.0, 1.0)]
    assert down.stopped
    assert down.blocked["stopped"] > 0


def test_a_stop_fired_at_stop_price_leaves_hedges_to_the_next_step_even_if_price_is_back() -> None:
    # 999.9 is hedged at step 6 (985), 975.0 is bought under it: its stop lies at 970.
    candles = [*STUCK, *path(985.0, 988.0), *path(988.0, 974.0), (974.0, 974.0, 969.0, 973.0)]
    run = trade(
        [*candles, *flat(973.0)],
        recovery_mode="hedge",
        max_orders=2,
        stop_price=970.0,
        grid_step=0.025,
    )
    # 999.9/1.025 = 975.51 -> 975.5
    assert summary(run)[1:] == [
        (6, "RECOVERY_HEDGE_OPEN", 985.0, 1.0),
        (8, "BUY_OPEN_LONG", 975.5, 1.0),
        (9, "STOP_LONG", 970.0, 1.0),
        (10, "STOP_PRICE", 973.0, 1.0),
        (10, "STOP_PRICE", 973.0, 1.0),
    ]
    assert [r["direction"] for r in run.records[-2:]] == ["LONG", "SHORT"]
    assert run.stopped


def test_a_stop_fired_at_stop_price_takes_the_working_order_along() -> None:
    # Entries must be traded through by 10.2: 999.9 at 989.7, hedged at step 5 (989); 988.9 at 978.7
    # in bar 6; 977.9 would come at 967.7, but the stop at 970 is nearer.
    candles = [(1000.0, 1000.0, 989.0, 989.0), *flat(989.0, 5), *path(989.0, 978.0, 966.0)]
    run = trade(
        candles, recovery_mode="hedge", max_orders=3, stop_price=970.0, fill_through_ticks=102
    )
    assert summary(run)[1:] == [
        (5, "RECOVERY_HEDGE_OPEN", 989.0, 1.0),
        (6, "BUY_OPEN_LONG", 988.9, 1.0),
        (7, "STOP_LONG", 970.0, 1.0),
        (8, "STOP_PRICE", 966.0, 1.0),
        (8, "STOP_PRICE", 966.0, 1.0),
    ]


def test_a_start_beyond_stop_price_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond it"):
        trade(flat(1000.0), stop_price=1000.0)
    with pytest.raises(ValueError, match="beyond it"):
        trade(flat(1000.0), stop_price=999.0, direction="sell")


def test_no_entry_lies_at_or_beyond_stop_price() -> None:
    run = trade([FILLED, *flat(995.0, 2)], max_orders=3, stop_price=990.0)
    assert summary(run) == [ENTRY]
    assert run.blocked["price"] == 14


def test_buying_pauses_at_pause_price_and_the_order_is_cancelled() -> None:
    book = Book()
    run = trade(
        [*flat(1000.0), *flat(1001.0), *flat(1000.9), *flat(1001.5, 12)], book, pause_price=1001.0
    )
    assert book.entries == [999.9, None, 1000.8, *[None] * 12]
    assert run.blocked["price"] == 13


# Whether an entry may be laid.


@pytest.mark.parametrize(
    ("gate", "changes"),
    [
        ("orders", {"max_orders": 1}),
        ("size", {"max_position_size": 1.9}),
        ("margin", {"max_margin_usd": 1989.8}),
        ("margin", {"max_margin_usd": 3000.0, "initial_capital": 1985.0}),
        ("minimum", {"market": {"min_notional": 995.0}}),
        ("cooldown", {"wait_time": 86_400.0}),
    ],
)
def test_a_gate_is_counted_once_a_step_in_which_an_order_would_be_laid(
    gate: str, changes: dict[str, Any]
) -> None:
    settings = {"max_orders": 9, **changes}
    run = trade([FILLED, *flat(995.0, 2)], **settings)
    assert summary(run) == [ENTRY]
    assert run.blocked == {name: 14 * (name == gate) for name in run.blocked}
    assert run.metrics[f"blocked_{gate}"] == 14
    assert run.counters["margin_exhausted"] == 14 * (gate == "margin")
    assert len(told(run, "GATE")) == 1


def test_the_margin_cap_counts_the_order_that_would_rest() -> None:
    # 999.9 + 990.0 = 1989.9 at leverage 1
    book = Book()
    trade([FILLED, *flat(995.0, 2)], book, max_orders=9, max_margin_usd=1989.9)
    assert book.entries[1:4] == [990.0, 990.0, 990.0]


def test_a_falling_equity_cancels_the_working_order() -> None:
    # Equity at p: the capital - 0.2 fee - (999.9 - p); with the order M is 1989.9.
    candles = [FILLED, *flat(999.9), *flat(999.0)]
    book = Book()
    run = trade(candles, book, max_orders=9, initial_capital=1990.05)
    assert book.entries[:3] == [999.9, None, None]
    assert run.counters["margin_exhausted"] == 14
    book = Book()
    run = trade(candles, book, max_orders=9, initial_capital=1990.2)
    assert book.entries[:3] == [999.9, 990.0, None]
    assert run.blocked["margin"] == 13


@pytest.mark.parametrize(("max_orders", "waits"), [(2, 2), (3, 2), (4, 1), (6, 1), (7, 1), (30, 1)])
def test_the_cooldown_grows_with_the_density(max_orders: int, waits: int) -> None:
    # wait_time 120 s, one position: d = 1/2: 120 s; 1/3: 120 s; 1/4 and 1/6: 60 s; 1/7, 1/30: 30 s,
    # which is one step too. Filled at step 0, so the order comes at step 2 or 1.
    book = Book()
    trade([FILLED, *flat(999.0, 9)], book, max_orders=max_orders, wait_time=120.0)
    assert book.entries[1:5].index(990.0) + 1 == waits


@pytest.mark.parametrize("wait_time", [60.0, 10.0])
def test_the_cooldown_doubles_at_two_thirds(wait_time: float) -> None:
    book = Book()
    trade([FILLED, *path(999.0, 985.0), *flat(985.0, 9)], book, max_orders=3, wait_time=wait_time)
    # The second fills at step 1 (d = 2/3, 120 s): the third order comes at step 3.
    assert book.entries[1:4] == [990.0, None, 980.1]


def test_a_wait_shorter_than_a_step_is_one_step_and_zero_is_none() -> None:
    book = Book()
    candles = [*flat(1000.0), *flat(999.0), *flat(999.0)]  # fills in the gap of step 1, time t_1
    trade(candles, book, max_orders=3, wait_time=10.0)
    assert book.entries[:3] == [999.9, None, 990.0]
    book = Book()
    trade(candles, book, max_orders=3, wait_time=0.0)
    assert book.entries[:3] == [999.9, 990.0, 990.0]


def test_a_take_profit_after_the_fill_ends_the_wait() -> None:
    book = Book()
    trade([FILLED, *path(999.0, 1010.0), *flat(1010.0)], book, max_orders=3, wait_time=3600.0)
    assert book.entries[:3] == [999.9, None, 1009.9]


def test_a_take_profit_in_the_step_of_the_fill_does_not_end_the_wait() -> None:
    # d = 1/30: a quarter of 480 s = 2 steps: 990.0 is laid at step 2; in bar 2 the take-profit of
    # the first fills, then 990.0; the next order comes at step 4.
    book = Book()
    trade(
        [FILLED, *flat(999.0), (999.0, 1010.0, 989.0, 989.0), *flat(989.0, 3)],
        book,
        max_orders=30,
        wait_time=480.0,
    )
    assert book.entries[:5] == [999.9, None, 990.0, None, 980.1]


def test_a_stop_starts_the_wait() -> None:
    book = Book()
    run = trade(
        [FILLED, *path(999.0, 940.0), *flat(940.0, 9)],
        book,
        max_orders=30,
        wait_time=1200.0,
        grid_step=0.07,
    )
    # d = 1/30 then 0: a quarter of 1200 s = 5 steps. Filled 0; working order only at step 5; but
    # the stop of step 1 is newer: 6.
    assert summary(run)[1] == (1, "STOP_LONG", 949.9, 1.0)
    assert book.entries[:8] == [999.9, None, None, None, None, None, 939.9, 939.9]


def test_the_working_order_stays_where_it_is_while_the_cooldown_lasts() -> None:
    # wait_time 240 s, d = 1/30: 60 s. Laid at step 1 at 999.9/1.05 = 952.28 -> 952.2. At step 6 the
    # position is closed with a loss: the order may follow up to 984.9 at step 7 only.
    book = Book()
    run = trade(
        STUCK, book, max_orders=30, wait_time=240.0, grid_step=0.05, recovery_mode="aggressive"
    )
    assert summary(run) == [ENTRY, (6, "RECOVERY_CLOSE", 985.0, 1.0)]
    assert book.entries[:9] == [999.9, *[952.2] * 6, 984.9, 984.9]
    assert run.blocked["cooldown"] == 1


def test_a_market_close_starts_the_wait() -> None:
    book = Book()
    run = trade(
        [FILLED, *flat(999.0, 4), *flat(985.0, 10)],
        book,
        max_orders=3,
        wait_time=300.0,
        recovery_mode="aggressive",
        grid_step=0.02,
    )
    # d = 1/3: 300 s since the fill would be over at step 5, where it is closed: n = 0, 75 s.
    assert summary(run)[1] == (5, "RECOVERY_CLOSE", 985.0, 1.0)
    assert book.entries[4:8] == [None, None, None, 984.9]


def test_a_slot_is_the_lowest_free_one() -> None:
    candles = [
        FILLED,
        *path(999.0, 985.0),
        *flat(985.0),
        *path(985.0, 1000.5),
        *flat(1000.5, 3),
        *path(1000.5, 988.0),
    ]
    run = trade(candles, max_orders=3)
    slots = [(r["label"], r["price"], r["slot"]) for r in run.records if r["pnl"] == 0.0]
    assert slots[:3] == [
        ("BUY_OPEN_LONG", 999.9, 0),
        ("BUY_OPEN_LONG", 990.0, 1),
        ("BUY_OPEN_LONG", 990.0, 1),
    ]
    assert len({r["cycle"] for r in run.records}) == 3
