"""The checks of a fixed grid: no knowledge of the future, and single steps equal to the loop."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from backtest.market.coin_data import CoinData
from backtest.market.timeframes import format_time
from backtest.runs.step_run import first_difference
from backtest.trust.lookahead import cut_market
from backtest.trust.outcome import Budget, CheckOutcome, coarse_to_fine, spread
from core.records import dtype_of, to_jsonable
from engine.fixed_grid.decision import FIXED_PHASES, arrange, go_on, open_fixed_step, protect
from engine.fixed_grid.health import log_step
from engine.fixed_grid.loop import FixedLog, log_candle
from engine.fixed_grid.matching import walk_bar, walk_gap
from engine.fixed_grid.params import FixedGridParams
from engine.fixed_grid.positions import execute_exit, liquidate
from engine.fixed_grid.strategy import FixedGridStrategy
from engine.fixed_grid.types import new_fixed_state
from engine.ledger import settle_funding
from engine.tables import Records, RunTables
from engine.types import CLOSE_END, LIQUIDATION, take_trades

RESTARTS = 200
"""Where the budget is a time."""


class FixedStepRun:
    """A fixed grid walked one candle at a time, as live trading walks it, restarted at will."""

    def __init__(self, tables: RunTables, params: FixedGridParams, data: CoinData) -> None:
        self.strategy = FixedGridStrategy(params, data.rules)
        self.tables = tables
        self.log: Any = np.zeros(len(tables.bars), dtype_of(FixedLog))
        self._rules = self.strategy.rules
        self._taken: list[Records] = []

    @property
    def trades(self) -> Records:
        """All trade records so far."""
        self._taken = [np.concatenate([*self._taken, take_trades(self.strategy.tape)])]
        return self._taken[0]

    def run_compiled(self, stop: int) -> None:
        """Do the candles before ``stop`` in the compiled loop, from the first one on."""
        run = self.strategy.compiled_run(self.tables, self.log)
        run.advance(0, stop)
        self._taken.append(run.trades)

    def decide(self, k: int) -> None:
        """Meet the gap before candle ``k`` and do the step that begins with it."""
        s, bars = self.strategy, self.tables.bars
        state, params = s.state, s.frozen_params
        before = bars[k - 1].close if k > self.tables.first_bar else bars[k].open
        open_fixed_step(state, params, k, bars[k].ts_ms, bars[k].open, before)
        walk_gap(state, params, self._rules, before, bars[k].open, s.tape)
        if not state.ended:
            self._protect()
        if state.ended:
            return
        arrange(state, params, self._rules)

    def _protect(self) -> None:
        s = self.strategy
        for phase in range(FIXED_PHASES):
            while protect(s.state, s.frozen_params, self._rules, phase, s.tape) > 0:
                for k in range(int(s.tape.n_exits)):
                    self._execute(s.tape.exits[k])
                if s.state.ended:
                    log_step(s.state, s.frozen_params)
                    return

    def _execute(self, out: Any) -> None:
        s = self.strategy
        if out.label == LIQUIDATION:
            liquidate(s.state, s.frozen_params, self._rules, s.state.now.price, s.tape)
        else:
            execute_exit(s.state, s.frozen_params, self._rules, out, s.tape)

    def step(self, k: int) -> None:
        """Do candle ``k``: gap and step where one begins, path, funding, account."""
        s, bar, paid = self.strategy, self.tables.bars[k], 0.0
        state, params = s.state, s.frozen_params
        if not state.ended:
            if self.tables.signals[k].begins_step:
                self.decide(k)
            else:
                go_on(state, params, k, bar.ts_ms)
            if not state.ended:
                walk_bar(state, params, self._rules, bar, s.tape)
            due = self.tables.funding[k].due
            if params.funding_enabled and due != 0.0:
                paid = settle_funding(state, due, bar.close)
            state.counters.bars_held += int(state.sides[params.side].n_fills > 0)
        log_candle(state, params, paid, bar.close, self.log[k])
        s.tape.n_marks = 0
        if s.tape.n_trades > len(s.tape.trades) // 2:
            self._taken.append(take_trades(s.tape))

    def restart(self) -> None:
        """Save the state as JSON, forget it, and load it again."""
        text = json.dumps(to_jsonable(self.strategy.state))
        self.strategy.state = new_fixed_state(1.0)
        self.strategy.load_state_dict(json.loads(text))


def _tables(data: CoinData, params: FixedGridParams, market: Any) -> RunTables:
    return FixedGridStrategy(params, data.rules).tables(
        market.candles, settled=market.funding, first_bar=data.first_bar
    )


def check_fixed_lookahead(data: CoinData, params: FixedGridParams, budget: Budget) -> CheckOutcome:
    """Cut the data at candles that traded, do all anew, and compare decisions and account.

    Raises:
        DataError: the candles cannot be used.
    """
    whole = _tables(data, params, data.market)
    times = data.market.candles["timestamp"].to_numpy()
    traded = _traded(whole, params, data)
    known = np.isin(whole.bars["ts_ms"][traded], times) & ~whole.signals["is_hole"][traded]
    begins = whole.signals["begins_step"][traded]
    steps = [int(k) for k in traded[known & begins]]
    chosen, done = [steps[i] for i in coarse_to_fine(len(steps), budget)], 0
    for k in budget.spend(chosen, f"{data.market.coin} lookahead"):
        now = int(whole.bars["ts_ms"][k])
        row = int(np.searchsorted(times, now))
        cut = _tables(data, params, cut_market(data.market, row))
        ours, theirs = (FixedStepRun(tables, params, data) for tables in (whole, cut))
        for run in (ours, theirs):
            run.run_compiled(k)
            run.decide(k)
        done += 1
        difference = _difference(ours, theirs, k, ("on all data", "on the cut data"))
        if difference:
            return CheckOutcome(f"cut at the open of bar {k}, {format_time(now)}", difference)
    return CheckOutcome(
        f"{done:,} of {len(steps):,} decisions that traded: cut there and done anew, same trades, "
        "account and orders to the last bit"
    )


def _traded(tables: RunTables, params: FixedGridParams, data: CoinData) -> Any:
    run = FixedGridStrategy(params, data.rules).run_tables(tables)
    return np.unique(run.trades["bar"][run.trades["label"] != CLOSE_END])


def check_fixed_parity(data: CoinData, params: FixedGridParams, budget: Budget) -> CheckOutcome:
    """Walk all candles compiled, and one at a time with restarts from JSON, and compare.

    Raises:
        DataError: the candles cannot be used.
    """
    tables = _tables(data, params, data.market)
    n_bars, done, stop = len(tables.bars), 0, 0
    restarts = set(spread(n_bars, budget.count or RESTARTS))
    stepped = FixedStepRun(tables, params, data)
    for i in budget.spend(range(n_bars), f"{data.market.coin} parity"):
        if i in restarts:
            stepped.restart()
            done += 1
        stepped.step(i)
        stop = i + 1
    compiled = FixedStepRun(tables, params, data)
    compiled.run_compiled(stop)
    difference = _difference(compiled, stepped, stop, ("compiled", "step by step"))
    counted = f"{stop:,} of {n_bars:,} candles"
    if difference:
        return CheckOutcome(f"{counted}, {done:,} restarts", difference)
    return CheckOutcome(
        f"{counted} one at a time, {done:,} restarts from JSON: the same "
        f"{len(stepped.trades):,} trade records, account at every close and state to the last bit"
    )


def check_fixed_warmup(data: CoinData, params: FixedGridParams, budget: Budget) -> CheckOutcome:  # noqa: ARG001
    """Say that there is nothing to warm up."""
    return CheckOutcome("no indicators: every step knows all it needs, nothing to warm up")


def _difference(a: FixedStepRun, b: FixedStepRun, stop: int, sides: tuple[str, str]) -> str:
    """Return the first difference before candle ``stop``, in words; '' if there is none."""
    for what, ours, theirs in (
        ("account", a.log[:stop], b.log[:stop]),
        ("trades", a.trades, b.trades),
    ):
        if len(ours) != len(theirs):
            return f"{what}: {len(ours)} rows {sides[0]}, {len(theirs)} {sides[1]}"
        found = first_difference(ours, theirs)
        if found is not None:
            row, field, x, y = found
            return f"{what}: {field} in row {row} is {x!r} {sides[0]}, {y!r} {sides[1]}"
    left, right = (to_jsonable(run.strategy.state) for run in (a, b))
    names = [name for name in left if left[name] != right[name]]
    return f"state: {', '.join(names)} differ {sides[0]} and {sides[1]}" if names else ""
