"""Goes through a run's trade records in order and stops at the first that cannot be right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from tqdm import tqdm  # type: ignore[import-untyped]  # no stubs installed

from backtest.audit.files import Finding, Summary, TradeRow, TradesFile, row_finding
from backtest.audit.ledger import Ledger, Reason
from backtest.audit.market import AuditBars
from backtest.audit.prices import PriceRules
from backtest.audit.rules import (
    CLOSE_END,
    ENTRY,
    HALT,
    KINDS,
    LIQUIDATION,
    PRUNE,
    STOP,
    TAKE_PROFIT,
    RowRules,
)
from backtest.audit.sizes import SizeRules
from backtest.market.timeframes import format_time

_BAR_DELAY_SECONDS: Final = 1.0
CLOSE_END_LABEL: Final = "CLOSE_END"
PRICES_CHECKED: Final = {
    ENTRY: "entries inside their bar's path, on the tick",
    TAKE_PROFIT: "take-profits inside their bar's path, on the tick, above break-even",
    STOP: "stops on their bar's path, at a loss, with slippage",
    PRUNE: "prunes at the open, with slippage",
    HALT: "halts at the open",
    LIQUIDATION: "liquidated fills where the margin did not suffice",
    CLOSE_END: "closes at the end, at the last close, with slippage",
}
"""Kind of record to what was checked of its price."""


class TradeAudit:
    """One run's records against its candles and funding rates.

    Args:
        bars: the bars that may trade.
        summary: rules, parameters and first bar of the run.
    """

    def __init__(self, bars: AuditBars, summary: Summary) -> None:
        self.bars, self.parameters = bars, summary.parameters
        self.rules = RowRules(bars, summary.market, summary.parameters, summary.first_bar)
        self.prices = PriceRules(bars, summary.market, summary.parameters)
        self.sizes = SizeRules(bars, summary.market, summary.parameters)
        self.ledger = Ledger(
            capital=float(summary.parameters["initial_capital"]),
            step_size=float(summary.market["step_size"]),
            market=summary.market,
        )
        own_fee = summary.market["liquidation_fee"]
        self._liquidation_fee = float(
            summary.parameters["liquidation_fee"] if own_fee is None else own_fee
        )
        self._share: float | None = None
        self._event_fills: list[int] = []
        self.counts: Counter[str] = Counter()
        self.settlements = 0

    def run(self, trades: TradesFile, title: str = "audit") -> Finding | None:
        """Return the first thing that is wrong, None if nothing is; ``title`` is its bar's."""
        settled = 0
        before: TradeRow | None = None
        for row, after in _with_next(trades.rows, title):
            reason = self.rules.check_bar(row, before) or self.rules.check_label(row)
            if reason is None:
                settled = self._settle(settled, row.bar + (row.label == CLOSE_END_LABEL))
                self.sizes.look(row.bar, self.ledger)
                leads = before is None or _event(before) != _event(row)
                reason = self._check(row, before, leads=leads)
            if reason is None:
                self._book(row)
                if after is None or _event(after) != _event(row):
                    reason = self._close_event(row)
            if reason is not None:
                return row_finding(row, *reason)
            before = row
        if trades.damage is None:
            self._settle(settled, len(self.bars))
        return trades.damage or self._left_open()

    def _settle(self, start: int, stop: int) -> int:
        """Book the funding of the bars ``start`` to ``stop - 1`` and return ``stop``."""
        charged = self.parameters["funding_enabled"]
        for bar in range(start, stop):
            self.sizes.look(bar, self.ledger)
            rate = float(self.bars.due[bar])
            if charged and rate != 0.0:
                self.settlements += 1
                self.ledger.settle(bar, rate, float(self.bars.close[bar]))
        return max(start, stop)

    def _check(self, row: TradeRow, before: TradeRow | None, *, leads: bool) -> Reason | None:
        """Check one row whose bar and label are right."""
        kind = KINDS[row.label][0]
        if before is not None and before.label == CLOSE_END_LABEL != row.label:
            return "it comes after everything was closed at the end", "no more rows"
        reason = self.prices.check(row, self.ledger, leads=leads) or self.rules.check_quantity(row)
        if reason is not None:
            return reason
        if kind == LIQUIDATION and leads:
            self._share = self._liquidation_share(row.price)
        share = self._share if kind == LIQUIDATION else None
        return self._check_fill(row, kind) or self.rules.check_fee(row, share)

    def _check_fill(self, row: TradeRow, kind: str) -> Reason | None:
        if kind == ENTRY:
            return self.ledger.check_entry(row) or self.sizes.check_entry(row, self.ledger)
        if kind == HALT:
            return None if row.pnl == 0.0 else (f"pnl is {row.pnl!r}", "0: nothing is traded")
        return self.ledger.check_close(row)

    def _liquidation_share(self, price: float) -> float:
        """Return the fee of a liquidation per notional: the rate, or all that is left."""
        notional, left = self.ledger.notional(price), self.ledger.equity(price)
        if notional == 0.0:
            return self._liquidation_fee  # the row closes nothing that is open: found next
        self.ledger.ended = self._liquidation_fee * notional >= left
        return min(self._liquidation_fee, left / notional)

    def _book(self, row: TradeRow) -> None:
        self.ledger.book(row)
        self.counts[PRICES_CHECKED[KINDS[row.label][0]]] += 1
        self._event_fills.append(row.fill_id)

    def _close_event(self, row: TradeRow) -> Reason | None:
        """Check what must hold when the last row of one event is booked."""
        kind = KINDS[row.label][0]
        fills, self._event_fills = self._event_fills, []
        if kind == LIQUIDATION:
            self.ledger.liquidations += 1
            if self.ledger.fills:
                return "the liquidation leaves fills open", "both sides flat"
        if kind == STOP:
            self._count_stop(row, fills)
        if kind == STOP and not self.prices.is_at_open(row) and self.ledger.held(row.direction):
            wrong = f"the stop at {row.price!r} leaves fills of {row.direction} open"
            return wrong, f"the side flat, or the exit at the bar's open (stage 1), {row.bar}"
        return None

    def _count_stop(self, row: TradeRow, fills: list[int]) -> None:
        """Count the stop events whose records have one price in one bar: one, or both stages.

        Stage 1 at the open may be followed by a wick stop that is passed already. They are two for
        sure where a fill was closed in two parts, and may be where several fills were.
        """
        twice = len(set(fills)) < len(fills)
        flat = not self.ledger.held(row.direction)
        maybe = twice or (flat and len(fills) > 1 and self.prices.is_at_open(row))
        least, most = self.ledger.stops.get(row.direction, (0, 0))
        self.ledger.stops[row.direction] = least + 1 + twice, most + 1 + maybe

    def _left_open(self) -> Finding | None:
        """Return the oldest fill that no row closes."""
        for fill in self.ledger.fills.values():
            left = fill.lots * self.ledger.step_size
            last = format_time(int(self.bars.ts_ms[-1]))
            wrong = f"fill {fill.row.fill_id} is never closed: {left:g} are left"
            return row_finding(fill.row, wrong, f"rows that close it, CLOSE_END at {last} at last")
        return None


def _event(row: TradeRow) -> tuple[int, str, float]:
    """Return what the rows of one event have in common."""
    return row.bar, row.label, row.price


def _with_next(rows: list[TradeRow], title: str) -> Iterator[tuple[TradeRow, TradeRow | None]]:
    """Yield each row and the one after it, under a progress bar if it takes long."""
    after: list[TradeRow | None] = [*rows[1:], None]
    pairs = zip(rows, after[: len(rows)], strict=True)
    yield from tqdm(
        pairs, total=len(rows), desc=title, delay=_BAR_DELAY_SECONDS, leave=False, disable=None
    )
