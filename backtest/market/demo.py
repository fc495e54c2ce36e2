"""A market that needs no network: two years of made-up candles, the same on every machine.

It shows what a grid meets (trends, ranges, a crash and its recovery, calm and wild weeks), not
what any coin did. Everything is drawn from PCG64's integers with + - * / and square roots only,
which IEEE 754 rounds alike everywhere; logarithms and exponentials are not.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.market.demo_minutes import MINUTES_PER_BAR, Bars, Counts, split_into_minutes
from backtest.market.market_data import (
    MarketData,
    candle_table,
    funding_table,
    normalize_coin,
    slice_time,
)
from backtest.market.timeframes import format_time, parse_time
from core.errors import DataError
from core.times import DAY_MS, HOUR_MS, MINUTE_MS

BAR_MS: Final = MINUTES_PER_BAR * MINUTE_MS
DEMO_START_MS: Final = parse_time("2023-11-30", "DEMO_START_MS")
"""Early enough for 3,000 bars of warm-up before 2024."""
DEMO_END_MS: Final = parse_time("2026-01-01", "DEMO_END_MS")

Floats = npt.NDArray[np.float64]

_BARS_PER_DAY: Final = DAY_MS // BAR_MS
_BARS_PER_FUNDING: Final = 8 * HOUR_MS // BAR_MS
_COMMON_SEED: Final = 20_240_101

# Days, drift per day, volatility relative to the coin's; a drift of None is a range, in which the
# price is pulled back to where the range began.
_SCHEDULE: Final[tuple[tuple[int, float | None, float], ...]] = (
    (40, None, 0.8),
    (45, 0.009, 1.0),
    (30, None, 0.9),
    (35, -0.009, 1.2),
    (45, None, 0.7),
    (40, 0.007, 1.0),
    (25, None, 0.8),
    (1, -0.27, 1.5),
    (14, 0.024, 1.5),
    (50, None, 0.9),
    (50, 0.008, 0.9),
    (40, None, 1.1),
    (60, -0.006, 1.1),
    (45, None, 0.7),
    (45, 0.007, 0.9),
    (30, -0.010, 1.3),
    (60, None, 0.8),
    (45, 0.006, 1.0),
    (40, -0.007, 1.2),
    (23, None, 0.8),
)
_CRASH_BAR: Final = 260 * _BARS_PER_DAY + 58
"""On the one-day stretch of the schedule."""
_CRASH_RETURN: Final = -0.11
_CRASH_WICK: Final = 0.09
_RANGE_PULL: Final = 0.003  # of the distance, per bar
_SHOCK_WEIGHT, _MEMORY = 0.06, 0.92  # GARCH(1,1): of the last squared shock and variance
_GAP_BEYOND: Final = 2.9  # standard deviations: one bar in 300 opens off the previous close

# Trading by hour, UTC: quiet in the Asian night, busy when America opens.
_HOURLY_VOLUME: Final = np.array(
    [
        0.9,
        0.9,
        0.8,
        0.7,
        0.6,
        0.6,
        0.7,
        0.8,
        1.0,
        1.0,
        0.9,
        0.9,
        1.1,
        1.5,
        1.7,
        1.7,
        1.5,
        1.3,
        1.2,
        1.1,
        1.1,
        1.0,
        0.9,
        0.9,
    ]
)


@dataclass(frozen=True)
class DemoCoin:
    """The traits that tell one made-up coin from another.

    Attributes:
        seed: of its own random numbers.
        price: quote, at the start.
        sigma: standard deviation of a bar's return in a middling stretch.
        drift: multiplies the schedule's.
        common: share of a shock's variance that all coins have in common.
        ticks_per_unit: ticks in one unit of the quote.
        steps_per_unit: lot steps in one unit of the base.
        volume: base, of a middling bar.
        min_notional: quote.
        liquidation_fee: share of notional.
    """

    seed: int
    price: float
    sigma: float
    drift: float
    common: float
    ticks_per_unit: int
    steps_per_unit: int
    volume: float
    min_notional: float
    liquidation_fee: float

    def rules(self) -> dict[str, float]:
        """Return the coin's market rules."""
        return {
            "tick_size": 1.0 / self.ticks_per_unit,
            "step_size": 1.0 / self.steps_per_unit,
            "min_qty": 1.0 / self.steps_per_unit,
            "min_notional": self.min_notional,
            "liquidation_fee": self.liquidation_fee,
        }


DEMO_COINS: Final = {
    "BTC": DemoCoin(11, 42_000.0, 0.0022, 1.0, 0.85, 10, 1_000, 2_500.0, 100.0, 0.0125),
    "ETH": DemoCoin(12, 2_250.0, 0.0027, 1.1, 0.75, 100, 1_000, 25_000.0, 20.0, 0.0125),
    "SOL": DemoCoin(13, 100.0, 0.0036, 1.2, 0.60, 100, 100, 180_000.0, 5.0, 0.015),
}


def demo_market(
    coin: str, start_ms: int = DEMO_START_MS, end_ms: int = DEMO_END_MS, *, detail: bool = False
) -> MarketData:
    """Return the demo market of a coin; a part of it is the same part of the whole.

    Args:
        coin: one of ``DEMO_COINS``, in any spelling ``normalize_coin`` takes.
        start_ms: earliest open time.
        end_ms: end, exclusive for candles, inclusive for settlements.
        detail: add 1m candles; they add up to the 15m ones exactly.

    Raises:
        DataError: the demo has no such coin, or nothing in the range.
    """
    name = normalize_coin(coin)
    if name not in DEMO_COINS:
        raise DataError(f"the demo has no coin {name}; it has: {', '.join(DEMO_COINS)}")
    made = DEMO_COINS[name]
    bars, rates = _series(name)
    first = max(-(-(start_ms - DEMO_START_MS) // BAR_MS), 0)
    last = min((end_ms - DEMO_START_MS) // BAR_MS, len(bars.close))
    if first >= last:
        raise DataError(
            f"the demo runs from {format_time(DEMO_START_MS)} to {format_time(DEMO_END_MS)}; "
            f"it has no candle from {format_time(start_ms)} to {format_time(end_ms)}"
        )
    window = bars.part(first, last)
    opened_ms = DEMO_START_MS + first * BAR_MS
    minutes = None
    if detail:
        minutes = _candles(made, split_into_minutes(window, first, made.seed), opened_ms, MINUTE_MS)
    return MarketData(
        coin=name,
        candles=_candles(made, window, opened_ms, BAR_MS),
        funding=slice_time(rates, start_ms, end_ms + 1),
        detail=minutes,
        bar_ms=BAR_MS,
        source="demo",
        rules=made.rules(),
    )


def _candles(made: DemoCoin, bars: Bars, opened_ms: int, bar_ms: int) -> pd.DataFrame:
    # Dividing by whole numbers gives the double nearest to the decimal price; a product of the
    # tick would not.
    unit = made.ticks_per_unit
    return candle_table(
        {
            "timestamp": opened_ms + bar_ms * np.arange(len(bars.close)),
            "open": bars.open / unit,
            "high": bars.high / unit,
            "low": bars.low / unit,
            "close": bars.close / unit,
            "volume": bars.volume / made.steps_per_unit,
        }
    )


@functools.cache
def _series(name: str) -> tuple[Bars, pd.DataFrame]:
    """Return the whole market: bars in ticks and lots, and funding rates."""
    made = DEMO_COINS[name]
    drift, level, in_range = _schedule()
    n_bars = len(drift)
    common, own = _normals(_COMMON_SEED, n_bars, 1)[0], _normals(made.seed, n_bars, 5)
    shocks = math.sqrt(made.common) * common + math.sqrt(1.0 - made.common) * own[0]
    close, sigma = _walk(made, made.drift * drift, level, in_range, shocks)
    before = np.concatenate(([made.price], close[:-1]))
    gapped = np.abs(own[1]) > _GAP_BEYOND
    opened = np.where(gapped, before * (1.0 + 0.2 * sigma * own[1]), before)
    up, down = 0.6 * sigma * np.abs(own[2]), 0.6 * sigma * np.abs(own[3])
    down[_CRASH_BAR] = _CRASH_WICK
    unit = made.ticks_per_unit
    open_ticks, close_ticks = _whole(opened * unit), _whole(close * unit)
    high, low = np.maximum(opened, close) * (1.0 + up), np.minimum(opened, close) * (1.0 - down)
    hour = np.arange(n_bars) // (HOUR_MS // BAR_MS) % 24
    bustle = 0.4 + np.abs(own[4]) * 0.4 + np.abs(close - before) / before / made.sigma * 0.5
    volume = made.volume * _HOURLY_VOLUME[hour] * bustle * made.steps_per_unit
    bars = Bars(
        open=open_ticks,
        high=np.maximum(_whole(high * unit), np.maximum(open_ticks, close_ticks)),
        low=np.minimum(_whole(low * unit), np.minimum(open_ticks, close_ticks)),
        close=close_ticks,
        volume=np.maximum(_whole(volume), 1),
    )
    return bars, _funding(made, close)


def _schedule() -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """Return drift per bar, relative volatility and whether a range holds, of every bar."""
    bars = np.array([days for days, _, _ in _SCHEDULE]) * _BARS_PER_DAY
    drift = np.repeat([(daily or 0.0) / _BARS_PER_DAY for _, daily, _ in _SCHEDULE], bars)
    level = np.repeat([level for _, _, level in _SCHEDULE], bars)
    return drift, level, np.repeat([daily is None for _, daily, _ in _SCHEDULE], bars)


def _walk(
    made: DemoCoin, drift: Floats, level: Floats, in_range: npt.NDArray[np.bool_], shocks: Floats
) -> tuple[Floats, Floats]:
    """Return the closes (quote) and each bar's volatility (per bar).

    Volatility follows a GARCH(1,1) (Bollerslev 1986), so that wild bars come in clusters.
    """
    closes, sigmas = [], []
    price, anchor, ranging = made.price, made.price, False
    variance = middling = made.sigma * made.sigma
    rows = zip(drift.tolist(), level.tolist(), in_range.tolist(), shocks.tolist(), strict=True)
    for i, (trend, wildness, held, shock) in enumerate(rows):
        if held and not ranging:
            anchor = price
        ranging = held
        if i == _CRASH_BAR:
            variance *= 9.0
        sigma = math.sqrt(variance)
        step = sigma * shock
        variance = (1.0 - _SHOCK_WEIGHT - _MEMORY) * middling
        variance += _SHOCK_WEIGHT * step * step + _MEMORY * sigma * sigma
        change = trend + wildness * step
        if held:
            change += _RANGE_PULL * (anchor / price - 1.0)
        if i == _CRASH_BAR:
            change += _CRASH_RETURN
        price *= 1.0 + change
        closes.append(price)
        sigmas.append(sigma * wildness)
    return np.array(closes), np.array(sigmas)


def _funding(made: DemoCoin, close: Floats) -> pd.DataFrame:
    """Return rates every eight hours: what the price stands above its average is dear to hold."""
    average, premiums = close[0], []
    for price in close.tolist():
        average += (price - average) * 2.0 / (_BARS_PER_DAY + 1)
        premiums.append(price / average - 1.0)
    bars = np.arange(0, len(close) + 1, _BARS_PER_FUNDING)
    premium = np.array([0.0, *premiums])[bars]  # of the bar that ends at the settlement
    noise = 0.00003 * _normals(made.seed + 1_000, len(bars), 1)[0]
    rate = np.clip(0.0001 + 0.012 * premium + noise, -0.003, 0.003)
    return funding_table(
        {"timestamp": DEMO_START_MS + BAR_MS * bars, "rate": np.rint(rate * 1e8) / 1e8}
    )


def _normals(seed: int, length: int, count: int) -> Floats:
    """Return nearly normal numbers of shape (count, length): sums of twelve uniform ones."""
    words = np.random.PCG64(seed).random_raw(3 * length * count).reshape(count, length, 3)
    total = np.zeros((count, length), dtype=np.int64)
    for shift in (0, 16, 32, 48):
        halves = (words >> np.uint64(shift)) & np.uint64(0xFFFF)
        total += halves.sum(axis=2).astype(np.int64)
    return (total.astype(np.float64) - 12 * 32_767.5) / 65_536.0


def _whole(values: Floats) -> Counts:
    return np.rint(values).astype(np.int64)
