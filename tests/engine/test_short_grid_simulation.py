"""The simulated exchange of the short grid: queues, stops, fees, funding; and whole runs on it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.ticks.demo import demo_ticks
from backtest.ticks.files import Events, new_events
from core.recording import BUY, MS_NS, SELL, UNKNOWN, EventKind
from core.records import zeros, zeros_table
from engine.registry import SHORT_GRID
from engine.short_grid.feed import start_feed
from engine.short_grid.params import STEP_NS
from engine.short_grid.session import TickRun, exchange_order
from engine.short_grid.slots import ENTRY, EXIT, STOP, TAKE_PROFIT
from engine.short_grid.types import (
    FOREVER_NS,
    Command,
    CommandKind,
    ReportKind,
    TimeInForce,
    make_rules,
)
from engine.short_grid.venue import (
    FUNDING_REPORT,
    QueueModel,
    Venue,
    VenueSymbol,
    fill_due_stops,
    take_command,
    take_market,
)
from tests.engine.test_short_grid_compiled import printed

T0 = 1_767_225_600_000_000_000
RULES: dict[str, float] = {
    "tick_size": 0.01,
    "step_size": 1.0,
    "min_qty": 1.0,
    "min_notional": 5.0,
    "fee_maker_bps": 2.0,
    "fee_taker_bps": 5.0,
}
PESSIMISTIC, PROPORTIONAL, OPTIMISTIC = QueueModel


class Exchange:
    """One symbol at the venue; prices in ticks, sizes in steps, one thing a millisecond."""

    def __init__(self, model: QueueModel, held: int = 0) -> None:
        self.venue, places = zeros(Venue), zeros_table(VenueSymbol, 1)
        self.venue.model, self.venue.down_ns = int(model), 3 * MS_NS
        self.one = places[0]
        self.one.rules, self.one.next_due_ns = make_rules(**RULES), FOREVER_NS
        self.one.held = held
        start_feed(self.one.feed)
        self.now, self.number, self.update = T0, 0, 0

    def event(self, kind: EventKind, **values: Any) -> None:
        """Let something happen at the exchange."""
        events = new_events(1)
        events["kind"], events["t_ns"], events["symbol"] = int(kind), self.now, 0
        events["transaction_ms"] = events["event_ms"] = UNKNOWN
        for name, value in values.items():
            events[name] = value
        take_market(self.venue, self.one, events[0], self.now)
        self.now += MS_NS

    def book(self, bid: int, bid_steps: float, ask: int, ask_steps: float) -> None:
        """Show a touch."""
        self.update += 1
        self.event(
            EventKind.BOOK,
            number=self.update,
            price=bid * 0.01,
            qty=bid_steps,
            price2=ask * 0.01,
            qty2=ask_steps,
        )

    def trade(self, ticks: int, steps: float, side: int) -> None:
        """Let an aggressor trade."""
        self.update += 1
        self.event(EventKind.TRADE, number=self.update, price=ticks * 0.01, qty=steps, side=side)

    def mark(self, ticks: int, rate: float = 0.0, settlement_ms: int = 0) -> None:
        """Publish a mark price."""
        self.event(EventKind.MARK, price=ticks * 0.01, rate=rate, number=settlement_ms)

    def command(self, kind: CommandKind, slot: int, ticks: int, steps: int, **more: int) -> int:
        """Give a command; return the order's number."""
        command: Any = zeros(Command)
        if kind in (CommandKind.PLACE, CommandKind.PLACE_STOP):
            self.number += 1
        command.kind, command.slot, command.order = int(kind), slot, more.get("order", self.number)
        command.ticks, command.steps, command.tif = ticks, steps, more.get("tif", TimeInForce.GTX)
        take_command(self.venue, self.one, command, self.now)
        self.now += MS_NS
        return int(command.order)

    def place(self, slot: int, ticks: int, steps: int, tif: int = TimeInForce.GTX) -> int:
        """Place an order."""
        return self.command(CommandKind.PLACE, slot, ticks, steps, tif=tif)

    def wait(self, ms: int) -> None:
        """Let time pass."""
        self.now += ms * MS_NS
        if self.one.next_due_ns <= self.now:
            fill_due_stops(self.venue, self.one, 0, self.now)

    def said(self) -> list[tuple[ReportKind | str, int, int]]:
        """Return what was reported since the last call: kind, ticks, steps (or code, or money)."""
        found: list[tuple[ReportKind | str, int, int]] = []
        for k in range(self.venue.n_delivered, self.venue.n_reports):
            report = self.venue.reports[k]
            if report.kind == FUNDING_REPORT:
                found.append(("FUNDING", 0, int(report.fee_e8)))
                continue
            kind = ReportKind(report.kind)
            number = report.code if kind == ReportKind.REJECTED else report.steps
            found.append((kind, int(report.ticks), int(number)))
        self.venue.n_delivered = self.venue.n_reports
        return found

    def filled(self) -> int:
        """Return the steps filled since the last call."""
        return sum(steps for kind, _, steps in self.said() if kind == ReportKind.FILL)


# --- the queue ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "after_5", "after_12"),
    [(PESSIMISTIC, 0, 2), (PROPORTIONAL, 0, 2), (OPTIMISTIC, 4, 0)],
)
def test_what_was_at_the_touch_before_is_filled_first(
    model: QueueModel, after_5: int, after_12: int
) -> None:
    exchange = Exchange(model)
    exchange.book(99, 10, 100, 10)
    exchange.place(ENTRY, 100, 4)
    exchange.said()
    exchange.trade(100, 5, BUY)
    assert exchange.filled() == after_5
    exchange.trade(100, 7, BUY)
    assert exchange.filled() == after_12


@pytest.mark.parametrize(("model", "steps"), [(PESSIMISTIC, 0), (PROPORTIONAL, 2), (OPTIMISTIC, 4)])
def test_a_size_that_shrinks_without_trades_moves_us_forward_as_the_model_says(
    model: QueueModel, steps: int
) -> None:
    exchange = Exchange(model)
    exchange.book(99, 10, 100, 10)
    exchange.place(ENTRY, 100, 4)
    exchange.book(99, 10, 100, 20)  # 10 join behind us
    exchange.book(99, 10, 100, 10)  # half goes: 5 of those ahead, or none
    exchange.trade(100, 7, BUY)
    assert exchange.filled() == steps


def test_a_size_that_traded_away_is_not_taken_off_twice() -> None:
    exchange = Exchange(PROPORTIONAL)
    exchange.book(99, 10, 100, 10)
    exchange.place(ENTRY, 100, 4)
    exchange.trade(100, 6, BUY)
    exchange.book(99, 10, 100, 4)  # what the trade has left
    exchange.trade(100, 4, BUY)
    assert exchange.filled() == 0
    exchange.trade(100, 1, BUY)
    assert exchange.filled() == 1


@pytest.mark.parametrize("model", [PESSIMISTIC, PROPORTIONAL])
def test_behind_the_touch_the_queue_is_what_is_there_when_the_touch_comes(
    model: QueueModel,
) -> None:
    exchange = Exchange(model)
    exchange.book(99, 10, 100, 10)
    exchange.place(ENTRY, 102, 4)
    exchange.book(99, 10, 102, 8)
    exchange.trade(102, 8, BUY)
    assert exchange.filled() == 0
    exchange.trade(102, 3, BUY)
    assert exchange.filled() == 3


@pytest.mark.parametrize("model", QueueModel)
def test_a_trade_beyond_our_price_fills_the_rest_at_our_price(model: QueueModel) -> None:
    exchange = Exchange(model)
    exchange.book(99, 10, 100, 1_000)
    exchange.place(ENTRY, 100, 4)
    exchange.said()
    exchange.trade(101, 0.5, BUY)
    assert exchange.said() == [(ReportKind.FILL, 100, 4)]


@pytest.mark.parametrize(
    ("model", "at", "beyond"), [(PESSIMISTIC, 0, 4), (PROPORTIONAL, 4, 0), (OPTIMISTIC, 4, 0)]
)
def test_the_opposite_touch_at_our_price_and_beyond_it(
    model: QueueModel, at: int, beyond: int
) -> None:
    exchange = Exchange(model)
    exchange.book(99, 10, 100, 1_000)
    exchange.place(ENTRY, 100, 4)
    exchange.book(100, 10, 101, 10)
    assert exchange.filled() == at
    exchange.book(101, 10, 102, 10)
    assert exchange.filled() == beyond


@pytest.mark.parametrize("model", [PESSIMISTIC, PROPORTIONAL])
def test_where_the_touch_goes_away_nobody_is_ahead(model: QueueModel) -> None:
    exchange = Exchange(model)
    exchange.book(99, 10, 100, 50)
    exchange.place(ENTRY, 100, 4)
    exchange.book(99, 10, 101, 50)
    exchange.trade(100, 2, BUY)
    assert exchange.filled() == 2


@pytest.mark.parametrize("model", [PESSIMISTIC, PROPORTIONAL])
def test_an_amended_order_goes_to_the_back(model: QueueModel) -> None:
    exchange = Exchange(model)
    exchange.book(99, 10, 100, 10)
    number = exchange.place(ENTRY, 100, 4)
    exchange.trade(100, 10, BUY)
    exchange.book(99, 10, 100, 10)  # all new ones, behind us
    exchange.command(CommandKind.AMEND, ENTRY, 100, 5, order=number)
    exchange.said()
    exchange.trade(100, 10, BUY)
    assert exchange.filled() == 0
    exchange.trade(100, 5, BUY)
    assert exchange.filled() == 5


def test_a_sellers_trade_does_not_fill_a_sale() -> None:
    exchange = Exchange(OPTIMISTIC)
    exchange.book(99, 10, 100, 10)
    exchange.place(ENTRY, 100, 4)
    exchange.trade(100, 50, SELL)
    assert exchange.filled() == 0


MARKET = st.lists(
    st.one_of(
        st.tuples(st.just("book"), st.integers(90, 105), st.integers(1, 4), st.integers(1, 40)),
        st.tuples(
            st.just("trade"), st.integers(92, 108), st.sampled_from([BUY, SELL]), st.integers(1, 30)
        ),
    ),
    max_size=40,
)


@given(MARKET, st.integers(95, 104), st.integers(1, 20), st.booleans())
@settings(max_examples=300)
def test_the_pessimist_is_never_filled_more_or_sooner(
    market: list[tuple[str, int, int, int]], ticks: int, steps: int, sells: bool
) -> None:
    exchanges = [Exchange(model, held=0 if sells else 100) for model in QueueModel]
    for exchange in exchanges:
        exchange.book(99, 10, 100, 10)
        exchange.place(ENTRY if sells else TAKE_PROFIT, ticks, steps)
    filled = [exchange.filled() for exchange in exchanges]
    for kind, price, other, size in market:
        for k, exchange in enumerate(exchanges):
            if kind == "book":
                exchange.book(price, size, price + other, 41 - size)
            else:
                exchange.trade(price, size, other)
            filled[k] += exchange.filled()
        assert filled[0] <= filled[1] <= filled[2] <= steps


# --- other orders ---------------------------------------------------------------------------------


def test_a_post_only_order_that_would_trade_is_refused() -> None:
    exchange = Exchange(PESSIMISTIC)
    exchange.book(99, 10, 100, 10)
    exchange.place(ENTRY, 99, 4)
    assert exchange.said() == [(ReportKind.REJECTED, 0, -5022)]


def test_nothing_closes_a_position_that_is_not_there() -> None:
    exchange = Exchange(PESSIMISTIC)
    exchange.book(99, 10, 100, 10)
    exchange.place(EXIT, 0, 4, TimeInForce.MARKET)
    assert exchange.said() == [(ReportKind.REJECTED, 0, -2022)]


def test_a_market_order_takes_what_is_shown_and_the_rest_a_spread_beyond() -> None:
    exchange = Exchange(PESSIMISTIC, held=15)
    exchange.book(99, 10, 101, 6)
    exchange.place(EXIT, 0, 15, TimeInForce.MARKET)
    assert exchange.said()[1:] == [(ReportKind.FILL, 101, 6), (ReportKind.FILL, 103, 9)]
    assert exchange.one.held == 0


def test_an_order_that_must_not_rest_ends_at_its_limit() -> None:
    exchange = Exchange(PESSIMISTIC, held=15)
    exchange.book(99, 10, 101, 6)
    exchange.place(EXIT, 102, 15, TimeInForce.IOC)
    assert [kind for kind, _, _ in exchange.said()] == [
        ReportKind.ACCEPTED,
        ReportKind.FILL,
        ReportKind.EXPIRED,
    ]
    assert exchange.one.held == 9


def test_what_closes_never_buys_more_than_is_held_and_then_expires() -> None:
    exchange = Exchange(PESSIMISTIC, held=5)
    exchange.book(99, 10, 101, 6)
    exchange.place(TAKE_PROFIT, 98, 5)
    exchange.place(TAKE_PROFIT + 1, 97, 5)
    exchange.said()
    exchange.trade(96, 1, SELL)
    assert exchange.said() == [(ReportKind.FILL, 98, 5), (ReportKind.EXPIRED, 0, 0)]
    assert exchange.one.held == 0


def test_a_stop_triggers_on_the_mark_and_fills_later_beyond_the_touch() -> None:
    exchange = Exchange(PESSIMISTIC, held=5)
    exchange.book(9_900, 10, 10_000, 10)
    exchange.mark(9_950)
    exchange.command(CommandKind.PLACE_STOP, STOP, 10_500, 5)
    exchange.book(10_600, 10, 10_700, 10)
    exchange.wait(10)
    assert [kind for kind, _, _ in exchange.said()] == [
        ReportKind.ACCEPTED
    ]  # the mark is not there
    exchange.mark(10_500)
    assert exchange.said() == []
    exchange.book(10_800, 10, 10_900, 10)
    exchange.wait(3)
    assert exchange.said() == [(ReportKind.FILL, 10_906, 5)]  # 10,900 and 5 bps


def test_without_marks_the_mid_triggers() -> None:
    exchange = Exchange(PESSIMISTIC, held=5)
    exchange.book(9_900, 10, 10_000, 10)
    exchange.command(CommandKind.PLACE_STOP, STOP, 10_500, 5)
    exchange.book(10_500, 10, 10_600, 10)
    exchange.wait(3)
    assert exchange.filled() == 5


def test_a_stop_whose_price_is_passed_is_refused() -> None:
    exchange = Exchange(PESSIMISTIC, held=5)
    exchange.book(9_900, 10, 10_000, 10)
    exchange.mark(10_100)
    exchange.command(CommandKind.PLACE_STOP, STOP, 10_100, 5)
    assert exchange.said() == [(ReportKind.REJECTED, 0, -2021)]


def test_a_cancel_of_an_order_that_is_gone_is_refused_and_a_look_up_tells_why() -> None:
    exchange = Exchange(PESSIMISTIC)
    exchange.book(99, 10, 100, 10)
    number = exchange.place(ENTRY, 100, 4)
    exchange.trade(101, 1, BUY)
    exchange.said()
    exchange.command(CommandKind.CANCEL, ENTRY, 0, 0, order=number)
    exchange.command(CommandKind.LOOK_UP, ENTRY, 0, 0, order=number)
    exchange.command(CommandKind.LOOK_UP, ENTRY, 0, 0, order=77)
    assert [(kind, n) for kind, _, n in exchange.said()] == [
        (ReportKind.REJECTED, -2011),
        (ReportKind.CANCELED, 0),
        (ReportKind.REJECTED, -2013),
    ]


def test_a_short_receives_a_positive_funding_rate_once() -> None:
    exchange = Exchange(PESSIMISTIC, held=100)
    exchange.book(9_900, 10, 10_000, 10)
    due = T0 // MS_NS + 5
    exchange.mark(10_000, 0.0001, due)
    exchange.wait(10)
    exchange.mark(10_000, 0.0003, due + 28_800_000)
    exchange.mark(10_000, 0.0003, due + 28_800_000)
    assert exchange.said() == [("FUNDING", 0, 100 * 100 * 10_000)]  # 100 x 100 x 0.0001 quote


# --- the order of events --------------------------------------------------------------------------


def rows(*columns: tuple[int, int, EventKind]) -> Events:
    events = new_events(len(columns))
    for k, (t_ms, stamp, kind) in enumerate(columns):
        events["t_ns"][k], events["transaction_ms"][k] = T0 + t_ms * MS_NS, stamp
        events["kind"][k] = int(kind)
    return events


def test_within_a_millisecond_of_the_exchange_trades_come_before_books() -> None:
    base = T0 // MS_NS
    events = rows(
        (10, base, EventKind.BOOK), (11, base, EventKind.TRADE), (12, base + 1, EventKind.BOOK)
    )
    order, times = exchange_order(events, 5 * MS_NS)
    assert order.tolist() == [1, 0, 2]
    assert np.all(np.diff(times) >= 0)


def test_a_message_that_was_late_happened_before_those_that_overtook_it() -> None:
    base = T0 // MS_NS
    events = rows(
        (10, base, EventKind.BOOK), (20, base + 10, EventKind.BOOK), (30, base + 5, EventKind.BOOK)
    )
    order, times = exchange_order(events, 5 * MS_NS)
    assert order.tolist() == [0, 2, 1]
    assert times.tolist() == [T0 + ms * MS_NS for ms in (5, 10, 15)]


@pytest.mark.parametrize("stamp", [UNKNOWN, 0, T0 // MS_NS + 10**9])
def test_a_stamp_that_cannot_be_is_not_believed(stamp: int) -> None:
    base = T0 // MS_NS
    known = [(10 * k, base + 10 * k, EventKind.BOOK) for k in range(1_500)]
    events = rows(*known, (15_000, stamp, EventKind.BOOK))
    order, times = exchange_order(events, 5 * MS_NS)
    assert order[-1] == 1_500
    assert times[-1] == T0 + 14_995 * MS_NS


# --- whole runs -----------------------------------------------------------------------------------


def run_of(minutes: int = 8, model: QueueModel = PESSIMISTIC, **changes: Any) -> TickRun:
    demo = demo_ticks(minutes)
    rules = [
        make_rules(**demo.rules[symbol], fee_maker_bps=2.0, fee_taker_bps=5.0)
        for symbol in demo.symbols
    ]
    values = {"warmup_s": 20.0, "trend_30s_bps": 300.0, "pump_threshold": 0.5, **changes}
    return TickRun(
        demo.events,
        rules,
        SHORT_GRID.read(values),
        model,
        up_ns=5 * MS_NS,
        down_ns=4 * MS_NS,
        timeline=exchange_order(demo.events, 6 * MS_NS),
    )


def digest(run: TickRun) -> str:
    """Return a digest of everything a run did."""
    return hashlib.sha256(run.fills.tobytes() + run.account.tobytes()).hexdigest()


@pytest.mark.parametrize("model", QueueModel)
def test_a_runs_money_is_the_fold_of_its_fills(model: QueueModel) -> None:
    run = run_of(model=model)
    run.advance()
    fills = run.fills
    assert len(fills) > 20
    for index, state in enumerate(run.symbols):
        unit = int(state.rules.unit_e8)
        held, cash = 0, 0
        for fill in fills[fills["symbol"] == index]:
            sign = 1 if fill["slot"] == ENTRY else -1
            held += sign * int(fill["steps"])
            cash += sign * int(fill["ticks"]) * int(fill["steps"]) * unit - int(fill["fee_e8"])
            assert held == fill["held"] >= 0
        assert held == state.ledger.steps == run.places[index].held
        booked = int(state.ledger.pnl_e8 - state.ledger.fees_e8)
        assert booked == cash - int(state.ledger.cost_e8)
        assert state.illegal_reports == state.over_closes == 0
    total = sum(int(s.ledger.pnl_e8 - s.ledger.fees_e8 + s.ledger.funding_e8) for s in run.symbols)
    assert total == run.portfolio.realized_e8


def test_a_run_in_pieces_equals_one_run() -> None:
    whole, pieces = run_of(), run_of()
    whole.advance()
    for step in range(int(pieces.progress.step), pieces.last_step + 700, 700):
        pieces.advance(step)
    assert len(whole.fills) > 20
    assert digest(whole) == digest(pieces)


def test_events_from_a_step_on_change_no_fill_before_it() -> None:
    base, changed = run_of(), run_of()
    base.advance()
    middle = int(base.fills["t_ns"][len(base.fills) // 2])
    later = changed.events["t_ns"] >= middle
    changed.events["price"][later] *= 1.01
    changed.events["price2"][later] *= 1.01
    changed.events["qty"][later] *= 0.5
    changed.advance()
    latest = middle - 6 * MS_NS
    ours, theirs = base.fills, changed.fills
    ours, theirs = ours[ours["t_ns"] < latest], theirs[theirs["t_ns"] < latest]
    assert len(ours) > 10
    assert ours.tobytes() == theirs.tobytes()
    assert digest(base) != digest(changed)


def test_a_fill_is_not_known_before_its_report_has_come() -> None:
    run = run_of()
    run.advance()
    first = run.fills[0]
    before = run_of()
    before.advance(int(first["t_ns"] + 4 * MS_NS) // STEP_NS)
    assert len(before.fills) == 0


def test_more_latency_changes_what_is_filled() -> None:
    demo = run_of()
    slow = TickRun(
        demo.events,
        demo.rules,
        SHORT_GRID.read({"warmup_s": 20.0, "trend_30s_bps": 300.0, "pump_threshold": 0.5}),
        PESSIMISTIC,
        up_ns=400 * MS_NS,
        down_ns=400 * MS_NS,
        timeline=exchange_order(demo.events, 100 * MS_NS),
    )
    demo.advance()
    slow.advance()
    assert digest(demo) != digest(slow)
    assert all(int(state.over_closes) == 0 for state in slow.symbols)


RUN = """
from tests.engine.test_short_grid_simulation import digest, run_of
run = run_of(2)
run.advance()
print(len(run.fills), digest(run))
"""


@pytest.mark.slow
def test_a_run_is_the_same_interpreted_and_compiled() -> None:
    compiled = printed(RUN, interpreted=False)
    assert int(compiled.split()[0]) > 0
    assert printed(RUN, interpreted=True) == compiled
