"""Step 8: which entries and take-profits should rest now, and at which quantity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tests.engine.reference.grid import Generation, wick_stop
from tests.engine.reference.ledger import Account, EntryOrder, Fill, Side, Step, TakeProfitOrder
from tests.engine.reference.market import LONG, SHORT, Market
from tests.engine.reference.sizing import entry_lots, position_cap

CLOSED_SHARE_SLACK = 1e-9


def is_mostly_closed(fill: Fill, tp_concentration: float) -> bool:
    """Tell whether at least ``tp_concentration`` of what the fill bought is closed."""
    closed = (fill.opened_lots - fill.lots) / fill.opened_lots
    return closed >= tp_concentration - CLOSED_SHARE_SLACK


def is_armed(params: Mapping[str, Any], side: Side, generation: Generation, level: int) -> bool:
    """Tell whether no open fill of this generation still occupies ``level``."""
    return all(
        is_mostly_closed(fill, params["tp_concentration"])
        for fill in side.fills
        if fill.generation == generation.number and fill.level == level
    )


def fits(
    account: Account,
    step: Step,
    side: Side,
    kept: list[EntryOrder],
    order: EntryOrder,
    *,
    equity: float,
    committed: float,
) -> bool:
    """Test one more entry against inventory, the side's cap, the stop and the capital cap.

    ``committed`` is both sides' positions at p and all entries kept so far, in quote.
    """
    params, market = account.params, account.market
    working = [f for f in side.fills if not is_mostly_closed(f, params["tp_concentration"])]
    if len(working) + len(kept) + 1 > params["max_inventory_per_side"]:
        return False
    size = market.qty(order.lots) * order.price
    resting = sum(market.qty(other.lots) * other.price for other in kept)
    held = account.notional(side.sign, step.price)
    if held + resting + size > position_cap(account, step, side.sign, equity):
        return False
    if params["stop2_enabled"] and is_beyond_stop(market, side, kept, order):
        return False
    return bool(committed + size <= params["max_capital_pct"] * equity * params["leverage"])


def is_beyond_stop(market: Market, side: Side, kept: list[EntryOrder], order: EntryOrder) -> bool:
    """Tell whether the entry lies past the stop of what is held and the nearer entries."""
    lots = side.lots + sum(nearer.lots for nearer in kept)
    if lots == 0:
        return False
    cost = sum(f.price * f.lots for f in side.fills) + sum(e.price * e.lots for e in kept)
    stop = wick_stop(market, side.sign, cost / lots, side.stop_distance)
    return order.price < stop if side.sign == LONG else order.price > stop


def desired_entries(
    account: Account, step: Step, sign: int, equity: float, committed: float
) -> list[EntryOrder]:
    """Return the entries that should rest now, nearest first; kept ones are the same objects."""
    side, market = account.sides[sign], account.market
    generation = side.generation
    if generation is None:
        return []
    resting = {o.level: o for o in side.entries if o.generation == generation.number}
    kept: list[EntryOrder] = []
    for level, ticks in generation.entries.items():
        price = market.price(ticks)
        order = resting.get(level)
        if order is None:
            is_passive = price < step.price if sign == LONG else price > step.price
            if not is_passive or not is_armed(account.params, side, generation, level):
                continue
            lots = entry_lots(account, step, sign, equity, price)
            if lots == 0:
                continue
            order = EntryOrder(generation.number, level, price, lots, account.take_age())
        if not fits(account, step, side, kept, order, equity=equity, committed=committed):
            break
        kept.append(order)
        committed += market.qty(order.lots) * order.price
    return kept


def break_even_ticks(params: Mapping[str, Any], market: Market, fill: Fill) -> int:
    """Return entry*(1+f)/(1-f) up to the tick for longs, entry*(1-f)/(1+f) down for shorts."""
    fee = params["fee_maker"]
    if fill.side == LONG:
        return market.ticks_up(fill.price * (1.0 + fee) / (1.0 - fee))
    return market.ticks_down(fill.price * (1.0 - fee) / (1.0 + fee))


def exit_ticks(
    params: Mapping[str, Any], market: Market, generation: Generation, fill: Fill, price: float
) -> list[int]:
    """Return the ticks a fill may be closed at, nearest first; never empty."""
    sign = fill.side
    bound = None if params["tp_below_entry"] else break_even_ticks(params, market, fill)
    passive = [t for t in generation.exits.values() if sign * (market.price(t) - price) > 0.0]
    usable = [t for t in passive if bound is None or sign * (t - bound) >= 0]
    if usable:
        return sorted(usable, reverse=sign == SHORT)
    if sign == LONG:
        nearest = market.ticks_up(price + market.tick_size)
        return [nearest if bound is None else max(bound, nearest)]
    nearest = market.ticks_down(price - market.tick_size)
    return [nearest if bound is None else min(bound, nearest)]


def take_profit_slices(
    params: Mapping[str, Any], market: Market, lots: int, levels: int
) -> list[int]:
    """Return lots per exit level, nearest first; zeros where a slice joined an inner one."""
    following = min(params["grid_levels"], levels) - 1
    if following <= 0:
        return [lots]
    each = math.floor(lots * (1.0 - params["tp_concentration"]) / following + 1e-9)
    slices = [lots - each * following] + [each] * following
    for k in range(following, 0, -1):
        if slices[k] < market.min_lots:
            slices[k - 1] += slices[k]
            slices[k] = 0
    for k in range(1, following + 1):  # only a small tp_concentration gets here
        if slices[0] < market.min_lots:
            slices[0] += slices[k]
            slices[k] = 0
    return slices


def desired_take_profits(account: Account, step: Step, side: Side) -> list[TakeProfitOrder]:
    """Return one order per price out of all fills' slices, nearest first."""
    market, generation = account.market, side.generation
    if generation is None:
        return []
    by_tick: dict[int, list[tuple[Fill, int]]] = {}
    for fill in side.best_first():
        ticks = exit_ticks(account.params, market, generation, fill, step.price)
        slices = take_profit_slices(account.params, market, fill.lots, len(ticks))
        for tick, lots in zip(ticks, slices, strict=False):
            if lots > 0:
                by_tick.setdefault(tick, []).append((fill, lots))
    ages = {(order.price, order.lots): order.age for order in side.take_profits}
    orders = []
    for tick in sorted(by_tick, reverse=side.sign == SHORT):
        order = TakeProfitOrder(market.price(tick), by_tick[tick], 0)
        order.age = ages.get((order.price, order.lots)) or account.take_age()
        orders.append(order)
    return orders
