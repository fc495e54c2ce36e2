"""Bar lengths and instants: text a person types, milliseconds everywhere else.

All instants are integer milliseconds since 1970-01-01 UTC.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from core.errors import ConfigError
from core.times import DAY_MS, HOUR_MS, MINUTE_MS

TIMEFRAMES: Final[dict[str, int]] = {
    "1m": MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": HOUR_MS,
    "2h": 2 * HOUR_MS,
    "4h": 4 * HOUR_MS,
    "6h": 6 * HOUR_MS,
    "8h": 8 * HOUR_MS,
    "12h": 12 * HOUR_MS,
    "1d": DAY_MS,
}
"""The exchange's candle lengths, milliseconds; longer ones are not a fixed number of them."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def timeframe_ms(timeframe: str) -> int:
    """Return the length of a candle in milliseconds.

    Raises:
        ConfigError: the exchange has no candles of that length.
    """
    if timeframe not in TIMEFRAMES:
        raise ConfigError(f"timeframe = {timeframe!r} must be one of {', '.join(TIMEFRAMES)}")
    return TIMEFRAMES[timeframe]


def parse_time(text: str, name: str) -> int:
    """Return an ISO date or time as milliseconds; UTC unless it says otherwise.

    Args:
        text: for example ``2024-01-01`` (its first instant) or ``2024-01-01T12:00``.
        name: what the message calls the value.

    Raises:
        ConfigError: ``text`` is not a date.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            f"{name} = {text!r} must be a UTC date like 2024-01-01 or 2024-01-01T12:00"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


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
    for unit, unit_ms in (("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS), ("s", 1_000)):
        if span_ms % unit_ms == 0:
            return f"{span_ms // unit_ms}{unit}"
    return f"{span_ms}ms"
