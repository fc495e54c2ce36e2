"""Rules of the symbol that change while a session runs: what is decided next follows them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from config import PRESETS
from core.market import MarketRules
from core.orders import OrderKind
from core.times import BAR_MS, MINUTE_MS
from engine.contract import Fill, Moment, RestingOrder
from engine.registry import FIXED_GRID, GRID_V4
from tests.support.markets.scenario import signal_table
from tests.support.markets.synthetic import RULES

COARSER = replace(RULES, tick_size=5.0, step_size=0.005, min_qty=0.005)
START_MS = 2_000_000 * BAR_MS
PRICE = 30_000.0


def is_multiple(value: float, step: float) -> bool:
    return Decimal(repr(value)) % Decimal(repr(step)) == 0


def is_on(rules: MarketRules, order: RestingOrder) -> bool:
    return is_multiple(order.price, rules.tick_size) and is_multiple(order.qty, rules.step_size)


def go_on(strategy: Any, step: int, price: float) -> list[RestingOrder]:
    """Do a step and return the limit orders that should rest."""
    signal = signal_table(1)[0]
    strategy.begin(Moment(START_MS + step * BAR_MS, signal, price, price, 0.0))
    for phase in range(strategy.phases):
        strategy.exits(phase)
    strategy.arrange()
    return [order for order in strategy.desired() if order.kind is not OrderKind.STOP]


@pytest.mark.parametrize(
    ("old", "new"), [(RULES, COARSER), (COARSER, RULES)], ids=["coarser", "finer"]
)
def test_what_is_decided_after_a_change_of_rules_is_on_the_new_tick_and_lot(
    old: MarketRules, new: MarketRules
) -> None:
    params = GRID_V4.read({**PRESETS["documented"], "initial_capital": 50_000.0})
    strategy = GRID_V4.create(params, old)
    orders = go_on(strategy, 0, PRICE)
    assert len(orders) > 4
    assert all(is_on(old, order) for order in orders)
    before = orders
    first = next(order for order in orders if order.position_side == "LONG")
    strategy.book(
        Fill(
            ts_ms=START_MS + 60_000,
            kind=first.kind,
            position_side="LONG",
            price=first.price,
            qty=first.qty,
            fee=0.0,
            level=first.level,
            generation=first.generation,
        )
    )
    strategy.use_rules(new)
    orders = go_on(strategy, 1, PRICE)
    entries = [order for order in orders if order.kind is OrderKind.ENTRY]
    exits = [order for order in orders if order.kind is OrderKind.TAKE_PROFIT]
    assert exits
    assert all(is_multiple(order.price, new.tick_size) for order in exits)
    assert not is_multiple(max(o.price for o in exits), old.tick_size) or new is COARSER
    kept = [order for order in entries if order in before]
    assert len(kept) > 4
    assert all(is_multiple(o.qty, new.step_size) for o in entries if o not in kept)
    other = [order for order in go_on(strategy, 400, 1.02 * PRICE) if order.kind is OrderKind.ENTRY]
    assert {o.generation for o in other}.isdisjoint(o.generation for o in entries)
    assert all(is_on(new, order) for order in other)


def test_a_fixed_grid_takes_the_new_lot_and_keeps_the_tick_its_names_count_in() -> None:
    strategy = FIXED_GRID.create(FIXED_GRID.read({"quantity_usd": 5_000.0}), RULES)
    prices = (20_000.1, 19_400.3)  # neither is on the coarser tick
    quantities = []
    for step, price in enumerate(prices):
        moment = Moment(START_MS + step * MINUTE_MS, signal=True, price=price, prev_close=price)
        strategy.begin(moment)
        for phase in range(strategy.phases):
            assert not strategy.exits(phase)
        strategy.arrange()
        entries = [o for o in strategy.desired() if o.kind is OrderKind.ENTRY]
        assert entries
        assert all(is_multiple(order.price, RULES.tick_size) for order in entries)
        quantities.append({order.qty for order in entries})
        strategy.use_rules(COARSER)
    assert all(is_multiple(qty, COARSER.step_size) for qty in quantities[1] - quantities[0])
