"""Ticks for tests of the short grid: invented events, and ways to run and to change them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st

from backtest.ticks.files import Events, new_events
from core.recording import BUY, MS_NS, SELL, EventKind
from core.records import freeze, zeros_table
from engine.registry import SHORT_GRID
from engine.short_grid.observation import Outlook, new_observation, observe_events
from engine.short_grid.params import STEP_NS
from tests.engine.short_grid_reference.signals import Book, Deal
from tests.support.paths import ROOT

START_NS = 1_767_225_600_000_000_000
REAL_TICKS = ROOT.parent / "shared" / "ticks"


def params(**changes: Any) -> Any:
    return freeze(SHORT_GRID.read(changes))


def walk(events: Events, until_step: int, n_symbols: int = 1, **changes: Any) -> Any:
    """Return the log of all steps up to ``until_step``, by row one step of one symbol."""
    universe, table = new_observation(n_symbols, params(**changes))
    first = int(events["t_ns"][0]) // STEP_NS
    log: Any = zeros_table(Outlook, (until_step - first + 1) * n_symbols)
    n_rows = observe_events(universe, table, params(**changes), events, until_step, log)
    return log[:n_rows]


def plain(events: Events, symbol: int = 0) -> list[Book | Deal]:
    """Return one symbol's books and trades as plain tuples."""
    out: list[Book | Deal] = []
    for event in events[events["symbol"] == symbol]:
        kind, t = int(event["kind"]), int(event["t_ns"])
        if kind == EventKind.BOOK:
            out.append(
                Book(
                    t,
                    int(event["number"]),
                    float(event["price"]),
                    float(event["qty"]),
                    float(event["price2"]),
                    float(event["qty2"]),
                )
            )
        elif kind == EventKind.TRADE:
            out.append(
                Deal(
                    t,
                    int(event["number"]),
                    float(event["price"]),
                    float(event["qty2"]),
                    bool(event["side"] == BUY),
                )
            )
    return out


def random_events(seed: int, n_events: int, seconds: float, *, faults: bool = True) -> Events:
    """Return books and trades of one symbol at random times; some unusable with ``faults``."""
    rng = np.random.default_rng(seed)
    events = new_events(n_events)
    events["t_ns"] = START_NS + np.sort(rng.integers(0, int(seconds * 1e9), n_events))
    events["seq"] = np.arange(n_events)
    is_book = rng.random(n_events) < 0.6
    events["kind"] = np.where(is_book, EventKind.BOOK, EventKind.TRADE)
    events["event_ms"] = events["transaction_ms"] = events["t_ns"] // MS_NS - 5
    price = 50.0 * np.exp(np.cumsum(rng.standard_t(3, n_events) * 2e-4))
    half = 50.0 * rng.integers(2, 30, n_events) * 1e-4 / 2
    ticks = np.round((price - half) * 100)
    events["price"] = np.where(is_book, ticks, np.round(price * 100)) / 100
    events["price2"] = np.where(is_book, np.round((price + half) * 100) + 1, 0) / 100
    events["qty"] = np.round(rng.exponential(20, n_events)) * (rng.random(n_events) > 0.02)
    events["qty2"] = np.where(is_book, np.round(rng.exponential(20, n_events)), events["qty"])
    events["side"] = np.where(is_book, 0, rng.choice([BUY, SELL], n_events))
    events["number"] = 1_000 + np.cumsum(1 + (rng.random(n_events) < 0.01))
    if faults:
        for row in np.flatnonzero(rng.random(n_events) < 0.05):
            _spoil(events[row], rng)
    return events


def _spoil(event: Any, rng: np.random.Generator) -> None:
    match int(rng.integers(0, 6)):
        case 0:
            event["price"] = rng.choice([math.nan, math.inf, 0.0, -1.0])
        case 1:
            event["qty2"] = rng.choice([-1.0, math.nan])
        case 2:
            event["price2"] = event["price"]
        case 3:
            event["number"] -= int(rng.integers(1, 60))
        case _:
            factor = rng.choice([0.5, 1.3, 1.31])
            event["price"] *= factor
            event["price2"] *= factor


SEEDS = st.integers(0, 2**32 - 1)
