"""``live_trade.py --strategy fixed_grid``: trade, look back, close a cycle, close all, refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import live_trade
from live.store.instance_lock import InstanceLock
from tests.live.test_fixed_grid_live import candles
from tests.support.processes.live_command import Stage, open_stage

FIXED = ("--strategy", "fixed_grid")
TRADED = (*FIXED, "--testnet", "--capital", "5000", "--set", "quantity_usd=300", "--yes")
EVENTS = "data/live_state/testnet/BTCUSDT_fixed_events.jsonl"


@pytest.fixture
def stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Stage]:
    minutes = candles(5, 240)
    with open_stage(tmp_path, monkeypatch, capsys, candles=minutes, start_bar=5) as opened:
        yield opened


def traded(stage: Stage) -> list[dict[str, Any]]:
    """Trade for half an hour; return the events."""
    code, out, err = stage.run_for(2, *TRADED)
    assert (code, err) == (0, "")
    assert "long only" in out
    return [json.loads(line) for line in Path(EVENTS).read_text().splitlines()]


def test_a_session_leaves_its_stops_and_its_records(stage: Stage) -> None:
    events = traded(stage)
    assert stage.held()["LONG"] > 0.0
    assert len(stage.stops()) > 0
    assert not stage.limits()  # a stop cancels entries and close orders
    kinds = {event["event"] for event in events}
    assert {"REBUILT", "ENTRY_PLACED", "ENTRY_FILLED", "CYCLE_CLOSED", "GATE"} <= kinds
    trades = Path("data/live_state/testnet/BTCUSDT_fixed_grid_trades.csv").read_text()
    assert trades.splitlines()[0].endswith(",cycle,slot")
    log = Path("data/live_logs/testnet/BTCUSDT.log").read_text()
    assert re.search(r"GRID_TRADE \| Action=SELL_CLOSE_LONG \| Size=.* \| Duration=\d+s", log)

    code, out, _ = stage.run(*FIXED, "--testnet", "--review")
    closed = sum(event["event"] == "CYCLE_CLOSED" for event in events)
    assert code == 0
    assert re.search(rf"cycles closed +{closed}\n", out)
    assert "by SELL_CLOSE_LONG" in out


def test_a_cycle_is_closed_by_its_name_and_all_by_flatten(stage: Stage) -> None:
    traded(stage)
    # The state is not in a file: what opens the next session is the exchange.
    assert not list(Path("data/live_state").rglob("*_state.json"))
    code, _, err = stage.run_for(1, *TRADED, "--resume")
    assert (code, err) == (0, "")
    left = stage.held()["LONG"]
    assert left > 0.0

    code, _, err = stage.run(*FIXED, "--testnet", "--close-cycle", "zzz", "--yes")
    assert code == 2
    one = re.search(r"no such cycle is open \(open: (\w{6})", err)
    assert one is not None
    assert stage.run(*FIXED, "--testnet", "--close-cycle", one[1], "--yes")[0] == 0
    assert 0.0 <= stage.held()["LONG"] < left

    code, _, err = stage.run(*FIXED, "--testnet", "--flatten", "--yes")
    assert (code, err) == (0, "")
    assert stage.held() == {"LONG": 0.0, "SHORT": 0.0}
    assert not stage.stops()
    assert not stage.limits()


def test_another_direction_is_refused_until_all_is_closed(stage: Stage) -> None:
    stage.run_for(2, *TRADED)
    code, _, err = stage.run(*TRADED, "--set", "direction=sell")
    assert code == 2
    assert "of the other direction are still open" in err


def test_a_dry_run_goes_on_from_its_file(stage: Stage) -> None:
    paper = (*FIXED, "--dry-run", "--set", "quantity_usd=300")
    assert stage.run_for(1, *paper)[0] == 0
    assert stage.run_for(1, *paper, "--resume")[0] == 0
    code, out, _ = stage.run("--dry-run", "--status")
    assert code == 0
    assert "fixed_grid of version" in out
    assert stage.run("--dry-run", "--flatten", "--yes")[0] == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["direction=both"], "direction = 'both' must be one of buy, sell"),
        (["quantity=1", "quantity_usd=200"], "exactly one must be above 0"),
        (["quantity=0", "quantity_usd=0"], "exactly one must be above 0"),
        (["quantity=0.0005", "quantity_usd=0"], "is off the lot of 0.001"),
        (["quantity_usd=1"], "is under the exchange's minimum"),
        (["take_profit=0.0004"], "must exceed 2 * fee_maker"),
        (["take_profit=nan"], "is outside"),
        (["grid_step=inf"], "is outside"),
        (["max_orders=many"], "must be a whole number"),
        (["max_margin_usd=100"], "is under the margin of one order"),
        (["stop_loss_pct=0.4"], "is outside [0.5, 10]"),
        (["stop_loss_pct=10.1"], "is outside [0.5, 10]"),
        (["position_timeout_min=4"], "is outside [5, 1440]"),
        (["ladder_pct=3,1.5"], "each above the one before"),
        (["step_s=61"], "must be one of 60, 300, 900 s"),
        (["stop_price=1000000"], "must be below the price"),
        (["grid_levels=3"], "grid_levels belongs to grid_v4"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_value_is_refused_in_one_line_and_nothing_is_sent(
    stage: Stage, values: list[str], message: str
) -> None:
    given = [word for value in values for word in ("--set", value)]
    code, _, err = stage.run(*FIXED, "--testnet", "--yes", "--set", "quantity_usd=300", *given)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not stage.limits()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--adopt"], "--adopt is for the fixed grid at the exchange"),
        ([*FIXED, "--dry-run", "--adopt"], "--adopt is for the fixed grid at the exchange"),
        (["--since", "2026-01-01"], "--since needs --review"),
        ([*FIXED, "--testnet", "--review"], "no session has written events"),
        (["--close-cycle", "abc", "--testnet", "--yes"], "--close-cycle is for cycles of the"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_of_no_use_are_refused(stage: Stage, flags: list[str], message: str) -> None:
    code, _, err = stage.run(*flags)
    assert code == 2
    assert message in err


def test_the_help_names_what_the_fixed_grid_adds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        live_trade.main(["--help"])
    out = capsys.readouterr().out
    for flag in ("--adopt", "--close-cycle", "--review", "--since"):
        assert flag in out


def test_the_status_of_a_live_session_is_what_the_exchange_holds(stage: Stage) -> None:
    traded(stage)
    held, stops = stage.held()["LONG"], stage.stops()
    code, out, err = stage.run("--testnet", "--status")
    assert (code, err) == (0, "")
    assert "fixed_grid of version" in out
    assert re.search(rf"LONG +{held:g} at ", out)
    assert len(re.findall(r"LONG +STOP ", out)) == len(stops)
    assert re.search(r"cycles +open: \w{6}", out)
    assert re.search(r"HEALTHY|WARNING|CRITICAL", out)
    # Closed: the copy follows, and still no session goes on from it.
    assert stage.run(*FIXED, "--testnet", "--flatten", "--yes")[0] == 0
    out = stage.run("--testnet", "--status")[1]
    assert re.search(r"LONG +nothing", out)
    assert "cycles     open: none" in out


def test_the_copy_for_the_status_is_never_read_by_a_session(stage: Stage) -> None:
    traded(stage)
    copy = Path("data/live_state/testnet/BTCUSDT_status.json")
    copy.write_text("nonsense")
    held = stage.held()["LONG"]
    assert stage.run_for(1, *TRADED, "--resume")[0] == 0
    assert stage.held()["LONG"] > 0.0 < held
    assert '"sha256"' in copy.read_text()


def test_the_export_holds_every_trade_with_its_cycle(stage: Stage) -> None:
    traded(stage)
    code, out, err = stage.run(*FIXED, "--testnet", "--export", "taxes")
    assert (code, err) == (0, "")
    (path,) = Path("taxes").glob("BTCUSDT_fixed_grid_trades_*.csv")
    exported = path.read_text().splitlines()
    kept = Path("data/live_state/testnet/BTCUSDT_fixed_grid_trades.csv").read_text().splitlines()
    assert exported[0] == kept[0] + ",net,chain"
    assert len(exported) == len(kept) > 5
    assert f"{len(kept) - 1} rows" in out
    code, _, err = stage.run("--testnet", "--export", "taxes")
    assert code == 2
    assert "there are no trades" in err


def test_paused_by_a_command_nothing_is_entered_until_it_goes_on(stage: Stage) -> None:
    traded(stage)
    before = stage.held()["LONG"]
    code, out, _ = stage.run(*FIXED, "--testnet", "--pause", "on")
    assert (code, "paused" in out) == (0, True)
    assert stage.run_for(1, *TRADED, "--resume")[0] == 0
    assert stage.held()["LONG"] <= before  # exits go on
    events = [json.loads(line) for line in Path(EVENTS).read_text().splitlines()]
    since = [e["event"] for e in events][[e["event"] for e in events].index("PAUSE") :]
    assert "ENTRY_PLACED" not in since
    assert "paused: --pause off lets entries go on" in stage.run("--testnet", "--status")[1]

    assert stage.run(*FIXED, "--testnet", "--pause", "off")[0] == 0
    assert stage.run_for(1, *TRADED, "--resume")[0] == 0
    last = [json.loads(line)["event"] for line in Path(EVENTS).read_text().splitlines()]
    assert "ENTRY_PLACED" in last[len(events) :]


def test_a_coin_on_which_another_session_has_orders_is_refused(stage: Stage) -> None:
    stage.exchange.entry.place(
        {
            "type": "LIMIT",
            "side": "BUY",
            "positionSide": "LONG",
            "quantity": "1",
            "price": "50",
            "timeInForce": "GTX",
            "newClientOrderId": "g4bE-0000001-L00-0001",
        }
    )
    code, _, err = stage.run(*TRADED)
    assert code == 2
    assert err.count("\n") == 1
    assert "another session trades this coin" in err
    assert len(stage.limits()) == 1  # nothing sent, nothing cancelled


def test_a_coin_that_another_process_trades_is_refused(stage: Stage) -> None:
    folder = Path("data/live_state/testnet")
    folder.mkdir(parents=True)
    with InstanceLock(folder / "BTCUSDT.lock"):
        code, _, err = stage.run(*TRADED)
    assert code == 2
    assert err.count("\n") == 1
    assert not stage.limits()


def test_a_file_of_the_other_strategy_lets_no_key_through_that_may_withdraw(stage: Stage) -> None:
    folder = Path("data/live_state")
    folder.mkdir(parents=True)
    (folder / "BTCUSDT_state.json").write_text("of grid_v4, left from before")
    stage.exchange.key_rights |= {"enableWithdrawals": True}
    real = [word for word in TRADED if word != "--testnet"]
    code, _, err = stage.run(*real, "--resume")
    assert code == 2
    assert err.rstrip().endswith("--accept-key-rights withdrawals")
    assert not stage.limits()
