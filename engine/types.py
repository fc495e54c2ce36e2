"""The state of the strategy as one record: fills, levels, sides, counters, trade records."""

from __future__ import annotations

from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt

from core.jit import kernel
from core.params import MAX_LEVELS, MAX_STOP_EVENTS
from core.records import Table, zeros

LONG: Final = 0
SHORT: Final = 1
DIRECTION_NAMES: Final = ("LONG", "SHORT")
NO_DIRECTION: Final = -1

MAX_FILLS: Final = 256
"""Open fills a side can hold; no entries are placed beyond it."""
MAX_EXITS: Final = 2 * MAX_FILLS
MAX_TRADES: Final = 16_384
"""Trade records a tape holds; more than any one step can write."""
KELLY_MEMORY: Final = 500
"""Closed fills remembered."""
N_REGIMES: Final = 5
LATTICE: Final = 2 * MAX_LEVELS + 1
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
    """One entry that is still (partly) open, with its share of the resting take-profits."""

    fill_id: int
    bar: int
    ts_ms: int
    regime: int
    generation: int
    level: int
    busy: bool  # keeps its level unarmed and counts as inventory
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
    tp_next: int  # lattice index of the following slice
    tp_stride: int
    tp_slice: float  # base
    tp_count: int  # slices after the next one


class Level:
    """One entry level of a generation; its price stands in ``PositionSide.entries``."""

    qty: float  # base, of the order resting there; 0 = none
    armed: bool
    touched: int  # bar in which the path first reached the order, 0 = not yet


class PositionSide:
    """Ledger, grid and resting orders of one position side."""

    qty: float  # base, never negative
    cost: float  # sum of price * qty over fills, quote
    avg_entry: float  # quote
    n_busy: int
    stage1_done: bool
    was_allowed: bool
    realized_today: float  # pnl - fee of today's records, quote
    last_prune_bar: int
    # Generation.
    generation: int  # 0 = none yet
    reference: float  # m, quote
    centre: float  # r, quote
    entry_pct: float
    exit_pct: float
    spacing: float  # entry_pct * m, quote
    stop_floor: float  # smallest unit of stop distances, quote
    traded: bool  # an entry or take-profit filled since
    cut: bool  # a stop, prune or liquidation closed something since
    # Resting orders, in the form matching reads.
    next_entry: float  # quote, nearest resting entry, 0 = none
    next_entry_level: int
    settled: bool  # every armed level rests
    resting_notional: float  # quote, of the entry orders
    stop_needed: float  # quote, smallest stop distance beyond which no entry lies
    next_tp: float  # quote, nearest take-profit, 0 = none
    stop_price: float  # quote, 0 = none
    stop_distance: float  # quote, of stage 2
    # Take-profits are laid out anew when fills or lattice changed or p left this range.
    tp_stale: bool
    tp_valid_low: float  # bounds of sign * p, inclusive
    tp_valid_high: float  # exclusive
    entries: Annotated[Table[float], MAX_LEVELS]  # prices, nearest first
    levels: Annotated[Table[Level], MAX_LEVELS]
    exits: Annotated[Table[float], LATTICE]  # prices, in the direction of profit
    n_fills: int
    fills: Annotated[Table[Fill], MAX_FILLS]


class Now:
    """What step ``i`` knows: the clock, the reference price, indicators of bar ``i - 1``."""

    bar: int
    ts_ms: int
    price: float  # p, quote
    prev_close: float
    regime: int
    er: float
    kama: float
    atr: float
    z: float
    sigma: float
    atr_mean: float
    volume_ratio: float
    funding_rate: float


class ClosedFill:
    """What Kelly remembers of a fully closed fill."""

    net_return: float  # of its entry notional
    regime: int  # when entered


class Counters:
    """Event counts and sums of round trips."""

    stops_long: int
    stops_short: int
    halts: int
    trailing_shifts: int
    var_blocks: int
    liquidations: int
    round_trips: int
    wins: int
    gross_profit: float  # quote
    gross_loss: float  # quote, not negative
    turnover: float  # traded notional, quote
    fees: float  # quote
    capacity_reached: int  # steps at which a full table kept entries back


class State:
    """The whole strategy."""

    acting: bool  # a step has acted
    ended: bool  # liquidated to zero
    halted: bool
    orders_gone: bool  # no orders for the rest of this bar
    wallet: float  # quote
    funding: float  # quote, sum received
    day_end_ms: int  # end of the step's UTC day
    next_fill_id: int
    too_small: bool  # a whole fresh grid was under the exchange's minimum
    capital_needed: float  # quote, for one order of that grid
    cooldown_bar: int
    kelly_stale: bool
    kelly_regime: int
    kelly: float
    now: Now
    counters: Counters
    sides: Annotated[Table[PositionSide], 2]
    n_stop_events: int
    stop_events: Annotated[Table[int], MAX_STOP_EVENTS]  # bars, newest last
    n_closed: int
    closed_head: int  # where the next one goes
    closed: Annotated[Table[ClosedFill], KELLY_MEMORY]


class Tape:
    """What a step hands out: market exits decided, trade records written.

    A record rather than two arrays: passing an array from kernel to kernel counts references.
    """

    n_exits: int
    exits: Annotated[Table[Exit], MAX_EXITS]
    n_trades: int
    trades: Annotated[Table[Trade], MAX_TRADES]


@kernel
def add_exit(tape: Tape, side: int, fill_id: int, qty: float, label: int) -> None:
    """Decide to close ``qty`` (base) of a fill at market."""
    out = tape.exits[tape.n_exits]
    out.side, out.fill_id, out.qty, out.label = side, fill_id, qty, label
    tape.n_exits += 1


def take_trades(tape: Tape) -> npt.NDArray[Any]:
    """Return the trade records on the tape as a table of ``Trade`` and empty it."""
    table: Any = tape.trades
    trades: npt.NDArray[Any] = table[: int(tape.n_trades)].copy()
    tape.n_trades = 0
    return trades


@kernel
def sign_of(side: int) -> float:
    """Return +1 for LONG, -1 for SHORT."""
    return 1.0 if side == LONG else -1.0


def new_state(initial_capital: float) -> State:
    """Return the state before the first step, with ``initial_capital`` (quote) in the wallet."""
    state = zeros(State)
    state.wallet = initial_capital
    state.cooldown_bar = NEVER
    state.kelly_stale = True
    for side in (LONG, SHORT):
        state.sides[side].last_prune_bar = NEVER
        state.sides[side].tp_stale = True
    return state


class PositionTracker:
    """Read-only face on one side of a state."""

    def __init__(self, state: State, side: int) -> None:
        self._side = state.sides[side]
        self._sign = sign_of(side)

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
        table = self._side.fills
        return [
            {name: np.asarray(getattr(table[i], name)).item() for name in names}
            for i in range(int(self._side.n_fills))
        ]

    def unrealized_pnl(self, mark: float) -> float:
        """Return the open profit at ``mark``, quote."""
        return float(self._sign * (mark * self._side.qty - self._side.cost))
