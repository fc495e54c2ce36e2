# ruff: noqa: D101, D102 - the definition names each of them
"""Signals of one symbol by their definitions, every window from scratch.

Written from the definition of the strategy, not from its code. Events are plain tuples; a step is
named by its time. Weighted means and variances are sums over the whole history.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

STEP_MS = 100
STEP_NS = STEP_MS * 1_000_000


@dataclass(frozen=True)
class Book:
    t: int
    u: int
    bid: float
    bid_qty: float
    ask: float
    ask_qty: float

    @property
    def mid(self) -> float:
        return (self.bid + self.ask) / 2


@dataclass(frozen=True)
class Deal:
    t: int
    a: int
    price: float
    qty: float
    buyer_aggressed: bool


def far(price: float, mid: float) -> bool:
    return abs(price / mid - 1) > 0.2


def confirmed(before: Sequence[float], price: float) -> bool:
    """Say whether ``price`` is the fourth or later of far prices in a row near each other."""
    run = [price]
    for earlier in reversed(before):
        if far(run[-1], earlier):
            break
        run.append(earlier)
    return len(run) > 3


class Far:
    """Remembers the far prices in a row of one stream."""

    def __init__(self) -> None:
        self.row: list[float] = []

    def believable(self, price: float, mid: float | None) -> bool:
        """Say whether a price is near the last mid, or confirmed by those before it."""
        if mid is None or not far(price, mid):
            self.row = []
            return True
        before, self.row = self.row, [*self.row, price]
        return confirmed(before, price)


def well_formed(event: Book | Deal) -> bool:
    prices: tuple[float, ...]
    sizes: tuple[float, ...]
    if isinstance(event, Book):
        prices, sizes = (event.bid, event.ask), (event.bid_qty, event.ask_qty)
        crossed = event.ask <= event.bid
    else:
        prices, sizes, crossed = (event.price,), (event.qty,), False
    return (
        all(math.isfinite(x) and x > 0 for x in prices)
        and all(math.isfinite(x) and x >= 0 for x in sizes)
        and not crossed
    )


def usable(events: Sequence[Book | Deal]) -> list[Book | Deal]:  # noqa: C901 - one rule each
    """Return the events that may be used, as section 2 of the definition tells."""
    used: list[Book | Deal] = []
    mid: float | None = None
    newest = -1
    deals: list[int] = []
    books_far, deals_far = Far(), Far()
    for event in events:
        if not well_formed(event):
            continue
        if isinstance(event, Book):
            if event.u != -1 and event.u <= newest:
                continue
            newest = max(newest, event.u)
            if not books_far.believable(event.mid, mid):
                continue
            mid = event.mid
        else:
            if event.a != -1:
                if event.a in deals or event.a < (deals or [0])[0]:
                    continue
                deals.append(event.a)
            if not deals_far.believable(event.price, mid):
                continue
        used.append(event)
    return used


class SlowSignals:
    """Answers what any signal is at step ``k``, from the list of all events."""

    def __init__(self, events: Sequence[Book | Deal], params: Mapping[str, Any]) -> None:
        good = usable(events)
        self.books = [event for event in good if isinstance(event, Book)]
        self.deals = [event for event in good if isinstance(event, Deal)]
        self.p = params
        self.book_times = [book.t for book in self.books]
        self.first = self.books[0].t // STEP_NS + 1 if self.books else 2**62
        """The first step that knows a book."""
        for name in ("pump", "ti", "qi", "return_over", "pump_of_return"):
            if hasattr(self, name):
                setattr(self, name, cache(getattr(self, name)))

    def age(self, k: int) -> int:
        return k - self.first

    def book(self, k: int) -> Book:
        return self.books[bisect.bisect_left(self.book_times, k * STEP_NS) - 1]

    def mid(self, k: int) -> float:
        return self.book(k).mid

    def spread(self, k: int) -> float:
        book = self.book(k)
        return (book.ask - book.bid) / book.mid * 1e4

    def volumes(self, k: int, window_ms: int) -> tuple[float, float]:
        until, since = k * STEP_NS, k * STEP_NS - window_ms * 1_000_000
        inside = [deal for deal in self.deals if since <= deal.t < until]
        bought = sum(deal.price * deal.qty for deal in inside if deal.buyer_aggressed)
        return bought, sum(deal.price * deal.qty for deal in inside if not deal.buyer_aggressed)

    def ti(self, k: int, window_ms: int) -> float:
        bought, sold = self.volumes(k, window_ms)
        return (bought - sold) / (bought + sold) if bought + sold else 0.0

    def buy_ratio(self, k: int) -> float:
        bought, sold = self.volumes(k, 2000)
        return bought / (bought + sold) if bought + sold else 0.5

    def qi(self, k: int) -> float:
        book = self.book(k)
        both = book.bid_qty + book.ask_qty
        return (book.bid_qty - book.ask_qty) / both if both else 0.0

    def md(self, k: int) -> float:
        """Return microprice over mid, from the microprice itself."""
        book = self.book(k)
        both = book.bid_qty + book.ask_qty
        if not both:
            return 0.0
        micro = (book.bid * book.ask_qty + book.ask * book.bid_qty) / both
        return (micro - book.mid) / book.mid * 1e4

    def ofi(self, k: int) -> float:
        total = 0.0
        for before, book in itertools.pairwise(self.books):
            if book.t >= k * STEP_NS:
                break
            change = 0.0
            change += book.bid_qty if book.bid >= before.bid else 0
            change -= before.bid_qty if book.bid <= before.bid else 0
            change -= book.ask_qty if book.ask <= before.ask else 0
            change += before.ask_qty if book.ask >= before.ask else 0
            steps_ago = k - (book.t // STEP_NS + 1)
            total += change * 0.5 ** (steps_ago * STEP_MS / 1000 / self.p["ofi_halflife_s"])
        size = self.weighted([self.touch(j) for j in range(self.first, k + 1)], "touch_halflife_s")
        return total / size if size else 0.0

    def touch(self, k: int) -> float:
        return (self.book(k).bid_qty + self.book(k).ask_qty) / 2

    def touch_notional(self, k: int) -> float:
        steps = range(max(self.first, k - 599), k + 1)
        return sum(self.touch(j) * self.mid(j) for j in steps) / len(steps)

    def weighted(self, values: Sequence[float], halflife: str) -> float:
        kept = 0.5 ** (0.1 / self.p[halflife])
        weights = kept ** np.arange(len(values) - 1, -1, -1)
        return float(np.dot(weights, values) / weights.sum())

    def return_over(self, k: int, steps: int) -> float:
        if self.age(k) < steps:
            return 0.0
        return math.log(self.mid(k) / self.mid(k - steps)) * 1e4

    def sigma(self, k: int) -> float:
        steps = range(self.first + 10, k + 1)
        if not steps:
            return 0.0
        squares = [self.return_over(j, 10) ** 2 for j in steps]
        return math.sqrt(self.weighted(squares, "sigma_halflife_s"))

    def spread_med(self, k: int) -> float:
        spreads = sorted(self.spread(j) for j in range(max(self.first, k - 511), k + 1))
        middle = spreads[(len(spreads) - 1) // 2]
        return (min(math.floor(middle / 0.25), 400) + 0.5) * 0.25

    def z(self, values: Sequence[float], halflife_s: float) -> float:
        """Return the last value's score against all before it: weighted mean and variance."""
        *before, value = values
        if len(before) < 50:
            return 0.0
        a = 1 - 0.5 ** (0.1 / halflife_s)
        n = len(before)
        weights = a * (1 - a) ** np.arange(n - 1, -1, -1.0)
        weights[0] = (1 - a) ** (n - 1)
        mean = float(np.dot(weights, before))
        variance = float(np.dot(weights, (np.array(before) - mean) ** 2))
        noise = 1e-9 * max(abs(value), abs(mean))
        if math.sqrt(max(variance, 0.0)) <= noise:
            return 0.0
        return max(-5.0, min(5.0, (value - mean) / math.sqrt(variance)))

    def pump(self, k: int) -> float:
        steps = range(self.first, k + 1)
        half = self.p["pump_halflife_s"]
        flows = [self.ti(j, 2000) for j in steps]
        total: float = self.p["pump_weight_imbalance"] * self.z(flows, half)
        total += self.p["pump_weight_queue"] * self.z([self.qi(j) for j in steps], half)
        moves = [self.return_over(j, 20) for j in steps if self.age(j) >= 20]
        if moves:
            total += self.p["pump_weight_return"] * self.z(moves, half)
        return total

    def pump_peak(self, k: int) -> float:
        latched = int(self.p["pump_latch_s"] * 10)
        return max(self.pump(j) for j in range(max(self.first, k - latched), k + 1))

    def exhaust(self, k: int) -> float:
        steps = range(self.first + 1, k + 1)
        half = self.p["exhaust_halflife_s"]
        total: float = 1.0 if self.qi(k) < 0 else 0.0
        if steps:
            total += self.z([self.ti(j - 1, 300) - self.ti(j, 300) for j in steps], half)
            total += self.z([self.qi(j - 1) - self.qi(j) for j in steps], half)
        return total

    def deepest_fall(self, k: int, halflife_s: float) -> float:
        """Return the largest fall from a mid of the last 120 s, halved every ``halflife_s``."""
        now = self.mid(k)
        falls: Iterator[float] = (
            (self.mid(j) - now) / self.mid(j) * 1e4 * 0.5 ** ((k - j) / 10 / halflife_s)
            for j in range(max(self.first, k - 1200), k + 1)
        )
        return max(falls)

    def all(self, k: int) -> dict[str, float]:
        """Return every signal by its name in the log of steps."""
        return {
            "mid": self.mid(k),
            "spread": self.spread(k),
            "spread_med": self.spread_med(k),
            "ti_300ms": self.ti(k, 300),
            "ti_500ms": self.ti(k, 500),
            "ti_2s": self.ti(k, 2000),
            "buy_ratio": self.buy_ratio(k),
            "qi": self.qi(k),
            "md": self.md(k),
            "ofi_2s": self.ofi(k),
            "touch_notional": self.touch_notional(k),
            "r_1s": self.return_over(k, 10),
            "r_2s": self.return_over(k, 20),
            "r_30s": self.return_over(k, 300),
            "r_60s": self.return_over(k, 600),
            "sigma": self.sigma(k),
            "pump": self.pump(k),
            "pump_peak": self.pump_peak(k),
            "exhaust": self.exhaust(k),
        }
