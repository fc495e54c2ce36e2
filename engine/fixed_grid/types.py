"""The state of the fixed grid as one record: positions, their orders, what the rules remember.

The account, the ledger of a side and its fills are the kit's, with what this strategy adds.
"""

from __future__ import annotations

from typing import Annotated, Final

from core.jit import kernel
from core.records import Table, zeros
from engine.fixed_grid.params import MAX_POSITIONS, MAX_RUNGS
from engine.types import MAX_TRADES, Account, Counters, Exit, Fill, Moment, SideLedger, Tape, Trade

MAX_FIXED_EXITS: Final = 2 * MAX_POSITIONS
"""Market exits that one phase of a step may decide: both legs of every position."""
MAX_MARKS: Final = 4096
RECORDS_A_POSITION: Final = MAX_RUNGS + 4
"""Bound on the trade records of one position in one bar: entry, rungs, both legs of a hedge."""
MARKS_A_POSITION: Final = MAX_RUNGS + 4

EPOCH_2020_S: Final = 1_577_836_800
"""2020-01-01 00:00 UTC; cycle ids count from here."""
NO_TIME: Final = -1

# Stages of a position.
STAGE_OPEN: Final = 0
STAGE_LADDER: Final = 1
STAGE_HEDGED: Final = 2

# Gates of an entry, in their order.
GATE_NAMES: Final = (
    "pause",
    "stopping",
    "stopped",
    "mismatch",
    "price",
    "orders",
    "size",
    "margin",
    "minimum",
    "portfolio",
    "cooldown",
)
N_GATES: Final = len(GATE_NAMES)
NO_GATE: Final = -1
GATE_PAUSE: Final = 0
GATE_STOPPING: Final = 1
GATE_STOPPED: Final = 2
GATE_MISMATCH: Final = 3
GATE_PRICE: Final = 4
GATE_ORDERS: Final = 5
GATE_SIZE: Final = 6
GATE_MARGIN: Final = 7
GATE_MINIMUM: Final = 8
GATE_PORTFOLIO: Final = 9
GATE_COOLDOWN: Final = 10

HEALTH_NAMES: Final = ("HEALTHY", "WARNING", "CRITICAL")
HEALTHY: Final = 0
WARNING: Final = 1
CRITICAL: Final = 2

# What a mark notes of a cycle besides its trade records.
MARK_NAMES: Final = ("STUCK", "LADDER", "RUNG", "HEDGE", "RELEASED", "ESCALATION")
MARK_STUCK: Final = 0
MARK_LADDER: Final = 1
MARK_RUNG: Final = 2
MARK_HEDGE: Final = 3
MARK_RELEASED: Final = 4
MARK_ESCALATION: Final = 5


class FixedTrade(Trade):
    """One trade record with the cycle and the slot it belongs to."""

    cycle: int  # seconds since 2020 of the step that wanted the entry
    slot: int


class FixedExit(Exit):
    """One market order decided: a close, or the opening of a hedge (RECOVERY_HEDGE_OPEN).

    ``fill_id`` is that of the leg; of a hedge to open: of its position.
    """

    releases: bool  # the position whose hedge this closes goes on


class Mark:
    """Something that happened to a cycle without a trade."""

    bar: int
    ts_ms: int
    kind: int  # of MARK_NAMES
    cycle: int
    slot: int
    price: float  # quote, of the market; of a rung: where it rests
    qty: float  # base


class Rung:
    """One reduce-only limit order of a ladder."""

    price: float  # quote
    qty: float  # base
    age: int
    touched: int  # bar in which the path first reached it, 0 = not yet
    number: int  # of the rung when the ladder was laid, nearest first


class Ladder:
    """The rungs of one position, nearest first."""

    n_rungs: int
    rungs: Annotated[Table[Rung], MAX_RUNGS]


class Position(Fill):
    """The filled part of a cycle; on the other side: its hedge leg, which uses the first fields.

    ``price`` is the mean executed price, ``qty`` what is still open, 0 between the two closes of a
    hedged position; ``pnl`` is of everything closed of the cycle, the hedge included.
    """

    cycle: int
    slot: int
    fees: float  # quote, of everything traded of the cycle
    opened: int  # step of the first execution, or of the release from a hedge; s
    filled: int  # step of the first execution; s
    take_profit: float  # T, quote
    stop: float  # S, quote; 0 = no stop is wanted
    stage: int
    stage_time: int  # step at which the stage began; s
    close_price: float  # quote, of the resting close order over ``qty``; 0 = none
    close_age: int
    close_touched: int  # bar in which the path first reached it, 0 = not yet
    hedge_id: int  # fill_id of the hedge leg, -1 = none
    owns_stop: bool  # a stop order of its own, not the shared one
    stuck: bool
    recovered: bool  # a recovery has begun
    unreleased: bool  # something of it ended by a stop, a liquidation or the stop price
    lost_after_mark: bool  # something of it ended by another order than a limit after it was stuck
    hedge_refused: bool  # the exchange took no hedge: it is closed instead
    told: int  # step of the last escalation reported; s, NO_TIME = never


class Side(SideLedger):
    """Ledger of one position side; on the strategy's own side worst entry first, older first."""

    exits: Annotated[Table[float], 1]  # not used: every position has its own
    fills: Annotated[Table[Position], MAX_POSITIONS]


class Working:
    """The one entry order that may rest."""

    price: float  # quote, 0 = none
    qty: float  # base
    age: int
    cycle: int
    slot: int
    touched: int  # bar in which the path first reached it, 0 = not yet


class Step(Moment):
    """The knowledge of a step; ``ts_ms`` is the open time of the candle."""

    prev_close: float  # quote
    step_s: int  # t_k, s since 1970: every time a rule compares


class Nearest:
    """Figures that follow from the positions and their orders; made anew when they change."""

    stale: bool
    exit_price: float  # quote, of the next reduce-only limit order; 0 = none
    exit_row: int
    exit_rung: int  # -1 = the close order
    exit_age: int
    stop_price: float  # quote, of the next stop; 0 = none
    stop_row: int  # the position it closes, -1 = all that share one
    n_hedged: int
    n_ladders: int
    n_stuck: int
    oldest_open: int  # smallest ``opened`` of those in stage OPEN; s
    oldest: int  # smallest ``opened`` of all; s
    oldest_ladder: int  # smallest ``stage_time`` of those in stage LADDER; s


class FixedCounters(Counters):
    """Event counts and sums."""

    steps: int
    holes: int
    bars_held: int
    stuck_total: int
    stuck_now: int  # at the end, before everything is closed
    stuck_resolved: int
    stuck_released: int
    stuck_recovered: int
    recovery_attempts: int
    margin_exhausted: int
    double_exit: int
    mismatches: int
    net_shares: float  # sum of net over entry notional
    current_exposure: float  # quote, at the end, before everything is closed
    margin_used: float  # sum over steps of M over its cap
    margin_used_max: float
    margin_over_80: int
    blocked: Annotated[Table[int], N_GATES]
    health: Annotated[Table[int], 3]


class FixedState(Account):
    """The whole strategy."""

    stopped: bool  # the stop price has ended the session
    paused: bool
    stopping: bool
    mismatch: bool
    fired_at_stop_price: bool
    liquidated: bool  # in this step: no entry is laid
    next_age: int
    last_entry_fill: int  # s, NO_TIME = never
    last_profit_exit: int
    last_loss_exit: int
    shared_stop: float  # quote, 0 = none
    gate: int
    health: int
    exits_stale: bool
    n_displaced: int  # close orders that do not lie at their T
    now: Step
    working: Working
    nearest: Nearest
    counters: FixedCounters
    sides: Annotated[Table[Side], 2]
    ladders: Annotated[Table[Ladder], MAX_POSITIONS]  # by slot


class FixedTape(Tape):
    """The output of a step: market exits decided, trade records and marks written."""

    exits: Annotated[Table[FixedExit], MAX_FIXED_EXITS]
    trades: Annotated[Table[FixedTrade], MAX_TRADES]
    n_marks: int
    marks: Annotated[Table[Mark], MAX_MARKS]


@kernel
def add_fixed_exit(
    tape: FixedTape, side: int, fill_id: int, qty: float, label: int, releases: bool
) -> None:
    """Decide a market order."""
    out = tape.exits[tape.n_exits]
    out.side, out.fill_id, out.qty, out.label = side, fill_id, qty, label
    out.releases = releases
    tape.n_exits += 1


@kernel
def write_mark(
    state: FixedState, tape: FixedTape, kind: int, position: Position, price: float, qty: float
) -> None:
    """Note that something happened to a cycle."""
    mark = tape.marks[tape.n_marks]
    mark.bar, mark.ts_ms, mark.kind = state.now.bar, state.now.ts_ms, kind
    mark.cycle, mark.slot = position.cycle, position.slot
    mark.price, mark.qty = price, qty
    tape.n_marks += 1


def new_fixed_state(initial_capital: float) -> FixedState:
    """Return the state before the first step, with ``initial_capital`` (quote) in the wallet."""
    state = zeros(FixedState)
    state.wallet = initial_capital
    state.gate = NO_GATE
    state.last_entry_fill = state.last_profit_exit = state.last_loss_exit = NO_TIME
    state.nearest.stale = state.exits_stale = True
    return state
