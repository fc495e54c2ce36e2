"""Sizes of layers, distances between them, caps."""

from __future__ import annotations

import math
from typing import Final

from core.jit import kernel
from engine.short_grid.params import ShortGridParams
from engine.short_grid.slots import ENTRY, left_of
from engine.short_grid.types import BPS, Portfolio, SymbolState, quote_of

MIN_BASE_BPS: Final = 5.0
MIN_GROWTH, MAX_GROWTH = 1.05, 8.0
MIN_GAP_BPS: Final = 7.0
"""Between the last fill and an add, at least."""
MIN_RELIEF, RELIEF_SHARE, RELIEF_POWER, RELIEF_SPAN_BPS = 0.15, 0.85, 0.3, 465.0
CAP_SLACK: Final = 1e-9


@kernel
def layer_notional(params: ShortGridParams, spread: float, layer: int) -> float:
    """Return the notional of layer ``layer`` (0 first) at ``spread`` (bps), quote."""
    low, high = params.size_spread_low_bps, params.size_spread_high_bps
    part = min(max((spread - low) / (high - low), 0.0), 1.0)
    base = params.min_notional + part * (params.max_notional - params.min_notional)
    return float(min(base * math.pow(params.size_growth, layer), params.max_notional))


@kernel
def order_steps(state: SymbolState, params: ShortGridParams, ask_ticks: int) -> int:
    """Return the quantity of the next layer at ``ask_ticks``, steps."""
    notional = layer_notional(params, state.observed.signals.spread, state.ledger.n_layers)
    return math.floor(notional / quote_of(state.rules, 1, ask_ticks) + CAP_SLACK)


@kernel
def is_order_size(state: SymbolState, steps: int, ticks: int) -> bool:
    """Return whether the exchange takes an entry of ``steps`` at ``ticks``."""
    rules = state.rules
    return bool(steps >= rules.min_steps and quote_of(rules, steps, ticks) >= rules.min_notional)


@kernel
def held_notional(state: SymbolState, mid_ticks: float) -> float:
    """Return the position at its entry or at the mid, whichever is more, quote."""
    ledger, rules = state.ledger, state.rules
    entry = ledger.cost_e8 / 1e8
    return float(max(entry, ledger.steps * mid_ticks * rules.unit_e8 / 1e8))


@kernel
def entry_notional(state: SymbolState) -> float:
    """Return what the entry order may still sell, quote, at the dearer of its prices."""
    slot = state.slots[ENTRY]
    return quote_of(state.rules, left_of(slot), max(slot.ticks, slot.asked))


@kernel
def fits_symbol(state: SymbolState, params: ShortGridParams, order: float) -> bool:
    """Return whether an entry of ``order`` (quote) stays under the symbol's cap if it fills."""
    mid_ticks = state.observed.signals.mid / state.rules.tick_size
    return bool(held_notional(state, mid_ticks) + order <= params.symbol_cap + CAP_SLACK)


@kernel
def fits_portfolio(
    portfolio: Portfolio, state: SymbolState, params: ShortGridParams, order: float
) -> bool:
    """Return whether an entry of ``order`` (quote) stays under the caps of all."""
    if portfolio.exposure + order > params.portfolio_cap + CAP_SLACK:
        return False
    new = state.ledger.steps == 0 and left_of(state.slots[ENTRY]) == 0
    return not new or portfolio.held < params.max_symbols_held


@kernel
def base_distance(state: SymbolState) -> float:
    """Return the distance of the first add, bps."""
    return float(max(state.observed.signals.spread_med, state.observed.regime.vol, MIN_BASE_BPS))


@kernel
def growth_of(state: SymbolState, params: ShortGridParams) -> float:
    """Return how much longer each distance is than the one before."""
    return float(
        min(max(params.spacing_growth * state.observed.regime.drift, MIN_GROWTH), MAX_GROWTH)
    )


@kernel
def add_distance(state: SymbolState, params: ShortGridParams, layer: int) -> float:
    """Return how far above the average layer ``layer`` (1 first) may be sold, as a share."""
    growth = math.pow(growth_of(state, params), layer - 1)
    return float(base_distance(state) * growth * BPS)


@kernel
def spread_relief(params: ShortGridParams, loss_bps: float) -> float:
    """Return what part of the smallest spread an add asks for at a loss, bps."""
    deep = min(max((loss_bps - params.add_loss_bps) / RELIEF_SPAN_BPS, 0.0), 1.0)
    return float(max(MIN_RELIEF, 1.0 - RELIEF_SHARE * math.pow(deep, RELIEF_POWER)))
