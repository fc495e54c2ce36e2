"""Wallet, open fills and funding of a run, rebuilt from its trade records row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from backtest.audit.files import TradeRow

LONG: Final = "LONG"
SHORT: Final = "SHORT"
AT_END: Final = "CLOSE_END"
"""Label of what is closed at market when a run ends."""
SIGNS: Final[Mapping[str, float]] = {LONG: 1.0, SHORT: -1.0}
RELATIVE: Final = 1e-9
"""Largest rounding error of an amount, as a share of its notional or price."""

Reason = tuple[str, str]
"""The fault, and what is expected instead."""


@dataclass
class OpenFill:
    """An entry that is not wholly closed yet."""

    row: TradeRow
    lots: int
    pnl: float = 0.0
    exit_fees: float = 0.0

    @property
    def sign(self) -> float:
        """+1 for a long fill, -1 for a short one."""
        return SIGNS[self.row.direction]


@dataclass(frozen=True, slots=True)
class Change:
    """The change of the account by one row or settlement; lots are positive where it opened.

    ``at_end``: a row that closed what was open when the run ended.
    """

    bar: int
    wallet: float  # quote
    signed_lots: float = 0.0  # longs positive, shorts negative
    open_lots: float = 0.0  # both positive
    entry_price: float = 0.0
    at_end: bool = False


@dataclass
class Ledger:
    """The account as its records make it.

    Attributes:
        capital: starting wallet, quote.
        step_size: lot step, base.
        market: rules of the symbol, as in the summary.
        stops: how many stop events of a side there were at least and at most.
        liquidations: events.
    """

    capital: float
    step_size: float
    market: Mapping[str, Any]
    wallet: float = field(init=False)
    fills: dict[int, OpenFill] = field(default_factory=dict)
    next_id: int = 0
    fees: float = 0.0
    funding: float = 0.0
    turnover: float = 0.0
    gross_profit: float = 0.0
    gross_loss: float = 0.0
    wins: int = 0
    round_trips: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    payments: list[tuple[int, float]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    stops: dict[str, tuple[int, int]] = field(default_factory=dict)
    liquidations: int = 0
    ended: bool = False

    def __post_init__(self) -> None:
        """Start with the capital."""
        self.wallet = self.capital

    def held(self, position_side: str) -> list[OpenFill]:
        """Return the open fills of one side, oldest first."""
        return [fill for fill in self.fills.values() if fill.row.direction == position_side]

    def average_entry(self, position_side: str) -> float | None:
        """Return the average entry price of one side, None when it is flat."""
        fills = self.held(position_side)
        lots = sum(fill.lots for fill in fills)
        return sum(fill.row.price * fill.lots for fill in fills) / lots if lots else None

    def notional(self, price: float) -> float:
        """Return the notional of both sides at ``price``, quote."""
        return price * self.step_size * sum(fill.lots for fill in self.fills.values())

    def equity(self, price: float) -> float:
        """Return the wallet and the open profit at ``price``, quote."""
        open_profit = sum(
            fill.sign * (price - fill.row.price) * fill.lots for fill in self.fills.values()
        )
        return self.wallet + open_profit * self.step_size

    def maintenance(self, price: float) -> float:
        """Return the maintenance margin of both sides at ``price``, quote.

        ``rate * notional - amount`` in the bracket of each side's notional.
        """
        total = 0.0
        for position_side in SIGNS:
            notional = price * self.step_size * sum(fill.lots for fill in self.held(position_side))
            rows = [row for row in self.market["brackets"] if notional > row[0]]
            if notional > 0.0 and rows:
                total += rows[-1][1] * notional - rows[-1][2]
        return total

    def settle(self, bar: int, rate: float, mark: float) -> None:
        """Book funding at ``rate`` on what is open at ``mark``: longs pay a positive rate."""
        total = sum(-fill.sign * fill.lots for fill in self.fills.values())
        payment = total * self.step_size * mark * rate
        self.wallet += payment
        self.funding += payment
        if payment != 0.0:
            self.payments.append((bar, payment))
            self.changes.append(Change(bar, payment))

    def check_entry(self, row: TradeRow) -> Reason | None:
        """Return what is wrong with the fill ``row`` opens, if anything."""
        if self.ended:
            return "it opens a fill though a liquidation has left nothing", "no more rows"
        if row.fill_id in self.fills or row.fill_id < self.next_id:
            return f"fill {row.fill_id} has been opened before", f"fill_id {self.next_id}"
        if row.fill_id != self.next_id:
            return "an entry before it is missing", f"fill_id {self.next_id}"
        if row.pnl != 0.0:
            return f"an entry has a pnl of {row.pnl!r}", "0"
        return None

    def check_close(self, row: TradeRow) -> Reason | None:
        """Return what is wrong with what ``row`` closes, if anything."""
        fill = self.fills.get(row.fill_id)
        if fill is None:
            known = row.fill_id < self.next_id
            state = "is closed already" if known else "was never opened"
            return f"it closes fill {row.fill_id}, which {state}", "an open fill"
        if fill.row.direction != row.direction:
            side = fill.row.direction
            return f"it closes fill {row.fill_id}, a {side} one, as {row.direction}", side
        lots = round(row.qty / self.step_size)
        if lots > fill.lots:
            left = fill.lots * self.step_size
            return f"it closes {row.qty:g} of fill {row.fill_id}", f"at most {left:g}, what is open"
        rest = (fill.lots - lots) * self.step_size
        if 0.0 < rest < self.market["min_qty"] * (1.0 - RELATIVE):
            return f"it leaves {rest:g} open, less than the exchange's minimum", "all of it closed"
        pnl = fill.sign * (row.price - fill.row.price) * row.qty
        if abs(row.pnl - pnl) > RELATIVE * row.price * row.qty:
            return f"pnl is {row.pnl!r}", f"{pnl!r}: from {fill.row.price!r}, {fill.row.direction}"
        return None

    def book(self, row: TradeRow) -> None:
        """Take a row that has passed its checks into the account."""
        self.labels[row.label] += 1
        self.wallet += row.pnl - row.fee
        self.fees += row.fee
        self.turnover += row.price * row.qty
        if row.qty == 0.0:
            return
        lots, fill = round(row.qty / self.step_size), self.fills.get(row.fill_id)
        if fill is None:
            fill = self.fills[row.fill_id] = OpenFill(row, lots)
            self.next_id = row.fill_id + 1
        else:
            lots = -lots
            self.exits[row.direction] += 1
            fill.lots += lots
            fill.pnl += row.pnl
            fill.exit_fees += row.fee
        money = row.pnl - row.fee
        at_end = row.label == AT_END
        self.changes.append(Change(row.bar, money, fill.sign * lots, lots, fill.row.price, at_end))
        if fill.lots == 0:
            self._remember(self.fills.pop(row.fill_id))

    def _remember(self, fill: OpenFill) -> None:
        """Count a round trip, net of all its fees."""
        net = fill.pnl - fill.row.fee - fill.exit_fees
        self.round_trips += 1
        if net > 0.0:
            self.wins += 1
            self.gross_profit += net
        else:
            self.gross_loss -= net
