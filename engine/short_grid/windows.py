"""Windows over grid steps in constant amortised time: maximum, median, mean, moments."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final

from core.jit import kernel
from core.records import Table
from engine.short_grid.params import MAX_LATCH_S, STEPS_PER_SECOND

Z_WARMUP: Final = 50
"""Values a z-score needs before it is not 0."""
Z_CLIP: Final = 5.0
Z_FLOOR: Final = 1e-9
"""A deviation below this share of the values is rounding noise: the z-score is 0."""

SPREAD_STEPS: Final = 512
"""Grid spreads the median is taken over."""
SPREAD_BIN: Final = 0.25  # bps
SPREAD_BINS: Final = 401  # up to 100 bps; the last one holds all beyond
PEAK_STEPS: Final = 120 * STEPS_PER_SECOND
"""A fall is measured from the peaks of this many steps."""
TOUCH_STEPS: Final = 60 * STEPS_PER_SECOND
_LATCHED: Final = int(MAX_LATCH_S) * STEPS_PER_SECOND + 1


class Moments:
    """Exponentially weighted mean and variance of a series, as they were before its last value."""

    centre: float
    variance: float
    n: int


class LatchWindow:
    """Candidates for the maximum of the last steps: values fall from front to back."""

    head: int
    n: int
    values: Annotated[Table[float], _LATCHED]
    steps: Annotated[Table[int], _LATCHED]


class PeakWindow:
    """The same for mid prices, quote, over ``PEAK_STEPS``."""

    head: int
    n: int
    values: Annotated[Table[float], PEAK_STEPS + 1]
    steps: Annotated[Table[int], PEAK_STEPS + 1]


class SpreadWindow:
    """Histogram of the last grid spreads and where its median lies."""

    n: int
    at: int
    median_bin: int
    below: int  # values in bins below median_bin
    bins: Annotated[Table[int], SPREAD_STEPS]  # of the values, a ring
    counts: Annotated[Table[int], SPREAD_BINS]


class TouchWindow:
    """Sum of the last values, a ring."""

    n: int
    at: int
    total: float
    values: Annotated[Table[float], TOUCH_STEPS]


class WeightedMean:
    """Exponentially weighted mean, every value since the first with its full weight."""

    total: float
    weight: float


@kernel
def score(moments: Moments, value: float, rate: float) -> float:
    """Return the z-score of ``value`` against what was before it, then take it in.

    West (1979): with ``d = x - m``, ``m += a d`` and ``v = (1 - a)(v + a d^2)``.
    """
    if moments.n == 0:
        moments.centre, moments.n = value, 1
        return 0.0
    d = value - moments.centre
    z = 0.0
    size = max(abs(value), abs(moments.centre))
    sd = math.sqrt(moments.variance)
    if moments.n >= Z_WARMUP and sd > Z_FLOOR * size:
        z = min(max(d / sd, -Z_CLIP), Z_CLIP)
    moments.centre += rate * d
    moments.variance = (1.0 - rate) * (moments.variance + rate * d * d)
    moments.n += 1
    return z


@kernel
def take_weighted(mean: WeightedMean, value: float, rate: float) -> None:
    """Take ``value`` into a weighted mean."""
    mean.total = (1.0 - rate) * mean.total + rate * value
    mean.weight = (1.0 - rate) * mean.weight + rate


@kernel
def weighted(mean: WeightedMean) -> float:
    """Return a weighted mean, 0 before its first value."""
    return mean.total / mean.weight if mean.weight > 0.0 else 0.0


@kernel
def push_max(window: Any, value: float, step: int, span: int) -> float:
    """Take ``value`` in and return the maximum of this step and the last ``span`` ones."""
    size = len(window.values)
    while window.n > 0 and window.steps[window.head] < step - span:
        window.head = (window.head + 1) % size
        window.n -= 1
    while window.n > 0 and window.values[(window.head + window.n - 1) % size] <= value:
        window.n -= 1
    back = (window.head + window.n) % size
    window.values[back], window.steps[back] = value, step
    window.n += 1
    return float(window.values[window.head])


@kernel
def deepest_fall(window: PeakWindow, mid: float, step: int, halflife_steps: float) -> float:
    """Return the largest fall from an earlier mid, halved for each half-life since, bps.

    Only the candidates for the maximum can be the start of it: any other mid was followed by one
    that is higher.
    """
    size = len(window.values)
    deepest = 0.0
    for i in range(window.n):
        row = (window.head + i) % size
        fall = (window.values[row] - mid) / window.values[row] * 1e4
        deepest = max(deepest, fall * math.pow(0.5, (step - window.steps[row]) / halflife_steps))
    return deepest


@kernel
def push_spread(window: SpreadWindow, spread: float) -> float:
    """Take a spread (bps) in and return the median of the last ones: the centre of its bin."""
    if window.n == SPREAD_STEPS:
        gone = window.bins[window.at]
        window.counts[gone] -= 1
        if gone < window.median_bin:
            window.below -= 1
    else:
        window.n += 1
    row = int(min(spread / SPREAD_BIN, SPREAD_BINS - 1.0))
    window.bins[window.at] = row
    window.at = (window.at + 1) % SPREAD_STEPS
    window.counts[row] += 1
    if row < window.median_bin:
        window.below += 1
    rank = (window.n - 1) // 2
    while window.below > rank:
        window.median_bin -= 1
        window.below -= window.counts[window.median_bin]
    while window.below + window.counts[window.median_bin] <= rank:
        window.below += window.counts[window.median_bin]
        window.median_bin += 1
    return (window.median_bin + 0.5) * SPREAD_BIN


@kernel
def push_mean(window: TouchWindow, value: float) -> float:
    """Take ``value`` in and return the mean of the last ones.

    The sum is built anew each time the ring has gone round, so rounding cannot add up.
    """
    if window.n == TOUCH_STEPS:
        window.total -= window.values[window.at]
    else:
        window.n += 1
    window.values[window.at] = value
    window.total += value
    window.at = (window.at + 1) % TOUCH_STEPS
    if window.at == 0:
        window.total = 0.0
        for i in range(window.n):
            window.total += window.values[i]
    return window.total / window.n
