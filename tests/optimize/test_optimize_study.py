"""Searching: what is tried, what is kept, and that an interruption changes neither."""

from __future__ import annotations

import dataclasses
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage

from backtest.optimize.search import study_identity
from backtest.optimize.search.local_study import MOST_UNWRITTEN, LocalRun
from backtest.optimize.search.sampling import BATCH, STARTUP_TRIALS, Sampler
from backtest.optimize.search.study import Search
from backtest.optimize.search.study_identity import StudyIdentity
from backtest.optimize.search.trial_pool import Effort, Progress, ProgressReport, TrialPool
from backtest.optimize.search.trial_store import IDENTITY, StoredStudy, TrialStore, running_trial
from backtest.optimize.trial.space import Space, read_space
from backtest.optimize.trial.trial import Evaluate, TrialOutcome
from core.errors import ConfigError, DataError
from tests.support.paths import ROOT
from tests.support.processes.optimize_worker import CURRENT, SPACE, evaluate, identity, scored

SEED = 7

Row = tuple[int, dict[str, Any], float]


def memory_study(api: InMemoryStorage | None = None) -> StoredStudy:
    store = TrialStore(api or InMemoryStorage(), "memory", shared=False, resources=ExitStack())
    return store.study("study")


def search_in(
    study: StoredStudy,
    n_trials: int,
    *,
    jobs: int = 1,
    judge: Evaluate = evaluate,
    stop: threading.Event | None = None,
    timeout: float | None = None,
    on_trial: Callable[[Progress], None] = lambda _: None,
    seed: int = SEED,
) -> list[Row]:
    """Run one process's search; return all trials of the study."""
    effort = Effort()
    stop = stop or threading.Event()
    with TrialPool(judge, jobs, stop=stop, timeout=timeout, effort=effort) as pool:
        run = LocalRun(study, Sampler(SPACE.distributions(), seed), CURRENT, pool)
        run.run(n_trials, ProgressReport(on_trial, effort))
    return rows(study)


def rows(study: StoredStudy) -> list[Row]:
    return [(trial.number, trial.params, trial.values[0]) for trial in study.trials()]


def out_of_order(params: Mapping[str, Any]) -> TrialOutcome:
    """Take longer the better the parameters are, so that trials do not end as they begin."""
    outcome = evaluate(params)
    time.sleep(0.004 / (1.0 - outcome.score))
    return outcome


@pytest.fixture(scope="module")
def reference() -> list[Row]:
    """Return the trials of one search that nothing interrupts, well into the estimator's."""
    return search_in(memory_study(), 5 * BATCH + 3)


def open_search(storage: object, name: str = "study", **changes: Any) -> Search:
    made = dataclasses.replace(identity(name), **changes)
    return Search(made, SPACE, str(storage), jobs=2, current=CURRENT)


# --- what is tried --------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [2, 3, 8, 20])
def test_the_number_of_jobs_does_not_change_the_result(reference: list[Row], jobs: int) -> None:
    found = search_in(memory_study(), len(reference), jobs=jobs, judge=out_of_order)
    assert found == reference


def test_another_seed_tries_something_else(reference: list[Row]) -> None:
    other = search_in(memory_study(), 4, seed=SEED + 1)
    assert other[0] == reference[0]
    assert all(a[1] != b[1] for a, b in zip(other[1:], reference[1:], strict=False))


def in_pieces(cuts: Iterable[int], whole: int) -> list[Row]:
    study = memory_study()
    for begin, end in pairwise([0, *sorted(cuts), whole]):
        search_in(study, end - begin, jobs=2)
    return rows(study)


@pytest.mark.parametrize("cuts", [(1,), (BATCH, STARTUP_TRIALS + 3)])
def test_a_search_in_pieces_is_the_search_in_one_go(
    reference: list[Row], cuts: tuple[int, ...]
) -> None:
    assert in_pieces(cuts, len(reference)) == reference


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(cuts=st.sets(st.integers(1, 5 * BATCH + 2), max_size=4))
def test_wherever_a_search_is_cut_it_is_the_search_in_one_go(
    reference: list[Row], cuts: set[int]
) -> None:
    assert in_pieces(cuts, len(reference)) == reference


def test_trial_0_tries_the_current_parameters(reference: list[Row]) -> None:
    assert reference[0][1] == CURRENT


def test_the_estimator_finds_better_parameters_than_chance(reference: list[Row]) -> None:
    drawn = [score for number, _, score in reference if 0 < number < STARTUP_TRIALS]
    learnt = [score for number, _, score in reference if number >= STARTUP_TRIALS]
    assert sum(learnt) / len(learnt) > sum(drawn) / len(drawn) / 2.0


def test_parameters_have_the_types_of_the_space(tmp_path: Path) -> None:
    with open_search(tmp_path / "x.journal") as search:
        search.run(evaluate, STARTUP_TRIALS + 2)
        for trial in search.trials():
            assert list(trial.params) == list(SPACE.entries)
            kinds = [type(value) for value in trial.params.values()]
            assert kinds == [float, float, int, str]


def test_a_proposal_depends_on_its_key_and_on_the_trials_learnt() -> None:
    def sampler(order: int) -> Sampler:
        made = Sampler(dict(list(SPACE.distributions().items())[::order]), SEED)
        for number in range(STARTUP_TRIALS):
            params = made.propose(number)
            made.learn(params, evaluate(params).score)
        return made

    one, other = sampler(1), sampler(-1)
    proposal = one.propose(99)
    assert one.propose(100) != proposal
    assert one.propose(99) == proposal == other.propose(99)
    best = {"gamma": 9.0, "kappa": 0.6, "grid_levels": 2, "grid_mode": "geometric"}
    for _ in range(10):
        one.learn(best, 10.0)
    assert one.propose(99) != proposal


def test_current_parameters_outside_the_space_are_moved_into_it_and_said(tmp_path: Path) -> None:
    current = CURRENT | {"grid_levels": 20}
    with Search(identity(), SPACE, str(tmp_path / "x.journal"), jobs=1, current=current) as search:
        assert len(search.notices) == 1
        assert "grid_levels = 20" in search.notices[0]
        search.run(evaluate, 1)
        assert search.trials()[0].params == CURRENT | {"grid_levels": 10}


def test_a_current_choice_that_is_none_of_the_space_gives_way_to_the_first(tmp_path: Path) -> None:
    current = CURRENT | {"prune_enabled": ("GAP",)}
    entries = {"prune_enabled": {"type": "cat", "choices": ["none", "OLDEST"]}}
    space = Space(dict(SPACE.entries) | dict(read_space(entries).entries))
    made = identity(space=space)
    with Search(made, space, str(tmp_path / "x.journal"), jobs=1, current=current) as search:
        assert "prune_enabled" in search.notices[0]
        search.run(evaluate, 1)
        assert search.trials()[0].params["prune_enabled"] == "none"


# --- stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_stop_finishes_and_keeps_what_has_begun(reference: list[Row], jobs: int) -> None:
    stop, begun = threading.Event(), []

    def judge(params: Mapping[str, Any]) -> TrialOutcome:
        begun.append(params)
        if len(begun) == 11:
            stop.set()
        return out_of_order(params)

    study = memory_study()
    found = search_in(study, 30, jobs=jobs, judge=judge, stop=stop)
    assert 11 <= len(found) <= 11 + jobs
    assert [row[1] for row in found] == begun[: len(found)]
    assert len(begun) == len(found)
    assert found == reference[: len(found)]
    assert search_in(study, len(reference) - len(found)) == reference


def test_no_trial_begins_when_the_time_is_up() -> None:
    assert search_in(memory_study(), 5, timeout=0.0) == []


def test_a_timeout_keeps_what_has_begun(reference: list[Row]) -> None:
    def judge(params: Mapping[str, Any]) -> TrialOutcome:
        time.sleep(0.3)
        return evaluate(params)

    found = search_in(memory_study(), 100, jobs=2, judge=judge, timeout=0.5)
    assert 2 <= len(found) < 10
    assert found == reference[: len(found)]


def test_an_error_in_a_trial_ends_the_search_and_keeps_those_before_it(
    reference: list[Row],
) -> None:
    bad = reference[12][1]

    def judge(params: Mapping[str, Any]) -> TrialOutcome:
        if params == bad:
            raise DataError("no candles")
        return evaluate(params)

    study = memory_study()
    with pytest.raises(DataError, match="no candles"):
        search_in(study, 30, jobs=4, judge=judge)
    assert rows(study) == reference[:12]
    assert search_in(study, len(reference) - 12) == reference


def test_a_score_that_is_no_number_is_refused() -> None:
    def judge(params: Mapping[str, Any]) -> TrialOutcome:
        return dataclasses.replace(evaluate(params), score=float("nan"))

    with pytest.raises(DataError, match="trial 0: score = nan must be a finite number"):
        search_in(memory_study(), 3, judge=judge)


# --- what is kept ---------------------------------------------------------------------------------


def test_outcomes_come_back_as_they_were(tmp_path: Path) -> None:
    with open_search(tmp_path / "x.journal") as search:
        search.run(evaluate, 3)
        for trial in search.trials():
            expected = evaluate(trial.params)
            assert trial.outcome.to_dict() == expected.to_dict()
            assert trial.seconds >= 0.0


class _FullDisk(InMemoryStorage):
    """Cannot keep the fifth trial it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given = 0

    def create_new_trial(self, study_id: int, template_trial: Any = None) -> int:
        self.given += 1
        if self.given == 5:
            raise OSError(28, "No space left on device")
        return super().create_new_trial(study_id, template_trial)


def test_nothing_is_kept_behind_a_trial_that_cannot_be() -> None:
    study, reported = memory_study(_FullDisk()), []
    with pytest.raises(ConfigError, match="No space left on device"):
        search_in(study, 20, jobs=3, on_trial=lambda progress: reported.append(progress.number))
    assert reported == [0, 1, 2, 3]
    assert [row[0] for row in rows(study)] == [0, 1, 2, 3]


def test_a_trial_written_by_somebody_else_meanwhile_is_noticed() -> None:
    study = memory_study()

    def judge(params: Mapping[str, Any]) -> TrialOutcome:
        if len(study.trials()) == 0:
            study.add(running_trial({}))
        return evaluate(params)

    with pytest.raises(ConfigError, match="trial 0 was kept as number 1: another program writes"):
        search_in(study, 5, judge=judge)


def test_a_study_with_unfinished_trials_is_refused() -> None:
    study = memory_study()
    search_in(study, 2)
    study.add(running_trial({}))
    with pytest.raises(ConfigError, match="trial 2 of the study is not complete"):
        search_in(study, 1)


def test_few_trials_wait_to_be_written_however_slow_the_disk_is() -> None:
    judged: list[Mapping[str, Any]] = []
    behind: list[int] = []

    class SlowDisk(InMemoryStorage):
        def create_new_trial(self, study_id: int, template_trial: Any = None) -> int:
            time.sleep(0.005)
            key = super().create_new_trial(study_id, template_trial)
            behind.append(len(judged) - len(behind) - 1)
            return key

    def judge(params: Mapping[str, Any]) -> TrialOutcome:
        judged.append(params)
        return evaluate(params)

    found = search_in(memory_study(SlowDisk()), 80, jobs=2, judge=judge)
    assert len(found) == 80
    assert BATCH < max(behind) <= MOST_UNWRITTEN + 2


@pytest.mark.slow
def test_no_trial_is_reported_before_it_is_on_disk(tmp_path: Path) -> None:
    path, counts = tmp_path / "x.db", []

    def on_trial(progress: Progress) -> None:
        with sqlite3.connect(path) as other:
            count = "SELECT COUNT(*) FROM trials WHERE state = 'COMPLETE' AND number <= ?"
            counts.append(other.execute(count, (progress.number,)).fetchone()[0])
        other.close()

    with open_search(f"sqlite:///{path}") as search:
        search.run(evaluate, 6, on_trial=on_trial)
    assert counts == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_the_default_is_a_file_named_like_the_study_and_runs_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: list[Row]
) -> None:
    monkeypatch.chdir(tmp_path)
    for n_trials in (3, 7, STARTUP_TRIALS):
        with Search(identity("grid v4_wfo"), SPACE, None, jobs=2, current=CURRENT) as search:
            search.run(evaluate, n_trials)
            trials = search.trials()
    assert (tmp_path / "grid v4_wfo.db").stat().st_size > 0
    assert scored(trials) == reference[: 10 + STARTUP_TRIALS]


def test_progress_adds_up() -> None:
    study, seen = memory_study(), list[Progress]()
    search_in(study, 6)
    search_in(study, 10, jobs=3, judge=out_of_order, on_trial=seen.append)
    assert [progress.number for progress in seen] == list(range(6, 16))
    assert [progress.done for progress in seen] == list(range(7, 17))
    assert {progress.target for progress in seen} == {16}
    scores = {number: score for number, _, score in rows(study)}
    for progress in seen:
        so_far = {number: scores[number] for number in range(progress.done)}
        assert progress.score == scores[progress.number]
        assert progress.best_score == max(so_far.values()) == scores[progress.best_number]
        left = progress.target - progress.done
        assert progress.seconds_left == pytest.approx(left / progress.per_second)
    last = seen[-1]
    assert min(last.sampling_s, last.writing_s, last.evaluating_s) > 0.0
    assert last.seconds_left == 0.0


# --- what may be gone on with ---------------------------------------------------------------------

CHANGES: dict[str, tuple[Any, str]] = {
    "space": (
        SPACE.to_dict() | {"kappa": {"kind": "float", "low": 0.5, "high": 2.0}},
        r"space\.kappa: was .*3\.0.*, is now .*2\.0",
    ),
    "fixed": (
        {"leverage": 2.0},
        r"leverage: was 1\.0, is now 2\.0\n  fixed\.prune_enabled: was \[\"GAP\"\], is now absent",
    ),
    "rules": (
        {"BTC.min_notional": 5.0, "ETH.min_notional": 20.0},
        r"rules\.BTC\.min_notional: was 100\.0, is now 5\.0",
    ),
    "coins": (("BTC",), r'coins: was \["BTC", "ETH"\], is now \["BTC"\]'),
    "start": ("2023-01-01", 'start: was "2024-01-01", is now "2023-01-01"'),
    "end": ("2025-12-31", 'end: was "2024-12-31", is now "2025-12-31"'),
    "data_hash": ("e" * 16, 'data_hash: was "d{16}", is now "e{16}"'),
    "windows": (3, "windows: was 4, is now 3"),
    "holdout": (0.2, "holdout: was 0.15, is now 0.2"),
    "objective": ("sharpe", 'objective: was "calmar_pf", is now "sharpe"'),
    "seed": (8, "seed: was 7, is now 8"),
}


def test_every_part_of_the_identity_is_tested() -> None:
    names = {item.name for item in dataclasses.fields(StudyIdentity)}
    assert names == CHANGES.keys() | {"name", "fingerprint", "scoring"}


@pytest.mark.parametrize("field", CHANGES)
def test_a_study_made_with_something_else_is_refused_with_the_difference(
    tmp_path: Path, field: str
) -> None:
    value, message = CHANGES[field]
    storage = tmp_path / "x.journal"
    with open_search(storage) as search:
        search.run(evaluate, 1)
    with pytest.raises(ConfigError, match=message) as caught:
        open_search(storage, **{field: value})
    assert "restore what it was made with, or choose another --study-name" in str(caught.value)
    assert str(caught.value).count(": was") == (2 if field == "fixed" else 1)
    with open_search(storage) as search:
        assert len(search.trials()) == 1


def test_changed_code_is_warned_of_and_not_refused(tmp_path: Path) -> None:
    storage = tmp_path / "x.journal"
    with open_search(storage) as search:
        assert search.notices == ()
    for field, was in (("fingerprint", "f" * 12), ("scoring", "s" * 12)):
        with open_search(storage, **{field: "other"}) as search:
            (notice,) = search.notices
            assert f"{was}, now other" in notice
            assert "comparable" in notice
            search.run(evaluate, 1)


def test_the_code_that_scores_has_a_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = study_identity.scoring_fingerprint()
    fewer = study_identity.SCORING[1:]
    assert all((ROOT / Path(*name.split("."))).with_suffix(".py").is_file() for name in fewer)
    monkeypatch.setattr(study_identity, "SCORING", fewer)
    assert study_identity.scoring_fingerprint() != before


def test_a_study_without_any_trial_takes_what_comes(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/x.db"
    open_search(storage).close()
    with open_search(storage, coins=("SOL",), windows=2) as search:
        search.run(evaluate, 1)
    with pytest.raises(ConfigError, match=r'coins: was \["SOL"\], is now'):
        open_search(storage)


def test_a_study_others_may_be_about_to_add_to_keeps_what_it_was_made_with(tmp_path: Path) -> None:
    storage = tmp_path / "x.journal"
    open_search(storage).close()
    with pytest.raises(ConfigError, match="windows: was 4, is now 2"):
        open_search(storage, windows=2)


def test_a_search_that_is_not_approved_leaves_no_study(tmp_path: Path) -> None:
    counts: list[int] = []

    def refuse(before: int) -> None:
        counts.append(before)
        raise ConfigError("too few")

    storage = f"sqlite:///{tmp_path}/x.db"
    with pytest.raises(ConfigError, match="too few"):
        Search(identity(), SPACE, storage, jobs=1, current=CURRENT, approve=refuse)
    assert optuna.get_all_study_names(storage) == []
    with open_search(storage) as search:
        search.run(evaluate, 3)
    with pytest.raises(ConfigError, match="too few"):
        Search(identity(), SPACE, storage, jobs=1, current=CURRENT, approve=refuse)
    assert counts == [0, 3]


def test_another_version_of_optuna_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_search(tmp_path / "x.journal").close()
    monkeypatch.setattr(optuna, "__version__", "5.9.0")
    with open_search(tmp_path / "x.journal") as search:
        (notice,) = search.notices
        assert "this is 5.9.0" in notice


def test_a_study_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    other = optuna.storages.JournalStorage(backend)
    maximising = optuna.create_study(storage=other, study_name="study", direction="maximize")
    maximising.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    optuna.create_study(storage=other, study_name="minimising")
    for name in ("study", "minimising"):
        with pytest.raises(ConfigError, match=f"{name!r}.* was not made by this program"):
            open_search(path, name)


def test_a_trial_another_program_adds_later_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.journal"
    with open_search(path) as search:
        search.run(evaluate, 1)
        backend = optuna.storages.journal.JournalFileBackend(str(path))
        other = optuna.load_study(
            study_name="study", storage=optuna.storages.JournalStorage(backend)
        )
        other.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
        for use in (search.trials, lambda: search.run(evaluate, 1)):
            with pytest.raises(ConfigError, match="trial 1 was added to the study by another"):
                use()


def test_trials_are_counted_over_all_studies_on_the_same_data(tmp_path: Path) -> None:
    storage = tmp_path / "x.journal"
    changes = {"one": {}, "two": {"objective": "sharpe"}, "three": {"data_hash": "other"}}
    for n_trials, (name, changed) in enumerate(changes.items(), start=2):
        with open_search(storage, name, **changed) as search:
            search.run(evaluate, n_trials)
    with open_search(storage, "one") as search:
        assert search.count_trials_ever() == 2 + 3
    with open_search(storage, "three", data_hash="other") as search:
        assert search.count_trials_ever() == 4


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden", "a\0", "a?b", "x" * 101, "a\n"])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--study-name"):
        Search(identity(name), SPACE, None, jobs=1, current=CURRENT)


def test_numbers_out_of_range_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    storage = str(tmp_path / "x.journal")
    with pytest.raises(ConfigError, match="--jobs 0 must be 1 or more"):
        Search(identity(), SPACE, storage, jobs=0, current=CURRENT)
    with pytest.raises(ConfigError, match="--seed -1 must be 0 or more"):
        Search(identity(seed=-1), SPACE, storage, jobs=1, current=CURRENT)
    assert list(tmp_path.iterdir()) == []
    with (
        open_search(storage) as search,
        pytest.raises(ConfigError, match="--trials -1 must be 0 or more"),
    ):
        search.run(evaluate, -1)


def test_the_identity_is_kept_as_an_attribute_of_the_study(tmp_path: Path) -> None:
    open_search(tmp_path / "x.journal").close()
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "x.journal"))
    study = optuna.load_study(study_name="study", storage=optuna.storages.JournalStorage(backend))
    assert study.user_attrs[IDENTITY] == identity().to_dict()


# --- killed ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "death",
    [
        ("--die-in-trial", "0"),
        ("--die-in-trial", "12"),
        ("--die-in-trial", str(STARTUP_TRIALS + 5)),
        ("--die-in-commit", "1"),
        ("--die-in-commit", "10"),
        ("--die-when-kept", str(STARTUP_TRIALS)),
    ],
)
def test_killed_and_run_again_is_as_if_never_interrupted(
    tmp_path: Path, reference: list[Row], death: tuple[str, str]
) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    target = STARTUP_TRIALS + BATCH + 2
    command = [
        sys.executable,
        "-m",
        "tests.support.processes.optimize_worker",
        url,
        "--trials",
        str(target),
        *death,
    ]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)  # noqa: S603, PLW1510 - our own script, killed on purpose
    assert killed.returncode == -9, killed.stderr
    reported = [int(line.split()[1]) for line in killed.stdout.splitlines() if "kept" in line]
    with open_search(url) as search:
        kept = scored(search.trials())
        assert kept == reference[: len(kept)]
        assert reported == list(range(len(reported)))
        assert len(reported) <= len(kept) <= target
        search.run(evaluate, target - len(kept))
        assert scored(search.trials()) == reference[:target]


@pytest.mark.slow
def test_killed_while_the_database_is_created_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as half:
        half.execute(
            "CREATE TABLE studies (study_id INTEGER NOT NULL PRIMARY KEY, "
            "study_name VARCHAR(512) NOT NULL)"
        )
    half.close()
    with open_search(f"sqlite:///{path}") as search:
        search.run(evaluate, 2)
        assert len(search.trials()) == 2
