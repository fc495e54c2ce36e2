"""How much a client may ask: request weight and orders, counted by minute of virtual time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

MINUTE_MS: Final = 60_000
ORDER_WINDOWS: Final = (("10S", 10_000, 300), ("1M", MINUTE_MS, 1_200))
FIRST_BAN_MS: Final = 120_000
LONGEST_BAN_MS: Final = 3 * 86_400_000


@dataclass(kw_only=True)
class RateLimits:
    """Counters of one address and account.

    Attributes:
        weight_limit: weight a minute.
        weight: used in the current minute.
        max_weight: most ever used in one minute.
        banned_until_ms: requests before it are answered 418.
    """

    weight_limit: int = 2_400
    weight: int = 0
    max_weight: int = 0
    banned_until_ms: int = 0
    _minute: int = -1
    _asked_to_wait: bool = False
    _ban_ms: int = FIRST_BAN_MS
    _orders: dict[str, tuple[int, int]] = field(default_factory=dict)

    def refuse(self, now_ms: int, weight: int) -> tuple[int, int] | None:
        """Count a request; return (HTTP status, seconds to wait) where it is refused.

        The first request over the limit is asked to wait (429); who goes on before the minute is
        over is banned (418), twice as long at every further time.
        """
        if now_ms < self.banned_until_ms:
            return 418, math.ceil((self.banned_until_ms - now_ms) / 1_000)
        if now_ms // MINUTE_MS != self._minute:
            self._minute, self.weight, self._asked_to_wait = now_ms // MINUTE_MS, 0, False
        self.weight += weight
        self.max_weight = max(self.max_weight, self.weight)
        if self.weight <= self.weight_limit:
            return None
        if self._asked_to_wait:
            self.ban(now_ms)
            return 418, math.ceil((self.banned_until_ms - now_ms) / 1_000)
        self._asked_to_wait = True
        return 429, math.ceil((MINUTE_MS - now_ms % MINUTE_MS) / 1_000)

    def ban(self, now_ms: int) -> None:
        """Answer 418 for some minutes."""
        self.banned_until_ms = now_ms + self._ban_ms
        self._ban_ms = min(2 * self._ban_ms, LONGEST_BAN_MS)

    def take_orders(self, now_ms: int, n_orders: int) -> str:
        """Count orders sent; return the window whose limit they exceed, '' if none."""
        for name, length_ms, most in ORDER_WINDOWS:
            if n_orders and self._count(now_ms, name, length_ms) + n_orders > most:
                return name
        for name, length_ms, _ in ORDER_WINDOWS:
            count = self._count(now_ms, name, length_ms) + n_orders
            self._orders[name] = (now_ms // length_ms, count)
        return ""

    def headers(self, now_ms: int, *, with_orders: bool) -> dict[str, str]:
        """Return what a reply says about use; only replies to orders tell of orders."""
        fields = {"X-MBX-USED-WEIGHT-1M": str(self.weight)}
        if with_orders:
            for name, length_ms, _ in ORDER_WINDOWS:
                fields[f"X-MBX-ORDER-COUNT-{name}"] = str(self._count(now_ms, name, length_ms))
        return fields

    def _count(self, now_ms: int, name: str, length_ms: int) -> int:
        """Return the orders of the current window, which starts at a full multiple."""
        window, count = self._orders.get(name, (-1, 0))
        return count if window == now_ms // length_ms else 0
