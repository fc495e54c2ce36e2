"""Optuna's storage as the search uses it: trials by number, and this project's errors."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final
from urllib.parse import unquote

from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, OptunaError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from backtest.optimize.search.trial_rows import RowWriter
from core.errors import ConfigError, GridError
from core.redaction import Redactor

FORMS: Final = (
    "sqlite:///FILE.db, postgresql://USER:PASSWORD@HOST/DATABASE, "
    "mysql+pymysql://USER:PASSWORD@HOST/DATABASE, grpc://HOST:PORT or a journal, FILE.journal"
)
RESULT: Final = "result"
"""Attribute of a complete trial: ``outcome``, and ``seconds`` that it took."""
IDENTITY: Final = "grid_identity"
"""Attribute of a study: what makes its trials comparable."""

_PACKAGES: Final = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient", "grpc": "grpcio"}
"""Where the name of a driver's package is not that of its module."""
_USER: Final = re.compile(r"(?s)(?<=://)(.*)@")
"""User and password of an address: up to the last ``@``, for a password may hold one."""
_SECRET_OPTION: Final = re.compile(
    r"(?i)(?<=[?&;])([^=&;]*(?:pass|pwd|secret|token|key)[^=&;]*)=([^&;]*)"
)


class StorageErrors:
    """Turns whatever a storage may raise into ConfigError."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, GridError) or not isinstance(error, _what_storages_raise()):
            return
        advice = f"check --storage, which may be {FORMS}"
        if isinstance(error, ImportError):
            advice = f"install it with pip install {_PACKAGES.get(error.name or '', error.name)}"
        raise ConfigError(
            f"the storage {shown(self._url)} cannot be used: {self._reason(error)}; {advice}"
        ) from None

    def _reason(self, error: BaseException) -> str:
        """Return what was said, without the passwords of the address: drivers quote it."""
        return Redactor(passwords_of(self._url)).redact(_reason(error))


class TrialStore:
    """An open storage.

    Attributes:
        url: where it is.
        shared: whether several processes may use it at once.
    """

    def __init__(
        self,
        api: BaseStorage,
        url: str,
        *,
        shared: bool,
        resources: ExitStack,
        rows: RowWriter | None = None,
    ) -> None:
        self.url = url
        self._rows = rows
        self.shared = shared
        self._api = api
        self._resources = resources

    def close(self) -> None:
        """Let go of files, connections and the lock."""
        self._resources.close()

    def study(self, name: str) -> StoredStudy:
        """Return the study ``name``, created if there is none.

        Raises:
            ConfigError: there is one that does not maximise one score, or the storage fails.
        """
        with StorageErrors(self.url):
            study = self._find_or_create(name)
            if self._api.get_study_directions(study) != [StudyDirection.MAXIMIZE]:
                raise ConfigError(
                    f"study {name!r} in {shown(self.url)} was not made by this program; choose "
                    "another --study-name"
                )
        return StoredStudy(self._api, study, StorageErrors(self.url), self._rows)

    def n_trials(self, name: str) -> int:
        """Return how many trials of the study ``name`` are complete; 0 if there is none.

        Raises:
            ConfigError: the storage fails.
        """
        with StorageErrors(self.url):
            try:
                study = self._api.get_study_id_from_name(name)
            except KeyError:
                return 0
            return self._api.get_n_trials(study, TrialState.COMPLETE)

    def _find_or_create(self, name: str) -> int:
        try:
            return self._api.get_study_id_from_name(name)
        except KeyError:
            pass
        try:
            return self._api.create_new_study([StudyDirection.MAXIMIZE], name)
        except DuplicatedStudyError:  # another process was faster
            return self._api.get_study_id_from_name(name)

    def count_trials_ever(self, data_hash: str) -> int:
        """Return how many trials on the data of ``data_hash`` are complete, in all studies.

        Raises:
            ConfigError: the storage fails.
        """
        with StorageErrors(self.url):
            names = [
                study.study_name
                for study in self._api.get_all_studies()
                if study.user_attrs.get(IDENTITY, {}).get("data_hash") == data_hash
            ]
            studies = [self._api.get_study_id_from_name(name) for name in names]
            return sum(self._api.get_n_trials(study, TrialState.COMPLETE) for study in studies)


class StoredStudy:
    """One study of an open storage; every method raises ConfigError if the storage fails."""

    def __init__(
        self, api: BaseStorage, study: int, errors: StorageErrors, rows: RowWriter | None = None
    ) -> None:
        self._api = api
        self._rows = rows
        self._study = study
        self._errors = errors

    def attributes(self) -> dict[str, Any]:
        """Return what ``set_attribute`` has set."""
        with self._errors:
            return self._api.get_study_user_attrs(self._study)

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute of the study to JSON-ready data."""
        with self._errors:
            self._api.set_study_user_attr(self._study, key, value)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials by number; they may not be changed."""
        with self._errors:
            return self._api.get_all_trials(self._study, deepcopy=False)

    def add(self, trial: FrozenTrial) -> int:
        """Keep ``trial`` with all that belongs to it, in one transaction; return its number."""
        with self._errors:
            trial_id = self._api.create_new_trial(self._study, trial)
            return self._api.get_trial_number_from_id(trial_id)

    @property
    def in_one_transaction(self) -> bool:
        """Whether ``add_complete`` keeps all of its trials or none."""
        return self._rows is not None

    def add_complete(self, trials: Sequence[FrozenTrial]) -> list[int]:
        """Keep complete trials and return their numbers; in a file, all in one transaction."""
        if self._rows is None:
            return [self.add(trial) for trial in trials]
        with self._errors:
            return self._rows.add(self._study, trials)

    def set_trial_attribute(self, number: int, key: str, value: Any) -> bool:
        """Set an attribute of a running trial; return False if it has been ended."""
        with self._errors:
            try:
                self._api.set_trial_user_attr(self._id(number), key, value)
            except UpdateFinishedTrialError:
                return False
            return True

    def end(self, number: int, state: TrialState, score: float | None = None) -> bool:
        """End a running trial; return False if it has been ended before."""
        values = None if score is None else [float(score)]
        with self._errors:
            try:
                return self._api.set_trial_state_values(self._id(number), state, values)
            except UpdateFinishedTrialError:
                return False

    def _id(self, number: int) -> int:
        return self._api.get_trial_id_from_study_id_trial_number(self._study, number)


def complete_trial(
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
    score: float,
    result: Mapping[str, Any] | None = None,
) -> FrozenTrial:
    """Return a finished trial as ``StoredStudy.add`` takes it."""
    return create_trial(
        value=float(score),
        params=dict(params),
        distributions=dict(distributions),
        user_attrs={} if result is None else {RESULT: dict(result)},
    )


def running_trial(
    attributes: Mapping[str, Any],
    params: Mapping[str, Any] | None = None,
    distributions: Mapping[str, BaseDistribution] | None = None,
) -> FrozenTrial:
    """Return a trial that is being evaluated, as ``StoredStudy.add`` takes it."""
    return create_trial(
        state=TrialState.RUNNING,
        params=dict(params or {}),
        distributions=dict(distributions or {}),
        user_attrs=dict(attributes),
    )


def result_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return ``outcome`` and ``seconds`` of a complete trial.

    Raises:
        ConfigError: it has none.
    """
    result: dict[str, Any] | None = trial.user_attrs.get(RESULT)
    if result is None:
        raise ConfigError(
            f"trial {trial.number} was added to the study by another program; search under another "
            "--study-name"
        )
    return result


def shown(url: str) -> str:
    """Return ``url`` without passwords: neither the user's nor one among its options."""
    named = _USER.sub(lambda found: f"{_split_user(found[1])[0]}@", url)
    return _SECRET_OPTION.sub(r"\1=***", named)


def passwords_of(url: str) -> set[str]:
    """Return the passwords in ``url``, as they stand there and decoded."""
    user = _USER.search(url)
    found = [_split_user(user[1])[1]] if user else []
    found += [match[2] for match in _SECRET_OPTION.finditer(url)]
    return {form for text in found for form in (text, unquote(text)) if form}


def _split_user(text: str) -> tuple[str, str]:
    """Return the user, with ``:***`` for a password, and the password, '' if there is none."""
    name, colon, password = text.partition(":")
    return (f"{name}:***" if colon else name), password


def _what_storages_raise() -> tuple[type[BaseException], ...]:
    """Return the classes: a journal's damaged lines show as any of the built-in ones."""
    grpc = sys.modules.get("grpc")
    return (
        SQLAlchemyError,
        OptunaError,
        OSError,
        ImportError,
        RuntimeError,
        LookupError,
        TypeError,
        ValueError,
        AssertionError,
        *([] if grpc is None else [grpc.RpcError]),
    )


def _reason(error: BaseException) -> str:
    """Return the first line of what the database or the system said."""
    cause = error.__cause__ if isinstance(error, OptunaError) and error.__cause__ else error
    said = getattr(cause, "orig", None) or cause
    if isinstance(said, OSError) and said.strerror:
        return f"{said.strerror} ({said.filename})" if said.filename else said.strerror
    details = getattr(said, "details", None)  # of gRPC
    lines = str(details() if callable(details) else said).strip().splitlines()
    return lines[0] if lines else type(said).__name__
