"""The exchange's rules for one symbol: tick, lot, minimums, maintenance brackets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from core.errors import ConfigError
from core.jit import kernel
from core.params import unknown_key
from core.records import zeros
from core.risk import DEFAULT_BRACKETS, MAX_BRACKETS, Brackets, fill_brackets

ROUNDING_SLACK: Final = 1e-9
"""In ticks or lots: what floating point may miss a whole one by."""


class Market:
    """``MarketRules`` as kernels read them."""

    tick_size: float  # quote
    ticks_per_unit: float  # 1 / tick_size where that is a whole number, else 0
    step_size: float  # base
    steps_per_unit: float
    min_qty: float  # base
    min_notional: float  # quote
    liquidation_fee: float  # of notional
    margin: Brackets


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketRules:
    """Rules of one symbol.

    Attributes:
        tick_size: price step, quote.
        step_size: quantity step, base.
        min_qty: smallest order, base.
        min_notional: smallest entry order, quote; closing orders are exempt.
        liquidation_fee: share of notional; None takes the strategy parameter.
        brackets: (notional floor, maintenance rate, maintenance amount), by rising floor.
    """

    tick_size: float
    step_size: float
    min_qty: float
    min_notional: float
    liquidation_fee: float | None = None
    brackets: tuple[tuple[float, float, float], ...] = DEFAULT_BRACKETS

    def __post_init__(self) -> None:
        """Refuse rules no order could be checked against."""
        for name in ("tick_size", "step_size"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"market rule {name} = {getattr(self, name)!r} must be positive")
        for name in ("min_qty", "min_notional"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"market rule {name} = {getattr(self, name)!r} must be >= 0")
        if self.liquidation_fee is not None and not 0 <= self.liquidation_fee < 1:
            raise ConfigError(
                f"market rule liquidation_fee = {self.liquidation_fee!r} must be in [0, 1)"
            )
        floors = [row[0] for row in self.brackets]
        if floors != sorted(floors):
            raise ConfigError(f"margin brackets must rise by floor, were {floors}")
        if not 1 <= len(self.brackets) <= MAX_BRACKETS:
            raise ConfigError(
                f"{len(self.brackets)} margin brackets are outside [1, {MAX_BRACKETS}]"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MarketRules:
        """Build rules from a dict of the attributes, as in ``BACKTEST_CONFIG['markets']``.

        Raises:
            ConfigError: a key is unknown or missing, or a value unusable.
        """
        declared = {item.name: item for item in fields(cls)}
        for key in values:
            if key not in declared:
                raise ConfigError(unknown_key(key, declared, "market rule"))
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"market rules {dict(values)!r}: {error}") from None

    @classmethod
    def inferred(cls, price: float) -> MarketRules:
        """Return generic rules for a market known only by a price: five digits of it."""
        decade = math.floor(math.log10(price))
        step = max(0.001, 10.0 ** (1 - decade))
        return cls(tick_size=10.0 ** (decade - 5), step_size=step, min_qty=step, min_notional=5.0)

    def to_record(self, liquidation_fee: float) -> Market:
        """Return the kernel's view; ``liquidation_fee`` is used where these rules have none."""
        market = zeros(Market)
        market.tick_size, market.ticks_per_unit = self.tick_size, _whole_inverse(self.tick_size)
        market.step_size, market.steps_per_unit = self.step_size, _whole_inverse(self.step_size)
        market.min_qty = max(self.min_qty, self.step_size)
        market.min_notional = self.min_notional
        market.liquidation_fee = (
            liquidation_fee if self.liquidation_fee is None else self.liquidation_fee
        )
        fill_brackets(market.margin, self.brackets)
        np.asarray(market).flags.writeable = False
        return market


def _whole_inverse(step: float) -> float:
    inverse = round(1.0 / step)
    return float(inverse) if inverse >= 1 and abs(inverse * step - 1.0) < ROUNDING_SLACK else 0.0


@kernel
def _multiple(count: float, step: float, per_unit: float) -> float:
    """Return ``count * step`` as the double nearest to its decimal form."""
    return count / per_unit if per_unit > 0.0 else count * step


@kernel
def tick_down(market: Market, price: float) -> float:
    """Return the highest price on the tick that is not above ``price``."""
    ticks = math.floor(price / market.tick_size + 1e-9)
    return _multiple(ticks, market.tick_size, market.ticks_per_unit)


@kernel
def tick_up(market: Market, price: float) -> float:
    """Return the lowest price on the tick that is not below ``price``."""
    ticks = math.ceil(price / market.tick_size - 1e-9)
    return _multiple(ticks, market.tick_size, market.ticks_per_unit)


@kernel
def lots_down(market: Market, qty: float) -> float:
    """Return the largest quantity on the lot step that is not above ``qty``."""
    lots = math.floor(qty / market.step_size + 1e-9)
    return _multiple(lots, market.step_size, market.steps_per_unit)


@kernel
def lots_up(market: Market, qty: float) -> float:
    """Return the smallest quantity on the lot step that is not below ``qty``."""
    lots = math.ceil(qty / market.step_size - 1e-9)
    return _multiple(lots, market.step_size, market.steps_per_unit)


@kernel
def lots_nearest(market: Market, qty: float) -> float:
    """Return ``qty`` with the rounding noise of earlier sums taken off."""
    lots = math.floor(qty / market.step_size + 0.5)
    return _multiple(lots, market.step_size, market.steps_per_unit)
