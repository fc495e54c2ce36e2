"""The compiled loop over one coin's candles, for each strategy that can be searched.

All parameter sets of a search share the candles; a loop holds what they share and answers with what
one of them changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from backtest.market.coin_data import CoinData
from backtest.optimize.trial.shared_signals import SharedSignals
from backtest.optimize.trial.space import Space
from backtest.optimize.trial.windows import UNBOUNDED_HOLDING_HOURS, longest_purge
from core.params import StrategyParams
from core.records import dtype_of, freeze, zeros
from core.signals import Signal
from core.times import HOUR_MS
from engine.compiled_run import Loop
from engine.fixed_grid.frozen import freeze_params
from engine.fixed_grid.params import FixedGridParams
from engine.fixed_grid.strategy import FIXED_LOOP, FixedGridStrategy
from engine.fixed_grid.types import FixedTape, new_fixed_state
from engine.grid_v4.types import new_state
from engine.registry import FIXED_GRID, GRID_V4
from engine.strategy import LOOP
from engine.tables import RunTables, bar_table, funding_rows, settled_funding, sub_bar_tables
from engine.types import Tape


class CoinLoop(Protocol):
    """One coin's candles, and what a parameter set makes of them. Threads may share it.

    Attributes:
        bars: walked candles, a table of ``Bar``, shape (n_bars,).
    """

    bars: Any

    def scratch(self, n_bars: int) -> Any:
        """Return what ``tables`` writes into, for coins of at most ``n_bars``; one per thread."""
        ...

    def tables(self, params: Any, scratch: Any) -> RunTables:
        """Return what a run with ``params`` reads."""
        ...


class GridLoop:
    """GridStrategyV4: candles, funding and finer candles are shared, signals as far as they can be.

    Args:
        data: the candles.
        base: values of parameters that are not searched.

    Raises:
        DataError: the candles cannot be used.
    """

    def __init__(self, data: CoinData, base: StrategyParams) -> None:
        bar_ms = data.market.bar_ms
        self.bars: Any = bar_table(data.market.candles)
        self._schedule = settled_funding(self.bars, data.market.funding, bar_ms)
        self._funding = funding_rows(self._schedule)
        self._sub_bars = sub_bar_tables(self.bars, data.market.detail, bar_ms)
        self._signals = SharedSignals(data.market, base)

    def scratch(self, n_bars: int) -> Any:
        """Return a table of signals, shape (n_bars,)."""
        return np.zeros(n_bars, dtype_of(Signal))

    def tables(self, params: StrategyParams, scratch: Any) -> RunTables:
        """Return what a run with ``params`` reads; its signals lie in ``scratch``."""
        signals = scratch[: len(self.bars)]
        self._signals.write(params, signals)
        return RunTables(
            self.bars, signals, self._funding, self._schedule.source, *self._sub_bars, first_bar=0
        )


class FixedLoop:
    """The fixed grid: it reads no indicators, so all parameter sets read the same tables.

    Args:
        data: the candles, as long as a step or finer.
        base: values of parameters that are not searched, the step among them.

    Raises:
        DataError: the candles cannot be used.
    """

    def __init__(self, data: CoinData, base: FixedGridParams) -> None:
        market = data.market
        strategy = FixedGridStrategy(base, data.rules)
        self._tables = strategy.tables(market.candles, settled=market.funding)
        self.bars: Any = self._tables.bars

    def scratch(self, n_bars: int) -> None:
        """Return nothing: nothing is written."""

    def tables(self, params: FixedGridParams, scratch: Any) -> RunTables:  # noqa: ARG002
        """Return what every run reads."""
        return self._tables


@dataclass(frozen=True)
class SearchedStrategy:
    """A strategy as trials run it.

    Attributes:
        coin: prepares one coin's candles.
        loop: the kernels.
        freeze: parameters as kernels read them.
        new_state: the state before the first step, from the capital in quote.
        tape: class of the output of a step.
        purge: bars between a train window and its test, from the parameters, the space and the
            length of a bar.
    """

    coin: Callable[[CoinData, Any], CoinLoop]
    loop: Loop
    freeze: Callable[[Any], Any]
    new_state: Callable[[float], Any]
    tape: type[Any]
    purge: Callable[[Any, Space, int], int]

    def new_tape(self) -> Any:
        """Return an empty tape."""
        return zeros(self.tape)


def _holding_purge(params: Any, space: Space, bar_ms: int) -> int:  # noqa: ARG001
    """Return the longest holding time counted with, in bars: nothing is remembered besides."""
    return math.ceil(UNBOUNDED_HOLDING_HOURS * HOUR_MS / bar_ms)


SEARCHED: Final[Mapping[str, SearchedStrategy]] = {
    GRID_V4.name: SearchedStrategy(GridLoop, LOOP, freeze, new_state, Tape, longest_purge),
    FIXED_GRID.name: SearchedStrategy(
        FixedLoop, FIXED_LOOP, freeze_params, new_fixed_state, FixedTape, _holding_purge
    ),
}
"""By name of the strategy."""
