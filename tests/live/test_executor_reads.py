"""Reads through the real executor and the real ccxt, over canned answers."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import requests

from core.errors import AccountError, DataError, ExchangeError, GridError, NetworkError, ReplyError
from core.risk import DEFAULT_BRACKETS
from live.exchange.binance import BinanceExecutor
from tests.support.exchanges.canned import (
    BAR_MS,
    INFO,
    START_MS,
    CannedExchange,
    Sent,
    algo_row,
    kline,
    order_row,
    refusal,
)

KLINES = "GET /fapi/v1/klines"
FUNDING = "GET /fapi/v1/fundingRate"
TICKER = "GET /fapi/v2/ticker/price"
MARK = "GET /fapi/v1/premiumIndex"
RULES = "GET /fapi/v1/exchangeInfo"
POSITIONS = "GET /fapi/v3/positionRisk"
BALANCE = "GET /fapi/v3/balance"
TRADES = "GET /fapi/v1/userTrades"
INCOME = "GET /fapi/v1/income"
BRACKETS = "GET /fapi/v1/leverageBracket"
COMMISSION = "GET /fapi/v1/commissionRate"
MODE = "GET /fapi/v1/positionSide/dual"
CONFIG = "GET /fapi/v1/symbolConfig"
SET_MODE = "POST /fapi/v1/positionSide/dual"
SET_MARGIN = "POST /fapi/v1/marginType"
SET_LEVERAGE = "POST /fapi/v1/leverage"
WEEK_MS = 7 * 86_400_000
TIMEOUT = requests.ReadTimeout("slow")


@pytest.fixture
def exchange() -> CannedExchange:
    return CannedExchange()


def position(side: str, amount: str, **changes: Any) -> dict[str, Any]:
    row = {
        "symbol": "BTCUSDT",
        "positionSide": side,
        "positionAmt": amount,
        "entryPrice": "50000.5" if float(amount) else "0.0",
        "markPrice": "50100.25",
        "liquidationPrice": "31000" if float(amount) else "0",
    }
    return row | changes


def trade(trade_id: int, **changes: Any) -> dict[str, Any]:
    row = {
        "symbol": "BTCUSDT",
        "id": trade_id,
        "orderId": 40 + trade_id,
        "side": "BUY",
        "positionSide": "LONG",
        "price": "50000.1",
        "qty": "0.004",
        "commission": "0.04",
        "commissionAsset": "USDT",
        "time": START_MS - 1_000 + trade_id,
        "maker": True,
    }
    return row | changes


def income(number: int, time_ms: int, **changes: Any) -> dict[str, Any]:
    row = {
        "symbol": "BTCUSDT",
        "incomeType": "FUNDING_FEE",
        "income": "-0.5",
        "asset": "USDT",
        "time": time_ms,
        "tranId": number,
        "tradeId": "",
    }
    return row | changes


def asset(name: str = "USDT", **changes: Any) -> dict[str, Any]:
    return {"asset": name, "balance": "1000.5", "availableBalance": "900.25"} | changes


def bracket(number: int, floor: float, rate: float, cum: float) -> dict[str, Any]:
    return {
        "bracket": number,
        "initialLeverage": 125 // number,
        "notionalFloor": floor,
        "notionalCap": floor + 1,
        "maintMarginRatio": rate,
        "cum": cum,
    }


BRACKET_REPLY = [
    {"symbol": "BTCUSDT", "brackets": [bracket(2, 5e4, 0.005, 50.0), bracket(1, 0, 0.004, 0.0)]}
]


# --- rubbish --------------------------------------------------------------------------------------

UNREADABLE: list[Any] = ["<html>maintenance</html>", '[{"symbol": "BTC', "", "null", {}, [None], 5]
UNREADABLE += [{"code": 200, "msg": "ok"}, [[]], [{}], [{"symbol": "BTCUSDT"}]]

Ask = Callable[[BinanceExecutor], Any]
READS: dict[str, tuple[str, Ask, list[Any]]] = {
    # endpoint, question, and answers of nearly the right shape
    "positions": (
        POSITIONS,
        BinanceExecutor.positions,
        [
            [position("LONG", "0.1", symbol="ETHUSDT")],
            [position("LONG", "0.1"), position("LONG", "0.1")],
            [position("LONG", "-0.1")],
            [position("SHORT", "0.1")],
            [position("LONG", "NaN", entryPrice="1")],
            [position("LONG", "0.1", entryPrice="0")],
            [position("LONG", "0.1", entryPrice=None)],
            [position("LONG", "0.1", markPrice="0")],
            [position("LONG", "0.1", markPrice="inf")],
            [position("LONG", "0.1", liquidationPrice="-5")],
            [position("UP", "0.1")],
            [position("LONG", "0.1"), None],
        ],
    ),
    "balance": (
        BALANCE,
        BinanceExecutor.balance,
        [
            [],
            [asset("BNB")],
            [asset(), asset()],
            [asset(balance="nan")],
            [asset(balance=None)],
            [asset(availableBalance=True)],
            [asset(), {"balance": "1"}],
        ],
    ),
    "open orders": (
        "GET /fapi/v1/openOrders",
        BinanceExecutor.open_orders,
        [
            [order_row("a", orderId=None)],
            [order_row("a", orderId="12x")],
            [order_row("a", price="NaN")],
            [order_row("a", origQty="-1")],
            [order_row("a", side="LONG")],
            [order_row("a", positionSide="")],
            [order_row("a", symbol="ETHUSDT")],
            [order_row("")],
        ],
    ),
    "open stops": (
        "GET /fapi/v1/openAlgoOrders",
        BinanceExecutor.open_orders,
        [
            [algo_row("s", algoId=None)],
            [algo_row("s", triggerPrice=None)],
            [algo_row("s", closePosition="maybe")],
            [algo_row("s", actualOrderId="soon")],
            [algo_row("s", clientAlgoId=None)],
            [algo_row("s", symbol="ETHUSDT")],
        ],
    ),
    "trades": (
        TRADES,
        lambda executor: executor.executions(1, 0),
        [
            [trade(0)],
            [trade(1), trade(1)],
            [trade(1, price="0")],
            [trade(1, qty="NaN")],
            [trade(1, commission=None)],
            [trade(1, commissionAsset="")],
            [trade(1, maker="perhaps")],
            [trade(1, side="HOLD")],
            [trade(1, symbol="ETHUSDT")],
            [trade(1, id=1.5)],
        ],
    ),
    "funding paid": (
        INCOME,
        lambda executor: executor.funding_payments(START_MS - 1_000),
        [
            [income(1, START_MS - 2_000)],
            [income(1, START_MS, income="NaN")],
            [income(1, START_MS, incomeType="TRANSFER")],
            [income(1, START_MS, symbol="ETHUSDT")],
            [income(1, START_MS, tranId=None)],
            [income(1, START_MS, asset=None)],
        ],
    ),
    "candles": (
        KLINES,
        lambda executor: executor.closed_candles(START_MS - 4 * BAR_MS, START_MS),
        [
            [kline(START_MS - 4 * BAR_MS + 1)],
            [kline(START_MS - 4 * BAR_MS, close_ms=START_MS)],
            [kline(START_MS - 3 * BAR_MS), kline(START_MS - 4 * BAR_MS)],
            [kline(START_MS - 3 * BAR_MS), kline(START_MS - 3 * BAR_MS)],
            [kline(START_MS - 5 * BAR_MS)],
            [kline(START_MS)],
            [kline(START_MS - 3 * BAR_MS, open="NaN")],
            [kline(START_MS - 3 * BAR_MS, close=None)],
            [kline(START_MS - 3 * BAR_MS, volume="-1")],
            [kline(START_MS - 3 * BAR_MS, low="0")],
            [kline(START_MS - 3 * BAR_MS, high="100.5")],
            [kline(START_MS - 3 * BAR_MS, low="100.5")],
            [kline(START_MS - 3 * BAR_MS)[:6]],
            [{"openTime": START_MS - 3 * BAR_MS}],
        ],
    ),
    "opening price": (
        KLINES,
        lambda executor: executor.opening_price(START_MS),
        [[kline(START_MS - BAR_MS)], [kline(START_MS + BAR_MS)]],
    ),
    "last price": (
        TICKER,
        BinanceExecutor.last_price,
        [
            {"symbol": "BTCUSDT", "price": None},
            {"symbol": "BTCUSDT", "price": "0"},
            {"symbol": "BTCUSDT", "price": "NaN"},
            {"symbol": "BTCUSDT", "price": False},
            {"symbol": "BTCUSDT", "price": "9" * 400},
            {"symbol": "ETHUSDT", "price": "1"},
        ],
    ),
    "funding rates": (
        FUNDING,
        lambda executor: executor.funding_rates(START_MS - BAR_MS, START_MS),
        [
            [{"symbol": "BTCUSDT", "fundingTime": START_MS - 2 * BAR_MS, "fundingRate": "0"}],
            [{"symbol": "BTCUSDT", "fundingTime": START_MS, "fundingRate": ""}],
            [{"symbol": "BTCUSDT", "fundingTime": START_MS, "fundingRate": "0.1"}] * 2,
            [{"symbol": "ETHUSDT", "fundingTime": START_MS, "fundingRate": "0.1"}],
        ],
    ),
}
CASES = [
    pytest.param(endpoint, ask, answer, id=f"{name}: {json.dumps(answer)[:60]}")
    for name, (endpoint, ask, near) in READS.items()
    for answer in [*UNREADABLE, *near]
]


@pytest.mark.parametrize(("endpoint", "ask", "answer"), CASES)
@pytest.mark.slow
def test_an_unreadable_answer_is_asked_for_again_and_then_refused(
    exchange: CannedExchange, endpoint: str, ask: Ask, answer: Any
) -> None:
    for other in ("GET /fapi/v1/openOrders", "GET /fapi/v1/openAlgoOrders"):
        exchange.always(other, (200, []))
    exchange.always(endpoint, (200, answer))
    with pytest.raises(ReplyError):
        ask(exchange.executor())
    assert len(exchange.asked(endpoint)) == (1 if ask is READS["candles"][1] else 5)


def test_a_few_candles_are_asked_for_once_and_a_history_again(exchange: CannedExchange) -> None:
    exchange.always(KLINES, (200, "<html>"))
    executor = exchange.executor()
    for bars, tries in ((4, 1), (1_501, 5)):
        exchange.sent.clear()
        with pytest.raises(ReplyError):
            executor.closed_candles(START_MS - bars * BAR_MS, START_MS)
        assert len(exchange.asked(KLINES)) == tries


@pytest.mark.parametrize("unclear", [TIMEOUT, (502, "<html>"), (200, "<html>"), (503, "")], ids=str)
def test_a_question_is_repeated_until_it_is_answered(
    exchange: CannedExchange, unclear: Any
) -> None:
    exchange.then(BALANCE, unclear, unclear, (200, [asset()]))
    assert exchange.executor().balance().wallet == 1_000.5


def test_a_refused_question_is_not_repeated(exchange: CannedExchange) -> None:
    exchange.always(BALANCE, refusal(-1102, "mandatory parameter"))
    with pytest.raises(ExchangeError, match="mandatory parameter"):
        exchange.executor().balance()
    assert len(exchange.asked(BALANCE)) == 1


def test_no_answer_at_all_ends_after_the_retries(exchange: CannedExchange) -> None:
    exchange.always(BALANCE, TIMEOUT)
    with pytest.raises(NetworkError):
        exchange.executor(settings={"retries": 2}).balance()
    assert len(exchange.asked(BALANCE)) == 3


def test_a_question_waits_as_long_as_it_is_asked_to(exchange: CannedExchange) -> None:
    exchange.then(BALANCE, (429, "slow", {"Retry-After": "40"}), (200, [asset()]))
    exchange.executor().balance()
    first, second = exchange.asked(BALANCE)
    assert second.at_ms - first.at_ms == 40_000


# --- positions and balance ------------------------------------------------------------------------


def test_a_short_is_reported_as_a_positive_quantity(exchange: CannedExchange) -> None:
    exchange.always(POSITIONS, (200, [position("SHORT", "-0.020"), position("LONG", "0.100")]))
    sides = exchange.executor().positions()
    assert list(sides) == ["LONG", "SHORT"]
    assert (sides["LONG"].qty, sides["SHORT"].qty) == (0.1, 0.02)
    assert sides["SHORT"].avg_entry == 50_000.5
    assert sides["SHORT"].liquidation_price == 31_000.0


def test_a_flat_short_is_no_negative_zero(exchange: CannedExchange) -> None:
    exchange.always(POSITIONS, (200, [position("SHORT", "0.000"), position("LONG", "-0.000")]))
    sides = exchange.executor().positions()
    assert [str(side.qty) for side in sides.values()] == ["0.0", "0.0"]


def test_a_side_left_out_is_flat_at_the_other_ones_mark(exchange: CannedExchange) -> None:
    exchange.always(POSITIONS, (200, [position("SHORT", "-0.020"), position("BOTH", "0")]))
    sides = exchange.executor().positions()
    assert sides["LONG"].qty == 0.0
    assert sides["LONG"].mark_price == 50_100.25


def test_a_list_without_positions_is_flat_and_the_mark_is_asked_for(
    exchange: CannedExchange,
) -> None:
    exchange.always(POSITIONS, (200, []))
    exchange.always(MARK, (200, {"symbol": "BTCUSDT", "markPrice": "50123.5"}))
    sides = exchange.executor().positions()
    assert [(side.qty, side.mark_price) for side in sides.values()] == [(0.0, 50_123.5)] * 2
    assert len(exchange.asked(MARK)) == 1


def test_a_one_way_position_is_refused_with_what_to_do(exchange: CannedExchange) -> None:
    exchange.always(POSITIONS, (200, [position("BOTH", "-0.5")]))
    with pytest.raises(AccountError, match=r"one-way.*close"):
        exchange.executor().positions()


def test_the_balance_is_the_usdt_wallet(exchange: CannedExchange) -> None:
    exchange.always(BALANCE, (200, [asset("BNB", balance="7"), asset()]))
    balance = exchange.executor().balance()
    assert (balance.wallet, balance.available) == (1_000.5, 900.25)


# --- trades and funding ---------------------------------------------------------------------------


def trade_book(count: int) -> Callable[[Sent], Any]:
    """Return an endpoint that holds trades 1 to ``count``."""
    book = [trade(number) for number in range(1, count + 1)]

    def answer(sent: Sent) -> Any:
        query = sent.params
        assert ("fromId" in query) != ("startTime" in query)
        if "startTime" in query:
            first, last = int(query["startTime"]), int(query["endTime"])
            assert last - first < WEEK_MS
            rows = [row for row in book if first <= row["time"] <= last]
        else:
            rows = [row for row in book if row["id"] >= int(query["fromId"])]
        return 200, rows[: int(query["limit"])]

    return answer


def test_trades_are_paged_by_identity(exchange: CannedExchange) -> None:
    exchange.always(TRADES, trade_book(2_345))
    trades = exchange.executor().executions(5, 0)
    assert [item.trade_id for item in trades] == list(range(5, 2_346))
    assert [sent.params["fromId"] for sent in exchange.asked(TRADES)] == ["5", "1005", "2005"]


def test_a_full_last_page_of_trades_is_followed_by_an_empty_one(exchange: CannedExchange) -> None:
    exchange.always(TRADES, trade_book(2_000))
    assert len(exchange.executor().executions(1, 0)) == 2_000
    assert [sent.params["fromId"] for sent in exchange.asked(TRADES)] == ["1", "1001", "2001"]


def test_the_first_trades_are_looked_for_week_by_week(exchange: CannedExchange) -> None:
    exchange.always(TRADES, trade_book(3))
    trades = exchange.executor().executions(0, START_MS - 2 * WEEK_MS - 5_000)
    assert [item.trade_id for item in trades] == [1, 2, 3]
    starts = [sent.params.get("startTime") for sent in exchange.asked(TRADES)]
    first = START_MS - 2 * WEEK_MS - 5_000
    assert starts == [str(first), str(first + WEEK_MS), str(first + 2 * WEEK_MS), None]


def test_no_trades_at_all_are_an_empty_list(exchange: CannedExchange) -> None:
    exchange.always(TRADES, (200, []))
    assert exchange.executor().executions(0, 0) == []
    assert len(exchange.asked(TRADES)) == 13  # weeks in three months
    assert exchange.executor().executions(0, START_MS + 1) == []


def test_a_trade_is_reported_as_it_was(exchange: CannedExchange) -> None:
    sold = trade(9, side="SELL", positionSide="SHORT", maker="false", commission="-0.01")
    exchange.then(TRADES, (200, [sold]))
    (item,) = exchange.executor().executions(9, 0)
    assert (item.order_id, item.side, item.position_side, item.is_maker) == (
        "49",
        "SELL",
        "SHORT",
        False,
    )
    assert (item.price, item.qty, item.fee, item.ts_ms) == (50_000.1, 0.004, -0.01, START_MS - 991)


def test_a_fee_in_another_asset_is_valued_at_its_last_price_and_said_once(
    exchange: CannedExchange, caplog: pytest.LogCaptureFixture
) -> None:
    paid = {"commissionAsset": "BNB", "commission": "0.0001"}
    exchange.always(TICKER, (200, {"symbol": "BNBUSDT", "price": "600"}))
    exchange.then(TRADES, (200, [trade(1, **paid), trade(2, **paid), trade(3)]))
    executor = exchange.executor()
    with caplog.at_level(logging.WARNING):
        trades = executor.executions(1, 0)
        exchange.clock.now += 61_000
        exchange.then(TRADES, (200, [trade(4, **paid)]))
        executor.executions(4, 0)
    assert [item.fee for item in trades] == [pytest.approx(0.06), pytest.approx(0.06), 0.04]
    assert len(exchange.asked(TICKER)) == 2  # once a minute
    assert caplog.text.count("BNB are valued") == 1


def test_funding_is_paged_without_losing_or_doubling_a_payment(exchange: CannedExchange) -> None:
    book = [income(number, START_MS - 5_000 + number // 3) for number in range(2_500)]

    def answer(sent: Sent) -> Any:
        first, last = int(sent.params["startTime"]), int(sent.params["endTime"])
        assert last - first < WEEK_MS
        assert sent.params["incomeType"] == "FUNDING_FEE"
        return 200, [row for row in book if first <= row["time"] <= last][:1_000]

    exchange.always(INCOME, answer)
    payments = exchange.executor().funding_payments(START_MS - WEEK_MS - 5_000)
    assert {item.income_id for item in payments} == {str(number) for number in range(2_500)}
    assert len(payments) == 2_500
    assert payments[0].amount == -0.5
    assert [item.ts_ms for item in payments] == sorted(item.ts_ms for item in payments)


def test_both_sides_of_one_settlement_are_two_payments(exchange: CannedExchange) -> None:
    rows = [income(1, START_MS, income="-0.5"), income(2, START_MS, income="0.2")]
    exchange.always(INCOME, (200, rows))
    payments = exchange.executor().funding_payments(START_MS)
    assert sum(item.amount for item in payments) == pytest.approx(-0.3)


def funding(time_ms: int, rate: str = "0.0001") -> dict[str, Any]:
    return {"symbol": "BTCUSDT", "fundingTime": time_ms, "fundingRate": rate}


def test_funding_rates_are_paged_and_cut_to_the_minute(exchange: CannedExchange) -> None:
    book = [funding(START_MS + number * BAR_MS + 7) for number in range(1_500)]

    def answer(sent: Sent) -> Any:
        first, last = int(sent.params["startTime"]), int(sent.params["endTime"])
        return 200, [row for row in book if first <= row["fundingTime"] <= last][:1_000]

    exchange.always(FUNDING, answer)
    rates = exchange.executor().funding_rates(START_MS + BAR_MS, START_MS + 1_200 * BAR_MS)
    assert [time_ms for time_ms, _ in rates] == [
        START_MS + number * BAR_MS for number in range(1, 1_201)
    ]


# --- candles and prices ---------------------------------------------------------------------------


def candle_book(first_ms: int, count: int) -> Callable[[Sent], Any]:
    def answer(sent: Sent) -> Any:
        query = sent.params
        assert int(query["limit"]) <= 1_500
        times = [first_ms + number * BAR_MS for number in range(count)]
        first, last = int(query["startTime"]), int(query["endTime"])
        rows = [kline(time_ms) for time_ms in times if first <= time_ms <= last]
        return 200, rows[: int(query["limit"])]

    return answer


def test_candles_are_paged_by_1500(exchange: CannedExchange) -> None:
    first_ms = START_MS - 3_200 * BAR_MS
    exchange.always(KLINES, candle_book(first_ms, 3_201))
    candles = exchange.executor().closed_candles(first_ms, START_MS)
    assert list(candles["ts_ms"]) == list(range(first_ms, START_MS, BAR_MS))
    assert candles[0]["high"] == 103.0
    assert candles[0]["volume"] == 12.5
    assert [sent.params["limit"] for sent in exchange.asked(KLINES)] == ["1500", "1500", "200"]


@pytest.mark.parametrize(
    ("our_ms", "ahead_ms", "newest"),
    [
        (START_MS + BAR_MS - 1, 0, START_MS - BAR_MS),
        (START_MS + BAR_MS, 0, START_MS),
        (START_MS + BAR_MS - 1, 1, START_MS),
        (START_MS + BAR_MS + 3_000, -3_001, START_MS - BAR_MS),
    ],
)
def test_a_candle_has_closed_when_the_exchanges_clock_says_so(
    exchange: CannedExchange, our_ms: int, ahead_ms: int, newest: int
) -> None:
    exchange.clock.now, exchange.ahead_ms = our_ms, ahead_ms
    exchange.always(KLINES, candle_book(START_MS - 9 * BAR_MS, 20))
    candles = exchange.executor().closed_candles(START_MS - 4 * BAR_MS, START_MS + 9 * BAR_MS)
    assert candles["ts_ms"][-1] == newest


def test_a_candle_that_closes_while_it_is_asked_for_is_left_for_the_next_time(
    exchange: CannedExchange,
) -> None:
    exchange.always(KLINES, candle_book(START_MS - 9 * BAR_MS, 20))
    executor = exchange.executor()
    exchange.clock.now = START_MS + BAR_MS - 1_000
    executor.closed_candles(START_MS - BAR_MS, START_MS)  # measures the time
    exchange.clock.now = START_MS + BAR_MS - 50
    exchange.latency_ms = 100
    candles = executor.closed_candles(START_MS - BAR_MS, START_MS + BAR_MS)
    assert exchange.clock.now > START_MS + BAR_MS
    assert list(candles["ts_ms"]) == [START_MS - BAR_MS]


def test_an_old_measurement_of_the_clock_closes_no_candle(exchange: CannedExchange) -> None:
    exchange.always(KLINES, candle_book(START_MS - 9 * BAR_MS, 20))
    executor = exchange.executor()
    executor.closed_candles(START_MS - BAR_MS, START_MS)
    exchange.clock.now, exchange.ahead_ms = START_MS + BAR_MS, -1
    candles = executor.closed_candles(START_MS - BAR_MS, START_MS + BAR_MS)
    assert list(candles["ts_ms"]) == [START_MS - BAR_MS]


def test_missing_candles_are_left_to_the_caller(exchange: CannedExchange) -> None:
    rows = [kline(START_MS - 3 * BAR_MS), kline(START_MS - BAR_MS)]
    exchange.always(KLINES, (200, rows))
    candles = exchange.executor().closed_candles(START_MS - 4 * BAR_MS, START_MS)
    assert len(candles) == 2
    exchange.always(KLINES, (200, []))
    assert len(exchange.executor().closed_candles(START_MS - 4 * BAR_MS, START_MS)) == 0


def test_a_range_that_does_not_begin_on_a_bar_begins_at_the_next(exchange: CannedExchange) -> None:
    exchange.always(KLINES, candle_book(START_MS - 9 * BAR_MS, 20))
    candles = exchange.executor().closed_candles(START_MS - 2 * BAR_MS + 1, START_MS - BAR_MS + 1)
    assert list(candles["ts_ms"]) == [START_MS - BAR_MS]


def test_the_opening_price_is_the_forming_candles(exchange: CannedExchange) -> None:
    exchange.always(KLINES, (200, [kline(START_MS, open="100.5", close="102")]))
    assert exchange.executor().opening_price(START_MS) == 100.5


def test_before_the_first_trade_the_last_price_opens(exchange: CannedExchange) -> None:
    exchange.always(KLINES, (200, []))
    exchange.always(TICKER, (200, {"symbol": "BTCUSDT", "price": "99.25"}))
    assert exchange.executor().opening_price(START_MS) == 99.25


# --- rules ----------------------------------------------------------------------------------------


def test_without_keys_rules_are_read_and_fees_are_open(exchange: CannedExchange) -> None:
    facts = exchange.executor(api_key="", api_secret="").read_market()
    assert (facts.symbol, facts.is_trading, facts.max_orders) == ("BTCUSDT", True, 200)
    assert (facts.fee_maker, facts.fee_taker) == (None, None)
    rules = facts.rules
    assert (rules.tick_size, rules.step_size, rules.min_qty) == (0.1, 0.001, 0.002)
    assert (rules.min_notional, rules.liquidation_fee) == (100.0, 0.0125)
    assert rules.brackets == DEFAULT_BRACKETS
    assert (facts.highest_buy, facts.lowest_sell) == (1.05, 0.96)
    assert (facts.max_market_qty, facts.status) == (120.0, "TRADING")
    assert (facts.min_price, facts.max_price) == (556.8, 4_529_764.0)
    assert not exchange.asked(BRACKETS)


def test_with_keys_fees_and_brackets_are_the_accounts(exchange: CannedExchange) -> None:
    fees = {"symbol": "BTCUSDT", "makerCommissionRate": "0.00018", "takerCommissionRate": "0.0004"}
    exchange.always(COMMISSION, (200, fees))
    for reply in (BRACKET_REPLY, BRACKET_REPLY[0]):
        exchange.always(BRACKETS, (200, reply))
        facts = exchange.executor().read_market()
        assert (facts.fee_maker, facts.fee_taker) == (0.00018, 0.0004)
        assert facts.rules.brackets == ((0.0, 0.004, 0.0), (50_000.0, 0.005, 50.0))


def test_a_symbol_that_does_not_exist_is_named_with_its_neighbours(
    exchange: CannedExchange,
) -> None:
    with pytest.raises(DataError, match=r"BTTUSDT.*BTCUSDT"):
        exchange.executor(coin="BTT", api_key="", api_secret="").read_market()


def test_a_symbol_that_does_not_trade_says_so(exchange: CannedExchange) -> None:
    info = copy.deepcopy(INFO)
    info["symbols"][0]["status"] = "SETTLING"
    del info["symbols"][0]["liquidationFee"]
    exchange.always(RULES, (200, info))
    facts = exchange.executor(api_key="", api_secret="").read_market()
    assert (facts.is_trading, facts.status) == (False, "SETTLING")
    assert facts.rules.liquidation_fee is None


@pytest.mark.parametrize("missing", range(6))
def test_rules_without_a_filter_are_not_believed(exchange: CannedExchange, missing: int) -> None:
    info: Any = copy.deepcopy(INFO)
    name = info["symbols"][0]["filters"].pop(missing)["filterType"]
    exchange.always(RULES, (200, info))
    with pytest.raises(ReplyError, match=name):
        exchange.executor(api_key="", api_secret="").read_market()


def test_a_price_band_that_is_none_is_not_believed(exchange: CannedExchange) -> None:
    info: Any = copy.deepcopy(INFO)
    info["symbols"][0]["filters"][-1]["multiplierDown"] = "1.05"
    exchange.always(RULES, (200, info))
    with pytest.raises(ReplyError, match="PERCENT_PRICE"):
        exchange.executor(api_key="", api_secret="").read_market()


@pytest.mark.parametrize(
    "brackets",
    [
        [],
        [bracket(1, 5.0, 0.004, 0.0)],
        [bracket(1, 0.0, 0.004, 0.0), bracket(2, 0.0, 0.005, 0.0)],
        [bracket(1, 0.0, 0.0, 0.0)],
        [bracket(1, 0.0, 1.5, 0.0)],
        [bracket(1, 0.0, 0.004, float("inf"))],
        {},
    ],
)
def test_impossible_brackets_are_not_believed(exchange: CannedExchange, brackets: Any) -> None:
    exchange.always(BRACKETS, (200, {"symbol": "BTCUSDT", "brackets": brackets}))
    with pytest.raises(ReplyError):
        exchange.executor().read_market()


# --- preparing the account ------------------------------------------------------------------------


class Account:
    """Modes that the setting endpoints change."""

    def __init__(
        self, exchange: CannedExchange, *, hedged: bool, margin: str, leverage: int
    ) -> None:
        self.hedged, self.margin, self.leverage = hedged, margin, leverage
        exchange.always(BRACKETS, (200, BRACKET_REPLY))
        exchange.always(MODE, lambda _: (200, {"dualSidePosition": self.hedged}))
        exchange.always(CONFIG, lambda _: (200, [self._config()]))
        exchange.always(SET_MODE, self._set_mode)
        exchange.always(SET_MARGIN, self._set_margin)
        exchange.always(SET_LEVERAGE, self._set_leverage)

    def _config(self) -> dict[str, Any]:
        return {"symbol": "BTCUSDT", "marginType": self.margin, "leverage": self.leverage}

    def _set_mode(self, sent: Sent) -> Any:
        self.hedged = sent.params["dualSidePosition"] == "true"
        return 200, {"code": 200, "msg": "success"}

    def _set_margin(self, sent: Sent) -> Any:
        self.margin = sent.params["marginType"]
        return 200, {"code": 200, "msg": "success"}

    def _set_leverage(self, sent: Sent) -> Any:
        self.leverage = int(sent.params["leverage"])
        return 200, {"symbol": "BTCUSDT", "leverage": self.leverage, "maxNotionalValue": "1"}


@pytest.mark.parametrize(
    ("wanted", "set_to"), [(0.3, 1), (1.0, 1), (2.0, 2), (2.5, 3), (125.0, 125)]
)
def test_an_account_is_brought_to_hedge_mode_cross_margin_and_leverage(
    exchange: CannedExchange, wanted: float, set_to: int
) -> None:
    account = Account(exchange, hedged=False, margin="ISOLATED", leverage=20)
    exchange.executor().prepare_account(wanted)
    assert (account.hedged, account.margin, account.leverage) == (True, "CROSSED", set_to)


def test_an_account_that_is_right_is_left_alone(exchange: CannedExchange) -> None:
    Account(exchange, hedged=True, margin="CROSSED", leverage=3)
    exchange.executor().prepare_account(3.0)
    assert [sent for sent in exchange.sent if sent.method == "POST"] == []


def test_already_set_is_as_good_as_set(exchange: CannedExchange) -> None:
    account = Account(exchange, hedged=False, margin="ISOLATED", leverage=3)

    def raced(name: str, value: Any, code: int) -> Any:
        def answer(_: Sent) -> Any:
            setattr(account, name, value)  # somebody was faster
            return refusal(code, "No need to change")

        return answer

    exchange.always(SET_MODE, raced("hedged", value=True, code=-4059))
    exchange.always(SET_MARGIN, raced("margin", "CROSSED", -4046))
    exchange.executor().prepare_account(3.0)


def test_a_setting_whose_answer_is_lost_is_set_again(exchange: CannedExchange) -> None:
    account = Account(exchange, hedged=True, margin="CROSSED", leverage=20)
    exchange.then(SET_LEVERAGE, TIMEOUT)
    exchange.executor().prepare_account(2.0)
    assert account.leverage == 2
    assert len(exchange.asked(SET_LEVERAGE)) == 2


@pytest.mark.parametrize(
    ("endpoint", "code", "what"),
    [
        (SET_MODE, -4067, "hedge mode"),
        (SET_MODE, -4068, "hedge mode"),
        (SET_MARGIN, -4047, "cross margin"),
        (SET_MARGIN, -4048, "cross margin"),
        (SET_LEVERAGE, -4028, "leverage 2"),
    ],
)
def test_what_cannot_be_set_is_said_with_what_to_do(
    exchange: CannedExchange, endpoint: str, code: int, what: str
) -> None:
    Account(exchange, hedged=False, margin="ISOLATED", leverage=20)
    exchange.always(endpoint, refusal(code))
    with pytest.raises(AccountError, match=rf"{what} cannot be set.*close them"):
        exchange.executor().prepare_account(2.0)


def test_a_leverage_the_symbol_does_not_allow_is_refused_before_anything_is_set(
    exchange: CannedExchange,
) -> None:
    Account(exchange, hedged=False, margin="ISOLATED", leverage=20)
    with pytest.raises(AccountError, match="126 is above the 125"):
        exchange.executor().prepare_account(126.0)
    assert [sent for sent in exchange.sent if sent.method == "POST"] == []


@pytest.mark.parametrize("endpoint", [SET_MODE, SET_MARGIN, SET_LEVERAGE])
def test_settings_are_read_back(exchange: CannedExchange, endpoint: str) -> None:
    Account(exchange, hedged=False, margin="ISOLATED", leverage=20)
    exchange.always(endpoint, (200, {"code": 200, "msg": "success"}))  # says so, does nothing
    with pytest.raises(AccountError, match="by hand"):
        exchange.executor().prepare_account(2.0)


@pytest.mark.parametrize("endpoint", [MODE, CONFIG, BRACKETS])
@pytest.mark.parametrize("answer", ["<html>", {}, [], None, {"dualSidePosition": "?"}])
def test_modes_that_cannot_be_read_are_not_guessed(
    exchange: CannedExchange, endpoint: str, answer: Any
) -> None:
    Account(exchange, hedged=True, margin="CROSSED", leverage=2)
    exchange.always(endpoint, (200, answer))
    with pytest.raises(GridError):
        exchange.executor().prepare_account(2.0)
