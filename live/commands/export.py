"""Trades for audit and tax: one CSV a year, with a chain of hashes, entered in the control log."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from core.command_line import say
from core.errors import StateError
from core.text import money
from engine.contract import StrategySpec
from live.commands.target import Target
from live.store.control_log import FIRST, ControlLog
from live.store.durable_file import write_atomically
from live.store.trade_files import TradeFiles

ADDED: Final = ("net", "chain")
"""Columns beyond those of the trade file: ``net = pnl - fee`` (quote); a hash over this row and all
before it."""


def export_trades(target: Target, spec: StrategySpec, folder: Path, now_ms: int) -> int:
    """Write a strategy's trades, one file for every year (UTC), and return the exit code.

    Named as the trade file, with ``_{YEAR}``.

    Raises:
        StateError: there are no trades, a file cannot be read or written, or the control log was
            changed.
    """
    log = ControlLog(target.symbol, target.state_folder)
    log.check()
    trades = TradeFiles.of_strategy(spec, target.symbol, target.state_folder)
    years = _rows_by_year(target, trades)
    for year, rows in sorted(years.items()):
        path = folder / f"{trades.csv_path.stem}_{year}.csv"
        body = _body(rows, (*trades.columns, *ADDED))
        write_atomically(path, body)
        pnl = sum(row["pnl"] for row in rows)
        fees = sum(row["fee"] for row in rows)
        digest = log.append(
            "export",
            now_ms,
            file=path.name,
            rows=len(rows),
            pnl=pnl,
            fees=fees,
            chain=rows[-1]["chain"],
            sha256=hashlib.sha256(body).hexdigest(),
        )
        say(
            f"{path}: {len(rows)} rows, profit {money(pnl)} before fees of {money(fees)}; funding "
            f"is in the exchange's income history; control log {digest[:16]}"
        )
    return 0


def _rows_by_year(target: Target, trades: TradeFiles) -> dict[int, list[dict[str, Any]]]:
    rows = sorted(trades.rows(), key=lambda row: row["timestamp"])
    if not rows:
        raise StateError(f"there are no trades of {target.symbol} in {target.state_folder}")
    chain, years = FIRST, defaultdict[int, list[dict[str, Any]]](list)
    for row in rows:
        text = json.dumps(_hashed(row), sort_keys=True, allow_nan=False)
        chain = hashlib.sha256(f"{chain} {text}".encode()).hexdigest()
        year = datetime.fromtimestamp(row["timestamp"] / 1e3, UTC).year
        years[year].append({**row, "net": row["pnl"] - row["fee"], "chain": chain})
    return years


def _hashed(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as the chain holds it.

    Without the time of execution where that is not known: exports of earlier versions, which had
    no such column, keep their chain.
    """
    return {
        name: value for name, value in row.items() if name != "executed_ms" or value is not None
    }


def _body(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> bytes:
    body = io.StringIO()
    writer = csv.writer(body, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row[name] for name in columns] for row in rows)
    return body.getvalue().encode()
