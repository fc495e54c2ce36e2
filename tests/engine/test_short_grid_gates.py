"""Each gate by itself, sizes and distances as the definition computes them, targets, the ladder."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.recording import SECOND_NS
from engine.short_grid.edge import add_sample, edge_lcb, penalty_of, slip_of
from engine.short_grid.gates import PASSED, AddGate, Gate, add_price_gate, entry_gate
from engine.short_grid.ledger import add_debt, open_short
from engine.short_grid.sizes import layer_notional, order_steps
from engine.short_grid.targets import (
    base_target,
    break_even_ticks,
    build_ladder,
    ladder_steps,
    net_bps,
    target_bps,
)
from engine.short_grid.types import E8, make_rules, new_states
from tests.engine.short_grid_ticks import START_NS, params

NOW = START_NS + 3_600 * SECOND_NS
ASK = 10_005
RULES = make_rules(0.001, 0.001, 0.001, 5.0, 2.0, 5.0)


def passing() -> tuple[Any, Any]:
    """Return a portfolio and a flat symbol whose entry at ``ASK`` passes every gate."""
    portfolio, symbols = new_states([RULES], params(), START_NS)
    state = symbols[0]
    s, regime, feed = state.observed.signals, state.observed.regime, state.observed.feed
    s.n_steps, s.mid, s.spread, s.spread_med = 10_000, 10.0, 10.0, 10.125
    s.pump_peak, s.exhaust, s.buy_ratio, s.touch_notional = 3.0, 2.0, 0.5, 1_000.0
    regime.baseline = regime.blended = 2.0
    regime.vol, regime.vol_30s, regime.drift = 15.5, 11.0, 1.0
    feed.mark_t_ns, feed.mark, feed.next_funding_ms = NOW, 10.0, NOW // 1_000_000 + 3_600_000
    return portfolio, state


def gate(portfolio: Any, state: Any, **changes: Any) -> int:
    p = params(**changes)
    steps = order_steps(state, p, ASK)
    return int(entry_gate(portfolio, state, p, NOW, steps, ASK, True, 0.0))


def test_an_entry_passes_when_nothing_is_against_it() -> None:
    assert gate(*passing()) == PASSED


CASES: tuple[tuple[Gate, str, Any], ...] = (
    (Gate.HALTED, "p.halted", True),
    (Gate.HALTED, "p.ended", True),
    (Gate.HALTED, "p.closing_all", True),
    (Gate.HALTED, "p.fees_over", True),
    (Gate.HALTED, "s.delisted_ns", NOW),
    (Gate.SAFE_MODE, "p.safe", True),
    (Gate.SAFE_MODE, "s.safe_until_ns", NOW + 1),
    (Gate.DEADMAN, "p.countdowns", 40),
    (Gate.QUANT_RULES, "p.quant_rules", True),
    (Gate.STALE, "s.observed.stale", True),
    (Gate.WARM, "s.observed.signals.n_steps", 599),
    (Gate.WARM, "s.rewarm_until_ns", NOW + 1),
    (Gate.BASELINE, "s.observed.regime.baseline", 0.0),
    (Gate.BREAKER, "s.breaker_until_ns", NOW + 1),
    (Gate.BREAKER, "s.limit_hit", True),
    (Gate.BLACKLIST, "s.blacklisted", True),
    (Gate.BLACKLIST, "s.foreign", True),
    (Gate.COOLDOWN, "s.cooldown_until_ns", NOW + 1),
    (Gate.COOLDOWN, "s.pause_until_ns", NOW + 1),
    (Gate.SPREAD, "s.observed.signals.spread", 6.99),
    (Gate.SPREAD, "s.observed.signals.spread", 40.01),
    (Gate.SPREAD, "s.observed.signals.spread_med", 6.875),
    (Gate.TRIGGER, "s.observed.signals.pump_peak", 1.99),
    (Gate.TRIGGER, "s.observed.signals.exhaust", 0.99),
    (Gate.TREND2, "s.observed.signals.r_2s", 12.01),
    (Gate.TREND30, "s.observed.signals.r_30s", 30.01),
    (Gate.TREND30, "s.observed.signals.r_30s", -30.01),
    (Gate.BUY_RATIO, "s.observed.signals.buy_ratio", 0.721),
    (Gate.SQUEEZE, "p.median_rise", 100.1),
    (Gate.EDGE, "s.rules.fee_taker", 9.0),
    (Gate.LIQUIDITY, "s.observed.signals.touch_notional", 100.0),
    (Gate.PORTFOLIO_CAP, "p.exposure", 1_950.0),
    (Gate.PORTFOLIO_CAP, "p.held", 25),
    (Gate.ORDER_BUDGET, "p.tokens_10s", 49.0),
    (Gate.ORDER_BUDGET, "p.tokens_60s", 224.0),
)


@pytest.mark.parametrize(("expected", "where", "value"), CASES)
def test_each_gate_refuses_for_its_own_reason(expected: Gate, where: str, value: Any) -> None:
    portfolio, state = passing()
    record: Any = portfolio if where[0] == "p" else state
    *path, name = where.split(".")[1:]
    for part in path:
        record = getattr(record, part)
    setattr(record, name, value)
    assert Gate(gate(portfolio, state)) == expected


def test_every_gate_of_an_entry_is_tested() -> None:
    others = {Gate.FUNDING, Gate.WATERFALL, Gate.MIN_NOTIONAL, Gate.SYMBOL_CAP}
    assert {case[0] for case in CASES} | others == set(Gate)


@pytest.mark.parametrize(
    ("rate", "ahead_s", "passes"),
    [(-0.0006, 200, False), (-0.0006, 301, True), (-0.0005, 200, True), (0.01, 200, True)],
)
def test_no_entry_before_a_settlement_that_charges_shorts(
    rate: float, ahead_s: int, passes: bool
) -> None:
    portfolio, state = passing()
    feed = state.observed.feed
    feed.funding_rate, feed.next_funding_ms = rate, NOW // 1_000_000 + ahead_s * 1_000
    assert gate(portfolio, state) == (PASSED if passes else Gate.FUNDING)


@pytest.mark.parametrize(("age_s", "passes"), [(0, False), (10, False), (60, True)])
def test_a_fall_bars_entries_until_it_is_forgotten(age_s: int, passes: bool) -> None:
    portfolio, state = passing()
    peaks = state.observed.signals.peaks
    peaks.n, peaks.values[0], peaks.steps[0] = 1, 10.06, 9_999 - age_s * 10
    assert gate(portfolio, state) == (PASSED if passes else Gate.WATERFALL)


@pytest.mark.parametrize(
    ("deep", "positions", "passes"), [(2, 2, True), (3, 9, False), (3, 10, True), (4, 10, False)]
)
def test_many_deep_positions_bar_entries(deep: int, positions: int, passes: bool) -> None:
    portfolio, state = passing()
    portfolio.deep, portfolio.positions = deep, positions
    assert gate(portfolio, state) == (PASSED if passes else Gate.SQUEEZE)


def test_an_order_under_the_exchanges_minimum_is_refused() -> None:
    portfolio, state = passing()
    state.rules.min_notional = 60.0
    assert gate(portfolio, state) == Gate.MIN_NOTIONAL
    state.rules.min_notional, state.rules.min_steps = 5.0, 10_000
    assert gate(portfolio, state) == Gate.MIN_NOTIONAL


def test_what_does_not_fit_under_the_symbols_cap_is_refused() -> None:
    portfolio, state = passing()
    assert gate(portfolio, state, symbol_cap=80.0) == PASSED
    state.ledger.cost_e8 = 430 * E8
    assert gate(portfolio, state) == Gate.SYMBOL_CAP


@pytest.mark.parametrize(
    ("spread", "total"), [(7.0, 445.0), (10.0, 456.43), (21.0, 480.0), (40.0, 480.0)]
)
def test_six_layers_cost_what_the_definition_says(spread: float, total: float) -> None:
    sizes = [layer_notional(params(), spread, layer) for layer in range(6)]
    assert sum(sizes) == pytest.approx(total, abs=0.01)
    assert max(sizes) <= 80.0


def test_layers_lie_where_the_definition_says() -> None:
    """Section 6: layers 2 to 9 at 0.45, 0.72, 0.90, 1.4, 2.4, 4.3, 8.0, 15 % above the first."""
    portfolio, state = passing()
    del portfolio
    state.observed.regime.vol = 0.0
    state.observed.signals.spread_med = 10.0
    first, p = 1_000_000, params(max_layers=9, symbol_cap=480.0)
    found, price, ask = [], first, first
    for layer in range(9):
        while layer > 0:
            ask += 20
            bid = round(ask / 1.001)
            if add_price_gate(state, p, bid, ask) not in (
                AddGate.LOSS,
                AddGate.DISTANCE,
                AddGate.LAST_FILL,
            ):
                break
        price = ask
        state.observed.signals.exhaust = 1.0
        notional = layer_notional(p, 10.0, layer)
        steps = round(notional * E8 / (price * RULES.unit_e8))
        open_short(state.ledger, RULES, NOW, price, steps, 0, layer + 1)
        state.last_fill_ticks = price
        found.append((price / first - 1.0) * 100.0)
    expected = [0.0, 0.45, 0.72, 0.90, 1.4, 2.4, 4.3, 8.0, 15.0]
    assert found == pytest.approx(expected, rel=0.08, abs=0.03)


@given(st.lists(st.floats(-100.0, 100.0), min_size=5, max_size=119))
def test_slippage_is_the_seventieth_percentile_and_the_penalty_the_clipped_deviation(
    values: list[float],
) -> None:
    _, state = passing()
    for value in values:
        add_sample(state.slippage_bps, value)
        add_sample(state.net_bps, value)
    ranked = sorted(values)[math.ceil(0.7 * len(values)) - 1]
    assert slip_of(state.slippage_bps, params()) == ranked
    clipped = [min(max(v, -30.0), 30.0) for v in values]
    mean = sum(clipped) / len(clipped)
    sd = math.sqrt(sum((v - mean) ** 2 for v in clipped) / (len(clipped) - 1))
    assert penalty_of(state.net_bps, params(), 20.0) == pytest.approx(min(0.75 * sd, 15.0))
    assert penalty_of(state.net_bps, params(), -1.0) == 0.0


def test_the_edge_is_the_formula() -> None:
    _, state = passing()
    s = state.observed.signals
    s.r_2s, s.spread = 3.0, 12.125
    bonus = min((3.0 + 2.0) / 2 - 1.5, 5.0)
    expected = 12.0 + bonus - (2.0 + 5.0 + 0.5 + 0.3) - 0.2 * 3.0 - 0.1 * 2.0
    assert edge_lcb(state, params(), 12.0) == pytest.approx(expected - 0.3)
    state.markout_fills, state.markout_bps = 20, 1.5
    assert edge_lcb(state, params(), 12.0) == pytest.approx(expected - 0.3 - 1.5)
    state.markout_fills = 19
    assert edge_lcb(state, params(), 12.0) == pytest.approx(expected - 0.3)


def held(layers: int = 1, steps: int = 8_000, fee_e8: int = 160_000) -> Any:
    _, state = passing()
    for layer in range(layers):
        open_short(state.ledger, RULES, NOW, 10_000 + 50 * layer, steps, fee_e8, layer + 1)
    return state


@pytest.mark.parametrize(
    ("spread_med", "vol", "age_s", "tp0"),
    [
        (20.0, 0.0, 0, 24.0),
        (20.0, 0.0, 1_800, 12.0),
        (20.0, 0.0, 90_000, 12.0),
        (7.0, 0.0, 0, 10.0),
        (7.0, 200.0, 0, 30.0),
        (7.0, 900.0, 0, 50.0),
    ],
)
def test_the_profit_asked_decays_to_its_floor(
    spread_med: float, vol: float, age_s: int, tp0: float
) -> None:
    state = held()
    state.observed.signals.spread_med, state.observed.regime.vol = spread_med, vol
    assert base_target(state, params(), NOW + age_s * SECOND_NS) == pytest.approx(tp0)


def test_debt_raises_the_profit_asked_up_to_its_cap() -> None:
    state = held()
    state.observed.signals.spread_med = 7.0
    before = target_bps(state, params(), NOW)
    add_debt(state.ledger, NOW, 3 * E8)
    fees = state.ledger.entry_fees_e8 / state.ledger.cost_e8 * 1e4 + 2.0
    assert before == pytest.approx(10.0)
    assert target_bps(state, params(), NOW) == pytest.approx(fees + 3 * 0.25 / 450 * 1e4)
    add_debt(state.ledger, NOW, 50 * E8)
    assert target_bps(state, params(), NOW) == pytest.approx(fees + 25.0)


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.floats(0.0, 10.0))
def test_break_even_is_the_highest_tick_that_pays_its_fees(
    steps: int, fee_e8: int, fee_bps: float
) -> None:
    state = held(1, steps, fee_e8)
    ticks = break_even_ticks(state, fee_bps)
    assert ticks == 0 or net_bps(state, float(ticks), fee_bps) >= 0.0
    assert net_bps(state, float(ticks + 1), fee_bps) < 0.0


@given(st.integers(3, 6), st.integers(1, 20_000), st.floats(0.0, 400.0), st.integers(1, 500))
def test_the_ladder_buys_the_whole_position_in_falling_zones(
    layers: int, steps: int, vol: float, min_steps: int
) -> None:
    state = held(layers, steps)
    state.rules.min_steps = min_steps
    state.observed.regime.vol = vol
    build_ladder(state, params(), NOW)
    inverse = state.inverse
    assert inverse.n_zones == min(layers, 5)
    assert ladder_steps(state) == state.ledger.steps
    zones = [(int(inverse.zone_ticks[i]), int(inverse.zone_steps[i])) for i in range(5)]
    used = [ticks for ticks, count in zones if count > 0]
    assert used == sorted(set(used), reverse=True)
    assert all(count == 0 or i == 0 or count >= min_steps for i, (_, count) in enumerate(zones))
    assert zones[0][1] * 2 >= state.ledger.steps
    farthest = inverse.avg_ticks * (1 - 150e-4)
    assert all(ticks >= math.floor(farthest) for ticks in used)


def test_the_ladders_zones_lie_between_the_target_and_its_ratio() -> None:
    state = held(5)
    state.observed.signals.spread_med, state.observed.regime.vol = 7.0, 1_000.0
    build_ladder(state, params(tp_vol_capture=0.0), NOW)
    average = state.ledger.cost_e8 / (state.ledger.steps * RULES.unit_e8)
    distances = [(1.0 - state.inverse.zone_ticks[i] / average) * 1e4 for i in range(5)]
    assert distances == pytest.approx([10.0, 17.5, 25.0, 32.5, 40.0], abs=1.0)
