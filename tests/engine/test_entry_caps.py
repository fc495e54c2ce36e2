"""Orders after every step: entries within all caps, exits that never exceed the position.

The caps are worked out here from the account and the signals of the step, as the strategy's
definition states them: equity at p, both sides' positions at p, resting orders at their prices.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from config import PRESETS
from core.market import MarketRules
from core.orders import OrderKind
from engine.contract import RestingOrder
from engine.grid_v4.book import OrderBook
from engine.grid_v4.execution import trigger_passed_stops
from engine.types import DIRECTION_NAMES, PositionTracker
from tests.engine.reference.grid import wick_stop
from tests.engine.reference.market import Market
from tests.support.markets.oracle import (
    COINS,
    Inputs,
    StepLoop,
    coin_rules,
    inputs_of,
    plain_market,
    real_candles,
)
from tests.support.markets.synthetic import (
    CONFIGS,
    RULES,
    SEEDS,
    one_of,
    synthetic_candles,
    synthetic_settlements,
)

SLACK = 1.0 + 1e-12
Orders = list[RestingOrder]


def of_kind(orders: Orders, position_side: str, kind: OrderKind) -> Orders:
    return [order for order in orders if (order.position_side, order.kind) == (position_side, kind)]


def notional(orders: Orders) -> float:
    return sum(order.price * order.qty for order in orders)


class Caps:
    """The limits of one step, from its signals, its price and the fills held."""

    def __init__(self, loop: StepLoop, i: int) -> None:
        self.config, self.signal = loop.inputs.config, loop.inputs.signals[i - 1]
        self.price = float(loop.inputs.bars["open"][i])
        self.positions = [PositionTracker(loop.state, side) for side in (0, 1)]
        self.held = [position.qty * self.price for position in self.positions]
        unrealized = sum(position.unrealized_pnl(self.price) for position in self.positions)
        self.equity = float(loop.state.wallet) + unrealized

    def of_side(self, side: int) -> float:
        """Equity * max_position_pct * leverage * liquidity * reserve."""
        config = self.config
        cap = self.equity * config["max_position_pct"] * config["leverage"]
        if self.signal["volume_ratio"] < config["low_volume_threshold"]:
            cap *= config["low_volume_factor"]
        trend = self.signal["regime"] > 0 and self.signal["er"] > config["trailing_activation_er"]
        if side == 0 and config["trailing_enabled"] and not trend:
            cap *= 1.0 - config["trailing_reserve_pct"]
        return float(cap)

    def of_both(self) -> float:
        """Equity * max_capital_pct * leverage."""
        config = self.config
        return float(self.equity * config["max_capital_pct"] * config["leverage"])

    def working_fills(self, side: int) -> int:
        """Fills of which less than ``tp_concentration`` is closed."""
        share = 1.0 - self.config["tp_concentration"] + 1e-9
        fills = self.positions[side].fills
        return sum(fill["qty"] > share * fill["entry_qty"] for fill in fills)

    def entries_allowed(self, side: int) -> bool:
        """By regime and by ``allow_short``."""
        against = -1 if side == 0 else 1
        return self.signal["regime"] * against <= 0 and (side == 0 or self.config["allow_short"])


def check_entries(loop: StepLoop, caps: Caps, orders: Orders) -> int:
    """Check every cap and return the number of resting entries."""
    committed, count = sum(caps.held), 0
    for side, name in enumerate(DIRECTION_NAMES):
        entries = of_kind(orders, name, OrderKind.ENTRY)
        if not entries:
            continue
        assert caps.entries_allowed(side)
        assert not loop.state.halted
        assert caps.working_fills(side) + len(entries) <= caps.config["max_inventory_per_side"]
        assert caps.held[side] + notional(entries) <= caps.of_side(side) * SLACK
        committed += notional(entries)
        assert committed <= caps.of_both() * SLACK
        check_stop(loop, caps, side, entries)
        count += len(entries)
    return count


def check_stop(loop: StepLoop, caps: Caps, side: int, entries: Orders) -> None:
    """No entry rests beyond the stop of what is held and the nearer entries."""
    rules = loop.inputs.market
    market = reference_market(loop.inputs)
    position, sign = caps.positions[side], 1 if side == 0 else -1
    lots, cost = position.qty, position.qty * position.avg_entry
    distance = float(loop.state.sides[side].stop_distance)
    for order in entries:
        assert order.qty >= rules.min_qty
        assert order.price * order.qty >= rules.min_notional - 1e-9
        if caps.config["stop2_enabled"] and lots > 0.0:
            stop = wick_stop(market, sign, cost / lots, distance)
            assert sign * (order.price - stop) > -1e-6 * market.tick_size
        lots, cost = lots + order.qty, cost + order.qty * order.price


def reference_market(inputs: Inputs) -> Market:
    rules = inputs.market
    plain = MarketRules(
        tick_size=float(rules.tick_size),
        step_size=float(rules.step_size),
        min_qty=float(rules.min_qty),
        min_notional=float(rules.min_notional),
    )
    return Market.from_dict(plain_market(plain, float(rules.liquidation_fee)))


def check_exits(loop: StepLoop, caps: Caps, orders: Orders) -> None:
    """Take-profits offer exactly what is held, passively; a stop guards all of it."""
    for side, name in enumerate(DIRECTION_NAMES):
        held, sign = caps.positions[side].qty, 1.0 if side == 0 else -1.0
        offers, stops = (
            of_kind(orders, name, OrderKind.TAKE_PROFIT),
            of_kind(orders, name, OrderKind.STOP),
        )
        assert sum(order.qty for order in offers) == pytest.approx(held, rel=1e-9)
        for order in offers:
            assert order.qty >= min(loop.inputs.market.min_qty, held) * (1.0 - 1e-9)
            assert sign * (order.price - caps.price) > 0.0
        market = reference_market(loop.inputs)
        distance = float(loop.state.sides[side].stop_distance)
        guarded = held > 0.0 and caps.config["stop2_enabled"]
        stop = wick_stop(market, int(sign), caps.positions[side].avg_entry, distance)
        expected = [(stop, held)] if guarded and stop > 0.0 else []
        assert [(order.price, order.qty) for order in stops] == expected


def check_every_step(inputs: Inputs) -> tuple[int, int]:
    """Return how many entries and how many positions were checked."""
    loop, entries, positions = StepLoop(inputs), 0, 0
    for i in range(len(inputs.bars)):
        if not loop.acts(i):
            continue
        loop.lay_out(i)
        if loop.state.ended:
            break
        orders, caps = list(OrderBook(loop.state, inputs.config["grid_levels"])), Caps(loop, i)
        entries += check_entries(loop, caps, orders)
        check_exits(loop, caps, orders)
        positions += sum(held > 0.0 for held in caps.held)
        trigger_passed_stops(loop.state, inputs.params, inputs.market, loop.tape)
        if not loop.state.ended:
            loop.match(i)
    return entries, positions


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["documented", "shipped"])
@pytest.mark.parametrize("coin", COINS)
def test_entries_stay_within_every_cap_on_real_candles(coin: str, preset: str) -> None:
    candles, funding = real_candles(coin, "2024-08-01", 800)
    inputs = inputs_of(candles, PRESETS[preset], coin_rules(coin), funding)
    entries, positions = check_every_step(inputs)
    assert entries > 2_000
    assert positions > 50


@settings(max_examples=4, deadline=None)
@given(seed=SEEDS, config=CONFIGS, least_lots=one_of(1, 5))
def test_entries_stay_within_every_cap(seed: int, config: dict[str, Any], least_lots: int) -> None:
    candles = synthetic_candles(200, seed)
    rules = replace(RULES, min_qty=least_lots * RULES.step_size)
    funding = synthetic_settlements(candles, seed)
    check_every_step(inputs_of(candles, config, rules, funding))


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, config=CONFIGS, least_lots=one_of(1, 5))
def test_entries_stay_within_every_cap_whatever_the_parameters(
    seed: int, config: dict[str, Any], least_lots: int
) -> None:
    candles = synthetic_candles(350, seed)
    rules = replace(RULES, min_qty=least_lots * RULES.step_size)
    funding = synthetic_settlements(candles, seed)
    check_every_step(inputs_of(candles, config, rules, funding))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_inventory_per_side", 2),
        ("max_position_pct", 0.11),
        ("max_capital_pct", 0.12),
        ("low_volume_factor", 0.1),
        ("trailing_reserve_pct", 0.99),
    ],
)
@pytest.mark.slow
def test_a_cap_that_is_not_kept_is_noticed(name: str, value: float) -> None:
    candles = synthetic_candles(400, 12)
    config = {**PRESETS["documented"], "low_volume_threshold": 1.0}
    inputs = inputs_of(candles, config, RULES, synthetic_settlements(candles, 12))
    entries, positions = check_every_step(inputs)
    assert min(entries, positions) > 100
    claimed = replace(inputs, config={**inputs.config, name: value})
    with pytest.raises(AssertionError):
        check_every_step(claimed)
