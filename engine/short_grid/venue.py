"""The simulated exchange of the short grid: orders, queues, stops, fees, funding, latencies.

It answers commands with reports as an exchange does, in a backtest and in a dry run. Our orders do
not move the market. Where an order stands in the queue is not known from best prices and trades;
three models bound it:

=============================  =================  ====================  ===========
event at our price             pessimistic        proportional          optimistic
=============================  =================  ====================  ===========
arrival at the touch           all ahead          all ahead             none ahead
arrival behind the touch       as it is when it first becomes the touch  none ahead
aggressor trade of q           ahead -= q, the excess fills us          q fills us
displayed size falls           at most the size   in proportion         none ahead
trade or touch beyond it       the rest fills     the rest fills        the rest fills
opposite touch at our price    nothing            the rest fills        the rest fills
=============================  =================  ====================  ===========

Where the touch moves away from our price nothing is displayed there, so nothing is ahead.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Annotated, Final

from core.jit import kernel
from core.recording import BUY, MS_NS, SELL, Event, EventKind
from core.records import Table
from engine.short_grid.feed import Feed, take_book, take_mark, take_trade
from engine.short_grid.slots import ENTRY, GTX, MARKET, STOP, STOP_NEXT
from engine.short_grid.types import (
    BPS,
    FOREVER_NS,
    Command,
    CommandKind,
    Report,
    ReportKind,
    Rules,
    ticks_of,
)

MAX_VENUE_ORDERS: Final = 32
"""Orders of a symbol the venue remembers: those at rest, and the last that ended."""
MAX_QUEUED: Final = 8_192
"""Commands or reports under way."""
STOP_SLIP_BPS: Final = 5.0
"""A stop fills so much beyond the touch."""
FUNDING_REPORT: Final = 100
"""Kind of a report that carries funding received (``fee_e8``); the venue's own."""


class QueueModel(IntEnum):
    """An assumption about what is ahead of an order in its queue."""

    PESSIMISTIC = 0
    PROPORTIONAL = 1
    OPTIMISTIC = 2


class Refusal(IntEnum):
    """Codes of the exchange."""

    NO_SUCH_ORDER = -2013
    CANCEL_REFUSED = -2011
    WOULD_CROSS = -5022
    CLOSES_NOTHING = -2022
    WOULD_TRIGGER = -2021


# Inside kernels enumerations are numbers.
_PESSIMISTIC: Final = int(QueueModel.PESSIMISTIC)
_PROPORTIONAL: Final = int(QueueModel.PROPORTIONAL)
_OPTIMISTIC: Final = int(QueueModel.OPTIMISTIC)
_NO_SUCH_ORDER: Final = int(Refusal.NO_SUCH_ORDER)
_CANCEL_REFUSED: Final = int(Refusal.CANCEL_REFUSED)
_WOULD_CROSS: Final = int(Refusal.WOULD_CROSS)
_CLOSES_NOTHING: Final = int(Refusal.CLOSES_NOTHING)
_WOULD_TRIGGER: Final = int(Refusal.WOULD_TRIGGER)
_PLACE: Final = int(CommandKind.PLACE)
_PLACE_STOP: Final = int(CommandKind.PLACE_STOP)
_AMEND: Final = int(CommandKind.AMEND)
_CANCEL: Final = int(CommandKind.CANCEL)
_CANCEL_STOP: Final = int(CommandKind.CANCEL_STOP)
_LOOK_UP: Final = int(CommandKind.LOOK_UP)
_ACCEPTED: Final = int(ReportKind.ACCEPTED)
_REJECTED: Final = int(ReportKind.REJECTED)
_AMENDED: Final = int(ReportKind.AMENDED)
_CANCELED: Final = int(ReportKind.CANCELED)
_EXPIRED: Final = int(ReportKind.EXPIRED)
_FILL: Final = int(ReportKind.FILL)
_BOOK: Final = int(EventKind.BOOK)
_TRADE: Final = int(EventKind.TRADE)
_MARK: Final = int(EventKind.MARK)

# How an order ended; OPEN: it has not.
OPEN: Final = 0
ENDED_FILLED: Final = 1
ENDED_CANCELED: Final = 2
ENDED_EXPIRED: Final = 3
ENDED_REFUSED: Final = 4


class VenueOrder:
    """One order at the exchange."""

    number: int  # of the symbol, 0 = this row was never used
    slot: int
    status: int  # OPEN or how it ended
    ticks: int
    steps: int  # total
    filled: int
    ahead: float  # steps before ours in the queue; negative: a part of a step already traded
    shown: float  # steps displayed at its price, less what traded there since
    queued: bool  # it is known what is ahead
    placed_ns: int
    due_ns: int  # a stop that was triggered fills then; 0 = not triggered


class VenueSymbol:
    """One symbol at the exchange."""

    feed: Feed  # as the exchange has it, before it is under way to us
    rules: Rules
    bid: int  # ticks, 0 = none yet
    ask: int
    bid_steps: float
    ask_steps: float
    held: int  # steps, short
    n_open: int
    entries: int  # entry orders that arrived
    entries_refused: int
    next_due_ns: int  # of triggered stops
    settlement_ms: int  # next one, 0 = unknown
    orders: Annotated[Table[VenueOrder], MAX_VENUE_ORDERS]


class Sent:
    """A command under way."""

    t_ns: int  # arrives
    command: Command


class Venue:
    """The part all symbols share: the model, latencies, and messages under way.

    Messages do not overtake each other: one connection carries them.
    """

    model: int
    up_ns: int
    down_ns: int
    next_trade: int
    n_commands: int  # sent so far
    n_arrived: int
    n_reports: int  # sent so far
    n_delivered: int
    lost: int  # messages for which there was no room: none, or the run is not valid
    commands: Annotated[Table[Sent], MAX_QUEUED]
    reports: Annotated[Table[Report], MAX_QUEUED]


@kernel
def send_command(venue: Venue, command: Command, t_ns: int) -> None:
    """Let a command given at ``t_ns`` be under way."""
    if venue.n_commands - venue.n_arrived >= MAX_QUEUED:
        venue.lost += 1
        return
    sent = venue.commands[venue.n_commands % MAX_QUEUED]
    sent.t_ns = t_ns + venue.up_ns
    to = sent.command
    to.kind, to.symbol, to.slot, to.order = (
        command.kind,
        command.symbol,
        command.slot,
        command.order,
    )
    to.ticks, to.steps, to.tif = command.ticks, command.steps, command.tif
    venue.n_commands += 1


@kernel
def next_command_ns(venue: Venue) -> int:
    """Return when the next command arrives."""
    if venue.n_arrived == venue.n_commands:
        return FOREVER_NS
    return venue.commands[venue.n_arrived % MAX_QUEUED].t_ns


@kernel
def next_report_ns(venue: Venue) -> int:
    """Return when the next report is delivered."""
    if venue.n_delivered == venue.n_reports:
        return FOREVER_NS
    return venue.reports[venue.n_delivered % MAX_QUEUED].t_ns


@kernel
def send_report(
    venue: Venue,
    symbol: int,
    slot: int,
    order: int,
    cum: int,
    kind: int,
    code: int,
    trade_id: int,
    ticks: int,
    steps: int,
    fee_e8: int,
    t_ns: int,
) -> None:
    """Let a report of ``t_ns`` be under way; without room for it, it is counted as lost."""
    if venue.n_reports - venue.n_delivered >= MAX_QUEUED:
        venue.lost += 1
        return
    report = venue.reports[venue.n_reports % MAX_QUEUED]
    report.t_ns, report.symbol, report.kind = t_ns + venue.down_ns, symbol, kind
    report.slot, report.order, report.cum = slot, order, cum
    report.code, report.trade_id, report.ticks = code, trade_id, ticks
    report.steps, report.fee_e8 = steps, fee_e8
    venue.n_reports += 1


@kernel
def report_order(
    venue: Venue,
    symbol: int,
    order: VenueOrder,
    kind: int,
    code: int,
    trade_id: int,
    ticks: int,
    steps: int,
    fee_e8: int,
    t_ns: int,
) -> None:
    """Let a report about ``order`` of ``t_ns`` be under way."""
    slot, number, cum = order.slot, order.number, order.filled
    send_report(venue, symbol, slot, number, cum, kind, code, trade_id, ticks, steps, fee_e8, t_ns)


@kernel
def end_order(
    venue: Venue, one: VenueSymbol, symbol: int, order: VenueOrder, status: int, t_ns: int
) -> None:
    """Take an order off the book; one that is filled has said so."""
    if order.status == OPEN:
        one.n_open -= 1
    order.status = status
    if status == ENDED_CANCELED:
        report_order(venue, symbol, order, _CANCELED, 0, 0, 0, 0, 0, t_ns)
    elif status == ENDED_EXPIRED:
        report_order(venue, symbol, order, _EXPIRED, 0, 0, 0, 0, 0, t_ns)


@kernel
def fill_order(
    venue: Venue,
    one: VenueSymbol,
    symbol: int,
    order: VenueOrder,
    ticks: int,
    steps: int,
    fee_bps: float,
    t_ns: int,
) -> None:
    """Fill ``steps`` of an order at ``ticks``; one that closes never beyond the position.

    Where that leaves no position, what else would close it expires.
    """
    sells = order.slot == ENTRY
    taken = min(steps, order.steps - order.filled)
    if not sells:
        taken = min(taken, one.held)
    if taken > 0:
        one.held += taken if sells else -taken
        order.filled += taken
        fee = math.floor(ticks * taken * one.rules.unit_e8 * fee_bps * BPS + 0.5)
        venue.next_trade += 1
        report_order(venue, symbol, order, _FILL, 0, venue.next_trade, ticks, taken, int(fee), t_ns)
        if order.filled == order.steps:
            end_order(venue, one, symbol, order, ENDED_FILLED, t_ns)
    if one.held == 0 and not sells:
        expire_closing(venue, one, symbol, t_ns)


@kernel
def expire_closing(venue: Venue, one: VenueSymbol, symbol: int, t_ns: int) -> None:
    """Expire every limit order that would close a position that is not there any more."""
    for row in range(MAX_VENUE_ORDERS):
        order = one.orders[row]
        if is_resting(order) and order.slot != ENTRY:
            end_order(venue, one, symbol, order, ENDED_EXPIRED, t_ns)


# --- commands -------------------------------------------------------------------------------------


@kernel
def find_order(one: VenueSymbol, number: int) -> int:
    """Return the row of an order, -1 where there is none."""
    for row in range(MAX_VENUE_ORDERS):
        if one.orders[row].number == number:
            return row
    return -1


@kernel
def free_row(one: VenueSymbol) -> int:
    """Return the row whose order ended longest ago, -1 where all are open."""
    found = -1
    for row in range(MAX_VENUE_ORDERS):
        order = one.orders[row]
        if order.number > 0 and order.status == OPEN:
            continue
        if found < 0 or order.number < one.orders[found].number:
            found = row
    return found


@kernel
def join_queue(venue: Venue, one: VenueSymbol, order: VenueOrder) -> None:
    """Put an order at the end of the queue of its price."""
    sells = order.slot == ENTRY
    touch = one.ask if sells else one.bid
    shown = one.ask_steps if sells else one.bid_steps
    better = order.ticks < touch if sells else order.ticks > touch
    order.ahead, order.shown, order.queued = 0.0, 0.0, True
    if venue.model == _OPTIMISTIC or better:
        return
    if order.ticks == touch:
        order.ahead = order.shown = shown
    else:
        order.queued = False


@kernel
def refuse(
    venue: Venue, one: VenueSymbol, symbol: int, order: VenueOrder, code: int, t_ns: int
) -> None:
    """End an order that was never taken."""
    end_order(venue, one, symbol, order, ENDED_REFUSED, t_ns)
    report_order(venue, symbol, order, _REJECTED, code, 0, 0, 0, 0, t_ns)


@kernel
def is_passed(one: VenueSymbol, ticks: int) -> bool:
    """Return whether the price that triggers stops is at or beyond ``ticks``."""
    price = one.feed.mark if one.feed.mark_t_ns > 0 else one.feed.mid
    return price >= ticks * one.rules.tick_size


@kernel
def refusal_of(one: VenueSymbol, order: VenueOrder, tif: int) -> int:
    """Return the code with which a new order is refused, 0 where it is taken."""
    if order.slot in (STOP, STOP_NEXT):
        return _WOULD_TRIGGER if is_passed(one, order.ticks) else 0
    if order.slot != ENTRY and one.held == 0:
        return _CLOSES_NOTHING
    if tif == GTX and crosses(one, order.slot, order.ticks):
        return _WOULD_CROSS
    return 0


@kernel
def crosses(one: VenueSymbol, slot: int, ticks: int) -> bool:
    """Return whether an order at ``ticks`` would take liquidity."""
    if slot == ENTRY:
        return one.bid > 0 and ticks <= one.bid
    return one.ask > 0 and ticks >= one.ask


@kernel
def take_liquidity(
    venue: Venue, one: VenueSymbol, symbol: int, order: VenueOrder, at_any_price: bool, t_ns: int
) -> None:
    """Fill a buy order that takes: the displayed size at the touch, the rest a spread beyond it."""
    fee = one.rules.fee_taker
    if at_any_price or order.ticks >= one.ask:
        shown = math.floor(one.ask_steps)
        if shown > 0:
            fill_order(venue, one, symbol, order, one.ask, shown, fee, t_ns)
    beyond = 2 * one.ask - one.bid
    if order.status == OPEN and (at_any_price or order.ticks >= beyond):
        rest = order.steps - order.filled
        fill_order(venue, one, symbol, order, beyond, rest, fee, t_ns)
    if order.status == OPEN:
        end_order(venue, one, symbol, order, ENDED_EXPIRED, t_ns)


@kernel
def place_order(venue: Venue, one: VenueSymbol, command: Command, t_ns: int) -> None:
    """Take a new order, or refuse it."""
    row = free_row(one)
    if row < 0:
        venue.lost += 1
        return
    order = one.orders[row]
    order.number, order.slot, order.status = command.order, command.slot, OPEN
    order.ticks, order.steps, order.filled = command.ticks, command.steps, 0
    order.placed_ns, order.due_ns, order.queued, order.ahead, order.shown = t_ns, 0, True, 0.0, 0.0
    one.n_open += 1
    one.entries += command.slot == ENTRY
    symbol, code = command.symbol, refusal_of(one, order, command.tif)
    if code != 0:
        one.entries_refused += command.slot == ENTRY
        refuse(venue, one, symbol, order, code, t_ns)
        return
    report_order(venue, symbol, order, _ACCEPTED, 0, 0, order.ticks, order.steps, 0, t_ns)
    if command.slot in (STOP, STOP_NEXT):
        return
    if command.tif == GTX:
        join_queue(venue, one, order)
    else:
        take_liquidity(venue, one, symbol, order, command.tif == MARKET, t_ns)


@kernel
def amend_order(
    venue: Venue, one: VenueSymbol, symbol: int, order: VenueOrder, command: Command, t_ns: int
) -> None:
    """Change an open order; it goes to the back of the queue. Into the book: it is cancelled."""
    if crosses(one, order.slot, command.ticks) or command.steps <= order.filled:
        end_order(venue, one, symbol, order, ENDED_CANCELED, t_ns)
        return
    order.ticks, order.steps = command.ticks, command.steps
    join_queue(venue, one, order)
    report_order(venue, symbol, order, _AMENDED, 0, 0, order.ticks, order.steps, 0, t_ns)


@kernel
def answer_look_up(venue: Venue, symbol: int, order: VenueOrder, t_ns: int) -> None:
    """Say what became of an order; its fills have been reported."""
    if order.status == ENDED_REFUSED:
        report_order(venue, symbol, order, _REJECTED, _NO_SUCH_ORDER, 0, 0, 0, 0, t_ns)
    elif order.status == OPEN:
        report_order(venue, symbol, order, _ACCEPTED, 0, 0, order.ticks, order.steps, 0, t_ns)
    elif order.status == ENDED_EXPIRED:
        report_order(venue, symbol, order, _EXPIRED, 0, 0, 0, 0, 0, t_ns)
    else:
        report_order(venue, symbol, order, _CANCELED, 0, 0, 0, 0, 0, t_ns)


@kernel
def take_command(venue: Venue, one: VenueSymbol, command: Command, t_ns: int) -> None:
    """Carry out a command that has arrived at ``t_ns``."""
    kind, symbol = command.kind, command.symbol
    if kind in (_PLACE, _PLACE_STOP):
        place_order(venue, one, command, t_ns)
        return
    if kind not in (_AMEND, _CANCEL, _CANCEL_STOP, _LOOK_UP):
        return
    row = find_order(one, command.order)
    if row < 0 or (kind != _LOOK_UP and one.orders[row].status != OPEN):
        code = _NO_SUCH_ORDER if kind in (_AMEND, _LOOK_UP) else _CANCEL_REFUSED
        answer_unknown(venue, command, code, t_ns)
    elif kind == _AMEND:
        amend_order(venue, one, symbol, one.orders[row], command, t_ns)
    elif kind == _LOOK_UP:
        answer_look_up(venue, symbol, one.orders[row], t_ns)
    else:
        end_order(venue, one, symbol, one.orders[row], ENDED_CANCELED, t_ns)


@kernel
def answer_unknown(venue: Venue, command: Command, code: int, t_ns: int) -> None:
    """Refuse a command about an order that is not open."""
    slot, order = command.slot, command.order
    send_report(venue, command.symbol, slot, order, -1, _REJECTED, code, 0, 0, 0, 0, t_ns)


# --- the market -----------------------------------------------------------------------------------


@kernel
def queue_at_touch(venue: Venue, order: VenueOrder, shown: float) -> None:
    """Take in that ``shown`` steps are displayed at the order's price, which is the touch."""
    if venue.model == _OPTIMISTIC:
        return
    if not order.queued:
        order.ahead, order.queued = shown, True
    elif shown < order.shown and venue.model == _PROPORTIONAL:
        order.ahead *= shown / order.shown
    order.ahead = min(order.ahead, shown)
    order.shown = shown


@kernel
def match_book(venue: Venue, one: VenueSymbol, symbol: int, order: VenueOrder, t_ns: int) -> None:
    """Match a resting order against a new touch."""
    sells = order.slot == ENTRY
    touch, opposite = (one.ask, one.bid) if sells else (one.bid, one.ask)
    shown = one.ask_steps if sells else one.bid_steps
    sign = 1 if sells else -1
    beyond = sign * (opposite - order.ticks)
    if beyond > 0 or (beyond == 0 and venue.model != _PESSIMISTIC):
        rest = order.steps - order.filled
        fill_order(venue, one, symbol, order, order.ticks, rest, one.rules.fee_maker, t_ns)
    elif touch == order.ticks:
        queue_at_touch(venue, order, shown)
    elif sign * (touch - order.ticks) > 0:
        order.ahead, order.shown, order.queued = min(order.ahead, 0.0), 0.0, True


@kernel
def match_trade(
    venue: Venue,
    one: VenueSymbol,
    symbol: int,
    order: VenueOrder,
    ticks: int,
    steps: float,
    t_ns: int,
) -> None:
    """Match a resting order against a trade of an aggressor on the other side."""
    sells = order.slot == ENTRY
    beyond = ticks - order.ticks if sells else order.ticks - ticks
    fee = one.rules.fee_maker
    if beyond > 0:
        rest = order.steps - order.filled
        fill_order(venue, one, symbol, order, order.ticks, rest, fee, t_ns)
    elif beyond == 0 and order.queued:
        order.ahead -= steps
        order.shown = max(order.shown - steps, 0.0)
        whole = math.floor(-order.ahead + 1e-9)
        if whole > 0:
            order.ahead += whole
            fill_order(venue, one, symbol, order, order.ticks, whole, fee, t_ns)


@kernel
def trigger_stops(venue: Venue, one: VenueSymbol, t_ns: int) -> None:
    """Trigger the stops whose price is reached; they fill a report's way later."""
    for row in range(MAX_VENUE_ORDERS):
        order = one.orders[row]
        if order.number == 0 or order.status != OPEN or order.slot not in (STOP, STOP_NEXT):
            continue
        if order.due_ns == 0 and is_passed(one, order.ticks):
            order.due_ns = t_ns + venue.down_ns
            one.next_due_ns = min(one.next_due_ns, order.due_ns)


@kernel
def fill_due_stops(venue: Venue, one: VenueSymbol, symbol: int, t_ns: int) -> None:
    """Fill the stops that are due, beyond the touch as it then is."""
    one.next_due_ns = FOREVER_NS
    for row in range(MAX_VENUE_ORDERS):
        order = one.orders[row]
        if order.number == 0 or order.status != OPEN or order.due_ns == 0:
            continue
        if order.due_ns > t_ns:
            one.next_due_ns = min(one.next_due_ns, order.due_ns)
            continue
        ticks = math.ceil(one.ask * (1.0 + STOP_SLIP_BPS * BPS))
        rest = order.steps - order.filled
        fill_order(venue, one, symbol, order, ticks, rest, one.rules.fee_taker, t_ns)
        if order.status == OPEN:
            end_order(venue, one, symbol, order, ENDED_EXPIRED, t_ns)


@kernel
def settle(venue: Venue, one: VenueSymbol, symbol: int, t_ns: int) -> None:
    """Pay the funding of a settlement that has passed: shorts receive a positive rate."""
    if one.settlement_ms == 0 or t_ns < one.settlement_ms * MS_NS:
        return
    one.settlement_ms = 0
    if one.held > 0:
        feed = one.feed
        amount = one.held * one.rules.step_size * feed.mark * feed.funding_rate
        paid_e8 = math.floor(amount * 1e8 + 0.5)
        send_report(venue, symbol, 0, 0, 0, FUNDING_REPORT, 0, 0, 0, 0, paid_e8, t_ns)


@kernel
def take_market(venue: Venue, one: VenueSymbol, event: Event, t_ns: int) -> None:
    """Let an event of the market happen at the exchange at ``t_ns``."""
    if event.kind == _BOOK:
        if take_book(one.feed, event) == 0:
            take_touch(venue, one, event, t_ns)
    elif event.kind == _TRADE:
        if take_trade(one.feed, event) == 0 and one.n_open > 0:
            match_aggressor(venue, one, event, t_ns)
    elif event.kind == _MARK:
        settle(venue, one, event.symbol, t_ns)
        if take_mark(one.feed, event) == 0:
            one.settlement_ms = max(event.number, 0)
            if one.n_open > 0:
                trigger_stops(venue, one, t_ns)


@kernel
def take_touch(venue: Venue, one: VenueSymbol, event: Event, t_ns: int) -> None:
    """Take a new touch, and match what rests against it."""
    rules = one.rules
    one.bid, one.ask = ticks_of(rules, event.price), ticks_of(rules, event.price2)
    one.bid_steps, one.ask_steps = event.qty / rules.step_size, event.qty2 / rules.step_size
    if one.n_open == 0:
        return
    if one.feed.mark_t_ns == 0:
        trigger_stops(venue, one, t_ns)
    match_resting(venue, one, event.symbol, t_ns)


@kernel
def is_resting(order: VenueOrder) -> bool:
    """Return whether an order waits in a queue."""
    rests = order.number > 0 and order.status == OPEN
    return rests and order.slot != STOP and order.slot != STOP_NEXT  # noqa: PLR1714


@kernel
def match_resting(venue: Venue, one: VenueSymbol, symbol: int, t_ns: int) -> None:
    """Match every resting order against a new touch."""
    for row in range(MAX_VENUE_ORDERS):
        if is_resting(one.orders[row]):
            match_book(venue, one, symbol, one.orders[row], t_ns)


@kernel
def match_aggressor(venue: Venue, one: VenueSymbol, event: Event, t_ns: int) -> None:
    """Match every resting order on the other side against a trade."""
    ticks, steps = ticks_of(one.rules, event.price), event.qty / one.rules.step_size
    for row in range(MAX_VENUE_ORDERS):
        order = one.orders[row]
        against = BUY if order.slot == ENTRY else SELL
        if is_resting(order) and event.side == against:
            match_trade(venue, one, event.symbol, order, ticks, steps, t_ns)
