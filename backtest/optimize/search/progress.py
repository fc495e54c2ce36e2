"""Running the trials of a search where a person watches: progress, Ctrl+C, the ledger."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Final, Self, TypeVar

from tqdm import tqdm  # type: ignore[import-untyped]  # no stubs installed

from backtest.optimize.search.study import FinishedTrial, Search
from backtest.optimize.search.trial_ledger import TrialLedger
from backtest.optimize.search.trial_pool import Progress
from backtest.optimize.trial.trial import Evaluate, TrialOutcome

T = TypeVar("T")
S = TypeVar("S")

EXIT_INTERRUPTED: Final = 130
_BAR_DELAY_S: Final = 1.0
_LOG_EVERY_S: Final = 10.0
"""How often the bar is printed again where nobody watches, such as in a file."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """The result of a run of the search.

    Attributes:
        trials: all of the study, by number.
        added: how many of them this run has added (in a shared study: and others meanwhile).
        interrupted: whether Ctrl+C has ended it.
        progress: the last one reported; None if no trial was.
        jobs: trials evaluated at once.
    """

    trials: list[FinishedTrial]
    added: int
    interrupted: bool
    progress: Progress | None
    jobs: int

    def timing(self) -> dict[str, float]:
        """Return speed and where the time of the search went, as shares of it."""
        done = self.progress
        if done is None or self.added == 0:
            return {}
        seconds = self.added / done.per_second
        return {
            "search_seconds": seconds,
            "trials_per_second": done.per_second,
            "sampling_share": done.sampling_s / seconds,
            "evaluating_share": done.evaluating_s / (seconds * self.jobs),
            "writing_share": done.writing_s / seconds,
        }


def search_trials(
    search: Search,
    evaluate: Evaluate,
    n_trials: int,
    *,
    jobs: int,
    timeout: float | None,
    ledger: TrialLedger,
    study: str,
    say: Callable[[str], None],
) -> Searched:
    """Add ``n_trials`` trials to the study under a progress bar.

    Ctrl+C lets the trials that run end and ends the search; a second one ends the program.

    Args:
        search: the study, open.
        evaluate: of a trial.
        n_trials: how many.
        jobs: evaluated at once.
        timeout: seconds after which none is begun.
        ledger: counts what is evaluated here, whatever ends the search.
        study: its name, for the ledger.
        say: prints what the user should know.

    Raises:
        ConfigError: the storage fails.
        DataError: the ledger cannot be written.
    """
    before = len(search.trials())
    with (
        Interruption("the trials that run are finished") as interruption,
        TrialBar(before, before + n_trials) as bar,
        ledger.begin(study) as entry,
    ):

        def counted(drawn: Mapping[str, Any]) -> TrialOutcome:
            outcome = evaluate(drawn)
            entry.count()  # what this process evaluates; others may add to a shared study
            return outcome

        search.run(
            counted,
            n_trials,
            timeout=timeout,
            on_trial=bar.show,
            stop=interruption.asked,
            on_message=say,
        )
    trials = search.trials()
    return Searched(
        trials=trials,
        added=len(trials) - before,
        interrupted=interruption.asked.is_set(),
        progress=bar.last,
        jobs=jobs,
    )


class Interruption:
    """Ctrl+C while the context is open: the first asks to end, the second ends at once.

    Args:
        first: what is still done after the first, in words.

    Attributes:
        asked: set by the first.
    """

    def __init__(self, first: str) -> None:
        self.asked = threading.Event()
        self._message = f"\nending: {first}; Ctrl+C again quits at once\n".encode()
        self._former: Any = None
        self._ours = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> Self:
        if self._ours:  # other threads get no signals
            self._former = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, self._former)

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        if self.asked.is_set():
            os._exit(EXIT_INTERRUPTED)  # trials are kept one by one: nothing is torn by it
        self.asked.set()
        # Not print: the signal may have come in the middle of one.
        os.write(2, self._message)


class TrialBar:
    """The progress bar of a search on standard error: rate, best so far, time left.

    Attributes:
        last: the progress shown last; None: none yet.
    """

    def __init__(self, done: int, target: int) -> None:
        self.last: Progress | None = None
        self._bar: Any = tqdm(
            total=target,
            initial=done,
            desc="search",
            unit="trial",
            dynamic_ncols=True,
            mininterval=0.1 if sys.stderr.isatty() else _LOG_EVERY_S,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def show(self, progress: Progress) -> None:
        """Take a trial that has been kept into account."""
        self.last = progress
        self._bar.total = progress.target
        best = f"best {progress.best_score:.3f} (trial {progress.best_number})"
        self._bar.set_postfix_str(best, refresh=False)
        self._bar.update(progress.done - self._bar.n)


def side_by_side(
    function: Callable[[S], T],
    items: Sequence[S],
    *,
    jobs: int,
    title: str,
    stop: threading.Event | None = None,
) -> list[T]:
    """Return what ``function`` answers for each of ``items``, in order, under a progress bar.

    Threads suffice: the compiled loop releases the interpreter's lock. After an error or Ctrl+C
    nothing more is begun.

    Args:
        function: thread-safe.
        items: its arguments.
        jobs: threads.
        title: of the bar, which stands on standard error if that is a terminal and it takes long.
        stop: is set by whoever wants it to end.

    Raises:
        KeyboardInterrupt: ``stop`` was set before all was done.
    """

    def unless_stopped(item: S) -> T:
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt
        return function(item)

    with ThreadPoolExecutor(jobs) as pool:
        found = pool.map(unless_stopped, items)
        return list(
            tqdm(found, total=len(items), desc=title, delay=_BAR_DELAY_S, leave=False, disable=None)
        )
