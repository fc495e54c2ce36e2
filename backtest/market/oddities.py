"""Prices that pass every check of one candle and can still hardly be true.

A jump by a factor of ten, a high or low ten times away from its own candle, finer candles on
another scale, one price for hours: data errors nearly always (a wrong decimal, a redenominated
coin, two markets in one folder, a hole filled up). They are not refused, because markets have done
as much; they are named.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from backtest.market.market_data import MarketData
from backtest.market.timeframes import format_time
from core.times import HOUR_MS

FACTOR: Final = 10.0
"""From which on a jump or a wick is named."""
SCALE: Final = 1.05
"""How far the closes of finer candles may be from those of their bars, as a factor."""
STILL_MS: Final = 6 * HOUR_MS
"""How long one price may stand without a trade beside it before that is named."""
LISTED: Final = 3
"""Bars that are named of each kind; the rest are counted."""

Floats = npt.NDArray[np.float64]


def price_oddities(market: MarketData) -> list[str]:
    """Return a sentence for every kind of impossible price: bar, size, how many."""
    candles = market.candles
    times = candles["timestamp"].to_numpy()
    prices = {name: candles[name].to_numpy(np.float64) for name in ("open", "high", "low", "close")}
    body_high = np.maximum(prices["open"], prices["close"])
    body_low = np.minimum(prices["open"], prices["close"])
    before = prices["close"][:-1]
    found = [
        _sentence(market.coin, "price jumps to", times[1:], prices["open"][1:] / before, before),
        _sentence(
            market.coin, "close moves to", times, prices["close"] / prices["open"], prices["open"]
        ),
        _sentence(market.coin, "high lies at", times, prices["high"] / body_high, body_high),
        _sentence(market.coin, "low lies at", times, prices["low"] / body_low, body_low),
    ]
    return [text for text in [*found, _stands_still(market), _other_scale(market)] if text]


def _sentence(
    coin: str, what: str, times: npt.NDArray[np.int64], factors: Floats, base: Floats
) -> str:
    odd = np.flatnonzero((factors >= FACTOR) | (factors <= 1.0 / FACTOR))
    if odd.size == 0:
        return ""
    named = ", ".join(
        f"{factors[i]:.4g} x {base[i]:g} at {format_time(int(times[i]))}" for i in odd[:LISTED]
    )
    more = f" and at {odd.size - LISTED} more bars" if odd.size > LISTED else ""
    return f"{coin}: {what} {named}{more}: hardly a true price; look at these candles"


def _stands_still(market: MarketData) -> str:
    """Return where one price fills candle after candle, as filled-up holes do; '' if nowhere."""
    candles = market.candles
    close = candles["close"].to_numpy(np.float64)
    flat = candles["high"].to_numpy(np.float64) == candles["low"].to_numpy(np.float64)
    same = flat & np.append(np.False_, close[1:] == close[:-1])
    edges = np.flatnonzero(np.diff(np.concatenate(([0], same.astype(np.int8), [0]))))
    starts, ends = edges[::2], edges[1::2]
    counts = ends - starts
    long = np.flatnonzero(counts * market.bar_ms >= STILL_MS)
    if long.size == 0:
        return ""
    times = candles["timestamp"].to_numpy()
    named = ", ".join(
        f"{counts[i]} bars from {format_time(int(times[starts[i]]))}" for i in long[:LISTED]
    )
    more = f" and {long.size - LISTED} times more" if long.size > LISTED else ""
    return (
        f"{market.coin}: the price stands still for {named}{more}: a halt, a delisting or a hole "
        "that was filled; nobody could trade there"
    )


def _other_scale(market: MarketData) -> str:
    """Return where finer candles and their bars disagree about the price, '' if nowhere."""
    if market.detail is None or market.detail.empty:
        return ""
    fine, ends = market.detail, market.candles["timestamp"].to_numpy() + market.bar_ms
    times = fine["timestamp"].to_numpy()
    last = np.searchsorted(times, ends) - 1
    inside = (last >= 0) & (times[np.maximum(last, 0)] >= ends - market.bar_ms)
    closes = fine["close"].to_numpy(np.float64)[np.maximum(last, 0)]
    ratio = np.where(inside, closes / market.candles["close"].to_numpy(np.float64), 1.0)
    off = np.flatnonzero((ratio > SCALE) | (ratio < 1.0 / SCALE))
    if off.size == 0:
        return ""
    at = format_time(int(ends[off[0]]) - market.bar_ms)
    return (
        f"{market.coin}: the finer candles are {ratio[off[0]]:.4g} times the price of the bar at "
        f"{at}, and differ at {off.size} bars: two markets or units; use files of one"
    )
