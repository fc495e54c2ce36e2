"""The compiled backtest loop: bars in, trades and a log of every bar out."""

from __future__ import annotations

from core.jit import kernel
from core.market import Market
from core.params import StrategyParams
from core.records import Table
from core.signals import Signal
from engine.grid_v4.decision import PROTECT_PHASES, arrange, open_step, protect
from engine.grid_v4.execution import execute_exits, trigger_passed_stops
from engine.grid_v4.types import State
from engine.grid_v4.walk import walk_bar, walk_detail, walk_gap
from engine.ledger import close_side, equity_at, settle_funding
from engine.tables import BarLog, Funding
from engine.types import CLOSE_END, LONG, MAX_TRADES, SHORT, Bar, Tape


@kernel
def records_per_step(state: State, params: StrategyParams) -> int:
    """Return a bound on the trade records one step can write."""
    fills = state.sides[LONG].n_fills + state.sides[SHORT].n_fills + 2 * params.grid_levels
    return fills * (params.grid_levels + 2) + 4


@kernel
def exit_step(state: State, params: StrategyParams, market: Market, tape: Tape) -> None:
    """Do steps 2 to 5, with every exit done at the step's price."""
    for phase in range(PROTECT_PHASES):
        if protect(state, params, market, phase, tape) > 0:
            execute_exits(state, params, market, tape)
        if state.ended:
            return


@kernel
def order_step(state: State, params: StrategyParams, market: Market, tape: Tape) -> None:
    """Do steps 6 to 8, with every stop already passed done at the step's price."""
    if state.ended:
        return
    arrange(state, params, market)
    trigger_passed_stops(state, params, market, tape)


@kernel
def pass_bar(
    state: State,
    params: StrategyParams,
    market: Market,
    bar: Bar,
    detail: Table[Bar],
    begin: int,
    end: int,
    due: float,
    tape: Tape,
) -> float:
    """Let the orders rest through ``bar`` and settle funding; return what it paid, quote.

    Args:
        state: after ``order_step``.
        params: strategy parameters.
        market: rules of the symbol.
        bar: walked as a candle where it has no sub-bars.
        detail: sub-bars.
        begin: first sub-bar of the bar.
        end: exclusive.
        due: sum of the funding rates settled in the bar.
        tape: trade records are appended.
    """
    if end > begin:
        walk_detail(state, params, market, detail, begin, end, tape)
    else:
        walk_bar(state, params, market, bar, tape)
    if params.funding_enabled and due != 0.0:
        return settle_funding(state, due, bar.close)
    return 0.0


@kernel
def log_bar(state: State, funding: float, close: float, row: BarLog) -> None:
    """Write the account at ``close``."""
    row.equity = 0.0 if state.ended else equity_at(state, close)
    row.wallet, row.funding = state.wallet, funding
    long, short = state.sides[LONG], state.sides[SHORT]
    row.long_qty, row.short_qty = long.qty, short.qty
    row.long_centre, row.long_pct = long.centre, long.entry_pct
    row.short_centre, row.short_pct = short.centre, short.entry_pct


@kernel
def run_bars(
    state: State,
    params: StrategyParams,
    market: Market,
    bars: Table[Bar],
    signals: Table[Signal],
    funding: Table[Funding],
    detail: Table[Bar],
    detail_from: Table[int],
    first_bar: int,
    start: int,
    tape: Tape,
    log: Table[BarLog],
) -> int:
    """Run steps from ``start`` on; return the index of the first step not done.

    Stops early, between two steps, where the tape could overflow: the caller takes its trades off
    and calls again with the index returned.

    Args:
        state: as it stands before step ``start``.
        params: strategy parameters.
        market: rules of the symbol.
        bars: shape (n_bars,).
        signals: indicators, shape (n_bars,).
        funding: shape (n_bars,).
        detail: sub-bars, shape (n_sub,).
        detail_from: first sub-bar of each bar, shape (n_bars + 1,); no sub-bars: equal to the next.
        first_bar: no step before it acts.
        start: first step of this call.
        tape: trade records are appended.
        log: written, shape (n_bars,).
    """
    for i in range(start, len(bars)):
        if tape.n_trades + records_per_step(state, params) > MAX_TRADES:
            return i
        bar = bars[i]
        paid = 0.0
        acts = i >= first_bar and i > 0 and signals[i - 1].ready
        if acts and not state.ended:
            open_step(
                state, i, bar.ts_ms, bar.open, bars[i - 1].close, signals[i - 1], funding[i].known
            )
            walk_gap(state, params, market, bars[i - 1].close, bar.open, tape)
            exit_step(state, params, market, tape)
            order_step(state, params, market, tape)
            paid = pass_bar(
                state,
                params,
                market,
                bar,
                detail,
                detail_from[i],
                detail_from[i + 1],
                funding[i].due,
                tape,
            )
        log_bar(state, paid, bar.close, log[i])
    return len(bars)


@kernel
def close_at_end(
    state: State, params: StrategyParams, market: Market, close: float, tape: Tape, row: BarLog
) -> None:
    """Close what is open like a market exit at the last ``close`` and log the account after it."""
    close_side(state, params, market, LONG, close, CLOSE_END, tape)
    close_side(state, params, market, SHORT, close, CLOSE_END, tape)
    log_bar(state, row.funding, close, row)
