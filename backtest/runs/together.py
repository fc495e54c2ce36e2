"""Several coins run in step on one account, their entries bounded by the risk of all."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np

from backtest.market.coin_data import CoinData
from backtest.runs.portfolio_result import Together
from core.atr import calculate_atr
from core.errors import ConfigError
from core.params import unknown_key
from core.records import zeros
from core.risk import CORRELATION_BARS
from engine.grid_v4.portfolio_loop import PORTFOLIO_LOOP
from engine.grid_v4.types import new_state
from engine.portfolio_run import CoinRun, portfolio_risk, run_portfolio
from engine.results import RunResult
from engine.strategy import GridStrategyV4
from engine.tables import RunTables
from engine.types import Tape

ATR_BARS: Final = 14


class Risk(Protocol):
    """Parameters of the portfolio's value at risk."""

    @property
    def var_horizon_bars(self) -> float:
        """Bars it looks ahead."""
        ...

    @property
    def high_corr_threshold(self) -> float:
        """Correlation that counts as 1."""
        ...


@dataclass(frozen=True)
class Limits:
    """Limits of several coins on one account.

    Attributes:
        enabled: entries are bounded by the value at risk of all.
        drawdown_pct: its budget, of the sum of equity.
    """

    enabled: bool
    drawdown_pct: float


@dataclass(frozen=True, eq=False)
class Prepared:
    """A coin's data with everything that its runs share.

    Attributes:
        data: what was loaded.
        variants: of its strategy.
    """

    data: CoinData
    variants: Any


def read_limits(shipped: Mapping[str, Any], changed: Mapping[str, Any]) -> Limits:
    """Return the limits of ``shipped`` (as ``PORTFOLIO_CONFIG``) and what differs from them.

    Raises:
        ConfigError: a key is unknown, or a value of the wrong type or out of range.
    """
    for key in changed:
        if key not in shipped:
            raise ConfigError(unknown_key(key, shipped, "portfolio setting"))
    values: dict[str, Any] = {**shipped, **changed}
    enabled, part = values["portfolio_var_enabled"], values["portfolio_drawdown_pct"]
    words = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}
    enabled = words.get(str(enabled).strip().lower())
    if enabled is None:
        raise ConfigError(
            f"portfolio_var_enabled = {values['portfolio_var_enabled']!r} must be true or false"
        )
    try:
        part = float(part)
    except (TypeError, ValueError):
        part = math.nan
    if not 0.0 < part <= 1.0:
        raise ConfigError(
            f"portfolio_drawdown_pct = {values['portfolio_drawdown_pct']!r} must be a share of the "
            "equity above 0 and at most 1, such as 0.15"
        )
    return Limits(enabled, part)


def start_volatility(data: CoinData) -> float:
    """Return the mean true range of the seven days before the first bar traded, of the price.

    Of what there is where fewer candles were loaded; NaN where there are none.
    """
    before = data.market.candles.iloc[max(data.first_bar - CORRELATION_BARS, 0) : data.first_bar]
    if len(before) <= ATR_BARS:
        return math.nan
    high, low, close = (before[name].to_numpy(np.float64) for name in ("high", "low", "close"))
    relative = calculate_atr(high, low, close, ATR_BARS) / close
    return float(np.nanmean(relative))


def _first_bars(tables: RunTables) -> RunTables:
    """Return the tables of the first few bars."""
    return replace(
        tables,
        bars=tables.bars[:3],
        signals=tables.signals[:3],
        funding=tables.funding[:3],
        detail_from=tables.detail_from[:4],
    )


def run_grids_together(
    coins: Mapping[str, Prepared], weights: Mapping[str, float], limits: Limits, risk: Risk
) -> tuple[dict[str, tuple[GridStrategyV4, RunResult]], Together]:
    """Run GridStrategyV4 on every coin in step.

    Args:
        coins: prepared with parameters whose ``initial_capital`` is the coin's share.
        weights: of the shares.
        limits: of all together.
        risk: horizon and correlation threshold.

    Returns:
        Strategy and result by coin, and how they were bounded.
    """
    strategies, runs = {}, []
    for coin, ready in coins.items():
        variants = ready.variants
        strategy = GridStrategyV4(variants.params, ready.data.rules)
        sub_bars = variants.sub_bars(ready.data.market.detail)
        tables = variants.tables(variants.params, sub_bars)
        capital = float(variants.params.initial_capital)
        strategies[coin] = strategy
        runs.append(
            CoinRun(
                tables,
                strategy.frozen_params,
                strategy.rules,
                new_state(capital),
                zeros(Tape),
                capital,
            )
        )
    budget = portfolio_risk(
        enabled=limits.enabled,
        drawdown_pct=limits.drawdown_pct,
        horizon_bars=risk.var_horizon_bars,
        high_corr_threshold=risk.high_corr_threshold,
    )
    few = [replace(run, tables=_first_bars(run.tables)) for run in runs]
    run_portfolio(PORTFOLIO_LOOP, few, budget)  # loads the loop, so that it is not timed
    started = time.perf_counter()
    done = run_portfolio(PORTFOLIO_LOOP, runs, budget)
    seconds = (time.perf_counter() - started) / len(runs)
    found = {}
    for row, (coin, strategy) in enumerate(strategies.items()):
        state: Any = done.states[row]
        result = strategy.result_of(
            state, runs[row].tables, done.logs[row], done.trades[row], seconds
        )
        strategy.state = state
        found[coin] = (strategy, result)
    traded = done.times >= min(
        int(run.tables.bars["ts_ms"][min(run.tables.first_bar, len(run.tables.bars) - 1)])
        for run in runs
    )
    together = Together(
        weights=dict(weights),
        drawdown_pct=limits.drawdown_pct if limits.enabled else math.nan,
        horizon_bars=risk.var_horizon_bars,
        times_ms=done.times[traded],
        share=done.steps["share"][traded].copy(),
        budget=done.steps["budget"][traded].copy(),
    )
    return found, together
