"""Evaluating trials: several at once, until there is a reason to stop; and how far it has come."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Self

from backtest.optimize.trial.trial import Evaluate, TrialOutcome
from core.errors import DataError


@dataclass
class Effort:
    """Where the time went, seconds.

    Attributes:
        sampling: choosing what to try.
        writing: keeping what came of it.
        evaluating: added up over the threads.
    """

    sampling: float = 0.0
    writing: float = 0.0
    evaluating: float = 0.0

    @contextmanager
    def spent(self, on: Literal["sampling", "writing"]) -> Iterator[None]:
        """Add what passes inside to the field ``on``."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, on, getattr(self, on) + time.perf_counter() - begin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The state of a search when a trial has just been kept.

    Attributes:
        number: of that trial.
        score: of that trial.
        done: trials of the study that are complete.
        target: how many there will be at the end of this run.
        best_score: of the study.
        best_number: of the trial that has it, the first if several have.
        per_second: trials kept in this run over its time.
        seconds_left: until the target, at that rate.
        sampling_s: seconds this process has spent choosing what to try.
        writing_s: seconds it has spent keeping trials.
        evaluating_s: seconds it has spent evaluating, added up over its threads.
    """

    number: int
    score: float
    done: int
    target: int
    best_score: float
    best_number: int
    per_second: float
    seconds_left: float
    sampling_s: float
    writing_s: float
    evaluating_s: float


@dataclass
class ProgressReport:
    """Tells of every trial that has been kept.

    Attributes:
        on_trial: takes each.
        effort: seconds spent so far.
        target: trials of the study at the end of the run.
    """

    on_trial: Callable[[Progress], None]
    effort: Effort
    target: int = 0
    _begin: float = field(default_factory=time.monotonic)
    _done: int = 0
    _before: int = 0
    _best: tuple[float, int] = (-math.inf, -1)

    def begin_with(self, scores: Iterable[tuple[int, float]], target: int) -> None:
        """Take the trials of earlier runs into account: numbers and scores."""
        for number, score in scores:
            self._count(number, score)
        self._before = self._done
        self.target = target

    def kept(self, number: int, score: float) -> None:
        """Tell that a trial is on disk."""
        self._count(number, score)
        elapsed = max(time.monotonic() - self._begin, 1e-9)
        per_second = (self._done - self._before) / elapsed
        self.on_trial(
            Progress(
                number=number,
                score=score,
                done=self._done,
                target=self.target,
                best_score=self._best[0],
                best_number=self._best[1],
                per_second=per_second,
                seconds_left=max(self.target - self._done, 0) / per_second,
                sampling_s=self.effort.sampling,
                writing_s=self.effort.writing,
                evaluating_s=self.effort.evaluating,
            )
        )

    def _count(self, number: int, score: float) -> None:
        self._done += 1
        if self._best[1] < 0 or (score, -number) > (self._best[0], -self._best[1]):
            self._best = (score, number)


class Evaluated(NamedTuple):
    """A trial's result, and the seconds it took."""

    outcome: TrialOutcome
    seconds: float


class TrialPool:
    """Threads that evaluate; trials that have begun end, whatever happens.

    Attributes:
        effort: where the seconds of evaluating are counted.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        jobs: int,
        *,
        stop: threading.Event,
        timeout: float | None,
        effort: Effort,
    ) -> None:
        """Evaluate nothing yet.

        Args:
            evaluate: thread-safe.
            jobs: trials evaluated at once, 1 or more.
            stop: once set, no further trial should be begun.
            timeout: seconds from now after which none should be; None: never.
            effort: where the seconds are counted.
        """
        self._evaluate = evaluate
        self._jobs = jobs
        self._stop = stop
        self._deadline = math.inf if timeout is None else time.monotonic() + timeout
        self.effort = effort
        self._executor = ThreadPoolExecutor(jobs, thread_name_prefix="trial")
        self._running: dict[Future[Evaluated], int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()

    @property
    def halted(self) -> bool:
        """Whether no further trial should be begun: stopped, or the time is up."""
        return self._stop.is_set() or time.monotonic() >= self._deadline

    @property
    def free(self) -> bool:
        """Whether a trial would begin at once."""
        return len(self._running) < self._jobs

    @property
    def busy(self) -> bool:
        """Whether trials are running or have ended without being collected."""
        return bool(self._running)

    def rest(self, seconds: float) -> None:
        """Wait, but not longer than there is a reason to stop."""
        self._stop.wait(max(min(seconds, self._deadline - time.monotonic()), 0.0))

    def begin(self, number: int, params: Mapping[str, Any]) -> None:
        """Evaluate ``params`` as trial ``number``."""
        self._running[self._executor.submit(self._run, number, params)] = number

    def collect(
        self, *, also: Iterable[Future[None]] = (), timeout: float | None = None
    ) -> dict[int, Future[Evaluated]]:
        """Wait until a trial or one of ``also`` has ended; return the trials that have, by number.

        Args:
            also: something else worth waking up for.
            timeout: seconds after which to return anyway; None: never.
        """
        awaited: list[Future[Any]] = [*self._running, *also]
        wait(awaited, timeout, FIRST_COMPLETED)
        ended = {future: number for future, number in self._running.items() if future.done()}
        for future in ended:
            del self._running[future]
        results = {number: future for future, number in ended.items()}
        self.effort.evaluating += sum(
            future.result().seconds for future in ended if future.exception() is None
        )
        return dict(sorted(results.items()))

    def _run(self, number: int, params: Mapping[str, Any]) -> Evaluated:
        begin = time.perf_counter()
        outcome = self._evaluate(params)
        if not math.isfinite(outcome.score):
            raise DataError(
                f"trial {number}: score = {outcome.score} must be a finite number; {params}"
            )
        return Evaluated(outcome, time.perf_counter() - begin)
