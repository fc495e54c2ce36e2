"""A dry run over recorded candles at full speed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import DataError
from core.funding import merge_settlements
from core.params import StrategyParams
from core.records import dtype_of
from core.signals import compute_signals
from core.times import BAR_MS
from engine.contract import CLOSE_END, CloseAll
from live.exchange.types import Candle, Candles, MarketFacts
from live.execution.books import LiveSession
from live.execution.paper_broker import PaperBroker
from live.feed.candles import nothing
from live.session.runner import LiveRunner


class ReplayClock:
    """Time as the candles tell it."""

    def __init__(self) -> None:
        self.time_ms = 0

    def now_ms(self) -> int:
        """Return the time, ms UTC."""
        return self.time_ms

    def sleep(self, seconds: float) -> None:
        """Let time go on at once."""
        self.time_ms += round(1e3 * seconds)


class RecordedMarket:
    """Recorded candles and settlements as a source of candles, signals and public data.

    Args:
        candles: without a hole, (n_bars,).
        settlements: times of funding, ms UTC, (n,).
        rates: its rates, (n,); holes are filled by the model, as in a backtest.
        params: periods and switches.
        facts: rules of the symbol.

    Raises:
        DataError: there is a hole in the candles.
    """

    def __init__(
        self,
        candles: Candles,
        settlements: npt.NDArray[np.int64],
        rates: npt.NDArray[np.float64],
        params: StrategyParams,
        facts: MarketFacts,
    ) -> None:
        times = np.array(candles["ts_ms"])
        holes = np.flatnonzero(np.diff(times) != BAR_MS)
        if holes.size:
            raise DataError(
                f"candles are missing after the one that opened at {int(times[holes[0]])} ms; a "
                "replay needs them without a hole: choose --start and --end around it"
            )
        self._candles, self._facts = candles, facts
        self._first = int(times[0]) // BAR_MS
        self._signals = compute_signals(
            times, candles["high"], candles["low"], candles["close"], candles["volume"], params
        )
        self._times, self._rates, _ = merge_settlements(
            times, np.array(candles["close"]), settlements, rates
        )

    @property
    def first_bar(self) -> int:
        """The oldest bar there is."""
        return self._first

    @property
    def bars(self) -> range:
        """Indices of the candles."""
        return range(self._first, self._first + len(self._candles))

    def update(self, bar: int, meanwhile: Callable[[], None] = nothing) -> None:
        """Nothing: every candle is there."""

    def signal(self, bar: int) -> Any:
        """Return the signal of ``bar``; it depends on nothing later."""
        return self._signals[bar - self._first]

    def candle(self, bar: int) -> Candle:
        """Return the candle of ``bar``."""
        row: Candle = self._candles[bar - self._first]
        return row

    def read_market(self) -> MarketFacts:
        """Return the rules the replay was given."""
        return self._facts

    def closed_candles(self, start_ms: int, end_ms: int) -> Candles:
        """Return the candles that opened in ``[start_ms, end_ms)``."""
        first, last = np.searchsorted(self._candles["ts_ms"], [start_ms, end_ms])
        return self._candles[int(first) : int(last)]

    def opening_price(self, open_ms: int) -> float:
        """Return the open of the candle that opened at ``open_ms``."""
        return float(self.candle(open_ms // BAR_MS).open)

    def last_price(self) -> float:
        """Return the last close there is."""
        return float(self._candles["close"][-1])

    def funding_rates(self, start_ms: int, end_ms: int) -> list[tuple[int, float]]:
        """Return (time ms, rate) settled in ``[start_ms, end_ms]``."""
        inside = (self._times >= start_ms) & (self._times <= end_ms)
        times, rates = self._times[inside].tolist(), self._rates[inside].tolist()
        return list(zip(times, rates, strict=True))


def candle_table(columns: Any) -> Candles:
    """Return a table of ``Candle`` from columns timestamp, open, high, low, close, volume."""
    table = np.zeros(len(columns["timestamp"]), dtype_of(Candle))
    table["ts_ms"] = columns["timestamp"]
    for name in ("open", "high", "low", "close", "volume"):
        table[name] = columns[name]
    return table


def replay(
    runner: LiveRunner,
    broker: PaperBroker,
    session: LiveSession,
    clock: ReplayClock,
    bars: Iterable[int],
) -> None:
    """Run a session's steps over ``bars`` and close what is open at the last close.

    Args:
        runner: of the session, with the recorded market and this clock.
        broker: the runner's.
        session: the runner's.
        clock: moved on.
        bars: indices of successive candles.
    """
    bar = -1
    for bar in bars:
        clock.time_ms = bar * BAR_MS
        runner.step(bar)
    if bar < 0:
        return
    clock.time_ms = (bar + 1) * BAR_MS
    runner.settle(bar + 1)
    session.strategy.simulate(CloseAll(broker.last_close(bar), CLOSE_END))
    session.collect()
    session.save()
