"""Exchange rules: ticks, lots, minimum order, market-order prices and maintenance margin.

``sgn`` is +1 for a long position and -1 for a short one everywhere in this package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LONG = 1
SHORT = -1
DIRECTION = {LONG: "LONG", SHORT: "SHORT"}

ROUNDING_SLACK = 1e-9
"""Ticks or lots by which a quotient may miss a whole number through float error."""
SEVEN_TIERS = (
    (0.0, 0.004),
    (50_000.0, 0.005),
    (250_000.0, 0.01),
    (1_000_000.0, 0.025),
    (10_000_000.0, 0.05),
    (20_000_000.0, 0.10),
    (50_000_000.0, 0.125),
)
"""(notional floor, rate) where a coin's own brackets are not known."""


def reached(value: float, threshold: float) -> bool:
    """Return whether ``value >= threshold``, equal within 1e-12 relative."""
    return value >= threshold - 1e-12 * abs(threshold)


def affordable(needed: float, cap: float) -> bool:
    """Return whether a sum of money is within ``cap``, equal within 1e-9 relative."""
    return needed <= cap + 1e-9 * abs(cap)


def whole_units(count: int, size: float) -> float:
    """Return ``count * size``, exact to the last digit where ``1 / size`` is whole."""
    per_one = round(1.0 / size)
    if per_one >= 1 and abs(1.0 / size - per_one) < 1e-9:
        return count / per_one
    return count * size


def joined_brackets(tiers: tuple[tuple[float, float], ...]) -> tuple[tuple[float, ...], ...]:
    """Return (floor, rate, amount) with amounts that make maintenance continuous."""
    joined: list[tuple[float, ...]] = []
    amount, last_rate = 0.0, 0.0
    for floor, rate in tiers:
        amount += floor * (rate - last_rate) if joined else 0.0
        joined.append((floor, rate, amount))
        last_rate = rate
    return tuple(joined)


@dataclass(frozen=True)
class Market:
    """Rules of one contract; prices in quote, quantities in base."""

    tick_size: float
    step_size: float
    min_qty: float
    min_notional: float
    liquidation_fee: float = 0.0125
    brackets: tuple[tuple[float, ...], ...] = joined_brackets(SEVEN_TIERS)
    """(notional floor, rate, amount): maintenance = rate * notional - amount; rates rise."""

    @classmethod
    def from_mapping(cls, rules: Mapping[str, Any]) -> Market:
        """Read the rules; brackets are sorted by their floor, seven tiers where none are given."""
        tiers = joined_brackets(SEVEN_TIERS)
        if "brackets" in rules:
            tiers = tuple(sorted(tuple(float(x) for x in row) for row in rules["brackets"]))
        return cls(
            tick_size=float(rules["tick_size"]),
            step_size=float(rules["step_size"]),
            min_qty=float(rules["min_qty"]),
            min_notional=float(rules["min_notional"]),
            liquidation_fee=float(rules.get("liquidation_fee", 0.0125)),
            brackets=tiers,
        )

    def tick_down(self, price: float) -> float:
        """Return the last tick at or under ``price``."""
        return whole_units(math.floor(price / self.tick_size + ROUNDING_SLACK), self.tick_size)

    def tick_up(self, price: float) -> float:
        """Return the first tick at or above ``price``."""
        return whole_units(math.ceil(price / self.tick_size - ROUNDING_SLACK), self.tick_size)

    def tick_back(self, sgn: int, price: float) -> float:
        """Return the tick on the loss side: down for a long, up for a short."""
        return self.tick_down(price) if sgn == LONG else self.tick_up(price)

    def tick_onward(self, sgn: int, price: float) -> float:
        """Return the tick on the profit side: up for a long, down for a short; one tick at least.

        No order exists at a price of 0, which a short's take-profit could come to.
        """
        return max(self.tick_size, self.tick_up(price) if sgn == LONG else self.tick_down(price))

    def lots_down(self, qty: float) -> int:
        """Return whole lots in ``qty``: floor(qty / step + 1e-9)."""
        return math.floor(qty / self.step_size + ROUNDING_SLACK)

    def qty(self, lots: int) -> float:
        """Return the quantity of ``lots``."""
        return whole_units(lots, self.step_size)

    @property
    def min_lots(self) -> int:
        """Smallest quantity of any order, in lots, without the notional rule."""
        return max(1, math.ceil(self.min_qty / self.step_size - ROUNDING_SLACK))

    def is_too_small(self, lots: int, price: float) -> bool:
        """Return whether an opening order is under the minimum quantity or notional."""
        return lots < self.min_lots or self.qty(lots) * price < self.min_notional - 1e-9

    def market_price(self, price: float, sgn: int, slippage: float) -> float:
        """Return what a market order that sells (``sgn`` +1) or buys (-1) at ``price`` gets.

        Slipped against us, to the tick, against us. Closing a long sells, and so does opening the
        short hedge of a long.
        """
        if sgn == LONG:
            return self.tick_down(price * (1.0 - slippage))
        return self.tick_up(price * (1.0 + slippage))

    def maintenance(self, notional: float) -> float:
        """Return the maintenance margin of one position, in quote; 0 without a position."""
        if notional <= 0.0:
            return 0.0
        rate, amount = self.tier(notional)
        return rate * notional - amount

    def tier(self, notional: float) -> tuple[float, float]:
        """Return (rate, amount) of the bracket that holds ``notional``."""
        rate, amount = 0.0, 0.0
        for floor, tier_rate, tier_amount in self.brackets:
            if notional >= floor:
                rate, amount = tier_rate, tier_amount
        return rate, amount
