"""Faults between a client and the exchange, on demand: scheduled, or by chance."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final


class FaultKind(Enum):
    """One way in which a request goes wrong."""

    DROP = "drop"
    """The connection closes before the request is processed."""
    LOST_REPLY = "lost reply"
    """Processed, but the connection closes instead of a reply."""
    TIMEOUT = "timeout"
    """No reply comes in the client's time; processed by a coin toss."""
    UNKNOWN_503 = "503 unknown"
    """503 'Unknown error' with code -1000; processed by a coin toss."""
    UNKNOWN_503_BARE = "503 unknown, no code"
    """The same without a code in the body, as it also occurs."""
    BUSY_503 = "503 busy"
    """503 'Service Unavailable.'; not processed."""
    OVERLOAD_503 = "503 overload"
    """503 with code -1008; not processed."""
    BAD_GATEWAY = "502"
    """502 with a page of HTML; processed by a coin toss."""
    CODE_1007 = "-1007"
    """408 with code -1007; processed by a coin toss."""
    CODE_1000 = "-1000"
    """400 with code -1000; processed by a coin toss."""
    CODE_1001 = "-1001"
    """503 with code -1001 'Internal error'; not processed."""
    RATE_LIMIT = "429"
    """429 with Retry-After; not processed."""
    BANNED = "418"
    """418 with Retry-After, and so are all requests of that time; not processed."""
    DELAY = "delay"
    """Processed late: ``delay_ms`` of virtual time pass before it."""
    STALE = "stale"
    """A read of orders or positions answers what was true ``lag_ms`` ago."""
    HTML = "html"
    """Processed; 200 with a page of HTML."""
    CUT_JSON = "cut json"
    """Processed; 200 with half of the reply."""
    CLOCK_JUMP = "clock jump"
    """The exchange's clock jumps by ``delay_ms`` against everybody else's; processed."""
    LATE_CANDLES = "late candles"
    """``klines`` lacks what has closed less than ``lag_ms`` ago, and the candle after it."""
    NO_CANDLES = "no candles"
    """``klines`` answers an empty list."""
    LATE_TRADES = "late trades"
    """``userTrades`` lacks what has traded less than ``lag_ms`` ago."""
    REFUSED_STOP = "refused stop"
    """A conditional order is refused with ``code``; not processed."""
    REFUSED = "refused"
    """A request is refused with ``code``; not processed."""
    LATE_ORDERS = "late orders"
    """``openOrders`` lacks, and ``order`` denies, what was taken less than ``lag_ms`` ago."""
    LATE_STOPS = "late stops"
    """The same of conditional orders."""
    TRADES_OUT_OF_ORDER = "trades out of order"
    """``userTrades`` lacks trades with an odd number that are younger than ``lag_ms``: each such
    trade is listed after a younger one."""
    EMPTY = "empty"
    """A question that is answered with a list is answered with an empty one."""


ORDER: Final = "order"
CANCEL: Final = "cancel"
READ: Final = "read"
SETUP: Final = "setup"
CLASSES: Final = (ORDER, CANCEL, READ, SETUP)
"""Classes of endpoints: new orders, cancellations, GET requests, settings of the account."""

BY_COIN: Final = {
    FaultKind.TIMEOUT,
    FaultKind.UNKNOWN_503,
    FaultKind.UNKNOWN_503_BARE,
    FaultKind.BAD_GATEWAY,
    FaultKind.CODE_1007,
    FaultKind.CODE_1000,
}
NOT_PROCESSED: Final = {
    FaultKind.DROP,
    FaultKind.BUSY_503,
    FaultKind.OVERLOAD_503,
    FaultKind.CODE_1001,
    FaultKind.RATE_LIMIT,
    FaultKind.BANNED,
    FaultKind.REFUSED_STOP,
    FaultKind.REFUSED,
}
ONLY_AT: Final = {
    FaultKind.LATE_CANDLES: "GET /fapi/v1/klines",
    FaultKind.NO_CANDLES: "GET /fapi/v1/klines",
    FaultKind.LATE_TRADES: "GET /fapi/v1/userTrades",
    FaultKind.REFUSED_STOP: "POST /fapi/v1/algoOrder",
    FaultKind.TRADES_OUT_OF_ORDER: "GET /fapi/v1/userTrades",
}
"""Endpoints to which some kinds are confined."""
ON_DEMAND: Final = frozenset(
    {FaultKind.REFUSED, FaultKind.LATE_ORDERS, FaultKind.LATE_STOPS, FaultKind.EMPTY}
)
"""Kinds that say something else wherever they hit: campaigns name path and code for them."""
PASSING: Final = frozenset(
    {
        FaultKind.LOST_REPLY,
        FaultKind.DELAY,
        FaultKind.STALE,
        FaultKind.HTML,
        FaultKind.CUT_JSON,
        FaultKind.CLOCK_JUMP,
        FaultKind.LATE_CANDLES,
        FaultKind.NO_CANDLES,
        FaultKind.LATE_TRADES,
        FaultKind.LATE_ORDERS,
        FaultKind.LATE_STOPS,
        FaultKind.TRADES_OUT_OF_ORDER,
        FaultKind.EMPTY,
    }
)
"""Kinds with which a request takes effect all the same."""
BY_CHANCE: Final = tuple(kind for kind in FaultKind if kind not in ON_DEMAND)
"""Kinds of which campaigns let any request have its share."""
HALF: Final = 0.5
ALWAYS: Final = 10**18
"""A time that never comes, ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault.

    Attributes:
        kind: what goes wrong.
        processed: whether the request takes effect all the same.
        delay_ms: virtual time that passes first; of a CLOCK_JUMP its size.
        lag_ms: age of a STALE answer.
        retry_after: seconds reported with 429 and 418.
        code: with which a REFUSED_STOP or REFUSED is refused.
    """

    kind: FaultKind
    processed: bool
    delay_ms: int = 0
    lag_ms: int = 1_000
    retry_after: int = 7
    code: int = -4045


@dataclass(slots=True)
class _Planned:
    kind: FaultKind
    n_request: int
    classes: frozenset[str]
    path: str
    left: int
    options: dict[str, int]
    processed: bool | None

    def meets(self, n_request: int, class_name: str, path: str) -> bool:
        if self.n_request:
            return n_request == self.n_request
        return self.left > 0 and class_name in self.classes and self.path in path


@dataclass(slots=True)
class _Rate:
    kind: FaultKind
    chance: float
    classes: frozenset[str]
    options: dict[str, int]
    path: str = ""
    from_ms: int = 0
    until_ms: int = ALWAYS
    symbol: str = ""
    processed: bool | None = None

    def covers(self, class_name: str, path: str, symbol: str, now_ms: int) -> bool:
        is_about = not self.symbol or symbol == self.symbol
        is_due = self.from_ms <= now_ms < self.until_ms
        return is_about and is_due and class_name in self.classes and self.path in path


@dataclass
class FaultPlan:
    """Faults to come, and those that have been.

    Attributes:
        seed: of chance and coin tosses.
        injected: number of faults by kind.
        requests: number of requests by method and path.
        n_requests: number of all requests.
    """

    seed: int = 0
    injected: Counter[FaultKind] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    n_requests: int = 0
    _planned: list[_Planned] = field(default_factory=list)
    _rates: list[_Rate] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - reproducible on purpose

    def at(
        self, n_request: int, kind: FaultKind, *, processed: bool | None = None, **options: int
    ) -> None:
        """Plan a fault of request ``n_request`` (the first is 1).

        Args:
            kind: what goes wrong.
            processed: whether it takes effect; None: as the kind has it.
            options: delay_ms, lag_ms, retry_after, code.
        """
        self._planned.append(_Planned(kind, n_request, frozenset(), "", 1, options, processed))

    def next(
        self,
        kind: FaultKind,
        classes: Iterable[str] = CLASSES,
        *,
        path: str = "",
        times: int = 1,
        processed: bool | None = None,
        **options: int,
    ) -> None:
        """Plan a fault of the next ``times`` requests of ``classes`` whose path holds ``path``."""
        self._planned.append(_Planned(kind, 0, frozenset(classes), path, times, options, processed))

    def rate(
        self, kind: FaultKind, chance: float, classes: Iterable[str] = CLASSES, **options: int
    ) -> None:
        """Let every request of ``classes`` go wrong with this chance from now on."""
        self._rates.append(_Rate(kind, chance, frozenset(classes), options))

    def during(
        self,
        from_ms: int,
        until_ms: int,
        kind: FaultKind,
        classes: Iterable[str] = CLASSES,
        *,
        path: str = "",
        symbol: str = "",
        processed: bool | None = None,
        **options: int,
    ) -> None:
        """Let every request of ``classes`` whose path holds ``path`` go wrong for a time.

        Args:
            from_ms: first moment of that time, ms UTC.
            until_ms: when it is over, ms UTC.
            kind: what goes wrong.
            classes: of endpoints.
            path: part of the endpoints' paths, '': any.
            symbol: that the requests name, '': any.
            processed: whether they take effect; None: as the kind has it.
            options: delay_ms, lag_ms, retry_after, code.
        """
        names = frozenset(classes)
        self._rates.append(
            _Rate(kind, 1.0, names, options, path, from_ms, until_ms, symbol, processed)
        )

    def down_until_ms(self, class_name: str, path: str, symbol: str, now_ms: int) -> int:
        """Return until when requests of that kind cannot get through, 0 if they can."""
        return max(
            (
                rate.until_ms
                for rate in self._rates
                if rate.chance >= 1.0
                and rate.kind not in PASSING
                and ONLY_AT.get(rate.kind, path) in {path, f"POST {path}"}
                and rate.covers(class_name, path, symbol, now_ms)
            ),
            default=0,
        )

    def end(self, kind: FaultKind) -> None:
        """Let no request go wrong in this way any more."""
        self._planned = [plan for plan in self._planned if plan.kind is not kind]
        self._rates = [rate for rate in self._rates if rate.kind is not kind]

    def clear(self) -> None:
        """Forget what is planned; the counters stay."""
        self._planned.clear()
        self._rates.clear()

    @property
    def may_be_stale(self) -> bool:
        """Whether an answer out of the past may be asked for."""
        kinds = [plan.kind for plan in self._planned] + [rate.kind for rate in self._rates]
        return FaultKind.STALE in kinds

    def draw(
        self, class_name: str, method: str, path: str, symbol: str = "", now_ms: int = 0
    ) -> Fault | None:
        """Count a request and return what goes wrong with it, None if nothing does.

        Args:
            class_name: of its endpoint.
            method: of HTTP.
            path: of the endpoint.
            symbol: it names.
            now_ms: ms UTC.
        """
        self.n_requests += 1
        self.requests[f"{method} {path}"] += 1
        elsewhere = {kind for kind, place in ONLY_AT.items() if place != f"{method} {path}"}
        for plan in self._planned:
            if plan.kind not in elsewhere and plan.meets(self.n_requests, class_name, path):
                plan.left -= 1
                return self._inject(plan.kind, plan.processed, plan.options)
        for rate in self._rates:
            is_due = rate.kind not in elsewhere and rate.covers(class_name, path, symbol, now_ms)
            if is_due and (rate.chance >= 1.0 or self._random.random() < rate.chance):
                return self._inject(rate.kind, rate.processed, rate.options)
        return None

    def _inject(self, kind: FaultKind, processed: bool | None, options: dict[str, int]) -> Fault:
        if processed is None:
            coin = kind in BY_COIN and self._random.random() < HALF
            processed = coin or (kind not in BY_COIN and kind not in NOT_PROCESSED)
        self.injected[kind] += 1
        return Fault(kind=kind, processed=processed, **options)
