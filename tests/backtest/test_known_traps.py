"""Traps that users of other backtesters have reported, and the right value here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from config import PRESETS
from core.market import MarketRules
from engine.strategy import GridStrategyV4
from tests.support.markets.synthetic import BAR_MS, RULES, synthetic_candles

CONFIG = PRESETS["documented"]
N_BARS = 500
CANDLES = synthetic_candles(N_BARS, 11)


def starting_at(moment: str, n_bars: int = N_BARS) -> pd.DataFrame:
    """Return the candles, the first of them at a UTC time."""
    first_ms = int(pd.Timestamp(moment, tz="UTC").timestamp() * 1_000)
    times = first_ms + BAR_MS * np.arange(n_bars)
    return CANDLES.iloc[:n_bars].assign(timestamp=times)


def rows(result: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(t["bar"], t["timestamp"], t["label"], t["price"], t["qty"]) for t in result["trades"]]


@pytest.mark.parametrize(
    ("zone", "moment"),
    [
        ("Europe/Berlin", "2024-03-30 12:00"),  # an hour is missing there
        ("Europe/Berlin", "2024-10-26 12:00"),  # an hour is twice there
        ("America/New_York", "2024-03-09 12:00"),
        ("Asia/Kathmandu", "2024-02-28 12:00"),  # UTC + 5:45
    ],
)
def test_a_change_of_the_clock_in_the_frames_own_zone_changes_no_trade(
    zone: str, moment: str
) -> None:
    frame = starting_at(moment)
    index = pd.to_datetime(frame["timestamp"], unit="ms", utc=True).dt.tz_convert(zone)
    local = frame.drop(columns="timestamp").set_index(pd.DatetimeIndex(index))
    plain = rows(GridStrategyV4(CONFIG, RULES).run(frame))
    assert len(plain) > 50
    assert rows(GridStrategyV4(CONFIG, RULES).run(local)) == plain


def test_a_leap_day_is_a_day_like_others() -> None:
    frame = starting_at("2024-02-27")
    result = GridStrategyV4(CONFIG, RULES).run(frame)
    days = pd.to_datetime([t["timestamp"] for t in result["trades"]], unit="ms").strftime("%m-%d")
    assert {"02-28", "02-29", "03-01"} <= set(days)
    assert len(result["equity_curve"]) == N_BARS


def test_a_rebate_is_income_and_a_fee_is_a_cost() -> None:
    maker = {"fee_maker": -0.0001}
    paid = GridStrategyV4(CONFIG, RULES).run(CANDLES)
    earned = GridStrategyV4({**CONFIG, **maker}, RULES).run(CANDLES)
    entries = [t for t in earned["trades"] if t["label"] in {"BUY_OPEN_LONG", "SELL_OPEN_SHORT"}]
    assert len(entries) > 20
    for trade in entries:
        assert trade["fee"] == pytest.approx(-0.0001 * trade["price"] * trade["qty"], rel=1e-12)
    assert all(t["fee"] > 0.0 for t in paid["trades"] if t["qty"] > 0.0)
    for result in (paid, earned):
        trades, metrics = result["trades"], result["metrics"]
        booked = sum(t["pnl"] - t["fee"] for t in trades) + metrics["funding_pnl"]
        assert metrics["final_capital"] == pytest.approx(10_000.0 + booked, abs=1e-6)


@pytest.mark.parametrize("price", [2e-6, 3.1e-4, 0.7, 61_234.5])
def test_every_order_lies_on_tick_and_lot_however_small_the_price(price: float) -> None:
    rules = MarketRules.inferred(price)
    frame = CANDLES.copy()
    scale = price / float(frame["open"].iloc[0])
    for column in ("open", "high", "low", "close"):
        frame[column] = (frame[column] * scale / rules.tick_size).round() * rules.tick_size
    trades = GridStrategyV4(CONFIG, rules).run(frame)["trades"]
    closing = {"CLOSE_END", "LIQUIDATION"}
    resting = [t for t in trades if t["qty"] > 0.0 and t["label"] not in closing]
    assert len(resting) > 20
    for trade in resting:
        ticks = trade["price"] / rules.tick_size
        lots = trade["qty"] / rules.step_size
        assert ticks == pytest.approx(round(ticks), abs=1e-4)
        assert lots == pytest.approx(round(lots), abs=1e-6 * max(1.0, lots))


def test_a_gap_of_half_the_price_liquidates_and_leaves_no_debt() -> None:
    frame = starting_at("2024-01-01")
    for column in ("open", "high", "low", "close"):
        frame.loc[250:, column] = (frame.loc[250:, column] * 0.5).round(1)
    config = {
        **CONFIG,
        "leverage": 20.0,
        "stop1_enabled": False,
        "stop2_enabled": False,
        "prune_enabled": [],
        "regime_enabled": False,
        "circuit_breaker_enabled": False,
        "allow_short": False,
        "var_deleverage_enabled": False,
    }
    result = GridStrategyV4(config, RULES).run(frame)
    labels = [t["label"] for t in result["trades"] if t["bar"] >= 250]
    assert "LIQUIDATION" in labels
    assert result["metrics"]["liquidations"] >= 1
    assert float(np.min(result["equity_curve"])) >= 0.0
