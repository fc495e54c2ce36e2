"""The loss of all sessions of an account together, out of their health files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.errors import ConfigError
from core.files import read_json
from core.text import money, number
from core.times import DAY_MS
from live.health.alerts import Condition, Verdict

SETTING: Final = "account_emergency_pct"
COUNTED_MS: Final = DAY_MS
"""Files younger than this count, those of sessions that have ended too: their loss was made."""
_LARGEST: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Share:
    start: float
    equity: float


def account_limit(settings: Mapping[str, Any]) -> float:
    """Return the loss of all sessions together that closes everything, percent.

    Raises:
        ConfigError: it is no positive number.
    """
    limit = settings.get(SETTING, math.inf)
    is_number = isinstance(limit, int | float) and not isinstance(limit, bool)
    if not is_number or not limit > 0.0:
        raise ConfigError(f"{SETTING} = {limit!r} must be a positive number")
    return float(limit)


def judge_account(
    own: Path, start: float | None, equity: float | None, limit_pct: float, now_ms: int
) -> list[Condition]:
    """Return what is not as it should be with the sessions of an account together.

    ``loss = 100 * sum(start - equity) / sum(start)`` over the health files in the folder of
    ``own``, in percent; with fewer than two sessions the session's own limit is enough. Every
    session judges for itself and closes its own positions. A file that cannot be read is reported
    and left out: what it holds is not guessed.

    Args:
        own: health file of this session; what it says itself is newer.
        start: equity this session began with, quote.
        equity: of this session, quote.
        limit_pct: loss that closes everything.
        now_ms: ms UTC.
    """
    shares, unreadable = [], []
    for path in sorted(own.parent.glob("*_health.json")):
        if path != own:
            try:
                share = _share(path, now_ms)
            except (OSError, ValueError, KeyError, TypeError):
                unreadable.append(path.name)
            else:
                shares += [] if share is None else [share]
    found = []
    if unreadable:
        text = f"{', '.join(unreadable)} cannot be read: that loss is not in the account's"
        found.append(Condition("account sum", Verdict.WARN, text))
    if not shares or start is None or equity is None or not math.isfinite(start + equity):
        return found
    shares.append(_Share(start, equity))
    whole = sum(item.start for item in shares)
    left = sum(item.equity for item in shares)
    loss_pct = 100.0 * (whole - left) / whole if whole > 0.0 else 0.0
    if loss_pct >= limit_pct:
        text = (
            f"{len(shares)} sessions of the account hold {money(left)}, "
            f"{number(loss_pct, 1)} % under their starts"
        )
        found.append(Condition("account", Verdict.EMERGENCY, text))
    return found


def _share(path: Path, now_ms: int) -> _Share | None:
    """Return what a session began with and has; None if it is of long ago or has no step yet.

    Raises:
        OSError, ValueError, KeyError, TypeError: the file cannot be read.
    """
    body = read_json(path, _LARGEST)
    if now_ms - int(body["updated_at"]) > COUNTED_MS or body["equity"] is None:
        return None
    start, equity = float(body["start_equity"]), float(body["equity"])
    if not (math.isfinite(start) and math.isfinite(equity)):
        raise ValueError("not a number")
    return _Share(start, equity)
