"""Records every strategy is made of: trade records, fills, the ledger of a side, the account."""

from __future__ import annotations

from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt

from core.jit import kernel
from core.records import Table

LONG: Final = 0
SHORT: Final = 1
DIRECTION_NAMES: Final = ("LONG", "SHORT")
NO_DIRECTION: Final = -1

MAX_FILLS: Final = 256
"""Open fills a side can hold; no entries are placed beyond it."""
NO_REGIME: Final = 9
"""Regime code in the records of a strategy that knows none."""
MAX_EXITS: Final = 2 * MAX_FILLS
MAX_TRADES: Final = 16_384
"""Trade records a tape holds; more than any one step can write."""
KELLY_MEMORY: Final = 500
"""Closed fills remembered."""
N_REGIMES: Final = 5
NEVER: Final = -(10**9)
"""A bar index long before any."""

# Labels of trade records; the names are the public ones.
LABEL_NAMES: Final = (
    "BUY_OPEN_LONG",
    "SELL_OPEN_SHORT",
    "SELL_CLOSE_LONG",
    "BUY_CLOSE_SHORT",
    "STOP_LONG",
    "STOP_SHORT",
    "PRUNE_DEVIANCE",
    "PRUNE_OLDEST",
    "PRUNE_GAP",
    "PRUNE_FUNDING",
    "PRUNE_OFFSET",
    "PRUNE_VAR_WARNING",
    "CIRCUIT_BREAKER_HALT",
    "LIQUIDATION",
    "CLOSE_END",
    "POSITION_SYNC",
    "STOP_PRICE",
    "RECOVERY_CLOSE",
    "RECOVERY_LADDER",
    "RECOVERY_HEDGE_OPEN",
    "RECOVERY_HEDGE_CLOSE",
    "RECOVERY_ESCALATION",
    "ADOPTED",
)
OPEN: Final = 0  # + side
TAKE_PROFIT: Final = 2  # + side
STOP: Final = 4  # + side
PRUNE_DEVIANCE: Final = 6
PRUNE_OLDEST: Final = 7
PRUNE_GAP: Final = 8
PRUNE_FUNDING: Final = 9
PRUNE_OFFSET: Final = 10
PRUNE_VAR_WARNING: Final = 11
CIRCUIT_BREAKER_HALT: Final = 12
LIQUIDATION: Final = 13
CLOSE_END: Final = 14
POSITION_SYNC: Final = 15
"""Closed by somebody else at the exchange: live trading only."""
STOP_PRICE: Final = 16
RECOVERY_CLOSE: Final = 17
RECOVERY_LADDER: Final = 18
RECOVERY_HEDGE_OPEN: Final = 19
RECOVERY_HEDGE_CLOSE: Final = 20
RECOVERY_ESCALATION: Final = 21
ADOPTED: Final = 22
"""A position taken over from the account as it stands: live trading only."""


class Bar:
    """One closed candle."""

    ts_ms: int
    open: float
    high: float
    low: float
    close: float


class Trade:
    """One trade record."""

    bar: int
    ts_ms: int
    price: float  # quote
    qty: float  # base
    label: int
    regime: int
    pnl: float  # quote, gross
    fee: float  # quote, negative = rebate
    direction: int  # LONG, SHORT or NO_DIRECTION
    fill_id: int  # of the entry


class Exit:
    """One market exit decided by ``protect``."""

    side: int
    fill_id: int
    qty: float  # base
    label: int


class Fill:
    """One entry that is still (partly) open, with its share of the resting take-profits.

    A strategy adds fields of its own in a subclass; kernels of the kit read these.
    """

    fill_id: int
    bar: int
    ts_ms: int
    regime: int
    price: float  # quote
    entry_qty: float  # base
    qty: float  # base, still open
    entry_fee: float  # quote
    exit_fees: float  # quote
    pnl: float  # quote, gross, of the parts closed
    funding: float  # quote received (negative: paid), shrinks pro rata with qty
    # Take-profit slice that is next, and the equal slices behind it.
    tp_price: float  # quote, 0 = none
    tp_qty: float  # base
    tp_touched: int  # bar in which the path first reached tp_price, 0 = not yet
    tp_next: int  # index of the following slice in the side's exit prices
    tp_stride: int
    tp_slice: float  # base
    tp_count: int  # slices after the next one


class SideLedger:
    """Ledger of one position side, and its nearest resting orders in the form matching reads.

    A strategy's side is a subclass that adds its fields and says how many fills and exit prices
    it can hold.
    """

    qty: float  # base, never negative
    cost: float  # sum of price * qty over fills, quote
    avg_entry: float  # quote
    realized_today: float  # pnl - fee of today's records, quote
    traded: bool  # an entry or take-profit filled since the strategy last cleared this
    cut: bool  # something else closed something since the strategy last cleared this
    # Resting orders.
    next_entry: float  # quote, nearest resting entry, 0 = none
    settled: bool  # the entries that rest are those wanted
    next_tp: float  # quote, nearest take-profit, 0 = none
    tp_stale: bool  # the fills changed since their take-profits were laid out
    stop_price: float  # quote, 0 = none
    exits: Table[float]  # prices of take-profit slices, in the direction of profit
    n_fills: int
    fills: Table[Fill]


class Moment:
    """The fields of the step in trade records."""

    bar: int
    ts_ms: int
    price: float  # p, quote
    regime: int


class ClosedFill:
    """The memory of a fully closed fill."""

    net_return: float  # of its entry notional
    regime: int  # when entered


class Counters:
    """Event counts and sums of round trips."""

    stops_long: int
    stops_short: int
    liquidations: int
    round_trips: int
    wins: int
    gross_profit: float  # quote
    gross_loss: float  # quote, not negative
    turnover: float  # traded notional, quote
    fees: float  # quote
    capacity_reached: int  # steps at which a full table kept entries back


class Account:
    """The account of one strategy on one symbol: wallet, ledgers of both sides, what happened.

    A strategy's state is a subclass that adds its fields and tables.
    """

    ended: bool  # liquidated to zero
    orders_gone: bool  # no orders for the rest of this bar
    wallet: float  # quote
    funding: float  # quote, sum received
    day_end_ms: int  # end of the step's UTC day
    next_fill_id: int
    too_small: bool  # every order there could have been was under the exchange's minimum
    capital_needed: float  # quote, for one order then
    entry_share: float  # of the room for entries, which the risk of the whole portfolio leaves
    now: Moment
    counters: Counters
    sides: Table[SideLedger]
    n_closed: int
    closed_head: int  # where the next one goes
    closed: Annotated[Table[ClosedFill], KELLY_MEMORY]


class Tape:
    """The output of a step: market exits decided, trade records written.

    A record rather than two arrays: passing an array from kernel to kernel counts references.
    """

    n_exits: int
    exits: Annotated[Table[Exit], MAX_EXITS]
    n_trades: int
    trades: Annotated[Table[Trade], MAX_TRADES]


@kernel
def add_exit(tape: Tape, position_side: int, fill_id: int, qty: float, label: int) -> None:
    """Decide to close ``qty`` (base) of a fill at market."""
    out = tape.exits[tape.n_exits]
    out.side, out.fill_id, out.qty, out.label = position_side, fill_id, qty, label
    tape.n_exits += 1


def take_trades(tape: Any) -> npt.NDArray[Any]:
    """Return the trade records on the tape as a table and empty it."""
    return take_rows(tape, "trades")


def take_rows(tape: Any, name: str) -> npt.NDArray[Any]:
    """Return the rows of a table on the tape and empty it."""
    counter = f"n_{name}"
    table: Any = getattr(tape, name)
    rows: npt.NDArray[Any] = table[: int(getattr(tape, counter))].copy()
    setattr(tape, counter, 0)
    return rows


@kernel
def sign_of(position_side: int) -> float:
    """Return +1 for LONG, -1 for SHORT."""
    return 1.0 if position_side == LONG else -1.0


class PositionTracker:
    """Read-only face on one side of a state."""

    def __init__(self, state: Account, position_side: int) -> None:
        self._side = state.sides[position_side]
        self._sign = sign_of(position_side)

    @property
    def qty(self) -> float:
        """Open quantity, base."""
        return float(self._side.qty)

    @property
    def avg_entry(self) -> float:
        """Average entry price, quote; 0 when flat."""
        return float(self._side.avg_entry)

    @property
    def fills(self) -> list[dict[str, Any]]:
        """Open fills, oldest first."""
        names = (
            "fill_id",
            "bar",
            "ts_ms",
            "price",
            "qty",
            "entry_qty",
            "entry_fee",
            "funding",
            "generation",
            "level",
            "regime",
        )
        table: Any = self._side.fills
        known = [name for name in names if name in table.dtype.names]
        return [
            {name: np.asarray(getattr(table[i], name)).item() for name in known}
            for i in range(int(self._side.n_fills))
        ]

    def unrealized_pnl(self, mark: float) -> float:
        """Return the open profit at ``mark``, quote."""
        return float(self._sign * (mark * self._side.qty - self._side.cost))
