"""The folder that keeps machine code from one process to the next.

Machine code is loaded by unpickling, so whoever can write to the folder can run code as us. It is
used only if it is ours, nobody else's to write, and no link; otherwise nothing is kept.
"""

from __future__ import annotations

import functools
import os
import stat
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


@functools.cache
def cache_folder() -> Path | None:
    """Return the folder for machine code: beside the sources, else in the user's own cache.

    None if neither can be had safely; each process then compiles anew.
    """
    own = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 - "~" may stay
    for folder in (ROOT / ".numba_cache", Path(own) / "gridstrategy"):
        if folder.is_absolute() and make_private(folder):
            return folder
    return None


def make_private(folder: Path) -> bool:
    """Make ``folder`` if it is missing, for us alone; return whether it is safe to use."""
    try:
        folder.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or not _is_ours(found):
            return False
        if found.st_mode & _WRITABLE_BY_OTHERS:
            return False  # somebody may have put code there
        if not all(map(_keeps_entries, folder.resolve().parents)):
            return False  # somebody may put a folder of theirs in its place
        folder.chmod(stat.S_IRWXU)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _keeps_entries(folder: Path) -> bool:
    """Return whether only we and root can exchange what lies in ``folder``.

    In a sticky folder, such as ``/tmp``, others cannot exchange what is ours.
    """
    found = folder.stat()
    shared = found.st_mode & _WRITABLE_BY_OTHERS and not found.st_mode & stat.S_ISVTX
    return not shared and (_is_ours(found) or found.st_uid == 0)


def _is_ours(found: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or found.st_uid == os.getuid()
