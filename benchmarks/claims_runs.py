"""Measures the design's three claims on real candles.

The windows are chosen by rule, per coin, among those that start at 00:00 UTC and have 3,000 bars
to warm up before them:

- up, down: the three 90-day windows with the largest rise (fall) from first open to last close,
  the largest first, each next one not overlapping those before it;
- crashes: the five 3-day windows with the deepest low below the first open, likewise. Trading
  begins 27 days earlier, so that the grid holds what it would hold when the fall comes.

Measured are the full strategy with both presets and, with the same geometry and costs, the static
grid: fixed anchor, no regime, no skew, no trailing, no protection (``backtest.trust.compare``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest.market.coin_data import CoinData
from backtest.market.fetch import load_market
from backtest.market.market_data import MarketData
from backtest.runs.variants import Variants, cut_window, run_side_by_side
from backtest.simulator import choose_rules
from backtest.trust.compare import static_grid, without
from config import BACKTEST_CONFIG, PRESETS
from core.funding import merge_settlements
from core.market import MarketRules
from core.params import StrategyParams
from core.times import DAY_MS
from engine.results import RunResult
from engine.strategy import read_config

ROOT: Final = Path(__file__).resolve().parent.parent
REAL_MARKET: Final = ROOT.parent / "shared" / "market"
DOCUMENT: Final = ROOT / "docs" / "claims.md"
COINS: Final = ("BTC", "ETH", "SOL")
FOREVER_MS: Final = 2**42
WARMUP_BARS: Final = 3_000
BARS_PER_DAY: Final = 96
TREND_DAYS, TRENDS = 90, 3
CRASH_DAYS, CRASHES, DAYS_BEFORE = 3, 5, 27
LEVERAGES: Final = (1.0, 3.0, 10.0)

Floats = npt.NDArray[np.float64]
Runs = Mapping[str, RunResult]
Change = Callable[[StrategyParams], StrategyParams]


@dataclass(frozen=True)
class Window:
    """A stretch of one coin's candles.

    Attributes:
        coin: base coin.
        first: index of the first bar measured.
        n_bars: its length.
        move_pct: of the price: to the last close (trends), to the lowest low (crashes).
    """

    coin: str
    first: int
    n_bars: int
    move_pct: float


def strongest(scores: Floats, starts: npt.NDArray[np.int64], n_bars: int, count: int) -> list[int]:
    """Return the rows of ``starts`` with the largest scores whose windows do not overlap.

    Args:
        scores: shape (n,).
        starts: first bars of the windows, shape (n,).
        n_bars: length of a window.
        count: windows wanted.
    """
    chosen: list[int] = []
    for row in np.argsort(-scores, kind="stable").tolist():
        if all(abs(starts[row] - starts[other]) >= n_bars for other in chosen):
            chosen.append(row)
        if len(chosen) == count:
            break
    return chosen


def window_starts(market: MarketData, n_bars: int, bars_before: int) -> npt.NDArray[np.int64]:
    """Return the bars at 00:00 UTC that have ``bars_before`` before and ``n_bars`` from them on."""
    midnight = market.candles["timestamp"].to_numpy() % DAY_MS == 0
    rows = np.flatnonzero(midnight)
    return rows[(rows >= bars_before) & (rows + n_bars <= len(market.candles))]


def trends(market: MarketData, sign: float) -> list[Window]:
    """Return the strongest rises (``sign`` 1) or falls (-1) of a coin."""
    n_bars = TREND_DAYS * BARS_PER_DAY
    starts = window_starts(market, n_bars, WARMUP_BARS)
    opens, closes = market.candles["open"].to_numpy(), market.candles["close"].to_numpy()
    moves = closes[starts + n_bars - 1] / opens[starts] - 1.0
    return _windows(market, sign * moves, moves, starts, n_bars, TRENDS)


def crashes(market: MarketData) -> list[Window]:
    """Return the worst falls of a coin."""
    n_bars = CRASH_DAYS * BARS_PER_DAY
    starts = window_starts(market, n_bars, WARMUP_BARS + DAYS_BEFORE * BARS_PER_DAY)
    opens, lows = market.candles["open"].to_numpy(), market.candles["low"].to_numpy()
    moves = np.array([lows[row : row + n_bars].min() / opens[row] - 1.0 for row in starts])
    return _windows(market, -moves, moves, starts, n_bars, CRASHES)


def _windows(
    market: MarketData,
    scores: Floats,
    moves: Floats,
    starts: npt.NDArray[np.int64],
    n_bars: int,
    count: int,
) -> list[Window]:
    return [
        Window(market.coin, int(starts[row]), n_bars, 100.0 * float(moves[row]))
        for row in strongest(scores, starts, n_bars, count)
    ]


def window_data(
    market: MarketData, rules: MarketRules, window: Window, days_before: int
) -> CoinData:
    """Return what the runs over a window read: from ``days_before`` on, and what warms them up."""
    times = market.candles["timestamp"].to_numpy()
    start_ms = int(times[window.first]) - days_before * DAY_MS
    end_ms = int(times[window.first + window.n_bars - 1]) + market.bar_ms
    return cut_window(market, rules, start_ms, end_ms, WARMUP_BARS)


def real_funding_pct(market: MarketData, window: Window, days_before: int) -> float:
    """Return how many percent of the settlements while a window is traded are on record.

    The others are the model's; NaN where none is due.
    """
    data = window_data(market, _rules(market), window, days_before)
    candles, funding = data.market.candles, data.market.funding
    times, _, modelled = merge_settlements(
        candles["timestamp"].to_numpy(),
        candles["close"].to_numpy(),
        funding["timestamp"].to_numpy(),
        funding["rate"].to_numpy(),
        market.bar_ms,
    )
    start_ms = int(candles["timestamp"].iloc[data.first_bar])
    due = int(np.sum(times > start_ms))
    return 100.0 * (1.0 - int(np.sum(modelled > start_ms)) / due) if due else math.nan


def run_window(
    market: MarketData,
    rules: MarketRules,
    window: Window,
    days_before: int,
    changes: Mapping[str, Change],
) -> dict[str, RunResult]:
    """Run both presets over a window with each of ``changes`` (by name, ``{}`` the preset's)."""
    data = window_data(market, rules, window, days_before)
    found: dict[str, RunResult] = {}
    for preset, values in PRESETS.items():
        params = read_config(dict(values))
        variants = Variants(data, params)
        for name, change in changes.items():
            found[name.format(preset)] = variants.run(change(params))
    return found


def _same(params: StrategyParams) -> StrategyParams:
    return params


def _no_trailing(params: StrategyParams) -> StrategyParams:
    return without(params, "trailing")


def _with(change: Change, **values: Any) -> Change:
    return lambda params: replace(change(params), **values)


def _quarter(params: StrategyParams) -> StrategyParams:
    return replace(static_grid(params), order_pct=params.order_pct / 4.0)


TREND_CHANGES: Final[Mapping[str, Change]] = {
    "static grid, {}": static_grid,
    "{}": _same,
    "{} without trailing": _no_trailing,
    "static grid, {}, long only": _with(static_grid, allow_short=False),
    "{}, long only": _with(_same, allow_short=False),
    "static grid, {}, a quarter of the size": _quarter,
}
CRASH_CHANGES: Final[Mapping[str, Change]] = {
    f"{name} x{leverage:g}": _with(change, leverage=leverage)
    for leverage in LEVERAGES
    for name, change in (("static grid, {}", static_grid), ("{}", _same))
}


def measure(markets: Mapping[str, MarketData]) -> dict[str, list[tuple[Window, Runs]]]:
    """Return the runs of all windows by kind: ``up``, ``down`` and ``crash``."""
    found: dict[str, list[tuple[Window, Runs]]] = {}
    kinds: dict[str, tuple[Callable[[MarketData], list[Window]], int, Mapping[str, Change]]] = {
        "up": (partial(trends, sign=1.0), 0, TREND_CHANGES),
        "down": (partial(trends, sign=-1.0), 0, TREND_CHANGES),
        "crash": (crashes, DAYS_BEFORE, CRASH_CHANGES),
    }
    for kind, (choose, days_before, changes) in kinds.items():
        windows = [window for market in markets.values() for window in choose(market)]
        jobs = [
            partial(run_window, markets[w.coin], _rules(markets[w.coin]), w, days_before, changes)
            for w in windows
        ]
        found[kind] = list(zip(windows, run_side_by_side(jobs), strict=True))
    return found


def _rules(market: MarketData) -> MarketRules:
    known: Any = BACKTEST_CONFIG["markets"]
    return choose_rules(market.coin, market, known)[0]


def load_markets() -> dict[str, MarketData]:
    """Return the recorded candles and rates of all coins."""
    return {
        coin: load_market(coin, 0, FOREVER_MS, data_dir=REAL_MARKET, timeframe="15m")
        for coin in COINS
    }
