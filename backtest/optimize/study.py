"""The search: a study that can be gone on with, by one process or, shared, by several.

Trials are evaluated several at once and kept for good; running a search again under the same name
adds to them, if and only if everything that makes trials comparable is as it was.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple, Self

import optuna
from optuna.trial import FrozenTrial, TrialState

from backtest.optimize.local_study import LocalRun
from backtest.optimize.processes import Processes, Rhythm
from backtest.optimize.sampling import Sampler
from backtest.optimize.shared_study import SharedRun
from backtest.optimize.space import Space
from backtest.optimize.storage import open_store, storage_url
from backtest.optimize.trial import Evaluate, TrialOutcome
from backtest.optimize.trial_pool import Effort, Progress, ProgressReport, TrialPool
from backtest.optimize.trial_store import IDENTITY, RESULT, StoredStudy
from config import STRATEGY_PARAMS
from core.errors import ConfigError
from core.params import read_value

_OPTUNA: Final = "optuna_version"
_ALLOWED: Final = {
    "fingerprint": "the code that evaluates has changed since the study was made ({was}, now "
    "{now}): scores of earlier trials are not comparable with those to come; a study of another "
    "name would be",
    _OPTUNA: "the study was made with optuna {was}, this is {now}: it may try other parameters "
    "than a search that was never interrupted",
}
"""What may differ from one run to the next, and what is said then."""
_PROCESSES: Final = " (processes)"
"""Ends the name of the companion study of a shared one; no study's own name can end so."""


def _ignore(_: object) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyIdentity:
    """What makes the trials of a study comparable with each other.

    Attributes:
        name: of the study.
        space: ``Space.to_dict`` of what is searched.
        fixed: all other parameters, JSON-ready.
        coins: what is traded.
        start: first bar, as text.
        end: last bar, as text.
        data_hash: of the candles and funding rates of all coins.
        windows: number of walk-forward windows.
        holdout: share of the bars nobody looks at until the end.
        objective: name of what is maximised.
        seed: of the sampler, 0 or more.
        fingerprint: of the code that evaluates.
    """

    name: str
    space: Mapping[str, Any]
    fixed: Mapping[str, Any]
    coins: tuple[str, ...]
    start: str
    end: str
    data_hash: str
    windows: int
    holdout: float
    objective: str
    seed: int
    fingerprint: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, and Optuna's version, as they come back from JSON."""
        document = asdict(self) | {_OPTUNA: optuna.__version__}
        plain: dict[str, Any] = json.loads(json.dumps(document))
        return plain


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
    ) -> None:
        """Open the study ``identity.name``, or create it.

        Args:
            identity: must be what the study was made with, but for the code's fingerprint.
            space: what is searched.
            storage: where, see ``storage.py``; None: an SQLite file in the working directory.
            jobs: trials evaluated at once by this process.
            current: parameters in use now, moved into the space: always among what is tried.
            rhythm: of the heartbeats of a shared search; None: the default.

        Raises:
            ConfigError: the study was made with something else, or the storage cannot be used.
        """
        self._name = identity.name
        self._data_hash = identity.data_hash
        self._seed = identity.seed
        self._space = space
        self._jobs = jobs
        self._rhythm = rhythm or Rhythm()
        self._first, moved = _into_space(space, current)
        self._store = open_store(storage_url(storage, identity.name))
        try:
            self._study = self._store.study(identity.name)
            self.notices = tuple(_check_identity(self._study, identity))
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
            on_trial: is told of every trial once it has been kept; in this thread.
            stop: is set by whoever wants the search to end.
            on_message: is told what the user should know, as a sentence; in this thread.

        Raises:
            ConfigError: the storage fails, or a number is out of range.
        """
        if n_trials < 0:
            raise ConfigError(f"--trials {n_trials} must be 0 or more")
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
        result = trial.user_attrs.get(RESULT)
        if result is None:
            raise ConfigError(
                f"trial {trial.number} of study {self._name!r} was added by another program; "
                "search under another --study-name"
            )
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


def _into_space(space: Space, current: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the ``current`` value of every entry, and a sentence on each that had to be moved."""
    first: dict[str, Any] = {}
    moved = []
    for name, entry in space.entries.items():
        try:
            first[name] = space.clip(name, current[name])
        except ConfigError:
            first[name] = entry.choices[0]
        if read_value(name, first[name]) != read_value(name, current[name]):
            moved.append(
                f"the current {name} = {current[name]} is outside the space; {first[name]} is "
                "tried in its place"
            )
    return first, moved


def _check_identity(study: StoredStudy, identity: StudyIdentity) -> list[str]:
    """Write the identity of a new study; return sentences on differences that are allowed.

    Raises:
        ConfigError: there are others, or another program has made the study.
    """
    now = identity.to_dict()
    was = study.attributes().get(IDENTITY)
    if was is None:
        if study.trials():
            raise ConfigError(
                f"study {identity.name!r} was not made by this program; choose another --study-name"
            )
        study.set_attribute(IDENTITY, now)
        return []
    different = [
        key for key in (*was, *now) if key not in _ALLOWED and was.get(key) != now.get(key)
    ]
    if different:
        lines = [line for key in dict.fromkeys(different) for line in _lines(key, was, now)]
        raise ConfigError(
            f"study {identity.name!r} was made with something else, so its trials would not be "
            "comparable with new ones:\n" + "\n".join(lines) + "\n"
            "restore what it was made with, or choose another --study-name"
        )
    return [
        text.format(was=was.get(key), now=now[key])
        for key, text in _ALLOWED.items()
        if was.get(key) != now[key]
    ]


def _lines(key: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for every part of the field ``key`` that differs."""
    before, after = was.get(key), now.get(key)
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [f"  {key}: was {json.dumps(before)}, is now {json.dumps(after)}"]
    return [
        f"  {key}.{name}: was {_text(before, name)}, is now {_text(after, name)}"
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]


def _text(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name]) if name in values else "absent"
