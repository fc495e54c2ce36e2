"""Drawdowns of an equity curve: from a peak, over the trough, until the peak is reached again."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest.market.timeframes import format_time
from core.times import DAY_MS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LISTED: Final = 5


def drawdown_facts(equity: Floats, initial: float, timestamps: Ints, bar_ms: int) -> dict[str, Any]:
    """Return the drawdowns that matter, JSON-ready.

    Args:
        equity: at every close, quote, shape (n_bars,).
        initial: before the first bar, quote; the first peak.
        timestamps: open times of the bars, ms UTC, shape (n_bars,).
        bar_ms: length of a bar, ms.

    Returns:
        ``count``; ``longest`` (by time; None if equity never fell) and ``deepest``, the
        ``LISTED`` deepest, deepest first. Each: ``peak_at trough_at recovered_at`` (UTC text at
        closes; recovered_at None if it never did), ``depth_pct`` (of the peak), ``depth`` (quote),
        ``bars`` and ``days`` from the peak until recovery or the end.
    """
    closes = np.concatenate((timestamps[:1], timestamps + bar_ms))
    curve = np.concatenate(([initial], equity))
    peak = np.maximum.accumulate(curve)
    below = np.concatenate(([False], curve < peak, [False]))
    edges = np.diff(below.astype(np.int8))
    # below is shifted by one, so a run's rows in curve are [starts, ends).
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if starts.size == 0:
        return {"count": 0, "longest": None, "deepest": []}
    fall = 1.0 - curve / peak
    depths = np.maximum.reduceat(fall, starts)  # rows between two runs are 0
    lengths = closes[np.minimum(ends, len(curve) - 1)] - closes[starts - 1]

    def describe(k: int) -> dict[str, Any]:
        first, end = int(starts[k]), int(ends[k])
        trough = first + int(np.argmax(fall[first:end]))
        return {
            "peak_at": format_time(int(closes[first - 1])),
            "trough_at": format_time(int(closes[trough])),
            "recovered_at": format_time(int(closes[end])) if end < len(curve) else None,
            "depth_pct": 100.0 * float(fall[trough]),
            "depth": float(peak[trough] - curve[trough]),
            "bars": min(end, len(curve) - 1) - (first - 1),
            "days": int(lengths[k]) / DAY_MS,
        }

    deepest = np.argsort(-depths, kind="stable")[:LISTED]
    return {
        "count": int(starts.size),
        "longest": describe(int(np.argmax(lengths))),
        "deepest": [describe(int(k)) for k in deepest],
    }
