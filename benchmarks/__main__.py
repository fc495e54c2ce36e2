"""Measures what a person waits for, in one table: ``python3 -m benchmarks``.

Loop, whole run, command, trial of a search, live step and first run; each with its ratio to a tuned
reference loop that runs turn by turn with it, so that a busy or slow machine changes the ratio
little. Seconds are those of the processor. Code that a process compiled itself runs slower than the
same code out of the cache: everything is compiled by another process first. Every table is added to
a history file, one row a figure, to be plotted.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from backtest.market.market_data import MarketData
from backtest.optimize.session import add_trials, open_session
from backtest.runs.step_run import run_tables
from benchmarks.engine import COIN, REAL_MARKET, ROOT, machine_line, market
from benchmarks.live import N_CANDLES, stage
from benchmarks.optimizer import request
from benchmarks.reference import Reference
from benchmarks.table import Figure, append_history, cpu_seconds, measure, table_text
from config import PRESETS
from core.times import BAR_MS
from engine.compiling import load_live_code
from engine.strategy import GridStrategyV4, read_config
from engine.tables import RunTables

HISTORY: Final = Path("data/benchmarks.csv")
N_TRIALS: Final = 12
CODE: Final = ("backtest", "core", "engine", "live", "optimizer.py", "config.py", "main.py")
Samples = Iterator[tuple[str, str, int, Callable[[], float]]]


def loops() -> Samples:
    """Yield the figures of the compiled loop and of a whole run: name, unit, bars, sample."""
    source, candles, funding = market()
    data = MarketData(COIN, candles, funding, None, BAR_MS, source)
    for preset, changes in PRESETS.items():
        params = read_config(changes)
        strategy, tables = GridStrategyV4(params, COIN), run_tables(data, params, 0)

        def loop(strategy: GridStrategyV4 = strategy, tables: RunTables = tables) -> float:
            strategy.reset()
            compiled = strategy.compiled_run(tables)
            return cpu_seconds(lambda: compiled.advance(0, len(tables.bars)))

        def run(strategy: GridStrategyV4 = strategy) -> float:
            return cpu_seconds(lambda: strategy.run(candles, funding=funding))

        yield f"loop, {preset}", "M bars/s", len(candles), loop
        yield f"run, {preset}", "M bars/s", len(candles), run


def trials() -> Samples:
    """Yield a trial of a search: three coins, four windows, two years; sampling and storage too."""
    source = REAL_MARKET if REAL_MARKET.is_dir() else "demo"

    def search() -> float:
        with tempfile.TemporaryDirectory() as name, contextlib.chdir(name), silence():
            session = open_session(request(Path(name), Path(source).resolve(), N_TRIALS, 1))
            return cpu_seconds(lambda: add_trials(session)) / N_TRIALS

    yield "trial", "s", 0, search


def steps() -> Samples:
    """Yield a live step: its own processor time against the simulated exchange."""
    _, candles, _ = market()
    for preset, changes in PRESETS.items():
        with stage(candles.iloc[:N_CANDLES], changes, 0.0) as scene:
            scene.step()
            yield f"live step, {preset}", "s", 0, lambda: scene.step().own_s


def commands() -> Samples:
    """Yield the command of a first look, as a whole process."""
    with tempfile.TemporaryDirectory() as name:
        demo = ["main.py", "--demo", "--no-plot", "--output", name]
        yield "command, demo", "s", 0, lambda: process_seconds(demo, ROOT)


def first_runs() -> Samples:
    """Yield the same command in a folder without machine code: compiling, on all processors."""

    def first() -> float:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for part in CODE:
                if (ROOT / part).is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / part, folder / part, ignore=ignored)
                else:
                    shutil.copy(ROOT / part, folder / part)
            return process_seconds(["main.py", "--demo", "--no-plot", "--output", "out"], folder)

    yield "first run, demo", "s", 0, first


GROUPS: Final = {
    "loop": (loops, None),
    "trial": (trials, 3),
    "step": (steps, 10),
    "command": (commands, 5),
    "first": (first_runs, 1),
}
"""Figures by name, and rounds at most."""
IN_PROCESS: Final = ("loop", "trial", "step")
"""Those whose machine code this process runs."""


def process_seconds(arguments: list[str], folder: Path) -> float:
    """Return the processor time of a Python process with all its children, s."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=folder, check=True, capture_output=True)  # noqa: S603 - our own
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Let nothing be printed."""
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def figures(groups: Sequence[str], rounds: int) -> Iterator[Figure]:
    """Yield the figures of ``groups`` as they are measured."""
    _, candles, _ = market()
    reference = Reference(candles)
    reference()
    for group in groups:
        source, most = GROUPS[group]
        for name, unit, n_bars, sample in source():
            taken = rounds if most is None else min(rounds, most)
            yield measure(name, unit, n_bars, sample, reference, taken)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table and add it to the history."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--rounds", type=int, default=15, help="of each figure (default: 15)")
    parser.add_argument(
        "--only", nargs="+", choices=GROUPS, default=list(GROUPS), help="which figures"
    )
    parser.add_argument(
        "--history", type=Path, default=HISTORY, metavar="CSV", help=f"default: {HISTORY}"
    )
    parser.add_argument("--compile", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    mine = [group for group in arguments.only if group in IN_PROCESS]
    if arguments.compile:
        load_live_code()
        list(figures(mine, 1))
        return 0
    print("compiling what is not compiled yet", file=sys.stderr, flush=True)
    compiler = ["-m", "benchmarks", "--compile", "--only", *(mine or IN_PROCESS)]
    subprocess.run([sys.executable, *compiler], cwd=ROOT, check=True)  # noqa: S603 - our own
    load_live_code()
    print(machine_line())
    found = list(figures(arguments.only, arguments.rounds))
    print(table_text(found))
    append_history(arguments.history, found, machine_line())
    print(f"added to {arguments.history}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
