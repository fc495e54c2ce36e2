"""Where orders lie: A5, A6, A7 and their mirrors of A15.2, every price on the tick."""

from __future__ import annotations

from collections.abc import Iterable

from tests.engine.fixed_grid_reference.market import LONG, Market
from tests.engine.fixed_grid_reference.params import Params


def entry_price(params: Params, market: Market, p: float, entries: Iterable[float]) -> float:
    """Return ``e``: one tick behind ``p`` and a grid step beyond the last open entry.

    buy:  min(tick_down(p - tick), tick_down(lowest / (1 + grid_step)))
    sell: max(tick_up(p + tick), tick_up(highest * (1 + grid_step)))
    """
    held = list(entries)
    if params.sgn == LONG:
        behind = market.tick_down(p - market.tick_size)
        if not held:
            return behind
        return min(behind, market.tick_down(min(held) / (1.0 + params.grid_step)))
    behind = market.tick_up(p + market.tick_size)
    if not held:
        return behind
    return max(behind, market.tick_up(max(held) * (1.0 + params.grid_step)))


def entry_lots(params: Params, market: Market, price: float) -> int:
    """Return the lots of a new order; orders are never shrunk."""
    if params.quantity > 0.0:
        return market.lots_down(params.quantity)
    return market.lots_down(params.quantity_usd / price) if price > 0.0 else 0


def take_profit_price(params: Params, market: Market, entry: float) -> float:
    """Return ``T``, the close price: the take-profit, never under break-even after two fees."""
    fee = params.fee_maker
    if params.sgn == LONG:
        wanted = max(entry * (1.0 + params.take_profit), entry * (1.0 + fee) / (1.0 - fee))
    else:
        wanted = min(entry * (1.0 - params.take_profit), entry * (1.0 - fee) / (1.0 + fee))
    return market.tick_onward(params.sgn, wanted)


def resting_close_price(params: Params, market: Market, target: float, p: float) -> float:
    """Return ``T`` where it is passive at ``p``, else one tick beyond ``p``."""
    if params.sgn * (target - p) > 0.0:
        return target
    return market.tick_onward(params.sgn, p + params.sgn * market.tick_size)


def stop_price_tick(params: Params, market: Market) -> float | None:
    """Return ``stop_price`` as a trigger on the tick, or None."""
    if params.stop_price is None:
        return None
    return market.tick_back(params.sgn, params.stop_price)


def stop_trigger(params: Params, market: Market, entry: float) -> float | None:
    """Return ``S``: the position's own stop, not looser than ``stop_price``; None with both off."""
    bound = stop_price_tick(params, market)
    if not params.stop_loss_enabled:
        return bound
    distance = 1.0 - params.sgn * params.stop_loss_pct / 100.0
    own = market.tick_back(params.sgn, entry * distance)
    if bound is None:
        return own
    return max(own, bound) if params.sgn == LONG else min(own, bound)


def ladder(
    params: Params, market: Market, target: float, p: float, lots: int
) -> list[tuple[float, int]]:
    """Return the rungs (price, lots), nearest first, that close ``lots`` on the way to ``T``.

    Equal lots, the remainder on the nearest; empty rungs are dropped, equal prices merged. What is
    under the minimum quantity joins the next nearer rung, a first rung under it takes the next.
    """
    share = lots // len(params.ladder_pct)
    rungs: list[tuple[float, int]] = []
    for j, pct in enumerate(params.ladder_pct):
        price = market.tick_onward(params.sgn, p * (1.0 + params.sgn * pct / 100.0))
        price = min(target, price) if params.sgn == LONG else max(target, price)
        part = share if j else lots - share * (len(params.ladder_pct) - 1)
        if part == 0:
            continue
        if rungs and rungs[-1][0] == price:
            part += rungs.pop()[1]
        rungs.append((price, part))
    return joined_rungs(rungs, market.min_lots)


def joined_rungs(rungs: list[tuple[float, int]], min_lots: int) -> list[tuple[float, int]]:
    """Return the rungs with every one of at least ``min_lots``, as far as they suffice."""
    kept = list(rungs)
    for j in range(len(kept) - 1, 0, -1):
        if kept[j][1] < min_lots:
            kept[j - 1] = (kept[j - 1][0], kept[j - 1][1] + kept[j][1])
            del kept[j]
    while len(kept) > 1 and kept[0][1] < min_lots:
        kept[0] = (kept[0][0], kept[0][1] + kept[1][1])
        del kept[1]
    return kept
