"""``--data DIR``: a person's own candle and funding files, joined to what a run reads.

A file's name says what is in it: coin, then optionally ``USDT``, a market word, a timeframe or
``funding``, and a month or day, separated by ``-``, ``_`` or ``.``; ``tables`` has the formats. For
example ``BTCUSDT-perp-15m.parquet``, ``BTC_15m.csv``, ``BTCUSDT.csv``, ``BTCUSDT-funding.parquet``;
of the exchange's archive ``BTCUSDT-15m-2024-01.zip`` and ``BTCUSDT-fundingRate-2024-01.csv``; of
freqtrade ``BTC_USDT_USDT-15m-futures.feather`` and ``BTC_USDT_USDT-8h-funding_rate.feather``, where
the rate is called ``open``; of CryptoDataDownload ``Binance_BTCUSDT_2023_minute.csv``; of
TradingView ``BINANCE_BTCUSDT.P, 15.csv``; of passivbot ``1m/BTC_USDT:USDT/2024-01-01.npy``.
Sub-folders are searched. Files of one coin and timeframe are joined, rows that are the same are
taken once. Finer candles serve where there are none of the length asked for.
``binance_leverage_brackets.json`` in the folder itself is read too.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from backtest.market.market_data import QUOTE, candle_table, funding_table
from backtest.market.names import FUNDING, DataFile, read_name
from backtest.market.tables import read_table
from backtest.market.timeframes import TIMEFRAMES, format_time, timeframe_ms
from core.errors import DataError
from core.files import read_json
from core.frames import (
    RATE_NAMES,
    check_candles,
    foreign_symbol,
    named_columns,
    read_candles,
    read_rates,
)

BRACKETS_FILE: Final = "binance_leverage_brackets.json"
NAMES_HINT: Final = (
    "name files like BTCUSDT-15m.csv and BTCUSDT-funding.csv (CSV, Parquet, Feather, JSON, npy)"
)
_LISTED: Final = 3


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
        for path in _all_files(folder):
            if path == folder / BRACKETS_FILE:
                continue
            read = read_name(path, folder) if path.is_file() else _no_file(path)
            if isinstance(read, DataFile):
                self._files.append(read)
            else:
                self._not_read.append((path.relative_to(folder).as_posix(), read))

    def coins(self) -> list[str]:
        """Return the coins there are files of."""
        return sorted({item.coin for item in self._files})

    def timeframes(self, coin: str, wanted: str) -> list[str]:
        """Return the timeframes a coin's files name, and ``wanted`` if any can serve it."""
        kinds = {item.kind for item in self._files if item.coin == coin}
        if self._serving(coin, wanted):
            kinds.add(wanted)
        return [kind for kind in TIMEFRAMES if kind in kinds]

    def origin(self, coin: str, kind: str) -> str:
        """Return which files a timeframe or ``funding`` of a coin is read from."""
        found = self._find(coin, kind) if kind == FUNDING else self._serving(coin, kind)
        return f"from {', '.join(item.name for item in found)}"

    def candles(self, coin: str, timeframe: str) -> FolderCandles:
        """Return a coin's candles.

        A file without a timeframe in its name serves where none has the one asked for, and finer
        candles where there is neither; a bar they do not fill is left out.

        Raises:
            DataError: there is no such file, files contradict each other, or candles are unusable.
        """
        found = self._serving(coin, timeframe)
        if not found:
            raise DataError(self._not_found(coin, timeframe))
        name, bar_ms, kind = _joint_name(found), timeframe_ms(timeframe), found[0].kind
        step_ms = timeframe_ms(kind) if kind else None
        notices: dict[str, None] = {}
        if len(found) > 1 and not all(item.part for item in found):
            names = ", ".join(item.name for item in found)
            notices[f"{coin}: these files are taken for one series and joined: {names}"] = None
        tables, rates = [], []
        for item in found:
            raw, repeated = _read_rows(item)
            read = read_candles(raw, item.name, step_ms)
            tables.append(candle_table(read.columns))
            rates.append(funding_table(read.rates))
            texts = (text.replace(f"{item.name}: ", f"{name}: ", 1) for text in read.notices)
            notices.update(dict.fromkeys((*repeated, *texts)))
        table, twice = _joined(tables, name)
        funding, _ = _joined(rates, name)
        if twice:
            notices[f"{name}: {twice} rows stand in two files and are the same: taken once"] = None
        table, text = _as_long(table, name, bar_ms, step_ms)
        notices.update(dict.fromkeys(text))
        return FolderCandles(table, funding, name, tuple(notices))

    def funding(self, coin: str) -> pd.DataFrame | None:
        """Return a coin's funding rates, or None if there is no file of them.

        Raises:
            DataError: files contradict each other, or their rates are unusable.
        """
        found = self._find(coin, FUNDING)
        if not found:
            return None
        tables = [
            funding_table(read_rates(_rates_in(item), item.name, settled_only=False))
            for item in found
        ]
        return _joined(tables, _joint_name(found))[0]

    def not_read(self, coins: Collection[str], kinds: Collection[str]) -> list[str]:
        """Return one line that names every file a run does not read, with the reason.

        Args:
            coins: base coins of the run.
            kinds: the timeframes it reads.
        """
        return self.left_over(dict.fromkeys(coins, kinds))

    def left_over(self, wanted: Mapping[str, Collection[str]]) -> list[str]:
        """Return the same of the timeframes wanted of each coin."""
        reasons = self._reasons()
        for item in self._files:
            what = f"{item.coin} {item.kind or 'candles'}"
            serves = item.kind == FUNDING or any(
                item in self._serving(item.coin, kind) for kind in wanted.get(item.coin, ())
            )
            if item.coin not in wanted or not serves:
                reasons.setdefault(f"{what} not asked for", []).append(item.name)
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
        """Return the files of a kind by part and name; empty where there is none."""
        found = [item for item in self._files if item.coin == coin and item.kind == kind]
        return sorted(found, key=lambda item: (item.part, item.name))

    def _serving(self, coin: str, timeframe: str) -> list[DataFile]:
        """Return the files that candles of a length are read from: the coarsest that can serve."""
        bar_ms = timeframe_ms(timeframe)
        finer = [
            kind for kind, ms in reversed(TIMEFRAMES.items()) if ms < bar_ms and bar_ms % ms == 0
        ]
        kinds = (timeframe, "", *finer)
        return next((found for kind in kinds if (found := self._find(coin, kind))), [])

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
    return "a hidden folder, or a link to one" if path.is_dir() else "no regular file"


def _all_files(folder: Path) -> list[Path]:
    """Return the files of a folder and its sub-folders, and those sub-folders not looked into."""
    found: list[Path] = []
    for where, folders, names in os.walk(folder):
        closed = [n for n in folders if n.startswith(".") or (Path(where) / n).is_symlink()]
        folders[:] = sorted(set(folders) - set(closed))
        found += [Path(where) / name for name in (*names, *closed)]
    return sorted(found)


def _joint_name(files: list[DataFile]) -> str:
    first, last = files[0].name, files[-1].name
    return first if len(files) == 1 else f"{first} to {last}"


def _in_order(table: pd.DataFrame, where: str) -> tuple[pd.DataFrame, list[str]]:
    """Return rows oldest first, those that repeat the one before once, and a notice of it.

    Rows that are neither oldest nor newest first stay as they are, to be refused.
    """
    times = named_columns(table, where)["timestamp"]
    steps = np.diff(times)
    if steps.size and (steps <= 0).all() and (steps < 0).any():
        table, steps = table.iloc[::-1], -steps[::-1]
    again = np.append(np.False_, steps == 0)
    if not again.any():
        return table, []
    same = (table == table.shift()) | (table.isna() & table.shift().isna())
    again &= same.all(axis=1).to_numpy()
    text = f"{where}: {int(again.sum())} rows repeat the one before them: taken once"
    return table[~again], [text] if again.any() else []


def _joined(tables: list[pd.DataFrame], where: str) -> tuple[pd.DataFrame, int]:
    """Return the rows of tables by time, and how many stood there twice.

    Raises:
        DataError: two tables say different things of one time.
    """
    rows = pd.concat(tables, ignore_index=True).sort_values("timestamp", kind="stable")
    table = rows.drop_duplicates(ignore_index=True)
    doubled = table["timestamp"].duplicated()
    if doubled.any():
        at = format_time(int(table["timestamp"][doubled.to_numpy().argmax()]))
        raise DataError(
            f"{where}: two files say different things of {at}; keep one of two that overlap"
        )
    return table, len(rows) - len(table)


def _as_long(
    table: pd.DataFrame, name: str, bar_ms: int, step_ms: int | None
) -> tuple[pd.DataFrame, list[str]]:
    """Return candles of ``bar_ms`` made of those of ``step_ms``, and what was done to them.

    Args:
        step_ms: None: their name does not say; their commonest distance does.

    Raises:
        DataError: they are neither of that length nor of one that fills it.
    """
    times = table["timestamp"].to_numpy()
    if step_ms is None:
        steps, counts = np.unique(np.diff(times), return_counts=True)
        step_ms = int(steps[counts.argmax()]) if steps.size else bar_ms
        if step_ms >= bar_ms or bar_ms % step_ms or step_ms not in TIMEFRAMES.values():
            step_ms = bar_ms
    check_candles(table, name, step_ms)  # the joints too
    if step_ms == bar_ms:
        return table, []
    groups = table.groupby(times - times % bar_ms)
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    bars = groups.agg(how)
    whole = (groups.size() == bar_ms // step_ms).to_numpy()
    spans = {ms: kind for kind, ms in TIMEFRAMES.items()}
    text = f"{name}: candles of {spans[bar_ms]} are made of those of {spans[step_ms]}"
    if not whole.any():
        raise DataError(f"{text}, but no bar has all of them; bring longer files")
    if not whole.all():
        broken = [format_time(int(at)) for at in bars.index[~whole][:_LISTED]]
        more = "" if (~whole).sum() <= _LISTED else ", ..."
        text += (
            f"; {int((~whole).sum())} bars that lack some are left out: {', '.join(broken)}{more}"
        )
    made = bars[whole].rename_axis("timestamp").reset_index()
    return candle_table(made), [text]


def _read_rows(item: DataFile) -> tuple[pd.DataFrame, list[str]]:
    """Return a file's rows, oldest first, and what was repaired.

    Raises:
        DataError: it cannot be read as a table, or its rows name another coin.
    """
    table = read_table(item.path, item.name)
    foreign_symbol(table, item.name, item.coin)
    return _in_order(table, item.name)


def _rates_in(item: DataFile) -> pd.DataFrame:
    """Return a funding file's rows; freqtrade writes the rate as the ``open`` of a candle."""
    raw, _ = _read_rows(item)
    names = {str(name).strip().lower(): name for name in raw.columns}
    if not set(names) & set(RATE_NAMES) and {"date", "open", "close"} <= set(names):
        raw = raw.rename(columns={names["open"]: "rate"})
        settled = pd.Series(named_columns(raw, item.name)["timestamp"])
        return pd.DataFrame({"timestamp": settled, "rate": raw["rate"].to_numpy()})
    return raw
