"""Errors ccxt raises over real answers, and our meaning of them."""

from __future__ import annotations

import inspect
from typing import Any

import ccxt  # type: ignore[import-untyped]  # no stubs
import pytest
import requests
from ccxt.base import errors as ccxt_errors  # type: ignore[import-untyped]  # no stubs
from urllib3 import HTTPSConnectionPool
from urllib3.connection import HTTPSConnection
from urllib3.exceptions import MaxRetryError, NewConnectionError

from core.errors import (
    AccountError,
    CredentialsError,
    ExchangeError,
    GridError,
    NetworkError,
    RateLimitError,
    ReplyError,
    RestrictedError,
    UnknownOutcome,
)
from core.orders import OrderKind
from live.exchange import errors as exchange_errors
from live.exchange.errors import HttpReply, error_code, order_answer, scrub, translate
from live.exchange.request import Request
from live.exchange.types import Answer
from tests.support.exchanges.canned import KEY, SECRET, CannedExchange, refusal

CCXT_CLASSES = [
    item
    for item in vars(ccxt_errors).values()
    if inspect.isclass(item) and issubclass(item, Exception)
]
ORDER = "POST /fapi/v1/order"
REQUEST = Request("fapiPrivatePostOrder", {"symbol": "BTCUSDT", "newClientOrderId": "x1"})


def refused_connection() -> requests.ConnectionError:
    host = "fapi.binance.com"
    reason = NewConnectionError(HTTPSConnection(host), "refused")
    return requests.ConnectionError(MaxRetryError(HTTPSConnectionPool(host), "/fapi", reason))


OUTCOMES: list[tuple[Any, type[GridError], Answer]] = [
    # answer of the exchange, our error, what it means for an order
    (requests.ReadTimeout("slow"), UnknownOutcome, Answer.UNKNOWN),
    (requests.ConnectionError("Connection aborted."), UnknownOutcome, Answer.UNKNOWN),
    (ConnectionResetError("reset"), UnknownOutcome, Answer.UNKNOWN),
    (BrokenPipeError("broken"), UnknownOutcome, Answer.UNKNOWN),
    (requests.exceptions.SSLError("cut"), UnknownOutcome, Answer.UNKNOWN),
    (requests.exceptions.ChunkedEncodingError("cut"), UnknownOutcome, Answer.UNKNOWN),
    (requests.exceptions.ContentDecodingError("zip"), UnknownOutcome, Answer.UNKNOWN),
    (requests.ConnectTimeout("never connected"), NetworkError, Answer.NOT_SENT),
    (refused_connection(), NetworkError, Answer.NOT_SENT),
    ((408, ""), UnknownOutcome, Answer.UNKNOWN),
    ((504, "<html>"), UnknownOutcome, Answer.UNKNOWN),
    (refusal(-1007), UnknownOutcome, Answer.UNKNOWN),
    (refusal(-1000, "Unknown error, please try again", 503), UnknownOutcome, Answer.UNKNOWN),
    ((503, "Unknown error, please check your request"), UnknownOutcome, Answer.UNKNOWN),
    (refusal(-1006), UnknownOutcome, Answer.UNKNOWN),
    ((500, ""), UnknownOutcome, Answer.UNKNOWN),
    ((502, "<html>bad gateway</html>"), UnknownOutcome, Answer.UNKNOWN),
    ((503, "<html>service unavailable</html>"), UnknownOutcome, Answer.UNKNOWN),
    (refusal(-99_999, "new", 500), UnknownOutcome, Answer.UNKNOWN),
    ((200, "<html>maintenance</html>"), ReplyError, Answer.UNKNOWN),
    ((200, '{"orderId": 12'), ReplyError, Answer.UNKNOWN),
    ((200, ""), ReplyError, Answer.UNKNOWN),
    ((503, "Service Unavailable."), NetworkError, Answer.NOT_SENT),
    ((503, {"code": 0, "msg": "Service Unavailable."}), NetworkError, Answer.NOT_SENT),
    (refusal(-1001, status=503), NetworkError, Answer.NOT_SENT),
    (refusal(-1008, status=503), NetworkError, Answer.NOT_SENT),
    (refusal(-5028), NetworkError, Answer.NOT_SENT),
    (refusal(-1021), NetworkError, Answer.NOT_SENT),
    (refusal(-4131), NetworkError, Answer.NOT_SENT),
    ((404, "nothing here"), NetworkError, Answer.NOT_SENT),
    ((429, {"code": -1003, "msg": "slow"}), RateLimitError, Answer.NOT_SENT),
    ((418, {"code": -1003, "msg": "banned"}), RateLimitError, Answer.NOT_SENT),
    (refusal(-1015), RateLimitError, Answer.NOT_SENT),
    (refusal(-1003), RateLimitError, Answer.NOT_SENT),
    ((403, "<html>firewall</html>"), RateLimitError, Answer.NOT_SENT),
    (refusal(-2011), ExchangeError, Answer.REFUSED),
    (refusal(-2013), ExchangeError, Answer.REFUSED),
    (refusal(-5022), ExchangeError, Answer.WOULD_CROSS),
    (refusal(-4116), ExchangeError, Answer.UNKNOWN),
    (refusal(-4164), ExchangeError, Answer.REFUSED),
    (refusal(-1111), ExchangeError, Answer.REFUSED),
    (refusal(-4014), ExchangeError, Answer.REFUSED),
    (refusal(-4003), ExchangeError, Answer.REFUSED),
    (refusal(-4016), ExchangeError, Answer.REFUSED),
    (refusal(-4024), ExchangeError, Answer.REFUSED),
    (refusal(-4061), AccountError, Answer.REFUSED),
    (refusal(-99_999), ExchangeError, Answer.REFUSED),
    (refusal(-2018), AccountError, Answer.NO_MARGIN),
    (refusal(-2019), AccountError, Answer.NO_MARGIN),
    (refusal(-2022), ExchangeError, Answer.NOTHING_TO_CLOSE),
    (refusal(-4118), ExchangeError, Answer.NOTHING_TO_CLOSE),
    (refusal(-4130), ExchangeError, Answer.REFUSED),  # a stop exists: its meaning says so
    (refusal(-4509), ExchangeError, Answer.NOTHING_TO_CLOSE),
    (refusal(-1022), CredentialsError, Answer.FORBIDDEN),
    (refusal(-2014), CredentialsError, Answer.FORBIDDEN),
    (refusal(-2015), CredentialsError, Answer.FORBIDDEN),
    ((401, ""), CredentialsError, Answer.FORBIDDEN),
    ((451, {"code": 0, "msg": "restricted location"}), CredentialsError, Answer.FORBIDDEN),
]
NAMES = [str(answer if isinstance(answer, Exception) else answer[:2]) for answer, _, _ in OUTCOMES]


@pytest.mark.parametrize("ccxt_class", CCXT_CLASSES)
def test_no_exception_of_ccxt_is_unmapped(ccxt_class: type[Exception]) -> None:
    assert ccxt_class in exchange_errors._BY_CLASS  # noqa: SLF001 - inherited is not mapped
    assert isinstance(translate(ccxt_class("binanceusdm no")), GridError)


def test_the_list_of_ccxt_classes_is_not_empty() -> None:
    assert {ccxt.RequestTimeout, ccxt.OperationFailed, ccxt.OrderNotFillable} <= set(CCXT_CLASSES)


@pytest.mark.parametrize(("answer", "ours", "meaning"), OUTCOMES, ids=NAMES)
def test_every_answer_has_its_error_and_its_meaning(
    answer: Any, ours: type[GridError], meaning: Answer
) -> None:
    exchange = CannedExchange()
    exchange.always(ORDER, answer)
    executor = exchange.executor()
    outcome = executor._connection.attempt(REQUEST)  # noqa: SLF001 - below the retries
    assert type(outcome.error) is ours
    assert order_answer(outcome.error, outcome.code, OrderKind.EXIT) is meaning


COMPLIANCE = [-4192, *range(-4403, -4399), -4087, -4088, *range(-4206, -4201), -4411, -4109]
NOT_ABOUT_KEYS = [-4425, -5029, -5000, -2008, -1125]


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize(
    ("codes", "ours"),
    [(COMPLIANCE, RestrictedError), (NOT_ABOUT_KEYS, ExchangeError)],
    ids=["compliance", "others"],
)
def test_codes_of_compliance_and_others_are_no_key_errors(
    codes: list[int], ours: type[GridError], status: int
) -> None:
    for code in codes:
        exchange = CannedExchange()
        exchange.always(ORDER, refusal(code, status=status))
        outcome = exchange.executor()._connection.attempt(REQUEST)  # noqa: SLF001 - as above
        assert type(outcome.error) is ours, code
        assert order_answer(outcome.error, outcome.code, OrderKind.EXIT) is Answer.REFUSED, code


@pytest.mark.parametrize(
    ("kind", "meaning"), [(OrderKind.STOP, Answer.PASSED), (OrderKind.ENTRY, Answer.WOULD_CROSS)]
)
@pytest.mark.parametrize("code", [-2021, -4142])
def test_a_price_that_is_passed_means_another_thing_for_a_stop(
    code: int, kind: OrderKind, meaning: Answer
) -> None:
    assert order_answer(ExchangeError("no"), code, kind) is meaning


@pytest.mark.parametrize("market", ["linear", ""])
def test_every_code_ccxt_knows_becomes_one_of_our_errors(market: str) -> None:
    tables = ccxt.binanceusdm().exceptions
    codes = (tables[market] if market else tables)["exact"]
    assert len(codes) > 50
    for code, ccxt_class in codes.items():
        problem = ccxt_class(f'binanceusdm {{"code":{code},"msg":"no"}}')
        assert isinstance(translate(problem, HttpReply(400)), GridError), code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('binanceusdm {"code":-1021,"msg":"x"}', -1021),
        ('binanceusdm {"msg":"x", "code" : "-20132"}', -20_132),
        ("binanceusdm POST https://fapi.binance.com", 0),
    ],
)
def test_the_code_is_read_out_of_the_text(text: str, code: int) -> None:
    assert error_code(ccxt.ExchangeError(text)) == code


def test_a_json_answer_ccxt_trips_over_is_unreadable() -> None:
    assert type(translate(TypeError("unhashable"), HttpReply(200))) is ReplyError


def test_a_text_is_scrubbed_of_keys_signatures_and_queries() -> None:
    text = (
        f"GET https://fapi.binance.com/fapi/v1/order?symbol=B&timestamp=1&signature=abcdef 400\n"
        f"X-MBX-APIKEY {KEY} {SECRET} signature=fedcba&x"
    )
    scrubbed = scrub(text, (KEY, SECRET))
    assert scrubbed == (
        "GET https://fapi.binance.com/fapi/v1/order 400 X-MBX-APIKEY *** *** signature=***&x"
    )


def test_a_rate_limit_says_how_long_to_wait() -> None:
    error = translate(ccxt.DDoSProtection("binanceusdm 429"), HttpReply(429), retry_after=17.0)
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 17.0
    assert "17 s" in str(error)
