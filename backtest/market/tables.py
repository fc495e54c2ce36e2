"""A candle or funding file as a table, in every format that people's programs write.

CSV with comma, semicolon or tab, with a decimal point or comma, with and without a header, plain,
gzipped or alone in a zip; Parquet; Feather; JSON as ccxt and freqtrade write it; numpy's ``npy``
and ``npz`` as passivbot writes them. Pickles are never opened.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable
from io import StringIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from core.errors import DataError
from core.files import MOST_RATIO, unzip_first
from core.frames import TIME_NAMES

_LARGEST: Final = 512 << 20  # ten years of 1m candles
_UNCHECKED_RATIO_BELOW: Final = 1 << 20
_ARCHIVE_CANDLES: Final = ("open_time", "open", "high", "low", "close", "volume")
_ARCHIVE_FUNDING: Final = ("calc_time", "funding_interval_hours", "last_funding_rate")
_ROW: Final = ("date", "open", "high", "low", "close", "volume")
_RECORD_NAMES: Final = {
    "ts": "timestamp",
    "o": "open",
    "h": "high",
    "l": "low",
    "c": "close",
    "bv": "volume",
}
_NUMBER: Final = re.compile(r"[-+]?\d[\d.,]*")
_EITHER: Final = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
"""A number that may have a decimal comma or one between thousands."""
_VOLUME_OF_COIN: Final = re.compile(r"volume[ _](?!usdt?$|busd$|usdc$|from$|to$|ma$)[a-z0-9]+$")
"""CryptoDataDownload's ``Volume BTC``; ``Volume USDT`` counts money."""


def read_table(path: Path, where: str) -> pd.DataFrame:
    """Return a file's rows, one column a field, values as they stand.

    Args:
        path: its ending, one of ``ENDINGS``, says the format.
        where: its name in messages.

    Raises:
        DataError: it cannot be read as a table.
    """
    try:
        table = _READERS[ending_of(path)](path)
    except (
        *(OSError, ValueError, OverflowError, MemoryError, RecursionError, EOFError),
        *(csv.Error, IndexError, KeyError, TypeError, zlib.error),
    ) as error:
        text = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{where}: cannot be read: {text}") from None
    return _plain_names(table)


def ending_of(path: Path) -> str:
    """Return the end of a file's name that tells its format, such as ``.csv`` or ``.csv.gz``."""
    last = path.suffix.lower()
    return path.with_suffix("").suffix.lower() + last if last == ".gz" else last


# --- text -----------------------------------------------------------------------------------------


def _read_csv(path: Path) -> pd.DataFrame:
    text = _without_preamble(_bytes(path).decode("utf-8-sig").lstrip("\ufeff\r\n"))
    first = text.partition("\n")[0].strip("\r")
    separator = max(",;\t", key=first.count)
    cells = next(csv.reader([first], delimiter=separator), [])
    headless = bool(cells) and all(_is_number(cell) for cell in cells)
    decimal = _decimal_mark(text, separator, len(cells))
    names = None
    if headless:  # as the older files of the exchange's archive, and ccxt's
        known = _ARCHIVE_FUNDING if len(cells) == len(_ARCHIVE_FUNDING) else _ARCHIVE_CANDLES
        names = [*known, *(f"column {i + 1}" for i in range(len(known), len(cells)))]
    return pd.read_csv(
        StringIO(text),
        sep=separator,
        decimal=decimal,
        header=None if headless else 0,
        names=names[: len(cells)] if names else None,
        index_col=False,
        skip_blank_lines=True,
    )


def _without_preamble(text: str) -> str:
    """Return a CSV from its header on.

    CryptoDataDownload puts its address above it; yfinance writes three lines, the fields, the
    tickers and the name of the index.
    """
    first, _, rest = text.partition("\n")
    if first.strip().strip('"').lower().startswith(("http://", "https://", "www.")):
        return rest.lstrip("\r\n")
    second, _, below = rest.partition("\n")
    if not (first.startswith("Price,") and second.startswith("Ticker,")):
        return text
    if len(set(second.strip().split(",")[1:])) > 1:
        raise ValueError("it holds several tickers; write a file for each")
    index, _, rows = below.partition("\n")
    name = index.partition(",")[0].strip() or "Datetime"
    return f"{name},{first.partition(',')[2]}\n{rows}"


def _decimal_mark(text: str, separator: str, width: int) -> str:
    """Return what stands before the decimals.

    Raises:
        ValueError: a row is wider than the first, or a comma may stand before decimals or between
            thousands: neither is guessed.
    """
    look = separator != "," or '"' in text
    widest, either, decimal = 0, "", ""
    for row in csv.reader(StringIO(text), delimiter=separator):
        widest = max(widest, len(row))
        for cell in row if look else ():
            if "," not in cell or not _NUMBER.fullmatch(number := cell.strip()):
                continue
            if "." in number or number.count(",") > 1:
                raise ValueError(
                    f"'{number}' has marks between thousands; write numbers without them"
                )
            if _EITHER.fullmatch(number):
                either = either or number
            else:
                decimal = number
    if widest > width:
        raise ValueError(f"a row has {widest} columns, the first line {width}")
    if either and not decimal:
        raise ValueError(
            f"'{either}' may be {either.replace(',', '.')} or {either.replace(',', '')}; write "
            "numbers with a decimal point and nothing between thousands"
        )
    return "," if decimal else "."


def _read_json(path: Path) -> pd.DataFrame:
    rows = json.loads(_bytes(path))
    if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
        return pd.DataFrame(rows)
    if isinstance(rows, list) and rows and all(isinstance(row, list) for row in rows):
        return _rows_table(rows, {len(row) for row in rows})
    raise ValueError(
        "it must be a list of rows [time, open, high, low, close, volume] or of objects"
    )


def _rows_table(rows: Any, widths: Iterable[int]) -> pd.DataFrame:
    [width, *others] = sorted(widths)
    if others or width < len(_ROW):
        raise ValueError(f"rows have {width} values, must have {len(_ROW)}: {', '.join(_ROW)}")
    names = [*_ROW, *(f"column {i + 1}" for i in range(len(_ROW), width))]
    return pd.DataFrame(rows, columns=names)


def _bytes(path: Path) -> bytes:
    """Return what a file holds, unpacked, within the limits of size and compression."""
    if path.suffix.lower() == ".zip":
        body, count = unzip_first(path, _LARGEST)
        if count != 1:
            raise ValueError(f"holds {count} files, must hold one")
        return body
    packed = path.stat().st_size
    if path.suffix.lower() != ".gz":
        if packed > _LARGEST:
            raise ValueError(f"it holds more than {_LARGEST >> 20} MB")
        return path.read_bytes()
    swollen = max(_UNCHECKED_RATIO_BELOW, MOST_RATIO * packed)
    with gzip.open(path) as file:
        body = file.read(min(_LARGEST, swollen) + 1)
    if len(body) > _LARGEST:
        raise ValueError(f"it holds more than {_LARGEST >> 20} MB")
    if len(body) > swollen:
        raise ValueError(f"it is compressed more than {MOST_RATIO} to 1")
    return body


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


# --- numpy ----------------------------------------------------------------------------------------


def _read_npy(path: Path) -> pd.DataFrame:
    return _array_table(np.load(io.BytesIO(_bytes(path)), allow_pickle=False))


def _read_npz(path: Path) -> pd.DataFrame:
    body, count = unzip_first(path, _LARGEST)
    if count != 1:
        raise ValueError(f"holds {count} arrays, must hold one")
    return _array_table(np.load(io.BytesIO(body), allow_pickle=False))


def _array_table(array: Any) -> pd.DataFrame:
    """Return rows of six numbers, or records with names, as a table."""
    if array.dtype.names:
        return pd.DataFrame(
            {_RECORD_NAMES.get(name, name): array[name] for name in array.dtype.names}
        )
    if array.ndim != 2:  # noqa: PLR2004 - a table
        raise ValueError(f"its array has {array.ndim} dimensions, must have rows of {len(_ROW)}")
    return _rows_table(array, {array.shape[1]})


# --- names of columns -----------------------------------------------------------------------------


def _plain_names(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with the index and the coin's volume under the names the reader knows."""
    names = {str(name).strip().lower(): name for name in table.columns}
    renamed = {}
    if not {name.replace(" ", "_") for name in names} & {*TIME_NAMES} and "unnamed: 0" in names:
        renamed[names["unnamed: 0"]] = "time"  # an index that pandas wrote without a name
    volumes = [name for name in names if _VOLUME_OF_COIN.fullmatch(name)]
    if "volume" not in names and len(volumes) == 1:
        renamed[names[volumes[0]]] = "volume"
    return table.rename(columns=renamed)


_READERS: Final[dict[str, Callable[[Path], pd.DataFrame]]] = {
    ".csv": _read_csv,
    ".zip": _read_csv,
    ".parquet": pd.read_parquet,
    ".feather": pd.read_feather,
    ".csv.gz": _read_csv,
    ".json": _read_json,
    ".json.gz": _read_json,
    ".npy": _read_npy,
    ".npz": _read_npz,
}
ENDINGS: Final = tuple(_READERS)
