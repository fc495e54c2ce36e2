"""Recorded candles: what they made known of volatility, and when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from backtest.ticks.files import Columns, Events, new_events
from core.recording import MS_NS, UNKNOWN, EventKind
from engine.short_grid.params import ShortGridParams
from engine.short_grid.volatility import TIMEFRAMES_S, candle_deviation

_HOUR_MS: Final = 3_600_000


def deviation_events(
    files: Iterable[Columns], symbol: int, shift_ns: int, params: ShortGridParams
) -> tuple[Events, int]:
    """Return one event for every answered request, and the number of candles left out.

    A candle counts from the answer that brought it, and only if it was closed by then.

    Args:
        files: columns of ``core.recording.CANDLES`` of one symbol.
        symbol: its index.
        shift_ns: taken off the recorder's clock.
        params: lookbacks.
    """
    parts = list(files)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["local_ns"], kind="stable")
    columns = {name: values[order] for name, values in columns.items()}
    times = columns["local_ns"] - shift_ns
    answers = np.unique(times)
    closed_ms = columns["open_ms"] + columns["timeframe_s"] * 1_000
    usable = (closed_ms * MS_NS <= times) & np.isfinite(columns["close"]) & (columns["close"] > 0)
    lookback_h = (params.vol_lookback_1m_h, params.vol_lookback_5m_h, params.vol_lookback_15m_h)
    events = new_events(len(answers))
    events["t_ns"], events["kind"], events["symbol"] = answers, EventKind.REPLY, symbol
    events["seq"] = events["transaction_ms"] = events["event_ms"] = UNKNOWN
    for timeframe_s, hours, field in zip(
        TIMEFRAMES_S, lookback_h, ("price", "qty", "rate"), strict=True
    ):
        chosen = usable & (columns["timeframe_s"] == timeframe_s)
        known: dict[int, float] = {}
        open_ms, close = columns["open_ms"][chosen], columns["close"][chosen]
        ends = np.searchsorted(times[chosen], answers, side="right")
        begin = 0
        for row, (end, now) in enumerate(zip(ends, answers, strict=True)):
            known.update(zip(open_ms[begin:end].tolist(), close[begin:end].tolist(), strict=True))
            begin = end
            oldest = int(now) // MS_NS - int(hours * _HOUR_MS)
            known = {at: price for at, price in known.items() if at >= oldest}
            if known:
                ordered = sorted(known.items())
                events[field][row] = candle_deviation(
                    np.array([at for at, _ in ordered]),
                    np.array([price for _, price in ordered]),
                    timeframe_s,
                )
    return events, int((~usable).sum())
