"""A search that costs nothing: for tests in their own process, and as one that can be killed.

python -m tests.support.processes.optimize_worker STORAGE --trials 20 [--die-in-trial K | ...]
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sqlalchemy
from sqlalchemy import event

from backtest.optimize.search.processes import Rhythm
from backtest.optimize.search.study import FinishedTrial, Search
from backtest.optimize.search.study_identity import StudyIdentity
from backtest.optimize.search.trial_pool import Progress
from backtest.optimize.trial.space import Space, read_space
from backtest.optimize.trial.trial import TrialOutcome, WindowScore

SPACE = read_space(
    {
        "gamma": {"type": "float", "low": 0.1, "high": 10.0, "log": True},
        "kappa": {"type": "float", "low": 0.5, "high": 3.0},
        "grid_levels": {"type": "int", "low": 2, "high": 10},
        "grid_mode": {"type": "cat", "choices": ["geometric", "arithmetic"]},
    }
)
CURRENT = {"gamma": 0.5, "kappa": 1.5, "grid_levels": 5, "grid_mode": "geometric"}
FAST = Rhythm(beat_s=0.3, stale_s=3.0)


def identity(name: str = "study", seed: int = 7, space: Space = SPACE) -> StudyIdentity:
    return StudyIdentity(
        name=name,
        space=space.to_dict(),
        fixed={"leverage": 1.0, "prune_enabled": ["GAP"]},
        rules={"BTC.min_notional": 100.0, "ETH.min_notional": 20.0},
        coins=("BTC", "ETH"),
        start="2024-01-01",
        end="2024-12-31",
        data_hash="d" * 16,
        windows=4,
        holdout=0.15,
        objective="calmar_pf",
        seed=seed,
        fingerprint="f" * 12,
        scoring="s" * 12,
    )


def evaluate(params: Mapping[str, Any]) -> TrialOutcome:
    """Score a hill with its top at gamma 1, kappa 2 and seven arithmetic levels."""
    score = -(
        np.log(params["gamma"]) ** 2
        + (params["kappa"] - 2.0) ** 2
        + 0.1 * (params["grid_levels"] - 7) ** 2
        + 0.5 * (params["grid_mode"] == "geometric")
    )
    window = WindowScore(float(score), 1.0, 2.0, 0.5, float("nan"), 30)
    return TrialOutcome(
        score=float(score),
        train={"BTC": [window]},
        test={"BTC": [window]},
        daily_returns=np.array([params["gamma"], params["kappa"]]) / 1000.0,
    )


def scored(trials: list[FinishedTrial]) -> list[tuple[int, dict[str, Any], float]]:
    """Return what must be the same whenever a search is repeated."""
    return [(trial.number, trial.params, trial.outcome.score) for trial in trials]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def evaluation(args: argparse.Namespace) -> Callable[[Mapping[str, Any]], TrialOutcome]:
    calls = itertools.count()

    def run(params: Mapping[str, Any]) -> TrialOutcome:
        call = next(calls)
        say("evaluating", call)
        if call == args.die_in_trial:
            die()
        if call == args.hang_in_trial:
            time.sleep(600)
        time.sleep(args.sleep)
        return evaluate(params)

    return run


def die_in_commit(number: int) -> None:
    """Die just before the ``number``-th commit from now on of any database."""
    commits = itertools.count(1)

    @event.listens_for(sqlalchemy.Engine, "commit")
    def count_commit(_: sqlalchemy.Connection) -> None:
        if next(commits) == number:
            die()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("storage")
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--sleep", type=float, default=0.02)
    parser.add_argument("--die-in-trial", type=int)
    parser.add_argument("--die-in-commit", type=int)
    parser.add_argument("--die-when-kept", type=int)
    parser.add_argument("--hang-in-trial", type=int)
    args = parser.parse_args()

    def kept(progress: Progress) -> None:
        say("kept", progress.number)
        if progress.number == args.die_when_kept:
            die()

    with Search(
        identity(), SPACE, args.storage, jobs=args.jobs, current=CURRENT, rhythm=FAST
    ) as search:
        if args.die_in_commit is not None:
            die_in_commit(args.die_in_commit)
        search.run(
            evaluation(args),
            args.trials,
            on_trial=kept,
            on_message=lambda text: say("message", text),
        )


if __name__ == "__main__":
    main()
