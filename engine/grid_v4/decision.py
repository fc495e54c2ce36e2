"""The decision step, shared by backtest, optimizer, dry run and live trading.

A step is: ``open_step`` (what is known now), ``protect`` once per phase with its market exits
carried out before the next phase, then ``arrange``, which leaves the desired resting orders in the
state. Nothing here knows who carries the decisions out.
"""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from core.market import Market
from core.params import StrategyParams
from core.signals import Signal
from core.times import DAY_MS
from engine.grid_v4.book import cancel_entries, set_stop
from engine.grid_v4.generation import renew_generation
from engine.grid_v4.placement import entries_allowed, is_var_blocked, place_entries
from engine.grid_v4.protection import liquidation_exits, stage1_exits, stop_unit, switch_breaker
from engine.grid_v4.pruning import deleverage_exits, prune_exits
from engine.grid_v4.take_profit import place_take_profits
from engine.grid_v4.types import State
from engine.margin import has_position
from engine.types import LONG, SHORT, Tape

# Phases of ``protect``: the exits of one are done before the next is asked.
STOPS: Final = 0
MARGIN: Final = 1
PRUNING: Final = 2
DELEVERAGE: Final = 3
PROTECT_PHASES: Final = 4


@kernel
def open_step(
    state: State,
    bar: int,
    ts_ms: int,
    price: float,
    prev_close: float,
    signal: Signal,
    funding_rate: float,
) -> None:
    """Set the clock: what step ``bar`` knows (step 1).

    Args:
        state: writes now; starts a new UTC day for the realised profit.
        bar: index of the step.
        ts_ms: its instant, ms UTC.
        price: the reference price p, last traded, quote.
        prev_close: close of bar ``bar - 1``, quote.
        signal: indicators and regime at bar ``bar - 1``.
        funding_rate: last settled rate, 0 if there is none.
    """
    move_clock(state, bar, ts_ms)
    now = state.now
    now.price, now.prev_close = price, prev_close
    now.regime, now.er, now.kama, now.atr = signal.regime, signal.er, signal.kama, signal.atr
    now.z, now.sigma, now.atr_mean = signal.z, signal.sigma, signal.atr_mean
    now.volume_ratio, now.funding_rate = signal.volume_ratio, funding_rate
    state.orders_gone = False


@kernel
def move_clock(state: State, bar: int, ts_ms: int) -> None:
    """Let time go on to bar ``bar``, which opens at ``ts_ms``; a new UTC day earns anew."""
    state.now.bar, state.now.ts_ms = bar, ts_ms
    if ts_ms >= state.day_end_ms:
        state.day_end_ms = (ts_ms // DAY_MS + 1) * DAY_MS
        state.sides[LONG].realized_today = 0.0
        state.sides[SHORT].realized_today = 0.0


@kernel
def protect(state: State, params: StrategyParams, market: Market, phase: int, tape: Tape) -> int:
    """Decide the market exits of one phase (steps 2 to 5); return their number.

    Args:
        state: read and marked (halted, stage1_done, last_prune_bar).
        params: thresholds.
        market: lots and margin brackets.
        phase: STOPS (with the breaker), MARGIN, PRUNING or DELEVERAGE, in this order.
        tape: its exits are written anew; its trades receive the record of a halt.
    """
    tape.n_exits = 0
    if phase == STOPS:
        switch_breaker(state, params, tape)
    if not has_position(state):
        if phase == MARGIN and state.wallet <= 0.0:
            state.ended = True  # a jump has left nothing
    elif phase == STOPS:
        stage1_exits(state, params, market, tape)
    elif phase == MARGIN:
        liquidation_exits(state, market, tape)
    elif phase == PRUNING:
        prune_exits(state, params, tape)
    else:
        deleverage_exits(state, params, tape)
    return tape.n_exits


@kernel
def arrange(state: State, params: StrategyParams, market: Market) -> None:
    """Decide every order that should rest now (steps 6 to 8) and leave them in the state.

    Reads: now, positions. Writes: generations, entry orders, take-profits, wick stops.
    """
    state.acting = True
    blocked = is_var_blocked(state, params)
    if blocked:
        state.counters.var_blocks += 1
    price = state.now.price
    committed = (state.sides[LONG].qty + state.sides[SHORT].qty) * price
    for position_side in (LONG, SHORT):
        if position_side == SHORT and not params.allow_short:
            continue
        position = state.sides[position_side]
        allowed = entries_allowed(state, params, position_side)
        renew_generation(state, params, market, position_side, allowed)
        position.stop_distance = params.stop2_mult * stop_unit(state, params, position)
        if allowed and not blocked and not state.orders_gone:
            committed = place_entries(state, params, market, position_side, committed)
        else:
            cancel_entries(position, params)
        place_take_profits(state, params, market, position_side)
        set_stop(state, params, market, position_side)
