"""The compiled fixed grid equals its slow reference: records, equity, gates and every metric."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings

from config import BACKTEST_CONFIG
from tests.engine.fixed_grid_reference import run_fixed_grid
from tests.engine.fixed_grid_reference.scenarios import MARKET, MINUTE_MS, columns, flat, path
from tests.engine.test_fixed_grid_reference import (
    PARAMS,
    REAL,
    SEEDS,
    random_market,
    read_params,
    settlements,
)
from tests.support.markets.fixed_grid import NAMES, compare, differences, engine_run

CHOICES: dict[str, tuple[Any, ...]] = {
    "direction": ("buy", "sell"),
    "take_profit": (0.002, 0.004, 0.008, 0.015),
    "grid_step": (0.0005, 0.001, 0.002, 0.005),
    "quantity_usd": (200.0, 350.0, 1000.0),
    "max_orders": (5, 10, 25, 64),
    "wait_time": (0.0, 10.0, 120.0, 600.0),
    "max_margin_usd": (1500.0, 5000.0, 20_000.0),
    "stop_loss_enabled": (True, True, False),
    "stop_loss_pct": (0.5, 1.0, 2.0, 5.0),
    "position_timeout_min": (5.0, 30.0, 60.0),
    "stuck_distance_pct": (0.3, 0.8, 1.5, 3.0),
    "recovery_mode": ("ladder", "hedge", "aggressive", "none"),
    "ladder_pct": ((1.5, 3.0, 4.5), (1.0,), (1.0, 2.0)),
    "escalation_min": (5.0, 60.0, 120.0),
    "escalation": ("alert", "close", "hedge"),
    "hedge_release_pct": (0.1, 0.5, 1.0),
    "hedge_max_hours": (1.0, 6.0, 24.0),
    "max_stop_orders": (2, 4, 8),
    "leverage": (1.0, 3.0, 10.0, 50.0),
    "initial_capital": (2000.0, 10_000.0),
    "intrabar_path": ("auto", "low_first", "high_first"),
    "fill_through_ticks": (0, 0, 1),
    "fill_through_bps": (0.0, 0.0, 2.0),
    "slippage": (0.0, 0.0005),
    "step_s": (60, 60, 300, 900),
    "stop_price": (None, None, 0.97),
    "pause_price": (None, None, 1.03),
}
"""``stop_price`` and ``pause_price`` as a share of the first price for a buy."""


def drawn_params(rng: random.Random, price: float) -> dict[str, Any]:
    """Return random parameters for a market that opens at ``price``."""
    params = {name: rng.choice(values) for name, values in CHOICES.items()}
    for name in ("stop_price", "pause_price"):
        if params[name] is not None:
            share = params[name] if params["direction"] == "buy" else 2.0 - params[name]
            params[name] = round(price * share, 1)
    return params


@settings(max_examples=25)
@given(SEEDS, PARAMS)
def test_the_engine_equals_the_reference(seed: int, drawn: dict[str, Any]) -> None:
    rows = random_market(seed)
    params = read_params(drawn, rows[1][0])
    assert differences(rows, params, MARKET, settlements(rows)) == []


@pytest.mark.slow
@settings(max_examples=400)
@given(SEEDS, PARAMS)
def test_the_engine_equals_the_reference_on_hundreds_of_markets(
    seed: int, drawn: dict[str, Any]
) -> None:
    rows = random_market(seed)
    params = read_params(drawn, rows[1][0])
    assert differences(rows, params, MARKET, settlements(rows)) == []


@pytest.mark.slow
def test_every_label_and_gate_takes_part_in_the_agreement() -> None:
    labels: Counter[str] = Counter()
    gates: Counter[str] = Counter()
    for seed in range(160):
        rng = random.Random(seed)  # noqa: S311 - no secret
        rows = random_market(seed)
        params = drawn_params(rng, rows[1][0])
        params |= {"quantity_usd": 1400.0, "initial_capital": rng.choice((400.0, 10_000.0))}
        expected = run_fixed_grid(rows, params, MARKET, settlements(rows))
        strategy, result = engine_run(rows, params, MARKET, settlements(rows))
        assert compare(expected, strategy.state, result) == []
        labels.update(r["label"] for r in result.trade_dicts)
        gates.update({name: count for name, count in expected.blocked.items() if count})
    assert set(labels) == {
        "BUY_OPEN_LONG",
        "SELL_CLOSE_LONG",
        "SELL_OPEN_SHORT",
        "BUY_CLOSE_SHORT",
        "STOP_LONG",
        "STOP_SHORT",
        "STOP_PRICE",
        "RECOVERY_CLOSE",
        "RECOVERY_LADDER",
        "RECOVERY_HEDGE_OPEN",
        "RECOVERY_HEDGE_CLOSE",
        "RECOVERY_ESCALATION",
        "LIQUIDATION",
        "CLOSE_END",
    }
    assert {"stopped", "price", "orders", "margin", "cooldown"} <= set(gates)


def test_a_hole_is_walked_over_its_own_candle_of_15_minutes() -> None:
    rows = columns(flat(1000.0, 15) + path(*[1000.0 - 3 * i for i in range(31)]))
    holed = [[x for i, x in enumerate(column) if not 17 <= i < 40] for column in rows]
    quarters = columns(
        [(1000.0, 1000.0, 940.0, 950.0), (950.0, 1001.0, 949.0, 990.0)],
        15 * MINUTE_MS,
        int(rows[0][0]) + 15 * MINUTE_MS,
    )
    params = {
        "quantity": 1.0,
        "max_orders": 4,
        "stop_loss_pct": 2.0,
        "initial_capital": 1e5,
        "max_margin_usd": 1e5,
    }
    expected = run_fixed_grid(holed, params, MARKET, quarter_candles=quarters)
    strategy, result = engine_run(holed, params, MARKET, quarters=quarters)
    assert compare(expected, strategy.state, result) == []
    assert result.metrics["holes"] == 2
    assert len(expected.records) >= 4


def real_window(coin: str, rng: random.Random, minutes: int) -> list[list[Any]]:
    """Return an unbroken stretch of a coin's real minutes; sometimes three of them are missing."""
    frame = pd.read_parquet(REAL / f"{coin}USDT-perp-1m.parquet")
    times = frame["timestamp"].to_numpy()
    while True:
        at = rng.randrange(len(frame) - minutes)
        if int(times[at + minutes - 1] - times[at]) == (minutes - 1) * MINUTE_MS:
            break
    rows = frame.iloc[at : at + minutes]
    if rng.random() < 0.3:
        rows = rows.drop(rows.index[rng.sample(range(1, minutes - 1), 3)])
    return [rows[name].tolist() for name in NAMES]


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="no real candles here")
@pytest.mark.parametrize("coin", ["BTC", "ETH", "SOL"])
def test_the_engine_equals_the_reference_on_real_minutes(coin: str) -> None:
    paid = pd.read_parquet(REAL / f"{coin}USDT-funding.parquet")
    due = list(zip(paid["timestamp"].tolist(), paid["rate"].tolist(), strict=True))
    rng = random.Random(coin)  # noqa: S311 - no secret
    markets: Any = BACKTEST_CONFIG["markets"]
    records = 0
    for _ in range(40):
        rows = real_window(coin, rng, 3 * 1440)
        params = drawn_params(rng, rows[1][0])
        first, last = rows[0][0], rows[0][-1]
        funding = [row for row in due if first - 86_400_000 <= row[0] <= last + 3_600_000]
        expected = run_fixed_grid(rows, params, markets[coin], funding)
        strategy, result = engine_run(rows, params, markets[coin], funding)
        assert compare(expected, strategy.state, result) == [], params
        records += len(expected.records)
    assert records > 4_000
