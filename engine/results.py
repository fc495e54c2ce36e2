"""From the engine's tables to what people read: results, trade dicts and metrics."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from core.errors import DataError
from core.market import MarketRules
from core.performance import BARS_PER_YEAR, equity_metrics, ratio
from engine.result_dict import ResultDict, later
from engine.trade_tables import equity_series, trade_dicts, trade_frame
from engine.types import (
    LABEL_NAMES,
    LONG,
    OPEN,
    PRUNE_DEVIANCE,
    PRUNE_VAR_WARNING,
    SHORT,
    TAKE_PROFIT,
    Account,
)

if TYPE_CHECKING:
    import pandas as pd

Records = npt.NDArray[Any]


RUN_KEYS: Final = (
    "equity_curve",
    "trades",
    "regime_log",
    "metrics",
    "log",
    "trade_table",
    "first_bar",
    "funding_source",
    "seconds",
    "bars_per_second",
    "marks",
)
"""Of the public dict, in their order; ``marks`` where the strategy notes them."""


@dataclass(frozen=True, eq=False)
class RunContext:
    """The inputs of a run, for whoever reports on it.

    Attributes:
        strategy: its name.
        params: of the strategy, validated.
        rules: of the symbol.
        bar_ms: length of a candle.
        volume: base coin, (n_bars,); None: not known.
        notices: what a reader must know, most important first.
    """

    strategy: str
    params: Any
    rules: MarketRules
    bar_ms: int
    volume: npt.NDArray[np.float64] | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class RunResult:
    """The result of one run: records as the engine wrote them.

    Trade dicts, frames and files are made of it when somebody asks.

    Attributes:
        metrics: see ``run_metrics``.
        log: account at every close, (n_bars,).
        regime_log: regime code of every step, (n_bars,).
        trades: table of ``engine.types.Trade``, (n_trades,).
        first_bar: whose step acted first, the number of bars if none did.
        funding_source: where the rates are from.
        seconds: of the compiled loop.
        marks: what happened besides trades, of a strategy that notes it: table of ``Mark``.
        bars: the candles walked, table of ``engine.types.Bar``, (n_bars,); None: not kept.
        context: what it was made of; None: not known.
    """

    metrics: dict[str, Any]
    log: Records
    regime_log: npt.NDArray[np.int64]
    trades: Records
    first_bar: int
    funding_source: str
    seconds: float
    marks: Records | None = None
    bars: Records | None = None
    context: RunContext | None = None

    @functools.cached_property
    def equity_curve(self) -> npt.NDArray[np.float64]:
        """Equity at every close, quote, (n_bars,)."""
        return np.array(self.log["equity"])

    @functools.cached_property
    def trade_dicts(self) -> list[dict[str, Any]]:
        """The trade records as the public dict holds them."""
        return trade_dicts(self.trades)

    @property
    def bars_per_second(self) -> float:
        """Speed of the compiled loop."""
        return len(self.log) / self.seconds

    @property
    def times_ms(self) -> npt.NDArray[np.int64]:
        """Open times of the bars, ms UTC, (n_bars,).

        Raises:
            DataError: the candles were not kept.
        """
        if self.bars is None:
            raise DataError("this result was made without the times of its bars")
        return np.array(self.bars["ts_ms"])

    def from_bar(self, first: int) -> RunResult:
        """Return the result without the bars before ``first``, every bar counted from there."""
        trades = self.trades.copy()
        trades["bar"] -= first
        return replace(
            self,
            log=self.log[first:],
            regime_log=self.regime_log[first:],
            trades=trades,
            first_bar=self.first_bar - first,
            bars=None if self.bars is None else self.bars[first:],
            context=None if self.context is None else _context_from(self.context, first),
        )

    def entries(self) -> dict[str, Any]:
        """Return the entries of the public dict of ``GridStrategyV4.run``, in their order."""
        values = (
            self.equity_curve,
            later(lambda: self.trade_dicts),
            self.regime_log,
            self.metrics,
            self.log,
            self.trades,
            self.first_bar,
            self.funding_source,
            self.seconds,
            self.bars_per_second,
            self.marks,
        )
        found = dict(zip(RUN_KEYS, values, strict=True))
        if self.marks is None:
            del found["marks"]
        return found

    def to_dict(self) -> ResultDict:
        """Return the public dict of ``GridStrategyV4.run``."""
        return ResultDict(self, self.entries())

    def trade_frame(self) -> pd.DataFrame:
        """Return the trade records as a frame; see ``trade_frame``."""
        return trade_frame(self.trades)

    def equity_series(self) -> pd.Series[float]:
        """Return the equity at every close, quote, by the bar's open (UTC)."""
        return equity_series(self.times_ms, self.equity_curve)


def _context_from(context: RunContext, first: int) -> RunContext:
    return replace(context, volume=None if context.volume is None else context.volume[first:])


def count_metrics(state: Account, trades: Records, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return event and record counts, a strategy's ``own`` ones, the figures of round trips."""
    labels = np.bincount(trades["label"], minlength=len(LABEL_NAMES)).tolist()
    prunes = range(PRUNE_DEVIANCE, PRUNE_VAR_WARNING + 1)
    closes = (trades["direction"] >= 0) & (trades["label"] > OPEN + SHORT)
    exits = np.bincount(trades["direction"][closes], minlength=2).tolist()
    counters = state.counters
    profit, loss = float(counters.gross_profit), float(counters.gross_loss)
    trips = int(counters.round_trips)
    return {
        "longs_opened": labels[OPEN + LONG],
        "longs_closed": labels[TAKE_PROFIT + LONG],
        "shorts_opened": labels[OPEN + SHORT],
        "shorts_closed": labels[TAKE_PROFIT + SHORT],
        "long_exits": exits[LONG],
        "short_exits": exits[SHORT],
        "stops_long": int(counters.stops_long),
        "stops_short": int(counters.stops_short),
        "total_trades": trips,
        "prune_count": sum(labels[code] for code in prunes),
        "prune_types": {LABEL_NAMES[code]: labels[code] for code in prunes if labels[code]},
        **own,
        "liquidations": int(counters.liquidations),
        "win_rate_pct": ratio(100.0 * int(counters.wins), trips),
        "profit_factor": ratio(profit, loss),
        "gross_profit": profit,
        "gross_loss": loss,
        "fees_paid": float(counters.fees),
        "funding_pnl": float(state.funding),
        "capacity_reached": int(counters.capacity_reached),
    }


def run_metrics(
    state: Account,
    initial_capital: float,
    bars: Records,
    log: Records,
    trades: Records,
    first_bar: int,
    own: Mapping[str, Any],
) -> dict[str, Any]:
    """Return all metrics of a run, from the first tradable bar on.

    Args:
        state: after the last step.
        initial_capital: quote.
        bars: shape (n_bars,).
        log: shape (n_bars,).
        trades: shape (n_trades,).
        first_bar: the first bar whose step acted.
        own: counts that only the strategy knows, by name.
    """
    first = min(first_bar, max(len(bars) - 1, 0))
    traded = log[first:]
    held = (traded["long_qty"] > 0.0) | (traded["short_qty"] > 0.0)
    step = int(np.median(np.diff(bars["ts_ms"]))) if len(bars) > 1 else 900_000
    per_year = BARS_PER_YEAR * 900_000 / step
    metrics: dict[str, Any] = equity_metrics(np.array(traded["equity"]), initial_capital, per_year)
    metrics["buy_hold_return_pct"] = (
        (float(bars["close"][-1]) / float(bars["open"][first]) - 1.0) * 100.0 if len(bars) else 0.0
    )
    metrics["exposure_pct"] = 100.0 * float(np.mean(held)) if len(held) else 0.0
    metrics["turnover"] = float(state.counters.turnover) / initial_capital
    return metrics | count_metrics(state, trades, own)
