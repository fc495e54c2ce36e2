"""Where a session keeps its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def mode_folder(settings: Mapping[str, Any], key: str, mode: str) -> Path:
    """Return the folder under ``settings[key]`` that a mode has for itself; that of live is it."""
    folder = Path(settings[key])
    return folder if mode == "live" else folder / mode
