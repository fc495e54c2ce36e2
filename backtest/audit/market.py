"""The market an audit judges trades against, rebuilt from candles and funding rates alone."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from backtest.market.market_data import MarketData
from core.times import DAY_MS, HOUR_MS, MINUTE_MS

SETTLEMENT_MS: Final = 8 * HOUR_MS
MODEL_BARS: Final = 96
MODEL_BASE: Final = 0.0001
MODEL_SLOPE: Final = 0.02
MODEL_CLAMP: Final = 0.0003

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AuditBars:
    """The bars that may trade, each array of shape (n_bars,).

    Attributes:
        ts_ms: open times.
        open: first price, at which a step decides.
        close: mark of funding and equity.
        low: lowest price of the path within the bar, finer candles and the open included.
        high: highest one.
        before_low: lower of the bar's close before and the path's end there.
        before_high: the higher one.
        before_close: close of the bar before.
        due: sum of the funding rates settled after the bar's open, up to the next one's.
        bar_ms: length of a bar, ms.
    """

    ts_ms: npt.NDArray[np.int64]
    open: Floats
    close: Floats
    low: Floats
    high: Floats
    before_low: Floats
    before_high: Floats
    before_close: Floats
    due: Floats
    bar_ms: int

    def __len__(self) -> int:
        """Return the number of bars."""
        return len(self.ts_ms)


def audit_bars(market: MarketData, first: int) -> AuditBars:
    """Return the bars of ``market`` from ``first`` on with their paths and funding."""
    candles = market.candles
    ts_ms = np.array(candles["timestamp"], dtype=np.int64)
    opens, highs, lows, closes = (
        np.array(candles[name], dtype=np.float64) for name in ("open", "high", "low", "close")
    )
    low, high, end = _paths(market, ts_ms, opens, lows, highs, closes)
    before_close, before_end = _previous(closes), _previous(end)
    return AuditBars(
        ts_ms=ts_ms[first:],
        open=opens[first:],
        close=closes[first:],
        low=low[first:],
        high=high[first:],
        before_low=np.minimum(before_close, before_end)[first:],
        before_high=np.maximum(before_close, before_end)[first:],
        before_close=before_close[first:],
        due=funding_due(market)[first:],
        bar_ms=market.bar_ms,
    )


def _previous(values: Floats) -> Floats:
    """Return each bar's value of the bar before; the first keeps its own."""
    return np.concatenate((values[:1], values[:-1]))


def _paths(
    market: MarketData,
    ts_ms: npt.NDArray[np.int64],
    opens: Floats,
    lows: Floats,
    highs: Floats,
    closes: Floats,
) -> tuple[Floats, Floats, Floats]:
    """Return lowest, highest and last price of each bar's path.

    A bar that has all its finer candles is walked over these only; its own open is where it
    starts. One that lacks some is walked as the candle it is.
    """
    low, high, end = lows.copy(), highs.copy(), closes.copy()
    if market.detail is None or len(market.detail) < 2:  # noqa: PLR2004 - a length needs two
        return low, high, end
    fine = market.detail
    times = np.array(fine["timestamp"], dtype=np.int64)
    bar = np.searchsorted(ts_ms, times, side="right") - 1
    inside = (bar >= 0) & (times < ts_ms[np.maximum(bar, 0)] + market.bar_ms)
    needed = market.bar_ms // min(int(step) for step in np.diff(times))
    present = Counter(bar[inside].tolist())
    inside &= np.array([present[int(b)] >= needed for b in bar])
    bar = bar[inside]
    fine_low = np.array(fine["low"], dtype=np.float64)[inside]
    fine_high = np.array(fine["high"], dtype=np.float64)[inside]
    walked = np.unique(bar)
    low[walked], high[walked] = opens[walked], opens[walked]
    np.minimum.at(low, bar, fine_low)
    np.maximum.at(high, bar, fine_high)
    end[bar] = np.array(fine["close"], dtype=np.float64)[inside]  # the last one of a bar stays
    return low, high, end


def funding_due(market: MarketData) -> Floats:
    """Return the sum of the rates settled in ``(t_i, t_{i+1}]`` of every loaded bar, (n_bars,)."""
    times = [int(t) for t in market.candles["timestamp"]]
    due = np.zeros(len(times))
    for settled, rate in settlements(market):
        if settled > times[0]:
            due[bisect_left(times, settled) - 1] += rate
    return due


def settlements(market: MarketData) -> list[tuple[int, float]]:
    """Return (instant, rate) of every settlement within the loaded bars, in order.

    Those on record, cut to the minute; 00, 08 and 16 UTC with the model's rate where the last one
    on record is 24 hours old or older, or there has been none yet.
    """
    times = [int(t) for t in market.candles["timestamp"]]
    start, end = times[0], times[-1] + market.bar_ms
    recorded = [
        (int(t) // MINUTE_MS * MINUTE_MS, float(rate))
        for t, rate in zip(market.funding["timestamp"], market.funding["rate"], strict=True)
    ]
    known = sorted({t for t, _ in recorded if start - DAY_MS <= t <= end})
    closes = [float(close) for close in market.candles["close"]]
    made: list[tuple[int, float]] = []
    for t in range((start // SETTLEMENT_MS + 1) * SETTLEMENT_MS, end + 1, SETTLEMENT_MS):
        before = bisect_right(known, t)
        n_closed = bisect_right(times, t - market.bar_ms)
        if (before == 0 or t - known[before - 1] >= DAY_MS) and n_closed > 0:
            made.append((t, _model_rate(closes[max(0, n_closed - MODEL_BARS) : n_closed])))
    return sorted([(t, rate) for t, rate in recorded if start <= t <= end] + made)


def _model_rate(closes: list[float]) -> float:
    premium = closes[-1] / (sum(closes) / len(closes)) - 1.0
    return min(MODEL_CLAMP, max(-MODEL_CLAMP, MODEL_BASE + MODEL_SLOPE * premium))
