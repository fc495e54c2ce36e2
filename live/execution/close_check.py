"""Whether what is held has its close orders, of a strategy that closes position by position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from core.orders import OrderKind
from engine.contract import CycleState
from live.exchange.port import Clock
from live.execution.books import LiveSession
from live.execution.order_desk import OrderDesk
from live.execution.order_register import OrderState
from live.health.cycle_events import CycleStrategy
from live.health.events import Events, Notice

LAG_S: Final = 2.0
"""Until a second look at the open orders."""
ALLOWED_ORDERS: Final = 2.0
"""So many entries' quantity may be without a close order, or closed twice."""


class CloseCheck:
    """Compares what is held with the close orders that rest, once a step.

    A difference is one that lasts: at the end of two steps in a row, and at a second look.

    Args:
        session: the ledger and the orders.
        desk: looks at the open orders.
        clock: for waiting.
        lay_again: offers again what was refused.
        events: what a person should hear of is published there.
    """

    def __init__(
        self,
        session: LiveSession,
        desk: OrderDesk,
        clock: Clock,
        lay_again: Callable[[], None],
        events: Events,
    ) -> None:
        self._session, self._desk, self._clock = session, desk, clock
        self._lay_again, self._events = lay_again, events
        self._since_bar: int | None = None
        self._is_wrong = False

    def is_wrong(self) -> bool:
        """Return whether close orders lack, or are too many; then they are laid again.

        Raises:
            GridError: the exchange could not be asked.
        """
        bar = self._session.progress.bar
        if abs(self._lacking()) <= self._allowed():
            self._since_bar, self._is_wrong = None, False
            return False
        if self._since_bar is None:
            self._since_bar = bar
        if bar == self._since_bar:
            return False
        if not self._is_wrong:
            self._clock.sleep(LAG_S)
            self._desk.refresh()
            self._is_wrong = abs(self._lacking()) > self._allowed()
            if self._is_wrong:
                self._events.publish(
                    Notice(
                        f"close orders for {self._lacking():g} lack since the last step: nothing "
                        "is entered, and they are laid again"
                    )
                )
        self._lay_again()
        return self._is_wrong

    def _lacking(self) -> float:
        """Return what is held without a close order, base; negative: they close more."""
        resting = sum(
            record.rest
            for record in self._session.orders.alive(OrderKind.TAKE_PROFIT)
            if record.state is OrderState.OPEN
        )
        return self._state.to_close - resting

    def _allowed(self) -> float:
        return ALLOWED_ORDERS * self._state.order_qty * (1.0 + 1e-9)

    @property
    def _state(self) -> CycleState:
        return cast("CycleStrategy", self._session.strategy).cycle_state()
