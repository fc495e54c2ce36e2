"""Decisions that the exchange does not tell: a session is paused, or stopped for good.

A person pauses and the session stops, also while the other one runs: who writes reads first, under
a lock, and changes nothing but its own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from core.errors import StateError
from core.files import FileLock, lock_path, make_folder, parse_json
from live.store.durable_file import not_writable, plain_symbol, read_file, write_atomically


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags of a session whose state is at the exchange."""

    paused: bool = False
    stopped: bool = False


class FlagsFile:
    """``{SYMBOL}_fixed_flags.json`` in ``folder``; written when something in it changes.

    A session calls ``look`` often; a pause that a person has written meanwhile begins there.

    Args:
        symbol: such as BTCUSDT.
        folder: made when first written.
    """

    def __init__(self, symbol: str, folder: Path) -> None:
        self.path = folder / f"{plain_symbol(symbol)}_fixed_flags.json"
        self._seen: tuple[int, int] | None = None
        self._was_stopped = False

    def read(self) -> Flags:
        """Return what is kept; without a file nothing is.

        Raises:
            StateError: the file cannot be read.
        """
        body = read_file(self.path)
        if body is None:
            return Flags()
        try:
            found: Any = parse_json(body)
            return Flags(paused=bool(found["paused"]), stopped=bool(found["stopped"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(
                f"{self.path} cannot be read: {error}; it says whether the session was paused or "
                "stopped: correct it, or move it away if it was neither"
            ) from None

    def look(self, strategy: Any, log: logging.Logger) -> None:
        """Let a strategy pause, or go on, where a person has said so since the last look.

        A file that cannot be read pauses it, and stays as it is.
        """
        seen = self._stamp()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            paused = self.read().paused
        except StateError as error:
            log.error("nothing is entered: %s", error)  # noqa: TRY400 - expected: it says it all
            paused = True
        if paused != strategy.paused:
            log.warning("%s", "paused: nothing is entered" if paused else "entries go on")
        strategy.set_flags(paused=paused, stopped=strategy.is_stopping_price_reached)
        if paused:
            strategy.drop_entry()

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino

    def keep(self, strategy: Any) -> None:
        """Write down that a strategy has stopped, once.

        Raises:
            StateError: it cannot be written.
        """
        if not strategy.is_stopping_price_reached or self._was_stopped:
            return
        self.change(stopped=True)
        self._was_stopped = True

    def change(self, **flags: bool) -> Flags:
        """Write some of the flags down; return all of them, as they are then.

        Raises:
            StateError: the file cannot be read or written.
        """
        with self._locked():
            before = self.read()
            after = replace(before, **flags)
            if after != before:
                write_atomically(self.path, json.dumps(asdict(after)).encode())
        return after

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            make_folder(self.path.parent, private=True)
            lock = FileLock(lock_path(self.path), wait=True)
            lock.__enter__()
        except OSError as error:
            raise not_writable(self.path, error) from None
        try:
            yield
        finally:
            lock.__exit__(None, None, None)
