"""A whole run of the short grid over recorded events against the simulated exchange.

What happens is ordered by time: the market at the exchange (``feed`` before we see it), commands
that arrive there, reports that come back, and grid steps. A step knows exactly what came before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from core.errors import DataError
from core.jit import kernel
from core.recording import MS_NS, SECOND_NS, UNKNOWN, Event, EventKind
from core.records import Table, dtype_of, freeze, zeros, zeros_table
from engine.short_grid.decision import pay_funding, take_report
from engine.short_grid.feed import start_feed
from engine.short_grid.gates import Funnel
from engine.short_grid.loop import observe_until, run_step
from engine.short_grid.params import STEP_NS, ShortGridParams
from engine.short_grid.slots import EXIT
from engine.short_grid.types import (
    FOREVER_NS,
    Commands,
    Portfolio,
    Report,
    ReportKind,
    Rules,
    SymbolState,
    new_states,
    ticks_of,
)
from engine.short_grid.venue import (
    FUNDING_REPORT,
    MAX_QUEUED,
    QueueModel,
    Venue,
    VenueSymbol,
    fill_due_stops,
    find_order,
    next_command_ns,
    next_report_ns,
    send_command,
    take_command,
    take_market,
)

Ints = npt.NDArray[np.int64]
_FILL: Final = int(ReportKind.FILL)
_TRADE: Final = int(EventKind.TRADE)
LOG_STEPS: Final = 10
"""Steps from one row of the account's log to the next: a second."""
MAX_FILLS_A_STEP: Final = 1_024
"""Bound on the fills booked between two steps: where there is less room, rows are taken off."""
FILLS_AT_ONCE: Final = 16_384
QUICKEST: Final = 0.001
"""Share of stamped messages that are taken to be the quickest."""
LONGEST_NS: Final = 10 * SECOND_NS
"""A stamp that makes a message older than this is not believed."""


class TickFill:
    """One fill as the strategy booked it."""

    t_ns: int  # at the exchange
    symbol: int
    slot: int
    reason: int  # of the exit path, else 0
    order: int
    placed_ns: int  # when the exchange took it, 0 = no longer known
    decision: int
    trade_id: int
    ticks: int
    steps: int
    fee_e8: int
    net_e8: int  # of a close
    held: int  # steps after it
    layers: int  # after it
    mid: float  # quote, when it happened


class TickRow:
    """The account at one second."""

    t_ns: int
    realized_e8: int  # pnl - fees + funding since the start
    open_e8: int  # of what is held, at the ask
    exposure_e8: int  # notional held, at the ask
    positions: int


class Run:
    """How far a run is."""

    step: int  # next one
    event: int  # next one that the strategy sees
    market: int  # next one at the exchange
    fills: int  # rows written
    rows: int


@kernel
def give_commands(venue: Venue, out: Commands, t_ns: int) -> None:
    """Send what was written at ``t_ns``."""
    for i in range(out.n_commands):
        send_command(venue, out.commands[i], t_ns)
    out.n_commands = 0


@kernel
def note_fill(
    state: SymbolState,
    one: VenueSymbol,
    report: Report,
    reason: int,
    decision: int,
    t_ns: int,
    net_e8: int,
    row: TickFill,
) -> None:
    """Write a fill that has been booked."""
    row.t_ns, row.symbol, row.slot = t_ns, report.symbol, report.slot
    row.reason = reason if report.slot == EXIT else 0
    row.order, row.decision, row.trade_id = report.order, decision, report.trade_id
    row.ticks, row.steps, row.fee_e8 = report.ticks, report.steps, report.fee_e8
    place = find_order(one, report.order)
    row.placed_ns = one.orders[place].placed_ns if place >= 0 else 0
    row.net_e8, row.held = net_e8, state.ledger.steps
    row.layers, row.mid = state.ledger.n_layers, one.feed.mid


@kernel
def deliver(
    portfolio: Portfolio,
    symbols: Table[SymbolState],
    params: ShortGridParams,
    events: Table[Event],
    run: Run,
    venue: Venue,
    places: Table[VenueSymbol],
    out: Commands,
    fills: Table[TickFill],
) -> None:
    """Give the next report to the strategy, which knows every event before it."""
    report = venue.reports[venue.n_delivered % MAX_QUEUED]
    venue.n_delivered += 1
    t_ns = report.t_ns
    run.event = observe_until(portfolio, symbols, params, events, run.event, t_ns)
    state = symbols[report.symbol]
    if report.kind == FUNDING_REPORT:
        pay_funding(portfolio, state, t_ns, report.fee_e8)
        return
    ask = 0
    if state.observed.feed.bid > 0.0:
        ask = ticks_of(state.rules, state.observed.feed.ask)
    before, net = state.ledger.steps, state.ledger.net_e8
    reason, decision = state.exit.reason, state.slots[report.slot].decision
    take_report(portfolio, state, params, report, ask, out)
    if report.kind == _FILL and state.ledger.steps != before:
        note_fill(
            state,
            places[report.symbol],
            report,
            reason,
            decision,
            t_ns - venue.down_ns,
            state.ledger.net_e8 - net,
            fills[run.fills],
        )
        run.fills += 1
    give_commands(venue, out, t_ns)


@kernel
def log_account(portfolio: Portfolio, symbols: Table[SymbolState], t_ns: int, row: TickRow) -> None:
    """Write the account at ``t_ns``."""
    row.t_ns, row.realized_e8 = t_ns, portfolio.realized_e8
    row.open_e8, row.exposure_e8, row.positions = 0, 0, 0
    for i in range(len(symbols)):
        ledger = symbols[i].ledger
        if ledger.steps == 0:
            continue
        ask = ticks_of(symbols[i].rules, symbols[i].observed.feed.ask)
        now_e8 = ledger.steps * ask * symbols[i].rules.unit_e8
        row.open_e8 += ledger.cost_e8 - now_e8
        row.exposure_e8 += now_e8
        row.positions += 1


@kernel
def run_until_step(
    portfolio: Portfolio,
    symbols: Table[SymbolState],
    params: ShortGridParams,
    events: Table[Event],
    order: Ints,
    times: Ints,
    run: Run,
    venue: Venue,
    places: Table[VenueSymbol],
    out: Commands,
    fills: Table[TickFill],
) -> None:
    """Let everything happen that is before the next step."""
    step_ns = run.step * STEP_NS
    while True:
        market_ns = times[run.market] if run.market < len(order) else FOREVER_NS
        command_ns, report_ns = next_command_ns(venue), next_report_ns(venue)
        first = min(market_ns, command_ns, report_ns)
        if first >= step_ns:
            return
        if market_ns == first:
            event = events[order[run.market]]
            run.market += 1
            if 0 <= event.symbol < len(places):
                one = places[event.symbol]
                if one.next_due_ns <= market_ns:
                    fill_due_stops(venue, one, event.symbol, market_ns)
                take_market(venue, one, event, market_ns)
        elif command_ns == first:
            sent = venue.commands[venue.n_arrived % MAX_QUEUED]
            venue.n_arrived += 1
            take_command(venue, places[sent.command.symbol], sent.command, command_ns)
        else:
            deliver(portfolio, symbols, params, events, run, venue, places, out, fills)


@kernel
def run_ticks(
    portfolio: Portfolio,
    symbols: Table[SymbolState],
    funnels: Table[Funnel],
    params: ShortGridParams,
    events: Table[Event],
    order: Ints,
    times: Ints,
    run: Run,
    last_step: int,
    venue: Venue,
    places: Table[VenueSymbol],
    out: Commands,
    fills: Table[TickFill],
    rows: Table[TickRow],
) -> bool:
    """Run steps up to ``last_step``; return whether the end was reached.

    False: ``fills`` could overflow; the caller takes its rows and calls again.

    Args:
        portfolio: as it stands before step ``run.step``.
        symbols: likewise, shape (n_symbols,).
        funnels: gates counted, shape (n_symbols,).
        params: of the strategy.
        events: in the order the strategy sees them, shape (n_events,).
        order: rows of ``events`` in the order they happen at the exchange, shape (n_events,).
        times: when each of ``order`` happens, ns, not falling, shape (n_events,).
        run: how far it is.
        last_step: inclusive.
        venue: messages under way.
        places: the symbols at the exchange, shape (n_symbols,).
        out: scratch.
        fills: written from ``run.fills`` on.
        rows: written from ``run.rows`` on, one each ``LOG_STEPS`` steps.
    """
    while run.step <= last_step:
        if run.fills + MAX_FILLS_A_STEP > len(fills):
            return False
        run_until_step(
            portfolio, symbols, params, events, order, times, run, venue, places, out, fills
        )
        run.event = run_step(
            portfolio, symbols, funnels, params, events, run.event, run.step, False, out
        )
        give_commands(venue, out, run.step * STEP_NS)
        if run.step % LOG_STEPS == 0 and run.rows < len(rows):
            log_account(portfolio, symbols, run.step * STEP_NS, rows[run.rows])
            run.rows += 1
        run.step += 1
    return True


def exchange_order(events: Any, feed_ns: int) -> tuple[Ints, Ints]:
    """Return in which order events happen at the exchange, and when (ns).

    By the exchange's own stamp, the quickest messages having been ``feed_ns`` under way; an event
    without a stamp, or with one that is seconds off, was under way for that long. Within one
    millisecond trades come before books: two connections say nothing of their mutual order.
    """
    seen, known = events["t_ns"] - feed_ns, events["transaction_ms"] != UNKNOWN
    when = seen.copy()
    if known.any():
        stamped = events["transaction_ms"] * MS_NS
        offset = int(np.quantile((seen - stamped)[known], QUICKEST))
        shifted = np.minimum(stamped + offset, seen)
        believable = known & (seen - shifted <= LONGEST_NS)
        when = np.where(believable, shifted, seen)
    later = (events["kind"] != _TRADE).astype(np.int64)
    order = np.lexsort((np.arange(len(events)), later, when // MS_NS))
    times = np.maximum.accumulate(when[order]) if len(events) else when
    return order.astype(np.int64), np.asarray(times, dtype=np.int64)


class TickRun:
    """The short grid over the events of one session, with one model of the queue.

    Args:
        events: in their total order.
        rules: of each symbol, by the events' index.
        params: of the strategy.
        model: of the queue.
        up_ns: from us to the exchange.
        down_ns: from the exchange to us, reports.
        timeline: when events happen at the exchange, see ``exchange_order``.
    """

    def __init__(
        self,
        events: Any,
        rules: Sequence[Rules],
        params: ShortGridParams,
        model: QueueModel,
        *,
        up_ns: int,
        down_ns: int,
        timeline: tuple[Ints, Ints],
    ) -> None:
        self.events, self.rules = events, list(rules)
        self._params: Any = freeze(params)
        self._order, self._times = timeline
        start_ns, end_ns = int(events["t_ns"][0]), int(events["t_ns"][-1])
        self.portfolio, symbols = new_states(self.rules, self._params, start_ns)
        self.symbols: Any = symbols
        self.portfolio.marks_expected = bool((events["kind"] == int(EventKind.MARK)).any())
        self.funnels: Any = zeros_table(Funnel, len(self.rules))
        self.venue = zeros(Venue)
        self.venue.model = int(model)
        self.venue.up_ns, self.venue.down_ns = up_ns, down_ns
        places: Any = zeros_table(VenueSymbol, len(self.rules))
        for place, rule in zip(places, self.rules, strict=True):
            place.rules, place.next_due_ns = rule, FOREVER_NS
            start_feed(place.feed)
        self.places: Any = places
        self.progress = zeros(Run)
        self.first_step = self.progress.step = start_ns // STEP_NS + 1
        self.last_step = end_ns // STEP_NS
        n_rows = max(self.last_step - self.progress.step, 0) // LOG_STEPS + 2
        self._rows: Any = np.zeros(n_rows, dtype_of(TickRow))
        self._fills: Any = np.zeros(FILLS_AT_ONCE, dtype_of(TickFill))
        self._taken: list[Any] = []
        self._out = zeros(Commands)

    @property
    def fills(self) -> Any:
        """All fills so far, a table of ``TickFill``."""
        return np.concatenate([*self._taken, self._fills[: self.progress.fills]])

    @property
    def account(self) -> Any:
        """The account at every second so far, a table of ``TickRow``."""
        return self._rows[: self.progress.rows]

    def advance(self, last_step: int | None = None) -> None:
        """Run to the end, or up to ``last_step``.

        Raises:
            DataError: more messages were under way than there is room for.
        """
        until = self.last_step if last_step is None else min(last_step, self.last_step)
        while not run_ticks(
            self.portfolio,
            self.symbols,
            self.funnels,
            self._params,
            self.events,
            self._order,
            self._times,
            self.progress,
            until,
            self.venue,
            self.places,
            self._out,
            self._fills,
            self._rows,
        ):
            self._taken.append(self._fills[: self.progress.fills].copy())
            self.progress.fills = 0
        if self.venue.lost:
            raise DataError(
                f"{self.venue.lost} messages found no room among the {MAX_QUEUED} under way; "
                "shorten the latency"
            )
