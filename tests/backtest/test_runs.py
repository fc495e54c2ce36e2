"""The register of runs: ``--list``, ``--diff``, and registers that are damaged."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backtest.commands.flags import HONOURED
from backtest.results.diff import diff_runs, diff_text, diff_trades
from backtest.results.register import (
    COPIES,
    REGISTER,
    find_run,
    new_run_id,
    parameters_hash,
    read_copy,
    read_register,
    record_run,
    runs_table,
)
from backtest.simulator import BacktestSimulator
from config import STRATEGY_PARAMS
from core.errors import ConfigError, DataError
from main import build_parser
from tests.support.results.typed import typed

START, END = "2024-01-10", "2024-01-30"
Result = dict[str, Any]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def result() -> Result:
    return BacktestSimulator({}, source="demo").run_single("BTC", START, END)


@pytest.fixture(scope="module")
def other() -> Result:
    changed = {"grid_levels": 3, "order_pct": 0.04}
    return BacktestSimulator(changed, source="demo").run_single("BTC", START, END)


def demo(*arguments: str) -> list[str]:
    return ["--demo", "--no-plot", "--start", START, "--end", END, *arguments]


def record(folder: Path, result: Result) -> str:
    run_id = new_run_id(folder)
    record_run(folder, run_id, typed(result))
    return run_id


# --- the register -------------------------------------------------------------------------------


def test_every_finished_coin_is_on_record(run: Run, tmp_path: Path) -> None:
    code, _, err = run(*demo("--coins", "BTC", "ETH"))
    assert code == 0
    entries = read_register(tmp_path / "data" / "output")
    assert {entry["coin"] for entry in entries} == {"BTC", "ETH"}
    for entry in entries:
        assert f"(run {entry['id']})" in err


def test_a_coin_that_failed_is_not_on_record(run: Run, tmp_path: Path) -> None:
    assert run(*demo("--coins", "BTC", "DOGE"))[0] == 2
    assert [entry["coin"] for entry in read_register(tmp_path / "data" / "output")] == ["BTC"]


def test_an_entry_says_what_the_list_shows(tmp_path: Path, result: Result) -> None:
    run_id = record(tmp_path, result)
    (entry,) = read_register(tmp_path)
    assert entry["id"] == run_id
    assert entry["total_return_pct"] == result["metrics"]["total_return_pct"]
    assert entry["parameters_hash"] == parameters_hash(result["params"])
    assert entry["data_hash"] == result["data"]["hash"]
    table = runs_table([entry])
    assert run_id in table
    assert f"{result['metrics']['total_return_pct']:+.2f}%" in table
    assert entry["parameters_hash"][:6] in table
    assert entry["source"] == "demo"
    assert " demo " in table
    assert max(map(len, table.splitlines())) <= 80


@pytest.mark.parametrize(
    ("source", "word"),
    [("demo", "demo"), ("files in my candles", "files"), ("Binance USDT-M", "exchange")],
)
def test_the_list_says_where_candles_came_from(
    tmp_path: Path, result: Result, source: str, word: str
) -> None:
    record(tmp_path, {**result, "data": {**result["data"], "source": source}})
    (entry,) = read_register(tmp_path)
    losing = entry | {"total_return_pct": -34.56, "max_drawdown_pct": 45.67}
    line = runs_table([losing]).splitlines()[-1]
    assert line.split()[4] == word
    assert len(line) <= 80


def test_runs_recorded_before_the_source_was_are_listed(tmp_path: Path, result: Result) -> None:
    record(tmp_path, result)
    (entry,) = read_register(tmp_path)
    del entry["source"]
    assert runs_table([entry]).splitlines()[-1].split()[4] == "-"


def test_the_copy_of_a_run_is_whole(tmp_path: Path, result: Result) -> None:
    summary, trades = read_copy(tmp_path, record(tmp_path, result))
    assert summary["parameters"] == json.loads(json.dumps(result["params"]))
    assert trades.count("\n") == len(result["trades"]) + 1


def test_the_hash_of_parameters_depends_on_values_not_on_order() -> None:
    params: dict[str, Any] = dict(STRATEGY_PARAMS)
    backwards = dict(reversed(params.items()))
    assert parameters_hash(params) == parameters_hash(backwards)
    assert parameters_hash(params) != parameters_hash({**params, "grid_levels": 9})


def test_coins_that_finish_at_once_lose_no_line(tmp_path: Path, result: Result) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: record(tmp_path, result), range(24)))
    assert {entry["id"] for entry in read_register(tmp_path)} == set(ids)


def test_a_full_disk_leaves_the_register_as_it_was(
    tmp_path: Path, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, result)
    before = (tmp_path / REGISTER).read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left on device"):
        record(tmp_path, result)
    assert (tmp_path / REGISTER).read_bytes() == before


# --- damaged registers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [b'{"id": "12', b"[1, 2]", b"\xff\xfe", b'{"id": "12345678"}', b'{"id": 7, "at": null}'],
    ids=["torn", "list", "bytes", "incomplete", "types"],
)
def test_a_damaged_line_is_set_aside_with_a_warning(
    tmp_path: Path, result: Result, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    first = record(tmp_path, result)
    with (tmp_path / REGISTER).open("ab") as register:
        register.write(line + b"\n")
    second = record(tmp_path, result)
    assert [entry["id"] for entry in read_register(tmp_path)] == [first, second]
    assert "1 damaged lines moved to runs.jsonl.corrupt" in caplog.text
    assert (tmp_path / "runs.jsonl.corrupt").read_bytes() == line + b"\n"
    caplog.clear()
    assert len(read_register(tmp_path)) == 2
    assert caplog.text == ""


def test_a_line_after_a_torn_one_is_not_lost(tmp_path: Path, result: Result) -> None:
    first = record(tmp_path, result)
    with (tmp_path / REGISTER).open("ab") as register:
        register.write(b'{"id": "torn')  # no line end: the process was killed here
    second = record(tmp_path, result)
    assert [entry["id"] for entry in read_register(tmp_path)] == [first, second]


def test_a_register_that_cannot_be_repaired_is_read_all_the_same(
    tmp_path: Path,
    result: Result,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = record(tmp_path, result)
    with (tmp_path / REGISTER).open("ab") as register:
        register.write(b"rubbish\n")

    def read_only(*_: Any, **__: Any) -> None:
        raise DataError("cannot write")

    monkeypatch.setattr("backtest.results.register.write_file", read_only)
    assert [entry["id"] for entry in read_register(tmp_path)] == [first]
    assert "damaged lines, which are left out" in caplog.text


def test_a_register_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / REGISTER).mkdir()
    with pytest.raises(DataError, match="cannot read"):
        read_register(tmp_path)


# --- choosing a run -----------------------------------------------------------------------------


def entries_called(*ids: str) -> list[dict[str, Any]]:
    return [{"id": run_id} for run_id in ids]


def test_a_run_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    entries = entries_called("12345678", "12abcdef")
    assert find_run(entries, "123", tmp_path) is entries[0]
    assert find_run(entries, "12AB", tmp_path) is entries[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9", "unknown run '9'; --list shows the 2 on record"),
        ("12", "run '12' could be any of 12345678, 12abcdef; give more digits"),
        ("", "could be any of"),
    ],
)
def test_an_unknown_or_ambiguous_run_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        find_run(entries_called("12345678", "12abcdef"), text, tmp_path)


def test_without_runs_none_can_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run is on record"):
        find_run([], "1", tmp_path)


# --- differences --------------------------------------------------------------------------------


def test_equal_runs_differ_in_nothing(tmp_path: Path, result: Result) -> None:
    diff = diff_runs(tmp_path, record(tmp_path, result), record(tmp_path, result))
    assert (diff["results"], diff["parameters"], diff["data"], diff["market"]) == ({}, {}, {}, {})
    assert diff["code_fingerprint"] is None
    assert diff["trades"]["first_difference"] is None
    text = diff_text(diff)
    assert "Parameters: the same" in text
    assert f"Trades: the same {len(result['trades']):,} records" in text


def test_changed_parameters_and_the_first_other_trade_are_named(
    tmp_path: Path, result: Result, other: Result
) -> None:
    diff = diff_runs(tmp_path, record(tmp_path, result), record(tmp_path, other))
    assert diff["parameters"] == {"grid_levels": [5, 3], "order_pct": [0.05, 0.04]}
    assert diff["data"] == {}
    first = diff["trades"]["first_difference"]
    pairs = zip(result["trades"], other["trades"], strict=False)
    expected = next(k for k, (a, b) in enumerate(pairs, start=1) if a != b)
    assert first["number"] == expected
    assert "qty" in first["columns"]
    text = diff_text(diff)
    assert "grid_levels  5 -> 3" in text
    assert "  A  2024-01-" in text


def test_other_data_and_other_code_are_named(tmp_path: Path, result: Result) -> None:
    changed = {**result, "data": result["data"] | {"hash": "other"}, "fingerprint": "newer"}
    diff = diff_runs(tmp_path, record(tmp_path, result), record(tmp_path, changed))
    assert diff["data"] == {"hash": [result["data"]["hash"], "other"]}
    assert diff["code_fingerprint"] == [result["fingerprint"], "newer"]
    assert f"fingerprint  {result['fingerprint']} -> newer" in diff_text(diff)


def trade(**values: str) -> dict[str, str]:
    names = ("bar", "datetime", "label", "price", "qty", "regime", "pnl", "fee", "fill_id")
    return {**dict.fromkeys(names, "0"), **values}


def test_the_bar_is_not_compared_because_it_counts_from_the_start() -> None:
    assert diff_trades([trade(bar="1")], [trade(bar="97")])["first_difference"] is None


def test_a_trade_only_one_run_has_is_a_difference() -> None:
    diff = diff_trades([trade(), trade(price="7")], [trade()])
    assert diff["counts"] == [2, 1]
    assert diff["first_difference"] == {
        "number": 2,
        "columns": [],
        "rows": [trade(price="7"), None],
    }


@pytest.mark.parametrize("damage", ["gone", "no json", "no gzip", "no object"])
def test_a_copy_that_cannot_be_read_is_refused(tmp_path: Path, result: Result, damage: str) -> None:
    good, bad = record(tmp_path, result), record(tmp_path, result)
    copy = tmp_path / COPIES / bad
    if damage == "gone":
        shutil.rmtree(copy)
    elif damage == "no gzip":
        (copy / "trades.csv.gz").write_bytes(b"rubbish")
    else:
        (copy / "summary.json").write_text("{" if damage == "no json" else "[]")
    with pytest.raises(DataError, match="run it again"):
        diff_runs(tmp_path, good, bad)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda _: {}, "lacks metrics"),
        (lambda s: {**s, "parameters": 5}, "parameters = 5 must be an object"),
        (lambda s: {**s, "data": [1]}, r"data = \[1\] must be an object"),
    ],
)
def test_a_copy_without_its_sections_is_refused(
    tmp_path: Path, result: Result, spoil: Callable[[Any], Any], message: str
) -> None:
    good, bad = record(tmp_path, result), record(tmp_path, result)
    copy = tmp_path / COPIES / bad / "summary.json"
    copy.write_text(json.dumps(spoil(json.loads(copy.read_text()))))
    with pytest.raises(DataError, match=message):
        diff_runs(tmp_path, good, bad)


# --- the commands -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "run_id", ["../../elsewhere", "/etc", "", "3f9c81d", "3F9C81D0", "3f9c81d0\n", "3f9c81d0/.."]
)
def test_what_is_no_id_names_no_folder(tmp_path: Path, result: Result, run_id: str) -> None:
    with pytest.raises(DataError, match="must be 8 hexadecimal digits"):
        read_copy(tmp_path, run_id)
    with pytest.raises(DataError, match="must be 8 hexadecimal digits"):
        record_run(tmp_path, run_id, typed(result))
    assert list(tmp_path.iterdir()) == []


def test_a_line_of_the_register_whose_id_names_a_folder_elsewhere_is_damaged(
    tmp_path: Path, result: Result
) -> None:
    record(tmp_path, result)
    path = tmp_path / "runs.jsonl"
    entry = json.loads(path.read_text()) | {"id": "../../elsewhere"}
    path.write_text(path.read_text() + json.dumps(entry) + "\n")
    assert len(read_register(tmp_path)) == 1
    assert "elsewhere" in (tmp_path / "runs.jsonl.corrupt").read_text()


def test_list_shows_the_runs_oldest_first(run: Run) -> None:
    run(*demo("--coins", "BTC"))
    run(*demo("--coins", "ETH", "--set", "grid_levels=4"))
    code, out, err = run("--list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split()[:3] == ["id", "run", "at,"]
    assert [line.split()[3] for line in lines[2:]] == ["BTC", "ETH"]
    code, out, _ = run("--list", "--json")
    assert [entry["coin"] for entry in json.loads(out)] == ["BTC", "ETH"]


def test_list_says_where_it_looked_when_there_is_nothing(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("--list")
    assert code == 0
    assert out == "no run is on record in data/output/runs.jsonl; every backtest adds one\n"
    assert list(tmp_path.iterdir()) == []


def test_runs_in_another_folder_are_listed_there(run: Run) -> None:
    run(*demo("--coins", "BTC", "--output", "there"))
    assert "BTC" in run("--list", "--output", "there")[1]
    assert "no run is on record" in run("--list")[1]


def test_diff_prints_what_differs(run: Run) -> None:
    run(*demo("--coins", "BTC"))
    run(*demo("--coins", "BTC", "--set", "grid_levels=3"))
    ids = [entry["id"] for entry in json.loads(run("--list", "--json")[1])]
    code, out, _ = run("--diff", *ids)
    assert code == 0
    assert "grid_levels  5 -> 3" in out
    code, out, _ = run("--diff", *ids, "--json")
    assert json.loads(out)["parameters"] == {"grid_levels": [5, 3]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--diff", "zz", "zz"], "unknown run 'zz'; --list shows the 1 on record"),
        (["--diff", "zz", "zz", "--output", "empty"], "no run is on record in empty/runs.jsonl"),
    ],
)
def test_an_unknown_run_is_one_line_and_exit_code_2(
    run: Run, arguments: list[str], message: str
) -> None:
    run(*demo("--coins", "BTC"))
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


# --- flags that contradict each other ---


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--list", "--check", "parity"], ("--list", "--check")),
        (["--demo", "--check", "parity", "--bands"], ("--check", "--bands")),
        (["--demo", "--check", "parity", "--output", "there"], ("--check", "--output")),
        (["--list", "--compare"], ("--list", "--compare")),
        (["--demo", "--audit", "--compare"], ("--audit", "--compare")),
        (["--list", "--coins", "ETH", "--start", START], ("--list", "--coins")),
        (["--diff", "a", "b", "--demo"], ("--diff", "--demo")),
        (["--list-params", "--json"], ("--list-params", "--json")),
        (["--demo", "--compare", "--output", "there"], ("--compare", "--output")),
        (["--demo", "--audit", "--no-plot"], ("--audit", "--no-plot")),
    ],
    ids=" ".join,
)
def test_flags_that_would_be_ignored_are_refused(
    run: Run, tmp_path: Path, arguments: list[str], names: tuple[str, str]
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert f"error: {names[0]} and {names[1]} do not go together" in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_every_flag_is_known_to_the_rules_about_flags() -> None:
    known = set(vars(build_parser().parse_args([])))
    assert set(HONOURED) <= known
    assert {name for honoured in HONOURED.values() for name in honoured} <= known


# --- a second run into the same folder ---


def test_files_of_an_earlier_run_do_not_stay_beside_new_ones(run: Run, tmp_path: Path) -> None:
    there = ["--demo", "--start", START, "--end", END, "--output", "there"]
    assert run(*there, "--coins", "BTC", "ETH")[0] == 0
    folder = tmp_path / "there"
    (folder / "BTC_notes.txt").write_text("mine")
    (folder / "portfolio_trades.csv").write_text("mine")
    code, _, err = run(*there, "--coins", "BTC", "--no-plot", "--set", "grid_levels=3")
    assert code == 0
    assert "BTC: removed BTC_report.html, BTC_equity.png, BTC_trades.png of an earlier run" in err
    assert "portfolio: removed portfolio_summary.json, portfolio_report.html" in err
    left = {path.name for path in folder.iterdir() if path.is_file()}
    assert {name for name in left if name.startswith("BTC")} == {
        "BTC_trades.csv",
        "BTC_summary.json",
        "BTC_notes.txt",
    }
    assert {name for name in left if name.startswith("portfolio")} == {"portfolio_trades.csv"}
    assert "ETH_report.html" in left


def test_a_portfolio_of_other_coins_stays(run: Run, tmp_path: Path) -> None:
    there = [*demo("--output", "there"), "--coins"]
    assert run(*there, "BTC", "ETH")[0] == 0
    code, _, err = run(*there, "SOL")
    assert code == 0
    assert "removed" not in err
    assert (tmp_path / "there" / "portfolio_summary.json").exists()


# --- for machines -------------------------------------------------------------------------------


def test_json_is_the_only_thing_on_standard_output(run: Run) -> None:
    code, out, err = run(*demo("--coins", "BTC", "ETH", "--json"))
    assert code == 0
    document = json.loads(out)
    assert list(document["coins"]) == ["BTC", "ETH"]
    assert document["failed"] == {}
    bitcoin = document["coins"]["BTC"]
    assert abs(bitcoin["attribution"]["identity"]["difference"]) < 1e-6
    assert bitcoin["data"]["hash"]
    assert f"(run {bitcoin['run_id']})" in err
    assert document["portfolio"]["metrics"]["final_capital"] == pytest.approx(
        sum(coin["metrics"]["final_capital"] for coin in document["coins"].values())
    )


def test_json_names_the_coins_that_failed(run: Run) -> None:
    code, out, _ = run(*demo("--coins", "BTC", "DOGE", "--json"))
    assert code == 2
    document = json.loads(out)
    assert list(document["coins"]) == ["BTC"]
    assert document["portfolio"] is None
    assert "DOGE" in document["failed"]["DOGE"]
