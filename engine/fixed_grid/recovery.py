"""Recovery of positions that are stuck: phases 4 to 6 of a step (A7).

Every function decides for the worst position that needs something and returns; it is asked again
when that is done, until it decides nothing. So each decision reads the ledger that the ones before
it have left.
"""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from core.market import Market
from engine.fixed_grid.frozen import FixedParams
from engine.fixed_grid.levels import affordable, is_under_minimum, make_ladder, reached
from engine.fixed_grid.params import Escalation, RecoveryMode
from engine.fixed_grid.positions import margin_used, take_age
from engine.fixed_grid.types import (
    MARK_ESCALATION,
    MARK_LADDER,
    MARK_RUNG,
    MARK_STUCK,
    NO_TIME,
    STAGE_HEDGED,
    STAGE_LADDER,
    STAGE_OPEN,
    FixedState,
    FixedTape,
    Position,
    add_fixed_exit,
    write_mark,
)
from engine.ledger import find_fill, market_price
from engine.types import (
    LONG,
    RECOVERY_CLOSE,
    RECOVERY_ESCALATION,
    RECOVERY_HEDGE_CLOSE,
    RECOVERY_HEDGE_OPEN,
    SHORT,
)

TOLD_AGAIN_S: Final = 2 * 3600
"""A ladder that stands too long is reported again after this time."""
AGGRESSIVE: Final = int(RecoveryMode.AGGRESSIVE)
HEDGE: Final = int(RecoveryMode.HEDGE)
NO_RECOVERY: Final = int(RecoveryMode.NONE)
ALERT: Final = int(Escalation.ALERT)
ESCALATE_BY_CLOSE: Final = int(Escalation.CLOSE)
ESCALATE_BY_HEDGE: Final = int(Escalation.HEDGE)


@kernel
def loss_share(params: FixedParams, position: Position, price: float) -> float:
    """Return the loss at ``price`` as a share of the entry price, negative in profit."""
    return params.sign * (position.price - price) / position.price


@kernel
def close_both(params: FixedParams, position: Position, label: int, tape: FixedTape) -> None:
    """Decide to close all legs of a position, the long leg first."""
    if position.hedge_id >= 0 and params.side == SHORT:
        add_fixed_exit(
            tape, params.hedge_side, position.hedge_id, position.qty, label, releases=False
        )
    add_fixed_exit(tape, params.side, position.fill_id, position.qty, label, releases=False)
    if position.hedge_id >= 0 and params.side == LONG:
        add_fixed_exit(
            tape, params.hedge_side, position.hedge_id, position.qty, label, releases=False
        )


@kernel
def hedge_exits(state: FixedState, params: FixedParams, tape: FixedTape) -> None:
    """Decide on the worst hedge that is to be released or has stood too long (phase 4)."""
    own, now = state.sides[params.side], state.now
    for row in range(own.n_fills):
        position = own.fills[row]
        if position.stage != STAGE_HEDGED or position.hedge_id < 0:
            continue
        hedges = state.sides[params.hedge_side]
        leg = hedges.fills[find_fill(hedges, position.hedge_id)]
        back = params.sign * (now.price / leg.price - 1.0)
        if reached(back, params.hedge_release_share):
            add_fixed_exit(
                tape, params.hedge_side, leg.fill_id, leg.qty, RECOVERY_HEDGE_CLOSE, releases=True
            )
            return
        if now.step_s - position.stage_time >= params.hedge_max_s:
            close_both(params, position, RECOVERY_HEDGE_CLOSE, tape)
            return


@kernel
def is_stuck(state: FixedState, params: FixedParams, position: Position) -> bool:
    """Return whether an open position is old enough and far enough from its close price."""
    if position.stage != STAGE_OPEN or position.qty <= 0.0:
        return False
    if state.now.step_s - position.opened < params.timeout_s:
        return False
    target = position.take_profit
    return reached(params.sign * (target - state.now.price) / target, params.stuck_share)


@kernel
def stuck_exits(state: FixedState, params: FixedParams, market: Market, tape: FixedTape) -> None:
    """Mark what is stuck and recover it: ladders are laid, market orders decided (phase 5)."""
    own = state.sides[params.side]
    for row in range(own.n_fills):
        position = own.fills[row]
        if not is_stuck(state, params, position):
            continue
        if not position.stuck:
            position.stuck = True
            state.counters.stuck_total += 1
            state.nearest.stale = True
            write_mark(state, tape, MARK_STUCK, position, state.now.price, position.qty)
        if params.recovery_mode == NO_RECOVERY:
            continue
        too_late = reached(loss_share(params, position, state.now.price), params.stop_share)
        if too_late or position.recovered or params.recovery_mode == AGGRESSIVE:
            add_fixed_exit(
                tape, params.side, position.fill_id, position.qty, RECOVERY_CLOSE, releases=False
            )
            return
        if params.recovery_mode == HEDGE:
            hedge_or_close(state, params, market, position, tape)
            return
        lay_ladder(state, params, market, position, tape)


@kernel
def lay_ladder(
    state: FixedState, params: FixedParams, market: Market, position: Position, tape: FixedTape
) -> None:
    """Replace the close order of a position by rungs, laid once."""
    price = state.now.price
    state.counters.recovery_attempts += 1
    position.recovered = True
    position.stage, position.stage_time = STAGE_LADDER, state.now.step_s
    position.close_price = 0.0
    state.nearest.stale = state.exits_stale = True
    ladder = state.ladders[position.slot]
    make_ladder(params, market, position.take_profit, price, position.qty, ladder)
    write_mark(state, tape, MARK_LADDER, position, price, position.qty)
    for k in range(ladder.n_rungs):
        rung = ladder.rungs[k]
        rung.age = take_age(state)
        write_mark(state, tape, MARK_RUNG, position, rung.price, rung.qty)


@kernel
def hedge_or_close(
    state: FixedState, params: FixedParams, market: Market, position: Position, tape: FixedTape
) -> None:
    """Decide to open the opposite side; over the cap or under the minimum: to close instead."""
    price = market_price(params, market, params.side, state.now.price)
    more = position.qty * price / params.leverage
    fits = affordable(margin_used(state, params, with_working=True) + more, params.max_margin_usd)
    label = RECOVERY_HEDGE_OPEN
    if position.hedge_refused or not fits or is_under_minimum(market, position.qty, price):
        label = RECOVERY_CLOSE
    side = params.hedge_side if label == RECOVERY_HEDGE_OPEN else params.side
    add_fixed_exit(tape, side, position.fill_id, position.qty, label, releases=False)


@kernel
def escalation_exits(
    state: FixedState, params: FixedParams, market: Market, tape: FixedTape
) -> None:
    """Escalate the worst ladder that has stood for too long (phase 6)."""
    own, now = state.sides[params.side], state.now.step_s
    for row in range(own.n_fills):
        position = own.fills[row]
        if position.stage != STAGE_LADDER or now - position.stage_time < params.escalation_s:
            continue
        recent = position.told != NO_TIME and now - position.told < TOLD_AGAIN_S
        if params.escalation == ALERT and recent:
            continue
        if position.told != now:
            position.told = now
            write_mark(state, tape, MARK_ESCALATION, position, state.now.price, position.qty)
        if params.escalation == ESCALATE_BY_CLOSE:
            add_fixed_exit(
                tape,
                params.side,
                position.fill_id,
                position.qty,
                RECOVERY_ESCALATION,
                releases=False,
            )
            return
        if params.escalation == ESCALATE_BY_HEDGE:
            hedge_or_close(state, params, market, position, tape)
            return
