"""``--data DIR``: a person's own candle and funding files.

A file's name says what is in it: coin, then optionally ``USDT``, a market word, a timeframe or
``funding``, and a month or day, separated by ``-``, ``_`` or ``.``; in CSV (also inside a zip),
Parquet or Feather. For example ``BTCUSDT-perp-15m.parquet``, ``BTC_15m.csv``,
``BTC-USDT-15m.feather``, ``BTCUSDT.csv``, ``BTCUSDT-funding.parquet``; of the exchange's archive
``BTCUSDT-15m-2024-01.zip`` and ``BTCUSDT-fundingRate-2024-01.csv``, whose months are joined; of
freqtrade ``BTC_USDT_USDT-15m-futures.feather`` and ``BTC_USDT_USDT-8h-funding_rate.feather``, where
the rate is called ``open``. ``binance_leverage_brackets.json`` beside them is read too.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Final

import pandas as pd

from backtest.market.market_data import QUOTE, candle_table, funding_table
from backtest.market.timeframes import TIMEFRAMES, timeframe_ms
from core.errors import DataError
from core.files import read_json, unzip_first
from core.frames import RATE_NAMES, foreign_symbol, named_columns, read_candles, read_rates

BRACKETS_FILE: Final = "binance_leverage_brackets.json"
NAMES_HINT: Final = (
    "name files like BTCUSDT-15m.csv and BTCUSDT-funding.csv (CSV, Parquet, Feather)"
)

_LARGEST_CSV: Final = 512 << 20  # ten years of 1m candles
_FUNDING: Final = "funding"
_MARKET_WORDS: Final = frozenset({"usdt", "perp", "swap", "futures", "um"})
_FUNDING_WORDS: Final = frozenset({"fundingrate", "fundingrates", "funding"})
_OTHER_PRICES: Final = frozenset({"mark", "index", "premiumindex", "indexprice", "markprice"})
_DATE: Final = re.compile(r"-(\d{4}-\d{2}(?:-\d{2})?)$")
_ARCHIVE_CANDLES: Final = ("open_time", "open", "high", "low", "close", "volume")
_ARCHIVE_FUNDING: Final = ("calc_time", "funding_interval_hours", "last_funding_rate")


def _read_csv(path: Path) -> pd.DataFrame:
    """Return a CSV file, plain or alone inside a zip; its separator follows from the first line.

    Raises:
        OSError, ValueError: it cannot be read as a table.
    """
    text = _csv_text(path)
    first = text.lstrip("\ufeff\r\n").partition("\n")[0].strip("\r")
    separator = max(",;\t", key=first.count)
    cells = next(csv.reader([first], delimiter=separator), [])
    headless = bool(cells) and all(_is_number(cell) for cell in cells)
    widest = max((len(row) for row in csv.reader(StringIO(text), delimiter=separator)), default=0)
    if widest > len(cells):
        raise ValueError(f"a row has {widest} columns, the first line {len(cells)}")
    names = None
    if headless:  # as the older files of the exchange's archive
        known = _ARCHIVE_FUNDING if len(cells) == len(_ARCHIVE_FUNDING) else _ARCHIVE_CANDLES
        names = [*known, *(f"column {i + 1}" for i in range(len(known), len(cells)))]
    return pd.read_csv(
        StringIO(text.lstrip("\ufeff")),
        sep=separator,
        decimal="," if separator == ";" else ".",
        header=None if headless else 0,
        names=names[: len(cells)] if names else None,
        index_col=False,
        skip_blank_lines=True,
    )


def _csv_text(path: Path) -> str:
    if path.suffix.lower() != ".zip":
        return path.read_text(encoding="utf-8-sig")
    body, count = unzip_first(path, _LARGEST_CSV)
    if count != 1:
        raise ValueError(f"holds {count} files, must hold one")
    return body.decode("utf-8-sig")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_READERS: Final[dict[str, Callable[[Path], pd.DataFrame]]] = {
    ".csv": _read_csv,
    ".zip": _read_csv,
    ".parquet": pd.read_parquet,
    ".feather": pd.read_feather,
}


@dataclass(frozen=True)
class DataFile:
    """A file whose name could be read; ``kind`` is a timeframe, ``funding`` or empty (candles).

    ``part`` is the month or day it holds, empty where it holds all there is.
    """

    path: Path
    coin: str
    kind: str
    part: str = ""


@dataclass(frozen=True, eq=False)
class FolderCandles:
    """A coin's candles from a folder, the settlements among them, and what a reader must know."""

    candles: pd.DataFrame
    rates: pd.DataFrame
    name: str
    notices: tuple[str, ...]


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
        self._files: list[DataFile] = []
        self._not_read: list[tuple[str, str]] = []
        for path in sorted(folder.iterdir()):
            if path.name == BRACKETS_FILE:
                continue
            read = _read_name(path) if path.is_file() else _no_file(path)
            if isinstance(read, DataFile):
                self._files.append(read)
            else:
                self._not_read.append((path.name, read))

    def candles(self, coin: str, timeframe: str) -> FolderCandles:
        """Return a coin's candles.

        A file without a timeframe in its name serves where none has the one asked for.

        Raises:
            DataError: there is no such file, more than one, or its candles are unusable.
        """
        found = self._find(coin, timeframe) or self._find(coin, "")
        if not found:
            raise DataError(self._not_found(coin, timeframe))
        name, bar_ms = _joint_name(found), timeframe_ms(timeframe)
        parts = [read_candles(_read_rows(f), f.path.name, bar_ms) for f in found]
        rates = [funding_table(part.rates) for part in parts]
        said = [
            text.replace(f"{f.path.name}: ", f"{name}: ", 1)
            for f, part in zip(found, parts, strict=True)
            for text in part.notices
        ]
        notices = list(dict.fromkeys(said))  # once, where several parts say the same
        table = _joined([candle_table(part.columns) for part in parts], name)
        return FolderCandles(table, _joined(rates, name), name, tuple(notices))

    def funding(self, coin: str) -> pd.DataFrame | None:
        """Return a coin's funding rates, or None if there is no file of them.

        Raises:
            DataError: there is more than one, or its rates are unusable.
        """
        found = self._find(coin, _FUNDING)
        if not found:
            return None
        tables = [
            funding_table(read_rates(_rates_in(f), f.path.name, settled_only=False)) for f in found
        ]
        return _joined(tables, _joint_name(found))

    def not_read(self, coins: Collection[str], kinds: Collection[str]) -> list[str]:
        """Return one line that names every file a run does not read, with the reason.

        Args:
            coins: base coins of the run.
            kinds: the timeframes it reads.
        """
        reasons = self._reasons()
        for item in self._files:
            what = f"{item.coin} {item.kind or 'candles'}"
            serves = item.kind in {*kinds, _FUNDING} or (
                item.kind == "" and any(not self._find(item.coin, kind) for kind in kinds)
            )
            if item.coin not in coins or not serves:
                reasons.setdefault(f"{what} not asked for", []).append(item.path.name)
        if not reasons:
            return []
        return [f"not read in {self.folder}: {_listing(reasons)}"]

    def brackets(self, coin: str) -> tuple[tuple[float, float, float], ...] | None:
        """Return a coin's maintenance margin brackets, or None if the folder has none.

        Raises:
            DataError: the brackets file is there but cannot be read.
        """
        path = self.folder / BRACKETS_FILE
        if not path.exists():
            return None
        try:
            markets = read_json(path)["current"]
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

    def _find(self, coin: str, kind: str) -> list[DataFile]:
        """Return the file of a kind, or the parts of it by time; empty where there is none."""
        found = [item for item in self._files if item.coin == coin and item.kind == kind]
        whole = [item for item in found if not item.part]
        if len(whole) > 1 or (whole and len(found) > 1):
            names = ", ".join(item.path.name for item in found)
            raise DataError(f"{self.folder}: several files hold {coin} {kind}: {names}; keep one")
        return sorted(found, key=lambda item: item.part)

    def _reasons(self) -> dict[str, list[str]]:
        """Return the files whose names say nothing to read, by reason."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self._not_read:
            reasons.setdefault(reason, []).append(name)
        return reasons

    def _not_found(self, coin: str, timeframe: str) -> str:
        there = sorted({f"{f.coin} {f.kind or 'candles'}" for f in self._files})
        listing = f"found: {', '.join(there)}" if there else "found no candle files at all"
        reasons = self._reasons()
        unread = f"; not read: {_listing(reasons)}" if reasons else ""
        return f"{self.folder}: no {timeframe} candles of {coin}; {listing}{unread}; {NAMES_HINT}"


def _listing(reasons: dict[str, list[str]]) -> str:
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in reasons.items())


def _no_file(path: Path) -> str:
    """Return what lies there instead of a file."""
    if path.is_symlink() and not path.exists():
        return "a link to nothing"
    return "a folder" if path.is_dir() else "no regular file"


def _read_name(path: Path) -> DataFile | str:
    """Return what a file's name says, or why it is not read."""
    if path.suffix.lower() not in _READERS:
        return f"not {', '.join(_READERS)}"
    stem, part = path.stem, ""
    if dated := _DATE.search(stem):
        stem, part = stem[: dated.start()], dated.group(1)
    coin, *words = [word for word in re.split(r"[-_. ]+", stem) if word] or [""]
    coin = coin.upper().removesuffix(QUOTE)
    kinds = [word.lower() for word in words if word.lower() not in _MARKET_WORDS]
    kind = "".join(kinds)
    if any(word in _OTHER_PRICES for word in kinds):
        return "mark, index or premium prices: no trades"
    if any(kind.removeprefix(span) in _FUNDING_WORDS for span in ("", *TIMEFRAMES)):
        kind = _FUNDING
    if not coin.isalnum() or coin.lower() in TIMEFRAMES:
        return "its name begins with no coin"
    if kind not in {*TIMEFRAMES, _FUNDING, ""}:
        return f"its name says neither a timeframe nor funding: {' '.join(kinds)}"
    return DataFile(path, coin, kind, part)


def _joint_name(files: list[DataFile]) -> str:
    first, last = files[0].path.name, files[-1].path.name
    return first if len(files) == 1 else f"{first} to {last}"


def _joined(tables: list[pd.DataFrame], where: str) -> pd.DataFrame:
    """Return the rows of tables whose times follow each other.

    Raises:
        DataError: they overlap.
    """
    filled = [table for table in tables if not table.empty]
    filled.sort(key=lambda table: int(table["timestamp"].iloc[0]))
    for before, after in itertools.pairwise(filled):
        if after["timestamp"].iloc[0] <= before["timestamp"].iloc[-1]:
            raise DataError(f"{where}: hold the same times twice; keep one of two that overlap")
    return pd.concat(filled, ignore_index=True) if filled else tables[0]


def _read_table(path: Path) -> pd.DataFrame:
    """Return a file's rows.

    Raises:
        DataError: it cannot be read as a table.
    """
    try:
        return _READERS[path.suffix.lower()](path)
    except (OSError, ValueError, OverflowError, csv.Error, IndexError, KeyError) as error:
        text = str(error).strip().partition("\n")[0]
        raise DataError(f"{path.name}: cannot be read: {text}") from None


def _read_rows(item: DataFile) -> pd.DataFrame:
    """Return a file's rows.

    Raises:
        DataError: it cannot be read as a table, or its rows name another coin.
    """
    table = _read_table(item.path)
    foreign_symbol(table, item.path.name, item.coin)
    return table


def _rates_in(item: DataFile) -> pd.DataFrame:
    """Return a funding file's rows; freqtrade writes the rate as the ``open`` of a candle."""
    raw = _read_rows(item)
    names = {str(name).strip().lower(): name for name in raw.columns}
    if not set(names) & set(RATE_NAMES) and {"date", "open", "close"} <= set(names):
        raw = raw.rename(columns={names["open"]: "rate"})
        settled = pd.Series(named_columns(raw, item.path.name)["timestamp"])
        return pd.DataFrame({"timestamp": settled, "rate": raw["rate"].to_numpy()})
    return raw
