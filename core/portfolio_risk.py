"""How far several coins may fill their entries before the portfolio's value at risk is spent.

Let coin ``c`` have the net notional ``n_c`` (quote, signed), the volatility ``sigma_c`` per bar and
room for entries ``L_c`` (long) and ``S_c`` (short), quote. If every side may fill up to the share
``x`` of its room, the net notional ends anywhere between ``n_c - x*S_c`` and ``n_c + x*L_c``, so

    a_c(x) = sigma_c * max(|n_c + x*L_c|, |n_c - x*S_c|)
    U(x) = 1.65 * sqrt(h) * sqrt(a(x)' |R| a(x))

is at least the value at risk after any subset of such fills: every weight is at most ``a_c`` in
size, and every term of ``w' R w`` at most the same term of ``a' |R| a``. ``U`` does not fall with
``x``, so the largest allowed share is found by bisection.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from core.jit import kernel
from core.risk import CORRELATION_BARS, Z_95

Floats = npt.NDArray[np.float64]

HALVINGS: Final = 60
"""Steps of the bisection: the share is known to 1e-18."""
LEAST_RETURNS: Final = 2
"""A correlation needs as many."""


@kernel
def largest_value_at_risk(
    share: float,
    net: Floats,
    sigma: Floats,
    long_room: Floats,
    short_room: Floats,
    correlation: Floats,
    horizon_bars: float,
) -> float:
    """Return ``U(share)``, quote: no fills within ``share`` of the rooms have more at risk.

    Args:
        share: of every side's room that may fill, 0 to 1.
        net: long minus short notional, quote, shape (n_coins,).
        sigma: volatility of one bar's return, shape (n_coins,).
        long_room: notional that long entries may still have, quote, >= 0, shape (n_coins,).
        short_room: the same of short entries.
        correlation: ``R``, shape (n_coins, n_coins); read by its sizes.
        horizon_bars: bars the value at risk looks ahead.
    """
    total = 0.0
    for i in range(len(net)):
        weight = sigma[i] * max(
            abs(net[i] + share * long_room[i]), abs(net[i] - share * short_room[i])
        )
        for j in range(i + 1):
            other = sigma[j] * max(
                abs(net[j] + share * long_room[j]), abs(net[j] - share * short_room[j])
            )
            term = weight * other * abs(correlation[i, j])
            total += term if i == j else 2.0 * term
    return Z_95 * math.sqrt(horizon_bars) * math.sqrt(total)


@kernel
def _are_finite(
    net: Floats,
    sigma: Floats,
    long_room: Floats,
    short_room: Floats,
    correlation: Floats,
    horizon_bars: float,
    budget: float,
) -> bool:
    """Return whether every number is finite, and rooms, volatility and budget are not negative."""
    if not (0.0 <= budget < math.inf and 0.0 <= horizon_bars < math.inf):
        return False
    for i in range(len(net)):
        if not (
            math.isfinite(net[i])
            and 0.0 <= sigma[i] < math.inf
            and 0.0 <= long_room[i] < math.inf
            and 0.0 <= short_room[i] < math.inf
        ):
            return False
        for j in range(len(net)):
            if not math.isfinite(correlation[i, j]):
                return False
    return True


@kernel
def allowed_share(
    net: Floats,
    sigma: Floats,
    long_room: Floats,
    short_room: Floats,
    correlation: Floats,
    horizon_bars: float,
    budget: float,
) -> float:
    """Return lambda: the largest share of their rooms that the coins may fill within ``budget``.

    1 where all may fill; 0 where what is held already has more at risk, and where a number is not
    finite or a room negative: on doubt no entries. Arguments as of ``largest_value_at_risk``;
    ``budget`` in quote.
    """
    if not _are_finite(net, sigma, long_room, short_room, correlation, horizon_bars, budget):
        return 0.0
    everything = largest_value_at_risk(
        1.0, net, sigma, long_room, short_room, correlation, horizon_bars
    )
    if everything <= budget:
        return 1.0
    nothing = largest_value_at_risk(
        0.0, net, sigma, long_room, short_room, correlation, horizon_bars
    )
    if nothing > budget:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        if (
            largest_value_at_risk(
                middle, net, sigma, long_room, short_room, correlation, horizon_bars
            )
            <= budget
        ):
            low = middle
        else:
            high = middle
    return low


@kernel
def correlation_matrix(returns: Floats, high_corr_threshold: float, into: Floats) -> None:
    """Write the correlations of the coins' returns, those above the threshold as 1.

    A coin whose price stood still has correlation 0 with every other; coins that have not met often
    enough for a correlation count as moving together.

    Args:
        returns: one-bar returns, shape (n_coins, n_bars); the last 672 bars are used.
        high_corr_threshold: a correlation above it counts as 1.
        into: written, shape (n_coins, n_coins).
    """
    n_coins, n_bars = returns.shape
    begin = max(0, n_bars - CORRELATION_BARS)
    used = n_bars - begin
    mean, size = np.zeros(n_coins), np.zeros(n_coins)
    for i in range(n_coins):
        for k in range(begin, n_bars):
            mean[i] += returns[i, k]
        mean[i] /= max(used, 1)
        for k in range(begin, n_bars):
            size[i] += (returns[i, k] - mean[i]) * (returns[i, k] - mean[i])
    for i in range(n_coins):
        into[i, i] = 1.0
        for j in range(i):
            shared = 0.0
            for k in range(begin, n_bars):
                shared += (returns[i, k] - mean[i]) * (returns[j, k] - mean[j])
            spread = math.sqrt(size[i]) * math.sqrt(size[j])
            found = 0.0 if spread == 0.0 else shared / spread
            if used < LEAST_RETURNS or not found <= high_corr_threshold:  # also where not a number
                found = 1.0
            into[i, j], into[j, i] = found, found
