"""Market data of a range: from the exchange through the cache, or from a person's files."""

from __future__ import annotations

import functools
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd
from tqdm import tqdm  # type: ignore[import-untyped]  # no stubs installed

from backtest.market.cache import Download, Ranges, SeriesCache
from backtest.market.files import CandleFolder
from backtest.market.history import FUNDING_STEP_MS, BinanceHistory
from backtest.market.market_data import (
    MarketData,
    empty_candles,
    empty_funding,
    normalize_coin,
    slice_time,
)
from backtest.market.renames import called_before, now_called
from backtest.market.rest import market_rules
from backtest.market.timeframes import format_time, timeframe_ms
from core.errors import ConfigError, DataError, NetworkError
from core.frames import check_candles, check_funding
from core.times import MINUTE_MS

_log: Final = logging.getLogger(__name__)
EXCHANGE_SOURCE: Final = "Binance archive + REST"
_BAR_DELAY_SECONDS: Final = 1.0


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
    coin, bar_ms = normalize_coin(coin), timeframe_ms(timeframe)
    now_ms = present_ms() if now_ms is None else now_ms
    start_ms, end_ms = _whole_bars(start_ms, min(end_ms, now_ms), bar_ms)
    history = history or BinanceHistory()
    frames = [timeframe, *([detail] if detail is not None else [])]
    wanted = _series(coin, frames, cache_dir, history, (start_ms, end_ms), now_ms)
    if any(series.missing() for series in wanted):
        now_ms = _exchange_ms(history, now_ms)
        start_ms, end_ms = _whole_bars(start_ms, min(end_ms, now_ms), bar_ms)
        wanted = _series(coin, frames, cache_dir, history, (start_ms, end_ms), now_ms)
    rules, is_listed = None, True
    try:
        rules = _rules(coin, cache_dir, history, wanted)
    except DataError as error:
        found = all(not series.missing() for series in wanted) or history.take_from_archive(
            coin, timeframe, (start_ms, end_ms), now_ms=now_ms
        )
        if not found:
            raise DataError(f"{error}{now_called(coin)}") from None
        is_listed = False
    final_ms = history.final_ms(coin, now_ms)
    _complete(wanted, coin, now_ms, final_ms, progress=progress)
    rows = [series.rows() for series in wanted]
    if rows[0].empty:
        earlier = called_before(coin, _flag(end_ms))
        raise DataError(
            f"the exchange has no {timeframe} candles of {coin} from {format_time(start_ms)} "
            f"to {format_time(end_ms)}{'; ' if earlier else ''}{earlier}"
        )
    return MarketData(
        coin=coin,
        candles=rows[0],
        funding=rows[-1],
        detail=None if detail is None else rows[1],
        bar_ms=bar_ms,
        source=EXCHANGE_SOURCE,
        rules=rules,
        notices=_named(coin, rows[0], (start_ms, end_ms), bar_ms, is_listed=is_listed),
    )


def load_market(
    coin: str,
    start_ms: int,
    end_ms: int,
    *,
    data_dir: Path,
    timeframe: str,
    detail: str | None = None,
) -> MarketData:
    """Return the data of ``[start_ms, end_ms)`` in a person's folder; nothing is downloaded.

    Args:
        coin: any spelling ``normalize_coin`` takes.
        start_ms: earliest open time.
        end_ms: end, exclusive for candles, inclusive for settlements.
        data_dir: the folder; see ``backtest.market.files`` for what may lie in it.
        timeframe: length of a candle.
        detail: length of finer candles to load too, or None.

    Raises:
        ConfigError: the range or a timeframe is impossible.
        DataError: the folder or a file is missing or unusable, or has nothing in the range.
    """
    coin, bar_ms = normalize_coin(coin), timeframe_ms(timeframe)
    start_ms, end_ms = _whole_bars(start_ms, end_ms, bar_ms)
    folder = CandleFolder(data_dir)
    found = folder.candles(coin, timeframe)
    rates = folder.funding(coin)
    fine, notices = None, found.notices
    if detail is not None:
        finer = folder.candles(coin, detail)
        fine = _inside(finer.candles, finer.name, start_ms, end_ms)
        notices += finer.notices
    return MarketData(
        coin=coin,
        candles=_inside(found.candles, found.name, start_ms, end_ms),
        funding=slice_time(found.rates if rates is None else rates, start_ms, end_ms + 1),
        detail=fine,
        bar_ms=bar_ms,
        source=f"files in {data_dir}",
        brackets=folder.brackets(coin),
        notices=notices,
    )


@dataclass(frozen=True)
class _Series:
    """A range of rows wanted, where they are kept and how they are had."""

    cache: SeriesCache
    start_ms: int
    end_ms: int
    download: Download

    def missing(self) -> Ranges:
        return self.cache.missing(self.start_ms, self.end_ms)

    def rows(self) -> pd.DataFrame:
        return self.cache.rows(self.start_ms, self.end_ms)


def _named(
    coin: str, candles: pd.DataFrame, span_ms: tuple[int, int], bar_ms: int, *, is_listed: bool
) -> tuple[str, ...]:
    """Return under which names to ask for the parts of a range that a coin's contract lacks."""
    first_ms, last_ms = (int(candles["timestamp"].iloc[i]) for i in (0, -1))
    notices = []
    if not is_listed:
        notices.append(_delisted(coin, last_ms + bar_ms, span_ms[1]))
    if first_ms > span_ms[0]:
        notices.append(called_before(coin, _flag(first_ms)))
    return tuple(text for text in notices if text)


def _delisted(coin: str, last_ms: int, end_ms: int) -> str:
    """Return what a reader must know of a coin that the exchange lists no more.

    Args:
        coin: base coin.
        last_ms: where its candles end, ms UTC.
        end_ms: where they should.
    """
    ended = last_ms < end_ms
    return (
        f"{coin}: the exchange lists it no more; its candles are from the archive"
        f"{f' and end at {format_time(last_ms)}' if ended else ''}, its market rules are not known"
        f"{now_called(coin, _flag(last_ms) if ended else '')}"
    )


def _flag(time_ms: int) -> str:
    """Return a time as ``--start`` and ``--end`` take it."""
    return format_time(time_ms).replace(" ", "T")


def _series(
    coin: str,
    frames: list[str],
    cache_dir: Path,
    history: BinanceHistory,
    span_ms: tuple[int, int],
    now_ms: int,
) -> list[_Series]:
    """Return the series wanted: candles of each length, then settlements."""
    start_ms, end_ms = span_ms
    return [
        *(
            _Series(
                _candle_cache(cache_dir, coin, frame),
                start_ms,
                end_ms,
                functools.partial(history.candles, coin, frame, now_ms=now_ms),
            )
            for frame in frames
        ),
        _Series(
            _funding_cache(cache_dir, coin),
            start_ms,
            end_ms + MINUTE_MS,  # settlements are stamped some milliseconds late
            functools.partial(history.funding, coin, now_ms=now_ms),
        ),
    ]


def _exchange_ms(history: BinanceHistory, now_ms: int) -> int:
    """Return the exchange's time, by which what is downloaded has closed.

    This computer's may be days off. Where the exchange does not answer it must do: what comes then
    is of the archive, which holds finished candles only, and the rest breaks off.
    """
    try:
        return history.now_ms()
    except NetworkError as error:
        _log.info("the exchange's time is not known: %s", error)
        return now_ms


def _candle_cache(cache_dir: Path, coin: str, timeframe: str) -> SeriesCache:
    bar_ms = timeframe_ms(timeframe)
    return SeriesCache(
        cache_dir / f"{coin}-{timeframe}.parquet",
        empty=empty_candles(),
        step_ms=bar_ms,
        check=lambda frame, where: check_candles(frame, where, bar_ms),
    )


def _funding_cache(cache_dir: Path, coin: str) -> SeriesCache:
    return SeriesCache(
        cache_dir / f"{coin}-funding.parquet",
        empty=empty_funding(),
        step_ms=FUNDING_STEP_MS,
        check=check_funding,
    )


def _rules(
    coin: str, cache_dir: Path, history: BinanceHistory, wanted: list[_Series]
) -> dict[str, float] | None:
    """Return the market rules; without a network None, if everything else is in the cache."""
    try:
        return market_rules(coin, cache_dir, history.rest)
    except NetworkError as error:
        if any(series.missing() for series in wanted):
            raise _with_reach(error, wanted) from error
        _log.warning("market rules of %s not known: %s", coin, error)
        return None


def _complete(
    wanted: list[_Series], coin: str, now_ms: int, final_ms: int | None, *, progress: bool | None
) -> None:
    """Download what the caches lack."""
    total = sum(
        (last - first) // series.cache.step_ms
        for series in wanted
        for first, last in series.missing()
    )
    with tqdm(
        total=total,
        desc=coin,
        unit=" rows",
        delay=_BAR_DELAY_SECONDS,
        leave=False,
        disable=None if progress is None else not progress,
    ) as bar:
        try:
            for series in wanted:
                series.cache.extend(
                    series.start_ms,
                    series.end_ms,
                    series.download,
                    now_ms=now_ms,
                    final_ms=final_ms,
                    arrived=bar.update,
                )
        except NetworkError as error:
            raise _with_reach(error, wanted) from error


def _with_reach(error: NetworkError, wanted: list[_Series]) -> NetworkError:
    """Return the error with the end date that would need no network, where there is one."""
    bar_ms, start_ms = wanted[0].cache.step_ms, wanted[0].start_ms
    reach = min([first for series in wanted for first, _ in series.missing()], default=start_ms)
    reach -= reach % bar_ms
    if reach <= start_ms:
        return error
    return NetworkError(f"{error}; the cache reaches {format_time(reach)}: end there instead")


def _whole_bars(start_ms: int, end_ms: int, bar_ms: int) -> tuple[int, int]:
    """Return the range cut to candles that lie in it whole."""
    first, last = -(-start_ms // bar_ms) * bar_ms, end_ms // bar_ms * bar_ms
    if first >= last:
        raise ConfigError(
            f"no finished candle lies between start = {format_time(start_ms)} and "
            f"end = {format_time(end_ms)}; start must be earlier"
        )
    return first, last


def _inside(frame: pd.DataFrame, name: str, start_ms: int, end_ms: int) -> pd.DataFrame:
    rows = slice_time(frame, start_ms, end_ms)
    if rows.empty:
        times = frame["timestamp"]
        raise DataError(
            f"{name}: nothing from {format_time(start_ms)} to {format_time(end_ms)}; it holds "
            f"{format_time(int(times.iloc[0]))} to {format_time(int(times.iloc[-1]))}"
        )
    return rows


def present_ms() -> int:
    """Return the time by this computer, ms UTC."""
    return time.time_ns() // 1_000_000
