"""Files of a session: how they are named, and the errors of the disk in our words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from core import files
from core.errors import ConfigError, StateError

LARGEST: Final = 1 << 30
"""Bytes of the largest file that is read: years of trades; a state has less than one percent."""


def plain_symbol(symbol: str) -> str:
    """Return ``BTCUSDT`` for that, ``BTC/USDT`` or ``BTC/USDT:USDT``: what files are named by.

    A coin may be written in any alphabet (币安人生).

    Raises:
        ConfigError: it is none of these.
    """
    plain = symbol.partition(":")[0].replace("/", "")
    if not plain.isalnum() or plain != plain.upper():
        raise ConfigError(f"symbol = {symbol!r} must be like BTC/USDT or BTCUSDT")
    return plain


def read_file(path: Path) -> bytes | None:
    """Return the bytes of ``path``, None if there is no such file.

    Raises:
        StateError: it cannot be read, or is larger than ``LARGEST``.
    """
    try:
        return files.read_limited(path, LARGEST)
    except FileNotFoundError:
        return None
    except files.FileTooLargeError as error:
        raise StateError(
            f"cannot read {path}: {error.strerror}; it is none of ours, move it away"
        ) from None
    except OSError as error:
        raise StateError(
            f"cannot read {path}: {error.strerror or error}; make rights there"
        ) from None


def write_atomically(path: Path, body: bytes) -> None:
    """Replace ``path`` by ``body``, for our eyes only: the old or the new file is there, whole.

    There must be one writer per path, which ``InstanceLock`` sees to.

    Raises:
        StateError: the folder cannot be written or the disk is full. The old file stays, unless
            only the last step, making the folder durable, failed: then it is the new one.
    """
    try:
        files.write_atomically(path, body, private=True)
    except OSError as error:
        raise not_writable(path, error) from None


def append_durably(path: Path, body: bytes) -> None:
    """Append ``body`` to ``path``, which is there, and wait until it is on the disk.

    Raises:
        StateError: any part of that failed; some of ``body`` may have been written.
    """
    try:
        files.write_durably(path, body, os.O_WRONLY | os.O_APPEND)
    except OSError as error:
        raise not_writable(path, error) from None


def not_writable(path: Path, error: OSError) -> StateError:
    """Return the error that says ``path`` could not be written and what to do."""
    return StateError(f"cannot write {path}: {error.strerror or error}; make room or rights there")
