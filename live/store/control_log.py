"""The control log of a session: what people and the program did; no line changes unseen.

Every line holds the hash of the line before it, so a line that was changed, removed or put in
breaks the chain from there on. Who may write the file can write all of it anew: keep the newest
hash elsewhere (it is in every alert about an export) to notice that too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from core.errors import StateError
from core.files import FileLock, lock_path, make_folder, open_private, write_durably
from live.store.durable_file import not_writable, plain_symbol, read_file

FIRST: Final = "0" * 64
"""The hash before the first line."""


class ControlLog:
    """The file ``{SYMBOL}_control.jsonl``.

    Args:
        symbol: such as BTCUSDT.
        folder: of the session's state; made if there is none.
    """

    def __init__(self, symbol: str, folder: Path) -> None:
        self.path = folder / f"{plain_symbol(symbol)}_control.jsonl"

    def append(self, event: str, now_ms: int, **facts: Any) -> str:
        """Write an event down, durably, and return its hash.

        Raises:
            StateError: the file cannot be written, or its chain is broken.
        """
        try:
            make_folder(self.path.parent, private=True)
            with FileLock(lock_path(self.path), wait=True):
                body = read_file(self.path) or b""
                before = _last(self.path, body)
                moment = f"{datetime.fromtimestamp(now_ms / 1e3, UTC):%Y-%m-%d %H:%M:%S}"
                entry = {"at": moment, "event": event, **facts, "before": before}
                entry["hash"] = _hash(entry)
                _append(self.path, json.dumps(entry, allow_nan=False).encode() + b"\n")
        except OSError as error:
            raise not_writable(self.path, error) from None
        return str(entry["hash"])

    def check(self) -> int:
        """Return how many events stand in it.

        Raises:
            StateError: the chain is broken; the first line that does not fit is named.
        """
        body = read_file(self.path) or b""
        _last(self.path, body)
        return body.count(b"\n")


def _append(path: Path, line: bytes) -> None:

    os.close(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
    write_durably(path, line, os.O_WRONLY | os.O_APPEND)


def _last(path: Path, body: bytes) -> str:
    """Return the hash of the last line; a chain that is broken is not written on."""
    before = FIRST
    for number, line in enumerate(body.splitlines(), start=1):
        try:
            entry = json.loads(line)
            is_whole = entry["before"] == before and entry["hash"] == _hash(entry)
        except (ValueError, KeyError, TypeError, RecursionError):
            is_whole = False
        if not is_whole:
            raise StateError(
                f"{path} line {number} does not continue the chain: it, or the one before, was "
                "changed; keep the file and move it away, a new one is begun"
            )
        before = entry["hash"]
    return before


def _hash(entry: Mapping[str, Any]) -> str:
    content = {name: value for name, value in entry.items() if name != "hash"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
