"""Whether ledger and account hold the same, and what is done where they do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from core.orders import POSITION_SIDES
from engine.contract import ForeignClose
from live.exchange.port import Clock, Exchange
from live.execution.books import LiveSession
from live.execution.fills import Fills
from live.execution.symbol_facts import SymbolFacts
from live.health.events import Events, Notice
from live.health.monitor import HealthMonitor

LAG_S: Final = 2.0
"""How old the exchange's answer to a look at the account may be."""


class PositionCheck:
    """Compares positions, and gives up what others have closed.

    A position does not go without a trade: where the account holds less than the ledger, the ledger
    is adjusted as far as trades of others explain it, and no further. Until they do the side stays
    protected and the difference is reported.

    Args:
        exchange: the account.
        session: the ledger.
        fills: knows the trades of others.
        facts: rules of the symbol.
        monitor: judges whether both agree, and reports it.
        clock: for waiting.
        events: what a person should hear of is published there.
        closes_differ: whether close orders lack, or are too many; asked once a step.
    """

    def __init__(
        self,
        exchange: Exchange,
        session: LiveSession,
        fills: Fills,
        facts: SymbolFacts,
        monitor: HealthMonitor,
        clock: Clock,
        events: Events,
        closes_differ: Callable[[], bool],
    ) -> None:
        self._exchange, self._session, self._fills = exchange, session, fills
        self._facts, self._monitor, self._clock = facts, monitor, clock
        self._events, self._closes_differ = events, closes_differ

    def check(self) -> None:
        """Compare, and adjust the ledger where a second look and trades of others agree.

        What the account holds beyond the ledger is not ours: it is reported and left alone.

        Raises:
            GridError: the exchange could not be asked, or the disk refused.
        """
        first = self._surplus()
        if not any(first.values()):
            self._fills.foreign_closes.clear()
            if first and self._session.strategy.stops_positions:
                self._clock.sleep(LAG_S)
                first = self._surplus()
            self._judge(differs=bool(first))
            return
        self._fills.take()
        if not self._fills.foreign_closes:
            self._clock.sleep(LAG_S)  # a trade may be listed later than the position it made
            self._fills.take()
        for name, qty in self._surplus().items():
            if name in first and qty > 0.0:
                self._give_up(name, qty)
        self._judge(differs=bool(self._surplus()))

    def _judge(self, *, differs: bool) -> None:
        """Let the strategy know whether it may enter; one whose stops are a side's enters."""
        strategy = self._session.strategy
        if strategy.stops_positions:
            closes_differ = self._closes_differ()
            strategy.set_mismatch(is_wrong=differs or closes_differ)

    def _surplus(self) -> dict[str, float]:
        """Return what the ledger holds and the account does not, by position side, base.

        0 where it is the account that holds more.
        """
        view = self._session.strategy.view()
        theirs = {name: side.qty for name, side in self._exchange.positions().items()}
        ours = {name: view.side(name).qty for name in POSITION_SIDES}
        wrong = self._monitor.check_positions(ours, theirs, self._facts.rules.step_size)
        return {name: max(0.0, ours[name] - theirs[name]) for name in wrong}

    def _give_up(self, position_side: str, qty: float) -> None:
        """Book what others have closed of a side, at their prices, at most ``qty``."""
        left, step = qty, self._facts.rules.step_size
        for closed, price in self._fills.foreign_closes.pop(position_side, []):
            part = min(closed, left)
            if part < step / 2:
                continue
            left -= part
            self._session.strategy.book(
                ForeignClose(
                    ts_ms=self._clock.now_ms(), position_side=position_side, price=price, qty=part
                )
            )
            self._events.publish(
                Notice(
                    f"{part:g} {position_side} of ours is gone from the account; the ledger is "
                    f"adjusted at {price:g}"
                )
            )
        if left < qty:
            self._session.collect()
            self._session.save()
        if left >= step / 2:
            self._session.log.warning(
                "%s: the account holds %g less than the ledger, and no trade explains it; it stays "
                "protected",
                position_side,
                left,
            )
