"""Whether a trade record is consistent in itself: its bar, label, side, quantity and fee."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from backtest.audit.files import TradeRow
from backtest.audit.ledger import LONG, RELATIVE, SHORT, Reason
from backtest.audit.market import AuditBars
from backtest.market.timeframes import format_time

ENTRY: Final = "entry"
TAKE_PROFIT: Final = "take-profit"
STOP: Final = "stop"
PRUNE: Final = "prune"
HALT: Final = "halt"
LIQUIDATION: Final = "liquidation"
CLOSE_END: Final = "close at the end"
GRID: Final = 1e-6
"""Largest distance of a price or quantity from a whole tick or lot, in ticks or lots."""

KINDS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "BUY_OPEN_LONG": (ENTRY, (LONG,)),
    "SELL_OPEN_SHORT": (ENTRY, (SHORT,)),
    "SELL_CLOSE_LONG": (TAKE_PROFIT, (LONG,)),
    "BUY_CLOSE_SHORT": (TAKE_PROFIT, (SHORT,)),
    "STOP_LONG": (STOP, (LONG,)),
    "STOP_SHORT": (STOP, (SHORT,)),
    **{
        f"PRUNE_{name}": (PRUNE, (LONG, SHORT))
        for name in ("DEVIANCE", "OLDEST", "GAP", "FUNDING", "OFFSET", "VAR_WARNING")
    },
    "CIRCUIT_BREAKER_HALT": (HALT, ("",)),
    "LIQUIDATION": (LIQUIDATION, (LONG, SHORT)),
    "CLOSE_END": (CLOSE_END, (LONG, SHORT)),
}
"""Label to its kind and the sides it may have."""
REGIMES: Final = ("NOISE", "UPTREND", "BREAKOUT_UP", "DOWNTREND", "BREAKOUT_DOWN")
NO_FILL: Final = -1


@dataclass(frozen=True)
class RowRules:
    """The facts single rows are judged by.

    Attributes:
        bars: the bars that may trade.
        market: rules of the symbol, as in the summary.
        parameters: of the run.
        first_bar: the first bar whose step acted.
    """

    bars: AuditBars
    market: Mapping[str, Any]
    parameters: Mapping[str, Any]
    first_bar: int

    def check_bar(self, row: TradeRow, before: TradeRow | None) -> Reason | None:
        """Check that bar, time and order agree with the candles."""
        if not self.first_bar <= row.bar < len(self.bars):
            expected = f"{self.first_bar} (the first that acted) to {len(self.bars) - 1}"
            return f"there is no trade in bar {row.bar}", expected
        opened = int(self.bars.ts_ms[row.bar])
        if row.timestamp != opened:
            wrong = f"timestamp is not the open of bar {row.bar}"
            return wrong, f"{opened}, {format_time(opened)}"
        text = datetime.fromtimestamp(opened // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        if row.datetime != text:
            return f"datetime is {row.datetime!r}", text
        if before is not None and row.bar < before.bar:
            return f"bar {row.bar} comes after bar {before.bar}", f"bar {before.bar} or later"
        if before is not None and row.bar == before.bar and row.regime != before.regime:
            return f"regime differs within bar {row.bar}", before.regime
        return None

    def check_label(self, row: TradeRow) -> Reason | None:
        """Check label, side and regime against each other and against what is switched on."""
        if row.label not in KINDS:
            return f"label {row.label!r} is unknown", f"one of {', '.join(KINDS)}"
        sides = KINDS[row.label][1]
        if row.direction not in sides:
            return f"direction is {row.direction!r}", f"{' or '.join(sides) or 'none'}: {row.label}"
        if row.regime not in REGIMES:
            return f"regime {row.regime!r} is unknown", f"one of {', '.join(REGIMES)}"
        if row.direction == SHORT and not self.parameters["allow_short"]:
            return "a short trade though allow_short is off", LONG
        switch = self._switched_off(row.label)
        return (f"{row.label} though {switch}", "no such row") if switch else None

    def _switched_off(self, label: str) -> str:
        """Return the parameter that rules ``label`` out, or ''."""
        name, p = label.removeprefix("PRUNE_"), self.parameters
        if name == "VAR_WARNING":
            return "" if p["var_deleverage_enabled"] else "var_deleverage_enabled is off"
        if name != label:
            return "" if name in p["prune_enabled"] else f"prune_enabled lacks {name}"
        if KINDS[label][0] == HALT:
            return "" if p["circuit_breaker_enabled"] else "circuit_breaker_enabled is off"
        off = KINDS[label][0] == STOP and not (p["stop1_enabled"] or p["stop2_enabled"])
        return "stop1_enabled and stop2_enabled are off" if off else ""

    def check_quantity(self, row: TradeRow) -> Reason | None:
        """Check lot step and the exchange's minimums."""
        kind, step = KINDS[row.label][0], float(self.market["step_size"])
        if kind == HALT:
            return None if row.qty == 0.0 else (f"qty is {row.qty!r}", "0: nothing is traded")
        lots = row.qty / step
        if lots < 1.0 - GRID:
            return f"qty is {row.qty!r}", f"at least one lot of {step:g}"
        if abs(lots - round(lots)) > GRID:
            near = math.floor(lots) * step
            return f"qty {row.qty!r} is off the lot step", f"a multiple of {step:g}: {near:.12g}"
        if kind == ENTRY:
            return self._check_minimum(row)
        return None

    def _check_minimum(self, row: TradeRow) -> Reason | None:
        least_qty, least = float(self.market["min_qty"]), float(self.market["min_notional"])
        if row.qty < least_qty * (1.0 - RELATIVE):
            return f"qty is {row.qty!r}", f"at least {least_qty:g}, the exchange's minimum"
        if row.qty * row.price < least * (1.0 - RELATIVE):
            notional = row.qty * row.price
            return f"notional is {notional:g}", f"at least {least:g}, the exchange's minimum"
        return None

    def check_fee(self, row: TradeRow, liquidation_share: float | None) -> Reason | None:
        """Check rate x notional: maker for limit orders, taker for market exits.

        Args:
            row: the record.
            liquidation_share: fee of a liquidation per notional; None for other rows.
        """
        kind, notional = KINDS[row.label][0], row.price * row.qty
        name = "fee_maker" if kind in {ENTRY, TAKE_PROFIT} else "fee_taker"
        if liquidation_share is not None:
            name, rate = "the liquidation's fee, no more than what was left", liquidation_share
        else:
            rate = float(self.parameters[name])
        if abs(row.fee - rate * notional) > RELATIVE * notional:
            expected = f"{rate * notional!r}: {rate:.6g} x {notional:.12g}, {name}"
            return f"fee is {row.fee!r}", expected
        return None
