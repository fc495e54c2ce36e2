"""One coin run with many parameter sets: everything they have in common is prepared once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.market.coin_data import CoinData
from backtest.market.market_data import MarketData, slice_time
from core.errors import ConfigError
from core.funding import schedule_funding
from core.kama import NOISE
from core.market import MarketRules
from core.params import StrategyParams
from core.records import dtype_of, freeze, zeros
from core.signals import SignalArray, compute_indicators, compute_raw_regime, settle_regime
from engine.grid_v4.loop import BarLog, close_at_end, run_bars
from engine.results import run_metrics
from engine.tables import bar_table, detail_rows, funding_rows, times_ms, within_bars
from engine.types import Tape, new_state

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


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of a variant.

    Attributes:
        metrics: as ``GridStrategyV4.run`` answers them.
        equity_curve: quote, of every bar, those that warm up included, shape (n_bars,).
        trades: table of ``engine.types.Trade``; bars count from the first one loaded.
    """

    metrics: dict[str, Any]
    equity_curve: npt.NDArray[np.float64]
    trades: Records


class Variants:
    """Runs of one coin's data that share candles, funding rates and indicators.

    Args:
        data: what every run reads.
        params: of the central run; a variant may change anything but what indicators are made of.

    Raises:
        DataError: the candles cannot be used.
    """

    def __init__(self, data: CoinData, params: StrategyParams) -> None:
        self.data, self.params = data, params
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
        self._funding: Records | None = None

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
        inside, bar_ms = self._bars[:0], self.data.market.bar_ms
        if detail is not None:
            inside = within_bars(self._bars, bar_table(detail), bar_ms)
        return inside, detail_rows(self._bars, inside, bar_ms)

    def run(self, params: StrategyParams, sub_bars: SubBars | None = None) -> Outcome:
        """Do what ``GridStrategyV4.run`` does, without what a comparison does not need.

        Args:
            params: of this run.
            sub_bars: as ``sub_bars`` answers; None: the candles alone.

        Raises:
            ConfigError: as ``signals_of``.
        """
        bars: Any = self._bars
        signals: Any = self.signals_of(params)
        funding: Any = self._funding_rows()
        detail, detail_from = self.sub_bars(None) if sub_bars is None else sub_bars
        frozen, market = freeze(params), self.data.rules.to_record(params.liquidation_fee)
        state, tape = new_state(params.initial_capital), zeros(Tape)
        log: Any = np.zeros(len(bars), dtype_of(BarLog))
        done, parts = 0, []
        while done < len(bars):
            done = run_bars(
                state,
                frozen,
                market,
                bars,
                signals,
                funding,
                detail,
                detail_from,
                self.data.first_bar,
                done,
                tape,
                log,
            )
            parts.append(_take_trades(tape))
        close_at_end(state, frozen, market, bars[-1].close, tape, log[-1])
        trades = np.concatenate([*parts, _take_trades(tape)])
        first = self.first_acting_bar()
        metrics = run_metrics(state, params, bars, log, trades, first)
        return Outcome(metrics, np.array(log["equity"]), trades)

    def first_acting_bar(self) -> int:
        """Return the first bar whose step acts, the number of bars if none does."""
        ready = np.flatnonzero(self._indicators["ready"][:-1]) + 1
        ready = ready[ready >= self.data.first_bar]
        return int(ready[0]) if ready.size else len(self._bars)

    def _funding_rows(self) -> Records:
        if self._funding is None:
            settled, bars = self.data.market.funding, self._bars
            schedule = schedule_funding(
                np.array(bars["ts_ms"]),
                np.array(bars["close"]),
                times_ms(settled),
                np.array(settled["rate"], dtype=np.float64),
                self.data.market.bar_ms,
            )
            self._funding = funding_rows(schedule)
        return self._funding


def _take_trades(tape: Tape) -> Records:
    """Return the trade records on the tape and empty it."""
    table: Any = tape.trades
    trades: Records = table[: int(tape.n_trades)].copy()
    tape.n_trades = 0
    return trades


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
