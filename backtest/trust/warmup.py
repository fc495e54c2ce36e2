"""How many bars the indicators need: from the last few against the whole history.

A run that starts, or a bot that is restarted, sees only a buffer of the latest bars. An indicator
that remembers for long (KAMA, Wilder's averages, the seven-day means, the mixture's window) then
differs from what the whole history gives. The difference at the last bar is shown for several
buffers, in percent; and the worst at other bars of the history, for one bar may be lucky.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from backtest.market.coin_data import CoinData
from backtest.market.market_data import MarketData
from backtest.market.timeframes import format_time
from backtest.trust.outcome import Budget, CheckOutcome, coarse_to_fine
from core.errors import DataError
from core.kama import REGIME_NAMES
from core.params import StrategyParams
from core.regime_gmm import GMM_RETURN_BARS, GMM_WINDOW, calculate_gmm_regime
from core.signals import SignalArray, compute_indicators, compute_signals
from core.times import DAY_MS
from core.warmup import bars_needed

BUFFERS: Final = (500, 1_000, 2_000, 3_000, 5_000)
ENOUGH: Final = 1e-6
"""Largest relative difference of an indicator that a buffer may leave."""
INDICATORS: Final = ("er", "kama", "atr", "adx", "z", "sigma", "atr_mean", "volume_ratio")
NO_LABEL: Final = "none yet"
_LABEL_WIDTH: Final = 20
_CELL_WIDTH: Final = 11


@dataclass(frozen=True)
class Warmup:
    """Indicators at one bar out of the last ``bars`` bars, against the whole history.

    Attributes:
        bars: length of the buffer.
        differences: relative, by indicator; infinite where it is not warm yet.
        regime: final regime, (from the buffer, from all bars).
        gmm: label of the Gaussian mixture, likewise.
    """

    bars: int
    differences: Mapping[str, float]
    regime: tuple[str, str]
    gmm: tuple[str, str]


@dataclass(frozen=True)
class Worst:
    """The largest relative difference found over bars of the history."""

    difference: float = 0.0
    indicator: str = ""
    ts_ms: int = 0


def check_warmup(
    data: CoinData, params: StrategyParams, warmup_bars: int, budget: Budget
) -> CheckOutcome:
    """Compare buffers with the whole history; passed if ``warmup_bars`` are enough.

    Where the history is too short to say that, if any buffer is.

    Args:
        data: one coin's market data and rules.
        params: periods, thresholds and switches.
        warmup_bars: what a run has before its first bar.
        budget: bars at which the worst difference is sought.

    Raises:
        DataError: there are no more bars than the smallest buffer.
    """
    market, n_bars = data.market, len(data.market.candles)
    sizes = sorted(n for n in {*BUFFERS, warmup_bars} if 0 < n < n_bars)
    if not sizes:
        raise DataError(
            f"{market.coin}: {n_bars:,} bars are too few to compare a buffer with; at least "
            f"{BUFFERS[0] + 1:,} are needed: choose a longer range"
        )
    rows = at_last_bar(market, params, sizes)
    worst, looked_at = worst_elsewhere(market, params, sizes, budget)
    enough = [
        all(_passes(row, params) and worst[row.bars].difference <= ENOUGH for row in rows[i:])
        for i in range(len(rows))
    ]
    table = _table(market, rows, worst, looked_at)
    least = next((size for size, passed in zip(sizes, enough, strict=True) if passed), None)
    verdict = f"no buffer up to {sizes[-1]:,} bars" if least is None else f"{least:,} bars"
    summary = (
        f"enough for {ENOUGH:g} relative on these candles: {verdict}; a run has {warmup_bars:,} to "
        f"warm up; live keeps {bars_needed(params, 1, market.bar_ms):,}, enough in any market"
    )
    judged = warmup_bars if warmup_bars in sizes else sizes[-1]
    if enough[sizes.index(judged)]:
        return CheckOutcome(summary, table=table)
    return CheckOutcome(summary, _first_excess(rows, worst, params, judged), table)


def at_last_bar(market: MarketData, params: StrategyParams, sizes: list[int]) -> list[Warmup]:
    """Return what buffers of ``sizes`` give at the last bar of ``market``, against all bars."""
    n_bars = len(market.candles)
    whole, label = _signals(market, params, n_bars), _gmm_label(market, params, n_bars)
    rows: list[Warmup] = []
    for size in sizes:
        ours = _signals(market, params, size)
        off = {name: relative(float(ours[name]), float(whole[name])) for name in INDICATORS}
        regimes = REGIME_NAMES[int(ours["regime"])], REGIME_NAMES[int(whole["regime"])]
        rows.append(Warmup(size, off, regimes, (_gmm_label(market, params, size), label)))
    return rows


def _signals(market: MarketData, params: StrategyParams, bars: int) -> Any:
    """Return the last row of ``Signal`` computed from the last ``bars`` bars."""
    c = market.candles.iloc[-bars:]
    return compute_signals(
        c["timestamp"], c["high"], c["low"], c["close"], c["volume"], params, bar_ms=market.bar_ms
    )[-1]


def _gmm_label(market: MarketData, params: StrategyParams, bars: int) -> str:
    """Return the mixture's label at the last bar from the last ``bars`` bars.

    It depends on ATR and on the bars behind the last refit, which is at most a day old; where
    these are not all there, there is no label.
    """
    day = DAY_MS // market.bar_ms
    if bars < GMM_WINDOW + day:
        return NO_LABEL
    candles = market.candles.iloc[-bars:]
    atr = _indicators(candles, params, market.bar_ms)["atr"]
    tail = GMM_WINDOW + GMM_RETURN_BARS + day
    labels = calculate_gmm_regime(
        candles["timestamp"].iloc[-tail:],
        candles["close"].iloc[-tail:],
        atr[-tail:],
        params.gmm_seed,
        bar_ms=market.bar_ms,
    )
    return REGIME_NAMES[int(labels[-1])]


def _indicators(candles: pd.DataFrame, params: StrategyParams, bar_ms: int) -> SignalArray:
    c = candles
    return compute_indicators(
        c["timestamp"], c["high"], c["low"], c["close"], c["volume"], params, bar_ms=bar_ms
    )[0]


def worst_elsewhere(
    market: MarketData, params: StrategyParams, sizes: list[int], budget: Budget
) -> tuple[dict[int, Worst], int]:
    """Return each buffer's worst difference over bars of the history, and their number.

    The bars have the longest of ``sizes`` behind them.
    """
    candles, bar_ms = market.candles, market.bar_ms
    whole = _indicators(candles, params, bar_ms)
    ends = [sizes[-1] + i for i in coarse_to_fine(len(candles) - sizes[-1], budget)]
    worst, looked_at = dict.fromkeys(sizes, Worst()), 0
    for end in budget.spend(ends, f"{market.coin} warmup"):
        looked_at += 1
        ts_ms = int(candles["timestamp"].iloc[end])
        for size in sizes:
            ours = _indicators(candles.iloc[end + 1 - size : end + 1], params, bar_ms)[-1]
            for name in INDICATORS:
                found = relative(float(ours[name]), float(whole[name][end]))
                if found > worst[size].difference:
                    worst[size] = Worst(found, name, ts_ms)
    return worst, looked_at


def relative(value: float, exact: float) -> float:
    """Return how far ``value`` is from ``exact``, relative to it; NaN equals NaN only."""
    if value == exact or (math.isnan(value) and math.isnan(exact)):
        return 0.0
    if exact == 0.0 or math.isnan(value) or math.isnan(exact):
        return math.inf
    return abs(value - exact) / abs(exact)


def _passes(row: Warmup, params: StrategyParams) -> bool:
    same = row.regime[0] == row.regime[1]
    if params.use_ml_regime:
        same = same and row.gmm[0] == row.gmm[1]
    return same and max(row.differences.values()) <= ENOUGH


def _table(
    market: MarketData, rows: list[Warmup], worst: Mapping[int, Worst], looked_at: int
) -> list[str]:
    """Return the lines of the table: a column for each buffer, a row for each indicator."""
    at = format_time(int(market.candles["timestamp"].iloc[-1]))
    return [
        f"difference in percent at the last bar, {at}, against all {len(market.candles):,} bars",
        _line("from the last", [f"{row.bars:,}" for row in rows]),
        *(_line(name, [_percent(row.differences[name]) for row in rows]) for name in INDICATORS),
        _line("regime", [_same(row.regime) for row in rows]),
        _line("GMM label", [_same(row.gmm) for row in rows]),
        _line(
            f"worst at {looked_at:,} bars", [_percent(worst[row.bars].difference) for row in rows]
        ),
    ]


def _line(label: str, cells: list[str]) -> str:
    return label.ljust(_LABEL_WIDTH) + "".join(cell.rjust(_CELL_WIDTH) for cell in cells)


def _percent(difference: float) -> str:
    if difference == 0.0:
        return "0"
    return "not warm" if math.isinf(difference) else f"{100.0 * difference:.1e}"


def _off(difference: float) -> str:
    return "not warm yet" if math.isinf(difference) else f"{_percent(difference)} % off"


def _same(pair: tuple[str, str]) -> str:
    if NO_LABEL in pair:
        return NO_LABEL
    return "same" if pair[0] == pair[1] else "differs"


def _first_excess(
    rows: list[Warmup], worst: Mapping[int, Worst], params: StrategyParams, judged: int
) -> str:
    """Return the first thing that ``judged`` bars or more do not settle, in words."""
    for row in (row for row in rows if row.bars >= judged):
        for name, difference in row.differences.items():
            if difference > ENOUGH:
                return f"{name} from the last {row.bars:,} bars is {_off(difference)}"
        named = {"regime": row.regime} | ({"GMM label": row.gmm} if params.use_ml_regime else {})
        for name, (ours, theirs) in named.items():
            if ours != theirs:
                return f"{name} from the last {row.bars:,} bars is {ours}, from all it is {theirs}"
        at_worst = worst[row.bars]
        if at_worst.difference > ENOUGH:
            off, at = _off(at_worst.difference), format_time(at_worst.ts_ms)
            return f"{at_worst.indicator} from {row.bars:,} bars is {off} at {at}"
    return ""
