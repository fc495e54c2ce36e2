"""Runs the compiled engine and the slow reference on the same input, and compares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.funding import schedule_funding
from core.market import MarketRules
from core.signals import compute_signals
from engine.strategy import GridStrategyV4
from engine.tables import bar_table
from tests.reference.engine import ReferenceResult, run_reference

MARKET_FOLDER = Path(__file__).resolve().parents[1].parent / "shared" / "market"
BAR_MS = 900_000
SIGNAL_NAMES = ("er", "kama", "atr", "adx", "z", "sigma", "atr_mean", "volume_ratio", "regime",
                "ready")  # fmt: skip


def real_candles(coin: str, start: str, n_bars: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return candles and funding of ``coin`` from the market folder; skip where there is none."""
    if not MARKET_FOLDER.is_dir():
        pytest.skip("no real candles beside the checkout: ../shared/market is missing")
    candles = pd.read_parquet(MARKET_FOLDER / f"{coin}USDT-perp-15m.parquet")
    funding = pd.read_parquet(MARKET_FOLDER / f"{coin}USDT-funding.parquet")
    first = int(np.searchsorted(candles["timestamp"], pd.Timestamp(start, tz="UTC").timestamp() * 1000))
    candles = candles.iloc[first : first + n_bars].reset_index(drop=True)
    inside = funding["timestamp"].between(
        candles["timestamp"].iloc[0] - 86_400_000, candles["timestamp"].iloc[-1] + BAR_MS
    )
    return candles, funding[inside].reset_index(drop=True)


def plain_market(rules: MarketRules, liquidation_fee: float) -> dict[str, Any]:
    """Return market rules as the reference reads them."""
    return {
        "tick_size": rules.tick_size, "step_size": rules.step_size,
        "min_qty": max(rules.min_qty, rules.step_size), "min_notional": rules.min_notional,
        "liquidation_fee": (
            liquidation_fee if rules.liquidation_fee is None else rules.liquidation_fee
        ),
        "brackets": [list(row) for row in rules.brackets],
    }  # fmt: skip


def run_both(
    candles: pd.DataFrame, funding: pd.DataFrame, config: dict[str, Any], rules: MarketRules,
    *, first_bar: int = 0, detail: pd.DataFrame | None = None, keep_trace: bool = False,
) -> tuple[dict[str, Any], ReferenceResult]:  # fmt: skip
    """Return the engine's and the reference's result on the same candles and signals."""
    strategy = GridStrategyV4(config, rules)
    signals = compute_signals(
        candles["timestamp"], *(candles[c] for c in ("high", "low", "close", "volume")),
        strategy.params,
    )  # fmt: skip
    ours = strategy.run(
        candles, funding=funding, detail=detail, first_bar=first_bar, signals=signals
    )
    params = strategy.params.to_dict()
    bars = [tuple(row) for row in bar_table(candles).tolist()]
    columns = {name: signals[name].tolist() for name in SIGNAL_NAMES}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    theirs = run_reference(
        bars, rows, params, plain_market(rules, params["liquidation_fee"]), first_bar,
        settlements(candles, funding), sub_bars(candles, detail), keep_trace=keep_trace,
    )  # fmt: skip
    return ours, theirs


def settlements(candles: pd.DataFrame, funding: pd.DataFrame) -> list[tuple[int, float]]:
    """Return real and modelled settlements, as the engine's schedule has merged them."""
    times, rates = np.array(funding["timestamp"]), np.array(funding["rate"], dtype=np.float64)
    schedule = schedule_funding(
        np.array(candles["timestamp"]), np.array(candles["close"], dtype=np.float64), times, rates
    )
    assert schedule.n_synthetic == 0, "choose candles with real funding throughout"
    return sorted((int(t) // 60_000 * 60_000, float(r)) for t, r in zip(times, rates, strict=True))


def sub_bars(
    candles: pd.DataFrame, detail: pd.DataFrame | None
) -> dict[int, list[tuple[float, float, float, float]]] | None:
    """Return the sub-bars of each bar as (open, high, low, close)."""
    if detail is None:
        return None
    starts = candles["timestamp"].tolist()
    index = {t: i for i, t in enumerate(starts)}
    rows: dict[int, list[tuple[float, float, float, float]]] = {}
    for row in detail.itertuples():
        bar = index.get(int(row.timestamp) // BAR_MS * BAR_MS)
        if bar is not None:
            rows.setdefault(bar, []).append((row.open, row.high, row.low, row.close))
    return rows


def first_difference(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """Return '' where both trade lists agree, else where they part, in words."""
    for k, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        same = (
            a["bar"] == b["bar"] and a["label"] == b["label"] and a["fill_id"] == b["fill_id"]
            and a["direction"] == b["direction"]
            and all(
                abs(a[key] - b[key]) <= 1e-9 * max(1.0, abs(b[key]))
                for key in ("price", "qty", "pnl", "fee")
            )
        )  # fmt: skip
        if not same:
            return f"trade {k}:\n  ours   {a}\n  theirs {b}"
    if len(ours) != len(theirs):
        return f"{len(ours)} trades against {len(theirs)}"
    return ""
