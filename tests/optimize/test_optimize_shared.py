"""Several processes that share a study: exactly the target, whoever is killed."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from backtest.optimize.search.processes import Life, Processes, Rhythm
from backtest.optimize.search.storage import open_store, storage_url
from backtest.optimize.search.study import Search
from backtest.optimize.search.trial_pool import Progress
from backtest.optimize.search.trial_store import StoredStudy, TrialStore, running_trial
from backtest.optimize.trial.trial import TrialOutcome
from core.errors import ConfigError, DataError
from tests.support.paths import ROOT
from tests.support.processes.optimize_worker import CURRENT, FAST, SPACE, evaluate, identity

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
QUICK = Rhythm(beat_s=0.05, stale_s=0.6)
PATIENT = Rhythm(beat_s=0.05, stale_s=2.0)
"""For tests whose own beats must not be late on a busy machine."""
LIMIT_S = 30.0
"""Ends a search that would wait for ever if what is tested did not work."""


def open_search(storage: object, *, jobs: int = 2, rhythm: Rhythm = QUICK) -> Search:
    return Search(identity(), SPACE, str(storage), jobs=jobs, current=CURRENT, rhythm=rhythm)


def studies(path: Path) -> tuple[StoredStudy, StoredStudy]:
    """Return the study and its processes, as another process sees them."""
    store = open_store(storage_url(str(path), "study"))
    return store.study("study"), store.study("study (processes)")


def check_campaign(search: Search, target: int) -> None:
    """Check what a shared search must come to, whatever happened to its processes."""
    trials = search.trials()
    numbers = [trial.number for trial in trials]
    assert len(trials) == target
    assert numbers == sorted(set(numbers))
    assert sum(trial.params == CURRENT for trial in trials) == 1
    for trial in trials:
        assert trial.outcome.to_dict() == evaluate(trial.params).to_dict()


# --- several processes, simulated in this one -----------------------------------------------------


def test_alone_in_a_shared_study_every_run_adds_its_trials(tmp_path: Path) -> None:
    seen = list[Progress]()
    with open_search(tmp_path / "x.journal") as search:
        search.run(evaluate, 5, on_trial=seen.append)
        search.run(evaluate, 30, on_trial=seen.append)
        check_campaign(search, 35)
    assert [progress.done for progress in seen] == list(range(1, 36))
    assert [progress.target for progress in seen] == [5] * 5 + [35] * 30


@pytest.mark.slow
def test_two_searches_share_the_target_of_the_first(tmp_path: Path) -> None:
    path, target = tmp_path / "x.journal", 30
    messages, evaluated = list[str](), [0, 0]
    at_work = threading.Event()

    def take_part(who: int) -> None:
        def judge(params: Mapping[str, Any]) -> TrialOutcome:
            at_work.set()
            evaluated[who] += 1
            time.sleep(0.05)
            return evaluate(params)

        with open_search(path, jobs=1, rhythm=FAST) as search:
            search.run(judge, target + 20 * who, on_message=messages.append)
            check_campaign(search, target)

    first = threading.Thread(target=take_part, args=(0,))
    first.start()
    assert at_work.wait(10.0)
    take_part(1)
    first.join()
    assert sum(evaluated) == target
    assert min(evaluated) > 0
    assert any(text.startswith("joining process") for text in messages)
    assert any(
        f"of {target} trials are complete, and the target stays" in text for text in messages
    )


def test_what_a_dead_process_was_evaluating_is_evaluated_by_another(tmp_path: Path) -> None:
    path, messages = tmp_path / "x.journal", list[str]()
    open_search(path).close()
    study, everybody = studies(path)
    dead = everybody.add(running_trial({"host": "far", "pid": 1, "beat": 5, "campaign": 0}))
    study.set_attribute("target", 4)
    study.add(running_trial({"process": dead}))
    with open_search(path) as search:
        search.run(evaluate, 6, timeout=LIMIT_S, on_message=messages.append)
        check_campaign(search, 6)
    assert [trial.state for trial in study.trials()].count(TrialState.FAIL) == 1
    assert everybody.trials()[dead].state is TrialState.FAIL
    assert messages == [
        "looking whether process 1 on far is still at work on this study, for up to 0.6 s"
    ]


def test_a_process_that_dies_while_others_work_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    open_search(path).close()
    study, everybody = studies(path)
    victims = list[int]()

    def judge(params: Mapping[str, Any]) -> TrialOutcome:
        if not victims:  # enters, claims a trial and is never heard of again
            victims.append(everybody.add(running_trial({"host": "far", "pid": 1, "beat": 0})))
            study.add(running_trial({"process": victims[0]}))
        return evaluate(params)

    with open_search(path, jobs=1) as search:
        search.run(judge, 5, timeout=LIMIT_S)
        check_campaign(search, 5)
    assert len(study.trials()) == 6


def test_a_process_that_was_taken_for_dead_enters_anew_and_its_late_result_does_not_count(
    tmp_path: Path,
) -> None:
    path, messages = tmp_path / "x.journal", list[str]()
    open_search(path).close()
    study, everybody = studies(path)
    evaluated = list[Any]()

    def judge(params: Mapping[str, Any]) -> TrialOutcome:
        evaluated.append(params)
        if len(evaluated) == 2:
            assert everybody.end(0, TrialState.FAIL)
            (number,) = (trial.number for trial in study.trials() if trial.params == params)
            assert study.end(number, TrialState.FAIL)
            time.sleep(3 * QUICK.beat_s)
        return evaluate(params)

    with open_search(path, jobs=1) as search:
        search.run(judge, 4, on_message=messages.append)
        check_campaign(search, 4)
    assert len(evaluated) == 5
    (message,) = messages
    assert message == (
        "the result of trial 1 came too late and does not count: this process had not been heard "
        "of for 0.6 s"
    )
    assert [trial.state for trial in everybody.trials()] == [TrialState.FAIL, TrialState.PRUNED]


def test_a_claim_beyond_the_target_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.journal"
    open_search(path).close()
    study, everybody = studies(path)
    other, evaluated, add = list[int](), list[Any](), StoredStudy.add

    def judge(params: Mapping[str, Any]) -> TrialOutcome:
        evaluated.append(params)
        return evaluate(params)

    def add_after_another(self: StoredStudy, trial: Any) -> int:
        claims = "process" in trial.user_attrs
        if claims and len(evaluated) == 2 and not other:  # the last one of three
            other.append(add(everybody, running_trial({"host": "far", "pid": 1, "beat": 0})))
            add(study, running_trial({"process": other[0]}))
        return add(self, trial)

    monkeypatch.setattr(StoredStudy, "add", add_after_another)
    with open_search(path, jobs=1, rhythm=PATIENT) as search:
        search.run(judge, 3, timeout=LIMIT_S)
        check_campaign(search, 3)
    assert len(evaluated) == 3
    states = [trial.state for trial in study.trials()]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.FAIL] * 2 + [TrialState.COMPLETE]


def test_a_claim_whose_answer_was_lost_does_not_hold_the_search_up(tmp_path: Path) -> None:
    path, lost = tmp_path / "x.journal", list[int]()
    open_search(path).close()
    study, everybody = studies(path)

    def judge(params: Mapping[str, Any]) -> TrialOutcome:
        if not lost:
            lost.append(study.add(running_trial({"process": everybody.trials()[-1].number})))
        return evaluate(params)

    with open_search(path, jobs=1) as search:
        search.run(judge, 3, timeout=LIMIT_S)
        check_campaign(search, 3)
    assert study.trials()[lost[0]].state is TrialState.FAIL


def test_the_current_parameters_are_left_to_whoever_came_first(tmp_path: Path) -> None:
    path, done = tmp_path / "x.journal", threading.Event()
    open_search(path).close()
    study, everybody = studies(path)
    first = everybody.add(running_trial({"host": "far", "pid": 1, "beat": 0, "campaign": 0}))
    study.set_attribute("target", 3)

    def beat() -> None:
        for count in itertools.count(1):
            everybody.set_trial_attribute(first, "beat", count)
            if done.wait(QUICK.beat_s):
                return

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with open_search(path, rhythm=Rhythm(QUICK.beat_s, 20.0)) as search:
            search.run(evaluate, 99, timeout=LIMIT_S)
            assert len(search.trials()) == 3
            assert all(trial.params != CURRENT for trial in search.trials())
    finally:
        done.set()
        heart.join()


def test_a_stop_keeps_what_has_begun_and_leaves_the_rest_to_others(tmp_path: Path) -> None:
    stop, begun = threading.Event(), list[Any]()

    def judge(params: Mapping[str, Any]) -> TrialOutcome:
        begun.append(params)
        if len(begun) == 3:
            stop.set()
        return evaluate(params)

    with open_search(tmp_path / "x.journal") as search:
        search.run(judge, 50, stop=stop)
        assert 3 <= len(search.trials()) == len(begun) <= 4
        search.run(evaluate, 2)
        check_campaign(search, len(begun) + 2)


def test_a_stop_is_heard_while_looking_for_others(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    open_search(path).close()
    studies(path)[1].add(running_trial({"host": "far", "pid": 1, "beat": 0}))
    with open_search(path, rhythm=Rhythm(0.05, 3_600.0)) as search:
        search.run(evaluate, 3, timeout=0.2)
        assert search.trials() == []


def test_an_error_in_a_trial_frees_what_was_claimed(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"

    def judge(_: Mapping[str, Any]) -> TrialOutcome:
        raise DataError("no candles")

    with open_search(path) as search:
        with pytest.raises(DataError, match="no candles"):
            search.run(judge, 3)
        study, everybody = studies(path)
        assert {trial.state for trial in study.trials()} == {TrialState.FAIL}
        assert {trial.state for trial in everybody.trials()} == {TrialState.PRUNED}
        search.run(evaluate, 3)
        check_campaign(search, 3)


def test_a_storage_that_is_lost_meanwhile_ends_the_search_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"

    def judge(params: Mapping[str, Any]) -> TrialOutcome:
        path.unlink()
        return evaluate(params)

    with (
        open_search(path, jobs=1) as search,
        pytest.raises(ConfigError, match=r"x\.journal cannot be used: No such file"),
    ):
        search.run(judge, 3)


def test_hearts_are_watched_not_timed() -> None:
    store_a = TrialStore(InMemoryStorage(), "memory", shared=True, resources=contextlib.ExitStack())
    study = store_a.study("processes")
    silent = study.add(running_trial({"host": "far", "pid": 1, "beat": 7}))
    beating = study.add(running_trial({"host": "near", "pid": 2, "beat": 7}))
    with Processes(study, Rhythm(3_600.0, 0.2)) as processes:
        processes.look()
        assert processes.before() == {silent: Life.UNKNOWN, beating: Life.UNKNOWN}
        for beat in range(8, 12):
            time.sleep(0.1)
            study.set_trial_attribute(beating, "beat", beat)
            processes.look()
        assert processes.before() == {beating: Life.ALIVE}
        assert processes.life(processes.own) is Life.ALIVE
        assert processes.life(99) is Life.GONE
    assert study.trials()[processes.own].state is TrialState.PRUNED
    assert study.trials()[silent].state is TrialState.FAIL


# --- several processes ----------------------------------------------------------------------------


def run_program(folder: str, *words: object) -> None:
    """Run a program of the server's, which refuse to run as root."""
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run(  # noqa: S603 - the words are ours
        [*as_user, *map(str, words)], cwd=folder, check=True, capture_output=True, timeout=120
    )


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """Return the address of a server of this test run's own."""
    if not POSTGRES:
        pytest.skip("PostgreSQL's server programs are not installed")
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        pytest.skip("PostgreSQL refuses to run as root, and there is no runuser")
    bin_dir = POSTGRES[-1].parent
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        data, log = Path(folder) / "data", Path(folder) / "log"
        run_program(folder, bin_dir / "initdb", "-D", data, "-U", "grid", "--auth", "trust", "-N")
        control = [bin_dir / "pg_ctl", "-D", data, "-w"]
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run_program(folder, *control, "-l", log, "-o", options, "start")
        try:
            yield f"postgresql://grid@127.0.0.1:{port}/"
        finally:
            run_program(folder, *control, "-m", "immediate", "stop")


def run_sql(address: str, statement: str) -> None:
    address = address.replace("postgresql:", "postgresql+psycopg2:")
    engine = sqlalchemy.create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(statement))
    engine.dispose()


@pytest.fixture
def database(postgresql: str, request: pytest.FixtureRequest) -> str:
    """Return the address of an empty database."""
    name = f"test_{abs(hash(request.node.name)):x}"
    run_sql(f"{postgresql}postgres", f"CREATE DATABASE {name}")
    return f"{postgresql}{name}"


@pytest.fixture(params=["postgresql", "journal"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a storage several processes may share, one of each kind."""
    if request.param == "journal":
        return str(tmp_path / "x.journal")
    address: str = request.getfixturevalue("database")
    return address


@contextlib.contextmanager
def worker(storage: str, target: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [
        sys.executable,
        "-m",
        "tests.support.processes.optimize_worker",
        storage,
        "--trials",
        str(target),
    ]
    with subprocess.Popen(  # noqa: S603 - our own script
        [*command, "--sleep", "0.1", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    for said in process.stdout:
        if said.strip() == line:
            return
    assert process.stderr is not None
    pytest.fail(f"the worker ended without saying {line!r}: {process.stderr.read()}")


def check_end(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.mark.slow
def test_processes_that_start_together_share_one_target(anywhere: str) -> None:
    slowly = ("--jobs", "1", "--sleep", "0.5")  # nobody is done before the other has started
    with worker(anywhere, 14, *slowly) as one, worker(anywhere, 14, *slowly) as other:
        said = [check_end(one), check_end(other)]
    with open_search(anywhere) as search:
        check_campaign(search, 14)
    assert sum("joining process" in text for text in said) == 1
    assert all("evaluating" in text for text in said)


@pytest.mark.slow
def test_of_a_process_killed_in_mid_trial_no_trial_is_lost_and_none_counts_twice(
    anywhere: str,
) -> None:
    hanging = ("--jobs", "1", "--hang-in-trial", "3")
    with worker(anywhere, 20, *hanging) as victim:
        wait_for(victim, "evaluating 0")
        with worker(anywhere, 20, "--jobs", "1") as survivor:
            wait_for(victim, "evaluating 3")
            wait_for(survivor, "evaluating 1")
            victim.kill()
            victim.wait()
            check_end(survivor)
    with open_search(anywhere, rhythm=FAST) as search:
        check_campaign(search, 20)
        search.run(evaluate, 3)
        check_campaign(search, 23)


@pytest.mark.slow
def test_when_all_are_killed_the_next_start_sets_a_new_target(anywhere: str) -> None:
    with worker(anywhere, 20, "--die-in-trial", "6") as one:
        one.wait(timeout=120)
    with open_search(anywhere, rhythm=FAST) as search:
        before = len(search.trials())
        assert 3 <= before <= 6
        search.run(evaluate, 5)
        check_campaign(search, before + 5)


@pytest.mark.slow
def test_a_database_may_hold_tables_of_others_unless_they_have_our_names(database: str) -> None:
    run_sql(database, "CREATE TABLE invoices (id INTEGER)")
    open_store(database).close()
    open_store(database).close()
    run_sql(database, "DROP TABLE alembic_version, version_info")
    with pytest.raises(ConfigError, match="holds tables of another program"):
        open_store(database)


@pytest.mark.slow
def test_a_proxy_is_a_storage_like_any_other(tmp_path: Path) -> None:
    pytest.importorskip("grpc", reason="grpcio is not installed")
    from optuna.storages._grpc.server import make_server  # noqa: PLC0415 - needs grpcio

    backend = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'x.db'}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = make_server(optuna.storages.get_storage(backend), "127.0.0.1", port)
    server.start()
    try:
        with open_search(f"grpc://127.0.0.1:{port}", rhythm=FAST) as search:
            search.run(evaluate, 12)
            check_campaign(search, 12)
            assert search.count_trials_ever() == 12
    finally:
        server.stop(None).wait()
        backend.engine.dispose()
