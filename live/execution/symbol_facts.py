"""The symbol's rules as they are now: read again daily, and whenever a refusal speaks of them."""

from __future__ import annotations

import logging
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from typing import Final

from core.errors import GridError
from core.market import MarketRules
from core.orders import OrderKind
from live.exchange.port import Clock, MarketReader
from live.exchange.types import MarketFacts, OrderSpec

DAY_MS: Final = 86_400_000
LEAST_MS: Final = 30_000
"""Between two readings that refusals ask for."""


class SymbolFacts:
    """The exchange's facts of the symbol.

    Args:
        facts: as read at the start.
        reader: of what it says later.
        clock: of all times.
        log: of the session.
    """

    def __init__(
        self, facts: MarketFacts, reader: MarketReader, clock: Clock, log: logging.Logger
    ) -> None:
        self.now = facts
        self._reader, self._clock, self._log = reader, clock, log
        self._read_ms = clock.now_ms()
        self._is_doubted = False

    @property
    def rules(self) -> MarketRules:
        """Tick, lot, minimums and brackets of now."""
        return self.now.rules

    def doubt(self) -> None:
        """Note that a refusal spoke of the rules: they are read again before the next orders."""
        self._is_doubted = True

    def refresh(self) -> str:
        """Read the rules again where that is due; return what has changed, '' if nothing has.

        Where they cannot be read the known ones hold on.
        """
        age_ms = self._clock.now_ms() - self._read_ms
        if not (self._is_doubted and age_ms >= LEAST_MS) and 0 <= age_ms < DAY_MS:
            return ""
        self._read_ms = self._clock.now_ms()
        try:
            facts = self._reader.read_market()
        except GridError as error:
            self._log.warning("the rules cannot be read again: %s", error)
            return ""
        self._is_doubted = False
        changed = differences(self.now, facts)
        self.now = facts
        return changed

    def on_rules(self, spec: OrderSpec) -> OrderSpec:
        """Return an order with price and quantity on tick and lot of now.

        A limit moves away from the price, a stop to the nearest tick; a quantity is cut.
        """
        rules, price = self.rules, spec.price
        if price > 0.0:
            rounding = ROUND_FLOOR if spec.side == "BUY" else ROUND_CEILING
            if spec.kind is OrderKind.STOP:
                rounding = ROUND_HALF_EVEN
            price = _snapped(price, rules.tick_size, rounding)
        qty = _snapped(spec.qty, rules.step_size, ROUND_FLOOR)
        return OrderSpec(
            client_id=spec.client_id,
            kind=spec.kind,
            position_side=spec.position_side,
            price=price,
            qty=qty,
            closes_all=spec.closes_all,
            opens=spec.opens,
        )


def _snapped(value: float, step: float, rounding: str) -> float:
    """Return the multiple of ``step`` that ``value`` is rounded to, but for rounding errors."""
    exact_step = Decimal(repr(step))
    count = (Decimal(repr(float(value))) / exact_step).quantize(Decimal("0.001"))
    return float(count.to_integral_value(rounding) * exact_step)


def differences(old: MarketFacts, new: MarketFacts) -> str:
    """Return what differs in a way that orders notice, for a person."""
    pairs = (
        ("tick", old.rules.tick_size, new.rules.tick_size),
        ("lot", old.rules.step_size, new.rules.step_size),
        ("smallest order", old.rules.min_qty, new.rules.min_qty),
        ("smallest notional", old.rules.min_notional, new.rules.min_notional),
        ("largest market order", old.max_market_qty, new.max_market_qty),
        ("status", old.status, new.status),
    )
    told = [f"{name} {was} -> {now}" for name, was, now in pairs if was != now]
    if old.rules.brackets != new.rules.brackets:
        told.append("the margin brackets")
    return ", ".join(told)
