"""From a request to a reply: faults, request weight, signature, dispatch, error codes."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from live.simulated.exchange import SimExchange
from live.simulated.faults import ORDER, READ, Fault, FaultKind
from live.simulated.filters import ApiError
from live.simulated.orders import Json
from live.simulated.parameters import Params, whole_of
from live.simulated.routes import Endpoint, routes_of

PAGE: Final = b"<html><head><title>Sorry</title></head><body>Something went wrong.</body></html>"
UNKNOWN: Final = "Unknown error, please check your request or try again later."
USUAL_WINDOW_MS: Final = 5_000
LARGEST_WINDOW_MS: Final = 60_000
AHEAD_MS: Final = 1_000
"""How far a timestamp may lie in the future."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came over the wire; names of headers in lower case."""

    method: str
    path: str
    query: str
    body: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply that goes back over the wire.

    Attributes:
        status: HTTP status; 0: nothing goes back and the connection closes.
        body: as sent.
        headers: besides the usual ones.
        content_type: of the body.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


CLOSED: Final = Reply(0)


def json_reply(status: int, answer: Json, headers: dict[str, str] | None = None) -> Reply:
    """Return ``answer`` as the exchange would send it."""
    body = json.dumps(answer, separators=(",", ":")).encode()
    return Reply(status, body, headers or {})


def error_reply(status: int, code: int, text: str, wait: int = 0) -> Reply:
    """Return an error that no endpoint gives; ``wait`` in seconds."""
    headers = {"Retry-After": str(wait)} if wait else {}
    return json_reply(status, {"code": code, "msg": text}, headers)


FAULT_REPLIES: Final = {
    FaultKind.DROP: CLOSED,
    FaultKind.LOST_REPLY: CLOSED,
    FaultKind.TIMEOUT: Reply(504, b"", {"X-Sim-Timeout": "1"}),
    FaultKind.UNKNOWN_503: error_reply(503, -1000, UNKNOWN),
    FaultKind.UNKNOWN_503_BARE: json_reply(503, {"msg": UNKNOWN}),
    FaultKind.BUSY_503: json_reply(503, {"msg": "Service Unavailable."}),
    FaultKind.OVERLOAD_503: error_reply(
        503, -1008, "Server is currently overloaded with other requests. Please try again later."
    ),
    FaultKind.BAD_GATEWAY: Reply(502, PAGE, {}, "text/html"),
    FaultKind.CODE_1007: error_reply(
        408,
        -1007,
        "Timeout waiting for response from backend server."
        " Send status unknown; execution status unknown.",
    ),
    FaultKind.CODE_1000: error_reply(
        400, -1000, "An unknown error occurred while processing the request."
    ),
    FaultKind.CODE_1001: error_reply(
        503, -1001, "Internal error; unable to process your request. Please try again."
    ),
    FaultKind.HTML: Reply(200, PAGE, {}, "text/html"),
}
"""The answer in place of the endpoint's reply."""


def spoilt(reply: Reply, fault: Fault) -> Reply:
    """Return what a fault makes of the reply of a request."""
    if fault.kind is FaultKind.CUT_JSON:
        return Reply(200, reply.body[: max(1, len(reply.body) // 2)], reply.headers)
    return FAULT_REPLIES.get(fault.kind, reply)


class HttpApi:
    """Answers requests to ``/fapi/...`` on behalf of an exchange."""

    def __init__(self, exchange: SimExchange) -> None:
        self._exchange = exchange
        self._routes = routes_of(exchange)

    def answer(self, request: Request) -> Reply:
        """Return the reply to a request, with whatever goes wrong on its way."""
        exchange = self._exchange
        method, path = request.method, request.path
        endpoint = self._routes.get((method, path))
        with exchange.lock:
            fault = exchange.faults.draw(
                endpoint.class_name if endpoint else READ,
                method,
                path,
                symbol_in(request),
                exchange.now_ms,
            )
            number = exchange.faults.n_requests
        if exchange.before_request is not None:
            exchange.before_request(number, method, path)
        reply = self._through(request, endpoint, fault)
        if exchange.after_request is not None:
            exchange.after_request(number, method, path)
        return reply

    def _through(self, request: Request, endpoint: Endpoint | None, fault: Fault | None) -> Reply:
        """Return the reply after what ``fault`` does before and after the processing."""
        if fault is None:
            return self._process(request, endpoint, None)
        exchange = self._exchange
        if fault.kind is FaultKind.CLOCK_JUMP:
            exchange.clock_skew_ms += fault.delay_ms
        else:
            exchange.advance(fault.delay_ms)
        if fault.kind is FaultKind.RATE_LIMIT:
            return error_reply(429, -1003, "Too many requests.", fault.retry_after)
        if fault.kind is FaultKind.BANNED:
            exchange.limits.banned_until_ms = exchange.now_ms + 1_000 * fault.retry_after
            return error_reply(418, -1003, "Way too many requests; IP banned.", fault.retry_after)
        if fault.kind in {FaultKind.REFUSED_STOP, FaultKind.REFUSED}:
            refusal = ApiError(fault.code)
            wait = fault.retry_after if refusal.status == HTTPStatus.TOO_MANY_REQUESTS else 0
            return error_reply(refusal.status, refusal.code, refusal.text, wait)
        if not fault.processed and fault.kind in FAULT_REPLIES:
            return FAULT_REPLIES[fault.kind]
        return spoilt(self._process(request, endpoint, fault), fault)

    def _process(self, request: Request, endpoint: Endpoint | None, fault: Fault | None) -> Reply:
        """Return what the exchange says; ``fault`` may let it know less than it should."""
        raw = f"{request.query}&{request.body}"
        params = dict(parse_qsl(raw, keep_blank_values=True))
        exchange = self._exchange
        with exchange.lock:
            exchange.remember()
            weight = endpoint.weight_of(params) if endpoint else 1
            refused = exchange.limits.refuse(exchange.now_ms, weight)
            if refused is not None:
                return error_reply(refused[0], -1003, "Too many requests.", refused[1])
            if endpoint is None:
                return Reply(404, PAGE, {}, "text/html")
            n_orders = endpoint.orders_in(params)
            window = exchange.limits.take_orders(exchange.now_ms, n_orders)
            if window:
                return error_reply(429, -1015, f"Too many new orders; limit of {window}.", 10)
            reply = self._call(request, endpoint, params, fault)
            exchange.remember()
        reply.headers.update(
            exchange.limits.headers(exchange.now_ms, with_orders=endpoint.class_name == ORDER)
        )
        return reply

    def _call(
        self, request: Request, endpoint: Endpoint, params: Params, fault: Fault | None
    ) -> Reply:
        try:
            if endpoint.is_signed:
                self._check_signature(request, params)
            answer = endpoint.call(params)
        except ApiError as error:
            return json_reply(error.status, error.body())
        if fault is not None:
            try:
                if request.method == "GET":
                    answer = self._as_known(request.path, answer, fault, params)
            except ApiError as error:
                return json_reply(error.status, error.body())
        return json_reply(200, answer)

    def _as_known(self, path: str, answer: Json, fault: Fault, params: Params) -> Json:
        """Return what is known of ``answer`` where ``fault`` lets knowledge come late."""
        exchange, past_ms = self._exchange, self._exchange.now_ms - fault.lag_ms
        if fault.kind is FaultKind.STALE:
            markets = exchange.markets_of(params)
            old = [market.live.as_of(path, past_ms) for market in markets]
            return answer if None in old else [row for rows in old for row in rows or []]
        time_name = LISTED_LATE.get((fault.kind, path))
        if time_name is not None:
            return as_listed(answer, time_name, past_ms)
        if isinstance(answer, list) and fault.kind in SHORTENED:
            return [row for row in answer if SHORTENED[fault.kind](row, past_ms)]
        if fault.kind is FaultKind.LATE_CANDLES:
            step_ms = exchange.walk.candles.step_ms
            known_ms = past_ms // step_ms * step_ms  # what has closed by then
            is_late = known_ms < exchange.now_ms // step_ms * step_ms
            return [row for row in answer if not is_late or row[0] < known_ms]
        return answer

    def _check_signature(self, request: Request, params: Params) -> None:
        """Refuse a wrong key, time or signature (-2014, -2015, -1102, -1021, -1131, -1022)."""
        key = request.headers.get("x-mbx-apikey", "")
        if not key:
            raise ApiError(-2014)
        if key != self._exchange.api_key:
            raise ApiError(-2015)
        stamp = whole_of(params, "timestamp")
        if stamp is None:
            raise ApiError(-1102, "timestamp")
        window = whole_of(params, "recvWindow") or USUAL_WINDOW_MS
        if window > LARGEST_WINDOW_MS:
            raise ApiError(-1131)
        clock = self._exchange.clock_ms
        if stamp >= clock + AHEAD_MS or clock - stamp > window:
            raise ApiError(-1021)
        signed = unsigned_part(request.query) + unsigned_part(request.body)
        digest = hmac.new(self._exchange.secret.encode(), signed.encode(), hashlib.sha256)
        if not hmac.compare_digest(digest.hexdigest(), params.get("signature", "")):
            raise ApiError(-1022)


LISTED_LATE: Final = {
    (FaultKind.LATE_ORDERS, "/fapi/v1/openOrders"): "time",
    (FaultKind.LATE_ORDERS, "/fapi/v1/order"): "time",
    (FaultKind.LATE_STOPS, "/fapi/v1/openAlgoOrders"): "createTime",
    (FaultKind.LATE_STOPS, "/fapi/v1/algoOrder"): "createTime",
}
"""Where orders may be listed late, and the field that says when they were taken."""


SHORTENED: Final[dict[FaultKind, Callable[[Json, int], bool]]] = {
    FaultKind.NO_CANDLES: lambda row, past_ms: False,  # noqa: ARG005
    FaultKind.EMPTY: lambda row, past_ms: False,  # noqa: ARG005
    FaultKind.LATE_TRADES: lambda row, past_ms: row["time"] <= past_ms,
    FaultKind.TRADES_OUT_OF_ORDER: lambda row, past_ms: (
        row["id"] % 2 == 0 or row["time"] <= past_ms
    ),
}
"""Which rows of a list are reported, given what was true at ``past_ms``."""


def as_listed(answer: Json, time_name: str, past_ms: int) -> Json:
    """Return what was taken by ``past_ms``; an order asked for by name is denied (-2013)."""
    if isinstance(answer, list):
        return [row for row in answer if row[time_name] <= past_ms]
    if answer.get(time_name, past_ms) > past_ms:
        raise ApiError(-2013)
    return answer


def symbol_in(request: Request) -> str:
    """Return the symbol a request names, of a batch the first one's, '' if it names none."""
    params = dict(parse_qsl(f"{request.query}&{request.body}"))
    named = re.search(r'"symbol":"(\w+)"', params.get("batchOrders", "").replace(" ", ""))
    return named[1] if named else params.get("symbol", "")


def unsigned_part(text: str) -> str:
    """Return a query or body without its signature."""
    return "&".join(part for part in text.split("&") if not part.startswith("signature="))
