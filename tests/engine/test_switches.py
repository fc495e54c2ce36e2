"""Every switch switches: turned off, a mechanism leaves no trace, and the trades differ."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest

from backtest.market.demo import DEMO_START_MS, demo_market
from config import PRESETS
from core.kama import REGIME_NAMES
from core.market import MarketRules
from core.params import PruneRule, param_fields
from core.signals import compute_signals
from engine.strategy import GridStrategyV4
from tests.engine.reference.scenarios import BAR_MS
from tests.support.markets.scenario import BUYS_990_980, LONG, SHORT, Changes, flat, play

FIRST_BAR, LAST_BAR = 22_000, 26_000
"""Of the demo market: ranges, trends, and its crash at bar 25,018."""
RULES = tuple(rule.name or "" for rule in PruneRule)
LIVELY: Changes = {
    **PRESETS["documented"],
    "grid_levels": 4,
    "grid_spacing_k": 0.7,
    "leverage": 2.0,
    "trailing_activation_er": 0.3,
    "funding_threshold": 0.00012,
    "funding_harvest_threshold": 0.0001,
    "max_drawdown_pct": 0.01,
    "var_horizon_bars": 8.0,
}
"""The documented values, with everything a little nearer, so that each mechanism acts."""

Result = dict[str, Any]


class Switch(NamedTuple):
    """A parameter, the value that turns its mechanism off, and what the mechanism leaves behind.

    ``prevents``: the trace is what the mechanism keeps from happening.
    """

    name: str
    off: Any
    trace: Callable[[Result], float]
    context: Changes = MappingProxyType({})
    on: Any = None
    prevents: bool = False


@cache
def market() -> Any:
    """Return the demo market all switches are tried on."""
    return demo_market("SOL", DEMO_START_MS + FIRST_BAR * BAR_MS, DEMO_START_MS + LAST_BAR * BAR_MS)


def trade(changes: Changes) -> Result:
    """Trade the demo market with the lively values and ``changes``."""
    demo = market()
    strategy = GridStrategyV4({**LIVELY, **changes}, MarketRules.from_dict(demo.rules))
    return strategy.run(demo.candles, funding=demo.funding)


def metric(name: str) -> Callable[[Result], float]:
    """Return the trace that is the size of a metric."""
    return lambda result: abs(float(result["metrics"][name]))


def labelled(label: str) -> Callable[[Result], float]:
    """Return the trace that counts records with ``label``."""
    return lambda result: float(sum(t["label"] == label for t in result["trades"]))


def stops(result: Result) -> float:
    """Count stop records."""
    return float(sum(t["label"].startswith("STOP") for t in result["trades"]))


def losing_take_profits(result: Result) -> float:
    """Count take-profits at a loss."""
    takes = {"SELL_CLOSE_LONG", "BUY_CLOSE_SHORT"}
    return float(sum(t["label"] in takes and t["pnl"] < 0.0 for t in result["trades"]))


def round_entries(result: Result) -> float:
    """Count entries nearer to a round number than a nudged level can be."""
    prices = np.array([t["price"] for t in result["trades"] if "OPEN" in t["label"]])
    unit = 10.0 ** np.floor(np.log10(prices) - 1.0)
    off_by = np.abs(prices - np.round(prices / unit) * unit)
    return float(np.sum(off_by < 0.0003 * prices))


def weak_trends(result: Result) -> float:
    """Count steps in a trend (breakouts aside) although ADX was under 25."""
    candles = market().candles
    params = GridStrategyV4(LIVELY).params
    adx = compute_signals(
        candles["timestamp"],
        candles["high"],
        candles["low"],
        candles["close"],
        candles["volume"],
        params,
    )["adx"][:-1]
    return float(np.sum((np.abs(result["regime_log"][1:]) == 1) & (adx < 25.0)))


def close_prunes(result: Result) -> float:
    """Count prunes of one side less than four bars after the one before."""
    bars: dict[str, list[int]] = {"LONG": [], "SHORT": []}
    for t in result["trades"]:
        if t["label"].startswith("PRUNE"):
            bars[t["direction"]].append(t["bar"])
    return float(sum(np.sum(np.diff(side) < 4) for side in bars.values()))


def traded_regimes(result: Result) -> float:
    """Count steps in another regime than NOISE."""
    return float(np.count_nonzero(result["regime_log"]))


def slipped_at_the_end(result: Result) -> float:
    """Count closing records at another price than the last close."""
    last = float(market().candles["close"].iloc[-1])
    ends = [t["price"] for t in result["trades"] if t["label"] == "CLOSE_END"]
    return float(sum(price != last for price in ends))


NO_PRUNES: Changes = {
    "prune_enabled": (),
    "var_deleverage_enabled": False,
    "var_block_enabled": False,
}
TRACED = (
    Switch("allow_short", off=False, trace=metric("shorts_opened")),
    Switch("regime_enabled", off=False, trace=traded_regimes),
    Switch(
        "adx_veto_enabled",
        off=False,
        trace=weak_trends,
        context={"regime_hysteresis_bars": 1},
        prevents=True,
    ),
    Switch("tp_below_entry", off=False, on=True, trace=losing_take_profits),
    Switch("trailing_enabled", off=False, trace=metric("trailing_shifts")),
    Switch("circuit_breaker_enabled", off=False, trace=labelled("CIRCUIT_BREAKER_HALT")),
    Switch("stop1_enabled", off=False, trace=stops, context={"stop2_enabled": False, **NO_PRUNES}),
    Switch("stop2_enabled", off=False, trace=stops, context={"stop1_enabled": False, **NO_PRUNES}),
    Switch("funding_enabled", off=False, trace=metric("funding_pnl")),
    Switch("var_block_enabled", off=False, trace=metric("var_blocks")),
    Switch("var_deleverage_enabled", off=False, trace=labelled("PRUNE_VAR_WARNING")),
    Switch("round_number_nudge", off=0.0, trace=round_entries, prevents=True),
    Switch(
        "prune_cooldown_bars",
        off=0,
        trace=close_prunes,
        prevents=True,
        context={"var_deleverage_enabled": False},
    ),
    Switch("slippage", off=0.0, trace=slipped_at_the_end),
)
ONLY_TRADES = {
    "skew_enabled": False,
    "optimal_spread_enabled": False,
    "kelly_enabled": False,
    "stop_cooldown_enabled": False,
    "funding_bias_enabled": False,
    "funding_harvest_enabled": False,
    "low_volume_threshold": 0.0,
    "adaptive_floor_scale": 0.0,
    "trailing_reserve_pct": 0.0,
    "fill_through_bps": 0.0,
    "fill_through_ticks": 0,
    "refuse_first_touch": False,
}
"""Mechanisms whose own trace is shown on markets worked by hand, here or in the other tests."""
CONTEXTS: dict[str, Changes] = {
    "stop_cooldown_enabled": {"atr_sl_mult": 1.0, **NO_PRUNES},
    "fill_through_bps": {"fill_through_bps": 5.0},
    "fill_through_ticks": {"fill_through_ticks": 1},
    "refuse_first_touch": {"refuse_first_touch": True},
    "trailing_reserve_pct": {"order_pct": 0.2},
    "low_volume_threshold": {"order_pct": 0.2},
}


@pytest.mark.parametrize("switch", TRACED, ids=[switch.name for switch in TRACED])
def test_off_leaves_no_trace(switch: Switch) -> None:
    chosen = {} if switch.on is None else {switch.name: switch.on}
    on = trade({**switch.context, **chosen})
    off = trade({**switch.context, switch.name: switch.off})
    present, absent = (off, on) if switch.prevents else (on, off)
    assert switch.trace(present) > 0
    assert switch.trace(absent) == 0
    assert on["trades"] != off["trades"]


@pytest.mark.parametrize(
    ("rule", "context"),
    [
        ("DEVIANCE", {"deviance_sigma": 1.5}),
        ("OLDEST", {"max_position_age_hours": 6.0}),
        ("GAP", {}),
        ("FUNDING", {"funding_cost_ratio": 0.02}),
        ("OFFSET", {}),
    ],
)
def test_a_pruning_rule_that_is_off_prunes_nothing(rule: str, context: Changes) -> None:
    everything = trade({**context, "prune_enabled": RULES})
    without = trade({**context, "prune_enabled": [name for name in RULES if name != rule]})
    assert labelled(f"PRUNE_{rule}")(everything) > 0
    assert labelled(f"PRUNE_{rule}")(without) == 0
    assert everything["trades"] != without["trades"]
    none = trade({**context, "prune_enabled": (), "var_deleverage_enabled": False})
    assert none["metrics"]["prune_count"] == 0


@pytest.mark.parametrize("name", ONLY_TRADES)
def test_off_changes_the_trades(name: str) -> None:
    context = CONTEXTS.get(name, {})
    on, off = trade(context), trade({**context, name: ONLY_TRADES[name]})
    assert on["trades"] != off["trades"]


def test_every_boolean_parameter_is_tried_here() -> None:
    params = GridStrategyV4(LIVELY).params
    flags = {name for name in param_fields() if isinstance(getattr(params, name), bool)}
    tried = {switch.name for switch in TRACED} | set(ONLY_TRADES) | {"use_ml_regime"}
    assert flags <= tried


@pytest.mark.slow
def test_the_mixture_replaces_the_slope_and_knows_no_breakouts() -> None:
    slope, mixture = trade({}), trade({"use_ml_regime": True})
    assert {-2, 2} <= set(slope["regime_log"].tolist())
    assert set(mixture["regime_log"].tolist()) == {-1, 0, 1}
    assert slope["trades"] != mixture["trades"]


def first_order(changes: Changes, side: int = LONG, **more: Any) -> tuple[float, float]:
    """Return price and quantity of the nearest entry of a fresh grid at 1000."""
    scene = play([flat(1000.0)], {"allow_short": True, **changes}, **more)
    (_, price, qty), *_ = scene.entries(1, side)
    return price, qty


def test_kelly_halves_an_order_until_there_is_a_record() -> None:
    assert first_order({"kelly_enabled": True}) == (990.0, 0.505)
    assert first_order({"kelly_enabled": False}) == (990.0, 1.010)


@pytest.mark.parametrize(
    ("rate", "long", "short"),
    [(0.0003, 0.757, 1.237), (-0.0003, 1.262, 0.742), (0.0002, 1.010, 0.990)],
)
def test_harvest_makes_orders_larger_on_the_side_that_receives(
    rate: float, long: float, short: float
) -> None:
    harvest: Changes = {"funding_harvest_enabled": True}
    funding = {1: rate}
    assert first_order(harvest, funding=funding)[1] == long
    assert first_order(harvest, SHORT, funding=funding)[1] == short
    assert first_order({}, funding=funding)[1] == 1.010
    trend = first_order(harvest, funding=funding, everywhere={"regime": 1})
    assert trend[1] == 1.010


def test_the_optimal_spread_and_the_adaptive_floor_widen_the_grid_in_wild_markets() -> None:
    # gamma 0.5, kappa 1.5, T 96: half of 0.5*0.02^2*96 + 4*ln(1 + 0.5*0.02/1.5) = 0.02289.
    wild = {"sigma": 0.02}
    spread: Changes = {"optimal_spread_enabled": True, "skew_enabled": False}
    assert first_order(spread, everywhere=wild)[0] == 977.1
    assert first_order({**spread, "optimal_spread_enabled": False}, everywhere=wild)[0] == 990.0
    restless = {"atr_mean": 0.015}
    assert first_order({"adaptive_floor_scale": 2.0}, everywhere=restless)[0] == 970.0
    assert first_order({"adaptive_floor_scale": 0.0}, everywhere=restless)[0] == 990.0


def test_without_skew_a_full_grid_is_centred_on_its_reference() -> None:
    changes: Changes = {
        "regen_drift_mult": 1.0,
        "stop2_enabled": False,
        "optimal_spread_enabled": False,
    }
    wild = {"sigma": 0.01}
    sides = [
        play([BUYS_990_980, flat(985.0)], {**changes, "skew_enabled": on}, everywhere=wild).side(2)
        for on in (True, False)
    ]
    assert [side.centre < side.reference for side in sides] == [True, False]
    assert sides[1].centre == sides[1].reference == 985.0


def test_without_shorts_there_is_no_short_grid_at_all() -> None:
    scene = play([(1000.0, 1030.0, 970.0, 1000.0), flat(1000.0)], {"allow_short": False})
    assert scene.at(2).state.sides[SHORT].generation == 0
    assert {t["direction"] for t in scene.trades} == {"LONG"}


@pytest.mark.parametrize("regime", sorted(REGIME_NAMES))
def test_a_regime_lets_only_its_own_direction_enter(regime: int) -> None:
    scene = play(
        [(1000.0, 1011.0, 989.0, 1000.0)], {"allow_short": True}, everywhere={"regime": regime}
    )
    opened = {trade["direction"] for trade in scene.trades}
    assert opened == {"LONG", "SHORT"} - ({"LONG"} if regime < 0 else set()) - (
        {"SHORT"} if regime > 0 else set()
    )


@pytest.mark.parametrize("regime", sorted(REGIME_NAMES))
def test_take_profits_of_both_sides_go_on_in_every_regime(regime: int) -> None:
    swings = (1000.0, 1011.0, 989.0, 1000.0)
    gated = {1: {"regime": regime}, 2: {"regime": regime}}
    scene = play([swings, flat(1000.0), swings], {"allow_short": True}, at=gated)
    closed = {trade["label"] for trade in scene.trades if trade["bar"] == 3}
    assert {"SELL_CLOSE_LONG", "BUY_CLOSE_SHORT"} <= closed
