"""Exchange rules: ticks, lots, minimum order, market-exit prices and maintenance margin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LONG = 1
SHORT = -1
BOTH_SIDES = (LONG, SHORT)
DIRECTION = {LONG: "LONG", SHORT: "SHORT"}

ROUNDING_SLACK = 1e-9
"""Ticks or lots by which a quotient may miss a whole number through float error."""


def whole_units(count: int, size: float) -> float:
    """Return ``count * size``, exact to the last digit where ``1 / size`` is whole."""
    per_one = round(1.0 / size)
    if per_one >= 1 and abs(1.0 / size - per_one) < 1e-9:
        return count / per_one
    return count * size


@dataclass(frozen=True)
class Market:
    """Rules of one contract; prices in quote, quantities in base."""

    tick_size: float
    step_size: float
    min_qty: float
    min_notional: float
    liquidation_fee: float
    brackets: tuple[tuple[float, float, float], ...]
    """(notional floor, rate, amount): maintenance = rate * notional - amount."""

    @classmethod
    def from_dict(cls, rules: Mapping[str, Any]) -> Market:
        """Read the rules; brackets are sorted by their floor."""
        return cls(
            tick_size=float(rules["tick_size"]),
            step_size=float(rules["step_size"]),
            min_qty=float(rules["min_qty"]),
            min_notional=float(rules["min_notional"]),
            liquidation_fee=float(rules["liquidation_fee"]),
            brackets=tuple(sorted((float(a), float(b), float(c)) for a, b, c in rules["brackets"])),
        )

    def ticks_down(self, price: float) -> int:
        """Return the last tick at or under ``price``."""
        return math.floor(price / self.tick_size + ROUNDING_SLACK)

    def ticks_up(self, price: float) -> int:
        """Return the first tick at or above ``price``."""
        return math.ceil(price / self.tick_size - ROUNDING_SLACK)

    def price(self, ticks: int) -> float:
        """Return the price of a tick."""
        return whole_units(ticks, self.tick_size)

    def lots_down(self, qty: float) -> int:
        """Return whole lots in ``qty``: floor(qty / step + 1e-9)."""
        return math.floor(qty / self.step_size + ROUNDING_SLACK)

    def qty(self, lots: int) -> float:
        """Return the quantity of ``lots``."""
        return whole_units(lots, self.step_size)

    @property
    def min_lots(self) -> int:
        """Smallest quantity of any order, in lots, without the notional rule."""
        return math.ceil(self.min_qty / self.step_size - ROUNDING_SLACK)

    def is_too_small(self, lots: int, price: float) -> bool:
        """Tell whether an entry is under the minimum quantity or the minimum notional."""
        return lots < self.min_lots or self.qty(lots) * price < self.min_notional - 1e-9

    def smallest_entry(self, price: float) -> int:
        """Return the fewest lots that satisfy both minimums at ``price``."""
        for_notional = math.ceil(self.min_notional / price / self.step_size - ROUNDING_SLACK)
        return max(self.min_lots, for_notional)

    def market_exit_price(self, price: float, side: int, slippage: float) -> float:
        """Return what closing ``side`` at market gets: slipped and to the tick, against us."""
        if side == LONG:
            return self.price(self.ticks_down(price * (1.0 - slippage)))
        return self.price(self.ticks_up(price * (1.0 + slippage)))

    def bracket(self, notional: float) -> tuple[float, float]:
        """Return (rate, amount) of the tier that holds ``notional``."""
        rate, amount = 0.0, 0.0
        for floor, tier_rate, tier_amount in self.brackets:
            if notional >= floor:
                rate, amount = tier_rate, tier_amount
        return rate, amount

    def maintenance(self, notional: float) -> float:
        """Return the maintenance margin of one position, in quote; 0 without a position."""
        if notional <= 0.0:
            return 0.0
        rate, amount = self.bracket(notional)
        return rate * notional - amount
