"""The search: a study that can be gone on with, by one process or, shared, by several.

Trials are evaluated several at once and kept for good; running a search again under the same name
adds to them, if and only if everything that makes trials comparable is as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Self

from optuna.trial import FrozenTrial, TrialState

from backtest.optimize.search.local_study import LocalRun
from backtest.optimize.search.processes import Processes, Rhythm
from backtest.optimize.search.sampling import Sampler
from backtest.optimize.search.shared_study import SharedRun
from backtest.optimize.search.storage import open_store, storage_url
from backtest.optimize.search.study_identity import StudyIdentity, check_identity
from backtest.optimize.search.trial_pool import Effort, Progress, ProgressReport, TrialPool
from backtest.optimize.search.trial_store import result_of
from backtest.optimize.trial.space import Space
from backtest.optimize.trial.trial import Evaluate, TrialOutcome
from config import STRATEGY_PARAMS
from core.errors import ConfigError

_PROCESSES: Final = " (processes)"
"""Ends the name of the companion study of a shared one; no study's own name can end so."""


def _ignore(_: object) -> None:
    """Tell nobody."""


class FinishedTrial(NamedTuple):
    """A trial that is complete.

    Attributes:
        number: unique in its study; without gaps unless the study is shared.
        params: what was tried, by parameter, in the order of the space.
        outcome: what came of it.
        seconds: its evaluation took.
    """

    number: int
    params: dict[str, Any]
    outcome: TrialOutcome
    seconds: float


class Search:
    """A study, open.

    Attributes:
        notices: what the user should know about the study before going on.
    """

    notices: tuple[str, ...]

    def __init__(
        self,
        identity: StudyIdentity,
        space: Space,
        storage: str | None,
        *,
        jobs: int,
        current: Mapping[str, Any] = STRATEGY_PARAMS,
        rhythm: Rhythm | None = None,
        approve: Callable[[int], None] = _ignore,
    ) -> None:
        """Open the study ``identity.name``, or create it.

        Args:
            identity: must be what the study was made with, but for the code's fingerprints.
            space: what is searched.
            storage: where, see ``storage.py``; None: an SQLite file in the working directory.
            jobs: trials evaluated at once by this process.
            current: parameters in use now, moved into the space: always among what is tried.
            rhythm: of the heartbeats of a shared search; None: the default.
            approve: takes how many trials the study has before anything is written, and may
                raise ConfigError.

        Raises:
            ConfigError: ``approve`` has raised it, the study was made with something else, the
                storage cannot be used, or a number is out of range.
        """
        _check_at_least("--jobs", jobs, 1)
        _check_at_least("--seed", identity.seed, 0)
        self._name = identity.name
        self._data_hash = identity.data_hash
        self._seed = identity.seed
        self._space = space
        self._jobs = jobs
        self._rhythm = rhythm or Rhythm()
        self._first, moved = into_space(space, current)
        self._store = open_store(storage_url(storage, identity.name))
        try:
            approve(self._store.n_trials(identity.name))
            self._study = self._store.study(identity.name)
            shared = self._store.shared
            self.notices = tuple(check_identity(self._study, identity, shared=shared))
            if not self._study.trials():
                self.notices += tuple(moved)
        except ConfigError:
            self._store.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the storage and its lock."""
        self._store.close()

    def run(
        self,
        evaluate: Evaluate,
        n_trials: int,
        *,
        timeout: float | None = None,
        on_trial: Callable[[Progress], None] = _ignore,
        stop: threading.Event | None = None,
        on_message: Callable[[str], None] = _ignore,
    ) -> None:
        """Add ``n_trials`` trials; fewer if stopped; in a shared study perhaps to another target.

        When stopped, or when the time is up, the trials that have begun are finished and kept.

        Args:
            evaluate: pure and thread-safe; must let go of the interpreter for jobs to be of use.
            n_trials: 0 or more.
            timeout: seconds after which no trial is begun; None: never.
            on_trial: takes every trial once it has been kept; in this thread.
            stop: is set by whoever wants the search to end.
            on_message: takes what the user should know, as a sentence; in this thread.

        Raises:
            ConfigError: the storage fails, or ``n_trials`` is negative.
        """
        _check_at_least("--trials", n_trials, 0)
        effort = Effort()
        report = ProgressReport(on_trial, effort)
        sampler = Sampler(self._space.distributions(), self._seed)
        stop = stop or threading.Event()
        with TrialPool(evaluate, self._jobs, stop=stop, timeout=timeout, effort=effort) as pool:
            if not self._store.shared:
                LocalRun(self._study, sampler, self._first, pool).run(n_trials, report)
                return
            everybody = self._store.study(f"{self._name}{_PROCESSES}")
            with Processes(everybody, self._rhythm) as processes:
                run = SharedRun(self._study, processes, sampler, self._first, pool)
                run.run(n_trials, report, on_message)

    def trials(self) -> list[FinishedTrial]:
        """Return the complete trials, of all processes, by number.

        Raises:
            ConfigError: the storage fails, or another program has added trials.
        """
        return [
            self._finished(trial)
            for trial in self._study.trials()
            if trial.state is TrialState.COMPLETE
        ]

    def _finished(self, trial: FrozenTrial) -> FinishedTrial:
        result = result_of(trial)
        params = {name: trial.params[name] for name in self._space.entries}
        outcome = TrialOutcome.from_dict(result["outcome"])
        return FinishedTrial(trial.number, params, outcome, result["seconds"])

    def count_trials_ever(self) -> int:
        """Return how many trials on this data are complete, in all studies of the storage.

        It is how often the best of them had a chance to be lucky.

        Raises:
            ConfigError: the storage fails.
        """
        return self._store.count_trials_ever(self._data_hash)


def into_space(space: Space, current: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the ``current`` value of every entry, and a sentence on each that had to be moved."""
    first: dict[str, Any] = {}
    moved = []
    for name, entry in space.entries.items():
        try:
            first[name] = space.clip(name, current[name])
        except ConfigError:
            first[name] = entry.choices[0]
        if space.read_value(name, first[name]) != space.read_value(name, current[name]):
            moved.append(
                f"the current {name} = {current[name]} is outside the space; {first[name]} is "
                "tried in its place"
            )
    return first, moved


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} {value} must be {least} or more")
