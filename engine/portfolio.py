"""Several strategies on one account: their publications at a step, and what entries may have."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from core.jit import kernel
from core.portfolio_risk import PairWindow, allowed_share, write_correlation
from core.records import Table
from core.risk import Z_95

Floats = npt.NDArray[np.float64]

LONE: Final = 1
"""So many strategies are no portfolio: nothing bounds them together."""


class Publication:
    """A strategy as the portfolio sees it after ``protect``, in quote at its price."""

    net: float  # notional, long minus short
    sigma: float  # of one bar's return
    long_room: float  # notional that long entries may still have, >= 0
    short_room: float
    equity: float


class PortfolioRisk:
    """How much all strategies together may have at risk."""

    enabled: bool
    drawdown_pct: float  # of the sum of equity
    horizon_bars: float
    high_corr_threshold: float


class PortfolioStep:
    """The decision of the portfolio at one step."""

    share: float  # lambda: of every side's room, what entries may use
    budget: float  # quote


@kernel
def assume_filled(published: Publication, long_resting: float, short_resting: float) -> None:
    """Let a strategy that does not step count with all its resting entries (quote) filled.

    Its net notional becomes the largest in size that these fills can make of it, and its room 0:
    what rests may fill whatever the others do.
    """
    bought, sold = published.net + long_resting, published.net - short_resting
    published.net = bought if abs(bought) >= abs(sold) else sold
    published.long_room, published.short_room = 0.0, 0.0


@kernel
def share_of_room(
    published: Table[Publication],
    windows: Table[PairWindow],
    risk: PortfolioRisk,
    rows: Floats,
    correlation: Floats,
    step: PortfolioStep,
) -> None:
    """Decide what share of its room every strategy may use for entries.

    Args:
        published: the newest publication of each strategy.
        windows: of all pairs, moved on to the last closed bar.
        risk: the budget.
        rows: scratch, shape (4, n_strategies).
        correlation: scratch, shape (n_strategies, n_strategies).
        step: written.
    """
    equity, sum_of_all, sum_of_numbers = 0.0, 0.0, 0.0
    for c in range(len(published)):
        x = published[c]
        rows[0, c], rows[1, c] = x.net, x.sigma
        rows[2, c], rows[3, c] = x.long_room, x.short_room
        equity += x.equity
        sum_of_numbers += x.net + x.sigma + x.long_room + x.short_room
        sum_of_all += x.sigma * max(abs(x.net + x.long_room), abs(x.net - x.short_room))
    step.budget, step.share = risk.drawdown_pct * equity, 1.0
    if not risk.enabled or len(published) <= LONE:
        return
    # No correlation makes more of the coins than their sum: mostly that is within the budget.
    most = Z_95 * math.sqrt(risk.horizon_bars) * sum_of_all
    if math.isfinite(sum_of_numbers) and most <= step.budget < math.inf:
        return
    write_correlation(windows, risk.high_corr_threshold, correlation)
    step.share = allowed_share(
        rows[0], rows[1], rows[2], rows[3], correlation, risk.horizon_bars, step.budget
    )
