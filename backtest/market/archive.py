"""The exchange's public archive: monthly and daily zip files with checksums."""

from __future__ import annotations

import codecs
import functools
import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pandas as pd

from backtest.market.market_data import candle_table, funding_table, slice_time
from backtest.market.timeframes import timeframe_ms
from core.errors import DataError, NetworkError
from core.files import unzip_first
from core.frames import CANDLE_COLUMNS, check_candles, check_funding
from core.times import DAY_MS, MINUTE_MS

if TYPE_CHECKING:
    from live.exchange.http_session import HttpSession

ARCHIVE_URL: Final = "https://data.binance.vision/data/futures/um"

Get = Callable[[str], tuple[int, bytes]]
"""Answers an address with HTTP status and body; raises NetworkError."""

_log: Final = logging.getLogger(__name__)
_OK: Final = 200
_DEADLINE_SECONDS: Final = 120.0  # for all of a file; a month of 1m candles has 2 MB
_MOST_BYTES: Final = 64 << 20  # a month of 1m candles has 6 MB
_LONGEST_TEXT: Final = 200
_LATEST_MONTH_MS: Final = 10 * DAY_MS
_MICROSECONDS_FROM: Final = 10**14
_CANDLE_FIELDS: Final = dict(enumerate(CANDLE_COLUMNS))  # more follow
_FUNDING_FIELDS: Final = {0: "timestamp", 2: "rate"}  # between them the interval in hours


class BinanceArchive:
    """Candles and funding rates of finished months and days.

    Files that are absent (before a listing, not yet published) or whose content is unusable are
    passed over: the caller sees the hole and asks elsewhere.
    """

    def __init__(self, get: Get | None = None) -> None:
        """Use ``get`` for all requests; by default HTTPS."""
        self._get = get or https_get

    def candles(
        self,
        symbol: str,
        timeframe: str,
        start_ms: int,
        end_ms: int,
        *,
        now_ms: int,
        alone: bool = False,
    ) -> Iterator[pd.DataFrame]:
        """Yield the archive's candles of ``[start_ms, end_ms)``, one table per file.

        The running month has one file a day; those are used for 1m candles only, of longer ones
        the REST interface has a month in fewer requests. Where there is nothing but the archive
        (``alone``) they are used for all, also of a month whose own file may not be there yet.

        Raises:
            DataError: a file does not match its checksum, twice.
            NetworkError: the archive cannot be reached.
        """
        bar_ms = timeframe_ms(timeframe)
        name = f"klines/{symbol}/{timeframe}/{symbol}-{timeframe}"

        def read(body: bytes, where: str) -> pd.DataFrame:
            table = candle_table(_read_csv(body, where, _CANDLE_FIELDS))
            check_candles(table, where, bar_ms)
            return table

        for first, last in _months(start_ms, end_ms):
            by_days = alone or bar_ms == MINUTE_MS
            if last <= now_ms:
                by_days = alone and last > complete_until(now_ms)
                for table in self._tables([f"monthly/{name}-{_date(first):%Y-%m}"], read):
                    by_days = False
                    yield slice_time(table, start_ms, end_ms)
            if by_days:
                begin = max(first, start_ms - start_ms % DAY_MS)
                days = range(begin, min(end_ms, last, now_ms), DAY_MS)
                finished = [day for day in days if day + DAY_MS <= now_ms]
                paths = [f"daily/{name}-{_date(day):%Y-%m-%d}" for day in finished]
                for table in self._tables(paths, read):
                    yield slice_time(table, start_ms, end_ms)

    def funding(
        self, symbol: str, start_ms: int, end_ms: int, *, now_ms: int
    ) -> Iterator[pd.DataFrame]:
        """Yield the funding rates settled in ``[start_ms, end_ms)``, finished months only.

        Raises:
            DataError: a file does not match its checksum, twice.
            NetworkError: the archive cannot be reached.
        """
        name = f"monthly/fundingRate/{symbol}/{symbol}-fundingRate"
        months = [first for first, last in _months(start_ms, end_ms) if last <= now_ms]

        def read(body: bytes, where: str) -> pd.DataFrame:
            table = funding_table(_read_csv(body, where, _FUNDING_FIELDS))
            check_funding(table, where)
            return table

        for table in self._tables([f"{name}-{_date(month):%Y-%m}" for month in months], read):
            yield slice_time(table, start_ms, end_ms)

    def _tables(
        self, paths: list[str], read: Callable[[bytes, str], pd.DataFrame]
    ) -> Iterator[pd.DataFrame]:
        for path in paths:
            body = self._verified(f"{ARCHIVE_URL}/{path}.zip")
            if body is None:
                continue
            try:
                table = read(body, path)
            except DataError as error:
                _log.warning("archive file unusable, asking the exchange instead: %s", error)
                continue
            yield table

    def _verified(self, url: str) -> bytes | None:
        """Return a file that matches its checksum, or None if either is not there."""
        for _ in range(2):
            status, body = self._get(url)
            checksum_status, checksum = self._get(f"{url}.CHECKSUM") if status == _OK else (0, b"")
            if checksum_status != _OK:
                return None
            if checksum.split()[:1] == [hashlib.sha256(body).hexdigest().encode()]:
                return body
        raise DataError(
            f"{url}: does not match its checksum, twice; try again later, or use --data DIR"
        )


def complete_until(now_ms: int) -> int:
    """Return the instant before which the archive has everything it will ever have, ms UTC.

    The start of the month of ten days ago: a month's file comes within the first days of the next.
    """
    return _ms(_month_start(_date(now_ms - _LATEST_MONTH_MS)))


def _read_csv(body: bytes, where: str, fields: Mapping[int, str]) -> pd.DataFrame:
    """Return the named fields of the one CSV in a zip; only newer files have a header row."""
    try:
        text = unzip_first(io.BytesIO(body), _MOST_BYTES)[0].removeprefix(codecs.BOM_UTF8)
        table = pd.read_csv(
            io.BytesIO(text),
            header=None,
            usecols=list(fields),
            skiprows=0 if text[:1].isdigit() else 1,
            dtype={field: "float64" if field else "int64" for field in fields},
        ).rename(columns=dict(fields))
    except (OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:_LONGEST_TEXT]
        raise DataError(f"{where}: cannot be read: {reason}") from None
    if table["timestamp"].max() >= _MICROSECONDS_FROM:
        table["timestamp"] //= 1_000
    return table


def _months(start_ms: int, end_ms: int) -> list[tuple[int, int]]:
    """Return first instant and end of every UTC month that overlaps the range."""
    months = []
    first = _month_start(_date(start_ms))
    while (first_ms := _ms(first)) < end_ms:
        following = (first + timedelta(days=32)).replace(day=1)
        months.append((first_ms, _ms(following)))
        first = following
    return months


def _month_start(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _date(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1_000, UTC)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000


@functools.cache
def _session() -> HttpSession:
    from live.exchange.http_session import HttpSession  # noqa: PLC0415 - only a download needs it

    return HttpSession(deadline_s=_DEADLINE_SECONDS, uses_environment=True)


def https_get(url: str) -> tuple[int, bytes]:
    """Return status and body of an address, over a connection that is kept.

    Raises:
        NetworkError: there is no answer by the deadline, or one that is not taken: a redirect
            to another host, or one that is too large.
    """
    session = _session()
    try:
        reply = session.get(url)
    except OSError as error:  # what all of requests' errors are
        raise NetworkError(f"{url} cannot be reached: {error}") from error
    return reply.status_code, reply.content
