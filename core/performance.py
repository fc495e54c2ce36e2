"""Performance figures of an equity curve. A ratio without a denominator is NaN."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MIN_RETURNS: Final = 2
"""A standard deviation needs as many."""
BARS_PER_YEAR: Final = 96 * 365
"""15-minute bars; the market never closes."""


def ratio(numerator: float, denominator: float) -> float:
    """Return the quotient, NaN where the denominator is 0."""
    return numerator / denominator if denominator != 0.0 else math.nan


def bar_returns(equity: Floats, initial: float) -> Floats:
    """Return the per-bar returns of ``equity``, the first against ``initial``; (n_bars,)."""
    before = np.concatenate(([initial], equity[:-1]))
    return np.divide(equity, before, out=np.ones_like(equity), where=before > 0.0) - 1.0


def up_to_ruin(equity: Floats) -> Floats:
    """Return ``equity`` up to the first bar at which nothing is left, that bar included."""
    ruined = np.flatnonzero(equity <= 0.0)
    return equity[: int(ruined[0]) + 1] if ruined.size else equity


def drawdown_curve(equity: Floats, initial: float) -> Floats:
    """Return the fall from the highest equity so far, as a share of it in [0, 1]; (n_bars,)."""
    peak = np.maximum.accumulate(np.concatenate(([initial], equity)))[1:]
    return 1.0 - equity / peak


def sharpe_ratio(returns: Floats, bars_per_year: float = BARS_PER_YEAR) -> float:
    """Return mean over sample standard deviation (ddof 1), annualised (Sharpe 1994)."""
    if returns.size < MIN_RETURNS:
        return math.nan
    deviation = float(np.std(returns, ddof=1))
    return ratio(float(np.mean(returns)), deviation) * math.sqrt(bars_per_year)


def sortino_ratio(returns: Floats, bars_per_year: float = BARS_PER_YEAR) -> float:
    """Return mean over the root mean square of negative returns over all bars, annualised."""
    if returns.size < MIN_RETURNS:
        return math.nan
    downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    return ratio(float(np.mean(returns)), downside) * math.sqrt(bars_per_year)


def annual_return_pct(growth: float, years: float) -> float:
    """Return ``(growth^(1 / years) - 1)`` in percent: CAGR; NaN where it is beyond any number."""
    try:
        return (math.pow(max(growth, 0.0), 1.0 / years) - 1.0) * 100.0
    except OverflowError:
        return math.nan


def equity_metrics(
    equity: Floats, initial: float, bars_per_year: float = BARS_PER_YEAR
) -> dict[str, float]:
    """Return total return, drawdown, Sharpe, Sortino and Calmar of ``equity``, (n_bars,).

    Calmar is total return over maximum drawdown, both of the whole run, so longer runs have larger
    ones; ``calmar_annual_ratio`` has the return a year (CAGR) instead and compares runs of any
    length. After ruin nothing moves
    any more: Sharpe and Sortino are over the bars up to it.
    """
    if equity.size == 0:
        equity = np.array([initial])
    returns = bar_returns(up_to_ruin(equity), initial)
    total = (float(equity[-1]) / initial - 1.0) * 100.0
    fall = float(drawdown_curve(equity, initial).max()) * 100.0
    cagr = annual_return_pct(float(equity[-1]) / initial, equity.size / bars_per_year)
    return {
        "total_return_pct": total,
        "max_drawdown_pct": fall,
        "sharpe_ratio": sharpe_ratio(returns, bars_per_year),
        "sortino_ratio": sortino_ratio(returns, bars_per_year),
        "calmar_ratio": ratio(total, fall),
        "cagr_pct": cagr,
        "calmar_annual_ratio": ratio(cagr, fall),
        "final_capital": float(equity[-1]),
    }
