"""The data of one coin's run: candles and rates, rules, and where trading begins."""

from __future__ import annotations

from dataclasses import dataclass

from backtest.market.market_data import MarketData
from backtest.market.oddities import price_oddities
from core.market import MarketRules


@dataclass(frozen=True, eq=False)
class CoinData:
    """One coin, loaded.

    Attributes:
        market: candles and funding rates, the bars that warm the indicators up included.
        rules: of the symbol.
        first_bar: the first bar that may trade.
        span_ms: the range that was asked for, warm-up included, ``[start, end)``, ms UTC.
        notice: what a reader must know about the rules, or None.
    """

    market: MarketData
    rules: MarketRules
    first_bar: int
    span_ms: tuple[int, int]
    notice: str | None

    @property
    def notices(self) -> list[str]:
        """Sentences about rules, candles and rates that a reader of any run must know."""
        rules = [self.notice] if self.notice else []
        return [*rules, *self.market.notices, *price_oddities(self.market)]
