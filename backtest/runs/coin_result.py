"""The result of a backtest of one coin, and what it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.market import MarketRules
from engine.registry import DEFAULT, known_spec
from engine.result_dict import ResultDict
from engine.results import RUN_KEYS, RunResult
from engine.trade_tables import equity_series, trade_frame

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Records = npt.NDArray[Any]


_KEYS: Final = (
    "coin",
    "candles",
    "params",
    "market",
    "data",
    "fingerprint",
    "strategy",
    "notices",
    "run_id",
)
"""Of the public dict besides those of the run."""


@dataclass(frozen=True, eq=False)
class CoinResult:
    """A run from its first tradable bar on; every bar counts from there.

    Attributes:
        coin: base coin.
        run: what the engine answered.
        candles: of the same bars.
        params: of the strategy.
        market: rules of the symbol.
        data: range, hash, gaps and origin, see ``backtest.runs.facts.data_facts``.
        fingerprint: of the decision code.
        strategy: its name.
        notices: what a reader must know, most important first.
        more: entries that ``BacktestSimulator(also=)`` added, such as ``bands``.
        run_id: under which it is on record; None: it is not.
    """

    coin: str
    run: RunResult
    candles: pd.DataFrame
    params: Any
    market: MarketRules
    data: dict[str, Any]
    fingerprint: str
    notices: list[str]
    strategy: str = DEFAULT.name
    more: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None

    @classmethod
    def read(cls, result: Mapping[str, Any]) -> CoinResult:
        """Return the typed result of a public dict of ``BacktestSimulator.run_single``."""
        run = RunResult(
            metrics=result["metrics"],
            log=result["log"],
            regime_log=result["regime_log"],
            trades=result["trade_table"],
            first_bar=result["first_bar"],
            funding_source=result["funding_source"],
            seconds=result["seconds"],
            marks=result.get("marks"),
        )
        strategy = str(result.get("strategy", DEFAULT.name))
        return cls(
            coin=result["coin"],
            run=run,
            candles=result["candles"],
            params=known_spec(strategy).read(result["params"]),
            market=result["market"],
            data=result["data"],
            fingerprint=result["fingerprint"],
            notices=list(result["notices"]),
            strategy=strategy,
            more={key: result[key] for key in result if key not in {*RUN_KEYS, *_KEYS}},
            run_id=result.get("run_id"),
        )

    @property
    def metrics(self) -> dict[str, Any]:
        """The run's figures."""
        return self.run.metrics

    @property
    def log(self) -> Records:
        """The account at every close, (n_bars,)."""
        return self.run.log

    @property
    def trades(self) -> Records:
        """Trade records, (n_trades,)."""
        return self.run.trades

    @property
    def trade_dicts(self) -> list[dict[str, Any]]:
        """The trade records as the public dict holds them."""
        return self.run.trade_dicts

    @property
    def equity_curve(self) -> Floats:
        """Equity at every close, quote, (n_bars,)."""
        return self.run.equity_curve

    @property
    def first_bar(self) -> int:
        """The first bar whose step acted, the number of bars if none did."""
        return self.run.first_bar

    @property
    def marks(self) -> Records:
        """Events besides trades, none where the strategy notes nothing, (n_marks,)."""
        return self.trades[:0] if self.run.marks is None else self.run.marks

    @property
    def bands(self) -> list[dict[str, Any]]:
        """The run under other assumptions, see ``backtest.trust.bands``; empty: not made."""
        found: list[dict[str, Any]] = self.more.get("bands", [])
        return found

    @property
    def bands_summary(self) -> dict[str, Any]:
        """How far they lie apart, see ``backtest.trust.bands.summarize``; empty: not made."""
        found: dict[str, Any] = self.more.get("bands_summary", {})
        return found

    @property
    def outcomes(self) -> Mapping[str, RunResult]:
        """Runs without some mechanism, by name, see ``backtest.trust.compare``; empty: not made."""
        found: Mapping[str, RunResult] = self.more.get("outcomes", {})
        return found

    @property
    def times_ms(self) -> Ints:
        """Open times of the bars, ms UTC, (n_bars,)."""
        return np.array(self.candles["timestamp"], dtype=np.int64)

    def column(self, name: str) -> Floats:
        """Return a column of the candles, such as ``close``, (n_bars,)."""
        return np.array(self.candles[name], dtype=np.float64)

    def trade_frame(self) -> pd.DataFrame:
        """Return the trade records as a frame; see ``engine.trade_tables.trade_frame``."""
        return trade_frame(self.trades)

    def equity_series(self) -> pd.Series[float]:
        """Return the equity at every close, quote, by the bar's open (UTC)."""
        return equity_series(self.times_ms, self.equity_curve)

    def to_dict(self) -> ResultDict:
        """Return the public dict of ``BacktestSimulator.run_single``."""
        entries = {
            **self.run.entries(),
            **self.more,
            "coin": self.coin,
            "candles": self.candles,
            "params": self.params.to_dict(),
            "market": self.market,
            "data": self.data,
            "fingerprint": self.fingerprint,
            "strategy": self.strategy,
            "notices": self.notices,
        }
        return ResultDict(self, entries)
