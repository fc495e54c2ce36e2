"""Small markets to run the oracle on: one that is worked out by hand, and random ones.

The quiet one: a long grid made at 1000 with levels 990, 980 and 970 and exits 970, 980 .. 1030;
10 % of equity per order; A = 10, so the wick stop lies 15 under the average entry; no slippage,
maker fee 0.02 %, taker fee 0.05 %; every other mechanism off.
"""

from __future__ import annotations

from typing import Any

from config import PRESETS, STRATEGY_PARAMS
from tests.engine.reference.engine import ReferenceResult, run_reference

START = 1_704_067_200_000
BAR_MS = 900_000

QUIET: dict[str, Any] = {
    "initial_capital": 10_000.0,
    "leverage": 1.0,
    "allow_short": False,
    "grid_mode": "arithmetic",
    "grid_levels": 3,
    "grid_spacing_k": 1.0,
    "spacing_floor": 0.01,
    "adaptive_floor_scale": 0.0,
    "regen_drift_mult": 10.0,
    "round_number_nudge": 0.0,
    "tp_concentration": 1.0,
    "trailing_enabled": False,
    "order_pct": 0.1,
    "max_position_pct": 1.0,
    "max_inventory_per_side": 3,
    "max_capital_pct": 1.0,
    "kelly_enabled": False,
    "stop_cooldown_enabled": False,
    "funding_bias_enabled": False,
    "funding_harvest_enabled": False,
    "circuit_breaker_enabled": False,
    "stop1_enabled": False,
    "atr_sl_mult": 1.0,
    "stop1_mult": 1.0,
    "stop2_mult": 1.5,
    "prune_enabled": (),
    "var_block_enabled": False,
    "var_deleverage_enabled": False,
    "fee_maker": 0.0002,
    "fee_taker": 0.0005,
    "slippage": 0.0,
}
MARKET: dict[str, Any] = {
    "tick_size": 0.1,
    "step_size": 0.001,
    "min_qty": 0.001,
    "min_notional": 5.0,
    "liquidation_fee": 0.005,
    "brackets": [(0.0, 0.01, 0.0)],
}
SIGNAL: dict[str, Any] = {
    "er": 0.0,
    "kama": 1000.0,
    "atr": 5.0,
    "adx": 30.0,
    "z": 0.0,
    "sigma": 0.0,
    "atr_mean": 0.005,
    "volume_ratio": 1.0,
    "regime": 0,
    "ready": True,
}

Ohlc = tuple[float, float, float, float]
WARM: Ohlc = (1000.0, 1000.0, 1000.0, 1000.0)
BUYS_990: Ohlc = (1000.0, 1000.0, 984.0, 985.0)
Record = tuple[int, str, float, float]
"""Bar, label, price, quantity."""


def run(candles: list[Ohlc], changes: dict[str, Any] | None = None, **more: Any) -> ReferenceResult:
    """Trade ``candles`` after one warm bar; ``more`` may hold signals, market, funding, detail."""
    bars = [(START + i * BAR_MS, *ohlc) for i, ohlc in enumerate([WARM, *candles])]
    signals = [{**SIGNAL, **more.get("signals", {}).get(i, {})} for i in range(len(bars))]
    return run_reference(
        bars,
        signals,
        {**STRATEGY_PARAMS, **QUIET, **(changes or {})},
        {**MARKET, **more.get("market", {})},
        funding=more.get("funding", ()),
        detail=more.get("detail"),
        keep_trace=True,
    )


def summary(result: ReferenceResult) -> list[Record]:
    """Return what a hand-worked scenario states of every record."""
    return [(t["bar"], t["label"], t["price"], t["qty"]) for t in result.trades]


Market = tuple[list[tuple[int, float, float, float, float]], list[dict[str, Any]]]


def random_market(moves: list[tuple[int, ...]]) -> Market:
    """Build bars around 1000 and signals that know nothing but their own bar."""
    bars, signals, last = [], [], 10_000
    for i, (gap, body, above, below, regime, z) in enumerate(moves):
        first = last + gap // 10
        last = max(first + body, 1_000)
        high, low = max(first, last) + above, min(first, last) - below
        ohlc = (first / 10, high / 10, low / 10, last / 10)
        bars.append((START + i * BAR_MS, *ohlc))
        signals.append(
            {
                **SIGNAL,
                "regime": regime,
                "z": float(z),
                "kama": last / 10,
                "sigma": 0.004,
                "er": above / 200,
            }
        )
    return bars, signals


def random_settlements(bars: list[tuple[int, float, float, float, float]]) -> dict[int, float]:
    """Return bar -> rate settled at its open: every fourth bar, of alternating sign."""
    return {i: 0.0005 * (-1) ** (i // 4) for i in range(0, len(bars), 4)}


def trade_random(market: Market, changes: dict[str, Any]) -> ReferenceResult:
    """Run the documented preset over a random market."""
    bars, signals = market
    due = [(bars[i][0], rate) for i, rate in random_settlements(bars).items()]
    params = {**STRATEGY_PARAMS, **PRESETS["documented"], **changes}
    return run_reference(bars, signals, params, MARKET, funding=due, keep_trace=True)
