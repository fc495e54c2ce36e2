"""Geometry of the grid: spacing, levels, round numbers, order size."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from core.jit import kernel
from core.market import Market, lots_down, lots_up, tick_down, tick_up
from core.records import Table

ARITHMETIC: Final = 1
"""``GridMode.ARITHMETIC`` as kernels compare it."""
ROUND_NUMBER_BAND: Final = 0.001
"""A level this near to a round number, relative to itself, is on it (inclusive)."""
MIN_SPACING_MAKER_FEES: Final = 4.0
"""An entry spacing never goes under this many maker fees."""
HIGHEST_PRICE: Final = 1e15
"""Beyond it a tick is lost in rounding."""
CLOSE_TICKS: Final = 8.0
CLOSE_SHARE: Final = 1e-12
"""With ``CLOSE_TICKS``: prices farther apart than this, relative, are so whatever rounding does."""
NOTIONAL_SLACK: Final = 1e-9
"""Quote: what floating point may miss the minimum notional by."""
TREND_NARROWEST: Final = 0.5

Floats = npt.NDArray[np.float64]


@kernel
def calculate_dynamic_spacing(
    atr: float, spacing_k: float, spacing_floor: float, ref_price: float
) -> float:
    """Return ``max(spacing_k * atr, spacing_floor * ref_price)``, a distance in quote units."""
    return max(spacing_k * atr, spacing_floor * ref_price)


@kernel
def trend_spacing_factor(regime: int, efficiency_ratio: float, sign: float) -> float:
    """Return the entry spacing multiplier of a side (+1 long, -1 short) in a trend.

    With the trend ``max(0.5, 1 - ER/2)``, against it ``1 + ER``, in NOISE 1.
    """
    if regime == 0:
        return 1.0
    if regime * sign > 0.0:
        return max(TREND_NARROWEST, 1.0 - efficiency_ratio / 2.0)
    return 1.0 + efficiency_ratio


@kernel
def decade_of(price: float, guess: float) -> float:
    """Return ``10^floor(log10(price))`` of a finite positive ``price``, searched from ``guess``."""
    decade = guess
    while decade * 10.0 <= price:
        decade *= 10.0
    while decade > price:
        decade /= 10.0
    return decade


@kernel
def is_between_round_numbers(level: float, per_unit: float) -> bool:
    """Return whether ``level`` lies at no round number for certain, whatever rounding does.

    There are ``per_unit`` round numbers to a quote unit. True for most levels, without a division.
    """
    units = level * per_unit
    return abs(units - math.floor(units + 0.5)) > ROUND_NUMBER_BAND * units * (1.0 + 1e-9)


@kernel
def move_off_round_number(level: float, centre: float, nudge: float, decade: float) -> float:
    """Return ``level`` moved away from ``centre`` by ``nudge`` if it lies at a round number.

    Round numbers are the multiples of ``decade / 10``, the decade being that of ``level``.
    """
    unit = decade / 10.0
    nearest = math.floor(level / unit + 0.5) * unit
    if abs(level - nearest) > ROUND_NUMBER_BAND * level * (1.0 + 1e-12):
        return level
    return level * (1.0 + nudge) if level > centre else level * (1.0 - nudge)


@kernel
def exact_level(
    centre: float, pct: float, k: int, growth: float, heading: float, mode: int
) -> float:
    """Return level ``k`` before rounding; ``growth`` is ``(1+pct)^k``, ``heading`` +1 or -1."""
    if mode == ARITHMETIC:
        return centre + heading * k * pct * centre
    return centre * growth if heading > 0.0 else centre / growth


@kernel
def tick_beyond(market: Market, level: float, heading: float, previous: float) -> float:
    """Return ``level`` on the tick in the direction of ``heading``, a tick beyond ``previous``.

    Farther away than ticks and rounding reach it is beyond for certain: that spares nearly all
    levels waiting for the one before.
    """
    price = tick_up(market, level) if heading > 0.0 else tick_down(market, level)
    apart = CLOSE_TICKS * market.tick_size + CLOSE_SHARE * price
    if previous <= 0.0 or heading * (price - previous) > apart:
        return price
    if heading > 0.0:
        return max(price, tick_up(market, previous + market.tick_size))
    return min(price, tick_down(market, previous - market.tick_size))


@kernel
def fill_ladder(
    out: Table[float],
    offset: int,
    stride: int,
    count: int,
    centre: float,
    pct: float,
    heading: float,
    mode: int,
    nudge: float,
    previous: float,
    market: Market,
) -> None:
    """Write ``count`` levels on one side of ``centre`` into ``out``, nearest first.

    ``level_k = centre * (1+pct)^k`` (or ``centre + k*pct*centre``), moved off round numbers, put
    on the tick away from ``centre`` and kept at least one tick beyond the one before. A level that
    would be no price (not positive, or beyond any) is 0, and so are those behind it.

    Args:
        out: prices; level ``k`` goes to ``out[offset + (k - 1) * stride]``.
        offset: index of the nearest level.
        stride: index distance between levels.
        count: number of levels.
        centre: quote.
        pct: distance between levels, relative.
        heading: +1 for levels above the centre, -1 below.
        mode: ``GridMode``.
        nudge: relative move off round numbers, 0 turns it off.
        previous: the level before the nearest one; 0 if there is none.
        market: tick size.
    """
    growth, decade, per_unit = 1.0, 1.0, 10.0
    for k in range(1, count + 1):
        growth *= 1.0 + pct
        level = exact_level(centre, pct, k, growth, heading, mode)
        if not 0.0 < level < HIGHEST_PRICE:
            out[offset + (k - 1) * stride] = 0.0
            continue
        if nudge > 0.0:
            if not decade <= level < decade * 10.0:
                decade = decade_of(level, decade)
                per_unit = 10.0 / decade
            if not is_between_round_numbers(level, per_unit):
                level = move_off_round_number(level, centre, nudge, decade)
        level = tick_beyond(market, level, heading, previous)
        if level <= 0.0:  # nor are there any farther out
            for rest in range(k, count + 1):
                out[offset + (rest - 1) * stride] = 0.0
            return
        out[offset + (k - 1) * stride] = level
        previous = level


@kernel
def is_large_enough(market: Market, qty: float, price: float) -> bool:
    """Return whether the exchange takes an entry of ``qty`` (on the lot step) at ``price``."""
    return qty >= market.min_qty and qty * price >= market.min_notional - NOTIONAL_SLACK


@kernel
def order_quantity(market: Market, equity_share: float, scale: float, price: float) -> float:
    """Return the quantity of an entry order in base units, 0 where none is possible.

    Args:
        market: lot step and minimums.
        equity_share: quote amount of an order at full scale.
        scale: Kelly, cooldown and harvest multiplied.
        price: of the level.
    """
    reduced = lots_down(market, equity_share * scale / price)
    if is_large_enough(market, reduced, price):
        return reduced
    if is_large_enough(market, lots_down(market, equity_share / price), price):
        return minimum_quantity(market, price)
    return 0.0


@kernel
def minimum_quantity(market: Market, price: float) -> float:
    """Return the smallest entry order at ``price`` the exchange takes, base units."""
    return lots_up(market, max(market.min_qty, market.min_notional / price))


def generate_grid_levels(
    anchor_price: float, buy_spacing: float, sell_spacing: float, grid_levels_count: int = 10
) -> tuple[Floats, Floats]:
    """Return buy and sell levels at constant distances (quote) from the anchor, nearest first."""
    k = np.arange(1, grid_levels_count + 1, dtype=np.float64)
    buys = anchor_price - k * buy_spacing
    return buys[buys > 0.0], anchor_price + k * sell_spacing


def generate_geometric_grid_levels(
    anchor_price: float, buy_pct: float, sell_pct: float, grid_levels_count: int = 10
) -> tuple[Floats, Floats]:
    """Return buy and sell levels at constant ratios from the anchor, nearest first."""
    k = np.arange(1, grid_levels_count + 1, dtype=np.float64)
    return anchor_price / (1.0 + buy_pct) ** k, anchor_price * (1.0 + sell_pct) ** k
