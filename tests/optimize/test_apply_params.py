"""``apply_optimized_params.py``: only values change, and only when all of them can."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import runpy
import shutil
import signal
import stat
import subprocess
import sys
import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import apply_optimized_params
from backtest.optimize.apply import config_edit
from backtest.optimize.apply.config_edit import plan_edit, write_edit
from backtest.optimize.apply.config_source import rewritten
from backtest.optimize.apply.params_file import ANSWERS
from backtest.optimize.apply.result_folders import RESULTS
from backtest.optimize.judge.verdict import Answer
from config import STRATEGY_PARAMS
from core.errors import ConfigError
from core.params import PruneRule, StrategyParams, param_fields
from tests.support.paths import ROOT

CONFIG = (ROOT / "config.py").read_bytes()

HELD = {"answer": "held", "why": ["Train: the choice gained"]}
CHOSEN = {
    "grid_spacing_k": 3.25,
    "spacing_floor": 0.0175,
    "tp_concentration": 0.9000000000000001,
    "grid_levels": 6,
    "gamma": 0.75,
    "kappa": 2.0,
    "halt_z_threshold": -3.5,
    "adx_trend_threshold": 31.0,
    "initial_capital": 25_000,
    "funding_harvest_threshold": 1e-05,
    "prune_enabled": ["GAP", "OFFSET"],
    "grid_mode": "arithmetic",
    "kelly_enabled": False,
}
ROBUST = {
    "robust_params": CHOSEN,
    "param_stability": {"grid_spacing_k": 0.12, "gamma": 0.31},
    "robustness_score": 0.71,
    "num_trials": 400,
    "verdict": HELD,
    "mc_significant": False,
    "mc_p_value": 0.23,
}
SHAPES = {"robust_params": ROBUST, "best_params": {"best_params": CHOSEN, "verdict": HELD}}

Apply = Callable[..., tuple[int, str, str]]


@pytest.fixture
def apply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Apply:
    """Return the command in a folder with a copy of the real config, which it rewrites."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    (tmp_path / "config.py").write_bytes(CONFIG)

    def call(content: Any, *arguments: str) -> tuple[int, str, str]:
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "results.json").write_text(text)
        command = ["--params", "results.json", "--config", "config.py", *arguments]
        code = apply_optimized_params.main(command)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def best(**params: Any) -> dict[str, Any]:
    return {"best_params": params, "verdict": HELD}


def imported(path: Path) -> dict[str, Any]:
    """Return the dicts of a config file."""
    return {name: value for name, value in runpy.run_path(str(path)).items() if name.isupper()}


def in_config(folder: Path) -> dict[str, Any]:
    return dict(imported(folder / "config.py")["STRATEGY_PARAMS"])


def untouched(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()} - {"results.json"}
    return names == {"config.py"} and (folder / "config.py").read_bytes() == CONFIG


def refusal(outcome: tuple[int, str, str]) -> str:
    """Return the one line a refused command prints."""
    code, out, err = outcome
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.strip()


def comments(source: bytes) -> list[tuple[int, str]]:
    tokens = tokenize.tokenize(io.BytesIO(source).readline)
    return [(item.start[0], item.string) for item in tokens if item.type == tokenize.COMMENT]


def rewrite(source: str, **values: Any) -> str:
    return rewritten(source.encode(), "STRATEGY_PARAMS", values, "config.py")[0].decode()


# --- what goes well -----------------------------------------------------------------------------


@pytest.mark.parametrize("key", SHAPES)
def test_only_the_tokens_of_the_chosen_values_change(
    apply: Apply, tmp_path: Path, key: str
) -> None:
    code, out, err = apply(SHAPES[key], "--key", key, "--yes")
    assert code == 0
    assert err == ""
    after = (tmp_path / "config.py").read_bytes()
    assert (tmp_path / "config.py.bak").read_bytes() == CONFIG
    assert comments(after) == comments(CONFIG)
    differing = {}
    for old, new in zip(
        CONFIG.decode().splitlines(keepends=True),
        after.decode().splitlines(keepends=True),
        strict=True,
    ):
        if old != new:
            name = old.split('"')[1]
            head = f'    "{name}": '
            assert old.startswith(head)
            assert new.startswith(head)
            assert old[old.rindex(",") :] == new[new.rindex(",") :]
            differing[name] = new.removeprefix(head).rpartition(",")[0]
    assert differing == {
        "initial_capital": "25_000.0",
        "grid_mode": '"arithmetic"',
        "grid_levels": "6",
        "grid_spacing_k": "3.25",
        "spacing_floor": "0.0175",
        "tp_concentration": "0.9000000000000001",
        "gamma": "0.75",
        "kappa": "2.0",
        "adx_trend_threshold": "31.0",
        "kelly_enabled": "False",
        "funding_harvest_threshold": "1e-05",
        "halt_z_threshold": "-3.5",
        "prune_enabled": '("GAP", "OFFSET")',
    }
    assert "wrote 13 values to config.py" in out


def test_the_rewritten_file_holds_the_values_and_all_other_dicts(
    apply: Apply, tmp_path: Path
) -> None:
    before = imported(tmp_path / "config.py")
    assert apply(ROBUST, "--key", "robust_params", "--yes")[0] == 0
    after = imported(tmp_path / "config.py")
    expected = {**STRATEGY_PARAMS, **CHOSEN, "prune_enabled": ("GAP", "OFFSET")}
    assert after == {**before, "STRATEGY_PARAMS": expected}


def test_doing_it_again_says_so_and_touches_nothing(apply: Apply, tmp_path: Path) -> None:
    apply(best(gamma=0.75), "--yes")
    (tmp_path / "config.py.bak").unlink()
    before = (tmp_path / "config.py").stat()
    for flags in (["--yes"], [], ["--preview"]):
        code, out, err = apply(best(gamma=0.75, kappa=1.5), *flags)
        assert (code, err) == (0, "")
        assert out == "config.py holds these 2 values already; nothing to write\n"
    after = (tmp_path / "config.py").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not (tmp_path / "config.py.bak").exists()


def test_the_table_shows_old_new_and_percent_and_counts_what_stays(apply: Apply) -> None:
    params = {
        "spacing_floor": 0.015,
        "gamma": 0.50001,
        "halt_z_threshold": -5,
        "fill_through_ticks": 2,
        "kelly_enabled": False,
        "kappa": 1.5,
        "grid_levels": 5,
        "initial_capital": 400000,
    }
    out = apply(best(**params), "--preview")[1]
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines() if line}
    assert rows["spacing_floor"] == "0.020 -> 0.015 -25.0 %"
    assert rows["gamma"] == "0.5 -> 0.50001 +0.002 %"
    assert rows["halt_z_threshold"] == "-4.0 -> -5.0 -25.0 %"
    assert rows["initial_capital"] == "10_000.0 -> 400_000.0 +3,900.0 %"
    assert rows["fill_through_ticks"] == "0 -> 2"
    assert rows["kelly_enabled"] == "True -> False"
    assert not {"kappa", "grid_levels"} & rows.keys()
    assert "to change: 6 values; the same already: 2" in out


def test_preview_writes_nothing_even_with_yes(apply: Apply, tmp_path: Path) -> None:
    code, out, _ = apply(best(gamma=0.75), "--preview", "--yes")
    assert code == 0
    assert "0.5 -> 0.75" in out
    assert out.endswith("preview: nothing written\n")
    assert untouched(tmp_path)


def test_it_says_where_the_backup_is_how_to_undo_and_what_to_do_next(
    apply: Apply, tmp_path: Path
) -> None:
    out = apply(best(gamma=0.75), "--yes")[1]
    assert "the file as it was: config.py.bak\n" in out
    main_py = ROOT / "main.py"  # seen from a folder that is not the project's
    assert out.endswith(f"to undo: mv config.py.bak config.py\nnext: python3 {main_py}\n")
    subprocess.run(["mv", "config.py.bak", "config.py"], cwd=tmp_path, check=True)  # noqa: S607
    assert untouched(tmp_path)


def test_the_next_step_names_the_strategy_whose_values_were_written(apply: Apply) -> None:
    fixed = {"best_params": {"leverage": 3.0}, "verdict": HELD, "strategy": "fixed_grid"}
    assert apply(fixed, "--yes")[1].endswith("/main.py --strategy fixed_grid\n")
    assert apply(best(gamma=0.75), "--yes")[1].endswith("/main.py\n")


def test_without_options_the_robust_choice_goes_into_this_projects_config() -> None:
    args = apply_optimized_params.build_parser().parse_args([])
    assert (str(args.params), args.key) == ("data/optimizer_results_robust.json", None)
    assert args.config is None
    assert apply_optimized_params.CONFIG == ROOT / "config.py"


def test_the_mode_is_kept_and_a_link_stays_a_link(apply: Apply, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (tmp_path / "config.py").rename(folder / "mine.py")
    (folder / "mine.py").chmod(0o640)
    (tmp_path / "config.py").symlink_to("elsewhere/mine.py")
    out = apply(best(gamma=0.75), "--yes")[1]
    assert "mv elsewhere/mine.py.bak elsewhere/mine.py" in out
    assert (tmp_path / "config.py").is_symlink()
    assert in_config(tmp_path)["gamma"] == 0.75
    for name in ("mine.py", "mine.py.bak"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_root_leaves_the_file_to_its_owner(apply: Apply, tmp_path: Path) -> None:
    os.chown(tmp_path / "config.py", 12_345, 23_456)
    apply(best(gamma=0.75), "--yes")
    for name in ("config.py", "config.py.bak"):
        found = (tmp_path / name).stat()
        assert (found.st_uid, found.st_gid) == (12_345, 23_456)


def test_python_never_takes_the_new_file_for_the_old_compiled_one(
    apply: Apply, tmp_path: Path
) -> None:
    # Python recompiles where size or second of change differ; here the size is the same.
    before = (tmp_path / "config.py").stat()
    apply(best(grid_levels=6), "--yes")
    after = (tmp_path / "config.py").stat()
    assert after.st_size == before.st_size
    assert int(after.st_mtime) > int(before.st_mtime)
    assert (tmp_path / "config.py.bak").stat().st_mtime_ns == before.st_mtime_ns


# --- how values are written ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "value", "new"),
    [
        ("5,  # levels", 6, "6,  # levels"),
        ("10_000.0", 1_234_567.5, "1_234_567.5"),
        ("1_000", 25_000, "25_000"),
        ("-4.0", 3.0, "3.0"),
        ("4.0", -3.0, "-3.0"),
        ("- 4.0", -3.5, "-3.5"),
        ("(0.5)", 0.25, "(0.25)"),
        ("0.5", 1e-07, "1e-07"),
        ("'auto'", "low_first", "'low_first'"),
        ('"auto"', "low_first", '"low_first"'),
        ("True", False, "False"),
        ("('A', 'B')", ["A"], "('A',)"),
        ("['A']", ["B", "C"], "['B', 'C']"),
        ("()", ["A"], '("A",)'),
        ("[]", ["A", "B"], '["A", "B"]'),
        ("('A', 'B')", [], "()"),
        ("('A','B',)", ["C", "D", "E"], "('C','D','E',)"),
        ('"GAP OFFSET"', ["GAP", "OLDEST"], '"GAP OLDEST"'),
        (
            '(\n        "A",\n        "B",\n    )',
            ["A", "C", "D"],
            '(\n        "A",\n        "C",\n        "D",\n    )',
        ),
    ],
)
def test_a_value_is_written_the_way_the_old_one_was(old: str, value: Any, new: str) -> None:
    source = "X = 1\n\nSTRATEGY_PARAMS = {{\n    'a': 1,\n    'b':  {}\n}}  # end\n"
    assert rewrite(source.format(old), b=value) == source.format(new)


@pytest.mark.parametrize(
    "source",
    [
        b'STRATEGY_PARAMS: dict[str, object] = {"b": 1}\n',
        b'OTHER = STRATEGY_PARAMS = {"b": 1}',
        b'STRATEGY_PARAMS={"b":1};X={"b":1}\n',
        b'STRATEGY_PARAMS = (\r\n\t{"b": 1 ,  # c\r\n\t}\r\n)\r\n',
        b'\xef\xbb\xbfSTRATEGY_PARAMS = {"b": 1}\n',
        b'# coding: latin-1\nSTRATEGY_PARAMS = {"a": "\xe9", "b": 1}\n',
        b'STRATEGY_PARAMS = {"b": 1}\n\x0c\nX = {"b": 1}   \n# end',
    ],
    ids=["annotated", "chain", "one line", "crlf", "mark", "latin", "form feed"],
)
def test_every_other_byte_of_any_layout_stays(source: bytes) -> None:
    place = source.index(b"1", source.index(b'"b"'))
    after, texts = rewritten(source, "STRATEGY_PARAMS", {"b": 23}, "config.py")
    assert after == source[:place] + b"23" + source[place + 1 :]
    assert texts == {"b": ("1", "23")}


@pytest.mark.parametrize(
    ("params", "written"),
    [
        ({"grid_levels": 6.0}, {"grid_levels": 6}),
        ({"leverage": 2}, {"leverage": 2.0}),
        ({"kelly_enabled": 0}, {"kelly_enabled": False}),
        ({"intrabar_path": "LOW_FIRST"}, {"intrabar_path": "low_first"}),
        ({"prune_enabled": ["OFFSET", "gap"]}, {"prune_enabled": ("GAP", "OFFSET")}),
        ({"prune_enabled": []}, {"prune_enabled": ()}),
        ({"grid_levels": "6"}, {"grid_levels": 6}),
    ],
)
@pytest.mark.slow
def test_a_value_is_written_as_its_parameters_type(
    apply: Apply, tmp_path: Path, params: dict[str, Any], written: dict[str, Any]
) -> None:
    assert apply(best(**params), "--yes")[0] == 0
    after = in_config(tmp_path)
    assert after == {**STRATEGY_PARAMS, **written}
    assert all(type(after[name]) is type(value) for name, value in written.items())


def json_values() -> st.SearchStrategy[dict[str, Any]]:
    """Return values of some parameters, each within its bounds, as JSON holds them."""
    defaults = StrategyParams.from_dict(STRATEGY_PARAMS)
    rules = [rule.name for rule in PruneRule]
    choices: dict[str, st.SearchStrategy[Any]] = {}
    for name, item in param_fields().items():
        limits, now = item.metadata, getattr(defaults, name)
        if isinstance(now, bool):
            choices[name] = st.booleans()
        elif isinstance(now, PruneRule):
            choices[name] = st.lists(st.sampled_from(rules), unique=True)
        elif "low" not in limits:
            choices[name] = st.sampled_from([member.name.lower() for member in type(now)])
        elif isinstance(now, int):
            choices[name] = st.integers(int(limits["low"]), int(limits["high"]))
        else:
            choices[name] = st.floats(limits["low"], limits["high"])
    names = st.sets(st.sampled_from(sorted(choices)), min_size=1, max_size=12)
    return names.flatmap(
        lambda some: st.fixed_dictionaries({name: choices[name] for name in sorted(some)})
    )


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(params=json_values())
def test_any_valid_values_are_what_the_next_import_gives(
    tmp_path: Path, params: dict[str, Any]
) -> None:
    config = tmp_path / "config.py"
    config.write_bytes(CONFIG)
    text = json.loads(json.dumps(params))
    try:
        expected = StrategyParams.from_dict({**STRATEGY_PARAMS, **params})
    except ConfigError as contradiction:
        with pytest.raises(ConfigError, match=str(contradiction).split(" = ")[0]):
            plan_edit(config, text)
        assert config.read_bytes() == CONFIG
        return
    edit = plan_edit(config, text)
    write_edit(edit)
    after = imported(config)
    assert StrategyParams.from_dict(after["STRATEGY_PARAMS"]) == expected
    others = {name: value for name, value in after["STRATEGY_PARAMS"].items() if name not in params}
    assert others == {name: STRATEGY_PARAMS[name] for name in others}
    assert comments(config.read_bytes()) == comments(CONFIG)
    assert plan_edit(config, text).changes == ()


# --- asking -------------------------------------------------------------------------------------


def test_without_a_terminal_somebody_must_have_said_yes(apply: Apply, tmp_path: Path) -> None:
    line = refusal(apply(best(gamma=0.75)))
    assert "not a terminal: add --yes to write 1 value to config.py, or --preview" in line
    assert untouched(tmp_path)


class Terminal(io.StringIO):
    """Standard input of somebody who answers."""

    def isatty(self) -> bool:
        """Return that a person is there."""
        return True


@pytest.mark.parametrize("answer", ["y\n", "Yes\n"])
def test_a_yes_writes(
    apply: Apply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    code, _, err = apply(best(gamma=0.75, kappa=2), "--key", "best_params")
    assert (code, err) == (0, "Write these 2 values to config.py? [y/N] ")
    assert in_config(tmp_path)["gamma"] == 0.75


@pytest.mark.parametrize("answer", ["\n", "n\n", "maybe\n", ""])
def test_anything_but_a_yes_writes_nothing(
    apply: Apply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    code, out, err = apply(best(gamma=0.75))
    assert code == 1
    assert out.endswith("nothing written\n")
    assert err.startswith("Write this value to config.py? [y/N] ")
    assert untouched(tmp_path)


@pytest.mark.slow
def test_ctrl_c_at_the_question_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_bytes(CONFIG)
    (tmp_path / "results.json").write_text(json.dumps(best(gamma=0.75)))
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        str(ROOT / "apply_optimized_params.py"),
        "--params",
        "results.json",
        "--config",
        "config.py",
    ]
    with subprocess.Popen(  # noqa: S603 - this project's own command
        command, cwd=tmp_path, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        os.close(theirs)
        assert process.stderr is not None
        asked = b""
        while not asked.endswith(b"[y/N] "):
            byte = process.stderr.read(1)
            assert byte, asked
            asked += byte
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"\ninterrupted; nothing changed\n"
        assert process.wait() == 130
    os.close(ours)
    assert untouched(tmp_path)


def test_an_interruption_while_planning_changes_nothing(
    apply: Apply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(config_edit, "_prove", interrupted)
    code, out, err = apply(best(gamma=0.75), "--yes")
    assert (code, out, err) == (130, "", "\ninterrupted; nothing changed\n")
    assert untouched(tmp_path)


def test_ctrl_c_during_the_write_comes_too_late(
    apply: Apply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, handler = os.fsync, signal.getsignal(signal.SIGINT)

    def press(number: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        fsync(number)

    monkeypatch.setattr(os, "fsync", press)
    code, out, _ = apply(best(gamma=0.75), "--yes")
    assert code == 0
    assert "wrote 1 value" in out
    assert in_config(tmp_path)["gamma"] == 0.75
    assert signal.getsignal(signal.SIGINT) is handler


# --- what the file says about its parameters ----------------------------------------------------


@pytest.mark.parametrize("answer", ["failed", "not tested"])
def test_parameters_that_failed_or_were_not_tested_need_force(
    apply: Apply, tmp_path: Path, answer: str
) -> None:
    failed = {**ROBUST, "verdict": {"answer": answer, "why": ["Holdout v. nothing: -1.00 %"]}}
    for flags in (["--yes"], []):
        line = refusal(apply(failed, "--key", "robust_params", *flags))
        assert f"the verdict on robust_params is: {answer} (Holdout v. nothing: -1.00 %)" in line
        assert "--force" in line
        assert "--preview shows" in line
    assert untouched(tmp_path)
    code, _, err = apply(failed, "--key", "robust_params", "--yes", "--force")
    assert code == 0
    assert err.startswith(f"warning: the verdict on robust_params is: {answer}")
    assert in_config(tmp_path)["gamma"] == 0.75


@pytest.mark.parametrize(
    "content",
    [{**ROBUST, "verdict": {"answer": "failed", "why": []}}, {"best_params": {"gamma": 0.75}}],
)
def test_a_preview_shows_also_what_would_be_refused(
    apply: Apply, tmp_path: Path, content: dict[str, Any]
) -> None:
    code, out, err = apply(content, "--preview")
    assert code == 0
    assert err.startswith("warning: would be refused: results.json: ")
    assert "gamma" in out
    assert out.endswith("preview: nothing written\n")
    assert untouched(tmp_path)


def test_a_preview_shows_what_other_values_would_have_it_refused(
    apply: Apply, tmp_path: Path
) -> None:
    now = StrategyParams.from_dict(in_config(tmp_path)).to_dict()
    whole = {**best(gamma=0.75), "params": {**now, "gamma": 0.75, "leverage": 3.0}}
    code, out, err = apply(whole, "--preview")
    assert code == 0
    assert "would be refused: results.json: together with what config.py has" in err
    assert "gamma" in out


def test_the_robust_choice_is_taken_unless_another_is_named(apply: Apply) -> None:
    both = {**ROBUST, "best_params": {"gamma": 0.9}}
    code, out, _ = apply(both, "--preview")
    assert code == 0
    assert "robust_params -> config.py" in out
    assert "0.75" in out
    assert "0.9" in apply(both, "--preview", "--key", "best_params")[1]
    assert Path("data") / RESULTS == apply_optimized_params.PARAMS


def test_undecided_parameters_are_written_only_by_whoever_has_read_why(
    apply: Apply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {**best(gamma=0.75), "verdict": {"answer": "undecided", "why": ["Permuted bars: 0.3"]}}
    line = refusal(apply(whole, "--yes"))
    assert "the verdict on best_params is: undecided (Permuted bars: 0.3)" in line
    assert "run it without --yes, read why, and answer" in line
    code, out, err = apply(whole, "--preview")
    assert code == 0
    assert "preview: nothing written" in out
    assert "undecided (Permuted bars: 0.3)" in err
    assert untouched(tmp_path)
    for answer, written in (("no", False), ("yes", True)):
        terminal = io.StringIO(f"{answer}\n")
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stdin", terminal)
        code, _, err = apply(whole)
        assert code == (0 if written else 1)
        assert "undecided (Permuted bars: 0.3)" in err
        assert "The verdict is: undecided. Write" in err
        assert (in_config(tmp_path)["gamma"] == 0.75) is written


def test_undecided_parameters_need_force_where_nobody_is_asked(
    apply: Apply, tmp_path: Path
) -> None:
    whole = {**best(gamma=0.75), "verdict": {"answer": "undecided", "why": []}}
    code, _, err = apply(whole, "--yes", "--force")
    assert (code, err) == (0, "warning: the verdict on best_params is: undecided\n")
    assert in_config(tmp_path)["gamma"] == 0.75


def test_the_answers_are_those_the_optimizer_writes() -> None:
    assert tuple(answer.value for answer in Answer) == ANSWERS


@pytest.mark.parametrize("content", [{}, {"verdict": None}, {"oos_pass": True}])
def test_a_file_without_a_verdict_needs_force(
    apply: Apply, tmp_path: Path, content: dict[str, Any]
) -> None:
    whole = {"best_params": {"gamma": 0.75}, **content}
    line = refusal(apply(whole, "--yes"))
    assert "nothing says whether best_params held on candles they were not chosen on" in line
    assert untouched(tmp_path)
    code, _, err = apply(whole, "--yes", "--force")
    assert code == 0
    assert err.startswith("warning: nothing says whether best_params held")


def test_what_a_good_verdict_does_not_tell_is_a_warning(apply: Apply) -> None:
    warnings = ["not distinguishable from luck by: Permuted bars", "the holdout was looked at"]
    code, _, err = apply({**best(gamma=0.75), "oos_warnings": warnings}, "--yes")
    assert code == 0
    assert err.splitlines() == [f"warning: {text}" for text in warnings]
    wrong = {**best(gamma=0.75), "oos_warnings": "many"}
    assert 'oos_warnings = "many" must be a list' in refusal(apply(wrong, "--yes"))


def test_values_tested_with_another_config_need_force(apply: Apply, tmp_path: Path) -> None:
    now = StrategyParams.from_dict(in_config(tmp_path)).to_dict()
    tested = {**now, "gamma": 0.75, "leverage": 3.0, "grid_mode": "arithmetic"}
    whole = {**best(gamma=0.75), "params": tested}
    line = refusal(apply(whole, "--yes"))
    assert f"leverage 3.0, config.py has {now['leverage']}" in line
    assert "grid_mode arithmetic, config.py has geometric" in line
    assert "gamma" not in line
    assert untouched(tmp_path)
    code, _, err = apply(whole, "--yes", "--force")
    assert code == 0
    assert "leverage 3.0" in err


def test_values_tested_with_this_config_are_taken_in_silence(apply: Apply, tmp_path: Path) -> None:
    now = StrategyParams.from_dict(in_config(tmp_path)).to_dict()
    code, _, err = apply({**best(gamma=0.75), "params": {**now, "gamma": 0.75}}, "--yes")
    assert (code, err) == (0, "")
    assert "params is [1]" in refusal(apply({**best(gamma=0.75), "params": [1]}, "--yes"))


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        ("held", 'verdict.answer = "held" must be one of held, undecided, failed, not tested'),
        ({"answer": "good"}, 'verdict.answer = "good" must be one of'),
        ({"answer": "held", "why": "x"}, 'verdict.why = "x" must be a list of texts'),
    ],
)
def test_a_verdict_that_is_no_verdict_is_refused(apply: Apply, verdict: Any, message: str) -> None:
    content = {"best_params": {"gamma": 0.75}, "verdict": verdict}
    assert message in refusal(apply(content, "--yes", "--force"))


# --- results files that cannot be used ----------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (best(grid_level=5), "unknown strategy parameter 'grid_level'; did you mean grid_levels?"),
        (best(grid_levels=3.5), "grid_levels = 3.5 must be a whole number"),
        (best(grid_levels=True), "grid_levels = True must be a whole number"),
        (best(grid_levels=None), "grid_levels = None must be a whole number"),
        (best(gamma=[1]), "gamma = [1] must be a number"),
        (best(kelly_enabled=2), "kelly_enabled = 2 must be true or false"),
        (best(prune_enabled=["GAPS"]), "prune_enabled = ['GAPS'] must be a list out of DEVIANCE"),
        (best(grid_mode="log"), "grid_mode = 'log' must be one of geometric, arithmetic"),
        (best(grid_levels=40), "grid_levels = 40 is outside [1, 24] levels per side"),
        (best(gamma=float("nan")), "gamma = nan is outside [0.001, 50]"),
        (best(gamma=float("inf")), "gamma = inf is outside"),
        (best(gamma=0.75, kama_fast=40), "kama_fast = 40 must be < kama_slow = 30"),
        (best(halt_z_threshold=-1), "halt_z_threshold = -1.0 must be < resume_z_threshold = -1.0"),
        (best(), "best_params is an empty object, must be an object of parameters"),
        ({"best_params": [1]}, "best_params is [1], must be an object of parameters"),
        ({"best_params": "x" * 80}, "..., must be an object of parameters"),
        (
            {"best_param": {}, "verdict": HELD},
            "did you mean best_param?; parameters are under one of robust_params, best_params",
        ),
        ({}, "must hold an object with results, not {}"),
        ([1], "must hold an object with results, not [1]"),
        ("", "is not usable as JSON"),
        ('{"best_params": {', "is not usable as JSON"),
        ('{"best_params": {"gamma": 1, "gamma": 2}}', "'gamma' stands in the same object twice"),
        ("[" * 100_000, "is not usable as JSON"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_unusable_results_are_one_line_exit_code_2_and_no_change(
    apply: Apply, tmp_path: Path, content: Any, message: str
) -> None:
    assert message in refusal(apply(content, "--yes"))
    assert untouched(tmp_path)


@pytest.mark.parametrize("path", ["none.json", "folder"])
def test_a_results_file_that_cannot_be_read_is_refused(
    apply: Apply, tmp_path: Path, path: str
) -> None:
    (tmp_path / "folder").mkdir()
    line = refusal(apply({}, "--params", path, "--yes"))
    assert path in line
    assert "choose a results file with --params FILE" in line


def test_bytes_that_are_no_text_are_refused(apply: Apply, tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\x00\xfe{")
    assert "is not usable as JSON" in refusal(apply({}, "--params", "binary.json", "--yes"))


# --- config files that cannot be rewritten safely -----------------------------------------------


def with_config(folder: Path, old: str, new: str) -> bytes:
    """Change the config beforehand and return it."""
    source = CONFIG.decode()
    assert source.count(old) == 1
    changed = source.replace(old, new).encode()
    (folder / "config.py").write_bytes(changed)
    return changed


GAMMA = '    "gamma": 0.5,\n'
LINE = CONFIG.decode().split(GAMMA)[0].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (GAMMA, '    "gamma": float("0.5"),\n', f'line {LINE}: gamma = float("0.5") is worked out'),
        (GAMMA, '    "gamma": 1 / 2,\n', f"line {LINE}: gamma = 1 / 2 is worked out"),
        (GAMMA, '    "gamma": 0.5 if __name__ else 0.5,\n', f"line {LINE}: gamma = "),
        (GAMMA, '    "gamma": (\n        0.5  # half\n    ),\n', f"line {LINE}: gamma has a comm"),
        (GAMMA, GAMMA + GAMMA, f"line {LINE + 1}: 'gamma' is set on line {LINE} already; keep one"),
        (GAMMA, '    **{"gamma": 0.5},\n', f"line {LINE}: STRATEGY_PARAMS must list its keys"),
        (GAMMA, '    "gam" "ma": 0.5,\n', f"line {LINE}: a key of STRATEGY_PARAMS must be written"),
        (GAMMA, '    "gamma": 0.5,\n    5: 1,\n', "must hold plain values under names"),
        (GAMMA, "", "missing strategy parameters: gamma"),
        (GAMMA, '    "gamma": object(),\n', "must hold plain values"),
        (GAMMA, '    "gamma": 0.5\n', "is not Python: "),
        (GAMMA, '    "gamma": HALF,\n', "cannot be imported: NameError: name 'HALF' is not def"),
        (GAMMA, '    "gamma": 99.0,\n', "gamma = 99.0 is outside [0.001, 50]"),
        ("STRATEGY_PARAMS = {", "STRATEGY = {", "must hold a dict STRATEGY_PARAMS, and has none"),
        ("STRATEGY_PARAMS = {", "STRATEGY_PARAMS = dict() | {", "STRATEGY_PARAMS must be a plain"),
        ("STRATEGY_PARAMS = {", "if True:\n  STRATEGY_PARAMS = {", "has no line STRATEGY_PARAMS ="),
        (
            "BACKTEST_CONFIG = {",
            'STRATEGY_PARAMS["gamma"] = 0.5\nBACKTEST_CONFIG = {',
            "would not give what they should in: gamma;",
        ),
        (
            "BACKTEST_CONFIG = {",
            'BACKTEST_CONFIG = {\n    "gamma": STRATEGY_PARAMS["gamma"],',
            "would not give what they should in: BACKTEST_CONFIG;",
        ),
        (
            "BACKTEST_CONFIG = {",
            "STRATEGY_PARAMS = {**STRATEGY_PARAMS}\nBACKTEST_CONFIG = {",
            "STRATEGY_PARAMS is assigned on lines",
        ),
        ("BACKTEST_CONFIG = {", "raise SystemExit\nBACKTEST_CONFIG = {", "it ends Python"),
        (
            "BACKTEST_CONFIG = {",
            'assert STRATEGY_PARAMS["gamma"] < 0.7\nBACKTEST_CONFIG = {',
            "cannot be imported: AssertionError",
        ),
        ("BACKTEST_CONFIG = {", "return\nBACKTEST_CONFIG = {", "'return' outside function"),
    ],
)
@pytest.mark.slow
def test_a_config_that_cannot_be_rewritten_safely_stays(
    apply: Apply, tmp_path: Path, old: str, new: str, message: str
) -> None:
    before = with_config(tmp_path, old, new)
    assert message in refusal(apply(best(gamma=0.75), "--yes"))
    assert (tmp_path / "config.py").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"config.py", "results.json"}


def test_a_syntax_error_is_named_with_its_line(apply: Apply, tmp_path: Path) -> None:
    with_config(tmp_path, GAMMA, '    "gamma" 0.5,\n')
    assert f"config.py line {LINE}: is not Python: " in refusal(apply(best(gamma=0.75), "--yes"))


def test_bytes_that_are_no_source_are_refused(apply: Apply, tmp_path: Path) -> None:
    for source in (b"\x00", b"# \xff\n", b"# coding: nonsense\n"):
        (tmp_path / "config.py").write_bytes(source + CONFIG)
        assert "is not Python: " in refusal(apply(best(gamma=0.75), "--yes"))


def test_an_expression_nobody_wants_to_change_may_stay(apply: Apply, tmp_path: Path) -> None:
    with_config(tmp_path, GAMMA, '    "gamma": float("0.5"),\n')
    assert apply(best(gamma=0.5, kappa=2), "--yes")[0] == 0
    assert (in_config(tmp_path)["gamma"], in_config(tmp_path)["kappa"]) == (0.5, 2.0)


def test_a_config_may_print_import_its_neighbours_and_know_its_place(
    apply: Apply, tmp_path: Path
) -> None:
    (tmp_path / "neighbour.py").write_text("HERE = 1\n")
    with_config(
        tmp_path,
        "BACKTEST_CONFIG = {",
        'import neighbour\nfrom pathlib import Path\nprint("hello")\n'
        'PLACE = {"file": Path(__file__).name, "name": __name__, "here": neighbour.HERE}\n'
        'assert PLACE == {"file": "config.py", "name": "config", "here": 1}\nBACKTEST_CONFIG = {',
    )
    code, out, _ = apply(best(gamma=0.75), "--yes")
    assert code == 0
    assert "hello" not in out


def test_a_config_that_is_not_there_is_refused(apply: Apply, tmp_path: Path) -> None:
    assert "none.py: No such file" in refusal(apply(best(gamma=1), "--config", "none.py", "--yes"))
    assert untouched(tmp_path)


# --- disks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_read_only_is_refused_before_anybody_is_asked(
    apply: Apply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.move(tmp_path / "config.py", folder / "config.py")
    target, mode = {"file": (folder / "config.py", 0o444), "folder": (folder, 0o555)}[what]
    target.chmod(mode)
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    try:
        line = refusal(apply(best(gamma=0.75), "--config", "folder/config.py"))
        assert apply(best(gamma=0.75), "--config", "folder/config.py", "--preview")[0] == 0
    finally:
        target.chmod(0o755)
    assert f"the {what} is read-only" in line
    assert untouched(folder)


@pytest.mark.parametrize("call", ["fsync", "replace", "utime"])
@pytest.mark.slow
def test_a_disk_that_refuses_leaves_the_old_file_and_no_other(
    apply: Apply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        code, _, err = apply(best(gamma=0.75), "--yes")
    assert code == 2
    assert err.startswith("error: cannot write ")
    assert err.endswith("config.py: No space left on device; it is as it was\n")
    assert err.count("\n") == 1
    assert untouched(tmp_path)


def test_a_backup_that_cannot_be_made_stops_the_write(apply: Apply, tmp_path: Path) -> None:
    (tmp_path / "config.py.bak").mkdir()
    code, _, err = apply(best(gamma=0.75), "--yes")
    assert code == 2
    assert "Is a directory" in err
    (tmp_path / "config.py.bak").rmdir()
    assert untouched(tmp_path)


def test_a_config_edited_while_the_question_stood_is_not_overwritten(tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_bytes(CONFIG)
    edit = plan_edit(config, {"gamma": 0.75})
    config.write_bytes(CONFIG + b"# mine\n")
    with pytest.raises(ConfigError, match="was changed by somebody else meanwhile"):
        write_edit(edit)
    assert config.read_bytes() == CONFIG + b"# mine\n"
    assert list(tmp_path.iterdir()) == [config]


def test_the_new_file_is_on_disk_before_it_replaces_the_old_and_the_folder_after(
    apply: Apply, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, fsync = os.replace, os.fsync
    seen: list[object] = []

    def synced(number: int) -> None:
        fsync(number)
        seen.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file")

    def replaced(source: Path, target: Path) -> None:
        assert (tmp_path / "config.py").read_bytes() == CONFIG
        assert Path(source).parent == tmp_path
        seen.append((Path(target).name, Path(source).read_bytes()))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    apply(best(gamma=0.75), "--yes")
    after = (tmp_path / "config.py").read_bytes()
    assert after != CONFIG
    backup = ("config.py.bak", CONFIG)
    assert seen == ["file", "file", backup, ("config.py", after), "folder"]


# --- help ---------------------------------------------------------------------------------------


def test_help_explains_every_flag_and_its_examples_can_be_parsed() -> None:
    parser = apply_optimized_params.build_parser()
    text = parser.format_help()
    for action in parser._actions:  # noqa: SLF001 - argparse shows them no other way
        assert action.help
        assert all(option in text for option in action.option_strings)
    start = "  python3 apply_optimized_params.py"
    lines = apply_optimized_params.EXAMPLES.splitlines()
    examples = [line for line in lines if line.startswith(start)]
    assert len(examples) >= 3
    for line in examples:
        parser.parse_args(line.split()[2:])


@pytest.mark.slow
def test_help_loads_no_library_and_survives_a_broken_config(tmp_path: Path) -> None:
    script = (
        "import sys, apply_optimized_params as a; a.build_parser().format_help(); "
        "print([n for n in ('libcst', 'numba', 'numpy', 'pandas', 'config') if n in sys.modules])"
    )
    done = subprocess.run(  # noqa: S603 - this project's own command
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    command = [sys.executable, str(ROOT / "apply_optimized_params.py"), "--yes"]
    done = subprocess.run(  # noqa: S603 - this project's own command
        command, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: data/optimizer_results_robust.json: No such file")


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("flag", "code", "message"),
    [
        ("--yes", 2, "error: standard output was closed before the write; nothing changed\n"),
        ("--preview", 0, ""),
    ],
)
def test_a_reader_who_has_gone_before_the_write_stops_it(
    tmp_path: Path, unbuffered: str, flag: str, code: int, message: str
) -> None:
    (tmp_path / "config.py").write_bytes(CONFIG)
    (tmp_path / "results.json").write_text(json.dumps(best(gamma=0.75)))
    command = [
        sys.executable,
        str(ROOT / "apply_optimized_params.py"),
        "--params",
        "results.json",
        "--config",
        "config.py",
        flag,
    ]
    with subprocess.Popen(  # noqa: S603 - this project's own command
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read().decode() == message
        assert process.wait() == code
    assert untouched(tmp_path)
