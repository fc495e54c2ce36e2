"""Measures a whole search on this machine: ``python3 -m benchmarks.optimizer``.

200 trials of three coins and four windows on two years of real candles, which must lie in a folder
(default: ``../shared/market`` beside the checkout). Aim: the search itself in under 40 s on two
processors and in under 1.5 GB.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from backtest.optimize.judge.final_choice import parameter_importance
from backtest.optimize.judge.findings import Known, Unseen, judge_trials, judge_unseen
from backtest.optimize.judge.monte_carlo import permuted_returns
from backtest.optimize.judge.verdict import judge as verdict
from backtest.optimize.report.results import results_document, write_results
from backtest.optimize.request import SearchRequest
from backtest.optimize.search.progress import Searched
from backtest.optimize.search.trial_ledger import SeenBefore
from backtest.optimize.session import Session, add_trials, open_session
from benchmarks.engine import REAL_MARKET, machine_line
from config import STRATEGY_PARAMS

T = TypeVar("T")

START: Final = "2023-07-01"
END: Final = "2025-07-01"
PERMUTATIONS: Final = 50
SEEDS: Final = 4
COINS: Final = ["BTC", "ETH", "SOL"]


def peak_mb() -> float:
    """Return the most memory this process has held so far, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def stage(name: str, work: Callable[[], T]) -> T:
    """Do ``work`` and print how long it took, processors busy and memory held at most so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{name:36} {wall:7.1f} s {cpu / wall:7.2f} busy {peak_mb():8,.0f} MB", flush=True)
    return result


def request(folder: Path, data: Path, trials: int, jobs: int | None) -> SearchRequest:
    """Return the search that is measured; it leaves its files in ``folder``."""
    return SearchRequest(
        coins=COINS,
        start=START,
        end=END,
        params={},
        source=data,
        trials=trials,
        windows=4,
        holdout=0.15,
        objective="calmar_pf",
        study="benchmark",
        storage=f"sqlite:///{folder}/benchmark.db",
        seed=42,
        seeds=SEEDS,
        jobs=jobs,
        timeout=None,
        permutations=PERMUTATIONS,
        skip_permutations=False,
        plot=True,
        output=folder,
    )


def judge(session: Session, searched: Searched, n_ever: int) -> Known:
    """Choose parameters and judge them on the bars before the holdout."""
    return judge_trials(
        session.prepared,
        session.space,
        searched,
        STRATEGY_PARAMS,
        n_ever=n_ever,
        seed=session.request.seed,
        seeds=SEEDS,
        jobs=session.request.n_jobs,
    )


def look(session: Session, known: Known) -> Unseen:
    """Judge them on permuted bars and on the holdout."""
    permuted = permuted_returns(
        session.prepared,
        known.choice.params,
        n=PERMUTATIONS,
        seed=session.request.seed,
        jobs=session.request.n_jobs,
        warmup_bars=session.warmup_bars,
    )
    return judge_unseen(
        session.prepared,
        known.choice.params,
        STRATEGY_PARAMS,
        permuted=permuted,
        before=SeenBefore(),
        warmup_bars=session.warmup_bars,
    )


def write(session: Session, searched: Searched, known: Known, unseen: Unseen) -> None:
    """Write results, charts and page."""
    document = results_document(
        session.identity,
        session.prepared,
        searched,
        known,
        unseen,
        verdict(known, unseen),
        importance=parameter_importance(searched.trials, session.space),
        seconds=0.0,
    )
    write_results(document, known.choice.best, session.folders, plot=True)


def measure(data: Path, trials: int, jobs: int | None) -> None:
    """Run the search and print what each part of it takes."""
    data = data.resolve()
    # In a folder of its own: these trials must not count in the ledger of the current one.
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        asked = request(Path(name), data, trials, jobs)
        session = stage("loading", lambda: open_session(asked))
        searched, n_ever = stage(f"search, {trials} trials", lambda: add_trials(session))
        timing = searched.timing()
        known = stage(
            "choice, windows, seeds, statistics", lambda: judge(session, searched, n_ever)
        )
        unseen = stage(f"holdout, {PERMUTATIONS} permutations", lambda: look(session, known))
        stage("files", lambda: write(session, searched, known, unseen))
    print(
        f"search alone: {timing['search_seconds']:.1f} s, {timing['trials_per_second']:.2f} trials "
        f"per second with {asked.n_jobs} jobs; sampling {timing['sampling_share']:.1%}, writing "
        f"{timing['writing_share']:.1%} of the time, threads {timing['evaluating_share']:.0%} busy"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument(
        "--data", type=Path, default=REAL_MARKET, metavar="DIR", help="folder of candle files"
    )
    parser.add_argument("--trials", type=int, default=200, help="trials (default: 200)")
    parser.add_argument("--jobs", type=int, help="trials at a time (default: one per processor)")
    arguments = parser.parse_args(argv)
    if not arguments.data.is_dir():
        print(f"skipped: there are no candles in {arguments.data}; name a folder with --data DIR")
        return 0
    print(machine_line())
    print(f"{', '.join(COINS)}, {START} to {END}, 4 windows, memory as the most so far")
    measure(arguments.data, arguments.trials, arguments.jobs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
