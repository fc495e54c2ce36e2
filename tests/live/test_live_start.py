"""Who may begin to trade, what closing does without, what is shown of stops and snapshots."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import FunctionType
from typing import Any, cast

import pytest

from config import LIVE_CONFIG
from core.errors import AccountError
from core.orders import OrderKind
from engine.grid_v4 import book
from engine.strategy import create
from live.commands.status import SavedState, position_lines, saved_state
from live.commands.target import find_target
from live.commands.texts import left_open
from live.exchange.port import Exchange
from live.exchange.types import ExchangeOrder, SidePosition, Usage
from live.execution.books import LiveSession
from live.execution.exchange_broker import ExchangeBroker
from live.execution.order_register import OUR_IDS, OrderRegister, OrderState, id_prefix
from live.health.events import Events
from live.health.logger import session_logger
from live.session.admission import refuse_shared_symbol, refuse_wrong_clock
from live.store.state_file import LoadedState, decode, read_document
from tests.support.markets.synthetic import BAR_MS, RULES
from tests.support.processes.live_command import BUSY, Outcome, Stage, open_stage, terminate

TESTNET = ["--testnet", *BUSY]
FOLDER = "data/live_state/testnet"
STATE = f"{FOLDER}/BTCUSDT_state.json"
LOCK = f"{FOLDER}/BTCUSDT.lock"
HELD_AFTER = 4
"""Candles after which the busy session holds a position."""
QUIET_AFTER = 5
"""Candles after which it holds one and has sent nothing since the step."""
NOTHING_HELD = {"LONG": 0.0, "SHORT": 0.0}


@pytest.fixture
def stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Stage]:
    with open_stage(tmp_path, monkeypatch, capsys) as opened:
        yield opened


def refusal(outcome: Outcome) -> str:
    code, _, err = outcome
    assert code == 2
    assert err.startswith("error: ")
    return err


def changes(stage: Stage) -> set[str]:
    """Return the requests, since the last call, that would change something."""
    found = {str(name) for name in stage.exchange.faults.requests}
    stage.exchange.faults.requests.clear()
    return {name for name in found if not name.startswith("GET")}


def lay(stage: Stage, client_id: str) -> None:
    """Let an entry of somebody else rest at the exchange."""
    stage.exchange.book.new_order(
        client_id=client_id,
        side="BUY",
        position_side="LONG",
        kind="LIMIT",
        qty=Decimal("0.01"),
        price=Decimal(1_000),
        time_in_force="GTX",
        now_ms=stage.exchange.stamp_ms,
    )


# --- foreign orders -----------------------------------------------------------------------------


@pytest.mark.parametrize(("position_side", "side"), [("LONG", "BUY"), ("SHORT", "SELL")])
def test_a_new_session_is_refused_where_the_account_holds_the_coin_already(
    stage: Stage, position_side: str, side: str
) -> None:
    stage.exchange.hand_trade(position_side, side, 0.3)
    line = refusal(stage.run(*TESTNET))
    assert f"the account holds {position_side} 0.3 of this coin already" in line
    assert "close it, or trade in a sub-account" in line
    assert stage.paths() == {LOCK}
    assert not changes(stage), "the leverage of somebody else's position"


def test_a_session_that_has_traded_may_find_more_than_its_own(stage: Stage) -> None:
    stage.run_for(HELD_AFTER, *TESTNET)
    stage.exchange.hand_trade("SHORT", "SELL", 0.3)
    assert stage.run_for(1, *TESTNET, "--resume")[0] == 0
    assert stage.held()["SHORT"] >= 0.3


class Holding:
    """An account that holds a long and has no orders."""

    def open_orders(self) -> list[ExchangeOrder]:
        """Return none."""
        return []

    def positions(self) -> dict[str, SidePosition]:
        """Return the long."""
        flat = SidePosition(qty=0.0, avg_entry=0.0, mark_price=9.0, liquidation_price=0.0)
        return {"LONG": replace(flat, qty=0.3, avg_entry=9.0), "SHORT": flat}


@pytest.mark.parametrize(("bar", "is_refused"), [(-1, True), (0, False)])
def test_a_saved_session_that_never_took_a_step_is_as_new(bar: int, *, is_refused: bool) -> None:
    loaded = LoadedState(0, "", "", {}, {"orders": [], "progress": {"bar": bar, "start_ms": 0}})
    with pytest.raises(AccountError, match=r"LONG 0\.3") if is_refused else nullcontext():
        refuse_shared_symbol(cast("Exchange", Holding()), loaded, "a", "BTCUSDT")


@pytest.mark.parametrize("instance", ["a", "b", "Bot7"])
def test_an_order_of_another_instance_of_this_program_is_refused(
    stage: Stage, instance: str
) -> None:
    lay(stage, f"{id_prefix(instance)}zz-LE00-0")
    line = refusal(stage.run(*TESTNET))
    assert f"order {id_prefix(instance)}zz-LE00-0 bears this bot's name" in line
    assert "letter" not in line, "another letter does not make two sessions fit on one account"
    assert stage.paths() == {LOCK}
    assert not changes(stage)


def test_a_second_instance_is_refused_to_a_session_that_goes_on_too(stage: Stage) -> None:
    stage.run_for(HELD_AFTER, *TESTNET)
    lay(stage, "g4b-zz-LE00-0")
    assert "one account takes one session a coin" in refusal(stage.run(*TESTNET, "--resume"))


@pytest.mark.parametrize("client_id", ["web_abc", "g4-1", "x-g4a-1", "android_g4a-"])
def test_orders_of_a_person_are_left_alone_at_the_start(stage: Stage, client_id: str) -> None:
    assert not OUR_IDS.match(client_id)
    lay(stage, client_id)
    assert stage.run_for(1, *TESTNET)[0] == 0
    assert client_id in {order.client_id for order in stage.limits()}


# --- the clock ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_ms", [-15_000, 15_000])
def test_a_clock_that_is_wrong_is_refused_before_anything_is_done(
    stage: Stage, ahead_ms: int
) -> None:
    stage.exchange.clock_skew_ms = -ahead_ms
    line = refusal(stage.run(*TESTNET))
    assert re.search(rf"clock is {'[+]' if ahead_ms > 0 else '-'}1[45]\d\d\d ms off", line)
    assert "NTP" in line
    assert stage.paths() == {LOCK}
    assert not changes(stage)


@pytest.mark.parametrize(("offset_ms", "is_refused"), [(1_000, False), (-1_001, True)])
def test_the_clock_may_be_as_wrong_as_the_monitor_lets_it_be(
    offset_ms: int, *, is_refused: bool
) -> None:
    usage = Usage(weight_1m=0, orders_10s=0, orders_1m=0, clock_offset_ms=offset_ms)
    with pytest.raises(AccountError, match="NTP") if is_refused else nullcontext():
        refuse_wrong_clock(LIVE_CONFIG, usage)


@pytest.mark.parametrize("ahead_ms", [-900, 900])
def test_a_session_begins_by_the_exchanges_clock_which_dates_its_trades(
    stage: Stage, ahead_ms: int
) -> None:
    stage.exchange.clock_skew_ms = -ahead_ms
    before_ms = stage.clock.now_ms()
    stage.run_for(1, *TESTNET)
    document = read_document(stage.folder / STATE)
    assert document is not None
    began_ms = document["session"]["progress"]["start_ms"]
    assert began_ms - (before_ms - ahead_ms) == pytest.approx(0, abs=100)


# --- closing ------------------------------------------------------------------------------------


def test_closing_sets_nothing_and_needs_no_leverage(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.run_for(HELD_AFTER, *TESTNET)
    assert stage.held()["LONG"] > 0.0
    monkeypatch.setattr("live.exchange.account.highest_leverage", lambda *_: 3)
    stage.exchange.account.leverage = 20
    changes(stage)
    code, _, err = stage.run("--testnet", "--flatten", "--yes")
    assert (code, err) == (0, "")
    assert stage.held() == NOTHING_HELD
    settings = ("leverage", "marginType", "positionSide/dual")
    assert not [name for name in changes(stage) if name.endswith(settings)]


def test_closing_needs_no_wallet(stage: Stage) -> None:
    stage.run_for(HELD_AFTER, *TESTNET)
    stage.exchange.account.wallet = Decimal(-1)
    assert stage.run("--testnet", "--flatten", "--yes")[0] == 0
    assert stage.held() == NOTHING_HELD


def test_closing_passes_over_orders_that_are_not_in_the_state(stage: Stage) -> None:
    stage.run_for(HELD_AFTER, *TESTNET)
    for client_id in ("g4a-zz-LE00-0", "g4b-zz-LE00-0"):
        lay(stage, client_id)
    assert stage.run("--testnet", "--flatten", "--yes")[0] == 0
    assert stage.held() == NOTHING_HELD
    assert len(stage.limits()) == 2, "they are not this session's"


def test_closing_is_tried_where_the_symbol_does_not_trade(stage: Stage) -> None:
    stage.run_for(HELD_AFTER, *TESTNET)
    stage.exchange.halt_symbol()
    line = refusal(stage.run("--testnet", "--flatten", "--yes"))
    assert "not all is certainly closed" in line
    stage.exchange.resume_symbol()
    assert stage.run("--testnet", "--flatten", "--yes")[0] == 0
    assert stage.held() == NOTHING_HELD


# --- stops --------------------------------------------------------------------------------------


def held_state(stage: Stage) -> SavedState:
    """Return the saved state of a session that holds a position with a stop."""
    stage.run_for(HELD_AFTER, *TESTNET)
    found = saved_state(stage.folder / STATE)
    assert found is not None
    assert found.strategy.view().long.n_fills > 0
    return found


@pytest.mark.parametrize("state", OrderState)
def test_the_stop_that_is_reported_is_the_one_at_the_exchange(
    stage: Stage, state: OrderState
) -> None:
    kept = held_state(stage)
    is_stop = {(OrderKind.STOP, OrderState.OPEN)}
    (stop,) = (order for order in kept.orders if (order.kind, order.state) in is_stop)
    stop.state, stop.price = state, 1_234.5
    testnet = find_target("BTC", dry_run=False, testnet=True, settings=LIVE_CONFIG)
    document: Any = read_document(stage.folder / STATE)
    session = LiveSession(
        create(kept.params, RULES), OrderRegister("a"), None, Events(), 0, session_logger("BTCUSDT")
    )
    session.strategy.load_state_dict(decode(document["engine"]))
    session.orders.load([order.to_dict() for order in kept.orders])
    for reported in (position_lines(testnet, kept, "LONG")[0], left_open(session, "testnet")):
        assert ("with its stop at 1,234.50" in reported) is (state is OrderState.OPEN)
        assert ("WITHOUT a stop at the exchange" in reported) is (state is not OrderState.OPEN)


def test_on_paper_the_ledgers_stop_is_the_stop(stage: Stage) -> None:
    stage.run_for(HELD_AFTER, "--dry-run", *BUSY)
    assert re.search(r"LONG .* with its stop at 1[\d,.]+", stage.run("--dry-run", "--status")[1])


# --- snapshots ----------------------------------------------------------------------------------


def snapshots(stage: Stage) -> list[Path]:
    return sorted((stage.folder / FOLDER / "snapshots").iterdir())


def sent_after(stage: Stage, snapshot: Path) -> list[str]:
    """Return the identities of the bot's orders that are younger than a snapshot."""
    saved_ms, book = int(snapshot.stem.partition("_")[2]), stage.exchange.book
    orders: list[Any] = [*book.orders.values(), *book.stops.values()]
    return [
        order.client_id
        for order in orders
        if order.ts_ms > saved_ms and OUR_IDS.match(order.client_id)
    ]


def test_a_snapshot_is_gone_on_from_where_no_order_was_sent_since(stage: Stage) -> None:
    stage.run_for(QUIET_AFTER, *TESTNET)
    held, newest = stage.held(), snapshots(stage)[-1]
    assert held["LONG"] > 0.0
    assert not sent_after(stage, newest)
    shutil.copy(newest, stage.folder / STATE)
    code, out, err = stage.run_for(1, *TESTNET, "--resume")
    assert (code, err) == (0, "")
    assert sent_after(stage, newest), "it trades on"
    assert stage.stops()
    assert "is gone from the account" not in out


def interrupt_twice() -> None:
    """Leave entries and take-profits at the exchange."""
    terminate()
    terminate()


def test_a_snapshot_that_orders_were_sent_after_is_not_gone_on_from(stage: Stage) -> None:
    stage.after(2 * HELD_AFTER, interrupt_twice)
    assert stage.run(*TESTNET)[0] == 130
    oldest, state, exchange = snapshots(stage)[0], stage.folder / STATE, stage.exchange
    assert {order.client_id for order in stage.limits()} & set(sent_after(stage, oldest))
    shutil.copy(oldest, state)
    assert "bears this bot's name" in refusal(stage.run(*TESTNET, "--resume"))
    # What RUNBOOK.md says then: cancelled and closed by hand, the file away, anew.
    for order in stage.limits():
        exchange.book.end_order(order, "CANCELED", exchange.stamp_ms)
    for stop in stage.stops():
        exchange.book.end_stop(stop, "CANCELED", exchange.stamp_ms)
    for name, qty in stage.held().items():
        if qty:
            exchange.hand_trade(name, "SELL" if name == "LONG" else "BUY", qty)
    state.rename(state.with_suffix(".old"))
    exchange.advance(BAR_MS)
    code, out, err = stage.run_for(2, *TESTNET)
    assert (code, err) == (0, "")
    assert "not of this bot" not in out


def test_a_stop_that_a_full_disk_kept_out_of_the_state_is_known_as_ours(stage: Stage) -> None:
    stage.run_for(QUIET_AFTER, *TESTNET)
    (stop,) = stage.stops()
    lay_stop(stage, f"{stop.client_id.rpartition('-')[0]}-zz", stop)
    assert stage.run_for(1, *TESTNET, "--resume")[0] == 0


def test_a_stop_of_another_instance_is(stage: Stage) -> None:
    stage.run_for(QUIET_AFTER, *TESTNET)
    (stop,) = stage.stops()
    lay_stop(stage, f"{id_prefix('b')}zz-LS00-0", stop)
    assert "bears this bot's name" in refusal(stage.run(*TESTNET, "--resume"))


def lay_stop(stage: Stage, client_id: str, instead_of: Any) -> None:
    """Put a stop in the place of another one."""
    book, now_ms = stage.exchange.book, stage.exchange.stamp_ms
    book.end_stop(instead_of, "CANCELED", now_ms)
    book.new_stop(
        client_id=client_id,
        side=instead_of.side,
        position_side=instead_of.position_side,
        trigger=instead_of.trigger,
        now_ms=now_ms,
    )


# --- machine code -------------------------------------------------------------------------------


def test_the_stops_of_a_saved_session_stand_before_machine_code_is_compiled(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.run_for(HELD_AFTER, *TESTNET)
    (stop,) = stage.stops()
    stage.exchange.book.end_stop(stop, "CANCELED", stage.exchange.stamp_ms)
    stood: list[list[float]] = []
    plain: list[bool] = []
    protect = ExchangeBroker.protect

    def note_kernels(broker: ExchangeBroker) -> None:
        plain.append(isinstance(book.set_stop, FunctionType))
        protect(broker)

    def note_stops() -> None:
        stood.append([float(stop.trigger) for stop in stage.stops()])

    monkeypatch.setattr(ExchangeBroker, "protect", note_kernels)
    monkeypatch.setattr("engine.compiling.load_live_code", note_stops)
    stage.run_for(1, *TESTNET, "--resume")
    assert stood[0] == [float(stop.trigger)], "code was asked for before the stops stood"
    assert plain[0], "what lays them was compiled"
    assert not any(plain[1:]), "the session goes on with compiled code"
