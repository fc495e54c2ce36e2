"""Entry orders (slot ENTRY): joined at the ask, followed, cancelled; never improved."""

from __future__ import annotations

from core.jit import kernel
from core.recording import MS_NS, SECOND_NS
from engine.short_grid.gates import ADD_PASSED, PASSED, Funnel, add_gate, entry_gate
from engine.short_grid.params import ShortGridParams
from engine.short_grid.sizes import entry_notional, order_steps
from engine.short_grid.slots import ENTRY, GTX, NONE, OPEN, amend, cancel, left_of, place
from engine.short_grid.types import Commands, Portfolio, SymbolState, quote_of


@kernel
def may_rest(
    portfolio: Portfolio,
    state: SymbolState,
    params: ShortGridParams,
    t_ns: int,
    ticks: int,
    bid: int,
) -> bool:
    """Return whether every gate but the trigger would let the resting entry rest at ``ticks``."""
    slot = state.slots[ENTRY]
    steps, others = left_of(slot), entry_notional(state)
    if state.ledger.steps == 0:
        return bool(
            entry_gate(portfolio, state, params, t_ns, steps, ticks, False, others) == PASSED
        )
    return bool(add_gate(portfolio, state, params, t_ns, steps, bid, ticks, others) == ADD_PASSED)


@kernel
def is_first_layer(state: SymbolState) -> bool:
    """Return whether the resting entry is the one that opens the position."""
    ledger, decision = state.ledger, state.slots[ENTRY].decision
    return bool(ledger.n_layers == 0 or ledger.layers[0].decision == decision)


@kernel
def follow_entry(
    portfolio: Portfolio,
    state: SymbolState,
    params: ShortGridParams,
    symbol: int,
    t_ns: int,
    bid: int,
    ask: int,
    late: bool,
    out: Commands,
) -> None:
    """Cancel the resting entry or move it to the new ask.

    Cancelled at its greatest age; from its least age on when a gate but the trigger fails or the
    pump is over. An order in part filled is not moved and waits for its age.
    """
    slot = state.slots[ENTRY]
    if slot.state != OPEN:
        return
    age_ns = t_ns - slot.sent_ns
    first = is_first_layer(state)
    over = first and state.observed.signals.pump_peak <= params.entry_latch_exit
    old = age_ns >= params.entry_min_age_s * SECOND_NS
    aged = age_ns >= params.entry_max_age_s * SECOND_NS
    filled = slot.filled > 0
    ended = state.exit.reason != 0 or portfolio.halted or portfolio.ended or portfolio.closing_all
    if (
        ended
        or aged
        or (
            old
            and (
                over or (not filled and gates_fail(portfolio, state, params, t_ns, slot.ticks, bid))
            )
        )
    ):
        cancel(state, symbol, ENTRY, t_ns, out)
        return
    moved = ask != slot.ticks and t_ns - slot.changed_ns >= params.entry_amend_ms * MS_NS
    if late or filled or not first or not moved or slot.amends >= params.entry_max_amends:
        return
    if may_rest(portfolio, state, params, t_ns, ask, bid):
        rise = quote_of(state.rules, left_of(slot), ask) - entry_notional(state)
        amend(state, symbol, ENTRY, t_ns, ask, slot.steps, out)
        portfolio.exposure += max(rise, 0.0)


@kernel
def gates_fail(
    portfolio: Portfolio,
    state: SymbolState,
    params: ShortGridParams,
    t_ns: int,
    ticks: int,
    bid: int,
) -> bool:
    """Return the opposite of ``may_rest``."""
    return not may_rest(portfolio, state, params, t_ns, ticks, bid)


@kernel
def enter(
    portfolio: Portfolio,
    state: SymbolState,
    params: ShortGridParams,
    funnel: Funnel,
    symbol: int,
    t_ns: int,
    bid: int,
    ask: int,
    out: Commands,
) -> None:
    """Send a first or further layer if every gate passes; count the first that does not."""
    if state.slots[ENTRY].state != NONE or state.exit.reason != 0:
        return
    steps, flat = order_steps(state, params, ask), state.ledger.steps == 0
    if flat:
        failed = entry_gate(portfolio, state, params, t_ns, steps, ask, True, 0.0)
        funnel.entry[failed] += 1
        passed = failed == PASSED
    else:
        failed = add_gate(portfolio, state, params, t_ns, steps, bid, ask, 0.0)
        funnel.add[failed] += 1
        passed = failed == ADD_PASSED
    if not passed:
        return
    state.next_decision += 1
    state.slots[ENTRY].decision = state.next_decision
    place(state, symbol, ENTRY, t_ns, ask, steps, GTX, ask, out)
    state.entry_seen_ns = t_ns
    portfolio.exposure += quote_of(state.rules, steps, ask)
    if flat:
        portfolio.held += 1
    else:
        state.last_add_ns = t_ns
        state.adds[state.adds_at] = t_ns
        state.adds_at = (state.adds_at + 1) % len(state.adds)
