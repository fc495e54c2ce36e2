"""Results on disk: trades as CSV, summaries as JSON; each file whole or not at all."""

from __future__ import annotations

import io
import json
import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from backtest.market.timeframes import format_time
from backtest.runs.coin_result import CoinResult
from backtest.runs.facts import changed_params
from backtest.runs.portfolio_result import PortfolioResult
from core.errors import DataError
from core.files import write_atomically
from core.market import MarketRules
from core.version import VERSION
from engine.registry import known_spec
from engine.trade_tables import CYCLE_FIELDS, FILE_COLUMNS, trade_columns

BANDS: Final = ("bands", "bands_summary")
"""Entries that a result has besides where its bands were made."""


def trades_csv(result: CoinResult) -> bytes:
    """Return a coin's trade records as CSV.

    ``bar`` counts from the first bar of the run, ``timestamp`` is its open in ms UTC and
    ``datetime`` the same as text; ``pnl`` is gross and ``fee`` what was paid, quote.
    """
    columns = trade_columns(result.trades)
    moments = pd.to_datetime(np.array(result.trades["ts_ms"]), unit="ms")
    columns["datetime"] = moments.strftime("%Y-%m-%d %H:%M:%S").tolist()
    more = [name for name in CYCLE_FIELDS if name in columns]
    frame = pd.DataFrame(columns, columns=[*FILE_COLUMNS, *more])
    body = io.StringIO()
    frame.to_csv(body, index=False, lineterminator="\n")
    return body.getvalue().encode()


def summary_json(result: CoinResult) -> bytes:
    """Return a coin's metrics, parameters, market rules, data facts and fingerprint as JSON."""
    return json_bytes(summary_document(result))


def summary_document(result: CoinResult) -> dict[str, Any]:
    """Return what ``{COIN}_summary.json`` holds; the bands where the result has them."""
    return {
        "coin": result.coin,
        "strategy": result.strategy,
        "first_bar": result.first_bar,
        "metrics": result.metrics,
        "data": result.data,
        "market": _rules(result.market),
        "notices": result.notices,
        "changed_parameters": _changed(result),
        "parameters": result.params.to_dict(),
        "program_version": VERSION,
        "code_fingerprint": result.fingerprint,
    } | {name: result.more[name] for name in BANDS if name in result.more}


def _changed(result: CoinResult) -> dict[str, dict[str, Any]]:
    return changed_params(result.params.to_dict(), known_spec(result.strategy))


def portfolio_json(portfolio: PortfolioResult) -> bytes:
    """Return the portfolio's metrics and value at risk, and what its coins were, as JSON."""
    return json_bytes(portfolio_document(portfolio))


def portfolio_document(portfolio: PortfolioResult) -> dict[str, Any]:
    """Return what ``portfolio_summary.json`` holds."""
    results, times = portfolio.results, portfolio.times_ms
    first = next(iter(results.values()))
    return {
        "coins": portfolio.coins,
        "strategy": first.strategy,
        "initial_capital": portfolio.initial_capital,
        "metrics": portfolio.metrics,
        "value_at_risk": portfolio.var,
        **({"together": portfolio.together.to_dict()} if portfolio.together else {}),
        "data": {
            "first_bar": format_time(int(times[0])),
            "last_bar": format_time(int(times[-1])),
            "bars": len(times),
            "common_bars": portfolio.common_bars,
            "ranges": {
                coin: {name: result.data[name] for name in ("start", "end", "bars")}
                for coin, result in results.items()
            },
            "hashes": {coin: result.data["hash"] for coin, result in results.items()},
        },
        "changed_parameters": _changed(first),
        "program_version": VERSION,
        "code_fingerprint": first.fingerprint,
    }


def json_bytes(data: Any) -> bytes:
    """Return ``data`` as indented JSON; numbers that JSON lacks (NaN, infinity) become null."""
    return (json.dumps(_finite(data), indent=2, allow_nan=False) + "\n").encode()


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(item) for item in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def _rules(rules: MarketRules) -> dict[str, Any]:
    names = ("tick_size", "step_size", "min_qty", "min_notional", "liquidation_fee", "brackets")
    return {name: getattr(rules, name) for name in names}


def write_file(path: Path, body: bytes) -> None:
    """Replace ``path`` by ``body`` as a whole.

    Raises:
        DataError: the folder cannot be written or the disk is full; the old file stays.
    """
    try:
        write_atomically(path, body)
    except OSError as error:
        raise not_writable(path, error) from None


def remove_file(path: Path) -> None:
    """Remove ``path``.

    Raises:
        DataError: that is not allowed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot remove {path}, which an earlier run wrote: {error.strerror or error}; remove "
            "it, or choose another folder with --output DIR"
        ) from None


def check_writable(folder: Path) -> None:
    """Make sure results can be written to ``folder`` before time is spent on them.

    Raises:
        DataError: it cannot be made or written.
    """
    probe = folder / f".{uuid.uuid4().hex}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise not_writable(folder, error) from None


def not_writable(path: Path, error: OSError) -> DataError:
    """Return the error that says ``path`` could not be written and what to do."""
    return DataError(
        f"cannot write {path}: {error.strerror or error}; make room or rights there, or choose "
        "another folder with --output DIR"
    )
