"""Spacing, asymmetry, reservation price and lattice of one side's generation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.engine.reference.market import LONG, SHORT, Market

NEAR_ROUND = 0.001
"""A level this close to a round number, relative to itself, is moved."""


@dataclass(frozen=True)
class Generation:
    """A side's grid: made at one step and kept until the side is regenerated."""

    number: int
    reference: float
    """m."""
    centre: float
    """r."""
    entry_pct: float
    exit_pct: float
    spacing: float
    """entry pct * m, in price."""
    entries: dict[int, int]
    """Level k -> ticks, nearest first."""
    exits: dict[int, int]
    """Level k -> ticks, k = -grid_levels..+grid_levels."""


def base_pct(params: Mapping[str, Any], signal: Mapping[str, Any], price: float) -> float:
    """Return pct = max(grid_spacing_k * ATR / p, floor, delta / 2), relative to price.

    delta = gamma*sigma^2*T + (2/gamma)*ln(1 + gamma/k') with k' = kappa/sigma (Avellaneda and
    Stoikov 2008, optimal spread). gamma/k' is written gamma*sigma/kappa, which is 0 at sigma = 0.
    """
    floor = max(params["spacing_floor"], params["adaptive_floor_scale"] * signal["atr_mean"])
    pct = max(params["grid_spacing_k"] * signal["atr"] / price, floor)
    if params["optimal_spread_enabled"]:
        gamma, sigma = params["gamma"], signal["sigma"]
        delta = gamma * sigma * sigma * params["as_time_horizon"]
        delta += (2.0 / gamma) * math.log(1.0 + gamma * sigma / params["kappa"])
        pct = max(pct, delta / 2.0)
    return float(pct)


def asymmetry(
    params: Mapping[str, Any], side: int, regime: int, er: float, funding_rate: float
) -> float:
    """Return the factor on a side's entry pct: by regime, or by funding in NOISE."""
    if regime != 0:
        with_trend = (regime > 0) == (side == LONG)
        return max(0.5, 1.0 - er / 2.0) if with_trend else 1.0 + er
    if params["funding_bias_enabled"] and abs(funding_rate) > params["funding_threshold"]:
        pays = side * funding_rate > 0.0
        factor = float(params["funding_bias_factor"])
        return factor if pays else 1.0 / factor
    return 1.0


def reservation_price(
    params: Mapping[str, Any], reference: float, fill_share: float, side: int, sigma: float
) -> float:
    """Return r = m * (1 - q*gamma*sigma^2*T), q signed; m when the skew is off."""
    if not params["skew_enabled"]:
        return reference
    risk = params["gamma"] * sigma * sigma * params["as_time_horizon"]
    return float(reference * (1.0 - side * fill_share * risk))


def raw_level(params: Mapping[str, Any], centre: float, pct: float, k: int) -> float:
    """Return the exact level k: r*(1+pct)^k, or r + k*pct*r in arithmetic mode."""
    if params["grid_mode"] == "arithmetic":
        return centre + k * pct * centre
    factor = 1.0
    for _ in range(abs(k)):
        factor *= 1.0 + pct
    return centre * factor if k > 0 else centre / factor


def off_round_number(level: float, outward: int, nudge: float) -> float:
    """Move a level near a multiple of R = 10^floor(log10(level) - 1) away from r."""
    if nudge == 0.0:
        return level
    unit = 10.0 ** math.floor(math.log10(level) - 1.0)
    nearest = round(level / unit) * unit
    if abs(level - nearest) <= NEAR_ROUND * level:
        return level * (1.0 + outward * nudge)
    return level


def lattice_arm(
    params: Mapping[str, Any],
    market: Market,
    centre: float,
    pct: float,
    *,
    outward: int,
    level_zero: int | None,
) -> dict[int, int]:
    """Return levels 1..grid_levels on one side of r (``outward`` +1 above, -1 under), in ticks.

    Each is off round numbers, on the tick away from r and at least a tick beyond its inner
    neighbour. Levels that would not be positive do not exist.
    """
    arm: dict[int, int] = {}
    inner = level_zero
    for distance in range(1, params["grid_levels"] + 1):
        level = raw_level(params, centre, pct, outward * distance)
        if level <= 0.0:
            break
        level = off_round_number(level, outward, params["round_number_nudge"])
        ticks = market.ticks_up(level) if outward > 0 else market.ticks_down(level)
        if inner is not None:
            ticks = max(ticks, inner + 1) if outward > 0 else min(ticks, inner - 1)
        if ticks <= 0:
            break
        arm[outward * distance] = ticks
        inner = ticks
    return arm


def exit_lattice(
    params: Mapping[str, Any], market: Market, centre: float, pct: float, side: int
) -> dict[int, int]:
    """Return all exit levels; level 0 is not nudged, its tick is up for longs, down for shorts."""
    zero = market.ticks_up(centre) if side == LONG else market.ticks_down(centre)
    under = lattice_arm(params, market, centre, pct, outward=-1, level_zero=zero)
    above = lattice_arm(params, market, centre, pct, outward=+1, level_zero=zero)
    return dict(sorted({**under, 0: zero, **above}.items()))


def make_generation(
    params: Mapping[str, Any],
    market: Market,
    signal: Mapping[str, Any],
    side: int,
    *,
    number: int,
    reference: float,
    price: float,
    fill_share: float,
    funding_rate: float,
) -> Generation:
    """Build the grid of ``side`` around ``reference``; ``fill_share`` is |q|, ``price`` is p."""
    exit_pct = base_pct(params, signal, price)
    factor = asymmetry(params, side, int(signal["regime"]), signal["er"], funding_rate)
    entry_pct = max(exit_pct * factor, 4.0 * params["fee_maker"])
    centre = reservation_price(params, reference, fill_share, side, signal["sigma"])
    outward = -1 if side == LONG else +1
    return Generation(
        number=number,
        reference=reference,
        centre=centre,
        entry_pct=entry_pct,
        exit_pct=exit_pct,
        spacing=entry_pct * reference,
        entries=lattice_arm(params, market, centre, entry_pct, outward=outward, level_zero=None),
        exits=exit_lattice(params, market, centre, exit_pct, side),
    )


def stop_unit(params: Mapping[str, Any], generation: Generation, atr: float) -> float:
    """Return A = max(ATR, exit pct * m / grid_spacing_k), in price."""
    return float(max(atr, generation.exit_pct * generation.reference / params["grid_spacing_k"]))


def wick_stop(market: Market, side: int, average_entry: float, distance: float) -> float:
    """Return the stage-2 stop, to the tick away from the price."""
    if side == SHORT:
        return market.price(market.ticks_up(average_entry + distance))
    return market.price(market.ticks_down(average_entry - distance))
