"""Whether a trade record's price was possible: the bar's path, the open, slippage, the tick."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from backtest.audit.files import TradeRow
from backtest.audit.ledger import LONG, RELATIVE, SIGNS, Ledger, Reason
from backtest.audit.market import AuditBars
from backtest.audit.rules import CLOSE_END, ENTRY, GRID, HALT, KINDS, LIQUIDATION, STOP, TAKE_PROFIT


@dataclass(frozen=True)
class PriceRules:
    """The facts prices are judged by.

    Attributes:
        bars: the bars that may trade.
        market: rules of the symbol, as in the summary.
        parameters: of the run.
    """

    bars: AuditBars
    market: Mapping[str, Any]
    parameters: Mapping[str, Any]

    def check(self, row: TradeRow, ledger: Ledger, *, leads: bool) -> Reason | None:
        """Check that the bar's path allows the price.

        Args:
            row: the record.
            ledger: the account before it.
            leads: it is the first of its event.
        """
        kind = KINDS[row.label][0]
        ticks = row.price / self._tick
        if kind not in {HALT, LIQUIDATION} and not self._is_on_tick(ticks):
            near = max(1, round(ticks)) * self._tick
            return f"price {row.price!r} is off the tick", f"near {near:.12g}"
        if kind in {ENTRY, TAKE_PROFIT}:
            return self._check_limit(row) or self._check_break_even(row, ledger)
        if kind == STOP:
            return self._check_stop(row, ledger, leads=leads)
        if kind == LIQUIDATION:
            return self._check_liquidation(row, ledger, leads=leads)
        return self._check_at_known_price(row, kind)

    @property
    def _tick(self) -> float:
        return float(self.market["tick_size"])

    @staticmethod
    def _is_on_tick(ticks: float) -> bool:
        return abs(ticks - round(ticks)) <= GRID and ticks > 1.0 - GRID

    def _check_limit(self, row: TradeRow) -> Reason | None:
        """Check that the path from the close before went through a limit order's price.

        It must reach the price, and go past it as far as ``fill_through_bps`` and
        ``fill_through_ticks`` demand. An order that rests has not been passed before, except where
        a first touch is refused: then an earlier bar has reached it.
        """
        p, bars, i = self.parameters, self.bars, row.bar
        heading = 1.0 if row.label.startswith("SELL") else -1.0
        demanded = row.price * p["fill_through_bps"] * 1e-4 + p["fill_through_ticks"] * self._tick
        reach, slack = row.price + heading * demanded, RELATIVE * row.price
        low, high = self._path(i)
        if p["refuse_first_touch"]:
            lowest, highest = (0.0, high) if heading > 0.0 else (low, math.inf)
        elif heading > 0.0:
            lowest, highest = min(low, float(bars.before_low[i])), high
        else:
            lowest, highest = low, max(high, float(bars.before_high[i]))
        if not lowest - slack <= reach <= highest + slack:
            least, most = lowest - heading * demanded, highest - heading * demanded
            return f"price {row.price!r} is outside its bar", f"{least:.12g} to {most:.12g}"
        if p["refuse_first_touch"] and not self._was_reached_before(i, reach, slack):
            wrong = f"no bar before {i} reached {row.price!r}"
            return wrong, "a fill at a second touch: refuse_first_touch is on"
        return None

    def _path(self, bar: int) -> tuple[float, float]:
        """Return the lowest and highest price of a bar's path.

        What a first touch has refused is offered again at the close before.
        """
        low, high = float(self.bars.low[bar]), float(self.bars.high[bar])
        if self.parameters["refuse_first_touch"]:
            before = float(self.bars.before_close[bar])
            return min(low, before), max(high, before)
        return low, high

    def _was_reached_before(self, bar: int, price: float, slack: float) -> bool:
        bars = self.bars
        low = np.minimum(bars.low[:bar], bars.before_low[:bar])
        high = np.maximum(bars.high[:bar], bars.before_high[:bar])
        return bool(np.any((low - slack <= price) & (price <= high + slack)))

    def _check_break_even(self, row: TradeRow, ledger: Ledger) -> Reason | None:
        """Check that a take-profit earns its fees: ``entry * (1 + f)/(1 - f)``, f = fee_maker."""
        fill = ledger.fills.get(row.fill_id)
        if KINDS[row.label][0] != TAKE_PROFIT or fill is None or self.parameters["tp_below_entry"]:
            return None
        fee = float(self.parameters["fee_maker"])
        bound = fill.row.price * ((1.0 + fee) / (1.0 - fee)) ** fill.sign
        if fill.sign * (row.price - bound) < -RELATIVE * bound:
            beyond = "at least" if fill.sign > 0.0 else "at most"
            return f"price {row.price!r} is under its fill's break-even", f"{beyond} {bound:.12g}"
        return None

    def _check_at_known_price(self, row: TradeRow, kind: str) -> Reason | None:
        """Check a halt and the market exits that happen at the bar's open or the last close."""
        basis, where = float(self.bars.open[row.bar]), "the bar's open"
        if kind == CLOSE_END:
            last = len(self.bars) - 1
            if row.bar != last:
                return f"CLOSE_END in bar {row.bar}", f"bar {last}, the last one"
            basis, where = float(self.bars.close[last]), "the last close"
        if kind == HALT:
            same = math.isclose(row.price, basis, rel_tol=RELATIVE)
            return None if same else (f"price is {row.price!r}", f"{basis!r}: {where}")
        if self._is_market_exit(row, basis):
            return None
        expected = self._market_price(row.direction, basis)
        return f"price is {row.price!r}", f"{expected:.12g}: {where}, {basis!r}, with slippage"

    def _market_price(self, position_side: str, basis: float) -> float:
        """Return the price of a market exit at ``basis``: slippage against us, then the tick."""
        ticks = (
            basis * (1.0 - SIGNS[position_side] * float(self.parameters["slippage"])) / self._tick
        )
        whole = (
            math.floor(ticks + RELATIVE) if position_side == LONG else math.ceil(ticks - RELATIVE)
        )
        return max(1, whole) * self._tick

    def _is_market_exit(self, row: TradeRow, basis: float) -> bool:
        """Return whether ``row`` is a market exit at ``basis``; at a tie of ticks, either one."""
        slippage = float(self.parameters["slippage"])
        exact = basis * (1.0 - SIGNS[row.direction] * slippage) / self._tick
        ticks = row.price / self._tick
        if row.direction == LONG and exact < 1.0:
            return ticks <= 1.0 + GRID
        return -GRID <= SIGNS[row.direction] * (exact - ticks) < 1.0 + GRID

    def _check_stop(self, row: TradeRow, ledger: Ledger, *, leads: bool) -> Reason | None:
        """Check a stop: at the open (stage 1, or passed already), or on the bar's path."""
        bars, i, slack = self.bars, row.bar, GRID * self._tick
        at_open = self._is_market_exit(row, float(bars.open[i]))
        low, high = (self._market_price(row.direction, end) for end in self._path(i))
        if not at_open and not low - slack <= row.price <= high + slack:
            expected = f"{low:.12g} to {high:.12g}: its bar, with slippage, to the tick"
            return f"price {row.price!r} is outside its bar", expected
        entry = ledger.average_entry(row.direction)
        if not leads or entry is None:
            return None
        sign, slack = SIGNS[row.direction], RELATIVE * entry
        judged = float(bars.before_close[i])  # stage 1 looks at the close before
        loses = sign * (row.price - entry) <= slack
        if loses or (at_open and sign * (judged - entry) <= slack):
            return None
        return f"a stop at {row.price!r} takes a gain", f"a loss against the entry, {entry:.12g}"

    def is_at_open(self, row: TradeRow) -> bool:
        """Return whether ``row`` is a market exit at its bar's open."""
        return self._is_market_exit(row, float(self.bars.open[row.bar]))

    def _check_liquidation(self, row: TradeRow, ledger: Ledger, *, leads: bool) -> Reason | None:
        """Check that the path reached the price and the margin no longer sufficed there."""
        (low, high), slack = self._path(row.bar), RELATIVE * row.price
        if not low - slack <= row.price <= high + slack:
            return f"price {row.price!r} is outside its bar", f"{low:.12g} to {high:.12g}"
        equity, needed = ledger.equity(row.price), ledger.maintenance(row.price)
        if leads and equity > needed + GRID * (1.0 + ledger.notional(row.price)):
            wrong = f"equity at {row.price!r} was {equity:.6f}"
            return wrong, f"at most the maintenance margin, {needed:.6f}"
        return None
