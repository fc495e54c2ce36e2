"""The fixed grid on the commands of a backtest: table, files, report, compare, checks, refusals."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import main
from backtest.report.chart_lines import chart_lines
from backtest.report.cycles import cycle_facts
from backtest.results.register import read_register
from backtest.runs.coin_result import CoinResult
from backtest.runs.strategies import _fixed_removals
from backtest.simulator import BacktestSimulator
from backtest.trust import fixed_grid as checks
from backtest.trust.compare import FULL, add_outcomes, coin_rows, overall_rows
from backtest.trust.fixed_grid import check_fixed_lookahead, check_fixed_parity
from backtest.trust.outcome import Budget
from core.errors import ConfigError
from engine.fixed_strategy import FixedGrid
from engine.registry import FIXED_GRID
from engine.types import LABEL_NAMES
from tests.support.results.typed import typed

Run = Callable[..., tuple[int, str, str]]
START, END = "2024-02-01", "2024-02-15"
RANGE = ("--strategy", "fixed_grid", "--demo", "--coins", "BTC", "--start", START, "--end", END)
BUSY: dict[str, Any] = {
    "recovery_mode": "ladder",
    "stuck_distance_pct": 1.0,
    "position_timeout_min": 15.0,
    "quantity_usd": 500.0,
    "grid_step": 0.001,
}


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    simulator = BacktestSimulator(BUSY, source="demo", strategy="fixed_grid")
    return simulator.run_single("BTC", START, END)


def test_a_result_says_its_strategy_and_counts_every_minute(result: dict[str, Any]) -> None:
    assert result["strategy"] == "fixed_grid"
    assert len(result["candles"]) == len(result["equity_curve"]) == 14 * 1440
    assert result["data"]["timeframe"] == "1m"
    assert result["data"]["warmup_bars"] == 0
    assert result["metrics"]["total_trades"] > 50
    assert {trade["regime"] for trade in result["trades"]} == {"NONE"}
    assert set(np.unique(result["regime_log"])) <= {-2, -1, 0, 1, 2}
    assert len(set(result["regime_log"].tolist())) > 1


def test_fixed_grid_from_python_makes_the_simulators_trades(result: dict[str, Any]) -> None:
    grid = FixedGrid(result["params"], market=result["market"])
    simulator = BacktestSimulator(BUSY, source="demo", strategy="fixed_grid")
    funding = simulator.load("BTC", START, END).market.funding
    assert grid.run(result["candles"], funding=funding)["trades"] == result["trades"]


def test_every_position_has_a_close_line_a_stop_line_and_its_rungs(result: dict[str, Any]) -> None:
    lines = {item.name: item for item in chart_lines(typed(result)).lines(typed(result))}
    entries = [trade for trade in result["trades"] if trade["label"] == "BUY_OPEN_LONG"]
    assert len(lines["close orders"].price) == len(lines["stops"].price) == len(entries)
    first = entries[0]
    assert lines["close orders"].price[0] == pytest.approx(first["price"] * 1.008, abs=0.11)
    assert lines["stops"].price[0] == pytest.approx(first["price"] * 0.95, abs=0.11)
    assert lines["close orders"].first[0] == first["bar"]
    rungs = int(np.sum(result["marks"]["kind"] == 2))
    assert len(lines["rungs"].price) == rungs > 0
    for item in lines.values():
        assert np.all(item.first <= item.last)
    assert "every position" in chart_lines(typed(result)).sentence(typed(result))


def test_the_page_on_cycles_adds_up_to_the_run(result: dict[str, Any]) -> None:
    facts, metrics = cycle_facts(typed(result)), result["metrics"]
    assert sum(row["cycles"] for row in facts["endings"]) == metrics["total_trades"]
    net = sum(row["net"] for row in facts["endings"])
    assert net == pytest.approx(metrics["gross_profit"] - metrics["gross_loss"], abs=1e-6)
    assert sum(row["cycles"] for row in facts["stuck_endings"]) == metrics["stuck_total"] > 0
    assert facts["recovery"]["ladders"] == metrics["recovery_attempts"]
    promised = {row["promise"]: row["measured"] for row in facts["promises"]}
    assert promised["win rate over 60 %"] == metrics["win_rate_pct"]


def test_a_backtest_writes_its_files_and_prints_its_table(run: Run, tmp_path: Path) -> None:
    code, out, err = run(*RANGE, "--no-plot", "--output", str(tmp_path))
    assert code == 0
    assert "1m candles" in out
    for row in ("Profit a trade", "Stuck", "  released", "Margin at most"):
        assert row in out
    assert "Prunes" not in out
    assert "wait_time = 10 s counts as one step" in err
    rows = list(csv.DictReader((tmp_path / "BTC_trades.csv").read_text().splitlines()))
    assert {"cycle", "slot"} <= rows[0].keys()
    assert {row["label"] for row in rows} <= set(LABEL_NAMES)
    summary = json.loads((tmp_path / "BTC_summary.json").read_text())
    assert summary["strategy"] == "fixed_grid"
    assert summary["changed_parameters"] == {}
    assert summary["code_fingerprint"] == FIXED_GRID.fingerprint


def test_two_runs_and_two_strategies_are_told_apart(run: Run, tmp_path: Path) -> None:
    places = ("--output", str(tmp_path))
    for more in ((), ("--set", "take_profit=0.004")):
        assert run(*RANGE, "--no-plot", *places, *more)[0] == 0
    ids = [entry["id"] for entry in read_register(tmp_path)]
    code, out, _ = run("--diff", *ids, *places)
    assert code == 0
    assert re.search(r"take_profit +0.008 -> 0.004", out)
    assert "Strategy:" not in out
    assert re.search(r"  A  .*BUY_OPEN_LONG|  A  .*SELL_CLOSE_LONG", out)
    table = (tmp_path / "BTC_trades.csv").read_text().splitlines()
    cycles = [row["cycle"] for row in csv.DictReader(table)]
    assert any(cycle in out for cycle in cycles)

    of_v4 = ("--coins", "BTC", "--start", "2025-10-01", "--end", "2025-10-20", "--demo")
    assert main.main([*of_v4, "--no-plot", *places]) == 0
    (newest,) = [entry["id"] for entry in read_register(tmp_path) if entry["id"] not in ids]
    code, out, _ = run("--diff", ids[0], newest, *places)
    assert code == 0
    assert "Strategy: fixed_grid -> grid_v4" in out
    assert "kama_period" not in out
    assert "-> -" not in out


@pytest.mark.slow
def test_the_report_has_the_page_on_cycles_and_the_promises(run: Run, tmp_path: Path) -> None:
    code, _, _ = run(*RANGE, "--output", str(tmp_path), "--set", "stuck_distance_pct=1")
    assert code == 0
    text = (tmp_path / "BTC_report.html").read_text()
    for words in (
        "How stuck ones ended",
        "Promised and measured",
        "profit over 0.5 % a trade",
        "No setting tried shows an edge",
        "stop_loss_pct",
    ):
        assert words in text
    assert "kelly_fraction" not in text
    assert (tmp_path / "BTC_trades.png").stat().st_size > 10_000


def test_compare_runs_without_stop_in_each_mode_and_without_cooldown(run: Run) -> None:
    code, out, _ = run(*RANGE, "--no-plot", "--compare")
    assert code == 0
    for name in (
        "full strategy",
        "- stop",
        "- recovery hedge",
        "- recovery aggressive",
        "- recovery none",
        "- cooldown",
    ):
        assert name in out
    assert "recovery ladder" not in out  # as run


def test_bands_and_json_work(run: Run) -> None:
    code, out, _ = run(*RANGE, "--no-plot", "--bands", "--json")
    document = json.loads(out)["coins"]["BTC"]
    assert code == 0
    assert document["bands_summary"]["runs"] > 5
    assert document["cycles"]["endings"]
    assert document["attribution"]["identity"]["difference"] == pytest.approx(0.0, abs=1e-6)


def test_two_coins_make_a_portfolio_that_adds_up() -> None:
    simulator = BacktestSimulator(source="demo", strategy="fixed_grid")
    results = simulator.run_multi(["BTC", "SOL"], "2024-02-01", "2024-02-04")
    finals = [results[coin]["metrics"]["final_capital"] for coin in ("BTC", "SOL")]
    portfolio = results["_portfolio"]
    assert portfolio["metrics"]["final_capital"] == pytest.approx(sum(finals))
    assert portfolio["var"]["horizon_bars"] == 96 * 15


def test_checks_pass_and_notice_a_strategy_that_knows_the_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulator = BacktestSimulator(BUSY, source="demo", strategy="fixed_grid")
    data = simulator.load("BTC", START, "2024-02-04")
    assert check_fixed_lookahead(data, simulator.params, Budget(8)).passed
    parity = check_fixed_parity(data, simulator.params, Budget(5))
    assert parity.passed
    assert "5 restarts" in parity.summary
    honest = checks._tables  # noqa: SLF001 - what a dishonest strategy would read

    def knows_the_close(*arguments: Any) -> Any:
        tables = honest(*arguments)
        tables.bars["open"] = tables.bars["close"]
        return tables

    monkeypatch.setattr(checks, "_tables", knows_the_close)
    assert not check_fixed_lookahead(data, simulator.params, Budget(8)).passed


def write_candles(folder: Path, minutes: int, name: str) -> None:
    count = 7 * 24 * 60 // minutes
    step = 60_000 * minutes
    times = 1_706_745_600_000 + step * np.arange(count)
    price = 40_000.0 + 200.0 * np.sin(np.arange(count) / 40.0).round(2)
    frame = pd.DataFrame(
        {
            "timestamp": times,
            "open": price,
            "high": price + 50.0,
            "low": price - 50.0,
            "close": price,
            "volume": 1.0,
        }
    )
    frame.to_csv(folder / name, index=False)


def test_files_of_minutes_are_run_and_coarse_ones_refused_with_the_way_out(
    run: Run, tmp_path: Path
) -> None:
    write_candles(tmp_path, 15, "BTCUSDT-15m.csv")
    asked = (
        "--strategy",
        "fixed_grid",
        "--coins",
        "BTC",
        "--data",
        str(tmp_path),
        "--start",
        "2024-02-01",
        "--end",
        "2024-02-06",
        "--no-plot",
    )
    code, _, err = run(*asked)
    assert code == 2
    assert "step_s=900" in err
    code, out, _ = run(*asked, "--set", "step_s=900")
    assert code == 0
    assert "15m candles" in out
    write_candles(tmp_path, 1, "BTCUSDT-1m.csv")
    code, out, _ = run(*asked)
    assert code == 0
    assert "1m candles" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "grid_levels=5"), "grid_levels belongs to grid_v4, not to fixed_grid"),
        (("--no-short",), "allow_short belongs to grid_v4"),
        (("--preset", "documented"), "unknown preset 'documented'"),
        (("--set", "direction=both"), "direction = 'both' must be one of buy, sell"),
    ],
)
def test_what_belongs_to_the_other_strategy_is_refused(
    run: Run, arguments: tuple[str, ...], message: str
) -> None:
    code, _, err = run("--strategy", "fixed_grid", "--demo", *arguments)
    assert code == 2
    assert message in err


def test_the_original_preset_says_that_recovery_cannot_happen(run: Run, tmp_path: Path) -> None:
    code, _, err = run(*RANGE, "--no-plot", "--preset", "original", "--output", str(tmp_path))
    assert code == 0
    assert "recovery cannot happen" in err
    assert "2.778 %" in err


def test_its_parameters_are_listed(run: Run) -> None:
    code, out, _ = run("--strategy", "fixed_grid", "--list-params")
    assert code == 0
    assert "stuck_distance_pct" in out
    assert "(original: 2)" in out


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean fixed_grid"):
        BacktestSimulator(strategy="fixd_grid")
    assert main.main(["--strategy", "nothing", "--demo"]) == 2


def test_compare_of_minutes_is_annualised_by_the_minute_and_keeps_equity_alone() -> None:
    also = partial(add_outcomes, removed=_fixed_removals)
    simulator = BacktestSimulator(BUSY, source="demo", strategy="fixed_grid", also=also)
    result = dict(simulator.iter_results(["BTC"], START, END))["BTC"]
    assert isinstance(result, CoinResult)
    alone, together = coin_rows(result), overall_rows([result])
    assert [row.calmar_ratio for row in together] == pytest.approx(
        [row.calmar_ratio for row in alone]
    )
    removed = [run for name, run in result.outcomes.items() if name != FULL]
    assert len(removed) > 3
    assert all(run.log.dtype.names == ("equity",) for run in removed)
