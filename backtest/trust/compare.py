"""The worth of each mechanism: the strategy without it, and a grid without any of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest.runs.coin_result import CoinResult
from backtest.runs.variants import run_side_by_side
from core.params import PruneRule, StrategyParams
from core.performance import BARS_PER_YEAR, equity_metrics
from core.times import BAR_MS
from engine.results import RunResult

STATIC: Final = "static grid"
FULL: Final = "full strategy"

STATIC_GRID: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "regime_enabled": False,
        "adx_veto_enabled": False,
        "skew_enabled": False,
        "optimal_spread_enabled": False,
        "adaptive_floor_scale": 0.0,
        # Its bound for people is 100 spacings, which a grid of half percents would reach.
        "regen_drift_mult": math.inf,
        "round_number_nudge": 0.0,
        "trailing_enabled": False,
        "low_volume_threshold": 0.0,
        "kelly_enabled": False,
        "stop_cooldown_enabled": False,
        "funding_bias_enabled": False,
        "funding_harvest_enabled": False,
        "circuit_breaker_enabled": False,
        "stop1_enabled": False,
        "stop2_enabled": False,
        "prune_enabled": PruneRule(0),
        "var_block_enabled": False,
        "var_deleverage_enabled": False,
    }
)
"""Entries and take-profits around the first price, and nothing else.

What is left are the grid's geometry (levels, spacing from ATR and floor at the first step,
take-profit shares), its size limits and its costs.
"""

MECHANISMS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "regime": ("regime_enabled",),
        "ADX veto": ("adx_veto_enabled",),
        "skew": ("skew_enabled",),
        "optimal spread": ("optimal_spread_enabled",),
        "adaptive floor": ("adaptive_floor_scale",),
        "re-centring": ("regen_drift_mult",),
        "round numbers": ("round_number_nudge",),
        "trailing": ("trailing_enabled",),
        "low-volume scaling": ("low_volume_threshold",),
        "Kelly": ("kelly_enabled",),
        "cooldown": ("stop_cooldown_enabled",),
        "funding bias": ("funding_bias_enabled",),
        "funding harvest": ("funding_harvest_enabled",),
        "breaker": ("circuit_breaker_enabled",),
        "stop stage 1": ("stop1_enabled",),
        "stop stage 2": ("stop2_enabled",),
        "both stops": ("stop1_enabled", "stop2_enabled"),
        "all prunings": ("prune_enabled",),
        "VaR block": ("var_block_enabled",),
        "VaR de-leverage": ("var_deleverage_enabled",),
    }
)
"""Mechanism and the parameters of ``STATIC_GRID`` that remove it; prunings come besides."""

_PRUNING: Final = "prune "


@dataclass(frozen=True)
class Row:
    """One line of a comparison.

    Attributes:
        name: ``STATIC``, ``FULL`` or the mechanism removed.
        total_return_pct: of the run.
        max_drawdown_pct: of the run.
        calmar_ratio: of the run; NaN without drawdown.
        trades: round trips.
        fees: quote.
        cost: percentage points of return that the full strategy has more than this run.
    """

    name: str
    total_return_pct: float
    max_drawdown_pct: float
    calmar_ratio: float
    trades: int
    fees: float
    cost: float


def mechanisms() -> list[str]:
    """Return the names of everything that can be removed."""
    return [*MECHANISMS, *(f"{_PRUNING}{_rule_name(rule)}" for rule in PruneRule)]


def without(params: StrategyParams, mechanism: str) -> StrategyParams:
    """Return ``params`` with one of ``mechanisms()`` removed."""
    if mechanism.startswith(_PRUNING):
        rule = PruneRule[mechanism.removeprefix(_PRUNING).upper()]
        return replace(params, prune_enabled=params.prune_enabled & ~rule)
    return replace(params, **{name: STATIC_GRID[name] for name in MECHANISMS[mechanism]})


def without_all(params: StrategyParams) -> StrategyParams:
    """Return ``params`` with every mechanism removed, one after the other."""
    return reduce(without, mechanisms(), params)


def static_grid(params: StrategyParams) -> StrategyParams:
    """Return the static grid with the geometry, size limits and costs of ``params``."""
    return replace(params, **STATIC_GRID)


def _rule_name(rule: PruneRule) -> str:
    return (rule.name or "").lower()


def removals(params: StrategyParams) -> dict[str, StrategyParams]:
    """Return what is run besides ``params``, by name; what it lacks is not removed again."""
    found = {name: without(params, name) for name in mechanisms()}
    return {STATIC: static_grid(params)} | {
        name: variant for name, variant in found.items() if variant != params
    }


def add_outcomes(
    variants: Any,
    result: RunResult,
    threads: int | None = None,
    removed: Callable[[Any], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return ``outcomes``: of every variant, by name.

    Args:
        variants: of the full strategy.
        result: of the full strategy.
        threads: runs at a time; None: one per processor.
        removed: answers with the variants by name; None: ``removals``.
    """
    wanted = (removed or removals)(variants.params)
    for params in wanted.values():
        variants.prepare(params)  # made once, before threads ask for it
    jobs = [partial(_slim_run, variants, params) for params in wanted.values()]
    found = dict(zip(wanted, run_side_by_side(jobs, threads), strict=True))
    return {"outcomes": {FULL: result, **found}, "bar_times": variants.times_ms}


def _slim_run(variants: Any, params: Any) -> RunResult:
    """Return a run whose log holds equity alone: of minutes it has a million rows in two years."""
    run: RunResult = variants.run(params)
    return replace(run, log=run.log[["equity"]].astype([("equity", np.float64)]))


def coin_rows(result: CoinResult) -> list[Row]:
    """Return a coin's comparison: static grid and full strategy, then what removal costs most."""
    outcomes = result.outcomes
    full = outcomes[FULL].metrics["total_return_pct"]
    return _sorted(
        [_row(name, outcome.metrics, outcome.metrics, full) for name, outcome in outcomes.items()]
    )


def overall_rows(results: Sequence[CoinResult]) -> list[Row]:
    """Return the comparison of all coins together, each with the same capital of its own.

    Drawdowns are those of the summed equity on the bars all coins have.
    """
    common = reduce(np.intersect1d, [result.more["bar_times"] for result in results])
    names = [name for name in results[0].outcomes if all(name in r.outcomes for r in results)]
    initial = float(sum(result.params.initial_capital for result in results))
    metrics, a_year = {}, BARS_PER_YEAR * BAR_MS / _bar_ms(common)
    for name in names:
        curves = [_on(result, name, common) for result in results]
        metrics[name] = equity_metrics(np.sum(curves, axis=0), initial, a_year)
    full = metrics[FULL]["total_return_pct"]
    return _sorted([_row(name, metrics[name], _counts(results, name), full) for name in names])


def _bar_ms(times: npt.NDArray[np.int64]) -> float:
    """Return the length of candles that open at ``times``, ms; of one candle the default's."""
    return float(np.median(np.diff(times))) if len(times) > 1 else float(BAR_MS)


def _on(result: CoinResult, name: str, times: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    curve: npt.NDArray[np.float64] = result.outcomes[name].equity_curve
    return curve[np.searchsorted(result.more["bar_times"], times)]


def _counts(results: Sequence[CoinResult], name: str) -> dict[str, Any]:
    parts = [result.outcomes[name].metrics for result in results]
    return {key: sum(part[key] for part in parts) for key in ("total_trades", "fees_paid")}


def _row(name: str, ratios: Mapping[str, Any], counts: Mapping[str, Any], full: float) -> Row:
    return Row(
        name=name,
        total_return_pct=ratios["total_return_pct"],
        max_drawdown_pct=ratios["max_drawdown_pct"],
        calmar_ratio=ratios["calmar_ratio"],
        trades=counts["total_trades"],
        fees=counts["fees_paid"],
        cost=full - ratios["total_return_pct"],
    )


def _sorted(rows: list[Row]) -> list[Row]:
    order = {STATIC: 0, FULL: 1}
    return sorted(rows, key=lambda row: (order.get(row.name, len(order)), -row.cost))
