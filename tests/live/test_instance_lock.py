"""One process per symbol, and files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError, StateError
from live.store.durable_file import plain_symbol, read_file, write_atomically
from live.store.instance_lock import InstanceLock
from tests.support.paths import ROOT

FULL = OSError(errno.ENOSPC, "No space left on device")
READ_ONLY = OSError(errno.EROFS, "Read-only file system")
WRITE_SITES = [("open", 1), ("write", 1), ("fsync", 1), ("replace", 1), ("open", 2), ("fsync", 2)]
"""Every system call of one atomic write, by name and how often it was called before."""


def break_at(
    monkeypatch: pytest.MonkeyPatch, name: str, nth: int, error: BaseException
) -> Callable[[], bool]:
    """Let the ``nth`` call of ``os.name`` fail, a write after half of it; tell whether it did."""
    real: Any = getattr(os, name)
    calls = 0

    def broken(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != nth:
            return real(*arguments, **keywords)
        if name == "write":
            real(arguments[0], arguments[1][: len(arguments[1]) // 2])
        raise error

    monkeypatch.setattr(os, name, broken)
    return lambda: calls >= nth


def open_files() -> int:
    """Return how many file handles this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run ``code`` in a process of its own that is gone afterwards."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(  # noqa: S603 - this interpreter
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        try:
            yield child
        finally:
            child.kill()


HOLDS_LOCK = """
import sys
from pathlib import Path
from live.store.instance_lock import InstanceLock
with InstanceLock(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_learns_who_trades(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "BTCUSDT.lock"
    with process(HOLDS_LOCK, path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        with (
            pytest.raises(StateError, match=rf"another process \(pid {child.pid}\) trades BTCUSDT"),
            InstanceLock(path),
        ):
            pass


def test_the_lock_vanishes_with_a_killed_process_and_the_file_left_does_not_lock(
    tmp_path: Path,
) -> None:
    path = tmp_path / "BTCUSDT.lock"
    with process(HOLDS_LOCK, path) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.kill()
        child.wait()
        assert path.read_text() == f"{child.pid}\n"
        with InstanceLock(path):
            assert path.read_text() == f"{os.getpid()}\n"


def test_a_file_with_a_longer_pid_or_rubbish_in_it_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT.lock"
    path.write_text("999999999999\nrubbish\n")
    with InstanceLock(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_two_locks_of_one_process_exclude_each_other_until_the_first_ends(tmp_path: Path) -> None:
    path = tmp_path / "ETHUSDT.lock"
    with InstanceLock(path), pytest.raises(StateError, match="ETHUSDT"), InstanceLock(path):
        pass
    with InstanceLock(path):
        pass


def test_two_symbols_do_not_exclude_each_other(tmp_path: Path) -> None:
    with InstanceLock(tmp_path / "BTCUSDT.lock"), InstanceLock(tmp_path / "ETHUSDT.lock"):
        pass


@pytest.mark.parametrize("name", ["open", "write", "ftruncate"])
def test_a_lock_that_cannot_be_written_is_a_state_error_and_leaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "BTCUSDT.lock"
    before = open_files()
    with monkeypatch.context() as patch:
        break_at(patch, name, 1, READ_ONLY)
        with pytest.raises(StateError, match=r"BTCUSDT\.lock"), InstanceLock(path):
            pass
    assert open_files() == before
    with InstanceLock(path):
        pass


def test_the_lock_is_released_when_the_session_fails(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT.lock"
    with pytest.raises(ZeroDivisionError), InstanceLock(path):
        raise ZeroDivisionError
    with InstanceLock(path):
        pass


def test_locking_a_hundred_times_leaves_no_handle(tmp_path: Path) -> None:
    before = open_files()
    for _ in range(100):
        with InstanceLock(tmp_path / "BTCUSDT.lock"):
            pass
        with (
            InstanceLock(tmp_path / "BTCUSDT.lock"),
            pytest.raises(StateError),
            InstanceLock(tmp_path / "BTCUSDT.lock"),
        ):
            pass
    assert open_files() == before


@pytest.mark.parametrize("symbol", ["BTCUSDT", "BTC/USDT", "BTC/USDT:USDT"])
def test_every_form_of_a_symbol_names_the_same_file(symbol: str) -> None:
    assert plain_symbol(symbol) == "BTCUSDT"


@pytest.mark.parametrize("symbol", ["", "../BTC", "btc/usdt", "BTC USDT", "BTC.USDT"])
def test_what_is_no_symbol_names_no_file(symbol: str) -> None:
    with pytest.raises(ConfigError, match="must be like BTC/USDT"):
        plain_symbol(symbol)


@pytest.mark.parametrize(
    "error", [FULL, READ_ONLY, KeyboardInterrupt()], ids=["full disk", "read-only", "kill"]
)
@pytest.mark.parametrize(("name", "nth"), WRITE_SITES)
def test_a_write_that_fails_anywhere_leaves_the_old_or_the_new_file_whole_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int, error: BaseException
) -> None:
    path = tmp_path / "file.json"
    old, new = b"old" * 1000, b"new" * 5000
    write_atomically(path, old)
    before = open_files()
    with monkeypatch.context() as patch:
        happened = break_at(patch, name, nth, error)
        with pytest.raises(StateError if isinstance(error, OSError) else KeyboardInterrupt):
            write_atomically(path, new)
        assert happened()
    replaced = nth == 2
    assert path.read_bytes() == (new if replaced else old)
    assert [item.name for item in tmp_path.iterdir()] == ["file.json"]
    assert open_files() == before


def test_the_message_of_a_full_disk_says_which_file_why_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_at(monkeypatch, "write", 1, FULL)
    with pytest.raises(StateError, match=r"file\.json: No space left on device; make room"):
        write_atomically(tmp_path / "file.json", b"body")


KILLED_AT = """
import os, signal, sys
from pathlib import Path
from live.store.durable_file import write_atomically
name, nth = sys.argv[2], int(sys.argv[3])
real, calls = getattr(os, name), 0
def killed(*arguments, **keywords):
    global calls
    calls += 1
    if calls == nth:
        if name == "write":
            real(arguments[0], arguments[1][:100])
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **keywords)
setattr(os, name, killed)
write_atomically(Path(sys.argv[1]), b"new" * 5000)
"""


@pytest.mark.parametrize(("name", "nth"), WRITE_SITES)
def test_a_process_killed_anywhere_in_a_write_leaves_a_whole_file_and_does_not_hinder_the_next(
    tmp_path: Path, name: str, nth: int
) -> None:
    path = tmp_path / "file.json"
    old, new = b"old" * 1000, b"new" * 5000
    write_atomically(path, old)
    with process(KILLED_AT, path, name, nth) as child:
        assert child.wait() == -9
    assert path.read_bytes() in (old, new)
    write_atomically(path, b"newest")
    assert path.read_bytes() == b"newest"
    assert [item.name for item in tmp_path.iterdir()] == ["file.json"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, body: real(file, body[:7]))
    write_atomically(tmp_path / "file", b"0123456789" * 10)
    assert (tmp_path / "file").read_bytes() == b"0123456789" * 10


def test_the_folder_is_made_durable_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real: Any = getattr(os, name)

        def noted(*arguments: Any, _name: str = name, _real: Any = real) -> Any:
            synced = Path(f"/proc/self/fd/{arguments[0]}")
            calls.append(f"fsync {synced.readlink().name}" if _name == "fsync" else _name)
            return _real(*arguments)

        monkeypatch.setattr(os, name, noted)
    write_atomically(tmp_path / "file", b"body")
    assert calls == ["fsync .file.tmp", "replace", f"fsync {tmp_path.name}"]


def test_a_file_that_is_missing_reads_as_none_and_one_that_cannot_be_read_is_refused(
    tmp_path: Path,
) -> None:
    assert read_file(tmp_path / "missing") is None
    with pytest.raises(StateError, match="cannot read"):
        read_file(tmp_path)
