"""One process trades a symbol: the lock of a session."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from core.errors import StateError
from live.store.durable_file import not_writable


class InstanceLock:
    """Context manager that lets one process at a time trade a symbol.

    The lock is the kernel's (``flock``), not the file's presence: it goes with the process however
    that ends, and a file left over does not lock. The file is never removed, because a process
    that had just opened it would then hold a lock on nothing.

    Args:
        path: named after what it guards, such as ``BTCUSDT.lock``; holds the process's id.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            StateError: another process (or another lock of this one) has it, or the file cannot
                be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
            except BaseException:
                os.close(descriptor)
                raise
        except BlockingIOError:
            raise StateError(
                f"another process (pid {self._owner()}) trades {self._path.stem}: stop it first"
            ) from None
        except OSError as error:
            raise not_writable(self._path, error) from None
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lock."""
        os.close(self._descriptor)
        self._descriptor = -1

    def _owner(self) -> str:
        try:
            text = self._path.read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            text = ""
        return text if text.isdigit() else "unknown"
