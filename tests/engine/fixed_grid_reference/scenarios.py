"""Small markets to run the oracle on: worked out by hand, and random ones.

The quiet one: orders of 1 unit around 1000, take-profit and grid step 1 %, one position, no
cooldown, no slippage, recovery off; a stop 5 % under the entry.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from tests.engine.fixed_grid_reference.ledger import Account, Moment
from tests.engine.fixed_grid_reference.run import Observer, ReferenceRun, run_fixed_grid

START = 1_704_067_200_000
"""2024-01-01 00:00 UTC."""
MINUTE_MS = 60_000

QUIET: dict[str, Any] = {
    "quantity": 1.0,
    "take_profit": 0.01,
    "grid_step": 0.01,
    "max_orders": 1,
    "wait_time": 0.0,
    "max_margin_usd": 1e6,
    "initial_capital": 1e6,
    "stop_loss_pct": 5.0,
    "recovery_mode": "none",
    "position_timeout_min": 5.0,
    "stuck_distance_pct": 2.0,
    "slippage": 0.0,
}
MARKET: dict[str, Any] = {
    "tick_size": 0.1,
    "step_size": 0.1,
    "min_qty": 0.1,
    "min_notional": 5.0,
    "liquidation_fee": 0.0125,
    "brackets": [(0.0, 0.01, 0.0)],
}

Ohlc = tuple[float, float, float, float]
FILLED: Ohlc = (1000.0, 1000.0, 999.0, 999.0)
"""The first candle: the entry at 999.9 fills."""


def flat(price: float, minutes: int = 1) -> list[Ohlc]:
    """Return candles that do not move."""
    return [(price, price, price, price)] * minutes


def path(*closes: float) -> list[Ohlc]:
    """Return candles that go from one close to the next."""
    return [(a, max(a, b), min(a, b), b) for a, b in pairwise(closes)]


STUCK: list[Ohlc] = [FILLED, *flat(999.0, 5), *flat(985.0)]
"""Opened at step 0, stuck at step 6: T = 1009.9, and 985 is more than 2 % from it."""


def columns(candles: list[Ohlc], step_ms: int = MINUTE_MS, start: int = START) -> list[list[Any]]:
    """Return the columns that a run takes."""
    rows = [(start + i * step_ms, *ohlc, 1.0) for i, ohlc in enumerate(candles)]
    return [list(column) for column in zip(*rows, strict=True)]


def filled_up(candles: list[Ohlc]) -> list[Ohlc]:
    """Return the candles with flat ones after them, up to a whole quarter of an hour."""
    return candles + flat(candles[-1][3], -len(candles) % 15)


def trade(
    candles: list[Ohlc],
    observer: Observer | None = None,
    *,
    market: dict[str, Any] | None = None,
    funding: list[tuple[int, float]] | None = None,
    **changes: Any,
) -> ReferenceRun:
    """Trade minutes, filled up with flat ones, with the quiet parameters changed."""
    return run_fixed_grid(
        columns(filled_up(candles)),
        {**QUIET, **changes},
        {**MARKET, **(market or {})},
        funding,
        observer=observer,
    )


class Book:
    """The orders that rest after each step, as an observer of a run sees them."""

    def __init__(self) -> None:
        self.entries: list[float | None] = []
        self.closes: list[list[float]] = []
        self.own_stops: list[list[float]] = []
        self.shared: list[float | None] = []

    def __call__(self, account: Account, now: Moment) -> None:  # noqa: ARG002 - an observer's form
        """Note prices, worst position first."""
        self.entries.append(account.working.price if account.working else None)
        self.closes.append([o.price for p in account.positions for o in p.exits])
        self.own_stops.append([p.stop or 0.0 for p in account.positions if p.owns_stop])
        self.shared.append(account.shared_stop)


Record = tuple[int, str, float, float]
"""Bar, label, price, quantity."""
ENTRY: Record = (0, "BUY_OPEN_LONG", 999.9, 1.0)
"""The result of FILLED."""


def summary(run: ReferenceRun, *, with_end: bool = False) -> list[Record]:
    """Return what a hand-worked example states of every record."""
    return [
        (r["bar"], r["label"], r["price"], r["qty"])
        for r in run.records
        if with_end or r["label"] != "CLOSE_END"
    ]


def told(run: ReferenceRun, event: str) -> list[tuple[int, Any]]:
    """Return (minute, reason) of every event of a kind."""
    return [
        ((e["ts"] - START) // MINUTE_MS, e["reason"]) for e in run.events if e["event"] == event
    ]
