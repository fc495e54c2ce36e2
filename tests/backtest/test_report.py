"""The printed report and the files: tables, CSV, JSON, and disks that cannot be written."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backtest.report.console import data_lines, heading, print_report, summary_table, var_lines
from backtest.results.files import (
    check_writable,
    json_bytes,
    portfolio_json,
    summary_json,
    trades_csv,
    write_file,
)
from backtest.runs.facts import changed_params
from backtest.simulator import BacktestSimulator
from core.errors import DataError
from core.version import VERSION
from engine.registry import GRID_V4
from engine.trade_tables import FILE_COLUMNS
from tests.support.results.typed import (
    portfolio_of_all,
    typed,
    typed_all,
    typed_coins,
    typed_portfolio,
)

Results = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def results() -> Results:
    simulator = BacktestSimulator({"grid_levels": 6}, source="demo")
    return simulator.run_multi(["BTC", "ETH"], "2024-01-10", "2024-03-10")


def metrics(**values: Any) -> dict[str, Any]:
    names = (
        "total_return_pct",
        "buy_hold_return_pct",
        "max_drawdown_pct",
        "sharpe_ratio",
        "sortino_ratio",
        "calmar_ratio",
        "cagr_pct",
        "calmar_annual_ratio",
        "final_capital",
        "total_trades",
        "win_rate_pct",
        "profit_factor",
        "fees_paid",
        "funding_pnl",
        "turnover",
        "exposure_pct",
        "stops_long",
        "stops_short",
        "prune_count",
        "circuit_breaker_triggers",
        "trailing_shifts",
        "var_blocks",
        "liquidations",
    )
    return {**dict.fromkeys(names, 0), "prune_types": {}, **values}


def row(table: str, label: str) -> str:
    return next(line for line in table.splitlines() if line.strip().startswith(label))


# --- the table ----------------------------------------------------------------------------------


def test_the_table_has_a_line_for_every_figure_asked_for(results: Results) -> None:
    table = summary_table(typed_all(results))
    for label in (
        "Return",
        "Return a year",
        "Buy and hold",
        "Max drawdown",
        "Sharpe",
        "Sortino",
        "Calmar",
        "Calmar a year",
        "Win rate",
        "Profit factor",
        "Round trips",
        "Fees",
        "Funding",
        "Stop events",
        "Prunes",
        "Breaker halts",
        "Trailing shifts",
        "VaR blocks",
        "Liquidations",
        "Bars per second",
    ):
        assert row(table, label)
    assert table.splitlines()[0].split() == ["BTC", "ETH", "Portfolio"]


def test_figures_stand_under_their_coin() -> None:
    table = summary_table(
        typed_all(
            {
                "BTC": {"metrics": metrics(total_return_pct=-1.234, final_capital=9_876.543)},
                "SOL": {"metrics": metrics(total_return_pct=2.0, stops_long=3, stops_short=4)},
            }
        )
    )
    assert row(table, "Return").split() == ["Return", "-1.23", "%", "+2.00", "%"]
    assert row(table, "Final capital").split() == ["Final", "capital", "9,876.54", "0.00"]
    assert row(table, "Stop events").split() == ["Stop", "events", "0", "7"]


def test_what_is_not_a_number_is_a_dash() -> None:
    table = summary_table(typed_all({"BTC": {"metrics": metrics(sharpe_ratio=math.nan)}}))
    assert row(table, "Sharpe").split() == ["Sharpe", "-"]
    assert row(table, "Bars per second").split() == ["Bars", "per", "second", "-"]


def test_prunes_are_listed_by_type_where_there_were_any() -> None:
    types = {"PRUNE_OLDEST": 2, "PRUNE_VAR_WARNING": 1}
    table = summary_table(
        typed_all(
            {
                "A": {"metrics": metrics(prune_count=3, prune_types=types)},
                "B": {"metrics": metrics(prune_count=1, prune_types={"PRUNE_GAP": 1})},
            }
        )
    )
    assert row(table, "oldest").split() == ["oldest", "2", "0"]
    assert row(table, "var warning").split() == ["var", "warning", "1", "0"]
    assert row(table, "gap").split() == ["gap", "0", "1"]
    assert "deviance" not in table


@pytest.mark.parametrize("n_coins", [1, 5, 6, 12])
def test_no_line_is_longer_than_80_characters(n_coins: int) -> None:
    big = metrics(total_return_pct=-99.99, final_capital=1_234_567.89, fees_paid=1_234_567.89)
    table = summary_table(typed_all({f"COIN{i:02}": {"metrics": big} for i in range(n_coins)}))
    assert max(map(len, table.splitlines())) <= 80
    assert table.count("COIN") == n_coins


def test_the_whole_report_fits_80_columns(results: Results) -> None:
    printed: list[str] = []
    print_report(typed_all(results), printed.append)
    assert max(len(line) for line in "\n".join(printed).splitlines()) <= 80
    text = "\n".join(printed)
    assert results["BTC"]["data"]["hash"] in text
    assert text.endswith(f"Decision code {results['BTC']['fingerprint']}")


def test_the_heading_says_what_was_run(results: Results) -> None:
    assert heading(typed_all(results)) == (
        "BTC, ETH: 2024-01-10 to 2024-03-10 UTC, 15m candles, 10,000 USDT each"
    )


def data_of(**values: Any) -> dict[str, Any]:
    data = {
        "source": "files in candles",
        "hash": "0123456789abcdef",
        "funding": "real",
        "bars": 50_000,
        "warmup_bars": 3_000,
        "gaps": [],
        "missing_bars": 0,
        "zero_volume_bars": 4,
        "detail": None,
        "detail_coverage_pct": 0.0,
        **values,
    }
    return {"coin": "BTC", "data": data}


def test_the_origin_of_the_data_is_reported() -> None:
    text = " ".join(" ".join(data_lines(typed(data_of(funding="modelled")))).split())
    assert text == (
        "BTC 50,000 candles (+ 3,000 to warm up) from files in candles; hash 0123456789abcdef; "
        "funding modelled; 4 bars without volume; no gaps"
    )


def test_gaps_are_listed_and_counted() -> None:
    gaps = [
        {"from": f"2024-01-0{i} 00:00", "to": f"2024-01-0{i} 01:00", "bars": 4} for i in range(1, 9)
    ]
    lines = data_lines(typed(data_of(gaps=gaps, missing_bars=32)))
    assert "8 gaps (32 candles), not filled" in " ".join(" ".join(lines).split())
    assert "      gap from 2024-01-01 00:00 to 2024-01-01 01:00: 4 candles" in lines
    assert lines[-1] == "      and 3 more gaps, in the summary file"


def test_detail_coverage_is_reported() -> None:
    lines = data_lines(typed(data_of(detail="1m", detail_coverage_pct=12.345)))
    assert "1m detail for 12.3 % of the bars" in " ".join(" ".join(lines).split())


def test_the_value_at_risk_names_horizon_and_correlations(results: Results) -> None:
    text = " ".join(" ".join(var_lines(portfolio_of_all(results))).split())
    assert text.startswith("VaR 95 % over 96 bars: ")
    assert "correlations at the end: BTC/ETH 0." in text


def test_a_portfolio_without_equity_still_prints() -> None:
    var = {
        "horizon_bars": 1.0,
        "end": 0.0,
        "end_pct": math.nan,
        "highest": 0.0,
        "highest_pct": math.nan,
        "highest_at": "2024-01-01 00:00",
        "correlation": {},
    }
    assert "(- of equity)" in " ".join(var_lines(typed_portfolio({"var": var}, {})))


# --- files --------------------------------------------------------------------------------------


def test_trades_are_written_with_the_promised_columns_and_exact_values(results: Results) -> None:
    trades = results["BTC"]["trades"]
    rows = list(csv.DictReader(io.StringIO(trades_csv(typed(results["BTC"])).decode())))
    assert ",".join(FILE_COLUMNS) == (
        "bar,timestamp,datetime,price,qty,label,regime,pnl,fee,direction,fill_id"
    )
    assert list(rows[0]) == list(FILE_COLUMNS)
    assert len(rows) == len(trades) > 0
    for written, trade in zip(rows, trades, strict=True):
        for name in ("bar", "timestamp", "fill_id"):
            assert int(written[name]) == trade[name]
        for name in ("price", "qty", "pnl", "fee"):
            assert float(written[name]) == trade[name]
        for name in ("label", "regime", "direction"):
            assert written[name] == trade[name]


def test_files_and_table_are_made_from_the_records_no_dict_is_made(results: Results) -> None:
    coins = typed_coins({name: dict(item) for name, item in results.items()})
    fresh = {name: replace(item, run=replace(item.run)) for name, item in coins.items()}
    for result in fresh.values():
        assert trades_csv(result).count(b"\n") == len(result.trades) + 1 > 1
        assert summary_json(result)
        assert "trade_dicts" not in vars(result.run)
    assert summary_table(fresh)
    assert all("trade_dicts" not in vars(result.run) for result in fresh.values())


def test_the_datetime_of_a_trade_is_its_timestamp() -> None:
    trade = {"timestamp": 1_704_156_300_000, "label": "CIRCUIT_BREAKER_HALT"}
    (written,) = csv.DictReader(io.StringIO(trades_csv(typed({"trades": [trade]})).decode()))
    assert written["datetime"] == "2024-01-02 00:45:00"


def test_a_run_without_trades_writes_the_header_alone() -> None:
    assert trades_csv(typed({"trades": []})).decode() == ",".join(FILE_COLUMNS) + "\n"


def test_a_summary_holds_what_a_run_depends_on(results: Results) -> None:
    result = results["ETH"]
    summary = json.loads(summary_json(typed(result)))
    assert summary["coin"] == "ETH"
    assert summary["metrics"]["total_return_pct"] == result["metrics"]["total_return_pct"]
    assert summary["parameters"] == result["params"]
    assert summary["changed_parameters"] == {"grid_levels": {"value": 6, "default": 5}}
    assert summary["data"] == result["data"]
    assert summary["market"]["tick_size"] == 0.01
    assert summary["code_fingerprint"] == result["fingerprint"]
    assert summary["program_version"] == VERSION


def test_the_portfolio_summary_names_its_coins_and_their_data(results: Results) -> None:
    summary = json.loads(portfolio_json(portfolio_of_all(results)))
    assert summary["coins"] == ["BTC", "ETH"]
    assert summary["initial_capital"] == 20_000.0
    assert summary["data"]["hashes"]["BTC"] == results["BTC"]["data"]["hash"]
    assert summary["data"]["common_bars"] == summary["data"]["bars"] == 60 * 96
    assert summary["data"]["ranges"]["ETH"]["start"] == "2024-01-10 00:00"
    assert summary["value_at_risk"]["horizon_bars"] == 96.0


def test_the_same_run_writes_the_same_bytes(results: Results) -> None:
    again = BacktestSimulator({"grid_levels": 6}, source="demo").run_single(
        "BTC", "2024-01-10", "2024-03-10"
    )
    assert summary_json(typed(again)) == summary_json(typed(results["BTC"]))
    assert trades_csv(typed(again)) == trades_csv(typed(results["BTC"]))


def test_numbers_json_lacks_become_null() -> None:
    body = json_bytes({"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}, "e": None})
    assert json.loads(body) == {"a": None, "b": [None, 1.5], "c": {"d": None}, "e": None}


def test_parameters_at_their_default_are_not_marked_as_changed() -> None:
    plain = BacktestSimulator(source="demo").params.to_dict()
    assert changed_params(plain, GRID_V4) == {}
    changed = changed_params({**plain, "prune_enabled": ["GAP"]}, GRID_V4)
    assert changed["prune_enabled"]["value"] == ["GAP"]


# --- disks --------------------------------------------------------------------------------------


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.csv"
    write_file(path, b"first, and longer")
    write_file(path, b"second")
    assert path.read_bytes() == b"second"
    assert [item.name for item in path.parent.iterdir()] == ["file.csv"]


def test_a_full_disk_leaves_the_old_file_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "BTC_trades.csv"
    write_file(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"BTC_trades.csv: No space left on device; make room"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_made_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot write .*file/output: .*choose another folder"):
        check_writable(tmp_path / "file" / "output")


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    check_writable(tmp_path / "output")
    assert list((tmp_path / "output").iterdir()) == []
