"""Settled funding rates of one symbol, as far as a step may know them."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from core.funding import HOLE_MS, last_known_rates
from core.times import HOUR_MS, MINUTE_MS
from live.exchange.port import MarketReader

LATE_MS: Final = 20 * MINUTE_MS
"""So long after a whole hour a settlement may still turn up."""


class FundingRates:
    """Reads settlements as time goes on.

    Args:
        reader: where they come from.
    """

    def __init__(self, reader: MarketReader) -> None:
        self._reader = reader
        self._asked_ms = 0
        self._times: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._rates: npt.NDArray[np.float64] = np.zeros(0)

    def update(self, now_ms: int) -> None:
        """Have every settlement of the last day up to ``now_ms``; they fall on whole hours.

        Raises:
            GridError: the exchange could not be read.
        """
        if now_ms % HOUR_MS >= LATE_MS and now_ms - self._asked_ms < HOUR_MS:
            return
        since = now_ms - HOLE_MS
        if self._times.size:
            since = max(since, int(self._times[-1]) + MINUTE_MS)
        if since > now_ms:
            return
        settled = self._reader.funding_rates(since, now_ms)
        self._asked_ms = now_ms
        times = np.array([time // MINUTE_MS * MINUTE_MS for time, _ in settled], np.int64)
        fresh = times > (self._times[-1] if self._times.size else -1)
        rates = np.array([rate for _, rate in settled])[fresh] if settled else np.zeros(0)
        self._times = np.concatenate([self._times, times[fresh]])
        self._rates = np.concatenate([self._rates, rates])

    def known(self, at_ms: int) -> float:
        """Return the last rate settled at or before ``at_ms``, 0 if older than a day."""
        return float(last_known_rates(np.array([at_ms]), self._times, self._rates)[0])

    def settled(self, at_ms: int) -> float:
        """Return the rate settled in the minute of ``at_ms``, NaN if none is known."""
        found = np.flatnonzero(self._times == at_ms // MINUTE_MS * MINUTE_MS)
        return float(self._rates[found[-1]]) if found.size else float("nan")

    def newest_ms(self) -> int:
        """Return when the newest settlement was, ms UTC, 0 if none is known."""
        return int(self._times[-1]) if self._times.size else 0

    def due(self, after_ms: int, until_ms: int) -> float:
        """Return the sum of the rates settled in ``(after_ms, until_ms]``."""
        inside = (self._times > after_ms) & (self._times <= until_ms)
        return float(np.sum(self._rates[inside]))
