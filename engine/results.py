"""From the engine's tables to what people read: trade dicts and metrics."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from core.kama import REGIME_NAMES
from core.performance import BARS_PER_YEAR, equity_metrics, ratio
from engine.types import (
    DIRECTION_NAMES,
    LABEL_NAMES,
    LONG,
    NO_REGIME,
    OPEN,
    PRUNE_DEVIANCE,
    PRUNE_VAR_WARNING,
    SHORT,
    TAKE_PROFIT,
    Account,
)

Records = npt.NDArray[Any]
TRADE_FIELDS: Final = (
    "bar",
    "timestamp",
    "price",
    "qty",
    "label",
    "regime",
    "pnl",
    "fee",
    "direction",
    "fill_id",
)
CYCLE_FIELDS: Final = ("cycle", "slot")
"""Fields that the records of a strategy with cycles have besides."""
_REGIMES: Final = {**REGIME_NAMES, NO_REGIME: "NONE"}


@dataclass(frozen=True, eq=False)
class RunResult:
    """The result of one run.

    Attributes:
        metrics: see ``run_metrics``.
        log: account at every close, (n_bars,).
        regime_log: regime code of every step, (n_bars,).
        trades: table of ``engine.types.Trade``, (n_trades,).
        first_bar: whose step acted first, the number of bars if none did.
        funding_source: where the rates are from.
        seconds: of the compiled loop.
        marks: what happened besides trades, of a strategy that notes it: table of ``Mark``.
    """

    metrics: dict[str, Any]
    log: Records
    regime_log: npt.NDArray[np.int64]
    trades: Records
    first_bar: int
    funding_source: str
    seconds: float
    marks: Records | None = None

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
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the public dict of ``GridStrategyV4.run``."""
        return {
            "equity_curve": self.equity_curve,
            "trades": self.trade_dicts,
            "regime_log": self.regime_log,
            "metrics": self.metrics,
            "log": self.log,
            "trade_table": self.trades,
            "first_bar": self.first_bar,
            "funding_source": self.funding_source,
            "seconds": self.seconds,
            "bars_per_second": self.bars_per_second,
        } | ({} if self.marks is None else {"marks": self.marks})


def trade_columns(trades: Records) -> dict[str, list[Any]]:
    """Return the trade records as columns of plain values, in the public names and order."""
    more = [name for name in CYCLE_FIELDS if name in (trades.dtype.names or ())]
    columns = {
        "bar": trades["bar"].tolist(),
        "timestamp": trades["ts_ms"].tolist(),
        "price": trades["price"].tolist(),
        "qty": trades["qty"].tolist(),
        "label": [LABEL_NAMES[code] for code in trades["label"].tolist()],
        "regime": [_REGIMES[code] for code in trades["regime"].tolist()],
        "pnl": trades["pnl"].tolist(),
        "fee": trades["fee"].tolist(),
        "direction": [
            DIRECTION_NAMES[code] if code >= 0 else "" for code in trades["direction"].tolist()
        ],
        "fill_id": trades["fill_id"].tolist(),
    }
    return columns | {name: trades[name].tolist() for name in more}


def trade_dicts(trades: Records) -> list[dict[str, Any]]:
    """Return the trade records as a list of dicts."""
    columns = trade_columns(trades)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


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
