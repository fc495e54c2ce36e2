"""The nearest orders of a book: close order and stop, counts and ages.

Most steps and most candles change nothing; these few numbers show it.
"""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from engine.fixed_grid.frozen import FixedParams
from engine.fixed_grid.positions import shares_stop
from engine.fixed_grid.types import (
    STAGE_HEDGED,
    STAGE_LADDER,
    STAGE_OPEN,
    FixedState,
    Nearest,
    Position,
)

FAR_FUTURE: Final = 1 << 61
"""A time after any, s."""
SHARED: Final = -1
NOBODY: Final = -2


@kernel
def is_refused(params: FixedParams, touched: int, bar: int) -> bool:
    """Return whether an order was first reached in this very bar and that does not fill it."""
    return params.refuse_first_touch and touched == bar + 1


@kernel
def find_nearest(state: FixedState, params: FixedParams) -> None:
    """Make ``nearest`` anew from the positions and their orders."""
    nearest, own = state.nearest, state.sides[params.side]
    nearest.stale = False
    nearest.exit_price, nearest.exit_row, nearest.exit_rung = 0.0, NOBODY, -1
    nearest.stop_price, nearest.stop_row = 0.0, NOBODY
    nearest.n_hedged, nearest.n_ladders, nearest.n_stuck = 0, 0, 0
    nearest.oldest_open = nearest.oldest = nearest.oldest_ladder = FAR_FUTURE
    oldest_sharing, oldest_stop = FAR_FUTURE, FAR_FUTURE
    for row in range(own.n_fills):
        position = own.fills[row]
        _count(nearest, position)
        _offer_exits(state, params, row)
        if shares_stop(position):
            oldest_sharing = min(oldest_sharing, position.fill_id)
        elif position.owns_stop and _is_nearer_stop(
            nearest, params, position.stop, position.fill_id, oldest_stop
        ):
            nearest.stop_price, nearest.stop_row = position.stop, row
            oldest_stop = position.fill_id
    if (
        state.shared_stop > 0.0
        and oldest_sharing < FAR_FUTURE
        and _is_nearer_stop(nearest, params, state.shared_stop, oldest_sharing, oldest_stop)
    ):
        nearest.stop_price, nearest.stop_row = state.shared_stop, SHARED


@kernel
def _offer_exits(state: FixedState, params: FixedParams, row: int) -> None:
    """Offer the close order or the rungs of a position."""
    nearest, position = state.nearest, state.sides[params.side].fills[row]
    if position.stage == STAGE_OPEN:
        if not is_refused(params, position.close_touched, state.now.bar):
            _offer_exit(nearest, params, row, -1, position.close_price, position.close_age)
    elif position.stage == STAGE_LADDER:
        ladder = state.ladders[position.slot]
        for k in range(ladder.n_rungs):
            rung = ladder.rungs[k]
            if not is_refused(params, rung.touched, state.now.bar):
                _offer_exit(nearest, params, row, k, rung.price, rung.age)


@kernel
def _count(nearest: Nearest, position: Position) -> None:
    nearest.oldest = min(nearest.oldest, position.opened)
    if position.stuck:
        nearest.n_stuck += 1
    if position.stage == STAGE_HEDGED:
        nearest.n_hedged += 1
    elif position.stage == STAGE_LADDER:
        nearest.n_ladders += 1
        nearest.oldest_ladder = min(nearest.oldest_ladder, position.stage_time)
    else:
        nearest.oldest_open = min(nearest.oldest_open, position.opened)


@kernel
def _offer_exit(
    nearest: Nearest, params: FixedParams, row: int, rung: int, price: float, age: int
) -> None:
    """Keep an exit order if the price meets it before the one kept: nearer, then older."""
    if price <= 0.0:
        return
    if nearest.exit_row != NOBODY:
        ahead = params.sign * (price - nearest.exit_price)
        if ahead > 0.0 or (ahead == 0.0 and age > nearest.exit_age):
            return
    nearest.exit_price, nearest.exit_age = price, age
    nearest.exit_row, nearest.exit_rung = row, rung


@kernel
def _is_nearer_stop(
    nearest: Nearest, params: FixedParams, price: float, age: int, kept_age: int
) -> bool:
    if nearest.stop_row == NOBODY:
        return True
    ahead = params.sign * (price - nearest.stop_price)
    return ahead > 0.0 or (ahead == 0.0 and age < kept_age)
