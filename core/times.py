"""Lengths of time in milliseconds, and instants as text (UTC)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
BAR_MS: Final = 15 * MINUTE_MS
"""Length of the candles that GridStrategyV4 trades on."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DAY_BARS: Final = DAY_MS // BAR_MS


def utc_text(ts_ms: int) -> str:
    """Return an instant as ``2024-01-15 14:30:00``."""
    return f"{datetime.fromtimestamp(ts_ms // SECOND_MS, UTC):%Y-%m-%d %H:%M:%S}"


def format_time(time_ms: int) -> str:
    """Return an instant as UTC text, no finer than it needs to be."""
    try:
        moment = _EPOCH + timedelta(milliseconds=int(time_ms))
    except OverflowError:
        return f"{time_ms} ms"
    if time_ms % MINUTE_MS == 0:
        return moment.strftime("%Y-%m-%d %H:%M")
    return moment.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")


def format_span(span_ms: int) -> str:
    """Return a duration as the exchange writes candle lengths: ``15m``, ``4h``, ``1d``."""
    for unit, unit_ms in (("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS), ("s", SECOND_MS)):
        if span_ms % unit_ms == 0:
            return f"{span_ms // unit_ms}{unit}"
    return f"{span_ms}ms"
