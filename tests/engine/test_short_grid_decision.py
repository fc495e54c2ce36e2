"""Sessions against an exchange that may be unpleasant: bounded, protected, exact, never long."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest

from backtest.ticks.demo import DemoTicks, demo_ticks
from core.recording import SECOND_NS
from engine.short_grid.gates import N_GATES, Gate
from engine.short_grid.ledger import debt_of
from engine.short_grid.loop import run_step
from engine.short_grid.slots import ENTRY, STOP, STOP_NEXT, left_of
from engine.short_grid.stops import is_protected, stop_level
from engine.short_grid.types import (
    E8,
    CommandKind,
    ExitPhase,
    ExitReason,
    SlotName,
    TimeInForce,
    quote_of,
)
from tests.engine.short_grid_reference.ledger import Fold
from tests.engine.short_grid_venue import Session, Trouble

pytestmark = pytest.mark.slow

LIVELY = {
    "warmup_s": 20.0,
    "trend_30s_bps": 300.0,
    "fill_cooldown_s": 0.0,
    "add_cooldown_s": 1.0,
    "spacing_growth": 1.0,
    "win_cooldown_s": 1.0,
    "tail_ratio": 100.0,
    "buy_ratio_max": 1.0,
    "adds_per_hour": 60,
    "add_loss_bps": 5.0,
    "spacing_horizon_s": 1.0,
}
"""Parameters with which layers are added often."""


@functools.cache
def market(minutes: int) -> DemoTicks:
    return demo_ticks(minutes)


class Watched(Session):
    """A session that checks after every step what must always hold."""

    def __init__(self, *arguments: Any, **changes: Any) -> None:
        super().__init__(*arguments, **changes)
        self.unprotected_steps = 0
        self.alone = [0] * len(self.states)
        """Steps in a row without a stop for all that is held, by the exchange's own account."""

    def on_command(self, command: dict[str, int]) -> None:
        """Check a command before it is carried out."""
        state = self.states[command["symbol"]]
        if command["kind"] in (CommandKind.LOOK_UP, CommandKind.READ_POSITION):
            return
        assert command["order"] > 0
        if command["slot"] == SlotName.ENTRY:
            assert command["tif"] == TimeInForce.GTX
            if command["kind"] == CommandKind.PLACE and state.ledger.steps > 0:
                assert is_protected(state)
        elif command["kind"] == CommandKind.PLACE:
            assert 0 < command["steps"] <= state.ledger.steps

    def check(self) -> None:
        """Check state, exchange and caps."""
        p, total = self.params, 0.0
        for symbol, state in enumerate(self.states):
            ledger = state.ledger
            assert ledger.steps >= 0
            assert self.held[symbol] >= 0
            layers = [int(ledger.layers[i].steps) for i in range(ledger.n_layers)]
            assert sum(layers) == ledger.steps
            assert ledger.n_layers <= p.max_layers
            slot = state.slots[ENTRY]
            rests = quote_of(state.rules, left_of(slot), max(slot.ticks, slot.asked))
            full = ledger.cost_e8 / E8 + rests
            assert full <= p.symbol_cap + 1e-6
            total += full
            assert 0 <= debt_of(ledger) <= p.debt_cap_usd * E8
            stops = sum(
                order.left
                for order in self.orders[symbol].values()
                if order.slot in (STOP, STOP_NEXT) and order.status == "open"
            )
            unprotected = stops < self.held[symbol]
            self.unprotected_steps += unprotected
            self.alone[symbol] = self.alone[symbol] + 1 if unprotected else 0
            assert self.alone[symbol] <= 200
        assert total <= p.portfolio_cap + 1e-6

    def assert_exact(self) -> None:
        """Compare the ledgers with a plain fold of the fills booked."""
        for symbol, state in enumerate(self.states):
            fold = Fold(unit=int(state.rules.unit_e8), cap=75 * E8)
            for fill in self.booked:
                if fill["symbol"] != symbol:
                    continue
                if fill["slot"] == SlotName.ENTRY:
                    fold.sell(fill["ticks"], fill["steps"], fill["fee_e8"])
                else:
                    fold.buy(fill["t_ns"], fill["ticks"], fill["steps"], fill["fee_e8"])
            ledger = state.ledger
            assert (ledger.steps, ledger.cost_e8) == (fold.held, fold.cost)
            assert (ledger.pnl_e8, ledger.fees_e8) == (fold.pnl, fold.fees)
            assert ledger.net_e8 == sum(fold.nets)
            assert ledger.debt_in_e8 == fold.d_in
        realized = sum(int(s.ledger.pnl_e8 - s.ledger.fees_e8) for s in self.states)
        assert self.portfolio.realized_e8 == realized

    def end(self) -> None:
        """Let the exchange be pleasant again, ask for everything closed, and see that it is."""
        self.trouble = Trouble()
        self.portfolio.closing_all = True
        self.run(300)
        for symbol, state in enumerate(self.states):
            assert state.ledger.steps == 0
            assert self.held[symbol] == 0
            resting = [o.slot for o in self.orders[symbol].values() if o.status == "open"]
            assert resting == []


def test_a_pleasant_session_trades_and_its_books_are_those_of_the_exchange() -> None:
    session = Watched(market(8), 1)
    session.run(8 * 600)
    assert sum(int(state.n_trips) for state in session.states) >= 4
    assert session.held == [int(state.ledger.steps) for state in session.states]
    for state in session.states:
        assert (state.illegal_reports, state.over_closes, state.unmatched_reports) == (0, 0, 0)
        assert (state.repeated_fills, state.n_stops) == (0, 0)
    assert session.unprotected_steps == 0
    session.assert_exact()
    session.end()


def test_layers_are_added_and_the_inverse_ladder_replaces_the_single_order() -> None:
    session = Watched(market(8), 3, **LIVELY)
    session.run(8 * 600)
    kinds = Counter(c["slot"] for _, c in session.commands if c["kind"] == CommandKind.PLACE)
    assert kinds[SlotName.TAKE_PROFIT + 2] > 3
    session.assert_exact()
    session.end()


TROUBLES = (
    Trouble(lost=0.05),
    Trouble(twice=0.3),
    Trouble(late=0.5),
    Trouble(unknown=0.1),
    Trouble(stops_refused=0.5),
    Trouble(lost=0.05, twice=0.3, late=0.5, unknown=0.1, stops_refused=0.5),
    Trouble(lost=0.3, twice=0.3, late=0.5, unknown=0.4, stops_refused=0.5),
)


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("seed", [1, 2])
def test_lost_doubled_late_and_unknown_reports_end_flat_or_protected(
    seed: int, trouble: Trouble
) -> None:
    session = Watched(market(4), seed, trouble, **LIVELY)
    session.run(4 * 600)
    session.end()
    session.assert_exact()
    assert len(session.booked) > 10


class ProfitWatched(Watched):
    """A session that keeps the net of every fill that was meant to be a profit."""

    nets: list[int]

    def take(self, values: dict[str, int]) -> None:
        """Keep what a fill for profit has brought."""
        state = self.states[values["symbol"]]
        reason, phase = int(state.exit.reason), int(state.exit.phase)
        before = int(state.ledger.net_e8)
        super().take(values)
        for_profit = reason <= ExitReason.FAST_TP and phase != ExitPhase.MARKET
        change = int(state.ledger.net_e8) - before
        if change and (values["slot"] >= SlotName.TAKE_PROFIT or for_profit):
            self.nets.append(change)


def test_no_profitable_exit_loses() -> None:
    session = ProfitWatched(market(8), 5)
    session.nets = []
    session.run(8 * 600)
    assert len(session.nets) > 10
    assert min(session.nets) >= 0


def test_an_exit_for_profit_that_is_not_filled_is_not_tried_again_at_once() -> None:
    session = Session(market(8), 5)
    fill = session.fill

    def no_exit_fills(symbol: int, order: Any, ticks: int, steps: int) -> None:
        if order.slot != SlotName.EXIT:
            fill(symbol, order, ticks, steps)

    session.fill = no_exit_fills  # type: ignore[method-assign]
    session.run(8 * 600)
    tries = [
        (c["symbol"], step)
        for step, c in session.commands
        if c["slot"] == SlotName.EXIT
        and c["kind"] == CommandKind.PLACE
        and c["tif"] == TimeInForce.GTX
    ]
    assert len(tries) > 5
    by_symbol = [[step for s, step in tries if s == symbol] for symbol in range(4)]
    gaps = [b - a for steps in by_symbol for a, b in itertools.pairwise(steps)]
    assert min(gaps) >= 300


def test_a_late_step_sends_no_entry() -> None:
    session = Session(market(4), 1)
    for k in range(session.step + 1, session.step + 2_400):
        session.out.n_commands = 0
        session.row = run_step(
            session.portfolio,
            session.states,
            session.funnels,
            session.params,
            session.demo.events,
            session.row,
            k,
            True,
            session.out,
        )
        assert session.out.n_commands == 0
    assert all(int(funnel.entry[N_GATES]) == 0 for funnel in session.funnels)


def test_every_step_of_a_flat_symbol_counts_one_gate() -> None:
    session = Session(market(4), 1, pump_threshold=20.0)
    session.run(1_500)
    for funnel in session.funnels:
        counts = np.asarray(funnel.entry)
        assert counts.sum() in (1_499, 1_500)  # from the first book on
        assert counts[Gate.WARM] == 599
        assert counts[Gate.TRIGGER] > 0
        assert counts[N_GATES] == 0


def first_position(session: Session) -> int:
    """Run until a symbol holds a position; return it."""
    for _ in range(2_400):
        session.run(1)
        for symbol, state in enumerate(session.states):
            if state.ledger.steps > 0 and is_protected(state) and state.exit.reason == 0:
                return symbol
    raise AssertionError("no position")


def test_the_first_fill_is_protected_before_the_next_step() -> None:
    session = Session(market(4), 1)
    symbol = first_position(session)
    slots = [c["slot"] for _, c in session.commands if c["symbol"] == symbol]
    assert slots.index(SlotName.STOP) < slots.index(SlotName.TAKE_PROFIT)
    steps = {c["slot"]: step for step, c in reversed(session.commands) if c["symbol"] == symbol}
    assert steps[SlotName.STOP] == session.booked[0]["t_ns"] // 100_000_000


def test_a_stop_is_moved_by_a_successor_that_is_confirmed_first() -> None:
    session = Watched(market(4), 1)
    symbol = first_position(session)
    state = session.states[symbol]
    number = int(state.slots[STOP].order)
    session.commands.clear()
    state.ledger.day.total_e8 -= 24 * E8  # a loss elsewhere leaves less to lose here
    session.run(3)
    own = [c for _, c in session.commands if c["symbol"] == symbol and c["slot"] in (2, 3)]
    assert [(c["kind"], c["slot"]) for c in own] == [
        (CommandKind.PLACE_STOP, STOP_NEXT),
        (CommandKind.CANCEL_STOP, STOP),
    ]
    assert own[1]["order"] == number
    assert state.slots[STOP].ticks == stop_level(state, session.params)
    assert is_protected(state)


def test_a_stop_is_at_the_smaller_of_price_and_money() -> None:
    session = Session(market(4), 1)
    state = session.states[first_position(session)]
    average = state.ledger.cost_e8 / (state.ledger.steps * state.rules.unit_e8)
    assert stop_level(state, session.params) == int(average * 1.05)
    state.ledger.day.total_e8 = -(24 * E8)
    loss = (stop_level(state, session.params) - average) * state.ledger.steps
    assert 0.9 * E8 < loss * state.rules.unit_e8 <= E8


def test_a_position_whose_stop_is_never_confirmed_is_closed_at_market() -> None:
    session = Session(market(4), 1, Trouble(stops_refused=1.0))
    session.run(2_400)
    markets = [c for _, c in session.commands if c["tif"] == 2 and c["slot"] == SlotName.EXIT]
    assert markets
    for symbol, state in enumerate(session.states):
        fills = [f for f in session.booked if f["symbol"] == symbol]
        times = [f["t_ns"] for f in fills if f["slot"] == ENTRY]
        if times and state.ledger.steps == 0:
            assert state.loss_streak > 0 or state.n_trips > 0
    assert all(
        state.ledger.steps == 0 or session.now - state.unprotected_ns < 4 * SECOND_NS
        for state in session.states
    )


def test_an_exchange_that_never_answers_is_asked_by_turns_without_end() -> None:
    session = Session(market(4), 1)
    symbol = first_position(session)
    state = session.states[symbol]
    session.trouble = Trouble(lost=1.0)
    for which in (STOP, STOP_NEXT):
        state.slots[which].state = 0
    for order in session.orders[symbol].values():
        order.status = "done"
    session.fill = lambda *_: None  # type: ignore[method-assign]
    session.answer = lambda *_, **__: None  # type: ignore[method-assign]
    session.run(35)
    session.commands.clear()
    session.run(60)
    own = [
        (step, c["slot"])
        for step, c in session.commands
        if c["symbol"] == symbol and c["kind"] in (0, 3)
    ]
    slots = [slot for _, slot in own]
    assert slots[:6] in ([1, 2] * 3, [2, 1] * 3)
    assert len(slots) >= 18
    assert max(b - a for (a, _), (b, _) in itertools.pairwise(own)) <= 3


def test_a_stop_that_fires_after_a_move_closes_and_is_counted() -> None:
    session = Watched(market(4), 1)
    symbol = first_position(session)
    state = session.states[symbol]
    state.ledger.day.total_e8 -= 24 * E8
    session.run(3)
    state.ledger.day.total_e8 += 24 * E8
    number = int(state.slots[STOP].order)
    order = session.orders[symbol][number]
    assert order.slot == STOP_NEXT
    session.fill(symbol, order, order.ticks, order.left)
    session.run(2)
    assert (state.ledger.steps, state.slots[STOP].state, state.n_stops) == (0, 0, 1)
    assert state.cooldown_until_ns - session.now > 11 * SECOND_NS  # 8 s, half as long again


def test_the_days_loss_of_a_symbol_closes_it_and_bars_it() -> None:
    session = Session(market(4), 1)
    symbol = first_position(session)
    state = session.states[symbol]
    state.ledger.day.buckets[state.ledger.day.bucket % 289] -= 26 * E8
    state.ledger.day.total_e8 -= 26 * E8
    session.run(5)
    assert state.ledger.steps == 0
    assert session.booked[-1]["slot"] in (SlotName.EXIT, SlotName.STOP, SlotName.STOP_NEXT)
    funnel = session.funnels[symbol]
    passed = int(funnel.entry[N_GATES])
    session.run(600)
    assert int(funnel.entry[N_GATES]) == passed
    assert int(funnel.entry[Gate.BREAKER]) > 400


def test_the_days_loss_of_all_closes_all_and_halts() -> None:
    session = Session(market(8), 1)
    session.run(3_000)
    session.portfolio.day.buckets[session.portfolio.day.bucket % 289] -= 100 * E8
    session.portfolio.day.total_e8 -= 100 * E8
    session.run(20)
    assert session.portfolio.halted
    assert not session.portfolio.ended
    assert [int(state.ledger.steps) for state in session.states] == [0] * 4
    before = len(session.commands)
    session.run(600)
    assert len(session.commands) == before


@pytest.mark.parametrize("seed", [1, 2])
def test_a_session_in_two_runs_is_the_session_in_one(seed: int) -> None:
    whole, parts = Session(market(4), seed), Session(market(4), seed)
    whole.run(1_500)
    for count in (1, 700, 799):
        parts.run(count)
    assert whole.commands == parts.commands
    assert whole.booked == parts.booked


def shifted(demo: DemoTicks, steps: int) -> DemoTicks:
    events = demo.events.copy()
    events["t_ns"] += steps * 100_000_000
    stamped = events["event_ms"] > 0
    events["event_ms"][stamped] += steps * 100
    events["number"][events["kind"] == 4] += steps * 100
    return DemoTicks(demo.symbols, events, demo.rules)


def test_a_shift_in_time_shifts_all_commands() -> None:
    steps = 3_000 * 3  # whole buckets of a day
    here, there = Session(market(4), 1), Session(shifted(market(4), steps), 1)
    here.run(2_400)
    there.run(2_400)
    assert len(here.commands) > 50
    assert [(step + steps, c) for step, c in here.commands] == there.commands


def scaled(demo: DemoTicks) -> DemoTicks:
    """Return the market at a thousandfold price: ticks and steps keep their numbers."""
    events = demo.events.copy()
    market_events = np.isin(events["kind"], (1, 2))
    for name in ("price", "price2"):
        events[name][market_events] *= 1_000.0
    events["price"][events["kind"] == 4] *= 1_000.0
    for name in ("qty", "qty2"):
        events[name][market_events] /= 1_000.0
    rules: dict[str, Any] = {
        symbol: {
            **r,
            "tick_size": r["tick_size"] * 1_000.0,
            "step_size": r["step_size"] / 1_000.0,
            "min_qty": r["min_qty"] / 1_000.0,
        }
        for symbol, r in demo.rules.items()
    }
    return DemoTicks(demo.symbols, events, rules)


def test_a_thousandfold_price_leaves_all_commands() -> None:
    here, there = Session(market(4), 1), Session(scaled(market(4)), 1)
    here.run(2_400)
    there.run(2_400)
    assert len(here.commands) > 50
    assert here.commands == there.commands
