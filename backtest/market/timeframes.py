"""Bar lengths and instants: text a person types, milliseconds everywhere else.

All instants are integer milliseconds since 1970-01-01 UTC.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from core.errors import ConfigError
from core.times import DAY_MS, HOUR_MS, MINUTE_MS, format_span, format_time

__all__ = ["TIMEFRAMES", "format_span", "format_time", "parse_time", "timeframe_ms"]

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


def parse_time(given: str | date, name: str) -> int:
    """Return a date or time as milliseconds; UTC unless it says otherwise.

    Args:
        given: ISO text like ``2024-01-01`` (its first instant) or ``2024-01-01T12:00``, a
            ``date``, a ``datetime``, or what ``pandas`` and ``numpy`` have for these.
        name: what the message calls the value.

    Raises:
        ConfigError: it is not a date.
    """
    moment: Any = given
    if hasattr(moment, "astype"):  # numpy's
        moment = moment.astype("datetime64[ms]").item()
    try:
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment.strip())
        elif not isinstance(moment, datetime):
            moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
        moment.timestamp()  # refuses what stands for no date at all
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(
            f"{name} = {given!r} must be a UTC date like 2024-01-01 or 2024-01-01T12:00"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int((moment - _EPOCH) // timedelta(milliseconds=1))
