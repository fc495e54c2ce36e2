"""The order desk: written down before it is sent, and never believed gone too early."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import AccountError, CredentialsError, NetworkError, StateError
from core.orders import OrderKind
from live.exchange.port import Exchange
from live.exchange.types import Answer, CancelResult, ExchangeOrder, OrderReply, OrderSpec
from live.execution.order_desk import DENIALS, LISTED_LATE_MS, OrderDesk
from live.execution.order_register import OrderRecord, OrderRegister, OrderState, in_base_36
from live.execution.symbol_facts import SymbolFacts
from live.health.events import Events, Notice
from live.health.logger import session_logger
from live.store.state_file import decode
from tests.support.clocks.virtual import VirtualClock

LATE_MS = 10_000
BAR = 1_900_000
ID_RULE = re.compile(r"^[\.A-Z\:/a-z0-9_-]{1,36}$")
"""The form Binance takes as newClientOrderId."""


class FakeExchange:
    """The orders of an exchange, and answers laid out beforehand.

    Attributes:
        calls: what was asked, shared with who else writes it.
        answers: of orders by client id; else ACCEPTED.
        orders: what there is, by client id.
        normal: orders by the exchange's identity, such as what a stop became.
        hidden: client ids missing from ``open_orders``.
        results: of cancelled orders by client id; else UNTRADED.
        error: raised instead of any answer.
    """

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls
        self.answers: dict[str, Answer] = {}
        self.orders: dict[str, ExchangeOrder] = {}
        self.normal: dict[str, ExchangeOrder] = {}
        self.hidden: set[str] = set()
        self.results: dict[str, CancelResult] = {}
        self.error: NetworkError | None = None

    def _ask(self, call: str) -> None:
        self.calls.append(call)
        if self.error:
            raise self.error

    def create_orders(self, orders: list[OrderSpec]) -> list[OrderReply]:
        """Answer as laid out."""
        self._ask("create")
        return [self._reply(order.client_id) for order in orders]

    def _reply(self, client_id: str) -> OrderReply:
        answer = self.answers.get(client_id, Answer.ACCEPTED)
        order_id = f"#{client_id}" if answer is Answer.ACCEPTED else ""
        return OrderReply(client_id=client_id, answer=answer, order_id=order_id, text="its words")

    def find_order(self, client_id: str, _kind: OrderKind) -> ExchangeOrder | None:
        """Return the order, open or not."""
        self._ask("find")
        return self.orders.get(client_id)

    def order_by_id(self, order_id: str) -> ExchangeOrder | None:
        """Return a normal order."""
        self._ask("by id")
        return self.normal.get(order_id)

    def open_orders(self) -> list[ExchangeOrder]:
        """Return what rests and is not hidden."""
        self._ask("open")
        return [
            order
            for order in self.orders.values()
            if order.is_open and order.client_id not in self.hidden
        ]

    def cancel_orders(self, orders: list[ExchangeOrder]) -> list[CancelResult]:
        """Answer as laid out."""
        self._ask("cancel")
        return [self.results.get(order.client_id, CancelResult.UNTRADED) for order in orders]


class SameRules:
    """Rules that every order is on already."""

    def on_rules(self, spec: OrderSpec) -> OrderSpec:
        """Return it as it is."""
        return spec


class Scene:
    """A desk with everything around it.

    Args:
        saved: rows of the register the desk begins with.
        foreign_orders: client ids that were reported by an earlier process.
    """

    def __init__(
        self, saved: list[dict[str, Any]] | None = None, foreign_orders: Sequence[str] = ()
    ) -> None:
        self.calls: list[str] = []
        self.written: list[list[dict[str, Any]]] = []
        self.alerts: list[str] = []
        self.foreign_orders = list(foreign_orders)
        self.save_error: StateError | None = None
        self.clock = VirtualClock(1_000_000)
        self.exchange = FakeExchange(self.calls)
        self.register = OrderRegister("a")
        self.register.load(saved or [])
        events = Events()
        events.subscribe(Notice, lambda notice: self.alerts.append(notice.text))
        # The desk asks for orders only, nothing else of what an Exchange can do.
        self.desk = OrderDesk(
            cast("Exchange", self.exchange),
            self.register,
            self._save,
            events,
            self.foreign_orders,
            self.clock,
            cast("SymbolFacts", SameRules()),
            LATE_MS,
            session_logger("BTCUSDT"),
        )

    def _save(self) -> None:
        self.calls.append("save")
        if self.save_error:
            raise self.save_error
        self.written.append(self.register.to_list())

    def new(
        self, kind: OrderKind = OrderKind.ENTRY, position_side: str = "LONG", level: int = 0
    ) -> OrderRecord:
        """Return an order that is meant to be sent."""
        return self.register.new(kind, position_side, 100.0, 0.5, BAR, level=level)

    def send(
        self,
        answer: Answer = Answer.ACCEPTED,
        kind: OrderKind = OrderKind.ENTRY,
        position_side: str = "LONG",
    ) -> OrderRecord:
        """Return an order that was sent and answered so."""
        record = self.new(kind, position_side)
        self.exchange.answers[record.client_id] = answer
        self.desk.send([record])
        return record


def reported(
    record: OrderRecord, *, filled: float = 0.0, is_open: bool = True, fired: str = ""
) -> ExchangeOrder:
    """Return ``record`` as the exchange tells it."""
    return ExchangeOrder(
        client_id=record.client_id,
        order_id="77",
        kind=record.kind,
        position_side=record.position_side,
        price=record.price,
        qty=record.qty,
        filled_qty=filled,
        is_open=is_open,
        status="as it says",
        fired_order_id=fired,
    )


def foreign_order(client_id: str) -> ExchangeOrder:
    return ExchangeOrder(
        client_id=client_id,
        order_id="5",
        kind=OrderKind.ENTRY,
        position_side="LONG",
        price=90.0,
        qty=1.0,
        filled_qty=0.0,
        is_open=True,
        status="NEW",
    )


def test_orders_are_written_down_before_they_are_sent() -> None:
    scene = Scene()
    records = [scene.new(), scene.new(level=1)]

    replies = scene.desk.send(records)

    assert scene.calls == ["save", "create"]
    assert [row["client_id"] for row in scene.written[0]] == [r.client_id for r in records]
    assert {row["state"] for row in scene.written[0]} == {"intended"}
    assert [reply.client_id for reply in replies] == [r.client_id for r in records]


def test_nothing_is_sent_that_could_not_be_written_down() -> None:
    scene = Scene()
    scene.save_error = StateError("the disk is full")
    record = scene.new()

    with pytest.raises(StateError, match="the disk is full"):
        scene.desk.send([record])

    assert scene.calls == ["save"]
    assert record.state is OrderState.INTENDED


def test_without_orders_nothing_is_written_and_nothing_asked() -> None:
    scene = Scene()

    assert scene.desk.send([]) == []
    assert scene.desk.cancel([]) is CancelResult.UNTRADED
    assert scene.calls == []


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Answer.ACCEPTED, OrderState.OPEN),
        (Answer.WOULD_CROSS, OrderState.DONE),
        (Answer.PASSED, OrderState.DONE),
        (Answer.NOTHING_TO_CLOSE, OrderState.DONE),
        (Answer.NO_MARGIN, OrderState.DONE),
        (Answer.REFUSED, OrderState.DONE),
        (Answer.NOT_SENT, OrderState.INTENDED),
        (Answer.UNKNOWN, OrderState.INTENDED),
    ],
)
def test_each_answer_leads_to_its_state(answer: Answer, state: OrderState) -> None:
    record = Scene().send(answer)

    assert record.state is state
    assert bool(record.order_id) == (answer is Answer.ACCEPTED)


def test_forbidden_keys_are_an_error_after_every_answer_was_taken() -> None:
    scene = Scene()
    refused, taken = scene.new(), scene.new(level=1)
    scene.exchange.answers[refused.client_id] = Answer.FORBIDDEN

    with pytest.raises(CredentialsError, match="its words"):
        scene.desk.send([refused, taken])

    assert (refused.state, taken.state) == (OrderState.DONE, OrderState.OPEN)


def test_orders_stay_intended_when_the_request_fails_as_a_whole() -> None:
    scene = Scene()
    record = scene.new()
    scene.exchange.error = NetworkError("no way there")

    with pytest.raises(NetworkError):
        scene.desk.send([record])

    assert record.state is OrderState.INTENDED
    assert scene.register.alive() == [record]


def test_an_unknown_order_counts_as_there_until_it_can_no_longer_arrive() -> None:
    scene = Scene()
    record = scene.send(Answer.UNKNOWN)
    assert scene.desk.wait_s() == pytest.approx(LATE_MS / 1e3)

    scene.clock.now += LATE_MS - 1
    scene.desk.resolve()
    assert scene.register.alive() == [record]
    assert 0.0 < scene.desk.wait_s(OrderKind.ENTRY) <= 1e-3
    assert scene.desk.wait_s(OrderKind.TAKE_PROFIT) == 0.0

    scene.clock.now += 1
    scene.desk.resolve()
    assert record.state is OrderState.DONE
    assert scene.desk.wait_s() == 0.0


def test_an_unknown_order_that_is_found_is_open() -> None:
    scene = Scene()
    record = scene.send(Answer.UNKNOWN)
    scene.exchange.orders[record.client_id] = reported(record)
    scene.clock.now += LATE_MS

    scene.desk.resolve()

    assert (record.state, record.order_id) == (OrderState.OPEN, "77")


def test_an_exchange_that_cannot_be_asked_decides_nothing() -> None:
    scene = Scene()
    record = scene.send(Answer.UNKNOWN)
    scene.clock.now += LATE_MS
    scene.exchange.error = NetworkError("no way there")

    with pytest.raises(NetworkError):
        scene.desk.resolve()

    assert record.state is OrderState.INTENDED


def test_what_a_killed_process_left_intended_may_still_arrive() -> None:
    before = Scene()
    for kind in (OrderKind.ENTRY, OrderKind.EXIT):
        before.new(kind)
    scene = Scene(before.register.to_list())

    scene.desk.resolve()
    assert len(scene.register.alive()) == 2

    scene.clock.now += LATE_MS
    scene.desk.resolve()
    assert [record.kind for record in scene.register.alive()] == [OrderKind.EXIT]


@pytest.mark.parametrize(
    ("answer", "kind"), [(Answer.NOT_SENT, OrderKind.ENTRY), (Answer.UNKNOWN, OrderKind.STOP)]
)
def test_what_cannot_arrive_late_is_gone_when_denied(answer: Answer, kind: OrderKind) -> None:
    scene = Scene()
    record = scene.send(answer, kind)

    scene.desk.resolve()

    assert record.state is OrderState.DONE


@pytest.mark.parametrize("answer", [Answer.UNKNOWN, Answer.NOT_SENT])
def test_a_market_exit_stays_to_be_done_however_often_it_is_denied(answer: Answer) -> None:
    scene = Scene()
    record = scene.send(answer, OrderKind.EXIT)

    for _ in range(3):
        scene.clock.now += LATE_MS
        scene.desk.resolve()

    assert record.state is OrderState.INTENDED


def test_an_order_that_was_taken_is_gone_when_denied_twice() -> None:
    scene = Scene()
    record = scene.send()
    scene.clock.sleep(LISTED_LATE_MS / 1e3)

    assert not scene.desk.refresh()
    assert record.state is OrderState.OPEN
    assert not scene.desk.refresh()

    assert (record.state, record.missed) == (OrderState.DONE, DENIALS)


def test_an_order_accepted_a_moment_ago_is_there_however_often_it_is_denied() -> None:
    scene = Scene()
    record = scene.send()
    for _ in range(10 * DENIALS):
        assert not scene.desk.refresh()
        scene.clock.sleep(5.0)
    assert record.state is OrderState.OPEN


def test_a_sighting_between_two_denials_makes_them_count_anew() -> None:
    scene = Scene()
    record = scene.send()
    scene.desk.refresh()

    scene.exchange.orders[record.client_id] = reported(record)
    scene.desk.refresh()
    del scene.exchange.orders[record.client_id]
    scene.desk.refresh()

    assert (record.state, record.missed) == (OrderState.OPEN, 1)


@pytest.mark.parametrize("is_open", [True, False])
def test_an_order_filled_further_than_booked_reports_the_ledger_behind(is_open: bool) -> None:
    scene = Scene()
    record = scene.send()
    record.booked_qty = 0.2

    assert scene.desk.adopt(record, reported(record, filled=0.3, is_open=is_open))

    assert record.state is OrderState.OPEN


@pytest.mark.parametrize(("is_open", "state"), [(True, OrderState.OPEN), (False, OrderState.DONE)])
def test_an_order_booked_as_far_as_filled_is_what_the_exchange_says(
    is_open: bool, state: OrderState
) -> None:
    scene = Scene()
    record = scene.send()
    record.booked_qty = 0.1 + 0.1 + 0.1

    behind = scene.desk.adopt(
        record, reported(record, filled=record.booked_qty + 1e-16, is_open=is_open)
    )

    assert not behind
    assert record.state is state


@pytest.mark.parametrize(("filled", "is_open"), [(0.5, False), (0.0, True)])
def test_a_fired_stop_whose_trades_are_not_booked_reports_the_ledger_behind(
    filled: float, is_open: bool
) -> None:
    scene = Scene()
    stop = scene.send(kind=OrderKind.STOP)
    became = reported(scene.new(OrderKind.EXIT), filled=filled, is_open=is_open)
    scene.exchange.normal["99"] = became

    assert scene.desk.adopt(stop, reported(stop, is_open=False, fired="99"))
    assert stop.state is OrderState.OPEN
    assert scene.register.with_order_id("99") is stop

    stop.booked_qty = 0.5
    assert not scene.desk.adopt(stop, reported(stop, is_open=False))
    assert scene.register.alive(OrderKind.STOP) == []
    assert stop.fired_order_id == "99"


def test_a_fired_stop_that_traded_nothing_is_gone() -> None:
    scene = Scene()
    stop = scene.send(kind=OrderKind.STOP)
    scene.exchange.normal["99"] = reported(scene.new(OrderKind.EXIT), is_open=False)

    assert not scene.desk.adopt(stop, reported(stop, is_open=False, fired="99"))
    assert stop.state is OrderState.DONE


def test_refreshing_reports_what_traded_whether_the_order_still_rests_or_not() -> None:
    for is_open in (True, False):
        scene = Scene()
        record = scene.send()
        scene.exchange.orders[record.client_id] = reported(record, filled=0.1, is_open=is_open)

        assert scene.desk.refresh()
        record.booked_qty = 0.1
        assert not scene.desk.refresh()

        assert record.state is (OrderState.OPEN if is_open else OrderState.DONE)


def test_an_order_that_a_lagging_list_leaves_out_is_still_there() -> None:
    scene = Scene()
    record = scene.send()
    scene.exchange.orders[record.client_id] = reported(record)
    scene.exchange.hidden.add(record.client_id)

    for _ in range(3):
        scene.desk.refresh()

    assert (record.state, record.missed) == (OrderState.OPEN, 0)


def test_an_order_believed_gone_that_rests_is_taken_up_again() -> None:
    scene = Scene()
    record = scene.send(Answer.REFUSED)
    scene.exchange.orders[record.client_id] = reported(record)

    scene.desk.refresh()

    assert record.state is OrderState.OPEN


@pytest.mark.parametrize("instance", ["a", "b"])
def test_an_unknown_order_with_our_name_stops_everything(instance: str) -> None:
    scene = Scene()
    foreign = f"g4{instance}-zz-LE00-0"
    scene.exchange.orders[foreign] = foreign_order(foreign)

    with pytest.raises(AccountError, match=foreign):
        scene.desk.refresh()


def test_one_who_leaves_tells_of_an_unknown_order_with_our_name_and_goes_on() -> None:
    scene = Scene()
    foreign = f"{scene.register.prefix}zz-LE00-0"
    scene.exchange.orders[foreign] = foreign_order(foreign)

    assert not scene.desk.refresh(is_leaving=True)

    assert [foreign in alert for alert in scene.alerts] == [True]


def test_a_stop_of_ours_that_was_not_written_down_is_taken_up() -> None:
    scene = Scene()
    ours = f"{scene.register.prefix}zz-LS00-0"
    scene.exchange.orders[ours] = replace(foreign_order(ours), kind=OrderKind.STOP)

    scene.desk.refresh()

    (record,) = scene.register.alive(OrderKind.STOP)
    assert (record.client_id, record.position_side, record.price) == (ours, "LONG", 90.0)
    assert record.state is OrderState.OPEN
    assert record.order_id == "5"


@pytest.mark.parametrize("client_id", ["g4-zz-LE00-0", "web_123"])
def test_foreign_orders_are_reported_once_and_left_alone(client_id: str) -> None:
    scene = Scene()
    scene.exchange.orders[client_id] = foreign_order(client_id)

    scene.desk.refresh()
    scene.desk.refresh()

    assert len(scene.alerts) == 1
    assert client_id in scene.alerts[0]
    assert scene.foreign_orders == [client_id]
    assert "cancel" not in scene.calls


def test_foreign_orders_that_an_earlier_process_reported_are_not_reported_again() -> None:
    scene = Scene(foreign_orders=["web_123"])
    scene.exchange.orders["web_123"] = foreign_order("web_123")

    scene.desk.refresh()

    assert scene.alerts == []


@pytest.mark.parametrize("answer", [Answer.REFUSED, Answer.NO_MARGIN])
def test_refusals_are_reported_once_until_such_orders_pass_again(answer: Answer) -> None:
    scene = Scene()

    scene.send(answer)
    scene.send(answer)
    assert len(scene.alerts) == 1
    assert answer.value in scene.alerts[0]
    scene.send(Answer.ACCEPTED)
    scene.send(answer)

    assert len(scene.alerts) == 2


def test_refusals_of_another_side_or_kind_are_reported_on_their_own() -> None:
    scene = Scene()

    scene.send(Answer.REFUSED)
    scene.send(Answer.REFUSED, position_side="SHORT")
    scene.send(Answer.REFUSED, kind=OrderKind.TAKE_PROFIT)
    scene.send(Answer.ACCEPTED, position_side="SHORT")
    scene.send(Answer.REFUSED)

    assert len(scene.alerts) == 3


@pytest.mark.parametrize("answer", [Answer.WOULD_CROSS, Answer.NOT_SENT, Answer.UNKNOWN])
def test_what_is_everyday_is_not_reported(answer: Answer) -> None:
    scene = Scene()

    scene.send(answer)

    assert scene.alerts == []


def test_cancelling_marks_only_what_is_certainly_gone() -> None:
    scene = Scene()
    gone, stuck, unsure = scene.send(), scene.send(), scene.send(Answer.UNKNOWN)
    scene.exchange.results = dict.fromkeys([stuck.client_id, unsure.client_id], CancelResult.STUCK)

    assert scene.desk.cancel([stuck, gone, unsure]) is CancelResult.STUCK

    assert [record.state for record in (gone, stuck, unsure)] == [
        OrderState.DONE,
        OrderState.OPEN,
        OrderState.INTENDED,
    ]
    assert scene.desk.cancel([stuck]) is CancelResult.STUCK
    scene.exchange.results.clear()
    assert scene.desk.cancel([stuck]) is CancelResult.UNTRADED
    assert stuck.state is OrderState.DONE


@pytest.mark.parametrize(
    ("traded", "result", "state"),
    [(0.0, CancelResult.UNTRADED, OrderState.DONE), (0.5, CancelResult.GONE, OrderState.OPEN)],
)
def test_what_a_cancel_leaves_open_is_looked_up(
    traded: float, result: CancelResult, state: OrderState
) -> None:
    scene = Scene()
    record = scene.send()
    scene.exchange.results = {record.client_id: CancelResult.GONE}
    scene.exchange.orders[record.client_id] = reported(record, filled=traded, is_open=False)

    assert scene.desk.cancel([record, scene.send()]) is result
    assert record.state is state

    record.booked_qty = traded
    assert scene.desk.cancel([record]) is CancelResult.UNTRADED


def test_an_order_that_cancel_and_look_up_deny_is_there_until_it_is_denied_twice() -> None:
    scene = Scene()
    record = scene.send()
    scene.clock.sleep(LISTED_LATE_MS / 1e3)
    scene.exchange.results = {record.client_id: CancelResult.GONE}

    assert scene.desk.cancel([record]) is CancelResult.GONE
    assert record.state is OrderState.OPEN
    assert scene.desk.cancel([record]) is CancelResult.UNTRADED


def test_a_look_at_the_open_orders_counts_for_a_while() -> None:
    scene = Scene()
    assert not scene.desk.has_seen_within(10_000)
    scene.desk.refresh()
    assert scene.desk.has_seen_within(10_000)
    assert not scene.desk.has_seen_within(0)
    scene.clock.sleep(10.0)
    assert not scene.desk.has_seen_within(10_000)


WANTED = st.lists(
    st.tuples(
        st.sampled_from(OrderKind),
        st.sampled_from(["LONG", "SHORT"]),
        st.integers(-1, 40),
        st.integers(BAR, BAR + 2),
    ),
    max_size=60,
)


def ids_of(register: OrderRegister, wanted: list[tuple[OrderKind, str, int, int]]) -> list[str]:
    return [
        register.new(kind, position_side, 1.0, 1.0, bar, level=level).client_id
        for kind, position_side, level, bar in wanted
    ]


@given(WANTED)
def test_client_ids_are_unique_repeatable_and_ours(
    wanted: list[tuple[OrderKind, str, int, int]],
) -> None:
    register = OrderRegister("a")

    ids = ids_of(register, wanted)

    assert len(set(ids)) == len(ids) == len(register)
    assert ids == ids_of(OrderRegister("a"), wanted)
    assert all(client_id.startswith(register.prefix) for client_id in ids)
    assert set(ids).isdisjoint(ids_of(OrderRegister("b"), wanted))


def session_of(symbol: str, start_ms: int) -> OrderRegister:
    register = OrderRegister("a", symbol)
    register.name_session(start_ms)
    return register


@given(WANTED)
def test_two_coins_and_two_sessions_never_share_an_identity(
    wanted: list[tuple[OrderKind, str, int, int]],
) -> None:
    sessions = [("BTCUSDT", 0), ("ETHUSDT", 0), ("币安人生USDT", 0), ("BTCUSDT", 1_000)]
    ids = [set(ids_of(session_of(*session), wanted)) for session in sessions]
    assert len(set.union(*ids)) == sum(len(names) for names in ids)
    assert ids[0] == set(ids_of(session_of("BTCUSDT", 0), wanted))


@given(
    bar=st.integers(0, 60 * 10**6),
    level=st.integers(-1, 99),
    kind=st.sampled_from(OrderKind),
    instance=st.sampled_from(["a", "12345678", "Zz9"]),
    symbol=st.sampled_from(["BTCUSDT", "1000000MOGUSDT", "币安人生USDT"]),
)
def test_client_ids_are_what_the_exchange_takes(
    bar: int, level: int, kind: OrderKind, instance: str, symbol: str
) -> None:
    register = OrderRegister(instance, symbol)
    register.name_session(1_767_225_600_000)

    for _ in range(40):
        record = register.new(kind, "SHORT", 1.0, 1.0, bar, level=level)

        assert ID_RULE.match(record.client_id)


@given(WANTED, WANTED)
def test_a_register_read_back_goes_on_with_the_same_identities(
    wanted: list[tuple[OrderKind, str, int, int]], later: list[tuple[OrderKind, str, int, int]]
) -> None:
    register, again = OrderRegister("a"), OrderRegister("a")
    ids_of(register, wanted)

    again.load(json.loads(json.dumps(register.to_list())))

    assert list(again) == list(register)
    assert ids_of(again, later) == ids_of(register, later)


CHANGES: list[tuple[str, Any]] = [
    ("state", OrderState.DONE),
    ("order_id", "12"),
    ("reported_qty", 0.5),
    ("price", math.nan),
    ("missed", 3),
]


@given(WANTED, st.lists(st.tuples(st.integers(0, 30), st.integers(0, len(CHANGES))), max_size=40))
def test_orders_are_written_as_they_are_now_whatever_changed_since_they_were_last(
    wanted: list[tuple[OrderKind, str, int, int]], changes: list[tuple[int, int]]
) -> None:
    register = OrderRegister("a")
    ids_of(register, wanted)
    records = list(register)

    for row, change in changes if records else []:
        record = records[row % len(records)]
        if change < len(CHANGES):
            setattr(record, *CHANGES[change])
        else:
            record.exits.append((row, 0.25))  # in place
        written = decode(json.loads(register.to_json().text))
        assert repr(written) == repr(json.loads(json.dumps(register.to_list())))

    register.forget_before(10**9, 10**9)
    assert len(json.loads(register.to_json().text)) == len(register)


def test_everything_known_of_an_order_survives_writing_and_reading() -> None:
    register, again = OrderRegister("a"), OrderRegister("a")
    record = register.new(
        OrderKind.EXIT,
        "SHORT",
        0.1 + 0.2,
        1 / 3,
        BAR,
        level=4,
        generation=7,
        label="SELL_CLOSE_LONG",
        exits=[(3, 0.1), (5, 0.2)],
    )
    record.state, record.order_id, record.fired_order_id = OrderState.OPEN, "12", "13"
    record.booked_qty, record.missed = 0.25, 1

    again.load(json.loads(json.dumps(register.to_list())))

    read = again.known(record.client_id)
    assert read == record
    assert (read.rest, read.spec) == (record.rest, record.spec)


@given(st.integers(0, 10**12))
def test_base_36_reads_back(number: int) -> None:
    assert int(in_base_36(number), 36) == number


def test_forgetting_keeps_what_lives_and_what_is_recent() -> None:
    register = OrderRegister("a")
    records = {
        (bar, state): register.new(OrderKind.ENTRY, "LONG", 1.0, 1.0, bar)
        for bar in (BAR - 1, BAR)
        for state in OrderState
    }
    for (_, state), record in records.items():
        record.state = state

    register.forget_before(BAR)

    forgotten = records.pop((BAR - 1, OrderState.DONE))
    assert list(register) == list(records.values())
    assert register.get(forgotten.client_id) is None


def test_orders_never_taken_may_be_forgotten_earlier_than_those_that_were() -> None:
    register = OrderRegister("a")
    taken, untaken, alive, recent = (
        register.new(OrderKind.ENTRY, "LONG", 1.0, 1.0, bar) for bar in (BAR, BAR, BAR, BAR + 5)
    )
    taken.order_id = "12"
    for record in (taken, untaken, recent):
        record.state = OrderState.DONE

    register.forget_before(BAR - 100, untaken=BAR + 5)
    assert list(register) == [taken, alive, recent]

    register.forget_before(BAR + 1, untaken=BAR - 100)  # never later than those that were
    assert list(register) == [alive, recent]
