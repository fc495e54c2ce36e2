"""How large new entry orders are: Kelly, cooldown and harvest."""

from __future__ import annotations

from typing import Final

from core.funding import funding_harvest_factor
from core.jit import kernel
from core.kelly import kelly_scale
from core.params import StrategyParams
from engine.grid_v4.types import State
from engine.types import KELLY_MEMORY, sign_of

LOWEST_REGIME: Final = -2


@kernel
def kelly_factor(state: State, params: StrategyParams) -> float:
    """Return the order scale from closed fills that were entered in the current regime.

    It is worked out anew only where one of those was closed, or one that counted was forgotten.
    """
    if not params.kelly_enabled:
        return 1.0
    regime, trips = state.now.regime, state.counters.round_trips
    memo = state.memo.kelly[regime - LOWEST_REGIME]
    if memo.trips != trips or not memo.known:
        if not _is_window_unchanged(state, regime):
            _weigh_window(state, params, regime)
        memo.trips, memo.known = trips, True
    return memo.factor


@kernel
def _is_window_unchanged(state: State, regime: int) -> bool:
    """Return whether the closed fills of ``regime`` that counted are still those that count."""
    memo = state.memo.kelly[regime - LOWEST_REGIME]
    trips = state.counters.round_trips
    if not memo.known or trips - memo.oldest >= KELLY_MEMORY:
        return False
    row = state.closed_head
    for _ in range(trips - memo.trips):
        row = row - 1 if row > 0 else KELLY_MEMORY - 1
        if state.closed[row].regime == regime:
            return False
    return True


@kernel
def _weigh_window(state: State, params: StrategyParams, regime: int) -> None:
    """Work out the scale from the last ``kelly_window`` closed fills of ``regime``, newest first.

    A return adds to one of the sums and zero to the other: that changes no bit of it.
    """
    memo = state.memo.kelly[regime - LOWEST_REGIME]
    trips = state.counters.round_trips
    wins, count, sum_wins, sum_losses = 0, 0, 0.0, 0.0
    row, memo.oldest = state.closed_head, trips
    for back in range(state.n_closed):
        row = row - 1 if row > 0 else KELLY_MEMORY - 1
        closed = state.closed[row]
        if closed.regime != regime:
            continue
        won = closed.net_return > 0.0
        wins += 1 if won else 0
        sum_wins += closed.net_return if won else 0.0
        sum_losses -= 0.0 if won else closed.net_return
        count += 1
        memo.oldest = trips - back
        if count == params.kelly_window:
            break
    memo.factor = params.kelly_default
    if count >= params.kelly_min_trades:
        memo.factor = kelly_scale(
            wins, count - wins, sum_wins, sum_losses, params.kelly_fraction, params.kelly_min
        )


@kernel
def order_scale(state: State, params: StrategyParams, position_side: int) -> float:
    """Return Kelly x cooldown x harvest for new orders of the side."""
    scale = kelly_factor(state, params)
    cooling = state.now.bar - state.cooldown_bar <= params.stop_cooldown_bars
    if params.stop_cooldown_enabled and cooling:
        scale *= params.stop_cooldown_factor
    if params.funding_harvest_enabled and state.now.regime == 0:
        scale *= funding_harvest_factor(
            state.now.funding_rate,
            sign_of(position_side),
            params.funding_harvest_threshold,
            params.funding_harvest_boost,
            params.funding_harvest_cut,
        )
    return scale
