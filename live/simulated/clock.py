"""Clocks that let virtual time go on when somebody sleeps (``live.exchange.port.Clock``)."""

from __future__ import annotations

import http.client
import json

from live.simulated.exchange import SimExchange
from live.simulated.orders import Json


class SimClock:
    """The clock of a client in this process."""

    def __init__(self, exchange: SimExchange) -> None:
        self._exchange = exchange

    def now_ms(self) -> int:
        """Return the time, ms UTC."""
        return self._exchange.now_ms

    def sleep(self, seconds: float) -> None:
        """Let time go on; an event ends it where the exchange wakes its clients."""
        if seconds > 0:
            self._exchange.pass_sleep(self._exchange.now_ms + wait_ms(seconds))


class RemoteClock:
    """The clock of a client in another process; asks the server."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def now_ms(self) -> int:
        """Return the time, ms UTC."""
        return int(self.ask("now")["now"])

    def sleep(self, seconds: float) -> None:
        """Let time go on; an event ends it where the exchange wakes its clients."""
        if seconds > 0:
            self.ask(f"advance?to={self.now_ms() + wait_ms(seconds)}")

    def ask(self, action: str, wish: Json = None) -> dict[str, Json]:
        """Send a control request and return its answer; ``wish`` is sent as JSON."""
        method, body = ("GET", None) if wish is None else ("POST", json.dumps(wish))
        self._connection.request(method, f"/control/{action}", body)
        return dict(json.loads(self._connection.getresponse().read()))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def wait_ms(seconds: float) -> int:
    """Return ``seconds`` in ms, at least one."""
    return max(1, round(seconds * 1_000))
