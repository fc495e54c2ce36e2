"""Health: what is judged, reported once, written down; and alerts that trading never waits for."""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import LIVE_CONFIG
from core.errors import ConfigError, NetworkError
from live.exchange.types import Usage
from live.health.alerts import CAPACITY, AlertSender, HealthLimits, Verdict, alert_urls
from live.health.monitor import HealthMonitor, Readings, StepInfo, find_mismatches, judge
from tests.live.test_instance_lock import FULL, break_at, open_files
from tests.support.clocks.virtual import VirtualClock

START = 1_705_329_000_000
BAR_S = 900
BAR_MS = 1_000 * BAR_S
LIMITS = HealthLimits.from_settings(LIVE_CONFIG)


class Pager:
    """Alerts that are kept in a list."""

    def __init__(self) -> None:
        self.reported: list[str] = []

    def send(self, text: str) -> None:
        """Keep ``text``."""
        self.reported.append(text)


class MonitorScene:
    """A monitor with its clock, its alerts and its file."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.clock, self.pager = VirtualClock(START), Pager()
        settings = {**LIVE_CONFIG, **changes}
        self.monitor = HealthMonitor("BTC/USDT", folder, settings, self.clock, self.pager)

    def step(self, equity: float = 10_000.0) -> None:
        """Let a step end just after a candle closed."""
        self.monitor.beat(StepInfo(7, self.clock.now - 2_000, equity, BAR_MS))

    def reported(self) -> list[str]:
        """Check, and return what was reported since the last time."""
        self.monitor.check()
        reported, self.pager.reported = self.pager.reported, []
        return reported

    def file(self) -> dict[str, Any]:
        """Return what other programs read."""
        return dict(json.loads(self.monitor.path.read_text()))


@pytest.fixture
def scene(tmp_path: Path) -> MonitorScene:
    return MonitorScene(tmp_path)


# --- verdicts -------------------------------------------------------------------------------------


def verdicts(readings: Readings, *active: str, after_s: float = 0.0) -> dict[str, Verdict]:
    found = judge(readings, LIMITS, START + int(1_000 * after_s), active)
    return {condition.name: condition.verdict for condition in found}


def with_equity(*equities: float) -> Readings:
    readings = Readings(started_ms=START)
    for equity in equities:
        readings.note_equity(equity)
    return readings


def test_a_fresh_session_is_well() -> None:
    assert verdicts(Readings(started_ms=START)) == {}
    assert verdicts(with_equity(10_000.0)) == {}


@pytest.mark.parametrize(
    ("equities", "expected"),
    [
        ((10_000.0, 9_001.0), {}),
        ((10_000.0, 9_000.0), {"equity": Verdict.WARN}),
        ((10_000.0, 12_000.0, 10_801.0), {}),
        ((10_000.0, 12_000.0, 10_800.0), {"equity": Verdict.WARN}),
        ((10_000.0, 7_501.0), {"equity": Verdict.WARN}),
        ((10_000.0, 7_500.0), {"equity": Verdict.WARN, "emergency": Verdict.EMERGENCY}),
        ((10_000.0, 20_000.0, 15_000.0), {"equity": Verdict.WARN, "emergency": Verdict.EMERGENCY}),
        ((10_000.0, -5.0), {"equity": Verdict.WARN, "emergency": Verdict.EMERGENCY}),
        ((0.0,), {"equity": Verdict.WARN, "emergency": Verdict.EMERGENCY}),
        ((10_000.0, math.nan), {"equity": Verdict.WARN}),
        ((math.nan,), {"equity": Verdict.WARN}),
        ((10_000.0, math.inf), {"equity": Verdict.WARN}),
        ((10_000.0, math.inf, 10_000.0), {}),
    ],
)
def test_losses_are_measured_against_start_and_peak(
    equities: tuple[float, ...], expected: dict[str, Verdict]
) -> None:
    assert verdicts(with_equity(*equities)) == expected


def test_an_emergency_does_not_end_by_itself() -> None:
    for equity in (9_900.0, math.nan):
        readings = with_equity(10_000.0, equity)
        assert verdicts(readings, "emergency")["emergency"] is Verdict.EMERGENCY


def test_a_condition_ends_later_than_it_began() -> None:
    readings = with_equity(10_000.0, 9_050.0)
    assert verdicts(readings) == {}
    assert verdicts(readings, "equity") == {"equity": Verdict.WARN}
    assert verdicts(with_equity(10_000.0, 9_101.0), "equity") == {}
    readings = Readings(started_ms=START, clock_offset_ms=-950)
    assert verdicts(readings) == {}
    assert verdicts(readings, "clock") == {"clock": Verdict.WARN}


@pytest.mark.parametrize(
    ("changes", "after_s", "expected"),
    [
        ({"last_step_ms": START}, 1_200.0, set()),
        ({"last_step_ms": START}, 1_200.001, {"heartbeat"}),
        ({}, 1_201.0, {"heartbeat"}),
        ({"candle_close_ms": START, "candle_due_ms": START + BAR_MS}, BAR_S + 120.0, set()),
        ({"candle_close_ms": START, "candle_due_ms": START + BAR_MS}, BAR_S + 120.001, {"candles"}),
        ({"clock_offset_ms": 1_000}, 0.0, set()),
        ({"clock_offset_ms": -1_001}, 0.0, {"clock"}),
        ({"weight_1m": 1_200}, 0.0, set()),
        ({"weight_1m": 1_201}, 0.0, {"weight"}),
        ({"errors_in_row": 5}, 0.0, set()),
        ({"errors_in_row": 6}, 0.0, {"errors"}),
        ({"out_of_sync": {"LONG": "x"}}, 0.0, {"LONG position"}),
        ({"is_file_stale": True}, 0.0, {"health file"}),
    ],
)
def test_each_condition_has_its_limit(
    changes: dict[str, Any], after_s: float, expected: set[str]
) -> None:
    readings = Readings(started_ms=START, **changes)
    assert verdicts(readings, after_s=after_s).keys() == expected


def test_only_errors_shut_the_session_down() -> None:
    readings = Readings(started_ms=START, errors_in_row=6, weight_1m=5_000)
    assert verdicts(readings) == {"errors": Verdict.SHUTDOWN, "weight": Verdict.WARN}


@pytest.mark.parametrize(
    ("ledger", "exchange", "differs"),
    [
        (1.0, 0.98, False),
        (1.0, 0.9799, True),
        (0.98, 1.0, False),
        (0.003, 0.002, False),
        (0.003, 0.001, True),
        (0.0, 0.001, False),
        (0.0, 0.002, True),
        (0.0, 0.0, False),
        (math.nan, 1.0, True),
        (1.0, math.nan, True),
    ],
)
def test_sides_may_differ_by_the_tolerance_or_a_lot(
    ledger: float, exchange: float, differs: bool
) -> None:
    for side, other in (("LONG", "SHORT"), ("SHORT", "LONG")):
        found = find_mismatches(
            {side: ledger, other: 5.0}, {side: exchange, other: 5.0}, tolerance_pct=2.0, lot=0.001
        )
        assert found == ([side] if differs else [])


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6))
def test_a_mismatch_is_the_same_from_both_sides(one: float, two: float) -> None:
    def found(ours: float, theirs: float) -> list[str]:
        return find_mismatches(
            {"LONG": ours, "SHORT": 0.0},
            {"LONG": theirs, "SHORT": 0.0},
            tolerance_pct=2.0,
            lot=0.001,
        )

    assert found(one, two) == found(two, one)
    assert found(one, one) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heartbeat_max_s": 0.0}, "heartbeat_max_s = 0.0 must be a positive number"),
        ({"equity_warn_pct": math.nan}, "equity_warn_pct = nan must be"),
        ({"max_errors_in_row": True}, "max_errors_in_row = True must be"),
        ({"clock_warn_ms": "1000"}, "clock_warn_ms = '1000' must be"),
        ({"equity_warn_pct": 30.0}, "equity_warn_pct = 30.0 must be <= equity_emergency_pct"),
    ],
)
def test_limits_that_would_never_alert_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HealthLimits.from_settings({**LIVE_CONFIG, **changes})


def test_a_missing_limit_is_refused() -> None:
    settings = {key: value for key, value in LIVE_CONFIG.items() if key != "candle_max_age_s"}
    with pytest.raises(ConfigError, match="candle_max_age_s = None must be"):
        HealthLimits.from_settings(settings)


# --- what is reported ---------------------------------------------------------------------------


def test_a_session_without_steps_is_reported_once_and_once_when_it_goes_on(
    scene: MonitorScene,
) -> None:
    scene.step()
    scene.clock.sleep(1_199)
    assert scene.reported() == ["BTCUSDT WARN candles: the newest closed candle closed 1201 s ago"]
    scene.clock.sleep(2)
    assert scene.reported() == ["BTCUSDT WARN heartbeat: no step has ended for 1201 s"]
    for _ in range(20):
        scene.clock.sleep(600)
        assert scene.reported() == []
    scene.step()
    assert scene.reported() == [
        "BTCUSDT OK candles: in order again",
        "BTCUSDT OK heartbeat: in order again",
    ]
    assert scene.reported() == []


def test_an_emergency_is_reported_again_every_quarter_of_an_hour_only(scene: MonitorScene) -> None:
    scene.step()
    scene.step(7_000.0)
    text = "equity $7,000.00 is 30.0 % under its start, 30.0 % under its peak"
    assert scene.reported() == [
        f"BTCUSDT WARN equity: {text}",
        f"BTCUSDT EMERGENCY emergency: {text}",
    ]
    repeats = 0
    for _ in range(60):
        scene.clock.sleep(60)
        scene.step(7_000.0)
        reported = scene.reported()
        repeats += len(reported)
        assert reported in ([], [f"BTCUSDT EMERGENCY emergency: {text}"])
    assert repeats == 4
    assert scene.monitor.check() is Verdict.EMERGENCY


def test_warning_and_emergency_are_each_reported_when_they_begin(scene: MonitorScene) -> None:
    scene.step()
    scene.monitor.note_equity(8_000.0)
    assert scene.reported() == [
        "BTCUSDT WARN equity: equity $8,000.00 is 20.0 % under its start, 20.0 % under its peak"
    ]
    scene.monitor.note_equity(7_400.0)
    assert [text.split(":")[0] for text in scene.reported()] == ["BTCUSDT EMERGENCY emergency"]


def test_a_loss_that_hovers_about_its_limit_makes_no_storm(scene: MonitorScene) -> None:
    scene.step()
    reported = []
    for place in range(50):
        scene.monitor.note_equity(9_000.0 + (50.0 if place % 2 else -50.0))
        reported += scene.reported()
    assert len(reported) == 1


def test_more_than_five_errors_in_a_row_shut_down_and_success_ends_the_row(
    scene: MonitorScene, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        scene.monitor.error(NetworkError("no answer"))
    assert scene.monitor.check() is Verdict.OK
    scene.monitor.ok()
    for _ in range(5):
        scene.monitor.error(NetworkError("no answer"))
    assert scene.monitor.check() is Verdict.OK
    scene.monitor.error(NetworkError("no answer"))
    assert scene.monitor.check() is Verdict.SHUTDOWN
    assert scene.file()["status"] == "WARN"
    assert scene.file()["verdict"] == "SHUTDOWN"
    assert scene.pager.reported == ["BTCUSDT SHUTDOWN errors: 6 errors in a row"]
    assert "error 6 in a row: NetworkError: no answer" in caplog.text
    assert "Traceback" not in caplog.text
    scene.monitor.ok()
    assert scene.monitor.check() is Verdict.OK
    assert scene.file()["errors"] == 11


def test_an_error_nobody_expected_is_logged_with_where_it_happened(
    scene: MonitorScene, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        json.loads("{")
    except ValueError as error:
        scene.monitor.error(error)
    assert "Traceback" in caplog.text


def test_sides_out_of_step_are_reported_one_by_one(scene: MonitorScene) -> None:
    even = {"LONG": 1.0, "SHORT": 0.5}
    assert scene.monitor.check_positions(even, even, 0.001) == []
    assert scene.monitor.check_positions(even, {"LONG": 0.9, "SHORT": 0.5}, 0.001) == ["LONG"]
    assert scene.reported() == ["BTCUSDT WARN LONG position: ledger 1, exchange 0.9"]
    both = scene.monitor.check_positions(even, {"LONG": 0.9, "SHORT": 0.0}, 0.001)
    assert both == ["LONG", "SHORT"]
    assert scene.reported() == ["BTCUSDT WARN SHORT position: ledger 0.5, exchange 0"]
    scene.monitor.check_positions(even, even, 0.001)
    assert len(scene.reported()) == 2


def test_usage_and_clock_of_the_exchange_are_judged(scene: MonitorScene) -> None:
    scene.monitor.note_usage(
        Usage(weight_1m=1_300, orders_10s=1, orders_1m=1, clock_offset_ms=-2_500)
    )
    assert scene.reported() == [
        "BTCUSDT WARN clock: our clock is off by -2500 ms",
        "BTCUSDT WARN weight: request weight 1300 of 2400 in a minute",
    ]


def test_a_side_without_its_stop_is_reported_when_it_begins_and_when_it_ends(
    scene: MonitorScene,
) -> None:
    scene.monitor.note_unprotected({"LONG": "it is not protected"})
    assert scene.reported() == ["BTCUSDT EMERGENCY LONG stop: it is not protected"]
    assert scene.file()["conditions"] == {"LONG stop": "it is not protected"}
    scene.monitor.note_unprotected({})
    assert scene.reported() == ["BTCUSDT OK LONG stop: in order again"]


def test_a_defect_is_reported_at_once_and_ends_the_session(scene: MonitorScene) -> None:
    scene.monitor.note_defect(ValueError("no such thing"))
    text = "ValueError: no such thing; a defect of the program: the session ends"
    assert scene.reported() == [f"BTCUSDT SHUTDOWN defect: {text}"]
    assert scene.monitor.check() is Verdict.SHUTDOWN
    assert scene.file()["defect"] == text


def test_after_a_restart_losses_count_from_the_old_start_and_peak(scene: MonitorScene) -> None:
    scene.monitor.restore_equity(start=10_000.0, peak=12_000.0)
    scene.step(8_900.0)
    assert scene.monitor.check() is Verdict.EMERGENCY
    assert scene.file()["drawdown_from_start_pct"] == pytest.approx(11.0)
    assert scene.file()["drawdown_from_peak_pct"] == pytest.approx(25.8333333)


def test_a_restart_before_the_first_step_starts_afresh(scene: MonitorScene) -> None:
    scene.monitor.restore_equity(start=0.0, peak=0.0)
    scene.step(10_000.0)
    scene.step(7_000.0)
    assert scene.monitor.check() is Verdict.EMERGENCY


# --- the file and the line ------------------------------------------------------------------------


def test_the_file_has_what_another_program_needs(scene: MonitorScene) -> None:
    scene.step(10_000.0)
    scene.step(9_900.0)
    scene.clock.sleep(10)
    scene.monitor.check()
    assert scene.monitor.path.name == "BTCUSDT_health.json"
    assert scene.file() == {
        "status": "OK",
        "verdict": "OK",
        "conditions": {},
        "symbol": "BTCUSDT",
        "started_ms": START,
        "last_step_ms": START,
        "last_bar": 7,
        "candle_close_ms": START - 2_000,
        "candle_due_ms": START - 2_000 + BAR_MS,
        "equity": 9_900.0,
        "start_equity": 10_000.0,
        "peak_equity": 10_000.0,
        "errors_in_row": 0,
        "errors": 0,
        "weight_1m": 0,
        "clock_offset_ms": 0,
        "out_of_sync": {},
        "unprotected": {},
        "outage_since_ms": None,
        "defect": "",
        "is_file_stale": False,
        "drawdown_from_start_pct": pytest.approx(1.0),
        "drawdown_from_peak_pct": pytest.approx(1.0),
        "candle_age_s": 12.0,
        "pid": os.getpid(),
        "updated_at": START + 10_000,
    }


@pytest.mark.parametrize(
    ("equity", "status"), [(10_000.0, "OK"), (8_900.0, "WARN"), (7_000.0, "EMERGENCY")]
)
def test_the_status_is_that_of_the_worst_condition(
    scene: MonitorScene, equity: float, status: str
) -> None:
    scene.step()
    scene.step(equity)
    scene.monitor.check()
    assert scene.file()["status"] == status
    assert scene.monitor.status_line().startswith(f"{status} | ")


def test_before_the_first_step_unknown_numbers_are_null(scene: MonitorScene) -> None:
    scene.monitor.check()
    assert scene.file()["candle_age_s"] is None
    assert scene.file()["drawdown_from_peak_pct"] is None
    assert scene.monitor.status_line() == (
        "OK | last step none | equity n/a | n/a % under peak | errors 0 | weight 0/2400 | "
        "clock +0 ms | candle n/a s"
    )


def test_the_line_says_how_it_is(scene: MonitorScene) -> None:
    scene.step(10_000.0)
    scene.step(9_876.5)
    scene.monitor.note_usage(Usage(weight_1m=120, orders_10s=0, orders_1m=0, clock_offset_ms=12))
    scene.clock.sleep(63)
    assert scene.monitor.status_line() == (
        "OK | last step 2024-01-15 14:30:00 | equity $9,876.50 | 1.2 % under peak | errors 0 | "
        "weight 120/2400 | clock +12 ms | candle 65 s"
    )


def test_closing_leaves_a_file_that_says_stopped(scene: MonitorScene) -> None:
    scene.step()
    scene.monitor.check()
    scene.monitor.close()
    assert scene.file()["status"] == "STOPPED"
    scene.monitor.check()
    assert scene.file()["status"] == "STOPPED"


@pytest.mark.parametrize("site", ["open", "write", "fsync", "replace"])
def test_a_file_that_cannot_be_written_does_not_stop_trading_and_counts_as_one_error(
    scene: MonitorScene,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    site: str,
) -> None:
    scene.monitor.check()
    before = open_files()
    with monkeypatch.context() as patch:
        for nth in range(1, 21):
            break_at(patch, site, nth, FULL)
        verdicts_seen = {scene.monitor.check() for _ in range(20)}
    assert verdicts_seen <= {Verdict.OK, Verdict.WARN}
    assert open_files() == before
    assert caplog.text.count("StateError: cannot write") == 1
    scene.monitor.check()
    scene.monitor.check()
    assert scene.file()["errors"] == 1
    assert [text.split(": ")[0] for text in scene.pager.reported] == [
        "BTCUSDT WARN health file",
        "BTCUSDT OK health file",
    ]


def test_numbers_of_the_engine_do_not_break_the_file(scene: MonitorScene) -> None:
    numpy = importlib.import_module("numpy")
    scene.monitor.beat(
        StepInfo(
            numpy.int64(3),
            candle_close_ms=numpy.int64(START),
            equity=numpy.float64(5.0),
            bar_ms=BAR_MS,
        )
    )
    assert scene.monitor.check() is Verdict.OK
    assert scene.file()["last_bar"] == 3


def test_hundreds_of_checks_leave_no_handle(scene: MonitorScene) -> None:
    before = open_files()
    for _ in range(200):
        scene.step()
        scene.monitor.check()
    assert open_files() == before


def test_a_session_that_hangs_is_reported_by_the_watching_thread(
    scene: MonitorScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported = threading.Event()
    scene.step()
    scene.clock.sleep(1_201)
    monkeypatch.setattr(scene.pager, "send", lambda _: reported.set())
    scene.monitor.watch(every_s=0.001)
    assert reported.wait(10.0)
    scene.monitor.close()
    assert scene.file()["status"] == "STOPPED"
    assert not any(thread.name == "health" for thread in threading.enumerate())


# --- alerts ---------------------------------------------------------------------------------------


class Probe:
    """A service of apprise's that keeps what it is sent; may block, refuse or fail."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str]] = []
        self.gate, self.started = threading.Event(), threading.Event()
        self.gate.set()
        self.answer: bool | Exception = True

    def __call__(self, body: str, title: str) -> bool:
        """Take in an alert."""
        self.started.set()
        assert self.gate.wait(10.0)
        if isinstance(self.answer, Exception):
            raise self.answer
        self.got.append((title, body))
        return self.answer


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Probe]:
    service = Probe()
    apprise = importlib.import_module("apprise")
    monkeypatch.setattr(apprise.Apprise, "notify", lambda _, **message: service(**message))
    yield service
    service.gate.set()
    for thread in threading.enumerate():
        if thread.name == "alerts":
            thread.join(10.0)
            assert not thread.is_alive()


URL = "json://127.0.0.1:9/token-nobody-may-see"


def test_alerts_arrive_in_their_order_with_their_title(probe: Probe) -> None:
    sender = AlertSender([URL], "GridStrategyV4 BTCUSDT")
    for place in range(10):
        sender.send(f"alert {place}")
    assert sender.close(10.0)
    assert probe.got == [("GridStrategyV4 BTCUSDT", f"alert {place}") for place in range(10)]
    sender.send("too late")
    assert sender.close()
    assert len(probe.got) == 10


def test_every_url_gets_every_alert_also_when_one_fails(
    probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    sender = AlertSender([URL, "xml://127.0.0.1:9/other-token"], "title")
    probe.answer = ValueError(f"cannot reach {URL}")
    sender.send("one")
    assert sender.close(10.0)
    assert "an alert to json://... failed: ValueError" in caplog.text
    assert "an alert to xml://... failed: ValueError" in caplog.text
    assert "token" not in caplog.text


def test_a_refused_alert_is_logged_without_the_urls_secrets(
    probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    sender = AlertSender([URL], "title")
    probe.answer = False
    sender.send("one")
    assert sender.close(10.0)
    assert "an alert to json://... was not delivered" in caplog.text
    assert "token" not in caplog.text


def test_a_service_that_hangs_holds_nobody_up_and_the_queue_is_bounded(
    probe: Probe, caplog: pytest.LogCaptureFixture
) -> None:
    probe.gate.clear()
    sender = AlertSender([URL], "title")
    sender.send("first")
    assert probe.started.wait(10.0)
    for place in range(CAPACITY + 3):
        sender.send(f"alert {place}")
    assert caplog.text.count("an alert is dropped") == 3
    assert not sender.close(0.01)
    assert f"alerts hang: after 0.01 seconds {CAPACITY} are dropped" in caplog.text
    probe.gate.set()


def test_without_urls_there_is_no_thread_and_nothing_to_do() -> None:
    before = threading.active_count()
    sender = AlertSender([], "title")
    sender.send("nobody listens")
    assert threading.active_count() == before
    assert sender.close()


@pytest.mark.parametrize("url", ["nonsense://token-nobody-may-see", "token-nobody-may-see", ""])
def test_a_url_apprise_does_not_understand_is_refused_without_telling_it(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(
        ConfigError, match=r"alert URL 2 .*is not one apprise understands"
    ) as refusal:
        AlertSender([URL, url], "title")
    assert "nobody-may-see" not in str(refusal.value) + caplog.text


def test_an_alert_really_goes_out_through_apprise(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    sender = AlertSender([URL], "title")  # nothing listens there
    sender.send("one")
    assert sender.close(20.0)
    assert "an alert to json://... was not delivered" in caplog.text
    assert "token" not in caplog.text


def test_urls_come_from_the_settings_and_the_environment_each_once() -> None:
    settings = {"alert_urls": ("tgram://a/b", "json://host")}
    environ = {"GRID_ALERT_URLS": " json://host, mailto://u:p@h?to=x,y\nslack://t1/t2/t3 ,"}
    assert alert_urls(settings, environ) == (
        "tgram://a/b",
        "json://host",
        "mailto://u:p@h?to=x,y",
        "slack://t1/t2/t3",
    )
    assert alert_urls({}, {}) == ()
    assert alert_urls({"alert_urls": "json://a json://b"}, {}) == ("json://a", "json://b")


@pytest.mark.parametrize("urls", [5, (5,), {"a": 1}, None])
def test_settings_that_are_no_urls_are_refused(urls: Any) -> None:
    with pytest.raises(ConfigError, match="alert_urls must be a list of texts"):
        alert_urls({"alert_urls": urls}, {})


def test_the_variable_of_this_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_ALERT_URLS", "json://somewhere")
    assert alert_urls({"alert_urls": ()}) == ("json://somewhere",)
