"""Monte-Carlo bar permutation: the same candles in another order, with nothing left to find.

A search finds something in any market. How good it gets where there is nothing to find says what
its result on the real candles is worth: permute, search again, compare.

Source: Masters, "Permutation and Randomization Tests for Trading System Development", 2020,
chapter on permuting bars; here a bar's gap and its inside travel together.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from core.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BLOCK_BARS: Final = 1
"""Bars that stay together. One, because what a grid lives on, price coming back, happens between
bars: 15-minute candles revert within some four hours, half of it within the first, and blocks of an
hour (4 bars) would keep three quarters of what follows from one bar to the next. What a bar is by
itself stays with one as with four: gap, high, low, close and volume travel together. The price of
it: calm and wild hours mix, so that volatility no longer comes in clusters. Longer blocks answer
the milder question what is found where it still does."""


def permute_candles(
    open: npt.ArrayLike,  # noqa: A002 - a candle's column
    high: npt.ArrayLike,
    low: npt.ArrayLike,
    close: npt.ArrayLike,
    volume: npt.ArrayLike,
    seed: int,
    block_bars: int = BLOCK_BARS,
) -> dict[str, Floats]:
    """Return the candles with their log changes in another order.

    Of every bar but the first, ``ln(open_t / close_{t-1})`` and ``ln(high/open)``,
    ``ln(low/open)``, ``ln(close/open)`` and the volume move jointly, in blocks of ``block_bars``
    bars in a row, the last of which may be shorter. Prices are accumulated again from the first
    bar, which stays. So the first open and (to rounding) the last close stay as well, timestamps
    keep their places, and every price is positive. Prices are not on a tick: round them, high and
    low stay outermost.

    Args:
        open: first prices, shape ``(n_bars,)``.
        high: highest prices, likewise, as all others.
        low: lowest prices.
        close: last prices.
        volume: traded.
        seed: of the order.
        block_bars: bars that stay together.

    Returns:
        ``open high low close volume``, each ``(n_bars,)``.

    Raises:
        ConfigError: ``block_bars`` is under 1.
        DataError: lengths differ, or a price is not positive and finite.
    """
    if block_bars < 1:
        raise ConfigError(f"block_bars = {block_bars} must be at least 1 bar")
    columns = {"open": open, "high": high, "low": low, "close": close, "volume": volume}
    candles = {name: np.array(column, dtype=np.float64) for name, column in columns.items()}
    _check(candles)
    n_bars = len(candles["open"])
    if n_bars < 2:  # noqa: PLR2004 - nothing to permute
        return candles
    logs = {name: np.log(candles[name]) for name in ("open", "high", "low", "close")}
    order = 1 + _block_order(n_bars - 1, block_bars, seed)
    gaps = logs["open"][order] - logs["close"][order - 1]
    inside = {name: logs[name][order] - logs["open"][order] for name in ("high", "low", "close")}
    ends = logs["close"][0] + np.cumsum(gaps + inside["close"])
    starts = np.concatenate((logs["close"][:1], ends[:-1])) + gaps
    moved = {name: np.exp(starts + inside[name]) for name in ("high", "low", "close")}
    moved["open"], moved["volume"] = np.exp(starts), candles["volume"][order]
    # exp need not be monotone to the last bit
    moved["high"] = np.maximum(moved["high"], np.maximum(moved["open"], moved["close"]))
    moved["low"] = np.minimum(moved["low"], np.minimum(moved["open"], moved["close"]))
    return {name: np.concatenate((candles[name][:1], moved[name])) for name in candles}


def p_value(observed: float, permuted: npt.ArrayLike) -> float:
    """Return the share of results at least as good as the observed one, itself among them.

    ``(1 + #(permuted >= observed)) / (n + 1)`` (Davison and Hinkley, "Bootstrap Methods and Their
    Application", 1997, equation 4.11; it is never 0: Phipson and Smyth 2010). What is unknown
    speaks against the result: 1 where ``observed`` is NaN, and a permuted NaN counts as better.

    Args:
        observed: result on the real candles.
        permuted: results on permuted ones, shape ``(n,)``; none: 1.
    """
    if math.isnan(observed):
        return 1.0
    results = np.array(permuted, dtype=np.float64)
    at_least = int(np.count_nonzero(~(results < observed)))
    return (1 + at_least) / (results.size + 1)


def _check(candles: dict[str, Floats]) -> None:
    shape = candles["open"].shape
    for name, column in candles.items():
        if column.ndim != 1 or column.shape != shape:
            raise DataError(
                f"{name} of shape {column.shape} must be one series as long as open, {shape}"
            )
        if name == "volume":
            continue
        wrong = np.flatnonzero(~(np.isfinite(column) & (column > 0.0)))
        if wrong.size:
            bar = int(wrong[0])
            raise DataError(f"{name} of bar {bar} = {column[bar]} must be a positive price")


def _block_order(n_bars: int, block_bars: int, seed: int) -> Ints:
    """Return the bars 0..n_bars-1 in their new order: blocks shuffled, each in one piece."""
    bars = np.arange(n_bars, dtype=np.int64)
    blocks = np.random.default_rng(seed).permutation(-(-n_bars // block_bars))
    starts = blocks * block_bars
    lengths = np.minimum(block_bars, n_bars - starts)
    within = bars - np.repeat(np.cumsum(lengths) - lengths, lengths)
    order: Ints = np.repeat(starts, lengths) + within
    return order
