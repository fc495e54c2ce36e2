"""Order scale from the record of closed fills: a fraction of Kelly's bet."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.jit import kernel


@kernel
def kelly_scale(
    wins: int, losses: int, sum_wins: float, sum_losses: float, fraction: float, minimum: float
) -> float:
    """Return ``clip(fraction * K, minimum, 1)`` with ``K = W/avg_loss - (1-W)/avg_win``.

    Args:
        wins: number of returns above 0.
        losses: number of the others.
        sum_wins: sum of the winning returns.
        sum_losses: sum of the losing returns' sizes, not negative.
        fraction: share of the full bet.
        minimum: smallest scale.
    """
    if sum_losses <= 0.0:
        return 1.0
    if wins == 0:
        return minimum
    win_rate = wins / (wins + losses)
    bet = win_rate / (sum_losses / losses) - (1.0 - win_rate) / (sum_wins / wins)
    return min(1.0, max(minimum, fraction * bet))


def calculate_kelly_fraction(
    returns: npt.ArrayLike,
    kelly_fraction: float = 0.25,
    kelly_min: float = 0.25,
    min_trades: int = 20,
    default: float = 0.5,
) -> float:
    """Return the order scale for the net ``returns`` of closed fills, shape (n_fills,).

    ``default`` is returned while there are fewer than ``min_trades``.
    """
    values = np.asarray(returns, dtype=np.float64)
    if values.size < min_trades:
        return default
    won, lost = values[values > 0.0], values[values <= 0.0]
    if values.size == 0 or lost.size == 0:
        return 1.0
    return float(
        kelly_scale(
            won.size, lost.size, float(won.sum()), float(-lost.sum()), kelly_fraction, kelly_min
        )
    )
