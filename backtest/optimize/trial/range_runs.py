"""Backtests of a range, on the data of a search, on its holdout or on made-up candles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.market.coin_data import CoinData
from backtest.market.timeframes import format_time
from backtest.runs.strategies import Backtested
from backtest.runs.variants import cut_window
from core.errors import DataError
from core.frames import check_candles


@dataclass(frozen=True, eq=False)
class RangeRun:
    """One run of one coin over a range.

    Attributes:
        times_ms: open times of the traded bars, ms UTC, shape (n_bars,).
        equity_curve: quote, at their closes; at the last one all is closed, shape (n_bars,).
        metrics: as the strategy's ``run`` answers them.
    """

    times_ms: npt.NDArray[np.int64]
    equity_curve: npt.NDArray[np.float64]
    metrics: dict[str, Any]

    def equity_at(self, times_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the equity at the closes of the bars that opened at ``times_ms``, quote.

        A bar that is missing counts as part of the candle that stands for it.
        """
        rows = np.searchsorted(self.times_ms, times_ms, "right") - 1
        found: npt.NDArray[np.float64] = self.equity_curve[rows]
        return found


def run_range(
    data: CoinData,
    how: Backtested,
    params: Any,
    start_ms: int | None = None,
    end_ms: int | None = None,
) -> RangeRun:
    """Return the backtest of ``[start_ms, end_ms)`` of one coin.

    Args:
        data: what may be read; all bars before the range warm it up.
        how: the strategy is backtested.
        params: of the run.
        start_ms: open of the first bar traded, ms UTC; None: where ``data`` begins to trade.
        end_ms: exclusive; None: to the end of ``data``.

    Raises:
        DataError: there are no bars in the range, or they cannot be used.
    """
    bar_ms, times = data.market.bar_ms, data.market.candles["timestamp"].to_numpy()
    if start_ms is None:
        start_ms = int(times[data.first_bar])
    if end_ms is None:
        end_ms = int(times[-1]) + bar_ms
    first, last = np.searchsorted(times, (start_ms, end_ms))
    if first >= last:
        raise DataError(
            f"{data.market.coin}: no candles from {format_time(start_ms)} to "
            f"{format_time(end_ms)}; there are some from {format_time(int(times[0]))} to "
            f"{format_time(int(times[-1]) + bar_ms)}"
        )
    before = (start_ms - int(times[0])) // bar_ms
    cut = cut_window(data.market, data.rules, start_ms, end_ms, max(before, 0))
    variants = how.variants(cut, params)
    outcome = variants.run(params, variants.sub_bars(cut.market.detail))
    walked = variants.times_ms
    traded = slice(int(np.searchsorted(walked, start_ms)), None)
    return RangeRun(walked[traded], outcome.equity_curve[traded], outcome.metrics)


def with_candles(data: CoinData, candles: pd.DataFrame) -> CoinData:
    """Return ``data`` with other candles at the same times, and no finer ones inside them.

    Raises:
        DataError: the candles cannot be used, or their times differ.
    """
    check_candles(candles, f"{data.market.coin}: replaced candles", data.market.bar_ms)
    old, new = (frame["timestamp"].to_numpy() for frame in (data.market.candles, candles))
    if not np.array_equal(old, new):
        raise DataError(
            f"{data.market.coin}: the {len(new)} replaced candles must open at the times of the "
            f"{len(old)} they replace"
        )
    return replace(data, market=replace(data.market, candles=candles, detail=None))
