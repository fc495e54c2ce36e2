"""``LIVE_CONFIG`` is edited by hand: every value is looked at before anything begins."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from core.errors import ConfigError
from live.health.alerts import HealthLimits

_NUMBERS: Final = {
    "max_capital_pct": (0.01, 1.0),
    "candle_grace_s": (0.0, 60.0),
    "poll_s": (0.5, 900.0),
    "request_timeout_s": (1.0, 60.0),
    "max_weight_share": (0.05, 0.95),
}
_WHOLE: Final = {
    "buffer_bars": (1, 50_000),
    "recv_window_ms": (1_000, 60_000),
    "retries": (0, 10),
    "snapshots": (1, 10_000),
}
_FOLDERS: Final = ("state_dir", "log_dir")
_INSTANCE: Final = re.compile(r"[A-Za-z0-9]{1,8}")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings no session could run with; ``stop_trigger`` and the URLs are read elsewhere.

    Raises:
        ConfigError: one is missing, of the wrong type or out of range.
    """
    for table, kind in ((_NUMBERS, "a number"), (_WHOLE, "a whole number")):
        for name, (low, high) in table.items():
            value: Any = settings.get(name)
            if not (_is_number(value, whole=table is _WHOLE) and low <= value <= high):
                raise ConfigError(
                    f"LIVE_CONFIG: {name} = {value!r} must be {kind} in [{low:g}, {high:g}]"
                )
    for name in _FOLDERS:
        if not isinstance(settings.get(name), str) or not settings[name]:
            raise ConfigError(f"LIVE_CONFIG: {name} = {settings.get(name)!r} must name a folder")
    if not _INSTANCE.fullmatch(str(settings.get("instance"))):
        raise ConfigError(
            f"LIVE_CONFIG: instance = {settings.get('instance')!r} must be 1 to 8 letters or digits"
        )
    HealthLimits.from_settings(settings)


def _is_number(value: Any, *, whole: bool) -> bool:
    kinds = int if whole else int | float
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
