"""The simulated exchange itself: matching worked out by hand, error codes, faults, real ccxt."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import ccxt  # type: ignore[import-untyped]  # no stubs
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from core.market import MarketRules
from live.exchange_types import Clock
from tests.sim_exchange import (
    CANCEL,
    ORDER,
    READ,
    ApiError,
    FaultKind,
    LoopbackAdapter,
    RemoteClock,
    SimClock,
    SimExchange,
    SimServer,
    attach,
)

START = 1_704_067_200_000
BAR = 900_000
SYMBOL = "BTC/USDT:USDT"
RULES = MarketRules(tick_size=0.1, step_size=0.001, min_qty=0.002, min_notional=5.0)
FLAT = (100.0, 100.0, 100.0, 100.0)
LIMIT = {"type": "LIMIT", "timeInForce": "GTX", "side": "BUY", "positionSide": "LONG",
         "price": "97", "quantity": "1"}  # fmt: skip
STOP = {"algoType": "CONDITIONAL", "type": "STOP_MARKET", "closePosition": "true", "side": "SELL",
        "positionSide": "LONG", "triggerPrice": "97"}  # fmt: skip
Ohlc = tuple[float, float, float, float]
Send = Callable[..., requests.Response]


def exchange_of(*bars: Ohlc, **options: Any) -> SimExchange:
    """Return an exchange that stands at the open of the first of ``bars``."""
    rows = [(START + i * BAR, *ohlc, 10.0) for i, ohlc in enumerate(bars)]
    return SimExchange(rows, **{"rules": RULES, "wallet": 100_000.0, **options})


def lay(exchange: SimExchange, side: str, direction: str, price: float, qty: float = 1.0) -> int:
    """Rest a post-only limit and return its id."""
    order = exchange.entry.place(
        {**LIMIT, "side": side, "positionSide": direction, "price": str(price),
         "quantity": str(qty)}
    )  # fmt: skip
    return order.order_id


def lay_stop(exchange: SimExchange, direction: str, trigger: float) -> int:
    """Rest a stop for a whole side and return its id."""
    side = "SELL" if direction == "LONG" else "BUY"
    stop = exchange.entry.place_stop(
        {**STOP, "side": side, "positionSide": direction, "triggerPrice": str(trigger)}
    )
    return stop.algo_id


def refused(code: int) -> Any:
    """Expect the exchange to refuse with ``code``."""
    return pytest.raises(ApiError, match=f"^{code}:")


def executions(exchange: SimExchange) -> list[tuple[str, str, float, float, float]]:
    """Return side, position, price, quantity and time in bars of every trade."""
    return [
        (t.side, t.direction, float(t.price), float(t.qty), (t.ts_ms - START) / BAR)
        for t in exchange.account.trades
    ]


def run_out(exchange: SimExchange) -> int:
    """Run to the end of the candles and return how often an event interrupted."""
    end = START + len(exchange.walk.candles) * BAR
    return sum(1 for _ in iter(lambda: exchange.run_until(end), True))


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
    [(101.0, "auto", "BS"), (100.0, "auto", "BS"), (99.0, "auto", "SB"), (99.0, "low_first", "BS"),
     (101.0, "high_first", "SB")],
)  # fmt: skip
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
    assert (met[3].side, met[3].direction, met[3].qty) == ("SELL", "LONG", Decimal(3))


def test_at_one_price_the_long_side_comes_before_the_short_side() -> None:
    exchange = exchange_of(FLAT)
    book, price = exchange.book, Decimal(97)
    for side, direction in (("SELL", "SHORT"), ("BUY", "LONG")):
        book.new_order(
            client_id=side, side=side, direction=direction, kind="LIMIT", qty=Decimal(1),
            price=price, now_ms=START,
        )  # fmt: skip
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
    min_size=2, max_size=6,
)  # fmt: skip
levels = st.lists(st.integers(960, 1_049), min_size=1, max_size=12, unique=True)


def proper(prices: Ohlc) -> Ohlc:
    """Return the four prices as open, high, low, close of one candle."""
    return prices[0], max(prices), min(prices), prices[3]


@settings(max_examples=60, deadline=None)
@given(
    bars=bars, levels=levels, partial=st.sampled_from([0.0, 0.7]),
    still_ms=st.sampled_from([0, 5_000]),
)  # fmt: skip
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
        reached = [i for i, bar in enumerate(candles) if (bar[2] <= price if buys
                                                          else bar[1] >= price)]  # fmt: skip
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
        (100.0, 110.0, 100.0, 110.0), (90.0, 90.0, 90.0, 90.0),
        funding=[(START + BAR + 7, 0.001), (START + BAR + BAR // 3, -0.002)],
    )  # fmt: skip
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
        **{"wallet": 300.0, "leverage": 10, "brackets": [(0.0, 0.01, 0.0)], "slippage": 0.0,
           "fee_taker": 0.0, "liquidation_fee": 0.005, **options},
    )  # fmt: skip
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


def test_the_liquidation_price_told_is_the_one_that_happens() -> None:
    exchange = leveraged((100.0, 100.0, 60.0, 80.0), brackets=[(0.0, 0.01, 0.0), (500, 0.02, 5)])
    told = exchange.account.liquidation_price(exchange.price)
    run_out(exchange)
    assert float(exchange.account.trades[-1].price) == pytest.approx(float(told), rel=1e-9)
    assert exchange.account.liquidation_price(exchange.price) == 0


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (-5022, {"price": "100"}),
        (-1111, {"price": "97.001"}),
        (-4014, {"price": "97.05"}),
        (-4016, {"side": "SELL", "positionSide": "SHORT", "price": "105.1"}),
        (-4024, {"price": "94.9"}),
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
    lay(exchange, "BUY", "LONG", 95.0)
    lay(exchange, "SELL", "SHORT", 105.0)


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


# --- over HTTP ----------------------------------------------------------------------------------

TREND = [FLAT, FLAT, (100.0, 104.0, 96.0, 101.0), (101.0, 101.0, 90.0, 95.0)]


class Signed:
    """A client without ccxt: signs and sends what it is told."""

    def __init__(self, exchange: SimExchange, server: SimServer) -> None:
        self.exchange = exchange
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.mount("https://", LoopbackAdapter(server.port))

    def __call__(self, method: str, path: str, **params: Any) -> requests.Response:
        """Send a signed request; ``timestamp``, ``key`` and ``secret`` may be wrong on purpose."""
        key = params.pop("key", self.exchange.api_key)
        secret = params.pop("secret", self.exchange.secret)
        query = urlencode({"timestamp": self.exchange.now_ms, **params})
        digest = hmac.new(secret.encode(), query.encode(), hashlib.sha256).hexdigest()
        query = f"{query}&signature={digest}"
        url = f"https://fapi.binance.com/fapi/{path}"
        headers = {"X-MBX-APIKEY": key} if key else {}
        if method == "POST":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            return self.session.post(url, data=query, headers=headers, timeout=10)
        return self.session.request(method, f"{url}?{query}", headers=headers, timeout=10)

    def code(self, method: str, path: str, **params: Any) -> int:
        """Return the error code of a request that is refused."""
        response = self(method, path, **params)
        assert response.status_code >= 400, response.text
        return int(response.json()["code"])


class Bench:
    """An exchange, its server, and two clients: ccxt and a bare one."""

    def __init__(self, *bars: Ohlc, **options: Any) -> None:
        self.exchange = exchange_of(*(bars or TREND), **{"start_bar": 1, **options})
        self.server = SimServer(self.exchange)
        self.server.start()
        self.clock: Clock = SimClock(self.exchange)
        self.signed = Signed(self.exchange, self.server)
        self.client = ccxt.binanceusdm(
            {"apiKey": self.exchange.api_key, "secret": self.exchange.secret,
             "enableRateLimit": False, "options": {"fetchCurrencies": False}}
        )  # fmt: skip
        attach(self.client, self.server.port, self.clock)

    def close(self) -> None:
        """Close connections and server."""
        self.client.session.close()
        self.signed.session.close()
        self.server.stop()

    def limit(self, price: float, client_id: str = "a", qty: float = 1.0, side: str = "buy") -> Any:
        """Send a post-only limit of the long side by ccxt."""
        more = {"positionSide": "LONG", "postOnly": True, "newClientOrderId": client_id}
        return self.client.create_order(SYMBOL, "limit", side, qty, price, more)

    def stop(self, trigger: float, client_id: str = "s") -> Any:
        """Send a stop for the long side by ccxt."""
        more = {"positionSide": "LONG", "stopLossPrice": trigger, "closePosition": True,
                "clientAlgoId": client_id}  # fmt: skip
        return self.client.create_order(SYMBOL, "market", "sell", None, None, more)


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Return a running exchange at the second bar of ``TREND``."""
    bench = Bench()
    yield bench
    bench.close()


def test_ccxt_reads_the_symbols_rules_and_the_candles(bench: Bench) -> None:
    market = bench.client.load_markets()[SYMBOL]
    assert list(bench.client.markets) == [SYMBOL, "BNB/USDT:USDT"]
    assert (market["precision"]["price"], market["precision"]["amount"]) == (0.1, 0.001)
    assert market["limits"]["cost"]["min"] == 5.0
    assert market["limits"]["amount"]["min"] == 0.002
    assert market["active"]
    assert bench.client.fetch_time() == START + BAR
    bench.clock.sleep(900.0 + 450.0)
    rows = bench.client.fetch_ohlcv(SYMBOL, "15m")
    assert [row[0] for row in rows] == [START, START + BAR, START + 2 * BAR]
    # 445 of 838.75 s on the way 100 - 96 - 104 - 101 of 15: 7.958, to the tick before
    assert rows[-1][1:5] == [100.0, 100.0, 96.0, 99.9]
    assert bench.exchange.price == Decimal("99.9")
    assert bench.client.fetch_ohlcv(SYMBOL, "15m", START + BAR, 1)[0][0] == START + BAR
    assert bench.client.fetch_ohlcv(SYMBOL, "15m", None, 2)[0][0] == START + BAR
    latest = bench.client.fetch_ohlcv(SYMBOL, "15m", None, 9, {"until": START + BAR})
    assert [row[0] for row in latest] == [START, START + BAR]


def test_ccxt_trades_a_round_with_a_stop(bench: Bench) -> None:
    client, exchange = bench.client, bench.exchange
    order = bench.limit(98.0, "entry")
    assert (order["status"], order["clientOrderId"]) == ("open", "entry")
    assert [o["id"] for o in client.fetch_open_orders(SYMBOL)] == [order["id"]]
    bench.clock.sleep(10_000.0)
    assert client.fetch_order(None, SYMBOL, {"origClientOrderId": "entry"})["status"] == "closed"
    trade = client.fetch_my_trades(SYMBOL, params={"orderId": order["id"]})[0]
    assert (trade["price"], trade["fee"]["cost"]) == (98.0, 0.0196)
    assert trade["takerOrMaker"] == "maker"
    assert START + 2 * BAR < trade["timestamp"] < START + 3 * BAR
    position = client.fetch_positions([SYMBOL])[0]
    assert (position["side"], position["contracts"], position["entryPrice"]) == ("long", 1.0, 98.0)
    stop = bench.stop(95.0)
    assert (stop["status"], stop["triggerPrice"]) == ("open", 95.0)
    assert client.fetch_open_orders(SYMBOL) == []
    assert client.fetch_open_orders(SYMBOL, params={"trigger": True})[0]["id"] == stop["id"]
    bench.clock.sleep(10_000.0)
    fired = client.fetch_order(None, SYMBOL, {"trigger": True, "clientAlgoId": "s"})
    assert fired["status"] == "closed"
    exit_order = client.fetch_order(fired["info"]["actualOrderId"], SYMBOL)
    assert (exit_order["average"], exit_order["filled"]) == (94.9, 1.0)  # 94.9525
    assert client.fetch_positions([SYMBOL]) == []
    balance = client.fetch_balance()["USDT"]
    assert balance["free"] == balance["total"] == float(exchange.account.wallet)


def test_ccxt_sends_and_cancels_in_batches(bench: Bench) -> None:
    more = {"hedged": True, "postOnly": True}
    wanted = [
        {"symbol": SYMBOL, "type": "limit", "side": "buy", "amount": 1, "price": price,
         "params": {**more, "newClientOrderId": f"b{price}"}}
        for price in (97.0, 100.0, 96.0)
    ]  # fmt: skip
    answers = bench.client.create_orders(wanted)
    assert [answer["clientOrderId"] for answer in answers] == [None, "b97.0", "b96.0"]
    assert answers[0]["info"]["code"] == -5022
    ids = [answer["id"] for answer in answers[1:]]
    gone = bench.client.cancel_orders([*ids, "123"], SYMBOL)
    assert [answer["status"] for answer in gone].count("canceled") == 2
    assert bench.client.fetch_open_orders(SYMBOL) == []
    for price in (97.0, 96.0):
        bench.limit(price, f"c{price}")
    bench.client.cancel_orders([], SYMBOL, {"clientOrderIds": ["c97.0"]})
    assert len(bench.exchange.book.open_orders) == 1
    bench.client.cancel_all_orders(SYMBOL)
    assert not bench.exchange.book.open_orders
    with pytest.raises(ccxt.OrderNotFound):
        bench.client.cancel_order(ids[0], SYMBOL)
    with pytest.raises(ccxt.BadRequest, match="-4082"):
        bench.client.create_orders(wanted[:1] * 6)
    assert bench.signed.code("DELETE", "v1/batchOrders", symbol="BTCUSDT",
                             orderIdList=json.dumps(list(range(11)))) == -4032  # fmt: skip


def test_ccxt_cancels_stops_only_by_their_own_endpoint(bench: Bench) -> None:
    bench.exchange.hand_trade("LONG", "BUY", 1.0)
    stop = bench.stop(95.0)
    bench.client.cancel_all_orders(SYMBOL)
    with pytest.raises(ccxt.OrderNotFound):
        bench.client.cancel_order(stop["id"], SYMBOL)
    assert bench.exchange.book.open_stops
    bench.client.cancel_order(stop["id"], SYMBOL, {"trigger": True})
    assert not bench.exchange.book.open_stops
    bench.stop(95.0)
    bench.client.cancel_all_orders(SYMBOL, {"trigger": True})
    assert not bench.exchange.book.open_stops
    with pytest.raises(ccxt.OrderNotFound):
        bench.client.fetch_order("1", SYMBOL, {"trigger": True})


def test_ccxt_sets_up_the_account(bench: Bench) -> None:
    client, account = bench.client, bench.exchange.account
    client.load_markets()
    assert client.fetch_position_mode(SYMBOL)["hedged"]
    with pytest.raises(ccxt.OperationRejected, match="-4059"):
        client.set_position_mode(True, SYMBOL)
    with pytest.raises(ccxt.MarginModeAlreadySet, match="-4046"):
        client.set_margin_mode("cross", SYMBOL)
    client.set_leverage(3, SYMBOL)
    assert account.leverage == 3
    bench.limit(97.0)
    with pytest.raises(ccxt.OperationRejected, match="-4067"):
        client.set_position_mode(False, SYMBOL)
    with pytest.raises(ccxt.OperationRejected, match="-4047"):
        client.set_margin_mode("isolated", SYMBOL)
    client.cancel_all_orders(SYMBOL)
    bench.exchange.hand_trade("LONG", "BUY", 2_500.0)
    with pytest.raises(ccxt.OperationRejected, match="-4068"):
        client.set_position_mode(False, SYMBOL)
    with pytest.raises(ccxt.OperationRejected, match="-4048"):
        client.set_margin_mode("isolated", SYMBOL)
    with pytest.raises(ccxt.OperationRejected, match="-2028"):
        client.set_leverage(1, SYMBOL)
    assert account.leverage == 3
    bench.exchange.hand_trade("LONG", "SELL", 2_500.0)
    client.set_position_mode(False, SYMBOL)
    with pytest.raises(ccxt.OperationRejected, match="-4061"):
        bench.limit(97.0)
    assert bench.signed.code("POST", "v1/leverage", symbol="BTCUSDT", leverage=126) == -4028


def test_ccxt_reads_fees_brackets_prices_and_margin(bench: Bench) -> None:
    client = bench.client
    fee = client.fetch_trading_fee(SYMBOL)
    assert (fee["maker"], fee["taker"]) == (0.0002, 0.0005)
    tiers = client.fetch_leverage_tiers([SYMBOL])[SYMBOL]
    assert [tier["maintenanceMarginRate"] for tier in tiers][:3] == [0.004, 0.005, 0.01]
    assert client.fetch_last_prices([SYMBOL])[SYMBOL]["price"] == 100.0
    assert client.fetch_funding_rate(SYMBOL)["markPrice"] == 100.0
    assert client.fetch_margin_mode(SYMBOL)["marginMode"] == "cross"
    bench.exchange.hand_trade("SHORT", "SELL", 2.0)
    position = client.fetch_positions([SYMBOL], {"useV2": True})[0]
    assert (position["side"], position["contracts"]) == ("short", 2.0)
    assert position["info"]["positionAmt"] == "-2.0"
    assert position["liquidationPrice"] > 10_000.0
    bench.limit(97.0, qty=10.0)
    free = client.fetch_balance({"useV2": True})["USDT"]["free"]
    # fee 0.0999, entry at 99.9 under a mark of 100
    assert free == pytest.approx(100_000 - 0.0999 - 0.2 - 200 - 970)
    rows = bench.signed("GET", "v3/balance").json()
    assert float(rows[0]["availableBalance"]) == free


def test_ccxt_reads_funding_paid_and_settled() -> None:
    bench = Bench(*TREND, funding=[(START, 0.0003), (START + 2 * BAR + 4, 0.001)])
    bench.exchange.hand_trade("LONG", "BUY", 2.0)
    coming = bench.client.fetch_funding_rate(SYMBOL)
    assert coming["fundingTimestamp"] == START + 2 * BAR
    assert [row["fundingRate"] for row in bench.client.fetch_funding_rate_history(SYMBOL)] == [3e-4]
    bench.clock.sleep(900.0)
    paid = bench.client.fetch_funding_history(SYMBOL, START)
    assert [(row["amount"], row["timestamp"]) for row in paid] == [(-0.2, START + 2 * BAR)]
    rates = bench.client.fetch_funding_rate_history(SYMBOL, START + 1)
    assert [(row["timestamp"], row["fundingRate"]) for row in rates] == [
        (START + 2 * BAR + 4, 0.001)
    ]
    bench.close()


def test_ccxt_reaches_the_exchange_in_demo_trading_and_nothing_else(bench: Bench) -> None:
    bench.client.enable_demo_trading(True)
    assert bench.limit(97.0)["status"] == "open"
    with pytest.raises(ccxt.NetworkError):
        bench.client.publicGetTime()


def test_trades_come_by_id_or_in_windows_of_seven_days(bench: Bench) -> None:
    for _ in range(3):
        bench.exchange.hand_trade("LONG", "BUY", 1.0)
    first = bench.exchange.account.trades[0].trade_id
    ask = {"symbol": "BTCUSDT"}

    def ids(**params: int) -> list[int]:
        rows = bench.signed("GET", "v1/userTrades", **ask, **params).json()
        return [row["id"] - first for row in rows]

    assert ids() == ids(startTime=START) == [0, 1, 2]
    assert ids(fromId=first + 1) == [1, 2]
    assert ids(fromId=first + 1, limit=1) == [1]
    assert ids(limit=1) == [2]
    assert ids(startTime=START, limit=1) == [0]
    bench.exchange.advance(8 * 86_400_000)
    assert ids() == ids(startTime=START + BAR + 1) == []
    assert ids(startTime=START) == ids(endTime=START + BAR) == [0, 1, 2]
    signed, path = bench.signed, "v1/userTrades"
    assert signed.code("GET", path, **ask, fromId=1, startTime=START) == -1128
    assert signed.code("GET", path, **ask, startTime=START, endTime=START + 604_800_001) == -4165
    assert signed.code("GET", path, **ask, limit=1_001) == -1130
    assert len(signed("GET", "v1/income", limit=2, startTime=START, page=2).json()) == 1


def test_orders_are_forgotten_in_time(bench: Bench) -> None:
    ask = {"symbol": "BTCUSDT", "origClientOrderId": "a"}
    bench.limit(97.0)
    bench.client.cancel_order(None, SYMBOL, {"origClientOrderId": "a"})
    assert bench.signed("GET", "v1/order", **ask).json()["status"] == "CANCELED"
    assert len(bench.signed("GET", "v1/allOrders", symbol="BTCUSDT").json()) == 1
    bench.exchange.advance(3 * 86_400_000 + 1)
    assert bench.signed.code("GET", "v1/order", **ask) == -2013
    assert bench.signed.code("GET", "v1/order", symbol="BTCUSDT") == -1102
    assert bench.signed.code("DELETE", "v1/order", **ask) == -2011


def test_the_symbol_the_interval_and_the_path_must_exist(bench: Bench) -> None:
    assert bench.signed.code("GET", "v1/klines", symbol="DOGEUSDT", interval="15m") == -1121
    assert bench.signed.code("GET", "v1/klines", symbol="BTCUSDT", interval="1m") == -1120
    assert bench.signed.code("GET", "v1/klines", interval="15m") == -1102
    assert bench.signed("GET", "v1/nothing").status_code == 404


def test_a_halt_shows_in_the_rules(bench: Bench) -> None:
    bench.exchange.halt_symbol()
    assert not bench.client.load_markets()[SYMBOL]["active"]
    with pytest.raises(ccxt.OperationRejected, match="-4141"):
        bench.limit(97.0)


# --- key, signature, time, weight ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (-2014, {"key": ""}),
        (-2015, {"key": "other"}),
        (-1022, {"secret": "other"}),
        (-1021, {"timestamp": START + BAR + 1_000}),
        (-1021, {"timestamp": START + BAR - 5_001}),
        (-1021, {"timestamp": START + BAR - 5_001, "recvWindow": 5_000}),
        (-1131, {"recvWindow": 60_001}),
        (-1102, {"timestamp": ""}),
    ],
)
def test_key_signature_and_time_are_checked(
    bench: Bench, code: int, changes: dict[str, Any]
) -> None:
    assert bench.signed.code("GET", "v3/balance", **changes) == code


def test_timestamps_are_accepted_up_to_the_window_and_judged_by_the_exchanges_clock(
    bench: Bench,
) -> None:
    now = bench.exchange.now_ms
    for stamp in (now + 999, now - 5_000):
        assert bench.signed("GET", "v3/balance", timestamp=stamp).status_code == 200
    assert bench.signed("POST", "v1/leverage", symbol="BTCUSDT", leverage=2).status_code == 200
    bench.client.load_markets()
    bench.exchange.clock_skew_ms = 30_000
    with pytest.raises(ccxt.InvalidNonce, match="-1021"):
        bench.limit(97.0)
    bench.client.load_time_difference()
    assert bench.limit(97.0)["status"] == "open"


def test_weight_and_orders_are_told_and_start_anew_with_the_minute(bench: Bench) -> None:
    def told(name: str) -> int:
        return int(bench.client.last_response_headers[f"X-MBX-{name}"])

    bench.client.load_markets()
    assert told("USED-WEIGHT-1M") == 1
    bench.limit(97.0, "a")
    assert (told("USED-WEIGHT-1M"), told("ORDER-COUNT-10S"), told("ORDER-COUNT-1M")) == (1, 1, 1)
    bench.client.fetch_ohlcv(SYMBOL, "15m", None, 1_000)
    assert told("USED-WEIGHT-1M") == 6
    bench.client.fetch_ohlcv(SYMBOL, "15m", params={"limit": 1_500})
    assert told("USED-WEIGHT-1M") == 16
    bench.client.fetch_my_trades(SYMBOL)
    assert told("USED-WEIGHT-1M") == 21
    assert "X-MBX-ORDER-COUNT-1M" not in bench.client.last_response_headers
    bench.clock.sleep(10.0)
    bench.limit(97.0, "b")
    assert (told("ORDER-COUNT-10S"), told("ORDER-COUNT-1M")) == (1, 2)
    bench.clock.sleep(50.0)
    bench.client.fetch_position_mode(SYMBOL)
    assert told("USED-WEIGHT-1M") == 30
    assert bench.exchange.limits.max_weight == 30


def test_who_goes_on_over_the_limit_is_banned(bench: Bench) -> None:
    bench.exchange.limits.weight_limit = 10
    bench.clock.sleep(45.0)
    assert bench.signed("GET", "v3/balance").status_code == 200
    assert bench.signed("GET", "v3/balance").status_code == 200
    with pytest.raises(ccxt.DDoSProtection, match="429"):
        bench.client.fetch_time()
    assert bench.client.last_response_headers["Retry-After"] == "15"
    bench.clock.sleep(15.0)
    for _ in range(2):
        bench.signed("GET", "v3/balance")
    assert bench.signed("GET", "v3/balance").status_code == 429
    answer = bench.signed("GET", "v3/balance")
    assert (answer.status_code, answer.headers["Retry-After"]) == (418, "120")
    bench.clock.sleep(60.0)
    with pytest.raises(ccxt.DDoSProtection, match="418"):
        bench.client.fetch_time()
    bench.clock.sleep(60.0)
    assert bench.signed("GET", "v3/balance").status_code == 200


def test_three_hundred_orders_in_ten_seconds_are_the_most(bench: Bench) -> None:
    for _ in range(300):
        bench.signed("POST", "v1/order")
    answer = bench.signed("POST", "v1/order")
    assert (answer.status_code, answer.json()["code"]) == (429, -1015)
    bench.clock.sleep(10.0)
    assert bench.signed.code("POST", "v1/order") == -1102


# --- faults -------------------------------------------------------------------------------------

Outcome = tuple[FaultKind, bool | None, type[Exception]]
OUTCOMES: list[Outcome] = [
    (FaultKind.DROP, False, ccxt.NetworkError),
    (FaultKind.LOST_REPLY, True, ccxt.NetworkError),
    (FaultKind.TIMEOUT, None, ccxt.RequestTimeout),
    (FaultKind.UNKNOWN_503, None, ccxt.OperationFailed),
    (FaultKind.UNKNOWN_503_BARE, None, ccxt.ExchangeNotAvailable),
    (FaultKind.BUSY_503, False, ccxt.ExchangeNotAvailable),
    (FaultKind.OVERLOAD_503, False, ccxt.OperationFailed),
    (FaultKind.BAD_GATEWAY, None, ccxt.ExchangeNotAvailable),
    (FaultKind.CODE_1007, None, ccxt.RequestTimeout),
    (FaultKind.CODE_1000, None, ccxt.OperationFailed),
    (FaultKind.CODE_1001, False, ccxt.OperationFailed),
    (FaultKind.RATE_LIMIT, False, ccxt.DDoSProtection),
    (FaultKind.BANNED, False, ccxt.DDoSProtection),
]


@pytest.mark.parametrize(("kind", "processed", "raised"), OUTCOMES)
def test_a_fault_raises_what_ccxt_makes_of_it_and_takes_effect_as_its_kind_says(
    bench: Bench, kind: FaultKind, processed: bool | None, raised: type[Exception]
) -> None:
    bench.client.load_markets()
    for wish in [processed] if processed is not None else [True, False]:
        bench.exchange.faults.next(kind, [ORDER], processed=None if processed is not None else wish)
        with pytest.raises(raised) as caught:
            bench.limit(97.0, f"{wish}")
        assert caught.type is raised
        assert (f"{wish}" in bench.exchange.book.order_of) == wish
    assert bench.exchange.faults.injected[kind] == (1 if processed is not None else 2)
    if kind in {FaultKind.RATE_LIMIT, FaultKind.BANNED}:
        assert bench.client.last_response_headers["Retry-After"] == "7"


def test_a_ban_lasts_as_long_as_it_says(bench: Bench) -> None:
    bench.client.load_markets()
    bench.exchange.faults.next(FaultKind.BANNED, retry_after=120)
    for _ in range(2):
        with pytest.raises(ccxt.DDoSProtection, match="418"):
            bench.client.fetch_time()
    bench.clock.sleep(120.0)
    assert bench.client.fetch_time() == START + BAR + 120_000


@pytest.mark.parametrize("kind", [FaultKind.HTML, FaultKind.CUT_JSON])
def test_a_spoilt_answer_makes_ccxt_see_no_order_and_no_position(
    bench: Bench, kind: FaultKind
) -> None:
    bench.client.load_markets()
    bench.client.load_leverage_brackets()
    bench.exchange.hand_trade("LONG", "BUY", 1.0)
    bench.exchange.faults.next(kind, times=2)
    assert bench.limit(97.0)["id"] is None
    assert bench.client.fetch_positions([SYMBOL]) == []
    assert "a" in bench.exchange.book.order_of
    assert len(bench.client.fetch_positions([SYMBOL])) == 1


def test_coin_tosses_fall_both_ways_and_the_same_for_the_same_seed() -> None:
    def tosses(seed: int) -> list[bool]:
        faults = exchange_of(FLAT, seed=seed).faults
        faults.rate(FaultKind.CODE_1007, 0.5, [ORDER])
        drawn = [faults.draw(ORDER, "POST", "/fapi/v1/order") for _ in range(60)]
        assert faults.draw(READ, "GET", "/fapi/v1/time") is None
        assert faults.injected[FaultKind.CODE_1007] == sum(fault is not None for fault in drawn)
        return [fault.processed for fault in drawn if fault is not None]

    assert set(tosses(1)) == {True, False}
    assert tosses(1) == tosses(1) != tosses(2)
    assert 15 < len(tosses(1)) < 45


def test_a_fault_can_be_planned_for_one_request_one_path_or_one_class(bench: Bench) -> None:
    faults = bench.exchange.faults
    faults.at(2, FaultKind.BUSY_503)
    faults.next(FaultKind.CODE_1001, path="balance")
    faults.next(FaultKind.BAD_GATEWAY, [CANCEL], processed=False)
    ask = {"symbol": "BTCUSDT"}
    assert bench.signed("GET", "v1/openOrders", **ask).status_code == 200
    answer = bench.signed("GET", "v1/openOrders", **ask)
    assert (answer.status_code, answer.json()) == (503, {"msg": "Service Unavailable."})
    assert bench.signed("GET", "v3/balance").json()["code"] == -1001
    assert bench.signed("DELETE", "v1/allOpenOrders", **ask).status_code == 502
    assert bench.signed("DELETE", "v1/allOpenOrders", **ask).status_code == 200
    assert faults.requests["GET /fapi/v1/openOrders"] == 2
    faults.rate(FaultKind.DROP, 1.0)
    faults.clear()
    assert bench.signed("GET", "v3/balance").status_code == 200


def test_a_delayed_order_arrives_when_the_price_has_moved_or_its_time_is_over() -> None:
    bench = Bench(FLAT, FLAT, (95.0, 95.0, 95.0, 95.0))
    bench.client.load_markets()
    bench.clock.sleep(895.0)
    bench.exchange.faults.next(FaultKind.DELAY, [ORDER], delay_ms=8_000)
    bench.exchange.faults.next(FaultKind.DELAY, [ORDER], delay_ms=10_001)
    with pytest.raises(ccxt.OrderNotFillable):
        bench.limit(98.0)
    assert bench.exchange.now_ms == START + 2 * BAR + 3_000
    with pytest.raises(ccxt.InvalidNonce):
        bench.limit(94.0)
    bench.close()


def test_a_stale_read_answers_what_was_true_some_time_ago(bench: Bench) -> None:
    bench.client.load_markets()
    bench.exchange.faults.next(FaultKind.STALE, [READ], path="openOrders", lag_ms=5_000)
    bench.exchange.faults.next(FaultKind.STALE, [READ], path="positionRisk", lag_ms=5_000)
    bench.limit(97.0, "old")
    bench.clock.sleep(5.0)
    bench.limit(96.0, "new")
    bench.exchange.hand_trade("LONG", "BUY", 1.0)
    assert [o["clientOrderId"] for o in bench.client.fetch_open_orders(SYMBOL)] == ["old"]
    assert len(bench.client.fetch_open_orders(SYMBOL)) == 2
    assert bench.client.fetch_positions([SYMBOL]) == []
    assert len(bench.client.fetch_positions([SYMBOL])) == 1


def test_the_exchanges_clock_can_jump(bench: Bench) -> None:
    bench.client.load_markets()
    bench.exchange.faults.next(FaultKind.CLOCK_JUMP, delay_ms=20_000)
    assert bench.client.fetch_time() == bench.exchange.now_ms + 20_000
    with pytest.raises(ccxt.InvalidNonce):
        bench.client.fetch_balance()


def test_hooks_see_every_request_before_it_counts_and_before_it_is_answered(bench: Bench) -> None:
    seen: list[tuple[str, int, str, bool]] = []

    def note(when: str) -> Callable[[int, str, str], None]:
        def hook(number: int, method: str, path: str) -> None:
            seen.append((when, number, f"{method} {path}", "a" in bench.exchange.book.order_of))

        return hook

    bench.client.load_markets()
    bench.exchange.before_request, bench.exchange.after_request = note("before"), note("after")
    bench.limit(97.0)
    assert seen == [
        ("before", 2, "POST /fapi/v1/order", False),
        ("after", 2, "POST /fapi/v1/order", True),
    ]


# --- time from elsewhere ------------------------------------------------------------------------


def test_a_remote_clock_drives_time_and_wakes_after_an_event(bench: Bench) -> None:
    clock = RemoteClock(bench.server.port)
    bench.limit(97.0)
    assert clock.now_ms() == START + BAR
    clock.sleep(900.0)
    assert clock.now_ms() == START + 2 * BAR
    clock.sleep(900.0)
    assert START + 2 * BAR < clock.now_ms() < START + 3 * BAR
    state = clock.ask("state")
    assert (state["bar"], state["price"]) == (2, "97")
    assert state["positions"]["LONG"] == {"qty": "1", "avg_entry": "97"}
    assert state["requests"]["POST /fapi/v1/order"] == 1
    clock.ask("faults", {"kind": "503 busy", "path": "time"})
    clock.ask("faults", {"kind": "502", "n": bench.exchange.faults.n_requests + 2})
    clock.ask("faults", {"kind": "-1001", "rate": 1.0, "classes": ["cancel"]})
    for _ in range(2):
        with pytest.raises(ccxt.ExchangeNotAvailable):
            bench.client.fetch_time()
    with pytest.raises(ccxt.OperationFailed):
        bench.client.cancel_all_orders(SYMBOL)
    assert bench.client.fetch_time() == clock.now_ms()
    clock.close()


def test_clocks_do_not_move_for_a_sleep_of_nothing_and_move_for_the_least(bench: Bench) -> None:
    bench.clock.sleep(0.0)
    assert bench.clock.now_ms() == START + BAR
    bench.clock.sleep(1e-9)
    assert bench.clock.now_ms() == START + BAR + 1
