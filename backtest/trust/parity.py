"""The compiled loop against single steps that are interrupted: the same run.

Live trading does single steps and is restarted; a backtest is one compiled loop. Over the same
candles both must make the same trades and the same account, to the last bit.
"""

from __future__ import annotations

from typing import Final

from backtest.market.coin_data import CoinData
from backtest.market.timeframes import format_time
from backtest.runs.step_run import (
    StepRun,
    first_difference,
    run_tables,
    state_difference,
    trade_difference,
)
from backtest.trust.outcome import Budget, CheckOutcome, spread
from core.params import StrategyParams

RESTARTS: Final = 200
"""Where the budget is a time."""
SIDES: Final = ("compiled", "step by step")


def check_parity(data: CoinData, params: StrategyParams, budget: Budget) -> CheckOutcome:
    """Run all bars compiled, and step by step with restarts from JSON, and compare.

    Args:
        data: one coin's market data and rules.
        params: of the strategy.
        budget: restarts, spread evenly; where its time is up, the bars up to then are compared.

    Raises:
        DataError: the candles cannot be used.
    """
    tables = run_tables(data.market, params, data.first_bar)
    first, n_bars = data.first_bar, len(tables.bars)
    restarts = {first + i for i in spread(n_bars - first, budget.count or RESTARTS)}
    stepped, stop, done = StepRun(tables, params, data.rules), first, 0
    stepped.run_compiled(0, first)  # only logs: nothing acts before it
    for i in budget.spend(range(first, n_bars), f"{data.market.coin} parity"):
        if i in restarts:
            stepped.restart()
            done += 1
        stepped.step(i)
        stop = i + 1
    compiled = StepRun(tables, params, data.rules)
    compiled.run_compiled(0, stop)
    for run in (compiled, stepped):
        run.close(stop)
    counted = f"{stop - first:,} of {n_bars - first:,} bars"
    difference = _compare(compiled, stepped, stop, first)
    if difference:
        return CheckOutcome(f"{counted}, {done:,} restarts", difference)
    return CheckOutcome(
        f"{counted} one step at a time, {done:,} restarts from JSON: the same "
        f"{len(stepped.trades):,} trade records, account at every close and state to the last bit"
    )


def _compare(compiled: StepRun, stepped: StepRun, stop: int, first: int) -> str:
    """Return the first difference before bar ``stop``, in words; '' if there is none."""
    found = first_difference(compiled.log[:stop], stepped.log[:stop])
    traded = trade_difference(compiled.trades, stepped.trades, first, SIDES)
    if traded is not None and (found is None or traded[0] <= found[0]):
        return traded[1]
    if found is not None:
        bar, field, a, b = found
        at = format_time(int(compiled.tables.bars["ts_ms"][bar]))
        return f"account: {field} in bar {bar - first}, {at}, is {a!r} compiled, {b!r} step by step"
    return state_difference(compiled.strategy.state, stepped.strategy.state, SIDES)
