"""The result of a backtest of one coin, and what it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from core.market import MarketRules
from engine.registry import DEFAULT
from engine.results import RunResult


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
        more: entries that ``BacktestSimulator(also=)`` added.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the public dict of ``BacktestSimulator.run_single``."""
        return {
            **self.run.to_dict(),
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
