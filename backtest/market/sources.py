"""Where a backtest's market data comes from: the exchange, a folder, or the demo."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from backtest.market.demo import DEMO_END_MS, demo_market
from backtest.market.files import CandleFolder
from backtest.market.market_data import (
    MarketData,
    candle_table,
    funding_table,
    normalize_coin,
    slice_time,
)
from backtest.market.timeframes import format_time, timeframe_ms
from core.errors import ConfigError, DataError
from core.frames import foreign_symbol, read_candles
from core.times import MINUTE_MS

EXCHANGE: Final = "exchange"
DEMO: Final = "demo"
_DEMO_TIMEFRAME: Final = "15m"
_DEMO_DETAIL: Final = "1m"


NotRead = Callable[[Collection[str], Collection[str]], list[str]]
"""Answers, for coins and timeframes, with lines that name the files that are not read."""


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
        not_read: answers which files lie there and are not read; None: it has no files.
    """

    load: LoadMarket
    end_ms: int | None = None
    not_read: NotRead | None = None

    def latest_ms(self) -> int:
        """Return the instant no candle of this source is later than, ms."""
        return time.time_ns() // 1_000_000 if self.end_ms is None else self.end_ms


AnySource = MarketSource | Mapping[str, Any] | str | Path
"""Everything that may be named as a source, see ``market_source``."""


def market_source(source: AnySource, cache_dir: Path) -> MarketSource:
    """Return ``exchange``, ``demo``, a folder of candle files, or frames by coin, as a source.

    Args:
        source: one of these two words, the path of a folder, ``{coin: frame}`` as
            ``core.frames.read_candles`` takes them, or a source already.
        cache_dir: where downloads are kept.

    Raises:
        DataError: a coin's name cannot be read.
    """
    # Only now: the exchange's client is no part of what a made-up market or an audit loads.
    from backtest.market.fetch import fetch_market, load_market  # noqa: PLC0415

    if isinstance(source, MarketSource):
        return source
    if isinstance(source, Mapping):
        frames = {normalize_coin(coin): frame for coin, frame in source.items()}
        return MarketSource(functools.partial(_load_frame, frames=frames))
    if source == EXCHANGE:
        return MarketSource(functools.partial(fetch_market, cache_dir=cache_dir))
    if source == DEMO:
        return MarketSource(_load_demo, DEMO_END_MS)
    folder = Path(source)
    return MarketSource(
        functools.partial(load_market, data_dir=folder),
        not_read=functools.partial(_not_read, folder),
    )


def _not_read(folder: Path, coins: Collection[str], kinds: Collection[str]) -> list[str]:
    return CandleFolder(folder).not_read(coins, kinds)


def _load_frame(
    coin: str,
    start_ms: int,
    end_ms: int,
    *,
    timeframe: str,
    detail: str | None,
    frames: Mapping[str, Any],
) -> MarketData:
    if detail is not None:
        raise ConfigError(f"detail = {detail!r}: frames have no finer candles; use a folder")
    if coin not in frames:
        raise DataError(f"no frame of {coin}; there are: {', '.join(frames) or 'none'}")
    bar_ms = timeframe_ms(timeframe)
    foreign_symbol(frames[coin], f"candles of {coin}", coin)
    read = read_candles(frames[coin], f"candles of {coin}", bar_ms)
    candles = slice_time(candle_table(read.columns), start_ms, end_ms)
    if candles.empty:
        times = read.columns["timestamp"]
        raise DataError(
            f"candles of {coin}: nothing from {format_time(start_ms)} to {format_time(end_ms)}; "
            f"they are {format_time(int(times[0]))} to {format_time(int(times[-1]))}"
        )
    return MarketData(
        coin=coin,
        candles=candles,
        funding=slice_time(funding_table(read.rates), start_ms, end_ms + 1),
        detail=None,
        bar_ms=bar_ms,
        source="a frame",
        notices=read.notices,
    )


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
