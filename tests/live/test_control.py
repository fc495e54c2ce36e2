"""Control of a session: acknowledging, the second channel, the account's loss, exports, the log."""

from __future__ import annotations

import csv
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from config import LIVE_CONFIG
from core.errors import ConfigError, StateError
from engine.registry import GRID_V4
from live.commands.acknowledge import acknowledge, acknowledged_ms
from live.commands.export import ADDED, export_trades
from live.commands.target import Target, find_target
from live.health.account_loss import COUNTED_MS, account_limit, judge_account
from live.health.alerts import Verdict, second_urls
from live.health.escalation import ACKNOWLEDGE_MS, Escalation
from live.health.monitor import HealthMonitor
from live.store.control_log import FIRST, ControlLog
from live.store.trade_files import TRADE_COLUMNS, LiveTrade, TradeFiles
from tests.support.clocks.virtual import VirtualClock

NOW = 1_700_000_000_000


class Pager:
    """Keeps what a person is sent."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def send(self, text: str) -> None:
        """Keep it."""
        self.texts.append(text)


def target_in(folder: Path) -> Target:
    settings = {**LIVE_CONFIG, "state_dir": str(folder), "log_dir": str(folder)}
    return find_target("BTC", dry_run=False, testnet=False, settings=settings)


# --- the second channel ---------------------------------------------------------------------------


def test_an_emergency_nobody_acknowledges_goes_to_the_second_channel_until_somebody_does() -> None:
    second, known = Pager(), [0]
    escalation = Escalation(second, lambda: known[0])
    escalation.check(NOW)
    escalation.begin("EMERGENCY", NOW)
    escalation.check(NOW + ACKNOWLEDGE_MS - 1)
    assert second.texts == []
    escalation.check(NOW + ACKNOWLEDGE_MS)
    escalation.check(NOW + ACKNOWLEDGE_MS + 1)
    assert second.texts == ["EMERGENCY (nobody has acknowledged: --acknowledge does)"]
    escalation.check(NOW + 2 * ACKNOWLEDGE_MS)
    assert len(second.texts) == 2
    known[0] = NOW + 3 * ACKNOWLEDGE_MS - 1
    escalation.check(NOW + 3 * ACKNOWLEDGE_MS)
    escalation.check(NOW + 9 * ACKNOWLEDGE_MS, at_the_end=True)
    assert len(second.texts) == 2


def test_an_older_acknowledgement_is_not_about_a_new_emergency() -> None:
    second = Pager()
    escalation = Escalation(second, lambda: NOW - 1)
    escalation.begin("EMERGENCY", NOW)
    escalation.check(NOW + 1, at_the_end=True)
    assert len(second.texts) == 1, "nobody looks again after the end"


def test_the_monitor_escalates_a_loss_and_at_the_latest_when_it_ends(tmp_path: Path) -> None:
    first, second, clock = Pager(), Pager(), VirtualClock(NOW)
    monitor = HealthMonitor("BTCUSDT", tmp_path, LIVE_CONFIG, clock, first)
    monitor.escalate_to(Escalation(second, lambda: 0))
    monitor.note_equity(1_000.0)
    monitor.note_equity(700.0)
    assert monitor.check() is Verdict.EMERGENCY
    assert any("EMERGENCY" in text for text in first.texts)
    assert second.texts == []
    monitor.close()
    assert len(second.texts) == 1
    assert "30.0 % under its start" in second.texts[0]


def test_acknowledging_is_remembered_and_entered_in_the_control_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = target_in(tmp_path)
    assert acknowledged_ms(target.acknowledged_path) == 0
    assert acknowledge(target, NOW) == 0
    assert "acknowledged" in capsys.readouterr().out
    assert acknowledged_ms(target.acknowledged_path) == NOW
    assert target.acknowledged_path.stat().st_mode & 0o777 == 0o600
    assert ControlLog("BTCUSDT", tmp_path).check() == 1
    target.acknowledged_path.write_text("rubbish")
    assert acknowledged_ms(target.acknowledged_path) == 0


def test_the_second_channel_comes_from_the_environment() -> None:
    assert second_urls({"GRID_ALERT_URLS_SECOND": "json://a json://b"}) == ("json://a", "json://b")
    assert second_urls({}) == ()


# --- the account's loss ---------------------------------------------------------------------------


def write_health(folder: Path, symbol: str, **values: Any) -> None:
    body = {"updated_at": NOW, "start_equity": 1_000.0, "equity": 1_000.0, **values}
    (folder / f"{symbol}_health.json").write_text(json.dumps(body))


def judged(
    folder: Path, start: float = 1_000.0, equity: float = 900.0
) -> list[tuple[str, Verdict]]:
    found = judge_account(folder / "BTCUSDT_health.json", start, equity, 25.0, NOW)
    return [(item.name, item.verdict) for item in found]


def test_sessions_that_lose_together_what_one_may_not_are_closed(tmp_path: Path) -> None:
    write_health(tmp_path, "ETHUSDT", equity=601.0)
    assert judged(tmp_path) == []
    write_health(tmp_path, "ETHUSDT", equity=600.0)
    assert judged(tmp_path) == [("account", Verdict.EMERGENCY)]
    assert judged(tmp_path, 3_000.0, 3_000.0) == []


def test_the_loss_of_a_session_that_ended_counts_for_a_day(tmp_path: Path) -> None:
    write_health(tmp_path, "ETHUSDT", equity=600.0, status="STOPPED", updated_at=NOW - COUNTED_MS)
    assert judged(tmp_path) == [("account", Verdict.EMERGENCY)]
    write_health(tmp_path, "ETHUSDT", equity=600.0, updated_at=NOW - COUNTED_MS - 1)
    assert judged(tmp_path, 1_000.0, 100.0) == [], "alone its own limit is enough"


@pytest.mark.parametrize(
    "values", [{"equity": "many"}, {"equity": float("nan")}, {"updated_at": None}]
)
def test_a_file_that_cannot_be_read_is_reported_and_the_others_count(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    write_health(tmp_path, "SOLUSDT", **values)
    write_health(tmp_path, "ETHUSDT", equity=500.0)
    assert judged(tmp_path) == [("account sum", Verdict.WARN), ("account", Verdict.EMERGENCY)]


def test_a_session_without_a_step_does_not_count(tmp_path: Path) -> None:
    write_health(tmp_path, "ETHUSDT", start_equity=None, equity=None)
    assert judged(tmp_path) == []


def test_the_monitor_closes_everything_when_the_account_has_lost_too_much(tmp_path: Path) -> None:
    monitor = HealthMonitor("BTCUSDT", tmp_path, LIVE_CONFIG, VirtualClock(NOW), Pager())
    monitor.note_equity(1_000.0)
    monitor.note_equity(950.0)
    assert monitor.check() is Verdict.OK
    write_health(tmp_path, "ETHUSDT", equity=500.0)
    assert monitor.check() is Verdict.EMERGENCY
    monitor.close()


@pytest.mark.parametrize("value", [0, -1, "25", True, float("nan")])
def test_a_limit_of_no_use_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="account_emergency_pct"):
        account_limit({"account_emergency_pct": value})


# --- the control log ------------------------------------------------------------------------------


def test_the_control_log_is_a_chain_and_ours_alone(tmp_path: Path) -> None:
    log = ControlLog("BTC/USDT", tmp_path)
    hashes = [log.append(name, NOW, number=k) for k, name in enumerate(("start", "end"))]
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [line["before"] for line in lines] == [FIRST, hashes[0]]
    assert [line["event"] for line in lines] == ["start", "end"]
    assert log.check() == 2
    assert log.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["changed", "removed", "put in", "swapped", "torn"])
def test_a_control_log_that_was_changed_is_noticed_and_not_written_on(
    tmp_path: Path, kind: str
) -> None:
    log = ControlLog("BTCUSDT", tmp_path)
    for k in range(4):
        log.append("start", NOW, number=k)
    lines = log.path.read_text().splitlines()
    if kind == "changed":
        lines[1] = lines[1].replace('"number": 1', '"number": 7')
    elif kind == "removed":
        del lines[1]
    elif kind == "put in":
        lines.insert(1, lines[0])
    elif kind == "swapped":
        lines[1], lines[2] = lines[2], lines[1]
    else:
        lines[3] = lines[3][:40]
    log.path.write_text("\n".join(lines) + "\n")
    before = log.path.read_bytes()
    with pytest.raises(StateError, match=r"line \d does not continue the chain"):
        log.check()
    with pytest.raises(StateError, match="does not continue the chain"):
        log.append("end", NOW)
    assert log.path.read_bytes() == before


# --- exports --------------------------------------------------------------------------------------


NOT_KNOWN = ("executed_ms", None)
"""Of trades that an earlier version wrote, whose exports had no such column in their chain."""


def trade(number: int, year: int, executed_ms: int | None = None) -> LiveTrade:
    moment = datetime(year, 6, 1, 12, number, tzinfo=UTC)
    return LiveTrade(
        bar=number,
        timestamp=round(1e3 * moment.timestamp()),
        price=100.0,
        qty=1.0,
        label="SELL_CLOSE_LONG",
        regime="NOISE",
        pnl=10.0 + number,
        fee=0.5,
        direction="LONG",
        fill_id=number,
        trade_id=f"{number}:0",
        executed_ms=executed_ms,
    )


def test_trades_are_exported_one_file_a_year_each_row_chained_to_all_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = target_in(tmp_path / "state")
    files = TradeFiles("BTCUSDT", target.state_folder)
    files.append([trade(1, 2023), trade(2, 2023), trade(3, 2024, executed_ms=NOW)])
    assert export_trades(target, GRID_V4, tmp_path / "out", NOW) == 0
    assert capsys.readouterr().out.count("control log") == 2
    tables = {}
    for year in (2023, 2024):
        path = tmp_path / "out" / f"BTCUSDT_trades_{year}.csv"
        assert path.stat().st_mode & 0o777 == 0o600
        with path.open(newline="") as file:
            tables[year] = list(csv.DictReader(file))
    assert [len(rows) for rows in tables.values()] == [2, 1]
    assert list(tables[2023][0]) == [*TRADE_COLUMNS, *ADDED]
    assert [float(row["net"]) for row in tables[2023]] == [10.5, 11.5]
    chain = FIRST
    for row, stored in zip(tables[2023] + tables[2024], files.rows(), strict=True):
        known = {name: value for name, value in stored.items() if (name, value) != NOT_KNOWN}
        text = json.dumps(known, sort_keys=True, allow_nan=False)
        chain = hashlib.sha256(f"{chain} {text}".encode()).hexdigest()
        assert row["chain"] == chain
    log = ControlLog("BTCUSDT", target.state_folder)
    entries = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert [(entry["rows"], entry["pnl"], entry["fees"]) for entry in entries] == [
        (2, 23.0, 1.0),
        (1, 13.0, 0.5),
    ]
    body = (tmp_path / "out" / "BTCUSDT_trades_2024.csv").read_bytes()
    assert entries[1]["sha256"] == hashlib.sha256(body).hexdigest()
    assert entries[1]["chain"] == chain


def test_an_export_without_trades_or_with_a_broken_log_is_refused(tmp_path: Path) -> None:
    target = target_in(tmp_path)
    with pytest.raises(StateError, match="there are no trades of BTCUSDT"):
        export_trades(target, GRID_V4, tmp_path / "out", NOW)
    ControlLog("BTCUSDT", tmp_path).path.write_text("{}\n")
    with pytest.raises(StateError, match="does not continue the chain"):
        export_trades(target, GRID_V4, tmp_path / "out", NOW)
