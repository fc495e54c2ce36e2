"""``main.py``: arguments, exit codes, files, and every bad input with its message."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

import backtest.commands.backtest
import backtest.market.fetch
import backtest.market.sources
import main
from backtest.market.demo import demo_market
from backtest.market.market_data import MarketData
from backtest.market.timeframes import parse_time
from config import PRESETS, STRATEGY_PARAMS
from core.errors import DataError
from engine.options import chosen_params
from tests.support.exchanges.public_data import JAN, FakeBinance
from tests.support.paths import ROOT

START, END = "2024-01-10", "2024-01-20"
RANGE = ["--start", START, "--end", END]
TOO_FEW = (
    "Insufficient data for BTC: 57 candles between 2024-01-10 00:00 and 2024-01-10 14:15, "
    "at least 100 needed"
)
COIN_FILES = ("trades.csv", "summary.json", "report.html")
HEAVY = ("numba", "pandas", "matplotlib", "bokeh", "ccxt", "sklearn", "numpy", "optuna")

Run = Callable[..., tuple[int, str, str]]


def demo(*arguments: str, plot: bool = False) -> list[str]:
    return ["--demo", *RANGE, *([] if plot else ["--no-plot"]), *arguments]


def files_in(folder: Path) -> set[str]:
    """Return the files but for the register of runs and its lock."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    register = {"runs", "runs.jsonl", ".runs.jsonl.lock"}
    return {str(path) for path in files if not register & {*path.parts}}


def error_line(outcome: tuple[int, str, str]) -> str:
    """Return the one line a refused command prints."""
    code, out, err = outcome
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.strip()


def summary(folder: Path, coin: str) -> dict[str, Any]:
    return dict(json.loads((folder / "data" / "output" / f"{coin}_summary.json").read_text()))


# --- what goes well -----------------------------------------------------------------------------


def test_the_demo_runs_prints_and_writes_everything(run: Run, tmp_path: Path) -> None:
    code, out, err = run(*demo("--coins", "BTC", "ETH", plot=True))
    assert code == 0
    assert "Portfolio" in out
    assert "Max drawdown" in out
    assert files_in(tmp_path) == {
        *(f"data/output/{c}_{f}" for c in ("BTC", "ETH") for f in COIN_FILES),
        *(f"data/charts/{c}_{f}.png" for c in ("BTC", "ETH") for f in ("equity", "trades")),
        "data/output/portfolio_summary.json",
        "data/output/portfolio_report.html",
        "data/charts/portfolio_equity.png",
    }
    assert "BTC: wrote BTC_trades.csv, BTC_summary.json, BTC_report.html in data/output" in err


def test_one_coin_makes_no_portfolio(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(*demo("--coins", "SOL", "sol/usdt"))
    assert code == 0
    assert "Portfolio" not in out
    assert files_in(tmp_path) == {"data/output/SOL_trades.csv", "data/output/SOL_summary.json"}


@pytest.mark.slow
def test_the_folder_of_all_files_can_be_chosen(run: Run, tmp_path: Path) -> None:
    assert run(*demo("--coins", "BTC", "--output", "there", plot=True))[0] == 0
    assert files_in(tmp_path) == {
        f"there/BTC_{name}" for name in (*COIN_FILES, "equity.png", "trades.png")
    }


def test_trades_begin_with_the_promised_columns(run: Run, tmp_path: Path) -> None:
    run(*demo("--coins", "BTC"))
    with (tmp_path / "data/output/BTC_trades.csv").open() as file:
        header = next(csv.reader(file))
    assert header == [
        "bar",
        "timestamp",
        "datetime",
        "price",
        "qty",
        "label",
        "regime",
        "pnl",
        "fee",
        "direction",
        "fill_id",
    ]


def test_the_first_run_says_that_it_compiles(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backtest.commands.backtest, "is_compiled", lambda _: False)
    assert "compiling the strategy" in run(*demo("--coins", "BTC"))[2]
    monkeypatch.setattr(backtest.commands.backtest, "is_compiled", lambda _: True)
    assert "compiling" not in run(*demo("--coins", "BTC"))[2]


def test_warnings_go_to_standard_error(run: Run) -> None:
    coins = ["--coins", "BTC", "--capital", "2200"]
    arguments = ["--demo", "--no-plot", "--start", "2024-01-01", "--end", "2024-03-15", *coins]
    code, out, err = run(*arguments)
    assert code == 0
    assert "warning: BTC: for a time the capital was too small" in err
    assert "too small" not in out


def write_candles(folder: Path, frame: pd.DataFrame, name: str = "BTCUSDT-15m.csv") -> None:
    folder.mkdir(exist_ok=True)
    frame.to_csv(folder / name, index=False)


@pytest.fixture
def candles() -> pd.DataFrame:
    market = demo_market("BTC", parse_time("2024-01-01", "s"), parse_time(END, "e"))
    return market.candles


def test_own_candles_run_from_a_folder(run: Run, tmp_path: Path, candles: pd.DataFrame) -> None:
    write_candles(tmp_path / "mine", candles.drop(index=range(1_200, 1_210)))
    code, out, _ = run("--coins", "BTC", "--data", "mine", "--no-plot", *RANGE)
    assert code == 0
    text = " ".join(out.split())
    assert "from files in mine" in text
    assert "funding modelled" in text
    assert "1 gaps (10 candles), not filled" in text


# --- parameters ---------------------------------------------------------------------------------


def chosen(*arguments: str) -> dict[str, Any]:
    return chosen_params(main.build_parser().parse_args(arguments))


def test_without_arguments_nothing_differs_from_the_config() -> None:
    assert chosen() == {}


def test_later_sources_of_a_parameter_win(tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    path.write_text(json.dumps({"robust_params": {"grid_levels": 6, "leverage": 2, "gamma": 1.5}}))
    preset = ["--preset", "documented"]
    assert chosen(*preset)["grid_levels"] == PRESETS["documented"]["grid_levels"] == 10
    from_file = [*preset, "--params", str(path), "--key", "robust_params"]
    assert chosen(*from_file)["grid_levels"] == 6
    changed = [*from_file, "--set", "grid_levels=7", "--set", "leverage=3"]
    assert chosen(*changed)["grid_levels"] == 7
    assert chosen(*changed)["leverage"] == 3.0
    flags = chosen(*changed, "--leverage", "4", "--capital", "500", "--no-short")
    assert (flags["leverage"], flags["initial_capital"]) == (4.0, 500.0)
    assert flags["allow_short"] is False
    assert (flags["gamma"], flags["spacing_floor"]) == (1.5, 0.005)


def test_the_last_of_two_values_for_a_parameter_counts() -> None:
    assert chosen("--set", "grid_levels=7", "--set", "grid_levels = 9") == {"grid_levels": 9}


@pytest.mark.parametrize("name", STRATEGY_PARAMS)
def test_every_parameter_can_be_set(name: str) -> None:
    default: Any = STRATEGY_PARAMS[name]
    text = ",".join(default) if isinstance(default, tuple) else str(default)
    assert list(chosen("--set", f"{name}={text}")) == [name]


def test_parameters_reach_the_run_and_its_summary(run: Run, tmp_path: Path) -> None:
    run(*demo("--coins", "BTC", "--set", "prune_enabled=GAP,OFFSET", "--no-short"))
    written = summary(tmp_path, "BTC")
    assert written["parameters"]["prune_enabled"] == ["GAP", "OFFSET"]
    assert set(written["changed_parameters"]) == {"prune_enabled", "allow_short"}
    assert written["metrics"]["shorts_opened"] == 0


def test_a_summary_can_be_run_again(run: Run, tmp_path: Path) -> None:
    run(*demo("--coins", "BTC", "--set", "grid_levels=7", "--capital", "20000"))
    first = summary(tmp_path, "BTC")
    again = ["--params", "data/output/BTC_summary.json", "--key", "parameters", "--output", "again"]
    assert run(*demo("--coins", "BTC", *again))[0] == 0
    assert json.loads((tmp_path / "again" / "BTC_summary.json").read_text()) == first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "grid_level=5"], "unknown strategy parameter 'grid_level'; did you mean grid_"),
        (["--set", "grid_levels=40"], "grid_levels = '40' is outside [1, 24] levels per side"),
        (["--set", "grid_levels=many"], "grid_levels = 'many' must be a whole number"),
        (["--set", "grid_levels"], "--set 'grid_levels' must be KEY=VALUE"),
        (["--set", "halt_z_threshold=-1"], "halt_z_threshold = -1.0 must be < resume_z_threshold"),
        (["--leverage", "500"], "leverage = '500' is outside [0.1, 125] x"),
        (["--capital", "much"], "initial_capital = 'much' must be a number"),
        (["--capital", "nan"], "initial_capital = 'nan' is outside [1, 1e+12] USDT"),
        (["--preset", "documentd"], "unknown preset 'documentd'; did you mean documented?"),
        (["--params", "none.json"], "--params none.json: No such file"),
        (["--key", "robust_params"], "--key robust_params needs --params FILE"),
        (["--coins", "DOGE"], "the demo has no coin DOGE; it has: BTC, ETH, SOL"),
        (["--coins", "B C"], "symbol 'B C' must be a coin like BTC"),
        (["--coins", "BTC/EUR"], "symbol 'BTC/EUR' must be a coin like BTC"),
        (["--start", "soon"], "start = 'soon' must be a UTC date like 2024-01-01"),
        (["--end", "2024-01-09"], "end = 2024-01-09 00:00 must be after start = 2024-01-10 00:00"),
        (["--end", "2024-01-10T14:15"], TOO_FEW),
        (["--jobs", "0"], "jobs = 0 must be at least 1"),
        (["--detail", "5m"], "the demo has candles of 15m and details of 1m only"),
        (["--detail", "1x"], "timeframe = '1x' must be one of"),
        (["--capital", "50"], "initial_capital = 50 USDT is too small for any order of BTC"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_one_line_exit_code_2_and_no_files(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    line = error_line(run("--demo", "--no-plot", "--coins", "BTC", *RANGE, *arguments))
    assert message in line
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        ("{", [], "is not JSON"),
        ("[1]", [], "at the top must be an object of parameters"),
        ('{"a": 1}', ["--key", "a"], "under 'a' must be an object of parameters"),
        ('{"robust": {}}', ["--key", "robus"], "did you mean robust? (there are: robust)"),
        ('{"best": {"leverage": 1}}', [], "holds objects; choose with --key (there are: best)"),
        ('{"levrage": 1}', [], "unknown strategy parameter 'levrage'; did you mean leverage?"),
        ('{"leverage": "x"}', [], "leverage = 'x' must be a number"),
    ],
)
def test_an_unusable_params_file_is_refused(
    run: Run, tmp_path: Path, content: str, key: list[str], message: str
) -> None:
    (tmp_path / "best.json").write_text(content)
    assert message in error_line(run(*demo("--params", "best.json", *key)))


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["--demo", "--data", "x"], ["--jobs", "many"], ["--coins"]]
)
def test_arguments_that_cannot_be_parsed_exit_with_2(run: Run, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2


# --- candle files that cannot be believed -------------------------------------------------------


def spoil(frame: pd.DataFrame, column: str, row: int, value: float) -> pd.DataFrame:
    spoiled = frame.copy()
    spoiled.loc[row, column] = value
    return spoiled


def with_wrong_step(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[::4].reset_index(drop=True)


def with_mixed_steps(frame: pd.DataFrame) -> pd.DataFrame:
    times = np.array(frame["timestamp"])
    times[500:] = times[500] + 60_000 * np.arange(len(times) - 500)
    return frame.assign(timestamp=times)


def with_unsorted_rows(frame: pd.DataFrame) -> pd.DataFrame:
    order = [*range(500), 501, 500, *range(502, len(frame))]
    return frame.iloc[order].reset_index(drop=True)


def with_other_row_of_a_time(frame: pd.DataFrame) -> pd.DataFrame:
    """Return candles with a time twice; where the rows are the same, one is dropped and said."""
    found = frame.iloc[[*range(501), *range(500, len(frame))]].reset_index(drop=True)
    return spoil(found, "volume", 501, 1.0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.drop(columns="close"), "missing columns: close"),
        (lambda f: spoil(f, "close", 500, np.nan), "row 500 (2024-01-06 05:00 UTC): close is miss"),
        (with_unsorted_rows, "is earlier than the row before"),
        (with_other_row_of_a_time, "repeats the time of the row before"),
        (with_wrong_step, "candles are 1h apart, must be 15m"),
        (with_mixed_steps, "must be"),
        (lambda f: spoil(f, "high", 500, 1.0), "row 500"),
        (lambda f: spoil(f, "low", 500, -5.0), "low -5 must be above 0"),
        (lambda f: f.iloc[:0], "has no rows"),
    ],
    ids=["columns", "nan", "unsorted", "duplicate", "step", "mixed", "high", "price", "empty"],
)
def test_unusable_candles_are_one_line_exit_code_2_and_no_files(
    run: Run,
    tmp_path: Path,
    candles: pd.DataFrame,
    damage: Callable[[pd.DataFrame], pd.DataFrame],
    message: str,
) -> None:
    write_candles(tmp_path / "mine", damage(candles))
    line = error_line(run("--coins", "BTC", "--data", "mine", "--no-plot", *RANGE))
    assert "BTCUSDT-15m.csv" in line
    assert message in line
    assert files_in(tmp_path) == {"mine/BTCUSDT-15m.csv"}


def test_a_folder_that_is_not_there_is_refused(run: Run) -> None:
    assert "nowhere does not exist" in error_line(run("--coins", "BTC", "--data", "nowhere"))


def test_a_coin_the_folder_lacks_is_refused(
    run: Run, tmp_path: Path, candles: pd.DataFrame
) -> None:
    write_candles(tmp_path / "mine", candles)
    line = error_line(run("--coins", "ETH", "--data", "mine", "--no-plot", *RANGE))
    assert "no 15m candles of ETH; found: BTC 15m" in line


# --- the exchange -------------------------------------------------------------------------------


@pytest.fixture
def binance(monkeypatch: pytest.MonkeyPatch) -> FakeBinance:
    fake = FakeBinance(now_ms=parse_time("2024-02-01", "now"), since_ms=JAN)
    monkeypatch.setattr(backtest.market.fetch, "BinanceHistory", fake.history)
    monkeypatch.setattr(backtest.market.fetch, "present_ms", lambda: fake.now_ms)
    return fake


EXCHANGE = ["--no-plot", "--start", "2024-01-10", "--end", "2024-01-14"]


@pytest.mark.usefixtures("binance")
def test_candles_of_the_exchange_are_run_and_cached(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("--coins", "BTC", *EXCHANGE)
    assert code == 0
    assert "384 candles" in out
    assert "data/cache/BTC-15m.parquet" in files_in(tmp_path)


@pytest.mark.usefixtures("binance")
def test_a_corrupt_cache_is_set_aside_and_fetched_again(run: Run, tmp_path: Path) -> None:
    run("--coins", "BTC", *EXCHANGE)
    cache = tmp_path / "data" / "cache" / "BTC-15m.parquet"
    whole = summary(tmp_path, "BTC")
    cache.write_bytes(b"PAR1 rubbish")
    assert run("--coins", "BTC", *EXCHANGE)[0] == 0
    assert summary(tmp_path, "BTC") == whole
    assert (cache.parent / "BTC-15m.parquet.corrupt-1").read_bytes() == b"PAR1 rubbish"


@pytest.mark.usefixtures("binance")
def test_a_coin_the_exchange_lacks_is_named(run: Run, tmp_path: Path) -> None:
    assert "BTX" in error_line(run("--coins", "BTX", *EXCHANGE))
    assert not any("output" in name for name in files_in(tmp_path))


def test_without_a_network_the_ways_out_are_named_once(run: Run, binance: FakeBinance) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise requests.ConnectionError("name or service not known")

    binance.send = offline  # type: ignore[method-assign]
    line = error_line(run("--coins", "BTC", "ETH", *EXCHANGE))
    assert "--demo" in line
    assert "--data" in line


# --- some coins fail, disks fail, people interrupt ----------------------------------------------


def test_a_coin_that_fails_leaves_the_others_files(run: Run, tmp_path: Path) -> None:
    code, out, err = run(*demo("--coins", "BTC", "DOGE", "SOL"))
    assert code == 2
    assert "BTC" in out
    assert "Portfolio" not in out
    assert "error: the demo has no coin DOGE" in err
    assert "no portfolio: DOGE failed; the files of the others are complete" in err
    assert files_in(tmp_path) == {
        f"data/output/{coin}_{name}"
        for coin in ("BTC", "SOL")
        for name in ("trades.csv", "summary.json")
    }


def test_the_message_names_the_coin_it_is_about(run: Run, tmp_path: Path) -> None:
    def load(coin: str, start_ms: int, end_ms: int, **_: Any) -> MarketData:
        if coin == "ETH":
            raise DataError("row 7 is wrong")
        return demo_market(coin, start_ms, end_ms)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backtest.market.sources, "_load_demo", load)
        assert "error: ETH: row 7 is wrong\n" in run(*demo("--coins", "BTC", "ETH"))[2]
    assert "data/output/ETH_summary.json" not in files_in(tmp_path)


def test_an_output_folder_that_cannot_be_written_is_refused_at_once(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    line = error_line(run(*demo("--coins", "BTC", "--output", "taken/results")))
    assert "cannot write taken/results" in line
    assert "--output DIR" in line


def test_a_disk_that_fills_up_leaves_no_half_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(*demo("--coins", "BTC"))
    before = {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, out, err = run(*demo("--coins", "BTC", "--set", "grid_levels=8"))
    assert (code, out) == (2, "")
    assert "No space left on device" in err
    assert {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)} == before


def test_an_interruption_leaves_the_files_of_finished_coins(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary_path = tmp_path / "data" / "output" / "BTC_summary.json"
    release = threading.Event()

    def load(coin: str, start_ms: int, end_ms: int, **_: Any) -> MarketData:
        if coin == "ETH":  # as a person presses Ctrl+C once BTC is done
            deadline = time.monotonic() + 60.0
            while not summary_path.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            release.wait(60.0)
        return demo_market(coin, start_ms, end_ms)

    monkeypatch.setattr(backtest.market.sources, "_load_demo", load)
    code, out, err = run(*demo("--coins", "BTC", "ETH", "SOL", "--jobs", "1"))
    release.set()
    assert (code, out) == (130, "")
    assert err.endswith("interrupted; the files already written are complete\n")
    assert files_in(tmp_path) == {"data/output/BTC_trades.csv", "data/output/BTC_summary.json"}
    assert summary(tmp_path, "BTC")["coin"] == "BTC"


# --- help ---------------------------------------------------------------------------------------


def test_help_explains_every_flag_and_names_every_parameter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for action in main.build_parser()._actions:  # noqa: SLF001 - argparse shows them no other way
        assert action.help
        assert all(option in text for option in action.option_strings)
    assert all(name in text for name in STRATEGY_PARAMS)


def test_the_examples_in_help_can_be_parsed() -> None:
    examples = [line for line in main.EXAMPLES.splitlines() if line.startswith("  python3 main.py")]
    assert len(examples) > 4
    for line in examples:
        main.build_parser().parse_args(line.split()[2:])


def test_the_list_of_parameters_explains_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--list-params"]) == 0
    text = capsys.readouterr().out
    assert all(f"{name} " in text for name in STRATEGY_PARAMS)
    assert "1 to 24 levels per side" in text


@pytest.mark.slow
def test_help_loads_none_of_the_heavy_libraries() -> None:
    script = (
        "import sys, main; main.build_parser().format_help(); "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(  # noqa: S603 - this project's own command
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--help"], 0, "examples:"),
        (["--leverage", "500"], 2, "error: leverage = '500' is outside"),
        (["--nonsense"], 2, "unrecognized arguments: --nonsense"),
    ],
)
def test_the_command_itself_ends_with_its_exit_code(
    arguments: list[str], code: int, text: str
) -> None:
    command = [sys.executable, "main.py", *arguments]
    done = subprocess.run(  # noqa: S603 - this project's own command
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "main.py", "--list-params"]
    with subprocess.Popen(  # noqa: S603 - this project's own command
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
