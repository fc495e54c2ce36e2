"""From coins and dates to what a search needs: data without the holdout, a plan, a judgement."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from backtest.market.coin_data import CoinData
from backtest.market.timeframes import format_time
from backtest.optimize.trial.coin_loops import SEARCHED
from backtest.optimize.trial.coin_runs import Buffers, CoinRuns, CoinScores
from backtest.optimize.trial.objective import DEFAULT_OBJECTIVE, WORST_SCORE, read_objective
from backtest.optimize.trial.range_runs import RangeRun, run_range
from backtest.optimize.trial.space import Space
from backtest.optimize.trial.trial import TrialOutcome, WindowScore
from backtest.optimize.trial.windows import (
    DEFAULT_HOLDOUT,
    DEFAULT_WINDOWS,
    SharedPlan,
    plan_shared,
)
from backtest.runs.strategies import Backtested
from backtest.runs.variants import cut_window
from backtest.simulator import BacktestSimulator
from core.errors import ConfigError, DataError
from core.params import read_value
from core.performance import bar_returns

T = TypeVar("T")
Coins = Mapping[str, CoinData]
_NOTABLE_SHARE: Final = 0.01
"""Of a coin's bars, outside the range all coins share, that a reader must know of."""


class Holdout:
    """The bars set aside, which can be taken once: what is looked at twice is tuned on.

    Attributes:
        reads: how often they were asked for.
    """

    def __init__(self, data: Coins) -> None:
        self._data = data
        self.reads = 0

    def take(self) -> Coins:
        """Return every coin's data of the holdout, with the bars before it that warm it up.

        Raises:
            DataError: they were taken before, or there are none.
        """
        self.reads += 1
        if self.reads > 1:
            raise DataError(
                f"the holdout was asked for {self.reads} times and may be read once: a result "
                "chosen after looking at it says nothing; keep what the first reading answered"
            )
        return self._all()

    def disguised(self, disguise: Callable[[Coins], T]) -> T:
        """Return what ``disguise`` makes of every coin's data; that is no reading of it.

        For permutations of the bars: of the real ones' direction nothing may be left in it.

        Raises:
            DataError: there are none.
        """
        return disguise(self._all())

    def _all(self) -> Coins:
        if not self._data:
            raise DataError("holdout = 0 sets no bars aside, so none can be read; must be above 0")
        return self._data


class Prepared:
    """Everything a search needs, loaded and cut; the same for all of its trials.

    Args:
        data: by coin, none of the holdout in it.
        holdout: the rest.
        how: the strategy is backtested.
        params: values of parameters that are not drawn.
        plan: of all coins.
        objective: name of what is maximised.
        data_hash: of all that was loaded.
        notices: what a reader must know about the data.

    Raises:
        ConfigError: the objective is unknown.
        DataError: candles cannot be used.
    """

    def __init__(
        self,
        data: Coins,
        holdout: Holdout,
        how: Backtested,
        params: Any,
        plan: SharedPlan,
        *,
        objective: str,
        data_hash: str,
        notices: Sequence[str] = (),
    ) -> None:
        self.data, self.holdout, self.params, self.plan = data, holdout, params, plan
        self.how, self._searched = how, SEARCHED[how.spec.name]
        self.objective, self.data_hash, self.notices = objective, data_hash, tuple(notices)
        self._runs = {coin: self._coin_runs(item) for coin, item in data.items()}
        most = max(runs.n_bars for runs in self._runs.values())
        self._buffers = Buffers(next(iter(self._runs.values())), self._searched, most)

    def _coin_runs(self, data: CoinData) -> CoinRuns:
        objective = read_objective(self.objective)
        return CoinRuns(data, self._searched, self.params, self.plan, objective)

    @property
    def coins(self) -> tuple[str, ...]:
        """The coins, in the order given."""
        return tuple(self.data)

    def evaluate(self, drawn: Mapping[str, Any]) -> TrialOutcome:
        """Return what the values ``drawn`` come to; safe to call from several threads.

        Values that contradict each other, which single bounds cannot rule out, come to
        ``WORST_SCORE`` with the contradiction as note.

        Raises:
            ConfigError: a name is no parameter, or a value out of its range.
        """
        params = self._read(drawn)
        try:
            params.check_relations()
        except ConfigError as error:
            return self._impossible(str(error))
        scores = {coin: runs.evaluate(params, self._buffers) for coin, runs in self._runs.items()}
        return TrialOutcome(
            score=min(window.score for item in scores.values() for window in item.train),
            train={coin: item.train for coin, item in scores.items()},
            test={coin: item.test for coin, item in scores.items()},
            daily_returns=_portfolio_returns(scores, params.initial_capital),
        )

    def train_score(self, drawn: Mapping[str, Any], windows: int) -> float:
        """Return the lowest train score of all coins and the first ``windows`` windows.

        No bar after the last of these trains is run; safe to call from several threads. Of values
        that contradict each other it is ``WORST_SCORE``.
        """
        params = self._read(drawn)
        try:
            params.check_relations()
        except ConfigError:
            return WORST_SCORE
        return min(
            row.score
            for runs in self._runs.values()
            for row in runs.train_scores(params, self._buffers, windows)
        )

    def evaluate_range(
        self,
        drawn: Mapping[str, Any],
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
        data: Coins | None = None,
    ) -> dict[str, RangeRun]:
        """Return every coin's backtest of a range under the values ``drawn``.

        Args:
            drawn: as in ``evaluate``.
            start_ms: open of the first bar traded, ms UTC; None: where the data begins to trade.
            end_ms: exclusive; None: to the end of the data.
            data: by coin, what ``Holdout.take`` or ``range_runs.with_candles`` answered; None:
                everything before the holdout.

        Raises:
            ConfigError: as ``evaluate``, or the values contradict each other.
            DataError: a coin has no bars in the range.
        """
        params = self._read(drawn)
        params.check_relations()
        return {
            coin: run_range(item, self.how, params, start_ms, end_ms)
            for coin, item in (self.data if data is None else data).items()
        }

    def _read(self, drawn: Mapping[str, Any]) -> Any:
        declared = type(self.params)
        values = {key: read_value(key, value, declared) for key, value in drawn.items()}
        return replace(self.params, **values)

    def _impossible(self, why: str) -> TrialOutcome:
        row = WindowScore(WORST_SCORE, math.nan, math.nan, math.nan, math.nan, 0, why)
        n_windows, n_days = len(self.plan.plan.windows), self.plan.days_ms.size
        return TrialOutcome(
            score=WORST_SCORE,
            train={coin: [row] * n_windows for coin in self.data},
            test={coin: [row] * n_windows for coin in self.data},
            daily_returns=np.zeros(n_days),
            note=why,
        )


def _portfolio_returns(scores: Mapping[str, CoinScores], initial: float) -> npt.NDArray[np.float64]:
    equity = np.sum([item.day_equity for item in scores.values()], axis=0)
    return bar_returns(equity, initial * len(scores))


def prepare(
    simulator: BacktestSimulator,
    space: Space,
    *,
    coins: Sequence[str] | None = None,
    start: str | None = None,
    end: str | None = None,
    windows: int = DEFAULT_WINDOWS,
    holdout: float = DEFAULT_HOLDOUT,
    objective: str = DEFAULT_OBJECTIVE,
) -> Prepared:
    """Load the coins, plan the windows on the bars they share, and set the holdout aside.

    Args:
        simulator: its source, settings and parameters; the parameters are the values of what
            is not searched.
        space: what is searched; the purge suits its largest values.
        coins: in any spelling; None: from the settings.
        start: as in ``BacktestSimulator.run_single``.
        end: likewise.
        windows: of the walk-forward.
        holdout: share of the traded bars set aside at the end.
        objective: name of what is maximised.

    Raises:
        ConfigError: a date, ``windows``, ``holdout`` or the objective is impossible.
        DataError: candles are missing, unusable or too few; says how many windows are possible.
        NetworkError: the exchange cannot be reached.
    """
    read_objective(objective)
    simulator.how.load()
    loaded = {coin: simulator.load(coin, start, end) for coin in simulator.coin_names(coins)}
    times = {
        coin: item.market.candles["timestamp"].to_numpy()[item.first_bar :]
        for coin, item in loaded.items()
    }
    searched_as = SEARCHED[simulator.spec.name]
    purge = searched_as.purge(simulator.params, space, simulator.bar_ms)
    plan = plan_shared(times, simulator.bar_ms, windows, holdout, purge)
    warmup = simulator.settings["warmup_bars"]
    searched = _cut(loaded, plan.start_ms, plan.holdout_ms, warmup)
    aside = _cut(loaded, plan.holdout_ms, plan.end_ms, warmup) if holdout else {}
    return Prepared(
        searched,
        Holdout(aside),
        simulator.how,
        simulator.params,
        plan,
        objective=objective,
        data_hash=combined_hash(loaded),
        notices=[*_notices(loaded, times, plan), *simulator.not_read(list(loaded))],
    )


def combined_hash(data: Coins) -> str:
    """Return the first 16 hex digits of the SHA-256 of all coins' data hashes, in any order."""
    lines = sorted(f"{coin}:{item.market.data_hash}" for coin, item in data.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _cut(data: Coins, start_ms: int, end_ms: int, warmup_bars: int) -> dict[str, CoinData]:
    return {
        coin: cut_window(item.market, item.rules, start_ms, end_ms, warmup_bars)
        for coin, item in data.items()
    }


def _notices(
    loaded: Coins, times: Mapping[str, npt.NDArray[np.int64]], plan: SharedPlan
) -> list[str]:
    """Return what the coins' own data says, and whose bars are left out."""
    notices = [text for item in loaded.values() for text in item.notices]
    for coin, own in times.items():
        outside = int(np.sum((own < plan.start_ms) | (own >= plan.end_ms)))
        if outside > _NOTABLE_SHARE * len(own):
            notices.append(
                f"{coin}: {outside} of its {len(own)} bars are left out: not every coin has "
                f"candles before {format_time(plan.start_ms)} or from {format_time(plan.end_ms)} on"
            )
    return notices
