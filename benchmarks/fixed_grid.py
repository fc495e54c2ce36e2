"""Measures the fixed grid's compiled loop on this machine: ``python3 -m benchmarks.fixed_grid``.

Real BTC minutes are used where they lie beside the checkout (``../shared/market``), else the demo
market's. Every mode of recovery runs with stops, stop price, pause price, caps and cooldown on;
GridStrategyV4's loop is timed in the same run, on 15-minute candles. Each figure is the best and
the median of several rounds.
"""

from __future__ import annotations

import argparse
import sys
import tracemalloc
from typing import Any, Final

import pandas as pd

from backtest.market.demo import demo_market
from backtest.market.fetch import load_market
from benchmarks.engine import (
    COIN,
    FOREVER_MS,
    REAL_MARKET,
    best_and_median,
    machine_line,
    signals_of,
)
from benchmarks.engine import market as quarter_market
from engine.fixed_grid.strategy import FixedGridStrategy
from engine.registry import FIXED_GRID, read_params
from engine.strategy import GridStrategyV4, known_market, read_config

TARGET: Final = 1e6
"""1-minute candles per second and core."""
MOST_BYTES: Final = 1024
"""Of memory per candle."""
MODES: Final = ("ladder", "hedge", "aggressive", "none")


def minutes() -> tuple[str, pd.DataFrame, pd.DataFrame]:
    """Return where the candles come from, one-minute candles and funding rates."""
    if REAL_MARKET.is_dir():
        data = load_market(COIN, 0, FOREVER_MS, data_dir=REAL_MARKET, timeframe="1m")
        return f"real {COIN} minutes", data.candles, data.funding
    data = demo_market(COIN, detail=True)
    if data.detail is None:
        raise RuntimeError("the demo has no minutes")
    return "the demo's minutes", data.detail, data.funding


def busy(mode: str, direction: str, price: float) -> dict[str, Any]:
    """Return parameters with which every mechanism is at work."""
    side = 1.0 if direction == "buy" else -1.0
    return {
        "direction": direction,
        "recovery_mode": mode,
        "escalation": "hedge",
        "stuck_distance_pct": 1.5,
        "position_timeout_min": 30.0,
        "escalation_min": 60.0,
        "max_position_size": 1.0,
        "stop_price": round(price * (1.0 - 0.9 * side), 1),
        "pause_price": round(price * (1.0 + 0.9 * side), 1),
        "quantity_usd": 400.0,
    }


def time_mode(
    params: Any, candles: pd.DataFrame, funding: pd.DataFrame, rounds: int
) -> tuple[float, float, int]:
    """Return best and median seconds of the loop, and the records it wrote."""
    strategy = FixedGridStrategy(params, known_market(COIN))
    tables = strategy.tables(candles, settled=funding)
    found: dict[str, Any] = {}

    def run() -> float:
        found["result"] = strategy.run_tables(tables)
        return float(found["result"].seconds)

    run()
    best, median = best_and_median(run, rounds)
    return best, median, len(found["result"].trades)


def bytes_per_candle(candles: pd.DataFrame, funding: pd.DataFrame) -> float:
    """Return the peak of memory of a whole run per candle."""
    strategy = FixedGridStrategy(read_params(FIXED_GRID, {}), known_market(COIN))
    strategy.run(candles, funding=funding)
    tracemalloc.start()
    strategy.run_tables(strategy.tables(candles, settled=funding))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / len(candles)


def grid_speed(rounds: int) -> float:
    """Return the 15-minute candles per second of GridStrategyV4's loop, best of the rounds."""
    _, candles, funding = quarter_market()
    params = read_config({})
    strategy, signals = GridStrategyV4(params, COIN), signals_of(candles, params)

    def run() -> float:
        return float(strategy.run(candles, funding=funding, signals=signals)["seconds"])

    run()
    return len(candles) / best_and_median(run, rounds)[0]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark, print its figures, and return 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--rounds", type=int, default=7, help="runs per figure (default: 7)")
    rounds = parser.parse_args(argv).rounds
    source, candles, funding = minutes()
    print(machine_line())
    print(f"{source}: {len(candles):,} candles")
    reference = grid_speed(rounds)
    print(f"GridStrategyV4: {reference / 1e6:.2f} M bars/s\n")
    print(f"{'M candles/s':20} {'best':>9} {'median':>9} {'records':>9} {'x V4':>7}")
    slowest, price = float("inf"), float(candles["open"].iloc[0])
    cases: list[tuple[str, dict[str, Any]]] = [("shipped", {})]
    cases += [
        (f"{mode} {side}", busy(mode, side, price)) for mode in MODES for side in ("buy", "sell")
    ]
    for name, changes in cases:
        params = read_params(FIXED_GRID, changes)
        best, median, records = time_mode(params, candles, funding, rounds)
        speed = len(candles) / best
        slowest = min(slowest, speed)
        print(
            f"{name:20} {speed / 1e6:9.2f} {len(candles) / median / 1e6:9.2f} {records:9,} "
            f"{speed / reference:7.2f}"
        )
    memory = bytes_per_candle(candles, funding)
    print(f"\nslowest {slowest / 1e6:.2f} M candles/s (target {TARGET / 1e6:g})")
    print(f"memory {memory:,.0f} bytes per candle (at most {MOST_BYTES})")
    return 0 if slowest >= TARGET and memory <= MOST_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
