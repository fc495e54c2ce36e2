"""Where orders lie and how large they are: entries, close orders, stops, rungs.

``sign`` is +1 for a strategy that buys and -1 for one that sells: what is low for the one is high
for the other. Every price is on the tick.
"""

from __future__ import annotations

import math

from core.jit import kernel
from core.market import Market, lots_down, lots_nearest, tick_down, tick_up
from engine.fixed_grid.frozen import FixedParams
from engine.fixed_grid.types import FixedState, Ladder
from engine.types import LONG


@kernel
def reached(value: float, threshold: float) -> bool:
    """Return whether ``value >= threshold``, equal within 1e-12 relative."""
    return value >= threshold - 1e-12 * abs(threshold)


@kernel
def affordable(needed: float, cap: float) -> bool:
    """Return whether a sum of money is within ``cap``, equal within 1e-9 relative."""
    return needed <= cap + 1e-9 * abs(cap)


@kernel
def tick_back(market: Market, sign: float, price: float) -> float:
    """Return the tick on the loss side of ``price``."""
    return tick_down(market, price) if sign > 0.0 else tick_up(market, price)


@kernel
def tick_onward(market: Market, sign: float, price: float) -> float:
    """Return the tick on the profit side of ``price``; a short's profit ends at one tick."""
    tick = tick_up(market, price) if sign > 0.0 else tick_down(market, price)
    return max(market.tick_size, tick)


@kernel
def entry_price(state: FixedState, params: FixedParams, market: Market) -> float:
    """Return ``e``: one tick behind the price and a grid step beyond the last open entry.

    buy:  min(tick_down(p - tick), tick_down(lowest entry / (1 + grid_step)))
    sell: max(tick_up(p + tick), tick_up(highest entry * (1 + grid_step)))
    """
    own = state.sides[params.side]
    price, n = state.now.price, own.n_fills
    if params.side == LONG:
        behind = tick_down(market, price - market.tick_size)
        if n == 0:
            return behind
        return min(behind, tick_down(market, own.fills[n - 1].price / (1.0 + params.grid_step)))
    behind = tick_up(market, price + market.tick_size)
    if n == 0:
        return behind
    return max(behind, tick_up(market, own.fills[n - 1].price * (1.0 + params.grid_step)))


@kernel
def entry_qty(params: FixedParams, market: Market, price: float) -> float:
    """Return the quantity of a new order at ``price``, base; orders are never shrunk."""
    if params.quantity > 0.0:
        return lots_down(market, params.quantity)
    return lots_down(market, params.quantity_usd / price) if price > 0.0 else 0.0


@kernel
def is_under_minimum(market: Market, qty: float, price: float) -> bool:
    """Return whether an opening order is under the exchange's minimum quantity or notional."""
    return qty < market.min_qty - 1e-9 * market.step_size or (
        qty * price < market.min_notional - 1e-9
    )


@kernel
def take_profit_price(params: FixedParams, market: Market, entry: float) -> float:
    """Return ``T``: the take-profit, never under break-even after two maker fees."""
    fee = params.fee_maker
    if params.sign > 0.0:
        wanted = max(entry * (1.0 + params.take_profit), entry * (1.0 + fee) / (1.0 - fee))
    else:
        wanted = min(entry * (1.0 - params.take_profit), entry * (1.0 - fee) / (1.0 + fee))
    return tick_onward(market, params.sign, wanted)


@kernel
def resting_close_price(params: FixedParams, market: Market, target: float, price: float) -> float:
    """Return ``target`` where it is passive at ``price``, else the first tick that is."""
    if params.sign * (target - price) > 0.0:
        return target
    return tick_onward(market, params.sign, price + params.sign * market.tick_size)


@kernel
def stop_bound(params: FixedParams, market: Market) -> float:
    """Return ``stop_price`` as a trigger on the tick beyond it, 0 without one."""
    if params.stop_price <= 0.0:
        return 0.0
    return tick_back(market, params.sign, params.stop_price)


@kernel
def stop_trigger(params: FixedParams, market: Market, entry: float) -> float:
    """Return ``S``: the position's stop, not looser than ``stop_price``; 0 with both off."""
    bound = stop_bound(params, market)
    if not params.stop_loss_enabled:
        return bound
    own = tick_back(market, params.sign, entry * params.stop_factor)
    if bound <= 0.0:
        return own
    return max(own, bound) if params.sign > 0.0 else min(own, bound)


@kernel
def whole_lots(market: Market, qty: float) -> int:
    """Return the number of lots in a quantity that is on the lot step."""
    return math.floor(qty / market.step_size + 0.5)


@kernel
def lots_qty(market: Market, lots: int) -> float:
    """Return the quantity of so many lots, base."""
    return lots_nearest(market, lots * market.step_size)


@kernel
def make_ladder(
    params: FixedParams, market: Market, target: float, price: float, qty: float, ladder: Ladder
) -> None:
    """Write the rungs that close ``qty`` (base) between ``price`` and ``target``, nearest first.

    Equal lots, the remainder on the nearest; empty rungs are dropped, equal prices merged. What is
    under the minimum quantity joins the next nearer rung, a first rung under it takes the next.
    """
    lots = whole_lots(market, qty)
    share = lots // params.n_ladder
    ladder.n_rungs = 0
    for j in range(params.n_ladder):
        part = share if j > 0 else lots - share * (params.n_ladder - 1)
        if part == 0:
            continue
        wanted = price * (1.0 + params.sign * params.ladder[j] / 100.0)
        rung_price = tick_onward(market, params.sign, wanted)
        rung_price = min(target, rung_price) if params.sign > 0.0 else max(target, rung_price)
        last = ladder.n_rungs - 1
        if last >= 0 and ladder.rungs[last].price == rung_price:
            ladder.rungs[last].qty = lots_nearest(
                market, ladder.rungs[last].qty + lots_qty(market, part)
            )
            continue
        rung = ladder.rungs[ladder.n_rungs]
        rung.price, rung.qty, rung.touched = rung_price, lots_qty(market, part), 0
        ladder.n_rungs += 1
    _join_small_rungs(market, ladder)
    for j in range(ladder.n_rungs):
        ladder.rungs[j].number = j


@kernel
def _join_small_rungs(market: Market, ladder: Ladder) -> None:
    least = market.min_qty - 1e-9 * market.step_size
    for j in range(ladder.n_rungs - 1, 0, -1):
        if ladder.rungs[j].qty < least:
            _give_to(market, ladder, j, j - 1)
    while ladder.n_rungs > 1 and ladder.rungs[0].qty < least:
        _give_to(market, ladder, 1, 0)


@kernel
def _give_to(market: Market, ladder: Ladder, source: int, target: int) -> None:
    """Add the rung ``source`` to the rung ``target`` and drop it."""
    ladder.rungs[target].qty = lots_nearest(
        market, ladder.rungs[target].qty + ladder.rungs[source].qty
    )
    drop_rung(ladder, source)


@kernel
def drop_rung(ladder: Ladder, which: int) -> None:
    """Take a rung out; those behind it move up."""
    for later in range(which + 1, ladder.n_rungs):
        ladder.rungs[later - 1] = ladder.rungs[later]
    ladder.n_rungs -= 1
