"""Market data for scripts: one call that answers with a table."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import pandas as pd

from backtest.market import fetch
from backtest.market.fetch import fetch_market, load_market
from backtest.market.market_data import MarketData, normalize_coin
from backtest.market.oddities import price_oddities
from backtest.market.timeframes import format_time, parse_time
from config import BACKTEST_CONFIG

__all__ = ["fetch_data", "fetch_market", "load_market", "normalize_coin"]

_log: Final = logging.getLogger(__name__)


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
        settled at that bar's open, NaN where none was. Finished candles only. Holes, odd prices and
        former names are logged as warnings.

    Raises:
        ConfigError: a date or the timeframe cannot be read.
        DataError: the coin is unknown or there is nothing in the range.
        NetworkError: the exchange cannot be reached and the cache has not everything.
    """
    now_ms = fetch.present_ms()
    market = fetch_market(
        symbol,
        parse_time(start, "start"),
        parse_time(end, "end") if end else now_ms,
        timeframe=timeframe,
        cache_dir=Path(str(BACKTEST_CONFIG["cache_dir"])),
        now_ms=now_ms,
    )
    for text in [*market.notices, *price_oddities(market), *_gaps(market)]:
        _log.warning("%s", text)
    rates = market.funding.rename(columns={"rate": "fundingRate"})
    return market.candles.merge(rates, on="timestamp", how="left")


def _gaps(market: MarketData) -> list[str]:
    """Return where candles are missing between others, one line each."""
    return [
        f"{market.coin}: {bars} {'candle is' if bars == 1 else 'candles are'} missing from "
        f"{format_time(first)} to {format_time(last)}"
        for first, last, bars in market.gaps
    ]
