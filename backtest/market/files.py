"""``--data DIR``: a person's own candle and funding files.

A file's name says what is in it: coin, then optionally ``USDT``, a market word, a timeframe or
``funding``, separated by ``-``, ``_`` or ``.``; in CSV, Parquet or Feather. For example
``BTCUSDT-perp-15m.parquet``, ``BTC_15m.csv``, ``BTC-USDT-15m.feather``, ``BTCUSDT.csv``,
``BTCUSDT-funding.parquet``. ``binance_leverage_brackets.json`` beside them is read too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from backtest.market.market_data import (
    CANDLE_COLUMNS,
    QUOTE,
    candle_table,
    check_candles,
    check_funding,
    empty_funding,
    funding_table,
    settled_at,
)
from backtest.market.timeframes import TIMEFRAMES, timeframe_ms
from core.errors import DataError

BRACKETS_FILE: Final = "binance_leverage_brackets.json"
NAMES_HINT: Final = (
    "name files like BTCUSDT-15m.csv and BTCUSDT-funding.csv (CSV, Parquet, Feather)"
)

_FUNDING: Final = "funding"
_MARKET_WORDS: Final = frozenset({"usdt", "perp", "swap", "futures", "um"})
_TIME_NAMES: Final = (
    "timestamp",
    "open_time",
    "opentime",
    "time",
    "datetime",
    "date",
    "fundingtime",
    "calc_time",
)
_MILLISECONDS_FROM: Final = 10**11
_RATE_NAMES: Final = ("rate", "fundingrate", "funding_rate", "last_funding_rate")
_READERS: Final[dict[str, Callable[[Path], pd.DataFrame]]] = {
    ".csv": pd.read_csv,
    ".parquet": pd.read_parquet,
    ".feather": pd.read_feather,
}


@dataclass(frozen=True)
class DataFile:
    """A file whose name could be read; ``kind`` is a timeframe, ``funding`` or empty (candles)."""

    path: Path
    coin: str
    kind: str


class CandleFolder:
    """The candle and funding files of one folder."""

    def __init__(self, folder: Path) -> None:
        """Look at the names in ``folder``.

        Raises:
            DataError: there is no such folder.
        """
        if not folder.is_dir():
            raise DataError(f"data folder {folder} does not exist or is not a folder")
        self.folder = folder
        named = (_read_name(path) for path in sorted(folder.iterdir()) if path.is_file())
        self._files = [item for item in named if item is not None]

    def candles(self, coin: str, timeframe: str) -> tuple[pd.DataFrame, pd.DataFrame, str]:
        """Return a coin's candles, the funding rates in the same file, and the file's name.

        A file without a timeframe in its name serves where none has the one asked for.

        Raises:
            DataError: there is no such file, more than one, or its candles are unusable.
        """
        found = self._find(coin, timeframe) or self._find(coin, "")
        if found is None:
            raise DataError(self._not_found(coin, timeframe))
        raw = _read_table(found.path)
        return (
            _read_candles(raw, found.path.name, timeframe_ms(timeframe)),
            _read_rates(raw, found.path.name, settled_only=True),
            found.path.name,
        )

    def funding(self, coin: str) -> pd.DataFrame | None:
        """Return a coin's funding file, or None if there is none.

        Raises:
            DataError: there is more than one, or its rates are unusable.
        """
        found = self._find(coin, _FUNDING)
        if found is None:
            return None
        raw = _read_table(found.path)
        if not set(_RATE_NAMES) & set(raw.columns):
            raise DataError(
                f"{found.path.name}: has no column named {' or '.join(_RATE_NAMES)}; "
                f"found: {', '.join(raw.columns)}"
            )
        return _read_rates(raw, found.path.name, settled_only=False)

    def brackets(self, coin: str) -> tuple[tuple[float, float, float], ...] | None:
        """Return a coin's maintenance margin brackets, or None if the folder has none.

        Raises:
            DataError: the brackets file is there but cannot be read.
        """
        path = self.folder / BRACKETS_FILE
        if not path.exists():
            return None
        try:
            markets = json.loads(path.read_text(encoding="utf-8"))["current"]
            if coin + QUOTE not in markets:
                return None
            rows = markets[coin + QUOTE]["brackets"]
            names = ("notionalFloor", "maintMarginRatio", "cum")
            table = [tuple(float(row[name]) for name in names) for row in rows]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path.name}: cannot be read ({error!r}); must hold current -> {coin}{QUOTE} -> "
                "brackets -> notionalFloor, maintMarginRatio, cum; repair or remove it"
            ) from None
        return tuple((floor, rate, amount) for floor, rate, amount in sorted(table))

    def _find(self, coin: str, kind: str) -> DataFile | None:
        found = [item for item in self._files if item.coin == coin and item.kind == kind]
        if len(found) > 1:
            names = ", ".join(item.path.name for item in found)
            raise DataError(f"{self.folder}: several files hold {coin} {kind}: {names}; keep one")
        return found[0] if found else None

    def _not_found(self, coin: str, timeframe: str) -> str:
        there = sorted({f"{f.coin} {f.kind or 'candles'}" for f in self._files})
        listing = f"found: {', '.join(there)}" if there else "found no candle files at all"
        return f"{self.folder}: no {timeframe} candles of {coin}; {listing}; {NAMES_HINT}"


def _read_name(path: Path) -> DataFile | None:
    """Return what a file's name says, or None if it is not the name of a candle file."""
    if path.suffix.lower() not in _READERS:
        return None
    coin, *words = [word for word in re.split(r"[-_. ]+", path.stem) if word] or [""]
    coin = coin.upper().removesuffix(QUOTE)
    kinds = [word.lower() for word in words if word.lower() not in _MARKET_WORDS]
    kind = "".join(kinds)
    if kind in {"fundingrate", "fundingrates"}:
        kind = _FUNDING
    if not coin.isalnum() or kind not in {*TIMEFRAMES, _FUNDING, ""}:
        return None
    return DataFile(path, coin, kind)


def _read_table(path: Path) -> pd.DataFrame:
    """Return a file's rows with lower-case column names and its times in ``timestamp``."""
    try:
        raw = _READERS[path.suffix.lower()](path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name}: cannot be read: {error}") from None
    raw.columns = pd.Index([str(name).strip().lower() for name in raw.columns])
    if not set(_TIME_NAMES) & set(raw.columns) and not isinstance(raw.index, pd.RangeIndex):
        raw = raw.reset_index(names="timestamp")
    if raw.columns.has_duplicates:
        raise DataError(f"{path.name}: columns are named twice: {', '.join(raw.columns)}")
    named = next((name for name in _TIME_NAMES if name in raw.columns), None)
    if named is None:
        raise DataError(
            f"{path.name}: has no time column; found: {', '.join(raw.columns)}; "
            f"must have one of: {', '.join(_TIME_NAMES)}"
        )
    raw["timestamp"] = _to_ms(raw[named], path.name)
    return raw


def _to_ms(times: pd.Series[Any], where: str) -> pd.Series[int]:
    """Return times of any unit or spelling as integer milliseconds, UTC."""
    if pd.api.types.is_numeric_dtype(times):
        moments = times.where(np.isfinite(times.to_numpy(np.float64)))
    else:
        moments = pd.to_datetime(times, utc=True, format="ISO8601", errors="coerce")
    if moments.isna().any():
        row = int(np.argmax(moments.isna().to_numpy()))
        raise DataError(
            f"{where}: row {row}: time '{times.iloc[row]}' must be milliseconds or seconds since "
            "1970, or ISO text like 2024-01-01 00:15"
        )
    if pd.api.types.is_numeric_dtype(times):
        return _counts_to_ms(times)
    milliseconds: pd.Series[int] = moments.dt.tz_localize(None).astype("M8[ms]").astype("int64")
    return milliseconds


def _counts_to_ms(times: pd.Series[Any]) -> pd.Series[int]:
    """Return counts since 1970 in milliseconds; their size tells their unit.

    Seconds until the year 5138, milliseconds from 1973 on, then micro- and nanoseconds.
    """
    counts: pd.Series[int] = times.astype("int64")
    largest = int(counts.abs().max()) if len(counts) else 0
    if largest < _MILLISECONDS_FROM:
        return counts * 1_000
    milliseconds: pd.Series[int] = counts
    while largest >= 1_000 * _MILLISECONDS_FROM:
        milliseconds, largest = milliseconds // 1_000, largest // 1_000
    return milliseconds


def _read_candles(raw: pd.DataFrame, where: str, bar_ms: int) -> pd.DataFrame:
    check_candles(raw, where, bar_ms)
    return candle_table(raw[list(CANDLE_COLUMNS)])


def _read_rates(raw: pd.DataFrame, where: str, *, settled_only: bool) -> pd.DataFrame:
    """Return the rates in a table; ``settled_only`` passes over rows without one."""
    named = next((name for name in _RATE_NAMES if name in raw.columns), None)
    if named is None:
        return empty_funding()
    rates = raw[["timestamp", named]].set_axis(["timestamp", "rate"], axis="columns")
    if settled_only:
        rates = rates.dropna()
    rates["timestamp"] = settled_at(rates["timestamp"])
    check_funding(rates, where)
    return funding_table(rates)
