"""One coin's runs of a trial: every train window in one run, every test in a run of its own."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backtest.market.coin_data import CoinData
from backtest.optimize.trial.coin_loops import SearchedStrategy
from backtest.optimize.trial.objective import Objective, WindowFacts, score_window
from backtest.optimize.trial.trial import WindowScore
from backtest.optimize.trial.windows import Plan, SharedPlan, Window
from core.records import dtype_of
from core.times import DAY_MS
from engine.compiled_run import CompiledRun

Floats = npt.NDArray[np.float64]


class Buffers(threading.local):
    """The large tables a run writes, one set per thread, used again by every run of the thread.

    Args:
        coin: whichever; the scratch of one suits all.
        how: the strategy is run.
        n_bars: of the coin that has most.
    """

    def __init__(self, coin: CoinRuns, how: SearchedStrategy, n_bars: int) -> None:
        self.scratch: Any = coin.loop.scratch(n_bars)
        self.log: Any = np.zeros(n_bars, dtype_of(how.loop.log_row))
        self.tape: Any = how.new_tape()


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
        how: the strategy is run.
        base: values of parameters that are not searched.
        plan: of all coins.
        objective: what scores a window.

    Raises:
        DataError: the candles cannot be used.
    """

    def __init__(
        self,
        data: CoinData,
        how: SearchedStrategy,
        base: Any,
        plan: SharedPlan,
        objective: Objective,
    ) -> None:
        self.how, self.rules, self._objective = how, data.rules, objective
        self.loop, self._bar_ms = how.coin(data, base), data.market.bar_ms
        times = np.array(self.loop.bars["ts_ms"])
        self.plan: Plan = plan.for_coin(times)
        # A candle that stands for a hole is that of every bar in it.
        self._day_ends = np.searchsorted(times, plan.day_ends_ms, "right") - 1

    @property
    def n_bars(self) -> int:
        """How many candles are walked."""
        return len(self.loop.bars)

    def evaluate(self, params: Any, buffers: Buffers) -> CoinScores:
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

    def train_scores(self, params: Any, buffers: Buffers, windows: int) -> list[WindowScore]:
        """Return the scores of the first ``windows`` trains; no later bar is run."""
        replay = _Replay(self, params, buffers)
        state = replay.fresh_state()
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

    def _score(self, replay: _Replay, state: Any, start: int, end: int) -> WindowScore:
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

    def __init__(self, coin: CoinRuns, params: Any, buffers: Buffers) -> None:
        self.initial, self._how = params.initial_capital, coin.how
        self.equity: Floats = buffers.log["equity"]
        self._frozen = coin.how.freeze(params)
        self._market = coin.rules.to_record(params.liquidation_fee)
        self._tape, self._log = buffers.tape, buffers.log
        self._tables = coin.loop.tables(params, buffers.scratch)

    def fresh_state(self) -> Any:
        """Return the state before the first step."""
        return self._how.new_state(self.initial)

    def advance(self, state: Any, start: int, end: int) -> None:
        """Do the steps ``[start, end)``; counters hold what a score needs of the records."""
        run = CompiledRun(
            self._how.loop, self._tables, self._frozen, self._market, state, self._tape, self._log
        )
        run.advance(start, end, keep_trades=False)
