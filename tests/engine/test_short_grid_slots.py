"""Every report moves an order's slot as the table has it, or is counted and looked up."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from core.records import zeros
from engine.short_grid.slots import (
    ENTRY,
    ILLEGAL,
    NEXT_STATE,
    UNANSWERED_NS,
    UNKNOWN_NS,
    amend,
    cancel,
    chase,
    left_of,
    move_slot,
    place,
)
from engine.short_grid.types import (
    CommandKind,
    Commands,
    Report,
    ReportKind,
    SlotState,
    SymbolState,
)
from tests.engine.short_grid_ticks import START_NS


def resting(state_of_slot: int = SlotState.OPEN) -> tuple[Any, Any]:
    """Return a symbol with an order of 10 steps at 100 in the entry slot, and commands."""
    state: Any = zeros(SymbolState)
    out: Any = zeros(Commands)
    place(state, 0, ENTRY, START_NS, 100, 10, 0, 100, out)
    state.slots[ENTRY].state = state_of_slot
    out.n_commands = 0
    return state, out


def report(kind: int, order: int = 1, **values: int) -> Any:
    made: Any = zeros(Report)
    made.kind, made.order, made.slot, made.cum, made.t_ns = kind, order, ENTRY, -1, START_NS
    for name, value in values.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(("before", "kind"), list(product(SlotState, ReportKind)))
def test_a_report_moves_a_slot_as_the_table_says(before: SlotState, kind: ReportKind) -> None:
    state, out = resting(before)
    steps = 3 if kind == ReportKind.FILL else 0
    move_slot(state, 0, report(kind, steps=steps), out)
    after = int(NEXT_STATE[before, kind])
    slot = state.slots[ENTRY]
    if before == SlotState.NONE:
        assert (slot.state, state.unmatched_reports) == (SlotState.NONE, 1)
    elif after == ILLEGAL:
        assert (slot.state, state.illegal_reports) == (SlotState.UNKNOWN, 1)
        assert out.commands[0].kind == CommandKind.LOOK_UP
    else:
        assert (slot.state, state.illegal_reports, out.n_commands) == (after, 0, 0)


@pytest.mark.parametrize("before", [s for s in SlotState if s != SlotState.NONE])
def test_the_last_fill_ends_an_order_in_any_state(before: SlotState) -> None:
    state, out = resting(before)
    move_slot(state, 0, report(ReportKind.FILL, steps=4), out)
    assert left_of(state.slots[ENTRY]) == 6
    move_slot(state, 0, report(ReportKind.FILL, steps=6, cum=10), out)
    assert state.slots[ENTRY].state == SlotState.NONE


def test_fills_that_are_missing_are_looked_up() -> None:
    state, out = resting()
    move_slot(state, 0, report(ReportKind.CANCELED, cum=4), out)
    assert state.slots[ENTRY].state == SlotState.UNKNOWN
    assert out.commands[0].kind == CommandKind.LOOK_UP
    move_slot(state, 0, report(ReportKind.FILL, steps=4, cum=4), out)
    move_slot(state, 0, report(ReportKind.CANCELED, cum=4), out)
    assert state.slots[ENTRY].state == SlotState.NONE


def test_an_order_being_enlarged_is_not_over_when_its_old_quantity_has_filled() -> None:
    state, out = resting()
    amend(state, 0, ENTRY, START_NS, 101, 15, out)
    move_slot(state, 0, report(ReportKind.FILL, steps=10), out)
    assert state.slots[ENTRY].state == SlotState.AMENDING
    move_slot(state, 0, report(ReportKind.REJECTED), out)
    assert state.slots[ENTRY].state == SlotState.NONE


def test_an_amend_takes_effect_when_it_is_reported() -> None:
    state, out = resting()
    amend(state, 0, ENTRY, START_NS, 101, 15, out)
    assert state.slots[ENTRY].ticks == 100
    move_slot(state, 0, report(ReportKind.AMENDED, ticks=101, steps=15), out)
    slot = state.slots[ENTRY]
    assert (slot.state, slot.ticks, slot.steps) == (SlotState.OPEN, 101, 15)


def test_a_report_about_an_earlier_order_moves_nothing() -> None:
    state, out = resting()
    place(state, 0, ENTRY, START_NS, 100, 10, 0, 100, out)
    move_slot(state, 0, report(ReportKind.CANCELED, order=1), out)
    assert state.slots[ENTRY].state == SlotState.SENT
    assert state.unmatched_reports == 1


def test_what_is_not_answered_is_looked_up_again_and_again() -> None:
    state, out = resting()
    cancel(state, 0, ENTRY, START_NS, out)
    chase(state, 0, START_NS + UNANSWERED_NS - 1, out)
    assert out.n_commands == 1
    t = START_NS + UNANSWERED_NS
    for expected in (2, 3, 4):
        chase(state, 0, t, out)
        chase(state, 0, t + UNKNOWN_NS - 1, out)
        assert out.n_commands == expected
        assert out.commands[expected - 1].kind == CommandKind.LOOK_UP
        t += UNKNOWN_NS


def test_nothing_is_cancelled_twice() -> None:
    state, out = resting()
    assert cancel(state, 0, ENTRY, START_NS, out)
    assert not cancel(state, 0, ENTRY, START_NS, out)
    assert out.n_commands == 1
