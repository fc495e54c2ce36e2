"""The fixed grid on paper: a replay is a backtest, and a session that was put away goes on."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest

from backtest.simulator import BacktestSimulator
from core.errors import ConfigError
from core.orders import OrderKind
from core.times import MINUTE_MS
from engine.contract import Bar, ExitsDone, Gap, Moment
from engine.fixed_grid.face import FixedGridFace
from engine.registry import FIXED_GRID
from live.commands.replay import Recording, candle_table, run_replay
from live.execution.books import LiveSession
from tests.support.markets.synthetic import RULES

DAY = ("2025-10-03", "2025-10-04")
FOUR_DAYS = ("2025-10-01", "2025-10-05")
START_MS = 1_704_067_200_000
QUICK_STUCK = {"stuck_distance_pct": 1.0, "position_timeout_min": 10.0}
HEDGE = {**QUICK_STUCK, "recovery_mode": "hedge"}
SETTINGS: dict[str, dict[str, Any]] = {
    "shipped": {},
    "sell": {"direction": "sell"},
    "hedge": HEDGE,
    "sell, hedge": {**HEDGE, "direction": "sell"},
    "aggressive": {**QUICK_STUCK, "recovery_mode": "aggressive", "refuse_first_touch": True},
    "none, tight stops": {"recovery_mode": "none", "stop_loss_pct": 1.0, "max_stop_orders": 2},
    "escalation by hedge": {
        **QUICK_STUCK,
        "escalation_min": 10.0,
        "escalation": "hedge",
        "stop_loss_pct": 2.0,
    },
    "escalation by close": {**QUICK_STUCK, "escalation_min": 10.0, "escalation": "close"},
    "steps of 15 minutes": {"step_s": 900, "stop_loss_pct": 1.0},
}


@cache
def simulator(name: str) -> BacktestSimulator:
    return BacktestSimulator(SETTINGS[name], source="demo", strategy="fixed_grid")


def replayed(simulator: BacktestSimulator, start: str, end: str) -> LiveSession:
    loaded = simulator.load("BTC", start, end)
    recording = Recording(
        coin="BTC",
        candles=candle_table(loaded.market.candles),
        first=loaded.first_bar,
        settlements=loaded.market.funding["timestamp"].to_numpy(copy=True),
        rates=loaded.market.funding["rate"].to_numpy(copy=True),
        rules=loaded.rules,
    )
    return run_replay(recording, FIXED_GRID, simulator.params)


def assert_equal(simulator: BacktestSimulator, start: str, end: str) -> Counter[str]:
    """Compare a replay with a backtest, record by record; return how often each label came."""
    want, session = simulator.run_single("BTC", start, end), replayed(simulator, start, end)
    first = int(want["candles"]["timestamp"].iloc[0]) // simulator.bar_ms
    names = ("label", "timestamp", "price", "qty", "pnl", "fee", "fill_id", "cycle", "slot")
    got = [(t.bar - first, *(getattr(t, name) for name in names)) for t in session.trades]
    assert got == [(t["bar"], *(t[name] for name in names)) for t in want["trades"]]
    assert session.strategy.view().wallet == want["metrics"]["final_capital"]
    return Counter(t["label"] for t in want["trades"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_a_replay_makes_the_trades_of_a_backtest(name: str) -> None:
    span = DAY if simulator(name).bar_ms == MINUTE_MS else FOUR_DAYS
    assert sum(assert_equal(simulator(name), *span).values()) > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shipped", "escalation by hedge"])
def test_over_5000_steps_a_replay_makes_the_trades_of_a_backtest(name: str) -> None:
    labels = assert_equal(simulator(name), *FOUR_DAYS)
    expected = {
        "shipped": {"RECOVERY_LADDER", "SELL_CLOSE_LONG"},
        "escalation by hedge": {"RECOVERY_HEDGE_OPEN", "RECOVERY_HEDGE_CLOSE"},
    }
    assert expected[name] <= set(labels)


@pytest.mark.slow
def test_the_stop_price_ends_a_replay_where_it_ends_a_backtest() -> None:
    candles = simulator("shipped").load("BTC", *DAY).market.candles
    price = round(float(np.quantile(candles["low"], 0.3)), 1)
    opened = float(candles["open"].iloc[0])
    assert price < opened
    stopping = BacktestSimulator({"stop_price": price}, source="demo", strategy="fixed_grid")
    labels = assert_equal(stopping, *DAY)
    assert labels["STOP_PRICE"] + labels["STOP_LONG"] > 0
    session = replayed(stopping, *DAY)
    assert session.strategy.stopped


def face_of(**config: Any) -> FixedGridFace:
    face = FIXED_GRID.create(FIXED_GRID.read({"quantity_usd": 500.0, **config}), RULES)
    assert isinstance(face, FixedGridFace)
    return face


def walk(face: FixedGridFace, prices: Any, start: int = 0, stop: int | None = None) -> list[Any]:
    """Let a face go over one-minute candles from one price to the next; return its records."""
    records: list[Any] = []
    for bar in range(start, len(prices) - 1 if stop is None else stop):
        opened, closed = float(prices[bar]), float(prices[bar + 1])
        before = opened if bar == 0 else float(prices[bar])
        face.begin(Moment(START_MS + bar * MINUTE_MS, signal=True, price=opened, prev_close=before))
        face.simulate(Gap(before, opened))
        for phase in range(face.phases):
            while face.exits(phase):
                face.simulate(ExitsDone())
        face.arrange()
        low, high = min(opened, closed), max(opened, closed)
        face.simulate(
            Bar(ts_ms=START_MS + bar * MINUTE_MS, open=opened, high=high, low=low, close=closed)
        )
        records += face.take_trades()
    return records


def prices(seed: int, n: int) -> Any:
    steps = np.random.default_rng(seed).normal(0.0, 0.004, n)
    return np.round(100.0 * np.exp(np.cumsum(steps)), 1)


@pytest.mark.parametrize("mode", ["ladder", "hedge", "aggressive", "none"])
def test_a_state_put_away_after_any_step_goes_on_as_if_it_had_not(mode: str) -> None:
    path = prices(3, 120)
    config = {**QUICK_STUCK, "recovery_mode": mode, "take_profit": 0.01}
    whole = face_of(**config)
    expected, got, face = walk(whole, path), list[Any](), face_of(**config)
    for bar in range(len(path) - 1):
        saved, face = face.state_dict(), face_of(**config)
        face.load_state_dict(saved)
        got += walk(face, path, bar, bar + 1)
    assert got == expected
    assert len(expected) > 20
    assert face.state_dict() == whole.state_dict()


def test_what_should_rest_covers_every_position_once() -> None:
    face = face_of(max_stop_orders=3, stop_loss_pct=10.0, wait_time=0.0, max_margin_usd=9e3)
    walk(face, np.linspace(100.0, 97.0, 15))
    face.begin(Moment(START_MS + 14 * MINUTE_MS, signal=True, price=97.0, prev_close=97.0))
    face.arrange()
    orders = list(face.desired())
    held = face.view().long
    assert held.n_fills > 4
    assert [order.kind for order in orders].count(OrderKind.STOP) == 3
    for kind in (OrderKind.STOP, OrderKind.TAKE_PROFIT):
        covered = sum(order.qty for order in orders if order.kind is kind)
        assert covered == pytest.approx(held.qty)
    assert len([order for order in orders if order.kind is OrderKind.ENTRY]) == 1


def test_a_market_that_does_not_take_the_parameters_is_refused_before_a_session() -> None:
    params = FIXED_GRID.read({"quantity_usd": 1.0})
    with pytest.raises(ConfigError, match="under the exchange's minimum"):
        FIXED_GRID.check(params, RULES, 100.0)
    stop = FIXED_GRID.read({"stop_price": 101.0, "quantity_usd": 500.0})
    with pytest.raises(ConfigError, match="stop_price = 101 must be below the price"):
        FIXED_GRID.check(stop, RULES, 100.0)
