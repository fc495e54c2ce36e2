"""One coin's candles and funding rates, and what makes them usable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from core.errors import DataError
from core.frames import CANDLE_COLUMNS, FUNDING_COLUMNS
from core.times import MINUTE_MS

QUOTE: Final = "USDT"


@dataclass(frozen=True, eq=False)
class MarketData:
    """The data a backtest of one coin reads.

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
        notices: what was repaired or assumed when it was read.
    """

    coin: str
    candles: pd.DataFrame
    funding: pd.DataFrame
    detail: pd.DataFrame | None
    bar_ms: int
    source: str
    rules: Mapping[str, float] | None = None
    brackets: tuple[tuple[float, float, float], ...] | None = None
    notices: tuple[str, ...] = ()

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
    if not isinstance(text, str):
        raise DataError(f"symbol {text!r} must be a coin like BTC, written as text")
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
