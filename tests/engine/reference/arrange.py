"""Steps 6 to 8: trailing, VaR block, regeneration, and the orders that should rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tests.engine.reference.grid import make_generation, stop_unit, wick_stop
from tests.engine.reference.ledger import Account, Side, Step
from tests.engine.reference.market import BOTH_SIDES, LONG
from tests.engine.reference.placement import desired_entries, desired_take_profits
from tests.engine.reference.sizing import position_cap

NORMAL_95 = 1.65


def trailed_reference(account: Account, step: Step) -> float | None:
    """Step 6: return the long grid's higher m, or None when it does not move; count the shift."""
    generation = account.sides[LONG].generation
    if not step.trailing_active or generation is None:
        return None
    top = account.market.price(max(generation.exits.values()))
    if account.params["grid_levels"] not in generation.exits or step.price <= top:
        return None
    moved = generation.reference + 0.5 * (step.price - generation.reference)
    cap = account.params["trailing_cap_price"]
    if cap > 0.0:
        moved = min(moved, cap)
    if moved <= generation.reference:
        return None
    account.counters["trailing_shifts"] += 1
    return moved


def var_blocks_entries(account: Account, step: Step) -> bool:
    """Step 7: exposure * 1.65 * sigma * sqrt(horizon) > max_drawdown_pct * equity."""
    params = account.params
    if not params["var_block_enabled"]:
        return False
    exposure = sum(account.notional(side, step.price) for side in BOTH_SIDES)
    risk = exposure * NORMAL_95 * step.signal["sigma"] * math.sqrt(params["var_horizon_bars"])
    blocked = risk > params["max_drawdown_pct"] * account.equity(step.price)
    if blocked:
        account.counters["var_blocks"] += 1
    return bool(blocked)


def entries_allowed(account: Account, step: Step, side: int) -> bool:
    """Tell whether regime and breaker let ``side`` enter: the regime may not be against it."""
    return not account.halted and step.regime * side >= 0


def must_regenerate(params: Mapping[str, Any], side: Side, step: Step, *, allowed: bool) -> bool:
    """Tell whether the side gets a new generation with m = p."""
    generation = side.generation
    if generation is None or side.forced_close or (allowed and not side.was_allowed):
        return True
    drift = abs(step.price - generation.reference)
    if drift <= params["regen_drift_mult"] * generation.spacing:
        return False
    in_trailing = side.sign == LONG and step.trailing_active
    return (side.filled_since or not side.fills) and not in_trailing


def regenerate(account: Account, step: Step, sign: int, trailed: float | None) -> None:
    """Give the side a new generation if a rule says so; its old entries are dropped."""
    side = account.sides[sign]
    allowed = entries_allowed(account, step, sign)
    fresh = must_regenerate(account.params, side, step, allowed=allowed)
    side.was_allowed = allowed
    if not fresh and trailed is None:
        return
    reference = step.price if fresh or trailed is None else trailed
    cap = position_cap(account, step, sign, account.equity(step.price))
    held = account.notional(sign, step.price)
    share = min(max(held / cap, 0.0), 1.0) if cap > 0.0 else 1.0
    number = 1 if side.generation is None else side.generation.number + 1
    side.generation = make_generation(
        account.params,
        account.market,
        step.signal,
        sign,
        number=number,
        reference=reference,
        price=step.price,
        fill_share=share,
        funding_rate=step.funding_rate,
    )
    side.filled_since = False
    side.forced_close = False


def set_wick_stop(account: Account, side: Side) -> None:
    """Put the side's stop at its distance from the average entry, if it holds anything."""
    side.stop = None
    if account.params["stop2_enabled"] and side.fills:
        side.stop = wick_stop(account.market, side.sign, side.average_entry, side.stop_distance)


def arrange(account: Account, step: Step, *, may_place: bool) -> None:
    """Steps 6 to 8: leave on the book exactly the orders that should rest through the bar."""
    trailed = trailed_reference(account, step)
    blocked = var_blocks_entries(account, step)
    equity = account.equity(step.price)
    committed = sum(account.notional(side, step.price) for side in BOTH_SIDES)
    traded = BOTH_SIDES if account.params["allow_short"] else (LONG,)
    for sign in traded:
        side = account.sides[sign]
        regenerate(account, step, sign, trailed if sign == LONG else None)
        lay_side(account, step, side, equity, committed, may_enter=may_place and not blocked)
        committed += sum(account.market.qty(e.lots) * e.price for e in side.entries)


def lay_side(
    account: Account, step: Step, side: Side, equity: float, committed: float, *, may_enter: bool
) -> None:
    """Put one side's entries, take-profits and wick stop on the book."""
    if side.generation is None:
        return
    unit = stop_unit(account.params, side.generation, step.signal["atr"])
    side.stop_distance = account.params["atr_sl_mult"] * account.params["stop2_mult"] * unit
    if may_enter and entries_allowed(account, step, side.sign):
        side.entries = desired_entries(account, step, side.sign, equity, committed)
    else:
        side.entries = []
    side.take_profits = desired_take_profits(account, step, side)
    set_wick_stop(account, side)
