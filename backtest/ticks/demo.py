"""A tick market that needs no files: some coins, made up from a seed, alike on every machine.

It shows what the short grid meets (pumps that exhaust themselves, pumps that go on, a squeeze of
all coins, silent coins, a silent connection, late messages, bad books and trades), not what any
coin did. Only PCG64's integers, + - * / and comparisons are used, which IEEE 754 rounds alike
everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest.ticks.files import Events, new_events
from backtest.ticks.reader import merge
from core.jit import kernel
from core.recording import BUY, MS_NS, SECOND_NS, SELL, Event, EventKind
from core.records import Table, zeros, zeros_table

Floats = npt.NDArray[np.float64]

DEMO_START_NS: Final = 1_767_225_600 * SECOND_NS  # 2026-01-01 00:00 UTC
SLICE_MS: Final = 100
"""The market moves in slices of this length."""
SLICES_PER_MINUTE: Final = 60_000 // SLICE_MS
_PER_SLICE: Final = 5  # events of one coin at most, bad ones, marks and candles aside
_ROOM: Final = _PER_SLICE + 4
_CHANCES: Final = 28  # random numbers per slice
_BOOK: Final = int(EventKind.BOOK)
_TRADE: Final = int(EventKind.TRADE)
_MARK: Final = int(EventKind.MARK)
_REPLY: Final = int(EventKind.REPLY)
_COMMON_SEED: Final = 77
_REPLY_SLICES: Final = 120_000 // SLICE_MS
_MARK_SLICES: Final = 1_000 // SLICE_MS
_FUNDING_MS: Final = 8 * 3_600_000
_BOOK_CHANCE: Final = 0.55
_TRADE_CHANCE: Final = 0.22
"""Of one of a slice's places, in a calm market."""
_FAULT_CHANCE: Final = 0.004
"""Of a slice."""
_GOES_ON: Final = 0.12
"""Share of pumps that do not fall back."""

# Faults, as tenths of all: 0 skips a trade's number, up to 2 repeat, up to 4 cross, then a
# negative size, a price that is no number, outliers.
_SKIPPED: Final = 0
_REPEATED: Final = 2
_CROSSED: Final = 4
_NEGATIVE: Final = 5
_NO_NUMBER: Final = 6


@dataclass(frozen=True)
class DemoTickCoin:
    """The traits that tell one made-up coin from another.

    Attributes:
        seed: of its own random numbers.
        price: quote, at the start.
        sigma: volatility between episodes, bps per sqrt(s).
        spread: bps, middling.
        touch: quote, middling size at the touch.
        ticks_per_unit: ticks in one unit of the quote.
        steps_per_unit: lot steps in one unit of the base.
        funding_rate: of the next settlement.
    """

    seed: int
    price: float
    sigma: float
    spread: float
    touch: float
    ticks_per_unit: int
    steps_per_unit: int
    funding_rate: float

    def rules(self) -> dict[str, float]:
        """Return the coin's market rules."""
        return {
            "tick_size": 1.0 / self.ticks_per_unit,
            "step_size": 1.0 / self.steps_per_unit,
            "min_qty": 1.0 / self.steps_per_unit,
            "min_notional": 5.0,
        }


DEMO_TICK_COINS: Final[Mapping[str, DemoTickCoin]] = {
    "KITUSDT": DemoTickCoin(21, 0.42, 1.6, 10.0, 900.0, 10_000, 1, 0.0001),
    "LUMUSDT": DemoTickCoin(22, 7.5, 2.2, 14.0, 1_500.0, 1_000, 10, 0.00005),
    "NOXUSDT": DemoTickCoin(23, 0.031, 2.8, 23.0, 600.0, 100_000, 1, -0.0002),
    "ORBUSDT": DemoTickCoin(24, 132.0, 1.9, 9.0, 2_500.0, 20, 1_000, 0.0001),
}


class _Mood:
    """How one coin behaves in one slice."""

    drift: float  # bps
    buyers: float  # share of aggressors
    skew: float  # share of the touch that lies on the bid, 0.5 = balanced
    haste: float  # trades, relative to calm
    silent: bool
    lag_ms: float


class _Scale:
    """A coin's numbers as kernels read them."""

    symbol: int
    slice_sigma: float  # bps per slice
    sigma: float  # bps per sqrt(s)
    spread: float  # bps
    touch_steps: float
    ticks_per_unit: float
    steps_per_unit: float
    funding_rate: float


class _Quote:
    """Where a coin's market is."""

    fair: float  # ticks
    bid: int  # ticks
    ask: int
    bid_steps: int
    ask_steps: int
    update: int
    trade: int


@dataclass(frozen=True)
class DemoTicks:
    """A made-up recording.

    Attributes:
        symbols: index -> symbol, as in the events.
        events: in their total order.
        rules: market rules by symbol.
    """

    symbols: tuple[str, ...]
    events: Events
    rules: Mapping[str, dict[str, float]]


def demo_ticks(
    minutes: int = 60, symbols: tuple[str, ...] = tuple(DEMO_TICK_COINS), *, faults: bool = True
) -> DemoTicks:
    """Return ``minutes`` of the demo's coins.

    Args:
        minutes: length.
        symbols: some of ``DEMO_TICK_COINS``.
        faults: with bad, late and missing messages.
    """
    n_slices = minutes * SLICES_PER_MINUTE
    shared = _chances(_COMMON_SEED, 64)
    parts = []
    for index, symbol in enumerate(symbols):
        coin = DEMO_TICK_COINS[symbol]
        moods = _moods(coin, n_slices, shared, faults)
        chances = _chances(coin.seed + 1_000, n_slices * _CHANCES).reshape(n_slices, _CHANCES)
        events = new_events(n_slices * _ROOM)
        scale, quote = _start(coin, index)
        n_events = make_events(events, moods, chances, scale, quote, DEMO_START_NS, faults)
        own = events[:n_events]
        parts.append(own[np.argsort(own["t_ns"], kind="stable")])
    return DemoTicks(
        symbols, merge(parts, 0), {symbol: DEMO_TICK_COINS[symbol].rules() for symbol in symbols}
    )


def _start(coin: DemoTickCoin, index: int) -> tuple[_Scale, _Quote]:
    """Return a coin's numbers and its market before the first slice."""
    scale, quote = zeros(_Scale), zeros(_Quote)
    scale.symbol, scale.sigma, scale.spread = index, coin.sigma, coin.spread
    scale.slice_sigma = coin.sigma * 0.31622776601683794  # sqrt(0.1)
    scale.touch_steps = coin.touch / coin.price * coin.steps_per_unit
    scale.ticks_per_unit, scale.steps_per_unit = coin.ticks_per_unit, coin.steps_per_unit
    scale.funding_rate = coin.funding_rate
    quote.fair = coin.price * coin.ticks_per_unit
    quote.bid, quote.ask = int(quote.fair), int(quote.fair) + 1
    quote.bid_steps = quote.ask_steps = int(scale.touch_steps)
    quote.update, quote.trade = 1_000, 500
    return scale, quote


def _chances(seed: int, count: int) -> Floats:
    """Return uniform numbers in [0, 1)."""
    words = np.random.PCG64(seed).random_raw(count)
    return (words >> np.uint64(11)).astype(np.float64) / 2.0**53


def _moods(coin: DemoTickCoin, n_slices: int, shared: Floats, faults: bool) -> Any:
    """Return the mood of every slice: calm, and the episodes laid over it."""
    moods: Any = zeros_table(_Mood, n_slices)
    moods["buyers"] = moods["skew"] = 0.5
    moods["haste"] = 1.0
    moods["lag_ms"] = 20.0
    chance = iter(_chances(coin.seed, 4 * (n_slices // SLICES_PER_MINUTE + 8)))
    at = SLICES_PER_MINUTE + int(next(chance) * SLICES_PER_MINUTE)
    while at < n_slices:
        goes_on = next(chance) < _GOES_ON
        _pump(moods[at:], 40.0 + 90.0 * next(chance), goes_on=goes_on)
        at += 3 * SLICES_PER_MINUTE + int(next(chance) * 2 * SLICES_PER_MINUTE)
    for hour in range(0, n_slices, 60 * SLICES_PER_MINUTE):
        _hourly(moods, hour, coin, shared, faults)
    return moods


def _hourly(moods: Any, start: int, coin: DemoTickCoin, shared: Floats, faults: bool) -> None:
    """Lay on one hour's squeeze of all coins and, with ``faults``, what is silent or late."""
    minute = SLICES_PER_MINUTE
    squeeze = start + 40 * minute + int(shared[0] * minute)
    _set(moods, squeeze, squeeze + minute, drift=260.0 / minute, buyers=0.8, skew=0.62, haste=3.0)
    if not faults:
        return
    silent = start + (20 + 3 * (coin.seed % 5)) * minute
    moods["silent"][silent : silent + minute + minute // 2] = True
    dead = start + 50 * minute
    moods["silent"][dead : dead + minute] = True  # the whole connection
    late = start + (30 + coin.seed % 7) * minute
    moods["lag_ms"][late : late + minute // 3] = 900.0


def _pump(moods: Any, size: float, *, goes_on: bool) -> None:
    """Lay a pump of ``size`` bps on the first slices: 6 s up, 2 s of exhaustion, then back.

    One that goes on rises to six times its size within three minutes first.
    """
    up, tired, back = 60, 20, 600
    _set(moods, 0, up, drift=size / up, buyers=0.92, skew=0.68, haste=5.0)
    _set(moods, up, up + tired, drift=0.02, buyers=0.35, skew=0.30, haste=2.5)
    after = up + tired
    if goes_on:
        long = 3 * SLICES_PER_MINUTE
        _set(moods, after, after + long, drift=5.0 * size / long, buyers=0.66, skew=0.55, haste=2.0)
        after += long
    _set(moods, after, after + back, drift=-1.05 * size / back, buyers=0.42, skew=0.45, haste=1.2)


def _set(moods: Any, start: int, end: int, **values: float) -> None:
    for name, value in values.items():
        moods[name][start:end] = value


@kernel
def bell(chances: Floats, first: int) -> float:
    """Return a nearly normal number from four chances."""
    total = chances[first] + chances[first + 1] + chances[first + 2] + chances[first + 3]
    return float((total - 2.0) * 1.7320508075688772)


@kernel
def make_events(  # noqa: C901 - one loop over slices, one branch per kind of event
    events: Table[Event],
    moods: Table[_Mood],
    chances: Floats,
    coin: _Scale,
    quote: _Quote,
    start_ns: int,
    faults: bool,
) -> int:
    """Write the events of one coin; return how many.

    A slice moves the fair price, then writes up to ``_PER_SLICE`` books and trades at times of
    their own. Buyers trade at the ask, sellers at the bid, of the book last written.
    """
    n = 0
    for k in range(len(moods)):
        mood, chance = moods[k], chances[k]
        quote.fair *= 1.0 + (mood.drift + coin.slice_sigma * bell(chance, 0)) * 1e-4
        slice_ns = start_ns + k * SLICE_MS * MS_NS
        if k % _REPLY_SLICES == 0:
            n = write_reply(events, n, coin, slice_ns)
        if mood.silent:
            continue
        if k % _MARK_SLICES == 0:
            n = write_mark(events, n, coin, slice_ns, quote.fair / coin.ticks_per_unit)
        for j in range(_PER_SLICE):
            first = 4 + 4 * j
            t_ns = slice_ns + int((j + chance[first]) * (SLICE_MS * MS_NS / _PER_SLICE))
            lag_ms = mood.lag_ms + 10.0 * chance[first + 1]
            event = events[n]
            event.t_ns, event.event_ms = t_ns, (t_ns - int(lag_ms * MS_NS)) // MS_NS
            if j % 2 == 0 and chance[first + 2] <= _BOOK_CHANCE:
                move_quote(quote, coin, mood.skew, chance, first)
                write_book(event, coin, quote)
                n += 1
            elif j % 2 == 1 and chance[first + 2] <= _TRADE_CHANCE * mood.haste:
                buys = chance[first + 3] < mood.buyers
                write_trade(event, coin, quote, buys, chance[first + 1])
                n += 1
        if faults:
            n = write_fault(events, n, quote, chance[_CHANCES - 4], chance[_CHANCES - 3])
    return n


@kernel
def move_quote(quote: _Quote, coin: _Scale, skew: float, chances: Floats, first: int) -> None:
    """Lay bid and ask around the fair price, with sizes as ``skew`` has it."""
    width = coin.spread * (0.8 + 0.4 * chances[first + 3]) * quote.fair * 1e-4
    quote.bid = whole(quote.fair - width / 2.0)
    quote.ask = max(whole(quote.fair + width / 2.0) + 1, quote.bid + 1)
    share = min(max(skew + 0.25 * (chances[first + 1] - 0.5), 0.05), 0.95)
    size = 2.0 * coin.touch_steps * (0.6 + 0.8 * chances[first])
    quote.bid_steps = whole(1.0 + size * share)
    quote.ask_steps = whole(1.0 + size * (1.0 - share))
    quote.update += 1 + int(40.0 * chances[first + 3])


@kernel
def whole(value: float) -> int:
    """Return the largest whole number not above ``value``, which is not negative."""
    return int(value)


@kernel
def write_kind(event: Event, coin: _Scale, kind: int, number: int) -> None:
    """Write what events of every kind have, and nothing in the rest."""
    event.kind, event.symbol, event.seq, event.number = kind, coin.symbol, -1, number
    event.transaction_ms, event.side, event.rate = event.event_ms, 0, 0.0
    event.price = event.qty = event.price2 = event.qty2 = 0.0


@kernel
def write_book(event: Event, coin: _Scale, quote: _Quote) -> None:
    """Write best bid and ask."""
    write_kind(event, coin, _BOOK, quote.update)
    event.price, event.qty = (
        quote.bid / coin.ticks_per_unit,
        quote.bid_steps / coin.steps_per_unit,
    )
    event.price2 = quote.ask / coin.ticks_per_unit
    event.qty2 = quote.ask_steps / coin.steps_per_unit


@kernel
def write_trade(event: Event, coin: _Scale, quote: _Quote, buys: bool, chance: float) -> None:
    """Write a trade at the touch; few are large."""
    quote.trade += 1
    write_kind(event, coin, _TRADE, quote.trade)
    event.side = BUY if buys else SELL
    event.price = (quote.ask if buys else quote.bid) / coin.ticks_per_unit
    steps = whole(1.0 + coin.touch_steps * 0.08 / (0.04 + chance))
    event.qty = event.qty2 = steps / coin.steps_per_unit


@kernel
def write_mark(events: Table[Event], n: int, coin: _Scale, t_ns: int, price: float) -> int:
    """Write a mark price with the settlement every eight hours; return the number of events."""
    event = events[n]
    event.t_ns, event.event_ms = t_ns, t_ns // MS_NS
    write_kind(event, coin, _MARK, (t_ns // MS_NS // _FUNDING_MS + 1) * _FUNDING_MS)
    event.price, event.rate = price, coin.funding_rate
    return n + 1


@kernel
def write_reply(events: Table[Event], n: int, coin: _Scale, t_ns: int) -> int:
    """Write what candles say: the calm volatility, bps per sqrt(s); return the number of events."""
    event = events[n]
    event.t_ns, event.event_ms = t_ns, -1
    write_kind(event, coin, _REPLY, -1)
    event.price, event.qty, event.rate = coin.sigma, coin.sigma * 1.05, coin.sigma * 0.95
    return n + 1


@kernel
def write_fault(  # noqa: C901 - one branch per fault
    events: Table[Event], n: int, quote: _Quote, chance: float, kind: float
) -> int:
    """Rarely write a bad copy of the last book or trade, or skip a trade's number.

    Returns:
        The number of events.
    """
    if n == 0 or chance > _FAULT_CHANCE:
        return n
    before, event = events[n - 1], events[n]
    which = int(10.0 * kind)
    if which == _SKIPPED:
        quote.trade += 1
        return n
    if before.kind == _MARK or before.kind == _REPLY:  # noqa: PLR1714 - a kernel has no sets
        return n
    event.t_ns, event.seq, event.kind, event.symbol = before.t_ns, -1, before.kind, before.symbol
    event.event_ms, event.transaction_ms = before.event_ms, before.transaction_ms
    event.number, event.side, event.rate = before.number + 1, before.side, 0.0
    event.price, event.qty = before.price, before.qty
    event.price2, event.qty2 = before.price2, before.qty2
    if which <= _REPEATED:
        event.number = before.number
    elif which <= _CROSSED and event.kind == _BOOK:
        event.price2 = event.price
    elif which <= _CROSSED:
        event.price = 0.0
    elif which == _NEGATIVE:
        event.qty = -1.0
    elif which == _NO_NUMBER:
        event.price = np.nan
    else:
        event.price, event.price2 = event.price * 1.5, event.price2 * 1.5
    return n + 1
