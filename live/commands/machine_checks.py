"""Whether other users of this machine could read the keys or change what is traded with."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from core.errors import ConfigError
from core.files import is_open_to_others, is_writable_by_others
from live.commands.target import Target
from live.exchange.credentials import ENV_FILE

_CONFIG: Final = (
    "alert_urls in config.py holds addresses, which are secrets: put them into GRID_ALERT_URLS, in "
    "the environment or in .env, and leave alert_urls empty"
)


def weaknesses(target: Target) -> list[str]:
    """Return what other users of this machine could do, one line each with its remedy."""
    found = []
    if ENV_FILE.is_symlink() or (ENV_FILE.exists() and is_open_to_others(ENV_FILE)):
        found.append(
            f"{ENV_FILE} can be read or replaced by other users of this machine: chmod 600 "
            f"{ENV_FILE}, make it yours and no link, and chmod go-w the folders it lies in"
        )
    folder = _existing(target.state_folder)
    if is_writable_by_others(folder):
        found.append(
            f"{folder} can be written by other users of this machine, who could change the state: "
            f"chmod go-w {folder} and the folders it lies in"
        )
    if target.settings.get("alert_urls"):
        found.append(_CONFIG)
    return found


def refuse_weaknesses(target: Target) -> None:
    """Refuse to begin with real money where keys or state are open to others.

    Closing is never refused: it makes positions smaller whoever looks on.

    Raises:
        ConfigError: they are; every weakness is named.
    """
    found = weaknesses(target) if target.mode == "live" else []
    if found:
        raise ConfigError("real money is not traded like this: " + "; ".join(found))


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return folder
