"""One coin run with many parameter sets: everything they have in common is prepared once."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.market.coin_data import CoinData
from backtest.market.market_data import MarketData, slice_time
from core.errors import ConfigError
from core.funding import FundingSchedule
from core.kama import NOISE
from core.market import MarketRules
from core.params import StrategyParams
from core.signals import SignalArray, compute_indicators, compute_raw_regime, settle_regime
from engine.contract import Backtest, StrategySpec
from engine.registry import GRID_V4
from engine.results import RunResult
from engine.strategy import GridStrategyV4
from engine.tables import RunTables, bar_table, funding_rows, settled_funding, sub_bar_tables

T = TypeVar("T")
Records = npt.NDArray[Any]
SubBars = tuple[Any, Any]
"""Finer candles as a table, and the first of them in each candle."""

_REGIME_SWITCHES: Final = ("regime_enabled", "adx_veto_enabled")
_SIGNAL_PARAMS: Final = (
    "kama_period",
    "kama_fast",
    "kama_slow",
    "atr_period",
    "adx_period",
    "z_score_period",
    "volatility_period",
    "regime_timeframe_mult",
    "regime_threshold",
    "er_trend_threshold",
    "adx_trend_threshold",
    "regime_hysteresis_bars",
    "use_ml_regime",
    "gmm_seed",
)


class Variants:
    """Runs of one coin's data that share candles, funding rates and indicators.

    Args:
        data: what every run reads.
        params: of the central run; a variant may change anything but what indicators are made of.
        spec: of the strategy.

    Raises:
        DataError: the candles cannot be used.
    """

    def __init__(
        self, data: CoinData, params: StrategyParams, spec: StrategySpec = GRID_V4
    ) -> None:
        self.data, self.params, self._spec = data, params, spec
        candles, bar_ms = data.market.candles, data.market.bar_ms
        self._bars = bar_table(candles)
        self._indicators, slope = compute_indicators(
            candles["timestamp"],
            candles["high"],
            candles["low"],
            candles["close"],
            candles["volume"],
            params,
            bar_ms=bar_ms,
        )
        self._raw_regime = compute_raw_regime(
            candles["timestamp"], candles["close"], self._indicators, slope, params, bar_ms=bar_ms
        )
        self._signals: dict[tuple[bool, ...], SignalArray] = {}

    @property
    def signals(self) -> SignalArray:
        """Signals of the central run."""
        return self.signals_of(self.params)

    def signals_of(self, params: StrategyParams) -> SignalArray:
        """Return the signals under ``params``, which may switch regime and ADX veto off.

        Raises:
            ConfigError: something else the indicators depend on differs from the central run.
        """
        changed = [
            name for name in _SIGNAL_PARAMS if getattr(params, name) != getattr(self.params, name)
        ]
        if params.regime_enabled and not self.params.regime_enabled:
            changed.append("regime_enabled")
        if changed:
            raise ConfigError(
                f"{', '.join(changed)} must be as in the central run, whose indicators all "
                "variants share; give a run that differs there indicators of its own"
            )
        switches = tuple(bool(getattr(params, name)) for name in _REGIME_SWITCHES)
        if switches not in self._signals:
            raw = self._raw_regime
            if not params.regime_enabled:
                raw = np.full_like(raw, NOISE)
            table = self._indicators.copy()
            table["regime"] = settle_regime(raw, table["adx"], params)
            self._signals[switches] = table
        return self._signals[switches]

    @property
    def times_ms(self) -> npt.NDArray[np.int64]:
        """Open times of all bars, those that warm up included, ms UTC."""
        return np.array(self._bars["ts_ms"])

    def sub_bars(self, detail: pd.DataFrame | None) -> SubBars:
        """Return finer candles as ``run`` reads them; None: none."""
        return sub_bar_tables(self._bars, detail, self.data.market.bar_ms)

    def prepare(self, params: StrategyParams) -> None:
        """Make what a run with ``params`` reads, before threads ask for it."""
        self.signals_of(params)

    @property
    def candles(self) -> pd.DataFrame:
        """All candles, those that warm up included."""
        return self.data.market.candles

    def run(self, params: StrategyParams, sub_bars: SubBars | None = None) -> RunResult:
        """Do what ``GridStrategyV4.run`` does, on what the variants share.

        Args:
            params: of this run.
            sub_bars: as ``sub_bars`` answers; None: the candles alone.

        Raises:
            ConfigError: as ``signals_of``.
        """
        return self.central(params, sub_bars)[1]

    def central(
        self, params: StrategyParams, sub_bars: SubBars | None = None
    ) -> tuple[Backtest, RunResult]:
        """Return a run and the strategy as it stands after it; errors as of ``run``."""
        strategy = self._spec.backtest(params, self.data.rules)
        if isinstance(strategy, GridStrategyV4):
            return strategy, strategy.run_tables(self.tables(params, sub_bars))
        market = self.data.market
        return strategy, strategy.run_result(
            market.candles,
            funding=market.funding,
            detail=None if sub_bars is None else market.detail,
            first_bar=self.data.first_bar,
            signals=self.signals_of(params),
            bar_ms=market.bar_ms,
        )

    def tables(self, params: StrategyParams, sub_bars: SubBars | None = None) -> RunTables:
        """Return what a run reads; arguments and errors as of ``run``."""
        detail, detail_from = self.sub_bars(None) if sub_bars is None else sub_bars
        return RunTables(
            self._bars,
            self.signals_of(params),
            funding_rows(self._schedule),
            self._schedule.source,
            detail,
            detail_from,
            self.data.first_bar,
        )

    @functools.cached_property
    def _schedule(self) -> FundingSchedule:
        return settled_funding(self._bars, self.data.market.funding, self.data.market.bar_ms)


def run_side_by_side(jobs: Iterable[Callable[[], T]], threads: int | None = None) -> list[T]:
    """Return what each of ``jobs`` answers, in their order; the first error is raised.

    Threads suffice: the compiled loop releases the interpreter's lock.

    Args:
        jobs: take no arguments.
        threads: None: one per processor.
    """
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def cut_window(
    market: MarketData, rules: MarketRules, start_ms: int, end_ms: int, warmup_bars: int
) -> CoinData:
    """Return the part of ``market`` that a backtest of ``[start_ms, end_ms)`` would load.

    Args:
        market: all there is of a coin.
        rules: of the symbol.
        start_ms: open of the first bar traded, ms UTC.
        end_ms: exclusive, ms UTC.
        warmup_bars: bars before the first that warm the indicators up.
    """
    from_ms = start_ms - warmup_bars * market.bar_ms
    candles = slice_time(market.candles, from_ms, end_ms)
    window = replace(
        market,
        candles=candles,
        funding=slice_time(market.funding, from_ms, end_ms + 1),
        detail=None if market.detail is None else slice_time(market.detail, start_ms, end_ms),
    )
    first = int(np.searchsorted(candles["timestamp"].to_numpy(), start_ms))
    return CoinData(window, rules, first, (from_ms, end_ms), None)
