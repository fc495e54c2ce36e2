"""A day and an hour with much trading, who watches them, and what must hold at their end."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest

from config import PRESETS
from core.market import MarketRules
from live.session.shutdown import Ending
from live.simulated.exchange import SimExchange
from live.store.trade_files import LiveTrade
from tests.support.markets.synthetic import RULES, synthetic_candles, synthetic_settlements
from tests.support.processes.live_session import (
    Scene,
    on_stage,
    settings_in,
    settlements,
    warm_bars,
)

DOCUMENTED: Final = PRESETS["documented"]
WARM: Final = warm_bars(DOCUMENTED)
DAY_BARS: Final = 96
HOUR_BARS: Final = 4
HOUR_SEED: Final = 148
"""Of a hundred seeds the one whose wild hour has most trades with a market exit among them."""
CALM_SEED: Final = 113
"""Of a day in whose first half hour nothing fills, with entries on both sides."""
POLL_S: Final = 240.0
NO_LOSS_LIMIT: Final = {"equity_warn_pct": 1e5, "equity_emergency_pct": 1e6}
MUCH_AT_A_TIME: Final = {"max_errors_in_row": 1_000}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of these tests need not survive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@cache
def busy_market(seed: int, n_bars: int) -> tuple[pd.DataFrame, list[tuple[int, float]]]:
    """Return candles, of which ``n_bars`` are traded, and the funding of that time."""
    candles = synthetic_candles(WARM + n_bars, seed)
    return candles, settlements(synthetic_settlements(candles, seed), candles)


@cache
def wild_market(seed: int = HOUR_SEED) -> tuple[pd.DataFrame, list[tuple[int, float]]]:
    """Return the same with candles that reach 1.8 % further than open and close on both sides."""
    candles, funding = busy_market(seed, HOUR_BARS + 9)
    wild, traded = candles.copy(), candles.index[WARM:]
    ends = candles.loc[traded, ["open", "close"]]
    wild.loc[traded, "high"] = np.round(ends.max(axis=1) * 1.018, 1)
    wild.loc[traded, "low"] = np.round(ends.min(axis=1) * 0.982, 1)
    return wild, funding


@contextmanager
def busy_day(
    folder: Path,
    *,
    seed: int = 112,
    n_bars: int = DAY_BARS + 1,
    rules: MarketRules = RULES,
    config: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    **stage: Any,
) -> Iterator[Scene]:
    """Yield a session that stands before the first step of a day with much trading.

    As in reality, it sleeps through what happens between its looks.
    """
    candles, funding = busy_market(seed, n_bars)
    with on_stage(
        candles,
        {**DOCUMENTED, **(config or {})},
        rules,
        folder,
        start_bar=WARM,
        funding=funding,
        settings=settings_in(folder, **{"poll_s": POLL_S, **(settings or {})}),
        **{"wakes_clients": False, **stage},
    ) as scene:
        yield scene


@contextmanager
def wild_hour(folder: Path, poll_s: float, **changes: Any) -> Iterator[Scene]:
    """Yield a session before an hour in which orders fill every two minutes.

    It sleeps through what happens between its looks.

    Args:
        folder: of everything it keeps.
        poll_s: between two looks.
        changes: of ``LIVE_CONFIG``; as ``stage`` a dict of those of the stage.
    """
    candles, funding = wild_market()
    stage = {"wakes_clients": False, **changes.pop("stage", {})}
    settings = settings_in(folder, **{**NO_LOSS_LIMIT, "poll_s": poll_s, **changes})
    with on_stage(
        candles,
        DOCUMENTED,
        RULES,
        folder,
        start_bar=WARM,
        funding=funding,
        settings=settings,
        **stage,
    ) as scene:
        yield scene


def falling(n_bars: int) -> pd.DataFrame:
    """Return a busy market that loses a third of its price in six candles at its end."""
    candles = busy_market(112, n_bars)[0].copy()
    slide = np.concatenate([np.ones(WARM + n_bars - 6), 0.94 ** np.arange(1, 7)])
    before = np.concatenate([[1.0], slide[:-1]])
    for name, factor in (("open", before), ("high", before), ("low", slide), ("close", slide)):
        candles[name] = np.round(candles[name] * factor, 1)
    return candles


@contextmanager
def crash(folder: Path, **stage: Any) -> Iterator[Scene]:
    """Yield a session without near stops that a crash makes lose over a quarter."""
    config = {
        **DOCUMENTED,
        "leverage": 5.0,
        "atr_sl_mult": 8.0,
        "regime_enabled": False,
        "circuit_breaker_enabled": False,
        "prune_enabled": (),
        "var_deleverage_enabled": False,
        "var_block_enabled": False,
        "kelly_enabled": False,
        "allow_short": False,
    }
    settings = settings_in(folder, poll_s=POLL_S)
    with on_stage(
        falling(24),
        config,
        RULES,
        folder,
        start_bar=WARM,
        settings=settings,
        **{"price_band": 0.9, "wakes_clients": False, **stage},
    ) as scene:
        yield scene


def assert_books_agree(scene: Scene, trades: list[LiveTrade]) -> None:
    """Compare the ledger and its ``trades`` with the account: each of its trades booked once."""
    account, view = scene.market.account, scene.session.strategy.view()
    booked: dict[str, float] = defaultdict(float)
    for trade in trades:
        if trade.qty > 0.0:
            booked[trade.trade_id.partition(":")[0]] += trade.qty
    real = {str(trade.trade_id): float(trade.qty) for trade in account.trades}
    assert booked == pytest.approx(real, abs=1e-9)
    assert len({trade.trade_id for trade in trades}) == len(trades)
    assert scene.position_gaps() == [0.0, 0.0]
    assert scene.equity_gap() == pytest.approx(0.0, abs=1e-6)
    earned = sum(trade.pnl - trade.fee for trade in trades) + view.funding
    assert view.wallet == pytest.approx(scene.capital + earned, abs=1e-6)


def assert_nothing_twice(scene: Scene) -> None:
    """No identity was used for two orders."""
    book = scene.market.book
    ids = Counter(order.client_id for order in book.orders.values())
    ids.update(stop.client_id for stop in book.stops.values())
    assert [name for name, n in ids.items() if n > 1] == []


def assert_one_order_a_fill(trades: list[LiveTrade]) -> None:
    """Where orders fill whole, an entry is one order's, and an order makes one entry."""
    entries = {(t.fill_id, t.client_id) for t in trades if "OPEN" in t.label}
    assert len(entries) == len({fill for fill, _ in entries}) == len({name for _, name in entries})


def errors_of(scene: Scene) -> int:
    """Return how many errors the session has counted."""
    return int(json.loads(scene.monitor.path.read_text())["errors"])


def finish(scene: Scene) -> tuple[Scene, list[LiveTrade]]:
    """Return the session after a last undisturbed look, and the trades of both."""
    scene.exchange.faults.clear()
    scene.exchange.clock_skew_ms = 0
    again = scene.reopened()
    assert again.run_until(scene.exchange.now_ms + 1_000) is Ending.ASKED
    return again, scene.session.trades + again.session.trades


def fill_nearest(exchange: SimExchange, position_side: str = "LONG") -> None:
    """Let the entry of ``position_side`` nearest to the price fill, wherever the price is."""
    entries = [
        order
        for order in exchange.book.open_orders.values()
        if not order.closes and order.position_side == position_side
    ]
    nearest = min(entries, key=lambda order: abs(order.price - exchange.price))
    exchange.book.fill_limit(nearest, exchange.stamp_ms)


def fill_on_a_flat_side(exchange: SimExchange) -> None:
    """Let the nearest entry fill of a side that holds nothing and therefore has no stop yet."""
    flat = [name for name, side in exchange.account.positions.items() if not side.qty]
    fill_nearest(exchange, flat[0])


def assert_all_stopped(exchange: SimExchange, *foreign_orders: str) -> None:
    """Every position has its stop, and no limit order but of ``foreign_orders`` is open."""
    held = {name for name, side in exchange.account.positions.items() if side.qty}
    assert {stop.position_side for stop in exchange.book.open_stops.values()} == held
    assert [o.client_id for o in exchange.book.open_orders.values()] == list(foreign_orders)


def assert_stopped_in_order(exchange: SimExchange) -> None:
    """Something is held; no limit order is open, and every position has its stop."""
    assert not exchange.account.is_flat
    assert_all_stopped(exchange)
