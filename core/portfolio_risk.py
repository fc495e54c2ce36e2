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
from core.records import Table, zeros_table
from core.risk import CORRELATION_BARS, Z_95

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HALVINGS: Final = 60
"""Steps of the bisection: the share is known to 1e-18."""
LEAST_RETURNS: Final = 2
"""A correlation needs as many."""
UNIT: Final = 1e-7
"""Unit of a return in the windows: far below any tick, and 672 squares of returns fit."""
LARGEST_RETURN: Final = 2.0
"""A larger one counts as this."""
NO_RETURN: Final = -(2**62)
"""The return of a bar that a coin does not have, or whose bar before it does not."""


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


class PairWindow:
    """Sums over the last 672 bars that a pair of coins have both: exact, as they are integers.

    So a window that was moved over years of candles and one that was filled a moment ago hold the
    same numbers, and a backtest and a live session the same correlation.
    """

    first: int  # coin
    second: int  # coin
    count: int  # bars
    oldest: int  # no bar before it is in the window
    sum_first: int
    sum_second: int
    square_first: int
    square_second: int
    product: int


def whole_returns(returns: npt.ArrayLike) -> Ints:
    """Return one-bar returns in units of 1e-7, within +-2; ``NO_RETURN`` where not a number."""
    given = np.asarray(returns, dtype=np.float64)
    known = np.isfinite(given)
    whole = np.rint(np.clip(np.where(known, given, 0.0), -LARGEST_RETURN, LARGEST_RETURN) / UNIT)
    return np.where(known, whole.astype(np.int64), NO_RETURN)


def pair_windows(n_coins: int) -> Table[PairWindow]:
    """Return an empty window for each pair of coins."""
    pairs = [(i, j) for i in range(n_coins) for j in range(i)]
    windows = zeros_table(PairWindow, len(pairs))
    for k, (first, second) in enumerate(pairs):
        windows[k].first, windows[k].second = first, second
    return windows


@kernel
def _count_bar(window: PairWindow, first: int, second: int, sign: int) -> None:
    window.count += sign
    window.sum_first += sign * first
    window.sum_second += sign * second
    window.square_first += sign * first * first
    window.square_second += sign * second * second
    window.product += sign * first * second


@kernel
def add_bar(windows: Table[PairWindow], returns: Ints, bar: int) -> None:
    """Move every pair's window on to ``bar``, the one after the bar that was added last.

    Args:
        windows: of all pairs.
        returns: in whole units, shape (n_coins, n_bars).
        bar: that has closed.
    """
    for k in range(len(windows)):
        window = windows[k]
        first, second = returns[window.first, bar], returns[window.second, bar]
        if NO_RETURN in (first, second):
            continue
        _count_bar(window, first, second, 1)
        while window.count > CORRELATION_BARS:
            oldest = window.oldest
            first, second = returns[window.first, oldest], returns[window.second, oldest]
            if NO_RETURN not in (first, second):
                _count_bar(window, first, second, -1)
            window.oldest = oldest + 1


@kernel
def write_correlation(
    windows: Table[PairWindow], high_corr_threshold: float, correlation: Floats
) -> None:
    """Write the matrix of the pairs' correlations, those above the threshold as 1.

    A coin whose price stood still has correlation 0 with every other. Coins that have met less
    than twice count as moving together.

    Args:
        windows: of all pairs.
        high_corr_threshold: a correlation above it counts as 1.
        correlation: written, shape (n_coins, n_coins).
    """
    for i in range(len(correlation)):
        correlation[i, i] = 1.0
    for k in range(len(windows)):
        window = windows[k]
        n = float(window.count)
        first, second = float(window.sum_first), float(window.sum_second)
        spread = math.sqrt(max(0.0, n * float(window.square_first) - first * first)) * math.sqrt(
            max(0.0, n * float(window.square_second) - second * second)
        )
        found = 0.0
        if spread > 0.0:
            found = (n * float(window.product) - first * second) / spread
        if window.count < LEAST_RETURNS or found > high_corr_threshold:
            found = 1.0
        correlation[window.first, window.second] = found
        correlation[window.second, window.first] = found
