"""Orders of a symbol: commands sent, reports taken, and which report may follow which state."""

from __future__ import annotations

from typing import Final

import numpy as np

from core.jit import kernel
from core.recording import SECOND_NS
from engine.short_grid.types import (
    MAX_COMMANDS,
    CommandKind,
    Commands,
    Report,
    ReportKind,
    Slot,
    SlotName,
    SlotState,
    SymbolState,
    TimeInForce,
)

ILLEGAL: Final = -1
UNANSWERED_NS: Final = 10 * SECOND_NS
"""A command not answered for so long is looked up."""
UNKNOWN_NS: Final = SECOND_NS
"""Between look-ups of one order."""

NONE: Final = int(SlotState.NONE)
SENT: Final = int(SlotState.SENT)
OPEN: Final = int(SlotState.OPEN)
AMENDING: Final = int(SlotState.AMENDING)
CANCELING: Final = int(SlotState.CANCELING)
UNKNOWN: Final = int(SlotState.UNKNOWN)
ENTRY: Final = int(SlotName.ENTRY)
EXIT: Final = int(SlotName.EXIT)
STOP: Final = int(SlotName.STOP)
STOP_NEXT: Final = int(SlotName.STOP_NEXT)
TAKE_PROFIT: Final = int(SlotName.TAKE_PROFIT)
GTX: Final = int(TimeInForce.GTX)
IOC: Final = int(TimeInForce.IOC)
MARKET: Final = int(TimeInForce.MARKET)
_FILL: Final = int(ReportKind.FILL)
_UNKNOWN: Final = int(ReportKind.UNKNOWN)
_PLACE: Final = int(CommandKind.PLACE)
_AMEND: Final = int(CommandKind.AMEND)
_CANCEL: Final = int(CommandKind.CANCEL)
_PLACE_STOP: Final = int(CommandKind.PLACE_STOP)
_CANCEL_STOP: Final = int(CommandKind.CANCEL_STOP)
_LOOK_UP: Final = int(CommandKind.LOOK_UP)
_READ_POSITION: Final = int(CommandKind.READ_POSITION)

# State after a report: rows NONE SENT OPEN AMENDING CANCELING UNKNOWN; columns ACCEPTED REJECTED
# AMENDED CANCELED EXPIRED FILL UNKNOWN. A fill that completes an order ends it in any state. A
# refused amend leaves the old order; a refused cancel leaves it unknown what became of it; an order
# whose look-up finds nothing was never there.
NEXT_STATE: Final = np.array(
    [
        [ILLEGAL, ILLEGAL, ILLEGAL, ILLEGAL, ILLEGAL, NONE, ILLEGAL],
        [OPEN, NONE, ILLEGAL, NONE, NONE, OPEN, UNKNOWN],
        [OPEN, ILLEGAL, OPEN, NONE, NONE, OPEN, UNKNOWN],
        [AMENDING, OPEN, OPEN, NONE, NONE, AMENDING, UNKNOWN],
        [CANCELING, UNKNOWN, CANCELING, NONE, NONE, CANCELING, UNKNOWN],
        [OPEN, NONE, OPEN, NONE, NONE, UNKNOWN, UNKNOWN],
    ],
    dtype=np.int64,
)


@kernel
def give(
    out: Commands, kind: int, symbol: int, slot: int, order: int, ticks: int, steps: int, tif: int
) -> None:
    """Write a command; there is room for all of one step."""
    if out.n_commands < MAX_COMMANDS:
        command = out.commands[out.n_commands]
        command.kind, command.symbol, command.slot, command.order = kind, symbol, slot, order
        command.ticks, command.steps, command.tif = ticks, steps, tif
        out.n_commands += 1


@kernel
def place(
    state: SymbolState,
    symbol: int,
    which: int,
    t_ns: int,
    ticks: int,
    steps: int,
    tif: int,
    touch_ticks: int,
    out: Commands,
) -> None:
    """Send a new order in an empty slot."""
    slot = state.slots[which]
    state.next_order += 1
    slot.state, slot.order, slot.ticks, slot.steps = SENT, state.next_order, ticks, steps
    slot.asked = slot.asked_steps = 0
    slot.filled, slot.sent_ns, slot.changed_ns, slot.amends = 0, t_ns, t_ns, 0
    slot.touch_ticks = touch_ticks
    kind = _PLACE_STOP if which in (STOP, STOP_NEXT) else _PLACE
    give(out, kind, symbol, which, slot.order, ticks, steps, tif)


@kernel
def amend(
    state: SymbolState, symbol: int, which: int, t_ns: int, ticks: int, steps: int, out: Commands
) -> None:
    """Ask for another price and total quantity of an open order."""
    slot = state.slots[which]
    slot.state, slot.asked, slot.asked_steps = AMENDING, ticks, steps
    slot.changed_ns = t_ns
    slot.amends += 1
    give(out, _AMEND, symbol, which, slot.order, ticks, steps, GTX)


@kernel
def cancel(state: SymbolState, symbol: int, which: int, t_ns: int, out: Commands) -> bool:
    """Ask for the end of an order that may rest; return whether a command was sent."""
    slot = state.slots[which]
    if slot.state != OPEN and slot.state != SENT and slot.state != AMENDING:  # noqa: PLR1714
        return False
    slot.state, slot.changed_ns = CANCELING, t_ns
    kind = _CANCEL_STOP if which in (STOP, STOP_NEXT) else _CANCEL
    give(out, kind, symbol, which, slot.order, slot.ticks, slot.steps, GTX)
    return True


@kernel
def give_up(state: SymbolState, symbol: int, which: int, out: Commands) -> None:
    """Ask for the end of whatever a slot holds, answered or not, and empty the slot."""
    slot = state.slots[which]
    if slot.state != NONE:
        kind = _CANCEL_STOP if which in (STOP, STOP_NEXT) else _CANCEL
        give(out, kind, symbol, which, slot.order, slot.ticks, slot.steps, GTX)
        slot.state = NONE


@kernel
def look_up(state: SymbolState, symbol: int, which: int, out: Commands) -> None:
    """Ask what became of a slot's order; nothing is sent in it until that is answered."""
    slot = state.slots[which]
    slot.state = UNKNOWN
    give(out, _LOOK_UP, symbol, which, slot.order, slot.ticks, slot.steps, GTX)


@kernel
def read_position(symbol: int, out: Commands) -> None:
    """Ask for the position."""
    give(out, _READ_POSITION, symbol, EXIT, 0, 0, 0, GTX)


@kernel
def left_of(slot: Slot) -> int:
    """Return the steps of an order not yet filled, 0 if there is no order."""
    return slot.steps - slot.filled if slot.state != NONE else 0


@kernel
def find_slot(state: SymbolState, report: Report) -> int:
    """Return the slot that holds a report's order, its own where none does.

    A stop's successor takes the stop's slot, while the order's name still says where it was sent.
    """
    for which in (STOP, STOP_NEXT):
        if report.slot in (STOP, STOP_NEXT) and state.slots[which].order == report.order:
            return which
    return int(report.slot)


@kernel
def move_slot(state: SymbolState, symbol: int, report: Report, out: Commands) -> int:
    """Move the slot a report is about; return its state before, ``ILLEGAL`` if it may not.

    A report about an order that is no longer the slot's changes nothing: the caller books its
    fill. What the exchange says is filled must be the sum of fills, or the order is looked up.
    """
    slot = state.slots[report.slot]
    before = slot.state
    if report.order != slot.order or before == NONE:
        state.unmatched_reports += 1
        return NONE
    after = NEXT_STATE[before, report.kind]
    if after == ILLEGAL:
        state.illegal_reports += 1
        look_up(state, symbol, report.slot, out)
        return ILLEGAL
    if report.kind == _FILL:
        slot.filled += report.steps
    elif report.steps > 0:  # amended, or as a look-up has found it
        slot.ticks, slot.steps = report.ticks, report.steps
    if report.kind != _FILL and report.kind != _UNKNOWN:  # noqa: PLR1714 - as the others
        slot.asked = slot.asked_steps = 0
    if slot.filled >= max(slot.steps, slot.asked_steps):
        after = NONE
    slot.state = after
    if report.cum > slot.filled:
        look_up(state, symbol, report.slot, out)
        slot.changed_ns = report.t_ns
    return int(before)


@kernel
def chase(state: SymbolState, symbol: int, t_ns: int, out: Commands) -> None:
    """Look up orders of which nothing was heard for too long, and again while it is unknown."""
    for which in range(len(state.slots)):
        slot = state.slots[which]
        if slot.state == NONE or slot.state == OPEN:  # noqa: PLR1714
            continue
        patience = UNKNOWN_NS if slot.state == UNKNOWN else UNANSWERED_NS
        if t_ns - max(slot.changed_ns, slot.sent_ns) >= patience:
            slot.changed_ns = t_ns
            look_up(state, symbol, which, out)
