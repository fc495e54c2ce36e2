"""The observation of every symbol: events routed to them, steps done on all of them.

Step ``k`` at ``t_k = k * step`` knows exactly the events before ``t_k``: it runs before the first
event that is not.
"""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from core.recording import MS_NS, Event, EventKind
from core.records import Table, zeros, zeros_table
from engine.short_grid.feed import (
    Feed,
    count_lag,
    is_lagging,
    roll_lag,
    start_feed,
    take_book,
    take_mark,
    take_trade,
)
from engine.short_grid.params import STEP_NS, ShortGridParams
from engine.short_grid.signals import Rates, Signals, add_book, add_trade, fill_rates, step_signals
from engine.short_grid.volatility import Regime, step_regime, take_candles

_BOOK: Final = int(EventKind.BOOK)
_TRADE: Final = int(EventKind.TRADE)
_MARK: Final = int(EventKind.MARK)
_REPLY: Final = int(EventKind.REPLY)


class Observed:
    """One symbol: what arrived, and what follows from it at the last step."""

    feed: Feed
    signals: Signals
    regime: Regime
    stale_steps: int  # counted
    stale: bool  # no new risk


class Universe:
    """The part all symbols have in common."""

    step: int  # number of the last step, 0 = none yet
    n_symbols: int
    book_t_ns: int  # of any symbol, 0 = none yet
    trade_t_ns: int
    n_events: int
    n_unknown: int  # events of a symbol that is not in the table
    n_other: int  # events of a kind that is not observed
    rates: Rates


class Outlook:
    """One row of the log of steps, for tests and recordings of signals."""

    step: int
    symbol: int
    n_steps: int
    stale: bool
    mid: float
    spread: float
    spread_med: float
    ti_300ms: float
    ti_500ms: float
    ti_2s: float
    buy_ratio: float
    qi: float
    md: float
    ofi_2s: float
    touch_notional: float
    r_1s: float
    r_2s: float
    r_30s: float
    r_60s: float
    sigma: float
    pump: float
    pump_peak: float
    exhaust: float
    baseline: float
    vol: float
    drift: float
    tail: float


SIGNAL_NAMES: Final = tuple(
    name for name in Outlook.__annotations__ if name in Signals.__annotations__
)


@kernel
def start_observed(universe: Universe, table: Table[Observed], params: ShortGridParams) -> None:
    """Set what is not 0 at the start in zero-filled records."""
    universe.n_symbols = len(table)
    fill_rates(universe.rates, params)
    for i in range(len(table)):
        start_feed(table[i].feed)


@kernel
def observe(universe: Universe, one: Observed, params: ShortGridParams, event: Event) -> None:
    """Bring one symbol up to date with an event of its own, at once, in constant time."""
    feed = one.feed
    if event.kind == _BOOK:
        before_bid, before_bid_qty = feed.bid, feed.bid_qty
        before_ask, before_ask_qty = feed.ask, feed.ask_qty
        if take_book(feed, event) == 0:
            universe.book_t_ns = event.t_ns
            count_lag(feed, event, params.max_lag_ms)
            add_book(one.signals, event, before_bid, before_bid_qty, before_ask, before_ask_qty)
    elif event.kind == _TRADE:
        if take_trade(feed, event) == 0:
            universe.trade_t_ns = event.t_ns
            count_lag(feed, event, params.max_lag_ms)
            add_trade(one.signals, event)
    elif event.kind == _MARK:
        take_mark(feed, event)
    elif event.kind == _REPLY:
        take_candles(one.regime, params, event)
    else:
        universe.n_other += 1


@kernel
def step_observed(
    universe: Universe, one: Observed, params: ShortGridParams, step: int, holding: bool
) -> None:
    """Do step ``step`` of one symbol; ``holding``: it has a position."""
    feed = one.feed
    t_ns = step * STEP_NS
    step_signals(one.signals, feed, params, universe.rates, step)
    step_regime(one.regime, params, one.signals.sigma, t_ns, holding)
    limit_ns = params.stale_ms * MS_NS
    silent = t_ns - feed.book_t_ns > limit_ns
    others = t_ns - universe.book_t_ns <= limit_ns
    one.stale = feed.book_t_ns == 0 or (silent and others) or is_lagging(feed)
    one.stale_steps += one.stale
    roll_lag(feed)


@kernel
def write_outlook(one: Observed, symbol: int, row: Outlook) -> None:
    """Write what is known of a symbol at its last step."""
    s, regime = one.signals, one.regime
    row.step, row.symbol, row.n_steps, row.stale = s.step, symbol, s.n_steps, one.stale
    row.mid, row.spread, row.spread_med = s.mid, s.spread, s.spread_med
    row.ti_300ms, row.ti_500ms, row.ti_2s = s.ti_300ms, s.ti_500ms, s.ti_2s
    row.buy_ratio, row.qi, row.md, row.ofi_2s = s.buy_ratio, s.qi, s.md, s.ofi_2s
    row.touch_notional = s.touch_notional
    row.r_1s, row.r_2s, row.r_30s, row.r_60s = s.r_1s, s.r_2s, s.r_30s, s.r_60s
    row.sigma, row.pump, row.pump_peak, row.exhaust = s.sigma, s.pump, s.pump_peak, s.exhaust
    row.baseline, row.vol = regime.baseline, regime.vol
    row.drift, row.tail = regime.drift, regime.tail


@kernel
def observe_events(
    universe: Universe,
    table: Table[Observed],
    params: ShortGridParams,
    events: Table[Event],
    last_step: int,
    log: Table[Outlook],
) -> int:
    """Walk ``events`` and every step up to ``last_step``; return the rows written to ``log``.

    The first event of all decides which step is the first. Steps are logged until ``log`` is full;
    an empty one logs nothing.
    """
    n_rows = 0
    for i in range(len(events)):
        event = events[i]
        if universe.step == 0:
            universe.step = event.t_ns // STEP_NS
        while event.t_ns >= (universe.step + 1) * STEP_NS:
            n_rows = do_step(universe, table, params, log, n_rows)
        universe.n_events += 1
        if 0 <= event.symbol < universe.n_symbols:
            observe(universe, table[event.symbol], params, event)
        else:
            universe.n_unknown += 1
    while universe.step < last_step and universe.step > 0:
        n_rows = do_step(universe, table, params, log, n_rows)
    return n_rows


@kernel
def do_step(
    universe: Universe,
    table: Table[Observed],
    params: ShortGridParams,
    log: Table[Outlook],
    n_rows: int,
) -> int:
    """Do the next step of all symbols and log it; return the rows logged so far."""
    universe.step += 1
    for i in range(universe.n_symbols):
        step_observed(universe, table[i], params, universe.step, False)
        if n_rows < len(log):
            write_outlook(table[i], i, log[n_rows])
            n_rows += 1
    return n_rows


def new_observation(n_symbols: int, params: ShortGridParams) -> tuple[Universe, Table[Observed]]:
    """Return the records of ``n_symbols`` symbols before their first event."""
    universe, table = zeros(Universe), zeros_table(Observed, n_symbols)
    start_observed(universe, table, params)
    return universe, table


def steps_between(first_ns: int, last_ns: int) -> int:
    """Return how many steps lie in ``(first_ns, last_ns]``."""
    return last_ns // STEP_NS - first_ns // STEP_NS
