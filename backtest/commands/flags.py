"""Which flags of ``main.py`` go together: what would be ignored is refused."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Final

from core.errors import ConfigError

_RUN: Final = ("strategy", "coins", "start", "end")
_DATA: Final = ("data", "demo", "detail")
_PARAMETERS: Final = (
    "strategy",
    "capital",
    "leverage",
    "no_short",
    "preset",
    "params",
    "key",
    "set",
)

HONOURED: Final[Mapping[str, tuple[str, ...]]] = {
    "list_params": ("strategy",),
    "list": ("strategy", "output", "json"),
    "diff": ("strategy", "output", "json"),
    "check": (*_RUN, *_DATA, *_PARAMETERS, "budget", "json"),
    "audit": (*_RUN, *_DATA, *_PARAMETERS, "output", "json"),
    "compare": (*_RUN, *_DATA, *_PARAMETERS, "jobs", "no_plot", "json"),
}
"""Actions other than a backtest, by their flag, and the flags each reads besides."""
_INSTEAD: Final[Mapping[tuple[str, str], str]] = {
    ("check", "output"): "it writes no files",
    ("compare", "output"): "it writes no files",
    ("check", "bands"): "run the backtest with --bands by itself",
    ("audit", "bands"): "run the backtest with --bands by itself",
    ("audit", "budget"): "it reads every row",
}
"""Why not, where the general reason would not do."""


def check_flags(args: argparse.Namespace) -> None:
    """Refuse flags that what is asked for would ignore.

    Args:
        args: of ``main.py``; a flag counts as given where its value is not None, False or empty.

    Raises:
        ConfigError: naming both flags and what to do.
    """
    given = [name for name, value in vars(args).items() if value not in (None, False, [])]
    for task, honoured in HONOURED.items():
        if task not in given:
            continue
        for name in given:
            if name != task and name not in honoured:
                reason = _INSTEAD.get((task, name), "it would be ignored")
                raise ConfigError(
                    f"{flag(task)} and {flag(name)} do not go together: {reason}; leave one out"
                )
        return


def flag(name: str) -> str:
    """Return an argument's name as it is typed."""
    return f"--{name.replace('_', '-')}"
