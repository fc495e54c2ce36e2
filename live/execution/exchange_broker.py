"""Carries decisions out on an exchange."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from core.errors import ExchangeError, GridError, UnknownOutcome
from engine.contract import POSITION_SIDES, Exit, ForeignClose
from live.exchange.port import Clock, Exchange
from live.exchange.types import Fate, MarketFacts, OrderKind
from live.execution.books import LiveSession
from live.execution.fills import Fills
from live.execution.limit_orders import LIMITS, RestingOrders
from live.execution.market_exits import MarketExits
from live.execution.order_desk import OrderDesk
from live.execution.risk_gate import RiskGate
from live.execution.stop_orders import StopOrders
from live.feed.funding_rates import FundingRates
from live.health.events import Events, Notice
from live.health.monitor import HealthMonitor

LAG_S: Final = 2.0
"""How old the exchange's answer to a look at the account may be."""
PRICE_KEPT_MS: Final = 2_000
"""How old the price may be by which limits are judged passive; the exchange refuses the others."""
DISAGREEMENTS: Final = 2
"""Looks at the account in a row that must disagree with the ledger before it is adjusted: a
trade may be listed later than the position it made."""

_MOST_DOUBLINGS: Final = 6  # of the wait between looks after a stop


class ExchangeBroker:
    """A broker that is an exchange; see ``live.execution.broker.Broker``.

    Args:
        exchange: the account.
        session: ledger and orders.
        facts: rules of the symbol.
        rates: settled funding rates.
        mark: price to value funding at, of the candle that ended at an instant (ms UTC).
        clock: for waiting.
        monitor: judges whether ledger and account agree.
        events: of the session.
        gate: is asked before entries are laid.
        late_ms: how long after it was sent the exchange may still take a request.
        poll_ms: between two looks at the account.
    """

    def __init__(
        self,
        exchange: Exchange,
        session: LiveSession,
        facts: MarketFacts,
        rates: FundingRates,
        mark: Callable[[int], float],
        clock: Clock,
        monitor: HealthMonitor,
        events: Events,
        gate: RiskGate,
        late_ms: int,
        poll_ms: int,
    ) -> None:
        self._exchange, self._session, self._facts = exchange, session, facts
        self._clock, self._monitor, self._events = clock, monitor, events
        self._desk = OrderDesk(
            exchange,
            session.orders,
            session.save,
            events,
            session.progress.foreign_orders,
            clock,
            late_ms,
            session.log,
        )
        self._fills = Fills(
            exchange, session, self._desk, rates, mark, events, facts.rules.step_size
        )
        self._exits = MarketExits(session, self._desk, self._fills, facts.rules, clock)
        self._stops = StopOrders(
            exchange, session, self._desk, self._fills, self._exits, facts, clock, events
        )
        self._resting = RestingOrders(
            self._recent_price, session, self._desk, self._fills, self._stops, facts, gate, events
        )
        self._disagreed = 0
        self._price_ms, self._price = clock.now_ms(), 0.0
        self._poll_ms = poll_ms

    def settle(self, until_ms: int) -> None:
        """Take in fills before ``until_ms`` and funding up to it."""
        self._desk.resolve()
        self._fills.take_before(until_ms)

    def price(self, bar: int) -> float:  # noqa: ARG002 - the last price is that of the step
        """Return the last traded price."""
        return self.mark()

    def mark(self) -> float:
        """Return the last traded price."""
        self._price = self._exchange.last_price()
        self._price_ms = self._clock.now_ms()
        return self._price

    def _recent_price(self) -> float:
        """Return the last traded price, which may be ``PRICE_KEPT_MS`` old."""
        is_recent = 0 <= self._clock.now_ms() - self._price_ms <= PRICE_KEPT_MS
        return self._price if self._price > 0.0 and is_recent else self.mark()

    def open_bar(self, bar: int, price: float) -> None:  # noqa: ARG002 - asked of the account
        """Take in what filled since the bar opened, and move the stops after it."""
        self._fills.take_held()
        self._stops.keep()

    def finish_exits(self) -> None:
        """See :meth:`live.execution.market_exits.MarketExits.finish`.

        Where a step is taken up again, what filled since the bar opened comes before that; and a
        position has its stop whatever becomes of the exits.
        """
        self._fills.take_held()
        self._stops.keep()
        self._exits.finish()

    def close(self, exits: Sequence[Exit]) -> None:
        """See :meth:`live.execution.market_exits.MarketExits.close`."""
        self._exits.close(exits)

    def lay_out(self) -> None:
        """See :meth:`live.execution.limit_orders.RestingOrders.lay_out`.

        The open orders as the poll before the step has seen them will do.
        """
        self._resting.lay_out(2 * self._poll_ms)

    def watch(self) -> None:
        """Take fills in and let the orders follow; what is missing is laid again.

        Where the next bar has begun its step does that.
        """
        self._desk.resolve()
        if self._fills.take_present():
            return
        if self._session.orders.alive(OrderKind.EXIT):
            self._stops.keep()
            self._exits.finish()
        self._resting.lay_out()

    def patience_s(self) -> float:
        """Return how long the next look may wait.

        Until orders of unknown outcome can be found out about; where a side lacks its stop 1, 2,
        4, ... s.
        """
        looks = self._stops.looks
        return min(
            self._desk.wait_s() or math.inf,
            2.0 ** min(looks - 1, _MOST_DOUBLINGS) if looks else math.inf,
        )

    def check_positions(self) -> None:
        """Compare ledger and account; adjust the ledger where it holds what is not there.

        What the account holds beyond the ledger is not ours: it is reported and left alone. An
        answer may be some seconds old, so what would be adjusted is looked at once more.
        """
        self._disagreed = self._disagreed + 1 if any(self._surplus().values()) else 0
        if self._disagreed < DISAGREEMENTS:
            return
        self._clock.sleep(LAG_S)
        if self._fills.take():
            return
        for name, qty in self._surplus().items():
            self._give_up(name, qty)

    def _surplus(self) -> dict[str, float]:
        """Return what the ledger holds and the account does not, by direction, base.

        0 where it is the account that holds more.
        """
        view = self._session.strategy.view()
        theirs = {name: side.qty for name, side in self._exchange.positions().items()}
        ours = {name: view.side(name).qty for name in POSITION_SIDES}
        wrong = self._monitor.check_positions(ours, theirs, self._facts.rules.step_size)
        return {name: max(0.0, ours[name] - theirs[name]) for name in wrong}

    def _give_up(self, position_side: str, qty: float) -> None:
        """Book that ``qty`` of a side was closed by somebody else, at the last price."""
        if qty <= 0.0:
            return
        session, price = self._session, self._exchange.last_price()
        session.strategy.book(
            ForeignClose(
                ts_ms=self._clock.now_ms(), position_side=position_side, price=price, qty=qty
            )
        )
        session.collect()
        session.save()
        self._events.publish(
            Notice(
                f"{qty:g} {position_side} of ours is gone from the account; the ledger is "
                f"adjusted at {price:g}"
            )
        )

    def secure(self) -> None:
        """Have every position its stop, whatever the rest of a step waits for.

        Fills are booked as far as they are listed, those of a bar whose step is owed included.
        """
        self._desk.resolve()
        self._desk.refresh()
        self._take_and_protect()

    def _take_and_protect(self) -> set[str] | None:
        """Book what was traded, and have stops even where that fails; see ``StopOrders.keep``."""
        try:
            self._fills.take()
        except GridError:
            self._stops.keep()
            raise
        return self._stops.keep()

    def withdraw(self) -> None:
        """Cancel entries and take-profits; positions have their stops.

        Raises:
            UnknownOutcome: some may still be open, or a position may have no stop.
            StateError: none is, but that could not be written down.
        """
        result = self._cancel_limits()
        try:
            unprotected = self._take_and_protect()
            self._session.save()
        finally:
            _refuse_stuck(result)
        if unprotected:
            raise UnknownOutcome(f"{' and '.join(sorted(unprotected))} may be without a stop")

    def _cancel_limits(self) -> Fate:
        self._desk.resolve()
        self._desk.refresh(is_leaving=True)
        return self._desk.cancel(self._session.orders.alive(*LIMITS))

    def flatten(self, label: str) -> None:
        """Cancel every order of ours and close what the ledger holds; the stops go last.

        Raises:
            UnknownOutcome: entries or take-profits may still be open.
            ExchangeError: a side could not be closed; its stop stays.
        """
        result = self._cancel_limits()
        self._fills.take()
        for position_side in POSITION_SIDES:
            wanted = self._exits.all_of(position_side)
            if wanted and not self._session.orders.alive(OrderKind.EXIT, direction=position_side):
                self._exits.intend(position_side, label, wanted)
        self._exits.finish()
        self._drop_stops()
        self._session.save()
        _refuse_stuck(result)

    def _drop_stops(self) -> None:
        """Cancel the stops of what is closed.

        Raises:
            ExchangeError: a side could not be closed; its stop stays.
        """
        strategy, left = self._session.strategy, []
        account = self._exchange.positions()
        for name in POSITION_SIDES:
            if strategy.fills(name) and account[name].qty > 0.0:
                left.append(name)
                continue
            strategy.cancel(name, keep_stop=False)
            self._desk.cancel(self._session.orders.alive(OrderKind.STOP, direction=name))
        if left:
            raise ExchangeError(f"{' and '.join(left)} could not be closed; stops stay there")


def _refuse_stuck(result: Fate) -> None:
    if result is Fate.STUCK:
        raise UnknownOutcome("some entries or take-profits may still be open")
