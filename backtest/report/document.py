"""Everything a run has to say as one JSON document: for ``--json``, and inside the HTML report."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from backtest.market.timeframes import timeframe_ms
from backtest.report.attribution import accounting_identity, attribution
from backtest.report.cycles import cycle_facts
from backtest.report.drawdowns import drawdown_facts
from backtest.results.files import portfolio_document, summary_document
from backtest.results.register import parameters_hash
from backtest.runs.coin_result import CoinResult
from backtest.runs.portfolio import close_curves, equity_curves
from backtest.runs.portfolio_result import AllResults, PortfolioResult, coins_of, portfolio_of
from core.performance import ratio
from core.times import DAY_MS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def coin_document(result: CoinResult) -> dict[str, Any]:
    """Return a coin's summary, and where its result came from.

    Returns:
        besides ``backtest.results.files.summary_document``: ``run_id`` (None if not on record),
        ``parameters_hash``, ``attribution`` and, where the result has them, ``cycles``, ``bands``
        and ``bands_summary``.
    """
    document = summary_document(result) | {
        "run_id": result.run_id,
        "parameters_hash": parameters_hash(result.params.to_dict()),
        "attribution": attribution(result),
    }
    if result.run.marks is not None:
        document["cycles"] = cycle_facts(result)
    return document


def group_document(portfolio: PortfolioResult) -> dict[str, Any]:
    """Return the portfolio's summary, and where its result came from.

    Returns:
        besides ``backtest.results.files.portfolio_document``: ``identity`` (the coins' sums),
        ``by_coin`` (rows of ``key return_pct max_drawdown_pct price_profit fees funding net``),
        ``by_month`` (rows of ``key``, ``return_pct`` of the portfolio and ``coins``, the returns
        of each in percent), ``drawdowns`` and ``correlation`` of daily returns over the whole run:
        ``prices`` and ``equity``, each ``{A/B: value}``.
    """
    results, times = portfolio.results, portfolio.times_ms
    identities = {coin: accounting_identity(result) for coin, result in results.items()}
    names = (
        "initial_capital",
        "price_profit",
        "fees",
        "funding",
        "expected",
        "final_equity",
        "equity_change",
        "difference",
    )
    first = next(iter(results.values()))
    bar_ms = timeframe_ms(first.data["timeframe"])
    curves = equity_curves(results, times)
    return portfolio_document(portfolio) | {
        "identity": {name: math.fsum(sums[name] for sums in identities.values()) for name in names},
        "by_coin": [_coin_row(results[coin], identities[coin]) for coin in results],
        "by_month": _months(portfolio, curves, times),
        "drawdowns": drawdown_facts(
            portfolio.equity_curve, portfolio.initial_capital, times, bar_ms
        ),
        "correlation": {
            "prices": daily_correlations(close_curves(results, times), times),
            "equity": daily_correlations(curves, times),
        },
    }


def run_document(results: AllResults, failed: Mapping[str, Exception]) -> dict[str, Any]:
    """Return what ``--json`` prints.

    Args:
        results: by coin, the portfolio under ``_portfolio`` where there is one.
        failed: what went wrong with the coins that are missing.
    """
    portfolio = portfolio_of(results)
    return {
        "coins": {name: coin_document(result) for name, result in coins_of(results).items()},
        "portfolio": group_document(portfolio) if portfolio is not None else None,
        "failed": {coin: str(error) for coin, error in failed.items()},
    }


def daily_correlations(curves: Mapping[str, Floats], times: Ints) -> dict[str, float]:
    """Return the correlation of the daily returns of every pair of ``curves``.

    Args:
        curves: prices or equity by name, NaN before there are any, each of shape (n_bars,).
        times: open times of the bars, ms UTC, shape (n_bars,); days are UTC.

    Returns:
        ``{A/B: value}`` over the days both have, NaN where one stood still or they share fewer
        than three.
    """
    last = np.flatnonzero(np.diff(times // DAY_MS, append=-1))
    names, least = list(curves), 2
    matrix = np.full((len(names), len(names)), math.nan)
    if len(last) > least:
        closes = np.array([curves[name][last] for name in names])
        returns = np.diff(closes) / np.where(closes[:, :-1] > 0.0, closes[:, :-1], math.nan)
        for i, j in itertools.combinations(range(len(names)), 2):
            pair = returns[[i, j]]
            pair = pair[:, np.isfinite(pair).all(axis=0)]
            if pair.shape[1] >= least:
                with np.errstate(invalid="ignore", divide="ignore"):
                    matrix[i, j] = np.asarray(np.corrcoef(pair))[0, 1]
    return {
        f"{a}/{b}": float(matrix[i, i + 1 + j])
        for i, a in enumerate(names)
        for j, b in enumerate(names[i + 1 :])
    }


def _coin_row(result: CoinResult, identity: Mapping[str, float]) -> dict[str, Any]:
    return {
        "key": result.coin,
        "return_pct": result.metrics["total_return_pct"],
        "max_drawdown_pct": result.metrics["max_drawdown_pct"],
        **{name: identity[name] for name in ("price_profit", "fees", "funding")},
        "net": identity["equity_change"],
    }


def _months(
    portfolio: PortfolioResult, curves: Mapping[str, Floats], times: Ints
) -> list[dict[str, Any]]:
    months = times.astype("datetime64[ms]").astype("datetime64[M]")
    last = np.flatnonzero(np.append(months[1:] != months[:-1], np.True_))
    capital = {coin: float(x.params.initial_capital) for coin, x in portfolio.results.items()}
    whole = _returns(portfolio.equity_curve[last], portfolio.initial_capital)
    coins = {coin: _returns(curve[last], capital[coin]) for coin, curve in curves.items()}
    return [
        {
            "key": str(months[row]),
            "return_pct": whole[k],
            "coins": {coin: values[k] for coin, values in coins.items()},
        }
        for k, row in enumerate(last.tolist())
    ]


def _returns(ends: Floats, initial: float) -> list[float]:
    """Return percent gained in each month from the equities at their ends."""
    pairs = zip([initial, *ends[:-1].tolist()], ends.tolist(), strict=True)
    return [ratio(100.0 * (end - start), start) for start, end in pairs]
