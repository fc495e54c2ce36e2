"""The decisions of the short grid: reports taken, positions protected, steps decided.

``take_report`` books what a report says and protects what has been filled; ``decide`` runs at grid
steps. Nothing else sends commands.
"""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from core.recording import SECOND_NS
from core.records import Table
from engine.short_grid.edge import add_sample, await_markout, take_markouts
from engine.short_grid.entries import enter, follow_entry
from engine.short_grid.exits import (
    EMERGENCY,
    INVERSE_TIMEOUT,
    NO_EXIT,
    closes_zone,
    is_inverse_timeout,
    manage_profit,
    run_emergency,
    run_exit,
    signal_exit,
    start_exit,
    take_exit_refusal,
)
from engine.short_grid.gates import Funnel
from engine.short_grid.ledger import add_day, book_funding, close_short, is_new_trade, open_short
from engine.short_grid.params import STEP_NS, ShortGridParams
from engine.short_grid.safety import (
    check_portfolio,
    check_symbol,
    cool_down,
    count_stop,
    fill_tokens,
    spend_tokens,
    sum_up,
)
from engine.short_grid.slots import (
    ENTRY,
    EXIT,
    ILLEGAL,
    NONE,
    STOP,
    STOP_NEXT,
    TAKE_PROFIT,
    chase,
    find_slot,
    move_slot,
    read_position,
)
from engine.short_grid.stops import manage_stop, note_protection, take_stop_refusal
from engine.short_grid.targets import leave_ladder
from engine.short_grid.types import (
    LAST_PROFIT_REASON,
    Commands,
    ExitReason,
    Portfolio,
    Report,
    ReportKind,
    SymbolState,
    ticks_of,
)

_FILL: Final = int(ReportKind.FILL)
_REJECTED: Final = int(ReportKind.REJECTED)
_EXPIRED: Final = int(ReportKind.EXPIRED)
_STOP_REASON: Final = int(ExitReason.STOP)
SAFE_NS: Final = 60 * SECOND_NS
"""Safe mode after a report that may not be."""


@kernel
def book_entry_fill(state: SymbolState, report: Report, decision: int) -> None:
    """Book an entry's fill: the position grows."""
    ledger, rules = state.ledger, state.rules
    if ledger.steps == 0:
        ledger.trip_net_e8 = ledger.trip_cost_e8 = 0
    open_short(ledger, rules, report.t_ns, report.ticks, report.steps, report.fee_e8, decision)
    state.last_fill_ns, state.last_fill_ticks = report.t_ns, report.ticks
    await_markout(state, report.t_ns, report.ticks * rules.tick_size)


@kernel
def end_trip(state: SymbolState, params: ShortGridParams, report: Report) -> None:
    """Take in a round trip that is over, and start its pause."""
    ledger = state.ledger
    if ledger.trip_cost_e8 > 0:
        add_sample(state.net_bps, ledger.trip_net_e8 / ledger.trip_cost_e8 * 1e4)
    state.n_trips += 1
    reason = state.exit.reason
    stopped = report.slot == STOP or report.slot == STOP_NEXT or reason == _STOP_REASON  # noqa: PLR1714
    for_profit = report.slot >= TAKE_PROFIT or (
        report.slot == EXIT and reason <= LAST_PROFIT_REASON
    )
    if stopped:
        count_stop(state, params, report.t_ns)
    cool_down(state, params, report.t_ns, for_profit, stopped)
    leave_ladder(state)
    state.unprotected_ns, state.stop_tries = 0, 0


@kernel
def book_close_fill(
    state: SymbolState, params: ShortGridParams, symbol: int, report: Report, out: Commands
) -> None:
    """Book a fill that closes, never more than is held; where it is more the exchange is asked."""
    ledger = state.ledger
    steps = min(report.steps, ledger.steps)
    if steps < report.steps:
        state.over_closes += 1
        state.safe_until_ns = max(state.safe_until_ns, report.t_ns + SAFE_NS)
        read_position(symbol, out)
    if steps == 0:
        return
    close_short(ledger, params, state.rules, report.t_ns, report.ticks, steps, report.fee_e8)
    slot = state.slots[report.slot]
    if report.slot >= TAKE_PROFIT and state.inverse.entered_ns > 0:
        zone = report.slot - TAKE_PROFIT
        state.inverse.filled = True
        left = state.inverse.zone_steps[zone] - steps
        state.inverse.zone_steps[zone] = max(left, 0)
    if report.slot == EXIT:
        state.exit.steps -= steps
        if state.inverse.entered_ns > 0:
            state.inverse.filled = True
        if slot.touch_ticks > 0 and report.ticks >= slot.touch_ticks:
            add_sample(state.slippage_bps, (report.ticks / slot.touch_ticks - 1.0) * 1e4)
    if ledger.steps == 0:
        end_trip(state, params, report)


@kernel
def book_fill(
    portfolio: Portfolio, state: SymbolState, params: ShortGridParams, report: Report, out: Commands
) -> None:
    """Book a fill in ledger and sums; it counts even if its order is no longer known."""
    ledger = state.ledger
    before = ledger.pnl_e8 - ledger.fees_e8
    if report.slot == ENTRY:
        slot = state.slots[ENTRY]
        decision = slot.decision if report.order == slot.order else -report.order
        book_entry_fill(state, report, decision)
    else:
        book_close_fill(state, params, report.symbol, report, out)
    change = ledger.pnl_e8 - ledger.fees_e8 - before
    portfolio.realized_e8 += change
    add_day(portfolio.day, report.t_ns, change)
    add_day(portfolio.day_fees, report.t_ns, report.fee_e8)


@kernel
def take_refusal(
    state: SymbolState, params: ShortGridParams, report: Report, before: int, out: Commands
) -> None:
    """Take what the end of an order without a fill asks for."""
    ended = report.kind == _REJECTED or report.kind == _EXPIRED  # noqa: PLR1714
    if not ended or before == ILLEGAL or state.slots[report.slot].state != NONE:
        return
    pause_ns = int(params.reject_pause_ms * 1_000_000)
    if report.slot == ENTRY:
        state.pause_until_ns = report.t_ns + pause_ns
    elif report.slot == EXIT:
        take_exit_refusal(state, params, report.symbol, report, out)
    elif report.slot >= TAKE_PROFIT:
        state.slots[report.slot].next_ns = report.t_ns + pause_ns
    elif state.ledger.steps > 0 and (report.kind == _EXPIRED or take_stop_refusal(state, report)):
        start_exit(state, _STOP_REASON, report.t_ns, state.ledger.steps)


@kernel
def take_report(
    portfolio: Portfolio,
    state: SymbolState,
    params: ShortGridParams,
    report: Report,
    ask: int,
    out: Commands,
) -> None:
    """Take a report about an order: move its slot, book its fill, protect what has been filled.

    Each fill counts once, by its trade id. A report that may not follow what is known is counted
    and sends the symbol to safe mode; its order is looked up. ``report.slot`` is set to the slot
    the order is in now.
    """
    if report.kind == _FILL and not is_new_trade(state.ledger, report.trade_id):
        state.repeated_fills += 1
        return
    report.slot = find_slot(state, report)
    before = move_slot(state, report.symbol, report, out)
    if before == ILLEGAL:
        state.safe_until_ns = max(state.safe_until_ns, report.t_ns + SAFE_NS)
    if report.kind == _FILL:
        book_fill(portfolio, state, params, report, out)
    if report.order == state.slots[report.slot].order:
        take_refusal(state, params, report, before, out)
    protect(portfolio, state, params, report.symbol, report.t_ns, ask, out)


@kernel
def protect(
    portfolio: Portfolio,
    state: SymbolState,
    params: ShortGridParams,
    symbol: int,
    t_ns: int,
    ask: int,
    out: Commands,
) -> None:
    """Send stop and take-profit for what is held, outside of steps."""
    note_protection(state, t_ns)
    manage_stop(state, params, symbol, t_ns, out)
    note_protection(state, t_ns)
    if ask > 0:
        manage_profit(portfolio, state, params, symbol, t_ns, ask, out)


@kernel
def pay_funding(portfolio: Portfolio, state: SymbolState, t_ns: int, amount_e8: int) -> None:
    """Book funding received (negative: paid)."""
    book_funding(state.ledger, t_ns, amount_e8)
    portfolio.realized_e8 += amount_e8
    add_day(portfolio.day, t_ns, amount_e8)


@kernel
def decide_exits(
    portfolio: Portfolio,
    state: SymbolState,
    params: ShortGridParams,
    symbol: int,
    t_ns: int,
    bid: int,
    ask: int,
    out: Commands,
) -> None:
    """Decide what reduces risk: limits, stop, exit path, take-profits."""
    chase(state, symbol, t_ns, out)
    take_markouts(state, t_ns)
    note_protection(state, t_ns)
    check_symbol(portfolio, state, params, t_ns, ask)
    if state.exit.reason == NO_EXIT and state.ledger.steps > 0:
        if is_inverse_timeout(state, params, t_ns):
            start_exit(state, INVERSE_TIMEOUT, t_ns, state.ledger.steps)
        else:
            reason = signal_exit(state, params, t_ns, ask)
            if reason != NO_EXIT:
                start_exit(state, reason, t_ns, closes_zone(state))
    if state.exit.reason == EMERGENCY and state.ledger.steps > 0:
        run_emergency(state, params, symbol, t_ns, ask, out)
        return
    manage_stop(state, params, symbol, t_ns, out)
    if state.exit.reason != NO_EXIT:
        run_exit(state, params, symbol, t_ns, bid, ask, out)
    if state.exit.reason == NO_EXIT:
        manage_profit(portfolio, state, params, symbol, t_ns, ask, out)


@kernel
def decide(
    portfolio: Portfolio,
    symbols: Table[SymbolState],
    funnels: Table[Funnel],
    params: ShortGridParams,
    step: int,
    late: bool,
    out: Commands,
) -> None:
    """Decide step ``step`` for all symbols, whose signals stand at it.

    Stops, exits and take-profits of all symbols come before any entry. A late step only reduces
    risk.
    """
    t_ns = step * STEP_NS
    fill_tokens(portfolio, params, t_ns)
    sum_up(portfolio, symbols, params, t_ns)
    check_portfolio(portfolio, symbols, params, t_ns)
    for i in range(len(symbols)):
        state = symbols[i]
        if state.observed.feed.bid > 0.0:
            bid = ticks_of(state.rules, state.observed.feed.bid)
            ask = ticks_of(state.rules, state.observed.feed.ask)
            sent = out.n_commands
            decide_exits(portfolio, state, params, i, t_ns, bid, ask, out)
            spend_tokens(portfolio, out.n_commands - sent)
    for i in range(len(symbols)):
        state = symbols[i]
        if state.observed.feed.bid > 0.0:
            bid = ticks_of(state.rules, state.observed.feed.bid)
            ask = ticks_of(state.rules, state.observed.feed.ask)
            sent = out.n_commands
            follow_entry(portfolio, state, params, i, t_ns, bid, ask, late, out)
            if not late:
                enter(portfolio, state, params, funnels[i], i, t_ns, bid, ask, out)
            spend_tokens(portfolio, out.n_commands - sent)
