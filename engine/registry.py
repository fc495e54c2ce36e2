"""The strategies there are, by name; the code of one is imported when it is first run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from config import (
    FIXED_GRID_PARAMS,
    FIXED_GRID_PRESETS,
    FIXED_GRID_SPACE,
    OPTIMIZER_SPACE,
    PRESETS,
    SHORT_GRID_PARAMS,
    SHORT_GRID_PRESETS,
    STRATEGY_PARAMS,
)
from core.errors import ConfigError
from core.params import StrategyParams, param_fields, read_value, unknown_key
from core.times import BAR_MS, MINUTE_MS
from engine.contract import Backtest, Needs, Strategy, StrategySpec
from engine.fixed_grid.params import FixedGridParams, load_warnings
from engine.short_grid.params import ShortGridParams

if TYPE_CHECKING:
    from core.market import MarketRules


def _grid_v4(params: Any, rules: MarketRules | None) -> Strategy:
    from engine.strategy import create  # noqa: PLC0415 - imports numba, which no help text needs

    return create(params, rules)


def _grid_v4_backtest(params: Any, rules: MarketRules) -> Backtest:
    from engine.strategy import GridStrategyV4  # noqa: PLC0415 - as above

    return GridStrategyV4(params, rules)


def _load_grid_v4() -> None:
    from engine.compiling import load_live_code  # noqa: PLC0415 - as above

    load_live_code()


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
    load_code=_load_grid_v4,
)


def _fixed_grid(params: Any, rules: MarketRules | None) -> Strategy:
    from engine.fixed_grid.face import FixedGridFace  # noqa: PLC0415 - imports numba

    return FixedGridFace(params, rules, FIXED_GRID.fingerprint)


def _check_fixed_grid(params: Any, rules: MarketRules, price: float) -> list[str]:
    from engine.fixed_grid.sizes import check_market, market_warnings  # noqa: PLC0415 - as above

    check_market(params, rules, price)
    return [*load_warnings(params), *market_warnings(params, rules, price)]


def _load_fixed_grid() -> None:
    from engine.fixed_grid.compiling import load_live_fixed_grid  # noqa: PLC0415 - as above

    load_live_fixed_grid(FIXED_GRID.read())


def _has_fixed_grid() -> bool:
    from engine.fixed_grid.compiling import is_live_fixed_grid_compiled  # noqa: PLC0415 - as above

    return is_live_fixed_grid_compiled()


def _fixed_grid_backtest(params: Any, rules: MarketRules) -> Backtest:
    from engine.fixed_grid.strategy import FixedGridStrategy  # noqa: PLC0415 - imports numba

    return FixedGridStrategy(params, rules)


FIXED_GRID: Final = StrategySpec(
    name="fixed_grid",
    module="engine.fixed_grid.strategy",
    params=FixedGridParams,
    defaults=FIXED_GRID_PARAMS,
    presets=FIXED_GRID_PRESETS,
    space=FIXED_GRID_SPACE,
    needs=Needs(bars=("1m", MINUTE_MS), truth="exchange", indicators=False),
    create=_fixed_grid,
    backtest=_fixed_grid_backtest,
    check=_check_fixed_grid,
    trade_fields=("cycle", "slot"),
    load_code=_load_fixed_grid,
    has_code=_has_fixed_grid,
    exclusive=(("quantity", "quantity_usd"),),
    params_name="FIXED_GRID_PARAMS",
    space_name="FIXED_GRID_SPACE",
)


def _short_grid(params: Any, rules: MarketRules | None) -> Strategy:  # noqa: ARG001
    raise ConfigError("short_grid does not trade live yet; backtest it: main.py --ticks DIR")


def _short_grid_backtest(params: Any, rules: MarketRules) -> Backtest:  # noqa: ARG001
    raise ConfigError("short_grid runs on recorded ticks, not on candles: main.py --ticks DIR")


SHORT_GRID: Final = StrategySpec(
    name="short_grid",
    module="engine.short_grid.session",
    params=ShortGridParams,
    defaults=SHORT_GRID_PARAMS,
    presets=SHORT_GRID_PRESETS,
    space={},
    needs=Needs(
        bars=None,
        streams=frozenset({"book", "trades", "mark"}),
        sides=frozenset({"SHORT"}),
        truth="exchange",
    ),
    create=_short_grid,
    backtest=_short_grid_backtest,
    live=False,
    params_name="SHORT_GRID_PARAMS",
)
DEFAULT: Final = GRID_V4
SPECS: Final = {spec.name: spec for spec in (GRID_V4, FIXED_GRID, SHORT_GRID)}


def find_strategy(name: str) -> StrategySpec:
    """Return the strategy called ``name``.

    Raises:
        ConfigError: there is none; the message names the nearest.
    """
    if name not in SPECS:
        known = ", ".join(SPECS)
        raise ConfigError(f"{unknown_key(name, SPECS, 'strategy')} (there are: {known})")
    return SPECS[name]


def known_spec(name: str) -> StrategySpec:
    """Return the strategy called ``name``, for a result of one that is not registered the default.

    A strategy under trial has the default's parameters, so its results read like the default's.
    """
    return SPECS.get(name, DEFAULT)


def read_params(spec: StrategySpec, given: Mapping[str, Any]) -> Any:
    """Return validated parameters of a strategy; what is missing is as shipped.

    Raises:
        ConfigError: a key is unknown or another strategy's, a value of the wrong type or out of
            range, or values contradict each other.
    """
    for key in given:
        check_key(spec, key)
    return spec.read(given)


def read_one(spec: StrategySpec, key: str, value: Any) -> Any:
    """Return one value, as Python or as text, as parameter ``key``; errors as ``read_params``."""
    check_key(spec, key)
    return read_value(key, value, spec.params)


def check_key(spec: StrategySpec, key: str) -> None:
    """Refuse a key that is no parameter of a strategy; name the strategy that has it.

    Raises:
        ConfigError: it is not.
    """
    declared = param_fields(spec.params)
    if key in declared:
        return
    owners = [name for name, other in SPECS.items() if key in param_fields(other.params)]
    if owners:
        raise ConfigError(f"{key} belongs to {owners[0]}, not to {spec.name}")
    raise ConfigError(unknown_key(key, declared, "strategy parameter"))
