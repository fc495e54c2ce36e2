"""Files of a run, read for the audit: ``{COIN}_trades.csv``, ``{COIN}_summary.json``."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from core.errors import DataError
from core.files import LARGEST_DOCUMENT, parse_json, read_limited

COLUMNS: Final = (
    "bar",
    "timestamp",
    "datetime",
    "price",
    "qty",
    "label",
    "regime",
    "pnl",
    "fee",
    "direction",
    "fill_id",
)
_WHOLE: Final = ("bar", "timestamp", "fill_id")
_NUMBERS: Final = ("price", "qty", "pnl", "fee")
_SECTIONS: Final = ("metrics", "data", "market", "parameters")
_DATA_KEYS: Final = (
    "hash",
    "source",
    "timeframe",
    "detail",
    "loaded_from",
    "loaded_to",
    "start",
    "end",
    "bars",
    "warmup_bars",
)
_MARKET_KEYS: Final = (
    "tick_size",
    "step_size",
    "min_qty",
    "min_notional",
    "liquidation_fee",
    "brackets",
)
_SUMMARY_SUFFIX: Final = "_summary.json"
_NOT_A_COIN: Final = "portfolio"


@dataclass(frozen=True, slots=True)
class TradeRow:
    """One record of a trades file; ``number`` counts from 1, its line in the file is one more."""

    number: int
    text: str
    bar: int
    timestamp: int
    datetime: str
    price: float
    qty: float
    label: str
    regime: str
    pnl: float
    fee: float
    direction: str
    fill_id: int


@dataclass(frozen=True)
class Finding:
    """A fault, and where it is.

    Attributes:
        place: row and line, or the key of a summary.
        content: what stands there.
        expected: what should stand there.
        number: of the row; None where it is not about a row.
    """

    place: str
    content: str
    wrong: str
    expected: str
    number: int | None = None


def row_finding(row: TradeRow, wrong: str, expected: str) -> Finding:
    """Return a finding about ``row``."""
    return Finding(_place(row.number), row.text, wrong, expected, row.number)


def _place(number: int) -> str:
    return f"row {number} (line {number + 1})"


@dataclass(frozen=True)
class TradesFile:
    """The readable rows of a trades file, and what ended the reading, if anything did."""

    rows: list[TradeRow]
    damage: Finding | None


@dataclass(frozen=True)
class Summary:
    """A summary file's sections, as JSON gives them."""

    coin: str
    first_bar: int
    metrics: Mapping[str, Any]
    data: Mapping[str, Any]
    market: Mapping[str, Any]
    parameters: Mapping[str, Any]
    changed_parameters: Mapping[str, Any] = field(default_factory=dict)
    bands: tuple[Mapping[str, Any], ...] = ()
    strategy: str = "grid_v4"


def read_trades(path: Path) -> TradesFile:
    """Return the rows of ``path`` up to the first that cannot be read.

    Raises:
        DataError: there is no such file, or it is not text.
    """
    lines = read_text(path).splitlines()
    header = ",".join(COLUMNS)
    if not lines or lines[0] != header:
        found = lines[0] if lines else ""
        return TradesFile([], Finding("header (line 1)", found, "the columns are others", header))
    rows: list[TradeRow] = []
    for number, line in enumerate(lines[1:], start=1):
        row = _row(number, line)
        if isinstance(row, Finding):
            return TradesFile(rows, row)
        rows.append(row)
    return TradesFile(rows, None)


def _row(number: int, line: str) -> TradeRow | Finding:
    cells = next(csv.reader([line]), [])
    if len(cells) != len(COLUMNS):
        return Finding(
            _place(number), line, f"it has {len(cells)} columns", f"{len(COLUMNS)} columns", number
        )
    values: dict[str, Any] = dict(zip(COLUMNS, cells, strict=True))
    for name in (*_WHOLE, *_NUMBERS):
        number_read = _number(values[name], whole=name in _WHOLE)
        if number_read is None:
            kind = "a whole number" if name in _WHOLE else "a number"
            return Finding(_place(number), line, f"{name} is {values[name]!r}", kind, number)
        values[name] = number_read
    return TradeRow(number=number, text=line, **values)


def _number(text: str, *, whole: bool) -> float | None:
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_summary(path: Path) -> Summary:
    """Return the sections of a summary file.

    Raises:
        DataError: it is missing, not JSON, or lacks what an audit needs.
    """
    text = read_text(path)
    try:
        content = parse_json(text)
    except ValueError as error:
        raise DataError(f"{path}: is not JSON: {error}; run the backtest again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: must hold an object; run the backtest again")
    missing = [name for name in ("coin", "first_bar", *_SECTIONS) if name not in content]
    for section, keys in (("data", _DATA_KEYS), ("market", _MARKET_KEYS)):
        part = content.get(section)
        if isinstance(part, dict):
            missing += [f"{section}.{key}" for key in keys if key not in part]
    wrong = [name for name in _SECTIONS if not isinstance(content.get(name), dict)]
    if missing or wrong:
        raise DataError(
            f"{path}: lacks {', '.join(dict.fromkeys([*missing, *wrong]))}; it is damaged or of an "
            "older version: run the backtest again"
        )
    sections = {name: content[name] for name in _SECTIONS}
    changed, bands = content.get("changed_parameters", {}), content.get("bands", [])
    if not isinstance(changed, dict) or not isinstance(bands, list):
        raise DataError(
            f"{path}: changed_parameters must be an object and bands a list; run the backtest again"
        )
    return Summary(
        coin=str(content["coin"]),
        first_bar=int(content["first_bar"]),
        changed_parameters=changed,
        bands=tuple(bands),
        strategy=str(content.get("strategy", "grid_v4")),
        **sections,
    )


def coins_in(folder: Path) -> list[str]:
    """Return the coins whose summaries lie in ``folder``, by name."""
    names = [path.name.removesuffix(_SUMMARY_SUFFIX) for path in folder.glob(f"*{_SUMMARY_SUFFIX}")]
    return sorted(name for name in names if name != _NOT_A_COIN)


def read_text(path: Path) -> str:
    """Return what a file of the run holds.

    Raises:
        DataError: there is no such file, or it is not text.
    """
    try:
        return read_limited(path, LARGEST_DOCUMENT).decode("utf-8")
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror or error}; run the backtest first, or name the folder of its "
            "files with --output DIR"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not text: {error}; run the backtest again") from None
