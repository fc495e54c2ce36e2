"""A live session that is asked to end, ends at once, may not trade, or keeps secrets."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from live.session.runner import KEYS_PATIENCE_S
from live.simulated.faults import READ, FaultKind
from live.simulated.server import SimServer
from tests.support.processes.busy_hour import (
    Hour,
    HourExchange,
    OrderRow,
    Outcome,
    Point,
    hour_wish,
    state_of,
)
from tests.support.processes.forked_sessions import ForkedSessions
from tests.support.processes.live_process import trade

REFUSED: Final = 2
INTERRUPTED: Final = 130
KEY: Final = "KeyThatMustStayHidden0123456789"
SECRET: Final = "SecretThatMustStayHidden+/=&%9"  # noqa: S105 - the simulation's


@dataclass(frozen=True)
class Undisturbed:
    """An hour in which nobody asked for anything: its outcome, and some of its requests."""

    outcome: Outcome
    moments: range


@pytest.fixture(scope="module")
def undisturbed(sessions: ForkedSessions, folder: Path) -> Undisturbed:
    hour = Hour(sessions, folder)
    outcome, last = hour.run(), hour.exchange.faults.n_requests
    return Undisturbed(outcome, range(last // 6, last, last // 11))


# --- asked to end ---------------------------------------------------------------------------------


def signalled(hour: Hour, number: int, *signals: signal.Signals) -> tuple[int, list[OrderRow]]:
    """Send signals over a request whose reply is late; return the exit code and the orders then."""
    then: list[OrderRow] = []

    def ask(now: int, method: str, path: str) -> None:  # noqa: ARG001 - a hook's
        if now == number:
            then.extend(hour.exchange.resting())
            for sent in signals:
                hour.send(sent)  # it is handled before anything that follows the reply

    hour.exchange.after_request = ask
    with hour.served() as port:
        code = hour.session(hour.wish(port))
    hour.exchange.after_request = None
    return code, then


def resumed(hour: Hour) -> Outcome:
    """Go on to the end of the hour."""
    with hour.served() as port:
        assert hour.session(hour.wish(port, "--resume")) == 0, hour.console()
    return hour.outcome()


@pytest.mark.slow
@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_asked_once_it_cancels_entries_and_take_profits_and_goes_on_later_with_the_same_trades(
    sessions: ForkedSessions, folder: Path, undisturbed: Undisturbed, asked: signal.Signals
) -> None:
    held = 0
    for number in undisturbed.moments:
        hour = Hour(sessions, folder)
        code, _ = signalled(hour, number, asked)
        assert code == 0, hour.console()
        assert {kind for kind, *_ in hour.exchange.resting()} <= {"STOP"}, number
        assert not hour.exchange.is_unprotected, number
        alive = [o for o in state_of(folder)["session"]["orders"] if o["state"] != "done"]
        assert {order["kind"] for order in alive} <= {"S"}, number
        held += len(alive)
        # What was cancelled is laid anew, all else is the same.
        found = replace(resumed(hour), intents=undisturbed.outcome.intents)
        assert not found.difference(undisturbed.outcome), number
    assert held > 3


@pytest.mark.slow
def test_asked_twice_it_ends_at_once_and_leaves_everything_as_it_is(
    sessions: ForkedSessions, folder: Path, undisturbed: Undisturbed
) -> None:
    for number in undisturbed.moments:
        hour = Hour(sessions, folder)
        code, then = signalled(hour, number, signal.SIGINT, signal.SIGTERM)
        assert code == INTERRUPTED, hour.console()
        assert hour.exchange.resting() == then, number
        assert not resumed(hour).difference(undisturbed.outcome), number


# --- not allowed to trade -------------------------------------------------------------------------


def refused(
    exchange: HourExchange, folder: Path, capsys: pytest.CaptureFixture[str], **changes: Any
) -> str:
    """Begin a session that must be refused; return what it says."""
    with SimServer(exchange) as server:
        wish = replace(hour_wish(exchange, server.port, folder), **changes)
        assert trade(wish) == REFUSED
    assert not exchange.book.orders
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_a_one_way_account_with_positions_is_refused_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange = HourExchange()
    exchange.hand_trade("LONG", "BUY", 0.01)
    exchange.book.orders.clear()
    exchange.account.is_hedged = False
    reported = refused(exchange, tmp_path, capsys)
    assert "the account holds LONG 0.01 of this coin already" in reported
    assert "close it, or trade in a sub-account" in reported
    assert not exchange.account.is_hedged, "its owner's settings"
    assert float(exchange.account.positions["LONG"].qty) == 0.01


@pytest.mark.parametrize("wrong", ["key", "secret"])
def test_wrong_keys_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    reported = refused(HourExchange(), tmp_path, capsys, **{wrong: "another"})
    assert "does not accept these keys" in reported
    assert "another" not in reported
    assert not list(tmp_path.rglob("*"))


def test_keys_that_may_read_and_not_trade_end_the_session_when_that_lasts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange = HourExchange()

    def permit(number: int, method: str, path: str) -> None:  # noqa: ARG001 - a hook's
        exchange.api_key = "sim-key" if method == "GET" else "none"

    exchange.before_request = permit
    reported = refused(exchange, tmp_path, capsys)
    assert "futures permission" in reported
    assert exchange.now_ms >= exchange.start_ms + 1e3 * KEYS_PATIENCE_S
    assert exchange.faults.requests["POST /fapi/v1/batchOrders"] >= 2


# --- secrets --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_no_file_and_no_output_holds_a_secret_whatever_happens(
    sessions: ForkedSessions, folder: Path
) -> None:
    hour = Hour(sessions, folder)
    exchange = hour.exchange
    exchange.api_key, exchange.secret = KEY, SECRET
    debug = ("--log-level", "DEBUG")
    with hour.served() as port:
        for kind in (FaultKind.HTML, FaultKind.TIMEOUT, FaultKind.DROP, FaultKind.CODE_1000):
            exchange.faults.rate(kind, 0.05, {READ})
        exchange.before_request = hour.killer(Point("request", 70, "before"))
        wish = hour.wish(port, *debug, key=KEY, secret=SECRET)
        assert hour.session(wish) == -signal.SIGKILL
        exchange.before_request = None
        wrong = hour.wish(port, "--resume", *debug, key=KEY, secret=SECRET[::-1])
        assert hour.session(wrong) == REFUSED
        go_on = hour.wish(port, "--resume", *debug, key=KEY, secret=SECRET)
        assert hour.session(go_on) == 0, hour.console()
    assert sum(exchange.faults.injected.values()) > 5
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.suffix for path in files}
    assert names >= {".json", ".csv", ".jsonl", ".log", ".txt"}
    shown = re.compile("|".join(map(re.escape, secret_forms())) + r"|signature=[0-9a-f]{8}")
    for path in files:
        assert not shown.search(path.read_text(encoding="utf-8")), path


def secret_forms() -> list[str]:
    """Return the secrets, both ways round, as they are and as they stand in a URL."""
    plain = [KEY, SECRET, SECRET[::-1]]
    return plain + [quote(text, safe="") for text in plain]
