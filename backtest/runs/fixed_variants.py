"""One coin run with many parameter sets of the fixed grid, on the candles they share."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.market.coin_data import CoinData
from core.kama import NOISE
from core.signals import compute_signals
from core.times import BAR_MS
from engine.fixed_grid.params import FixedGridParams
from engine.fixed_grid.strategy import FixedGridStrategy
from engine.registry import GRID_V4
from engine.results import RunResult
from engine.tables import RunTables


class FixedVariants:
    """Runs of one coin's data that share candles and funding rates.

    Args:
        data: what every run reads.
        params: of the central run.

    Raises:
        DataError: the candles cannot be used.
    """

    def __init__(self, data: CoinData, params: FixedGridParams) -> None:
        self.data, self.params = data, params
        self._tables = {params.step_s: self._prepare(params)}

    def _prepare(self, params: FixedGridParams) -> RunTables:
        market = self.data.market
        return FixedGridStrategy(params, self.data.rules).tables(
            market.candles, settled=market.funding, first_bar=self.data.first_bar
        )

    @property
    def times_ms(self) -> npt.NDArray[np.int64]:
        """Open times of all candles walked, ms UTC."""
        return np.array(self._tables[self.params.step_s].bars["ts_ms"])

    def prepare(self, params: FixedGridParams) -> None:
        """Make what a run with ``params`` reads, before threads ask for it."""
        self.tables(params)

    def sub_bars(self, detail: pd.DataFrame | None) -> None:
        """Candles are as fine as a step already; finer ones are not read."""

    def tables(self, params: FixedGridParams, sub_bars: None = None) -> RunTables:  # noqa: ARG002
        """Return what a run with ``params`` reads."""
        if params.step_s not in self._tables:
            self._tables[params.step_s] = self._prepare(params)
        return self._tables[params.step_s]

    def run(self, params: FixedGridParams, sub_bars: None = None) -> RunResult:
        """Do what ``FixedGridStrategy.run`` does, on what the variants share."""
        strategy = FixedGridStrategy(params, self.data.rules)
        return strategy.run_tables(self.tables(params, sub_bars))

    def central(
        self, params: FixedGridParams, sub_bars: None = None
    ) -> tuple[FixedGridStrategy, RunResult]:
        """Return a run and the strategy as it stands after it."""
        strategy = FixedGridStrategy(params, self.data.rules)
        result = strategy.run_tables(self.tables(params, sub_bars))
        return strategy, replace(result, regime_log=self.regimes)

    @functools.cached_property
    def regimes(self) -> npt.NDArray[np.int64]:
        """Market regime at every candle walked, see ``market_regimes``."""
        return market_regimes(self.candles)

    @functools.cached_property
    def candles(self) -> pd.DataFrame:
        """The candles walked: an interval with missing ones is one candle."""
        bars: Any = self._tables[self.params.step_s].bars
        rows = self.data.market.candles
        first = np.searchsorted(rows["timestamp"].to_numpy(), bars["ts_ms"])
        whole = np.append(0.0, np.cumsum(np.array(rows["volume"], dtype=np.float64)))
        volume = np.diff(whole[np.append(first, len(rows))])
        columns = {name: np.array(bars[name]) for name in ("open", "high", "low", "close")}
        return pd.DataFrame(
            {"timestamp": np.array(bars["ts_ms"]), **columns, "volume": np.maximum(volume, 0.0)}
        )


def market_regimes(candles: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the market regime at every candle, for reports on a strategy that knows none.

    The regimes of GridV4 under its shipped values, on the 15-minute candles that these candles
    make; a candle has that of the last 15 minutes completed before it.

    Args:
        candles: ``timestamp open high low close volume``, (n_bars,) rows.
    """
    table = quarter_candles(candles)
    signals = compute_signals(
        table["timestamp"],
        table["high"],
        table["low"],
        table["close"],
        table["volume"],
        GRID_V4.read(),
    )
    ends, times = table["timestamp"].to_numpy() + BAR_MS, candles["timestamp"].to_numpy()
    before = np.searchsorted(ends, times, "right") - 1
    return np.where(before >= 0, signals["regime"][np.maximum(before, 0)], NOISE)


def quarter_candles(candles: pd.DataFrame) -> pd.DataFrame:
    """Return the 15-minute candles that finer ones make; the first and the last may be parts."""
    groups = candles.groupby(candles["timestamp"] // BAR_MS)
    table = groups.agg(
        open=("open", "first"),
        high=("high", "max"),
        low=("low", "min"),
        close=("close", "last"),
        volume=("volume", "sum"),
    )
    table.insert(0, "timestamp", table.index.to_numpy() * BAR_MS)
    return table.reset_index(drop=True)
