"""ccxt's client on our clock: it signs and names errors; everything it raises is a value here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, final

import ccxt  # type: ignore[import-untyped]  # it has no stubs

from live.exchange.errors import HttpReply, scrub
from live.exchange.port import Clock
from live.exchange.request import Request

_TRIPPED: Final = (TypeError, ValueError, LookupError, AttributeError, RecursionError)
"""Errors of ccxt's own handling over JSON it does not expect; too deep JSON is the last."""


@final
class BinanceClient(ccxt.binanceusdm):  # type: ignore[misc]  # ccxt has no types
    """ccxt's client on our clock, which keeps the reply under every answer."""

    def __init__(self, config: Mapping[str, Any], clock: Clock) -> None:
        """Take ccxt's settings and the clock its timestamps come from."""
        self._our_clock = clock
        self._heard = HttpReply()
        super().__init__(config)

    def milliseconds(self) -> int:
        """Return the time that signatures carry before correction, ms UTC."""
        return self._our_clock.now_ms()

    def on_rest_response(self, *reply: Any) -> Any:
        """Keep a reply; arguments are status, reason, address, method, headers, body, ..."""
        body = super().on_rest_response(*reply)
        self._heard = HttpReply(int(reply[0]), str(body), dict(reply[4]))
        return body

    def handle_errors(self, *reply: Any) -> Any:
        """Raise for error answers; a list is a batch's and is judged by who sent the batch."""
        return None if isinstance(reply[6], list) else super().handle_errors(*reply)

    def call(self, request: Request) -> tuple[Any, HttpReply, Exception | None]:
        """Send a request; return its answer, the reply under it, and what was raised."""
        endpoint = getattr(self, request.endpoint)
        self._heard = HttpReply()
        try:
            answer = endpoint(dict(request.params))
        except (ccxt.BaseError, OSError, *_TRIPPED) as error:
            return None, self._heard, error
        return answer, self._heard, None

    def error_for(self, code: int, text: str) -> Exception:
        """Return what ccxt would raise for a code, for the refusals inside a batch."""
        name = str(code)
        linear = self.exceptions["linear"]["exact"]
        kind = linear.get(name) or self.exceptions["exact"].get(name) or ccxt.ExchangeError
        error: Exception = kind(f'{self.id} {{"code":{code},"msg":"{text}"}}')
        return error


class _NoSignatures(logging.Filter):
    """Takes queries, which carry signatures, out of the HTTP library's log."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = scrub(record.getMessage()), ()
        return True


NO_SIGNATURES: Final = _NoSignatures()
