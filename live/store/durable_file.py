"""Whole files: how what a session keeps is named, read and written."""

from __future__ import annotations

import os
import re
from pathlib import Path

from core.errors import ConfigError, StateError


def plain_symbol(symbol: str) -> str:
    """Return ``BTCUSDT`` for that, ``BTC/USDT`` or ``BTC/USDT:USDT``: what files are named by.

    Raises:
        ConfigError: it is none of these.
    """
    plain = symbol.partition(":")[0].replace("/", "")
    if not re.fullmatch(r"[A-Z0-9]+", plain):
        raise ConfigError(f"symbol = {symbol!r} must be like BTC/USDT or BTCUSDT")
    return plain


def read_file(path: Path) -> bytes | None:
    """Return the bytes of ``path``, None if there is no such file.

    Raises:
        StateError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(
            f"cannot read {path}: {error.strerror or error}; make rights there"
        ) from None


def write_atomically(path: Path, body: bytes) -> None:
    """Replace ``path`` by ``body``: at any moment the old or the new file is there, whole.

    There must be one writer per path, which ``InstanceLock`` sees to: the temporary file has a
    fixed name, so that one left by a killed process is used again.

    Raises:
        StateError: the folder cannot be written or the disk is full. The old file stays, unless
            only the last step, making the folder durable, failed: then it is the new one.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_durably(temporary, body, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise not_writable(path, error) from None


def write_durably(path: Path, body: bytes, flags: int) -> None:
    """Write all of ``body`` to ``path``, opened with ``flags``, and wait until it is on the disk.

    Raises:
        OSError: any part of that failed; some of ``body`` may have been written.
    """
    descriptor = os.open(path, flags, 0o644)
    try:
        rest = memoryview(body)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def not_writable(path: Path, error: OSError) -> StateError:
    """Return the error that says ``path`` could not be written and what to do."""
    return StateError(f"cannot write {path}: {error.strerror or error}; make room or rights there")
