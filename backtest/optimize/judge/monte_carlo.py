"""The Monte-Carlo test: does the choice earn more on the real bars than on the same bars shuffled?

The parameters were chosen on the train bars, so they do better there than on shuffled ones even if
there is nothing to find; a p value from those bars would flatter. So only the bars that no train
window has seen are permuted, from the last test's start through the holdout to the end; the bars
before stay as they are and warm the indicators up. All coins get the same permutation and, but for
the few bars that make each end at its own price, the same coins tossed, which keeps them moving
together. Funding rates stay at their times.

The permuted runs come first, then the real one: until then nothing of the holdout is known.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.market.coin_data import CoinData
from backtest.optimize.judge.permutation import block_of, p_value, permute_candles
from backtest.optimize.search.progress import side_by_side
from backtest.optimize.trial.prepare import Coins, Prepared
from backtest.optimize.trial.range_runs import with_candles
from backtest.runs.variants import cut_window

Ints = npt.NDArray[np.int64]

_PRICES: Final = ("open", "high", "low", "close")


@dataclass(frozen=True, kw_only=True)
class PermutationTest:
    """The result of the permutations.

    Attributes:
        start_ms: open of the first bar permuted, ms UTC.
        end_ms: end of the bars.
        observed: return of the portfolio on the real bars, percent.
        permuted: the same on permuted ones.
        p_value: share of results at least as good as the observed one, itself among them.
    """

    start_ms: int
    end_ms: int
    observed: float
    permuted: tuple[float, ...]
    p_value: float


def permuted_returns(
    prepared: Prepared,
    drawn: Mapping[str, Any],
    *,
    n: int,
    seed: int,
    jobs: int,
    warmup_bars: int,
    stop: threading.Event | None = None,
) -> list[float]:
    """Return what ``drawn`` comes to on ``n`` permutations of the bars after the last train.

    The holdout among them is not read for that: no run sees its bars as they are.

    Args:
        prepared: of the search.
        drawn: the chosen parameters.
        n: permutations.
        seed: the same seed, the same permutations.
        jobs: runs at a time.
        warmup_bars: before the first bar permuted.
        stop: is set by whoever wants it to end.

    Raises:
        KeyboardInterrupt: ``stop`` was set before all was done.
    """
    start_ms = _first_unseen_ms(prepared)

    def permutation(seed: int, aside: Coins) -> Coins:
        real = unseen_bars(prepared, aside, start_ms, warmup_bars)
        return {coin: permute_from(data, start_ms, seed) for coin, data in real.items()}

    def permuted_return(key: int) -> float:
        order = int(np.random.SeedSequence((seed, key)).generate_state(1)[0])
        data = prepared.holdout.disguised(partial(permutation, order))
        return _portfolio_return(prepared, drawn, start_ms, data)

    return side_by_side(permuted_return, range(n), jobs=jobs, title="permutations", stop=stop)


def compare_with_permuted(
    prepared: Prepared,
    taken: Coins,
    drawn: Mapping[str, Any],
    permuted: Sequence[float],
    *,
    warmup_bars: int,
) -> PermutationTest:
    """Run ``drawn`` on the real bars after the last train and compare.

    Args:
        prepared: of the search.
        taken: what ``Holdout.take`` answered.
        drawn: the chosen parameters.
        permuted: what ``permuted_returns`` answered for them.
        warmup_bars: before the first bar.
    """
    start_ms = _first_unseen_ms(prepared)
    real = unseen_bars(prepared, taken, start_ms, warmup_bars)
    observed = _portfolio_return(prepared, drawn, start_ms, real)
    return PermutationTest(
        start_ms=start_ms,
        end_ms=prepared.plan.end_ms,
        observed=observed,
        permuted=tuple(permuted),
        p_value=p_value(observed, permuted),
    )


def _first_unseen_ms(prepared: Prepared) -> int:
    return prepared.plan.time_of(prepared.plan.plan.windows[-1].test_start)


def unseen_bars(
    prepared: Prepared, taken: Coins, start_ms: int, warmup_bars: int
) -> dict[str, CoinData]:
    """Return every coin's bars from ``start_ms`` through the holdout, and those before it.

    From ``start_ms`` on only bars that all coins have, so that one permutation suits them all.
    """
    plan = prepared.plan
    found = {}
    for coin, data in prepared.data.items():
        whole = _joined(data, taken[coin], plan.holdout_ms)
        # Also a strategy that needs no warm-up has a bar before: the first gap is permuted too.
        cut = cut_window(whole.market, whole.rules, start_ms, plan.end_ms, max(1, warmup_bars))
        times = cut.market.candles["timestamp"]
        common = cut.market.candles[(times < start_ms) | times.isin(plan.times_ms)]
        market = replace(cut.market, candles=common.reset_index(drop=True), detail=None)
        found[coin] = replace(cut, market=market)
    return found


def permute_from(data: CoinData, start_ms: int, seed: int) -> CoinData:
    """Return ``data`` with the bars from ``start_ms`` on permuted, on the tick.

    The bar before them stays, so the gap into the first of them is permuted as well.
    """
    candles = data.market.candles
    first = int(np.searchsorted(candles["timestamp"].to_numpy(), start_ms)) - 1
    columns = [np.array(candles[name].iloc[first:]) for name in (*_PRICES, "volume")]
    opens, highs, lows, closes, volumes = columns
    block = block_of(data.market.bar_ms)
    moved = permute_candles(opens, highs, lows, closes, volumes, seed, block)
    changed = candles.copy()
    for name, column in moved.items():
        values = _on_tick(column, data.rules.tick_size) if name in _PRICES else column
        changed[name] = np.concatenate((candles[name].iloc[: first + 1], values[1:]))
    return with_candles(data, changed)


def _on_tick(prices: npt.NDArray[np.float64], tick: float) -> npt.NDArray[np.float64]:
    """Return ``prices`` on the nearest tick, at least one."""
    per_unit = round(1.0 / tick)
    ticks = np.maximum(np.rint(prices / tick), 1.0)
    whole = per_unit > 0 and abs(per_unit * tick - 1.0) < 1e-9  # noqa: PLR2004 - rounding
    return ticks / per_unit if whole else ticks * tick


def _joined(before: CoinData, after: CoinData, holdout_ms: int) -> CoinData:
    """Return the bars of the search followed by those set aside."""
    frames = {}
    for name in ("candles", "funding"):
        old, new = getattr(before.market, name), getattr(after.market, name)
        # A rate settled at the holdout's very start is in both.
        last_ms = int(old["timestamp"].iloc[-1]) if len(old) else holdout_ms - 1
        frames[name] = pd.concat([old, new[new["timestamp"] > last_ms]], ignore_index=True).astype(
            old.dtypes
        )
    return replace(before, market=replace(before.market, **frames))


def _portfolio_return(
    prepared: Prepared, drawn: Mapping[str, Any], start_ms: int, data: Coins
) -> float:
    """Return the return of the portfolio that gives every coin the same capital, percent."""
    runs = prepared.evaluate_range(drawn, start_ms=start_ms, data=data)
    initial = prepared.params.initial_capital
    return fmean((float(run.equity_curve[-1]) / initial - 1.0) * 100.0 for run in runs.values())
