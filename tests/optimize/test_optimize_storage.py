"""Storages: what is opened, what is refused unharmed, and how several processes share one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy

from backtest.optimize.search import storage as storage_module
from backtest.optimize.search.processes import Rhythm
from backtest.optimize.search.storage import drop_torn_line, open_store, storage_url
from backtest.optimize.search.study import Search
from backtest.optimize.search.trial_store import complete_trial, passwords_of, shown
from core.errors import ConfigError
from tests.support.processes.optimize_worker import CURRENT, SPACE, evaluate, identity

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
QUICK = Rhythm(beat_s=0.05, stale_s=0.6)
NOBODY = 65_534


def open_search(storage: object, *, jobs: int = 2, rhythm: Rhythm = QUICK) -> Search:
    return Search(identity(), SPACE, str(storage), jobs=jobs, current=CURRENT, rhythm=rhythm)


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (None, "sqlite:///grid_v4.db"),
        ("a.journal", "journal://a.journal"),
        ("/mnt/a.log", "journal:///mnt/a.log"),
        ("journal:///mnt/a", "journal:///mnt/a"),
        ("postgresql://u@h/d.log", "postgresql://u@h/d.log"),
    ],
)
def test_where_trials_are_kept(given: str | None, url: str) -> None:
    assert storage_url(given, "grid_v4") == url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("trials.db", "Could not parse"),
        ("redis://localhost", "redis"),
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("sqlite:///file:a.db?uri=true", "must name a file"),
        ("sqlite:////no/such/folder/a.db", "No such file or directory"),
        ("sqlite:////proc/a.db", "/proc/a.db.lock"),
        ("journal:///no/such/folder/a.journal", "No such file or directory"),
        ("grpc://localhost", "must be grpc://HOST:PORT"),
        ("grpc://localhost:port", "must be grpc://HOST:PORT"),
        ("nosuchdb+nodriver://user:secret@host/x", "nosuchdb"),
        ("postgresql://user:secret@127.0.0.1:1/x", "Connection refused"),
        ("postgresql+no_such_driver://user:secret@h/x", "no_such_driver"),
    ],
)
def test_a_storage_that_cannot_be_used_is_refused_and_no_password_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2x@host/db",
        "postgresql://user:hunter2x@b@host/db",
        "postgresql://user:a:hunter2x/@host/db",
        "postgresql://host/db?user=me&password=hunter2x",
        "postgresql://host/db?sslmode=require;sslpassword=hunter2x",
        "postgresql://host/db?PASSWD=hunter2x&x=1",
        "mysql+pymysql://:hunter2x@host/db?ssl_key=hunter2xyz",
    ],
)
def test_an_address_is_shown_without_its_passwords_wherever_they_stand(url: str) -> None:
    assert "hunter2x" not in shown(url)
    assert "***" in shown(url)
    assert "host/db" in shown(url)
    assert any("hunter2x" in text for text in passwords_of(url))


@pytest.mark.parametrize(
    "url", ["sqlite:///a@b.db", "postgresql://user@host/db?sslmode=require", "study.journal"]
)
def test_an_address_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert shown(url) == url
    assert not passwords_of(url)


def test_what_a_driver_says_of_its_address_shows_no_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("invalid dsn: host=h user=u password=pa ss@word9 (pa%20ss%40word9)")

    monkeypatch.setattr("backtest.optimize.search.storage._open_database", refuse)
    with pytest.raises(ConfigError, match="invalid dsn: host=h user=u") as caught:
        open_store("postgresql://u:pa%20ss%40word9@h/x")
    assert "word9" not in str(caught.value)


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(
        ConfigError, match=r"psycopg2.*; install it with pip install psycopg2-binary"
    ):
        open_store("postgresql://user@127.0.0.1:1/x")


def test_braces_in_an_address_are_no_placeholders(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path}/{{x}}.db").close()
    assert (tmp_path / "{x}.db").exists()


# --- files of others ------------------------------------------------------------------------------


def foreign_database(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE invoices (id INTEGER)")
        other.execute("CREATE TABLE studies (id INTEGER)")
    other.close()


def text_file(path: Path) -> None:
    path.write_text("price,qty\n" * 1_000, encoding="ascii")


def newer_optuna(path: Path) -> None:
    open_store(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as other:
        other.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    other.close()


def older_optuna(path: Path) -> None:
    open_store(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as other:
        other.execute("DROP TABLE trial_heartbeats")
        other.execute("UPDATE alembic_version SET version_num = 'v2.4.0.a'")
    other.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (foreign_database, r"x\.db holds tables of another program \(invoices, studies, \.\.\.\)"),
        (text_file, "file is not a database"),
        (newer_optuna, "no longer compatible.*try updating optuna"),
        (older_optuna, "no longer compatible.*optuna storage upgrade"),
    ],
)
def test_a_database_that_is_not_ours_is_refused_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "x.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=message):
        open_search(f"sqlite:///{path}")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["price,qty\n1,2\n", "x", '{"a": 1}\n{"b": 2}\n'])
def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "server.log"
    path.write_text(content, encoding="ascii")
    with pytest.raises(ConfigError, match="no journal of Optuna's"):
        open_search(path)
    assert path.read_text(encoding="ascii") == content


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    open_search(path).close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1][:20] + b"\n", *lines]))
    with pytest.raises(ConfigError, match=r"the storage .*x\.journal cannot be used"):
        open_search(path)


def test_what_a_killed_process_left_of_a_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    with open_search(path) as search:
        search.run(evaluate, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[-1][:30])
    with open_search(path) as search:
        search.run(evaluate, 2)
        assert len(search.trials()) == 4
    assert path.read_bytes().startswith(whole)


@pytest.mark.parametrize(
    ("content", "mended"),
    [(b"", b""), (b"torn", b""), (b"one\n", b"one\n"), (b"one\ntwo\nto", b"one\ntwo\n")],
)
def test_only_what_follows_the_last_line_end_is_cut_off(
    tmp_path: Path, content: bytes, mended: bytes
) -> None:
    (tmp_path / "x").write_bytes(content)
    drop_torn_line(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == mended


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """Return a folder everybody may enter, and be nobody in particular meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Let permissions count, also where tests run as root."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.mark.parametrize("name", ["x.db", "x.journal"])
def test_a_folder_that_cannot_be_written_is_refused(public_folder: Path, name: str) -> None:
    public_folder.chmod(0o555)
    url = storage_url(
        f"sqlite:///{public_folder / name}" if name == "x.db" else str(public_folder / name),
        "study",
    )
    with unprivileged(), pytest.raises(ConfigError, match=r"Permission denied \(/.*/x\."):
        open_store(url)


@pytest.mark.parametrize("name", ["x.db", "x.journal"])
def test_a_file_that_cannot_be_written_is_refused_before_any_trial(
    public_folder: Path, name: str
) -> None:
    path = public_folder / name
    url = storage_url(f"sqlite:///{path}" if name == "x.db" else str(path), "study")
    open_search(url).close()
    path.chmod(0o444)
    with unprivileged(), pytest.raises(ConfigError, match=rf"Permission denied \(/.*/{name}"):
        open_store(url)


# --- one process at a time ------------------------------------------------------------------------


def test_a_file_that_is_in_use_is_refused_and_says_by_whom(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    with (
        open_search(url),
        pytest.raises(ConfigError, match=rf"x\.db is in use by process {os.getpid()};"),
    ):
        open_search(url)
    open_search(url).close()


def test_a_search_that_is_refused_lets_go_of_the_lock(tmp_path: Path) -> None:
    foreign_database(tmp_path / "x.db")
    with pytest.raises(ConfigError, match="another program"):
        open_search(f"sqlite:///{tmp_path / 'x.db'}")
    with (tmp_path / "x.db.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_tables_another_process_creates_at_the_same_moment_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    make = optuna.storages.RDBStorage

    def after_another(address: str, **options: Any) -> Any:
        monkeypatch.setattr(storage_module, "RDBStorage", make)
        make(address).engine.dispose()
        assert options["skip_table_creation"] is False
        raise sqlalchemy.exc.ProgrammingError("CREATE", {}, Exception("already exists"))

    monkeypatch.setattr(storage_module, "RDBStorage", after_another)
    monkeypatch.setattr(storage_module, "_CREATION_RETRY_S", 0.0)
    with open_search(url) as search:
        assert search.trials() == []


# --- trials in a file -----------------------------------------------------------------------------


def test_trials_put_into_a_file_at_once_read_as_those_put_there_by_optuna(tmp_path: Path) -> None:
    distributions = SPACE.distributions()
    trials = [
        complete_trial(
            evaluated,
            distributions,
            evaluate(evaluated).score,
            {"outcome": evaluate(evaluated).to_dict(), "seconds": 0.5},
        )
        for evaluated in (CURRENT, {**CURRENT})
    ]
    found = []
    for name, one_by_one in (("a", True), ("b", False)):
        store = open_store(f"sqlite:///{tmp_path}/{name}.db")
        study = store.study("x")
        assert study.in_one_transaction
        numbers = (
            [study.add(trial) for trial in trials] if one_by_one else study.add_complete(trials)
        )
        assert numbers == [0, 1]
        store.close()
        store = open_store(f"sqlite:///{tmp_path}/{name}.db")
        found.append(store.study("x").trials())
        assert store.study("x").add_complete(trials[:1]) == [2]
        store.close()
    for a, b in zip(*found, strict=True):
        for part in ("number", "state", "params", "distributions", "values", "user_attrs"):
            assert getattr(a, part) == getattr(b, part)
        assert b.datetime_start
        assert b.datetime_complete


def test_of_trials_put_into_a_file_at_once_all_are_kept_or_none(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/a.db")
    study = store.study("x")
    good = complete_trial(CURRENT, SPACE.distributions(), 1.0, {"outcome": {}, "seconds": 0.1})
    bad = complete_trial(CURRENT, SPACE.distributions(), 1.0, {"outcome": object(), "seconds": 0.1})
    with pytest.raises(ConfigError, match="cannot be used"):
        study.add_complete([good, bad])
    assert study.trials() == []
    store.close()
