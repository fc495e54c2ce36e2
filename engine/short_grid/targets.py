"""Profit asked of a position, its price, and the inverse ladder."""

from __future__ import annotations

import math
from typing import Final

from core.jit import kernel
from core.recording import SECOND_NS
from engine.short_grid.ledger import hurdle_of
from engine.short_grid.params import ShortGridParams
from engine.short_grid.types import BPS, E8, SymbolState, average_ticks

RATIO_MIN, RATIO_MAX = 1.5, 4.0
"""Of the farthest zone's distance to the nearest's."""
_ZONE_GAP: Final = 1
"""Ticks between zones, at least."""


@kernel
def entry_fee_bps(state: SymbolState) -> float:
    """Return the entry fees paid on what is open, bps; an order's maker fee when flat."""
    ledger = state.ledger
    if ledger.cost_e8 <= 0:
        return float(state.rules.fee_maker)
    return float(ledger.entry_fees_e8 / ledger.cost_e8 * 1e4)


@kernel
def base_target(state: SymbolState, params: ShortGridParams, t_ns: int) -> float:
    """Return ``tp0``: the profit asked without debt, bps below the average."""
    signals, regime, ledger = state.observed.signals, state.observed.regime, state.ledger
    age_s = (t_ns - ledger.layers[0].t_ns) / SECOND_NS if ledger.n_layers > 0 else 0.0
    decay = max(params.tp_decay_floor, math.pow(2.0, -age_s / params.tp_halflife_s))
    vol = min(params.tp_vol_capture * regime.vol, params.tp_vol_cap_bps)
    target = max(params.tp_spread_mult * signals.spread_med, vol) * decay
    fees = entry_fee_bps(state) + state.rules.fee_maker
    return float(max(target, params.min_tp_bps, fees + 1.0))


@kernel
def target_bps(state: SymbolState, params: ShortGridParams, t_ns: int) -> float:
    """Return ``tp_bps``: the profit asked with what the debt asks, bps below the average."""
    fees = entry_fee_bps(state) + state.rules.fee_maker
    return float(max(base_target(state, params, t_ns), fees + hurdle_of(state.ledger, params)))


@kernel
def net_bps(state: SymbolState, ticks: float, fee_bps: float) -> float:
    """Return what closing at ``ticks`` leaves of the average, bps; ``fee_bps``: of the way out."""
    average = average_ticks(state)
    return float((average - ticks) / average * 1e4 - entry_fee_bps(state) - fee_bps)


@kernel
def break_even_ticks(state: SymbolState, fee_bps: float) -> int:
    """Return the highest tick at which a close pays its fees; the last cent is checked."""
    average = average_ticks(state)
    ticks = math.floor(average * (1.0 - (entry_fee_bps(state) + fee_bps) * BPS))
    while ticks > 0 and net_bps(state, float(ticks), fee_bps) < 0.0:
        ticks -= 1
    return ticks


@kernel
def zone_tick(average: float, distance_bps: float) -> int:
    """Return the tick not above ``average`` less a distance."""
    return math.floor(average * (1.0 - distance_bps * BPS))


@kernel
def build_ladder(state: SymbolState, params: ShortGridParams, t_ns: int) -> None:
    """Lay out the inverse ladder: half of the position nearest, the rest in equal steps behind.

    Zones on one tick become one; a zone under the minimum quantity joins the next inner one.
    """
    inverse, ledger, rules = state.inverse, state.ledger, state.rules
    if inverse.entered_ns == 0:
        inverse.entered_ns = t_ns
    inverse.avg_ticks, inverse.layers = average_ticks(state), ledger.n_layers
    inverse.filled = False
    count = min(ledger.n_layers, params.inverse_zones)
    inverse.n_zones = count
    nearest = min(target_bps(state, params, t_ns), params.inverse_max_bps)
    ratio = min(max(state.observed.regime.vol / nearest, RATIO_MIN), RATIO_MAX)
    each = ledger.steps // 2 // (count - 1)
    for i in range(len(inverse.zone_ticks)):
        inverse.zone_ticks[i] = inverse.zone_steps[i] = 0
    for i in range(count):
        distance = min(nearest * (1.0 + i * (ratio - 1.0) / (count - 1)), params.inverse_max_bps)
        inverse.zone_ticks[i] = zone_tick(inverse.avg_ticks, distance)
        inverse.zone_steps[i] = each
    inverse.zone_steps[0] = ledger.steps - each * (count - 1)
    for i in range(count - 1, 0, -1):
        same = inverse.zone_ticks[i - 1] - inverse.zone_ticks[i] < _ZONE_GAP
        if same or inverse.zone_steps[i] < rules.min_steps:
            inverse.zone_steps[i - 1] += inverse.zone_steps[i]
            inverse.zone_steps[i] = 0


@kernel
def leave_ladder(state: SymbolState) -> None:
    """End inverse mode."""
    inverse = state.inverse
    inverse.entered_ns, inverse.n_zones, inverse.filled = 0, 0, False
    for i in range(len(inverse.zone_steps)):
        inverse.zone_steps[i] = 0


@kernel
def ladder_steps(state: SymbolState) -> int:
    """Return what the ladder's zones still buy."""
    total = 0
    for i in range(state.inverse.n_zones):
        total += state.inverse.zone_steps[i]
    return total


@kernel
def fit_ladder(state: SymbolState) -> None:
    """Bring the zones to the position: what else closed it is taken off the nearest zone first.

    What a late fill added is bought by the nearest zone that is left.
    """
    inverse = state.inverse
    over = ladder_steps(state) - state.ledger.steps
    for i in range(inverse.n_zones):
        taken = min(max(over, 0), inverse.zone_steps[i])
        inverse.zone_steps[i] -= taken
        over -= taken
    if over < 0 and inverse.n_zones > 0:
        inverse.zone_steps[next_zone(state)] -= over


@kernel
def next_zone(state: SymbolState) -> int:
    """Return the nearest zone that still buys, the last one if none does."""
    inverse = state.inverse
    for i in range(inverse.n_zones):
        if inverse.zone_steps[i] > 0:
            return i
    return max(int(inverse.n_zones) - 1, 0)


@kernel
def open_profit(state: SymbolState, mark_ticks: float) -> float:
    """Return the unrealised profit at ``mark_ticks``, quote."""
    ledger = state.ledger
    return float((ledger.cost_e8 - ledger.steps * mark_ticks * state.rules.unit_e8) / E8)
