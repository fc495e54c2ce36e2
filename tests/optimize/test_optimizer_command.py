"""``optimizer.py``: what it writes and prints, when it looks at the holdout, what it refuses."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import backtest.optimize.judge.final_choice
import backtest.optimize.judge.monte_carlo
import backtest.optimize.judge.repeated_searches
import backtest.optimize.report.results
import backtest.optimize.session
import optimizer
from backtest.market.demo import demo_market
from backtest.market.timeframes import parse_time
from backtest.optimize.conclusion import _go_on
from backtest.optimize.judge.evidence import evidence_lines
from backtest.optimize.judge.findings import judge_trials
from backtest.optimize.report.lines import WIDTH
from backtest.optimize.report.search_report import has_blocks, report
from backtest.optimize.request import SearchRequest
from backtest.optimize.search import progress as search_run
from backtest.optimize.session import Session, add_trials, header, open_session
from backtest.optimize.trial import objective
from backtest.optimize.trial.objective import DEFAULT_OBJECTIVE, OBJECTIVES
from backtest.optimize.trial.prepare import Coins, Holdout, Prepared
from backtest.optimize.trial.space import read_space
from backtest.optimize.trial.trial import TrialOutcome
from backtest.optimize.trial.windows import DEFAULT_HOLDOUT, DEFAULT_WINDOWS
from config import BACKTEST_CONFIG, OPTIMIZER_SPACE, STRATEGY_PARAMS
from core.errors import DataError
from core.params import StrategyParams
from tests.backtest.test_cli import HEAVY
from tests.support.paths import ROOT
from tests.support.results.optimizer_document import PARTS, SCALARS

Run = Callable[..., tuple[int, str, str]]

SHORT = ["--demo", "--coins", "SOL", "--start", "2025-09-01", "--end", "2025-12-01"]
QUICK = [*SHORT, "--windows", "1", "--trials", "6", "--seeds", "2", "--skip-mc", "--no-plot"]
LEDGER_FILE = "data/trial_ledger.jsonl"
LEDGER_FILES = {LEDGER_FILE, "data/.trial_ledger.jsonl.lock"}
DATA_FILES = {"data/optimizer_results_robust.json", "data/best_params_v4.json", *LEDGER_FILES}
CHART_FILES = {
    *(
        f"data/charts/optimizer_{name}.png"
        for name in ("progress", "importance", "stability", "train_test", "holdout")
    ),
    "data/output/optimizer_report.html",
}
STUDY_FILES = {"grid_v4_wfo.db", "grid_v4_wfo.db.lock"}


@pytest.fixture
def search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Return ``optimizer.main`` in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(backtest.optimize.session, "is_compiled", lambda _: True)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = optimizer.main(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def results(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "data/optimizer_results_robust.json").read_text()))


def refusal(outcome: tuple[int, str, str]) -> str:
    """Return the message of a refused command."""
    code, out, err = outcome
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    return err[err.index("error: ") :].strip()


def n_trials(path: Path) -> int:
    with sqlite3.connect(path) as database:
        (count,) = database.execute(
            "SELECT COUNT(*) FROM trials WHERE state = 'COMPLETE'"
        ).fetchone()
    database.close()
    return int(count)


# --- what goes well -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_search_prints_the_report_and_writes_everything(search: Run, tmp_path: Path) -> None:
    code, out, err = search(*SHORT, "--windows", "1", "--trials", "8", "--mc-perms", "20")
    assert code == 0
    assert files_in(tmp_path) == DATA_FILES | CHART_FILES | STUDY_FILES
    document = results(tmp_path)
    assert {*SCALARS, *PARTS} <= {*document}
    assert document["num_trials"] == len(document["trials"]) == 8
    assert document["mc_p_value"] == document["monte_carlo"]["p_value"]
    assert len(document["monte_carlo"]["permuted"]) == 20
    assert document["mc_significant"] is (document["mc_p_value"] < 0.05)
    assert 10 < len(document["holdout"]["equity"]["value"]) <= 2_000
    assert sum(document["importance"].values()) == pytest.approx(1.0)
    assert [len(document["trials"][0]["train"]), len(document["trials"][0]["train"][0])] == [1, 1]
    for line in document["evidence"]:
        assert " ".join(line["verdict"].split()) in " ".join(out.split())
    assert all(f"\n{name} " in out for name in OPTIMIZER_SPACE)
    assert "SOL: 2025-09-01 00:00 to 2025-12-01 00:00 UTC, study grid_v4_wfo" in out
    assert "Best trial" in out
    verdict = document["verdict"]
    assert f"Verdict: {verdict['answer'].upper()}" in out
    assert document["oos_pass"] is (verdict["answer"] == "held")
    assert out.index("Verdict:") < out.index("Best trial")
    for text in (*verdict["why"], verdict["to_do"]):
        assert " ".join(text.split()) in " ".join(out.split())
    next_step = f"next: python3 {ROOT / 'apply_optimized_params.py'} --preview\n"
    assert next_step in out  # with its path, as the search was started elsewhere
    assert "8/8" in err
    assert "best" in err
    assert "the same command adds 8 more" in err


@pytest.mark.slow
def test_the_results_hold_what_the_rest_of_the_project_reads(search: Run, tmp_path: Path) -> None:
    assert search(*QUICK)[0] == 0
    assert files_in(tmp_path) == DATA_FILES | STUDY_FILES
    document = results(tmp_path)
    assert list(document["robust_params"]) == list(OPTIMIZER_SPACE)
    params = StrategyParams.from_dict(document["params"])
    for name, value in document["robust_params"].items():
        assert getattr(params, name) == value
    assert document["robust_choice"] in {"median", "medoid"}
    assert (document["mc_p_value"], document["mc_significant"]) == (None, None)
    best = json.loads((tmp_path / "data/best_params_v4.json").read_text())
    assert set(best) == {
        "strategy",
        "best_params",
        "best_score",
        "trial",
        "note",
        "params",
        "oos_pass",
        "oos_warnings",
        "verdict",
    }
    assert best["oos_pass"] is None
    assert best["verdict"]["answer"] == "not tested"
    assert best["params"] == {**document["params"], **best["best_params"]}
    assert document["rules"]["SOL.tick_size"] > 0.0
    assert best["best_params"] == document["trials"][best["trial"]]["params"]
    assert best["best_score"] == max(item["score"] for item in document["trials"])
    assert "reference only" in best["note"]
    window = document["windows"][0]
    assert window["train_start"] == document["start"] == "2025-09-01 00:00"
    assert window["train_end"] < window["test_start"] < window["test_end"]
    assert window["test_end"] == document["holdout_start"]
    assert document["deflated_sharpe"]["n_trials_ever"] == 6


def test_with_json_the_answer_is_one_object_on_standard_output(search: Run, tmp_path: Path) -> None:
    code, out, _ = search(*QUICK, "--json")
    assert code == 0
    found = json.loads(out)
    document = results(tmp_path)
    assert found["verdict"] == document["verdict"]
    assert found["verdict"]["answer"] in {"undecided", "failed"}  # no permutations, no "held"
    assert found["robust_params"] == document["robust_params"]


def test_results_go_to_the_folder_chosen_and_the_ledger_stays(search: Run, tmp_path: Path) -> None:
    assert search(*QUICK, "--output", "there")[0] == 0
    names = {name.replace("data/", "there/") for name in DATA_FILES - LEDGER_FILES}
    assert files_in(tmp_path) == names | STUDY_FILES | LEDGER_FILES


@pytest.mark.slow
def test_the_same_command_adds_trials_and_the_ledger_survives_a_deleted_study(
    search: Run, tmp_path: Path
) -> None:
    search(*QUICK)
    first = results(tmp_path)
    search(*QUICK)
    both = results(tmp_path)
    assert both["num_trials"] == 12
    assert [item["params"] for item in both["trials"][:6]] == [
        item["params"] for item in first["trials"]
    ]
    assert "looked at once before, so no longer untouched" in str(both["evidence"])
    assert both["holdout"]["looks_before"] == 1
    for name in STUDY_FILES:
        (tmp_path / name).unlink()
    search(*QUICK, "--study-name", "another")
    again = results(tmp_path)
    assert (again["num_trials"], again["deflated_sharpe"]["n_trials_ever"]) == (6, 18)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_results_whatever_the_jobs(
    search: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    arguments = [*SHORT[:1], "--coins", "SOL", "ETH", *SHORT[3:], "--windows", "1", "--no-plot"]
    for jobs in ("1", "2"):
        folder = tmp_path / jobs
        folder.mkdir()
        monkeypatch.chdir(folder)  # each with a ledger of its own
        storage = f"sqlite:///{tmp_path}/{jobs}.db"
        code, _, _ = search(
            *arguments,
            "--trials",
            "12",
            "--mc-perms",
            "4",
            "--jobs",
            jobs,
            "--storage",
            storage,
            "--output",
            str(folder),
        )
        assert code == 0
        document = json.loads((folder / "optimizer_results_robust.json").read_text())
        assert document.pop("timing")["trials_per_second"] > 0.0
        for item in document["trials"]:
            assert item.pop("seconds") > 0.0
        found.append(document)
    assert found[0] == found[1]


@pytest.mark.slow
def test_another_seed_tries_other_parameters(search: Run, tmp_path: Path) -> None:
    search(*QUICK)
    first = results(tmp_path)
    search(*QUICK, "--seed", "7", "--study-name", "seven")
    assert results(tmp_path)["trials"][1]["params"] != first["trials"][1]["params"]


def test_parameters_given_are_fixed_or_where_the_search_begins(search: Run, tmp_path: Path) -> None:
    given = ["--set", "leverage=2", "--set", "gamma=0.7"]
    code, _, err = search(*QUICK, *given)
    assert code == 0
    assert "note: gamma: searched, so the value given is only where the search begins" in err
    assert "note: fixed for this search: leverage = 2; robust_params will not hold them" in err
    document = results(tmp_path)
    assert document["trials"][0]["params"]["gamma"] == 0.7
    assert document["params"]["leverage"] == 2.0
    assert "leverage" not in document["robust_params"]


# --- the holdout --------------------------------------------------------------------------------


def test_the_holdout_is_read_once_when_everything_is_chosen(
    search: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    takers: list[Holdout] = []
    take, evaluate, judge = Holdout.take, Prepared.evaluate, judge_trials

    def recorded_take(self: Holdout) -> Coins:
        events.append("holdout")
        takers.append(self)
        ledger = (tmp_path / "data/trial_ledger.jsonl").read_text()
        assert json.loads(ledger.splitlines()[-1])["holdout_read"] is True
        assert not (tmp_path / "data/optimizer_results_robust.json").exists()
        return take(self)

    def recorded_evaluate(self: Prepared, drawn: Mapping[str, Any]) -> TrialOutcome:
        events.append("evaluate")
        assert self.holdout.reads == 0
        return evaluate(self, drawn)

    def recorded_judge(*args: Any, **kwargs: Any) -> Any:
        known = judge(*args, **kwargs)
        events.append("chosen")
        return known

    monkeypatch.setattr(Holdout, "take", recorded_take)
    monkeypatch.setattr(Prepared, "evaluate", recorded_evaluate)
    monkeypatch.setattr(backtest.optimize.conclusion, "judge_trials", recorded_judge)
    assert search(*QUICK)[0] == 0
    assert [item.reads for item in takers] == [1]
    assert events.count("evaluate") > 6
    assert events[-2:] == ["chosen", "holdout"]


@pytest.fixture
def stopped_at_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl+C while the fourth trial is evaluated, once."""
    evaluate, seen = Prepared.evaluate, [0]

    def counted(self: Prepared, drawn: Mapping[str, Any]) -> TrialOutcome:
        seen[0] += 1
        if seen[0] == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(self, drawn)

    monkeypatch.setattr(Prepared, "evaluate", counted)


@pytest.mark.slow
@pytest.mark.usefixtures("stopped_at_four")
def test_an_interruption_keeps_the_trials_and_leaves_the_holdout_alone(
    search: Run, tmp_path: Path
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    code, out, err = search(*QUICK, "--trials", "50", "--jobs", "2")
    assert code == 130
    kept = n_trials(tmp_path / "grid_v4_wfo.db")
    assert 4 <= kept <= 6
    assert files_in(tmp_path) == LEDGER_FILES | STUDY_FILES
    entries = (tmp_path / "data/trial_ledger.jsonl").read_text().splitlines()
    assert [json.loads(line)["holdout_read"] for line in entries] == [False]
    assert f"interrupted: {kept} trials are kept; the same command adds 50 more" in err
    if kept >= 5:
        assert "Holdout not reached: interrupted before, and untouched" in " ".join(out.split())
    assert signal.getsignal(signal.SIGINT) is handler
    assert search(*QUICK)[0] == 0
    assert results(tmp_path)["num_trials"] == kept + 6
    assert results(tmp_path)["holdout"]["looks_before"] == 0


@pytest.mark.usefixtures("stopped_at_four")
def test_an_interruption_before_anything_can_be_said_says_so(search: Run, tmp_path: Path) -> None:
    code, out, err = search(*QUICK, "--trials", "50", "--jobs", "1")
    assert (code, out) == (130, "")
    assert "no report yet: 4 trials are complete, a robust choice needs at least 5" in err
    assert n_trials(tmp_path / "grid_v4_wfo.db") == 4


@pytest.mark.parametrize(
    ("stage", "missing"),
    [
        (
            "repeated searches",
            {"Walk-forward efficiency", "Test windows", "Permuted bars", "Holdout"},
        ),
        ("sensitivity", {"Sensitivity:", "Permuted bars", "Holdout", "Deflated Sharpe ratio"}),
        ("permutations", {"Permuted bars", "Holdout"}),
    ],
)
def test_an_interruption_while_judging_reports_what_is_finished_and_leaves_the_holdout_alone(
    search: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, missing: set[str]
) -> None:
    takes: list[Holdout] = []
    monkeypatch.setattr(Holdout, "take", takes.append)
    run = search_run.side_by_side

    def interrupted(*args: Any, title: str, **kwargs: Any) -> Any:
        if title == stage:
            os.kill(os.getpid(), signal.SIGINT)
        return run(*args, title=title, **kwargs)

    monkeypatch.setattr(backtest.optimize.judge.final_choice, "side_by_side", interrupted)
    monkeypatch.setattr(backtest.optimize.judge.repeated_searches, "side_by_side", interrupted)
    monkeypatch.setattr(backtest.optimize.judge.monte_carlo, "side_by_side", interrupted)
    arguments = [item for item in QUICK if item != "--skip-mc"]
    code, out, err = search(*arguments, "--mc-perms", "20", "--jobs", "1")
    assert code == 130
    assert takes == []
    lines = [line for line in out.splitlines() if "not reached" in line]
    assert all(any(name in line for line in lines) for name in missing)
    assert ("Deflated Sharpe ratio" in " ".join(lines)) is (stage != "permutations")
    assert "Walk-forward efficiency" in out
    assert "interrupted: 6 trials are kept" in err
    assert files_in(tmp_path) == LEDGER_FILES | STUDY_FILES
    entries = (tmp_path / LEDGER_FILE).read_text().splitlines()
    assert [json.loads(line)["holdout_read"] for line in entries] == [False]
    assert [json.loads(line)["trials"] for line in entries] == [6]


@pytest.mark.slow
def test_a_killed_search_has_its_trials_in_the_ledger(tmp_path: Path) -> None:
    script = (
        "import os, signal, optimizer\n"
        "from backtest.optimize.search.trial_ledger import SearchEntry\n"
        "count, seen = SearchEntry.count, []\n"
        "def counted(self):\n"
        "    count(self)\n"
        "    seen.append(1)\n"
        "    if len(seen) == 4:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "SearchEntry.count = counted\n"
        f"optimizer.main({QUICK!r})\n"
    )
    done = subprocess.run(  # noqa: S603 - this project's own code
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == -signal.SIGKILL
    (line,) = (tmp_path / LEDGER_FILE).read_text().splitlines()
    assert json.loads(line)["trials"] == 4


@pytest.mark.slow
def test_a_killed_search_goes_on_with_its_trials(search: Run, tmp_path: Path) -> None:
    script = (
        "import os, signal, optimizer\n"
        "from backtest.optimize.search.trial_ledger import SearchEntry\n"
        "count, seen = SearchEntry.count, []\n"
        "def counted(self):\n"
        "    count(self)\n"
        "    seen.append(1)\n"
        "    if len(seen) == 5:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "SearchEntry.count = counted\n"
        f"optimizer.main({QUICK!r})\n"
    )
    done = subprocess.run(  # noqa: S603 - this project's own code
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == -signal.SIGKILL
    kept = n_trials(tmp_path / "grid_v4_wfo.db")
    assert 1 <= kept <= 5  # those that were still being written are lost, and no more
    code, out, _ = search(*QUICK)
    assert code == 0
    assert "Verdict: " in out
    document = results(tmp_path)
    assert document["num_trials"] == kept + 6
    assert document["deflated_sharpe"]["n_trials_ever"] == 5 + 6


@pytest.mark.slow
def test_a_second_interruption_ends_the_program_at_once() -> None:
    script = (
        "import os, signal, time\n"
        "from backtest.optimize.search.progress import Interruption\n"
        "with Interruption('the trials that run are finished') as interruption:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert interruption.asked.is_set()\n"
        "    print('still here', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run(  # noqa: S603 - this project's own code
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (130, "still here\n")
    assert "Ctrl+C again quits at once" in done.stderr


@pytest.mark.slow
def test_the_time_given_ends_a_search_that_has_enough_trials(search: Run, tmp_path: Path) -> None:
    search(*QUICK)
    code, _, _ = search(*QUICK, "--timeout", "0.000001")
    assert code == 0
    assert results(tmp_path)["num_trials"] == 6


def test_a_disk_that_fills_up_does_not_take_the_report_with_it(
    search: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: bytes) -> None:
        raise DataError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr(backtest.optimize.report.results, "write_file", full)
    code, out, err = search(*QUICK)
    assert code == 2
    assert "Holdout" in out
    assert "No space left on device" in err


# --- the report ---------------------------------------------------------------------------------


def request(**changes: Any) -> SearchRequest:
    fields: dict[str, Any] = {
        "coins": ["SOL"],
        "start": "2025-09-01",
        "end": "2025-12-01",
        "params": {},
        "source": "demo",
        "trials": 6,
        "windows": 1,
        "holdout": 0.15,
        "objective": "calmar_pf",
        "study": "s",
        "storage": None,
        "seed": 42,
        "seeds": 2,
        "jobs": 1,
        "timeout": None,
        "permutations": 20,
        "skip_permutations": True,
        "plot": False,
        "output": None,
    }
    return SearchRequest(**{**fields, **changes})


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.chdir(tmp_path)
    return open_session(request())


def test_curves_are_digits_where_the_terminal_has_no_blocks(session: Session) -> None:
    searched, n_ever = add_trials(session)
    known = judge_trials(
        session.prepared,
        session.space,
        searched,
        STRATEGY_PARAMS,
        n_ever=n_ever,
        seed=1,
        seeds=2,
        jobs=1,
    )
    lines = evidence_lines(known, None)
    plain = report(known, lines, STRATEGY_PARAMS, encoding="ascii")
    rich = report(known, lines, STRATEGY_PARAMS, encoding="utf-8")
    assert plain.isascii()
    assert any(tick in rich for tick in "▁▂▃▄▅▆▇█")
    assert rich.translate(str.maketrans("▁▂▃▄▅▆▇█", "12345678")) == plain
    assert len(plain.splitlines()) < 70
    assert session.prepared.holdout.reads == 0


def test_a_choice_worse_than_the_config_in_training_is_said_to_be(session: Session) -> None:
    searched, n_ever = add_trials(session)
    known = judge_trials(
        session.prepared,
        session.space,
        searched,
        STRATEGY_PARAMS,
        n_ever=n_ever,
        seed=1,
        seeds=2,
        jobs=1,
    )
    for baseline, said in ((known.choice.outcome.score - 0.1, False), (99.0, True)):
        text = report(
            replace(known, baseline_score=baseline), [], STRATEGY_PARAMS, encoding="ascii"
        )
        assert ("higher than the choice" in text) is said


@pytest.mark.parametrize("length", range(1, 60, 3))
def test_the_header_does_not_part_a_label_from_its_value(session: Session, length: int) -> None:
    named = replace(session, identity=replace(session.identity, name="x" * length))
    for line in header(named).splitlines():
        assert not line.endswith(("study", "objective", "seed"))
        assert len(line) <= WIDTH


@pytest.mark.parametrize(
    ("encoding", "blocks"),
    [("utf-8", True), ("ascii", False), ("cp1252", False), ("no such thing", False)],
)
def test_whether_blocks_can_be_printed_is_asked_of_the_encoding(
    encoding: str, *, blocks: bool
) -> None:
    assert has_blocks(encoding) is blocks


def test_going_on_with_the_exchanges_candles_needs_their_end(session: Session) -> None:
    assert _go_on(session) == "the same command adds 6 more"
    live = replace(session, request=request(source="exchange", end=None))
    assert "with --end 2025-12-01T00:00" in _go_on(live)


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "0"], "--trials 0 must be at least 1"),
        (["--trials", "4"], "--trials 4 makes 4 trials in all, must be at least 5"),
        (["--windows", "0"], "--windows 0 must be at least 1"),
        (["--windows", "9"], "windows = 9 must be at most 1 for 8736 bars"),
        (["--holdout", "0"], "--holdout 0 must be a share of the bars above 0, at most 0.5"),
        (["--holdout", "0.6"], "--holdout 0.6 must be a share"),
        (["--holdout", "nan"], "--holdout nan must be a share"),
        (["--mc-perms", "0"], "--mc-perms 0 must be at least 1"),
        (["--seeds", "0"], "--seeds 0 must be at least 1"),
        (["--jobs", "0"], "--jobs 0 must be at least 1"),
        (["--seed", "-1"], "--seed -1 must be 0 or more"),
        (["--timeout", "0"], "--timeout 0 must be a number of seconds above 0"),
        (["--timeout", "nan"], "--timeout nan must be a number of seconds above 0"),
        (["--timeout", "0.000001"], "0 trials are complete, a robust choice needs at least 5; run"),
        (["--objective", "sharp"], "unknown objective 'sharp'; did you mean sharpe?"),
        (["--study-name", "../x"], "--study-name '../x' must be 1 to 100 letters"),
        (["--coins", "DOGE"], "the demo has no coin DOGE; it has: BTC, ETH, SOL"),
        (["--start", "2025-11-20"], "are too few for any window"),
        (["--end", "2025-04-01"], "must be after start"),
        (["--preset", "no"], "unknown preset 'no'"),
        (["--set", "gama=1"], "unknown strategy parameter 'gama'; did you mean gamma?"),
        (["--params", "none.json"], "--params none.json: No such file"),
        (["--storage", "nonsense://x"], "the storage nonsense://x cannot be used"),
        (
            ["--storage", "postgresql://u:pa@ss@h/x"],
            "--storage postgresql://u:***@h/x holds a passw",
        ),
        (["--storage", "sqlite:///no/folder/x.db"], "cannot be used"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_refused_with_what_to_do(
    search: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert message in " ".join(refusal(search(*QUICK, *arguments)).split())
    assert not (tmp_path / "data/optimizer_results_robust.json").exists()


def test_an_impossible_space_is_refused(search: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"gamma": {"type": "float", "low": 2.0, "high": 1.0}}
    monkeypatch.setattr(backtest.optimize.session, "read_space", lambda *_: read_space(wrong))
    assert "low = 2 must be under high = 1" in refusal(search(*QUICK))


def test_that_every_trial_is_disqualified_is_an_answer_and_its_trials_are_kept(
    search: Run, tmp_path: Path
) -> None:
    code, out, err = search(*QUICK, "--set", "initial_capital=50")
    assert code == 0
    words = " ".join(out.split())
    assert "Verdict: FAILED" in words
    assert "none of 6 trials has a score above -9" in words
    assert "on the longest train: trades, fewer than 20 (6)" in words
    assert "the holdout is untouched" in err
    document = results(tmp_path)
    assert document["verdict"]["answer"] == "failed"
    assert "robust_params" not in document
    assert n_trials(tmp_path / "grid_v4_wfo.db") == 6
    entries = (tmp_path / LEDGER_FILE).read_text().splitlines()
    assert [json.loads(line)["holdout_read"] for line in entries] == [False]


def test_too_few_trials_leave_no_study_behind(search: Run) -> None:
    assert "must be at least 5" in refusal(search(*QUICK, "--trials", "4"))
    assert search(*QUICK, "--end", "2025-11-25")[0] == 0


@pytest.mark.slow
def test_other_rules_of_the_exchange_are_another_study(
    search: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    search(*QUICK)
    markets: Any = BACKTEST_CONFIG["markets"]
    monkeypatch.setitem(markets["SOL"], "min_notional", 77.0)
    assert "rules.SOL.min_notional: was 5.0, is now 77.0" in refusal(search(*QUICK))


@pytest.mark.slow
def test_a_study_of_something_else_is_refused(search: Run, tmp_path: Path) -> None:
    search(*QUICK)
    message = refusal(search(*QUICK, "--seed", "7", "--set", "leverage=2"))
    assert "seed: was 42, is now 7" in message
    assert "fixed.leverage: was 1.0, is now 2.0" in message
    assert "choose another --study-name" in message
    assert n_trials(tmp_path / "grid_v4_wfo.db") == 6


def test_a_study_another_process_has_is_refused(search: Run, tmp_path: Path) -> None:
    with (tmp_path / "grid_v4_wfo.db.lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "grid_v4_wfo.db is in use by process 4711" in refusal(search(*QUICK))


def test_a_database_of_another_program_is_refused_and_left_alone(
    search: Run, tmp_path: Path
) -> None:
    path = tmp_path / "grid_v4_wfo.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE recipes (name TEXT)")
    database.close()
    before = path.read_bytes()
    assert "holds tables of another program (recipes" in refusal(search(*QUICK))
    assert path.read_bytes() == before


@pytest.mark.parametrize("taken", ["data", "data/charts", "data/output"])
def test_folders_that_cannot_be_written_are_refused_before_the_search(
    search: Run, tmp_path: Path, taken: str
) -> None:
    path = tmp_path / taken
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file")
    message = refusal(search(*SHORT, "--windows", "1", "--trials", "6"))
    assert f"cannot write {taken}" in message
    assert "--output DIR" in message
    assert not (tmp_path / "grid_v4_wfo.db").exists()


def test_a_ledger_that_cannot_be_written_is_refused_before_the_search(
    search: Run, tmp_path: Path
) -> None:
    (tmp_path / "data/trial_ledger.jsonl").mkdir(parents=True)
    assert "cannot write data/trial_ledger.jsonl" in refusal(search(*QUICK))
    assert not (tmp_path / "grid_v4_wfo.db").exists()


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["--demo", "--data", "x"], ["--trials", "many"], ["--coins"]]
)
def test_arguments_that_cannot_be_parsed_exit_with_2(search: Run, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        search(*arguments)
    assert caught.value.code == 2


# --- help ---------------------------------------------------------------------------------------


def test_help_explains_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        optimizer.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for action in optimizer.build_parser()._actions:  # noqa: SLF001 - shown no other way
        assert action.help
        assert all(option in text for option in action.option_strings)


def test_help_says_what_is_maximised_with_the_numbers_that_hold() -> None:
    text = " ".join(optimizer.EXAMPLES.split())
    for words in (
        f"drawdown (at least {objective.MIN_DRAWDOWN_PCT:g} %)",
        f"sqrt(profit factor, at most {objective.MAX_PROFIT_FACTOR:g})",
        f"{objective.EXCESS_TRADE_COST:g} is taken off per round trip",
        f"above {objective.TRADES_PER_10K_BARS:g} per 10,000 bars",
        f"fewer than {objective.MIN_TRADES} round trips",
        f"drawdown over {objective.MAX_DRAWDOWN_PCT:g} %",
        f"profit factor under {objective.MIN_PROFIT_FACTOR:g}",
        f"gets -{objective.PENALTY:g}",
        f"score {objective.WORST_SCORE:g}",
    ):
        assert words in text


def test_the_examples_in_help_can_be_parsed() -> None:
    lines = [line for line in optimizer.EXAMPLES.splitlines() if line.startswith("  python3 opt")]
    assert len(lines) > 4
    for line in lines:
        optimizer.build_parser().parse_args(line.split()[2:])


def test_the_documented_command_means_what_it_says() -> None:
    line = (
        "--coins BTC ETH SOL --trials 200 --windows 4 --start 2024-01-01 --study-name grid_v4_wfo "
        "--mc-perms 50 --skip-mc"
    )
    args = optimizer.build_parser().parse_args(shlex.split(line))
    assert (args.coins, args.trials, args.windows) == (["BTC", "ETH", "SOL"], 200, 4)
    assert (args.study_name, args.mc_perms, args.skip_mc) == ("grid_v4_wfo", 50, True)
    plain = optimizer.build_parser().parse_args([])
    assert (plain.trials, plain.windows) == (100, 4)
    assert plain.study_name is None  # named after the strategy
    assert (plain.mc_perms, plain.seed, plain.holdout, plain.storage) == (50, 42, 0.15, None)
    assert (plain.objective, plain.skip_mc) == ("calmar_pf", False)
    # Written out there, because importing the modules that hold them takes too long for --help.
    defaults = (DEFAULT_WINDOWS, DEFAULT_HOLDOUT, DEFAULT_OBJECTIVE)
    assert defaults == (plain.windows, plain.holdout, plain.objective)
    help_text = " ".join(optimizer.build_parser().format_help().split())
    assert ", ".join([*OBJECTIVES][:-1]) + f" or {[*OBJECTIVES][-1]}" in help_text


@pytest.mark.slow
def test_help_loads_none_of_the_heavy_libraries() -> None:
    script = (
        "import sys, optimizer; optimizer.build_parser().format_help(); "
        f"print([name for name in {(*HEAVY, 'sqlalchemy', 'arch')} if name in sys.modules])"
    )
    done = subprocess.run(  # noqa: S603 - this project's own command
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


# --- end to end ---------------------------------------------------------------------------------


def command(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of this project's commands with the config.py of ``folder``."""
    script = f"import sys, {name}; sys.exit({name}.main(sys.argv[1:]))"
    return subprocess.run(  # noqa: S603 - this project's own commands
        [sys.executable, "-c", script, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.slow
def test_what_the_search_finds_can_be_applied_and_run(tmp_path: Path) -> None:
    shutil.copy(ROOT / "config.py", tmp_path / "config.py")
    found = command(tmp_path, "optimizer", *QUICK, "--output", "found")
    path = tmp_path / "found/optimizer_results_robust.json"
    chosen = json.loads(path.read_text())["robust_params"]
    printed = next(line for line in found.stdout.splitlines() if line.startswith("next: python3 "))
    program, *flags = shlex.split(printed)[2:]
    assert program == str(ROOT / "apply_optimized_params.py")
    arguments = ("--params", str(path), "--force", "--config", "config.py")
    preview = command(tmp_path, "apply_optimized_params", *flags, "--config", "config.py")
    assert "preview: nothing written" in preview.stdout
    assert (tmp_path / "config.py").read_bytes() == (ROOT / "config.py").read_bytes()
    command(tmp_path, "apply_optimized_params", *arguments, "--yes")
    command(tmp_path, "main", *SHORT, "--no-plot", "--output", "run")
    summary = json.loads((tmp_path / "run/SOL_summary.json").read_text())
    assert {name: summary["parameters"][name] for name in chosen} == chosen
    assert summary["changed_parameters"] == {}  # main.py has read the new config.py
    shipped = StrategyParams.from_dict(STRATEGY_PARAMS).to_dict()
    assert chosen != {name: shipped[name] for name in chosen}
    unchanged = {*STRATEGY_PARAMS} - {*chosen}
    assert all(summary["parameters"][name] == shipped[name] for name in unchanged)


def in_shell(line: str, folder: Path) -> str:
    """Return what a line prints that a person pastes into a shell in ``folder``."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(  # noqa: S602 - as printed
        line,
        shell=True,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_printed_next_step_and_the_readmes_line_work_as_printed(
    search: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    unneeded = shutil.ignore_patterns(
        ".*", "__pycache__", "data", "tests", "docs", "deploy", "*.db"
    )
    shutil.copytree(ROOT, project, ignore=unneeded)
    before = (ROOT / "config.py").read_bytes()
    for folder, arguments in ((tmp_path, ()), (project, ("--output", "my results"))):
        monkeypatch.chdir(folder)
        out = search(*QUICK, *arguments)[1]
        [printed] = [line for line in out.splitlines() if line.startswith("next: ")]
        assert "preview: nothing written" in in_shell(printed.removeprefix("next: "), folder)
    shutil.copytree(tmp_path / "data", project / "data", dirs_exist_ok=True)
    section = (ROOT / "README.md").read_text().partition("\n## Optimizing\n")[2]
    lines = section.partition("```bash\n")[2].partition("```")[0].splitlines()
    [line] = [text for text in lines if "apply_optimized_params" in text]
    shown = in_shell(line, project)
    assert shown.startswith("data/optimizer_results_robust.json, robust_params -> config.py\n")
    assert shown.endswith("preview: nothing written\n")
    written = in_shell(f"{line.removesuffix(' --preview')} --force --yes", project)
    assert written.endswith("\nnext: python3 main.py\n")
    assert (project / "config.py").read_bytes() != before == (ROOT / "config.py").read_bytes()


@pytest.mark.slow
def test_own_candles_are_searched_from_a_folder(search: Run, tmp_path: Path) -> None:
    market = demo_market("SOL", parse_time("2025-07-15", "s"), parse_time("2025-12-01", "e"))
    (tmp_path / "mine").mkdir()
    market.candles.to_csv(tmp_path / "mine" / "SOLUSDT-15m.csv", index=False)
    code, out, _ = search(
        "--coins",
        "SOL",
        "--data",
        "mine",
        "--start",
        "2025-09-01",
        "--windows",
        "1",
        "--trials",
        "6",
        "--skip-mc",
        "--no-plot",
    )
    assert code == 0
    assert "SOL: 2025-09-01 00:00 to 2025-12-01 00:00 UTC" in out
