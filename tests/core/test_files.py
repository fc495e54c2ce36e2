"""The disk: private files stay so, links are not followed, other users cannot take locks."""

from __future__ import annotations

import fcntl
import gzip
import os
import stat
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.files import (
    FileLock,
    FileTooLargeError,
    LockHeldError,
    append_line,
    gunzip,
    is_open_to_others,
    is_writable_by_others,
    make_folder,
    open_private,
    read_json,
    read_limited,
    sync_folder,
    temporary_file,
    unzip_first,
    write_atomically,
)
from tests.support.paths import ROOT


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(autouse=True)
def _generous_umask() -> Iterator[None]:
    """Files are private by what is asked for, not by luck."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_private_file_and_the_folders_it_needs_are_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "live_state" / "dry" / "file.json"
    write_atomically(path, b"state", private=True)
    assert mode(path) == 0o600
    assert mode(path.parent) == mode(path.parent.parent) == 0o700
    write_atomically(tmp_path / "results" / "file.csv", b"rows")
    assert mode(tmp_path / "results" / "file.csv") == 0o644


def test_a_folder_that_is_there_keeps_its_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_folder(tmp_path, private=True)
    assert mode(tmp_path) == 0o755


def test_a_private_write_never_exists_with_wider_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = os.write

    def watched(descriptor: int, body: bytes) -> int:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return real(descriptor, body)

    monkeypatch.setattr(os, "write", watched)
    write_atomically(tmp_path / "file", b"state", private=True)
    assert seen == [0o600]


@pytest.mark.parametrize("name", ["file", ".file.tmp"])
def test_a_link_at_either_name_of_a_write_is_replaced_and_its_target_stays(
    tmp_path: Path, name: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"theirs")
    (tmp_path / name).symlink_to(victim)
    write_atomically(tmp_path / "file", b"ours", private=True)
    assert victim.read_bytes() == b"theirs"
    assert (tmp_path / "file").read_bytes() == b"ours"
    assert not (tmp_path / "file").is_symlink()


def test_a_temporary_file_that_is_there_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"theirs")
    with pytest.raises(FileExistsError), temporary_file(tmp_path / "x", b"ours"):
        pytest.fail("it was taken")


def test_appending_and_opening_follow_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"theirs")
    (tmp_path / "log").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        append_line(tmp_path / "log", b"ours")
    with pytest.raises(OSError, match="symbolic links"):
        open_private(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    assert victim.read_bytes() == b"theirs"


def test_a_file_of_an_earlier_version_becomes_private_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "BTCUSDT.log"
    path.write_text("old")
    assert mode(path) == 0o644
    os.close(open_private(path, os.O_WRONLY | os.O_APPEND))
    assert mode(path) == 0o600


def test_lines_are_appended_whole_and_after_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "runs.jsonl"
    assert append_line(path, b"one") == 0
    path.write_bytes(path.read_bytes() + b"torn")
    assert append_line(path, b"two") == 9
    assert path.read_bytes() == b"one\ntorn\ntwo\n"


def test_a_file_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_limited(path, 5) == b"12345"
    with pytest.raises(FileTooLargeError, match="5 bytes, must be at most 4"):
        read_limited(path, 4)


def test_a_folder_that_cannot_be_synced_at_all_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    sync_folder(tmp_path)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"9" * 5_000, "5000 digits"),
        (b"{", "Expecting"),
        (b"\xff\xfe\x00", "codec"),
        (b"", "Expecting value"),
    ],
)
def test_json_of_anybody_is_read_or_a_value_error(tmp_path: Path, body: bytes, reason: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(body)
    with pytest.raises(ValueError, match=reason):
        read_json(path)


def test_gzip_that_swells_is_cut_off_or_damaged_is_a_value_error() -> None:
    assert gunzip(gzip.compress(b"rows")) == b"rows"
    bomb = gzip.compress(bytes(50 << 20))
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than 1 MB when decompressed"):
        gunzip(bomb, 1 << 20)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    for body in (b"", b"PK", gzip.compress(b"rows" * 99)[:-9], gzip.compress(b"x")[:8] + b"!!!!"):
        with pytest.raises(ValueError, match="not usable as gzip"):
            gunzip(body)


def zip_of(path: Path, *bodies: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, body in enumerate(bodies):
            archive.writestr(f"{number}.csv", body)
    return path


def test_a_zip_is_read_within_limits(tmp_path: Path) -> None:
    assert unzip_first(zip_of(tmp_path / "a.zip", b"rows", b"more")) == (b"rows", 2)
    bomb = zip_of(tmp_path / "b.zip", bytes(100 << 20))
    tracemalloc.start()
    with pytest.raises(ValueError, match="compressed more than 200 to 1"):
        unzip_first(bomb)
    assert tracemalloc.get_traced_memory()[1] < 60 << 20
    tracemalloc.stop()
    with pytest.raises(ValueError, match="holds more than 0 MB"):
        unzip_first(zip_of(tmp_path / "c.zip", os.urandom(2_000)), 1_000)
    with pytest.raises(ValueError, match="index out of range"):
        unzip_first(zip_of(tmp_path / "d.zip"))


@pytest.mark.parametrize("keep", [0, 4, 40, 200, 1_000])
def test_a_zip_that_was_cut_off_is_a_value_error(tmp_path: Path, keep: int) -> None:
    path = zip_of(tmp_path / "a.zip", os.urandom(2_000))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="not a zip file"):
        unzip_first(path)


# --- locks ----------------------------------------------------------------------------------------


def test_a_lock_is_ours_alone_from_the_start(tmp_path: Path) -> None:
    with FileLock(tmp_path / "x.lock"):
        assert mode(tmp_path / "x.lock") == 0o600


OTHER_USER = """
import fcntl, os, sys
os.setuid(12345)
try:
    file = os.open(sys.argv[1], os.O_RDONLY)
except OSError as error:
    print(type(error).__name__, flush=True)
else:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_cannot_lock_us_out(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    path = tmp_path / "BTCUSDT.lock"
    with FileLock(path):
        pass
    with subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-c", OTHER_USER, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "PermissionError\n"
        with FileLock(path):
            pass
        other.kill()


def test_a_lock_file_that_others_could_open_is_replaced_so_that_they_hold_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "BTCUSDT.lock"
    path.write_text("")
    path.chmod(0o644)
    with path.open("rb") as theirs:  # opened while it could be
        with FileLock(path):
            assert mode(path) == 0o600
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with FileLock(path):
            pass


def test_a_lock_replaced_while_it_was_waited_for_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.lock"
    path.touch(0o600)
    old = path.stat().st_ino
    real, calls = fcntl.flock, 0

    def replaced(descriptor: int, how: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            path.rename(tmp_path / "moved")  # keeps its number from being used again
            path.touch(0o600)
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", replaced)
    with FileLock(path):
        assert path.stat().st_ino != old
        assert path.read_text() == f"{os.getpid()}\n"
    assert calls == 2


def test_a_lock_held_names_its_holder_and_a_link_is_refused(tmp_path: Path) -> None:
    with FileLock(tmp_path / "x.lock"), pytest.raises(LockHeldError) as caught:
        FileLock(tmp_path / "x.lock").__enter__()
    assert caught.value.holder == str(os.getpid())
    (tmp_path / "y.lock").symlink_to(tmp_path / "x.lock")
    with pytest.raises(OSError, match="symbolic links"), FileLock(tmp_path / "y.lock"):
        pass


# --- rights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rights", "folder", "is_open"),
    [
        (0o600, 0o700, False),
        (0o400, 0o755, False),
        (0o640, 0o700, True),
        (0o604, 0o700, True),
        (0o602, 0o700, True),
        (0o600, 0o777, True),
        (0o600, 0o770, True),
        (0o600, 0o1777, False),
    ],
)
def test_a_file_is_open_to_others_by_its_rights_or_those_of_its_folder(
    tmp_path: Path, rights: int, folder: int, is_open: bool
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".env").touch()
    (home / ".env").chmod(rights)
    home.chmod(folder)
    assert is_open_to_others(home / ".env") is is_open


def test_a_folder_further_up_that_others_can_write_to_counts(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert not is_writable_by_others(deep)
    (tmp_path / "a").chmod(0o777)
    assert is_writable_by_others(deep)


def test_a_link_to_a_file_counts_as_open(tmp_path: Path) -> None:
    (tmp_path / "real").touch(0o600)
    (tmp_path / ".env").symlink_to(tmp_path / "real")
    assert is_open_to_others(tmp_path / ".env")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_counts_as_open(tmp_path: Path) -> None:
    (tmp_path / ".env").touch(0o600)
    os.chown(tmp_path / ".env", 12345, 12345)
    assert is_open_to_others(tmp_path / ".env")
