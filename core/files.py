"""The disk: whole files, private files, locks, and folders nobody else can write to.

Everything here raises ``OSError``; whoever calls says what it means. Nothing follows a link at the
name it opens, because somebody who can make links there could choose the file that is written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import lzma
import os
import stat
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

PRIVATE_FILE: Final = 0o600
MOST_RATIO: Final = 200
"""Decompressed over compressed bytes; candles have about 5. Counts from a megabyte on."""
_DAMAGED_ZIP: Final = (
    zipfile.BadZipFile,  # torn, or a checksum that is wrong
    zlib.error,
    lzma.LZMAError,
    EOFError,  # cut off
    IndexError,  # nothing in it
    NotImplementedError,  # a compression or a feature nobody uses
    RuntimeError,  # encrypted
)
"""Errors of reading a damaged zip, besides OSError and ValueError."""
LARGEST_DOCUMENT: Final = 256 << 20
"""Bytes of the largest document that is read whole; years of results have a tenth of that."""
PRIVATE_FOLDER: Final = 0o700
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
"""Rights of anybody but the owner."""
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_ABANDONED_S: Final = 3_600.0
_SAFE: Final = os.O_NOFOLLOW | os.O_CLOEXEC
_NO_FOLDER_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})
"""Errors of network file systems that cannot make a folder durable."""


class LockHeldError(BlockingIOError):
    """Somebody else has the lock.

    Attributes:
        holder: process id as the holder wrote it down, or ``unknown``.
    """

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(errno.EWOULDBLOCK, f"in use by process {holder}", str(path))
        self.holder = holder


class FileTooLargeError(OSError):
    """A file is larger than anything this program writes there."""

    def __init__(self, path: Path, size: int, limit: int) -> None:
        super().__init__(errno.EFBIG, f"{size} bytes, must be at most {limit}", str(path))


def make_folder(folder: Path, *, private: bool = False) -> None:
    """Make ``folder`` and its parents; those missing are ours alone if ``private``.

    A folder that is there keeps its rights: it may hold other things than ours.
    """
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for item in reversed(missing):
        item.mkdir(mode=PRIVATE_FOLDER if private else 0o777, exist_ok=True)


def read_limited(path: Path, limit: int) -> bytes:
    """Return the bytes of ``path``.

    Raises:
        FileTooLargeError: there are more than ``limit``; nothing that large is read.
    """
    with path.open("rb") as file:
        body = file.read(limit + 1)
        if len(body) > limit:
            raise FileTooLargeError(path, max(os.fstat(file.fileno()).st_size, limit + 1), limit)
    return body


def read_json(path: Path, limit: int = LARGEST_DOCUMENT, **options: Any) -> Any:
    """Return what a JSON file holds; ``options`` are of ``json.loads``.

    Raises:
        OSError: it cannot be read or is larger than ``limit`` bytes.
        ValueError: it is no JSON, or holds a number of thousands of digits or too deep a nesting.
    """
    return parse_json(read_limited(path, limit), **options)


def parse_json(text: str | bytes, **options: Any) -> Any:
    """Return what a JSON text says, whoever wrote it.

    Raises:
        ValueError: it is no JSON, or holds a number of thousands of digits or too deep a nesting.
    """
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def gunzip(body: bytes, limit: int = LARGEST_DOCUMENT) -> bytes:
    """Return decompressed gzip.

    Raises:
        ValueError: it is none, is damaged or cut off, or holds more than ``limit`` bytes.
    """
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        found = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise ValueError(f"not usable as gzip: {error}") from None
    if len(found) > limit:
        raise ValueError(f"more than {limit >> 20} MB when decompressed; not read")
    if not inflate.eof:
        raise ValueError("not usable as gzip: it is cut off")
    return found


def unzip_first(source: Path | BinaryIO, limit: int = LARGEST_DOCUMENT) -> tuple[bytes, int]:
    """Return the first file in a zip, and how many files it has.

    Raises:
        OSError: the zip cannot be read.
        ValueError: it is damaged, encrypted or empty, holds more than ``limit`` bytes, or is
            compressed more than ``MOST_RATIO`` to 1; no more than the limit is decompressed.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            members = archive.infolist()
            swollen = max(1 << 20, MOST_RATIO * members[0].compress_size)
            with archive.open(members[0]) as file:
                body = file.read(min(limit, swollen) + 1)
    except _DAMAGED_ZIP as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    if len(body) > limit:
        raise ValueError(f"it holds more than {limit >> 20} MB")
    if len(body) > swollen:
        raise ValueError(f"it is compressed more than {MOST_RATIO} to 1")
    return body, len(members)


# --- writing --------------------------------------------------------------------------------------


def write_atomically(path: Path, body: bytes, *, private: bool = False) -> None:
    """Replace ``path`` by ``body``: at any moment the old or the new file is there, whole.

    Args:
        path: its folder is made if there is none.
        private: for our eyes only, and with one writer, which a lock sees to. The temporary file
            then has a fixed name, so that one left by a killed process goes with the next write.
            Otherwise several processes may write; each has a name of its own, and what was
            abandoned for an hour is removed.

    Raises:
        OSError: the old file stays, unless only the last step, making the folder durable, failed.
    """
    make_folder(path.parent, private=private)
    if private:
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.unlink(missing_ok=True)
    else:
        _remove_abandoned(path)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    with temporary_file(temporary, body, PRIVATE_FILE if private else 0o666):
        temporary.replace(path)
    sync_folder(path.parent)


@contextlib.contextmanager
def temporary_file(
    path: Path, body: bytes, mode: int = PRIVATE_FILE, like: os.stat_result | None = None
) -> Iterator[None]:
    """Hold ``body`` in a new file ``path``, on the disk; it is removed unless it was moved away.

    Args:
        path: must not exist.
        mode: rights, less those the umask takes.
        like: a file whose rights, and owner where that is allowed, the new one gets too.
    """
    try:
        write_durably(path, body, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, like)
        yield
    finally:
        path.unlink(missing_ok=True)


def write_durably(
    path: Path,
    body: bytes,
    flags: int,
    mode: int = PRIVATE_FILE,
    like: os.stat_result | None = None,
) -> None:
    """Write all of ``body`` to ``path``, opened with ``flags``, and wait until it is on the disk.

    Raises:
        OSError: any part of that failed; some of ``body`` may have been written.
    """
    descriptor = os.open(path, flags | _SAFE, mode)
    try:
        rest = memoryview(body)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if like is not None:
            with contextlib.suppress(PermissionError):  # only root may give files away
                os.fchown(descriptor, like.st_uid, like.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, line: bytes) -> int:
    """Append ``line`` and a line break, durably, and return where in the file the line begins.

    A last line that was torn is ended first. Several processes may append at once.
    """
    make_folder(path.parent)
    with FileLock(lock_path(path), wait=True):
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        with os.fdopen(os.open(path, flags | _SAFE, 0o666), "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            torn = file.read(1) not in {b"", b"\n"}
            file.write((b"\n" if torn else b"") + line + b"\n")
            os.fsync(file.fileno())
    return size + torn


def lock_path(path: Path) -> Path:
    """Return where the lock of a file lies that several processes write."""
    return path.with_name(f".{path.name}.lock")


def open_private(path: Path, flags: int) -> int:
    """Return a descriptor of ``path``, which is for our eyes only from now on.

    Its folder is made if there is none; a link is refused.
    """
    make_folder(path.parent, private=True)
    descriptor = os.open(path, flags | _SAFE, PRIVATE_FILE)
    found = os.fstat(descriptor)
    if found.st_uid == os.geteuid() and found.st_mode & OTHERS:
        os.fchmod(descriptor, PRIVATE_FILE)
    return descriptor


def sync_folder(folder: Path) -> None:
    """Make what was moved within ``folder`` outlast a power failure, where the disk can do that."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def _remove_abandoned(path: Path) -> None:
    for left in path.parent.glob(f".{path.name}.*.tmp"):  # by a process that was killed
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.lstat().st_mtime > _ABANDONED_S:
                left.unlink()


# --- locks ----------------------------------------------------------------------------------------


class FileLock:
    """Context manager that lets one process at a time do something.

    The lock is the kernel's (``flock``), not the file's presence: it goes with the process however
    that ends, and a file left over does not lock. The file is for our eyes only, because whoever
    can open a file can lock it and would keep us out; one that others could open is replaced by
    one they cannot. It is never removed otherwise: a process that had just opened it would then
    hold a lock on nothing.

    Args:
        path: of the lock, in a folder that is there; holds the process's id.
        wait: for as long as somebody else has it.
    """

    def __init__(self, path: Path, *, wait: bool = False) -> None:
        self._path, self._wait = path, wait
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            LockHeldError: another process (or another lock of this one) has it.
            OSError: the file cannot be written, or its folder is not there.
        """
        while self._descriptor < 0:
            self._descriptor = self._try()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lock."""
        self.release()

    def release(self) -> None:
        """Release the lock, if it is held."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _try(self) -> int:
        """Return the descriptor that holds the lock, -1 if the file is no longer the one meant."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | _SAFE, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if self._wait else fcntl.LOCK_NB))
            if self._is_usable(descriptor):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
                return descriptor
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            known = holder if holder.isdigit() else "unknown"
            raise LockHeldError(self._path, known) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return -1

    def _is_usable(self, descriptor: int) -> bool:
        """Return whether the locked file is the one at the path and nobody else can lock it."""
        locked = os.fstat(descriptor)
        try:
            named = os.lstat(self._path)
        except FileNotFoundError:
            return False
        if (locked.st_dev, locked.st_ino) != (named.st_dev, named.st_ino):
            return False  # replaced since it was opened
        if locked.st_mode & OTHERS:
            self._path.unlink()  # whoever has it open could lock it whenever we do not
            return False
        return True


# --- rights ---------------------------------------------------------------------------------------


def is_open_to_others(path: Path) -> bool:
    """Return whether anybody but us may read or write the file, or exchange it for another.

    A link, a file of somebody else (root aside) and a folder that others can write to count.
    """
    found = path.lstat()
    trusted = {0, os.geteuid()}
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in trusted or found.st_mode & OTHERS:
        return True
    return is_writable_by_others(path.resolve().parent)


def is_writable_by_others(folder: Path) -> bool:
    """Return whether anybody but us can exchange what lies in ``folder``, or the folder itself.

    Looks at every folder above it too. In one that is sticky, such as ``/tmp``, others can add
    entries but cannot exchange ours.
    """
    trusted = {0, os.geteuid()}
    for item in (folder.resolve(), *folder.resolve().parents):
        found = item.stat()
        open_to_all = found.st_mode & _WRITABLE_BY_OTHERS and not found.st_mode & stat.S_ISVTX
        if found.st_uid not in trusted or open_to_all:
            return True
    return False
