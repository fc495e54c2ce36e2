"""Bootstrap of blocks of days: is a mean of daily returns more than chance?

Blocks keep calm and wild days together.

Source: Politis and Romano, "The Stationary Bootstrap", Journal of the American Statistical
Association 89, 1994.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from backtest.optimize.judge.deflated_sharpe import MIN_DAYS, varying_columns

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

REPS: Final = 4_000
_CHUNK: Final = 500
"""Repetitions drawn at a time: bounds memory to 4 kB per day and array."""


def block_days(n_days: int) -> int:
    """Return the mean length of a block, ``n_days^(1/3)``: the rate best for a mean.

    Source: Politis and White, "Automatic Block-Length Selection for the Dependent Bootstrap",
    Econometric Reviews 23(1), 2004.
    """
    return max(1, round(math.cbrt(n_days)))


def gain_p_value(daily: npt.ArrayLike, seed: int, reps: int = REPS) -> float:
    """Return the probability of so high a mean where the true one is 0; NaN: none to tell.

    The days are drawn again in blocks around the end, centred on their mean:
    ``p = (1 + #(mean* - mean >= mean)) / (1 + reps)`` (Davison and Hinkley, "Bootstrap Methods and
    Their Application", 1997, equation 4.11). The days' spread is estimated from the same days,
    as in Student's t: ``mean`` is scaled by ``sqrt((n - 1) / n)`` against flattering short ones.

    Args:
        daily: returns, or differences between two, shape ``(n_days,)``.
        seed: of the draws.
        reps: draws.

    Returns:
        the p value; NaN for fewer than 30 days, a day without a value, or days all alike.
    """
    days = np.array(daily, dtype=np.float64)
    if len(days) < MIN_DAYS or not varying_columns(days[:, None])[0]:
        return math.nan
    mean = float(days.mean()) * math.sqrt((len(days) - 1) / len(days))
    centred = days - days.mean()
    rng = np.random.default_rng(seed)
    at_least = 0
    for start in range(0, reps, _CHUNK):
        places = stationary_places(len(days), min(_CHUNK, reps - start), rng)
        at_least += int(np.count_nonzero(centred[places].mean(axis=1) >= mean))
    return (1 + at_least) / (1 + reps)


def stationary_places(n_days: int, reps: int, rng: np.random.Generator) -> Ints:
    """Return which day is drawn for each place, shape ``(reps, n_days)``.

    A block ends after each day with the probability ``1 / block_days``; the next begins anywhere.
    """
    shape = (reps, n_days)
    begins = rng.random(shape) < 1.0 / block_days(n_days)
    begins[:, 0] = True
    place = np.arange(n_days)
    first = np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    starts = np.take_along_axis(rng.integers(n_days, size=shape), first, axis=1)
    drawn: Ints = (starts + place - first) % n_days
    return drawn
