"""One run taken apart: its tables, and its steps as a compiled whole or one at a time.

The single steps call what live trading calls, in the order of ``engine.grid_v4.loop``.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from backtest.market.market_data import MarketData
from core.market import MarketRules
from core.params import StrategyParams
from core.records import dtype_of, to_jsonable
from core.signals import compute_signals
from engine.grid_v4.decision import PROTECT_PHASES
from engine.grid_v4.execution import execute_exits, trigger_passed_stops
from engine.grid_v4.loop import log_bar
from engine.grid_v4.walk import walk_bar, walk_detail, walk_gap
from engine.ledger import settle_funding
from engine.strategy import GridStrategyV4
from engine.tables import BarLog, RunTables, bar_table, build_tables
from engine.trade_tables import trade_dicts

Records = npt.NDArray[Any]


def run_tables(market: MarketData, params: StrategyParams, first_bar: int) -> RunTables:
    """Return the tables a run over ``market`` reads.

    Raises:
        DataError: the candles cannot be used.
    """
    candles, bar_ms = market.candles, market.bar_ms
    bars = bar_table(candles)
    signals = compute_signals(
        bars["ts_ms"],
        candles["high"],
        candles["low"],
        candles["close"],
        candles["volume"],
        params,
        bar_ms=bar_ms,
    )
    return build_tables(bars, signals, market.funding, market.detail, bar_ms, first_bar)


class StepRun:
    """A run that can be stopped, looked at and taken up again at every step.

    Args:
        tables: what it reads.
        params: of the strategy.
        rules: of the symbol.
    """

    def __init__(self, tables: RunTables, params: StrategyParams, rules: MarketRules) -> None:
        self.tables, self._params, self._rules = tables, params, rules
        self.strategy = GridStrategyV4(params, rules)
        self.log: Records = np.zeros(len(tables.bars), dtype_of(BarLog))
        self._taken: list[Records] = []

    @property
    def trades(self) -> Records:
        """All trade records so far, as one table of ``Trade``."""
        self._taken.append(self.strategy.take_trades())
        self._taken = [np.concatenate(self._taken)]
        return self._taken[0]

    def run_compiled(self, start: int, stop: int) -> None:
        """Do the steps ``start`` to ``stop - 1`` in the compiled loop."""
        run = self.strategy.compiled_run(self.tables, self.log)
        run.advance(start, stop)
        self._taken.append(run.trades)

    def acts(self, i: int) -> bool:
        """Return whether step ``i`` does anything but log the account."""
        x = self.tables
        ready = i >= x.first_bar and i > 0 and bool(x.signals["ready"][i - 1])
        return ready and not bool(self.strategy.state.ended)

    def decide(self, i: int) -> None:
        """Do what step ``i`` does at the open of its bar: gap, exits, orders."""
        x, strategy = self.tables, self.strategy
        state, params, market, tape = (
            strategy.state,
            strategy.frozen_params,
            strategy.rules,
            strategy.tape,
        )
        price, before = float(x.bars["open"][i]), float(x.bars["close"][i - 1])
        strategy.open_step(
            i,
            int(x.bars["ts_ms"][i]),
            price,
            before,
            x.signals[i - 1],
            float(x.funding["known"][i]),
        )
        walk_gap(state, params, market, before, price, tape)
        for phase in range(PROTECT_PHASES):
            if strategy.protect(phase):
                execute_exits(state, params, market, tape)
            if state.ended:
                return
        strategy.arrange()
        trigger_passed_stops(state, params, market, tape)

    def finish(self, i: int, *, acted: bool) -> None:
        """Do the rest of step ``i``: the bar's path, funding, the account at its close."""
        x, strategy = self.tables, self.strategy
        state, params, market = strategy.state, strategy.frozen_params, strategy.rules
        first, stop = int(x.detail_from[i]), int(x.detail_from[i + 1])
        paid, close = 0.0, float(x.bars["close"][i])
        if acted:
            if stop > first:
                walk_detail(state, params, market, x.detail, first, stop, strategy.tape)
            else:
                walk_bar(state, params, market, x.bars[i], strategy.tape)
            due = float(x.funding["due"][i])
            if self._params.funding_enabled and due != 0.0:
                paid = settle_funding(state, due, close)
        log_bar(state, paid, close, self.log[i])
        if strategy.tape.n_trades > 0:
            self._taken.append(strategy.take_trades())

    def step(self, i: int) -> None:
        """Do the whole step ``i``."""
        acted = self.acts(i)
        if acted:
            self.decide(i)
        self.finish(i, acted=acted)

    def close(self, stop: int) -> None:
        """Close what is open at the close of bar ``stop - 1``."""
        self.strategy.compiled_run(self.tables, self.log).close(stop)

    def restart(self) -> None:
        """Go on with a new strategy, its state loaded from the JSON text of the old one's."""
        self._taken.append(self.strategy.take_trades())
        text = json.dumps(self.strategy.state_dict())
        self.strategy = GridStrategyV4(self._params, self._rules)
        self.strategy.load_state_dict(json.loads(text))


def first_difference(
    ours: npt.NDArray[Any], theirs: npt.NDArray[Any]
) -> tuple[int, str, Any, Any] | None:
    """Return (row, field, our value, their value) where two tables first part to the last bit.

    NaN equals NaN. Of tables of different length only the common rows are compared.
    """
    n = min(len(ours), len(theirs))
    found: tuple[int, str, Any, Any] | None = None
    for name in ours.dtype.names or ():
        a, b = ours[name][:n], theirs[name][:n]
        unequal = (a != b) & ~((a != a) & (b != b))  # noqa: PLR0124 - only NaN differs from itself
        if unequal.any() and (found is None or unequal.argmax() < found[0]):
            row = int(unequal.argmax())
            found = row, name, a[row].item(), b[row].item()
    return found


def trade_difference(
    ours: Records, theirs: Records, first_bar: int, sides: tuple[str, str]
) -> tuple[int, str] | None:
    """Return the bar where two tables of ``Trade`` part, and how; None where they do not.

    In the words bars are counted from ``first_bar``, as in the files of a run; ``sides`` names
    the two tables.
    """
    found = first_difference(ours, theirs)
    if found is None and len(ours) == len(theirs):
        return None
    row = found[0] if found is not None else min(len(ours), len(theirs))
    bar = min(int(table["bar"][row]) for table in (ours, theirs) if row < len(table))
    texts = [
        f"{_trade_text(table, row, first_bar)} {name}"
        for table, name in zip((ours, theirs), sides, strict=True)
    ]
    return bar, f"trade {row + 1}: {'; '.join(texts)}"


def _trade_text(records: Records, row: int, first_bar: int) -> str:
    if row >= len(records):
        return "none"
    trade = trade_dicts(records[row : row + 1])[0]
    return (
        f"{trade['label']} {trade['qty']:g} at {trade['price']:.12g} in bar "
        f"{trade['bar'] - first_bar}, fill {trade['fill_id']}, pnl {trade['pnl']!r}, "
        f"fee {trade['fee']!r}"
    )


def state_difference(ours: Any, theirs: Any, sides: tuple[str, str]) -> str:
    """Return the first field in which two states differ, in words; '' where none does."""
    if ours.tobytes() == theirs.tobytes():
        return ""
    found = _first_leaf(to_jsonable(ours), to_jsonable(theirs), "state")
    return f"{found[0]} is {found[1]!r} {sides[0]}, {found[2]!r} {sides[1]}" if found else ""


def _first_leaf(ours: Any, theirs: Any, path: str) -> tuple[str, Any, Any] | None:
    if isinstance(ours, dict):
        pairs = [(f"{path}.{name}", ours[name], theirs[name]) for name in ours]
    elif isinstance(ours, list) and len(ours) == len(theirs):
        pairs = [(f"{path}[{i}]", a, b) for i, (a, b) in enumerate(zip(ours, theirs, strict=True))]
    else:
        same = ours == theirs or (ours != ours and theirs != theirs)  # noqa: PLR0124 - NaN
        return None if same else (path, ours, theirs)
    leaves = (_first_leaf(a, b, name) for name, a, b in pairs)
    return next((leaf for leaf in leaves if leaf is not None), None)
