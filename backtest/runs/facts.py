"""Facts a reader must know about a run besides its figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from backtest.market.market_data import MarketData
from backtest.market.sources import DEMO
from backtest.market.timeframes import format_time, timeframe_ms
from core.errors import CapitalError
from core.funding import merge_settlements
from core.market import MarketRules
from core.params import StrategyParams, param_fields
from core.times import DAY_MS
from engine.contract import Backtest, StrategySpec
from engine.results import RunResult


def data_facts(
    market: MarketData, first: int, timeframe: str, detail: str | None, funding_source: str
) -> dict[str, Any]:
    """Return where a run's data came from and what is wrong with it, JSON-ready.

    Args:
        market: all that was loaded.
        first: the first bar that may trade; those before warm the indicators up.
        timeframe: length of a candle.
        detail: length of the finer candles asked for, or None.
        funding_source: where the rates of the run came from.

    Returns:
        ``source hash timeframe``; ``start end`` (of what may trade, UTC text, end exclusive);
        ``bars warmup_bars``; ``gaps`` (each ``from to bars``, of all that was loaded) and
        ``missing_bars``; ``zero_volume_bars``; ``funding``; ``detail`` and the share of traded
        bars that have it, ``detail_coverage_pct``.
    """
    times = market.candles["timestamp"].to_numpy()
    gaps = market.gaps
    return {
        "source": market.source,
        "hash": market.data_hash,
        "timeframe": timeframe,
        "start": format_time(int(times[first])),
        "end": format_time(int(times[-1]) + market.bar_ms),
        "bars": len(times) - first,
        "warmup_bars": first,
        "gaps": [
            {"from": format_time(a), "to": format_time(b), "bars": bars} for a, b, bars in gaps
        ],
        "missing_bars": sum(bars for _, _, bars in gaps),
        "zero_volume_bars": market.zero_volume_bars,
        "funding": _funding_words(market, funding_source),
        "detail": detail,
        "detail_coverage_pct": _detail_coverage(market, times[first:], detail),
    }


def loaded_range(start_ms: int, end_ms: int) -> dict[str, str]:
    """Return the range asked for, warm-up included, so that the same data can be loaded again."""
    return {"loaded_from": format_time(start_ms), "loaded_to": format_time(end_ms)}


def _funding_words(market: MarketData, origin: str) -> str:
    """Return where funding rates come from; those of the demo are on record, but not real."""
    return origin.replace("real", "made up") if market.source == DEMO else origin


def _detail_coverage(market: MarketData, times: Any, detail: str | None) -> float:
    """Return the share of traded bars all of whose finer candles are there, in percent."""
    if detail is None or market.detail is None:
        return 0.0
    fine = market.detail["timestamp"].to_numpy()
    counts = np.searchsorted(fine, times + market.bar_ms) - np.searchsorted(fine, times)
    whole = market.bar_ms // timeframe_ms(detail)
    return 100.0 * float(np.mean(counts >= whole))


def changed_params(params: Mapping[str, Any], spec: StrategySpec) -> dict[str, dict[str, Any]]:
    """Return the parameters that differ from the shipped, as ``{name: {value, default}}``."""
    shipped = spec.read().to_dict()
    return {
        name: {"value": params[name], "default": shipped[name]}
        for name in params
        if params[name] != shipped[name]
    }


ROUNDING_SHARE: Final = 0.1
"""From this share of a spacing or an order on, what rounding takes is reported."""


def check_capital(coin: str, strategy: Backtest, rules: MarketRules, result: RunResult) -> None:
    """Refuse a run in which no order was possible because all were under the minimum.

    Raises:
        CapitalError: naming capital, leverage and order size that would do.
    """
    if not strategy.state.too_small or result.metrics["turnover"] > 0.0:
        return
    params = strategy.params
    order = params.initial_capital * params.order_pct * params.leverage
    raise CapitalError(
        f"initial_capital = {params.initial_capital:g} USDT is too small for any order of {coin}: "
        f"an order of it is worth {order:.2f} USDT (x order_pct {params.order_pct:g} x leverage "
        f"{params.leverage:g}) and must be at least {_least_order(rules)}; "
        f"use {_remedies(strategy)}"
    )


def _least_order(rules: MarketRules) -> str:
    return f"{rules.min_notional:g} USDT and {max(rules.min_qty, rules.step_size):g} in quantity"


def _remedies(strategy: Backtest) -> str:
    """Return the changes, each sufficient alone, that make one order possible."""
    params = strategy.params
    # Prices move: a tenth more than the order that was just too small needed.
    needed = _round_up(1.1 * float(strategy.state.capital_needed))
    factor = needed / params.initial_capital
    ways = [f"--capital {needed:g}"]
    for flag, name in (("--leverage ", "leverage"), ("--set order_pct=", "order_pct")):
        value = _round_up(factor * getattr(params, name))
        if value <= param_fields()[name].metadata["high"]:
            ways.append(f"{flag}{value:g}")
    return " or ".join(ways) + " or more"


def _round_up(value: float) -> float:
    """Return the next number of two significant digits that is not below ``value``."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit - 1e-9) * unit


def rounding_notices(
    coin: str, params: StrategyParams, rules: MarketRules, price: float
) -> list[str]:
    """Return what rounding to the tick or the lot does to a grid, where that is much.

    Args:
        coin: base coin.
        params: spacing and order size.
        rules: of the symbol.
        price: at which trading begins, quote.
    """
    notices, spacing = [], params.spacing_floor * price
    if rules.tick_size > ROUNDING_SHARE * spacing:
        notices.append(
            f"{coin}: a tick of {rules.tick_size:g} is {100.0 * rules.tick_size / spacing:.0f} % "
            f"of the narrowest spacing ({spacing:g} at {price:g}): levels and take-profits are "
            "rounded by that much, and a part of the result is rounding"
        )
    order = params.initial_capital * params.order_pct * params.leverage
    lot = rules.step_size * price
    if ROUNDING_SHARE * order < lot <= order:
        notices.append(
            f"{coin}: a lot of {rules.step_size:g} is worth {lot:.2f} USDT, "
            f"{100.0 * lot / order:.0f} % of an order of {order:.2f}: orders are cut by up to that "
            "much"
        )
    return notices


LONG_HOLE_MS: Final = DAY_MS
"""From this length on a hole in the candles is reported for its funding."""


def hole_notices(market: MarketData, first_bar: int = 0) -> list[str]:
    """Return what long holes in the candles do to funding: what was settled in one is due at once.

    Args:
        market: candles and settlements.
        first_bar: holes before it trade nothing.
    """
    candles = market.candles
    begin = int(candles["timestamp"].iloc[first_bar])
    long_ones = [(a, b) for a, b, _ in market.gaps if b - a >= LONG_HOLE_MS and a > begin]
    if not long_ones:
        return []
    times, rates, modelled = merge_settlements(
        candles["timestamp"].to_numpy(),
        candles["close"].to_numpy(),
        market.funding["timestamp"].to_numpy(),
        np.array(market.funding["rate"], dtype=np.float64),
        market.bar_ms,
    )
    notices = []
    for start, end in long_ones:
        inside = (times >= start) & (times < end)
        if not inside.any():
            continue
        made_up = int(np.sum((modelled >= start) & (modelled < end)))
        share = 100.0 * float(np.sum(rates[inside]))
        notices.append(
            f"{market.coin}: candles are missing for {(end - start) / DAY_MS:.1f} days from "
            f"{format_time(start)}; the {int(inside.sum())} funding settlements in them "
            f"({made_up} of the model) were charged at once on what was held before, "
            f"{share:+.2f} % of it for longs: run the parts before and after by --start and --end"
        )
    return notices


def run_notices(coin: str, strategy: Backtest, result: RunResult) -> list[str]:
    """Return warnings about a run that went through, most important first."""
    state, metrics, notices = strategy.state, result.metrics, []
    if state.ended:
        at = format_time(int(result.trades["ts_ms"][-1]))
        notices.append(f"{coin}: liquidated to 0 at {at}; the run ended there")
    if state.too_small:
        notices.append(
            f"{coin}: for a time the capital was too small for the exchange's minimum order; "
            f"{_round_up(float(state.capital_needed)):g} USDT would have done"
        )
    if metrics["turnover"] == 0.0:
        notices.append(f"{coin}: nothing was traded")
    if metrics["capacity_reached"]:
        notices.append(
            f"{coin}: at {metrics['capacity_reached']} steps the table of open fills was full and "
            "kept entries back"
        )
    return notices
