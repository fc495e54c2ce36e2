"""The edge hoped for over the costs, and the lesson of own trades."""

from __future__ import annotations

import math
from typing import Final

from core.jit import kernel
from core.recording import SECOND_NS
from engine.short_grid.params import NET_SAMPLES, ShortGridParams
from engine.short_grid.types import PENDING_MARKOUTS, Samples, SymbolState

MARKOUT_NS: Final = 5 * SECOND_NS
MARKOUT_MIN_FILLS: Final = 20
MARKOUT_RATE: Final = 1.0 - 2.0 ** (-1.0 / MARKOUT_MIN_FILLS)
"""Weight of a new fill: half-life of 20 fills."""
SLIP_RANK: Final = 0.7
CLIP_BPS: Final = 30.0
NO_SAMPLES_PENALTY: Final = 0.3
STRENGTH_FROM: Final = 1.5
RISE_WEIGHT: Final = 0.2
WIDE_WEIGHT: Final = 0.1


@kernel
def add_sample(samples: Samples, value: float) -> None:
    """Remember a value in place of the oldest."""
    samples.values[samples.at] = value
    samples.at = (samples.at + 1) % NET_SAMPLES
    samples.n = min(samples.n + 1, NET_SAMPLES)


@kernel
def slip_of(samples: Samples, params: ShortGridParams) -> float:
    """Return the 70th percentile (nearest rank) of own exit slippages, bps.

    Found by counting, without a copy.
    """
    if samples.n < params.edge_min_samples:
        return float(params.edge_slip_bps)
    rank = math.ceil(SLIP_RANK * samples.n)
    for i in range(samples.n):
        below, same = 0, 0
        for j in range(samples.n):
            below += samples.values[j] < samples.values[i]
            same += samples.values[j] == samples.values[i]
        if below < rank <= below + same:
            return float(samples.values[i])
    return float(params.edge_slip_bps)


@kernel
def penalty_of(samples: Samples, params: ShortGridParams, expected: float) -> float:
    """Return what the spread of own net closes takes off, bps; never most of what is expected."""
    if samples.n < params.edge_min_samples:
        return NO_SAMPLES_PENALTY
    mean = 0.0
    for i in range(samples.n):
        mean += min(max(samples.values[i], -CLIP_BPS), CLIP_BPS)
    mean /= samples.n
    square = 0.0
    for i in range(samples.n):
        off = min(max(samples.values[i], -CLIP_BPS), CLIP_BPS) - mean
        square += off * off
    sd = math.sqrt(square / (samples.n - 1)) if samples.n > 1 else 0.0
    return float(min(params.edge_z * sd, params.edge_z * max(expected, 0.0)))


@kernel
def await_markout(state: SymbolState, t_ns: int, price: float) -> None:
    """Remember an entry fill; the oldest is dropped where too many are awaited."""
    if state.n_markouts == PENDING_MARKOUTS:
        for i in range(1, state.n_markouts):
            state.markouts[i - 1] = state.markouts[i]
        state.n_markouts -= 1
    pending = state.markouts[state.n_markouts]
    pending.t_ns, pending.price = t_ns, price
    state.n_markouts += 1


@kernel
def take_markouts(state: SymbolState, t_ns: int) -> None:
    """Take in the losses of entry fills five seconds ago: what the mid has risen since, bps."""
    mid = state.observed.signals.mid
    while state.n_markouts > 0 and t_ns - state.markouts[0].t_ns >= MARKOUT_NS:
        price = state.markouts[0].price
        loss = (mid - price) / price * 1e4
        if state.markout_fills == 0:
            state.markout_bps = loss
        else:
            state.markout_bps += MARKOUT_RATE * (loss - state.markout_bps)
        state.markout_fills += 1
        for i in range(1, state.n_markouts):
            state.markouts[i - 1] = state.markouts[i]
        state.n_markouts -= 1


@kernel
def edge_lcb(state: SymbolState, params: ShortGridParams, tp0: float) -> float:
    """Return the lower bound of an entry's edge, bps; ``tp0`` is the target without debt."""
    signals, rules = state.observed.signals, state.rules
    cost = rules.fee_maker + rules.fee_taker + slip_of(state.slippage_bps, params)
    cost += params.edge_buffer_bps
    strength = max((signals.pump_peak + signals.exhaust) / 2.0 - STRENGTH_FROM, 0.0)
    bonus = min(params.edge_slope_bps * strength, params.edge_bonus_max_bps)
    expected = tp0 + bonus - cost - RISE_WEIGHT * max(signals.r_2s, 0.0)
    expected -= WIDE_WEIGHT * max(signals.spread - signals.spread_med, 0.0)
    markout = 0.0
    if state.markout_fills >= MARKOUT_MIN_FILLS:
        markout = max(state.markout_bps, 0.0)
    return float(expected - penalty_of(state.net_bps, params, expected) - markout)
