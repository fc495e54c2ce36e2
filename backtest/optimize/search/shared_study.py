"""The search of several processes, on one machine or many, that share a study.

Every process runs the same command. The first one to come sets the target: the trials that are
complete then, and as many as it was asked for. A process that comes while another one is at work
joins and leaves the target as it is; one that comes when nobody is alive sets a new one.

A process claims a trial by adding it to the study as running; Optuna numbers trials atomically. A
claim is surplus if the trials up to it that have not failed are more than the target; then it is
given back as failed, and its process waits for those of the others. A running trial whose process
has died is failed, which makes room for another one. A result counts if its trial was still
running when it came. Together: exactly the target completes, whoever is killed, and none counts
twice. Failed trials leave gaps in the numbers. A claim takes a database a hundred statements, so
every process holds one more than it evaluates.

What is tried depends on which trials were complete at that moment, so the result depends on
timing. The same seed gives the same result for the search of one process only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from itertools import count
from typing import Any, Final

from optuna.trial import FrozenTrial, TrialState

from backtest.optimize.search.processes import Life, Processes
from backtest.optimize.search.sampling import Sampler
from backtest.optimize.search.trial_pool import Evaluated, ProgressReport, TrialPool
from backtest.optimize.search.trial_store import RESULT, StoredStudy, result_of, running_trial
from core.errors import ConfigError

POLL_S: Final = 1.0
"""How often a process looks at the others while it has nothing to do itself, at most."""

_TARGET: Final = "target"
_PROCESS: Final = "process"
_CURRENT: Final = "current"
_NOT_FAILED: Final = (TrialState.RUNNING, TrialState.COMPLETE)


class SharedRun:
    """This process's part in a shared search."""

    def __init__(
        self,
        study: StoredStudy,
        processes: Processes,
        sampler: Sampler,
        first: Mapping[str, Any],
        pool: TrialPool,
    ) -> None:
        """Prepare to take part.

        Args:
            study: where trials are kept.
            processes: who takes part; this process is among them.
            sampler: has not learnt any trial.
            first: parameters that are always tried, by whoever came first.
            pool: evaluates.
        """
        self._study = study
        self._processes = processes
        self._sampler = sampler
        self._first = first
        self._pool = pool
        self._poll_s = min(POLL_S, processes.rhythm.beat_s)
        self._keys = count()
        self._trials: list[FrozenTrial] = []
        self._learnt: set[int] = set()
        self._claimed: set[int] = set()
        self._ready: tuple[int, Mapping[str, Any]] | None = None

    def run(self, n_trials: int, report: ProgressReport, on_message: Callable[[str], None]) -> None:
        """Take part until the target is reached or the pool is halted.

        Args:
            n_trials: how many the search is to add, if this process sets the target.
            report: takes the trials of all processes.
            on_message: takes, in words, what the user should know.

        Raises:
            ConfigError: the storage fails.
        """
        if not self._settle(n_trials, on_message):
            return
        report.begin_with(self._new_scores(), self._target())
        try:
            self._work(report, on_message)
        finally:
            with contextlib.suppress(ConfigError):  # whoever looks next fails them
                for number in list(self._claimed):
                    self._give_back(number)

    def _settle(self, n_trials: int, on_message: Callable[[str], None]) -> bool:
        """Join whoever is at work, or set the target; return False if halted before that."""
        is_reported = False
        while not self._pool.halted:
            self._look()
            before = self._processes.before()
            if not before:
                self._study.set_attribute(_TARGET, self._n_complete() + n_trials)
                self._processes.take_part(self._processes.own)
                return True
            for number, life in before.items():
                campaign = self._processes.campaign(number)
                if life is Life.ALIVE and campaign is not None:
                    self._processes.take_part(campaign)
                    on_message(
                        f"joining {self._processes.describe(number)}: {self._n_complete()} of "
                        f"{self._target()} trials are complete, and the target stays as it is"
                    )
                    return True
            if not is_reported:
                names = ", ".join(self._processes.describe(number) for number in before)
                on_message(
                    f"looking whether {names} is still at work on this study, for up to "
                    f"{self._processes.rhythm.stale_s:g} s"
                )
                is_reported = True
            self._pool.rest(self._poll_s)
        return False

    def _work(self, report: ProgressReport, on_message: Callable[[str], None]) -> None:
        pool = self._pool
        while True:
            active = self._look()
            for number, score in self._new_scores():
                report.kept(number, score)
            report.target = self._target()
            if self._n_complete() >= report.target:
                return
            if pool.halted:
                self._give_ready_back()
            elif self._ready is None and active < report.target:
                self._claim(report.target)
            if not self._begin_ready():
                if pool.halted and not pool.busy:
                    return
                self._await(on_message)

    def _await(self, on_message: Callable[[str], None]) -> None:
        """Wait for a trial of this process to end and keep it, or for the others a while."""
        if not self._pool.busy:
            self._pool.rest(self._poll_s)
            return
        ended = self._pool.collect(timeout=self._poll_s)
        self._begin_ready()  # before what has ended is written, which takes a while
        for number, future in ended.items():
            self._keep(number, future, on_message)

    def _begin_ready(self) -> bool:
        """Begin the trial that is ready, if there is one and nothing is in its way."""
        if self._ready is None or not self._pool.free or self._pool.halted:
            return False
        self._pool.begin(*self._ready)
        self._ready = None
        return True

    def _give_ready_back(self) -> None:
        if self._ready is not None:
            self._give_back(self._ready[0])
            self._ready = None

    def _give_back(self, number: int) -> None:
        self._study.end(number, TrialState.FAIL)
        self._claimed.discard(number)

    def _look(self) -> int:
        """Read the trials and fail the abandoned ones; return how many have not failed."""
        # Trials first: whose process does not show up afterwards has none.
        self._trials = self._study.trials()
        self._processes.look()
        active = self._n_complete()
        for trial in self._trials:
            if trial.state is TrialState.RUNNING:
                if self._is_abandoned(trial):
                    self._study.end(trial.number, TrialState.FAIL)
                else:
                    active += 1
        return active

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        """Return whether nobody evaluates a running trial.

        One of this process's own is abandoned when the storage answered a claim with an error but
        had carried it out.
        """
        process = trial.user_attrs.get(_PROCESS, -1)  # none: another program's
        if trial.number in self._claimed:
            return False
        return process == self._processes.own or self._processes.life(process) is Life.GONE

    def _claim(self, target: int) -> None:
        """Make a trial ready, unless others have claimed all that are missing meanwhile."""
        params, attributes = self._choose()
        number = self._study.add(running_trial(attributes, params, self._sampler.distributions))
        self._claimed.add(number)
        earlier = [trial for trial in self._study.trials() if trial.number <= number]
        if sum(trial.state in _NOT_FAILED for trial in earlier) > target:
            self._give_back(number)
        else:
            self._ready = number, params

    def _choose(self) -> tuple[Mapping[str, Any], dict[str, Any]]:
        """Return parameters to try, and the attributes of their trial."""
        attributes = {_PROCESS: self._processes.own}
        tried = any(
            _CURRENT in trial.user_attrs and trial.state in _NOT_FAILED for trial in self._trials
        )
        if not tried and not self._processes.before():
            return self._first, attributes | {_CURRENT: True}
        with self._pool.effort.spent("sampling"):
            return self._sampler.propose(self._processes.own, next(self._keys)), attributes

    def _keep(
        self, number: int, future: Future[Evaluated], on_message: Callable[[str], None]
    ) -> None:
        outcome, seconds = future.result()
        with self._pool.effort.spent("writing"):
            result = {"outcome": outcome.to_dict(), "seconds": seconds}
            kept = self._study.set_trial_attribute(number, RESULT, result) and self._study.end(
                number, TrialState.COMPLETE, outcome.score
            )
        self._claimed.remove(number)
        if not kept:
            on_message(
                f"the result of trial {number} came too late and does not count: this process "
                f"had not been heard of for {self._processes.rhythm.stale_s:g} s"
            )

    def _new_scores(self) -> list[tuple[int, float]]:
        """Learn the trials that are complete and not learnt yet; return numbers and scores.

        Raises:
            ConfigError: another program has added one.
        """
        new = [
            (trial, trial.values[0])
            for trial in self._trials
            if trial.state is TrialState.COMPLETE and trial.number not in self._learnt
        ]
        for trial, score in new:
            result_of(trial)
            self._learnt.add(trial.number)
            self._sampler.learn(trial.params, score)
        return [(trial.number, score) for trial, score in new]

    def _n_complete(self) -> int:
        return sum(trial.state is TrialState.COMPLETE for trial in self._trials)

    def _target(self) -> int:
        target: int = self._study.attributes()[_TARGET]
        return target
