"""``FixedGrid``: the fixed grid as scripts use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.market import MarketRules
from engine.fixed_grid.params import FixedGridParams
from engine.fixed_grid.strategy import FixedGridStrategy
from engine.registry import FIXED_GRID, read_params
from engine.result_dict import ResultDict
from engine.strategy import known_market


class FixedGrid:
    """One fixed grid, run over candles.

    Args:
        config: parameters, complete, partial or already validated; missing ones come from
            ``FIXED_GRID_PARAMS``.
        market: rules of the symbol; a coin named in ``BACKTEST_CONFIG['markets']``; or None: rules
            inferred from the first price.

    Raises:
        ConfigError: a key is unknown or another strategy's, a value of the wrong type or out of
            range, values contradict each other, or the coin is not known.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | FixedGridParams | None = None,
        market: MarketRules | str | None = None,
    ) -> None:
        if isinstance(config, FixedGridParams):
            params = config
        else:
            params = read_params(FIXED_GRID, config or {})
        rules = known_market(market) if isinstance(market, str) else market
        self._strategy = FixedGridStrategy(params, rules)

    @property
    def params(self) -> FixedGridParams:
        """The parameters, validated."""
        return self._strategy.params

    def run(self, df: Any, *, funding: Any = None, quarters: Any = None) -> ResultDict:
        """Backtest over candles; see ``engine.fixed_grid.strategy.FixedGridStrategy.run``."""
        return self._strategy.run(df, funding=funding, quarters=quarters)
