"""New parameter values in ``config.py``: only the values' own characters change.

``plan_edit`` works the new file out and proves it in memory, ``write_edit`` replaces the old one.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import decode_source
from pathlib import Path
from typing import Any, Final

from backtest.optimize.apply.config_source import rewritten
from core.errors import ConfigError
from core.files import sync_folder, temporary_file
from core.params import StrategyParams, read_value
from core.processes import child_environment

SHIPPED: Final = ("STRATEGY_PARAMS", StrategyParams)
"""Dict of the default strategy, and the class of its parameters."""
_SECOND_NS: Final = 1_000_000_000
_ANY_WRITER: Final = 0o222

# Runs a config as its import would, in a process of its own: it may do anything, even exit. Texts
# of the values are what can be compared and sent back; the hash seed makes those of sets stable.
_EXECUTE: Final = """
import contextlib, json, os, sys
path = sys.argv[1]
sys.path.insert(0, os.path.dirname(path))
names = {"__name__": "config", "__file__": path}
with contextlib.redirect_stdout(sys.stderr):
    exec(compile(sys.stdin.buffer.read(), path, "exec"), names)
json.dump({k: repr(v) for k, v in names.items() if k.isupper() and isinstance(v, dict)}, sys.stdout)
"""


@dataclass(frozen=True, slots=True)
class Change:
    """One value to be rewritten.

    Attributes:
        name: of the parameter.
        before: the value's text in the file.
        after: its new text.
        percent: growth in percent of the old value's size; None where that means nothing.
    """

    name: str
    before: str
    after: str
    percent: float | None


@dataclass(frozen=True, slots=True)
class ConfigEdit:
    """A config file before and after.

    Attributes:
        path: the file itself, links resolved.
        before: its content when the edit was planned.
        after: its content once the edit is written; already proven to hold the new values.
        changes: what differs, in the file's order.
        unchanged: number of parameters given that have their value already.
        values: all parameters the file will hold, JSON-ready.
    """

    path: Path
    before: bytes
    after: bytes
    changes: tuple[Change, ...]
    unchanged: int
    values: Mapping[str, Any]

    @property
    def backup(self) -> Path:
        """Where ``write_edit`` keeps the file as it was."""
        return self.path.with_name(f"{self.path.name}.bak")


def plan_edit(
    config: Path, params: Mapping[str, Any], target: tuple[str, type[Any]] = SHIPPED
) -> ConfigEdit:
    """Work out ``config`` with the values ``params`` in a strategy's dict; write nothing.

    The new source is executed in a process of its own before this returns: it holds exactly the
    new values, and every other dict of the file is as it was.

    Args:
        config: a file like this project's ``config.py``.
        params: some of the strategy parameters, of any type ``core.params.read_value`` takes.
        target: name of the dict in the file, and the class of the parameters in it.

    Raises:
        ConfigError: a parameter is unknown, of the wrong type or out of range, or parameters
            contradict each other; the file cannot be read, executed, or rewritten safely.
    """
    name_of_dict, declared = target
    typed = {name: read_value(name, value, declared) for name, value in params.items()}
    before = _read(config)
    dicts = _executed(before, config)
    old = _strategy_params(dicts, config, target)
    try:
        new = declared.from_dict({**old.to_dict(), **typed})
    except ConfigError as error:
        raise ConfigError(f"with the new values in {config}, {error}") from None
    was, will_be = old.to_dict(), new.to_dict()
    values = {name: value for name, value in will_be.items() if value != was[name]}
    after, texts = rewritten(before, name_of_dict, values, str(config))
    _prove(after, config, new, dicts, target)
    changes = tuple(
        Change(name, *text, _percent(was[name], will_be[name])) for name, text in texts.items()
    )
    same = len(params) - len(changes)
    return ConfigEdit(config.resolve(), before, after, changes, same, will_be)


def _read(config: Path) -> bytes:
    try:
        source = config.read_bytes()
    except OSError as error:
        raise ConfigError(f"{config}: {error.strerror or error}") from None
    try:
        ast.parse(decode_source(source))
    except SyntaxError as error:
        line = f" line {error.lineno}" if error.lineno else ""
        raise ConfigError(f"{config}{line}: is not Python: {error.msg}") from None
    except ValueError as error:
        raise ConfigError(f"{config}: is not Python: {error}") from None
    return source


def _executed(source: bytes, config: Path) -> dict[str, str]:
    """Return the dicts with a capital name that executing ``source`` leaves, as text."""
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-B", "-c", _EXECUTE, str(config.resolve())],
        input=source,
        capture_output=True,
        check=False,
        env={**child_environment(), "PYTHONHASHSEED": "0"},
    )
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else "it ends Python"
        raise ConfigError(f"{config}: cannot be imported: {why}")
    dicts: dict[str, str] = json.loads(done.stdout)
    return dicts


def _strategy_params(dicts: Mapping[str, str], config: Path, target: tuple[str, type[Any]]) -> Any:
    name, declared = target
    if name not in dicts:
        raise ConfigError(f"{config}: must hold a dict {name}, and has none")
    try:
        return declared.from_dict(ast.literal_eval(dicts[name]))
    except ConfigError as error:
        raise ConfigError(f"{config}: {error}") from None
    except (ValueError, SyntaxError, TypeError):
        raise ConfigError(
            f"{config}: {name} must hold plain values under names, and nothing else"
        ) from None


def _prove(
    after: bytes, config: Path, new: Any, before: Mapping[str, str], target: tuple[str, type[Any]]
) -> None:
    """Raise ConfigError unless executing ``after`` gives ``new`` and every other dict as before."""
    dicts = _executed(after, config)
    will_be, got = new.to_dict(), _strategy_params(dicts, config, target).to_dict()
    wrong = [name for name in will_be if got[name] != will_be[name]]
    wrong += [name for name in {**before, **dicts} if dicts.get(name) != before.get(name)]
    wrong = [name for name in wrong if name != target[0]]
    if wrong:
        raise ConfigError(
            f"{config}: new values in {target[0]} would not give what they should in: "
            f"{', '.join(wrong)}; other code of that file sets or uses them: edit it by hand"
        )


def _percent(old: Any, new: Any) -> float | None:
    numbers = all(type(value) in {int, float} for value in (old, new))
    return 100.0 * (new - old) / abs(old) if numbers and old else None


def check_writable(edit: ConfigEdit) -> None:
    """Make sure the file may be replaced, before anybody is asked whether it shall be.

    Raises:
        ConfigError: the file or its folder is read-only; for root too, who could write it.
    """
    for path, what in ((edit.path, "file"), (edit.path.parent, "folder")):
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise _not_written(edit, error) from None
        if not (mode & _ANY_WRITER and os.access(path, os.W_OK)):
            raise ConfigError(
                f"cannot write {edit.path}: the {what} is read-only; chmod u+w {path} allows it"
            )


def write_edit(edit: ConfigEdit) -> None:
    """Replace the file as a whole, and its backup by what it was; the mode stays.

    The backup keeps the old time of change, and the new file gets one at least a second later: else
    Python would go on using the other's compiled values where both have the same size.

    Raises:
        ConfigError: the file was changed since the edit was planned, or cannot be written; it
            stays as it is.
    """
    try:
        _check_same(edit)
        time_ns = edit.path.stat().st_mtime_ns
        with _temporary(edit, edit.before) as old, _temporary(edit, edit.after) as new:
            os.utime(old, ns=(time_ns, time_ns))
            later_ns = max(new.stat().st_mtime_ns, time_ns + _SECOND_NS)
            os.utime(new, ns=(later_ns, later_ns))
            old.replace(edit.backup)
            new.replace(edit.path)
        sync_folder(edit.path.parent)
    except OSError as error:
        raise _not_written(edit, error) from None


def _check_same(edit: ConfigEdit) -> None:
    if edit.path.read_bytes() != edit.before:
        raise ConfigError(f"{edit.path} was changed by somebody else meanwhile; start again")


def _not_written(edit: ConfigEdit, error: OSError) -> ConfigError:
    return ConfigError(f"cannot write {edit.path}: {error.strerror or error}; it is as it was")


@contextlib.contextmanager
def _temporary(edit: ConfigEdit, body: bytes) -> Iterator[Path]:
    """Hold ``body`` in a file beside ``edit.path``, on disk and with its mode and owner."""
    path = edit.path.with_name(f".{edit.path.name}.{uuid.uuid4().hex[:12]}.tmp")
    with temporary_file(path, body, like=edit.path.stat()):
        yield path
