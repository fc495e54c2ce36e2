"""The portfolio: several coins' accounts added up, and its value at risk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from backtest.market.timeframes import format_time
from backtest.runs.coin_result import CoinResult
from backtest.runs.portfolio_result import PortfolioResult, Results, Together
from core.atr import calculate_rolling_volatility
from core.performance import BARS_PER_YEAR, equity_metrics, ratio
from core.risk import CORRELATION_BARS, Z_95, compute_portfolio_var
from core.times import DAY_MS
from engine.types import CLOSE_END, LONG

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Risk(Protocol):
    """Parameters of the value at risk."""

    @property
    def volatility_period(self) -> int:
        """Bars of the standard deviation of returns."""
        ...

    @property
    def var_horizon_bars(self) -> float:
        """Bars the value at risk looks ahead."""
        ...

    @property
    def high_corr_threshold(self) -> float:
        """Correlation that counts as 1."""
        ...


_LEAST_RETURNS: Final = 2
"""A correlation needs as many."""
_SUMMED: Final = (
    "longs_opened",
    "longs_closed",
    "shorts_opened",
    "shorts_closed",
    "long_exits",
    "short_exits",
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
    "stuck_total",
    "stuck_resolved",
    "stuck_released",
    "stuck_recovered",
    "recovery_attempts",
)


def combine_portfolio(
    results: Results, bar_ms: int, risk: Risk, together: Together | None = None
) -> PortfolioResult:
    """Return the portfolio of coins that each have ``initial_capital`` of their own.

    It stands on every bar that any coin has. Before its first bar a coin counts with its capital,
    in a hole with its last equity, after its last bar with its final capital; so the portfolio's
    final capital is the sum of theirs, and every figure is about the same range. Of its metrics
    ``buy_hold_return_pct`` and ``turnover`` are averages, weighted by capital.

    Args:
        results: by coin; at least one.
        bar_ms: length of a candle, ms.
        risk: volatility period, VaR horizon and correlation threshold.
        together: how they were bounded together; None: each ran by itself.
    """
    times = np.unique(np.concatenate([result.times_ms for result in results.values()]))
    equity = np.sum(list(equity_curves(results, times).values()), axis=0)
    initial = math.fsum(result.params.initial_capital for result in results.values())
    first_ms = min(_first_traded_ms(result) for result in results.values())
    first = min(int(np.searchsorted(times, first_ms)), len(times) - 1)
    per_year = BARS_PER_YEAR * 900_000 / bar_ms
    metrics: dict[str, Any] = equity_metrics(equity[first:], initial, per_year)
    metrics |= _averages(results)
    metrics["exposure_pct"] = 100.0 * float(np.mean(_exposed(results, times)[first:]))
    shared = np.sum([np.isin(times, result.times_ms) for result in results.values()], axis=0)
    return PortfolioResult(
        results=results,
        times_ms=times,
        equity_curve=equity,
        initial_capital=initial,
        common_bars=int(np.sum(shared == len(results))),
        metrics=metrics | _sums(results),
        var=portfolio_var(results, times, equity, risk),
        together=together,
    )


def equity_curves(results: Results, times: Ints) -> dict[str, Floats]:
    """Return each coin's equity at the bars that open at ``times``, quote, each (n_bars,).

    Before its first bar it is the coin's capital.

    Args:
        results: by coin.
        times: open times, ms UTC, ascending, shape (n_bars,).
    """
    return {
        coin: at_bars(
            result.times_ms, result.equity_curve, times, float(result.params.initial_capital)
        )
        for coin, result in results.items()
    }


def close_curves(results: Results, times: Ints) -> dict[str, Floats]:
    """Return each coin's last close at ``times``, quote, NaN before its first bar, (n_bars,)."""
    return {
        coin: at_bars(result.times_ms, result.column("close"), times, math.nan)
        for coin, result in results.items()
    }


def at_bars(own: Ints, values: Floats, times: Ints, before: float) -> Floats:
    """Return the last of ``values`` at or before each of ``times``, ``before`` ahead of them all.

    Args:
        own: open times of the values' bars, ms UTC, ascending, shape (n_own,).
        values: shape (n_own,).
        times: shape (n_bars,).
        before: what counts ahead of the first bar.
    """
    row = np.searchsorted(own, times, side="right") - 1
    return np.where(row >= 0, values[np.maximum(row, 0)], before)


def portfolio_var(results: Results, times: Ints, equity: Floats, params: Risk) -> dict[str, Any]:
    """Return the correlation-aware 95 % value at risk of the net positions.

    Taken at the last bar, before what is open there is closed, and at the last bar of every UTC
    day; correlations over the last 672 bars before it that all coins then held have.

    Args:
        results: by coin.
        times: open times of the bars, ms, shape (n_bars,).
        equity: of the portfolio, quote, shape (n_bars,).
        params: ``volatility_period var_horizon_bars high_corr_threshold``.

    Returns:
        ``horizon_bars volatility_period high_corr_threshold`` (what it was computed with); ``end``
        and ``highest`` (quote), each ``_pct`` of the equity then; ``highest_at`` (UTC text);
        ``correlation`` of the last 672 common bars by pair of coins.
    """
    weights = np.array([_risk_weights(result, times, params) for result in results.values()])
    returns = np.array([_returns(result, times) for result in results.values()])
    last_of_day = np.flatnonzero(np.diff(times // DAY_MS, append=-1))
    rows_by_held: dict[tuple[int, ...], Ints] = {}
    at_risk = np.zeros(len(last_of_day))
    for day, i in enumerate(last_of_day.tolist()):
        held = tuple(np.flatnonzero(weights[:, i]).tolist())
        if not held:
            continue
        if held not in rows_by_held:
            rows_by_held[held] = np.flatnonzero(np.isfinite(returns[list(held)]).all(axis=0))
        rows = rows_by_held[held]
        rows = rows[: np.searchsorted(rows, i, side="right")][-CORRELATION_BARS:]
        at_risk[day] = _at_risk(weights[list(held), i], returns[list(held)][:, rows], params)
    at_risk *= np.sqrt(params.var_horizon_bars)
    highest = int(at_risk.argmax())
    then = equity[last_of_day]
    return {
        "horizon_bars": params.var_horizon_bars,
        "volatility_period": params.volatility_period,
        "high_corr_threshold": params.high_corr_threshold,
        "end": float(at_risk[-1]),
        "end_pct": ratio(100.0 * float(at_risk[-1]), float(then[-1])),
        "highest": float(at_risk[highest]),
        "highest_pct": ratio(100.0 * float(at_risk[highest]), float(then[highest])),
        "highest_at": format_time(int(times[last_of_day[highest]])),
        "correlation": _correlations(list(results), returns),
    }


def _risk_weights(result: CoinResult, times: Ints, params: Risk) -> Floats:
    """Return signed notional x volatility at ``times``, quote per bar; 0 outside its own bars."""
    own, closes = result.times_ms, result.column("close")
    sigmas = np.nan_to_num(calculate_rolling_volatility(closes, params.volatility_period))
    weights = at_bars(own, closes * net_positions(result) * sigmas, times, 0.0)
    weights[times > own[-1]] = 0.0  # closed for good at its last bar
    return weights


def _returns(result: CoinResult, times: Ints) -> Floats:
    """Return one-bar returns at ``times``, NaN where the bar or the one before is not there."""
    own, closes = result.times_ms, result.column("close")
    returns = np.full(len(times), math.nan)
    row = np.searchsorted(times, own)
    follows = np.flatnonzero(np.diff(row) == 1) + 1
    returns[row[follows]] = closes[follows] / closes[follows - 1] - 1.0
    return returns


def _at_risk(weights: Floats, returns: Floats, params: Risk) -> float:
    """Return the value at risk of one bar; coins that never met count as moving together."""
    if len(weights) > 1 and returns.shape[1] < _LEAST_RETURNS:
        return Z_95 * float(np.abs(weights).sum())
    return compute_portfolio_var(
        weights, np.ones(len(weights)), returns.T, params.high_corr_threshold
    )


def net_positions(result: CoinResult) -> Floats:
    """Return long minus short quantity at every close, base, shape (n_bars,).

    At the last bar the position before it was closed for good.
    """
    log = result.log
    net = np.array(log["long_qty"] - log["short_qty"], dtype=np.float64)
    for trade in result.trades[::-1]:
        if trade["label"] != CLOSE_END:
            break
        net[-1] += trade["qty"] if trade["direction"] == LONG else -trade["qty"]
    return net


def _first_traded_ms(result: CoinResult) -> int:
    times = result.times_ms
    return int(times[min(result.first_bar, len(times) - 1)])


def _exposed(results: Results, times: Ints) -> npt.NDArray[np.bool_]:
    held = np.zeros(len(times), np.bool_)
    for result in results.values():
        log = result.log
        open_now = (log["long_qty"] > 0.0) | (log["short_qty"] > 0.0)
        held |= at_bars(result.times_ms, open_now.astype(np.float64), times, 0.0) > 0.0
    return held


def _averages(results: Results) -> dict[str, float]:
    """Return figures that are means over the coins, each with the weight of its capital."""
    capital = [float(result.params.initial_capital) for result in results.values()]
    names = ("buy_hold_return_pct", "turnover")
    return {
        name: float(np.average([x.metrics[name] for x in results.values()], weights=capital))
        for name in names
    }


def _sums(results: Results) -> dict[str, Any]:
    """Return counts and money added up, and the ratios that follow from them."""
    metrics = [result.metrics for result in results.values()]
    total: dict[str, Any] = {
        name: sum(item[name] for item in metrics)
        for name in _SUMMED
        if all(name in item for item in metrics)
    }
    if all("prune_types" in item for item in metrics):
        total["prune_types"] = _added([item["prune_types"] for item in metrics])
    won = sum(
        item["win_rate_pct"] * item["total_trades"] for item in metrics if item["total_trades"]
    )
    total["win_rate_pct"] = ratio(won, total["total_trades"])
    total["profit_factor"] = ratio(total["gross_profit"], total["gross_loss"])
    return total


def _added(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for item in counts:
        for label, count in item.items():
            total[label] = total.get(label, 0) + count
    return total


def _correlations(coins: list[str], returns: Floats) -> dict[str, float]:
    """Return each pair's correlation over its last 672 common bars, NaN where a price stood."""
    found: dict[str, float] = {}
    for i, a in enumerate(coins):
        for j in range(i + 1, len(coins)):
            pair = returns[[i, j]]
            pair = pair[:, np.isfinite(pair).all(axis=0)][:, -CORRELATION_BARS:]
            found[f"{a}/{coins[j]}"] = math.nan
            if pair.shape[1] >= _LEAST_RETURNS:
                with np.errstate(invalid="ignore", divide="ignore"):
                    found[f"{a}/{coins[j]}"] = float(np.asarray(np.corrcoef(pair))[0, 1])
    return found
