"""The fixed grid's parameters: typed, bounded, frozen.

``config.FIXED_GRID_PARAMS`` holds the values, this module type, bounds, unit and meaning. What both
strategies have is declared in ``core.params``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Any, Final

from core.errors import ConfigError
from core.params import IntrabarPath, bounded, meaning, plain_values, read_values, shared

MAX_POSITIONS: Final = 64
MAX_RUNGS: Final = 25
STEPS_S: Final = (60, 300, 900)
"""Lengths of a step that are allowed, s."""


class Direction(IntEnum):
    """Side of the entries; the number is that of the positions, LONG or SHORT."""

    BUY = 0
    SELL = 1


class RecoveryMode(IntEnum):
    """The ways out of a stuck position."""

    AGGRESSIVE = 0
    LADDER = 1
    HEDGE = 2
    NONE = 3


class Escalation(IntEnum):
    """The actions when a ladder has stood too long."""

    ALERT = 0
    CLOSE = 1
    HEDGE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedGridParams:
    """Every value a decision may depend on, besides market data and state."""

    initial_capital: float = shared("initial_capital")
    leverage: float = bounded(1.0, 125.0, "x", "divides the margin of a position")
    direction: Direction = meaning("side of the entries: buy or sell")
    step_s: int = meaning("length of a step: 60, 300 or 900 s")

    quantity: float = bounded(0.0, 1e12, "base", "size of an order (0: by quantity_usd)")
    quantity_usd: float = bounded(0.0, 1e12, "USDT", "size of an order (0: by quantity)")
    take_profit: float = bounded(0.0002, 0.5, "of entry", "distance of the close order")
    grid_step: float = bounded(0.0001, 0.5, "of price", "least distance of two entries")
    max_orders: int = bounded(1, MAX_POSITIONS, "positions", "open at a time")
    wait_time: float = bounded(0.0, 86_400.0, "s", "cooldown of entries (0: none)")
    max_margin_usd: float = bounded(1e-6, 1e12, "USDT", "cap of the margin")
    max_position_size: float = bounded(0.0, 1e12, "base", "cap of the position (0: none)")

    stop_loss_enabled: bool = meaning("a stop for every position")
    stop_loss_pct: float = bounded(0.5, 10.0, "% of entry", "distance of a position's stop")
    position_timeout_min: float = bounded(5.0, 1440.0, "min", "age of a stuck position")
    stuck_distance_pct: float = bounded(0.1, 50.0, "% of close", "distance of a stuck position")
    recovery_mode: RecoveryMode = meaning("what is done for a stuck position")
    ladder_pct: tuple[float, ...] = bounded(1.0, 5.0, "% of price", "rungs of the ladder, rising")
    escalation_min: float = bounded(5.0, 10_080.0, "min", "a ladder may stand before escalation")
    escalation: Escalation = meaning("what is done then: alert, close or hedge")
    hedge_release_pct: float = bounded(0.05, 10.0, "% of hedge", "way back that releases a hedge")
    hedge_max_hours: float = bounded(1.0, 168.0, "hours", "a hedge may stand")
    stop_price: float | None = bounded(1e-12, 1e12, "USDT", "closes everything (none: off)")
    pause_price: float | None = bounded(1e-12, 1e12, "USDT", "no entries beyond it (none: off)")
    max_stop_orders: int = bounded(2, 9, "orders", "conditional orders at the exchange")

    funding_enabled: bool = shared("funding_enabled")
    fee_maker: float = shared("fee_maker")
    fee_taker: float = shared("fee_taker")
    slippage: float = shared("slippage")
    liquidation_fee: float = shared("liquidation_fee")
    fill_through_bps: float = shared("fill_through_bps")
    fill_through_ticks: int = shared("fill_through_ticks")
    refuse_first_touch: bool = shared("refuse_first_touch")
    intrabar_path: IntrabarPath = shared("intrabar_path")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FixedGridParams:
        """Validate ``values``, which must hold every parameter.

        Raises:
            ConfigError: a key is unknown or missing, a value of the wrong type or out of range, or
                values contradict each other.
        """
        params = cls(**read_values(cls, values))
        params.check_relations()
        return params

    def check_relations(self) -> None:
        """Raise ConfigError where values contradict each other."""
        if self.step_s not in STEPS_S:
            raise ConfigError(f"step_s = {self.step_s} must be one of 60, 300, 900 s")
        if (self.quantity > 0.0) == (self.quantity_usd > 0.0):
            raise ConfigError(
                f"quantity = {self.quantity:g} and quantity_usd = {self.quantity_usd:g}: exactly "
                "one must be above 0, set the other to 0"
            )
        if self.take_profit <= 2.0 * self.fee_maker:
            raise ConfigError(
                f"take_profit = {self.take_profit:g} must exceed 2 * fee_maker = "
                f"{2.0 * self.fee_maker:g}: every close would lose its fees"
            )
        rungs = self.ladder_pct
        if not 1 <= len(rungs) <= MAX_RUNGS or any(a >= b for a, b in pairwise(rungs)):
            raise ConfigError(
                f"ladder_pct = {list(rungs)} must be 1 to {MAX_RUNGS} rungs, each above the one "
                "before"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that ``from_dict`` accepts and JSON can hold."""
        return plain_values(self)

    @property
    def sign(self) -> float:
        """+1 where positions are long, -1 where they are short."""
        return 1.0 if self.direction is Direction.BUY else -1.0

    @property
    def position_sides(self) -> tuple[str, ...]:
        """Side of its positions; a hedge stands on the other one, for a time."""
        return ("LONG",) if self.direction is Direction.BUY else ("SHORT",)

    @property
    def stuck_bound_pct(self) -> float:
        """Distance from the close price at which the stop acts, % of the close price.

        ``100 * (take_profit + stop) / (1 +- take_profit)``: nothing can be stuck farther away.
        """
        stop = self.stop_loss_pct / 100.0
        return 100.0 * (self.take_profit + stop) / (1.0 + self.sign * self.take_profit)


def load_warnings(params: FixedGridParams) -> list[str]:
    """Return what is allowed but should be known, of the parameters alone."""
    return list(_load_warnings(params))


def _load_warnings(params: FixedGridParams) -> Iterator[str]:
    bound = params.stuck_bound_pct
    recovers = params.recovery_mode is not RecoveryMode.NONE
    if params.stop_loss_enabled and recovers and params.stuck_distance_pct >= bound:
        yield (
            f"recovery cannot happen: a position is stuck {params.stuck_distance_pct:g} % from its "
            f"close price (stuck_distance_pct), but its stop acts at {bound:.4g} %"
        )
    if params.max_margin_usd > params.initial_capital:
        yield (
            f"max_margin_usd = {params.max_margin_usd:g} is above the capital of "
            f"{params.initial_capital:g} USDT; the equity is the cap"
        )
    if 0.0 < params.wait_time < params.step_s:
        yield f"wait_time = {params.wait_time:g} s counts as one step, {params.step_s} s"
