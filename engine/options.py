"""The command line's options of a strategy: the same words on every command."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from core.errors import ConfigError
from core.files import read_json
from core.params import unknown_key
from engine.contract import StrategySpec
from engine.registry import DEFAULT, SPECS, find_strategy, read_one

_FLAGS: Final = {"initial_capital": "capital", "leverage": "leverage"}


def add_strategy_option(group: Any) -> None:
    """Add ``--strategy``, which ``chosen_strategy`` reads."""
    group.add_argument(
        "--strategy", metavar="NAME", help=f"one of: {', '.join(SPECS)} (default: {DEFAULT.name})"
    )


def chosen_strategy(args: argparse.Namespace) -> StrategySpec:
    """Return the strategy that ``--strategy`` names, the default one without it.

    Raises:
        ConfigError: there is none of that name.
    """
    return DEFAULT if args.strategy is None else find_strategy(args.strategy)


def add_parameter_options(group: Any, capital: str) -> None:
    """Add the flags that ``chosen_params`` reads; ``capital`` is the help of ``--capital``."""
    add_strategy_option(group)
    group.add_argument("--capital", metavar="USDT", help=capital)
    group.add_argument(
        "--leverage",
        metavar="X",
        help=f"multiplies order sizes and caps (default: {DEFAULT.defaults['leverage']:g})",
    )
    group.add_argument("--no-short", action="store_true", help="trade the long grid only")
    add_value_options(group, "any strategy parameter; repeatable")


def add_value_options(group: Any, about_set: str) -> None:
    """Add the flags that say where parameters come from; ``about_set`` is the help of ``--set``."""
    group.add_argument("--preset", metavar="NAME", help=f"one of: {', '.join(DEFAULT.presets)}")
    group.add_argument("--params", type=Path, metavar="FILE", help="a JSON object of parameters")
    group.add_argument("--key", metavar="KEY", help="the object inside FILE that holds them")
    group.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=about_set)


def parameter_names() -> str:
    """Return the names ``--set`` knows, for the end of a help text."""
    names = textwrap.fill(
        " ".join(DEFAULT.defaults),
        width=96,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"parameters for --set (main.py --list-params explains them):\n{names}"


def chosen_params(args: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters the arguments change, the later source winning.

    Raises:
        ConfigError: a strategy, preset, file, key or value is unusable.
    """
    chosen: dict[str, Any] = {}
    spec = chosen_strategy(args)
    presets = spec.presets
    if args.preset is not None:
        if args.preset not in presets:
            raise ConfigError(unknown_key(args.preset, presets, "preset") + _among(presets))
        chosen |= presets[args.preset]
    if args.params is not None:
        chosen |= read_params_file(args.params, args.key)
    elif args.key is not None:
        raise ConfigError(f"--key {args.key} needs --params FILE, the file to look in")
    for item in args.set:
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item!r} must be KEY=VALUE, such as --set grid_levels=8")
        chosen[key.strip()] = value.strip()
    flags = {name: getattr(args, flag, None) for name, flag in _FLAGS.items()}
    chosen |= {key: value for key, value in flags.items() if value is not None}
    if getattr(args, "no_short", False):
        chosen["allow_short"] = False
    return {key: read_one(spec, key, value) for key, value in chosen.items()}


def read_params_file(path: Path, key: str | None) -> dict[str, Any]:
    """Return the JSON object in ``path``, or the one under its ``key``.

    Raises:
        ConfigError: the file cannot be read, or holds no such object.
    """
    try:
        content = read_json(path)
    except OSError as error:
        raise ConfigError(f"--params {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"--params {path}: is not JSON: {error}") from None
    if key is not None and isinstance(content, dict):
        if key not in content:
            unknown = unknown_key(key, content, "key")
            raise ConfigError(f"--params {path}: {unknown}{_among(content)}")
        content = content[key]
    if not isinstance(content, dict):
        where = f"under {key!r}" if key is not None else "at the top"
        raise ConfigError(f"--params {path}: {where} must be an object of parameters")
    nested = [name for name in content if isinstance(content[name], dict)]
    if nested:
        raise ConfigError(f"--params {path}: holds objects; choose with --key{_among(nested)}")
    return content


def _among(names: Iterable[str]) -> str:
    return f" (there are: {', '.join(names)})"
