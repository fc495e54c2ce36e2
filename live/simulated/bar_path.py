"""The way the price takes through one candle, and when it is where.

The path is ``O -> L -> H -> C`` if ``C >= O``, else ``O -> H -> L -> C``; it is walked at a steady
pace, but for a moment at the open and after every event, in which the price stands still: a client
that needs some seconds for its answer acts at the price it decided on. The close is reached when
a sixteenth of the time is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import ROUND_FLOOR, Decimal
from itertools import pairwise
from typing import NamedTuple

from live.simulated.orders import ZERO


class Bar(NamedTuple):
    """One candle: open time ms UTC, prices quote, volume base."""

    ts_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


class Leg(NamedTuple):
    """The rest of a straight piece of the path; ``number`` 0 to 2."""

    number: int
    start: Decimal
    end: Decimal


def is_low_first(bar: Bar, rule: str) -> bool:
    """Return whether the low comes before the high under the rule ``intrabar_path``."""
    return bar.close >= bar.open if rule == "auto" else rule == "low_first"


class BarPath:
    """Position of the price within one bar.

    Attributes:
        bar: the candle.
        price: where the price stands, on the tick unless the candle is not.
        high: highest price so far.
        low: lowest price so far.
    """

    def __init__(self, bar: Bar, end_ms: int, rule: str, tick: Decimal, still_ms: int) -> None:
        """Stand at the open of ``bar``, which ends at ``end_ms``.

        Args:
            bar: the candle.
            end_ms: when it closes.
            rule: 'auto', 'low_first' or 'high_first'.
            tick: prices between events are rounded to it.
            still_ms: how long the price stands still at the open and after an event.
        """
        extremes = (bar.low, bar.high) if is_low_first(bar, rule) else (bar.high, bar.low)
        self.bar = bar
        self.price = self.high = self.low = bar.open
        self._end_ms = end_ms
        self._tick = tick
        self._still_ms = still_ms
        self._corners = (bar.open, *extremes, bar.close)
        self._offsets = [ZERO]  # length of the path up to each corner
        for start, end in pairwise(self._corners):
            self._offsets.append(self._offsets[-1] + abs(end - start))
        self._leg = 0
        self._anchor_ms = bar.ts_ms
        self._anchor = ZERO

    @property
    def share(self) -> Decimal:
        """The part of the path that has been walked, 0 to 1."""
        length = self._offsets[-1]
        return self._distance(self._leg, self.price) / length if length else Decimal(1)

    def legs(self) -> Iterator[Leg]:
        """Yield what is left of the path, in its order."""
        start = self.price
        for number in range(self._leg, 3):
            end = self._corners[number + 1]
            yield Leg(number, start, end)
            start = end

    def time_at(self, leg: int, price: Decimal) -> int:
        """Return when the path is at ``price`` on ``leg``: after the anchor, before the close."""
        start_ms, stop_ms = self._moving()
        to_go = self._offsets[-1] - self._anchor
        ahead = self._distance(leg, price) - self._anchor
        share = ahead / to_go if to_go else ZERO
        when = start_ms + int(share * (stop_ms - start_ms))
        return min(max(when, self._anchor_ms + 1), self._end_ms - 1)

    def arrive(self, leg: int, price: Decimal, now_ms: int) -> None:
        """Go to the place of an event, which happens at ``now_ms``."""
        self._go(leg, price)
        self._anchor_ms = now_ms
        self._anchor = self._distance(leg, price)

    def drift(self, now_ms: int, before: tuple[int, Decimal] | None) -> None:
        """Go to where the price is at ``now_ms``, but not past ``before``, the next event."""
        start_ms, stop_ms = self._moving()
        if now_ms <= start_ms:
            return
        share = Decimal(min(now_ms, stop_ms) - start_ms) / max(1, stop_ms - start_ms)
        target = self._anchor + share * (self._offsets[-1] - self._anchor)
        if before is not None:
            target = min(target, self._distance(*before))
        leg = next((k for k in range(3) if target < self._offsets[k + 1]), 2)
        start, end = self._corners[leg], self._corners[leg + 1]
        ticks = ((target - self._offsets[leg]) / self._tick).to_integral_value(ROUND_FLOOR)
        price = start + ticks * self._tick * (1 if end >= start else -1)
        if self._distance(leg, price) >= self._distance(self._leg, self.price):
            self._go(leg, price)

    def finish(self) -> None:
        """Go to the close."""
        self._go(2, self._corners[3])

    def _moving(self) -> tuple[int, int]:
        """Return when the price moves on and when it is at the close.

        That leaves time after the last place of the path, for what else happens there.
        """
        left = self._end_ms - self._anchor_ms
        start_ms = self._anchor_ms + min(self._still_ms, left // 16)
        return start_ms, min(self._end_ms - left // 16, self._end_ms - 1)

    def _distance(self, leg: int, price: Decimal) -> Decimal:
        return self._offsets[leg] + abs(price - self._corners[leg])

    def _go(self, leg: int, price: Decimal) -> None:
        for corner in self._corners[self._leg + 1 : leg + 1]:
            self._touch(corner)
        self._touch(price)
        self._leg = leg

    def _touch(self, price: Decimal) -> None:
        self.price = price
        self.high = max(self.high, price)
        self.low = min(self.low, price)
