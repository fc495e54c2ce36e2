"""Where trials are kept: opening any storage of Optuna without harm to what is no storage of it.

| ``--storage`` | what it is | used by |
|---|---|---|
| nothing | ``sqlite:///STUDY.db``, in the working directory | one process |
| ``sqlite:///FILE.db`` | SQLite; four slashes for an absolute path | one process |
| ``postgresql://USER:PASSWORD@HOST/DATABASE`` | PostgreSQL; MySQL likewise | several machines |
| ``grpc://HOST:PORT`` | Optuna's proxy before a database | several machines |
| ``FILE.journal``, ``FILE.log``, ``journal://PATH`` | Optuna's journal | several machines |

What follows ``journal://`` is a path as it is: three slashes for an absolute one. On several
machines a journal's folder must be a network drive of them all.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage, GrpcStorageProxy, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy import exc

from backtest.optimize.search.trial_rows import RowWriter
from backtest.optimize.search.trial_store import StorageErrors, TrialStore, shown
from core.errors import ConfigError
from core.files import FileLock, LockHeldError

CONNECT_TIMEOUT_S: Final = 10
BUSY_TIMEOUT_S: Final = 10
"""How long SQLite waits for another program, such as a viewer, that holds the file."""
JOURNAL_LOCK_GRACE_S: Final = 10
"""A journal's lock this old was left behind by a process that was killed."""

_CREATION_ATTEMPTS: Final = 5
_CREATION_RETRY_S: Final = 0.5
_STUDY_NAME: Final = re.compile(r"\w[\w.\- ]*")
_MAX_NAME_LENGTH: Final = 100
_JOURNAL_SUFFIXES: Final = (".journal", ".log")
_JOURNAL_BEGINS: Final = b'{"op_code":'
_POSTGRESQL: Final = "postgresql+psycopg2"
"""The driver among the requirements; SQLAlchemy would take another one by default."""
_TIMEOUT_DRIVERS: Final = frozenset({"psycopg2", "psycopg", "pymysql", "mysqldb"})
_VERSION_TABLES: Final = frozenset({"alembic_version", "version_info"})
_OPTUNA_TABLES: Final = _VERSION_TABLES | {
    "studies",
    "study_directions",
    "study_user_attributes",
    "study_system_attributes",
    "trials",
    "trial_user_attributes",
    "trial_system_attributes",
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
    "trial_heartbeats",
}


def storage_url(storage: str | None, study_name: str) -> str:
    """Return where the trials of ``study_name`` are kept, journals as ``journal://PATH``.

    Args:
        storage: as given with ``--storage``; None: an SQLite file named like the study.
        study_name: letters, digits, ``_``, ``-``, ``.`` and spaces.

    Raises:
        ConfigError: the name cannot be used.
    """
    if not _STUDY_NAME.fullmatch(study_name) or len(study_name) > _MAX_NAME_LENGTH:
        raise ConfigError(
            f"--study-name {study_name!r} must be 1 to {_MAX_NAME_LENGTH} letters, digits, '_', "
            "'-', '.' or spaces, and begin with a letter, a digit or '_'"
        )
    if storage is None:
        return f"sqlite:///{study_name}.db"
    if "://" not in storage and storage.endswith(_JOURNAL_SUFFIXES):
        return f"journal://{storage}"
    return storage


def open_store(url: str) -> TrialStore:
    """Open the storage at ``url``, as ``storage_url`` returns it; create it if there is none.

    Nothing is written into what turns out to be no storage of Optuna's or of another version.

    Raises:
        ConfigError: it is none, cannot be reached or written, or another process has it.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    scheme, _, rest = url.partition("://")
    database: RDBStorage | None = None
    with ExitStack() as resources, StorageErrors(url):
        if scheme == "grpc":
            api = _open_proxy(url, resources)
        elif scheme == "journal":
            api = _open_journal(Path(rest))
        else:
            api, database = _open_database(url, resources)
        shared = not scheme.startswith("sqlite")
        rows = None if shared or database is None else RowWriter(database.engine)
        return TrialStore(api, url, shared=shared, resources=resources.pop_all(), rows=rows)


def _open_proxy(url: str, resources: ExitStack) -> BaseStorage:
    match = re.fullmatch(r"grpc://([^/:]+|\[[0-9A-Fa-f:.]+\]):(\d+)/?", url)
    if match is None:
        raise ConfigError(f"--storage {shown(url)} must be grpc://HOST:PORT")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        proxy = GrpcStorageProxy(host=match[1], port=int(match[2]))
    resources.callback(proxy.close)
    proxy.wait_server_ready(timeout=CONNECT_TIMEOUT_S)
    return proxy


def _open_journal(path: Path) -> BaseStorage:
    if path.exists():
        with path.open("r+b") as file:  # written to later, so refused now if that is forbidden
            begin = file.read(len(_JOURNAL_BEGINS))
        if begin != _JOURNAL_BEGINS[: len(begin)]:
            raise ConfigError(
                f"{path} is no journal of Optuna's; nothing was written to it; name another file"
            )
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_MendingLock(str(path))))


class _MendingLock(JournalFileSymlinkLock):
    """Lock of a journal; removes the part of a line that a killed process left at its end.

    The next line would otherwise be appended to that part, and nobody could read the journal again.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, grace_period=JOURNAL_LOCK_GRACE_S)
        self._path = path

    def acquire(self) -> bool:
        acquired = super().acquire()
        drop_torn_line(Path(self._path))
        return acquired


def drop_torn_line(path: Path) -> None:
    """Cut what follows the last line end of ``path`` off."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _open_database(url: str, resources: ExitStack) -> tuple[BaseStorage, RDBStorage]:
    parsed = sqlalchemy.make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername=_POSTGRESQL)
    if parsed.get_backend_name() == "sqlite":
        resources.callback(_lock_sqlite_file(parsed.database).release)
        options: dict[str, Any] = {"connect_args": {"timeout": BUSY_TIMEOUT_S}}
    else:  # a connection may have been cut while a trial ran: ping it before use
        timed = parsed.get_driver_name() in _TIMEOUT_DRIVERS
        arguments = {"connect_timeout": CONNECT_TIMEOUT_S} if timed else {}
        options = {"connect_args": arguments, "pool_pre_ping": True}
    attempts = 0
    while True:
        fresh = _is_fresh(parsed, options)
        try:
            return _optuna_storage(parsed, options, fresh, resources)
        except (exc.IntegrityError, exc.ProgrammingError, exc.OperationalError):
            attempts += 1  # another process may be creating the tables at this moment
            if not fresh or attempts == _CREATION_ATTEMPTS:
                raise
        time.sleep(_CREATION_RETRY_S)


def _optuna_storage(
    url: sqlalchemy.URL, options: dict[str, Any], fresh: bool, resources: ExitStack
) -> tuple[BaseStorage, RDBStorage]:
    address = url.render_as_string(hide_password=False)
    literal = address.replace("{", "{{").replace("}", "}}")  # Optuna formats the address
    database = RDBStorage(literal, engine_kwargs=options, skip_table_creation=not fresh)
    resources.callback(database.engine.dispose)
    resources.callback(database.remove_session)
    return get_storage(database), database


def _is_fresh(url: sqlalchemy.URL, options: dict[str, Any]) -> bool:
    """Return whether Optuna's tables must still be created, wholly or (after a kill) in part.

    Raises:
        ConfigError: the database belongs to another program.
    """
    engine = sqlalchemy.create_engine(url, **options)
    try:
        tables = set(sqlalchemy.inspect(engine).get_table_names())
        versioned = "alembic_version" in tables and _has_version(engine)
    finally:
        engine.dispose()
    if versioned and "version_info" in tables:
        return False
    foreign = tables - _OPTUNA_TABLES
    alone = url.get_backend_name() == "sqlite"
    if foreign and (alone or tables & _OPTUNA_TABLES):
        raise ConfigError(
            f"{shown(url.render_as_string())} holds tables of another program ("
            f"{', '.join(sorted(tables)[:3])}, ...); nothing was written to it; name another "
            "database"
        )
    return True


def _has_version(engine: sqlalchemy.Engine) -> bool:
    with engine.connect() as connection:
        rows = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version"))
        return rows.first() is not None


def _lock_sqlite_file(database: str | None) -> FileLock:
    """Return the lock on an SQLite file, held.

    Raises:
        ConfigError: another process has it, or there is no file to lock.
        OSError: the file or its folder cannot be written.
    """
    if not database or database == ":memory:" or database.startswith("file:"):
        raise ConfigError("--storage sqlite:///FILE.db must name a file: trials are to be kept")
    path = Path(database)
    if path.exists():
        path.open("r+b").close()  # refused now, not after the first trial
    try:
        return FileLock(path.with_name(f"{path.name}.lock")).__enter__()
    except LockHeldError as error:
        raise ConfigError(
            f"{path} is in use by process {error.holder}; wait until it has ended, or search under "
            "another --study-name"
        ) from None
