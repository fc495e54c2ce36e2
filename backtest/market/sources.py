"""Where a backtest's market data comes from: the exchange, a folder, or the demo."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from backtest.data_fetcher import fetch_market, load_market
from backtest.market.demo import DEMO_END_MS, demo_market
from backtest.market.market_data import MarketData
from core.errors import ConfigError, DataError
from core.times import MINUTE_MS

EXCHANGE: Final = "exchange"
DEMO: Final = "demo"
_DEMO_TIMEFRAME: Final = "15m"
_DEMO_DETAIL: Final = "1m"


class LoadMarket(Protocol):
    """How market data is asked for."""

    def __call__(
        self, coin: str, start_ms: int, end_ms: int, /, *, timeframe: str, detail: str | None
    ) -> MarketData:
        """Return a coin's data of ``[start_ms, end_ms)``; raise GridError where there is none."""
        ...


@dataclass(frozen=True)
class MarketSource:
    """One place candles come from.

    Attributes:
        load: answers with a coin's data.
        end_ms: where its data ends at the latest, ms; None: now.
    """

    load: LoadMarket
    end_ms: int | None = None

    def latest_ms(self) -> int:
        """Return the instant no candle of this source is later than, ms."""
        return time.time_ns() // 1_000_000 if self.end_ms is None else self.end_ms


def market_source(source: MarketSource | str | Path, cache_dir: Path) -> MarketSource:
    """Return ``exchange``, ``demo``, or a folder of candle files, as a source.

    Args:
        source: one of these two words, the path of a folder, or a source already.
        cache_dir: where downloads are kept.
    """
    if isinstance(source, MarketSource):
        return source
    if source == EXCHANGE:
        return MarketSource(functools.partial(fetch_market, cache_dir=cache_dir))
    if source == DEMO:
        return MarketSource(_load_demo, DEMO_END_MS)
    return MarketSource(functools.partial(load_market, data_dir=Path(source)))


def _load_demo(
    coin: str, start_ms: int, end_ms: int, *, timeframe: str, detail: str | None
) -> MarketData:
    if timeframe == _DEMO_DETAIL and detail is None:
        return _minutes_alone(demo_market(coin, start_ms, end_ms, detail=True))
    if timeframe != _DEMO_TIMEFRAME or detail not in {None, _DEMO_DETAIL}:
        raise ConfigError(
            f"the demo has candles of {_DEMO_TIMEFRAME} and details of {_DEMO_DETAIL} only, "
            f"not timeframe = {timeframe!r} with detail = {detail!r}"
        )
    return demo_market(coin, start_ms, end_ms, detail=detail is not None)


def _minutes_alone(market: MarketData) -> MarketData:
    """Return the demo's minutes as candles of their own."""
    if market.detail is None:
        raise DataError(f"the demo has no minutes of {market.coin}")
    return replace(market, candles=market.detail, detail=None, bar_ms=MINUTE_MS)
