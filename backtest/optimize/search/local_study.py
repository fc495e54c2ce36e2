"""The search of one process: deterministic, and the same after an interruption.

Finished trials are written in the order of their numbers, those that wait together in one
transaction, by a thread of its own while others are evaluated. No trial is begun while
``MOST_UNWRITTEN`` wait. So at any moment the study on disk is the beginning of the study that an
uninterrupted search would leave, and holds nothing else: no trial is half there, and none is
reported before it is there. Trials that wait, or have ended behind one that has not, when the
process is killed or the earlier one raises an error, are not kept; the same parameters are tried
under the same numbers the next time. A stop lets every trial that has begun end, so nothing is
lost by it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple, Self

from optuna.trial import TrialState

from backtest.optimize.search.sampling import BATCH, Sampler
from backtest.optimize.search.trial_pool import Effort, Evaluated, ProgressReport, TrialPool
from backtest.optimize.search.trial_store import StoredStudy, complete_trial, result_of
from core.errors import ConfigError

MOST_UNWRITTEN: Final = 2 * BATCH
"""Evaluated trials that may wait to be written: what a kill loses at most, with those that run."""


class Scored(NamedTuple):
    """The part of a trial that the sampler learns from."""

    params: Mapping[str, Any]
    score: float


class LocalRun:
    """Adds trials to a study that no other process writes to."""

    def __init__(
        self, study: StoredStudy, sampler: Sampler, first: Mapping[str, Any], pool: TrialPool
    ) -> None:
        """Prepare to go on where the study ends.

        Args:
            study: where trials are kept.
            sampler: has not learnt any trial.
            first: parameters of trial 0.
            pool: evaluates.

        Raises:
            ConfigError: the study holds trials that are not complete.
        """
        self._study = study
        self._sampler = sampler
        self._first = first
        self._pool = pool
        self._known = _read_known(study)

    def run(self, n_trials: int, report: ProgressReport) -> None:
        """Add ``n_trials`` trials, fewer if the pool is halted.

        Raises:
            ConfigError: a trial cannot be kept.
        """
        known = self._known
        target = len(known) + n_trials
        report.begin_with(((k, trial.score) for k, trial in enumerate(known)), target)
        with _Writer(self._study, self._sampler, self._pool.effort, report) as writer:
            for start in range(0, target, BATCH):
                end = min(start + BATCH, target)
                self._evaluate(range(len(known), end), writer)  # none in batches of earlier runs
                if len(known) < end:
                    break
                for trial in known[start:end]:
                    self._sampler.learn(trial.params, trial.score)

    def _evaluate(self, numbers: range, writer: _Writer) -> None:
        """Evaluate trials of one batch; sample the next one while others are evaluated."""
        pool = self._pool
        proposals = ((number, self._propose(number)) for number in numbers)
        upcoming = next(proposals, None)
        begun: dict[int, Mapping[str, Any]] = {}
        ended: dict[int, Future[Evaluated]] = {}
        while True:
            more = upcoming is not None and not pool.halted
            if upcoming is not None and more and pool.free and not writer.full:
                pool.begin(*upcoming)
                begun |= [upcoming]
                upcoming = next(proposals, None)
            elif pool.busy or (more and writer.full):
                ended |= pool.collect(also=writer.pending)
                while (number := len(self._known)) in ended:
                    self._keep(number, begun[number], ended[number].result(), writer)
                writer.report_written()
            else:
                return

    def _propose(self, number: int) -> Mapping[str, Any]:
        if number == 0:
            return self._first
        with self._pool.effort.spent("sampling"):
            return self._sampler.propose(number)

    def _keep(
        self, number: int, params: Mapping[str, Any], evaluated: Evaluated, writer: _Writer
    ) -> None:
        self._known.append(Scored(params, evaluated.outcome.score))
        writer.put(number, params, evaluated)


class _Waiting(NamedTuple):
    """A trial that waits to be written; ``written`` is done once it is on disk."""

    number: int
    params: Mapping[str, Any]
    evaluated: Evaluated
    written: Future[None]


class _Writer:
    """Writes trials in the order they are put, on a thread of its own."""

    def __init__(
        self, study: StoredStudy, sampler: Sampler, effort: Effort, report: ProgressReport
    ) -> None:
        self._study = study
        self._distributions = sampler.distributions
        self._effort = effort
        self._report = report
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._unreported: deque[_Waiting] = deque()
        self._unwritten: deque[_Waiting] = deque()
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown()
        if kind is None:
            self.report_written()

    @property
    def pending(self) -> list[Future[None]]:
        """Trials that were put and not reported."""
        return [item.written for item in self._unreported]

    @property
    def full(self) -> bool:
        """Whether so many wait that no further trial should be begun: a kill would lose them."""
        return len(self._unreported) >= MOST_UNWRITTEN

    def put(self, number: int, params: Mapping[str, Any], evaluated: Evaluated) -> None:
        """Write a trial, after all that were put before."""
        item = _Waiting(number, params, evaluated, Future())
        self._unreported.append(item)
        self._unwritten.append(item)
        self._thread.submit(self._write_waiting)

    def report_written(self) -> None:
        """Report the trials that have been written since.

        Raises:
            ConfigError: the next one could not be.
        """
        while self._unreported and self._unreported[0].written.done():
            item = self._unreported.popleft()
            item.written.result()
            self._report.kept(item.number, item.evaluated.outcome.score)

    def _write_waiting(self) -> None:
        """Write all that waits, perhaps nothing: an earlier call has taken it along.

        One trial only where several cannot be kept all or none.
        """
        items: list[_Waiting] = []
        while self._unwritten and (self._study.in_one_transaction or not items):
            items.append(self._unwritten.popleft())
        if not items:
            return
        try:
            self._write(items)
        except BaseException as error:  # noqa: BLE001 - raised where the trial is reported
            for item in items:
                item.written.set_exception(error)
        else:
            for item in items:
                item.written.set_result(None)

    def _write(self, items: list[_Waiting]) -> None:
        if self._failed:  # a trial written now would take the number of the one that is missing
            raise ConfigError(f"trial {items[0].number} is not kept: an earlier one could not be")
        self._failed = True
        with self._effort.spent("writing"):
            trials = [
                complete_trial(
                    item.params,
                    self._distributions,
                    item.evaluated.outcome.score,
                    {
                        "outcome": item.evaluated.outcome.to_dict(),
                        "seconds": item.evaluated.seconds,
                    },
                )
                for item in items
            ]
            numbers = self._study.add_complete(trials)
        for item, got in zip(items, numbers, strict=True):
            if got != item.number:
                raise ConfigError(
                    f"trial {item.number} was kept as number {got}: another program writes to the "
                    "study; end it and search under another --study-name"
                )
        self._failed = False


def _read_known(study: StoredStudy) -> list[Scored]:
    known = []
    for trial in study.trials():
        if trial.state is not TrialState.COMPLETE:
            raise ConfigError(
                f"trial {trial.number} of the study is not complete, so a search of several "
                "processes has written it; use the --storage it was made with, or another "
                "--study-name"
            )
        result_of(trial)
        known.append(Scored(trial.params, trial.values[0]))
    return known
