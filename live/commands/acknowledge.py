"""A person says that an emergency has reached them: it does not go to the second channel."""

from __future__ import annotations

from pathlib import Path

from core.command_line import say
from core.errors import StateError
from live.commands.target import Target
from live.store.control_log import ControlLog
from live.store.durable_file import read_file, write_atomically


def acknowledge(target: Target, now_ms: int) -> int:
    """Note that a person knows, and return the exit code.

    Raises:
        StateError: the folder cannot be written.
    """
    write_atomically(target.acknowledged_path, f"{now_ms}\n".encode())
    ControlLog(target.symbol, target.state_folder).append("acknowledge", now_ms)
    say(f"{target.symbol}: acknowledged; emergencies from now on are new ones")
    return 0


def acknowledged_ms(path: Path) -> int:
    """Return when a person last acknowledged, ms UTC; 0 if never or if the file is unreadable."""
    try:
        text = (read_file(path) or b"").decode("ascii", "replace").strip()
    except StateError:
        return 0
    return int(text) if text.isdigit() and len(text) < 20 else 0  # noqa: PLR2004 - digits of a time
