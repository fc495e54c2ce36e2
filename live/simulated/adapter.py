"""Puts the simulated exchange below the real client, at the transport."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from http.client import RemoteDisconnected
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from live.exchange.port import Clock
from live.simulated.exchange import SimExchange
from live.simulated.http_api import HttpApi, Request

HOSTS: Final = {"fapi.binance.com", "demo-fapi.binance.com", "api.binance.com"}


class LoopbackAdapter(HTTPAdapter):
    """Sends what is meant for Binance futures to the server on this machine.

    Everything above the socket is real. The client keeps the URL it asked for, by which ccxt
    chooses its error table. Requests to any other host fail as if there were no network.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self._base = f"http://127.0.0.1:{port}"

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,
        cert: str | bytes | tuple[str | bytes, str | bytes] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send ``request`` over the loopback interface.

        Raises:
            requests.ConnectionError: another host, or the server closed without a reply.
            requests.ReadTimeout: the server lets the client run into its timeout.
        """
        del verify, cert, proxies
        url = request.url or ""
        parts = urlsplit(url)
        if parts.hostname not in HOSTS:
            raise requests.ConnectionError(f"no route to {parts.hostname}", request=request)
        query = f"?{parts.query}" if parts.query else ""
        request.url = f"{self._base}{parts.path}{query}"
        response = super().send(request, stream=stream, timeout=timeout)
        request.url = response.url = url
        if "X-Sim-Timeout" in response.headers:
            response.close()
            raise requests.ReadTimeout("Read timed out.", request=request)
        return response


class InProcessAdapter(HTTPAdapter):
    """Puts the simulated exchange below the requests library without a socket: six times faster."""

    def __init__(self, exchange: SimExchange) -> None:
        super().__init__()
        self._exchange, self._api = exchange, HttpApi(exchange)

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float | None, float | None] | None = None,
        verify: bool | str = True,
        cert: str | bytes | tuple[str | bytes, str | bytes] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Return the exchange's reply.

        Raises:
            requests.ConnectionError: it closes the connection instead.
            requests.ReadTimeout: none comes in time, which has passed then.
        """
        del stream, verify, cert, proxies
        parts, body = urlsplit(request.url or ""), request.body or ""
        reply = self._api.answer(
            Request(
                request.method or "",
                parts.path,
                parts.query,
                body.decode() if isinstance(body, bytes) else str(body),
                {name.lower(): str(value) for name, value in request.headers.items()},
            )
        )
        if not reply.status:
            cut = urllib3.exceptions.ProtocolError("Connection aborted.", RemoteDisconnected(""))
            raise requests.ConnectionError(cut, request=request)
        if "X-Sim-Timeout" in reply.headers:
            if isinstance(timeout, int | float):
                self._exchange.advance(round(1e3 * timeout))
            raise requests.ReadTimeout("Read timed out.", request=request)
        raw = urllib3.HTTPResponse(
            body=BytesIO(reply.body),
            status=reply.status,
            preload_content=False,
            reason=HTTPStatus(reply.status).phrase,  # ccxt reads it, as the status line's
            headers={"Content-Type": reply.content_type, **reply.headers},
        )
        return self.build_response(request, raw)


def attach(client: Any, port: int, clock: Clock | None = None) -> None:
    """Let a ccxt client talk to the server at ``port`` and live in the time of ``clock``."""
    client.session.mount("https://", LoopbackAdapter(port))
    if clock is not None:
        client.milliseconds = clock.now_ms
