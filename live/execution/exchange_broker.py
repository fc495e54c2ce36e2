"""Carries decisions out on an exchange."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from core.errors import ExchangeError, GridError, StateError, UnknownOutcome
from core.orders import POSITION_SIDES, OrderKind
from engine.contract import Exit
from live.exchange.port import Clock, Exchange
from live.exchange.types import CancelResult, MarketFacts, SidePosition
from live.execution.books import LiveSession
from live.execution.close_check import CloseCheck
from live.execution.dead_man import DeadMan
from live.execution.entry_permission import EntryPermission
from live.execution.fills import Fills
from live.execution.limit_orders import LIMITS, RestingOrders
from live.execution.market_exits import MarketExits
from live.execution.order_desk import OrderDesk
from live.execution.position_check import PositionCheck
from live.execution.position_stops import PositionStops
from live.execution.risk_gate import RiskGate
from live.execution.stop_orders import StopOrders
from live.execution.symbol_facts import SymbolFacts
from live.feed.funding_rates import FundingRates
from live.health.events import Events, Notice
from live.health.monitor import HealthMonitor

LOOK_KEPT_MS: Final = 1_500
"""How long the look at the open orders, with which a watch begins, may be ago when it lays some."""
ASK_MS: Final = 300_000
"""Between two questions for trades while the open orders show none."""
LOT_SLACK: Final = 1e-9
PRICE_KEPT_MS: Final = 2_000
"""How old the price may be by which limits are judged passive; the exchange refuses the others."""


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
        self._exchange, self._session = exchange, session
        self._facts = SymbolFacts(facts, exchange, clock, session.log)
        self._clock, self._monitor, self._events = clock, monitor, events
        self._desk = OrderDesk(
            exchange,
            session.orders,
            session.save,
            events,
            session.progress.foreign_orders,
            clock,
            self._facts,
            late_ms,
            session.log,
        )
        self._dead_man = DeadMan(exchange, self._desk, clock, events, session.log)
        self.fills = Fills(exchange, session, self._desk, rates, mark, events, self._facts)
        self._exits = MarketExits(session, self._desk, self.fills, self._facts, clock)
        self._stops: StopOrders | PositionStops
        if session.strategy.stops_positions:
            self._stops = PositionStops(
                session, self._desk, self.fills, self._exits, self._facts, clock, events
            )
        else:
            self._stops = StopOrders(
                exchange, session, self._desk, self.fills, self._exits, self._facts, clock, events
            )
        permission = EntryPermission(exchange, self._desk, self._facts, clock, events, session.log)
        self._resting = RestingOrders(
            self._recent_price,
            session,
            self._desk,
            self.fills,
            self._stops,
            self._facts,
            permission,
            self._dead_man,
            gate,
            events,
        )
        closes = CloseCheck(session, self._desk, clock, self._resting.forget_refusals, events)
        self._positions = PositionCheck(
            exchange, session, self.fills, self._facts, monitor, clock, events, closes.is_wrong
        )
        self._price_ms, self._price = clock.now_ms(), 0.0
        self._poll_ms = poll_ms
        self._asked_ms: int | None = None
        self._note_rules()

    def _note_rules(self) -> None:
        """Keep the rules with the state: a restart lays its stops by them before it asks.

        Where they were others when it was saved, the strategy decides by those of now.
        """
        rules, progress = self._facts.rules, self._session.progress
        now = {
            name: float(getattr(rules, name))
            for name in ("tick_size", "step_size", "min_qty", "min_notional")
        }
        if progress.rules and progress.rules != now:
            self._session.strategy.use_rules(rules)
        progress.rules = now

    @property
    def lot(self) -> float:
        """Lot of the symbol, base."""
        return self._facts.rules.step_size

    def protect(self) -> None:
        """Lay the stops of what the saved session holds, and ask nothing that can wait.

        Raises:
            GridError: a side may be without a stop.
        """
        _ask_each(self._desk.resolve, self._look, self._keep_stops)

    def _keep_stops(self) -> None:
        self._stops.keep()
        self._stops.tidy()

    def settle(self, until_ms: int) -> None:
        """Take in fills before ``until_ms`` and funding up to it."""
        self._desk.resolve()
        self.fills.take_before(until_ms)

    def price(self, bar: int) -> float:  # noqa: ARG002 - the last price is that of the step
        """Return the last traded price."""
        return self.mark()

    def mark(self) -> float:
        """Return the last traded price."""
        self._price = self._exchange.last_price()
        self._price_ms = self._clock.now_ms()
        return self._price

    def price_since(self, ts_ms: int) -> float | None:
        """Return the price if it was asked for at ``ts_ms`` or later, ms UTC."""
        return self._price if self._price > 0.0 and self._price_ms >= ts_ms else None

    def _recent_price(self) -> float:
        """Return the last traded price, which may be ``PRICE_KEPT_MS`` old."""
        is_recent = 0 <= self._clock.now_ms() - self._price_ms <= PRICE_KEPT_MS
        return self._price if self._price > 0.0 and is_recent else self.mark()

    def open_bar(self, bar: int, price: float) -> None:  # noqa: ARG002 - asked of the account
        """Take in what filled since the bar opened, and move the stops after it."""
        self.fills.take_held()
        self._stops.keep()

    def finish_exits(self) -> None:
        """See :meth:`live.execution.market_exits.MarketExits.finish`.

        Where a step is taken up again, what filled since the bar opened comes before that; and a
        position has its stop whatever becomes of the exits.
        """
        self.fills.take_held()
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

        Where the next bar has begun its step does that. Trades, which cost most to ask for, are
        asked for where the open orders show that something has traded, and every five minutes.
        """
        self._desk.resolve()
        has_traded = self._desk.refresh() or self._desk.has_changed
        if (has_traded or self._is_asking_due()) and self._take_present():
            return
        if self._session.orders.alive(OrderKind.EXIT):
            self._stops.keep()
            self._exits.finish()
        self._refresh_facts()
        self._resting.lay_out(LOOK_KEPT_MS)
        if self.fills.foreign_closes:
            self._positions.check()
        self._dead_man.renew()

    def _take_present(self) -> bool:
        """Book what was traded in this bar; return whether there is more, of the next one."""
        has_more = self.fills.take_present()
        self._asked_ms, self._desk.has_changed = self._clock.now_ms(), False
        return has_more

    def _is_asking_due(self) -> bool:
        if self._asked_ms is None:
            return True
        return not 0 <= self._clock.now_ms() - self._asked_ms < ASK_MS

    def _refresh_facts(self) -> None:
        """Read the rules again where that is due; a person hears what has changed."""
        before = self._facts.rules
        changed = self._facts.refresh()
        if self._facts.rules.brackets != before.brackets:
            self._session.strategy.use_rules(self._facts.rules)
        if changed:
            self._resting.forget_refusals()
            self._note_rules()
            self._events.publish(Notice(f"the exchange's rules have changed: {changed}"))

    def renew(self) -> None:
        """Keep the exchange's countdown running while limit orders rest."""
        self._dead_man.renew()

    def renew_in_s(self) -> float:
        """Return the seconds until ``renew`` is due, infinity where it is not needed."""
        return self._dead_man.due_s()

    @property
    def unprotected(self) -> frozenset[str]:
        """The sides that had no stop at the last look."""
        return self._stops.unprotected

    def hold_entries(self, *, off: bool) -> None:
        """Lay no entries, and take off those that rest, until further notice."""
        self._resting.entries_off = off

    def patience_s(self) -> float:
        """Return how long the next look may wait.

        Until orders of unknown outcome can be found out about; where a side lacks its stop 1, 2,
        4, ... s.
        """
        waits = [self._desk.wait_s(), self._stops.pause_s]
        return min((wait_s for wait_s in waits if wait_s), default=math.inf)

    def check_positions(self) -> None:
        """See :meth:`live.execution.position_check.PositionCheck.check`."""
        self._positions.check()

    def secure(self) -> None:
        """Have every position its stop, whatever the rest of a step waits for.

        Fills are booked as far as they are listed, those of a bar whose step is owed included. No
        question that is refused keeps the stops from being laid. Entries go where they are off.

        Raises:
            GridError: the first question that was refused.
        """
        _ask_each(self._desk.resolve, self._look, self._take_and_protect, self._drop_entries)

    def _look(self) -> None:
        self._desk.refresh(is_leaving=True)

    def _drop_entries(self) -> None:
        """Take the entries off that may not rest now."""
        entries = self._session.orders.alive(OrderKind.ENTRY)
        if self._resting.entries_off and entries:
            self._desk.cancel(entries)

    def _take_and_protect(self) -> set[str] | None:
        """Book what was traded, and have stops even where that fails; see ``StopOrders.keep``."""
        try:
            self.fills.take()
        except GridError:
            self._stops.keep()
            raise
        unclear = self._stops.keep()
        self._stops.tidy()
        return unclear

    def withdraw(self) -> None:
        """Cancel entries and take-profits; positions have their stops.

        Raises:
            UnknownOutcome: some may still be open, or a position may have no stop.
            StateError: none is, but that could not be written down.
        """
        failure: GridError | None = None
        results = [CancelResult.STUCK]

        def cancel() -> None:
            results[0] = self._cancel_limits()

        for action in (cancel, self._take_and_protect, self._session.save):
            try:
                action()
            except GridError as error:
                failure = error if isinstance(error, StateError) else failure or error
        if isinstance(failure, StateError):
            raise failure
        _refuse_stuck(results[0])
        if failure is not None:
            raise failure
        if self._stops.looks:
            sides = " and ".join(sorted(self._stops.unprotected)) or "a position"
            raise UnknownOutcome(f"{sides} may be without a stop")

    def _cancel_limits(self) -> CancelResult:
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
        self.fills.take()
        for position_side in POSITION_SIDES:
            wanted = self._exits.all_of(position_side)
            if wanted and not self._session.orders.alive(
                OrderKind.EXIT, position_side=position_side
            ):
                self._exits.intend(position_side, label, wanted)
        self._refresh_facts()
        self._exits.finish()
        account = self._drop_stops()
        self._session.save()
        self._report_dust(account)
        _refuse_stuck(result)

    def _report_dust(self, account: Mapping[str, SidePosition]) -> None:
        """Say what is left that is smaller than the exchange's lot.

        Where the lot has grown the ledger, which counts in lots of now, may call it nothing.
        """
        for name in POSITION_SIDES:
            left = sum(fill.qty for fill in self._session.strategy.fills(name))
            if account[name].qty < self._facts.rules.step_size * (1.0 - LOT_SLACK):
                left = account[name].qty
            if left > 0.0:
                self._events.publish(
                    Notice(
                        f"{left:g} of {name} are left: less than the exchange's lot of "
                        f"{self._facts.rules.step_size:g}; close them on its page"
                    )
                )

    def _drop_stops(self) -> Mapping[str, SidePosition]:
        """Cancel the stops of what is closed; return what the account holds.

        Raises:
            ExchangeError: a side could not be closed; its stop stays.
        """
        strategy, left = self._session.strategy, []
        account = self._exchange.positions()
        for name in POSITION_SIDES:
            least = self._facts.rules.step_size
            if strategy.fills(name) and account[name].qty >= least * (1.0 - LOT_SLACK):
                left.append(name)
                continue
            strategy.cancel(name, keep_stop=False)
            self._desk.cancel(self._session.orders.alive(OrderKind.STOP, position_side=name))
        if left:
            raise ExchangeError(f"{' and '.join(left)} could not be closed; stops stay there")
        return account


def _refuse_stuck(result: CancelResult) -> None:
    if result is CancelResult.STUCK:
        raise UnknownOutcome("some entries or take-profits may still be open")


def _ask_each(*questions: Callable[[], object]) -> None:
    """Ask every question, also after one was refused; only a full disk stops them.

    Raises:
        StateError: the disk does not take the state.
        GridError: the first question that was refused.
    """
    failure: GridError | None = None
    for question in questions:
        try:
            question()
        except StateError:
            raise
        except GridError as error:
            failure = failure or error
    if failure is not None:
        raise failure
