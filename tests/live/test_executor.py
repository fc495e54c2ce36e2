"""Orders through the real executor and the real ccxt, over canned answers."""

from __future__ import annotations

import json
import logging
import re
import traceback
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from core.errors import (
    ConfigError,
    CredentialsError,
    ExchangeError,
    GridError,
    NetworkError,
    RateLimitError,
)
from core.orders import OrderKind
from live.exchange.binance import BinanceExecutor
from live.exchange.order_fields import on_step
from live.exchange.port import Exchange
from live.exchange.types import Answer, CancelResult, ExchangeOrder, OrderReply, OrderSpec
from tests.support.exchanges.canned import (
    KEY,
    SECRET,
    START_MS,
    CannedExchange,
    Sent,
    algo_row,
    order_row,
    refusal,
)

BATCH = "POST /fapi/v1/batchOrders"
PLACE = "POST /fapi/v1/order"
PLACE_STOP = "POST /fapi/v1/algoOrder"
FIND = "GET /fapi/v1/order"
FIND_STOP = "GET /fapi/v1/algoOrder"
CANCEL = "DELETE /fapi/v1/batchOrders"
CANCEL_STOP = "DELETE /fapi/v1/algoOrder"
TIMEOUT = requests.ReadTimeout("slow")
OUT_OF_REACH = requests.ConnectTimeout("no route")
SETTLED_S = 11.0  # receive window and a second


@pytest.fixture
def exchange() -> CannedExchange:
    return CannedExchange()


def entry(client_id: str, **changes: Any) -> OrderSpec:
    values: dict[str, Any] = {
        "kind": OrderKind.ENTRY,
        "position_side": "LONG",
        "price": 50_000.0,
        "qty": 0.01,
    }
    return OrderSpec(client_id=client_id, **values | changes)


def entries(count: int) -> list[OrderSpec]:
    return [entry(f"e{i}") for i in range(count)]


def stop(client_id: str = "s1") -> OrderSpec:
    return entry(client_id, kind=OrderKind.STOP, price=45_000.0)


def market_exit(client_id: str = "x1") -> OrderSpec:
    return entry(client_id, kind=OrderKind.EXIT, price=0.0)


def resting(client_id: str, **changes: Any) -> ExchangeOrder:
    values: dict[str, Any] = {
        "order_id": str(order_row(client_id)["orderId"]),
        "kind": OrderKind.ENTRY,
        "position_side": "LONG",
        "price": 50_000.0,
        "qty": 0.01,
        "filled_qty": 0.0,
        "is_open": True,
        "status": "NEW",
    }
    return ExchangeOrder(client_id=client_id, **values | changes)


def resting_stop(client_id: str = "s1", **changes: Any) -> ExchangeOrder:
    return resting(client_id, kind=OrderKind.STOP, **{"order_id": "7000"} | changes)


def accept_batch(sent: Sent) -> Any:
    """Accept every order of a batch."""
    return 200, [order_row(order["newClientOrderId"]) for order in sent.batch]


def answers(replies: list[OrderReply]) -> list[Answer]:
    return [reply.answer for reply in replies]


# --- what is sent ---------------------------------------------------------------------------------


def test_the_executor_is_an_exchange(exchange: CannedExchange) -> None:
    typed: Exchange = exchange.executor()
    assert typed.usage().weight_1m == 0


def test_entries_and_take_profits_are_post_only_in_hedge_mode(exchange: CannedExchange) -> None:
    exchange.always(BATCH, accept_batch)
    orders = [
        entry("a"),
        entry("b", kind=OrderKind.TAKE_PROFIT, price=51_000.5),
        entry("c", position_side="SHORT"),
        entry("d", position_side="SHORT", kind=OrderKind.TAKE_PROFIT),
    ]
    replies = exchange.executor().create_orders(orders)
    assert answers(replies) == [Answer.ACCEPTED] * 4
    assert [reply.order_id for reply in replies] == [
        str(order_row(order.client_id)["orderId"]) for order in orders
    ]
    (request,) = exchange.asked(BATCH)
    sides = [(order["side"], order["positionSide"]) for order in request.batch]
    assert sides == [("BUY", "LONG"), ("SELL", "LONG"), ("SELL", "SHORT"), ("BUY", "SHORT")]
    assert request.batch[1] == {
        "symbol": "BTCUSDT",
        "side": "SELL",
        "positionSide": "LONG",
        "quantity": "0.01",
        "newClientOrderId": "b",
        "newOrderRespType": "RESULT",
        "type": "LIMIT",
        "timeInForce": "GTX",
        "price": "51000.5",
    }


def test_a_stop_is_an_algo_order_that_closes_its_side(exchange: CannedExchange) -> None:
    exchange.always(PLACE_STOP, (200, algo_row("s1")))
    replies = exchange.executor(settings={"stop_trigger": "MARK_PRICE"}).create_orders([stop()])
    assert (replies[0].answer, replies[0].order_id) == (Answer.ACCEPTED, "7000")
    (request,) = exchange.asked(PLACE_STOP)
    for word in ("timestamp", "signature", "recvWindow"):
        del request.params[word]
    assert request.params == {
        "symbol": "BTCUSDT",
        "side": "SELL",
        "positionSide": "LONG",
        "algoType": "CONDITIONAL",
        "type": "STOP_MARKET",
        "triggerPrice": "45000",
        "workingType": "MARK_PRICE",
        "closePosition": "true",
        "clientAlgoId": "s1",
    }


def test_a_market_exit_asks_for_its_result(exchange: CannedExchange) -> None:
    exchange.always(PLACE, (200, order_row("x1", type="MARKET", status="FILLED")))
    replies = exchange.executor().create_orders([market_exit()])
    assert (replies[0].answer, replies[0].text) == (Answer.ACCEPTED, "FILLED")
    (request,) = exchange.asked(PLACE)
    assert request.params["type"] == "MARKET"
    assert request.params["newOrderRespType"] == "RESULT"
    assert request.params["newClientOrderId"] == "x1"
    assert "price" not in request.params


def test_no_order_says_reduce_only(exchange: CannedExchange) -> None:
    exchange.always(BATCH, accept_batch)
    exchange.always(PLACE_STOP, (200, algo_row("s1")))
    exchange.always(PLACE, (200, order_row("x1", type="MARKET")))
    take = entry("t", kind=OrderKind.TAKE_PROFIT)
    exchange.executor().create_orders([take, stop(), market_exit()])
    assert len(exchange.sent) == 4  # rules, batch, stop, exit
    assert not any("reduceOnly" in str(sent.params) for sent in exchange.sent)


def test_orders_keep_their_order_and_go_five_to_a_request(exchange: CannedExchange) -> None:
    exchange.always(BATCH, accept_batch)
    exchange.always(PLACE_STOP, (200, algo_row("s1")))
    orders = [stop(), *entries(12)]
    replies = exchange.executor().create_orders(orders)
    assert [reply.client_id for reply in replies] == [order.client_id for order in orders]
    posts = [sent.path for sent in exchange.sent if sent.method == "POST"]
    assert posts == ["/fapi/v1/algoOrder", *["/fapi/v1/batchOrders"] * 3]
    assert [len(sent.batch) for sent in exchange.asked(BATCH)] == [5, 5, 2]


@given(
    digits=st.integers(0, 8), unit=st.sampled_from([1, 2, 5, 25]), count=st.integers(1, 10_000_000)
)
def test_numbers_are_sent_as_exact_multiples_of_the_step(
    digits: int, unit: int, count: int
) -> None:
    step = float(f"{unit}e-{digits}")
    text = on_step(count * step, step, "price")
    assert set(text) <= set("0123456789.")
    whole, _, fraction = text.partition(".")
    assert len(fraction) <= digits
    assert int(whole + fraction.ljust(digits, "0")) == count * unit


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [
        (1e-05, 1e-05, "0.00001"),
        (0.1 + 0.2, 0.1, "0.3"),
        (0.30000000000000004, 0.001, "0.3"),
        (4_123_456.7, 0.1, "4123456.7"),
        (100_000.0, 100.0, "100000"),
    ],
)
def test_numbers_have_no_float_noise_and_no_exponent(value: float, step: float, text: str) -> None:
    assert on_step(value, step, "price") == text


@pytest.mark.parametrize(
    "wrong",
    [
        {"price": 50_000.05},
        {"qty": 0.0105},
        {"qty": 0.0},
        {"price": -1.0},
        {"qty": float("nan")},
        {"price": float("inf")},
        {"client_id": "with blank"},
        {"client_id": "x" * 37},
    ],
)
def test_what_the_exchange_would_refuse_is_not_sent(
    exchange: CannedExchange, wrong: dict[str, Any]
) -> None:
    exchange.always(BATCH, accept_batch)
    client_id = wrong.pop("client_id", "bad")
    replies = exchange.executor().create_orders([entry(client_id, **wrong), entry("good")])
    assert answers(replies) == [Answer.REFUSED, Answer.ACCEPTED]
    assert [order["newClientOrderId"] for order in exchange.asked(BATCH)[0].batch] == ["good"]


def test_two_orders_of_one_identity_are_not_sent(exchange: CannedExchange) -> None:
    with pytest.raises(ExchangeError, match="e0"):
        exchange.executor().create_orders([entry("e0"), entry("e1"), entry("e0")])
    assert exchange.sent == []


def test_without_keys_nothing_is_sent(exchange: CannedExchange) -> None:
    executor = exchange.executor(api_key="", api_secret="")
    with pytest.raises(CredentialsError):
        executor.create_orders([entry("a")])
    with pytest.raises(CredentialsError):
        executor.cancel_orders([resting("a")])
    with pytest.raises(CredentialsError):
        executor.balance()
    assert exchange.sent == []


def test_a_stop_trigger_must_be_one_the_exchange_has(exchange: CannedExchange) -> None:
    with pytest.raises(ConfigError, match="INDEX"):
        exchange.executor(settings={"stop_trigger": "INDEX"})


# --- batches --------------------------------------------------------------------------------------


def test_accepted_orders_are_told_apart_by_identity_not_by_place(exchange: CannedExchange) -> None:
    def backwards(sent: Sent) -> Any:
        return 200, accept_batch(sent)[1][::-1]

    exchange.always(BATCH, backwards)
    replies = exchange.executor().create_orders(entries(3))
    assert [reply.order_id for reply in replies] == [
        str(order_row(f"e{i}")["orderId"]) for i in range(3)
    ]


def test_each_refusal_in_a_batch_finds_its_order(exchange: CannedExchange) -> None:
    reply = [
        order_row("e0"),
        {"code": -5022, "msg": "would cross"},
        {"code": -2019, "msg": "margin"},
        order_row("e3"),
        {"code": -4164, "msg": "notional"},
    ]
    exchange.always(BATCH, (200, reply))
    assert answers(exchange.executor().create_orders(entries(5))) == [
        Answer.ACCEPTED,
        Answer.WOULD_CROSS,
        Answer.NO_MARGIN,
        Answer.ACCEPTED,
        Answer.REFUSED,
    ]
    assert len(exchange.sent) == 2


def test_refusals_that_agree_need_no_order_in_the_reply(exchange: CannedExchange) -> None:
    crossed = {"code": -5022, "msg": "would cross"}
    exchange.always(BATCH, (200, [crossed, order_row("e2"), crossed]))
    replies = exchange.executor().create_orders(entries(3))
    assert answers(replies) == [Answer.WOULD_CROSS, Answer.WOULD_CROSS, Answer.ACCEPTED]


def test_refusals_that_differ_in_a_shuffled_reply_are_looked_up(exchange: CannedExchange) -> None:
    refused = [{"code": -5022, "msg": "a"}, {"code": -2019, "msg": "b"}]
    exchange.always(BATCH, (200, [*refused, order_row("e0")]))
    exchange.always(FIND, refusal(-2013))
    replies = exchange.executor().create_orders(entries(3))
    assert answers(replies) == [Answer.ACCEPTED, Answer.NOT_SENT, Answer.NOT_SENT]
    looked_up = {sent.params["origClientOrderId"] for sent in exchange.asked(FIND)}
    assert looked_up == {"e1", "e2"}


def test_one_unclear_order_of_a_batch_is_looked_up_alone(exchange: CannedExchange) -> None:
    reply = [order_row("e0"), {"code": -1006, "msg": "bus"}, {"code": -5022, "msg": "x"}]
    exchange.always(BATCH, (200, reply))
    exchange.always(FIND, (200, order_row("e1")))
    replies = exchange.executor().create_orders(entries(3))
    assert answers(replies) == [Answer.ACCEPTED, Answer.ACCEPTED, Answer.WOULD_CROSS]
    assert len(exchange.asked(FIND)) == 1


def test_a_batch_of_one_refused_order_is_a_refusal(exchange: CannedExchange) -> None:
    exchange.always(BATCH, (200, [{"code": -2011, "msg": "odd"}]))
    assert answers(exchange.executor().create_orders(entries(1))) == [Answer.REFUSED]


@pytest.mark.parametrize(
    "rubbish",
    [
        [],
        [order_row("e0")],
        [order_row("e0"), order_row("e0")],
        [order_row("e0"), order_row("foreign")],
        [order_row("e0"), None],
        [order_row("e0"), {}],
        [order_row("e0"), {"code": 200, "msg": "success"}],
        [order_row("e0"), order_row("e1", orderId=None)],
        [order_row("e0"), order_row("e1", symbol="ETHUSDT")],
        {"code": 200},
        {},
        "<html>",
        '[{"orderId": 1',
    ],
)
def test_an_unreadable_answer_to_a_batch_is_looked_up(
    exchange: CannedExchange, rubbish: Any
) -> None:
    exchange.always(BATCH, (200, rubbish))
    exchange.always(FIND, lambda sent: (200, order_row(sent.params["origClientOrderId"])))
    assert answers(exchange.executor().create_orders(entries(2))) == [Answer.ACCEPTED] * 2
    assert len(exchange.asked(BATCH)) == 1
    assert len(exchange.asked(FIND)) >= 1


def test_a_post_only_order_that_expired_at_once_is_still_owed(exchange: CannedExchange) -> None:
    exchange.always(BATCH, (200, [order_row("e0", status="EXPIRED")]))
    assert answers(exchange.executor().create_orders(entries(1))) == [Answer.WOULD_CROSS]


def test_a_refused_batch_refuses_all_its_orders(exchange: CannedExchange) -> None:
    exchange.then(BATCH, refusal(-1111))
    exchange.then(BATCH, accept_batch)
    replies = exchange.executor().create_orders(entries(6))
    assert answers(replies) == [Answer.REFUSED] * 5 + [Answer.ACCEPTED]


def test_keys_that_may_not_trade_are_told_from_orders_that_are_refused(
    exchange: CannedExchange,
) -> None:
    exchange.always(BATCH, refusal(-2015))
    (reply,) = exchange.executor().create_orders(entries(1))
    assert reply.answer is Answer.FORBIDDEN
    assert "futures permission" in reply.text


# --- unknown outcomes -----------------------------------------------------------------------------

UNCLEAR = [
    TIMEOUT,
    requests.ConnectionError("Connection aborted."),
    (408, ""),
    (504, ""),
    (503, {"code": -1000, "msg": "Unknown error"}),
    refusal(-1006),
    refusal(-1007),
    (502, "<html>"),
    (200, "<html>"),
    (200, '{"orderId": 1'),
    (200, {}),
    (200, []),
    (200, {"code": 200, "msg": "success"}),
    (200, order_row("somebody-elses")),
]


@pytest.mark.parametrize("unclear", UNCLEAR, ids=str)
def test_an_unclear_order_is_looked_up_before_anything_is_answered(
    exchange: CannedExchange, unclear: Any
) -> None:
    exchange.then(PLACE, unclear)
    exchange.always(FIND, (200, order_row("x1", type="MARKET", status="FILLED", orderId=5)))
    (reply,) = exchange.executor().create_orders([market_exit()])
    assert (reply.answer, reply.order_id) == (Answer.ACCEPTED, "5")
    assert len(exchange.asked(PLACE)) == 1


@pytest.mark.parametrize("unclear", UNCLEAR, ids=str)
def test_an_unclear_stop_is_looked_up_among_the_algo_orders(
    exchange: CannedExchange, unclear: Any
) -> None:
    exchange.then(PLACE_STOP, unclear)
    exchange.always(FIND_STOP, (200, algo_row("s1")))
    (reply,) = exchange.executor().create_orders([stop()])
    assert (reply.answer, reply.order_id) == (Answer.ACCEPTED, "7000")
    assert exchange.asked(FIND_STOP)[0].params["clientAlgoId"] == "s1"


def test_an_order_that_appears_late_is_found(exchange: CannedExchange) -> None:
    exchange.then(PLACE, TIMEOUT)
    exchange.then(FIND, refusal(-2013), (200, order_row("x1")))
    (reply,) = exchange.executor().create_orders([market_exit()])
    assert reply.answer is Answer.ACCEPTED
    assert exchange.clock.waits == [1.0]


def test_not_sent_is_said_only_when_the_request_is_too_old_to_be_taken(
    exchange: CannedExchange,
) -> None:
    exchange.then(PLACE, requests.ConnectionError("Connection aborted."))
    exchange.always(FIND, refusal(-2013))
    (reply,) = exchange.executor().create_orders([market_exit()])
    assert reply.answer is Answer.NOT_SENT
    sent_ms = exchange.asked(PLACE)[0].at_ms
    looks = [(sent.at_ms - sent_ms) / 1_000 for sent in exchange.asked(FIND)]
    assert looks == [0.0, 1.0, SETTLED_S]


def test_after_a_timeout_longer_than_the_window_nothing_more_is_waited_for(
    exchange: CannedExchange,
) -> None:
    def slow(_: Sent) -> Any:
        exchange.clock.now += 20_000
        return TIMEOUT

    exchange.then(PLACE, slow)
    exchange.always(FIND, refusal(-2013))
    exchange.executor().create_orders([market_exit()])
    assert exchange.clock.waits == [1.0]
    assert len(exchange.asked(FIND)) == 3


def test_a_look_up_that_fails_is_tried_again(exchange: CannedExchange) -> None:
    exchange.then(PLACE, TIMEOUT)
    exchange.then(FIND, TIMEOUT, (502, "<html>"), (200, "<html>"), (200, order_row("x1")))
    assert answers(exchange.executor().create_orders([market_exit()])) == [Answer.ACCEPTED]


def test_out_of_reach_means_unknown_and_the_rest_is_not_sent(exchange: CannedExchange) -> None:
    exchange.then(BATCH, accept_batch, TIMEOUT)
    exchange.always(FIND, OUT_OF_REACH)
    replies = exchange.executor().create_orders([*entries(12), stop()])
    assert answers(replies) == (
        [Answer.ACCEPTED] * 5 + [Answer.UNKNOWN] * 5 + [Answer.NOT_SENT] * 3
    )
    assert len(exchange.asked(BATCH)) == 2
    assert len(exchange.asked(FIND)) == 5  # one order, and four repetitions


def test_an_order_denied_once_is_unknown_while_the_exchange_is_out_of_reach(
    exchange: CannedExchange,
) -> None:
    exchange.then(BATCH, TIMEOUT)
    exchange.then(FIND, (200, order_row("e0")), refusal(-2013))
    exchange.always(FIND, OUT_OF_REACH)
    replies = exchange.executor().create_orders(entries(2))
    assert answers(replies) == [Answer.ACCEPTED, Answer.UNKNOWN]


def test_an_identity_in_use_is_an_order_that_exists(exchange: CannedExchange) -> None:
    exchange.then(PLACE, refusal(-4116))
    exchange.always(FIND, (200, order_row("x1", orderId=77)))
    (reply,) = exchange.executor().create_orders([market_exit()])
    assert (reply.answer, reply.order_id) == (Answer.ACCEPTED, "77")


def test_a_looked_up_order_must_be_the_one_asked_for(exchange: CannedExchange) -> None:
    exchange.then(PLACE, TIMEOUT)
    exchange.always(FIND, (200, order_row("somebody-elses")))
    assert answers(exchange.executor().create_orders([market_exit()])) == [Answer.UNKNOWN]


@pytest.mark.parametrize(
    ("code", "answer"), [(-2021, Answer.PASSED), (-4118, Answer.NOTHING_TO_CLOSE)]
)
def test_a_refused_stop_says_why(exchange: CannedExchange, code: int, answer: Answer) -> None:
    exchange.always(PLACE_STOP, refusal(code, "because"))
    (reply,) = exchange.executor().create_orders([stop()])
    assert reply.answer is answer
    assert "because" in reply.text


def test_without_a_connection_no_order_is_in_doubt(exchange: CannedExchange) -> None:
    exchange.then("GET /fapi/v1/exchangeInfo", *[OUT_OF_REACH] * 5)
    exchange.always(PLACE, OUT_OF_REACH)
    executor = exchange.executor()
    with pytest.raises(NetworkError):
        executor.create_orders([market_exit()])  # the tick could not be read
    assert exchange.asked(PLACE) == []
    assert answers(executor.create_orders([market_exit()])) == [Answer.NOT_SENT]
    assert exchange.asked(FIND) == []


# --- clock and limits -----------------------------------------------------------------------------


def test_a_refused_timestamp_is_corrected_and_the_order_sent_once_more(
    exchange: CannedExchange,
) -> None:
    executor = exchange.executor()

    def too_early(_: Sent) -> Any:
        exchange.ahead_ms = 5_000
        return refusal(-1021)

    exchange.then(PLACE, too_early, (200, order_row("x1")))
    assert answers(executor.create_orders([market_exit()])) == [Answer.ACCEPTED]
    stamps = [int(sent.params["timestamp"]) for sent in exchange.asked(PLACE)]
    assert stamps == [START_MS, START_MS + 5_000]
    assert executor.usage().clock_offset_ms == -5_000


def test_a_timestamp_refused_twice_is_an_order_not_sent(exchange: CannedExchange) -> None:
    exchange.always(PLACE, refusal(-1021))
    assert answers(exchange.executor().create_orders([market_exit()])) == [Answer.NOT_SENT]
    assert len(exchange.asked(PLACE)) == 2
    assert exchange.asked(FIND) == []


def test_signatures_carry_the_exchanges_time(exchange: CannedExchange) -> None:
    exchange.ahead_ms, exchange.latency_ms = -2_500, 400
    exchange.always(FIND, (200, order_row("x1")))
    executor = exchange.executor(settings={"recv_window_ms": 4_321})
    executor.find_order("x1", OrderKind.EXIT)
    (request,) = exchange.asked(FIND)
    assert int(request.params["timestamp"]) == request.at_ms - 2_500
    assert request.params["recvWindow"] == "4321"
    assert executor.usage().clock_offset_ms == 2_500


def test_the_clock_is_measured_at_first_and_every_ten_minutes(exchange: CannedExchange) -> None:
    exchange.always(FIND, (200, order_row("x1")))
    executor = exchange.executor()
    assert exchange.time_requests == 0
    for minutes, measured in ((0, 1), (9, 1), (1, 2), (5, 2)):
        exchange.clock.now += minutes * 60_000
        executor.find_order("x1", OrderKind.EXIT)
        assert exchange.time_requests == measured


def test_the_clock_is_measured_again_when_it_was_set_back(exchange: CannedExchange) -> None:
    exchange.always(FIND, (200, order_row("x1")))
    executor = exchange.executor()
    executor.find_order("x1", OrderKind.EXIT)
    exchange.clock.now -= 5_000
    exchange.ahead_ms = 5_000
    executor.find_order("x1", OrderKind.EXIT)
    assert executor.usage().clock_offset_ms == -5_000


def test_a_lost_measurement_keeps_the_last_one(exchange: CannedExchange) -> None:
    exchange.ahead_ms = 700
    exchange.always(FIND, (200, order_row("x1")))
    executor = exchange.executor()
    executor.find_order("x1", OrderKind.EXIT)
    exchange.clock.now += 600_000
    exchange.then("GET /fapi/v1/time", TIMEOUT)
    executor.find_order("x1", OrderKind.EXIT)
    assert executor.usage().clock_offset_ms == -700


def test_nothing_is_asked_before_the_exchanges_time_is_known(exchange: CannedExchange) -> None:
    executor = exchange.executor(api_key="", api_secret="")
    exchange.then("GET /fapi/v1/time", TIMEOUT, (200, "<html>"), (200, {"serverTime": "soon"}))
    executor.read_market()
    assert exchange.time_requests == 4
    assert exchange.asked("GET /fapi/v1/exchangeInfo")


def test_after_too_many_requests_the_order_is_not_sent_and_the_next_waits(
    exchange: CannedExchange,
) -> None:
    exchange.then(PLACE, (429, {"code": -1003, "msg": "slow"}, {"Retry-After": "23"}))
    exchange.then(PLACE, (200, order_row("x2")))
    executor = exchange.executor()
    replies = executor.create_orders([market_exit("x1"), market_exit("x2")])
    assert answers(replies) == [Answer.NOT_SENT, Answer.ACCEPTED]
    first, second = exchange.asked(PLACE)
    assert second.at_ms - first.at_ms == 23_000


def test_during_a_ban_nothing_at_all_is_sent(exchange: CannedExchange) -> None:
    exchange.then(PLACE, (418, {"code": -1003, "msg": "banned"}, {"Retry-After": "3600"}))
    executor = exchange.executor()
    replies = executor.create_orders([market_exit("x1"), market_exit("x2"), stop()])
    assert answers(replies) == [Answer.NOT_SENT] * 3
    requests_made, measured = len(exchange.sent), exchange.time_requests
    exchange.clock.now += 3_500_000
    with pytest.raises(RateLimitError) as banned:
        executor.open_orders()
    assert banned.value.retry_after == pytest.approx(100.0)
    assert gone(executor.cancel_orders([resting("a")])) == [False]
    assert (len(exchange.sent), exchange.time_requests) == (requests_made, measured)
    exchange.clock.now += 100_000
    exchange.always(FIND, (200, order_row("x1")))
    assert executor.find_order("x1", OrderKind.EXIT) is not None


def test_an_order_limit_inside_a_batch_makes_the_next_request_wait(
    exchange: CannedExchange,
) -> None:
    text = "Too many new orders; current limit is 300 orders per 10 SECOND."
    exchange.then(BATCH, (200, [{"code": -1015, "msg": text}] * 5))
    exchange.then(BATCH, accept_batch)
    replies = exchange.executor().create_orders(entries(6))
    assert answers(replies) == [Answer.NOT_SENT] * 5 + [Answer.ACCEPTED]
    first, second = exchange.asked(BATCH)
    assert second.at_ms - first.at_ms == 10_000


def test_used_weight_and_orders_are_read_from_the_headers(exchange: CannedExchange) -> None:
    headers = {
        "X-MBX-USED-WEIGHT-1M": "1201",
        "X-MBX-ORDER-COUNT-10S": "7",
        "X-MBX-ORDER-COUNT-1M": "31",
    }
    exchange.then(FIND, (200, order_row("x1"), headers))
    executor = exchange.executor()
    executor.find_order("x1", OrderKind.EXIT)
    usage = executor.usage()
    assert (usage.weight_1m, usage.orders_10s, usage.orders_1m) == (1_201, 7, 31)
    exchange.always("GET /fapi/v2/ticker/price", (200, {"symbol": "BTCUSDT", "price": "1"}))
    executor.last_price()
    assert exchange.clock.waits == [pytest.approx(60.25)]


def test_waits_between_tries_grow_and_do_not_depend_on_chance(exchange: CannedExchange) -> None:
    exchange.always(FIND, TIMEOUT)
    with pytest.raises(NetworkError):
        exchange.executor().find_order("x1", OrderKind.EXIT)
    waits = exchange.clock.waits
    assert len(waits) == 4
    for wait, base in zip(waits, (0.5, 1.0, 2.0, 4.0), strict=True):
        assert base <= wait <= 1.25 * base
    again = CannedExchange()
    again.always(FIND, TIMEOUT)
    with pytest.raises(NetworkError):
        again.executor().find_order("x1", OrderKind.EXIT)
    assert again.clock.waits == waits


# --- looking orders up ----------------------------------------------------------------------------


def test_an_order_the_exchange_does_not_have_is_none(exchange: CannedExchange) -> None:
    exchange.always(FIND, refusal(-2013))
    exchange.always(FIND_STOP, refusal(-2013))
    executor = exchange.executor()
    assert executor.find_order("a", OrderKind.ENTRY) is None
    assert executor.find_order("a", OrderKind.STOP) is None
    assert executor.order_by_id("5") is None
    assert exchange.clock.waits == []


def test_a_stop_that_fired_names_the_order_it_became(exchange: CannedExchange) -> None:
    fired = algo_row("s1", algoStatus="FINISHED", actualOrderId="8800")
    exchange.always(FIND_STOP, (200, fired))
    order = exchange.executor().find_order("s1", OrderKind.STOP)
    assert order is not None
    assert (order.is_open, order.fired_order_id, order.status) == (False, "8800", "FINISHED")


@pytest.mark.parametrize(
    ("status", "is_open"), [("NEW", True), ("TRIGGERING", True), ("TRIGGERED", False)]
)
def test_a_stop_on_its_way_is_not_gone_yet(
    exchange: CannedExchange, status: str, is_open: bool
) -> None:
    exchange.always(FIND_STOP, (200, algo_row("s1", algoStatus=status)))
    order = exchange.executor().find_order("s1", OrderKind.STOP)
    assert order is not None
    assert order.is_open is is_open


def test_open_orders_hold_normal_and_conditional_ones_and_foreign_ones(
    exchange: CannedExchange,
) -> None:
    resting_orders = [
        order_row("a", status="PARTIALLY_FILLED", executedQty="0.004"),
        order_row("b", side="SELL"),
        order_row("c", side="SELL", positionSide="SHORT"),
        order_row("web_order", positionSide="BOTH", reduceOnly=True),
    ]
    exchange.always("GET /fapi/v1/openOrders", (200, resting_orders))
    exchange.always("GET /fapi/v1/openAlgoOrders", (200, [algo_row("s1")]))
    orders = exchange.executor().open_orders()
    assert [(order.client_id, order.kind, order.position_side) for order in orders] == [
        ("a", OrderKind.ENTRY, "LONG"),
        ("b", OrderKind.TAKE_PROFIT, "LONG"),
        ("c", OrderKind.ENTRY, "SHORT"),
        ("web_order", OrderKind.TAKE_PROFIT, "BOTH"),
        ("s1", OrderKind.STOP, "LONG"),
    ]
    assert (orders[0].price, orders[0].qty, orders[0].filled_qty) == (50_000.0, 0.01, 0.004)
    assert (orders[4].price, orders[4].qty, orders[4].order_id) == (45_000.0, 0.0, "7000")


# --- cancels --------------------------------------------------------------------------------------


def gone(cancel_results: list[CancelResult]) -> list[bool]:
    return [cancel_result is not CancelResult.STUCK for cancel_result in cancel_results]


def cancel_all(sent: Sent) -> Any:
    ids = json.loads(sent.params["orderidlist"])
    return 200, [order_row(f"of {i}", orderId=i, status="CANCELED") for i in ids]


def test_cancels_go_ten_to_a_request_and_stops_alone(exchange: CannedExchange) -> None:
    exchange.always(CANCEL, cancel_all)
    exchange.always(
        CANCEL_STOP, (200, {"algoId": 7000, "clientAlgoId": "s1", "code": "200", "msg": "success"})
    )
    orders = [resting_stop(), *(resting(f"o{i}", order_id=str(100 + i)) for i in range(12))]
    assert gone(exchange.executor().cancel_orders(orders)) == [True] * 13
    lists = [json.loads(sent.params["orderidlist"]) for sent in exchange.asked(CANCEL)]
    assert lists == [list(range(100, 110)), [110, 111]]
    assert exchange.asked(CANCEL_STOP)[0].params["algoId"] == "7000"


def test_an_order_without_the_exchanges_identity_is_cancelled_by_ours(
    exchange: CannedExchange,
) -> None:
    exchange.always(CANCEL, (200, [order_row("a", status="CANCELED")]))
    exchange.always(CANCEL_STOP, refusal(-2011))
    orders = [resting("a", order_id=""), resting_stop(order_id="")]
    assert gone(exchange.executor().cancel_orders(orders)) == [True, True]
    assert json.loads(exchange.asked(CANCEL)[0].params["origclientorderidlist"]) == ["a"]
    assert exchange.asked(CANCEL_STOP)[0].params["clientAlgoId"] == "s1"


def test_an_unknown_order_is_a_gone_order(exchange: CannedExchange) -> None:
    unknown = {"code": -2011, "msg": "Unknown order sent."}
    cancelled = order_row("b", status="CANCELED")
    exchange.always(CANCEL, (200, [unknown, cancelled, unknown]))
    exchange.always(CANCEL_STOP, refusal(-2011))
    orders = [resting("a"), resting("b"), resting("c"), resting_stop()]
    assert gone(exchange.executor().cancel_orders(orders)) == [True] * 4
    assert exchange.asked(FIND) == []


def test_a_cancel_refused_otherwise_is_looked_up(exchange: CannedExchange) -> None:
    exchange.always(CANCEL, (200, [{"code": -2011, "msg": "x"}, {"code": -4083, "msg": "x"}]))

    def tell(sent: Sent) -> Any:
        name = {resting("a").order_id: "a", resting("b").order_id: "b"}[sent.params["orderId"]]
        return 200, order_row(name, status="FILLED" if name == "a" else "NEW")

    exchange.always(FIND, tell)
    assert gone(exchange.executor().cancel_orders([resting("a"), resting("b")])) == [True, False]


def test_a_cancelled_order_that_is_reported_as_open_is_looked_up(exchange: CannedExchange) -> None:
    exchange.always(CANCEL, (200, [order_row("a", status="PARTIALLY_FILLED")]))
    exchange.then(FIND, (200, order_row("a")), (200, order_row("a", status="CANCELED")))
    executor = exchange.executor()
    assert gone(executor.cancel_orders([resting("a")])) == [False]
    assert gone(executor.cancel_orders([resting("a")])) == [True]


@pytest.mark.parametrize(
    ("traded", "known", "cancel_result"),
    [
        ("0", 0.0, CancelResult.UNTRADED),
        ("0.004", 0.004, CancelResult.UNTRADED),
        ("0.004", 0.003, CancelResult.GONE),
    ],
)
def test_a_cancel_tells_whether_its_order_traded_meanwhile(
    exchange: CannedExchange, traded: str, known: float, cancel_result: CancelResult
) -> None:
    row = order_row("a", status="CANCELED", executedQty=traded)
    exchange.then(CANCEL, (200, [row]), (200, [{"code": -2011, "msg": "x"}]))
    order = resting("a", filled_qty=known)
    executor = exchange.executor()
    assert executor.cancel_orders([order]) == [cancel_result]
    assert executor.cancel_orders([order]) == [CancelResult.GONE]  # an unknown order tells nothing


@pytest.mark.parametrize(
    ("status", "cancel_result"),
    [
        ("CANCELED", CancelResult.UNTRADED),
        ("TRIGGERED", CancelResult.GONE),
        ("FINISHED", CancelResult.GONE),
    ],
)
def test_a_stop_that_fired_instead_of_being_cancelled_is_told_apart(
    exchange: CannedExchange, status: str, cancel_result: CancelResult
) -> None:
    exchange.always(CANCEL_STOP, (200, {"clientAlgoId": "s1"}))
    exchange.always(FIND_STOP, (200, algo_row("s1", algoStatus=status)))
    assert exchange.executor().cancel_orders([resting_stop()]) == [cancel_result]


def test_a_lost_cancel_is_repeated(exchange: CannedExchange) -> None:
    exchange.then(CANCEL, TIMEOUT, (200, [{"code": -2011, "msg": "x"}]))
    exchange.then(CANCEL_STOP, (200, "<html>"), refusal(-2011))
    assert gone(exchange.executor().cancel_orders([resting("a"), resting_stop()])) == [True, True]


@pytest.mark.parametrize(
    ("found", "is_gone"),
    [
        ((200, order_row("a", status="NEW")), False),
        ((200, order_row("a", status="FILLED")), True),
        (refusal(-2013), True),
        (TIMEOUT, False),
        ((200, "<html>"), False),
    ],
)
def test_a_cancel_that_is_never_answered_is_looked_up(
    exchange: CannedExchange, found: Any, is_gone: bool
) -> None:
    exchange.always(CANCEL, TIMEOUT)
    exchange.always(FIND, found)
    assert gone(exchange.executor().cancel_orders([resting("a")])) == [is_gone]


def test_out_of_reach_cancels_are_given_up_after_one_look(exchange: CannedExchange) -> None:
    exchange.then(CANCEL, cancel_all)
    exchange.always(CANCEL, OUT_OF_REACH)
    exchange.always(FIND, OUT_OF_REACH)
    orders = [resting(f"o{i}", order_id=str(100 + i)) for i in range(25)]
    cancel_results = exchange.executor().cancel_orders([*orders, resting_stop()])
    assert gone(cancel_results) == [True] * 10 + [False] * 16
    assert len(exchange.asked(CANCEL)) == 6  # one, then one with four repetitions
    assert len({sent.params["orderId"] for sent in exchange.asked(FIND)}) == 1


@pytest.mark.parametrize(
    ("reported", "now", "is_gone"),
    [
        ({"algoId": 7000, "clientAlgoId": "s1", "code": "200"}, None, True),
        ({"algoId": 9, "clientAlgoId": "other", "code": "200"}, algo_row("s1"), False),
        ({"clientAlgoId": "s1"}, algo_row("s1", algoStatus="CANCELED"), True),
        ([], algo_row("s1"), False),
    ],
)
def test_a_stops_cancel_must_say_that_it_was_done(
    exchange: CannedExchange, reported: Any, now: Any, is_gone: bool
) -> None:
    exchange.always(CANCEL_STOP, (200, reported))
    exchange.always(FIND_STOP, (200, now))
    assert gone(exchange.executor().cancel_orders([resting_stop()])) == [is_gone]


@pytest.mark.parametrize(
    "rubbish", [[], [order_row("b", status="CANCELED")], [{}], [None], {"code": 200}, "<html>"]
)
def test_an_unreadable_cancel_proves_nothing(exchange: CannedExchange, rubbish: Any) -> None:
    exchange.always(CANCEL, (200, rubbish))
    exchange.always(FIND, (200, order_row("a")))
    assert gone(exchange.executor().cancel_orders([resting("a")])) == [False]


# --- secrets and addresses ------------------------------------------------------------------------


def leaks(text: str) -> list[str]:
    return re.findall(rf"{KEY}|{SECRET}|X-MBX-APIKEY|signature=(?!\*\*\*)", text)


@pytest.mark.parametrize(
    "answer",
    [
        TIMEOUT,
        OUT_OF_REACH,
        (401, f"key {KEY} is not good"),
        (400, {"code": -1022, "msg": f"signature=abc of {KEY} {SECRET}"}),
        (502, f"<html>GET /fapi/v1/order?x=1&signature=abc {KEY}"),
        (200, f"<html>GET /fapi/v1/order?x=1&signature=abc {KEY}"),
    ],
    ids=str,
)
def test_keys_and_signatures_are_in_no_error_log_or_repr(
    exchange: CannedExchange, caplog: pytest.LogCaptureFixture, answer: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    exchange.always(FIND, answer)
    exchange.always(PLACE, answer)
    exchange.always(CANCEL, answer)
    executor = exchange.executor()
    with pytest.raises(GridError) as raised:
        executor.find_order("x1", OrderKind.EXIT)
    shown = traceback.format_exception(raised.value)
    (reply,) = executor.create_orders([market_exit()])
    executor.cancel_orders([resting("a")])
    assert caplog.records
    everything = "\n".join([*shown, reply.text, repr(executor), str(executor), caplog.text])
    assert leaks(everything) == []
    assert exchange.asked(FIND)[0].headers["X-MBX-APIKEY"] == KEY


def test_the_http_librarys_log_shows_no_signature(
    exchange: CannedExchange, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    exchange.executor()
    url = "https://fapi.binance.com/fapi/v1/order?a=1&signature=abc"
    logging.getLogger("urllib3.connectionpool").debug('%s "GET %s"', "https", url)
    assert '"GET https://fapi.binance.com/fapi/v1/order' in caplog.text
    assert leaks(caplog.text) == []


@pytest.mark.parametrize(
    ("testnet", "host"),
    [(False, "https://fapi.binance.com/"), (True, "https://demo-fapi.binance.com/")],
)
def test_the_testnet_is_demo_trading(exchange: CannedExchange, testnet: bool, host: str) -> None:
    exchange.always(BATCH, accept_batch)
    exchange.always("GET /fapi/v3/balance", (200, []))
    executor: BinanceExecutor = exchange.executor(testnet=testnet)
    executor.create_orders([entry("a")])
    with pytest.raises(GridError):
        executor.balance()
    assert {sent.url[: len(host)] for sent in exchange.sent} == {host}


def test_errors_have_codes_on_the_testnet_too(exchange: CannedExchange) -> None:
    exchange.always(BATCH, refusal(-2019))
    assert answers(exchange.executor(testnet=True).create_orders([entry("a")])) == [
        Answer.NO_MARGIN
    ]
