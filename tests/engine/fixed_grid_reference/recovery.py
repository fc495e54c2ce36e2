"""A7, tier 3: phases 4 to 6 of a step. Worst position first, each judged on the ledger then."""

from __future__ import annotations

from tests.engine.fixed_grid_reference.ledger import (
    HEDGED,
    LADDER,
    OPEN,
    Account,
    LimitOrder,
    Moment,
    Position,
)
from tests.engine.fixed_grid_reference.market import affordable, reached
from tests.engine.fixed_grid_reference.prices import ladder

TOLD_AGAIN_S = 2 * 3600


def loss_share(account: Account, position: Position, p: float) -> float:
    """Return the loss at ``p`` as a share of the entry price, negative in profit."""
    return account.params.sgn * (position.entry - p) / position.entry


def look_after_hedges(account: Account, now: Moment) -> None:
    """Phase 4: release a hedge that gained enough back, end one that stood too long."""
    params = account.params
    for position in list(account.positions):
        if position.stage != HEDGED or position.hedge is None:
            continue
        back = params.sgn * (now.price / position.hedge.price - 1.0)
        if reached(back, params.hedge_release_pct / 100.0):
            account.market_close_hedge(now, position, "RECOVERY_HEDGE_CLOSE")
            position.stage, position.stage_time = OPEN, now.step_s
            position.opened = now.step_s
            position.released, position.announced = True, False
            account.tell(now, "RECOVERY", position, price=now.price, reason="hedge released")
        elif now.step_s - position.stage_time >= params.hedge_max_hours * 3600.0:
            account.tell(now, "RECOVERY", position, price=now.price, reason="hedge ended")
            account.market_close_both(now, position, "RECOVERY_HEDGE_CLOSE")


def is_stuck(account: Account, position: Position, now: Moment) -> bool:
    """Return whether an open position is old enough and far enough from its close price."""
    params = account.params
    if position.stage != OPEN:
        return False
    if now.step_s - position.opened < params.position_timeout_min * 60.0:
        return False
    target = position.take_profit
    distance = params.sgn * (target - now.price) / target
    return reached(distance, params.stuck_distance_pct / 100.0)


def free_the_stuck(account: Account, now: Moment) -> None:
    """Phase 5: mark what is stuck, once a cycle, and recover it by the mode."""
    for position in list(account.positions):
        if not is_stuck(account, position, now):
            continue
        first = not position.stuck
        if first:
            position.stuck = True
            account.counters["stuck_total"] += 1
            account.stuck_marks[position.cycle] = len(account.records)
            account.tell(now, "STUCK", position, price=now.price)
        if account.params.recovery_mode != "none":
            recover(account, now, position, first=first)


def recover(account: Account, now: Moment, position: Position, *, first: bool) -> None:
    """Recover a stuck position: by the mode, or at market if that is too late or was tried."""
    mode = account.params.recovery_mode
    loss = loss_share(account, position, now.price)
    if reached(loss, account.params.stop_loss_pct / 100.0):
        close_stuck(account, now, position, "loss beyond the stop")
    elif not first:
        close_stuck(account, now, position, "stuck a second time")
    elif mode == "aggressive":
        close_stuck(account, now, position, "aggressive")
    elif mode == "hedge":
        hedge(account, now, position)
    else:
        lay_ladder(account, now, position)


def close_stuck(account: Account, now: Moment, position: Position, why: str) -> None:
    """Close at market, RECOVERY_CLOSE."""
    account.counters["recovery_attempts"] += 1
    account.tell(now, "RECOVERY", position, price=now.price, reason=why)
    account.market_close(now, position, "RECOVERY_CLOSE")


def lay_ladder(account: Account, now: Moment, position: Position) -> None:
    """Replace the take-profit by rungs, laid once."""
    account.counters["recovery_attempts"] += 1
    position.stage, position.stage_time = LADDER, now.step_s
    position.close_order = None
    rungs = ladder(account.params, account.market, position.take_profit, now.price, position.lots)
    position.rungs = [LimitOrder(price, lots, account.take_age()) for price, lots in rungs]
    account.tell(now, "RECOVERY", position, price=now.price, reason="ladder")
    for rung in position.rungs:
        qty = account.market.qty(rung.lots)
        account.tell(now, "EXIT_PLACED", position, price=rung.price, qty=qty, reason="rung")


def hedge(account: Account, now: Moment, position: Position) -> None:
    """Open the opposite side at market; where that cannot be, close instead.

    It cannot be over the margin cap, or under the exchange's minimum for an opening order.
    """
    params, market = account.params, account.market
    price = market.market_price(now.price, params.sgn, params.slippage)
    more = market.qty(position.lots) * price / params.leverage
    fits = affordable(account.margin(with_working=True) + more, params.max_margin_usd)
    if not fits or market.is_too_small(position.lots, price):
        close_stuck(account, now, position, "hedge refused")
        return
    account.counters["recovery_attempts"] += 1
    account.tell(now, "RECOVERY", position, price=price, reason="hedge")
    account.open_hedge(now, position, price)


def escalate(account: Account, now: Moment) -> None:
    """Phase 6: ladders that stood for ``escalation_min``."""
    params = account.params
    for position in list(account.positions):
        stood = now.step_s - position.stage_time
        if position.stage != LADDER or stood < params.escalation_min * 60.0:
            continue
        again = position.told is not None and now.step_s - position.told < TOLD_AGAIN_S
        if params.escalation == "alert" and again:
            continue
        position.told = now.step_s
        account.tell(now, "ESCALATION", position, price=now.price, reason=params.escalation)
        if params.escalation == "close":
            account.counters["recovery_attempts"] += 1
            account.market_close(now, position, "RECOVERY_ESCALATION")
        elif params.escalation == "hedge":
            hedge(account, now, position)
