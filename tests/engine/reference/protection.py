"""Steps 2 to 5: circuit breaker, stage-1 stop, liquidation at p, pruning, VaR de-leverage."""

from __future__ import annotations

from tests.engine.reference.grid import stop_unit
from tests.engine.reference.ledger import STOP_LABEL, Account, Fill, Side, Step
from tests.engine.reference.liquidation import liquidate
from tests.engine.reference.market import BOTH_SIDES

MS_PER_HOUR = 60 * 60 * 1000


def protect(account: Account, step: Step) -> bool:
    """Run steps 2 to 5; return True when the account was liquidated at ``p``."""
    move_breaker(account, step)
    if not account.halted:
        for sign in BOTH_SIDES:
            stop_stage1(account, step, account.sides[sign])
    liquidated = check_margin(account, step)
    if not account.halted and not account.ended:
        for sign in BOTH_SIDES:
            prune(account, step, account.sides[sign])
        deleverage(account, step)
    return liquidated


def move_breaker(account: Account, step: Step) -> None:
    """Step 2: halt under ``halt_z_threshold``, resume above ``resume_z_threshold``."""
    params, z = account.params, step.signal["z"]
    if not params["circuit_breaker_enabled"]:
        return
    if not account.halted and z < params["halt_z_threshold"]:
        account.halted = True
        account.counters["breaker_halts"] += 1
        account.write(
            step, "CIRCUIT_BREAKER_HALT", 0, -1, price=step.price, qty=0.0, pnl=0.0, fee=0.0
        )
    elif account.halted and z > params["resume_z_threshold"]:
        account.halted = False


def stop_stage1(account: Account, step: Step, side: Side) -> None:
    """Step 3: C_{i-1} past 1.0 x the distance closes half the side, once until it is flat."""
    params = account.params
    if not params["stop1_enabled"] or side.stage1_done or not side.fills:
        return
    if side.generation is None or account.equity(step.price) <= 0.0:
        return  # without equity the exchange liquidates, nothing is stopped
    unit = stop_unit(params, side.generation, step.signal["atr"])
    distance = params["atr_sl_mult"] * params["stop1_mult"] * unit
    if side.sign * (side.average_entry - step.last_close) <= distance:
        return
    side.stage1_done = True
    side.forced_close = True
    parts = stage1_parts(account, side)
    account.close_at_market(step, parts, step.price, STOP_LABEL[side.sign])
    account.note_stop(side.sign, step.bar)


def stage1_parts(account: Account, side: Side) -> list[tuple[Fill, int]]:
    """Return what stage 1 closes: worst fills first, no rest under the minimum quantity."""
    market, held = account.market, side.lots
    wanted = market.lots_down(market.qty(held) * account.params["stop1_close_pct"])
    smallest = market.min_lots
    if len(side.fills) == 1 or wanted < smallest or held - wanted < smallest:
        return [(fill, fill.lots) for fill in side.worst_first()]
    parts: list[tuple[Fill, int]] = []
    for fill in side.worst_first():
        if wanted <= 0:
            break
        lots = min(fill.lots, wanted)
        if fill.lots - lots < smallest:
            lots = fill.lots
        parts.append((fill, lots))
        wanted -= lots
    return parts


def check_margin(account: Account, step: Step) -> bool:
    """Step 4: liquidate where equity <= maintenance at p; without a position, end the run."""
    equity = account.equity(step.price)
    needed = sum(
        account.market.maintenance(account.notional(side, step.price)) for side in BOTH_SIDES
    )
    if equity > needed:
        return False
    if not account.has_position():
        account.ended = True
        return False
    liquidate(account, step, step.price)
    return True


def prune(account: Account, step: Step, side: Side) -> None:
    """Step 5: close at most one fill of the side by the first rule that matches."""
    cooldown = account.params["prune_cooldown_bars"]
    if side.last_prune is not None and step.bar - side.last_prune < cooldown:
        return
    if not side.fills or side.generation is None:
        return
    rules = {
        "DEVIANCE": pruned_by_deviance,
        "OLDEST": pruned_by_age,
        "GAP": pruned_by_gap,
        "FUNDING": pruned_by_funding,
        "OFFSET": pruned_by_offset,
    }
    for name, rule in rules.items():
        if name not in account.params["prune_enabled"]:
            continue
        fill = rule(account, step, side, side.generation.spacing)
        if fill is not None:
            close_whole(account, step, fill, f"PRUNE_{name}")
            side.last_prune = step.bar
            return


def close_whole(account: Account, step: Step, fill: Fill, label: str) -> None:
    """Close one fill at market."""
    account.close_at_market(step, [(fill, fill.lots)], step.price, label)
    account.sides[fill.side].forced_close = True


def loss_per_unit(fill: Fill, price: float) -> float:
    """Return how far ``price`` is against the fill, in price; negative in profit."""
    return fill.side * (fill.price - price)


def pruned_by_deviance(account: Account, step: Step, side: Side, _spacing: float) -> Fill | None:
    """``p`` is more than deviance_sigma ATR from KAMA, against the side: the worst entry."""
    against = side.sign * (step.signal["kama"] - step.price)
    if against > account.params["deviance_sigma"] * step.signal["atr"]:
        return side.worst_first()[0]
    return None


def pruned_by_age(account: Account, step: Step, side: Side, _spacing: float) -> Fill | None:
    """Strictly older than max_position_age_hours: the oldest."""
    oldest = min(side.fills, key=lambda fill: (fill.ts_ms, fill.fill_id))
    limit = account.params["max_position_age_hours"] * MS_PER_HOUR
    return oldest if step.ts_ms - oldest.ts_ms > limit else None


def pruned_by_gap(account: Account, step: Step, side: Side, spacing: float) -> Fill | None:
    """More than gap_prune_mult spacings under water: the most distant."""
    worst = side.worst_first()[0]
    limit = account.params["gap_prune_mult"] * spacing
    return worst if loss_per_unit(worst, step.price) > limit else None


def pruned_by_funding(account: Account, _step: Step, side: Side, spacing: float) -> Fill | None:
    """Net funding paid > funding_cost_ratio * spacing * quantity: the one that paid most.

    Of those that paid alike to 1e-9 the oldest.
    """
    ratio = account.params["funding_cost_ratio"]
    costly = [
        fill
        for fill in side.fills
        if -fill.funding > ratio * spacing * account.market.qty(fill.lots)
    ]
    most = max((-fill.funding for fill in costly), default=0.0)
    alike = [fill for fill in costly if -fill.funding >= most * (1.0 - 1e-9)]
    return min(alike, key=lambda fill: fill.fill_id, default=None)


def pruned_by_offset(account: Account, step: Step, side: Side, spacing: float) -> Fill | None:
    """The worst fill, if it is far under water and today's profit of the side pays for it."""
    worst = side.worst_first()[0]
    per_unit = loss_per_unit(worst, step.price)
    if per_unit <= account.params["offset_min_loss"] * spacing:
        return None
    loss = per_unit * account.market.qty(worst.lots)
    return worst if side.profit_today >= account.params["offset_prune_ratio"] * loss else None


def deleverage(account: Account, step: Step) -> None:
    """Close the worst fill of each losing side when the net loss nears the budget."""
    params = account.params
    if not params["var_deleverage_enabled"]:
        return
    result = {side: account.unrealised(side, step.price) for side in BOTH_SIDES}
    budget = params["max_drawdown_pct"] * account.equity(step.price)
    if -sum(result.values()) <= params["var_deleverage_ratio"] * budget:
        return
    for sign in BOTH_SIDES:
        if result[sign] < 0.0:
            close_whole(account, step, account.sides[sign].worst_first()[0], "PRUNE_VAR_WARNING")
