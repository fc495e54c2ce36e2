"""A search as asked for on the command line, and what is wrong with it before any data is read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backtest.optimize.search.storage import storage_url
from backtest.optimize.trial.objective import read_objective
from backtest.optimize.trial.windows import MAX_HOLDOUT
from core.errors import ConfigError
from engine.contract import StrategySpec
from engine.registry import DEFAULT


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """A search as asked for on the command line.

    Attributes:
        coins: in any spelling; None: from the settings.
        start: UTC date or None: from the settings.
        end: UTC date or None: from the settings.
        params: strategy parameters that differ from ``STRATEGY_PARAMS``; where one of them is
            searched, it is where the search begins.
        source: ``exchange``, ``demo`` or a folder.
        trials: to add to the study.
        windows: of the walk-forward.
        holdout: share of the bars set aside.
        objective: name of what is maximised.
        study: name of the study.
        storage: where trials are kept; None: an SQLite file named like the study.
        seed: of everything random.
        seeds: independent searches whose choices are compared, the main one among them.
        jobs: trials at a time; None: one per processor.
        timeout: seconds after which no trial is begun; None: never.
        permutations: of the Monte-Carlo test.
        skip_permutations: leave that test out.
        plot: draw charts and write the HTML report.
        output: folder of all files; None: the settings' folders.
        strategy: what trades.
        as_json: print the answer as one JSON object instead of the report.
    """

    coins: list[str] | None
    start: str | None
    end: str | None
    params: Mapping[str, Any]
    source: str | Path
    trials: int
    windows: int
    holdout: float
    objective: str
    study: str
    storage: str | None
    seed: int
    seeds: int
    jobs: int | None
    timeout: float | None
    permutations: int
    skip_permutations: bool
    plot: bool
    output: Path | None
    strategy: StrategySpec = DEFAULT
    as_json: bool = False

    def check(self) -> None:
        """Refuse what no data can make possible.

        Raises:
            ConfigError: a value is out of range, or no name of an objective or a study.
        """
        counts = {
            "--trials": self.trials,
            "--windows": self.windows,
            "--seeds": self.seeds,
            "--jobs": self.n_jobs,
            "--mc-perms": self.permutations,
        }
        for flag, value in counts.items():
            if value < 1:
                raise ConfigError(f"{flag} {value} must be at least 1")
        if self.seed < 0:
            raise ConfigError(f"--seed {self.seed} must be 0 or more")
        if not 0.0 < self.holdout <= MAX_HOLDOUT:
            raise ConfigError(
                f"--holdout {self.holdout:g} must be a share of the bars above 0, at most "
                f"{MAX_HOLDOUT:g}"
            )
        if self.timeout is not None and not self.timeout > 0.0:
            raise ConfigError(f"--timeout {self.timeout:g} must be a number of seconds above 0")
        read_objective(self.objective)
        storage_url(self.storage, self.study)

    @property
    def n_jobs(self) -> int:
        """Trials at a time."""
        return (os.cpu_count() or 1) if self.jobs is None else self.jobs
