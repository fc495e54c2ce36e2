"""Stops of positions: as many of their own as the exchange allows, the others share one (A6)."""

from __future__ import annotations

from core.jit import kernel
from core.market import Market
from engine.fixed_grid.frozen import FixedParams
from engine.fixed_grid.levels import stop_bound
from engine.fixed_grid.positions import close_own, drop_working, shares_stop
from engine.fixed_grid.types import FixedState, FixedTape, Side
from engine.ledger import market_price
from engine.types import LONG, STOP


@kernel
def deal_stops(state: FixedState, params: FixedParams) -> None:
    """Give the nearest triggers, older first, stops of their own; the nearest rest is shared."""
    own = state.sides[params.side]
    for row in range(own.n_fills):
        own.fills[row].owns_stop = False
    state.shared_stop = 0.0
    for _ in range(params.max_stop_orders - 1):
        row = nearest_sharing(state.sides[params.side], params)
        if row < 0:
            return
        own.fills[row].owns_stop = True
    row = nearest_sharing(state.sides[params.side], params)
    if row >= 0:
        state.shared_stop = own.fills[row].stop


@kernel
def nearest_sharing(own: Side, params: FixedParams) -> int:
    """Return the row without a stop of its own whose trigger is nearest, older first; -1: none."""
    found = -1
    for row in range(own.n_fills):
        position = own.fills[row]
        if not shares_stop(position):
            continue
        if found < 0:
            found = row
            continue
        ahead = params.sign * (position.stop - own.fills[found].stop)
        if ahead > 0.0 or (ahead == 0.0 and position.fill_id < own.fills[found].fill_id):
            found = row
    return found


@kernel
def give_stop(state: FixedState, params: FixedParams, row: int) -> None:
    """Protect what filled between steps: a stop of its own while there is room, else shared.

    The shared trigger never gets looser before the next step.
    """
    own = state.sides[params.side]
    position = own.fills[row]
    if position.stop <= 0.0:
        return
    owners = 0
    for other in range(own.n_fills):
        owners += 1 if own.fills[other].owns_stop else 0
    if owners < params.max_stop_orders - 1:
        position.owns_stop = True
    elif state.shared_stop <= 0.0:
        state.shared_stop = position.stop
    elif params.sign > 0.0:
        state.shared_stop = max(state.shared_stop, position.stop)
    else:
        state.shared_stop = min(state.shared_stop, position.stop)
    state.nearest.stale = True


@kernel
def cover_sharing(state: FixedState, params: FixedParams) -> None:
    """Give those that share a stop one where there is none: at the nearest of their triggers."""
    row = nearest_sharing(state.sides[params.side], params)
    if row >= 0 and state.shared_stop <= 0.0:
        state.shared_stop = state.sides[params.side].fills[row].stop
        state.nearest.stale = True


@kernel
def fire_stop(
    state: FixedState, params: FixedParams, market: Market, row: int, basis: float, tape: FixedTape
) -> None:
    """Close what a stop order was for at ``basis``, worst first; ``row`` -1: the shared one.

    The working order goes where the side is empty then or the stop lay at ``stop_price``.
    """
    own = state.sides[params.side]
    trigger = state.shared_stop if row < 0 else own.fills[row].stop
    price = market_price(params, market, params.side, basis)
    if params.side == LONG:
        state.counters.stops_long += 1
    else:
        state.counters.stops_short += 1
    if row >= 0:
        _close_by_stop(state, params, market, row, price, tape)
    else:
        at = 0
        while at < own.n_fills:
            if shares_stop(own.fills[at]):
                _close_by_stop(state, params, market, at, price, tape)
            else:
                at += 1
    if trigger == stop_bound(params, market):
        state.fired_at_stop_price = True
        drop_working(state)
    if own.n_fills == 0:
        drop_working(state)


@kernel
def _close_by_stop(
    state: FixedState, params: FixedParams, market: Market, row: int, price: float, tape: FixedTape
) -> None:
    qty = state.sides[params.side].fills[row].qty
    fee = params.fee_taker * price * qty
    close_own(state, params, market, row, qty, price, fee, STOP + params.side, tape)
