"""Parameters of the strategy: A2 with the ranges of A15.17, refused in one line where wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from tests.engine.fixed_grid_reference.market import LONG, SHORT, Market

PATHS = ("auto", "low_first", "high_first")
RANGES: dict[str, tuple[float, float]] = {
    "take_profit": (0.0002, 0.5),
    "grid_step": (0.0001, 0.5),
    "max_orders": (1, 64),
    "wait_time": (0.0, 86_400.0),
    "stop_loss_pct": (0.5, 10.0),
    "position_timeout_min": (5.0, 1440.0),
    "stuck_distance_pct": (0.1, 50.0),
    "escalation_min": (5.0, 10_080.0),
    "hedge_release_pct": (0.05, 10.0),
    "hedge_max_hours": (1.0, 168.0),
    "max_stop_orders": (2, 9),
    "max_position_size": (0.0, math.inf),
    "leverage": (1.0, 125.0),
}


@dataclass(frozen=True)
class Params:
    """Shipped values; times in the unit of the name, ``_pct`` in percent, shares of 1 else."""

    direction: str = "buy"
    quantity: float = 0.0
    quantity_usd: float = 200.0
    take_profit: float = 0.008
    grid_step: float = 0.002
    max_orders: int = 25
    wait_time: float = 10.0
    max_margin_usd: float = 5000.0
    max_position_size: float = 0.0
    stop_loss_enabled: bool = True
    stop_loss_pct: float = 5.0
    position_timeout_min: float = 60.0
    stuck_distance_pct: float = 3.0
    recovery_mode: str = "ladder"
    ladder_pct: tuple[float, ...] = (1.5, 3.0, 4.5)
    escalation_min: float = 120.0
    escalation: str = "alert"
    hedge_release_pct: float = 0.5
    hedge_max_hours: float = 24.0
    stop_price: float | None = None
    pause_price: float | None = None
    max_stop_orders: int = 8
    leverage: float = 1.0
    initial_capital: float = 10_000.0
    fee_maker: float = 0.0002
    fee_taker: float = 0.0005
    slippage: float = 0.0005
    fill_through_bps: float = 0.0
    fill_through_ticks: int = 0
    intrabar_path: str = "auto"
    step_s: int = 60

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Params:
        """Read a partial mapping over the shipped values.

        A quantity given without the other one replaces it.

        Raises:
            ValueError: a key or a value is not allowed.
        """
        known = {field.name for field in fields(cls)}
        for name in values:
            if name not in known:
                raise ValueError(f"{name} is no parameter of fixed_grid")
        asked = dict(values)
        if "quantity" in asked and "quantity_usd" not in asked:
            asked["quantity_usd"] = 0.0
        if "ladder_pct" in asked:
            asked["ladder_pct"] = tuple(asked["ladder_pct"])
        params = cls(**asked)
        check_choices(params)
        check_numbers(params)
        return params

    @property
    def sgn(self) -> int:
        """+1 where the strategy buys (LONG), -1 where it sells (SHORT)."""
        return LONG if self.direction == "buy" else SHORT


def check_choices(params: Params) -> None:
    """Refuse a value that is not one of the words allowed."""
    for name, allowed in (
        ("direction", ("buy", "sell")),
        ("recovery_mode", ("aggressive", "ladder", "hedge", "none")),
        ("escalation", ("alert", "close", "hedge")),
        ("intrabar_path", PATHS),
        ("step_s", (60, 300, 900)),
    ):
        value = getattr(params, name)
        if value not in allowed:
            raise ValueError(f"{name} = {value!r} must be one of {allowed}")


def check_numbers(params: Params) -> None:
    """Refuse what is not a finite number, outside its range, or inconsistent."""
    for name in [field.name for field in fields(params)]:
        value = getattr(params, name)
        if name in {"stop_price", "pause_price"} and value is None:
            continue
        if isinstance(getattr(Params, name, None), int | float) or value is None or name in RANGES:
            check_finite(name, value)
    for name, (low, high) in RANGES.items():
        if not low <= getattr(params, name) <= high:
            raise ValueError(f"{name} = {getattr(params, name)} is outside {low}..{high}")
    for name in ("max_margin_usd", "initial_capital", "stop_price", "pause_price"):
        value = getattr(params, name)
        if value is not None and not value > 0.0:
            raise ValueError(f"{name} = {value} must be above 0")
    check_combinations(params)


def check_finite(name: str, value: Any) -> None:
    """Refuse text, NaN and inf."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} = {value!r} must be a finite number")


def check_combinations(params: Params) -> None:
    """Refuse values that are allowed alone but not together."""
    if (params.quantity > 0.0) == (params.quantity_usd > 0.0):
        raise ValueError("exactly one of quantity and quantity_usd must be above 0")
    if params.quantity < 0.0 or params.quantity_usd < 0.0:
        raise ValueError("quantity and quantity_usd must not be negative")
    if params.take_profit <= 2.0 * params.fee_maker:
        raise ValueError(f"take_profit = {params.take_profit} must exceed 2 * fee_maker")
    rungs = params.ladder_pct
    rises = all(a < b for a, b in pairwise(rungs))
    within = all(isinstance(r, int | float) and 1.0 <= r <= 5.0 for r in rungs)
    if not rungs or len(rungs) > 25 or not rises or not within:
        raise ValueError(f"ladder_pct = {rungs} must be 1 to 25 rungs in 1..5 %, strictly rising")


def check_market(params: Params, market: Market, price: float) -> None:
    """Refuse a quantity off the lot or under the minimum, a cap under one order, a passed stop."""
    if params.quantity > 0.0:
        lots = market.lots_down(params.quantity)
        if abs(market.qty(lots) - params.quantity) > 1e-9 * params.quantity:
            raise ValueError(f"quantity = {params.quantity} is off the lot {market.step_size}")
    else:
        lots = market.lots_down(params.quantity_usd / price)
    if market.is_too_small(lots, price):
        raise ValueError(f"an order of {market.qty(lots)} is under the exchange's minimum")
    margin = market.qty(lots) * price / params.leverage
    if margin > params.max_margin_usd:
        raise ValueError(f"max_margin_usd = {params.max_margin_usd} is under one order's {margin}")
    if params.stop_price is not None and params.sgn * (price - params.stop_price) <= 0.0:
        raise ValueError(f"stop_price = {params.stop_price}: the price {price} is beyond it")


def reachable_stuck_distance(params: Params) -> float:
    """Return the bound in percent under which ``stuck_distance_pct`` must lie to matter."""
    stop = params.stop_loss_pct / 100.0
    return 100.0 * (params.take_profit + stop) / (1.0 + params.sgn * params.take_profit)


def load_warnings(params: Params) -> list[str]:
    """Return what is allowed but should be known before the start."""
    warnings = []
    bound = reachable_stuck_distance(params)
    recovers = params.recovery_mode != "none"
    if params.stop_loss_enabled and recovers and params.stuck_distance_pct >= bound:
        warnings.append(
            f"recovery cannot happen: stuck_distance_pct = {params.stuck_distance_pct} is not "
            f"under {bound:.4g}, where the stop acts first"
        )
    if params.max_margin_usd > params.initial_capital:
        warnings.append(
            f"max_margin_usd = {params.max_margin_usd} is above the capital "
            f"{params.initial_capital}; equity is the cap"
        )
    if 0.0 < params.wait_time < params.step_s:
        warnings.append(f"wait_time = {params.wait_time} s counts as one step, {params.step_s} s")
    return warnings
