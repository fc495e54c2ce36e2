"""The sum of floats without rounding on the way.

Shewchuk 1997, "Adaptive Precision Floating-Point Arithmetic": partial sums that do not overlap, by
rising size, hold the sum exactly. As ``math.fsum``, for compiled code.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.jit import kernel

Floats = npt.NDArray[np.float64]


@kernel
def exact_sum(values: Floats) -> float:
    """Return the double nearest to the exact sum of ``values``, (n,), finite; 0 of none.

    A running sum with what rounding took from it (Knuth's TwoSum, exact) settles nearly every case:
    where the bounds of its error round to one double, that is it. A sum beyond the largest double
    is not finite.
    """
    total, lost, slack = 0.0, 0.0, 0.0
    for value in values:
        moved = total + value
        shift = moved - total
        error = (total - (moved - shift)) + (value - shift)
        lost += error
        slack += abs(error)
        total = moved
    bound = slack * values.size * 2.0**-52  # of the error of ``lost``: Higham 2002, 4.2
    least, most = total + (lost - bound), total + (lost + bound)
    if least == most:
        return least + 0.0  # a negative zero is none
    return sum_of_partials(values)


@kernel
def sum_of_partials(values: Floats) -> float:
    """Return what ``exact_sum`` does, by Shewchuk's partial sums."""
    partials = np.empty(values.size + 1)
    count = 0
    for value in values:
        count = add_exactly(partials, count, value)
    return nearest_double(partials, count)


@kernel
def add_exactly(partials: Floats, count: int, value: float) -> int:
    """Add ``value`` to the first ``count`` of ``partials`` and return how many there are now."""
    total = value
    kept = 0
    for k in range(count):
        other = partials[k]
        if abs(total) < abs(other):
            total, other = other, total
        rounded = total + other
        lost = other - (rounded - total)
        if lost != 0.0:
            partials[kept] = lost
            kept += 1
        total = rounded
    if total != 0.0:
        partials[kept] = total
        kept += 1
    return kept


@kernel
def nearest_double(partials: Floats, count: int) -> float:
    """Return the double nearest to the sum of the first ``count`` of ``partials``, ties to even."""
    if count == 0:
        return 0.0
    row = count - 1
    rounded = float(partials[row])
    lost = 0.0
    while row > 0 and lost == 0.0:
        row -= 1
        before = rounded
        rounded = before + float(partials[row])
        lost = float(partials[row]) - (rounded - before)
    if row > 0 and (lost < 0.0) == (partials[row - 1] < 0.0):  # what lies below decides a tie
        twice = 2.0 * lost
        other = rounded + twice
        if other - rounded == twice:
            return other
    return rounded
