"""One step of the short grid, the same for every driver: events in, commands out."""

from __future__ import annotations

from core.jit import kernel
from core.recording import Event
from core.records import Table
from engine.short_grid.decision import decide
from engine.short_grid.gates import Funnel
from engine.short_grid.observation import observe, step_observed
from engine.short_grid.params import STEP_NS, ShortGridParams
from engine.short_grid.types import Commands, Portfolio, SymbolState


@kernel
def observe_until(
    portfolio: Portfolio,
    symbols: Table[SymbolState],
    params: ShortGridParams,
    events: Table[Event],
    first: int,
    t_ns: int,
) -> int:
    """Take in the events from row ``first`` on that are before ``t_ns``; return the next row."""
    universe, row = portfolio.universe, first
    while row < len(events) and events[row].t_ns < t_ns:
        event = events[row]
        universe.n_events += 1
        if 0 <= event.symbol < len(symbols):
            observe(universe, symbols[event.symbol].observed, params, event)
        else:
            universe.n_unknown += 1
        row += 1
    return row


@kernel
def run_step(
    portfolio: Portfolio,
    symbols: Table[SymbolState],
    funnels: Table[Funnel],
    params: ShortGridParams,
    events: Table[Event],
    first: int,
    step: int,
    late: bool,
    out: Commands,
) -> int:
    """Do step ``step``: everything before it is known, nothing else; return the next event's row.

    ``late``: it is overdue, and a later one waits.
    """
    row = observe_until(portfolio, symbols, params, events, first, step * STEP_NS)
    portfolio.universe.step = step
    for i in range(len(symbols)):
        state = symbols[i]
        held = state.ledger.steps > 0
        step_observed(portfolio.universe, state.observed, params, step, held)
    decide(portfolio, symbols, funnels, params, step, late, out)
    return row
