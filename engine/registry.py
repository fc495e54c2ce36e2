"""The strategies there are, by name; the code of one is imported when it is first run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from config import OPTIMIZER_SPACE, PRESETS, STRATEGY_PARAMS
from core.errors import ConfigError
from core.params import StrategyParams, unknown_key
from core.times import BAR_MS
from engine.contract import Backtest, Needs, Strategy, StrategySpec

if TYPE_CHECKING:
    from core.market import MarketRules


def _grid_v4(params: Any, rules: MarketRules | None) -> Strategy:
    from engine.strategy import create  # noqa: PLC0415 - imports numba, which no help text needs

    return create(params, rules)


def _grid_v4_backtest(params: Any, rules: MarketRules) -> Backtest:
    from engine.strategy import GridStrategyV4  # noqa: PLC0415 - as above

    return GridStrategyV4(params, rules)


GRID_V4: Final = StrategySpec(
    name="grid_v4",
    module="engine.strategy",
    params=StrategyParams,
    defaults=STRATEGY_PARAMS,
    presets=PRESETS,
    space=OPTIMIZER_SPACE,
    needs=Needs(bars=("15m", BAR_MS)),
    create=_grid_v4,
    backtest=_grid_v4_backtest,
)
DEFAULT: Final = GRID_V4
SPECS: Final = {spec.name: spec for spec in (GRID_V4,)}


def find_strategy(name: str) -> StrategySpec:
    """Return the strategy called ``name``.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    if name not in SPECS:
        known = ", ".join(SPECS)
        raise ConfigError(f"{unknown_key(name, SPECS, 'strategy')} (there are: {known})")
    return SPECS[name]
