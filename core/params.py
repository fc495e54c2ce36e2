"""Strategy parameters: typed, bounded, frozen.

``config.py`` holds the values, this module their type, bounds, unit and meaning. Validation, the
command line's help, the README's table and the optimizer's space all read these fields.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from enum import IntEnum, IntFlag
from typing import Any, Final, get_type_hints

from core.errors import ConfigError

MAX_LEVELS: Final = 24
"""Capacity of one side's lattice, in levels."""
MAX_STOP_EVENTS: Final = 8
"""Capacity of the memory of stop events."""


class GridMode(IntEnum):
    """Distance between levels: a constant ratio or a constant amount."""

    GEOMETRIC = 0
    ARITHMETIC = 1


class IntrabarPath(IntEnum):
    """Which extreme of a bar is walked first; AUTO: low first when the bar closes up."""

    AUTO = 0
    LOW_FIRST = 1
    HIGH_FIRST = 2


class PruneRule(IntFlag):
    """The five pruning rules, in their order."""

    DEVIANCE = 1
    OLDEST = 2
    GAP = 4
    FUNDING = 8
    OFFSET = 16


def bounded(low: float, high: float, unit: str, meaning: str) -> Any:
    """Declare a number with its inclusive bounds, its unit and its meaning."""
    return field(metadata={"low": low, "high": high, "unit": unit, "doc": meaning})


def meaning(text: str) -> Any:
    """Declare a switch or a choice with its meaning."""
    return field(metadata={"doc": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyParams:
    """Every value a decision may depend on, besides market data and state."""

    initial_capital: float = bounded(1.0, 1e12, "USDT", "starting wallet")
    leverage: float = bounded(0.1, 125.0, "x", "multiplies order sizes and caps")
    allow_short: bool = meaning("trade the short grid")

    kama_period: int = bounded(2, 200, "bars", "efficiency ratio and KAMA")
    kama_fast: int = bounded(1, 100, "bars", "KAMA's fastest smoothing")
    kama_slow: int = bounded(2, 500, "bars", "KAMA's slowest smoothing")
    atr_period: int = bounded(2, 200, "bars", "average true range")
    adx_period: int = bounded(2, 200, "bars", "average directional index")
    z_score_period: int = bounded(2, 500, "bars", "mean in the z-score")
    volatility_period: int = bounded(2, 500, "bars", "standard deviation of log returns")

    regime_enabled: bool = meaning("let the regime gate entries (off: always NOISE)")
    regime_timeframe_mult: int = bounded(1, 96, "x 15 min", "candles of ER, KAMA and slope")
    regime_threshold: float = bounded(0.0, 10.0, "ATR per bar", "KAMA slope of a trend")
    er_trend_threshold: float = bounded(0.0, 1.0, "ratio", "efficiency ratio of a trend")
    adx_veto_enabled: bool = meaning("a weak ADX turns a trend into NOISE")
    adx_trend_threshold: float = bounded(0.0, 100.0, "ADX", "below it a trend is NOISE")
    regime_hysteresis_bars: int = bounded(1, 1000, "bars", "a new trend must stand this long")
    use_ml_regime: bool = meaning("Gaussian mixture instead of KAMA slope")
    gmm_seed: int = bounded(0, 2**31 - 1, "", "random state of the Gaussian mixture")

    grid_mode: GridMode = meaning("geometric or arithmetic levels")
    grid_levels: int = bounded(1, MAX_LEVELS, "levels per side", "entries of a grid")
    grid_spacing_k: float = bounded(0.05, 50.0, "ATR", "distance between levels")
    spacing_floor: float = bounded(0.0001, 0.5, "of price", "smallest distance between levels")
    adaptive_floor_scale: float = bounded(0.0, 20.0, "x ATR mean", "floor from the 7-day mean ATR")
    regen_drift_mult: float = bounded(0.1, 100.0, "spacings", "drift that re-centres a grid")
    round_number_nudge: float = bounded(0.0, 0.01, "of price", "move off round numbers (0: off)")
    tp_concentration: float = bounded(0.05, 1.0, "share", "taken at the first exit level")
    tp_below_entry: bool = meaning("allow take-profits under break-even")

    skew_enabled: bool = meaning("Avellaneda-Stoikov reservation price")
    optimal_spread_enabled: bool = meaning("Avellaneda-Stoikov spread as a spacing floor")
    gamma: float = bounded(0.001, 50.0, "", "risk aversion")
    kappa: float = bounded(0.01, 100.0, "per sigma", "decay of the fill rate with distance")
    as_time_horizon: float = bounded(1.0, 10_000.0, "bars", "horizon of the inventory risk")

    trailing_enabled: bool = meaning("move the long grid up in an uptrend")
    trailing_activation_er: float = bounded(0.0, 1.0, "ratio", "efficiency ratio that activates it")
    trailing_reserve_pct: float = bounded(0.0, 0.99, "of cap", "kept back while it is inactive")
    trailing_cap_price: float = bounded(0.0, 1e12, "USDT", "never trail above it (0: no cap)")

    order_pct: float = bounded(0.0001, 1.0, "of equity", "size of one order before leverage")
    max_position_pct: float = bounded(0.001, 1.0, "of equity", "cap of one side before leverage")
    max_inventory_per_side: int = bounded(1, 64, "fills", "open fills and orders of one side")
    max_capital_pct: float = bounded(0.001, 1.0, "of equity", "cap of both sides before leverage")
    low_volume_threshold: float = bounded(0.0, 10.0, "x 7-day mean", "volume called thin (0: off)")
    low_volume_factor: float = bounded(0.0, 1.0, "x cap", "cap in thin volume")
    kelly_enabled: bool = meaning("scale orders by a fraction of Kelly")
    kelly_fraction: float = bounded(0.0, 1.0, "x Kelly", "fraction of the full bet")
    kelly_min: float = bounded(0.0, 1.0, "x order", "smallest scale")
    kelly_default: float = bounded(0.0, 1.0, "x order", "scale until there are enough trades")
    kelly_window: int = bounded(1, 500, "fills", "closed fills of this regime looked at")
    kelly_min_trades: int = bounded(1, 500, "fills", "closed fills needed")
    stop_cooldown_enabled: bool = meaning("smaller orders after repeated stops")
    stop_cooldown_bars: int = bounded(1, 100_000, "bars", "window and length of the cooldown")
    stop_cooldown_thresh: int = bounded(1, MAX_STOP_EVENTS, "events", "stops that start it")
    stop_cooldown_factor: float = bounded(0.0, 1.0, "x order", "scale while it lasts")

    funding_enabled: bool = meaning("pay and receive funding")
    funding_bias_enabled: bool = meaning("wider grid on the side that pays funding")
    funding_threshold: float = bounded(0.0, 1.0, "rate", "funding rate that biases spacing")
    funding_bias_factor: float = bounded(1.0, 10.0, "x", "paying side wider, receiving narrower")
    funding_harvest_enabled: bool = meaning("larger orders on the side that receives funding")
    funding_harvest_threshold: float = bounded(0.0, 1.0, "rate", "funding rate worth harvesting")
    funding_harvest_boost: float = bounded(0.0, 10.0, "x order", "on the receiving side")
    funding_harvest_cut: float = bounded(0.0, 10.0, "x order", "on the paying side")

    circuit_breaker_enabled: bool = meaning("stop entries in a crash")
    halt_z_threshold: float = bounded(-100.0, 0.0, "ATR", "z-score that halts")
    resume_z_threshold: float = bounded(-100.0, 100.0, "ATR", "z-score that resumes")
    stop1_enabled: bool = meaning("stage 1: part of a side, on the close")
    stop2_enabled: bool = meaning("stage 2: the whole side, as a resting stop")
    atr_sl_mult: float = bounded(0.1, 100.0, "units", "stop distance")
    stop1_mult: float = bounded(0.01, 10.0, "x distance", "stage 1")
    stop2_mult: float = bounded(0.01, 10.0, "x distance", "stage 2")
    stop1_close_pct: float = bounded(0.01, 1.0, "of side", "closed by stage 1")

    prune_enabled: PruneRule = meaning("which pruning rules run")
    prune_cooldown_bars: int = bounded(0, 100_000, "bars", "between prunings of one side")
    deviance_sigma: float = bounded(0.1, 100.0, "ATR", "distance from KAMA")
    max_position_age_hours: float = bounded(0.25, 100_000.0, "hours", "older fills are pruned")
    gap_prune_mult: float = bounded(0.1, 1000.0, "spacings", "distance of a stranded fill")
    funding_cost_ratio: float = bounded(0.0, 100.0, "spacings", "funding a fill may cost")
    offset_min_loss: float = bounded(0.0, 1000.0, "spacings", "loss worth offsetting")
    offset_prune_ratio: float = bounded(0.0, 1000.0, "x loss", "today's profit needed")

    max_drawdown_pct: float = bounded(0.001, 1.0, "of equity", "budget of the VaR limits")
    var_block_enabled: bool = meaning("no entries while VaR exceeds the budget")
    var_horizon_bars: float = bounded(0.01, 100_000.0, "bars", "horizon of the VaR block")
    var_deleverage_enabled: bool = meaning("close the worst fills when losses near the budget")
    var_deleverage_ratio: float = bounded(0.01, 10.0, "of budget", "unrealised loss that does so")
    high_corr_threshold: float = bounded(0.0, 1.0, "correlation", "counted as 1 in portfolio VaR")

    fee_maker: float = bounded(-0.01, 0.1, "of notional", "limit orders (negative: rebate)")
    fee_taker: float = bounded(-0.01, 0.1, "of notional", "market orders and stops")
    slippage: float = bounded(0.0, 0.5, "of price", "market orders and stops")
    liquidation_fee: float = bounded(0.0, 0.5, "of notional", "where the market has no own")
    fill_through_bps: float = bounded(0.0, 1000.0, "bps", "path must pass a limit by this")
    fill_through_ticks: int = bounded(0, 1000, "ticks", "path must pass a limit by this as well")
    refuse_first_touch: bool = meaning("the bar that first reaches a limit does not fill it")
    intrabar_path: IntrabarPath = meaning("auto, low_first or high_first")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StrategyParams:
        """Validate ``values``, which must hold every parameter.

        Raises:
            ConfigError: a key is unknown or missing, a value of the wrong type or out of range.
        """
        params = cls(**read_values(cls, values))
        params.check_relations()
        return params

    def check_relations(self) -> None:
        """Raise ConfigError where values contradict each other."""
        ordered = [
            ("kama_fast", "<", "kama_slow", self.kama_fast < self.kama_slow),
            (
                "halt_z_threshold",
                "<",
                "resume_z_threshold",
                self.halt_z_threshold < self.resume_z_threshold,
            ),
            ("stop1_mult", "<=", "stop2_mult", self.stop1_mult <= self.stop2_mult),
            ("kelly_min_trades", "<=", "kelly_window", self.kelly_min_trades <= self.kelly_window),
        ]
        for low, sign, high, holds in ordered:
            if not holds:
                raise ConfigError(
                    f"{low} = {getattr(self, low)} must be {sign} {high} = {getattr(self, high)}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that ``from_dict`` accepts and JSON can hold."""
        return plain_values(self)

    @property
    def position_sides(self) -> tuple[str, ...]:
        """Sides it may hold with these values."""
        return ("LONG", "SHORT") if self.allow_short else ("LONG",)


def read_values(declared: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return every parameter that a class declares, typed, from ``values``, which hold them all.

    Raises:
        ConfigError: a key is unknown or missing, a value of the wrong type or out of range.
    """
    known = param_fields(declared)
    for key in values:
        if key not in known:
            raise ConfigError(unknown_key(key, known, "strategy parameter"))
    if missing := sorted(known.keys() - values.keys()):
        raise ConfigError(f"missing strategy parameters: {', '.join(missing)}")
    return {key: read_value(key, values[key], declared) for key in known}


def plain_values(params: Any) -> dict[str, Any]:
    """Return the values of declared parameters as their class's ``from_dict`` accepts them."""
    return {name: _plain(getattr(params, name)) for name in param_fields(type(params))}


def param_fields(declared: type[Any] = StrategyParams) -> dict[str, Field[Any]]:
    """Return the parameters that a class declares by name, in order."""
    return {item.name: item for item in fields(declared)}


def shared(name: str) -> Any:
    """Declare a parameter that ``StrategyParams`` has, with its bounds, unit and meaning."""
    return field(metadata=param_fields()[name].metadata)


def unknown_key(key: str, known: Mapping[str, Any], what: str) -> str:
    """Return the message for an unknown ``key``, naming the nearest known one."""
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"unknown {what} {key!r}{hint}"


def read_value(key: str, value: Any, declared: type[Any] = StrategyParams) -> Any:
    """Return ``value`` (a Python value or command-line text) as parameter ``key`` of a class.

    Raises:
        ConfigError: the key is unknown, the value of the wrong type or out of range.
    """
    known = param_fields(declared)
    if key not in known:
        raise ConfigError(unknown_key(key, known, "strategy parameter"))
    kind = _types(declared)[key]
    try:
        typed = _reader(kind)(value)
    except (ValueError, KeyError, TypeError, OverflowError, AttributeError):
        raise ConfigError(f"{key} = {value!r} must be {_expected(kind)}") from None
    limits = known[key].metadata
    for number in typed if isinstance(typed, tuple) else (typed,):
        if "low" in limits and number is not None and not limits["low"] <= number <= limits["high"]:
            raise ConfigError(
                f"{key} = {value!r} is outside [{limits['low']:g}, {limits['high']:g}] "
                f"{limits['unit']}"
            )
    return typed


def _read_bool(value: Any) -> bool:
    words = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    if isinstance(value, str):
        return words[value.strip().lower()]
    if isinstance(value, bool) or value in (0, 1):
        return bool(value)
    raise ValueError


def _read_int(value: Any) -> int:
    if isinstance(value, bool) or (not isinstance(value, str) and int(value) != value):
        raise ValueError
    return int(value)


def _read_float(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _read_word(kind: type[IntEnum], value: Any) -> IntEnum:
    return kind[value.upper()] if isinstance(value, str) else kind(value)


def _read_optional(value: Any) -> float | None:
    if value is None or (isinstance(value, str) and value.strip().lower() in {"none", "off", ""}):
        return None
    return _read_float(value)


def _read_numbers(value: Any) -> tuple[float, ...]:
    if isinstance(value, str):
        return tuple(float(item) for item in value.replace(",", " ").split())
    return tuple(_read_float(item) for item in value)


def _read_rules(value: Any) -> PruneRule:
    if isinstance(value, PruneRule):
        return value
    names = value.replace(",", " ").split() if isinstance(value, str) else value
    rules = PruneRule(0)
    for name in names:
        if name.upper() not in {"NONE", ""}:
            rules |= PruneRule[name.upper()]
    return rules


def _plain(value: Any) -> Any:
    if isinstance(value, PruneRule):
        return [rule.name for rule in PruneRule if rule in value]
    if isinstance(value, IntEnum):
        return value.name.lower()
    return list(value) if isinstance(value, tuple) else value


def _expected(kind: Any) -> str:
    if kind is PruneRule:
        return f"a list out of {', '.join(rule.name or '' for rule in PruneRule)}"
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return f"one of {', '.join(item.name.lower() for item in kind)}"
    return {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        OPTIONAL: "a number or none",
        NUMBERS: "a list of numbers",
    }[kind]


OPTIONAL: Final = float | None
NUMBERS: Final = tuple[float, ...]


_HINTS: Final[dict[type[Any], dict[str, Any]]] = {}


def _types(declared: type[Any]) -> dict[str, Any]:
    if declared not in _HINTS:
        _HINTS[declared] = get_type_hints(declared)
    return _HINTS[declared]


def _reader(kind: Any) -> Callable[[Any], Any]:
    if kind in _READERS:
        return _READERS[kind]
    return functools.partial(_read_word, kind)


_READERS: Final[dict[Any, Callable[[Any], Any]]] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    PruneRule: _read_rules,
    OPTIONAL: _read_optional,
    NUMBERS: _read_numbers,
}
