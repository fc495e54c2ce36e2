"""No decision knows the future: cutting the data at a decision leaves it as it was.

For a step ``k`` that traded, everything after the open of bar ``k`` is taken away: of bar ``k`` its
open remains, the bars after it are replaced by blanks, the settlements after it are gone.
Indicators are computed anew on what is left, all steps up to ``k`` are run anew, and must agree
with those on the whole data to the last bit: indicators before ``k``, trades, account at every
close, and what step ``k`` does at its open, down to every order it leaves resting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from backtest.market.coin_data import CoinData
from backtest.market.market_data import MarketData
from backtest.market.timeframes import format_time
from backtest.runs.step_run import (
    StepRun,
    first_difference,
    run_tables,
    state_difference,
    trade_difference,
)
from backtest.trust.outcome import Budget, CheckOutcome, coarse_to_fine
from core.market import MarketRules
from core.params import StrategyParams
from core.times import DAY_MS
from engine.tables import RunTables
from engine.types import CLOSE_END

Build = Callable[[MarketData, StrategyParams, int], RunTables]

BLANK_MS: Final = 2 * DAY_MS
"""How far blank bars follow a cut."""
SIDES: Final = ("on all data", "on the cut data")


def check_lookahead(
    data: CoinData, params: StrategyParams, budget: Budget, build: Build = run_tables
) -> CheckOutcome:
    """Cut the data at the decisions that traded, and compare.

    Args:
        data: one coin's market data and rules.
        params: of the strategy.
        budget: cuts at most; where there are more decisions, they are spread over the run.
        build: makes the tables a run reads of market data, whole or cut.

    Raises:
        DataError: the candles cannot be used.
    """
    whole = build(data.market, params, data.first_bar)
    steps, what = traded_steps(whole, params, data.rules)
    chosen = [steps[i] for i in coarse_to_fine(len(steps), budget)]
    done = 0
    run, reached = StepRun(whole, params, data.rules), 0
    for k in budget.spend(chosen, f"{data.market.coin} lookahead"):
        if k < reached:
            run, reached = StepRun(whole, params, data.rules), 0
        acted, reached = _advance(run, reached, k), k + 1
        cut = build(cut_market(data.market, k), params, data.first_bar)
        done += 1
        difference = _compare(run, _decided(cut, params, data.rules, k), k)
        if difference:
            at = format_time(int(whole.bars["ts_ms"][k]))
            return CheckOutcome(f"cut at the open of bar {k - data.first_bar}, {at}", difference)
        run.finish(k, acted=acted)
    return CheckOutcome(
        f"{done:,} of {len(steps):,} {what}: cut there and recomputed, same indicators, trades, "
        "account and orders to the last bit"
    )


def traded_steps(
    tables: RunTables, params: StrategyParams, rules: MarketRules
) -> tuple[list[int], str]:
    """Return the bars in which something was traded (all that act where none was), and a name."""
    run = StepRun(tables, params, rules)
    run.run_compiled(0, len(tables.bars))
    trades = run.trades
    bars = np.unique(trades["bar"][trades["label"] != CLOSE_END])
    if bars.size:
        return [int(bar) for bar in bars], "decisions that traded"
    ready = np.flatnonzero(tables.signals["ready"][:-1]) + 1
    return [int(bar) for bar in ready if bar >= tables.first_bar], "decisions (none traded)"


def cut_market(market: MarketData, k: int) -> MarketData:
    """Return what is known of ``market`` at the open of bar ``k``; blank bars stand for the rest.

    A blank bar stands still at that open without volume. Later settlements are gone: neither
    their rates nor that there will be any is known.
    """
    times = market.candles["timestamp"].to_numpy()
    now = int(times[k])
    price = float(market.candles["open"].iloc[k])
    stop = int(np.searchsorted(times, now + BLANK_MS, side="right"))
    candles = market.candles.iloc[:stop].copy()
    rows = candles.index[k:]
    candles.loc[rows, ["open", "high", "low", "close"]] = price
    candles.loc[rows, "volume"] = 0.0
    funding = market.funding[market.funding["timestamp"] <= now]
    detail = market.detail
    if detail is not None:
        detail = detail[detail["timestamp"] < now]
    return replace(market, candles=candles, funding=funding, detail=detail)


def _advance(run: StepRun, start: int, k: int) -> bool:
    """Bring a run that has done the steps before ``start`` to what step ``k`` decides.

    Returns whether step ``k`` acts.
    """
    run.run_compiled(start, k)
    acts = run.acts(k)
    if acts:
        run.decide(k)
    return acts


def _decided(tables: RunTables, params: StrategyParams, rules: MarketRules, k: int) -> StepRun:
    run = StepRun(tables, params, rules)
    _advance(run, 0, k)
    return run


def _compare(whole: StepRun, cut: StepRun, k: int) -> str:
    """Return the first thing that a cut at bar ``k`` changed, in words; '' if there is none."""
    first = whole.tables.first_bar
    for name, ours, theirs in (
        ("indicators", whole.tables.signals[:k], cut.tables.signals[:k]),
        ("account", whole.log[:k], cut.log[:k]),
    ):
        found = first_difference(ours, theirs)
        if found is not None:
            bar, field, a, b = found
            return f"{name}: {field} at bar {bar - first} is {a!r} {SIDES[0]}, {b!r} {SIDES[1]}"
    traded = trade_difference(whole.trades, cut.trades, first, SIDES)
    return traded[1] if traded is not None else _compare_orders(whole, cut)


def _compare_orders(whole: StepRun, cut: StepRun) -> str:
    ours, theirs = list(whole.strategy.book), list(cut.strategy.book)
    for a, b in zip([*ours, None], [*theirs, None], strict=False):
        if a != b:
            return f"order: {a or 'none'} {SIDES[0]}, {b or 'none'} {SIDES[1]}"
    return state_difference(whole.strategy.state, cut.strategy.state, SIDES)
