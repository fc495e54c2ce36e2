"""Closing at market: decided, written down, sent once, booked before anything else is decided."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from decimal import Decimal
from typing import Final

from core.errors import NetworkError, UnknownOutcome
from core.market import MarketRules
from core.orders import POSITION_SIDES, OrderKind
from engine.contract import LIQUIDATION, Exit
from live.exchange.port import Clock
from live.exchange.types import Answer, CancelResult
from live.execution.books import LiveSession
from live.execution.fills import Fills
from live.execution.order_desk import OrderDesk
from live.execution.order_register import BEGINS_LIQUIDATION, BEGINS_STOP, OrderRecord, OrderState
from live.execution.symbol_facts import SymbolFacts

CONFIRMATIONS: Final = 10
"""Times the trades of a market order are asked for before its outcome counts as unknown."""
CONFIRM_WAIT_S: Final = 0.3


class MarketExits:
    """Market orders that reduce a side.

    Args:
        session: ledger and orders.
        desk: sends and cancels.
        fills: books what was traded.
        facts: rules of the symbol.
        clock: for waiting.
    """

    def __init__(
        self, session: LiveSession, desk: OrderDesk, fills: Fills, facts: SymbolFacts, clock: Clock
    ) -> None:
        self._session, self._desk, self._fills = session, desk, fills
        self._facts, self._clock = facts, clock

    @property
    def _rules(self) -> MarketRules:
        return self._facts.rules

    def close(self, exits: Sequence[Exit]) -> None:
        """Do the exits of one phase of ``protect``.

        Raises:
            NetworkError: not known to be done; ``finish`` goes on with it.
            GridError: the exchange or the disk refused.
        """
        liquidation: list[OrderRecord] = []
        for own in _orders_of(exits):
            wanted, first = [(out.fill_id, out.qty) for out in own], own[0]
            records = self._intend(
                first.position_side, first.label, wanted, opens=first.opens, owner=first.owner
            )
            liquidation += records if first.label == LIQUIDATION else []
        _mark(liquidation, BEGINS_LIQUIDATION)
        self._send_and_wait()

    def stop_at_market(self, position_side: str) -> None:
        """Decide to close a side as its stop would have, had it not been passed already.

        Until that is booked the ledger goes on wanting a stop.
        """
        if self._session.orders.alive(OrderKind.EXIT, position_side=position_side):
            return
        # A stop that the strategy decided itself is counted by it; this one fired.
        _mark(
            self.intend(position_side, f"STOP_{position_side}", self.all_of(position_side)),
            BEGINS_STOP,
        )

    def stop_fills_at_market(self, position_side: str, fill_ids: Collection[int]) -> None:
        """Decide to close some fills of a side as their stop would have; see ``stop_at_market``."""
        intended = {
            fill_id
            for record in self._session.orders.alive(OrderKind.EXIT)
            for fill_id, _ in record.exits
        }
        wanted = [
            (fill_id, qty)
            for fill_id, qty in self.all_of(position_side)
            if fill_id in fill_ids and fill_id not in intended
        ]
        if wanted:
            _mark(self.intend(position_side, f"STOP_{position_side}", wanted), BEGINS_STOP)

    def all_of(self, position_side: str) -> list[tuple[int, float]]:
        """Return (fill id, quantity) of everything a side holds, worst fill first."""
        fills = self._session.strategy.fills(position_side)
        fills.sort(key=lambda fill: -fill.price if position_side == "LONG" else fill.price)
        return [(fill.fill_id, fill.qty) for fill in fills]

    def intend(
        self, position_side: str, label: str, wanted: list[tuple[int, float]]
    ) -> list[OrderRecord]:
        """Write down that ``wanted`` (fill id, base) of a side is to be closed at market.

        What is more than the exchange takes in one order goes in parts. Where the strategy names
        its orders each fill has one of its own.
        """
        strategy = self._session.strategy
        groups: dict[str, list[tuple[int, float]]] = {}
        for fill_id, qty in wanted:
            groups.setdefault(strategy.exit_owner(fill_id, label), []).append((fill_id, qty))
        return [
            record
            for owner, group in groups.items()
            for record in self._intend(position_side, label, group, owner=owner)
        ]

    def _intend(
        self,
        position_side: str,
        label: str,
        wanted: list[tuple[int, float]],
        *,
        opens: bool = False,
        owner: str = "",
    ) -> list[OrderRecord]:
        return [
            self._session.orders.new(
                OrderKind.EXIT,
                position_side,
                0.0,
                self._total(part),
                self._session.progress.bar,
                label=label,
                exits=part,
                opens=opens,
                owner=owner,
            )
            for part in in_parts(wanted, self._facts.now.max_market_qty, self._rules.step_size)
        ]

    def _total(self, parts: Sequence[tuple[int, float]]) -> float:
        return whole_lots(sum(qty for _, qty in parts), self._rules.step_size)

    def finish(self) -> None:
        """Do what was decided and is not known to be done: look it up, then send what was not.

        Raises:
            NetworkError: it is still not known to be done.
            GridError: the exchange or the disk refused.
        """
        if self._session.orders.alive(OrderKind.EXIT):
            self._desk.resolve()
            while wait_s := self._desk.wait_s(OrderKind.EXIT):
                self._clock.sleep(wait_s)
                self._desk.resolve()
            self._send_and_wait()

    def _send_and_wait(self) -> None:
        self._session.save()
        exits = self._session.orders.alive(OrderKind.EXIT)
        self._send([record for record in exits if record.state is OrderState.INTENDED])
        for attempt in range(CONFIRMATIONS):
            if attempt:
                self._clock.sleep(CONFIRM_WAIT_S)
            self._fills.take()
            for record in self._session.orders.alive(OrderKind.EXIT) if attempt else []:
                self._desk.look_for(record)  # it may have ended without filling whole
            if not self._session.orders.alive(OrderKind.EXIT):
                return
        names = ", ".join(r.client_id for r in self._session.orders.alive(OrderKind.EXIT))
        raise UnknownOutcome(f"market exits {names}: their trades are not listed yet")

    def _send(self, exits: Sequence[OrderRecord]) -> None:
        """Send exits, for what their fills still hold when their sides' take-profits are gone.

        Raises:
            UnknownOutcome: a side's take-profits may still be open; the other side's exit is sent.
            NetworkError: an exit is not known to have arrived.
            GridError: the exchange or the disk refused.
        """
        waiting = self._cancel_take_profits(exits)
        ready = [exit_ for exit_ in exits if not any(_conflict(tp, exit_) for tp in waiting)]
        held = {
            fill.fill_id: fill.qty
            for position_side in POSITION_SIDES
            for fill in self._session.strategy.fills(position_side)
        }
        self._send_ready([record for record in ready if self._is_still_due(record, held)])
        if waiting:
            names = " and ".join(sorted({record.position_side for record in waiting}))
            raise UnknownOutcome(f"take-profits of {names} may still be open; the exit waits")

    def _cancel_take_profits(self, exits: Sequence[OrderRecord]) -> list[OrderRecord]:
        """Cancel the take-profits in the way of ``exits``; return those that may still be open."""
        orders = self._session.orders
        wanted = [
            record
            for record in orders.alive(OrderKind.TAKE_PROFIT)
            if any(_conflict(record, exit_) for exit_ in exits)
        ]
        if self._desk.cancel(wanted) is not CancelResult.UNTRADED:
            self._fills.take()
            for record in wanted:
                if record.state is not OrderState.DONE:
                    self._desk.look_for(record)
        return [record for record in wanted if record.state is not OrderState.DONE]

    def _is_still_due(self, record: OrderRecord, held: dict[int, float]) -> bool:
        """Cut an exit down to what its fills still hold; return whether anything is left.

        Args:
            record: the exit.
            held: base by fill id, of which the exit takes its part.
        """
        record.exits = [(fill, min(qty, held[fill])) for fill, qty in record.exits if fill in held]
        for fill, qty in record.exits:
            held[fill] -= qty
        record.qty = self._total(record.exits)
        if record.qty < self._rules.step_size / 2:
            record.state = OrderState.DONE
        return record.state is not OrderState.DONE

    def _send_ready(self, exits: Sequence[OrderRecord]) -> None:
        unclear = []
        for reply in self._desk.send(exits):
            if reply.answer in {Answer.UNKNOWN, Answer.NOT_SENT}:
                unclear.append(f"{reply.client_id}: {reply.answer.value}")
            elif reply.answer is not Answer.ACCEPTED:
                # What is not closed after all stays protected.
                self._session.strategy.restore_stops()
                self._session.strategy.refuse(self._session.orders.known(reply.client_id).owner)
        if unclear:
            raise NetworkError(f"market exit {', '.join(unclear)}")


def _orders_of(exits: Sequence[Exit]) -> list[list[Exit]]:
    """Return exits as they go into orders: one for each name, else one a side."""
    groups: dict[tuple[int, str], list[Exit]] = {}
    for out in exits:
        side = POSITION_SIDES.index(out.position_side)
        groups.setdefault((0, out.owner) if out.owner else (side, ""), []).append(out)
    named = [group for (_, owner), group in groups.items() if owner]
    return named + [groups[key] for key in sorted(groups) if not key[1]]


def _conflict(take_profit: OrderRecord, exit_: OrderRecord) -> bool:
    """Return whether a take-profit and a market exit would close the same.

    Names begin with the cycle, up to the first dash.
    """
    if take_profit.position_side != exit_.position_side or exit_.opens:
        return False
    cycle = exit_.owner.partition("-")[0]
    return not cycle or take_profit.owner.partition("-")[0] == cycle


def _mark(records: Sequence[OrderRecord], event: str) -> None:
    """Note on the orders of one decision that the first execution of any of them is ``event``."""
    for record in records:
        record.begins = f"{event} {records[0].client_id}"


def whole_lots(qty: float, step: float) -> float:
    """Return ``qty`` cut to the lot, base; a rounding error under a thousandth of one is none."""
    return float(int(qty / step + 1e-3) * Decimal(repr(step)))


def in_parts(
    wanted: Sequence[tuple[int, float]], most: float, step: float
) -> list[list[tuple[int, float]]]:
    """Return ``wanted`` (fill id, base) in order, in parts of at most ``most`` base together.

    >>> in_parts([(1, 3.0), (2, 4.0)], 5.0, 1.0)
    [[(1, 3.0), (2, 2.0)], [(2, 2.0)]]
    """
    parts: list[list[tuple[int, float]]] = [[]]
    most = whole_lots(most, step) if math.isfinite(most) else most
    room = most
    for fill_id, qty in wanted:
        left = qty
        while left > room + step / 2:
            if room > step / 2:
                parts[-1].append((fill_id, room))
                left = left - room
            parts.append([])
            room = most
        parts[-1].append((fill_id, left))
        room -= left
    return [part for part in parts if part]
