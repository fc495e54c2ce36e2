"""HTTP over a loopback socket: the exchange's own endpoints, and ``/control`` for the test."""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qsl

from live.simulated.exchange import SimExchange
from live.simulated.faults import CLASSES, FaultKind
from live.simulated.http_api import HttpApi, Reply, Request, json_reply
from live.simulated.orders import Json

CONTROL: Final = "/control/"
PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


def wire_bytes(reply: Reply) -> bytes:
    """Return a reply as it is sent, in one piece."""
    lines = [
        f"HTTP/1.1 {reply.status} {PHRASES[reply.status]}",
        f"Content-Type: {reply.content_type}",
        f"Content-Length: {len(reply.body)}",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + reply.body


class Connection(socketserver.StreamRequestHandler):
    """One kept-alive connection of a client."""

    disable_nagle_algorithm = True
    server: SimServer

    def handle(self) -> None:
        """Answer request after request until the client or a fault closes."""
        with contextlib.suppress(ConnectionError):  # a client that was killed
            while (request := self._read()) is not None:
                reply = self.server.answer(request)
                if not reply.status:
                    return
                self.wfile.write(wire_bytes(reply))

    def _read(self) -> Request | None:
        first = self.rfile.readline()
        if not first:
            return None
        method, target, _ = first.decode().split(" ", 2)
        headers: dict[str, str] = {}
        while (line := self.rfile.readline()) not in {b"\r\n", b""}:
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = self.rfile.read(int(headers.get("content-length", "0"))).decode()
        path, _, query = target.partition("?")
        return Request(method, path, query, body, headers)


class SimServer(socketserver.ThreadingTCPServer):
    """Serves one exchange on a free port of the loopback interface; a context manager.

    Control requests, which neither count nor weigh: ``GET /control/now``,
    ``/control/advance?to=MS`` (``SimExchange.run_until``), ``/control/state``,
    ``POST /control/faults`` with JSON {kind, n | classes, path, times, rate, from_ms, ...}.

    Attributes:
        port: where it listens.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, exchange: SimExchange) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.port: int = self.server_address[1]
        self._exchange = exchange
        self._api = HttpApi(exchange)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Serve from now on, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no more."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def answer(self, request: Request) -> Reply:
        """Return the reply to any request."""
        if request.path.startswith(CONTROL):
            return json_reply(200, self._control(request))
        return self._api.answer(request)

    def _control(self, request: Request) -> Json:
        exchange = self._exchange
        action = request.path.removeprefix(CONTROL)
        if action == "advance":
            target = int(dict(parse_qsl(request.query))["to"])
            is_reached = exchange.pass_sleep(target)
            return {"now": exchange.now_ms, "reached": is_reached}
        if action == "state":
            return exchange.dump()
        if action == "faults":
            self._plan(json.loads(request.body))
        return {"now": exchange.now_ms}

    def _plan(self, wish: dict[str, Json]) -> None:
        """Plan a fault: of request ``n``, at a ``rate``, or of the next requests."""
        faults, kind = self._exchange.faults, FaultKind(wish.pop("kind"))
        with self._exchange.lock:
            if "n" in wish:
                faults.at(wish.pop("n"), kind, **wish)
                return
            classes = wish.pop("classes", CLASSES)
            if "from_ms" in wish:
                faults.during(wish.pop("from_ms"), wish.pop("until_ms"), kind, classes, **wish)
            elif "rate" in wish:
                faults.rate(kind, wish.pop("rate"), classes, **wish)
            else:
                faults.next(kind, classes, **wish)
