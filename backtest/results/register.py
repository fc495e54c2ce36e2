"""Earlier runs: a register with one line per finished coin, and a copy of what a diff needs.

``runs.jsonl`` in the folder of results is the register; ``runs/<id>/`` holds a run's summary and
its trades. Lines are appended whole, under a lock, so several processes may finish at once.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from backtest.market.sources import DEMO, EXCHANGE
from backtest.results.files import not_writable, summary_json, trades_csv, write_file
from backtest.runs.coin_result import CoinResult
from core.errors import ConfigError, DataError
from core.files import (
    LARGEST_DOCUMENT,
    FileLock,
    append_line,
    gunzip,
    lock_path,
    parse_json,
    read_json,
    read_limited,
)

Entry = dict[str, Any]

REGISTER: Final = "runs.jsonl"
COPIES: Final = "runs"
SUMMARY: Final = "summary.json"
TRADES: Final = "trades.csv.gz"
COMPARED: Final = ("metrics", "parameters", "market", "data")
"""Sections of a summary that a comparison reads, each an object."""

_log: Final = logging.getLogger(__name__)
_TEXTS: Final = (
    "id",
    "at",
    "coin",
    "start",
    "end",
    "timeframe",
    "parameters_hash",
    "data_hash",
    "code_fingerprint",
)
_NUMBERS: Final = ("total_return_pct", "max_drawdown_pct", "total_trades")
_ID_LENGTH: Final = 8
_ID: Final = re.compile(rf"[0-9a-f]{{{_ID_LENGTH}}}")
"""Ids name folders, so nothing else is one, wherever it comes from."""


def new_run_id(folder: Path) -> str:
    """Return an id no run in ``folder`` has, eight hexadecimal digits."""
    while (folder / COPIES / (run_id := uuid.uuid4().hex[:_ID_LENGTH])).exists():
        pass
    return run_id


def parameters_hash(params: Mapping[str, Any]) -> str:
    """Return sixteen hexadecimal digits that stand for the values of ``params``."""
    text = json.dumps(params, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def record_run(folder: Path, run_id: str, result: CoinResult) -> list[Path]:
    """Keep a copy of ``result`` and enter it in the register; return the paths of the copy.

    The register is written last: a run it names is there whole.

    Raises:
        DataError: the folder cannot be written.
    """
    copy = _copy_folder(folder, run_id)
    write_file(copy / SUMMARY, summary_json(result))
    write_file(copy / TRADES, gzip.compress(trades_csv(result), mtime=0))
    metrics, data = result.metrics, result.data
    entry = {
        "id": run_id,
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "coin": result.coin,
        **{name: data[name] for name in ("start", "end", "timeframe")},
        **{name: metrics[name] for name in _NUMBERS},
        "parameters_hash": parameters_hash(result.params.to_dict()),
        "data_hash": data["hash"],
        "source": origin_word(str(data["source"])),
        "code_fingerprint": result.fingerprint,
    }
    _append(folder, json.dumps(entry).encode())
    return [copy / SUMMARY, copy / TRADES]


def read_register(folder: Path) -> list[Entry]:
    """Return the runs in ``folder``, oldest first.

    Lines that are no entries, such as one a full disk cut short, are moved to a file beside the
    register, with a warning.

    Raises:
        DataError: the register cannot be read.
    """
    path = folder / REGISTER
    try:
        lines = read_limited(path, LARGEST_DOCUMENT).splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror or error}; make it readable or choose another "
            "folder with --output DIR"
        ) from None
    entries = [_entry(line) for line in lines if line.strip()]
    if None in entries:
        _set_aside(folder)
    return [entry for entry in entries if entry is not None]


def find_run(entries: Sequence[Entry], text: str, folder: Path) -> Entry:
    """Return the run whose id is, or alone begins with, ``text``.

    Raises:
        ConfigError: there is none, or more than one.
    """
    if not entries:
        raise ConfigError(f"no run is on record in {folder / REGISTER}; every backtest adds one")
    found = [entry for entry in entries if entry["id"].startswith(text.lower())]
    if len(found) == 1 and text:
        return found[0]
    if not found:
        raise ConfigError(f"unknown run {text!r}; --list shows the {len(entries)} on record")
    names = ", ".join(entry["id"] for entry in found[:_ID_LENGTH])
    raise ConfigError(f"run {text!r} could be any of {names}; give more digits of the id")


def read_copy(folder: Path, run_id: str) -> tuple[dict[str, Any], str]:
    """Return a run's summary, whose sections ``COMPARED`` are objects, and its trades (CSV).

    Raises:
        DataError: the copy is gone or damaged.
    """
    copy = _copy_folder(folder, run_id)
    try:
        summary = read_json(copy / SUMMARY)
        trades = gunzip(read_limited(copy / TRADES, LARGEST_DOCUMENT)).decode()
    except (OSError, ValueError) as error:
        raise DataError(
            f"the copy of run {run_id} in {copy} cannot be read: {error}; run it again to compare"
        ) from None
    if not isinstance(summary, dict):
        raise DataError(f"{copy / SUMMARY} must hold an object; run it again to compare")
    for name in COMPARED:
        if name not in summary:
            raise DataError(f"{copy / SUMMARY} lacks {name}; run it again to compare")
        if not isinstance(summary[name], dict):
            raise DataError(
                f"{copy / SUMMARY}: {name} = {str(summary[name])[:40]} must be an object; run it "
                "again to compare"
            )
    return summary, trades


def origin_word(source: str) -> str:
    """Return ``demo``, ``files`` or ``exchange`` for where a run's candles came from."""
    first = source.split(" ", 1)[0]
    return first if first in {DEMO, "files"} else EXCHANGE


def runs_table(entries: Sequence[Entry]) -> str:
    """Return ``entries`` as a table of at most 80 columns, oldest first; years have two digits."""
    head = ("id", "run at, UTC", "coin", "source", "from", "to", "return", "drawdn", "params")
    rows = [
        (
            entry["id"],
            entry["at"][2:16],
            entry["coin"],
            entry.get("source", "-"),
            entry["start"][2:10],
            entry["end"][2:10],
            f"{entry['total_return_pct']:+.2f}%",
            f"{entry['max_drawdown_pct']:.2f}%",
            entry["parameters_hash"][:6],
        )
        for entry in entries
    ]
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    lines = [
        " ".join(
            cell.rjust(width) if head[k] in {"return", "drawdn"} else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join((lines[0], "-" * len(lines[0]), *lines[1:]))


def _copy_folder(folder: Path, run_id: str) -> Path:
    """Return where the copy of a run lies.

    Raises:
        DataError: ``run_id`` is no id, and so might name a folder elsewhere.
    """
    if not _ID.fullmatch(run_id):
        raise DataError(
            f"run id = {run_id[:40]!r} must be {_ID_LENGTH} hexadecimal digits; --list shows them"
        )
    return folder / COPIES / run_id


def _entry(line: bytes) -> Entry | None:
    """Return what a line of the register says, None if it is damaged."""
    try:
        entry = parse_json(line)
    except ValueError:
        return None
    if not isinstance(entry, dict):
        return None
    whole = all(isinstance(entry.get(name), str) for name in _TEXTS)
    numbers = all(type(entry.get(name)) in {int, float} for name in _NUMBERS)
    return entry if whole and numbers and _ID.fullmatch(entry["id"]) else None


def _append(folder: Path, line: bytes) -> None:
    path = folder / REGISTER
    try:
        append_line(path, line)
    except OSError as error:
        raise not_writable(path, error) from None


def _set_aside(folder: Path) -> None:
    """Move the damaged lines of the register to ``runs.jsonl.corrupt``."""
    path = folder / REGISTER
    aside = path.with_name(f"{REGISTER}.corrupt")
    try:
        with FileLock(lock_path(path), wait=True):
            lines = [line for line in path.read_bytes().splitlines() if line.strip()]
            bad = [line for line in lines if _entry(line) is None]
            with aside.open("ab") as file:
                file.writelines(line + b"\n" for line in bad)
            write_file(path, b"".join(line + b"\n" for line in lines if line not in bad))
    except (OSError, DataError) as error:
        _log.warning("%s holds damaged lines, which are left out: %s", path, error)
        return
    _log.warning("%s: %d damaged lines moved to %s", path, len(bad), aside.name)
