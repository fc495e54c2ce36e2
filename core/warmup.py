"""How many candles indicators need to agree with those of a whole history."""

from __future__ import annotations

import math
from typing import Final

from core.atr import MEAN_WINDOW
from core.params import StrategyParams
from core.regime_gmm import GMM_RETURN_BARS, GMM_WINDOW
from core.times import DAY_MS

AGREEMENT: Final = 1e-6
"""How near, relatively, indicators of the buffer come to those of the full history."""


def mixture_bars(bar_ms: int) -> int:
    """Return how many candles the answer at one depends on with the mixture, a day to spare."""
    return GMM_WINDOW + GMM_RETURN_BARS + 2 * (DAY_MS // bar_ms)


def bars_needed(params: StrategyParams, least: int, bar_ms: int) -> int:
    """Return how many candles make the indicators agree with full history to ``AGREEMENT``.

    KAMA forgets slowest: in a market without direction its smoothing is ``(2/(slow+1))^2`` a
    candle of ``regime_timeframe_mult`` bars. Wilder's averages forget 1/n a bar; the 7-day means
    end after 672 bars; the mixture is fitted to 2,880.

    Args:
        params: periods.
        least: never fewer.
        bar_ms: length of a candle.
    """
    slowest = (2.0 / (params.kama_slow + 1.0)) ** 2
    kama = math.log(AGREEMENT) / math.log1p(-slowest) + params.kama_period
    wilder = -math.log(AGREEMENT) * 2 * max(params.atr_period, params.adx_period)
    bars = [least, MEAN_WINDOW + wilder, params.regime_timeframe_mult * max(kama, wilder)]
    if params.use_ml_regime:
        bars.append(mixture_bars(bar_ms) + wilder)
    return math.ceil(max(bars))
