"""One coin's runs of a trial: every train window in one run, every test in a run of its own."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backtest.market.coin_data import CoinData
from backtest.optimize.trial.objective import Objective, WindowFacts, score_window
from backtest.optimize.trial.shared_signals import SharedSignals
from backtest.optimize.trial.trial import WindowScore
from backtest.optimize.trial.windows import Plan, Window
from core.params import StrategyParams
from core.records import dtype_of, freeze, zeros
from core.signals import Signal
from core.times import DAY_MS
from engine.compiled_run import CompiledRun
from engine.grid_v4.types import State, new_state
from engine.strategy import LOOP
from engine.tables import (
    BarLog,
    RunTables,
    bar_table,
    funding_rows,
    settled_funding,
    sub_bar_tables,
)
from engine.types import Tape

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Buffers(threading.local):
    """The large tables a run writes, one set per thread, used again by every run of the thread.

    Args:
        n_bars: of the coin that has most.
    """

    def __init__(self, n_bars: int) -> None:
        self.signals: Any = np.zeros(n_bars, dtype_of(Signal))
        self.log: Any = np.zeros(n_bars, dtype_of(BarLog))
        self.tape: Tape = zeros(Tape)


@dataclass(frozen=True, eq=False)
class CoinScores:
    """The result of one parameter set on one coin.

    Attributes:
        train: score of every train window.
        test: score of every test window.
        day_equity: quote, at the closes asked for, shape (n_days,).
    """

    train: list[WindowScore]
    test: list[WindowScore]
    day_equity: Floats


class CoinRuns:
    """Runs of one coin's candles that share all but what a parameter set changes.

    Nothing here is written to after it is made, so threads may share it; each needs buffers of
    its own. Positions open at the end of a window count at its last close, and are not closed.

    Args:
        data: the candles, none of the holdout among them.
        base: values of parameters that are not searched.
        plan: windows in rows of the candles.
        day_ends: rows at whose closes the equity of the daily returns is taken.
        objective: what scores a window.

    Raises:
        DataError: the candles cannot be used.
    """

    def __init__(
        self, data: CoinData, base: StrategyParams, plan: Plan, day_ends: Ints, objective: Objective
    ) -> None:
        self.plan, self.rules, self._objective = plan, data.rules, objective
        self._day_ends, self._bar_ms = day_ends, data.market.bar_ms
        self.bars: Any = bar_table(data.market.candles)
        self._schedule = settled_funding(self.bars, data.market.funding, self._bar_ms)
        self._funding = funding_rows(self._schedule)
        self._sub_bars = sub_bar_tables(self.bars, data.market.detail, self._bar_ms)
        self.signals = SharedSignals(data.market, base)

    def tables(self, signals: Any) -> RunTables:
        """Return what a run with ``signals`` reads."""
        return RunTables(
            self.bars, signals, self._funding, self._schedule.source, *self._sub_bars, first_bar=0
        )

    def evaluate(self, params: StrategyParams, buffers: Buffers) -> CoinScores:
        """Return what ``params`` come to; the bars of a test never count in a train score."""
        replay, plan = _Replay(self, params, buffers), self.plan
        state, start, train = replay.fresh_state(), plan.first_bar, []
        for window in plan.windows:
            replay.advance(state, start, window.train_end)
            train.append(self._score(replay, state, plan.first_bar, window.train_end))
            start = window.train_end
        replay.advance(state, start, plan.holdout_start)
        day_equity = replay.equity[self._day_ends]  # a copy: the tests write over it
        test = [self._test(replay, window) for window in plan.windows]
        return CoinScores(train, test, day_equity)

    def train_scores(
        self, params: StrategyParams, buffers: Buffers, windows: int
    ) -> list[WindowScore]:
        """Return the scores of the first ``windows`` trains; no later bar is run."""
        replay, state = _Replay(self, params, buffers), new_state(params.initial_capital)
        start, found = self.plan.first_bar, []
        for window in self.plan.windows[:windows]:
            replay.advance(state, start, window.train_end)
            found.append(self._score(replay, state, self.plan.first_bar, window.train_end))
            start = window.train_end
        return found

    def _test(self, replay: _Replay, window: Window) -> WindowScore:
        state = replay.fresh_state()
        replay.advance(state, window.test_start, window.test_end)
        return self._score(replay, state, window.test_start, window.test_end)

    def _score(self, replay: _Replay, state: State, start: int, end: int) -> WindowScore:
        """Return the score of ``[start, end)``, of which the last step done is ``end - 1``."""
        counters = state.counters
        facts = WindowFacts(
            equity=np.array(replay.equity[start:end]),
            initial=replay.initial,
            trades=int(counters.round_trips),
            gross_profit=float(counters.gross_profit),
            gross_loss=float(counters.gross_loss),
            bars_per_year=365 * DAY_MS / self._bar_ms,
        )
        return score_window(facts, self._objective)


class _Replay:
    """The compiled loop over one coin under one parameter set."""

    def __init__(self, coin: CoinRuns, params: StrategyParams, buffers: Buffers) -> None:
        self.initial = params.initial_capital
        self.equity: Floats = buffers.log["equity"]
        self._frozen = freeze(params)
        self._market = coin.rules.to_record(params.liquidation_fee)
        self._tape, self._log = buffers.tape, buffers.log
        signals = buffers.signals[: len(coin.bars)]
        coin.signals.write(params, signals)
        self._tables = coin.tables(signals)

    def fresh_state(self) -> State:
        """Return the state before the first step."""
        return new_state(self.initial)

    def advance(self, state: State, start: int, end: int) -> None:
        """Do the steps ``[start, end)``; counters hold what a score needs of the records."""
        run = CompiledRun(
            LOOP, self._tables, self._frozen, self._market, state, self._tape, self._log
        )
        run.advance(start, end, keep_trades=False)
