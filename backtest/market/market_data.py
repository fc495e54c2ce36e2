"""One coin's candles and funding rates, and what makes them usable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.market.timeframes import format_span, format_time
from core.errors import DataError
from core.times import HOUR_MS, MINUTE_MS

CANDLE_COLUMNS: Final = ("timestamp", "open", "high", "low", "close", "volume")
FUNDING_COLUMNS: Final = ("timestamp", "rate")
QUOTE: Final = "USDT"

_CANDLE_RULES: Final = (
    ("low", "<=", "0", "low {low:g} must be above 0"),
    ("high", "<", "low", "high {high:g} is below low {low:g}"),
    ("open", "<", "low", "open {open:g} is below low {low:g}"),
    ("open", ">", "high", "open {open:g} is above high {high:g}"),
    ("close", "<", "low", "close {close:g} is below low {low:g}"),
    ("close", ">", "high", "close {close:g} is above high {high:g}"),
    ("volume", "<", "0", "volume {volume:g} is negative"),
)
_FEWEST_FOR_A_STEP: Final = 4
"""Rows from which on the commonest step means something: fewer may just have gaps."""
_COMPARE: Final = {"<": np.less, ">": np.greater, "<=": np.less_equal}


@dataclass(frozen=True, eq=False)
class MarketData:
    """What a backtest of one coin reads.

    Attributes:
        coin: base coin of the USDT-margined perpetual, for example ``BTC``.
        candles: ``timestamp`` (int64, open time, ms) ``open high low close`` (quote) ``volume``
            (base), float64, ascending; gaps are allowed.
        funding: ``timestamp`` (int64, settlement, ms, on the minute) ``rate`` (fraction; positive:
            longs pay); empty where none are known.
        detail: 1m candles, columns as in ``candles``, or None.
        bar_ms: length of a candle, ms.
        source: where the data came from, for the report.
        rules: ``tick_size step_size min_qty min_notional liquidation_fee`` where the source knows
            them, else None.
        brackets: (notional floor, maintenance rate, maintenance amount) by rising floor, or None.
    """

    coin: str
    candles: pd.DataFrame
    funding: pd.DataFrame
    detail: pd.DataFrame | None
    bar_ms: int
    source: str
    rules: Mapping[str, float] | None = None
    brackets: tuple[tuple[float, float, float], ...] | None = None

    @property
    def gaps(self) -> list[tuple[int, int, int]]:
        """Holes in the candles: (first missing open time, next present one, missing bars)."""
        times = self.candles["timestamp"].to_numpy()
        return [
            (int(times[i]) + self.bar_ms, int(times[i + 1]), int(step) // self.bar_ms - 1)
            for i, step in enumerate(np.diff(times))
            if step > self.bar_ms
        ]

    @property
    def zero_volume_bars(self) -> int:
        """Number of candles in which nothing was traded."""
        return int((self.candles["volume"] == 0.0).sum())

    @property
    def data_hash(self) -> str:
        """First 16 hex digits of the SHA-256 of all values, the same on every platform."""
        digest = hashlib.sha256()
        frames = (
            self.candles,
            self.funding,
            empty_candles() if self.detail is None else self.detail,
        )
        for frame in frames:
            digest.update(f"{','.join(frame.columns)}:{len(frame)};".encode())
            for column in frame.columns:
                kind = "<i8" if column == "timestamp" else "<f8"
                digest.update(np.ascontiguousarray(frame[column], dtype=kind).tobytes())
        return digest.hexdigest()[:16]


def normalize_coin(text: str) -> str:
    """Return the base coin of a USDT-margined perpetual, however it is written.

    ``BTC``, ``btc``, ``BTC/USDT``, ``BTC/USDT:USDT``, ``BTC-USDT`` and ``BTCUSDT`` are ``BTC``.

    Raises:
        DataError: the text names no such market.
    """
    base, slash, quote = text.strip().upper().replace("-", "/").partition("/")
    if not slash:
        base = base.removesuffix(QUOTE)
    if not base.isalnum() or (slash and quote not in {QUOTE, f"{QUOTE}:{QUOTE}"}):
        raise DataError(
            f"symbol {text!r} must be a coin like BTC, or its USDT perpetual: BTC/USDT, BTCUSDT"
        )
    return base


def empty_candles() -> pd.DataFrame:
    """Return a candle table without rows."""
    return _typed(pd.DataFrame(columns=list(CANDLE_COLUMNS)))


def empty_funding() -> pd.DataFrame:
    """Return a funding table without rows."""
    return _typed(pd.DataFrame(columns=list(FUNDING_COLUMNS)))


def candle_table(rows: Any) -> pd.DataFrame:
    """Return (time, open, high, low, close, volume) rows as a candle table."""
    return _typed(pd.DataFrame(rows, columns=list(CANDLE_COLUMNS)))


def funding_table(rows: Any) -> pd.DataFrame:
    """Return (settlement time, rate) rows as a funding table."""
    table = _typed(pd.DataFrame(rows, columns=list(FUNDING_COLUMNS)))
    table["timestamp"] = settled_at(table["timestamp"])
    return table


def settled_at(times: pd.Series[int]) -> pd.Series[int]:
    """Return settlement times cut to the minute: they are stamped some milliseconds late."""
    return times - times % MINUTE_MS


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    kinds = {name: "int64" if name == "timestamp" else "float64" for name in frame.columns}
    return frame.astype(kinds)


def slice_time(frame: pd.DataFrame, start_ms: int, end_ms: int) -> pd.DataFrame:
    """Return the rows with ``start_ms <= timestamp < end_ms``, renumbered."""
    first, last = np.searchsorted(frame["timestamp"].to_numpy(), [start_ms, end_ms])
    return frame.iloc[first:last].reset_index(drop=True)


def check_candles(frame: pd.DataFrame, where: str, bar_ms: int) -> None:
    """Refuse candles no backtest could be believed on.

    Args:
        frame: the candles; gaps of whole bars are allowed.
        where: file, address or name for the message.
        bar_ms: length of a candle, ms.

    Raises:
        DataError: columns are missing, a value is missing, times are unsorted, repeated or not
            ``bar_ms`` apart, a price is not positive or outside its bar's range, or a volume is
            negative. The text names row (counted from 0) and time.
    """
    times = _checked_times(frame, CANDLE_COLUMNS, where)
    _check_steps(times, where, bar_ms)
    values = {name: _numbers(frame, name, times, where) for name in CANDLE_COLUMNS[1:]}
    values["0"] = np.zeros(1)
    for left, sign, right, text in _CANDLE_RULES:
        broken = _COMPARE[sign](values[left], values[right])
        if broken.any():
            row = {name: float(values[name][broken.argmax()]) for name in CANDLE_COLUMNS[1:]}
            raise _row_error(where, times, broken, text.format(**row))


def check_funding(frame: pd.DataFrame, where: str) -> None:
    """Refuse funding rates that cannot have been settled.

    Raises:
        DataError: columns or values are missing, times are unsorted or repeated, or rates mostly
            stand less than an hour apart: then they were filled into bars between settlements.
    """
    if frame.empty and set(FUNDING_COLUMNS) <= set(frame.columns):
        return
    times = _checked_times(frame, FUNDING_COLUMNS, where)
    _numbers(frame, "rate", times, where)
    if len(times) >= _FEWEST_FOR_A_STEP and (common := _commonest(np.diff(times))) < HOUR_MS:
        raise DataError(
            f"{where}: funding rates stand {format_span(common)} apart, which no settlements do; "
            "give the rate at its settlement only and leave the other rows empty"
        )


def _checked_times(
    frame: pd.DataFrame, columns: tuple[str, ...], where: str
) -> npt.NDArray[np.int64]:
    if missing := [name for name in columns if name not in frame.columns]:
        raise DataError(
            f"{where}: missing columns: {', '.join(missing)}; "
            f"found: {', '.join(map(str, frame.columns))}; must have: {', '.join(columns)}"
        )
    if frame.empty:
        raise DataError(f"{where}: has no rows")
    if not pd.api.types.is_integer_dtype(frame["timestamp"]):
        raise DataError(f"{where}: timestamp is {frame['timestamp'].dtype}, must be int64 ms UTC")
    times = frame["timestamp"].to_numpy(np.int64)
    steps = np.diff(times, prepend=times[0] - 1)
    if (steps < 0).any():
        raise _row_error(where, times, steps < 0, "is earlier than the row before; sort by time")
    if (steps == 0).any():
        raise _row_error(where, times, steps == 0, "repeats the time of the row before")
    return times


def _check_steps(times: npt.NDArray[np.int64], where: str, bar_ms: int) -> None:
    if times[0] % 1_000 == 999:  # noqa: PLR2004
        raise DataError(
            f"{where}: {format_time(int(times[0]))} looks like a close time; timestamp must be "
            "the time the candle opened"
        )
    if len(times) == 1:
        return
    steps = np.diff(times, prepend=times[0] - bar_ms)
    common = _commonest(steps[1:])
    if common != bar_ms and len(times) >= _FEWEST_FOR_A_STEP:
        raise DataError(
            f"{where}: candles are {format_span(common)} apart, must be {format_span(bar_ms)}"
        )
    odd = steps % bar_ms != 0
    if odd.any():
        step = format_span(int(steps[odd.argmax()]))
        text = f"opens {step} after the row before, must be a multiple of {format_span(bar_ms)}"
        raise _row_error(where, times, odd, text)


def _commonest(steps: npt.NDArray[np.int64]) -> int:
    values, counts = np.unique(steps, return_counts=True)
    return int(values[counts.argmax()])


def _numbers(
    frame: pd.DataFrame, column: str, times: npt.NDArray[np.int64], where: str
) -> npt.NDArray[np.float64]:
    values = np.asarray(pd.to_numeric(frame[column], errors="coerce"), dtype=np.float64)
    broken = ~np.isfinite(values)
    if broken.any():
        raise _row_error(where, times, broken, f"{column} is missing or not a number")
    return values


def _row_error(
    where: str, times: npt.NDArray[np.int64], broken: npt.NDArray[np.bool_], text: str
) -> DataError:
    row, count = int(broken.argmax()), int(broken.sum())
    more = f" ({count} rows like this)" if count > 1 else ""
    return DataError(f"{where}: row {row} ({format_time(int(times[row]))} UTC): {text}{more}")
