"""Invented markets and random parameter sets for property tests, all from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from hypothesis import strategies as st

from config import PRESETS
from core.market import MarketRules

BAR_MS = 900_000
HOUR_MS = 3_600_000
FIRST_MS = 1_704_067_200_000  # 2024-01-01 00:00 UTC
RULES = MarketRules(tick_size=0.1, step_size=0.001, min_qty=0.001, min_notional=5.0)

Floats = npt.NDArray[np.float64]


def walk(rng: np.random.Generator, n_bars: int, price: float) -> tuple[Floats, Floats]:
    """Return open and close, (n_bars,): moods, trends, jumps between bars and a crash or two."""
    steps = np.arange(n_bars) + rng.integers(0, 1000)
    scale = 0.003 * np.exp(0.8 * np.sin(steps / 37.0))
    moves = rng.normal(0.0, 1.0, n_bars) * scale + 0.0012 * np.sin(steps / 60.0)
    crashes = rng.random(n_bars) < 0.002
    moves[crashes] -= rng.exponential(0.05, int(crashes.sum()))
    jumps = np.where(rng.random(n_bars) < 0.04, rng.normal(0.0, 0.012, n_bars), 0.0)
    jumps[0] = 0.0
    moves[rng.random(n_bars) < 0.02] = 0.0
    close = price * np.exp(np.cumsum(moves + jumps))
    before = np.concatenate(([price], close[:-1]))
    return before * np.exp(jumps), close


def synthetic_candles(
    n_bars: int, seed: int, *, price: float = 20_000.0, tick: float = 0.1, missing: float = 0.0
) -> pd.DataFrame:
    """Return candles on the tick that open at ``price``; a share ``missing`` of them left out."""
    rng = np.random.default_rng(seed)
    opens, closes = walk(rng, n_bars, price)
    wick = 0.002 * np.abs(rng.standard_t(3, (2, n_bars)))
    wick[:, rng.random(n_bars) < 0.05] = 0.0  # bars that end at their extreme
    high = np.maximum(opens, closes) * (1.0 + wick[0])
    low = np.minimum(opens, closes) * np.maximum(0.5, 1.0 - wick[1])
    columns = {
        name: np.maximum(np.round(values / tick), 1.0) / round(1.0 / tick)
        for name, values in (("open", opens), ("high", high), ("low", low), ("close", closes))
    }
    volume = rng.exponential(100.0, n_bars) * (rng.random(n_bars) > 0.01)
    frame = pd.DataFrame(
        {"timestamp": FIRST_MS + BAR_MS * np.arange(n_bars), **columns, "volume": volume}
    )
    kept = rng.random(n_bars) >= missing
    kept[0] = True
    return frame[kept].reset_index(drop=True)


def synthetic_settlements(
    candles: pd.DataFrame, seed: int, *, hours: int = 8, delay_ms: int = 0
) -> pd.DataFrame:
    """Return settlements (timestamp, rate) every ``hours``, from one before the candles on.

    Every other one is ``delay_ms`` late: where most are, a record is refused.
    """
    rng = np.random.default_rng(seed)
    start, end = int(candles["timestamp"].iloc[0]), int(candles["timestamp"].iloc[-1])
    times = np.arange(start - hours * HOUR_MS, end + BAR_MS + 1, hours * HOUR_MS)
    rates = rng.normal(0.0001, 0.0003, times.size)
    rates[rng.random(times.size) < 0.03] *= -20.0
    late_ms = delay_ms * (np.arange(times.size) % 2)
    return pd.DataFrame({"timestamp": times + late_ms, "rate": rates})


def synthetic_detail(candles: pd.DataFrame, seed: int, *, per_bar: int = 5) -> pd.DataFrame:
    """Return sub-bars for four fifths of the bars: inside the bar's range, with jumps between."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[float, ...]] = []
    names = ("timestamp", "open", "high", "low", "close")
    for ts_ms, first, high, low, last in zip(*(candles[n].tolist() for n in names), strict=True):
        if rng.random() < 0.2:
            continue
        inner = np.round(rng.uniform(low, high, 2 * per_bar), 1).tolist()
        inner[0], inner[-1] = first, last
        for k in range(per_bar):
            start, end = inner[2 * k], inner[2 * k + 1]
            top, bottom = max(start, end), min(start, end)
            top = high if k == per_bar - 2 else top
            bottom = low if k == 1 else bottom
            rows.append((ts_ms + k * BAR_MS // per_bar, start, top, bottom, end, 1.0))
    columns = ["timestamp", "open", "high", "low", "close", "volume"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype({"timestamp": np.int64})


def one_of(*values: Any) -> st.SearchStrategy[Any]:
    """Return a choice of ``values``; failures shrink towards the first."""
    return st.sampled_from(values)


RARELY = st.integers(0, 3).map(lambda n: n == 3)
MOSTLY = st.integers(0, 3).map(lambda n: n != 3)
CHOICES: dict[str, st.SearchStrategy[Any]] = {
    "initial_capital": one_of(1e4, 1e3, 100.0, 1e6),
    "leverage": one_of(1.0, 3.0, 10.0, 50.0, 125.0),
    "allow_short": MOSTLY,
    "grid_levels": st.integers(1, 24),
    "max_inventory_per_side": st.integers(1, 40),
    "tp_concentration": one_of(1.0, 0.05, 0.3, 0.6, 0.9),
    "grid_spacing_k": one_of(1.0, 0.3, 2.0, 4.0),
    "spacing_floor": one_of(0.003, 0.001, 0.01),
    "adaptive_floor_scale": one_of(1.0, 0.0, 0.5, 2.0),
    "regen_drift_mult": one_of(1.0, 0.1, 2.0, 10.0),
    "grid_mode": one_of("geometric", "arithmetic"),
    "round_number_nudge": one_of(0.0015, 0.0),
    "tp_below_entry": RARELY,
    "skew_enabled": MOSTLY,
    "optimal_spread_enabled": MOSTLY,
    "gamma": one_of(0.5, 0.1, 5.0),
    "kappa": one_of(1.5, 0.5),
    "regime_timeframe_mult": one_of(1, 4),
    "regime_threshold": one_of(0.15, 0.3),
    "trailing_enabled": st.booleans(),
    "trailing_activation_er": one_of(0.65, 0.2),
    "trailing_cap_price": one_of(0.0, 0.0, 21_000.0, 31_000.0),
    "order_pct": one_of(0.05, 0.01, 0.2),
    "max_position_pct": one_of(0.7, 0.2, 1.0),
    "max_capital_pct": one_of(0.95, 0.5),
    "low_volume_threshold": one_of(0.5, 0.0, 1.0),
    "kelly_enabled": st.booleans(),
    "kelly_min_trades": one_of(20, 5),
    "kelly_min": one_of(0.25, 0.01),
    "kelly_window": one_of(50, 20, 500),
    "kelly_default": one_of(0.5, 1.0, 0.0),
    "stop_cooldown_bars": one_of(48, 10, 200),
    "stop_cooldown_thresh": one_of(2, 1, 3),
    "funding_threshold": one_of(0.0003, 0.00005),
    "funding_harvest_threshold": one_of(0.0002, 0.00005),
    "circuit_breaker_enabled": MOSTLY,
    "halt_z_threshold": one_of(-3.0, -4.0, -2.0),
    "stop1_enabled": MOSTLY,
    "stop2_enabled": MOSTLY,
    "atr_sl_mult": one_of(3.5, 1.0, 2.0, 8.0),
    "stop1_mult": one_of(1.0, 0.5),
    "stop2_mult": one_of(1.5, 1.0, 3.0),
    "stop1_close_pct": one_of(0.5, 0.2, 1.0),
    "prune_enabled": st.lists(
        one_of("DEVIANCE", "OLDEST", "GAP", "FUNDING", "OFFSET"), unique=True
    ).map(tuple),
    "prune_cooldown_bars": one_of(4, 0, 1),
    "deviance_sigma": one_of(3.0, 2.0, 5.0),
    "max_position_age_hours": one_of(24.0, 0.25, 6.0, 72.0),
    "gap_prune_mult": one_of(3.0, 1.0),
    "funding_cost_ratio": one_of(0.5, 0.001),
    "offset_prune_ratio": one_of(1.0, 0.1),
    "offset_min_loss": one_of(1.0, 0.2),
    "var_block_enabled": st.booleans(),
    "var_horizon_bars": one_of(1.0, 96.0),
    "var_deleverage_enabled": st.booleans(),
    "var_deleverage_ratio": one_of(0.75, 0.1),
    "max_drawdown_pct": one_of(0.15, 0.02, 1.0),
    "fill_through_bps": one_of(0.0, 0.0, 2.0),
    "fill_through_ticks": one_of(0, 0, 1, 50),
    "refuse_first_touch": RARELY,
    "intrabar_path": one_of("auto", "low_first", "high_first"),
    "fee_maker": one_of(0.0002, -0.00005),
    "liquidation_fee": one_of(0.0125, 0.0, 0.5),
    "funding_enabled": MOSTLY,
    "slippage": one_of(0.0005, 0.0, 0.01),
}

CONFIGS = st.builds(
    lambda base, changes: {**base, **changes},
    one_of(PRESETS["documented"], PRESETS["shipped"]),
    st.fixed_dictionaries(CHOICES),
)
"""Complete random parameter sets, off every beaten path but valid."""

SEEDS = st.integers(0, 2**32 - 1)
