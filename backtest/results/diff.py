"""Differences between two earlier runs: parameters, rules, data, code, and the first trade."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from backtest.results.register import find_run, read_copy, read_register
from engine.registry import DEFAULT
from engine.trade_tables import CYCLE_FIELDS

_RESULTS: Final = (
    "total_return_pct",
    "max_drawdown_pct",
    "calmar_ratio",
    "final_capital",
    "total_trades",
    "fees_paid",
    "funding_pnl",
)
_NOT_COMPARED: Final = ("bar", "datetime")
"""Columns of trades: one counts from the start of the run, the other repeats ``timestamp``."""
_SHOWN: Final = ("datetime", "label", "price", "qty", "regime", "pnl", "fee", "fill_id")
"""Columns of the first trade that differs, with those that only some strategies' trades have."""


def diff_runs(folder: Path, first: str, second: str) -> dict[str, Any]:
    """Return what differs between two runs of the register in ``folder``, JSON-ready.

    Args:
        folder: of the register.
        first: a run's id or a unique beginning of it.
        second: likewise.

    Returns:
        ``runs`` (both entries), ``strategy`` ([a, b], None if equal), ``results parameters market
        data``, each ``{name: [a, b]}`` of what differs (of two strategies parameters that both
        have), ``code_fingerprint`` ([a, b], None if equal) and ``trades``: ``counts``,
        ``first_difference`` (None if equal): ``number`` (from 1), ``columns``, ``rows`` (a missing
        row is None).

    Raises:
        ConfigError: a run is unknown.
        DataError: its copy cannot be read.
    """
    entries = read_register(folder)
    runs = [find_run(entries, text, folder) for text in (first, second)]
    (a, trades_a), (b, trades_b) = (read_copy(folder, run["id"]) for run in runs)
    codes = [a.get("code_fingerprint"), b.get("code_fingerprint")]
    results = _differing(a["metrics"], b["metrics"])
    strategies = [document.get("strategy", DEFAULT.name) for document in (a, b)]
    parameters = _differing(a["parameters"], b["parameters"])
    if strategies[0] != strategies[1]:
        shared = a["parameters"].keys() & b["parameters"].keys()
        parameters = {name: pair for name, pair in parameters.items() if name in shared}
    return {
        "runs": runs,
        "strategy": strategies if strategies[0] != strategies[1] else None,
        "results": {name: results[name] for name in _RESULTS if name in results},
        "parameters": parameters,
        "market": _differing(a["market"], b["market"]),
        "data": _differing(
            {"coin": a.get("coin"), **a["data"]}, {"coin": b.get("coin"), **b["data"]}
        ),
        "code_fingerprint": codes if codes[0] != codes[1] else None,
        "trades": diff_trades(_rows(trades_a), _rows(trades_b)),
    }


def diff_trades(
    first: Sequence[Mapping[str, str]], second: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """Return the counts of two lists of trades and the first place where they differ."""
    counts = [len(first), len(second)]
    for number, (a, b) in enumerate(itertools.zip_longest(first, second), start=1):
        if a is None or b is None:
            return _trade_difference(counts, number, [], a, b)
        columns = [name for name in a if name not in _NOT_COMPARED and a[name] != b.get(name)]
        if columns:
            return _trade_difference(counts, number, columns, a, b)
    return {"counts": counts, "first_difference": None}


def diff_text(diff: Mapping[str, Any]) -> str:
    """Return ``diff`` as lines for a terminal, A before B."""
    lines = [
        f"{letter}  {run['id']}  {run['at']} UTC  {run['coin']}  {run['start']} to {run['end']}"
        for letter, run in zip("AB", diff["runs"], strict=True)
    ]
    if diff["strategy"]:
        first, second = diff["strategy"]
        lines += ["", f"Strategy: {first} -> {second} (of parameters those that both have)"]
    sections = {
        "Results": diff["results"],
        "Parameters": diff["parameters"],
        "Market rules": diff["market"],
        "Data": diff["data"],
        "Code": {"fingerprint": diff["code_fingerprint"]} if diff["code_fingerprint"] else {},
    }
    for title, values in sections.items():
        lines += ["", f"{title}: {'' if values else 'the same'}".rstrip()]
        width = max(map(len, values), default=0)
        lines += [f"  {name:<{width}}  {_text(a)} -> {_text(b)}" for name, (a, b) in values.items()]
    return "\n".join([*lines, "", *_trade_lines(diff["trades"])])


def _trade_difference(
    counts: list[int],
    number: int,
    columns: list[str],
    first: Mapping[str, str] | None,
    second: Mapping[str, str] | None,
) -> dict[str, Any]:
    rows = [dict(row) if row is not None else None for row in (first, second)]
    difference = {"number": number, "columns": columns, "rows": rows}
    return {"counts": counts, "first_difference": difference}


def _trade_lines(trades: Mapping[str, Any]) -> list[str]:
    first = trades["first_difference"]
    a, b = trades["counts"]
    if first is None:
        return [f"Trades: the same {a:,} records"]
    what = f"in {', '.join(first['columns'])}" if first["columns"] else "only one run has it"
    number = f"{first['number']:,}"
    lines = [f"Trades: {a:,} and {b:,} records; the first that differs is number {number}, {what}"]
    for letter, row in zip("AB", first["rows"], strict=True):
        more = [name for name in CYCLE_FIELDS if row and name in row]
        text = "  ".join(row[name] for name in (*_SHOWN, *more)) if row else "no more records"
        lines.append(f"  {letter}  {text}")
    return lines


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[Any]]:
    names = dict.fromkeys((*first, *second))
    pairs = {name: [first.get(name), second.get(name)] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "-"}[value]
    most = 60
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= most else f"{text[:most]}..."


def _rows(body: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(body)))
