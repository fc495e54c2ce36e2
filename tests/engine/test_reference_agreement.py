"""The compiled engine against the slow reference: the same trades, equity, wallet and counts.

The reference is written from the strategy's definition and shares no code with the engine. Both
read the same candles and the same table of signals (whose oracles are elsewhere).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import PRESETS
from core.market import MarketRules
from tests.engine.reference.scenarios import run
from tests.support.markets.oracle import (
    COINS,
    coin_rules,
    first_difference,
    real_candles,
    real_detail,
    run_both,
)
from tests.support.markets.scenario import play
from tests.support.markets.synthetic import (
    CONFIGS,
    RULES,
    SEEDS,
    one_of,
    synthetic_candles,
    synthetic_detail,
    synthetic_settlements,
)

COUNTERS = {
    "var_blocks": "var_blocks",
    "trailing_shifts": "trailing_shifts",
    "stops_long": "stops_long",
    "stops_short": "stops_short",
    "circuit_breaker_triggers": "breaker_halts",
    "liquidations": "liquidations",
}
QUICK = {"BTC": "2024-03-01", "ETH": "2022-06-08", "SOL": "2025-02-01"}
LONG = {"BTC": "2024-08-01", "ETH": "2025-01-15", "SOL": "2022-11-05"}
ROUGH = [
    ("BTC", "2022-05-07"),
    ("BTC", "2023-08-14"),
    ("ETH", "2022-06-09"),
    ("ETH", "2025-01-30"),
    ("SOL", "2022-11-07"),
    ("SOL", "2024-08-01"),
]
"""Days before crashes and after."""
SLOW = [HealthCheck.too_slow]


def disagreement(
    candles: pd.DataFrame,
    funding: pd.DataFrame,
    config: dict[str, Any],
    rules: MarketRules,
    detail: pd.DataFrame | None = None,
) -> str:
    """Return '' where engine and reference agree, else where they part, in words.

    The reference does not know ``refuse_first_touch``, which is no rule of the strategy.
    """
    config = {**config, "refuse_first_touch": False}
    ours, theirs = run_both(candles, funding, config, rules, detail=detail)
    if difference := first_difference(ours["trades"], theirs.trades):
        return difference
    for name, expected in (("equity", theirs.equity), ("wallet", theirs.wallet)):
        other = np.abs(ours["log"][name] - expected)
        worst = int(np.argmax(other))
        if other[worst] > 1e-9 * max(1.0, abs(expected[worst]), config.get("initial_capital", 1e4)):
            return f"{name} of bar {worst}: {ours['log'][name][worst]} against {expected[worst]}"
    counts = {name: ours["metrics"][name] for name in COUNTERS}
    expected_counts = {name: theirs.counters[other] for name, other in COUNTERS.items()}
    return "" if counts == expected_counts else f"{counts} against {expected_counts}"


@pytest.mark.parametrize(
    ("coin", "preset"), [("BTC", "documented"), ("ETH", "documented"), ("SOL", "shipped")]
)
@pytest.mark.slow
def test_fifteen_hundred_real_bars_trade_alike(coin: str, preset: str) -> None:
    candles, funding = real_candles(coin, QUICK[coin], 1_500)
    assert disagreement(candles, funding, dict(PRESETS[preset]), coin_rules(coin)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["documented", "shipped"])
@pytest.mark.parametrize("coin", COINS)
def test_two_months_of_real_bars_trade_alike(coin: str, preset: str) -> None:
    candles, funding = real_candles(coin, LONG[coin], 6_000)
    ours, theirs = run_both(candles, funding, dict(PRESETS[preset]), coin_rules(coin))
    assert len(theirs.trades) > 100
    assert first_difference(ours["trades"], theirs.trades) == ""
    np.testing.assert_allclose(ours["equity_curve"], theirs.equity, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["documented", "shipped"])
@pytest.mark.parametrize(
    ("coin", "start"), [("BTC", "2023-08-10"), ("ETH", "2025-01-27"), ("SOL", "2025-01-29")]
)
def test_recorded_minutes_inside_the_bars_trade_alike(coin: str, start: str, preset: str) -> None:
    candles, funding = real_candles(coin, start, 1_000)
    detail = real_detail(coin, candles)
    assert len(detail) > 9_000
    config = {**PRESETS[preset], "spacing_floor": 0.005, "grid_spacing_k": 1.0, "leverage": 3.0}
    assert disagreement(candles, funding, config, coin_rules(coin), detail) == ""


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(
    place=st.sampled_from(ROUGH),
    n_bars=one_of(700, 1_500),
    config=CONFIGS,
    least_lots=one_of(1, 1, 2, 5, 7),
)
def test_any_parameters_trade_alike_on_real_bars(
    place: tuple[str, str], n_bars: int, config: dict[str, Any], least_lots: int
) -> None:
    coin, start = place
    candles, funding = real_candles(coin, start, n_bars)
    rules = coin_rules(coin)
    rules = replace(rules, min_qty=round(least_lots * rules.step_size, 9))
    assert disagreement(candles, funding, config, rules) == ""


INVENTED = {
    "seed": SEEDS,
    "config": CONFIGS,
    "hours": one_of(8, 2, 4, 40),
    "delay_ms": one_of(0, 7, 59_000, 1_800_000),
    "missing": one_of(0.0, 0.0, 0.02, 0.3),
    "least_lots": one_of(1, 3, 7),
    "with_detail": st.booleans(),
}
"""Settlements every 40 hours leave holes for the model to fill."""


def invented_disagreement(
    seed: int,
    n_bars: int,
    config: dict[str, Any],
    *,
    hours: int,
    delay_ms: int,
    missing: float,
    least_lots: int,
    with_detail: bool,
) -> str:
    candles = synthetic_candles(n_bars, seed, missing=missing)
    funding = synthetic_settlements(candles, seed, hours=hours, delay_ms=delay_ms)
    rules = replace(RULES, min_qty=round(least_lots * RULES.step_size, 9))
    detail = synthetic_detail(candles, seed) if with_detail else None
    return disagreement(candles, funding, config, rules, detail)


@settings(max_examples=15, deadline=None, suppress_health_check=SLOW)
@given(**INVENTED)
def test_any_parameters_trade_alike_on_invented_bars(
    seed: int, config: dict[str, Any], **more: Any
) -> None:
    assert invented_disagreement(seed, 400, config, **more) == ""


@pytest.mark.slow
@settings(max_examples=70, deadline=None, suppress_health_check=SLOW)
@given(**INVENTED)
def test_any_parameters_trade_alike_on_many_more_invented_bars(
    seed: int, config: dict[str, Any], **more: Any
) -> None:
    assert invented_disagreement(seed, 1_200, config, **more) == ""


@pytest.mark.parametrize("with_engine", [False, True], ids=["reference", "engine"])
def test_an_entry_whose_margin_is_missing_is_liquidated_at_its_own_price(
    *, with_engine: bool
) -> None:
    """Long 42.552 at 980, leverage 13.9, maintenance 20 %; at 1010 the short adds 2,780 to it.

    Equity is 11,270 there and the maintenance of both 11,375; at 1019.9 equity would do again.
    """
    changes = {
        "leverage": 13.9,
        "allow_short": True,
        "stop2_enabled": False,
        "intrabar_path": "low_first",
    }
    rows, rules = [(1000.0, 1019.9, 969.0, 1019.9)], {"brackets": [(0.0, 0.2, 0.0)]}
    if with_engine:
        trades = play(rows, changes, rules=rules).trades
    else:
        trades = run(rows, changes, market=rules).trades
    assert [trade["label"] for trade in trades[:3]] == ["BUY_OPEN_LONG"] * 3
    assert [(trade["label"], trade["price"]) for trade in trades[3:]] == [
        ("SELL_OPEN_SHORT", 1010.0),
        *[("LIQUIDATION", 1010.0)] * 4,
    ]


def test_a_disagreement_is_found_and_named() -> None:
    candles = synthetic_candles(400, 5)
    funding = synthetic_settlements(candles, 5)
    config = dict(PRESETS["documented"])
    ours, _ = run_both(candles, funding, config, RULES)
    _, other = run_both(candles, funding, {**config, "order_pct": 0.051}, RULES)
    assert first_difference(ours["trades"], other.trades).startswith("trade ")
    assert "trades against 0" in first_difference(ours["trades"], other.trades[:0])
