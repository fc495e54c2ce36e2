"""The exchange's past: the archive for long ranges, REST for the rest."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from typing import Final

import numpy as np
import pandas as pd

from backtest.market.archive import BinanceArchive, complete_until
from backtest.market.cache import Ranges, holes
from backtest.market.market_data import QUOTE
from backtest.market.rest import BinanceRest
from backtest.market.timeframes import timeframe_ms
from core.errors import NetworkError
from core.times import HOUR_MS

FUNDING_STEP_MS: Final = 8 * HOUR_MS
"""Longest regular distance of settlements."""

_log: Final = logging.getLogger(__name__)
_SHORT_ROWS: Final = 2_000
"""Up to so many candles the REST interface is quicker than the archive."""


class BinanceHistory:
    """Candles and funding rates of USDT-margined perpetuals, wherever they are soonest had."""

    def __init__(
        self, rest: BinanceRest | None = None, archive: BinanceArchive | None = None
    ) -> None:
        """Join the two sources; by default those on the Internet."""
        self.rest = rest or BinanceRest()
        self._archive = archive or BinanceArchive()
        self._archive_works = True
        self._delisted: set[str] = set()

    def take_from_archive(
        self, coin: str, timeframe: str, span_ms: tuple[int, int], *, now_ms: int
    ) -> bool:
        """Take a coin that the exchange lists no more from the archive alone.

        Args:
            coin: base coin.
            timeframe: length of a candle.
            span_ms: first instant and end, ms UTC.
            now_ms: the present.

        Returns:
            whether the archive has any of its candles in ``span_ms``.

        Raises:
            DataError: a file does not match its checksum.
            NetworkError: the archive cannot be reached.
        """
        tables = self._archive.candles(
            coin + QUOTE, timeframe, *span_ms, now_ms=self._present(now_ms), alone=True
        )
        if next(tables, None) is None:
            return False
        self._delisted.add(coin)
        return True

    def final_ms(self, coin: str, now_ms: int) -> int | None:
        """Return the instant before which the archive is complete, of a coin that only it has."""
        return complete_until(now_ms) if coin in self._delisted else None

    def now_ms(self) -> int:
        """Return the exchange's time, ms UTC; what is finished by it may be kept.

        Raises:
            NetworkError: the exchange cannot be reached.
        """
        return self.rest.server_ms()

    def candles(
        self, coin: str, timeframe: str, start_ms: int, end_ms: int, *, now_ms: int
    ) -> Iterator[pd.DataFrame]:
        """Yield tables that together hold the candles of ``[start_ms, end_ms)`` that have closed.

        The exchange's clock decides that, and which months the archive has finished: ``now_ms``
        counts only where it is earlier.

        Raises:
            DataError: an archive file does not match its checksum, or the coin is unknown.
            NetworkError: the exchange cannot be reached.
        """
        symbol, bar_ms = coin + QUOTE, timeframe_ms(timeframe)
        now_ms = self._present(now_ms)
        alone = coin in self._delisted
        tables = self._archive.candles(
            symbol, timeframe, start_ms, end_ms, now_ms=now_ms, alone=alone
        )
        if alone:
            yield from tables
            return
        for first, last in (yield from self._archived(tables, start_ms, end_ms, bar_ms)):
            yield from self.rest.candles(symbol, timeframe, first, last)

    def funding(
        self, coin: str, start_ms: int, end_ms: int, *, now_ms: int
    ) -> Iterator[pd.DataFrame]:
        """Yield tables that hold the rates settled in ``[start_ms, end_ms)``; errors likewise."""
        symbol = coin + QUOTE
        now_ms = self._present(now_ms)
        tables = self._archive.funding(symbol, start_ms, end_ms, now_ms=now_ms)
        if coin in self._delisted:
            yield from tables
            return
        for first, last in (yield from self._archived(tables, start_ms, end_ms, FUNDING_STEP_MS)):
            yield from self.rest.funding(symbol, first, last)

    def _present(self, now_ms: int) -> int:
        """Return the earlier of ``now_ms`` and the exchange's time.

        Where the exchange is out of reach (it is blocked in some countries, its archive is not)
        ``now_ms`` must do: the archive holds finished candles only, whatever this clock says.
        """
        try:
            return min(now_ms, self.now_ms())
        except NetworkError as error:
            _log.info("the exchange's time is not known: %s", error)
            return now_ms

    def _archived(
        self, tables: Iterator[pd.DataFrame], start_ms: int, end_ms: int, step_ms: int
    ) -> Generator[pd.DataFrame, None, Ranges]:
        """Yield the archive's part of a long range and return the ranges it leaves open."""
        times = [np.empty(0, np.int64)]
        if self._archive_works and end_ms - start_ms > _SHORT_ROWS * step_ms:
            try:
                for table in tables:
                    times.append(table["timestamp"].to_numpy())
                    yield table
            except NetworkError as error:
                _log.warning("archive not used: %s", error)
                self._archive_works = False
        return holes(np.concatenate(times), start_ms, end_ms, step_ms)
