"""The simulated exchange itself: matching, money and refusals, worked out by hand."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live.simulated.exchange import SimExchange
from tests.support.exchanges.bench import (
    BAR,
    FLAT,
    LIMIT,
    START,
    STOP,
    Ohlc,
    exchange_of,
    executions,
    lay,
    lay_stop,
    refused,
    run_out,
)

# --- matching, worked out by hand ---------------------------------------------------------------


def test_a_jump_fills_limits_at_their_price_and_stops_at_the_open_all_at_the_opening_time() -> None:
    exchange = exchange_of(FLAT, (95.0, 96.0, 94.0, 95.5))
    exchange.hand_trade("LONG", "BUY", 1.0)
    lay(exchange, "BUY", "LONG", 98.0)
    lay_stop(exchange, "LONG", 97.0)
    assert executions(exchange) == [("BUY", "LONG", 100.1, 1.0, 0.0)]  # 100.05, up to the tick
    assert not exchange.run_until(START + BAR)
    assert (exchange.now_ms, exchange.price) == (START + BAR - 1, Decimal(98))
    assert not exchange.run_until(START + BAR)
    assert exchange.now_ms == START + BAR - 1
    assert exchange.run_until(START + BAR)
    assert (exchange.now_ms, exchange.price) == (START + BAR, Decimal(95))
    assert executions(exchange)[1:] == [
        ("BUY", "LONG", 98.0, 1.0, 1.0),
        ("SELL", "LONG", 94.9, 2.0, 1.0),  # 95 * 0.9995 = 94.9525, down to the tick
    ]


@pytest.mark.parametrize(
    ("close", "path", "sides"),
    [
        (101.0, "auto", "BS"),
        (100.0, "auto", "BS"),
        (99.0, "auto", "SB"),
        (99.0, "low_first", "BS"),
        (101.0, "high_first", "SB"),
    ],
)
def test_the_close_or_the_rule_decides_which_extreme_comes_first(
    close: float, path: str, sides: str
) -> None:
    exchange = exchange_of((100.0, 104.0, 96.0, close), intrabar_path=path)
    lay(exchange, "BUY", "LONG", 97.0)
    lay(exchange, "SELL", "SHORT", 103.0)
    assert run_out(exchange) == 2
    assert "".join(trade.side[0] for trade in exchange.account.trades) == sides


def test_at_one_price_come_take_profit_then_entries_by_age_then_stop() -> None:
    exchange = exchange_of((100.0, 100.0, 96.0, 98.0))
    exchange.hand_trade("LONG", "BUY", 1.0)
    exchange.hand_trade("SHORT", "SELL", 3.0)
    lay_stop(exchange, "LONG", 97.0)
    older = lay(exchange, "BUY", "LONG", 97.0)
    younger = lay(exchange, "BUY", "LONG", 97.0)
    profit = lay(exchange, "BUY", "SHORT", 97.0, 2.0)
    assert run_out(exchange) == 4
    met = exchange.account.trades[2:]
    assert [trade.order_id for trade in met[:3]] == [profit, older, younger]
    assert (met[3].side, met[3].position_side, met[3].qty) == ("SELL", "LONG", Decimal(3))


def test_at_one_price_the_long_side_comes_before_the_short_side() -> None:
    exchange = exchange_of(FLAT)
    book, price = exchange.book, Decimal(97)
    for side, position_side in (("SELL", "SHORT"), ("BUY", "LONG")):
        book.new_order(
            client_id=side,
            side=side,
            position_side=position_side,
            kind="LIMIT",
            qty=Decimal(1),
            price=price,
            now_ms=START,
        )
    touch = book.first_touch(price, price)
    assert touch is not None
    assert touch.what is book.order_of["BUY"]


def test_a_stop_pays_slippage_to_the_tick_against_the_trader() -> None:
    exchange = exchange_of((100.0, 105.0, 95.0, 100.0))
    exchange.hand_trade("LONG", "BUY", 1.0)
    exchange.hand_trade("SHORT", "SELL", 1.0)
    lay_stop(exchange, "LONG", 97.0)
    lay_stop(exchange, "SHORT", 103.0)
    run_out(exchange)
    # 97 * 0.9995 = 96.9515 and 103 * 1.0005 = 103.0515
    assert [float(trade.price) for trade in exchange.account.trades[2:]] == [96.9, 103.1]
    assert [float(trade.fee) for trade in exchange.account.trades[2:]] == [0.04845, 0.05155]
    assert exchange.account.is_flat


def test_the_wallet_is_booked_to_eight_decimals_against_the_average_entry() -> None:
    exchange = exchange_of((100.0, 103.0, 96.0, 101.0), wallet=1_000.0)
    lay(exchange, "BUY", "LONG", 99.0, 1.0)
    lay(exchange, "BUY", "LONG", 97.0, 2.0)
    for _ in range(2):
        exchange.run_until(START + BAR)
    assert exchange.account.positions["LONG"].avg_entry == Decimal(293) / 3
    lay(exchange, "SELL", "LONG", 101.0, 1.0)
    run_out(exchange)
    # fees 0.0198 + 0.0388 + 0.0202; profit 101 - 97.666... = 3.33333333
    assert exchange.account.trades[-1].pnl == Decimal("3.33333333")
    assert exchange.account.wallet == Decimal(1_000) - Decimal("0.0788") + Decimal("3.33333333")
    assert exchange.account.positions["LONG"].avg_entry == pytest.approx(Decimal(293) / 3)


def test_time_stops_right_after_an_event_so_that_the_client_can_move_its_stop() -> None:
    exchange = exchange_of((100.0, 100.0, 90.0, 95.0))
    lay(exchange, "BUY", "LONG", 98.0)
    lay(exchange, "BUY", "LONG", 96.0)
    assert not exchange.run_until(START + BAR)
    assert exchange.price == 98
    lay_stop(exchange, "LONG", 97.0)
    assert not exchange.run_until(START + BAR)
    assert executions(exchange)[-1][:4] == ("SELL", "LONG", 96.9, 1.0)
    assert exchange.book.open_orders  # the entry at 96 is still to come
    assert not exchange.run_until(START + BAR)
    assert exchange.run_until(START + BAR)
    assert executions(exchange)[-1][:3] == ("BUY", "LONG", 96.0)


def test_the_price_stands_still_after_an_open_and_an_event_and_then_follows_the_path() -> None:
    exchange = exchange_of((100.0, 100.0, 90.0, 90.0), still_ms=10_000)
    lay(exchange, "BUY", "LONG", 95.0)
    exchange.run_until(START + 10_000)
    assert exchange.price == 100
    exchange.run_until(START + 300_000)
    # 290 of 833.75 s on a way of 10, to the tick before
    assert exchange.price == Decimal("96.6")
    exchange.run_until(START + BAR)
    happened = exchange.now_ms
    assert happened == START + 10_000 + 833_750 // 2
    exchange.run_until(happened + 10_000)
    assert exchange.price == 95
    exchange.run_until(START + BAR - 1)
    assert exchange.price == 90


bars = st.lists(
    st.tuples(*[st.integers(900, 1_100)] * 4).map(lambda p: tuple(v / 10 for v in p)),
    min_size=2,
    max_size=6,
)
levels = st.lists(st.integers(960, 1_049), min_size=1, max_size=12, unique=True)


def proper(prices: Ohlc) -> Ohlc:
    """Return the four prices as open, high, low, close of one candle."""
    return prices[0], max(prices), min(prices), prices[3]


@settings(max_examples=60, deadline=None)
@given(
    bars=bars,
    levels=levels,
    partial=st.sampled_from([0.0, 0.7]),
    still_ms=st.sampled_from([0, 5_000]),
)
def test_every_limit_fills_at_its_price_in_the_first_bar_that_trades_there(
    bars: list[Ohlc], levels: list[int], partial: float, still_ms: int
) -> None:
    candles = [FLAT, *(proper(bar) for bar in bars)]
    exchange = exchange_of(*candles, partial_fills=partial, still_ms=still_ms, wallet=1e6)
    expected = {}
    for level in levels:
        price = level / 10
        buys = price < 100.0
        if price == 100.0:
            continue
        order = lay(exchange, "BUY" if buys else "SELL", "LONG" if buys else "SHORT", price, 0.1)
        reached = [
            i for i, bar in enumerate(candles) if (bar[2] <= price if buys else bar[1] >= price)
        ]
        expected[order] = (price, reached[0]) if reached else None
    run_out(exchange)
    for order, fill in expected.items():
        trades = [trade for trade in exchange.account.trades if trade.order_id == order]
        found = {(float(t.price), (t.ts_ms - START) // BAR) for t in trades}
        assert found == ({fill} if fill else set())
        assert sum(trade.qty for trade in trades) == (Decimal("0.1") if fill else 0)
    times = [trade.ts_ms for trade in exchange.account.trades]
    assert all(a < b or (a == b and a % BAR == 0) for a, b in itertools.pairwise(times))
    booked = sum(income.amount for income in exchange.account.incomes)
    assert exchange.account.wallet == Decimal(1_000_000) + booked


def test_a_limit_may_fill_in_parts_and_the_same_seed_gives_the_same_parts() -> None:
    def parts(seed: int) -> list[float]:
        exchange = exchange_of((100.0, 100.0, 90.0, 95.0), partial_fills=0.9, seed=seed)
        order = lay(exchange, "BUY", "LONG", 95.0)
        exchange.run_until(START + BAR)
        assert exchange.book.orders[order].status == "PARTIALLY_FILLED"
        run_out(exchange)
        assert exchange.book.orders[order].status == "FILLED"
        assert all(trade.is_maker for trade in exchange.account.trades)
        return [float(trade.qty) for trade in exchange.account.trades]

    assert len(parts(3)) > 1
    assert sum(parts(3)) == pytest.approx(1.0)
    assert parts(3) == parts(3) != parts(4)


def test_the_orders_of_a_side_that_has_become_flat_expire() -> None:
    exchange = exchange_of((100.0, 100.0, 90.0, 95.0))
    exchange.hand_trade("LONG", "BUY", 2.0)
    exchange.hand_trade("SHORT", "SELL", 1.0)
    profit, entry = lay(exchange, "SELL", "LONG", 103.0), lay(exchange, "BUY", "LONG", 95.1)
    other, stop = lay(exchange, "BUY", "SHORT", 95.2, 0.5), lay_stop(exchange, "LONG", 98.0)
    exchange.run_until(START + BAR)
    book = exchange.book
    assert book.stops[stop].status == "FINISHED"
    assert book.orders[book.stops[stop].fired_order_id].from_kind == "STOP_MARKET"
    assert book.orders[profit].status == "EXPIRED"
    assert list(book.open_orders) == [entry, other]
    exchange.hand_trade("SHORT", "BUY", 1.0)
    assert book.orders[other].status == "EXPIRED"


def test_a_stop_expires_with_its_position_or_is_rejected_where_it_may_stay() -> None:
    for needs_position, status in ((True, "EXPIRED"), (False, "REJECTED")):
        exchange = exchange_of((100.0, 100.0, 95.0, 95.0), stops_need_position=needs_position)
        exchange.hand_trade("LONG", "BUY", 1.0)
        stop = lay_stop(exchange, "LONG", 97.0)
        exchange.hand_trade("LONG", "SELL", 1.0)
        run_out(exchange)
        assert exchange.book.stops[stop].status == status
        assert len(exchange.account.trades) == 2


# --- funding and liquidation --------------------------------------------------------------------


def test_funding_at_a_candles_end_is_paid_by_each_side_at_the_close_before_the_jump() -> None:
    exchange = exchange_of(
        (100.0, 110.0, 100.0, 110.0),
        (90.0, 90.0, 90.0, 90.0),
        funding=[(START + BAR + 7, 0.001), (START + BAR + BAR // 3, -0.002)],
    )
    exchange.hand_trade("LONG", "BUY", 2.0)
    exchange.hand_trade("SHORT", "SELL", 1.0)
    lay(exchange, "BUY", "LONG", 95.1)  # fills in the jump, after the settlement
    run_out(exchange)
    paid = [i for i in exchange.account.incomes if i.kind == "FUNDING_FEE"]
    # 2 * 110 * 0.001 by the long, received by the short; then 3 * 90 * -0.002 the other way
    assert [float(income.amount) for income in paid] == [-0.22, 0.11, 0.54, -0.18]
    assert [income.ts_ms - START for income in paid] == [BAR, BAR, BAR + BAR // 3, BAR + BAR // 3]
    assert len({income.tran_id for income in exchange.account.incomes}) == len(
        exchange.account.incomes
    )


def leveraged(*bars: Ohlc, **options: Any) -> SimExchange:
    """Return an exchange with a long of 10 at 100 on a wallet of 300 and 1 % maintenance."""
    exchange = exchange_of(
        *bars,
        **{
            "wallet": 300.0,
            "leverage": 10,
            "brackets": [(0.0, 0.01, 0.0)],
            "slippage": 0.0,
            "fee_taker": 0.0,
            "liquidation_fee": 0.005,
            **options,
        },
    )
    exchange.hand_trade("LONG", "BUY", 10.0)
    return exchange


def test_liquidation_closes_everything_where_equity_meets_maintenance() -> None:
    exchange = leveraged((100.0, 100.0, 60.0, 80.0))
    resting = lay(exchange, "BUY", "LONG", 95.1, 0.1)
    exchange.book.end_order(exchange.book.orders[resting], "CANCELED", START)
    far = lay(exchange, "SELL", "SHORT", 104.0, 0.1)
    assert run_out(exchange) == 1
    # 300 + 10 (p - 100) = 0.01 * 10 p  =>  p = 700 / 9.9
    price = 700 / 9.9
    trade = exchange.account.trades[-1]
    assert float(trade.price) == pytest.approx(price, rel=1e-12)
    assert float(trade.fee) == pytest.approx(0.005 * 10 * price, abs=1e-8)
    assert float(exchange.account.wallet) == pytest.approx(0.005 * 10 * price, abs=1e-7)
    assert exchange.account.is_flat
    assert exchange.book.orders[far].status == "CANCELED"


def test_a_jump_beyond_the_last_cent_ends_with_an_empty_wallet() -> None:
    exchange = leveraged(FLAT, (60.0, 60.0, 60.0, 60.0))
    run_out(exchange)
    assert executions(exchange)[-1] == ("SELL", "LONG", 60.0, 10.0, 1.0)
    assert exchange.account.wallet == 0


def test_a_stop_that_a_jump_leaves_nothing_for_is_a_liquidation() -> None:
    exchange = leveraged(FLAT, (60.0, 60.0, 60.0, 60.0), slippage=0.01)
    stop = lay_stop(exchange, "LONG", 90.0)
    run_out(exchange)
    assert executions(exchange)[-1] == ("SELL", "LONG", 60.0, 10.0, 1.0)
    assert exchange.account.wallet == 0
    assert exchange.book.stops[stop].status == "EXPIRED"


def test_a_brackets_floor_belongs_to_the_bracket_below() -> None:
    account = exchange_of(FLAT, brackets=[(0.0, 0.01, 0.0), (500.0, 0.02, 1.0)]).account
    assert account.maintenance(500.0) == 5.0
    assert account.maintenance(501.0) == pytest.approx(9.02)


def test_the_liquidation_price_reported_is_the_one_that_happens() -> None:
    exchange = leveraged((100.0, 100.0, 60.0, 80.0), brackets=[(0.0, 0.01, 0.0), (500, 0.02, 5)])
    reported = exchange.account.liquidation_price(exchange.price)
    run_out(exchange)
    assert float(exchange.account.trades[-1].price) == pytest.approx(float(reported), rel=1e-9)
    assert exchange.account.liquidation_price(exchange.price) == 0


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (-5022, {"price": "100"}),
        (-1111, {"price": "97.001"}),
        (-4014, {"price": "97.05"}),
        (-4016, {"price": "105.1"}),
        (-4024, {"side": "SELL", "positionSide": "SHORT", "price": "94.9"}),
        (-1111, {"quantity": "0.0011"}),
        (-4003, {"quantity": "0"}),
        (-4004, {"quantity": "0.001"}),
        (-4005, {"quantity": "10000.001"}),
        (-4164, {"quantity": "0.051"}),
        (-1130, {"quantity": "one"}),
        (-2019, {"quantity": "1031"}),
        (-2022, {"side": "SELL", "price": "103", "quantity": "1.001"}),
        (-4061, {"positionSide": ""}),
        (-4061, {"positionSide": "BOTH"}),
        (-1106, {"reduceOnly": "false"}),
        (-4015, {"newClientOrderId": "no spaces"}),
        (-4015, {"newClientOrderId": "x" * 37}),
        (-4116, {"newClientOrderId": "taken"}),
        (-4120, {"type": "STOP_MARKET"}),
        (-1116, {"type": "ICEBERG"}),
        (-1115, {"timeInForce": "GTD"}),
        (-1117, {"side": "HOLD"}),
        (-1102, {"price": ""}),
    ],
)
def test_an_order_is_refused_with_the_exchanges_code(code: int, changes: dict[str, str]) -> None:
    exchange = exchange_of(FLAT)
    exchange.hand_trade("LONG", "BUY", 1.0)
    exchange.entry.place({**LIMIT, "newClientOrderId": "taken"})
    with refused(code):
        exchange.entry.place({**LIMIT, **changes})
    assert len(exchange.book.open_orders) == 1
    assert len(exchange.account.trades) == 1


def test_the_ends_of_the_price_band_are_inside() -> None:
    exchange = exchange_of(FLAT)
    for side, position_side, price in (("BUY", "LONG", "105"), ("SELL", "SHORT", "95")):
        taking = {"side": side, "positionSide": position_side, "price": price, "timeInForce": "GTC"}
        exchange.entry.place({**LIMIT, **taking})
    assert len(exchange.account.trades) == 2


def test_an_order_may_rest_however_far_from_the_price_on_its_passive_side() -> None:
    exchange = exchange_of(FLAT)
    lay(exchange, "BUY", "LONG", 70.0)
    lay(exchange, "SELL", "SHORT", 190.0)
    assert len(exchange.book.open_orders) == 2


def test_a_client_id_is_free_again_when_its_order_is_gone() -> None:
    exchange = exchange_of(FLAT)
    first = exchange.entry.place({**LIMIT, "newClientOrderId": "a"})
    exchange.book.end_order(first, "CANCELED", START)
    exchange.entry.place({**LIMIT, "newClientOrderId": "a"})


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (-2021, {"triggerPrice": "100"}),
        (-2021, {"triggerPrice": "101"}),
        (-2021, {"side": "BUY", "positionSide": "SHORT", "triggerPrice": "99.9"}),
        (-4014, {"triggerPrice": "97.05"}),
        (-4137, {"quantity": "1"}),
        (-1117, {"side": "BUY"}),
        (-1116, {"type": "TAKE_PROFIT_MARKET"}),
        (-1116, {"closePosition": "false"}),
        (-1130, {"algoType": "TWAP"}),
        (-4061, {"positionSide": ""}),
        (-4015, {"clientAlgoId": "no spaces"}),
    ],
)
def test_a_stop_is_refused_with_the_exchanges_code(code: int, changes: dict[str, str]) -> None:
    exchange = exchange_of(FLAT)
    exchange.hand_trade("LONG", "BUY", 1.0)
    exchange.hand_trade("SHORT", "SELL", 1.0)
    with refused(code):
        exchange.entry.place_stop({**STOP, **changes})
    assert not exchange.book.open_stops


def test_a_stop_needs_a_position_and_stands_alone_unless_that_is_switched_off() -> None:
    exchange = exchange_of(FLAT)
    with refused(-4509):
        exchange.entry.place_stop(STOP)
    exchange.hand_trade("LONG", "BUY", 1.0)
    exchange.entry.place_stop(STOP)
    with refused(-4130):
        exchange.entry.place_stop(STOP)
    exchange = exchange_of(FLAT, stops_need_position=False)
    for number in range(10):
        exchange.entry.place_stop({**STOP, "clientAlgoId": str(number)})
    with refused(-4116):
        exchange.entry.place_stop({**STOP, "clientAlgoId": "9"})
    with refused(-4045):
        exchange.entry.place_stop({**STOP, "clientAlgoId": "10"})


def test_closing_orders_never_promise_more_than_the_position() -> None:
    exchange = exchange_of(FLAT)
    exchange.hand_trade("LONG", "BUY", 2.0)
    closing = {**LIMIT, "side": "SELL", "price": "103"}
    exchange.entry.place({**closing, "quantity": "1.5"})
    with refused(-2022):
        exchange.entry.place({**closing, "quantity": "0.501"})
    with refused(-2022):
        exchange.entry.place({**closing, "type": "MARKET", "quantity": "2"})
    exchange.entry.place({**closing, "type": "MARKET", "quantity": "0.5"})
    assert exchange.account.positions["LONG"].qty == Decimal("1.5")


def test_the_two_hundredth_order_is_the_last() -> None:
    exchange = exchange_of(FLAT)
    for _ in range(200):
        lay(exchange, "BUY", "LONG", 97.0, 0.1)
    with refused(-2025):
        lay(exchange, "BUY", "LONG", 97.0, 0.1)


def test_resting_orders_bind_margin_and_leverage_stretches_it() -> None:
    exchange = exchange_of(FLAT, wallet=100.0)
    lay(exchange, "BUY", "LONG", 97.0, 1.0)
    with refused(-2019):
        lay(exchange, "BUY", "LONG", 97.0, 0.1)
    exchange.account.leverage = 2
    lay(exchange, "BUY", "LONG", 97.0, 1.0)
    with refused(-2019):
        lay(exchange, "BUY", "LONG", 97.0, 0.1)


def test_a_marketable_limit_without_post_only_takes_at_once_but_not_beyond_its_price() -> None:
    exchange = exchange_of(FLAT)
    taking = {**LIMIT, "timeInForce": "GTC"}
    assert exchange.entry.place({**taking, "price": "100"}).status == "FILLED"
    assert exchange.entry.place({**taking, "price": "101"}).status == "FILLED"
    assert [float(trade.price) for trade in exchange.account.trades] == [100.0, 100.1]
    assert not any(trade.is_maker for trade in exchange.account.trades)


# --- what people do by hand ---------------------------------------------------------------------


def test_hands_can_trade_withdraw_halt_and_leave_hedge_mode() -> None:
    exchange = exchange_of(FLAT)
    exchange.hand_trade("SHORT", "SELL", 1.0)
    assert float(exchange.account.trades[0].price) == 99.9  # 99.95, down to the tick
    with pytest.raises(ValueError, match="SHORT holds less than"):
        exchange.hand_trade("SHORT", "BUY", 1.5)
    with refused(-4068):
        exchange.set_one_way()
    exchange.hand_trade("SHORT", "BUY", 1.0)
    before = exchange.account.wallet
    exchange.withdraw(250.0)
    assert exchange.account.wallet == before - 250
    assert exchange.account.incomes[-1].kind == "TRANSFER"
    exchange.halt_symbol()
    with refused(-4141):
        exchange.entry.place(LIMIT)
    exchange.resume_symbol()
    order = exchange.entry.place(LIMIT)
    exchange.set_one_way()
    assert order.status == "CANCELED"
    with refused(-4061):
        exchange.entry.place(LIMIT)


@pytest.mark.parametrize("step", [[0, 900_000, 900_001], [0, 7_000]])
def test_candles_with_a_hole_or_of_an_odd_length_are_refused(step: list[int]) -> None:
    with pytest.raises(ValueError, match="one known step"):
        SimExchange([(START + time, *FLAT, 1.0) for time in step])
