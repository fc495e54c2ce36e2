"""State of the short grid: one flat record per symbol, one for all, and what goes in and out.

Order prices are whole ticks and quantities whole steps. Money is whole units of 1e-8 quote (names
end in ``_e8``). Times are ns, UTC.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, Final

import numpy as np

from core.errors import ConfigError
from core.jit import kernel
from core.records import Table, zeros, zeros_table
from engine.short_grid.observation import Observed, Universe, start_observed
from engine.short_grid.params import MAX_LAYERS, MAX_ZONES, NET_SAMPLES, ShortGridParams

E8: Final = 100_000_000
BPS: Final = 1e-4
FOREVER_NS: Final = 2**62
DAY_BUCKETS: Final = 289
"""Five-minute buckets that cover the last 24 h and the running one."""
MAX_DEBTS: Final = 64
"""Capacity of the memory of debts; the oldest two become one beyond it."""
SEEN_TRADES: Final = 64
PENDING_MARKOUTS: Final = 16
MAX_COMMANDS: Final = 4_096
"""More than one step of the largest universe can write."""


class SlotState(IntEnum):
    """The states of an order, as far as known."""

    NONE = 0
    SENT = 1
    OPEN = 2
    AMENDING = 3
    CANCELING = 4
    UNKNOWN = 5


class ReportKind(IntEnum):
    """Reports of the exchange, or of the driver in its place, about an order."""

    ACCEPTED = 0
    REJECTED = 1
    AMENDED = 2
    CANCELED = 3
    EXPIRED = 4
    FILL = 5
    UNKNOWN = 6


class CommandKind(IntEnum):
    """Requests to the exchange."""

    PLACE = 0
    AMEND = 1
    CANCEL = 2
    PLACE_STOP = 3
    CANCEL_STOP = 4
    LOOK_UP = 5
    """Ask what became of an order, and for trades; answered by reports."""
    READ_POSITION = 6


class TimeInForce(IntEnum):
    """How long an order may rest."""

    GTX = 0
    IOC = 1
    MARKET = 2


class SlotName(IntEnum):
    """Places of a symbol's orders, by index."""

    ENTRY = 0
    EXIT = 1
    STOP = 2
    STOP_NEXT = 3
    """Successor of a stop that is being moved."""
    TAKE_PROFIT = 4
    """The first of ``MAX_ZONES``."""


N_SLOTS: Final = int(SlotName.TAKE_PROFIT) + MAX_ZONES


class ExitReason(IntEnum):
    """Why a position is closed by the exit path."""

    NONE = 0
    TP = 1
    FAST_TP = 2
    INVERSE_TIMEOUT = 3
    SHUTDOWN = 4
    STOP = 5
    BREAKER = 6
    DAILY = 7
    EMERGENCY = 8


LAST_PROFIT_REASON: Final = int(ExitReason.FAST_TP)
FIRST_LOSS_REASON: Final = int(ExitReason.STOP)


class ExitPhase(IntEnum):
    """How far the exit path is."""

    NONE = 0
    PASSIVE = 1
    TAKING = 2
    MARKET = 3


class Rules:
    """The exchange's rules for a symbol, and the account's fees."""

    tick_size: float  # quote
    step_size: float  # base
    unit_e8: int  # value of one tick of one step
    min_steps: int
    min_notional: float  # quote, entries only
    fee_maker: float  # bps
    fee_taker: float  # bps


class Layer:
    """The part of one decision's entries that is still open."""

    steps: int
    ticks: int  # of its last fill
    t_ns: int  # of its first fill
    decision: int


class Debt:
    """A loss not yet earned back."""

    t_ns: int
    amount_e8: int


class DaySum:
    """Sum of the last 24 hours, in buckets of five minutes; never over less than 24 h."""

    bucket: int  # number of the running one, time / 5 min
    total_e8: int
    buckets: Annotated[Table[int], DAY_BUCKETS]


class Ledger:
    """Money of one symbol; exact."""

    steps: int  # Q, short, never negative
    cost_e8: int  # C, entry notional still open
    entry_fees_e8: int  # of what is open
    funding_open_e8: int  # received on what is open
    pnl_e8: int  # sums since the start
    fees_e8: int
    funding_e8: int
    net_e8: int  # sum of the nets of closes
    debt_in_e8: int
    debt_paid_e8: int
    debt_forgiven_e8: int
    trip_net_e8: int  # of the running round trip
    trip_cost_e8: int
    n_layers: int
    n_debts: int
    n_seen: int  # trade ids remembered
    seen_at: int
    layers: Annotated[Table[Layer], MAX_LAYERS]
    debts: Annotated[Table[Debt], MAX_DEBTS]  # oldest first
    seen: Annotated[Table[int], SEEN_TRADES]  # a ring
    day: DaySum  # pnl - fees + funding
    day_pnl: DaySum  # pnl alone


class Samples:
    """The last values of a figure, a ring."""

    n: int
    at: int
    values: Annotated[Table[float], NET_SAMPLES]


class Markout:
    """An entry fill whose loss after five seconds is awaited."""

    t_ns: int
    price: float


class Slot:
    """One order of a symbol."""

    state: int
    order: int  # number within the symbol, 0 = none ever
    decision: int
    ticks: int
    steps: int  # total, what is filled included
    filled: int
    sent_ns: int
    changed_ns: int  # last amend
    amends: int
    asked: int  # ticks asked for by an amend under way
    asked_steps: int
    touch_ticks: int  # ask when it was sent
    next_ns: int  # not again before


class Exit:
    """The exit path."""

    reason: int
    phase: int
    steps: int  # still to be closed
    started_ns: int
    phase_ns: int
    next_ns: int  # not again before


class Inverse:
    """The inverse ladder; ``entered_ns`` is 0 outside that mode."""

    entered_ns: int
    avg_ticks: float  # A0
    n_zones: int
    layers: int  # when it was built
    filled: bool  # a zone has filled
    zone_ticks: Annotated[Table[int], MAX_ZONES]
    zone_steps: Annotated[Table[int], MAX_ZONES]  # still to be bought


class SymbolState:
    """Everything about one symbol."""

    observed: Observed
    rules: Rules
    ledger: Ledger
    slots: Annotated[Table[Slot], N_SLOTS]
    exit: Exit
    inverse: Inverse
    net_bps: Samples  # of round trips
    slippage_bps: Samples  # of exits that took liquidity
    adds: Annotated[Table[int], 64]  # times of the last adds, a ring
    adds_at: int
    n_markouts: int
    markouts: Annotated[Table[Markout], PENDING_MARKOUTS]
    markout_bps: float  # weighted mean loss after entries
    markout_fills: int
    next_order: int
    next_decision: int
    # Flags that only take entries away, each with what ends it.
    cooldown_until_ns: int
    breaker_until_ns: int
    pause_until_ns: int  # after a refused entry
    rewarm_until_ns: int
    safe_until_ns: int
    delisted_ns: int  # exit by one hour before; 0 = not announced
    loss_streak: int
    stops: Annotated[Table[int], 2]  # times, latest last
    last_fill_ns: int
    last_fill_ticks: int
    last_add_ns: int
    tp_moved_ns: int
    over_mark_ns: int  # since when the mark is beyond the stop, 0 = it is not
    unprotected_ns: int  # since when there is no confirmed stop, 0 = there is
    stop_answered: bool  # a request for a stop was answered since
    stop_turn: bool  # emergency: the stop's turn next, else the market order's
    single_stop: bool  # the exchange refuses a second stop
    stop_tries: int
    entry_seen_ns: int  # an entry rested
    blacklisted: bool
    limit_hit: bool  # the day's loss is beyond its limit
    foreign: bool  # foreign orders or a long position: excluded
    # Counters.
    illegal_reports: int
    unmatched_reports: int
    repeated_fills: int
    over_closes: int
    n_stops: int
    n_trips: int


class Portfolio:
    """The part all symbols share: limits, budget, flags."""

    universe: Universe
    start_ns: int
    now_ns: int
    realized_e8: int  # pnl - fees + funding since the start
    day: DaySum
    day_fees: DaySum
    tokens_10s: float
    tokens_60s: float
    tokens_ns: int
    exposure: float  # quote, positions and resting entries, at the last step
    held: int  # symbols with a position or an entry
    deep: int  # symbols with many layers
    positions: int
    median_rise: float  # bps, r_60s of warm symbols
    countdowns: int  # symbols with one
    halted: bool  # until a person resumes
    ended: bool  # total loss: exit 3
    closing_all: bool  # a person asked for it
    fees_over: bool  # too many fees in 24 h
    safe: bool
    quant_rules: bool
    marks_expected: bool


class Command:
    """One command to the exchange."""

    kind: int
    symbol: int
    slot: int
    order: int
    ticks: int
    steps: int
    tif: int


class Commands:
    """The output of a step or a report."""

    n_commands: int
    commands: Annotated[Table[Command], MAX_COMMANDS]


class Report:
    """One report about an order."""

    t_ns: int
    symbol: int
    slot: int
    order: int
    kind: int
    code: int  # the exchange's, 0 = none
    trade_id: int  # fills
    ticks: int
    steps: int
    fee_e8: int
    cum: int  # filled so far, -1 = not said


def make_rules(
    tick_size: float,
    step_size: float,
    min_qty: float,
    min_notional: float,
    fee_maker_bps: float,
    fee_taker_bps: float,
) -> Rules:
    """Return the rules of a symbol.

    Raises:
        ConfigError: a tick of a step is no whole number of 1e-8 quote, so money is not exact.
    """
    unit = tick_size * step_size * E8
    if round(unit) < 1 or abs(unit - round(unit)) > 1e-6 * unit:
        raise ConfigError(
            f"tick_size {tick_size:g} x step_size {step_size:g} = {unit:g} units of 1e-8; must be "
            "a whole number, or accounts are not exact; do not trade this symbol"
        )
    rules = zeros(Rules)
    rules.tick_size, rules.step_size, rules.unit_e8 = tick_size, step_size, round(unit)
    rules.min_steps = max(1, round(min_qty / step_size))
    rules.min_notional = min_notional
    rules.fee_maker, rules.fee_taker = fee_maker_bps, fee_taker_bps
    return rules


def new_states(rules: list[Rules], params: ShortGridParams, start_ns: int) -> tuple[Portfolio, Any]:
    """Return the records of all symbols before their first event."""
    portfolio, symbols = zeros(Portfolio), zeros_table(SymbolState, len(rules))
    observed: Any = np.asarray(symbols)["observed"]
    start_observed(portfolio.universe, observed, params)
    portfolio.start_ns = portfolio.now_ns = portfolio.tokens_ns = start_ns
    portfolio.tokens_10s, portfolio.tokens_60s = params.orders_per_10s, params.orders_per_minute
    for i, rule in enumerate(rules):
        np.asarray(symbols)["rules"][i] = rule
    return portfolio, symbols


@kernel
def ticks_of(rules: Rules, price: float) -> int:
    """Return the tick nearest to ``price``."""
    return int(np.floor(price / rules.tick_size + 0.5))


@kernel
def average_ticks(state: SymbolState) -> float:
    """Return the average entry in ticks, 0 when flat."""
    ledger = state.ledger
    if ledger.steps == 0:
        return 0.0
    return float(ledger.cost_e8 / (ledger.steps * state.rules.unit_e8))


@kernel
def quote_of(rules: Rules, steps: int, ticks: int) -> float:
    """Return the notional of ``steps`` at ``ticks``, quote."""
    return float(steps * ticks * rules.unit_e8 / E8)
