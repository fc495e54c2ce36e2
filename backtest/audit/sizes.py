"""Whether an entry's size was possible: its order's share of equity, and the caps on what is held.

Bounds, not values: an order keeps its quantity while it rests, and what Kelly, cooldown, harvest,
reserve and thin volume made of it cannot be told from the files. A size is wrong where no step up
to its bar could have placed it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backtest.audit.files import TradeRow
from backtest.audit.ledger import RELATIVE, SIGNS, Ledger, OpenFill, Reason
from backtest.audit.market import AuditBars
from backtest.audit.rules import GRID


@dataclass
class SizeRules:
    """The facts sizes are judged by.

    Attributes:
        bars: the bars that may trade.
        market: rules of the symbol, as in the summary.
        parameters: of the run.
        lowest: equity at an open so far, quote.
        highest: likewise.
    """

    bars: AuditBars
    market: Mapping[str, Any]
    parameters: Mapping[str, Any]
    lowest: float = math.inf
    highest: float = -math.inf
    _bar: int = -1
    _at: dict[int, float] = field(default_factory=dict)

    def look(self, bar: int, ledger: Ledger) -> None:
        """Note the equity at a bar's open, as it stands after another record of the bar."""
        equity = ledger.equity(float(self.bars.open[bar]))
        self.lowest, self.highest = min(self.lowest, equity), max(self.highest, equity)
        if bar != self._bar:
            self._at = {k: highest for k, highest in self._at.items() if k == bar - 1}
            self._bar = bar
        self._at[bar] = max(self._at.get(bar, -math.inf), equity)

    def check_entry(self, row: TradeRow, ledger: Ledger) -> Reason | None:
        """Return what is wrong with the size of the entry ``row``, which is not booked yet."""
        return (
            self._check_order(row)
            or self._check_count(row, ledger)
            or self._check_caps(row, ledger)
        )

    def _check_order(self, row: TradeRow) -> Reason | None:
        """Check ``equity * order_pct * leverage`` with the least and the most that scales it."""
        p, step = self.parameters, float(self.market["step_size"])
        share = float(p["order_pct"]) * float(p["leverage"])
        least, most = self._scales()
        notional = row.qty * row.price
        bound = self.highest * share * most
        if row.qty > self._minimum(row.price) * (1.0 + RELATIVE) and notional > bound * (
            1.0 + RELATIVE
        ):
            expected = f"at most {bound:.6g}: order_pct, leverage and harvest on "
            return (
                f"an order of {notional:.6g} USDT",
                f"{expected}{self.highest:.6g}, the highest equity so far",
            )
        lots = math.floor(max(self.lowest, 0.0) * share * least / row.price / step + RELATIVE)
        if row.qty / step < lots - GRID:
            expected = f"at least {lots * step:.12g}: order_pct, leverage and the smallest factors"
            return (
                f"an order of {row.qty:g}",
                f"{expected} on {self.lowest:.6g}, the lowest equity so far",
            )
        return None

    def _scales(self) -> tuple[float, float]:
        """Return the least and the most that Kelly, cooldown and harvest make of an order."""
        p, least, most = self.parameters, 1.0, 1.0
        if p["kelly_enabled"]:
            least *= min(1.0, p["kelly_min"], p["kelly_default"])
        if p["stop_cooldown_enabled"]:
            least *= min(1.0, p["stop_cooldown_factor"])
        if p["funding_harvest_enabled"]:
            factors = (1.0, p["funding_harvest_boost"], p["funding_harvest_cut"])
            least, most = least * min(factors), max(factors)
        return least, most

    def _minimum(self, price: float) -> float:
        """Return the exchange's smallest order at ``price``, which a reduced one is raised to."""
        step = float(self.market["step_size"])
        least = max(float(self.market["min_qty"]), float(self.market["min_notional"]) / price)
        return math.ceil(least / step - RELATIVE) * step

    def _check_count(self, row: TradeRow, ledger: Ledger) -> Reason | None:
        """Check ``max_inventory_per_side``; what is closed to ``tp_concentration`` counts not."""
        most = int(self.parameters["max_inventory_per_side"])
        left = 1.0 - float(self.parameters["tp_concentration"]) + RELATIVE
        step = ledger.step_size
        held = sum(
            fill.lots * step > left * fill.row.qty + GRID * step
            for fill in ledger.held(row.direction)
        )
        if held < most:
            return None
        wrong = f"it makes {held + 1} open fills of {row.direction}"
        return wrong, f"at most {most}, max_inventory_per_side"

    def _check_caps(self, row: TradeRow, ledger: Ledger) -> Reason | None:
        """Check the caps of the side and of both, at the step of this bar or the one before."""
        p, equity = self.parameters, max(self._at.values())
        for name, fills in (
            ("max_position_pct", ledger.held(row.direction)),
            ("max_capital_pct", [fill for side in SIGNS for fill in ledger.held(side)]),
        ):
            held = self._notional(fills, ledger.step_size) + row.qty * row.price
            cap = equity * float(p[name]) * float(p["leverage"])
            if held > cap * (1.0 + RELATIVE):
                whose = f"of {row.direction}" if name == "max_position_pct" else "of both sides"
                return f"it makes {held:.6g} USDT {whose}", f"at most {cap:.6g}, {name}"
        return None

    def _notional(self, fills: list[OpenFill], step_size: float) -> float:
        """Return what ``fills`` counted at least when the order was allowed, quote.

        A fill older than the step counts at its open; a younger one was an order at its price.
        """
        opens = [float(self.bars.open[k]) for k in (self._bar - 1, self._bar) if k >= 0]
        return sum(min(fill.row.price, *opens) * fill.lots * step_size for fill in fills)
