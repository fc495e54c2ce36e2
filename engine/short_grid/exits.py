"""The way out: resting take-profits, the ladder's orders, signal exits, and the exit path."""

from __future__ import annotations

import math
from typing import Final

from core.jit import kernel
from core.recording import MS_NS, SECOND_NS
from engine.short_grid.ledger import hurdle_of
from engine.short_grid.params import MAX_ZONES, ShortGridParams
from engine.short_grid.slots import (
    AMENDING,
    CANCELING,
    ENTRY,
    EXIT,
    GTX,
    IOC,
    MARKET,
    NONE,
    OPEN,
    SENT,
    TAKE_PROFIT,
    amend,
    cancel,
    give_up,
    left_of,
    place,
    read_position,
)
from engine.short_grid.stops import free_stop, is_protected, stop_level
from engine.short_grid.targets import (
    break_even_ticks,
    build_ladder,
    entry_fee_bps,
    fit_ladder,
    leave_ladder,
    net_bps,
    next_zone,
    target_bps,
    zone_tick,
)
from engine.short_grid.types import (
    BPS,
    FIRST_LOSS_REASON,
    LAST_PROFIT_REASON,
    Commands,
    ExitPhase,
    ExitReason,
    Portfolio,
    Report,
    SymbolState,
    average_ticks,
)

_NO_PHASE: Final = int(ExitPhase.NONE)
_PASSIVE: Final = int(ExitPhase.PASSIVE)
_TAKING: Final = int(ExitPhase.TAKING)
_MARKET: Final = int(ExitPhase.MARKET)
NO_EXIT: Final = int(ExitReason.NONE)
TP: Final = int(ExitReason.TP)
FAST_TP: Final = int(ExitReason.FAST_TP)
EMERGENCY: Final = int(ExitReason.EMERGENCY)
INVERSE_TIMEOUT: Final = int(ExitReason.INVERSE_TIMEOUT)
OVER_COMMITTED: Final = (-2022, -4118)


@kernel
def start_exit(state: SymbolState, reason: int, t_ns: int, steps: int) -> None:
    """Start the exit path for ``steps``, or turn a running one into one of a graver reason."""
    way = state.exit
    if reason <= way.reason:
        return
    way.reason, way.steps, way.started_ns = reason, min(steps, state.ledger.steps), t_ns
    way.phase = _MARKET if reason >= FIRST_LOSS_REASON else _NO_PHASE
    way.phase_ns = way.next_ns = t_ns


@kernel
def end_exit(state: SymbolState) -> None:
    """End the exit path."""
    way = state.exit
    way.reason, way.phase, way.steps = NO_EXIT, _NO_PHASE, 0


@kernel
def give_way(state: SymbolState, params: ShortGridParams, t_ns: int) -> None:
    """End an exit for profit that was not filled: the take-profit returns.

    No signal starts another for as long as a take-profit is not moved: each try costs five orders,
    and the exchange limits orders that end unfilled.
    """
    end_exit(state)
    state.exit.next_ns = t_ns + int(params.tp_amend_s * SECOND_NS)


@kernel
def net_needed(state: SymbolState, params: ShortGridParams) -> float:
    """Return the net a signal exit must leave, bps."""
    fees = entry_fee_bps(state) + state.rules.fee_taker
    return float(
        max(
            params.signal_exit_net_bps,
            params.signal_exit_fee_share * fees,
            hurdle_of(state.ledger, params),
        )
    )


@kernel
def is_fresh(state: SymbolState, params: ShortGridParams, t_ns: int) -> bool:
    """Return whether the book is recent enough for a profit exit."""
    age_ns = t_ns - state.observed.feed.book_t_ns
    return bool(age_ns <= params.signal_max_age_ms * MS_NS)


@kernel
def signal_exit(state: SymbolState, params: ShortGridParams, t_ns: int, ask: int) -> int:
    """Return the reason of a signal exit at ``ask`` ticks, ``NO_EXIT`` if there is none."""
    if state.ledger.steps == 0 or not is_fresh(state, params, t_ns):
        return NO_EXIT
    if t_ns < state.exit.next_ns:
        return NO_EXIT
    signals, average = state.observed.signals, average_ticks(state)
    profit = (average - ask) / average * 1e4
    reason = NO_EXIT
    if profit >= max(params.tp_spread_mult * signals.spread, params.min_tp_bps):
        reason = TP
    elif signals.ti_500ms < params.fast_tp_imbalance and profit >= params.fast_tp_bps:
        reason = FAST_TP
    if reason != NO_EXIT and net_bps(state, float(ask), state.rules.fee_taker) < net_needed(
        state, params
    ):
        reason = NO_EXIT
    return reason


@kernel
def cancel_others(state: SymbolState, symbol: int, t_ns: int, out: Commands) -> bool:
    """Cancel entry and take-profits; return whether any still may rest.

    An order of which nothing is known holds nothing back.
    """
    waiting = False
    for which in range(ENTRY, TAKE_PROFIT + MAX_ZONES):
        if which == ENTRY or which >= TAKE_PROFIT:
            cancel(state, symbol, which, t_ns, out)
            held = state.slots[which].state
            if held in (SENT, AMENDING, CANCELING):
                waiting = True
    return waiting


@kernel
def go_on(state: SymbolState, phase: int, t_ns: int) -> None:
    """Enter a phase of the exit path."""
    state.exit.phase, state.exit.phase_ns = phase, t_ns


@kernel
def next_phase(state: SymbolState, params: ShortGridParams, t_ns: int, ask: int) -> None:
    """Decide how an exit without a resting order goes on; profit reasons never take any price."""
    way = state.exit
    for_profit = way.reason <= LAST_PROFIT_REASON
    small = state.ledger.steps < state.rules.min_steps
    if small:
        go_on(state, _MARKET, t_ns)
    elif way.phase == _NO_PHASE:
        go_on(state, _PASSIVE, t_ns)
    elif way.phase == _PASSIVE:
        enough = net_bps(state, float(ask), state.rules.fee_taker) >= net_needed(state, params)
        if for_profit and not (enough and is_fresh(state, params, t_ns)):
            give_way(state, params, t_ns)
        else:
            go_on(state, _TAKING, t_ns)
    elif way.phase == _TAKING and for_profit:
        give_way(state, params, t_ns)
    else:
        go_on(state, _MARKET, t_ns)


@kernel
def taking_ticks(state: SymbolState, params: ShortGridParams, ask: int) -> int:
    """Return the limit of an exit that takes: through the ask, for profit never at a loss."""
    limit = math.floor(ask * (1.0 + params.exit_slip_bps * BPS))
    if state.exit.reason <= LAST_PROFIT_REASON:
        limit = min(limit, break_even_ticks(state, state.rules.fee_taker))
    return limit


@kernel
def run_exit(  # noqa: C901 - the order of the exit path
    state: SymbolState,
    params: ShortGridParams,
    symbol: int,
    t_ns: int,
    bid: int,
    ask: int,
    out: Commands,
) -> None:
    """Do what the exit path does next; the stop stays."""
    way, slot = state.exit, state.slots[EXIT]
    if state.ledger.steps == 0 or way.steps <= 0:
        cancel(state, symbol, EXIT, t_ns, out)
        end_exit(state)
        return
    waiting = cancel_others(state, symbol, t_ns, out)
    for_loss = way.reason >= FIRST_LOSS_REASON
    if waiting and not (for_loss and t_ns - way.started_ns >= params.exit_wait_ms * MS_NS):
        return
    if slot.state == OPEN:
        passive = way.phase == _PASSIVE
        if not passive or t_ns - way.phase_ns >= params.exit_passive_ms * MS_NS:
            cancel(state, symbol, EXIT, t_ns, out)
        return
    if slot.state != NONE or t_ns < way.next_ns:
        return
    if way.phase != _MARKET:
        next_phase(state, params, t_ns, ask)
        if way.reason == NO_EXIT:
            return
    steps = min(way.steps, state.ledger.steps)
    if way.phase == _PASSIVE:
        place(state, symbol, EXIT, t_ns, max(bid, ask - 1), steps, GTX, ask, out)
    elif way.phase == _TAKING:
        limit = taking_ticks(state, params, ask)
        place(state, symbol, EXIT, t_ns, limit, steps, IOC, ask, out)
    else:
        way.next_ns = t_ns + int(params.exit_retry_ms * MS_NS)
        place(state, symbol, EXIT, t_ns, 0, steps, MARKET, ask, out)


@kernel
def run_emergency(
    state: SymbolState, params: ShortGridParams, symbol: int, t_ns: int, ask: int, out: Commands
) -> None:
    """Send a stop and a market order by turns, answered or not, until the position is closed.

    An order nobody answers for is cancelled and given up: neither can open a position, and what it
    fills is booked by its slot.
    """
    way = state.exit
    cancel_others(state, symbol, t_ns, out)
    if t_ns < way.next_ns:
        return
    way.next_ns = t_ns + int(params.exit_retry_ms * MS_NS)
    way.phase = _MARKET
    state.stop_turn = not state.stop_turn
    if state.stop_turn and not is_protected(state):
        level, which = stop_level(state, params), free_stop(state)
        give_up(state, symbol, which, out)
        place(state, symbol, which, t_ns, level, state.ledger.steps, MARKET, 0, out)
    else:
        give_up(state, symbol, EXIT, out)
        place(state, symbol, EXIT, t_ns, 0, state.ledger.steps, MARKET, ask, out)


@kernel
def take_exit_refusal(
    state: SymbolState, params: ShortGridParams, symbol: int, report: Report, out: Commands
) -> None:
    """Take the refusal of an exit order; where nothing is left or others hold it, look."""
    if report.code == OVER_COMMITTED[0] or report.code == OVER_COMMITTED[1]:
        read_position(symbol, out)
        cancel_others(state, symbol, report.t_ns, out)
    if state.exit.phase == _MARKET:
        state.exit.next_ns = report.t_ns + int(params.exit_retry_ms * MS_NS)


@kernel
def enter_or_leave_ladder(state: SymbolState, params: ShortGridParams, t_ns: int) -> None:
    """Start inverse mode, rebuild its ladder after an add, end it when flat."""
    ledger, inverse = state.ledger, state.inverse
    if ledger.steps == 0:
        leave_ladder(state)
    elif inverse.entered_ns == 0:
        if ledger.n_layers >= params.inverse_layers:
            build_ladder(state, params, t_ns)
    elif not inverse.filled and ledger.n_layers > inverse.layers:
        build_ladder(state, params, t_ns)
    else:
        fit_ladder(state)


@kernel
def is_inverse_timeout(state: SymbolState, params: ShortGridParams, t_ns: int) -> bool:
    """Return whether inverse mode has lasted too long."""
    entered = state.inverse.entered_ns
    return bool(entered > 0 and t_ns - entered >= params.inverse_cap_s * SECOND_NS)


@kernel
def manage_profit(
    portfolio: Portfolio,
    state: SymbolState,
    params: ShortGridParams,
    symbol: int,
    t_ns: int,
    ask: int,
    out: Commands,
) -> None:
    """Lay or move the resting take-profit, or the ladder in its place."""
    enter_or_leave_ladder(state, params, t_ns)
    if state.exit.reason != NO_EXIT:
        return
    inverse = state.inverse
    for zone in range(MAX_ZONES):
        steps, ticks = 0, 0
        if inverse.entered_ns > 0:
            steps, ticks = inverse.zone_steps[zone], inverse.zone_ticks[zone]
        elif zone == 0 and state.ledger.steps > 0:
            steps = state.ledger.steps
            ticks = zone_tick(average_ticks(state), target_bps(state, params, t_ns))
        ticks = min(ticks, ask - 1)
        which = TAKE_PROFIT + zone
        rest_take_profit(portfolio, state, params, symbol, which, t_ns, ticks, steps, out)


@kernel
def rest_take_profit(
    portfolio: Portfolio,
    state: SymbolState,
    params: ShortGridParams,
    symbol: int,
    which: int,
    t_ns: int,
    ticks: int,
    steps: int,
    out: Commands,
) -> None:
    """Make one take-profit rest at ``ticks`` for ``steps``: at once for another quantity.

    For another price only by some bps and after some time: each move loses the place in the queue.
    """
    slot = state.slots[which]
    rests = slot.state == OPEN
    if steps < state.rules.min_steps or ticks <= 0:
        if rests:
            cancel(state, symbol, which, t_ns, out)
        return
    if slot.state == NONE and t_ns >= slot.next_ns and has_token(portfolio):
        place(state, symbol, which, t_ns, ticks, steps, GTX, 0, out)
    elif rests and has_token(portfolio):
        apart = abs(ticks - slot.ticks)
        far = apart >= max(1.0, params.tp_amend_bps * BPS * slot.ticks)
        later = t_ns - slot.changed_ns >= params.tp_amend_s * SECOND_NS
        if left_of(slot) != steps:
            price, total = ticks if far else slot.ticks, slot.filled + steps
            amend(state, symbol, which, t_ns, price, total, out)
        elif far and later:
            amend(state, symbol, which, t_ns, ticks, slot.steps, out)


@kernel
def has_token(portfolio: Portfolio) -> bool:
    """Return whether the order budget allows one more order that is no entry."""
    return bool(portfolio.tokens_10s >= 1.0 and portfolio.tokens_60s >= 1.0)


@kernel
def closes_zone(state: SymbolState) -> int:
    """Return what a signal exit closes: all, in inverse mode the next zone's quantity."""
    if state.inverse.entered_ns == 0:
        return int(state.ledger.steps)
    steps = state.inverse.zone_steps[next_zone(state)]
    return int(steps if steps > 0 else state.ledger.steps)
