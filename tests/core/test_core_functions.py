"""The public functions: call forms as written, and numbers worked out by hand or published."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from core.adx import calculate_adx
from core.atr import calculate_atr, calculate_rolling_volatility, calculate_z_score
from core.grid import (
    calculate_dynamic_spacing,
    generate_geometric_grid_levels,
    generate_grid_levels,
)
from core.inventory import (
    calculate_optimal_spread,
    calculate_reservation_price,
    get_skewed_grid_params,
    normalize_inventory,
)
from core.kama import calculate_er, calculate_kama, detect_regime
from core.kelly import calculate_kelly_fraction
from core.performance import BARS_PER_YEAR, bar_returns, equity_metrics
from core.risk import (
    calculate_liquidation_price,
    calculate_var_95,
    check_var_constraint,
    get_margin_tier,
)
from tests.support.markets.synthetic import synthetic_candles

# --- call forms ---------------------------------------------------------------------------------


def test_the_call_forms_of_indicators_work_as_written() -> None:
    candles = synthetic_candles(300, 1)
    highs, lows, closes = candles["high"], candles["low"], candles["close"]
    er = calculate_er(closes, period=10)
    kama = calculate_kama(closes, er, fast_period=2, slow_period=30)
    atr = calculate_atr(highs, lows, closes, period=14)
    z = calculate_z_score(closes, atr, period=20)
    vol = calculate_rolling_volatility(closes, period=14)
    regime = detect_regime(kama, er, atr, threshold=0.15, er_trend_thresh=0.5)
    adx = calculate_adx(highs, lows, closes)
    for column in (er, kama, atr, z, vol, adx):
        assert column.shape == (300,)
        assert np.isfinite(column[40:]).all()
    assert set(regime.tolist()) <= {-2, -1, 0, 1, 2}


def test_the_other_call_forms_work_as_written() -> None:
    spacing = calculate_dynamic_spacing(
        atr=500, spacing_k=1.0, spacing_floor=0.005, ref_price=50000
    )
    buys, sells = generate_grid_levels(
        anchor_price=50000, buy_spacing=spacing, sell_spacing=spacing, grid_levels_count=10
    )
    assert spacing == 500.0
    assert buys.tolist() == [49_500.0 - 500.0 * k for k in range(10)]
    assert sells.tolist() == [50_500.0 + 500.0 * k for k in range(10)]

    r = calculate_reservation_price(mid_price=50000, inventory_q=0.3, gamma=0.5, volatility=0.002)
    delta = calculate_optimal_spread(volatility=0.002, gamma=0.5, kappa=1.5)
    buy_sp, sell_sp, anchor = get_skewed_grid_params(
        mid_price=50000, inventory_q=0.3, gamma=0.5, volatility=0.002, kappa=1.5, time_horizon=96.0
    )
    assert r == anchor == pytest.approx(50_000.0 - 50_000 * 0.3 * 0.5 * 4e-6 * 96.0)
    assert buy_sp == sell_sp == pytest.approx(delta / 2.0 * 50_000.0)

    mmr, cum = get_margin_tier(100000)
    assert mmr == 0.005
    assert cum == pytest.approx(50.0)
    blocked = check_var_constraint(50000, 0.002, 0.15, 10000)
    assert blocked is False
    liq = calculate_liquidation_price(
        entry_price=50000, position_size=0.1, wallet_balance=1000, side=1, leverage=5.0
    )
    assert liq == pytest.approx((1000 - 5000) / (0.1 * (0.004 - 1.0)))
    var = calculate_var_95(portfolio_value=50000, sigma_15m=0.002)
    assert var == pytest.approx(165.0)


# --- grid and inventory -------------------------------------------------------------------------


def test_spacing_never_falls_under_its_floor() -> None:
    assert calculate_dynamic_spacing(100.0, 1.0, 0.005, 50_000.0) == 250.0
    assert calculate_dynamic_spacing(100.0, 4.0, 0.005, 50_000.0) == 400.0


def test_levels_that_would_not_be_positive_are_left_out() -> None:
    buys, sells = generate_grid_levels(100.0, 30.0, 10.0, 5)
    assert buys.tolist() == [70.0, 40.0, 10.0]
    assert sells.tolist() == [110.0, 120.0, 130.0, 140.0, 150.0]


def test_geometric_levels_stand_in_a_constant_ratio() -> None:
    buys, sells = generate_geometric_grid_levels(100.0, 0.25, 0.1, 2)
    assert buys.tolist() == pytest.approx([80.0, 64.0])
    assert sells.tolist() == pytest.approx([110.0, 121.0])


@pytest.mark.parametrize(
    ("horizon", "low", "high"), [(1.0, 0.005, 0.02), (96.0, 1.0, 2.0)], ids=["T=1", "T=96"]
)
def test_a_full_inventory_moves_ether_by_a_cent_per_bar_and_a_dollar_or_two_per_day(
    horizon: float, low: float, high: float
) -> None:
    """Ether at 2,500 to 3,500, one-bar sigma 0.3 %, documented gamma 0.5, q = 1."""
    for price in (2_500.0, 3_500.0):
        skew = price - calculate_reservation_price(price, 1.0, 0.5, 0.003, horizon)
        assert skew == pytest.approx(price * 0.5 * 0.003**2 * horizon)
        assert low <= skew <= high


def test_a_short_inventory_moves_the_price_up_as_much_as_a_long_one_down() -> None:
    long = calculate_reservation_price(100.0, 0.7, 0.5, 0.01)
    short = calculate_reservation_price(100.0, -0.7, 0.5, 0.01)
    assert short - 100.0 == pytest.approx(100.0 - long)
    assert calculate_reservation_price(100.0, 0.0, 0.5, 0.01) == 100.0


def test_the_optimal_spread_equals_the_paper_by_hand() -> None:
    # 0.5 * 0.002^2 * 96 = 0.000192; 4 * ln(1 + 0.5 * 0.002 / 1.5) = 4 * 0.00066644451...
    log = 0.001 / 1.5 - (0.001 / 1.5) ** 2 / 2.0 + (0.001 / 1.5) ** 3 / 3.0
    expected = 0.000192 + 4.0 * log
    assert calculate_optimal_spread(0.002, 0.5, 1.5) == pytest.approx(expected, rel=1e-9)
    assert calculate_optimal_spread(0.002, 0.5, 1.5, 96.0) == pytest.approx(0.0028578, abs=1e-7)
    assert calculate_optimal_spread(0.0, 0.5, 1.5) == 0.0


def test_both_spacings_respect_the_least_one() -> None:
    assert get_skewed_grid_params(100.0, 0.5, 0.5, 0.0, 1.5, 96.0, 0.25) == (0.25, 0.25, 100.0)


@pytest.mark.parametrize(
    ("notional", "cap", "share"),
    [(0.0, 100.0, 0.0), (30.0, 100.0, 0.3), (150.0, 100.0, 1.0), (0.0, 0.0, 1.0), (5.0, -1.0, 1.0)],
)
def test_inventory_is_the_used_share_of_the_cap(notional: float, cap: float, share: float) -> None:
    assert normalize_inventory(notional, cap) == share


# --- Kelly --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returns", "fraction", "expected"),
    [
        # W = 0.7, K = 0.7/0.5 - 0.3/0.4 = 0.65
        ([0.4] * 14 + [-0.5] * 6, 1.0, 0.65),
        ([0.3] * 7 + [0.5] * 7 + [-0.4] * 3 + [-0.6] * 3, 1.0, 0.65),
        ([0.4] * 14 + [-0.5] * 6, 0.5, 0.325),
        ([0.4] * 14 + [-0.5] * 6, 0.25, 0.25),  # 0.1625 is under the minimum
        ([0.004] * 16 + [-0.004] * 4, 0.25, 1.0),  # K = 150
        ([0.005] * 12 + [-0.01] * 8, 0.25, 0.25),  # K = 60 - 80
        ([0.01] * 20, 0.25, 1.0),  # no losses
        ([-0.01] * 20, 0.25, 0.25),  # no wins
        ([0.01] * 19, 0.25, 0.5),  # too few
        # A return of 0 is a loss: W = 0.5, K = 0.5/0.2 - 0.5/0.4
        ([0.4] * 10 + [0.0] * 5 + [-0.4] * 5, 0.5, 0.625),
    ],
)
def test_kelly_by_hand(returns: list[float], fraction: float, expected: float) -> None:
    scale = calculate_kelly_fraction(returns, fraction, kelly_min=0.25, min_trades=20, default=0.5)
    assert scale == pytest.approx(expected)


# --- performance --------------------------------------------------------------------------------


def test_performance_by_hand() -> None:
    figures = equity_metrics(np.array([11_000.0, 9_900.0, 10_890.0]), 10_000.0)
    year = math.sqrt(96 * 365)
    annual = figures.pop("cagr_pct"), figures.pop("calmar_annual_ratio")
    assert all(math.isnan(value) for value in annual)  # 1.089 to the power of 11,680 is no number
    assert figures == pytest.approx(
        {
            "total_return_pct": 8.9,
            "max_drawdown_pct": 10.0,
            "calmar_ratio": 0.89,
            "final_capital": 10_890.0,
            "sharpe_ratio": (0.1 / 3.0)
            / math.sqrt(0.04 / 3.0)
            * year,  # deviations 1/15, -2/15, 1/15
            "sortino_ratio": (0.1 / 3.0) / math.sqrt(0.01 / 3.0) * year,
        }
    )


def published_curve() -> Any:
    returns = np.random.default_rng(0).normal(1e-5, 0.002, 5_000)
    return 10_000.0 * np.cumprod(1.0 + returns)


def test_performance_equals_what_a_published_library_answers() -> None:
    figures = equity_metrics(published_curve(), 10_000.0)
    assert figures["sharpe_ratio"] == pytest.approx(0.08795476621790634, rel=1e-9)
    assert figures["sortino_ratio"] == pytest.approx(0.12516361257935035, rel=1e-9)
    assert figures["max_drawdown_pct"] == pytest.approx(20.096449485671045, rel=1e-9)
    assert figures["total_return_pct"] == pytest.approx(-0.52167119082392215, rel=1e-9)


def test_those_figures_are_what_it_answers() -> None:
    empyrical = pytest.importorskip("empyrical", reason="empyrical-reloaded is not installed")
    returns = bar_returns(published_curve(), 10_000.0)
    figures = equity_metrics(published_curve(), 10_000.0)
    for name in ("sharpe_ratio", "sortino_ratio"):
        answer = getattr(empyrical, name)(returns, annualization=BARS_PER_YEAR)
        assert figures[name] == pytest.approx(answer, rel=1e-9)
    assert figures["max_drawdown_pct"] == pytest.approx(-100.0 * empyrical.max_drawdown(returns))


def test_a_ratio_without_a_denominator_is_nan() -> None:
    figures = equity_metrics(np.full(5, 10_000.0), 10_000.0)
    assert figures["total_return_pct"] == figures["max_drawdown_pct"] == 0.0
    assert all(math.isnan(figures[k]) for k in ("sharpe_ratio", "sortino_ratio", "calmar_ratio"))


def test_ratios_of_a_ruined_account_do_not_depend_on_how_long_it_lies_dead() -> None:
    alive = np.array([100.0, 103.0, 101.0, 60.0, 0.0])
    dead = np.concatenate((alive, np.zeros(5_000)))
    short, long = equity_metrics(alive, 100.0), equity_metrics(dead, 100.0)
    assert long == pytest.approx(short)
    returns = alive / np.array([100.0, *alive[:-1]]) - 1.0
    expected = returns.mean() / returns.std(ddof=1) * math.sqrt(96 * 365)
    assert long["sharpe_ratio"] == pytest.approx(expected)
    assert long["total_return_pct"] == -100.0


def test_the_return_a_year_compares_runs_of_any_length() -> None:
    year = 96 * 365
    for years in (0.5, 1.0, 3.0):
        n_bars = round(years * year)
        equity = 1_000.0 * 1.1 ** (np.arange(1, n_bars + 1) / year)
        equity[n_bars // 2] *= 0.9
        figures = equity_metrics(equity, 1_000.0)
        assert figures["cagr_pct"] == pytest.approx(10.0)
        fall = figures["max_drawdown_pct"]
        assert figures["calmar_annual_ratio"] == pytest.approx(10.0 / fall)
        assert figures["calmar_ratio"] == pytest.approx(100.0 * (1.1**years - 1.0) / fall)
    assert equity_metrics(np.array([0.0] * 96), 1_000.0)["cagr_pct"] == -100.0
