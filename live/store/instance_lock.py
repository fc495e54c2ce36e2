"""One process trades a symbol: the lock of a session."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from core.errors import StateError
from core.files import FileLock, LockHeldError, make_folder
from live.store.durable_file import not_writable


class InstanceLock:
    """Context manager that lets one process at a time trade a symbol.

    Args:
        path: named after what it guards, such as ``BTCUSDT.lock``; holds the process's id.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, FileLock(path)

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            StateError: another process (or another lock of this one) has it, or the file cannot
                be written.
        """
        try:
            make_folder(self._path.parent, private=True)
            self._lock.__enter__()
        except LockHeldError as error:
            raise StateError(
                f"another process (pid {error.holder}) trades {self._path.stem}: stop it first"
            ) from None
        except OSError as error:
            raise not_writable(self._path, error) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lock."""
        self._lock.release()
