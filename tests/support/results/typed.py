"""Typed results of public dicts, whole ones and those that a test wrote by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from backtest.runs.coin_result import CoinResult
from backtest.runs.portfolio_result import PORTFOLIO, PortfolioResult
from core.kama import REGIME_NAMES
from core.market import MarketRules
from core.records import dtype_of
from engine.fixed_grid.types import FixedTrade
from engine.tables import BarLog
from engine.trade_tables import CYCLE_FIELDS
from engine.types import DIRECTION_NAMES, LABEL_NAMES, NO_REGIME, Trade

Results = dict[str, CoinResult | PortfolioResult]

_REGIMES: Final = {name: code for code, name in REGIME_NAMES.items()} | {"NONE": NO_REGIME}
_PARTS: Final[Mapping[str, Any]] = {
    "coin": "BTC",
    "metrics": {},
    "log": np.zeros(0, dtype_of(BarLog)),
    "regime_log": np.zeros(0, np.int64),
    "first_bar": 0,
    "funding_source": "none due",
    "seconds": math.nan,
    "candles": pd.DataFrame({"timestamp": np.zeros(0, np.int64)}),
    "params": {},
    "market": MarketRules.inferred(100.0),
    "data": {},
    "fingerprint": "",
    "notices": [],
}


def trade_table(trades: Sequence[Mapping[str, Any]]) -> Any:
    """Return trade dicts as the records the engine writes."""
    cycles = any("cycle" in trade for trade in trades)
    table = np.zeros(len(trades), dtype_of(FixedTrade if cycles else Trade))
    for row, trade in zip(table, trades, strict=True):
        for name in ("bar", "price", "qty", "pnl", "fee", "fill_id", *CYCLE_FIELDS):
            if name in trade:
                row[name] = trade[name]
        row["ts_ms"] = trade.get("timestamp", 0)
        row["label"] = LABEL_NAMES.index(trade["label"])
        row["regime"] = _REGIMES[trade.get("regime", "NOISE")]
        side = trade.get("direction", "")
        row["direction"] = DIRECTION_NAMES.index(side) if side else -1
    return table


def typed(result: Mapping[str, Any]) -> CoinResult:
    """Return the typed result that a public dict says; what it leaves out is empty."""
    given = {**_PARTS, **result}
    if "trades" in result or "trade_table" not in result:
        given["trade_table"] = trade_table(given.get("trades", []))
    found = CoinResult.read(given)
    if "equity_curve" in result:
        vars(found.run)["equity_curve"] = np.asarray(result["equity_curve"])
    if "bars_per_second" in result:
        assert found.run.bars_per_second == result["bars_per_second"]
    return found


def typed_all(results: Mapping[str, Mapping[str, Any]]) -> Results:
    """Return the typed results of public dicts by coin, and of ``_portfolio`` if it is there."""
    coins = typed_coins(results)
    found: Results = {**coins}
    if PORTFOLIO in results:
        found[PORTFOLIO] = typed_portfolio(results[PORTFOLIO], coins)
    return found


def typed_coins(results: Mapping[str, Mapping[str, Any]]) -> dict[str, CoinResult]:
    """Return the typed results of public dicts by coin; ``_portfolio`` is passed over."""
    return {name: typed(item) for name, item in results.items() if name != PORTFOLIO}


def portfolio_of_all(results: Mapping[str, Mapping[str, Any]]) -> PortfolioResult:
    """Return the typed portfolio of what ``run_multi`` answers."""
    return typed_portfolio(results[PORTFOLIO], typed_coins(results))


def typed_portfolio(
    portfolio: Mapping[str, Any], coins: Mapping[str, CoinResult]
) -> PortfolioResult:
    """Return the typed portfolio that a public dict says."""
    return PortfolioResult(
        results=coins,
        times_ms=np.asarray(portfolio.get("timestamp", ())),
        equity_curve=np.asarray(portfolio.get("equity_curve", ())),
        initial_capital=portfolio.get("initial_capital", 0.0),
        common_bars=portfolio.get("common_bars", 0),
        metrics=portfolio.get("metrics", {}),
        var=portfolio.get("var", {}),
    )
