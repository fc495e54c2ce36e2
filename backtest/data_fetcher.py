"""Market data for a backtest: from the exchange through the cache, or from a person's files."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pandas as pd

from backtest.candle_cache import SeriesCache
from backtest.candle_files import CandleFolder
from backtest.exchange_history import FUNDING_STEP_MS, BinanceHistory
from backtest.exchange_rest import market_rules
from backtest.market_data import (
    MarketData,
    check_candles,
    check_funding,
    empty_candles,
    empty_funding,
    normalize_coin,
    slice_time,
)
from backtest.timeframes import format_time, parse_time, timeframe_ms
from config import BACKTEST_CONFIG
from core.errors import ConfigError, DataError, NetworkError

__all__ = ["fetch_data", "fetch_market", "load_market", "normalize_coin"]

_log: Final = logging.getLogger(__name__)
_BAR_DELAY_SECONDS: Final = 1.0


def fetch_data(
    symbol: str, timeframe: str = "15m", start: str = "2024-01-01", end: str | None = None
) -> pd.DataFrame:
    """Return candles and funding rates of a USDT-margined perpetual as one table.

    Args:
        symbol: ``BTC``, ``BTC/USDT``, ``BTC/USDT:USDT`` or ``BTCUSDT``.
        timeframe: length of a candle, ``15m``.
        start: UTC date or time of the first candle.
        end: UTC date or time where the candles end, exclusive; None is now.

    Returns:
        ``timestamp`` (open time, ms UTC) ``open high low close volume fundingRate``: the rate
        settled at that bar's open, NaN where none was. Finished candles only.

    Raises:
        ConfigError: a date or the timeframe cannot be read.
        DataError: the coin is unknown or there is nothing in the range.
        NetworkError: the exchange cannot be reached and the cache has not everything.
    """
    now_ms = _now_ms()
    market = fetch_market(
        symbol,
        parse_time(start, "start"),
        parse_time(end, "end") if end else now_ms,
        timeframe=timeframe,
        cache_dir=Path(str(BACKTEST_CONFIG["cache_dir"])),
        now_ms=now_ms,
    )
    rates = market.funding.rename(columns={"rate": "fundingRate"})
    return market.candles.merge(rates, on="timestamp", how="left")


def fetch_market(
    coin: str,
    start_ms: int,
    end_ms: int,
    *,
    timeframe: str,
    cache_dir: Path,
    detail: str | None = None,
    now_ms: int | None = None,
    progress: bool | None = None,
    history: BinanceHistory | None = None,
) -> MarketData:
    """Return the exchange's data of ``[start_ms, end_ms)``; only what the cache lacks is fetched.

    Args:
        coin: any spelling ``normalize_coin`` takes.
        start_ms: earliest open time.
        end_ms: end, exclusive for candles, inclusive for settlements (they meet the last bar).
        timeframe: length of a candle.
        cache_dir: folder of the cache.
        detail: length of finer candles to load too, or None.
        now_ms: the present; candles not finished by then are left out.
        progress: show a bar on standard error; None: on a terminal.
        history: the exchange; None is the one on the Internet.

    Raises:
        ConfigError: the range or a timeframe is impossible.
        DataError: the coin is unknown, there is nothing in the range, or it cannot be believed.
        NetworkError: the exchange cannot be reached and the cache has not everything.
    """
