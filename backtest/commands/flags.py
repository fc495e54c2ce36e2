"""Which flags of ``main.py`` go together: what would be ignored is refused."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Final

from core.errors import ConfigError
from engine.options import chosen_strategy

_RUN: Final = ("strategy", "coins", "start", "end")
_DATA: Final = ("data", "demo", "detail")
_PORTFOLIO: Final = ("portfolio", "weights", "allocate")
_TICKS: Final = ("ticks", "queue", "latency")
"""Flags of strategies on recorded ticks; of those on candles the others."""
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
    "list_data": ("data",),
    "list": ("strategy", "output", "json"),
    "diff": ("strategy", "output", "json"),
    "check": (*_RUN, *_DATA, *_PARAMETERS, "budget", "json"),
    "audit": (*_RUN, *_DATA, *_PARAMETERS, "output", "json"),
    "compare": (*_RUN, *_DATA, *_PARAMETERS, "jobs", "no_plot", "json"),
}
"""Actions other than a backtest, by their flag, and the flags each reads besides."""
_OF_TICKS: Final = (
    *("strategy", "coins", "demo", *_TICKS, "preset", "params", "key", "set", "leverage"),
    *("output", "json", "no_plot", "list_params", "list", "diff"),
)
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
    _check_kind(args, given)
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


def _check_kind(args: argparse.Namespace, given: list[str]) -> None:
    """Refuse flags about candles of a strategy on ticks, and the other way round.

    Raises:
        ConfigError: naming the flag, and what to do.
    """
    spec = chosen_strategy(args)
    for name in given:
        if spec.needs.streams and name not in _OF_TICKS:
            raise ConfigError(
                f"{flag(name)} is not for {spec.name}, which runs on recorded ticks; leave it out"
                + (" and give the recordings with --ticks DIR" if name == "data" else "")
            )
        if name in _TICKS and not spec.needs.streams:
            raise ConfigError(
                f"{flag(name)} is not for {spec.name}, which runs on candles; leave it out, or add "
                "--strategy short_grid"
            )
    reads = {"demo", "ticks", "list_params", "list", "diff"}
    if spec.needs.streams and not reads & set(given):
        raise ConfigError(
            f"{spec.name} runs on recorded ticks: name their folder with --ticks DIR, or use --demo"
        )


def flag(name: str) -> str:
    """Return an argument's name as it is typed."""
    return f"--{name.replace('_', '-')}"
