"""The result of several coins together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.runs.coin_result import CoinResult
from core.times import format_time
from engine.result_dict import ResultDict
from engine.trade_tables import equity_series

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PORTFOLIO: Final = "_portfolio"
"""Key of the portfolio among the coins."""
Results = Mapping[str, CoinResult]
"""By coin."""


@dataclass(frozen=True, eq=False)
class Together:
    """How coins that ran in step were bounded together.

    Attributes:
        weights: share of the capital, by coin.
        drawdown_pct: budget of value at risk, of the sum of equity; NaN: it was switched off.
        horizon_bars: bars that the value at risk looks ahead.
        times_ms: instants at which any coin had a bar, ms UTC, (n_times,).
        share: lambda, of every side's room for entries, (n_times,).
        budget: quote, (n_times,).
    """

    weights: Mapping[str, float]
    drawdown_pct: float
    horizon_bars: float
    times_ms: Ints
    share: Floats
    budget: Floats

    def to_dict(self) -> dict[str, Any]:
        """Return the figures: steps that were capped or blocked, the smallest share and when."""
        lowest = int(self.share.argmin()) if self.share.size else -1
        capped = int(np.sum(self.share < 1.0))
        return {
            "weights": dict(self.weights),
            "portfolio_drawdown_pct": self.drawdown_pct,
            "horizon_bars": self.horizon_bars,
            "steps": int(self.share.size),
            "portfolio_capped": capped,
            "portfolio_blocked": int(np.sum(self.share == 0.0)),
            "lowest_share": float(self.share[lowest]) if capped else 1.0,
            "lowest_at": format_time(int(self.times_ms[lowest])) if capped else "",
        }


@dataclass(frozen=True, eq=False)
class PortfolioResult:
    """Several coins' accounts added up, on every bar that any of them has.

    Attributes:
        results: of its coins, by coin.
        times_ms: open times of the bars, ms UTC, (n_bars,).
        equity_curve: of all together at every close, quote, (n_bars,).
        initial_capital: of all together, quote.
        common_bars: how many of the bars all coins have.
        metrics: ratios of the summed curve; counts and money summed.
        var: value at risk, see ``backtest.runs.portfolio.portfolio_var``.
        together: how the coins were bounded together; None: each ran by itself.
    """

    results: Results
    times_ms: Ints
    equity_curve: Floats
    initial_capital: float
    common_bars: int
    metrics: dict[str, Any]
    var: dict[str, Any]
    together: Together | None = None

    @property
    def coins(self) -> list[str]:
        """Their names, in the order asked for."""
        return list(self.results)

    def trade_frame(self) -> pd.DataFrame:
        """Return all coins' trade records by time, each with its ``coin``."""
        frames = []
        for coin, result in self.results.items():
            frame = result.trade_frame()
            frame.insert(0, "coin", pd.Series(pd.Categorical([coin] * len(frame), self.coins)))
            frames.append(frame)
        return pd.concat(frames).sort_values("time", kind="stable", ignore_index=True)

    def equity_series(self) -> pd.Series[float]:
        """Return the equity at every close, quote, by the bar's open (UTC)."""
        return equity_series(self.times_ms, self.equity_curve)

    def to_dict(self) -> ResultDict:
        """Return the entry ``_portfolio`` of ``BacktestSimulator.run_multi``'s dict."""
        entries = {
            "coins": self.coins,
            "timestamp": self.times_ms,
            "equity_curve": self.equity_curve,
            "initial_capital": self.initial_capital,
            "common_bars": self.common_bars,
            "metrics": self.metrics,
            "var": self.var,
        }
        if self.together is not None:
            entries["together"] = self.together.to_dict()
        return ResultDict(self, entries)

    def all_dicts(self) -> ResultDict:
        """Return the public dict of ``run_multi``: results by coin, and ``_portfolio``."""
        entries = {coin: result.to_dict() for coin, result in self.results.items()}
        return ResultDict(self, entries | {PORTFOLIO: self.to_dict()})


AllResults = Mapping[str, CoinResult | PortfolioResult]
"""By coin, and the portfolio under ``_portfolio`` where there is one."""


def coins_of(results: AllResults) -> dict[str, CoinResult]:
    """Return the coins' results, without the portfolio."""
    return {name: item for name, item in results.items() if isinstance(item, CoinResult)}


def portfolio_of(results: AllResults) -> PortfolioResult | None:
    """Return the portfolio, None where there is none."""
    found = results.get(PORTFOLIO)
    return found if isinstance(found, PortfolioResult) else None
