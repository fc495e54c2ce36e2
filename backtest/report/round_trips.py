"""Round trips of a run: every entry with all its closes, how long it was held, what it earned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from core.performance import ratio
from core.times import HOUR_MS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Trade = Mapping[str, Any]

ENTRY_LABELS: Final = ("BUY_OPEN_LONG", "SELL_OPEN_SHORT")
HOLDING_EDGES_HOURS: Final = (0.0, 0.25, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0, 48.0, 72.0, 168.0)
"""Bins of holding times; the last one has no end."""

_QUANTILES: Final = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
_PROFIT_BINS: Final = 30
_LEAST_WIDTH: Final = 1e-9
"""Of a bin, quote; profits all nearer to each other than this share one."""
_TAIL: Final = 0.005
"""Share of profits at each end that goes into the outermost bins, so that one does not flatten all
others."""
_QTY_SLACK: Final = 1e-9
"""Share of the entry by which floating point may miss a full close."""


@dataclass(frozen=True)
class RoundTrips:
    """Entries and what became of them, in the order of entry; every array has shape (n_trips,).

    Attributes:
        direction: LONG or SHORT.
        regime: name, when entered.
        exit_label: of the last close, empty while open.
        entry_ms: open of the entry's bar, ms UTC.
        exit_bar: bar of the last close.
        holding_ms: from the entry's bar to the last close's bar.
        price: of the entry, quote.
        notional: of the entry, quote.
        net: gross profit minus all fees, the entry's included, without funding, quote.
        closed: nothing of it is open any more.
    """

    direction: npt.NDArray[np.str_]
    regime: npt.NDArray[np.str_]
    exit_label: npt.NDArray[np.str_]
    entry_ms: Ints
    entry_bar: Ints
    exit_bar: Ints
    holding_ms: Ints
    price: Floats
    notional: Floats
    net: Floats
    closed: npt.NDArray[np.bool_]

    def only(self, rows: Any) -> RoundTrips:
        """Return the trips that ``rows`` selects."""
        return RoundTrips(**{name: getattr(self, name)[rows] for name in self.__dict__})


def round_trips(trades: Sequence[Trade]) -> RoundTrips:
    """Return the entries among ``trades`` with their closes, matched by ``fill_id``."""
    entries: dict[int, Trade] = {}
    last: dict[int, Trade] = {}
    net: dict[int, list[float]] = {}
    left: dict[int, float] = {}
    for trade in trades:
        fill = int(trade["fill_id"])
        if trade["label"] in ENTRY_LABELS:
            entries[fill], last[fill], net[fill], left[fill] = trade, trade, [], trade["qty"]
        elif fill in entries:
            last[fill] = trade
            left[fill] -= trade["qty"]
        else:  # no position: the circuit breaker's record
            continue
        net[fill] += [trade["pnl"], -trade["fee"]]
    first = list(entries.values())
    ends = [last[fill] for fill in entries]
    opened = [end is start for start, end in zip(first, ends, strict=True)]
    times = [(start["timestamp"], end["timestamp"]) for start, end in zip(first, ends, strict=True)]
    return RoundTrips(
        direction=np.array([trade["direction"] for trade in first], np.str_),
        regime=np.array([trade["regime"] for trade in first], np.str_),
        exit_label=np.array(
            ["" if still else end["label"] for end, still in zip(ends, opened, strict=True)],
            np.str_,
        ),
        entry_ms=np.array([trade["timestamp"] for trade in first], np.int64),
        entry_bar=np.array([trade["bar"] for trade in first], np.int64),
        exit_bar=np.array([trade["bar"] for trade in ends], np.int64),
        holding_ms=np.array([end - start for start, end in times], np.int64),
        price=np.array([trade["price"] for trade in first], np.float64),
        notional=np.array([trade["price"] * trade["qty"] for trade in first], np.float64),
        net=np.array([math.fsum(net[fill]) for fill in entries], np.float64),
        closed=np.array(
            [left[fill] <= _QTY_SLACK * entries[fill]["qty"] for fill in entries], np.bool_
        ),
    )


def trip_statistics(trips: RoundTrips) -> dict[str, Any]:
    """Return distributions over the closed ones of ``trips``, JSON-ready.

    Returns:
        ``count``; ``holding_hours``, ``net`` (quote) and ``net_pct`` (of the entry's notional),
        each with ``mean min p05 p25 median p75 p95 max`` (NaN where there are no trips) and, but
        for ``net_pct``, a ``histogram`` of ``from to count``; ``by_exit``, ``by_direction`` and
        ``by_entry_regime``, lists of ``key count win_rate_pct net mean_net mean_net_pct
        median_holding_hours``.
    """
    done = trips.only(trips.closed)
    hours = done.holding_ms / HOUR_MS
    return {
        "count": len(done.net),
        "holding_hours": _summary(hours) | {"histogram": holding_histogram(hours)},
        "net": _summary(done.net) | {"histogram": profit_histogram(done.net)},
        "net_pct": _summary(_net_pct(done)),
        "by_exit": _groups(done, done.exit_label),
        "by_direction": _groups(done, done.direction),
        "by_entry_regime": _groups(done, done.regime),
    }


def holding_histogram(hours: Floats) -> list[dict[str, Any]]:
    """Return counts of holding times per bin, shape of ``HOLDING_EDGES_HOURS``."""
    edges = [*HOLDING_EDGES_HOURS, math.inf]
    counts, _ = np.histogram(hours, edges)
    return [
        {"from": low, "to": high if math.isfinite(high) else None, "count": count}
        for low, high, count in zip(edges, edges[1:], counts.tolist(), strict=False)
    ]


def profit_histogram(net: Floats) -> list[dict[str, Any]]:
    """Return counts of profits per bin of a round width; 0 is an edge.

    The outermost bins reach as far as the profits do.
    """
    if net.size == 0:
        return []
    low, high = np.quantile(net, (_TAIL, 1.0 - _TAIL)).tolist()
    low, high = min(low, 0.0), max(high, 0.0)
    width = _round_width((high - low) / _PROFIT_BINS)
    first = min(math.floor(low / width), -1 if net.min() < 0.0 else 0)
    last = max(math.ceil(high / width), 1 if net.max() > 0.0 or first == 0 else 0)
    edges = width * np.arange(first, last + 1)
    edges[0], edges[-1] = min(edges[0], net.min()), max(edges[-1], net.max())
    counts, _ = np.histogram(net, edges)
    return [
        {"from": low, "to": high, "count": count}
        for low, high, count in zip(
            edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True
        )
    ]


def open_fills(trips: RoundTrips, direction: str, n_bars: int) -> Ints:
    """Return how many entries of ``direction`` were open at every close, shape (n_bars,)."""
    own = trips.only(trips.direction == direction)
    opened = np.bincount(own.entry_bar, minlength=n_bars)
    ended = np.bincount(own.exit_bar[own.closed], minlength=n_bars)
    return np.cumsum(opened - ended).astype(np.int64)


def _round_width(width: float) -> float:
    """Return the next of 1, 2, 5, 10, ... times a power of ten that is not below ``width``."""
    if width < _LEAST_WIDTH:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(width))
    return float(next(unit * step for step in (1, 2, 5, 10, 20) if unit * step >= width))


def _summary(values: Floats) -> dict[str, float]:
    if values.size == 0:
        return dict.fromkeys(("mean", "min", *_QUANTILES, "max"), math.nan)
    quantiles = np.quantile(values, list(_QUANTILES.values())).tolist()
    return {
        "mean": float(values.mean()),
        "min": float(values.min()),
        **dict(zip(_QUANTILES, quantiles, strict=True)),
        "max": float(values.max()),
    }


def _net_pct(trips: RoundTrips) -> Floats:
    return 100.0 * trips.net / trips.notional


def _groups(trips: RoundTrips, keys: npt.NDArray[np.str_]) -> list[dict[str, Any]]:
    """Return one row per distinct key, the most frequent first."""
    names, counts = np.unique(keys, return_counts=True)
    rows = []
    for at in np.argsort(-counts, kind="stable").tolist():
        own = trips.only(keys == names[at])
        count = int(counts[at])
        rows.append(
            {
                "key": str(names[at]),
                "count": count,
                "win_rate_pct": ratio(100.0 * int(np.sum(own.net > 0.0)), count),
                "net": math.fsum(own.net.tolist()),
                "mean_net": float(own.net.mean()),
                "mean_net_pct": float(_net_pct(own).mean()),
                "median_holding_hours": float(np.median(own.holding_ms)) / HOUR_MS,
            }
        )
    return rows
