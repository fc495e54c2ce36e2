"""Virtual time: the price goes along the candles and meets the account's orders.

Time stands still but for ``run_until``. Between two candles the price jumps: while orders meet that
jump the clock stands one millisecond before the new candle, so that a client reacts to them before
it takes the candle for opened; what happens then is stamped with the candle's open time.
"""

from __future__ import annotations

from decimal import Decimal

from live.simulated.bar_path import Bar, BarPath
from live.simulated.market import Candles, FundingSchedule
from live.simulated.matching import Book, Touch
from live.simulated.orders import Order


class Walk:
    """Where time and price stand.

    Attributes:
        now_ms: virtual time, ms UTC.
        funding: the settlements.
        bar: number of the candle that is forming.
        countdown_ms: when the open orders are cancelled (``countdownCancelAll``), 0: never.
        countdown_takes_stops: whether conditional orders go with them.
    """

    def __init__(
        self,
        candles: Candles,
        funding: FundingSchedule,
        book: Book,
        *,
        start_bar: int,
        intrabar_path: str,
        still_ms: int,
    ) -> None:
        """Stand at the open of candle ``start_bar``.

        Args:
            funding: the settlements.
            book: the orders that are met.
            start_bar: the candle that opens now; those before it are history.
            intrabar_path: 'auto', 'low_first' or 'high_first'.
            still_ms: how long the price stands still at an open and after an event.
        """
        if intrabar_path not in {"auto", "low_first", "high_first"}:
            raise ValueError(f"intrabar_path = {intrabar_path!r} is no path")
        self.candles, self.funding = candles, funding
        self._book, self._account = book, book.account
        self._rule, self._still_ms = intrabar_path, still_ms
        self._gap: Decimal | None = None  # the price while it jumps to the next open
        self.countdown_ms = 0
        self.countdown_takes_stops = False
        self.now_ms: int
        self._open_bar(start_bar)

    @property
    def price(self) -> Decimal:
        """Last traded price, which is also the mark."""
        return self._path.price if self._gap is None else self._gap

    @property
    def stamp_ms(self) -> int:
        """The time that is written on what happens now."""
        return self.now_ms if self._gap is None else self._end_ms

    @property
    def is_over(self) -> bool:
        """Whether the last candle has closed; from then on the price stands still."""
        return self.bar + 1 == len(self.candles) and self.now_ms >= self._end_ms

    @property
    def over_ms(self) -> int:
        """How long the last candle has been closed, ms."""
        return self.now_ms - self._end_ms if self.is_over else 0

    def forming(self) -> Bar:
        """Return the newest candle as far as it has come."""
        path = self._path
        volume = path.bar.volume * path.share
        return Bar(path.bar.ts_ms, path.bar.open, path.high, path.low, path.price, volume)

    def run_until(self, ts_ms: int) -> bool:
        """Let time go on to ``ts_ms`` or the next event before that; whether it is reached.

        An event is what changes the account or its orders: an execution, a triggered stop, a
        liquidation.
        """
        while self.now_ms < ts_ms:
            if self._go_on(ts_ms):
                break
        return self.now_ms >= ts_ms

    def next_stop_ms(self, ts_ms: int) -> int:
        """Return when something may happen at the latest ``ts_ms``; until then nothing does."""
        if self.is_over:
            return ts_ms
        if self._gap is not None:
            return self.now_ms + 1
        found, limit = self._next_touch(), min(ts_ms, self._end_ms)
        if found is not None:
            leg, touch = found
            limit = min(limit, self._path.time_at(leg, touch.price))
        return max(limit, self.now_ms + 1)

    def _go_on(self, ts_ms: int) -> bool:
        """Go on to the next event, the end of the candle or ``ts_ms``; whether it was an event."""
        if self.is_over:
            self._pass_time(ts_ms)
            return False
        if self._gap is not None:
            return self._jump()
        found = self._next_touch()
        due = self.funding.next_due(self.now_ms)[0]
        stop_ms = min(ts_ms, self._end_ms, max(due, self.now_ms + 1))
        if self.countdown_ms:
            stop_ms = min(stop_ms, max(self.countdown_ms, self.now_ms + 1))
        if found is not None:
            leg, touch = found
            when = self._path.time_at(leg, touch.price)
            if when <= stop_ms:
                self._path.arrive(leg, touch.price, when)
                self._pass_time(when)
                self._happen(touch, touch.price)
                return True
        if stop_ms < self._end_ms:
            self._path.drift(stop_ms, None if found is None else (found[0], found[1].price))
            self._pass_time(stop_ms)
            return False
        self._close_bar()
        return False

    def _next_touch(self) -> tuple[int, Touch] | None:
        """Return leg and event that the path meets next within its candle."""
        for leg, start, end in self._path.legs():
            touch = self._book.first_touch(start, end)
            last = end if touch is None else touch.price
            lost = self._account.liquidation_between(start, last)
            if lost is not None and (touch is None or lost != touch.price):
                return leg, Touch(lost, None)
            if touch is not None:
                return leg, touch
        return None

    def _pass_time(self, now_ms: int) -> None:
        """Set the clock; settle the funding that has become due, at the price of now."""
        for due_ms, rate in self.funding.between(self.now_ms, now_ms):
            self._account.settle_funding(rate, self.price, due_ms)
        self.now_ms = now_ms
        if self.countdown_ms and now_ms >= self.countdown_ms:
            self.countdown_ms = 0
            self._book.cancel_all(now_ms)
            if self.countdown_takes_stops:
                self._book.cancel_all_stops(now_ms)

    def _happen(self, touch: Touch, basis: Decimal) -> None:
        """Execute what the path has met; a stop at ``basis``."""
        if touch.what is None:
            self._book.liquidate(touch.price, self.stamp_ms)
        elif isinstance(touch.what, Order):
            self._book.fill_limit(touch.what, self.stamp_ms)
        else:
            self._book.trigger(touch.what, basis, self.stamp_ms)

    def _close_bar(self) -> None:
        """End the candle: funding due at its close comes before the jump to the next open."""
        self._path.finish()
        if self.bar + 1 == len(self.candles):
            self._pass_time(self._end_ms)
            return
        self._pass_time(self._end_ms - 1)
        for _, rate in self.funding.between(self._end_ms - 1, self._end_ms):
            self._account.settle_funding(rate, self.price, self._end_ms)
        self._gap = self._path.price

    def _jump(self) -> bool:
        """Let the next order meet the jump to the open; without one open the next candle.

        Limits fill at their price, stops at the open, where also the margin is judged.
        """
        following = self.candles[self.bar + 1].open
        touch = self._book.first_touch(self.price, following)
        if touch is None:
            self._gap = following
            if self._account.liquidation_between(following, following) is not None:
                touch = Touch(following, None)
        if touch is not None:
            self._gap = touch.price
            self._happen(touch, following)
            return True
        self._gap = None
        self._open_bar(self.bar + 1)
        return False

    def _open_bar(self, index: int) -> None:
        bar = self.candles[index]
        self.bar, self.now_ms = index, bar.ts_ms
        self._end_ms = bar.ts_ms + self.candles.step_ms
        self._path = BarPath(bar, self._end_ms, self._rule, self._book.filters.tick, self._still_ms)
