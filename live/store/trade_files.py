"""Trades on disk: ``{SYMBOL}_trades.csv`` and ``.jsonl``, the same rows, each exactly once.

A strategy whose records have fields of their own has files of its own, named after it.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from core.errors import StateError
from engine.contract import StrategySpec
from engine.trade_tables import CYCLE_FIELDS, FILE_COLUMNS
from live.store.durable_file import append_durably, plain_symbol, read_file, write_atomically

RECORD_COLUMNS: Final = (*FILE_COLUMNS, "trade_id", "client_id", "r_multiple", "hold_hours")
"""Those of a backtest's trades, in their order, then what only a session knows."""
TRADE_COLUMNS: Final = (*RECORD_COLUMNS, "executed_ms")
"""With when the exchange executed it, ms UTC, which files of earlier versions lack."""
_WHOLE: Final = frozenset({"bar", "timestamp", "fill_id", *CYCLE_FIELDS})
_FINITE: Final = frozenset({"price", "qty", "pnl", "fee"})
_OPTIONAL: Final = frozenset({"r_multiple", "hold_hours"})
_OPTIONAL_WHOLE: Final = frozenset({"executed_ms"})
_OLDER_HEADER: Final = ",".join(RECORD_COLUMNS).encode()
_HOUR_MS: Final = 3_600_000
_LOG: Final = logging.getLogger(__name__)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The result of the close of a fill, or of a part of it.

    Attributes:
        net: profit after the fee of the close and the part's share of the entry fee, quote.
        net_pct: ``net`` of the entry notional of the part closed, percent.
        r_multiple: ``net`` over the risk taken at entry.
        hold_hours: from entry to close.
    """

    net: float
    net_pct: float
    r_multiple: float
    hold_hours: float


def close_figures(
    *,
    pnl: float,
    fee: float,
    qty: float,
    ts_ms: int,
    entry_price: float,
    entry_qty: float,
    entry_fee: float,
    entry_ts_ms: int,
    stop_distance: float,
) -> Close:
    """Return the figures of a close; NaN where a denominator is not positive or unknown.

    ``net = pnl - fee - entry_fee * qty / entry_qty``, as round trips are counted (funding apart);
    ``R = net / (stop_distance * qty)``.

    Args:
        pnl: gross profit of the close, quote.
        fee: of the close, quote, negative = rebate.
        qty: closed, base.
        ts_ms: of the close, ms UTC.
        entry_price: quote.
        entry_qty: of the whole fill, base.
        entry_fee: of the whole fill, quote.
        entry_ts_ms: ms UTC.
        stop_distance: to stage 1 when the fill was entered, quote; NaN if unknown.
    """
    net = pnl - fee - _ratio(entry_fee * qty, entry_qty)
    return Close(
        net=net,
        net_pct=_ratio(100.0 * net, entry_price * qty),
        r_multiple=_ratio(net, stop_distance * qty),
        hold_hours=(ts_ms - entry_ts_ms) / _HOUR_MS,
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0.0 else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTrade:
    """One trade record of a live session or dry run.

    Attributes:
        bar: of the step it belongs to.
        timestamp: ms UTC.
        price: quote.
        qty: base.
        label: one of ``engine.types.LABEL_NAMES``.
        regime: one of ``core.kama.REGIME_NAMES``.
        pnl: gross, quote.
        fee: quote, negative = rebate.
        direction: LONG, SHORT or ''.
        fill_id: of the entry.
        trade_id: unique for ever, also over restarts: the exchange's trade and the sequence of the
            record within it, such as ``123456:0``; in a dry run a running number.
        client_id: of the order, '' if there was none.
        close: of closing records.
        executed_ms: when the exchange executed it, ms UTC; None of records that are no trade of the
            exchange, and of those written before this was kept.
        cycle: of a strategy with cycles: s since 2020 of the step that wanted the entry.
        slot: likewise, the position's.
    """

    bar: int
    timestamp: int
    price: float
    qty: float
    label: str
    regime: str
    pnl: float
    fee: float
    direction: str
    fill_id: int
    trade_id: str
    client_id: str = ""
    close: Close | None = None
    executed_ms: int | None = None
    cycle: int | None = None
    slot: int | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the values of ``row``."""
        return TRADE_COLUMNS if self.cycle is None else (*TRADE_COLUMNS, *CYCLE_FIELDS)

    @property
    def record_columns(self) -> tuple[str, ...]:
        """Names of the values that a replay knows: nothing was executed anywhere."""
        return tuple(name for name in self.columns if name not in _OPTIONAL_WHOLE)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LiveTrade:
        """Undo ``dataclasses.asdict``.

        Raises:
            StateError: the fields are others.
        """
        try:
            close = Close(**values["close"]) if values["close"] else None
            return cls(**{**values, "close": close})
        except (TypeError, KeyError) as error:
            raise StateError(f"a trade record of the state cannot be read: {error}") from None

    def row(self) -> Row:
        """Return the values by column, as JSON holds them; None where there is none.

        Raises:
            StateError: a value cannot be read back.
        """
        moment = datetime.fromtimestamp(self.timestamp // 1000, UTC)
        close = (self.close.r_multiple, self.close.hold_hours) if self.close else (None, None)
        values = (
            int(self.bar),
            int(self.timestamp),
            f"{moment:%Y-%m-%d %H:%M:%S}",
            float(self.price),
            float(self.qty),
            self.label,
            self.regime,
            float(self.pnl),
            float(self.fee),
            self.direction,
            int(self.fill_id),
            self.trade_id,
            self.client_id,
            *map(_finite, close),
            int(self.executed_ms) if self.executed_ms is not None else None,
        )
        if self.cycle is not None:
            values = (*values, self.cycle, self.slot)
        row = dict(zip(self.columns, values, strict=True))
        wrong = [name for name in row if not _is_sound(name, row[name])]
        if wrong:
            shown = ", ".join(f"{name} = {row[name]!r}" for name in wrong)
            raise StateError(
                f"a trade cannot be recorded: {shown}; numbers must be finite, texts of one line, "
                "trade_id not empty"
            )
        return row


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _is_sound(name: str, value: Any) -> bool:
    if name in _WHOLE:
        return type(value) is int
    if name in _FINITE:
        return isinstance(value, float) and math.isfinite(value)
    if name in _OPTIONAL:
        return value is None or (isinstance(value, float) and math.isfinite(value))
    if name in _OPTIONAL_WHOLE:
        return value is None or type(value) is int
    return isinstance(value, str) and value.isprintable() and (name != "trade_id" or value != "")


class TradeFiles:
    """The two trade files of a symbol, whole and equal from the moment this exists.

    Nothing stays open between calls.

    Args:
        symbol: such as BTCUSDT or BTC/USDT.
        folder: made if there is none.
        strategy: whose files they are; '': of the default one, whose names have no strategy.
        columns: of its records.

    Raises:
        StateError: a file cannot be read or written, or is damaged elsewhere than at its end.
    """

    def __init__(
        self,
        symbol: str,
        folder: Path,
        strategy: str = "",
        columns: tuple[str, ...] = TRADE_COLUMNS,
    ) -> None:
        name = plain_symbol(symbol) + (f"_{strategy}" if strategy else "")
        self._columns = columns
        self.csv_path = folder / f"{name}_trades.csv"
        self.jsonl_path = folder / f"{name}_trades.jsonl"
        self._keys: set[str] = set()
        self._sound = False
        self._repair()

    @classmethod
    def of_strategy(cls, spec: StrategySpec, symbol: str, folder: Path) -> TradeFiles:
        """Return the files of a strategy: one whose records hold more has files of its own name.

        Raises:
            StateError: one cannot be read or written, or is damaged.
        """
        more = spec.trade_fields
        return cls(symbol, folder, spec.name if more else "", (*TRADE_COLUMNS, *more))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in their order."""
        return self._columns

    def __contains__(self, trade_id: object) -> bool:
        return trade_id in self._keys

    def rows(self) -> list[Row]:
        """Return every trade on the disk, as its files hold them.

        Raises:
            StateError: a file cannot be read.
        """
        return _jsonl_rows(self.jsonl_path, read_file(self.jsonl_path), self._columns)

    def append(self, trades: Sequence[LiveTrade]) -> int:
        """Write those of ``trades`` that are not there yet and return how many were.

        They are on the disk in both files when this returns. After an error the same call may be
        made again: what was written is found, what was torn is repaired.

        Raises:
            StateError: a file cannot be written, or a value cannot be recorded.
        """
        if not self._sound:
            self._repair()
        fresh = {
            row["trade_id"]: row
            for row in (trade.row() for trade in reversed(trades))
            if row["trade_id"] not in self._keys
        }
        rows = list(reversed(fresh.values()))
        if not rows:
            return 0
        self._sound = False
        append_durably(self.csv_path, self._csv_body(rows))
        append_durably(self.jsonl_path, _jsonl_body(rows))
        self._keys |= fresh.keys()
        self._sound = True
        return len(rows)

    def _repair(self) -> None:
        """Cut off torn last lines, add to each file what only the other has, read the keys."""
        self._sound = False
        paths = (self.csv_path, self.jsonl_path)
        bodies = [read_file(path) for path in paths]
        kept: dict[str, Row] = {}
        found = _csv_rows(self.csv_path, bodies[0], self._columns)
        for row in found + _jsonl_rows(self.jsonl_path, bodies[1], self._columns):
            if kept.setdefault(row["trade_id"], row) != row:
                raise StateError(
                    f"trade {row['trade_id']} stands twice, with different values, in "
                    f"{self.csv_path} or {self.jsonl_path.name}: correct one, or move it away and "
                    "it is made anew from the other"
                )
        table = _csv([self._columns]) + self._csv_body(kept.values())
        whole = (table, _jsonl_body(kept.values()))
        for path, old, new in zip(paths, bodies, whole, strict=True):
            if old != new:
                write_atomically(path, new)
                if old is not None and _is_older(old):
                    _LOG.warning("%s has a new column, executed_ms: empty so far", path)
                elif old is not None:
                    _LOG.warning("%s repaired: it holds %d trades", path, len(kept))
        self._keys = set(kept)
        self._sound = True

    def _csv_body(self, rows: Iterable[Row]) -> bytes:
        return _csv([row[name] for name in self._columns] for row in rows)


def _csv(rows: Iterable[Iterable[Any]]) -> bytes:
    body = io.StringIO()
    csv.writer(body, lineterminator="\n").writerows(rows)
    return body.getvalue().encode()


def _jsonl_body(rows: Iterable[Row]) -> bytes:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode()


def _is_older(body: bytes) -> bool:
    """Return whether a file begins as one of a version without the time of execution did."""
    first = body.partition(b"\n")[0]
    return first == _OLDER_HEADER or (first[:1] == b"{" and b'"executed_ms"' not in first)


def _csv_rows(path: Path, body: bytes | None, columns: tuple[str, ...]) -> list[Row]:
    lines = (body or b"").split(b"\n")
    header = ",".join(columns)
    if len(lines) > 1 and lines[0] not in (header.encode(), _OLDER_HEADER):
        raise StateError(
            f"{path} line 1 must be {header}: move the file away and it is made anew from "
            f"{path.stem}.jsonl"
        )
    written = RECORD_COLUMNS if lines[0] == _OLDER_HEADER else columns
    return _rows(path, lines, 1, lambda line: _csv_row(line, written), columns)


def _jsonl_rows(path: Path, body: bytes | None, columns: tuple[str, ...]) -> list[Row]:
    return _rows(path, (body or b"").split(b"\n"), 0, json.loads, columns)


def _rows(
    path: Path,
    lines: list[bytes],
    first: int,
    parse: Callable[[str], Any],
    columns: tuple[str, ...],
) -> list[Row]:
    """Return the rows of ``lines[first:-1]``; what follows the last line break is torn."""
    rows: list[Row] = []
    for number, line in enumerate(lines[first:-1], start=first + 1):
        try:
            row = _present(parse(line.decode()), columns)
        except (ValueError, RecursionError, csv.Error):
            row = None
        if row is not None:
            rows.append(row)
        elif number < len(lines) - 1:  # a kill can spoil the last line only
            raise StateError(
                f"{path} line {number} cannot be read: correct it, or move the file away and it is "
                "made anew from the other trade file"
            )
    return rows


def _present(row: Any, columns: tuple[str, ...]) -> Row | None:
    """Return a row with the present columns, None where it is none."""
    if not isinstance(row, dict):
        return None
    if [*row] == [*RECORD_COLUMNS]:
        row = {**row, "executed_ms": None}
    is_row = [*row] == [*columns] and all(_is_sound(*item) for item in row.items())
    return row if is_row else None


def _csv_row(line: str, columns: Sequence[str]) -> Row | None:
    cells = next(csv.reader([line], strict=True), [])
    if len(cells) != len(columns):
        return None
    row: Row = dict(zip(columns, cells, strict=True))
    for name in columns:
        if name in _OPTIONAL | _OPTIONAL_WHOLE and not row[name]:
            row[name] = None
        elif name in _WHOLE | _OPTIONAL_WHOLE:
            row[name] = int(row[name])
        elif name in _FINITE | _OPTIONAL:
            row[name] = float(row[name])
    return row
