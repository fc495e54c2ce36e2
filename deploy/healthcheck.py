"""Whether a session lives and its positions have their stops, by its health file.

``python3 deploy/healthcheck.py [FILE]``

Without a file the newest one under ``data/live_state`` counts. Needs nothing but Python, so that it
can be asked every minute. Exit code 0: all is well; 1: it does not live, or a position is without
its stop, with a line that says why.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

FOLDER: Final = Path("data/live_state")
SILENT_MS: Final = 120_000
"""A session that lives writes its file every half minute, also while it waits for a candle."""


def problem(body: str, now_ms: int) -> str:
    """Return what is wrong with the session that wrote ``body``, '' if it lives.

    Args:
        body: of its health file.
        now_ms: ms UTC.
    """
    try:
        health = json.loads(body)
        status, age_ms = str(health["status"]), now_ms - int(health["updated_at"])
        conditions = {str(name): str(text) for name, text in health.get("conditions", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"the health file cannot be read: {error!r}"
    unprotected = [name.removesuffix(" stop") for name in conditions if name.endswith(" stop")]
    if unprotected:
        sides = " and ".join(sorted(unprotected))
        return f"{sides} without a stop at the exchange: {conditions[unprotected[0] + ' stop']}"
    if status == "STOPPED":
        return "the session has stopped"
    return f"no sign of life for {age_ms // 1_000} s" if age_ms > SILENT_MS else ""


def main(arguments: Sequence[str]) -> int:
    """Judge the file named, else the newest, and return the exit code."""
    paths = [Path(text) for text in arguments] or list(FOLDER.rglob("*_health.json"))
    try:
        newest = max(paths, key=lambda path: path.stat().st_mtime)
        found = problem(newest.read_text(encoding="utf-8"), time.time_ns() // 1_000_000)
    except ValueError:
        found = f"there is no health file under {FOLDER}"
    except OSError as error:
        found = f"the health file cannot be read: {error}"
    if found:
        print(found)  # noqa: T201
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
