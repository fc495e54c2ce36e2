"""Maintenance margin, liquidation price and value at risk."""

from __future__ import annotations

import math
from typing import Annotated, Final

import numpy as np
import numpy.typing as npt

from core.jit import kernel
from core.records import Table, zeros

MAX_BRACKETS: Final = 16
Z_95: Final = 1.65
"""Standard normal quantile of the one-sided 95 % value at risk."""
MAX_TIER_STEPS: Final = 64
"""Iterations in which a liquidation price must find its bracket."""
CORRELATION_BARS: Final = 672


class Bracket:
    """One maintenance bracket: ``maintenance = rate * notional - amount`` above ``floor``."""

    floor: float  # notional, quote
    rate: float
    amount: float  # quote


class Brackets:
    """A table of brackets by rising floor."""

    n_brackets: int
    brackets: Annotated[Table[Bracket], MAX_BRACKETS]


def continuous_brackets(tiers: list[tuple[float, float]]) -> tuple[tuple[float, float, float], ...]:
    """Return (floor, rate, amount) such that maintenance is continuous over (floor, rate)."""
    rows: list[tuple[float, float, float]] = []
    amount, previous = 0.0, tiers[0][1]
    for floor, rate in tiers:
        amount += floor * (rate - previous)
        rows.append((floor, rate, amount))
        previous = rate
    return tuple(rows)


DEFAULT_BRACKETS: Final = continuous_brackets(
    [
        (0.0, 0.004),
        (50e3, 0.005),
        (250e3, 0.01),
        (1e6, 0.025),
        (10e6, 0.05),
        (20e6, 0.10),
        (50e6, 0.125),
    ]
)
"""Seven tiers for coins whose brackets are not known."""


@kernel
def margin_bracket(table: Brackets, notional: float) -> int:
    """Return the row of ``table`` that holds ``notional`` (floor exclusive, cap inclusive)."""
    row = 0
    while row + 1 < table.n_brackets and notional > table.brackets[row + 1].floor:
        row += 1
    return row


@kernel
def maintenance_margin(table: Brackets, notional: float) -> float:
    """Return the maintenance margin of one position of ``notional``, quote units."""
    bracket = table.brackets[margin_bracket(table, notional)]
    return bracket.rate * notional - bracket.amount


@kernel
def solve_liquidation_price(
    table: Brackets,
    wallet: float,
    signed_entry_cost: float,
    long_qty: float,
    short_qty: float,
    start: float,
) -> float:
    """Return the price at which equity equals maintenance margin under cross margin.

    ``wallet + x*(long - short) - signed_entry_cost = maintenance(x*long) + maintenance(x*short)``
    is solved bracket by bracket from the price ``start``, where equity is at or below
    maintenance. Excess margin is concave in ``x``, so the iteration (Newton's, on a piecewise
    linear function) approaches the crossing from one side and ends in finitely many steps.

    Args:
        table: maintenance brackets.
        wallet: quote.
        signed_entry_cost: sum of price * qty of long fills minus that of short fills, quote.
        long_qty: base.
        short_qty: base.
        start: first guess, quote.

    Returns:
        The price, or 0 where no positive price fits.
    """
    price = start
    for _ in range(MAX_TIER_STEPS):
        long_tier = table.brackets[margin_bracket(table, long_qty * price)]
        short_tier = table.brackets[margin_bracket(table, short_qty * price)]
        slope = long_qty * (1.0 - long_tier.rate) - short_qty * (1.0 + short_tier.rate)
        constant = wallet - signed_entry_cost
        if long_qty > 0.0:
            constant += long_tier.amount
        if short_qty > 0.0:
            constant += short_tier.amount
        if slope == 0.0:
            return 0.0
        solved = -constant / slope
        if not solved > 0.0:
            return 0.0
        if abs(solved - price) <= 1e-12 * price:
            return solved
        price = solved
    return price


def fill_brackets(table: Brackets, rows: tuple[tuple[float, float, float], ...]) -> Brackets:
    """Write (floor, rate, amount) rows into ``table`` and return it."""
    table.n_brackets = len(rows)
    for i, row in enumerate(rows):
        table.brackets[i].floor, table.brackets[i].rate, table.brackets[i].amount = row
    return table


_DEFAULT_TABLE: Final = fill_brackets(zeros(Brackets), DEFAULT_BRACKETS)


def get_margin_tier(notional: float) -> tuple[float, float]:
    """Return (maintenance rate, maintenance amount in quote) of the default brackets."""
    row = DEFAULT_BRACKETS[int(margin_bracket(_DEFAULT_TABLE, float(notional)))]
    return row[1], row[2]


def calculate_maintenance_margin(notional: float) -> float:
    """Return the maintenance margin of ``notional`` under the default brackets, quote units."""
    return float(maintenance_margin(_DEFAULT_TABLE, float(notional)))


def calculate_liquidation_price(
    entry_price: float,
    position_size: float,
    wallet_balance: float,
    side: int,
    leverage: float = 1.0,
) -> float:
    """Return the liquidation price of one cross-margined position, 0.0 if there is none.

    Binance's formula with the default brackets. ``leverage`` sets only the initial margin, which
    does not enter: it is accepted so that callers can pass a position as the exchange states it.

    Args:
        entry_price: quote.
        position_size: base, its sign is ignored.
        wallet_balance: quote.
        side: 1 for a long, -1 for a short.
        leverage: of the position.
    """
    del leverage
    size = abs(float(position_size))
    if size == 0.0:
        return 0.0
    long_qty, short_qty = (size, 0.0) if side > 0 else (0.0, size)
    cost = entry_price * (long_qty - short_qty)
    bankruptcy = (cost - wallet_balance) / (long_qty - short_qty)  # equity 0: margin is short
    if not bankruptcy > 0.0:
        return 0.0
    return float(
        solve_liquidation_price(
            _DEFAULT_TABLE, float(wallet_balance), cost, long_qty, short_qty, bankruptcy
        )
    )


@kernel
def value_at_risk(exposure: float, sigma: float, horizon_bars: float) -> float:
    """Return the one-sided 95 % value at risk of ``exposure`` over ``horizon_bars``, quote."""
    return exposure * Z_95 * sigma * math.sqrt(horizon_bars)


def calculate_var_95(portfolio_value: float, sigma_15m: float, horizon_bars: float = 1.0) -> float:
    """Return the 95 % value at risk of ``portfolio_value`` with per-bar ``sigma_15m``, quote."""
    return float(value_at_risk(float(portfolio_value), float(sigma_15m), float(horizon_bars)))


def check_var_constraint(
    exposure: float, sigma: float, max_drawdown_pct: float, equity: float, horizon_bars: float = 1.0
) -> bool:
    """Return True when the value at risk of ``exposure`` exceeds the drawdown budget: blocked."""
    at_risk = value_at_risk(float(exposure), float(sigma), float(horizon_bars))
    return bool(at_risk > max_drawdown_pct * equity)


def compute_portfolio_var(
    notionals: npt.ArrayLike,
    sigmas: npt.ArrayLike,
    returns: npt.ArrayLike,
    high_corr_threshold: float = 0.80,
) -> float:
    """Return ``1.65 * sqrt(w' R w)``, the 95 % value at risk of several coins, quote per bar.

    Args:
        notionals: signed net notional per coin, quote, shape (n_coins,).
        sigmas: per-bar volatility per coin, shape (n_coins,).
        returns: one-bar returns, shape (n_bars, n_coins); the last 672 are used.
        high_corr_threshold: correlations above it count as 1.
    """
    weights = np.asarray(notionals, dtype=np.float64) * np.asarray(sigmas, dtype=np.float64)
    recent = np.asarray(returns, dtype=np.float64)[-CORRELATION_BARS:]
    if weights.size == 1:
        return float(Z_95 * abs(weights[0]))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.corrcoef(recent, rowvar=False)
    correlation = np.where(np.isnan(correlation), 0.0, correlation)
    correlation = np.where(correlation > high_corr_threshold, 1.0, correlation)
    np.fill_diagonal(correlation, 1.0)
    return float(Z_95 * math.sqrt(max(0.0, float(weights @ correlation @ weights))))
