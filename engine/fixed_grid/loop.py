"""The compiled backtest loop of the fixed grid: candles in, trades and a log of every one out."""

from __future__ import annotations

from core.jit import kernel
from core.market import Market
from core.records import Table
from engine.fixed_grid.candles import CandleFlags
from engine.fixed_grid.decision import FIXED_PHASES, arrange, go_on, open_fixed_step, protect
from engine.fixed_grid.frozen import FixedParams
from engine.fixed_grid.health import log_step
from engine.fixed_grid.matching import walk_bar, walk_gap
from engine.fixed_grid.positions import close_all, execute_exit, liquidate, margin_used
from engine.fixed_grid.types import (
    MARKS_A_POSITION,
    MAX_MARKS,
    RECORDS_A_POSITION,
    FixedState,
    FixedTape,
)
from engine.ledger import equity_at, settle_funding
from engine.tables import Funding
from engine.types import CLOSE_END, LIQUIDATION, LONG, MAX_TRADES, SHORT, Bar


class FixedLog:
    """The account at the close of one candle."""

    equity: float  # quote
    wallet: float  # quote
    funding: float  # quote received in this candle
    long_qty: float  # base
    short_qty: float  # base
    margin: float  # M with the working order, quote
    n_open: int


@kernel
def decide_step(state: FixedState, params: FixedParams, market: Market, tape: FixedTape) -> None:
    """Do phases 1 to 8, with every market order done at the step's price."""
    for phase in range(FIXED_PHASES):
        while protect(state, params, market, phase, tape) > 0:
            for k in range(tape.n_exits):
                out = tape.exits[k]
                if out.label == LIQUIDATION:
                    liquidate(state, params, market, state.now.price, tape)
                else:
                    execute_exit(state, params, market, out, tape)
            if state.ended:
                log_step(state, params)
                return
    arrange(state, params, market)


@kernel
def log_candle(
    state: FixedState, params: FixedParams, funding: float, close: float, row: FixedLog
) -> None:
    """Write the account at ``close``."""
    row.equity = 0.0 if state.ended else equity_at(state, close)
    row.wallet, row.funding = state.wallet, funding
    row.long_qty, row.short_qty = state.sides[LONG].qty, state.sides[SHORT].qty
    row.margin = margin_used(state, params, True)
    row.n_open = state.sides[params.side].n_fills


@kernel
def is_tape_full(state: FixedState, params: FixedParams, tape: FixedTape) -> bool:
    """Return whether the next candle could write more than the tape holds."""
    positions = state.sides[params.side].n_fills + 2
    return (
        tape.n_trades + positions * RECORDS_A_POSITION > MAX_TRADES
        or tape.n_marks + positions * MARKS_A_POSITION > MAX_MARKS
    )


@kernel
def play_candle(
    state: FixedState,
    params: FixedParams,
    market: Market,
    bar: Bar,
    index: int,
    before: float,
    begins_step: bool,
    tape: FixedTape,
) -> None:
    """Do the gap from the close ``before``, the step if one begins, and the candle's path."""
    if begins_step:
        open_fixed_step(state, params, index, bar.ts_ms, bar.open, before)
        walk_gap(state, params, market, before, bar.open, tape)
        if not state.ended:
            decide_step(state, params, market, tape)
    else:
        go_on(state, params, index, bar.ts_ms)
    if not state.ended:
        walk_bar(state, params, market, bar, tape)


@kernel
def run_fixed_bars(
    state: FixedState,
    params: FixedParams,
    market: Market,
    bars: Table[Bar],
    flags: Table[CandleFlags],
    funding: Table[Funding],
    detail: Table[Bar],  # noqa: ARG001 - the signature of every strategy's loop
    detail_from: Table[int],  # noqa: ARG001
    first_bar: int,
    start: int,
    tape: FixedTape,
    log: Table[FixedLog],
) -> int:
    """Walk candles from ``start`` on; return the index of the first one not done.

    Stops early, between two candles, where the tape could overflow: the caller takes its records
    off and calls again with the index returned.

    Args:
        state: as it stands before candle ``start``.
        params: of the strategy.
        market: rules of the symbol.
        bars: shape (n_bars,).
        flags: shape (n_bars,).
        funding: shape (n_bars,).
        detail: not read: candles are as fine as a step already.
        detail_from: not read.
        first_bar: no step before it acts.
        start: first candle of this call.
        tape: trade records and marks are appended.
        log: written, shape (n_bars,).
    """
    for i in range(start, len(bars)):
        if is_tape_full(state, params, tape):
            return i
        bar = bars[i]
        paid = 0.0
        if not state.ended and i >= first_bar:
            before = bars[i - 1].close if i > first_bar else bar.open
            play_candle(state, params, market, bar, i, before, flags[i].begins_step, tape)
            if params.funding_enabled and funding[i].due != 0.0:
                paid = settle_funding(state, funding[i].due, bar.close)
            if state.sides[params.side].n_fills > 0:
                state.counters.bars_held += 1
        log_candle(state, params, paid, bar.close, log[i])
    return len(bars)


@kernel
def close_fixed_at_end(
    state: FixedState,
    params: FixedParams,
    market: Market,
    close: float,
    tape: FixedTape,
    row: FixedLog,
) -> None:
    """Close what is open at market at the last ``close``, worst first, and log what is left."""
    own, counters = state.sides[params.side], state.counters
    counters.current_exposure = close * (state.sides[LONG].qty + state.sides[SHORT].qty)
    counters.stuck_now = 0
    for position in range(own.n_fills):
        counters.stuck_now += 1 if own.fills[position].stuck else 0
    close_all(state, params, market, close, CLOSE_END, tape)
    state.working.price, state.working.qty = 0.0, 0.0
    log_candle(state, params, row.funding, close, row)
