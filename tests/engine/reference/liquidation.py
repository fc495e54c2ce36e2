"""Where cross margin runs out, and what closing everything there costs.

    equity <= maintenance(long) + maintenance(short), each tiered by its own notional

The gap between two bars is not searched: step 4 judges it at the open.
"""

from __future__ import annotations

from itertools import pairwise

from tests.engine.reference.ledger import Account, Fill, Step
from tests.engine.reference.market import BOTH_SIDES


def liquidation_price_between(account: Account, start: float, end: float) -> float | None:
    """Return the first price from ``start`` to ``end`` where equity <= maintenance, or None.

    Between two prices at which a position changes its tier, equity minus maintenance is a straight
    line, so each piece is solved exactly.
    """
    if not account.has_position():
        return None
    corners = [start, *tier_changes(account, start, end), end]
    for left, right in pairwise(corners):
        constant, slope = margin_line(account, 0.5 * (left + right))
        if constant + slope * left <= 0.0:
            return left
        if constant + slope * right <= 0.0:
            return -constant / slope
    return None


def tier_changes(account: Account, start: float, end: float) -> list[float]:
    """Return the prices strictly between at which a side's notional enters another tier."""
    low, high = min(start, end), max(start, end)
    prices: set[float] = set()
    for sign in BOTH_SIDES:
        lots = account.sides[sign].lots
        if lots:
            qty = account.market.qty(lots)
            prices.update(floor / qty for floor, _, _ in account.market.brackets)
    return sorted((x for x in prices if low < x < high), reverse=end < start)


def margin_line(account: Account, price: float) -> tuple[float, float]:
    """Return (a, b) of equity - maintenance = a + b * x in the tiers that hold at ``price``."""
    constant, slope = account.wallet, 0.0
    for sign in BOTH_SIDES:
        side = account.sides[sign]
        for fill in side.fills:
            qty = account.market.qty(fill.lots)
            constant -= sign * fill.price * qty
            slope += sign * qty
        qty = account.market.qty(side.lots)
        if qty > 0.0:
            rate, amount = account.market.bracket(qty * price)
            constant += amount
            slope -= rate * qty
    return constant, slope


def liquidate(account: Account, step: Step, price: float) -> None:
    """Close everything at ``price``, without slippage, for min(fee * notional, equity) in all.

    The fee is split over the records by notional; where it takes all equity, the run ends.
    """
    equity = account.equity(price)
    doomed: list[Fill] = []
    for sign in BOTH_SIDES:
        doomed.extend(account.sides[sign].worst_first())
    notional = sum(account.market.qty(fill.lots) for fill in doomed) * price
    fee = min(account.market.liquidation_fee * notional, equity)
    for fill in doomed:
        share = account.market.qty(fill.lots) * price / notional
        account.close_fill(step, fill, fill.lots, price=price, fee=fee * share, label="LIQUIDATION")
        account.sides[fill.side].forced_close = True
    for sign in BOTH_SIDES:
        account.sides[sign].cancel_orders()
    account.counters["liquidations"] += 1
    account.ended = fee >= equity
