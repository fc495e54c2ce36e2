"""Pruning: five rules and the VaR de-leverage (step 5)."""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from core.params import PruneRule, StrategyParams
from engine.grid_v4.types import State
from engine.ledger import equity_at, unrealized_at, worst_fill
from engine.types import (
    LONG,
    PRUNE_DEVIANCE,
    PRUNE_FUNDING,
    PRUNE_GAP,
    PRUNE_OFFSET,
    PRUNE_OLDEST,
    PRUNE_VAR_WARNING,
    SHORT,
    Tape,
    add_exit,
    sign_of,
)

HOUR_MS: Final = 3_600_000.0
PAID_ALIKE: Final = 1e-9
"""Funding paid that differs by less, relative, is the same but for rounding."""
_DEVIANCE: Final = int(PruneRule.DEVIANCE)
_OLDEST: Final = int(PruneRule.OLDEST)
_GAP: Final = int(PruneRule.GAP)
_FUNDING: Final = int(PruneRule.FUNDING)
_OFFSET: Final = int(PruneRule.OFFSET)


@kernel
def deviance_fill(state: State, params: StrategyParams, position_side: int) -> int:
    """Return the worst fill if the price is far from KAMA against the side, else -1."""
    now = state.now
    sign = sign_of(position_side)
    if sign * (now.kama - now.price) > params.deviance_sigma * now.atr:
        return worst_fill(state.sides[position_side], sign)
    return -1


@kernel
def oldest_fill(state: State, params: StrategyParams, position_side: int) -> int:
    """Return the oldest fill if it is older than ``max_position_age_hours``, else -1."""
    age_ms = state.now.ts_ms - state.sides[position_side].fills[0].ts_ms
    return 0 if age_ms > params.max_position_age_hours * HOUR_MS else -1


@kernel
def stranded_fill(state: State, params: StrategyParams, position_side: int) -> int:
    """Return the most distant fill under water if it is too far from the price, else -1."""
    position = state.sides[position_side]
    sign = sign_of(position_side)
    row = worst_fill(position, sign)
    gap = sign * (position.fills[row].price - state.now.price)
    return row if gap > params.gap_prune_mult * position.spacing else -1


@kernel
def costly_fill(state: State, params: StrategyParams, position_side: int) -> int:
    """Return the fill that paid most among those whose funding outgrew their spacing, else -1.

    Of fills that paid the same, but for rounding, the oldest.
    """
    position = state.sides[position_side]
    limit, most = params.funding_cost_ratio * position.spacing, 0.0
    for row in range(position.n_fills):
        fill = position.fills[row]
        if -fill.funding > limit * fill.qty:
            most = max(most, -fill.funding)
    if most <= 0.0:  # nearly always
        return -1
    for row in range(position.n_fills):
        fill = position.fills[row]
        paid = -fill.funding
        if paid > limit * fill.qty and paid >= most * (1.0 - PAID_ALIKE):
            return row
    return -1


@kernel
def offset_fill(state: State, params: StrategyParams, position_side: int) -> int:
    """Return the worst fill if today's realised profit of the side pays for its loss, else -1."""
    position = state.sides[position_side]
    sign = sign_of(position_side)
    row = worst_fill(position, sign)
    fill = position.fills[row]
    under_water = sign * (fill.price - state.now.price)
    if not under_water > params.offset_min_loss * position.spacing:
        return -1
    loss = under_water * fill.qty
    return row if position.realized_today >= params.offset_prune_ratio * loss else -1


@kernel
def choose_prune(state: State, params: StrategyParams, position_side: int) -> tuple[int, int]:
    """Return (row, label) of the first rule that matches, (-1, 0) if none does."""
    enabled = params.prune_enabled
    row = deviance_fill(state, params, position_side) if enabled & _DEVIANCE else -1
    if row >= 0:
        return row, PRUNE_DEVIANCE
    row = oldest_fill(state, params, position_side) if enabled & _OLDEST else -1
    if row >= 0:
        return row, PRUNE_OLDEST
    row = stranded_fill(state, params, position_side) if enabled & _GAP else -1
    if row >= 0:
        return row, PRUNE_GAP
    row = costly_fill(state, params, position_side) if enabled & _FUNDING else -1
    if row >= 0:
        return row, PRUNE_FUNDING
    row = offset_fill(state, params, position_side) if enabled & _OFFSET else -1
    if row >= 0:
        return row, PRUNE_OFFSET
    return -1, 0


@kernel
def prune_exits(state: State, params: StrategyParams, tape: Tape) -> None:
    """Decide at most one pruned fill per side.

    Reads: now, fills, spacing, realized_today. Writes: last_prune_bar.
    """
    if state.halted or params.prune_enabled == 0:
        return
    for position_side in (LONG, SHORT):
        position = state.sides[position_side]
        rested = state.now.bar - position.last_prune_bar >= params.prune_cooldown_bars
        if position.n_fills == 0 or not rested:
            continue
        row, label = choose_prune(state, params, position_side)
        if row >= 0:
            position.last_prune_bar = state.now.bar
            fill = position.fills[row]
            add_exit(tape, position_side, fill.fill_id, fill.qty, label)


@kernel
def deleverage_exits(state: State, params: StrategyParams, tape: Tape) -> None:
    """Decide to close the worst fill of each losing side if the joint loss nears the budget."""
    if state.halted or not params.var_deleverage_enabled:
        return
    price = state.now.price
    unrealized = unrealized_at(state.sides[LONG], 1.0, price) + unrealized_at(
        state.sides[SHORT], -1.0, price
    )
    budget = params.var_deleverage_ratio * params.max_drawdown_pct * equity_at(state, price)
    if not -unrealized > budget:
        return
    for position_side in (LONG, SHORT):
        position = state.sides[position_side]
        sign = sign_of(position_side)
        if position.n_fills > 0 and unrealized_at(position, sign, price) < 0.0:
            fill = position.fills[worst_fill(position, sign)]
            add_exit(tape, position_side, fill.fill_id, fill.qty, PRUNE_VAR_WARNING)
