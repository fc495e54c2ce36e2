"""The portfolio: several coins' accounts added up, and its value at risk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest.market.timeframes import format_time
from core.atr import calculate_rolling_volatility
from core.errors import DataError
from core.params import StrategyParams
from core.performance import BARS_PER_YEAR, equity_metrics, ratio
from core.risk import CORRELATION_BARS, compute_portfolio_var
from core.times import DAY_MS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Result = Mapping[str, Any]

PORTFOLIO: Final = "_portfolio"
"""Key of the portfolio among the coins."""

_SUMMED: Final = (
    "longs_opened",
    "longs_closed",
    "shorts_opened",
    "shorts_closed",
    "stops_long",
    "stops_short",
    "total_trades",
    "prune_count",
    "circuit_breaker_triggers",
    "trailing_shifts",
    "var_blocks",
    "liquidations",
    "gross_profit",
    "gross_loss",
    "fees_paid",
    "funding_pnl",
    "capacity_reached",
)


def combine_portfolio(
    results: Mapping[str, Result], params: StrategyParams, bar_ms: int
) -> dict[str, Any]:
    """Return the portfolio that gives every coin ``initial_capital`` of its own.

    Args:
        results: by coin, as ``BacktestSimulator.run_single`` answers; at least one.
        params: initial capital, volatility period, VaR horizon and correlation threshold.
        bar_ms: length of a candle, ms.

    Returns:
        ``coins``; ``timestamp`` and ``equity_curve`` on the bars all coins have, shape
        (n_common,); ``metrics`` (ratios of the summed curve, counts and money summed,
        ``buy_hold_return_pct`` and ``turnover`` averaged); ``var`` as ``portfolio_var`` answers.

    Raises:
        DataError: the coins have no bar in common.
    """
    times, rows = _common_rows(results)
    equity = np.sum([results[coin]["equity_curve"][row] for coin, row in rows.items()], axis=0)
    initial = params.initial_capital * len(results)
    first_ms = min(_first_traded_ms(result) for result in results.values())
    first = min(int(np.searchsorted(times, first_ms)), len(times) - 1)
    per_year = BARS_PER_YEAR * 900_000 / bar_ms
    metrics: dict[str, Any] = equity_metrics(equity[first:], initial, per_year)
    metrics |= _averages(results)
    metrics["exposure_pct"] = 100.0 * float(np.mean(_exposed(results, rows)[first:]))
    return {
        "coins": list(results),
        "timestamp": times,
        "equity_curve": equity,
        "initial_capital": initial,
        "metrics": metrics | _sums(results),
        "var": portfolio_var(results, times, rows, equity, params),
    }


def portfolio_var(
    results: Mapping[str, Result],
    times: Ints,
    rows: Mapping[str, Ints],
    equity: Floats,
    params: StrategyParams,
) -> dict[str, Any]:
    """Return the correlation-aware 95 % value at risk of the net positions.

    Taken at the last bar, before what is open there is closed, and at the last bar of every UTC
    day; correlations over the 672 bars before each.

    Args:
        results: by coin.
        times: open times of the common bars, ms, shape (n_common,).
        rows: where each coin has them.
        equity: of the portfolio, quote, shape (n_common,).
        params: ``volatility_period var_horizon_bars high_corr_threshold``.

    Returns:
        ``horizon_bars``; ``end`` and ``highest`` (quote), each ``_pct`` of the equity then;
        ``highest_at`` (UTC text); ``correlation`` of the last 672 bars by pair of coins.
    """
    closes = np.array([_column(results[coin], "close")[row] for coin, row in rows.items()])
    notionals = closes * [net_positions(results[coin])[row] for coin, row in rows.items()]
    sigmas = np.nan_to_num(
        np.array([calculate_rolling_volatility(row, params.volatility_period) for row in closes])
    )
    returns = np.zeros_like(closes)
    returns[:, 1:] = closes[:, 1:] / closes[:, :-1] - 1.0
    last_of_day = np.flatnonzero(np.diff(times // DAY_MS, append=-1))
    at_risk = np.array(
        [
            compute_portfolio_var(
                notionals[:, i],
                sigmas[:, i],
                returns[:, max(0, i + 1 - CORRELATION_BARS) : i + 1].T,
                params.high_corr_threshold,
            )
            for i in last_of_day.tolist()
        ]
    ) * np.sqrt(params.var_horizon_bars)
    highest = int(at_risk.argmax())
    then = equity[last_of_day]
    return {
        "horizon_bars": params.var_horizon_bars,
        "end": float(at_risk[-1]),
        "end_pct": ratio(100.0 * float(at_risk[-1]), float(then[-1])),
        "highest": float(at_risk[highest]),
        "highest_pct": ratio(100.0 * float(at_risk[highest]), float(then[highest])),
        "highest_at": format_time(int(times[last_of_day[highest]])),
        "correlation": _correlations(list(rows), returns[:, -CORRELATION_BARS:]),
    }


def net_positions(result: Result) -> Floats:
    """Return long minus short quantity at every close, base, shape (n_bars,).

    At the last bar the position before it was closed for good.
    """
    log = result["log"]
    net = np.array(log["long_qty"] - log["short_qty"], dtype=np.float64)
    for trade in reversed(result["trades"]):
        if trade["label"] != "CLOSE_END":
            break
        net[-1] += trade["qty"] if trade["direction"] == "LONG" else -trade["qty"]
    return net


def _column(result: Result, name: str) -> Floats:
    return np.array(result["candles"][name], dtype=np.float64)


def _times(result: Result) -> Ints:
    return np.array(result["candles"]["timestamp"], dtype=np.int64)


def _first_traded_ms(result: Result) -> int:
    times = _times(result)
    return int(times[min(result["first_bar"], len(times) - 1)])


def _common_rows(results: Mapping[str, Result]) -> tuple[Ints, dict[str, Ints]]:
    """Return the open times all coins have, and where each coin has them."""
    by_coin = {coin: _times(result) for coin, result in results.items()}
    common = next(iter(by_coin.values()))
    for times in by_coin.values():
        common = np.intersect1d(common, times, assume_unique=True)
    if common.size == 0:
        raise DataError(
            f"{', '.join(by_coin)} have no candle in common: no portfolio; choose coins or a "
            "range whose candles overlap"
        )
    return common, {coin: np.searchsorted(times, common) for coin, times in by_coin.items()}


def _exposed(results: Mapping[str, Result], rows: Mapping[str, Ints]) -> npt.NDArray[np.bool_]:
    held = np.zeros(len(next(iter(rows.values()))), np.bool_)
    for coin, row in rows.items():
        log = results[coin]["log"][row]
        held |= (log["long_qty"] > 0.0) | (log["short_qty"] > 0.0)
    return held


def _averages(results: Mapping[str, Result]) -> dict[str, float]:
    metrics = [result["metrics"] for result in results.values()]
    names = ("buy_hold_return_pct", "turnover")
    return {name: float(np.mean([item[name] for item in metrics])) for name in names}


def _sums(results: Mapping[str, Result]) -> dict[str, Any]:
    """Return counts and money added up, and the ratios that follow from them."""
    metrics = [result["metrics"] for result in results.values()]
    total: dict[str, Any] = {name: sum(item[name] for item in metrics) for name in _SUMMED}
    types: dict[str, int] = {}
    for item in metrics:
        for label, count in item["prune_types"].items():
            types[label] = types.get(label, 0) + count
    total["prune_types"] = types
    won = sum(
        item["win_rate_pct"] * item["total_trades"] for item in metrics if item["total_trades"]
    )
    total["win_rate_pct"] = ratio(won, total["total_trades"])
    total["profit_factor"] = ratio(total["gross_profit"], total["gross_loss"])
    return total


def _correlations(coins: list[str], returns: Floats) -> dict[str, float]:
    """Return the correlation of every pair, NaN where a coin's price stood still."""
    if len(coins) == 1 or returns.shape[1] < 2:  # noqa: PLR2004
        return {}
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = np.atleast_2d(np.corrcoef(returns))
    return {
        f"{coins[i]}/{coins[j]}": float(matrix[i, j])
        for i in range(len(coins))
        for j in range(i + 1, len(coins))
    }
