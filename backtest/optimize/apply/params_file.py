"""Parameters in a results file of the optimizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from core.errors import ConfigError
from core.files import read_json
from core.params import StrategyParams, read_value, unknown_key

KEYS: Final = ("robust_params", "best_params", "params")
"""Under which the optimizer writes parameters."""
HELD, UNDECIDED, FAILED, NOT_TESTED = ANSWERS = ("held", "undecided", "failed", "not tested")
"""Verdicts, as ``judge.verdict.Answer`` writes them (which takes numpy to import)."""
_SHOWN: Final = 40
"""Characters of a wrong value that a message repeats."""


@dataclass(frozen=True, slots=True)
class ParamsFile:
    """A set of parameters of a results file, with all the file says about it.

    Attributes:
        params: the parameters, typed and within their bounds.
        answer: ``held``, ``undecided``, ``failed`` or ``not tested``; None where it says nothing.
        why: the reasons of that answer.
        warnings: what it does not tell.
        strategy: name of the strategy that was searched; "" where it says nothing.
        tested_with: all other parameters they were searched and tested with, as they stand in the
            file, and readable; empty where it says nothing.
    """

    params: dict[str, Any]
    answer: str | None
    why: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    strategy: str = ""
    tested_with: dict[str, Any] = field(default_factory=dict)


def read_params(path: Path, key: str, declared: type[Any] = StrategyParams) -> ParamsFile:
    """Return the parameters under ``key`` of a JSON file, and whether it vouches for them.

    Args:
        path: of the file.
        declared: class of the strategy's parameters.

    Raises:
        ConfigError: the file cannot be read, holds no object of parameters there, or a parameter
            is unknown, of the wrong type or out of range.
    """
    content = _read_object(path)
    if key not in content:
        raise ConfigError(f"{path}: {unknown_key(key, content, 'key')}; {_holders(content)}")
    params = content[key]
    if not isinstance(params, dict) or not params:
        what = "an empty object" if params == {} else _short(params)
        raise ConfigError(f"{path}: {key} is {what}, must be an object of parameters")
    answer, why = _read_verdict(content, path)
    warnings, whole = content.get("oos_warnings", []), content.get("params", {})
    if not isinstance(warnings, list) or not all(isinstance(text, str) for text in warnings):
        raise ConfigError(f"{path}: oos_warnings = {_short(warnings)} must be a list of texts")
    if not isinstance(whole, dict):
        raise ConfigError(f"{path}: params is {_short(whole)}, must be an object of parameters")
    others = {name: value for name, value in whole.items() if name not in params}
    _typed(others, path, "params", declared)
    strategy = strategy_in(path)
    typed = _typed(params, path, key, declared)
    return ParamsFile(typed, answer, why, tuple(warnings), strategy, others)


def strategy_in(path: Path) -> str:
    """Return the name of the strategy a file's parameters belong to, "" where it says nothing.

    Raises:
        ConfigError: the file cannot be read, or the name is none.
    """
    name = _read_object(path).get("strategy", "")
    if not isinstance(name, str):
        raise ConfigError(f"{path}: strategy = {_short(name)} must be the name of a strategy")
    return name


def _read_verdict(content: Mapping[str, Any], path: Path) -> tuple[str | None, tuple[str, ...]]:
    """Return answer and reasons; None where the file has none.

    Raises:
        ConfigError: they are none of those the optimizer writes.
    """
    verdict = content.get("verdict")
    if verdict is None:
        return None, ()
    if not isinstance(verdict, dict) or verdict.get("answer") not in ANSWERS:
        shown = _short(verdict.get("answer") if isinstance(verdict, dict) else verdict)
        raise ConfigError(f"{path}: verdict.answer = {shown} must be one of {', '.join(ANSWERS)}")
    why = verdict.get("why", [])
    if not isinstance(why, list) or not all(isinstance(text, str) for text in why):
        raise ConfigError(f"{path}: verdict.why = {_short(why)} must be a list of texts")
    return verdict["answer"], tuple(why)


def default_key(path: Path) -> str:
    """Return the key of a file's robust choice, of its best trial where it has none.

    Raises:
        ConfigError: the file cannot be read.
    """
    return next((key for key in KEYS[:2] if key in _read_object(path)), KEYS[1])


def _typed(params: Mapping[str, Any], path: Path, key: str, declared: type[Any]) -> dict[str, Any]:
    try:
        return {name: read_value(name, value, declared) for name, value in params.items()}
    except ConfigError as error:
        raise ConfigError(f"{path}: {key}: {error}") from None


def _holders(content: Mapping[str, Any]) -> str:
    """Return which keys hold parameters; a results file has many others."""
    names = [name for name in KEYS if isinstance(content.get(name), dict)]
    if not names:
        return f"parameters are under one of {', '.join(KEYS)}, and it holds none of these"
    return f"parameters are under {' or '.join(names)}"


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path, object_pairs_hook=_without_repetition)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror or error}; choose a results file with --params FILE"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not usable as JSON: {error}") from None
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path}: must hold an object with results, not {_short(content)}")
    return content


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; JSON itself would let the last of two equal names win in silence."""
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} stands in the same object twice")
    return dict(pairs)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
