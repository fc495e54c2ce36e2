"""A1, A15.9, A15.19: which candles are walked, and which of them begin a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

QUARTER_MS = 900_000


@dataclass(frozen=True)
class Bar:
    """A candle that is walked; ``row`` is its first row in the input, -1 if it has none."""

    ts_ms: int
    open: float
    high: float
    low: float
    close: float
    begins_step: bool
    row: int
    is_hole: bool = False


Row = tuple[int, float, float, float, float]
"""Open time in ms, open, high, low, close."""


def read_rows(candles: Sequence[Sequence[Any]]) -> list[Row]:
    """Return rows of the columns timestamp, open, high, low, close (volume is not read).

    Raises:
        ValueError: no row, columns of different lengths, times not rising, a price not finite or
            not above 0, a high or low inside the body.
    """
    columns = [c.tolist() if hasattr(c, "tolist") else list(c) for c in candles[:5]]
    if len(columns) < 5 or len({len(c) for c in columns}) != 1 or not columns[0]:
        raise ValueError("candles must be columns of one length: timestamp, open, high, low, close")
    rows: list[Row] = [
        (int(t), float(o), float(h), float(low), float(c))
        for t, o, h, low, c in zip(*columns, strict=True)
    ]
    for before, after in pairwise(rows):
        if after[0] <= before[0]:
            raise ValueError(f"candle times must rise: {after[0]} follows {before[0]}")
    for ts, o, h, low, c in rows:
        if not all(math.isfinite(x) and x > 0.0 for x in (o, h, low, c)):
            raise ValueError(f"candle {ts}: prices must be finite and above 0")
        if h < max(o, c) or low > min(o, c):
            raise ValueError(f"candle {ts}: open and close must lie between low and high")
    return rows


def candle_length(rows: Sequence[Row], step_s: int) -> int:
    """Return the candles' length in seconds: the least distance of two, a step if there is one row.

    Raises:
        ValueError: longer than a step, or no divisor of it, or opens off its own grid.
    """
    length_ms = min((b[0] - a[0] for a, b in pairwise(rows)), default=step_s * 1000)
    if length_ms > step_s * 1000:
        raise ValueError(
            f"candles of {length_ms // 1000} s are coarser than step_s = {step_s}; "
            "candles of 15 minutes need step_s=900"
        )
    if (step_s * 1000) % length_ms or any(row[0] % length_ms for row in rows):
        raise ValueError(f"candles of {length_ms} ms do not fit into steps of {step_s} s")
    return length_ms // 1000


def walked_bars(
    rows: Sequence[Row], length_s: int, step_s: int, quarters: Sequence[Row] = ()
) -> list[Bar]:
    """Return the candles to walk, in order of time.

    A 15-minute interval whose candles are not all there becomes one candle with one step at its
    open: its own of ``quarters``, else the one that its rows make. An interval with neither is not
    walked. The first and the last interval are no exception.
    """
    of_interval: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        of_interval.setdefault(row[0] // QUARTER_MS, []).append(i)
    own = {row[0] // QUARTER_MS: row for row in quarters}
    first, last = rows[0][0] // QUARTER_MS, rows[-1][0] // QUARTER_MS
    between = {interval for interval in own if first <= interval <= last}
    bars: list[Bar] = []
    for interval in sorted(of_interval.keys() | between):
        indices = of_interval.get(interval, [])
        if len(indices) * length_s * 1000 == QUARTER_MS:
            bars.extend(
                Bar(*rows[i], begins_step=rows[i][0] % (step_s * 1000) == 0, row=i) for i in indices
            )
            continue
        _, o, h, low, c = own.get(interval) or merged([rows[i] for i in indices])
        start = interval * QUARTER_MS
        place = indices[0] if indices else -1
        bars.append(Bar(start, o, h, low, c, begins_step=True, row=place, is_hole=True))
    return bars


def merged(rows: Sequence[Row]) -> Row:
    """Return the one candle that ``rows`` make."""
    high, low = max(row[2] for row in rows), min(row[3] for row in rows)
    return (rows[0][0], rows[0][1], high, low, rows[-1][4])
