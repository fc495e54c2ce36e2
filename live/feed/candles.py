"""The closed candles a live step decides on, without holes, and the signals computed from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from core.errors import DataError, GridError, NetworkError, ReplyError
from core.params import StrategyParams
from core.records import dtype_of
from core.signals import SignalArray, compute_indicators, compute_raw_regime, settle_regime
from core.times import DAY_MS
from core.warmup import bars_needed, mixture_bars
from live.exchange.port import Clock, MarketReader
from live.exchange.types import Candle, Candles

REFETCHES: Final = 5
REFETCH_WAIT_S: Final = 1.0
READY: Final = {"ready": True}
"""The signal where no indicators are read."""


def nothing() -> None:
    """Do nothing."""


class CandleSource(Protocol):
    """The past as a step reads it."""

    @property
    def first_bar(self) -> int:
        """The oldest bar there is; -1 before the first update."""
        ...

    def update(
        self, bar: int, meanwhile: Callable[[], None] = nothing, *, oldest: int = -1
    ) -> None:
        """Have every candle up to and including ``bar``, which has closed.

        ``meanwhile`` is called between tries, where a candle is late. ``oldest``: a bar whose
        candle is wanted however long ago it was; -1: none.
        """
        ...

    def signal(self, bar: int) -> Any:
        """Return the ``core.signals.Signal`` of ``bar``; of none, only that a step may be done."""
        ...

    def candle(self, bar: int) -> Candle:
        """Return the candle of ``bar``."""
        ...


class CandleBuffer:
    """Candles from a fixed first bar on, extended as bars close.

    The first bar stays where it is until the buffer is twice as long as needed, and is part of
    what is saved: a restart computes the same signals from the same candles.

    Args:
        reader: where candles come from.
        params: periods and switches; None: no indicators are read.
        clock: for waiting until a candle that is late can be read.
        least: candles, at least.
        bar_ms: length of a candle.
        first_bar: where the buffer begins; -1: as far back as is needed.
    """

    def __init__(
        self,
        reader: MarketReader,
        params: StrategyParams | None,
        clock: Clock,
        *,
        least: int,
        bar_ms: int,
        first_bar: int = -1,
    ) -> None:
        self._reader, self._params, self._clock = reader, params, clock
        self._bar_ms = bar_ms
        self._needed = least if params is None else bars_needed(params, least, bar_ms)
        self._first_bar = first_bar
        self._candles: Candles = np.zeros(0, dtype_of(Candle))
        self._signals: SignalArray | None = None
        self._raw_regime: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    @property
    def first_bar(self) -> int:
        """Where the buffer begins; -1 before the first update."""
        return self._first_bar

    def update(
        self, bar: int, meanwhile: Callable[[], None] = nothing, *, oldest: int = -1
    ) -> None:
        """Have every candle up to and including ``bar``.

        Args:
            bar: a bar that has closed.
            meanwhile: called between tries, where a candle is late.
            oldest: a bar whose candle is wanted however long ago it was; -1: none.

        Raises:
            DataError: candles are missing and stay so.
            GridError: the exchange could not be read.
        """
        if self._first_bar < 0 or bar - self._first_bar >= 2 * self._needed:
            self._restart(bar - self._needed + 1)
        if 0 <= oldest < self._first_bar:
            self._candles = self._candles[:0]
            self._restart(oldest)
        if self._last_bar() < bar:
            self._extend(bar, meanwhile)
            self._signals = None

    def _restart(self, first_bar: int) -> None:
        self._first_bar = first_bar
        kept = self._candles["ts_ms"] >= first_bar * self._bar_ms
        self._candles = self._candles[kept]
        self._signals = None
        self._raw_regime = self._raw_regime[:0]

    def _last_bar(self) -> int:
        if len(self._candles):
            return int(self._candles["ts_ms"][-1]) // self._bar_ms
        return self._first_bar - 1

    def _extend(self, bar: int, meanwhile: Callable[[], None]) -> None:
        """Read what is missing up to ``bar``, again while it is not there or cannot be read."""
        unread: GridError | None = None
        for attempt in range(REFETCHES + 1):
            if attempt:
                self._clock.sleep(REFETCH_WAIT_S * attempt)
                meanwhile()
            first = self._last_bar() + 1
            try:
                fresh = self._reader.closed_candles(first * self._bar_ms, (bar + 1) * self._bar_ms)
            except (NetworkError, ReplyError) as error:
                unread = error
                continue
            unread = None
            if len(fresh) and not len(self._candles):
                self._refuse_late_start(fresh)
                first = max(first, self._first_bar)
            grown = np.concatenate([self._candles, _unbroken(fresh, first, self._bar_ms)])
            self._candles = grown.view(dtype_of(Candle))  # an empty part makes it a plain table
            if self._last_bar() >= bar:
                return
        missing_ms = (self._last_bar() + 1) * self._bar_ms
        raise unread or DataError(
            f"the candle that opened at {missing_ms} ms cannot be read; it was asked for "
            f"{REFETCHES + 1} times"
        )

    def _refuse_late_start(self, candles: Candles) -> None:
        """Refuse a coin whose candles begin after the buffer does, where indicators need them."""
        first = int(candles["ts_ms"][0])
        if self._params is None:
            self._first_bar = max(self._first_bar, first // self._bar_ms)
        elif first > self._first_bar * self._bar_ms:
            days = math.ceil(self._needed * self._bar_ms / DAY_MS)
            raise DataError(
                f"the coin's candles begin {datetime.fromtimestamp(first / 1e3, UTC):%Y-%m-%d}, "
                f"and these parameters need {self._needed:,} of them ({days} days): wait, or lower "
                "regime_timeframe_mult or kama_slow"
            )

    def signal(self, bar: int) -> Any:
        """Return the signal of ``bar``, computed from the candles from ``first_bar`` to it."""
        if self._params is None:
            return READY
        if self._signals is None:
            self._signals = self._compute()
        return self._signals[bar - self._first_bar]

    def _compute(self) -> SignalArray:
        candles, params = self._candles, self._params
        assert params is not None  # noqa: S101 - see ``signal``
        signals, slope = compute_indicators(
            candles["ts_ms"],
            candles["high"],
            candles["low"],
            candles["close"],
            candles["volume"],
            params,
            bar_ms=self._bar_ms,
        )
        known, reach = len(self._raw_regime), mixture_bars(self._bar_ms)
        start = 0
        if params.use_ml_regime and known > reach:
            # A day's mixture sees the window before it and nothing else, and earlier answers
            # stand: only what is new, and the day it belongs to, is worked out.
            start = known - reach
        raw = compute_raw_regime(
            candles["ts_ms"][start:],
            candles["close"][start:],
            signals[start:],
            slope[start:],
            params,
            bar_ms=self._bar_ms,
        )
        self._raw_regime = np.concatenate([self._raw_regime[:known], raw[known - start :]])
        signals["regime"] = settle_regime(self._raw_regime, signals["adx"], params)
        return signals

    def candle(self, bar: int) -> Candle:
        """Return the candle of ``bar``."""
        row: Candle = self._candles[bar - self._first_bar]
        return row


def _unbroken(candles: Candles, first: int, bar_ms: int) -> Candles:
    """Return the candles from bar ``first`` on, up to where one is missing."""
    bars = candles["ts_ms"] // bar_ms
    expected = first + np.arange(len(candles))
    wrong = np.flatnonzero(bars != expected)
    return candles[: wrong[0]] if wrong.size else candles
