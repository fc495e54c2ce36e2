"""The feed of one symbol: checked, counted by reason, kept as the last known.

Nothing is repaired: an event is used as it is or not at all. A symbol's exchange numbers its
books (``u``) and its trades (``a``); two connections may deliver both twice.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Annotated, Final

from core.jit import kernel
from core.recording import MS_NS, UNKNOWN, Event, EventKind
from core.records import Table, zeros_table
from engine.short_grid.params import STEPS_PER_SECOND

MAX_JUMP: Final = 0.2
"""A price farther than this from the last mid must be confirmed."""
CONFIRMATIONS: Final = 3
"""Further events that confirm such a price."""
_REMEMBERED_IDS: Final = 62
"""Trade ids behind the last one of which it is known whether they were seen."""
_ID_MASK: Final = 2**_REMEMBERED_IDS - 1


class Rejection(IntEnum):
    """Reason why an event was not used; TRADE_GAP is counted, but its event is used."""

    NONE = 0
    PRICE = 1
    SIZE = 2
    CROSSED = 3
    OLD_UPDATE = 4
    SEEN_TRADE = 5
    OUTLIER = 6
    TRADE_GAP = 7


N_REJECTIONS: Final = 8
REJECTION_TEXTS: Final = (
    "used",
    "price not finite or not positive",
    "size negative or not finite",
    "ask not above bid",
    "update not newer than the last",
    "trade seen before",
    "price more than 20 % from the last mid, unconfirmed",
    "gaps in trade ids (events used)",
)

# Inside kernels enumerations are numbers.
_BOOK: Final = int(EventKind.BOOK)
_TRADE: Final = int(EventKind.TRADE)
_MARK: Final = int(EventKind.MARK)
_NONE: Final = int(Rejection.NONE)
_PRICE: Final = int(Rejection.PRICE)
_SIZE: Final = int(Rejection.SIZE)
_CROSSED: Final = int(Rejection.CROSSED)
_OLD_UPDATE: Final = int(Rejection.OLD_UPDATE)
_SEEN_TRADE: Final = int(Rejection.SEEN_TRADE)
_OUTLIER: Final = int(Rejection.OUTLIER)
_TRADE_GAP: Final = int(Rejection.TRADE_GAP)


class Outlier:
    """Prices in a row that lie far from the last mid and near each other."""

    price: float  # quote, the latest
    n: int


class Feed:
    """The last known of one symbol, and what was wrong with the rest."""

    book_t_ns: int  # receive time of the last book, 0 = none yet
    bid: float  # quote
    bid_qty: float  # base
    ask: float
    ask_qty: float
    mid: float  # quote
    update_id: int
    trade_id: int
    trades_seen: int  # bit i: trade_id - 1 - i was seen
    mark_t_ns: int  # 0 = none yet
    mark_event_ms: int
    mark: float  # quote
    funding_rate: float
    next_funding_ms: int
    book_outlier: Outlier
    trade_outlier: Outlier
    mark_outlier: Outlier
    stamped: Annotated[Table[int], STEPS_PER_SECOND]  # events with a stamp, by step, a ring
    late: Annotated[Table[int], STEPS_PER_SECOND]  # those that were too long under way
    n_stamped: int  # of the ring
    n_late: int
    at: int  # the ring's current step
    n_used: int
    rejected: Annotated[Table[int], N_REJECTIONS]


@kernel
def start_feed(feed: Feed) -> None:
    """Set the numbers of a zero-filled record that are not 0 at the start."""
    feed.update_id = feed.trade_id = feed.mark_event_ms = UNKNOWN


@kernel
def is_price(value: float) -> bool:
    """Return whether ``value`` can be a price."""
    return math.isfinite(value) and value > 0.0


@kernel
def is_size(value: float) -> bool:
    """Return whether ``value`` can be a quantity; 0 can."""
    return math.isfinite(value) and value >= 0.0


@kernel
def is_plausible(outlier: Outlier, mid: float, price: float) -> bool:
    """Return whether ``price`` is near ``mid``, or confirmed by enough far ones in a row."""
    if mid <= 0.0 or abs(price / mid - 1.0) <= MAX_JUMP:
        outlier.n = 0
        return True
    near = outlier.n > 0 and abs(price / outlier.price - 1.0) <= MAX_JUMP
    outlier.n = outlier.n + 1 if near else 1
    outlier.price = price
    return outlier.n > CONFIRMATIONS


@kernel
def count_lag(feed: Feed, event: Event, max_lag_ms: float) -> None:
    """Count an event with a stamp, and whether it was under way for too long."""
    if event.event_ms == UNKNOWN:
        return
    feed.stamped[feed.at] += 1
    feed.n_stamped += 1
    if event.t_ns - event.event_ms * MS_NS > max_lag_ms * MS_NS:
        feed.late[feed.at] += 1
        feed.n_late += 1


@kernel
def roll_lag(feed: Feed) -> None:
    """Forget the events of the step that lies a second back; called at every step."""
    feed.at = (feed.at + 1) % STEPS_PER_SECOND
    feed.n_stamped -= feed.stamped[feed.at]
    feed.n_late -= feed.late[feed.at]
    feed.stamped[feed.at] = feed.late[feed.at] = 0


@kernel
def is_lagging(feed: Feed) -> bool:
    """Return whether the (lower) median delay of the last second's events is too long."""
    return feed.n_late > feed.n_stamped // 2


@kernel
def check_book(feed: Feed, event: Event) -> int:
    """Return why a book cannot be used, 0 if it can; its number counts as seen if well formed."""
    if not (is_price(event.price) and is_price(event.price2)):
        return _PRICE
    if not (is_size(event.qty) and is_size(event.qty2)):
        return _SIZE
    if event.price2 <= event.price:
        return _CROSSED
    if event.number != UNKNOWN:
        if event.number <= feed.update_id:
            return _OLD_UPDATE
        feed.update_id = event.number
    mid = (event.price + event.price2) / 2.0
    if not is_plausible(feed.book_outlier, feed.mid, mid):
        return _OUTLIER
    return _NONE


@kernel
def take_book(feed: Feed, event: Event) -> int:
    """Take a book as the last known if it can be used; return why not, else 0."""
    reason = check_book(feed, event)
    if reason != _NONE:
        feed.rejected[reason] += 1
        return reason
    feed.n_used += 1
    feed.book_t_ns = event.t_ns
    feed.bid, feed.bid_qty = event.price, event.qty
    feed.ask, feed.ask_qty = event.price2, event.qty2
    feed.mid = (event.price + event.price2) / 2.0
    return _NONE


@kernel
def see_trade(feed: Feed, number: int) -> int:
    """Remember a trade's number; return whether it was seen before, or skips numbers."""
    if number == UNKNOWN:
        return _NONE
    if feed.trade_id == UNKNOWN:
        feed.trade_id = number
        feed.trades_seen = _ID_MASK  # what was before the first is not awaited
        return _NONE
    ahead = number - feed.trade_id
    if ahead <= 0:
        back = -ahead - 1
        if ahead == 0 or back >= _REMEMBERED_IDS or (feed.trades_seen >> back) & 1:
            return _SEEN_TRADE
        feed.trades_seen |= 1 << back
        return _NONE
    # The last one and those skipped move into the mask; what leaves it counts as seen.
    if ahead > _REMEMBERED_IDS:
        feed.trades_seen = 0
    else:
        kept = feed.trades_seen & (_ID_MASK >> ahead)
        feed.trades_seen = (kept << ahead) | (1 << (ahead - 1))
    feed.trade_id = number
    return _TRADE_GAP if ahead > 1 else _NONE


@kernel
def take_trade(feed: Feed, event: Event) -> int:
    """Return why a trade cannot be used, 0 if it can; gaps in its numbers are counted."""
    if not is_price(event.price):
        reason = _PRICE
    elif not (is_size(event.qty) and is_size(event.qty2)):
        reason = _SIZE
    else:
        reason = see_trade(feed, event.number)
        if reason == _TRADE_GAP:
            feed.rejected[_TRADE_GAP] += 1
            reason = _NONE
        if reason == _NONE and not is_plausible(feed.trade_outlier, feed.mid, event.price):
            reason = _OUTLIER
    if reason != _NONE:
        feed.rejected[reason] += 1
        return reason
    feed.n_used += 1
    return _NONE


@kernel
def take_mark(feed: Feed, event: Event) -> int:
    """Take a mark price as the last known if it can be used; return why not, else 0."""
    reason = _NONE
    if not (is_price(event.price) and math.isfinite(event.rate)):
        reason = _PRICE
    elif event.event_ms != UNKNOWN and event.event_ms <= feed.mark_event_ms:
        reason = _OLD_UPDATE
    else:
        feed.mark_event_ms = event.event_ms
        if not is_plausible(feed.mark_outlier, feed.mid, event.price):
            reason = _OUTLIER
    if reason != _NONE:
        feed.rejected[reason] += 1
        return reason
    feed.n_used += 1
    feed.mark_t_ns, feed.mark = event.t_ns, event.price
    feed.funding_rate, feed.next_funding_ms = event.rate, event.number
    return _NONE


@kernel
def check_events(feeds: Table[Feed], events: Table[Event]) -> int:
    """Take ``events`` into ``feeds`` only, so that rejections are counted.

    Returns:
        Number of events of a symbol that is not in the table.
    """
    unknown = 0
    for i in range(len(events)):
        event = events[i]
        if not 0 <= event.symbol < len(feeds):
            unknown += 1
        elif event.kind == _BOOK:
            take_book(feeds[event.symbol], event)
        elif event.kind == _TRADE:
            take_trade(feeds[event.symbol], event)
        elif event.kind == _MARK:
            take_mark(feeds[event.symbol], event)
    return unknown


@kernel
def used_books(feed: Feed, events: Table[Event], used: Table[bool]) -> None:
    """Write which of one symbol's ``events`` are books that can be used, shape (n_events,)."""
    for i in range(len(events)):
        used[i] = events[i].kind == _BOOK and take_book(feed, events[i]) == _NONE


def new_feeds(n_symbols: int) -> Table[Feed]:
    """Return the feeds of ``n_symbols`` symbols before their first event."""
    feeds = zeros_table(Feed, n_symbols)
    for i in range(n_symbols):
        start_feed(feeds[i])
    return feeds
