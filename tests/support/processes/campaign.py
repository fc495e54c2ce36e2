"""A time of faults that sessions of one or two coins on one account go through, watched.

Every campaign asks the same: no position without a stop for longer than allowed, no health file
that calls such a side in order, no order twice, no fill lost, and ledgers equal to the account.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pandas as pd

from live.session.shutdown import Ending
from live.simulated.faults import FaultPlan
from live.store.trade_files import LiveTrade
from tests.support.processes.live_session import Scene
from tests.support.processes.tally import note
from tests.support.processes.two_coins import join_other, run_together, watch
from tests.support.processes.watched_day import (
    assert_books_agree,
    assert_nothing_twice,
    assert_one_order_a_fill,
    errors_of,
    finish,
)

Market = tuple[pd.DataFrame, list[tuple[int, float]]]


class Campaign:
    """Sessions on one account, and who watches them.

    Args:
        scenes: one a coin.
        known_after_ms: after so long without a stop a health file must say so.

    Attributes:
        observer: of every coin's positions and health file.
        doubled: open entries at the price of another one of the same coin.
    """

    def __init__(self, scenes: list[Scene], known_after_ms: float) -> None:
        self.scenes, self.exchange = scenes, scenes[0].exchange
        self.doubled: list[str] = []
        self._looks: list[Callable[[], None]] = [self._look_for_doubles]
        for hook in ("before_request", "after_request"):
            setattr(self.exchange, hook, self._look)
        self.observer = watch(scenes, round(known_after_ms))

    @property
    def scene(self) -> Scene:
        """The first coin's session."""
        return self.scenes[0]

    @property
    def faults(self) -> FaultPlan:
        """The faults of the exchange, which all sessions meet."""
        return self.exchange.faults

    @property
    def errors(self) -> int:
        """How many errors the session with most of them has counted."""
        return max(errors_of(scene) for scene in self.scenes)

    def at_requests(self, look: Callable[[], None]) -> None:
        """Let ``look`` be called before and after every request."""
        self._looks.append(look)

    def _look(self, *_: Any) -> None:
        for look in self._looks:
            look()

    def _look_for_doubles(self) -> None:
        for market in self.exchange.markets.values():
            entries = Counter(
                (order.position_side, order.price)
                for order in market.book.open_orders.values()
                if not order.closes
            )
            at = f"{market.symbol} at {self.exchange.now_ms}"
            self.doubled += [f"{place} of {at}" for place, n in entries.items() if n > 1]

    def run_to(self, bar: int) -> None:
        """Run until the step of candle ``bar`` is done, in every session."""
        self._run(lambda scene: scene.run_to(bar))

    def run_until(self, ts_ms: int) -> None:
        """Run until ``ts_ms``, as if a signal came then to every session."""
        self._run(lambda scene: scene.run_until(ts_ms))

    def _run(self, run: Callable[[Scene], object]) -> None:
        together = len(self.scenes) > 1
        endings = run_together(self.scenes, run) if together else [run(self.scene)]
        assert endings == [Ending.ASKED] * len(self.scenes)

    def checked_trades(self, longest_ms: float, *, fills_whole: bool = True) -> list[LiveTrade]:
        """Return every session's trades after a last undisturbed look, all that must hold checked.

        Args:
            longest_ms: how long a position may have been without a stop.
            fills_whole: no order fills in parts.
        """
        note(
            coins=len(self.scenes),
            poll_s=float(self.scene.plan.settings["poll_s"]),
            faults=sum(self.faults.injected.values()),
            longest_ms=self.observer.longest_ms,
        )
        self.observer.assert_protected(longest_ms)
        found = []
        for scene in self.scenes:
            end, trades = finish(scene)
            assert_books_agree(end, trades)
            assert_nothing_twice(end)
            if fills_whole:
                assert_one_order_a_fill(trades)
            found += trades
        assert self.doubled == []
        return found


@contextmanager
def campaign(
    stage: AbstractContextManager[Scene], known_after_ms: float, other: Market | None = None
) -> Iterator[Campaign]:
    """Yield the session of ``stage`` and, where there is an ``other`` market, one for that."""
    with stage as scene:
        scenes = [scene] if other is None else [scene, join_other(scene, *other)]
        yield Campaign(scenes, known_after_ms)
