"""The command ``main.py --compare``, its arguments read."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final

from backtest.commands.backtest import BacktestRequest
from backtest.results.files import json_bytes
from backtest.runs.coin_result import CoinResult
from backtest.runs.portfolio_result import Results
from backtest.runs.strategies import is_compiled
from backtest.simulator import BacktestSimulator
from backtest.trust.compare import FULL, STATIC, Row, add_outcomes, coin_rows, overall_rows
from core.errors import GridError
from engine.compiling import compile_notice

_NAME_WIDTH: Final = 22
_HEADERS: Final = ("return", "drawdown", "Calmar", "trades", "fees", "removal costs")
_WIDTHS: Final = (9, 9, 8, 8, 10, 14)
_REMARK: Final = (
    "Removal costs: points of return that the full strategy has more. One differing\n"
    "tie moves a coin's result by up to 8 points: less than 5 on one coin has shown\n"
    "nothing."
)


def table(title: str, rows: Sequence[Row]) -> str:
    """Return a comparison as text of 80 columns."""
    lines = [_line(title, _HEADERS), "-" * (_NAME_WIDTH + sum(_WIDTHS))]
    full = next(row for row in rows if row.name == FULL)
    return "\n".join([*lines, *(_line(_label(row), _cells(row, full)) for row in rows)])


def _label(row: Row) -> str:
    return row.name if row.name in {STATIC, FULL} else f"- {row.name}"


def _cells(row: Row, full: Row) -> list[str]:
    cost = "no effect" if replace(row, name=FULL) == full else f"{row.cost:+.2f}"
    return [
        f"{row.total_return_pct:+.2f} %",
        f"{row.max_drawdown_pct:.2f} %",
        "-" if math.isnan(row.calmar_ratio) else f"{row.calmar_ratio:.2f}",
        f"{row.trades:,}",
        f"{row.fees:,.2f}",
        "" if row.name == FULL else cost,
    ]


def _line(label: str, cells: Sequence[str]) -> str:
    padded = (cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))
    return (label.ljust(_NAME_WIDTH) + "".join(padded)).rstrip()


def print_comparison(
    results: Results, write: Callable[[str], object] = print, *, complete: bool = True
) -> None:
    """Print a table per coin and, of several, one over all.

    Args:
        results: by coin, each with ``outcomes``; at least one.
        write: takes one piece of text, without its line end.
        complete: no coin that was asked for is missing.
    """
    for coin, result in results.items():
        write(table(coin, coin_rows(result)) + "\n")
    if len(results) > 1:
        title = "All coins" if complete else " + ".join(results)
        write(table(title, overall_rows(list(results.values()))) + "\n")
    write(_REMARK)


def document(results: Results, failed: Mapping[str, GridError]) -> dict[str, Any]:
    """Return the comparison as ``--json`` prints it: rows by coin and over all that went well."""
    return {
        "coins": {coin: [asdict(row) for row in coin_rows(item)] for coin, item in results.items()},
        "all_coins": [asdict(row) for row in overall_rows([*results.values()])] if results else [],
        "failed": {coin: str(error) for coin, error in failed.items()},
    }


def run_compare(request: BacktestRequest) -> int:
    """Run every variant of every coin and print the tables; no file is written.

    Returns:
        The exit code: 0, or 2 if a coin failed.

    Raises:
        GridError: nothing could be run.
    """
    logging.basicConfig(format="warning: %(message)s")
    simulator = BacktestSimulator(
        request.params,
        source=request.source,
        detail=request.detail,
        also=add_outcomes,
        strategy=request.strategy,
    )
    simulator.also = partial(add_outcomes, removed=simulator.how.removals)
    coins = simulator.coin_names(request.coins)
    if not is_compiled(simulator.how):
        _say(compile_notice())
    outcomes = dict(simulator.iter_results(coins, request.start, request.end, jobs=request.jobs))
    done: dict[str, CoinResult] = {}
    failed: dict[str, GridError] = {}
    for coin in coins:
        outcome = outcomes[coin]
        if isinstance(outcome, GridError):
            failed[coin] = outcome
            _say(f"error: {outcome}" if coin in str(outcome) else f"error: {coin}: {outcome}")
        else:
            done[coin] = outcome
            for notice in outcome.notices:
                _say(f"warning: {notice}")
    if request.as_json:
        sys.stdout.write(json_bytes(document(done, failed)).decode())
    elif done:
        print_comparison(done, complete=not failed)
    return 2 if failed else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
