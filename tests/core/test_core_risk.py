"""Maintenance margin, liquidation prices and value at risk: published and hand-worked numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.records import zeros
from core.risk import (
    DEFAULT_BRACKETS,
    Brackets,
    calculate_liquidation_price,
    calculate_maintenance_margin,
    calculate_var_95,
    check_var_constraint,
    compute_portfolio_var,
    fill_brackets,
    get_margin_tier,
    solve_liquidation_price,
)

# --- margin and liquidation ---------------------------------------------------------------------


def test_maintenance_is_continuous_and_rises_at_every_bracket() -> None:
    floors = [floor for floor, _, _ in DEFAULT_BRACKETS]
    assert floors == [0.0, 50e3, 250e3, 1e6, 10e6, 20e6, 50e6]
    rates = [get_margin_tier(floor + 1.0)[0] for floor in floors]
    assert rates == [0.004, 0.005, 0.01, 0.025, 0.05, 0.1, 0.125]
    for floor in floors[1:]:
        below, above = np.nextafter(floor, 0.0), np.nextafter(floor, 1e12)
        assert get_margin_tier(floor) == get_margin_tier(below) != get_margin_tier(above)
        at, after = calculate_maintenance_margin(floor), calculate_maintenance_margin(above)
        assert after == pytest.approx(at, rel=1e-12)
    assert calculate_maintenance_margin(1e6) == pytest.approx(1e6 * 0.01 - 1_300.0)


PUBLISHED = [
    # Entry, size, wallet, margin and loss of the other position, rate, amount, liquidation price.
    (1_456.84, 3_683.979, 1_535_443.01, 71_200.81144, -56_354.57, 0.10, 135_365.0, 1_153.26),
    (32_481.98, 109.488, 1_535_443.01, 356_512.508, -448_192.89, 0.025, 16_300.0, 26_316.89),
]
"""Binance, "How to Calculate Liquidation Price of USD-M Futures Contracts": its two examples."""


@pytest.mark.parametrize("case", PUBLISHED, ids=["ETHUSDT", "BTCUSDT"])
def test_the_liquidation_price_equals_the_exchanges_worked_example(case: tuple[Any, ...]) -> None:
    entry, size, wallet, other_margin, other_pnl, rate, amount, published = case
    table = fill_brackets(zeros(Brackets), ((0.0, rate, amount),))
    free = wallet - other_margin + other_pnl
    price = solve_liquidation_price(table, free, entry * size, size, 0.0, entry)
    assert price == pytest.approx(published, abs=0.005)


@pytest.mark.parametrize(
    ("side", "entry", "size", "wallet", "rate", "amount"),
    [
        (1, 50_000.0, 0.1, 1_000.0, 0.004, 0.0),
        (-1, 50_000.0, 0.1, 1_000.0, 0.004, 0.0),
        (1, 50_000.0, 10.0, 300_000.0, 0.005, 50.0),  # entered in the tier of 1 %
        (-1, 50_000.0, 19.0, 300_000.0, 0.025, 16_300.0),  # entered in the tier of 1 %
        (1, 50_000.0, 300.0, 14_800_000.0, 0.005, 50.0),  # four tiers down
    ],
)
def test_one_leg_equals_the_formula_in_the_tier_of_its_liquidation(
    side: int, entry: float, size: float, wallet: float, rate: float, amount: float
) -> None:
    expected = (wallet + amount - side * size * entry) / (size * (rate - side))
    assert get_margin_tier(size * expected) == pytest.approx((rate, amount))
    solved = calculate_liquidation_price(entry, size, wallet, side, leverage=20.0)
    assert solved == pytest.approx(expected, rel=1e-12)
    equity = wallet + side * size * (solved - entry)
    assert equity == pytest.approx(calculate_maintenance_margin(size * solved), rel=1e-9)


def test_leverage_and_the_sign_of_the_size_do_not_matter_to_a_liquidation_price() -> None:
    prices = {
        calculate_liquidation_price(100.0, size, 50.0, 1, leverage)
        for size in (2.0, -2.0)
        for leverage in (1.0, 125.0)
    }
    assert len(prices) == 1


@pytest.mark.parametrize(("size", "wallet"), [(0.0, 10.0), (1.0, 200.0)])
def test_what_cannot_be_liquidated_has_no_liquidation_price(size: float, wallet: float) -> None:
    assert calculate_liquidation_price(100.0, size, wallet, 1) == 0.0


@settings(deadline=None)
@given(
    long_qty=st.floats(0.01, 900.0),
    share=st.floats(0.0, 0.6),
    long_entry=st.floats(20e3, 60e3),
    short_entry=st.floats(20e3, 60e3),
    fall=st.floats(0.05, 0.95),
)
def test_two_legs_equal_the_exchanges_hedge_mode_formula(
    long_qty: float, share: float, long_entry: float, short_entry: float, fall: float
) -> None:
    """Cross margin, hedge mode; the wallet lasts until prices have fallen by ``fall`` or less."""
    table = fill_brackets(zeros(Brackets), DEFAULT_BRACKETS)
    short_qty = share * long_qty
    cost = long_qty * long_entry - short_qty * short_entry
    wallet = cost - (long_qty - short_qty) * long_entry * (1.0 - fall)
    price = solve_liquidation_price(table, wallet, cost, long_qty, short_qty, 1e-9)
    (rate_l, cum_l), (rate_s, cum_s) = (get_margin_tier(q * price) for q in (long_qty, short_qty))
    numerator = wallet + cum_l + cum_s - long_qty * long_entry + short_qty * short_entry
    denominator = long_qty * rate_l + short_qty * rate_s - long_qty + short_qty
    assert price == pytest.approx(numerator / denominator, rel=1e-9)
    assert price >= long_entry * (1.0 - fall)


# --- value at risk ------------------------------------------------------------------------------


def test_value_at_risk_grows_with_the_root_of_the_horizon() -> None:
    assert calculate_var_95(50_000.0, 0.002, horizon_bars=96.0) == pytest.approx(165 * 96**0.5)


def test_the_constraint_blocks_only_above_the_budget() -> None:
    assert check_var_constraint(50_000, 0.002, 0.0165, 10_000) is False  # exactly on it
    assert check_var_constraint(50_000, 0.002, 0.0164, 10_000) is True
    assert check_var_constraint(50_000, 0.002, 0.15, 10_000, horizon_bars=96.0) is True


def returns_correlated(rho: float) -> Any:
    """Return 672 rows of two series with exactly the correlation ``rho``."""
    x, z = np.array([1.0, -1.0, 1.0, -1.0] * 168), np.array([1.0, 1.0, -1.0, -1.0] * 168)
    return np.column_stack((x, rho * x + math.sqrt(1.0 - rho * rho) * z))


@pytest.mark.parametrize(
    ("rho", "second", "variance"),
    [
        (0.0, 500.0, 200.0),
        (0.6, 500.0, 320.0),
        (0.6, -500.0, 80.0),
        (0.85, 500.0, 400.0),
        (0.85, -500.0, 0.0),  # above 0.8 counts as 1
        (0.79, 500.0, 358.0),
        (-0.85, 500.0, 30.0),  # only positive ones
    ],
)
def test_portfolio_risk_by_hand(rho: float, second: float, variance: float) -> None:
    """Weights of 1000 * 0.01 = 10 and +-500 * 0.02 = +-10."""
    returns = returns_correlated(rho)
    older = np.random.default_rng(0).normal(size=(100, 2))
    for rows in (returns, np.concatenate((older, returns))):  # only the last 672 count
        var = compute_portfolio_var([1_000.0, second], [0.01, 0.02], rows)
        assert var == pytest.approx(1.65 * math.sqrt(variance), abs=1e-6)
