"""``live_trade.py``: a session from its first start to its last order, and every refusal."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import live.health.alerts
import live_trade
from backtest.simulator import BacktestSimulator
from config import LIVE_CONFIG, STRATEGY_PARAMS
from core.errors import ConfigError, CredentialsError
from engine.options import chosen_params
from engine.registry import GRID_V4
from engine.types import CLOSE_END, LABEL_NAMES
from live.commands.machine_checks import refuse_weaknesses, weaknesses
from live.commands.process import SystemClock
from live.commands.replay import Recording, candle_table, report_text, run_replay
from live.commands.status import status_text
from live.commands.target import Target, check_settings, find_target
from live.exchange.credentials import find_credentials, read_environment
from live.health.logger import LEVELS
from live.session.runner import LiveRunner
from live.session.shutdown import Ending, Shutdown, StopRequest
from live.store.control_log import ControlLog
from live.store.instance_lock import InstanceLock
from live.store.trade_files import RECORD_COLUMNS
from tests.support.markets.synthetic import BAR_MS, synthetic_candles, synthetic_settlements
from tests.support.paths import ROOT
from tests.support.processes.live_command import (
    BUSY,
    KEYS,
    SETTINGS,
    Outcome,
    Stage,
    open_stage,
    terminate,
)

HEAVY = ("numba", "pandas", "ccxt", "sklearn", "numpy", "requests", "apprise")
TESTNET = ["--testnet", *BUSY]
STATE = "data/live_state/testnet/BTCUSDT_state.json"
REPLAYED = "data/live_replay/BTCUSDT_replay_trades.csv"
HELD_AFTER = 4
"""Candles after which the busy session holds a position."""
OpenStage = Callable[..., Stage]


@pytest.fixture
def stage_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[OpenStage]:
    """Return a function that opens a stage with another account than the usual."""
    open_ones = []

    def call(**sim: Any) -> Stage:
        opened = open_stage(tmp_path, monkeypatch, capsys, **sim)
        open_ones.append(opened)
        return opened.__enter__()

    yield call
    for opened in open_ones:
        opened.__exit__(None, None, None)


@pytest.fixture
def stage(stage_with: OpenStage) -> Stage:
    """Return a stage with the usual account."""
    return stage_with()


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Return a function that puts a person before a terminal and returns what they are asked."""

    def call(answer: str) -> list[str]:
        asked: list[str] = []

        def ask(question: str) -> str:
            asked.append(question)
            return answer

        monkeypatch.setattr("builtins.input", ask)
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        return asked

    return call


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the alerts sent to the one address there is."""
    texts: list[str] = []

    class Service:
        def notify(self, *, body: str, title: str) -> bool:
            texts.append(f"{title}: {body}")
            return True

    monkeypatch.setattr(live.health.alerts, "_service", lambda *_: ("json", Service()))
    return texts


def target_of(**changes: Any) -> Target:
    wanted: dict[str, Any] = {"dry_run": False, "testnet": True, "settings": LIVE_CONFIG}
    return find_target("BTC", **wanted | changes)


def error_line(outcome: Outcome) -> str:
    """Return the one line a refused command prints on standard error."""
    code, _, err = outcome
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.strip()


def saved(stage: Stage, path: str = STATE) -> dict[str, Any]:
    return dict(json.loads((stage.folder / path).read_text(encoding="utf-8")))


def alive(stage: Stage) -> list[dict[str, Any]]:
    return [order for order in saved(stage)["session"]["orders"] if order["state"] != "done"]


# --- a dry run ----------------------------------------------------------------------------------


def test_a_dry_run_trades_on_paper_and_needs_no_keys(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name)
    code, out, err = stage.run_for(HELD_AFTER, "--dry-run", *BUSY, "--capital", "5000")
    assert (code, err) == (0, "")
    assert "BTCUSDT, dry run" in out
    assert "capital   $5,000.00, on paper" in out
    assert "BUY_OPEN_LONG | BTC/USDT" in out
    assert stage.paths() >= {
        "data/live_state/dry/BTCUSDT_state.json",
        "data/live_state/dry/BTCUSDT_trades.csv",
        "data/live_state/dry/BTCUSDT_trades.jsonl",
        "data/live_state/dry/BTCUSDT_health.json",
        "data/live_logs/dry/BTCUSDT.log",
    }
    assert not stage.exchange.account.trades
    signed = {"openOrders", "order", "balance", "positionRisk", "userTrades", "leverageBracket"}
    assert not any(part in path for path in stage.exchange.faults.requests for part in signed)


def test_a_dry_run_goes_on_where_it_was_stopped(stage: Stage) -> None:
    stage.run_for(3, "--dry-run", *BUSY)
    first = saved(stage, "data/live_state/dry/BTCUSDT_state.json")["session"]["progress"]
    code, out, _ = stage.run_for(2, "--dry-run", *BUSY, "--resume")
    second = saved(stage, "data/live_state/dry/BTCUSDT_state.json")["session"]["progress"]
    assert code == 0
    assert "the saved session's; --capital is for new ones" in out
    assert second["start_ms"] == first["start_ms"]
    assert second["bar"] >= first["bar"] + 2


def test_a_dry_run_can_be_closed(stage: Stage) -> None:
    stage.run_for(HELD_AFTER, "--dry-run", *BUSY)
    code, out, err = stage.run("--dry-run", "--flatten", "--yes")
    assert (code, err) == (0, "")
    assert re.search(r"LONG +0\.\d+ at", out)
    assert "everything of this session is closed" in out
    status = stage.run("--dry-run", "--status")[1]
    assert "orders     none" in status
    assert status.count("nothing") == 2


def test_each_mode_has_files_of_its_own() -> None:
    flags = [(False, False), (False, True), (True, False), (True, True)]
    targets = [target_of(dry_run=dry, testnet=net) for dry, net in flags]
    for paths in zip(*((t.state_path, t.log_path, t.lock_path) for t in targets), strict=True):
        assert len(set(paths)) == len(flags)


@pytest.mark.slow
def test_the_mixture_regime_works(stage_with: OpenStage) -> None:
    stage = stage_with(start_bar=3_496)  # it needs more candles before it
    arguments = ["--dry-run", *BUSY, "--set", "use_ml_regime=true", "--once"]
    code, out, _ = stage.run(*arguments)
    assert code == 0
    assert "use_ml_regime = true" in out
    assert "EQUITY" in out


# --- a session with orders ----------------------------------------------------------------------


def test_the_start_says_what_must_be_known(stage: Stage) -> None:
    out = stage.run_for(1, *TESTNET, "--capital", "5000", "--no-short", "--set", "gamma=0.7")[1]
    banner = out.partition("[")[0]
    for text in (
        "BTCUSDT, testnet (demo money)",
        "$5,000.00 of a wallet of $10,000.00",
        "leverage  5",
        "long only",
        "gamma = 0.7",
        "allow_short = false",
        "maker 0.02 %, taker 0.05 %, of this account",
        "25.0 % closes everything",
        "data/live_state/testnet/BTCUSDT_*",
        "data/live_logs/testnet/BTCUSDT.log",
        "Ctrl+C",
        "python3 live_trade.py --coin BTC --testnet --flatten",
    ):
        assert text in banner


def test_the_capital_is_never_more_than_the_wallet_allows(stage: Stage) -> None:
    out = stage.run_for(1, *TESTNET, "--capital", "50000")[1]
    assert "capital   $9,500.00 of a wallet of $10,000.00" in out
    assert "capital 50000 is more than 95 % of the wallet" in out
    assert saved(stage)["session"]["progress"]["start_equity"] == 9_500.0


def test_the_first_signal_cancels_entries_and_leaves_the_stop(stage: Stage) -> None:
    code, out, err = stage.run_for(HELD_AFTER, *TESTNET)
    assert (code, err) == (0, "")
    assert stage.held()["LONG"] > 0.0
    assert not stage.limits()
    assert len(stage.stops()) == 1
    assert re.search(r"stopped; left open: LONG 0\.\d+ with its stop at 1[\d,.]+;", out)
    health = json.loads((stage.folder / "data/live_state/testnet/BTCUSDT_health.json").read_text())
    assert health["status"] == "STOPPED"
    assert stage.clock.woken == 1


@pytest.mark.slow
def test_a_stopped_session_goes_on_and_is_closed(stage: Stage) -> None:
    stage.run_for(HELD_AFTER, *TESTNET)
    trades = (stage.folder / "data/live_state/testnet/BTCUSDT_trades.csv").read_text()
    assert stage.run_for(2, *TESTNET, "--resume")[0] == 0
    later = (stage.folder / "data/live_state/testnet/BTCUSDT_trades.csv").read_text()
    assert later.startswith(trades)
    code, out, err = stage.run("--testnet", "--flatten", "--yes")
    assert (code, err) == (0, "")
    assert LABEL_NAMES[CLOSE_END] in out
    assert stage.held() == {"LONG": 0.0, "SHORT": 0.0}
    assert not stage.limits()
    assert not stage.stops()
    assert not alive(stage)


def test_one_step_at_an_exchange_leaves_no_entry_unwatched(stage: Stage) -> None:
    code, out, _ = stage.run(*TESTNET, "--once")
    assert code == 0
    assert "the step is done, its entries and take-profits are cancelled; left open: nothing" in out
    sent = [order for order in stage.exchange.book.orders.values() if not order.closes]
    assert sent
    assert not stage.limits()
    assert not alive(stage)
    bar = saved(stage)["session"]["progress"]["bar"]
    assert stage.run(*TESTNET, "--once", "--resume")[0] == 0
    assert saved(stage)["session"]["progress"]["bar"] == bar + 1
    assert not stage.limits()


def test_one_step_leaves_the_stop_of_what_it_holds(stage: Stage) -> None:
    stage.run_for(HELD_AFTER, *TESTNET)
    code, out, _ = stage.run(*TESTNET, "--once", "--resume")
    assert code == 0
    assert re.search(r"left open: LONG 0\.\d+ with its stop at 1[\d,.]+;", out)
    assert len(stage.stops()) == 1
    assert not stage.limits()


def test_one_step_whose_entries_may_still_rest_is_a_failure(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shutdown, "withdraw", lambda _: False)
    assert stage.run(*TESTNET, "--once")[0] == 2


def test_one_step_on_paper_keeps_its_orders(stage: Stage) -> None:
    code, out, _ = stage.run("--dry-run", *BUSY, "--once")
    assert code == 0
    assert "the step is done; left open: nothing; go on with --resume" in out
    assert "on paper" in stage.run("--dry-run", "--status")[1]


def test_the_second_signal_ends_at_once_and_says_what_stays(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    withdraw = Shutdown.withdraw

    def interrupted(shutdown: Shutdown) -> bool:
        terminate()  # a person presses again while this runs
        return withdraw(shutdown)

    with monkeypatch.context() as patch:
        patch.setattr(Shutdown, "withdraw", interrupted)
        code, _, err = stage.run_for(HELD_AFTER, *TESTNET)
    assert code == 130
    assert re.search(r"^ended at once; still open as far as is known: LONG 0\.\d+ with its", err)
    assert stage.limits(), "nothing was cancelled"
    assert stage.run_for(1, *TESTNET, "--resume")[0] == 0


def test_signals_are_the_processs_own_again_afterwards(stage: Stage) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stage.run_for(1, *TESTNET)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_session_that_hangs_is_watched_by_another_thread(stage: Stage) -> None:
    names: list[str] = []
    stage.after(1, lambda: names.extend(thread.name for thread in threading.enumerate()))
    stage.run_for(2, *TESTNET)
    assert "health" in names
    assert "health" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("ending", Ending)
def test_the_exit_code_says_how_it_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, ending: Ending
) -> None:
    monkeypatch.setattr(LiveRunner, "run", lambda *_, **__: ending)
    code, out, err = stage.run(*TESTNET)
    assert code == ending.value
    words = {
        "ASKED": "stopped; ",
        "FAILED": "ended after errors; ",
        "RUINED": "nothing is left",
        "EMERGENCY": "ended by the loss limit; ",
    }
    assert words[ending.name] in out
    assert (words[ending.name] in err) is (ending is not Ending.ASKED)
    assert f" {ending.value} " in live_trade.EXAMPLES[live_trade.EXAMPLES.index("exit code") :]


@pytest.mark.slow
def test_the_loss_limit_closes_everything_and_stays_reached(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, heard: list[str]
) -> None:
    monkeypatch.setenv("GRID_ALERT_URLS", "json://hook")
    stage.run_for(HELD_AFTER, *TESTNET)
    assert stage.held()["LONG"] > 0.0
    limits = {"equity_warn_pct": 1e-6, "equity_emergency_pct": 2e-6}
    monkeypatch.setattr(live_trade, "LIVE_CONFIG", {**SETTINGS, **limits})
    code, out, _ = stage.run(*TESTNET, "--resume")
    assert code == 3
    assert "the loss limit is reached: everything is closed" in out
    assert stage.held() == {"LONG": 0.0, "SHORT": 0.0}
    assert any("EMERGENCY" in text for text in heard)
    stage.exchange.advance(BAR_MS)
    n_trades, n_orders = len(stage.exchange.account.trades), stage.exchange.book.changes
    assert stage.run(*TESTNET, "--resume")[0] == 3
    assert len(stage.exchange.account.trades) == n_trades
    assert stage.exchange.book.changes == n_orders, "an order was laid after the loss limit"


def test_start_and_end_are_reported(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, heard: list[str]
) -> None:
    monkeypatch.setenv("GRID_ALERT_URLS", "json://token@hook")
    out = stage.run_for(1, *TESTNET)[1]
    assert "alerts    to 1 addresses" in out
    title = "Grid BTCUSDT, testnet (demo money): BTCUSDT"
    assert heard[0].startswith(f"{title} started: testnet (demo money), wallet $9,500.00")
    assert heard[-1].startswith(f"{title} stopped; left open: nothing")
    assert "token" not in stage.texts() + out


# --- real money ---------------------------------------------------------------------------------


def test_real_money_is_asked_for(stage: Stage, person: Any) -> None:
    asked = person("btcusdt")
    stage.after(1, terminate)
    code, out, _ = stage.run(*BUSY)
    assert code == 0
    assert "BTCUSDT, REAL MONEY" in out
    assert asked == ["Trade with REAL MONEY? Type BTCUSDT if so: "]
    assert "data/live_state/BTCUSDT_state.json" in stage.paths()


def test_a_person_may_leave_at_the_question(
    stage: Stage, person: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    person("")

    def press(_: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", press)
    code, _, err = stage.run(*BUSY)
    assert code == 130
    assert "interrupted" in err
    assert {method for method, _ in requests_of(stage)} == {"GET"}


def test_another_answer_sends_nothing(stage: Stage, person: Any) -> None:
    person("yes")
    assert "not confirmed: nothing was done" in error_line(stage.run(*BUSY))
    assert {method for method, _ in requests_of(stage)} == {"GET"}
    assert stage.paths() == {"data/live_state/BTCUSDT.lock"}


def requests_of(stage: Stage) -> list[tuple[str, str]]:
    """Return method and path of every kind of request."""
    found = [str(name).split(" ", 1) for name in stage.exchange.faults.requests]
    return [(method, path) for method, path in found]


def test_real_money_without_a_terminal_needs_a_word(stage: Stage) -> None:
    assert "say so with --yes" in error_line(stage.run(*BUSY))
    assert stage.exchange.faults.n_requests == 0
    assert stage.run_for(1, *BUSY, "--yes")[0] == 0


def test_going_on_with_real_money_does_not_ask(stage: Stage) -> None:
    stage.run_for(2, *BUSY, "--yes")
    assert stage.run_for(1, *BUSY, "--resume")[0] == 0


def test_resuming_what_is_not_there_is_a_new_session_and_asks(stage: Stage) -> None:
    assert "say so with --yes" in error_line(stage.run(*BUSY, "--resume"))
    code, out, _ = stage.run_for(1, *BUSY, "--resume", "--yes")
    assert code == 0
    assert "there is no saved state: a new session begins" in out


# --- status -------------------------------------------------------------------------------------


def test_the_status_is_read_from_the_files_alone(stage: Stage) -> None:
    stage.run_for(HELD_AFTER, *TESTNET)
    asked = stage.exchange.faults.n_requests
    code, out, err = stage.run("--testnet", "--status")
    assert (code, err) == (0, "")
    assert stage.exchange.faults.n_requests == asked
    state = saved(stage)
    position = state["engine"]["sides"][0]
    assert f"LONG       {position['qty']:g} at" in out
    assert f"stop at {position['stop_price']:,.2f}" in out
    assert len(re.findall(r"fill \d+:", out)) == len(position["fills"])
    assert f"${state['engine']['wallet']:,.2f}" in out
    assert "orders     1\n" in out
    assert "process    stopped at 2024-" in out
    assert "complete; price" in out


def test_the_status_works_while_the_session_runs(stage: Stage) -> None:
    reported: list[str] = []
    target = target_of()

    def look() -> None:
        health = json.loads(target.health_path.read_text(encoding="utf-8"))
        reported.extend(status_text(target, health["updated_at"] + ms) for ms in (5_000, 600_000))

    stage.after(3, look)
    stage.run_for(5, *TESTNET)
    assert f"process    running, number {os.getpid()}" in reported[0]
    assert re.search(r"LONG  ENTRY +0\.\d+ at [\d,.]+, open", reported[0])
    assert "process    SILENT for" in reported[1]


def test_the_status_of_nothing_says_where_there_is_something(stage: Stage) -> None:
    assert "no saved state of BTCUSDT" in error_line(stage.run("--status"))
    stage.run_for(1, *TESTNET)
    line = error_line(stage.run("--status"))
    assert f"there is {STATE}, shown with --testnet" in line


def test_a_damaged_state_is_not_read_from(stage: Stage) -> None:
    stage.run_for(1, *TESTNET)
    path = stage.folder / STATE
    path.write_bytes(path.read_bytes()[:-10])
    assert "is damaged" in error_line(stage.run("--testnet", "--status"))
    assert "the newest usable snapshot is" in error_line(stage.run(*TESTNET, "--resume"))


def test_a_damaged_health_file_does_not_hide_the_rest(stage: Stage) -> None:
    stage.run_for(1, *TESTNET)
    (stage.folder / "data/live_state/testnet/BTCUSDT_health.json").write_text("[]")
    out = stage.run("--testnet", "--status")[1]
    assert "nothing known" in out
    assert "equity" in out


# --- closing ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_closing_asks_for_the_symbol(stage: Stage, person: Any) -> None:
    stage.run_for(HELD_AFTER, *TESTNET)
    held = stage.held()
    asked = person("no")
    assert "not confirmed" in error_line(stage.run("--testnet", "--flatten"))
    assert asked == ["Close all of this, testnet (demo money)? Type BTCUSDT if so: "]
    assert stage.held() == held
    person("BTCUSDT")
    assert stage.run("--testnet", "--flatten")[0] == 0
    assert stage.held() == {"LONG": 0.0, "SHORT": 0.0}


def test_closing_without_a_terminal_needs_a_word(stage: Stage) -> None:
    stage.run_for(1, *TESTNET)
    assert "say so with --yes" in error_line(stage.run("--testnet", "--flatten"))


def test_closing_is_refused_while_the_session_runs(stage: Stage) -> None:
    stage.run_for(1, *TESTNET)
    with InstanceLock(target_of().lock_path):
        line = error_line(stage.run("--testnet", "--flatten", "--yes"))
    assert f"another process (pid {os.getpid()}) trades BTCUSDT" in line


def test_there_must_be_something_to_close(stage: Stage) -> None:
    line = error_line(stage.run("--testnet", "--flatten", "--yes"))
    assert "nothing of BTCUSDT is known" in line
    assert stage.exchange.faults.n_requests == 0


def test_closing_leaves_what_is_not_ours(stage: Stage) -> None:
    stage.run_for(HELD_AFTER, *TESTNET)
    stage.exchange.hand_trade("SHORT", "SELL", 0.5)
    code, out, _ = stage.run("--testnet", "--flatten", "--yes")
    assert code == 0
    assert stage.held() == {"LONG": 0.0, "SHORT": 0.5}
    assert "the account holds SHORT 0.5 that is not this session's; it is left alone" in out


def test_closing_what_somebody_closed_before_agrees_with_the_account(stage: Stage) -> None:
    stage.run_for(HELD_AFTER, *TESTNET)
    stage.exchange.hand_trade("LONG", "SELL", stage.held()["LONG"])
    code, _, _ = stage.run("--testnet", "--flatten", "--yes")
    assert code == 0
    assert not saved(stage)["engine"]["sides"][0]["fills"]


def test_closing_takes_a_state_of_other_code_and_parameters(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.run_for(HELD_AFTER, *TESTNET)
    monkeypatch.setattr("engine.strategy.CODE_FINGERPRINT", "another")
    assert "--accept-code-change" in error_line(stage.run(*TESTNET, "--resume"))
    assert stage.run("--testnet", "--flatten", "--yes")[0] == 0
    assert stage.held() == {"LONG": 0.0, "SHORT": 0.0}


def test_other_code_may_go_on_if_it_is_accepted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.run_for(1, *TESTNET)
    monkeypatch.setattr("engine.strategy.CODE_FINGERPRINT", "another")
    assert stage.run_for(1, *TESTNET, "--resume", "--accept-code-change")[0] == 0


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "grid_level=5"], "unknown strategy parameter 'grid_level'; did you mean"),
        (["--set", "halt_z_threshold=-1"], "halt_z_threshold = -1.0 must be < resume_z_threshold"),
        (["--leverage", "500"], "leverage = '500' is outside [0.1, 125] x"),
        (["--capital", "0"], "initial_capital = '0' is outside"),
        (["--preset", "documentd"], "did you mean documented?"),
        (["--params", "none.json"], "--params none.json: No such file"),
        (["--coin", "BTC/EUR"], "symbol 'BTC/EUR' must be a coin like BTC"),
        (["--accept-code-change"], "--accept-code-change needs --resume"),
        (["--start", "2024-01-01"], "--start needs --replay DIR"),
        (["--end", "2024-01-01"], "--end needs --replay DIR"),
        (["--replay", "nowhere"], "--replay has no session and asks nobody: leave --testnet out"),
        (["--replay-dir", "x"], "--replay-dir needs --replay DIR"),
        (["--coin", "NOPE"], "the exchange has no market NOPEUSDT; nearest:"),
        (["--state-dir", "/dev/null/x"], "cannot write /dev/null/x/testnet/BTCUSDT.lock"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    stage: Stage, arguments: list[str], message: str
) -> None:
    assert message in error_line(stage.run("--testnet", *arguments))
    assert stage.paths() == set()


@pytest.mark.parametrize("missing", [["BINANCE_API_KEY"], ["BINANCE_API_SECRET"], [*KEYS]])
def test_missing_keys_are_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, missing: list[str]
) -> None:
    for name in missing:
        monkeypatch.delenv(name)
    line = error_line(stage.run(*TESTNET))
    assert f"{' and '.join(missing)} not set" in line
    assert "--dry-run" in line
    assert stage.exchange.faults.n_requests == 0


@pytest.mark.parametrize(
    ("name", "code"), [("BINANCE_API_KEY", -2015), ("BINANCE_API_SECRET", -1022)]
)
def test_keys_that_are_not_accepted_are_not_shown(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    monkeypatch.setenv(name, "not-the-right-one")
    line = error_line(stage.run(*TESTNET))
    assert "demo trading does not accept these keys" in line
    assert str(code) in line
    assert "not-the-right-one" not in line
    assert stage.paths() == set()


def test_without_a_network_nothing_begins(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("live.commands.process.http_session", unreachable)
    line = error_line(stage.run("--dry-run"))
    assert "the exchange cannot be asked" in line
    assert "check the network" in line
    assert stage.paths() == set()


def unreachable() -> Any:
    """Return an HTTP session of a machine without a network."""
    import requests  # noqa: PLC0415

    class Offline(requests.Session):
        def request(self, *_: Any, **__: Any) -> Any:
            raise requests.ConnectionError("name or service not known")

    return Offline()


def test_a_second_instance_is_refused(stage: Stage) -> None:
    with InstanceLock(target_of().lock_path):
        line = error_line(stage.run(*TESTNET))
    assert f"another process (pid {os.getpid()}) trades BTCUSDT: stop it first" in line
    assert stage.paths() == {"data/live_state/testnet/BTCUSDT.lock"}


def test_an_account_that_cannot_leave_one_way_mode_is_refused(stage_with: OpenStage) -> None:
    stage = stage_with(is_hedged=False)
    stage.exchange.book.new_order(
        client_id="web_1",
        side="BUY",
        position_side="BOTH",
        kind="LIMIT",
        qty=Decimal(1),
        price=Decimal(9_000),
        now_ms=stage.exchange.stamp_ms,
    )
    line = error_line(stage.run(*TESTNET))
    assert "hedge mode cannot be set for BTCUSDT" in line
    assert stage.paths() == {"data/live_state/testnet/BTCUSDT.lock"}


def test_more_leverage_than_the_symbol_allows_is_refused(stage_with: OpenStage) -> None:
    stage = stage_with(brackets=((0.0, 0.05, 0.0),))
    line = error_line(stage.run("--testnet", "--leverage", "120"))
    assert "leverage 120 is above the" in line
    assert stage.paths() == {"data/live_state/testnet/BTCUSDT.lock"}


def test_an_empty_wallet_is_refused(stage_with: OpenStage) -> None:
    line = error_line(stage_with(wallet=0.0).run(*TESTNET))
    assert "transfer some from the spot wallet first" in line


def test_a_state_with_other_parameters_is_refused_before_the_account_is_touched(
    stage: Stage,
) -> None:
    stage.run_for(1, *TESTNET)
    stage.exchange.faults.requests.clear()
    line = error_line(stage.run(*TESTNET, "--resume", "--leverage", "6"))
    assert "leverage = 5.0 in the file, 6.0 now" in line
    assert {method for method, _ in requests_of(stage)} <= {"GET"}


def test_a_session_with_positions_is_not_forgotten(stage: Stage) -> None:
    stage.run_for(HELD_AFTER, *TESTNET)
    assert "go on with --resume, or close them with --flatten" in error_line(stage.run(*TESTNET))


def test_the_same_capital_need_not_be_said_again(stage: Stage) -> None:
    stage.run_for(1, *TESTNET, "--capital", "5000")
    assert stage.run_for(1, *TESTNET, "--resume")[0] == 0
    assert stage.run_for(1, *TESTNET, "--resume", "--capital", "700")[0] == 0
    assert saved(stage)["session"]["progress"]["start_equity"] == 5_000.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_capital_pct", 1.5),
        ("poll_s", "5"),
        ("poll_s", 0),
        ("buffer_bars", 3_000.5),
        ("retries", True),
        ("snapshots", 0),
        ("recv_window_ms", 10**6),
        ("instance", "a b"),
        ("instance", ""),
        ("state_dir", ""),
        ("log_dir", 5),
        ("candle_grace_s", float("nan")),
        ("equity_warn_pct", -1),
        ("request_timeout_s", None),
        ("max_weight_share", 1.0),
    ],
)
def test_a_setting_no_session_could_run_with_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        check_settings({**LIVE_CONFIG, name: value})


def test_the_settings_as_shipped_are_fine() -> None:
    check_settings(LIVE_CONFIG)


# --- keys ---------------------------------------------------------------------------------------


def test_no_secret_is_printed_logged_or_stored(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, secret = "sim-key-0123456789", "sim+secret/0123456789"
    stage.exchange.api_key, stage.exchange.secret = key, secret
    monkeypatch.setenv("BINANCE_API_KEY", key)
    monkeypatch.setenv("BINANCE_API_SECRET", secret)
    stage.after(2, lambda: setattr(stage.exchange, "secret", "changed"))
    printed = [stage.run_for(4, *TESTNET, "--log-level", "DEBUG")]
    stage.exchange.secret = secret
    printed.append(stage.run_for(2, *TESTNET, "--resume", "--log-level", "DEBUG"))
    printed.append(stage.run("--testnet", "--flatten", "--yes", "--log-level", "DEBUG"))
    everything = "\n".join([stage.texts(), str(printed)])
    assert "Signature for this request is not valid" in everything
    for text in (key, secret, "sim%2Bsecret", "signature="):
        assert text not in everything


def test_keys_come_from_a_file_and_stay_out_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".env"
    path.write_text("BINANCE_API_KEY=from-file\nBINANCE_API_SECRET='with$HOME'\nEMPTY=\n")
    monkeypatch.delenv("BINANCE_API_KEY", raising=False)
    found = read_environment({"BINANCE_API_SECRET": "from-environment"}, path)
    assert found == {"BINANCE_API_KEY": "from-file", "BINANCE_API_SECRET": "from-environment"}
    assert find_credentials(read_environment({}, path)).secret == "with$HOME"  # noqa: S105
    assert "BINANCE_API_KEY" not in os.environ
    assert "from-file" not in repr(find_credentials(found))


def test_a_key_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"BINANCE_API_KEY=\xff\xfe\n")
    with pytest.raises(ConfigError, match="cannot read"):
        read_environment({}, tmp_path / ".env")


def test_a_key_with_blanks_in_it_is_refused_without_showing_it() -> None:
    with pytest.raises(CredentialsError, match="BINANCE_API_SECRET holds characters") as caught:
        find_credentials({"BINANCE_API_KEY": " key ", "BINANCE_API_SECRET": "two words"})
    assert "words" not in str(caught.value)


def test_keys_may_lie_in_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    environ = {"BINANCE_API_KEY_FILE": str(tmp_path / "key"), "BINANCE_API_SECRET": "here"}
    found = find_credentials(read_environment(environ, tmp_path / ".env"))
    assert (found.key, found.secret) == ("from-file", "here")
    environ = {**environ, "BINANCE_API_KEY": "first"}
    assert find_credentials(read_environment(environ, tmp_path / ".env")).key == "first"


@pytest.mark.parametrize("body", [None, b"\xff\xfe", b"x" * 70_000])
def test_a_file_of_a_key_that_is_not_usable_is_refused_and_not_shown(
    tmp_path: Path, body: bytes | None
) -> None:
    path = tmp_path / "key"
    if body is not None:
        path.write_bytes(body)
    with pytest.raises(ConfigError, match="which BINANCE_API_KEY_FILE names") as caught:
        read_environment({"BINANCE_API_KEY_FILE": str(path)}, tmp_path / ".env")
    assert "xxx" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "folder", "is_open"),
    [(0o600, 0o700, False), (0o640, 0o700, True), (0o604, 0o700, True), (0o600, 0o777, True)],
)
def test_keys_that_others_can_read_or_replace_are_refused_for_real_money_and_noted_otherwise(
    stage: Stage, mode: int, folder: int, *, is_open: bool
) -> None:
    path = stage.folder / ".env"
    path.write_text("X=1\n")
    path.chmod(mode)
    stage.folder.chmod(folder)
    before = len(stage.exchange.faults.requests)
    if not is_open:
        assert weaknesses(mode_of(stage, real=True)) == []
        return
    code, _, err = stage.run_for(1, "--capital", "5000", "--yes", *BUSY)
    assert code == 2
    assert "real money is not traded like this: .env can be read or replaced" in err
    assert len(stage.exchange.faults.requests) == before, "nothing was asked"
    out = stage.run_for(1, "--dry-run", *BUSY)[1]
    assert "chmod 600 .env" in out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"enableWithdrawals": True}, ["withdrawals"]),
        ({"ipRestrict": False}, ["any-address"]),
        ({"permitsUniversalTransfer": True}, ["transfers"]),
        ({"enableWithdrawals": True, "ipRestrict": False}, ["withdrawals", "any-address"]),
    ],
)
def test_a_key_that_may_do_more_than_trade_is_refused_for_real_money_unless_said_in_words(
    stage: Stage, changes: dict[str, bool], words: list[str]
) -> None:
    stage.exchange.key_rights |= changes
    code, _, err = stage.run("--capital", "5000", "--yes", *BUSY)
    assert code == 2
    assert "real money is not traded with this key: it " in err
    assert err.rstrip().endswith(f"--accept-key-rights {' '.join(words)}")
    assert not stage.limits()
    if len(words) > 1:
        code, _, err = stage.run(
            "--capital", "5000", "--yes", "--accept-key-rights", words[0], *BUSY
        )
        assert code == 2
        assert err.rstrip().endswith(f"--accept-key-rights {words[1]}")
    else:
        code, _, err = stage.run_for(
            1, "--capital", "5000", "--yes", "--accept-key-rights", *words, *BUSY
        )
        assert code == 0, err


@pytest.mark.parametrize("right", ["enableFutures", "enableReading"])
def test_a_key_that_may_not_trade_is_refused(stage: Stage, right: str) -> None:
    stage.exchange.key_rights[right] = False
    code, _, err = stage.run("--capital", "5000", "--yes", *BUSY)
    assert code == 2
    assert "the key lacks the right to" in err


def test_accepting_rights_without_real_money_is_refused(stage: Stage) -> None:
    code, _, err = stage.run("--dry-run", "--accept-key-rights", "withdrawals")
    assert code == 2
    assert "--accept-key-rights is about real money" in err


def equity_lines(stage: Stage) -> list[str]:
    """Return what ``--status`` says about the equity on paper."""
    out = stage.run("--dry-run", "--status")[1]
    return [line for line in out.splitlines() if "equity" in line]


def test_the_restore_drill_of_the_runbook_works(stage: Stage) -> None:
    dry = ("--dry-run", "--capital", "1000", *BUSY)
    assert stage.run_for(3, *dry)[0] == 0
    folder = stage.folder / "data" / "live_state" / "dry"
    shutil.copytree(folder, stage.folder / "drill")
    equity = [
        line for line in stage.run("--dry-run", "--status")[1].splitlines() if "equity" in line
    ]
    assert equity
    state = folder / "BTCUSDT_state.json"
    os.truncate(state, 100)
    code, _, err = stage.run(*dry, "--resume")
    assert code == 2
    assert "is damaged" in err
    found = re.search(r"newest usable snapshot is (\S+),", err)
    assert found is not None
    shutil.copy(found[1], state)
    assert stage.run_for(1, *dry, "--resume")[0] == 0
    rows = (folder / "BTCUSDT_trades.jsonl").read_text().splitlines()
    assert len({json.loads(row)["trade_id"] for row in rows}) == len(rows)
    shutil.rmtree(folder)
    shutil.copytree(stage.folder / "drill", folder)
    again = [
        line for line in stage.run("--dry-run", "--status")[1].splitlines() if "equity" in line
    ]
    assert again == equity
    assert stage.run(*dry, "--resume", "--once")[0] == 0


def test_start_end_and_closing_stand_in_the_control_log(stage: Stage) -> None:
    folder = stage.folder / "data" / "live_state"
    assert stage.run_for(1, "--capital", "5000", "--yes", *BUSY)[0] == 0
    assert stage.run("--flatten", "--yes")[0] == 0
    log = ControlLog("BTCUSDT", folder)
    assert log.check() == 3
    entries = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [entry["event"] for entry in entries] == ["start", "end", "flatten"]
    assert entries[0]["mode"] == "live"
    assert entries[1]["ending"] == "ASKED"


def test_a_control_log_that_was_changed_does_not_stop_trading_and_is_reported(stage: Stage) -> None:
    path = stage.folder / "data" / "live_state" / "dry" / "BTCUSDT_control.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("{}\n")
    code, out, _ = stage.run_for(1, "--dry-run", *BUSY)
    assert code == 0
    assert "the control log does not take it" in out


def test_a_state_folder_that_others_can_write_is_refused_for_real_money(stage: Stage) -> None:
    target = mode_of(stage, real=True)
    target.state_folder.mkdir(parents=True)
    target.state_folder.chmod(0o777)
    assert [text for text in weaknesses(target) if "could change the state" in text]
    with pytest.raises(ConfigError, match="real money is not traded like this"):
        refuse_weaknesses(target)
    refuse_weaknesses(mode_of(stage, real=False))


def test_alert_addresses_in_the_config_are_refused_for_real_money_and_not_shown(
    stage: Stage,
) -> None:
    target = mode_of(stage, real=True, alert_urls=("tgram://secret/1",))
    with pytest.raises(ConfigError, match=r"alert_urls in config\.py") as caught:
        refuse_weaknesses(target)
    assert "secret/1" not in str(caught.value)


def mode_of(stage: Stage, *, real: bool, **changes: Any) -> Target:
    settings = {**LIVE_CONFIG, "state_dir": str(stage.folder / "state"), **changes}
    return find_target("BTC", dry_run=not real, testnet=False, settings=settings)


# --- replay -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of candles and settlements."""
    folder = tmp_path_factory.mktemp("recorded")
    candles = synthetic_candles(3_700, 11)
    candles.to_csv(folder / "BTCUSDT-15m.csv", index=False)
    synthetic_settlements(candles, 3).to_csv(folder / "BTCUSDT-funding.csv", index=False)
    return folder


REPLAY = ["--start", "2024-02-02", "--end", "2024-02-08"]


@pytest.mark.parametrize(
    "arguments",
    [[], BUSY, [*BUSY, "--no-short", "--capital", "700", "--set", "tp_concentration=1"]],
    ids=["shipped", "documented", "changed"],
)
@pytest.mark.slow
def test_a_replay_trades_as_the_backtest_does_to_the_last_cent(
    recorded: Path, arguments: list[str]
) -> None:
    args = live_trade.build_parser().parse_args(["--coin", "BTC", *REPLAY, *arguments])
    params = chosen_params(args)
    simulator = BacktestSimulator(params, source=recorded)
    expected = simulator.run_single("BTC", args.start, args.end)
    loaded = simulator.load("BTC", args.start, args.end)
    funding = loaded.market.funding
    recording = Recording(
        coin="BTC",
        candles=candle_table(loaded.market.candles),
        first=loaded.first_bar,
        settlements=funding["timestamp"].to_numpy(copy=True),
        rates=funding["rate"].to_numpy(copy=True),
        rules=loaded.rules,
    )
    session = run_replay(recording, GRID_V4, simulator.params)
    first = int(expected["candles"]["timestamp"].iloc[0]) // BAR_MS
    assert [
        (t.label, t.bar - first, t.timestamp, t.price, t.qty, t.pnl, t.fee, t.regime, t.fill_id)
        for t in session.trades
    ] == [
        (
            t["label"],
            t["bar"],
            t["timestamp"],
            t["price"],
            t["qty"],
            t["pnl"],
            t["fee"],
            t["regime"],
            t["fill_id"],
        )
        for t in expected["trades"]
    ]
    assert len(session.trades) > (40 if arguments else 2)
    metrics, view = expected["metrics"], session.strategy.view()
    assert view.wallet == pytest.approx(metrics["final_capital"], abs=1e-9)
    assert view.funding == pytest.approx(metrics["funding_pnl"], abs=1e-9)
    report = report_text(recording, session)
    for name, text in {
        "Return": f"{metrics['total_return_pct']:+.2f} %",
        "Final equity": f"{metrics['final_capital']:,.2f}",
        "Round trips": f"{metrics['total_trades']:,}",
        "Fees": f"{metrics['fees_paid']:,.2f}",
        "Funding": f"{metrics['funding_pnl']:,.2f}",
    }.items():
        assert re.search(rf"^{name} +{re.escape(text)}$", report, re.MULTILINE), name


def test_a_replay_prints_a_report_and_leaves_its_trades(stage: Stage, recorded: Path) -> None:
    code, out, err = stage.run("--replay", str(recorded), *REPLAY, *BUSY)
    assert code == 0
    assert out.startswith("BTC replayed: 2024-02-02 00:00 to 2024-02-08 00:00 UTC, 576 candles")
    assert "Final equity" in out
    assert "error" not in err
    assert out.endswith(f"Trades in {REPLAYED}\n")
    assert stage.paths() == {REPLAYED}
    trades = pd.read_csv(stage.folder / REPLAYED)
    assert list(trades.columns) == list(RECORD_COLUMNS)
    assert f"{(trades['qty'] > 0.0).sum():,}" in re.findall(r"^Trades +(\S+)$", out, re.MULTILINE)
    assert trades["fee"].sum() == pytest.approx(
        float(re.findall(r"^Fees +(\S+)$", out, re.MULTILINE)[0].replace(",", "")), abs=0.01
    )
    assert stage.exchange.faults.n_requests == 0


def test_a_replay_replaces_the_trades_of_the_one_before(stage: Stage, recorded: Path) -> None:
    where = ["--replay", str(recorded), "--replay-dir", "mine"]
    assert stage.run(*where, *REPLAY, *BUSY)[0] == 0
    long = (stage.folder / "mine/BTCUSDT_replay_trades.csv").read_text(encoding="utf-8")
    assert stage.run(*where, *REPLAY, *BUSY, "--no-short")[0] == 0
    short = (stage.folder / "mine/BTCUSDT_replay_trades.csv").read_text(encoding="utf-8")
    assert 1 < short.count("\n") < long.count("\n")
    assert stage.paths() == {"mine/BTCUSDT_replay_trades.csv"}


@pytest.mark.parametrize(
    "flags", [["--resume"], ["--yes"], ["--state-dir", "x"], ["--log-dir", "x"]], ids=" ".join
)
def test_a_replay_refuses_flags_it_would_pass_over(
    stage: Stage, recorded: Path, flags: list[str]
) -> None:
    line = error_line(stage.run("--replay", str(recorded), *REPLAY, *flags))
    assert f"--replay has no session and asks nobody: leave {flags[0]} out" in line
    assert stage.paths() == set()


@pytest.mark.parametrize(
    "folder", ["data/live_state", "data/live_state/dry", "x/../data/live_state"]
)
def test_a_replay_does_not_write_where_sessions_are_kept(
    stage: Stage, recorded: Path, folder: str
) -> None:
    line = error_line(stage.run("--replay", str(recorded), *REPLAY, "--replay-dir", folder))
    assert "lies where live sessions are kept" in line
    assert stage.paths() == set()


def test_a_replay_shows_on_a_terminal_how_far_it_is(
    stage: Stage, recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert stage.run("--replay", str(recorded), *REPLAY, *BUSY)[0] == 0
    assert re.search(r"BTCUSDT: +0%.*0/576", terminal.getvalue())


def test_a_replay_over_a_hole_is_refused(stage: Stage, recorded: Path) -> None:
    frame = pd.read_csv(recorded / "BTCUSDT-15m.csv").drop(index=range(3_300, 3_310))
    frame.to_csv(stage.folder / "BTCUSDT-15m.csv", index=False)
    line = error_line(stage.run("--replay", ".", *REPLAY))
    assert "candles are missing after the one that opened at" in line


def test_a_replay_of_nothing_is_refused(stage: Stage, recorded: Path) -> None:
    line = error_line(stage.run("--replay", str(recorded), "--start", "2025-01-01"))
    assert "BTCUSDT-15m.csv: nothing from" in line


# --- time and signals ---------------------------------------------------------------------------


def test_a_wake_ends_the_wait_that_follows() -> None:
    clock = SystemClock()
    clock.wake()
    clock.sleep(3_600.0)


def test_a_signal_ends_the_wait_that_is_under_way() -> None:
    clock = SystemClock()
    stop = StopRequest(clock.wake)
    with stop.listening():
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        clock.sleep(3_600.0)
        timer.join()
    assert stop.is_set


def test_the_second_signal_is_an_interruption() -> None:
    stop = StopRequest()
    with stop.listening():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


# --- help ---------------------------------------------------------------------------------------


def test_help_explains_every_flag_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        live_trade.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for action in live_trade.build_parser()._actions:  # noqa: SLF001 - argparse shows them no other way
        assert action.help
        assert all(option in text for option in action.option_strings)
    assert all(name in text for name in STRATEGY_PARAMS)
    assert all(name in text for name in KEYS)


def test_the_examples_in_help_can_be_parsed() -> None:
    lines = [line for line in live_trade.EXAMPLES.splitlines() if line.startswith("  python3 ")]
    assert len(lines) > 5
    for line in lines:
        command = shlex.split(line)
        assert command[1] == "live_trade.py"
        live_trade.build_parser().parse_args(command[2:])


def test_the_command_of_the_description_can_be_parsed() -> None:
    text = "--coin BTC --capital 5000 --leverage 10 --dry-run --resume --testnet --no-short"
    args = live_trade.build_parser().parse_args([*text.split(), "--log-level", "INFO"])
    assert (args.coin, args.capital, args.leverage) == ("BTC", "5000", "10")
    assert args.dry_run
    assert args.resume
    assert args.testnet
    assert args.no_short


def test_the_levels_are_the_logs() -> None:
    assert live_trade.LOG_LEVELS == LEVELS


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--coin",
        "--coin BTC --status --flatten",
        "--coin BTC --log-level x",
        "--coin BTC --once --replay x",
    ],
)
def test_arguments_that_cannot_be_parsed_exit_with_2(arguments: str) -> None:
    with pytest.raises(SystemExit) as caught:
        live_trade.main(arguments.split())
    assert caught.value.code == 2


@pytest.mark.slow
def test_help_loads_none_of_the_heavy_libraries() -> None:
    script = (
        "import sys, live_trade; live_trade.build_parser().format_help(); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(  # noqa: S603 - this project's own command
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
