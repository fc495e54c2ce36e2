"""How many requests may still be sent: below the exchange's limits, never into a ban.

The exchange counts request weight per minute and address, and orders per ten seconds and per
minute and account, in windows of its own clock, and reports the counts with every reply. Going on
after it has said «too many» (429) earns a ban (418) of two minutes to three days.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from typing import Final, final

from core.errors import RateLimitError
from live.exchange.errors import HttpReply
from live.exchange.port import Clock

LONGEST_WAIT_S: Final = 65.0
"""A longer one is the caller's to decide on: one minute's window, with room to spare."""
URGENT_SHARE: Final = 0.95
"""Share of the weight that orders and cancels may use: a stop does not wait for candles."""

_log: Final = logging.getLogger("live.exchange.binance")
_LONGEST_WAIT_MS: Final = round(1_000 * LONGEST_WAIT_S)
_MARGIN_MS: Final = 250  # our clock may be that much ahead of the exchange's
_BANNED: Final = 418
_BAN_S: Final = 120.0  # the shortest ban
_MINUTE_S: Final = 60.0
_COUNT: Final = re.compile(r"[0-9]{1,12}")
_UNTIL: Final = re.compile(r"until (\d{13})")


class _Window:
    """One counter of the exchange."""

    def __init__(self, header: str, span_ms: int, limit: int) -> None:
        self.header, self.span_ms, self.limit = header, span_ms, limit
        self._used, self._number = 0, -1

    def used(self, now_ms: int) -> int:
        return self._used if now_ms // self.span_ms == self._number else 0

    def set(self, used: int, now_ms: int) -> None:
        self._used, self._number = used, now_ms // self.span_ms

    def left_ms(self, now_ms: int) -> int:
        return self.span_ms - now_ms % self.span_ms


@final
class RequestBudget:
    """Waits before a request that would go over the share of the limits we allow ourselves.

    Several connections may share one, each in its thread: what they use counts together.
    """

    def __init__(self, clock: Clock, server_ms: Callable[[], int], share: float) -> None:
        """Begin with nothing used.

        Args:
            clock: where waiting happens.
            server_ms: returns the exchange's time, ms UTC; its windows follow it.
            share: of each limit that may be used.
        """
        self._clock, self._server_ms, self._share = clock, server_ms, share
        self._weight = _Window("x-mbx-used-weight-1m", 60_000, 2_400)
        self._orders_10s = _Window("x-mbx-order-count-10s", 10_000, 300)
        self._orders_1m = _Window("x-mbx-order-count-1m", 60_000, 1_200)
        self._lock = threading.Lock()
        self._paused_ms, self._paused_at_ms = 0, 0
        """How long nothing may be sent, and when that was so; our clock may be set back."""

    @property
    def weight_1m(self) -> int:
        """Request weight used in this minute."""
        return self._weight.used(self._server_ms())

    @property
    def orders_10s(self) -> int:
        """Orders sent in these ten seconds."""
        return self._orders_10s.used(self._server_ms())

    @property
    def orders_1m(self) -> int:
        """Orders sent in this minute."""
        return self._orders_1m.used(self._server_ms())

    def wait_for(self, weight: int, orders: int = 0, *, urgent: bool = False) -> None:
        """Wait until a request fits, and count it.

        Args:
            weight: of the request.
            orders: it places.
            urgent: whether it may use the weight up to ``URGENT_SHARE``.

        Raises:
            RateLimitError: the exchange bans us for longer than ``LONGEST_WAIT_S``.
        """
        self._wait_for_pause()
        share = max(self._share, URGENT_SHARE) if urgent else self._share
        self._reserve(self._weight, weight, share)
        if orders:
            self._reserve(self._orders_10s, orders, self._share)
            self._reserve(self._orders_1m, orders, self._share)

    def note(self, headers: Mapping[str, str]) -> None:
        """Take the counts out of a reply's headers; they are the truth."""
        now_ms = self._server_ms()
        counts = {name.lower(): value for name, value in headers.items()}
        with self._lock:
            for window in (self._weight, self._orders_10s, self._orders_1m):
                count = counts.get(window.header, "")
                if _COUNT.fullmatch(count):
                    window.set(int(count), now_ms)

    def pause(self, seconds: float) -> None:
        """Send nothing for ``seconds``."""
        left_ms = self._pause_left_ms()
        with self._lock:
            self._paused_ms = max(left_ms, int(seconds * 1_000))

    def _pause_left_ms(self) -> int:
        """Return how long nothing may be sent, ms; a clock set back does not make it longer."""
        now_ms = self._clock.now_ms()
        with self._lock:
            self._paused_ms = max(0, self._paused_ms - max(0, now_ms - self._paused_at_ms))
            self._paused_at_ms = now_ms
            return self._paused_ms

    def _wait_for_pause(self) -> None:
        left_ms = self._pause_left_ms()
        left_s = left_ms / 1_000
        if left_s > LONGEST_WAIT_S:
            raise RateLimitError(
                f"the exchange bans this address for another {left_s:.0f} s after too many "
                "requests; nothing is sent until then",
                left_s,
            )
        if left_ms > 0:
            _log.warning("waiting %.0f s as the exchange demands", left_s)
            wait_until(self._clock, self._paused_at_ms + left_ms)

    def _reserve(self, window: _Window, cost: int, share: float) -> None:
        """Wait for the window's end if ``cost`` does not fit; an empty window takes anything."""
        with self._lock:
            now_ms = self._server_ms()
            used = window.used(now_ms)
            fits = not used or used + cost <= window.limit * share
            if fits:
                window.set(used + cost, now_ms)
        if not fits:
            wait_ms = window.left_ms(self._server_ms()) + _MARGIN_MS
            _log.warning(
                "waiting %.1f s: %d of %d used (%s)",
                wait_ms / 1_000,
                used,
                window.limit,
                window.header,
            )
            wait_until(self._clock, self._clock.now_ms() + wait_ms)
            with self._lock:
                now_ms = self._server_ms()
                window.set(window.used(now_ms) + cost, now_ms)


def wait_until(clock: Clock, until_ms: int) -> None:
    """Wait until our clock shows ``until_ms``, at most ``LONGEST_WAIT_S``.

    A clock may wake its sleepers early, as at a signal: the rest is waited all the same, as what
    is waited for here would be wrong if it were done sooner. A clock may also be set, before the
    wait or in it; one that has gone back by what it shows has slept as long as it was to.
    """
    left_ms = min(until_ms - clock.now_ms(), _LONGEST_WAIT_MS)
    while left_ms > 0:
        before_ms = clock.now_ms()
        clock.sleep(left_ms / 1_000)
        slept_ms = clock.now_ms() - before_ms
        left_ms -= slept_ms if slept_ms >= 0 else left_ms


def demanded_wait(reply: HttpReply, server_ms: int) -> float:
    """Return the seconds a «too many requests» reply demands, never 0.

    Args:
        reply: status 429, 418, or an order limit's -1015.
        server_ms: the exchange's time, ms UTC.
    """
    headers = {name.lower(): value for name, value in reply.headers.items()}
    asked_s = headers.get("retry-after", "")
    if _COUNT.fullmatch(asked_s) and int(asked_s) > 0:
        return float(asked_s)
    until = _UNTIL.search(reply.body)
    if until and int(until[1]) > server_ms:
        return (int(until[1]) - server_ms) / 1_000
    if reply.status == _BANNED:
        return _BAN_S
    return 10.0 if "10 SECOND" in reply.body else _MINUTE_S
