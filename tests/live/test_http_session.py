"""Deadline, redirects and sizes of an answer, against servers on this machine that misbehave."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from config import LIVE_CONFIG
from core.errors import GridError, ReplyError, UnknownOutcome
from core.orders import OrderKind
from core.times import BAR_MS
from live.commands.process import Process, SystemClock
from live.exchange.binance import open_exchange
from live.exchange.credentials import Credentials
from live.exchange.http_session import MEGABYTE, AnswerLimits, AnswerRefused, HttpSession
from live.exchange.types import Answer, CancelResult, ExchangeOrder, OrderSpec
from live.session.shutdown import StopRequest
from tests.support.exchanges.canned import KEY, SECRET, CannedExchange, refusal

Serve = Callable[[socket.socket, threading.Event], None]
DEADLINE_S = 0.4
SLACK_S = 10.0  # a machine with much to do; what is given up would else take a minute, or for ever
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Server:
    """Answers every connection with the same behaviour, each in a thread of its own.

    Attributes:
        connections: how many there were.
        open_connections: how many are served now.
    """

    def __init__(self, serve: Serve) -> None:
        self._serve, self._socket = serve, socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self.port = self._socket.getsockname()[1]
        self.connections = self.open_connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        self.connections += 1
        self.open_connections += 1
        with contextlib.suppress(OSError), connection:
            connection.recv(1 << 16)
            self._serve(connection, self._over)
        self.open_connections -= 1

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/fapi/v1/time"

    def close(self) -> None:
        """Serve nobody any more."""
        self._over.set()
        self._socket.close()


@contextlib.contextmanager
def serving(serve: Serve) -> Iterator[Server]:
    server = Server(serve)
    try:
        yield server
    finally:
        server.close()


def answering(*parts: bytes) -> Serve:
    def serve(connection: socket.socket, _: threading.Event) -> None:
        connection.sendall(b"".join(parts))

    return serve


def whole(body: bytes, *headers: bytes) -> Serve:
    lines = b"".join(header + b"\r\n" for header in headers)
    return answering(
        OK, lines, b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body), body
    )


def dripping(head: bytes) -> Serve:
    """Return a server that sends ``head`` at once, then a byte every 20 ms for ever."""

    def serve(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(head)
        while not over.wait(0.02):
            connection.sendall(b" ")

    return serve


def http(**limits: int) -> HttpSession:
    return HttpSession(deadline_s=DEADLINE_S, limits=AnswerLimits(**limits))


def wait_until(is_true: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + SLACK_S
    while not is_true() and time.monotonic() < end_s:
        time.sleep(0.01)
    return is_true()


# --- the deadline ---------------------------------------------------------------------------------

DRIPS = {
    "headers that drip": b"HTTP/1.1 200 OK\r\nX-Slow: ",
    "a body that drips": OK + b"Content-Length: 5000\r\n\r\n[",
    "chunks that drip": OK + b"Transfer-Encoding: chunked\r\n\r\n1",
    "nothing at all": b"",
}


@pytest.mark.parametrize("head", DRIPS.values(), ids=DRIPS)
def test_an_answer_that_drips_ends_at_the_deadline(head: bytes) -> None:
    with serving(dripping(head)) as server:
        began_s = time.monotonic()
        with pytest.raises(requests.ReadTimeout, match="deadline"):
            http().request("GET", server.url, timeout=DEADLINE_S)
        assert DEADLINE_S <= time.monotonic() - began_s < DEADLINE_S + SLACK_S
        assert server.connections == 1


def test_a_request_given_up_lets_go_of_its_connection_and_thread() -> None:
    with serving(dripping(DRIPS["a body that drips"])) as server:
        with pytest.raises(requests.ReadTimeout):
            http().request("GET", server.url)
        assert wait_until(lambda: server.open_connections == 0)
        assert wait_until(lambda: not any(t.name == "request" for t in threading.enumerate()))


def test_after_a_request_given_up_the_next_one_is_answered() -> None:
    answers = [dripping(OK), whole(b"[1]")]

    def serve(connection: socket.socket, over: threading.Event) -> None:
        answers.pop(0)(connection, over)

    with serving(serve) as server:
        session = http()
        with pytest.raises(requests.ReadTimeout):
            session.request("GET", server.url)
        assert session.request("GET", server.url).json() == [1]


def test_a_quick_answer_does_not_wait_for_anything() -> None:
    with serving(whole(b'{"serverTime": 5}')) as server:
        began_s = time.monotonic()
        session = HttpSession(deadline_s=60.0)
        assert session.request("GET", server.url).json() == {"serverTime": 5}
        assert time.monotonic() - began_s < SLACK_S


@pytest.mark.slow
def test_a_request_that_is_hurried_ends_within_a_second() -> None:
    session = HttpSession(deadline_s=60.0)
    with serving(dripping(OK)) as server:
        threading.Timer(0.05, session.hurry).start()
        began_s = time.monotonic()
        with pytest.raises(requests.ReadTimeout):
            session.request("GET", server.url)
        assert 0.9 < time.monotonic() - began_s < 1.0 + SLACK_S


class _ToLoopback(requests.adapters.HTTPAdapter):
    """Sends what is meant for the exchange to a server on this machine."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        """Send it there."""
        options["verify"] = False
        _, _, path = str(request.url).partition(".com")
        request.url = f"http://127.0.0.1:{self._port}{path}"
        return super().send(request, **options)


def test_a_request_that_hangs_is_seen_by_a_watchdog_with_its_beginning() -> None:
    def serve(connection: socket.socket, over: threading.Event) -> None:
        dripping(OK + b"Content-Length: 999\r\n\r\n")(connection, over)

    with serving(serve) as server, requests.Session() as session:
        session.mount("https://", _ToLoopback(server.port))
        executor = open_exchange(
            "BTC",
            api_key=KEY,
            api_secret=SECRET,
            clock=SystemClock(),
            session=session,
            settings={**LIVE_CONFIG, "request_timeout_s": DEADLINE_S, "retries": 0},
            bar_ms=BAR_MS,
        )
        seen = []

        def watch() -> None:
            wait_until(lambda: executor.in_flight is not None)
            seen.append(executor.in_flight)

        watchdog = threading.Thread(target=watch)
        watchdog.start()
        began_s = time.monotonic()
        with pytest.raises(GridError):
            executor.last_price()
        watchdog.join()
        assert seen[0] is not None
        assert seen[0].endpoint == "fapiPublicGetTime"
        assert 0.0 <= seen[0].since_s - began_s < DEADLINE_S
        assert executor.in_flight is None


@pytest.mark.slow
def test_a_signal_ends_a_hung_request_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(dripping(OK + b"Content-Length: 999\r\n\r\n")) as server:
        session = requests.Session()
        session.mount("https://", _ToLoopback(server.port))
        monkeypatch.setattr("live.commands.process.http_session", lambda: session)
        settings = {**LIVE_CONFIG, "request_timeout_s": 60.0}
        target: Any = SimpleNamespace(coin="BTC", on_testnet=False, settings=settings)
        process = Process(
            target=target, clock=SystemClock(), credentials=Credentials(), bar_ms=BAR_MS, urls=()
        )
        stop = StopRequest(process.wake)
        executor = process.executor()
        signal_s = time.monotonic() + 0.2
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with stop.listening(), pytest.raises(GridError):
            executor.last_price()
        assert time.monotonic() - signal_s < 1.0 + SLACK_S
        assert stop.is_set


def test_a_question_that_is_hurried_is_not_asked_again() -> None:
    exchange = CannedExchange()
    executor = exchange.executor()

    def hung(_: Any) -> Any:
        executor.hurry()
        return requests.ReadTimeout("given up")

    exchange.always("GET /fapi/v1/openOrders", hung)
    with pytest.raises(UnknownOutcome):
        executor.open_orders()
    assert len(exchange.asked("GET /fapi/v1/openOrders")) == 1


def test_a_program_that_is_to_end_repeats_a_cancel_once_only() -> None:
    exchange = CannedExchange()
    for endpoint in ("DELETE /fapi/v1/batchOrders", "GET /fapi/v1/order"):
        exchange.always(endpoint, requests.ReadTimeout("hung"))
    executor = exchange.executor()
    executor.leave()
    order = ExchangeOrder(
        client_id="a",
        order_id="5",
        kind=OrderKind.ENTRY,
        position_side="LONG",
        price=1.0,
        qty=1.0,
        filled_qty=0.0,
        is_open=True,
        status="NEW",
    )
    assert executor.cancel_orders([order]) == [CancelResult.STUCK]
    assert len(exchange.asked("DELETE /fapi/v1/batchOrders")) == 2
    assert len(exchange.asked("GET /fapi/v1/order")) == 2


# --- redirects ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_and_no_other_host_sees_the_request(status: int) -> None:
    with serving(whole(b"[]")) as elsewhere:
        location = f"Location: {elsewhere.url}\r\n\r\n".encode()
        with (
            serving(answering(b"HTTP/1.1 %d Moved\r\n" % status, location)) as server,
            pytest.raises(AnswerRefused, match="redirect"),
        ):
            http().request("POST", server.url, data={"a": 1}, headers={"X-MBX-APIKEY": "k"})
        assert elsewhere.connections == 0


def test_an_unsigned_question_follows_no_redirect_to_another_host_or_without_tls() -> None:
    with serving(whole(b"[]")) as elsewhere:
        location = f"Location: {elsewhere.url}\r\n\r\n".encode()
        with (
            serving(answering(b"HTTP/1.1 302 Moved\r\n", location)) as server,
            pytest.raises(AnswerRefused, match="redirect"),
        ):
            http().get(server.url)
        assert elsewhere.connections == 0


def test_a_redirected_order_is_looked_up_not_believed() -> None:
    exchange = CannedExchange()
    exchange.then("POST /fapi/v1/order", (307, "", {"Location": "http://elsewhere/"}))
    exchange.always("GET /fapi/v1/order", refusal(-2013))
    spec = OrderSpec(client_id="x", kind=OrderKind.EXIT, position_side="LONG", price=0.0, qty=0.01)
    (reply,) = exchange.executor().create_orders([spec])
    assert reply.answer is Answer.NOT_SENT
    assert len(exchange.asked("GET /fapi/v1/order")) == 3
    exchange.always("GET /fapi/v3/balance", (302, "", {"Location": "http://elsewhere/"}))
    with pytest.raises(ReplyError, match=r"redirect \(status 302\); not followed"):
        exchange.executor().balance()


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate"])
def test_a_compressed_answer_is_decompressed(encoding: bytes) -> None:
    body = json.dumps([f"{i:x}" for i in range(20_000)]).encode()
    packed = gzip.compress(body) if encoding == b"gzip" else zlib.compress(body)
    with serving(whole(packed, b"Content-Encoding: " + encoding)) as server:
        assert http().request("GET", server.url).content == body


def test_a_gzip_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = gzip.compress(bytes(96 * MEGABYTE), compresslevel=1)
    with serving(whole(bomb, b"Content-Encoding: gzip")) as server:
        session = HttpSession(deadline_s=20.0)
        with pytest.raises(AnswerRefused, match=r"larger than 64 MB|compressed more than 200 to 1"):
            session.request("GET", server.url)


def test_an_answer_that_never_ends_is_refused_at_its_limit() -> None:
    def serve(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(OK + b"\r\n")
        while not over.is_set():
            connection.sendall(bytes(1 << 16))

    with serving(serve) as server, pytest.raises(AnswerRefused, match="larger than 2 MB"):
        HttpSession(deadline_s=20.0, limits=AnswerLimits(2 * MEGABYTE, 2 * MEGABYTE)).request(
            "GET", server.url
        )


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (gzip.compress(b"[1, 2, 3]" * 99)[:-9], b"Content-Encoding: gzip"),
        (b"no gzip", b"Content-Encoding: gzip"),
        (b"[1]", b"Content-Encoding: br"),
    ],
    ids=["cut off", "no gzip", "not asked for"],
)
def test_an_answer_that_cannot_be_unpacked_is_no_answer(body: bytes, header: bytes) -> None:
    with serving(whole(body, header)) as server, pytest.raises(requests.RequestException):
        http().request("GET", server.url)


def test_an_answer_cut_off_is_no_answer() -> None:
    with (
        serving(answering(OK, b"Content-Length: 99\r\n\r\n[1, 2")) as server,
        pytest.raises(requests.RequestException),
    ):
        http().request("GET", server.url)


DEEP = "[" * 200_000 + "]" * 200_000
MONSTERS = {
    "too deep": DEEP,
    "too many digits": f'{{"symbol": "BTCUSDT", "price": {"9" * 5_000}}}',
    "too many digits in a text": f'{{"symbol": "BTCUSDT", "price": "{"9" * 5_000}"}}',
    "many digits": f'{{"symbol": "BTCUSDT", "price": {"9" * 4_000}}}',
}


@pytest.mark.parametrize("body", MONSTERS.values(), ids=MONSTERS)
def test_monstrous_json_is_refused_in_one_line(body: str) -> None:
    exchange = CannedExchange()
    exchange.always("GET /fapi/v2/ticker/price", (200, body))
    with pytest.raises(ReplyError) as refused:
        exchange.executor(settings={"retries": 0}).last_price()
    text = str(refused.value)
    assert len(text) < 500
    assert text.isprintable()


@pytest.mark.parametrize("digits", ["9" * 5_000, "9" * 400])
def test_ids_of_thousands_of_digits_are_refused(digits: str) -> None:
    exchange = CannedExchange()
    exchange.always("GET /fapi/v1/order", (200, f'{{"symbol":"BTCUSDT","orderId":"{digits}"}}'))
    with pytest.raises(ReplyError):
        exchange.executor(settings={"retries": 0}).order_by_id("5")


@pytest.mark.parametrize("code", [-2019, -1000])
def test_control_characters_and_html_of_the_exchange_reach_no_text(code: int) -> None:
    exchange = CannedExchange()
    steering = (
        "\x1b[2J\x1b]0;title\x07 \u202e \x00 <html><head><title>Gone</title></head><body>page"
    )
    exchange.always("GET /fapi/v3/balance", refusal(code, steering))
    exchange.always("GET /fapi/v1/time", (200, {"serverTime": 1}))
    with pytest.raises(GridError) as raised:
        exchange.executor(settings={"retries": 0}).balance()
    text = str(raised.value)
    assert text.isprintable()
    assert "an HTML page" in text
    assert "page" not in text.replace("an HTML page", "")
