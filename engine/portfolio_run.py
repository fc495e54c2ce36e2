"""Several runs of a strategy's compiled loop in step, bounded together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from core.portfolio_risk import NO_RETURN, pair_windows, whole_returns
from core.records import dtype_of, zeros
from engine.portfolio import PortfolioRisk, PortfolioStep, Publication
from engine.tables import Records, RunTables
from engine.types import take_rows

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PortfolioLoop:
    """The kernel of a strategy that carries several coins.

    Attributes:
        run_together: arguments as of ``engine.grid_v4.portfolio_loop.run_together``.
        coin: annotated class of a coin's place in the tables.
        log_row: annotated class of a row of the log.
    """

    run_together: Callable[..., int]
    coin: type[Any]
    log_row: type[Any]


@dataclass(frozen=True, eq=False)
class CoinRun:
    """One coin of a portfolio: what it reads, and the state it begins with.

    Attributes:
        tables: bars, signals, funding, sub-bars.
        params: frozen parameters.
        market: rules as kernels read them.
        state: before the first step; left as it is.
        tape: an empty one of the strategy.
        capital: quote, with which the coin counts before its first step.
    """

    tables: RunTables
    params: Any
    market: Any
    state: Any
    tape: Any
    capital: float


@dataclass(frozen=True, eq=False)
class PortfolioRun:
    """The outcome of a portfolio.

    Attributes:
        times: instants at which any coin has a bar, ms UTC, shape (n_times,).
        steps: table of ``PortfolioStep``, shape (n_times,).
        logs: each coin's account at every close of its own bars.
        trades: each coin's records.
        states: each coin's state at the end, a table.
    """

    times: Ints
    steps: Records
    logs: list[Records]
    trades: list[Records]
    states: Records


def portfolio_risk(
    *, enabled: bool, drawdown_pct: float, horizon_bars: float, high_corr_threshold: float
) -> PortfolioRisk:
    """Return the budget as kernels read it."""
    risk = zeros(PortfolioRisk)
    risk.enabled, risk.drawdown_pct = enabled, drawdown_pct
    risk.horizon_bars, risk.high_corr_threshold = horizon_bars, high_corr_threshold
    return risk


def run_portfolio(
    loop: PortfolioLoop, coins: Sequence[CoinRun], risk: PortfolioRisk
) -> PortfolioRun:
    """Run all coins from their first bar to their last, closing each at its end.

    Args:
        loop: of the strategy that all of them run.
        coins: at least one.
        risk: what they may have at risk together.
    """
    bars = [coin.tables.bars for coin in coins]
    times = np.unique(np.concatenate([table["ts_ms"] for table in bars]))
    lengths = [len(table) for table in bars]
    places: Any = np.zeros(len(coins), dtype_of(loop.coin))
    places["end"] = np.cumsum(lengths)
    places["begin"] = places["row"] = places["end"] - lengths
    places["first_bar"] = places["begin"] + [coin.tables.first_bar for coin in coins]
    published: Any = np.zeros(len(coins), dtype_of(Publication))
    published["equity"] = [coin.capital for coin in coins]
    states: Any = np.array([np.asarray(coin.state) for coin in coins])
    tapes: Any = np.array([np.asarray(coin.tape) for coin in coins])
    log: Any = np.zeros(sum(lengths), dtype_of(loop.log_row))
    steps: Any = np.zeros(len(times), dtype_of(PortfolioStep))
    arguments = (
        states,
        np.array([np.asarray(coin.params) for coin in coins]),
        np.array([np.asarray(coin.market) for coin in coins]),
        np.concatenate(bars),
        np.concatenate([coin.tables.signals for coin in coins]),
        np.concatenate([coin.tables.funding for coin in coins]),
        np.concatenate([coin.tables.detail for coin in coins]),
        _detail_spans([coin.tables for coin in coins]),
        places,
        times,
        np.array([_returns(table, times) for table in bars]),
        pair_windows(len(coins)),
        risk,
    )
    taken: list[list[Records]] = [[] for _ in coins]
    done = 0
    while done < len(times):
        done = loop.run_together(*arguments, done, tapes, log, published, steps)
        for parts, tape in zip(taken, tapes, strict=True):
            parts.append(take_rows(tape, "trades"))
    return PortfolioRun(
        times,
        steps,
        [log[place["begin"] : place["end"]] for place in places],
        [np.concatenate(parts) for parts in taken],
        states,
    )


def _detail_spans(tables: Sequence[RunTables]) -> Ints:
    """Return each bar's first sub-bar and the one after its last, among those of all coins."""
    before, spans = 0, []
    for x in tables:
        spans.append(np.column_stack((x.detail_from[:-1], x.detail_from[1:])).ravel() + before)
        before += len(x.detail)
    return np.concatenate(spans).astype(np.int64)


def _returns(bars: Records, times: Ints) -> Ints:
    """Return the returns of the bars that open at ``times``; NO_RETURN where there is none."""
    returns = np.full(len(times), NO_RETURN)
    row = np.searchsorted(times, bars["ts_ms"])
    follows = np.flatnonzero(np.diff(row) == 1) + 1
    closes = bars["close"]
    returns[row[follows]] = whole_returns(closes[follows] / closes[follows - 1] - 1.0)
    return returns
