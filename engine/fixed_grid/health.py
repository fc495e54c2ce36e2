"""How the session and its positions are: healthy, warning, critical (A9)."""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from engine.fixed_grid.frozen import FixedParams
from engine.fixed_grid.levels import reached
from engine.fixed_grid.nearest import find_nearest
from engine.fixed_grid.positions import margin_used
from engine.fixed_grid.recovery import NO_RECOVERY, loss_share
from engine.fixed_grid.types import CRITICAL, HEALTHY, WARNING, FixedState

CRITICAL_MARGIN: Final = 0.95  # of the cap
WARNING_MARGIN: Final = 0.8
MANY_ORDERS: Final = 0.8  # of max_orders
CRITICAL_LOSS: Final = 0.75  # of the stop's distance
WARNING_LOSS: Final = 0.5


@kernel
def judge_health(state: FixedState, params: FixedParams, used: float) -> int:
    """Return the worst of the session and its positions; ``used`` is M over its cap.

    The worst entry has the greatest loss, so that one tells of all.
    """
    own = state.sides[params.side]
    if reached(used, CRITICAL_MARGIN) or state.mismatch:
        return CRITICAL
    if own.n_fills == 0:
        return WARNING if reached(used, WARNING_MARGIN) else HEALTHY
    if is_any_critical(state, params):
        return CRITICAL
    loss = loss_share(params, own.fills[0], state.now.price)
    if reached(loss, CRITICAL_LOSS * params.stop_share):
        return CRITICAL
    if (
        reached(used, WARNING_MARGIN)
        or reached(own.n_fills, MANY_ORDERS * params.max_orders)
        or reached(loss, WARNING_LOSS * params.stop_share)
        or state.now.step_s - state.nearest.oldest >= 0.5 * params.timeout_s
    ):
        return WARNING
    return HEALTHY


@kernel
def is_any_critical(state: FixedState, params: FixedParams) -> bool:
    """Return whether a position is hedged, stuck without recovery, or long on its ladder."""
    if state.nearest.stale:
        find_nearest(state, params)
    nearest = state.nearest
    if nearest.n_hedged > 0 or (params.recovery_mode == NO_RECOVERY and nearest.n_stuck > 0):
        return True
    stood = state.now.step_s - nearest.oldest_ladder
    return nearest.n_ladders > 0 and stood > params.escalation_s


@kernel
def log_step(state: FixedState, params: FixedParams) -> None:
    """Judge the health and add the step to the figures."""
    used = margin_used(state, params, with_working=True) / params.max_margin_usd
    if not state.ended:
        state.health = judge_health(state, params, used)
    counters = state.counters
    counters.steps += 1
    counters.margin_used += used
    counters.margin_used_max = max(counters.margin_used_max, used)
    if used > WARNING_MARGIN:
        counters.margin_over_80 += 1
    counters.health[state.health] += 1
