"""Lengths of time in milliseconds, and instants as text (UTC)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
BAR_MS: Final = 15 * MINUTE_MS
"""Length of the candles that GridStrategyV4 trades on."""
DAY_BARS: Final = DAY_MS // BAR_MS


def utc_text(ts_ms: int) -> str:
    """Return an instant as ``2024-01-15 14:30:00``."""
    return f"{datetime.fromtimestamp(ts_ms // SECOND_MS, UTC):%Y-%m-%d %H:%M:%S}"
