"""An exchange for tests of the decision code: accepts, fills, refuses, and loses messages.

It is no model of a market (orders at the touch fill by chance); it is honest about what it did
when asked, and as unpleasant as told about saying so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backtest.ticks.demo import DemoTicks
from core.records import zeros, zeros_table
from engine.short_grid.decision import take_report
from engine.short_grid.gates import Funnel
from engine.short_grid.loop import run_step
from engine.short_grid.params import STEP_NS
from engine.short_grid.slots import STOP, STOP_NEXT
from engine.short_grid.types import (
    CommandKind,
    Commands,
    Report,
    ReportKind,
    SlotName,
    SlotState,
    TimeInForce,
    make_rules,
    new_states,
    ticks_of,
)
from tests.engine.short_grid_ticks import params

BABYSITTER_STEPS = 150
OPEN, DONE, REFUSED, EXPIRED = "open", "done", "refused", "expired"


@dataclass
class Order:
    """One order as the exchange knows it."""

    slot: int
    number: int
    ticks: int
    steps: int
    tif: int
    status: str = OPEN
    fills: list[dict[str, int]] = field(default_factory=list)

    @property
    def filled(self) -> int:
        """Steps filled."""
        return sum(fill["steps"] for fill in self.fills)

    @property
    def left(self) -> int:
        """Steps not filled."""
        return self.steps - self.filled


@dataclass
class Trouble:
    """Shares of reports lost, said twice, delayed; of commands whose outcome is unknown."""

    lost: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    unknown: float = 0.0
    stops_refused: float = 0.0


class Session:
    """Demo ticks, the decision code and an exchange, step by step."""

    def __init__(
        self, demo: DemoTicks, seed: int = 0, trouble: Trouble | None = None, **changes: Any
    ) -> None:
        self.demo, self.params = demo, params(**changes)
        self.rng = np.random.default_rng(seed)
        self.trouble = trouble or Trouble()
        rules = [
            make_rules(**demo.rules[symbol], fee_maker_bps=2.0, fee_taker_bps=5.0)
            for symbol in demo.symbols
        ]
        start_ns = int(demo.events["t_ns"][0])
        self.portfolio, self.states = new_states(rules, self.params, start_ns)
        self.portfolio.marks_expected = True
        self.funnels: Any = zeros_table(Funnel, len(rules))
        self.out: Any = zeros(Commands)
        self.step, self.row = start_ns // STEP_NS, 0
        self.orders: list[dict[int, Order]] = [{} for _ in rules]
        self.held = [0] * len(rules)
        self.queue: list[tuple[int, dict[str, int]]] = []
        self.booked: list[dict[str, int]] = []
        self.commands: list[tuple[int, dict[str, int]]] = []
        self.next_trade = 1
        self.muted = False

    def run(self, steps: int) -> None:
        """Do ``steps`` steps, each with its commands and reports."""
        for _ in range(steps):
            self.step += 1
            self.out.n_commands = 0
            self.row = run_step(
                self.portfolio,
                self.states,
                self.funnels,
                self.params,
                self.demo.events,
                self.row,
                self.step,
                False,
                self.out,
            )
            self.carry_out()
            self.trade()
            self.deliver()
            if self.step % BABYSITTER_STEPS == 0:
                for symbol in range(len(self.states)):
                    self.reconcile(symbol)
                self.deliver()
            self.check()

    def check(self) -> None:
        """Do nothing; tests put their invariants here."""

    @property
    def now(self) -> int:
        """Time of the step, ns."""
        return self.step * STEP_NS

    def touch(self, symbol: int) -> tuple[int, int]:
        """Return best bid and ask in ticks."""
        state = self.states[symbol]
        return (
            int(ticks_of(state.rules, state.observed.feed.bid)),
            int(ticks_of(state.rules, state.observed.feed.ask)),
        )

    def carry_out(self) -> None:
        """Carry out the commands written since; reports may write more."""
        for i in range(self.out.n_commands):
            names = ("kind", "symbol", "slot", "order", "ticks", "steps", "tif")
            command = {name: int(getattr(self.out.commands[i], name)) for name in names}
            self.commands.append((self.step, command))
            self.on_command(command)
            asked = command["kind"] in (CommandKind.LOOK_UP, CommandKind.READ_POSITION)
            unknown = not asked and self.rng.random() < self.trouble.unknown
            if unknown:
                where = command["symbol"], command["slot"], command["order"]
                self.answer(*where, ReportKind.UNKNOWN)
                if self.rng.random() < 0.5:
                    continue
            self.muted = unknown
            {
                CommandKind.PLACE: self.place,
                CommandKind.PLACE_STOP: self.place,
                CommandKind.AMEND: self.amend,
                CommandKind.CANCEL: self.cancel,
                CommandKind.CANCEL_STOP: self.cancel,
                CommandKind.LOOK_UP: self.look_up,
                CommandKind.READ_POSITION: self.read_position,
            }[CommandKind(command["kind"])](command)
            self.muted = False
        self.out.n_commands = 0

    def on_command(self, command: dict[str, int]) -> None:
        """Do nothing; tests put their invariants here."""

    def place(self, command: dict[str, int]) -> None:  # noqa: C901 - one refusal each
        """Take a new order, or refuse it."""
        symbol, slot, number = command["symbol"], command["slot"], command["order"]
        bid, ask = self.touch(symbol)
        order = Order(slot, number, command["ticks"], command["steps"], command["tif"])
        self.orders[symbol][number] = order
        sells = slot == SlotName.ENTRY
        code = 0
        if slot in (STOP, STOP_NEXT):
            if self.rng.random() < self.trouble.stops_refused:
                code = -4509
            elif (bid + ask) / 2 >= order.ticks:
                code = -2021
        elif order.tif == TimeInForce.GTX and (order.ticks <= bid if sells else order.ticks >= ask):
            code = -5022
        if not sells and self.held[symbol] == 0:
            code = -2022
        if code:
            order.status = REFUSED
            self.say(symbol, slot, number, ReportKind.REJECTED, code=code)
            return
        self.say(symbol, slot, number, ReportKind.ACCEPTED)
        if slot not in (STOP, STOP_NEXT) and order.tif != TimeInForce.GTX:
            part = order.steps if order.tif == TimeInForce.MARKET else -(-order.steps // 2)
            if order.tif == TimeInForce.MARKET or order.ticks >= ask:
                self.fill(symbol, order, ask, part)
            if order.left and order.status == OPEN:
                order.status = EXPIRED
                self.say(symbol, slot, number, ReportKind.EXPIRED, cum=order.filled)

    def amend(self, command: dict[str, int]) -> None:
        """Change an open order; one amended into the book is cancelled."""
        symbol, slot, number = command["symbol"], command["slot"], command["order"]
        order = self.orders[symbol].get(number)
        if order is None or order.status != OPEN:
            self.say(symbol, slot, number, ReportKind.REJECTED, code=-2013)
            return
        bid, ask = self.touch(symbol)
        crosses = command["ticks"] <= bid if slot == SlotName.ENTRY else command["ticks"] >= ask
        if crosses or command["steps"] <= order.filled:
            order.status = DONE
            self.say(symbol, slot, number, ReportKind.CANCELED, cum=order.filled)
            return
        order.ticks, order.steps = command["ticks"], command["steps"]
        self.say(
            symbol,
            slot,
            number,
            ReportKind.AMENDED,
            ticks=order.ticks,
            steps=order.steps,
            cum=order.filled,
        )

    def cancel(self, command: dict[str, int]) -> None:
        """Cancel an open order."""
        symbol, slot, number = command["symbol"], command["slot"], command["order"]
        order = self.orders[symbol].get(number)
        if order is None or order.status != OPEN:
            self.say(symbol, slot, number, ReportKind.REJECTED, code=-2011)
            return
        order.status = DONE
        self.say(symbol, slot, number, ReportKind.CANCELED, cum=order.filled)

    def look_up(self, command: dict[str, int]) -> None:
        """Answer truly: all fills again, then what became of the order."""
        symbol, slot, number = command["symbol"], command["slot"], command["order"]
        order = self.orders[symbol].get(number)
        if order is None or order.status == REFUSED:
            self.answer(symbol, slot, number, ReportKind.REJECTED, code=-2013)
            return
        for fill in order.fills:
            self.answer(symbol, slot, number, ReportKind.FILL, **fill)
        kind = {OPEN: ReportKind.ACCEPTED, DONE: ReportKind.CANCELED, EXPIRED: ReportKind.EXPIRED}[
            order.status
        ]
        self.answer(
            symbol, slot, number, kind, ticks=order.ticks, steps=order.steps, cum=order.filled
        )

    def read_position(self, command: dict[str, int]) -> None:
        """Answer with what a look at the account shows."""
        self.reconcile(command["symbol"])

    def reconcile(self, symbol: int) -> None:
        """Do what a look at positions, trades and open orders does where they differ from ours."""
        state, orders = self.states[symbol], self.orders[symbol]
        if state.ledger.steps != self.held[symbol]:
            for order in orders.values():
                for fill in order.fills:
                    self.answer(symbol, order.slot, order.number, ReportKind.FILL, **fill)
        for which in range(len(state.slots)):
            slot = state.slots[which]
            known = orders.get(int(slot.order))
            if slot.state == SlotState.OPEN and (known is None or known.status != OPEN):
                self.look_up({"symbol": symbol, "slot": which, "order": int(slot.order)})
        ours = {int(state.slots[which].order) for which in range(len(state.slots))}
        for number, order in orders.items():
            if order.status == OPEN and number not in ours:
                order.status = DONE  # of ours, but in no slot

    def fill(self, symbol: int, order: Order, ticks: int, steps: int) -> None:
        """Fill an order; one that closes never does so beyond the position."""
        sells = order.slot == SlotName.ENTRY
        steps = min(steps, order.left) if sells else min(steps, order.left, self.held[symbol])
        if steps > 0:
            self.held[symbol] += steps if sells else -steps
            unit = int(self.states[symbol].rules.unit_e8)
            fill = {
                "trade_id": self.next_trade,
                "ticks": ticks,
                "steps": steps,
                "fee_e8": ticks * steps * unit * 3 // 10_000,
                "cum": order.filled + steps,
            }
            self.next_trade += 1
            order.fills.append(fill)
            if order.left == 0:
                order.status = DONE
            self.say(symbol, order.slot, order.number, ReportKind.FILL, **fill)
        if not sells and self.held[symbol] == 0 and order.status == OPEN and order.left:
            order.status = EXPIRED
            self.say(symbol, order.slot, order.number, ReportKind.EXPIRED, cum=order.filled)

    def trade(self) -> None:  # noqa: C901, PLR0912 - one kind of order each
        """Match what rests: through the touch always, at it by chance; stops on the mid."""
        for symbol, orders in enumerate(self.orders):
            if self.states[symbol].observed.feed.bid <= 0.0:
                continue
            bid, ask = self.touch(symbol)
            for order in list(orders.values()):
                if order.status != OPEN:
                    continue
                part = int(self.rng.integers(1, order.left + 1)) if order.left > 0 else 0
                if order.slot in (STOP, STOP_NEXT):
                    if (bid + ask) / 2 >= order.ticks:
                        self.fill(symbol, order, ask + 2, order.left)
                elif order.slot == SlotName.ENTRY:
                    if bid >= order.ticks:
                        self.fill(symbol, order, order.ticks, order.left)
                    elif ask == order.ticks and self.rng.random() < 0.1:
                        self.fill(symbol, order, order.ticks, part)
                elif ask <= order.ticks:
                    self.fill(symbol, order, order.ticks, order.left)
                elif bid == order.ticks and self.rng.random() < 0.1:
                    self.fill(symbol, order, order.ticks, part)

    def say(self, symbol: int, slot: int, order: int, kind: int, **more: int) -> None:
        """Report, perhaps twice, late or never."""
        trouble = self.trouble
        if self.muted or self.rng.random() < trouble.lost:
            return
        for _ in range(1 + (self.rng.random() < trouble.twice)):
            wait = int(self.rng.integers(1, 8)) if self.rng.random() < trouble.late else 0
            self.answer(symbol, slot, order, kind, wait=wait, **more)

    def answer(
        self, symbol: int, slot: int, order: int, kind: int, wait: int = 0, **more: int
    ) -> None:
        """Report for sure, ``wait`` steps later."""
        report = {
            "symbol": symbol,
            "slot": slot,
            "order": order,
            "kind": int(kind),
            "code": 0,
            "trade_id": 0,
            "ticks": 0,
            "steps": 0,
            "fee_e8": 0,
            "cum": -1,
            **more,
        }
        self.queue.append((self.step + wait, report))

    def deliver(self) -> None:
        """Give the reports that are due to the decision code, and carry out what it answers."""
        while due := [item for item in self.queue if item[0] <= self.step]:
            self.queue = [item for item in self.queue if item[0] > self.step]
            for _, values in due:
                self.take(values)

    def take(self, values: dict[str, int]) -> None:
        """Give one report to the decision code."""
        report: Any = zeros(Report)
        report.t_ns = self.now
        for name, value in values.items():
            setattr(report, name, value)
        state = self.states[values["symbol"]]
        before = state.ledger.fees_e8, state.ledger.steps
        ask = self.touch(values["symbol"])[1] if state.observed.feed.bid > 0 else 0
        take_report(self.portfolio, state, self.params, report, ask, self.out)
        if values["kind"] == ReportKind.FILL and before != (
            state.ledger.fees_e8,
            state.ledger.steps,
        ):
            self.booked.append({**values, "t_ns": self.now})
        self.carry_out()
