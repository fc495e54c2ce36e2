"""Secrets kept from other processes: children get no keys, nobody reads the memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import sys
from collections.abc import Mapping
from typing import Final

_PR_SET_DUMPABLE: Final = 4
_SECRET_NAME: Final = re.compile(
    r"KEY|SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|ALERT_URL|GRID_STORAGE", re.IGNORECASE
)


def child_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for a child process: without what is named like a secret.

    Every child process is started with it: what needs a key runs in this process.
    """
    given = os.environ if environ is None else environ
    return {name: text for name, text in given.items() if not _SECRET_NAME.search(name)}


def forbid_memory_dumps() -> bool:
    """Keep this process's memory, which holds keys, out of core files and debuggers.

    Sets the limit of core files to 0 and, on Linux, ``PR_SET_DUMPABLE`` to 0: then other programs
    of the same user can read neither its memory nor its environment. Returns whether both worked.
    """
    has_no_core = False
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        has_no_core = True
    return _forbid_dumps() and has_no_core


def _forbid_dumps() -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        call = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return False
    return bool(call(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
