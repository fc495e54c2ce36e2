"""A4: one step. ``protect`` does the market exits, ``arrange`` leaves what rests till the next."""

from __future__ import annotations

from tests.engine.fixed_grid_reference.ledger import (
    EPOCH_2020_S,
    HEDGED,
    LADDER,
    OPEN,
    Account,
    LimitOrder,
    Moment,
    Position,
    WorkingOrder,
)
from tests.engine.fixed_grid_reference.liquidation import liquidate, spare_margin
from tests.engine.fixed_grid_reference.market import affordable, reached
from tests.engine.fixed_grid_reference.prices import entry_lots, entry_price, resting_close_price
from tests.engine.fixed_grid_reference.recovery import (
    escalate,
    free_the_stuck,
    look_after_hedges,
    loss_share,
)

LEVELS = ("HEALTHY", "WARNING", "CRITICAL")


def take_step(account: Account, now: Moment) -> None:
    """Do phases 1 to 8 at ``p``."""
    account.counters["steps"] += 1
    check_stop_price(account, now)
    liquidated = bool(account.positions) and spare_margin(account, now.price) <= 0.0
    if liquidated:
        liquidate(account, now, now.price)
    if account.ended:
        return
    look_after_hedges(account, now)
    free_the_stuck(account, now)
    escalate(account, now)
    lay_exits(account, now)
    deal_stops(account)
    if not liquidated:
        arrange_entry(account, now)
    judge_health(account, now)


def check_stop_price(account: Account, now: Moment) -> None:
    """Phase 1: past ``stop_price``, or after a stop that lay at it, everything is closed."""
    params = account.params
    if params.stop_price is None or account.stopped:
        return
    beyond = params.sgn * (params.stop_price - now.price)
    if not account.fired_at_stop_price and beyond < -1e-12 * params.stop_price:
        return
    account.stopped = True
    account.working = None
    account.tell(now, "STOP", price=now.price, reason="stop_price")
    for position in list(account.positions):
        account.market_close_both(now, position, "STOP_PRICE")


def lay_exits(account: Account, now: Moment) -> None:
    """Phase 7: the close order of every open position, moved where its price changed."""
    for position in account.positions:
        if position.stage == OPEN:
            price = resting_close_price(
                account.params, account.market, position.take_profit, now.price
            )
            order = position.close_order
            if order is None or order.price != price:
                position.close_order = LimitOrder(price, position.lots, account.take_age())
                qty = account.market.qty(position.lots)
                account.tell(now, "EXIT_PLACED", position, price=price, qty=qty)
        if not position.announced:
            position.announced = True
            account.tell(now, "READY", position)


def deal_stops(account: Account) -> None:
    """Phase 7: stops of their own for the nearest triggers, the others share the nearest of theirs.

    Nearest trigger first, older first.
    """
    sgn = account.params.sgn
    triggers: list[tuple[float, int, Position]] = []
    for position in account.positions:
        position.owns_stop = False
        if position.stop is not None and position.stage != HEDGED:
            triggers.append((-sgn * position.stop, position.fill_id, position))
    triggers.sort(key=lambda row: row[:2])
    account.shared_stop = None
    for place, (_, _, position) in enumerate(triggers):
        if place < account.params.max_stop_orders - 1:
            position.owns_stop = True
        elif account.shared_stop is None:
            account.shared_stop = position.stop


def arrange_entry(account: Account, now: Moment) -> None:
    """Phase 8: lay, keep, replace or cancel the one working order."""
    params, market = account.params, account.market
    e = entry_price(params, market, now.price, (p.entry for p in account.positions))
    working = account.working
    price, lots = e, entry_lots(params, market, e)
    keeps = working is not None and params.sgn * (e - working.price) <= 0.0
    if working is not None and keeps:
        price, lots = working.price, working.lots
    failed = failed_gates(account, now, price, lots, laid=not keeps)
    note_gate(account, now, failed)
    if failed:
        if failed[0] != "cooldown" and working is not None:
            account.working = None
            account.tell(now, "READY", working, reason=failed[0])
        return
    if keeps:
        return
    account.working = None
    cycle = now.step_s - EPOCH_2020_S
    account.working = WorkingOrder(price, lots, account.take_age(), cycle, account.free_slot())
    qty = market.qty(lots)
    account.tell(now, "ENTRY_PLACED", account.working, price=price, qty=qty)


def failed_gates(
    account: Account, now: Moment, price: float, lots: int, *, laid: bool
) -> list[str]:
    """Return the gates of A5 that the order which would rest fails, in their order.

    M and the quantity held are without the working order; ``cooldown`` binds what would be laid.
    """
    params, market = account.params, account.market
    failed = ["stopped"] if account.stopped else []
    if is_priced_out(account, now.price, price):
        failed.append("price")
    if len(account.positions) >= params.max_orders:
        failed.append("orders")
    held = sum(position.lots for position in account.positions)
    limit = params.max_position_size
    if limit > 0.0 and market.qty(held + lots) > limit * (1.0 + 1e-12):
        failed.append("size")
    needed = account.margin(with_working=False) + market.qty(lots) * price / params.leverage
    if not affordable(needed, min(params.max_margin_usd, account.equity(now.price))):
        failed.append("margin")
    if price <= 0.0 or market.is_too_small(lots, price):
        failed.append("minimum")
    if laid and not cooled_down(account, now):
        failed.append("cooldown")
    return failed


def is_priced_out(account: Account, p: float, price: float) -> bool:
    """Return whether ``p`` is past ``pause_price`` or the entry at or beyond ``stop_price``."""
    params = account.params
    if params.pause_price is not None:
        chased = params.sgn * (p - params.pause_price)
        if chased >= -1e-12 * params.pause_price:
            return True
    if params.stop_price is None:
        return False
    return params.sgn * (price - params.stop_price) <= 1e-12 * params.stop_price


def cooled_down(account: Account, now: Moment) -> bool:
    """Return whether enough time has passed since the last entry fill or loss exit.

    W = max(wait_time, step_s) times 2, 1, 1/2 or 1/4 by the density n / max_orders. No wait without
    ``wait_time``, or if a take-profit or rung filled strictly after.
    """
    params = account.params
    known = [t for t in (account.last_entry_fill, account.last_loss_exit) if t is not None]
    if params.wait_time == 0.0 or not known:
        return True
    since = max(known)
    if account.last_profit_exit is not None and account.last_profit_exit > since:
        return True
    density = len(account.positions) / params.max_orders
    factor = 0.25
    for least, value in ((1 / 6, 0.5), (1 / 3, 1.0), (2 / 3, 2.0)):
        if reached(density, least):
            factor = value
    return reached(now.step_s - since, max(params.wait_time, params.step_s) * factor)


def note_gate(account: Account, now: Moment, failed: list[str]) -> None:
    """Count the first gate that failed, once a step, and tell where it changed."""
    gate = failed[0] if failed else None
    if gate is not None:
        account.blocked[gate] += 1
    if failed == ["margin"]:
        account.counters["margin_exhausted"] += 1
    if gate is not None and gate != account.gate:
        account.tell(now, "GATE", reason=gate)
    account.gate = gate


def judge_health(account: Account, now: Moment) -> None:
    """A9: the worst of the session and its positions; told on change."""
    params = account.params
    used = account.margin(with_working=True) / params.max_margin_usd
    level = 2 if reached(used, 0.95) else int(reached(used, 0.8))
    if reached(len(account.positions), 0.8 * params.max_orders):
        level = max(level, 1)
    for position in account.positions:
        if level == 2:
            break
        level = max(level, position_health(account, position, now))
    if LEVELS[level] != account.health:
        account.health = LEVELS[level]
        account.tell(now, "HEALTH", reason=account.health)


def position_health(account: Account, position: Position, now: Moment) -> int:
    """Return 0, 1 or 2: healthy, warning, critical."""
    params = account.params
    if position.stage == HEDGED or (position.stuck and params.recovery_mode == "none"):
        return 2
    stood = now.step_s - position.stage_time
    if position.stage == LADDER and stood > params.escalation_min * 60.0:
        return 2
    loss = loss_share(account, position, now.price)
    if reached(loss, 0.75 * params.stop_loss_pct / 100.0):
        return 2
    age = now.step_s - position.opened
    if reached(loss, 0.5 * params.stop_loss_pct / 100.0):
        return 1
    return int(age >= params.position_timeout_min * 30.0)
