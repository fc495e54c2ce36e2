"""Measures the compiled loop on this machine: ``python3 -m benchmarks.engine``.

Real BTC candles are used where they lie beside the checkout (``../shared/market``), else the demo
market. Machines are noisy: each figure is the best and the median of several runs.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from backtest.market.demo import demo_market
from backtest.market.fetch import load_market
from config import PRESETS
from core.params import StrategyParams
from core.signals import compute_signals
from engine.compiling import load_machine_code
from engine.strategy import CODE_FINGERPRINT, GridStrategyV4, read_config

ROOT: Final = Path(__file__).resolve().parent.parent
REAL_MARKET: Final = ROOT.parent / "shared" / "market"
COIN: Final = "BTC"
FOREVER_MS: Final = 2**42
LENGTHS: Final = (10_000, 30_000, 100_000, 300_000, 1_000_000)


def machine_line() -> str:
    """Return processor, Python and library versions, and the decision code's fingerprint."""
    import numba  # noqa: PLC0415 - version only

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{name} x {os.cpu_count()}{load}; {platform.system()}; Python "
        f"{platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}; "
        f"code {CODE_FINGERPRINT}"
    )


def market() -> tuple[str, pd.DataFrame, pd.DataFrame]:
    """Return where the candles come from, the candles and the funding rates."""
    if REAL_MARKET.is_dir():
        data = load_market(COIN, 0, FOREVER_MS, data_dir=REAL_MARKET, timeframe="15m")
        return f"real {COIN} candles", data.candles, data.funding
    data = demo_market(COIN)
    return "demo market (no real candles found)", data.candles, data.funding


def best_and_median(work: Callable[[], float], rounds: int) -> tuple[float, float]:
    """Return the smallest and the median of what ``work`` answers, seconds."""
    seconds = [work() for _ in range(rounds)]
    return min(seconds), statistics.median(seconds)


def elapsed(work: Callable[[], Any]) -> float:
    """Return the seconds ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def signals_of(candles: pd.DataFrame, params: StrategyParams) -> Any:
    """Return the indicators and regimes of ``candles``."""
    return compute_signals(
        candles["timestamp"],
        candles["high"],
        candles["low"],
        candles["close"],
        candles["volume"],
        params,
    )


def there_and_back(candles: pd.DataFrame, n_bars: int) -> pd.DataFrame:
    """Return ``n_bars`` candles: the given ones, then them backwards in time, and so on.

    Prices stay in their range however long the series, so lot sizes keep their meaning.
    """
    back = candles.iloc[::-1].rename(columns={"open": "close", "close": "open"})
    parts = [candles if k % 2 == 0 else back for k in range(n_bars // len(candles) + 1)]
    frame = pd.concat(parts, ignore_index=True).iloc[:n_bars]
    frame = frame[list(candles.columns)].copy()
    frame["timestamp"] = int(candles["timestamp"].iloc[0]) + 900_000 * np.arange(n_bars)
    return frame


def report_presets(candles: pd.DataFrame, funding: pd.DataFrame, rounds: int) -> None:
    """Print bars per second and memory of the run for both presets, all features on."""
    print(f"\nCompiled loop, one core, {len(candles):,} bars, {rounds} rounds")
    print(f"{'M bars/s':12} {'best':>9} {'median':>9} {'trades':>9} {'bytes per bar':>15}")
    for preset, changes in PRESETS.items():
        params = read_config(changes)
        strategy = GridStrategyV4(params, COIN)
        signals = signals_of(candles, params)
        result: dict[str, Any] = {}

        def run(
            strategy: GridStrategyV4 = strategy,
            signals: Any = signals,
            result: dict[str, Any] = result,
        ) -> float:
            result.update(strategy.run(candles, funding=funding, signals=signals))
            return float(result["seconds"])

        best, median = best_and_median(run, rounds)
        tracemalloc.start()
        run()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        million = len(candles) / 1e6
        print(
            f"{preset:12} {million / best:9.2f} {million / median:9.2f} "
            f"{len(result['trades']):9,} {peak / len(candles):15,.0f}"
        )


def report_runs(candles: pd.DataFrame, funding: pd.DataFrame, rounds: int) -> None:
    """Print the speed of whole runs: a frame of candles in, a result out, nothing prepared.

    CPU seconds of the process, which other processes disturb less; with settlements on record, and
    with all of them modelled.
    """
    print(f"\nWhole run(), one core, {len(candles):,} bars, {rounds} rounds, CPU time")
    print(f"{'M bars/s':12} {'funding':>9} {'best':>9} {'median':>9}")
    million = len(candles) / 1e6
    for preset, changes in PRESETS.items():
        strategy = GridStrategyV4(read_config(changes), COIN)
        for name, settled in (("real", funding), ("modelled", None)):

            def run(strategy: GridStrategyV4 = strategy, settled: Any = settled) -> float:
                started = time.process_time()
                strategy.run(candles, funding=settled)
                return time.process_time() - started

            best, median = best_and_median(run, rounds)
            print(f"{preset:12} {name:>9} {million / best:9.2f} {million / median:9.2f}")


def report_indicators(candles: pd.DataFrame, rounds: int, *, with_gmm: bool) -> None:
    """Print the time of all indicators, without and with the Gaussian mixture."""
    print(f"\nIndicators and regime, {len(candles):,} bars")
    plain, mixture = read_config({}), read_config({"use_ml_regime": True})
    best, _ = best_and_median(lambda: elapsed(lambda: signals_of(candles, plain)), rounds)
    print(f"without the mixture {best * 1e3:9.1f} ms")
    if with_gmm:
        print(f"with the mixture    {elapsed(lambda: signals_of(candles, mixture)):9.1f} s")


def report_lengths(candles: pd.DataFrame, rounds: int) -> None:
    """Print the cost per bar for series of different lengths: it should be flat."""
    print("\nCost per bar by length of the series, shipped parameters")
    for n_bars in LENGTHS:
        frame = there_and_back(candles, n_bars)
        params = read_config({})
        signals = signals_of(frame, params)
        strategy = GridStrategyV4(params, COIN)
        best, _ = best_and_median(
            lambda strategy=strategy, frame=frame, signals=signals: float(  # type: ignore[misc]
                strategy.run(frame, signals=signals)["seconds"]
            ),
            rounds,
        )
        print(f"{n_bars:9,} bars {best / n_bars * 1e9:8.1f} ns per bar")


def report_commands() -> None:
    """Print how long the commands take as whole processes."""
    print("\nWhole commands, best of three")
    with tempfile.TemporaryDirectory() as folder:
        for arguments in (["--help"], ["--demo", "--no-plot", "--output", folder]):
            command = [sys.executable, "main.py", *arguments]
            seconds = min(command_seconds(command) for _ in range(3))
            print(f"main.py {' '.join(arguments[:2]):20} {seconds:6.2f} s")


def command_seconds(command: list[str]) -> float:
    """Return how long ``command`` takes from start to exit."""
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)  # noqa: S603 - our own
    return time.perf_counter() - started


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--rounds", type=int, default=15, help="runs per figure (default: 15)")
    parser.add_argument("--gmm", action="store_true", help="also time the Gaussian mixture")
    parser.add_argument("--commands", action="store_true", help="also time whole commands")
    arguments = parser.parse_args(argv)
    load_machine_code()
    source, candles, funding = market()
    print(machine_line())
    print(f"{source}: {len(candles):,} bars")
    report_presets(candles, funding, arguments.rounds)
    report_runs(candles, funding, arguments.rounds)
    report_indicators(candles, arguments.rounds, with_gmm=arguments.gmm)
    report_lengths(candles, max(3, arguments.rounds // 3))
    if arguments.commands:
        report_commands()
    return 0


if __name__ == "__main__":
    sys.exit(main())
