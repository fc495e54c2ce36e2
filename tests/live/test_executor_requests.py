"""Requests of protection beyond orders and positions, over canned answers."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backtest.market.market_data import normalize_coin
from core.errors import (
    CredentialsError,
    DataError,
    ExchangeError,
    GridError,
    ReplyError,
    RestrictedError,
)
from core.orders import OrderKind
from core.times import BAR_MS
from live.exchange.account import Account
from live.exchange.binance import BinanceExecutor
from live.exchange.closing_orders import Closer, closer_of
from live.exchange.errors import RESTRICTED_CODES, meaning_of
from live.exchange.trade_watch import TradeWatch
from live.exchange.types import (
    UNKNOWN_STATUS,
    Answer,
    ExchangeOrder,
    MarketFacts,
    Meaning,
    OrderSpec,
    Unvalued,
)
from live.store.durable_file import plain_symbol
from tests.support.exchanges.canned import (
    INFO,
    START_MS,
    CannedExchange,
    Sent,
    algo_row,
    order_row,
    refusal,
)

COUNTDOWN = "POST /fapi/v1/countdownCancelAll"
PLACE = "POST /fapi/v1/order"
PLACE_STOP = "POST /fapi/v1/algoOrder"
FIND_STOP = "GET /fapi/v1/algoOrder"
OPEN = "GET /fapi/v1/openOrders"
OPEN_STOPS = "GET /fapi/v1/openAlgoOrders"
POSITIONS = "GET /fapi/v3/positionRisk"
TRADES = "GET /fapi/v1/userTrades"
INCOME = "GET /fapi/v1/income"
STATUS = "GET /fapi/v1/apiTradingStatus"
RIGHTS = "GET /sapi/v1/account/apiRestrictions"
TICKER = "GET /fapi/v2/ticker/price"
DAY_MS = 86_400_000


@pytest.fixture
def exchange() -> CannedExchange:
    return CannedExchange()


def stop(**changes: Any) -> OrderSpec:
    values: dict[str, Any] = {
        "client_id": "s1",
        "kind": OrderKind.STOP,
        "position_side": "LONG",
        "price": 45_000.0,
        "qty": 0.01,
    }
    return OrderSpec(**values | changes)


def market_exit(client_id: str = "x1") -> OrderSpec:
    return stop(client_id=client_id, kind=OrderKind.EXIT, price=0.0)


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


# --- the countdown that cancels without us --------------------------------------------------------


def test_the_countdown_is_set_and_switched_off_for_the_symbol(exchange: CannedExchange) -> None:
    exchange.always(
        COUNTDOWN,
        lambda sent: (200, {"symbol": "BTCUSDT", "countdownTime": sent.params["countdownTime"]}),
    )
    executor = exchange.executor()
    executor.countdown_cancel_all(120_000)
    executor.countdown_cancel_all(0)
    sent = [(s.params["symbol"], s.params["countdownTime"]) for s in exchange.asked(COUNTDOWN)]
    assert sent == [("BTCUSDT", "120000"), ("BTCUSDT", "0")]


@pytest.mark.parametrize("answer", ["<html>", {}, [], {"symbol": "ETHUSDT", "countdownTime": "1"}])
def test_a_countdown_that_is_not_confirmed_fails_at_once_as_stops_must_not_wait_for_it(
    exchange: CannedExchange, answer: Any
) -> None:
    exchange.always(COUNTDOWN, (200, answer))
    with pytest.raises(ReplyError):
        exchange.executor().countdown_cancel_all(120_000)
    assert len(exchange.asked(COUNTDOWN)) == 1


def test_without_keys_there_is_no_countdown(exchange: CannedExchange) -> None:
    with pytest.raises(CredentialsError):
        exchange.executor(api_key="", api_secret="").countdown_cancel_all(1)


# --- stops ----------------------------------------------------------------------------------------


def test_a_stop_with_a_quantity_is_laid_beside_the_one_that_closes_all(
    exchange: CannedExchange,
) -> None:
    exchange.always(PLACE_STOP, lambda sent: (200, algo_row(sent.params["clientAlgoId"])))
    orders = [stop(), stop(client_id="s2", closes_all=False)]
    replies = exchange.executor().create_orders(orders)
    assert [reply.answer for reply in replies] == [Answer.ACCEPTED] * 2
    whole, part = exchange.asked(PLACE_STOP)
    assert (whole.params["closePosition"], "quantity" in whole.params) == ("true", False)
    assert ("closePosition" in part.params, part.params["quantity"]) == (False, "0.01")


def test_a_stop_is_read_with_its_trigger_quantity_and_state(exchange: CannedExchange) -> None:
    exchange.then(FIND_STOP, (200, algo_row("s1")))
    fired = {"algoStatus": "FINISHED", "actualOrderId": "8800", "closePosition": False}
    exchange.then(FIND_STOP, (200, algo_row("s2", quantity="0.020", **fired)))
    executor = exchange.executor()
    first = executor.find_order("s1", OrderKind.STOP)
    second = executor.find_order("s2", OrderKind.STOP)
    assert first is not None
    assert second is not None
    assert (first.price, first.qty, first.closes_all, first.status) == (45_000.0, 0.0, True, "NEW")
    assert (second.qty, second.closes_all, second.fired_order_id) == (0.02, False, "8800")


def test_a_stop_of_another_symbol_with_our_name_is_not_ours(exchange: CannedExchange) -> None:
    exchange.always(FIND_STOP, (200, algo_row("s1", symbol="ETHUSDT")))
    assert exchange.executor().find_order("s1", OrderKind.STOP) is None


def test_a_name_that_another_symbols_stop_has_is_refused_so_that_a_new_one_is_made(
    exchange: CannedExchange,
) -> None:
    exchange.always(PLACE_STOP, refusal(-20132, "duplicate"))
    exchange.always(FIND_STOP, (200, algo_row("s1", symbol="ETHUSDT")))
    (reply,) = exchange.executor().create_orders([stop()])
    assert (reply.answer, reply.meaning) == (Answer.REFUSED, Meaning.REFUSED)
    assert "another" in reply.text


def test_a_name_taken_by_an_order_of_ours_that_shows_late_is_that_order(
    exchange: CannedExchange,
) -> None:
    exchange.always(PLACE_STOP, refusal(-20132, "duplicate"))
    exchange.then(FIND_STOP, refusal(-2013), (200, algo_row("s1")))
    (reply,) = exchange.executor().create_orders([stop()])
    assert reply.answer is Answer.ACCEPTED


def test_an_algo_id_that_is_invalid_or_completed_is_gone(exchange: CannedExchange) -> None:
    exchange.always(FIND_STOP, refusal(-20124))
    assert exchange.executor().find_order("s1", OrderKind.STOP) is None


# --- other symbols and foreign orders -------------------------------------------------------------


def test_open_orders_of_all_symbols_say_whose_they_are(exchange: CannedExchange) -> None:
    exchange.always(OPEN, (200, [order_row("a"), order_row("b", symbol="ETHUSDT")]))
    exchange.always(OPEN_STOPS, (200, [algo_row("s", symbol="币安人生USDT")]))
    executor = exchange.executor()
    found = [(order.symbol, order.client_id) for order in executor.all_open_orders()]
    assert found == [("BTCUSDT", "a"), ("ETHUSDT", "b"), ("币安人生USDT", "s")]
    assert all("symbol" not in sent.params for sent in exchange.sent)


def test_open_positions_of_all_symbols_are_told_apart(exchange: CannedExchange) -> None:
    def row(symbol: str, side: str, amount: str) -> dict[str, str]:
        prices = {"entryPrice": "5", "markPrice": "6", "liquidationPrice": "0"}
        return {"symbol": symbol, "positionSide": side, "positionAmt": amount, **prices}

    rows = [
        row("BTCUSDT", "LONG", "0.1"),
        row("BTCUSDT", "SHORT", "0"),
        row("ETHUSDT", "SHORT", "-2"),
        row("SOLUSDT", "BOTH", "-3"),
    ]
    exchange.always(POSITIONS, (200, rows))
    held = exchange.executor().all_positions()
    assert {name: side.qty for name, side in held.items()} == {
        ("BTCUSDT", "LONG"): 0.1,
        ("ETHUSDT", "SHORT"): 2.0,
        ("SOLUSDT", "BOTH"): 3.0,
    }


def test_a_foreign_order_with_a_new_status_word_hides_no_other_order(
    exchange: CannedExchange,
) -> None:
    exchange.always(OPEN, (200, [order_row("web_1", status="TIRED"), order_row("a")]))
    exchange.always(OPEN_STOPS, (200, [algo_row("web_2", algoStatus="DREAMING"), algo_row("s")]))
    orders = exchange.executor().open_orders()
    assert [order.status for order in orders] == [UNKNOWN_STATUS, "NEW", UNKNOWN_STATUS, "NEW"]
    assert all(order.is_open for order in orders)


def test_an_order_of_ours_with_a_new_status_word_is_not_believed(exchange: CannedExchange) -> None:
    exchange.always("GET /fapi/v1/order", (200, order_row("x1", status="TIRED")))
    exchange.always(FIND_STOP, (200, algo_row("s1", algoStatus="TIRED")))
    for client_id, kind in (("x1", OrderKind.EXIT), ("s1", OrderKind.STOP)):
        with pytest.raises(ReplyError, match="TIRED"):
            exchange.executor().find_order(client_id, kind)


def test_further_symbols_share_the_accounts_connection(exchange: CannedExchange) -> None:
    first = exchange.executor()
    second = BinanceExecutor(first.account, "ETH", bar_ms=BAR_MS)
    exchange.always(TICKER, lambda sent: (200, {"symbol": sent.params["symbol"], "price": "7"}))
    first.last_price()
    second.last_price()
    assert [sent.params["symbol"] for sent in exchange.asked(TICKER)] == ["BTCUSDT", "ETHUSDT"]
    assert first.usage() == second.usage() == first.account.usage()
    assert exchange.time_requests == 1


def test_connections_of_several_threads_count_their_requests_together(
    exchange: CannedExchange,
) -> None:
    first = exchange.executor()
    session = first.account.connection
    second = Account(session.another("ETHUSDT", exchange.session()))
    exchange.always("GET /fapi/v3/balance", (200, [{"asset": "USDT", "balance": 1}]))
    before = first.usage().weight_1m
    with pytest.raises(GridError):
        second.balance()
    assert first.usage().weight_1m > before


@pytest.mark.parametrize(
    ("client_id", "closer"),
    [
        ("autoclose-1760000400000", Closer.LIQUIDATION),
        ("adl_autoclose", Closer.AUTO_DELEVERAGING),
        ("adl_autoclose-17", Closer.AUTO_DELEVERAGING),
        ("settlement_autoclose-1760000400000", Closer.SETTLEMENT),
        ("a-BTC-autoclose-", None),
        ("web_abc", None),
        ("", None),
    ],
)
def test_who_closed_a_position_without_us_is_in_the_client_id(
    client_id: str, closer: Closer | None
) -> None:
    assert closer_of(client_id) is closer


# --- trades ---------------------------------------------------------------------------------------


def test_the_trades_of_one_order_are_asked_for_alone(exchange: CannedExchange) -> None:
    exchange.always(TRADES, (200, [trade(3, orderId=77), trade(2, orderId=77)]))
    trades = exchange.executor().order_executions("77")
    assert [item.trade_id for item in trades] == [2, 3]
    (sent,) = exchange.asked(TRADES)
    assert (sent.params["orderId"], sent.params["symbol"]) == ("77", "BTCUSDT")


@settings(max_examples=25)
@given(late=st.sets(st.integers(1, 30), max_size=8), overlap=st.integers(31, 60))
def test_a_trade_listed_late_is_found_by_a_look_that_overlaps(late: set[int], overlap: int) -> None:
    exchange, listed = CannedExchange(), [n for n in range(1, 31) if n not in late]

    def answer(sent: Sent) -> Any:
        rows = [trade(number) for number in listed]
        if "startTime" in sent.params:
            rows = [row for row in rows if row["time"] >= int(sent.params["startTime"])]
        else:
            rows = [row for row in rows if row["id"] >= int(sent.params["fromId"])]
        return 200, rows[: int(sent.params["limit"])]

    exchange.always(TRADES, answer)
    executor = exchange.executor()
    known = {item.trade_id: item for item in executor.executions_since(START_MS - 1_000)}
    listed += sorted(late)
    newest_ms = max((item.ts_ms for item in known.values()), default=START_MS)
    known |= {t.trade_id: t for t in executor.executions_since(newest_ms - overlap)}
    assert set(known) == set(range(1, 31))


def test_trades_older_than_three_months_are_reported_not_asked_for_ever(
    exchange: CannedExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.then(TRADES, refusal(-4166, "Search window is restricted to recent 90 days only."))
    exchange.then(TRADES, (200, [trade(4), trade(9)]), (200, []))
    executor = exchange.executor()
    with caplog.at_level(logging.WARNING):
        trades = executor.executions(5, 0)
    assert [item.trade_id for item in trades] == [9]
    assert "three months" in caplog.text
    first, second, _ = exchange.asked(TRADES)
    assert first.params["fromId"] == "5"
    assert int(second.params["startTime"]) == executor.history_start_ms() == START_MS - 89 * DAY_MS


def test_a_start_before_the_records_of_the_exchange_is_reported(
    exchange: CannedExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.always(TRADES, (200, []))
    with caplog.at_level(logging.WARNING):
        assert exchange.executor().executions(0, START_MS - 200 * DAY_MS) == []
    assert "three months" in caplog.text


def test_a_fee_in_an_asset_without_a_market_is_reported_and_the_trade_is_booked(
    exchange: CannedExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.always(TICKER, refusal(-1121, "Invalid symbol."))
    paid = {"commissionAsset": "BNFCR", "commission": "0.02"}
    exchange.then(TRADES, (200, [trade(1, **paid), trade(2, **paid), trade(3)]))
    with caplog.at_level(logging.WARNING):
        trades = exchange.executor().executions(1, 0)
    assert [item.fee for item in trades] == [0.0, 0.0, 0.04]
    assert trades[0].unvalued == Unvalued(amount=0.02, asset="BNFCR")
    assert trades[2].unvalued is None
    assert caplog.text.count("BNFCR cannot be valued") == 1
    assert len(exchange.asked(TICKER)) == 1


def test_funding_in_an_asset_without_a_market_is_reported(exchange: CannedExchange) -> None:
    exchange.always(TICKER, refusal(-1121, "Invalid symbol."))
    row = {
        "symbol": "BTCUSDT",
        "incomeType": "FUNDING_FEE",
        "income": "-0.5",
        "asset": "BNFCR",
        "time": START_MS,
        "tranId": 1,
    }
    exchange.always(INCOME, (200, [row]))
    (payment,) = exchange.executor().funding_payments(START_MS)
    assert (payment.amount, payment.unvalued) == (0.0, Unvalued(amount=-0.5, asset="BNFCR"))


def test_a_price_that_cannot_be_read_is_the_last_one_known(exchange: CannedExchange) -> None:
    paid = {"commissionAsset": "BNB", "commission": "0.0001"}
    exchange.then(TICKER, (200, {"symbol": "BNBUSDT", "price": "600"}))
    exchange.always(TICKER, (503, "Service Unavailable."))
    executor = exchange.executor(settings={"retries": 0})
    for number in (1, 2):
        exchange.then(TRADES, (200, [trade(number, **paid)]))
        (item,) = executor.executions(number, 0)
        assert item.fee == pytest.approx(0.06)
        exchange.clock.now += 120_000


# --- what the account may do ----------------------------------------------------------------------

INDICATOR = {"indicator": "UFR", "value": 0.05, "triggerValue": 0.995, "isLocked": False}


def test_the_quantitative_rules_say_until_when_entries_are_off(exchange: CannedExchange) -> None:
    locked = {**INDICATOR, "isLocked": True, "plannedRecoverTime": START_MS + 600_000}
    reported = {
        "indicators": {"BTCUSDT": [locked, INDICATOR], "ACCOUNT": []},
        "updateTime": START_MS,
    }
    exchange.always(STATUS, (200, reported))
    rules = exchange.executor().quantitative_rules()
    assert [(rule.scope, rule.is_locked, rule.recovers_ms) for rule in rules] == [
        ("BTCUSDT", True, START_MS + 600_000),
        ("BTCUSDT", False, 0),
    ]
    assert exchange.asked(STATUS)[0].params["symbol"] == "BTCUSDT"


@pytest.mark.parametrize(
    "reported", [[], {}, {"indicators": []}, {"indicators": {"BTCUSDT": [{"indicator": "UFR"}]}}]
)
def test_quantitative_rules_that_cannot_be_read_are_not_guessed(
    exchange: CannedExchange, reported: Any
) -> None:
    exchange.always(STATUS, (200, reported))
    with pytest.raises(ReplyError):
        exchange.executor(settings={"retries": 0}).quantitative_rules()


RIGHT = {
    "ipRestrict": True,
    "enableReading": True,
    "enableFutures": True,
    "enableWithdrawals": False,
    "enableInternalTransfer": False,
    "permitsUniversalTransfer": False,
}


def test_the_rights_of_the_key_are_read(exchange: CannedExchange) -> None:
    exchange.then(RIGHTS, (200, RIGHT))
    exchange.then(RIGHTS, (200, {**RIGHT, "enableWithdrawals": True, "ipRestrict": False}))
    executor = exchange.executor()
    rights = executor.key_rights()
    assert (rights.may_trade_futures, rights.may_read, rights.is_bound_to_addresses) == (True,) * 3
    assert (rights.may_withdraw, rights.may_transfer) == (False, False)
    rights = executor.key_rights()
    assert (rights.may_withdraw, rights.is_bound_to_addresses) == (True, False)


@pytest.mark.parametrize("missing", RIGHT)
def test_a_right_that_is_not_reported_is_not_guessed(
    exchange: CannedExchange, missing: str
) -> None:
    rights = {name: value for name, value in RIGHT.items() if name != missing}
    exchange.always(RIGHTS, (200, rights))
    with pytest.raises(ReplyError, match=missing):
        exchange.executor(settings={"retries": 0}).key_rights()


# --- refusals -------------------------------------------------------------------------------------

MEANINGS = {
    **dict.fromkeys(RESTRICTED_CODES, Meaning.ENTRIES_OFF),
    **dict.fromkeys((-1111, -4005, -4014, -4023, -4108, -4140), Meaning.RULES),
    **dict.fromkeys((-4045, -4509, -5022, -1112, -2021), Meaning.LATER),
    **dict.fromkeys((-1022, -2014, -2015), Meaning.KEYS),
    **dict.fromkeys((-2008, -2019, -4425, -5000, -5029, -99_999), Meaning.REFUSED),
    **dict.fromkeys((-1000, -1006, -1007), Meaning.UNKNOWN),
    **dict.fromkeys((-1001, -1008, -1021), Meaning.NOT_DONE),
    -1003: Meaning.LATER,
    -4130: Meaning.STOP_EXISTS,
    -4166: Meaning.TOO_OLD,
}


@pytest.mark.parametrize(("code", "meaning"), MEANINGS.items())
def test_every_code_has_its_meaning(code: int, meaning: Meaning) -> None:
    exchange = CannedExchange()
    exchange.always("GET /fapi/v3/balance", refusal(code))
    with pytest.raises(GridError) as raised:
        exchange.executor(settings={"retries": 0}).balance()
    assert meaning_of(raised.value) is meaning
    assert raised.value.code == code


@pytest.mark.parametrize("code", sorted(RESTRICTED_CODES))
def test_a_restriction_is_no_fault_of_the_keys_and_closing_goes_on(code: int) -> None:
    exchange = CannedExchange()
    exchange.then(PLACE, refusal(code, "cooling off"))
    exchange.then(PLACE, (200, order_row("x2", type="MARKET", status="FILLED")))
    replies = exchange.executor().create_orders([market_exit(), market_exit("x2")])
    assert [reply.answer for reply in replies] == [Answer.REFUSED, Answer.ACCEPTED]
    assert (replies[0].meaning, replies[0].code) == (Meaning.ENTRIES_OFF, code)
    assert "closing goes on" in replies[0].text
    assert replies[1].meaning is None


def test_a_restriction_is_an_error_of_its_own(exchange: CannedExchange) -> None:
    exchange.always("GET /fapi/v3/balance", refusal(-4192))
    with pytest.raises(RestrictedError):
        exchange.executor().balance()


def test_refused_keys_are_reported_by_the_meaning_of_the_reply(exchange: CannedExchange) -> None:
    exchange.always(PLACE, refusal(-2015))
    (reply,) = exchange.executor().create_orders([market_exit()])
    assert (reply.answer, reply.meaning, reply.code) == (Answer.FORBIDDEN, Meaning.KEYS, -2015)


UNANSWERED = [(504, ""), (503, "Service Unavailable."), (502, "<html>"), refusal(-1007)]


@pytest.mark.parametrize("answer", UNANSWERED, ids=str)
def test_a_question_that_fails_does_not_say_it_must_be_looked_up(answer: Any) -> None:
    exchange = CannedExchange()
    exchange.always("GET /fapi/v3/balance", answer)
    exchange.always(PLACE, answer)
    exchange.always("GET /fapi/v1/order", answer)
    executor = exchange.executor(settings={"retries": 0})
    with pytest.raises(GridError, match="nothing was changed by asking") as raised:
        executor.balance()
    assert "looked up" not in str(raised.value)
    executor.create_orders([market_exit()])


def test_an_outage_is_one_message_a_minute(
    exchange: CannedExchange, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.always("GET /fapi/v3/balance", (502, "<html><body>" + "bad gateway " * 999))
    executor = exchange.executor()
    with caplog.at_level(logging.INFO):
        for _ in range(30):  # four tries each, five seconds apart
            with pytest.raises(GridError):
                executor.balance()
            exchange.clock.now += 5_000
    minutes = (exchange.clock.now - START_MS) / 60_000
    assert len(exchange.asked("GET /fapi/v3/balance")) == 150
    assert minutes - 1 <= len(caplog.records) <= minutes + 1
    assert "<" not in caplog.text
    assert max(len(item.getMessage()) for item in caplog.records) < 500


def test_an_order_refused_in_a_batch_has_code_and_meaning(exchange: CannedExchange) -> None:
    rows = [{"code": -4014, "msg": "tick"}, {"code": -5022, "msg": "cross"}]
    exchange.always("POST /fapi/v1/batchOrders", (200, rows))
    orders = [stop(client_id=name, kind=OrderKind.ENTRY) for name in "ab"]
    replies = exchange.executor().create_orders(orders)
    assert [(r.code, r.meaning) for r in replies] == [
        (-4014, Meaning.RULES),
        (-5022, Meaning.LATER),
    ]


# --- rules ----------------------------------------------------------------------------------------


def facts_of(**filters: dict[str, str]) -> MarketFacts:
    exchange = CannedExchange()
    info: Any = copy.deepcopy(INFO)
    for row in info["symbols"][0]["filters"]:
        row.update(filters.get(row["filterType"], {}))
    exchange.always("GET /fapi/v1/exchangeInfo", (200, info))
    return exchange.executor(api_key="", api_secret="").read_market()


def test_the_price_rule_has_one_bound_a_side() -> None:
    facts = facts_of()
    assert facts.takes_price("BUY", 600.0, 50_000.0)
    assert facts.takes_price("SELL", 4_000_000.0, 50_000.0)
    assert facts.takes_price("BUY", 52_500.0, 50_000.0)
    assert not facts.takes_price("BUY", 52_500.1, 50_000.0)
    assert facts.takes_price("SELL", 48_000.0, 50_000.0)
    assert not facts.takes_price("SELL", 47_999.9, 50_000.0)


def test_the_price_filters_own_limits_hold() -> None:
    facts = facts_of(PRICE_FILTER={"minPrice": "1000", "maxPrice": "90000"})
    assert not facts.takes_price("BUY", 999.9, 50_000.0)
    assert not facts.takes_price("SELL", 90_000.1, 50_000.0)
    assert facts_of(PRICE_FILTER={"maxPrice": "0"}).takes_price("SELL", 1e9, 50_000.0)


def test_rules_are_read_again_when_asked_for(exchange: CannedExchange) -> None:
    exchange.always("POST /fapi/v1/batchOrders", lambda _: (200, [order_row("a")]))
    executor = exchange.executor(api_key="k", api_secret="s")  # noqa: S106 - none
    entry = stop(client_id="a", kind=OrderKind.ENTRY, price=50_000.5)
    assert executor.create_orders([entry])[0].answer is Answer.ACCEPTED
    info: Any = copy.deepcopy(INFO)
    info["symbols"][0]["filters"][0]["tickSize"] = "1"
    exchange.always("GET /fapi/v1/exchangeInfo", (200, info))
    exchange.always("GET /fapi/v1/leverageBracket", refusal(-1000))
    with pytest.raises(GridError):
        executor.read_market()  # brackets are refused, and cost nothing but themselves
    assert executor.create_orders([entry])[0].answer is Answer.REFUSED


# --- whether anything may have traded -------------------------------------------------------------


def resting(client_id: str, filled_qty: float = 0.0, **changes: Any) -> ExchangeOrder:
    values: dict[str, Any] = {
        "order_id": client_id,
        "kind": OrderKind.ENTRY,
        "position_side": "LONG",
        "price": 1.0,
        "qty": 1.0,
        "is_open": True,
        "status": "NEW",
    }
    return ExchangeOrder(client_id=client_id, filled_qty=filled_qty, **values | changes)


def test_nothing_has_traded_while_the_open_orders_stay_the_same() -> None:
    watch = TradeWatch(longest_ms=300_000)
    orders = [resting("a"), resting("b", 0.5)]
    assert watch.may_have_traded(orders, START_MS)
    assert not watch.may_have_traded(orders[::-1], START_MS + 5_000)
    assert not watch.may_have_traded(orders, START_MS + 299_999)
    assert watch.may_have_traded(orders, START_MS + 300_000)
    assert not watch.may_have_traded(orders, START_MS + 305_000)


@pytest.mark.parametrize(
    "now",
    [
        [resting("a")],
        [resting("a"), resting("b", 0.6)],
        [resting("a"), resting("b", 0.5), resting("c")],
        [resting("a"), resting("b", 0.5, status="TRIGGERING")],
        [],
    ],
)
def test_an_order_gone_new_or_filled_further_may_have_traded(now: list[ExchangeOrder]) -> None:
    watch = TradeWatch(longest_ms=300_000)
    assert watch.may_have_traded([resting("a"), resting("b", 0.5)], START_MS)
    assert watch.may_have_traded(now, START_MS + 1)


def test_orders_we_laid_or_cancelled_are_no_trades() -> None:
    watch = TradeWatch(longest_ms=300_000)
    assert watch.may_have_traded([resting("a"), resting("b")], START_MS)
    watch.expect(laid={"c"}, cancelled={"a"})
    assert not watch.may_have_traded([resting("b"), resting("c")], START_MS + 1)
    assert watch.may_have_traded([resting("b", 0.1), resting("c")], START_MS + 2)


def test_a_position_that_changed_and_a_clock_set_back_are_looked_into() -> None:
    watch = TradeWatch(longest_ms=300_000)
    held = {"LONG": 1.0}
    assert watch.may_have_traded([], START_MS, held)
    assert not watch.may_have_traded([], START_MS + 1)
    assert not watch.may_have_traded([], START_MS + 2, held)
    assert watch.may_have_traded([], START_MS + 3, {"LONG": 2.0})
    assert watch.may_have_traded([], START_MS - 9_000)


def test_a_look_that_failed_is_owed() -> None:
    watch = TradeWatch(longest_ms=300_000)
    assert watch.may_have_traded([], START_MS)
    watch.owe()
    assert watch.may_have_traded([], START_MS + 1)


def test_refusals_of_a_missing_right_name_no_secret(exchange: CannedExchange) -> None:
    exchange.always(RIGHTS, refusal(-2015))
    with pytest.raises(ExchangeError, match="futures permission"):
        exchange.executor().key_rights()


# --- coins in other alphabets ---------------------------------------------------------------------


@given(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12))
@example("币安人生")
@example("1000PEPE")
@example("ß")
def test_a_coin_that_one_parser_takes_the_other_takes_too(text: str) -> None:
    try:
        coin = normalize_coin(text)
    except DataError:
        return
    assert normalize_coin(coin) == coin
    assert plain_symbol(f"{coin}/USDT:USDT") == plain_symbol(f"{coin}USDT") == f"{coin}USDT"


def test_a_coin_in_another_alphabet_is_asked_for_and_traded(exchange: CannedExchange) -> None:
    info: Any = copy.deepcopy(INFO)
    info["symbols"][0]["symbol"] = "币安人生USDT"
    exchange.always("GET /fapi/v1/exchangeInfo", (200, info))
    exchange.always(OPEN, (200, [order_row("a", symbol="币安人生USDT")]))
    exchange.always(OPEN_STOPS, (200, []))
    exchange.always(PLACE, lambda s: (200, order_row("x1", symbol=s.params["symbol"])))
    executor = exchange.executor(coin="币安人生")
    assert [order.symbol for order in executor.open_orders()] == ["币安人生USDT"]
    assert executor.create_orders([market_exit()])[0].answer is Answer.ACCEPTED
    assert exchange.asked(PLACE)[0].params["symbol"] == "币安人生USDT"
    assert exchange.executor(coin="币安人生", api_key="", api_secret="").read_market().is_trading
