"""Where cross margin runs out, and what closing everything there costs (SPEC 7).

    equity <= maintenance(positions) + maintenance(hedges), each tiered by its own notional

The gap before a step is not searched: phase 3 judges it at ``p``.
"""

from __future__ import annotations

from itertools import pairwise

from tests.engine.fixed_grid_reference.ledger import Account, Moment, Position
from tests.engine.fixed_grid_reference.market import LONG


def spare_margin(account: Account, price: float) -> float:
    """Return equity minus maintenance at ``price``."""
    return account.equity(price) - account.maintenance(price)


def liquidation_price_between(account: Account, start: float, end: float) -> float | None:
    """Return the first price from ``start`` to ``end`` where equity <= maintenance, or None.

    Between two prices at which a leg changes its tier, the spare margin is a straight line.
    """
    if not account.positions:
        return None
    corners = [start, *tier_changes(account, start, end), end]
    for left, right in pairwise(corners):
        at_left, at_right = spare_margin(account, left), spare_margin(account, right)
        if at_left <= 0.0:
            return left
        if at_right <= 0.0:
            return left + (right - left) * at_left / (at_left - at_right)
    return None


def tier_changes(account: Account, start: float, end: float) -> list[float]:
    """Return the prices strictly between at which a side's notional enters another tier."""
    qty, _, hedge_qty, _ = account.legs()
    low, high = min(start, end), max(start, end)
    floors = [row[0] for row in account.market.brackets]
    prices = {floor / held for held in (qty, hedge_qty) if held > 0.0 for floor in floors}
    return sorted((x for x in prices if low < x < high), reverse=end < start)


def liquidate(account: Account, now: Moment, price: float) -> None:
    """Close every leg at ``price`` without slippage, for min(fee * notional, equity) in all.

    The fee is split by notional. Records: long legs first, worst first. Where the fee takes all
    equity, the run ends; equity under 0 there makes the fee negative, so that the wallet ends at 0.
    No order is left.
    """
    equity = account.equity(price)
    qty, _, hedge_qty, _ = account.legs()
    notional = (qty + hedge_qty) * price
    fee = min(account.market.liquidation_fee * notional, equity)
    account.cancel_orders()
    held = list(account.positions)
    hedged = sorted(
        (p for p in held if p.hedge is not None),
        key=lambda p: account.params.sgn * p.hedge.price if p.hedge is not None else 0.0,
    )

    def close_own(position: Position) -> None:
        share = account.market.qty(position.lots) / (qty + hedge_qty)
        account.close_position(
            now, position, position.lots, price=price, fee=fee * share, label="LIQUIDATION"
        )

    def close_hedge(position: Position) -> None:
        lots = position.hedge.lots if position.hedge is not None else 0
        share = account.market.qty(lots) / (qty + hedge_qty)
        account.close_hedge(now, position, price=price, fee=fee * share, label="LIQUIDATION")

    own_side, hedge_side = (close_own, held), (close_hedge, hedged)
    sides = (own_side, hedge_side) if account.params.sgn == LONG else (hedge_side, own_side)
    for close, positions in sides:
        for position in positions:
            close(position)
    account.counters["liquidations"] += 1
    account.ended = fee >= equity
