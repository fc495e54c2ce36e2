"""Requests to the exchange and what becomes of them, without ccxt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.errors import GridError


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        endpoint: ccxt's name of it, such as ``fapiPublicGetKlines``.
        params: as the exchange names them.
        weight: it costs.
        orders: it places.
        urgent: whether it places or cancels orders, and may use most of the limit.
    """

    endpoint: str
    params: Mapping[str, Any] = field(default_factory=dict)
    weight: int = 1
    orders: int = 0
    urgent: bool = False

    @property
    def is_question(self) -> bool:
        """Whether it changes nothing, so that a lost answer leaves nothing open."""
        return "Get" in self.endpoint


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a request: a reply, or an error.

    Attributes:
        reply: parsed JSON, an object or a list; its shape is not checked yet.
        error: what went wrong, None if nothing did.
        code: the exchange's error code, 0 if it named none.
        sent_ms: when it was sent, ms UTC of our clock; 0 if it was not.
    """

    reply: Any = None
    error: GridError | None = None
    code: int = 0
    sent_ms: int = 0


@dataclass(frozen=True, slots=True)
class InFlight:
    """A request that is under way, for a watchdog in another thread.

    Attributes:
        endpoint: ccxt's name of it.
        since_s: when it began, ``time.monotonic()``.
    """

    endpoint: str
    since_s: float
