"""The exchange's stop of a position (slots STOP, STOP_NEXT): placed, moved, confirmed, watched."""

from __future__ import annotations

import math
from typing import Final

from core.jit import kernel
from core.recording import MS_NS, SECOND_NS
from engine.short_grid.params import ShortGridParams
from engine.short_grid.slots import MARKET, NONE, OPEN, STOP, STOP_NEXT, UNKNOWN, cancel, place
from engine.short_grid.types import BPS, E8, Commands, Report, Slot, SymbolState, average_ticks

NOT_VISIBLE: Final = -4509
"""The position is not visible yet: again soon."""
WOULD_TRIGGER: Final = -2021
"""The stop's price is passed already."""
SECOND_REFUSED: Final = -4130
"""The exchange takes one stop only."""
FIRST_RETRY_NS: Final = 100 * MS_NS
MAX_RETRIES: Final = 3
"""Doublings of the time between tries."""
EMERGENCY_NS: Final = 250 * MS_NS


@kernel
def stop_level(state: SymbolState, params: ShortGridParams) -> int:
    """Return where the stop belongs, ticks: the largest loss of the price, or of the day.

    At that price the symbol has lost ``symbol_loss_usd`` in 24 h with what it realised before.
    """
    ledger, average = state.ledger, average_ticks(state)
    by_price = average * (1.0 + params.max_loss_bps * BPS)
    left = max(params.symbol_loss_usd + ledger.day.total_e8 / E8, 0.0)
    by_money = average + left * E8 / (ledger.steps * state.rules.unit_e8)
    return math.floor(min(by_price, by_money))


@kernel
def covers(slot: Slot, state: SymbolState) -> bool:
    """Return whether a slot holds a confirmed stop for at least the whole position."""
    return bool(slot.state == OPEN and slot.steps - slot.filled >= state.ledger.steps)


@kernel
def is_protected(state: SymbolState) -> bool:
    """Return whether a confirmed stop covers the position, or there is none."""
    if state.ledger.steps == 0:
        return True
    return covers(state.slots[STOP], state) or covers(state.slots[STOP_NEXT], state)


@kernel
def free_stop(state: SymbolState) -> int:
    """Return the slot a new stop is best sent in: an empty one, else one without a stop at rest."""
    for which in (STOP, STOP_NEXT):
        if state.slots[which].state == NONE:
            return which
    return STOP_NEXT if state.slots[STOP].state == OPEN else STOP


@kernel
def note_protection(state: SymbolState, t_ns: int) -> None:
    """Keep since when the position is unprotected."""
    if is_protected(state):
        state.unprotected_ns = 0
        state.stop_answered = False
    elif state.unprotected_ns == 0:
        state.unprotected_ns = max(t_ns, 1)


@kernel
def should_move(state: SymbolState, params: ShortGridParams, level: int) -> bool:
    """Return whether the stop that rests is for another quantity or too far from its level."""
    slot = state.slots[STOP]
    if slot.steps - slot.filled != state.ledger.steps:
        return True
    return bool(abs(level - slot.ticks) >= params.stop_move_bps * BPS * level)


@kernel
def manage_stop(  # noqa: C901 - one case per pair of slots
    state: SymbolState, params: ShortGridParams, symbol: int, t_ns: int, out: Commands
) -> None:
    """Send, move or end the stop, as the position has it.

    Moved by a successor: the old one is cancelled when the new one is confirmed, except where the
    exchange refuses a second one.
    """
    stop, successor = state.slots[STOP], state.slots[STOP_NEXT]
    if state.ledger.steps == 0:
        cancel(state, symbol, STOP, t_ns, out)
        cancel(state, symbol, STOP_NEXT, t_ns, out)
        return
    if successor.state == OPEN and stop.state == NONE:
        state.slots[STOP] = successor
        successor.state, successor.order = NONE, 0
        stop, successor = state.slots[STOP], state.slots[STOP_NEXT]
    elif successor.state == OPEN:
        cancel(state, symbol, STOP, t_ns, out)
        return
    level = stop_level(state, params)
    if stop.state == NONE and successor.state == NONE:
        if t_ns >= stop.next_ns:
            place(state, symbol, STOP, t_ns, level, state.ledger.steps, MARKET, 0, out)
    elif stop.state == UNKNOWN and successor.state == NONE:
        # What became of it is asked; meanwhile the position is not left without a stop.
        if t_ns >= successor.next_ns:
            place(state, symbol, STOP_NEXT, t_ns, level, state.ledger.steps, MARKET, 0, out)
    elif stop.state == OPEN and successor.state == NONE and should_move(state, params, level):
        if state.single_stop:
            cancel(state, symbol, STOP, t_ns, out)
        elif t_ns >= successor.next_ns:
            place(state, symbol, STOP_NEXT, t_ns, level, state.ledger.steps, MARKET, 0, out)


@kernel
def take_stop_refusal(state: SymbolState, report: Report) -> bool:
    """Take the refusal of a stop; return whether the position must be closed at market.

    ``-4509``: again after 100, 200, 400, 800 ms. Any other refusal: again after 250 ms.
    """
    slot = state.slots[report.slot]
    state.stop_answered = True
    if report.code == WOULD_TRIGGER:
        return True
    if report.code == SECOND_REFUSED and report.slot == STOP_NEXT:
        state.single_stop = True
    if report.code == NOT_VISIBLE:
        wait_ns = FIRST_RETRY_NS << min(state.stop_tries, MAX_RETRIES)
        state.stop_tries += 1
    else:
        wait_ns = EMERGENCY_NS
    slot.next_ns = report.t_ns + wait_ns
    return False


@kernel
def is_unprotected_too_long(state: SymbolState, params: ShortGridParams, t_ns: int) -> bool:
    """Return whether no stop was confirmed in time, though the position needs one."""
    if state.unprotected_ns == 0:
        return False
    return bool(t_ns - state.unprotected_ns >= params.stop_confirm_s * SECOND_NS)


@kernel
def is_local_stop(state: SymbolState, params: ShortGridParams, t_ns: int, ask: int) -> bool:
    """Return whether the position must be closed here: the mark stays beyond the stop's level.

    Without a confirmed stop the ask is enough. Where no marks are known the mid stands in.
    """
    if state.ledger.steps == 0:
        state.over_mark_ns = 0
        return False
    level = stop_level(state, params)
    feed, rules = state.observed.feed, state.rules
    mark = feed.mark if feed.mark_t_ns > 0 else feed.mid
    if mark < level * rules.tick_size:
        state.over_mark_ns = 0
    elif state.over_mark_ns == 0:
        state.over_mark_ns = t_ns
    late = state.over_mark_ns > 0 and t_ns - state.over_mark_ns >= params.local_stop_s * SECOND_NS
    return bool(late or (not is_protected(state) and ask >= level))
