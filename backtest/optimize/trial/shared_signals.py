"""Signals of many parameter sets: a trial recomputes only what its own values change."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Final

import numpy as np

from backtest.market.market_data import MarketData
from core.atr import FloatArray, IntArray
from core.params import StrategyParams
from core.signals import SignalArray, compute_indicators, compute_raw_regime, settle_regime

INDICATOR_PARAMS: Final = (
    "kama_period",
    "kama_fast",
    "kama_slow",
    "atr_period",
    "adx_period",
    "z_score_period",
    "volatility_period",
    "regime_timeframe_mult",
)
"""Parameters that ``compute_indicators`` reads."""
SLOPE_PARAMS: Final = (
    *INDICATOR_PARAMS,
    "regime_enabled",
    "use_ml_regime",
    "regime_threshold",
    "er_trend_threshold",
)
"""Parameters that ``compute_raw_regime`` reads without a mixture."""
MIXTURE_PARAMS: Final = ("regime_enabled", "use_ml_regime", "gmm_seed", "atr_period")
"""Those it reads with one. Fitting takes seconds, so nothing else may cause it."""
SETTLE_PARAMS: Final = ("adx_veto_enabled", "adx_trend_threshold", "regime_hysteresis_bars")
"""Those that ``settle_regime`` reads besides."""

_KEPT_INDICATORS: Final = 4
_KEPT_REGIMES: Final = 8


class SharedSignals:
    """Signals of one coin's candles under any parameters.

    Each piece is kept under a parameter set in which all values it does not depend on are those
    of ``base``; it is computed from that set, so a piece cannot be served to values it was not
    made for. The least recently used ones go. Safe to use from several threads.

    Args:
        market: the candles.
        base: values of parameters a piece does not depend on.
    """

    def __init__(self, market: MarketData, base: StrategyParams) -> None:
        self._candles, self._bar_ms, self._base = market.candles, market.bar_ms, base
        self._indicators = lru_cache(_KEPT_INDICATORS)(self._compute_indicators)
        self._raw = lru_cache(_KEPT_REGIMES)(self._compute_raw)
        self._settled = lru_cache(_KEPT_REGIMES)(self._compute_settled)

    def write(self, params: StrategyParams, table: SignalArray) -> None:
        """Write the signals under ``params`` into ``table``, shape (n_bars,)."""
        indicators, _ = self._indicators(self._only(params, INDICATOR_PARAMS))
        # As bytes: numpy copies records field by field, six times as slowly.
        table.view(np.uint8)[:] = indicators.view(np.uint8)
        table["regime"] = self._settled(
            self._only(params, (*_raw_params(params), *INDICATOR_PARAMS, *SETTLE_PARAMS))
        )

    def _only(self, params: StrategyParams, names: tuple[str, ...]) -> StrategyParams:
        return replace(self._base, **{name: getattr(params, name) for name in names})

    def _compute_indicators(self, params: StrategyParams) -> tuple[SignalArray, FloatArray]:
        candles = self._candles
        return compute_indicators(
            candles["timestamp"],
            candles["high"],
            candles["low"],
            candles["close"],
            candles["volume"],
            params,
            bar_ms=self._bar_ms,
        )

    def _compute_raw(self, params: StrategyParams) -> IntArray:
        indicators, slope = self._indicators(self._only(params, INDICATOR_PARAMS))
        candles = self._candles
        return compute_raw_regime(
            candles["timestamp"], candles["close"], indicators, slope, params, bar_ms=self._bar_ms
        )

    def _compute_settled(self, params: StrategyParams) -> IntArray:
        indicators, _ = self._indicators(self._only(params, INDICATOR_PARAMS))
        raw = self._raw(self._only(params, _raw_params(params)))
        return settle_regime(raw, indicators["adx"], params)


def _raw_params(params: StrategyParams) -> tuple[str, ...]:
    return MIXTURE_PARAMS if params.use_ml_regime else SLOPE_PARAMS
