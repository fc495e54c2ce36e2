"""Takes what happened on the account into the ledger: executions and funding, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Final

from core.orders import POSITION_SIDES, OrderKind
from core.times import MINUTE_MS
from engine.contract import (
    Fill,
    ForeignClose,
    FundingPaid,
    Liquidation,
    LiquidationDecided,
    StopFired,
)
from live.exchange.closing_orders import Closer, closer_of
from live.exchange.port import Exchange
from live.exchange.types import Execution, FundingPayment
from live.execution.books import LiveSession
from live.execution.order_desk import OrderDesk
from live.execution.order_register import BEGINS_LIQUIDATION, BEGINS_STOP, OrderRecord, OrderState
from live.execution.symbol_facts import SymbolFacts
from live.feed.funding_rates import FundingRates
from live.health.events import Events, Notice

OVERLAP_MS: Final = 10 * 60_000
"""So long after it happened a trade may be listed, also after younger ones."""


class Fills:
    """The way from the account to the ledger.

    Args:
        exchange: what is asked.
        session: ledger, orders and cursors.
        desk: looks orders up whose identity at the exchange is not known yet.
        rates: settled funding rates.
        mark: price to value funding at, of the candle that ended at an instant (ms UTC).
        events: what a person should hear of is published there.
        facts: rules of the symbol.
    """

    def __init__(
        self,
        exchange: Exchange,
        session: LiveSession,
        desk: OrderDesk,
        rates: FundingRates,
        mark: Callable[[int], float],
        events: Events,
        facts: SymbolFacts,
    ) -> None:
        self._exchange, self._session, self._desk = exchange, session, desk
        self._rates, self._mark, self._events = rates, mark, events
        self._facts = facts
        self._held: list[Execution] = []
        self.foreign_closes: dict[str, list[tuple[float, float]]] = {}
        """(base, price) that others have closed of a side and the ledger has not given up yet."""

    def take(self) -> bool:
        """Book what was traded and save; return whether anything was.

        Raises:
            StateError: it could not be saved.
            GridError: the exchange could not be asked.
        """
        self._held = []
        return self._book_all(self._ask(), [])

    def take_before(self, until_ms: int) -> None:
        """Book what was traded before ``until_ms`` and the funding up to it, and save.

        What was traded later is kept for ``take_held``.

        Raises:
            StateError: it could not be saved.
            GridError: the exchange could not be asked.
        """
        executions = self._ask()
        earlier = [execution for execution in executions if execution.ts_ms < until_ms]
        self._held = [execution for execution in executions if execution.ts_ms >= until_ms]
        self._book_all(earlier, self._new_payments(until_ms))

    def take_present(self) -> bool:
        """Book what was traded in the bar of the newest step; return whether there is more.

        What belongs to the next bar is booked by its step, which knows that bar's regime.

        Raises:
            StateError: it could not be saved.
            GridError: the exchange could not be asked.
        """
        executions, end_ms = self._ask(), (self._session.progress.bar + 1) * self._session.bar_ms
        present = [execution for execution in executions if execution.ts_ms < end_ms]
        self._book_all(present, [])
        return len(present) < len(executions)

    def take_held(self) -> None:
        """Book what ``take_before`` kept, and save."""
        held, self._held = self._held, []
        self._book_all(held, [])

    def _ask(self) -> list[Execution]:
        """Return the trades that are not booked; one may be listed after a younger one."""
        progress = self._session.progress
        since_ms = max(progress.start_ms, progress.trade_ms - OVERLAP_MS)
        if not progress.last_trade_id:
            return self._exchange.executions(0, progress.start_ms)
        if not progress.trade_ms:  # written by a version that knew no more than the newest id
            return self._exchange.executions(progress.last_trade_id + 1, progress.start_ms)
        return [
            execution
            for execution in self._exchange.executions_since(since_ms)
            if not progress.has_booked(execution.trade_id)
        ]

    def _book_all(self, executions: list[Execution], payments: list[FundingPayment]) -> bool:
        changed = False
        for group in _in_time(executions, payments):
            if isinstance(group, Execution):
                self._book(group)
            else:
                self._book_payments(group)
            changed = True
        if changed:
            self._session.strategy.restore_stops()
            self._session.save()
        return changed

    # --- executions -------------------------------------------------------------------------------

    def _book(self, execution: Execution) -> None:
        session = self._session
        if session.progress.has_booked(execution.trade_id):
            return
        record = self._record_of(execution)
        client_id = record.client_id if record is not None else ""
        if record is not None:
            self._book_ours(execution, record)
        else:
            client_id = self._book_foreign(execution)
        session.progress.note_trade(execution.trade_id, execution.ts_ms, OVERLAP_MS)
        session.collect(str(execution.trade_id), client_id, execution.ts_ms)

    def book_past(self, execution: Execution, record: OrderRecord | None) -> None:
        """Book a trade of the time before this process; of others only what they have closed.

        Args:
            execution: the trade.
            record: the order of ours it belongs to; None: it is of none.
        """
        progress = self._session.progress
        if record is not None:
            self._book_ours(execution, record)
            self._session.collect(str(execution.trade_id), record.client_id, is_past=True)
        elif is_closing(execution):
            closes = self.foreign_closes.setdefault(execution.position_side, [])
            closes.append((execution.qty, execution.price))
        progress.note_trade(execution.trade_id, execution.ts_ms, OVERLAP_MS)

    def book_past_funding(self, payment: FundingPayment) -> None:
        """Book a payment of the time before this process."""
        progress = self._session.progress
        paid = FundingPaid(amount=payment.amount, rate=float("nan"), mark=1.0)
        self._session.strategy.book(paid)
        if payment.ts_ms > progress.funding_ms:
            progress.funding_ms, progress.funding_ids = payment.ts_ms, []
        progress.funding_ids.append(payment.income_id)

    def _record_of(self, execution: Execution) -> OrderRecord | None:
        """Return the order an execution belongs to, asking where it is not known by number."""
        orders = self._session.orders
        record = orders.with_order_id(execution.order_id)
        if record is not None:
            return record
        for stop in orders.alive(OrderKind.STOP, position_side=execution.position_side):
            found = self._exchange.find_order(stop.client_id, OrderKind.STOP)
            if found is not None:
                self._desk.adopt(stop, found)
        record = orders.with_order_id(execution.order_id)
        if record is None:
            order = self._exchange.order_by_id(execution.order_id)
            record = orders.get(order.client_id) if order is not None else None
            if record is not None:
                if record.kind is OrderKind.STOP:
                    record.fired_order_id = execution.order_id
                else:
                    record.order_id = execution.order_id
        return record

    def _book_ours(self, execution: Execution, record: OrderRecord) -> None:
        strategy, fill = self._session.strategy, _fill_of(execution, record)
        if record.kind is OrderKind.STOP:
            record.state = OrderState.DONE
        if record.booked_qty == 0.0:
            self._book_beginning(execution, record)
        left = strategy.book(fill)
        record.booked_qty += execution.qty
        if record.kind is not OrderKind.STOP and record.rest < 0.5 * self._facts.rules.step_size:
            record.state = OrderState.DONE
        if left > 0.0:
            self._events.publish(
                Notice(
                    f"trade {execution.trade_id} closed {left:g} {record.position_side} more "
                    "than the ledger holds"
                )
            )

    def _book_beginning(self, execution: Execution, record: OrderRecord) -> None:
        """Book what the first execution of a stop, or of an exit in its place, means.

        Only now: what is decided or sent and not done leaves the side wanted protected.
        """
        strategy = self._session.strategy
        is_new = not self._session.orders.has_begun(record.begins)
        if record.kind is OrderKind.STOP or (is_new and record.begins.startswith(BEGINS_STOP)):
            strategy.book(
                StopFired(record.position_side, execution.ts_ms, record.price, record.owner)
            )
        elif is_new and record.begins.startswith(BEGINS_LIQUIDATION):
            strategy.book(LiquidationDecided())

    def _book_foreign(self, execution: Execution) -> str:
        """Book a trade of no order of ours if the exchange closed; else only report it."""
        order = self._exchange.order_by_id(execution.order_id)
        client_id = order.client_id if order is not None else ""
        text = (
            f"trade {execution.trade_id} ({execution.side} {execution.position_side} "
            f"{execution.qty:g} at {execution.price:g})"
        )
        closer = closer_of(client_id)
        if closer is None or execution.position_side not in POSITION_SIDES:
            self._events.publish(Notice(f"{text} is not of this bot"))
            if is_closing(execution):
                closes = self.foreign_closes.setdefault(execution.position_side, [])
                closes.append((execution.qty, execution.price))
            return ""
        self._events.publish(Notice(f"{text}: {_CLOSED_BY[closer]}"))
        if closer is not Closer.LIQUIDATION:
            self._session.strategy.book(
                ForeignClose(
                    ts_ms=execution.ts_ms,
                    position_side=execution.position_side,
                    price=execution.price,
                    qty=execution.qty,
                    fee=execution.fee,
                )
            )
            return client_id
        self._session.strategy.book(
            Liquidation(
                ts_ms=execution.ts_ms,
                position_side=execution.position_side,
                price=execution.price,
                qty=execution.qty,
                fee=execution.fee,
            )
        )
        return client_id

    # --- funding ----------------------------------------------------------------------------------

    def _new_payments(self, until_ms: int) -> list[FundingPayment]:
        progress = self._session.progress
        since = progress.funding_ms or progress.start_ms
        if self._rates.newest_ms() <= since - since % MINUTE_MS:
            return []
        return [
            payment
            for payment in self._exchange.funding_payments(since)
            if payment.ts_ms <= until_ms
            and payment.income_id not in progress.funding_ids
            and payment.ts_ms >= since
        ]

    def _book_payments(self, payments: list[FundingPayment]) -> None:
        """Book the payments of one instant: both sides' together."""
        session, ts_ms = self._session, payments[0].ts_ms
        progress = session.progress
        amount = sum(payment.amount for payment in payments)
        rate = self._rates.settled(ts_ms)
        if ts_ms == progress.funding_ms:
            rate = 0.0  # the fills had their shares when the instant's first payment came
        session.strategy.book(FundingPaid(amount=amount, rate=rate, mark=self._mark(ts_ms)))
        if ts_ms > progress.funding_ms:
            progress.funding_ms, progress.funding_ids = ts_ms, []
        progress.funding_ids += [payment.income_id for payment in payments]
        self._session.log.info("funding %+.4f USDT at rate %+.6f", amount, rate)


_CLOSED_BY: Final = {
    Closer.LIQUIDATION: "the exchange liquidates",
    Closer.AUTO_DELEVERAGING: "the exchange reduces the position (auto-deleveraging)",
    Closer.SETTLEMENT: "the exchange settles the symbol (delisting)",
}


def is_closing(execution: Execution) -> bool:
    """Return whether a trade reduces the side it is of."""
    return (execution.side == "SELL") == (execution.position_side == "LONG")


def _fill_of(execution: Execution, record: OrderRecord) -> Fill:
    """Return an execution of an order of ours as the strategy books it."""
    price, qty, fee = execution.price, execution.qty, execution.fee
    if record.kind is OrderKind.ENTRY:
        return entry_fill(record, execution.ts_ms, price, qty, fee)
    return Fill(
        ts_ms=execution.ts_ms,
        kind=record.kind,
        position_side=record.position_side,
        price=price,
        qty=qty,
        fee=fee,
        order_price=record.price,
        label=record.label,
        exits=tuple(record.exits),
        booked_qty=record.booked_qty,
        owner=record.owner,
    )


def entry_fill(record: OrderRecord, ts_ms: int, price: float, qty: float, fee: float) -> Fill:
    """Return what an entry order of ours has traded, or will be reported to have."""
    return Fill(
        ts_ms=ts_ms,
        kind=record.kind,
        position_side=record.position_side,
        price=price,
        qty=qty,
        fee=fee,
        level=record.level,
        generation=record.generation,
        owner=record.owner,
    )


def _in_time(
    executions: list[Execution], payments: list[FundingPayment]
) -> Iterable[Execution | list[FundingPayment]]:
    """Yield both in the order of time; at the same instant executions by number come first.

    Executions come by number, but for one that was listed late.
    """
    groups = [
        list(group)
        for _, group in groupby(sorted(payments, key=lambda p: p.ts_ms), key=lambda p: p.ts_ms)
    ]
    for execution in executions:
        while groups and groups[0][0].ts_ms < execution.ts_ms:
            yield groups.pop(0)
        yield execution
    yield from groups
