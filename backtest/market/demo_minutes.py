"""1m candles inside longer ones, made up such that they add up to them exactly."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

MINUTES_PER_BAR: Final = 15
_WORDS_PER_BAR: Final = 2 * MINUTES_PER_BAR + 2
_STREAM: Final = 0x1A
"""Added to a coin's seed, for random numbers of its own."""


@dataclass(frozen=True)
class Bars:
    """Candles in whole numbers, one array each of shape (n_bars,): ticks, and lots for volume."""

    open: Counts
    high: Counts
    low: Counts
    close: Counts
    volume: Counts

    def part(self, first: int, last: int) -> Bars:
        """Return bars ``first`` to ``last - 1``."""
        return Bars(**{item.name: getattr(self, item.name)[first:last] for item in fields(self)})


def split_into_minutes(bars: Bars, first_bar: int, seed: int) -> Bars:
    """Return ``MINUTES_PER_BAR`` bars for each of ``bars``.

    A price path runs from the open over both extremes, in either order and at minutes of its
    own, to the close; noise is laid on it and cut to the bar's range.

    Args:
        bars: the candles to split.
        first_bar: number of the first of them in its series, so that a bar is always split alike.
        seed: of the series.
    """
    n_bars = len(bars.close)
    source = np.random.PCG64(seed + _STREAM).advance(first_bar * _WORDS_PER_BAR)
    words = source.random_raw(n_bars * _WORDS_PER_BAR).reshape(n_bars, _WORDS_PER_BAR)
    chance = (words >> np.uint64(44)).astype(np.int64)  # 20 bits each
    minute = np.arange(MINUTES_PER_BAR)
    open_, high, low, close = (
        column[:, None] for column in (bars.open, bars.high, bars.low, bars.close)
    )

    one = chance[:, -1:] % MINUTES_PER_BAR
    other = (one + 1 + chance[:, -2:-1] % (MINUTES_PER_BAR - 1)) % MINUTES_PER_BAR
    early, late = np.minimum(one, other), np.maximum(one, other)
    high_first = one < other
    turn_1, turn_2 = np.where(high_first, high, low), np.where(high_first, low, high)
    path = np.where(
        minute < early,
        open_ + (turn_1 - open_) * (minute + 1) / (early + 1),
        np.where(
            minute < late,
            turn_1 + (turn_2 - turn_1) * (minute + 1 - early) / (late - early + 1),
            turn_2 + (close - turn_2) * (minute + 1 - late) / (MINUTES_PER_BAR - late),
        ),
    )
    noise = (chance[:, :MINUTES_PER_BAR] / 2**20 - 0.5) * (high - low) * 0.2
    closes = np.clip(np.rint(path + noise).astype(np.int64), low, high)
    closes[:, -1] = bars.close
    opens = np.concatenate((open_, closes[:, :-1]), axis=1)
    highs = np.where(minute == one, high, np.maximum(opens, closes))
    lows = np.where(minute == other, low, np.minimum(opens, closes))

    weights = np.cumsum(chance[:, MINUTES_PER_BAR : 2 * MINUTES_PER_BAR] + 2**17, axis=1)
    traded = bars.volume[:, None] * weights // weights[:, -1:]
    volumes = np.diff(traded, axis=1, prepend=0)
    return Bars(
        open=opens.ravel(),
        high=highs.ravel(),
        low=lows.ravel(),
        close=closes.ravel(),
        volume=volumes.ravel(),
    )
