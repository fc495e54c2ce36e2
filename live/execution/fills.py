"""Takes what happened on the account into the ledger: executions and funding, each once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from itertools import groupby, takewhile
from typing import Final

import numpy as np

from core.market import lots_nearest
from core.times import BAR_MS, MINUTE_MS
from engine.book import set_stop
from engine.booking import (
    begin_liquidation,
    begin_stop,
    book_entry,
    book_exit,
    book_funding,
    book_side,
    book_take_profit,
)
from engine.grid_v4.protection import has_position
from engine.types import DIRECTION_NAMES, LIQUIDATION, LONG, SHORT, STOP
from live.exchange.port import Exchange
from live.exchange.types import Execution, FundingPayment, OrderKind
from live.execution.books import LiveSession
from live.execution.order_desk import OrderDesk
from live.execution.order_register import OrderRecord, OrderState
from live.feed.funding_rates import FundingRates

_LOG: Final = logging.getLogger(__name__)
CENT: Final = 0.01
LIQUIDATION_IDS: Final = ("autoclose-", "adl_autoclose")
"""How the exchange names the orders with which it closes what we may no longer hold."""


class Intake:
    """The way from the account to the ledger.

    Args:
        exchange: what is asked.
        session: ledger, orders and cursors.
        desk: looks orders up whose identity at the exchange is not known yet.
        rates: settled funding rates.
        mark: price to value funding at, of the candle that ended at an instant (ms UTC).
        alert: tells a person.
    """

    def __init__(
        self,
        exchange: Exchange,
        session: LiveSession,
        desk: OrderDesk,
        rates: FundingRates,
        mark: Callable[[int], float],
        alert: Callable[[str], None],
    ) -> None:
        self._exchange, self._session, self._desk = exchange, session, desk
        self._rates, self._mark, self._alert = rates, mark, alert
        self._held: list[Execution] = []

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
        earlier = list(takewhile(lambda e: e.ts_ms < until_ms, executions))
        self._held = executions[len(earlier) :]
        self._book_all(earlier, self._new_payments(until_ms))

    def take_present(self) -> bool:
        """Book what was traded in the bar of the newest step; return whether there is more.

        What belongs to the next bar is booked by its step, which knows that bar's regime.

        Raises:
            StateError: it could not be saved.
            GridError: the exchange could not be asked.
        """
        executions, end_ms = self._ask(), (self._session.progress.bar + 1) * BAR_MS
        present = list(takewhile(lambda e: e.ts_ms < end_ms, executions))
        self._book_all(present, [])
        return len(present) < len(executions)

    def take_held(self) -> None:
        """Book what ``take_before`` kept, and save."""
        held, self._held = self._held, []
        self._book_all(held, [])

    def _ask(self) -> list[Execution]:
        progress = self._session.progress
        from_id = progress.last_trade_id + 1 if progress.last_trade_id else 0
        return self._exchange.executions(from_id, progress.start_ms)

    def _book_all(self, executions: list[Execution], payments: list[FundingPayment]) -> bool:
        changed = False
        for group in _in_time(executions, payments):
            if isinstance(group, Execution):
                self._book(group)
            else:
                self._book_payments(group)
            changed = True
        if changed:
            self.keep_stops()
            self._session.save()
        return changed

    # --- executions -------------------------------------------------------------------------------

    def _book(self, execution: Execution) -> None:
        session = self._session
        if execution.trade_id <= session.progress.last_trade_id:
            return
        record = self._record_of(execution)
        session.go_to(execution.ts_ms)
        client_id = record.client_id if record is not None else ""
        if record is not None:
            self._book_ours(execution, record)
        else:
            client_id = self._book_strange(execution)
        session.progress.last_trade_id = execution.trade_id
        session.collect(str(execution.trade_id), client_id)

    def _record_of(self, execution: Execution) -> OrderRecord | None:
        """Return the order an execution belongs to, asking where it is not known by number."""
        orders = self._session.orders
        record = orders.with_order_id(execution.order_id)
        if record is not None:
            return record
        for stop in orders.alive(OrderKind.STOP, direction=execution.direction):
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
        strategy = self._session.strategy
        state, params, market = strategy.state, strategy.frozen_params, strategy.rules
        side, price, qty, fee = record.side, execution.price, execution.qty, execution.fee
        left = 0.0
        if record.kind is OrderKind.ENTRY:
            book_entry(
                state,
                params,
                market,
                side,
                record.generation,
                record.level,
                price,
                qty,
                fee,
                strategy.tape,
            )
        elif record.kind is OrderKind.TAKE_PROFIT:
            left = book_take_profit(
                state, params, market, side, record.price, price, qty, fee, strategy.tape
            )
        elif record.kind is OrderKind.STOP:
            if record.booked_qty == 0.0:
                begin_stop(state, params, side)
            record.state = OrderState.DONE
            left = book_side(
                state, params, market, side, price, qty, fee, STOP + side, strategy.tape
            )
        else:
            left = self._book_exit(execution, record)
        record.booked_qty += qty
        if record.kind is not OrderKind.STOP and record.rest < 0.5 * market.step_size:
            record.state = OrderState.DONE
        if left > 0.0:
            self._alert(
                f"trade {execution.trade_id} closed {left:g} {record.direction} more than the "
                "ledger holds"
            )

    def _book_exit(self, execution: Execution, record: OrderRecord) -> float:
        """Share an execution of a market exit among the fills it was made for."""
        strategy = self._session.strategy
        state, params, market = strategy.state, strategy.frozen_params, strategy.rules
        side, price, left = record.side, execution.price, execution.qty
        skip = record.booked_qty
        for fill_id, wanted in record.exits:
            part = lots_nearest(market, min(max(0.0, wanted - skip), left))
            skip = max(0.0, skip - wanted)
            if part < 0.5 * market.step_size:
                continue
            fee = execution.fee * (part / execution.qty)
            short = book_exit(
                state, params, market, side, fill_id, price, part, fee, record.label, strategy.tape
            )
            left = lots_nearest(market, left - part + short)
        if left < 0.5 * market.step_size:
            return 0.0
        fee = execution.fee * (left / execution.qty)
        left = book_side(state, params, market, side, price, left, fee, record.label, strategy.tape)
        return float(left)

    def _book_strange(self, execution: Execution) -> str:
        """Book a trade of no order of ours if the exchange liquidated; else only report it."""
        strategy = self._session.strategy
        order = self._exchange.order_by_id(execution.order_id)
        client_id = order.client_id if order is not None else ""
        text = (
            f"trade {execution.trade_id} ({execution.side} {execution.direction} "
            f"{execution.qty:g} at {execution.price:g})"
        )
        if not client_id.startswith(LIQUIDATION_IDS) or execution.direction not in DIRECTION_NAMES:
            self._alert(f"{text} is not of this bot")
            return ""
        self._alert(f"{text}: the exchange liquidates")
        if not strategy.state.orders_gone:
            begin_liquidation(strategy.state, strategy.frozen_params)
        book_side(
            strategy.state,
            strategy.frozen_params,
            strategy.rules,
            DIRECTION_NAMES.index(execution.direction),
            execution.price,
            execution.qty,
            execution.fee,
            LIQUIDATION,
            strategy.tape,
        )
        if not has_position(strategy.state) and strategy.state.wallet < CENT:
            strategy.state.ended = True  # what is left is what the exchange rounded
        return client_id

    def keep_stops(self) -> None:
        """Give a side that still holds something after its stop fired its stop back."""
        strategy = self._session.strategy
        for side in (LONG, SHORT):
            position = strategy.state.sides[side]
            if position.n_fills > 0 and position.stop_price <= 0.0:
                set_stop(strategy.state, strategy.frozen_params, strategy.rules, side)

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
        progress, state = session.progress, session.strategy.state
        amount = sum(payment.amount for payment in payments)
        mark, rate = self._mark(ts_ms), self._rates.settled(ts_ms)
        if not np.isfinite(rate):
            exposure = mark * float(state.sides[SHORT].qty - state.sides[LONG].qty)
            rate = amount / exposure if exposure else 0.0
        if ts_ms == progress.funding_ms:
            rate = 0.0  # the fills had their shares when the instant's first payment came
        book_funding(state, amount, rate, mark)
        if ts_ms > progress.funding_ms:
            progress.funding_ms, progress.funding_ids = ts_ms, []
        progress.funding_ids += [payment.income_id for payment in payments]
        _LOG.info("funding %+.4f USDT at rate %+.6f", amount, rate)


def _in_time(
    executions: list[Execution], payments: list[FundingPayment]
) -> Iterable[Execution | list[FundingPayment]]:
    """Yield both in the order of time; at the same instant executions by number come first.

    Executions never leave the order of their numbers, which the cursor relies on.
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
