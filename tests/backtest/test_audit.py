"""``main.py --audit``: finds nothing in true runs, and the row that was tampered with."""

from __future__ import annotations

import ast
import csv
import functools
import io
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import main
from backtest.audit.audit import audit_coin, load_again
from backtest.audit.files import COLUMNS, Finding, read_summary
from backtest.audit.market import audit_bars, settlements
from backtest.audit.portfolio import CoinAccount, check_portfolio, read_portfolio
from backtest.market.market_data import MarketData, empty_funding
from backtest.market.sources import market_source
from backtest.market.timeframes import format_time
from backtest.results.files import summary_json, trades_csv
from backtest.simulator import BacktestSimulator
from config import PRESETS
from core.errors import CapitalError, DataError
from engine.trade_tables import FILE_COLUMNS
from tests.support.markets import oracle
from tests.support.markets.synthetic import (
    BAR_MS,
    CONFIGS,
    SEEDS,
    synthetic_candles,
    synthetic_detail,
    synthetic_settlements,
)
from tests.support.paths import ROOT
from tests.support.results.tampering import TAMPERED, Run, Tamper, as_csv, index_of, moved, run_on
from tests.support.results.typed import typed

START, END = "2024-02-01", "2024-04-01"


# --- runs to audit ------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["documented", "shipped"])
def demo_run(request: pytest.FixtureRequest) -> Run:
    simulator = BacktestSimulator(PRESETS[request.param], source="demo")
    result = simulator.run_single("BTC", START, END)
    market = simulator.load("BTC", START, END).market
    return Run(trades_csv(typed(result)).decode(), summary_json(typed(result)).decode(), market)


@pytest.fixture(scope="module")
def run() -> Run:
    """A run in which every kind of record but a liquidation occurs, on both sides."""
    candles = synthetic_candles(1_500, 28)
    market = MarketData("BTC", candles, synthetic_settlements(candles, 28), None, BAR_MS, "a test")
    busy = {
        **PRESETS["documented"],
        "spacing_floor": 0.003,
        "grid_spacing_k": 0.5,
        "leverage": 3.0,
        "trailing_enabled": False,
        "atr_sl_mult": 3.0,
    }
    return run_on(market, busy, warmup=300)


def test_the_run_to_tamper_with_has_all_kinds_of_records(run: Run) -> None:
    labels = {row["label"] for row in run.rows()}
    assert labels >= {
        "BUY_OPEN_LONG",
        "SELL_OPEN_SHORT",
        "SELL_CLOSE_LONG",
        "BUY_CLOSE_SHORT",
        "STOP_LONG",
        "STOP_SHORT",
        "PRUNE_OFFSET",
        "CIRCUIT_BREAKER_HALT",
        "CLOSE_END",
    }


# --- true runs ----------------------------------------------------------------------------------


def test_nothing_is_wrong_with_a_run_of_the_demo(demo_run: Run, tmp_path: Path) -> None:
    report = demo_run.audit(tmp_path)
    assert report.finding is None
    n_rows = len(demo_run.rows())
    assert n_rows > 50
    assert any(line.startswith(f"{n_rows:,} rows") for line in report.lines)


@pytest.mark.parametrize("preset", ["documented", "shipped"])
@pytest.mark.parametrize(("coin", "start"), [("BTC", "2022-05-01"), ("SOL", "2022-10-25")])
def test_nothing_is_wrong_with_a_run_on_real_candles(
    coin: str, start: str, preset: str, tmp_path: Path
) -> None:
    candles, funding = oracle.real_candles(coin, start, 4_000)
    rates = funding.assign(timestamp=funding["timestamp"] // 60_000 * 60_000)
    market = MarketData("BTC", candles, rates[["timestamp", "rate"]], None, BAR_MS, "a test")
    run = run_on(market, dict(PRESETS[preset]), warmup=1_000)
    assert run.audit(tmp_path).finding is None
    assert len(run.rows()) > 20


def test_nothing_is_wrong_with_a_run_over_real_minutes(tmp_path: Path) -> None:
    candles, funding = oracle.real_candles("ETH", "2025-01-20", 3_000)
    rates = funding.assign(timestamp=funding["timestamp"] // 60_000 * 60_000)
    detail = oracle.real_detail("ETH", candles)
    market = MarketData("BTC", candles, rates[["timestamp", "rate"]], detail, BAR_MS, "a test")
    assert run_on(market, dict(PRESETS["documented"]), detail="1m").audit(tmp_path).finding is None


@pytest.mark.slow
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=SEEDS,
    config=CONFIGS,
    fine=st.booleans(),
    missing=st.sampled_from([0.0, 0.01]),
    hours=st.sampled_from([0, 8, 4]),
    ticks=st.integers(0, 1),
    touch=st.booleans(),
    warmup=st.sampled_from([0, 200]),
)
def test_nothing_is_wrong_with_any_run_whatever_the_parameters(
    seed: int,
    config: dict[str, Any],
    *,
    fine: bool,
    missing: float,
    hours: int,
    ticks: int,
    touch: bool,
    warmup: int,
    tmp_path: Path,
) -> None:
    candles = synthetic_candles(700, seed, missing=missing)
    funding = synthetic_settlements(candles, seed, hours=hours) if hours else empty_funding()
    funding = funding.drop(index=funding.index[8:16]).reset_index(drop=True)  # leaves a hole
    detail = synthetic_detail(candles, seed) if fine else None
    market = MarketData("BTC", candles, funding, detail, BAR_MS, "a test")
    asked = {**config, "fill_through_ticks": ticks, "refuse_first_touch": touch}
    try:
        run = run_on(market, asked, warmup=warmup, detail="3m" if fine else None)
    except CapitalError:
        return
    assert run.audit(tmp_path).finding is None


# --- tampered rows ------------------------------------------------------------------------------


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda tamper: tamper.__name__)
@pytest.mark.slow
def test_a_tampered_row_is_named(tamper: Tamper, run: Run, tmp_path: Path) -> None:
    rows = run.rows()
    i = tamper(rows)
    finding = run.audit(tmp_path, rows).finding
    assert finding is not None
    assert finding.number == i + 1, finding
    assert finding.place == f"row {i + 1} (line {i + 2})"
    assert finding.content == as_csv(rows).splitlines()[i + 1]
    assert TAMPERED[tamper] in finding.wrong
    assert finding.expected


@pytest.mark.slow
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    share=st.floats(0.0, 1.0, exclude_max=True),
    column=st.sampled_from(["bar", "timestamp", "price", "qty", "pnl", "fee"]),
    change=st.sampled_from([-1.0, 1.0]),
    size=st.sampled_from([1e-3, 0.1, 3.0]),
)
def test_no_number_can_be_changed_unseen(
    share: float, column: str, change: float, size: float, run: Run, tmp_path: Path
) -> None:
    rows = run.rows()
    row = rows[int(share * len(rows))]
    if column in {"bar", "timestamp"}:
        row[column] = str(int(row[column]) + int(change))
    else:
        row[column] = repr(float(row[column]) + change * size)
    finding = run.audit(tmp_path, rows).finding
    assert finding is not None
    assert finding.number == int(share * len(rows)) + 1


def test_the_first_of_two_tampered_rows_is_named(run: Run, tmp_path: Path) -> None:
    rows = run.rows()
    rows[40]["bar"] = "seven"
    rows[20]["fee"] = "7.0"
    finding = run.audit(tmp_path, rows).finding
    assert finding is not None
    assert finding.number == 21


def test_a_column_that_is_missing_is_named(run: Run, tmp_path: Path) -> None:
    text = "\n".join(line.rpartition(",")[0] for line in run.trades.splitlines())
    finding = replace(run, trades=text).audit(tmp_path).finding
    assert finding is not None
    assert finding.place == "header (line 1)"
    assert finding.expected == ",".join(COLUMNS)


def test_a_row_that_was_cut_off_is_named(run: Run, tmp_path: Path) -> None:
    lines = run.trades.splitlines()
    finding = replace(run, trades="\n".join([*lines[:30], lines[30][:20]])).audit(tmp_path).finding
    assert finding is not None
    assert finding.number == 30
    assert "columns" in finding.wrong


# --- tampered summaries -------------------------------------------------------------------------


def tampered_summary(run: Run, tmp_path: Path, **metrics: Any) -> Finding:
    summary = json.loads(run.summary)
    for name, value in metrics.items():
        old = summary["metrics"][name]
        summary["metrics"][name] = value(old) if callable(value) else value
    finding = run.audit(tmp_path, summary=summary).finding
    assert finding is not None
    return finding


def test_a_missing_funding_payment_is_named_with_its_settlement(run: Run, tmp_path: Path) -> None:
    bars = audit_bars(run.market, 300)
    position, cursor = 0.0, 0
    rows = run.rows()
    for bar in np.flatnonzero(bars.due):
        while cursor < len(rows) and int(rows[cursor]["bar"]) <= bar:
            row = rows[cursor]
            side = 1.0 if row["direction"] == "LONG" else -1.0
            opens = 1.0 if "OPEN" in row["label"] else -1.0
            position += side * opens * float(row["qty"]) if row["direction"] else 0.0
            cursor += 1
        if abs(position) > 1e-6 and bar > 500:
            break
    payment = -position * float(bars.close[bar]) * float(bars.due[bar])
    finding = tampered_summary(
        run, tmp_path, funding_pnl=lambda v: v - payment, final_capital=lambda v: v - payment
    )
    assert finding.place == "metrics.funding_pnl"
    assert f"of the settlement in bar {bar} ({format_time(int(bars.ts_ms[bar]))})" in finding.wrong


@pytest.mark.parametrize(
    ("metric", "change"),
    [
        ("final_capital", 0.01),
        ("funding_pnl", 0.001),
        ("fees_paid", -0.01),
        ("total_return_pct", 0.001),
        ("max_drawdown_pct", -0.001),
        ("exposure_pct", 0.1),
        ("buy_hold_return_pct", 0.1),
        ("turnover", 0.01),
        ("longs_opened", 1),
        ("longs_closed", -1),
        ("shorts_opened", 1),
        ("shorts_closed", 1),
        ("long_exits", 1),
        ("short_exits", -1),
        ("total_trades", 1),
        ("circuit_breaker_triggers", 1),
        ("prune_count", 1),
        ("gross_profit", 0.01),
        ("gross_loss", 0.01),
        ("win_rate_pct", 0.01),
        ("profit_factor", 0.001),
        ("calmar_ratio", 0.001),
        ("cagr_pct", 0.001),
        ("calmar_annual_ratio", 0.001),
        ("sharpe_ratio", 0.001),
        ("sortino_ratio", 0.001),
        ("liquidations", 1),
        ("stops_long", 7),
        ("stops_long", -7),
        ("stops_short", 7),
    ],
)
def test_a_figure_that_does_not_follow_is_named(
    metric: str, change: float, run: Run, tmp_path: Path
) -> None:
    finding = tampered_summary(run, tmp_path, **{metric: lambda value: value + change})
    assert finding.place == f"metrics.{metric}"
    assert finding.number is None


def test_what_a_summary_says_twice_must_agree(run: Run, tmp_path: Path) -> None:
    summary = json.loads(run.summary)
    summary["changed_parameters"]["order_pct"] = {"value": 1, "default": 0.05}
    finding = run.audit(tmp_path, summary=summary).finding
    assert finding is not None
    assert (finding.place, finding.expected) == ("changed_parameters.order_pct", "0.05")
    names = ("total_return_pct", "max_drawdown_pct", "calmar_ratio")
    central = {name: summary["metrics"][name] for name in names}
    del summary["changed_parameters"]["order_pct"]
    summary["bands"] = [central]
    assert run.audit(tmp_path, summary=summary).finding is None
    summary["bands"] = [central | {"total_return_pct": 50.0}]
    finding = run.audit(tmp_path, summary=summary).finding
    assert finding is not None
    assert finding.place == "bands.0.total_return_pct"


def test_what_is_not_checked_is_said(run: Run, tmp_path: Path) -> None:
    report = run.audit(tmp_path)
    summary = json.loads(run.summary)
    summary["code_fingerprint"] = "deadbeef"
    for name in ("trailing_shifts", "var_blocks", "capacity_reached"):
        summary["metrics"][name] += 7
        assert any(name in text for text in report.not_checked)
    assert any("code_fingerprint" in text for text in report.not_checked)
    assert run.audit(tmp_path, summary=summary).finding is None


@pytest.mark.parametrize("factor", [5.0, 0.04])
def test_a_trip_of_an_impossible_size_is_found(run: Run, tmp_path: Path, factor: float) -> None:
    rows = run.rows()
    i = index_of(rows, "BUY_OPEN_LONG", "SELL_OPEN_SHORT", after=50)
    for row in rows:
        if row["fill_id"] == rows[i]["fill_id"] and row["qty"] != "0.0":
            qty = max(1, round(float(row["qty"]) * factor / 0.001)) * 0.001
            part = qty / float(row["qty"])
            for name in ("qty", "pnl", "fee"):
                row[name] = repr(float(row[name]) * part)
    finding = run.audit(tmp_path, rows).finding
    assert finding is not None
    assert finding.number == i + 1
    assert "an order of" in finding.wrong


def test_a_figure_that_is_missing_is_named(run: Run, tmp_path: Path) -> None:
    assert tampered_summary(run, tmp_path, final_capital=None).content == "None"
    assert tampered_summary(run, tmp_path, funding_pnl="0").place == "metrics.funding_pnl"


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"allow_short": False}, "a short trade though allow_short is off"),
        ({"prune_enabled": []}, "though prune_enabled lacks"),
        ({"circuit_breaker_enabled": False}, "though circuit_breaker_enabled is off"),
        ({"stop1_enabled": False, "stop2_enabled": False}, "though stop1_enabled and stop2_"),
        ({"slippage": 0.001}, "price"),
        ({"fee_maker": 0.0001}, "fee is"),
        ({"fee_maker": 0.02}, "fee is"),
        ({"initial_capital": 10_500.0}, "does not follow"),
        ({"initial_capital": 40_000.0}, "an order of"),
        ({"order_pct": 0.9}, "an order of"),
        ({"order_pct": 0.001}, "an order of"),
        ({"leverage": 1.0}, "of"),
        ({"max_inventory_per_side": 1}, "it makes 2 open fills of"),
        ({"max_position_pct": 0.01}, "USDT of"),
        ({"max_capital_pct": 0.01}, "USDT of both sides"),
        ({"funding_enabled": False}, "does not follow"),
        ({"fill_through_bps": 500.0}, "is outside its bar"),
        ({"fill_through_ticks": 1000}, "is outside its bar"),
        ({"refuse_first_touch": True}, "reached"),
    ],
)
def test_rows_that_the_parameters_rule_out_are_found(
    changes: dict[str, Any], wrong: str, run: Run, tmp_path: Path
) -> None:
    summary = json.loads(run.summary)
    summary["parameters"] |= changes
    finding = run.audit(tmp_path, summary=summary).finding
    assert finding is not None
    assert wrong in finding.wrong


@pytest.mark.parametrize(
    ("section", "name", "value", "wrong"),
    [
        ("market", "tick_size", 10.0, "is off the tick"),
        ("market", "step_size", 0.5, "qty"),
        ("market", "min_notional", 1e5, "notional is"),
        ("market", "min_qty", 50.0, "qty is"),
        ("data", "start", "2024-01-05 00:00", "it is not what the candles say"),
        ("data", "bars", 7, "it is not what the candles say"),
        ("data", "warmup_bars", 9_999, "it leaves no bar to trade"),
    ],
)
def test_rules_and_facts_that_do_not_fit_are_found(
    section: str, name: str, value: Any, wrong: str, run: Run, tmp_path: Path
) -> None:
    summary = json.loads(run.summary)
    summary[section][name] = value
    finding = run.audit(tmp_path, summary=summary).finding
    assert finding is not None
    assert wrong in finding.wrong


def test_a_take_profit_under_break_even_is_found(tmp_path: Path) -> None:
    candles = synthetic_candles(1_500, 28)
    market = MarketData("BTC", candles, synthetic_settlements(candles, 28), None, BAR_MS, "a test")
    run = run_on(market, {**PRESETS["documented"], "spacing_floor": 0.003, "tp_below_entry": True})
    assert run.audit(tmp_path).finding is None
    summary = json.loads(run.summary)
    summary["parameters"]["tp_below_entry"] = False
    finding = run.audit(tmp_path, summary=summary).finding
    assert finding is not None
    assert "is under its fill's break-even" in finding.wrong
    row = run.rows()[(finding.number or 0) - 1]
    assert row["label"] in {"SELL_CLOSE_LONG", "BUY_CLOSE_SHORT"}
    assert float(row["pnl"]) < 2.0 * float(row["fee"])


def test_a_close_that_leaves_less_than_the_minimum_is_found(run: Run, tmp_path: Path) -> None:
    least = min(float(row["qty"]) for row in run.rows() if "OPEN" in row["label"])
    summary = json.loads(run.summary)
    summary["market"]["min_qty"] = least
    finding = run.audit(tmp_path, summary=summary).finding
    assert finding is not None
    assert "open, less than the exchange's minimum" in finding.wrong


@pytest.mark.parametrize(
    ("label", "stop"), [("SELL_CLOSE_LONG", "STOP_LONG"), ("BUY_CLOSE_SHORT", "STOP_SHORT")]
)
def test_a_stop_that_takes_a_gain_is_found(label: str, stop: str, run: Run, tmp_path: Path) -> None:
    rows, bars = run.rows(), run.market.candles.set_index("timestamp")
    i = next(
        i
        for i, row in enumerate(rows)
        if row["label"] == label
        and float(row["pnl"]) > 3.0 * float(row["fee"])
        and 1.001 * bars["low"][int(row["timestamp"])] < float(row["price"])
        and float(row["price"]) < 0.999 * bars["high"][int(row["timestamp"])]
        and row["bar"] != rows[i - 1]["bar"]
    )
    rows[i]["label"] = stop
    finding = run.audit(tmp_path, rows).finding
    assert finding is not None
    assert finding.number == i + 1
    assert "takes a gain" in finding.wrong


def test_a_wick_stop_that_leaves_a_fill_open_is_found(run: Run, tmp_path: Path) -> None:
    """Stage 1 closes a part at the bar's open; a stop on the path closes the whole side."""
    config = {
        **PRESETS["documented"],
        "spacing_floor": 0.003,
        "atr_sl_mult": 2.0,
        "stop1_enabled": False,
    }
    stopped = run_on(run.market, config)
    opens = run.market.candles.set_index("timestamp")["open"]
    rows = stopped.rows()
    last = next(
        i
        for i in range(1, len(rows))
        if rows[i]["label"] == rows[i - 1]["label"] == "STOP_LONG"
        and rows[i]["price"] == rows[i - 1]["price"]
        and rows[i + 1]["label"] != "STOP_LONG"
        and abs(float(rows[i]["price"]) / float(opens[int(rows[i]["timestamp"])]) - 0.9995) > 1e-4
    )
    del rows[last]
    finding = stopped.audit(tmp_path, rows).finding
    assert finding is not None
    assert finding.number == last
    assert "leaves fills of LONG open" in finding.wrong


def test_a_first_bar_after_the_first_trade_is_found(run: Run, tmp_path: Path) -> None:
    summary = json.loads(run.summary) | {"first_bar": 700}
    finding = run.audit(tmp_path, summary=summary).finding
    assert finding is not None
    assert finding.number == 1


# --- liquidations -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def liquidated() -> Run:
    """A run that a liquidation ends with nothing left, at high leverage without stops."""
    return lost_run(0.0125)


def lost_run(liquidation_fee: float) -> Run:
    candles = synthetic_candles(1_500, 8)
    market = MarketData("BTC", candles, synthetic_settlements(candles, 8), None, BAR_MS, "a test")
    config = {
        **PRESETS["documented"],
        "leverage": 20.0,
        "stop1_enabled": False,
        "stop2_enabled": False,
        "prune_enabled": (),
        "var_block_enabled": False,
        "var_deleverage_enabled": False,
        "spacing_floor": 0.003,
        "liquidation_fee": liquidation_fee,
    }
    return run_on(market, config)


@pytest.mark.parametrize(("fee", "leaves"), [(0.0125, False), (0.001, True)])
def test_liquidations_pass_whether_they_leave_something_or_not(
    fee: float, tmp_path: Path, *, leaves: bool
) -> None:
    run = lost_run(fee)
    first = next(row for row in run.rows() if row["label"] == "LIQUIDATION")
    assert (run.rows()[-1]["bar"] != first["bar"]) == leaves
    report = run.audit(tmp_path)
    assert report.finding is None
    assert any("liquidated fills" in line for line in report.lines)


def test_a_liquidation_that_was_not_due_is_found(liquidated: Run, tmp_path: Path) -> None:
    rows = liquidated.rows()
    i = index_of(rows, "LIQUIDATION")
    summary = json.loads(liquidated.summary)
    summary["parameters"] |= {"initial_capital": 60_000.0, "kelly_min": 0.0}  # any size will do
    finding = liquidated.audit(tmp_path, summary=summary).finding
    assert finding is not None
    assert finding.number == i + 1
    assert "equity at" in finding.wrong


def test_a_liquidation_that_leaves_a_fill_open_is_found(liquidated: Run, tmp_path: Path) -> None:
    rows = liquidated.rows()
    first = index_of(rows, "LIQUIDATION")
    last = first
    while last + 1 < len(rows) and rows[last + 1]["label"] == "LIQUIDATION":
        last += 1
    assert last > first
    del rows[last]
    finding = liquidated.audit(tmp_path, rows).finding
    assert finding is not None
    assert finding.number == last
    assert finding.wrong == "the liquidation leaves fills open"


@pytest.mark.parametrize("factor", [0.5, 1.01])
def test_a_wrong_liquidation_fee_is_found(liquidated: Run, tmp_path: Path, factor: float) -> None:
    rows = liquidated.rows()
    i = index_of(rows, "LIQUIDATION")
    rows[i]["fee"] = repr(float(rows[i]["fee"]) * factor)
    finding = liquidated.audit(tmp_path, rows).finding
    assert finding is not None
    assert finding.number == i + 1
    assert "the liquidation's fee" in finding.expected


def test_an_entry_after_everything_was_lost_is_found(liquidated: Run, tmp_path: Path) -> None:
    rows = liquidated.rows()
    entry = index_of(rows, "BUY_OPEN_LONG")
    last = max(i for i, row in enumerate(rows) if row["label"] == "LIQUIDATION")
    assert json.loads(liquidated.summary)["metrics"]["final_capital"] == 0.0
    assert last == len(rows) - 1
    bars = int(rows[last]["bar"]) - int(rows[entry]["bar"])
    rows.append(moved(rows[entry], bars) | {"regime": rows[last]["regime"]})
    finding = liquidated.audit(tmp_path, rows).finding
    assert finding is not None
    assert finding.number == last + 2


# --- what it is made of -------------------------------------------------------------------------


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""}
    return found


def test_the_audit_shares_nothing_with_the_strategy_but_errors_input_and_lengths_of_time() -> None:
    # Downloads are loaded only where the exchange is the source, which no audit takes.
    waiting, seen = ["backtest.audit.audit"], {"backtest.market.fetch"}
    while waiting:
        module = waiting.pop()
        path = ROOT / f"{module.replace('.', '/')}.py"
        if module in seen or not path.exists():
            continue
        seen.add(module)
        waiting += imported(path)
    assert {"backtest.audit.trades", "backtest.market.market_data"} <= seen
    ours = {name for name in seen if name.partition(".")[0] in {"engine", "core"}}
    assert ours == {"core.errors", "core.files", "core.frames", "core.times"}


@pytest.mark.slow
def test_the_audit_loads_no_part_of_the_strategy() -> None:
    code = (
        "import sys, backtest.audit.audit, backtest.market.demo; "
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('core', 'engine', 'numba')))"
    )
    done = subprocess.run(  # noqa: S603 - our own code, no shell
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = ["core", "core.errors", "core.files", "core.frames", "core.times"]
    assert done.stdout.strip() == str(names)


def test_the_audit_expects_the_columns_that_are_written() -> None:
    assert COLUMNS == FILE_COLUMNS


@pytest.mark.parametrize("hours", [8, 4, 2])
def test_settlements_are_those_that_the_reference_reads(hours: int) -> None:
    candles = synthetic_candles(1_200, hours)
    funding = synthetic_settlements(candles, hours, hours=hours, delay_ms=7)
    funding = funding.drop(index=range(10, 10 + 30 // hours)).reset_index(drop=True)
    market = MarketData("BTC", candles, funding, None, BAR_MS, "a test")
    start, end = int(candles["timestamp"].iloc[0]), int(candles["timestamp"].iloc[-1]) + BAR_MS
    theirs = [row for row in oracle.settlements(candles, funding) if start <= row[0] <= end]
    ours = settlements(market)
    assert [t for t, _ in ours] == [t for t, _ in theirs]
    assert [r for _, r in ours] == pytest.approx([r for _, r in theirs], abs=1e-15)
    without = replace(market, funding=empty_funding())
    modelled = oracle.settlements(candles, empty_funding())
    assert [t for t, _ in settlements(without)] == [t for t, _ in modelled]
    assert [r for _, r in settlements(without)] == pytest.approx(
        [r for _, r in modelled], abs=1e-15
    )


# --- the command --------------------------------------------------------------------------------

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Return ``main.main`` in an empty folder that holds a run of the demo."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main.main(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    coins = ["--coins", "BTC", "ETH", "--start", "2024-01-10", "--end", "2024-01-25"]
    assert call("--demo", "--no-plot", "--preset", "documented", *coins)[0] == 0
    return call


def tamper_with_btc(folder: Path) -> int:
    path = folder / "data" / "output" / "BTC_trades.csv"
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    i = index_of(rows, "BUY_OPEN_LONG", after=10)
    rows[i]["fee"] = "1.0"
    path.write_text(as_csv(rows))
    return i


def test_every_run_in_the_folder_is_audited(command: Command) -> None:
    code, out, err = command("--demo", "--audit")
    assert (code, err) == (0, "")
    assert "BTC_trades.csv, BTC_summary.json: nothing wrong" in out
    assert "ETH_trades.csv, ETH_summary.json: nothing wrong" in out
    assert "pnl" in out
    assert "  --  not checked: metrics.trailing_shifts" in out


def test_the_first_wrong_row_is_printed_and_the_exit_code_is_1(
    command: Command, tmp_path: Path
) -> None:
    i = tamper_with_btc(tmp_path)
    code, out, _ = command("--demo", "--audit")
    assert code == 1
    assert "BTC_summary.json: WRONG" in out
    assert f"BTC_trades.csv, row {i + 1} (line {i + 2}): " in out
    assert "fee is 1.0" in out
    assert "expected: " in out
    assert "ETH_summary.json: nothing wrong" in out


def test_only_the_coins_asked_for_are_audited(command: Command, tmp_path: Path) -> None:
    tamper_with_btc(tmp_path)
    code, out, _ = command("--demo", "--audit", "--coins", "eth")
    assert code == 0
    assert "BTC" not in out


def test_machines_are_answered_in_json(command: Command, tmp_path: Path) -> None:
    i = tamper_with_btc(tmp_path)
    code, out, _ = command("--demo", "--audit", "--json")
    document = json.loads(out)
    assert code == 1
    assert document["BTC"]["finding"]["number"] == i + 1
    assert document["ETH"]["finding"] is None


def test_flags_that_agree_with_the_run_are_accepted(command: Command) -> None:
    same = ["--preset", "documented", "--start", "2024-01-10", "--end", "2024-01-25"]
    assert command("--demo", "--audit", *same)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--demo", "--set", "grid_levels=7"], "the run had grid_levels = 10, not 7"),
        (["--demo", "--start", "2024-01-11"], "the run had start = 2024-01-10 00:00"),
        (["--demo", "--end", "2024-03-01"], "the run had end = 2024-01-25 00:00"),
        (["--demo", "--detail", "1m"], "the run had detail = None, not 1m"),
        (["--data", "somewhere"], "the run has read demo; audit it with --demo"),
        ([], "the run has read demo; audit it with --demo"),
        (["--demo", "--coins", "SOL"], "SOL_summary.json: No such file or directory; run the"),
        (["--demo", "--output", "elsewhere"], "elsewhere: holds no {COIN}_summary.json"),
        (["--demo", "--coins", "B C"], "symbol 'B C' must be a coin like BTC"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.slow
def test_flags_that_contradict_the_run_are_refused(
    command: Command, arguments: list[str], message: str
) -> None:
    code, out, err = command("--audit", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: "{" + text, "is not JSON"),
        (lambda _: "[]", "must hold an object"),
        (lambda text: text.replace('"first_bar"', '"last_bar"', 1), "lacks first_bar"),
        (lambda text: text.replace('"loaded_from"', '"loaded"', 1), "lacks data.loaded_from"),
        (lambda text: text.replace('"brackets"', '"braces"', 1), "lacks market.brackets"),
    ],
)
@pytest.mark.slow
def test_a_damaged_summary_is_refused(
    command: Command, tmp_path: Path, spoil: Callable[[str], str], message: str
) -> None:
    path = tmp_path / "data" / "output" / "BTC_summary.json"
    path.write_text(spoil(path.read_text()))
    code, _, err = command("--demo", "--audit")
    assert code == 2
    assert message in err


def test_a_summary_that_is_missing_is_said_to_be_missing(command: Command, tmp_path: Path) -> None:
    (tmp_path / "data" / "output" / "BTC_summary.json").unlink()
    code, _, err = command("--demo", "--audit", "--coins", "BTC")
    assert code == 2
    assert err.count("BTC_summary.json: No such file or directory") == 1
    assert "is not JSON" not in err


def test_candles_that_are_not_those_of_the_run_are_refused_first(
    command: Command, tmp_path: Path
) -> None:
    tamper_with_btc(tmp_path)
    path = tmp_path / "data" / "output" / "BTC_summary.json"
    summary = json.loads(path.read_text())
    summary["data"]["hash"] = "0123456789abcdef"
    path.write_text(json.dumps(summary))
    code, out, err = command("--demo", "--audit", "--coins", "BTC")
    assert (code, out) == (2, "")
    assert "those of the run had 0123456789abcdef" in err


def test_the_same_data_are_loaded_again_even_from_the_middle_of_a_bar(tmp_path: Path) -> None:
    simulator = BacktestSimulator(source="demo")
    result = simulator.run_single("BTC", "2024-01-10T14:20", "2024-01-20T09:07")
    (tmp_path / "s.json").write_bytes(summary_json(typed(result)))
    summary = read_summary(tmp_path / "s.json")
    assert load_again(summary, simulator.source).data_hash == result["data"]["hash"]
    other = replace(summary, data={**summary.data, "loaded_to": "2024-01-20 12:00"})
    with pytest.raises(DataError, match="have the hash"):
        load_again(other, simulator.source)


# --- the portfolio ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run of a whole coin, one listed late, and one delisted and holed."""
    data, output = tmp_path_factory.mktemp("candles"), tmp_path_factory.mktemp("files")
    rows = {"BTC": slice(0, 1_400), "ETH": slice(600, 1_400), "SOL": slice(0, 900)}
    for seed, (coin, kept) in enumerate(rows.items(), start=28):
        candles = synthetic_candles(1_400, seed).iloc[kept]
        if coin == "SOL":
            candles = pd.concat([candles.iloc[:500], candles.iloc[560:]])
        candles.to_csv(data / f"{coin}-15m.csv", index=False)
    start = format_time(int(synthetic_candles(1_400, 28)["timestamp"].iloc[300])).replace(" ", "T")
    arguments = ["--data", str(data), "--output", str(output), "--coins", *rows]
    code = main.main([*arguments, "--preset", "documented", "--start", start, "--no-plot"])
    assert code == 0
    return output


def audit_uneven(folder: Path) -> int:
    data = json.loads((folder / "BTC_summary.json").read_text())["data"]["source"]
    return main.main(["--audit", "--data", data.removeprefix("files in "), "--output", str(folder)])


def test_a_portfolio_of_coins_with_other_ranges_adds_up_and_is_audited(
    uneven: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    portfolio = json.loads((uneven / "portfolio_summary.json").read_text())
    coins = [json.loads((uneven / f"{c}_summary.json").read_text()) for c in portfolio["coins"]]
    total = sum(coin["metrics"]["final_capital"] for coin in coins)
    assert portfolio["metrics"]["final_capital"] == pytest.approx(total, abs=0.005)
    assert portfolio["metrics"]["total_trades"] == sum(c["metrics"]["total_trades"] for c in coins)
    ranges = portfolio["data"]["ranges"]
    assert len({(item["start"], item["end"]) for item in ranges.values()}) == 3
    assert audit_uneven(uneven) == 0
    out = capsys.readouterr().out
    assert "portfolio_summary.json: nothing wrong" in out
    assert "BTC, ETH, SOL add up: " in out


@pytest.mark.parametrize(
    "place",
    [
        "initial_capital",
        "data.bars",
        "data.common_bars",
        "data.first_bar",
        "value_at_risk.horizon_bars",
        "value_at_risk.volatility_period",
        "value_at_risk.high_corr_threshold",
        "value_at_risk.end",
        "value_at_risk.end_pct",
        "value_at_risk.highest",
        "value_at_risk.highest_pct",
        "value_at_risk.highest_at",
        "value_at_risk.correlation.BTC/ETH",
        *(
            f"metrics.{name}"
            for name in (
                "final_capital",
                "total_return_pct",
                "max_drawdown_pct",
                "sharpe_ratio",
                "sortino_ratio",
                "calmar_ratio",
                "exposure_pct",
                "buy_hold_return_pct",
                "turnover",
                "fees_paid",
                "total_trades",
                "win_rate_pct",
                "profit_factor",
                "longs_opened",
                "shorts_closed",
                "stops_long",
                "prune_count",
                "var_blocks",
            )
        ),
    ],
)
def test_a_portfolio_figure_that_does_not_follow_is_named(uneven: Path, place: str) -> None:
    portfolio = json.loads((uneven / "portfolio_summary.json").read_text())
    accounts = [uneven_account(uneven, coin) for coin in portfolio["coins"]]
    assert check_portfolio(portfolio, accounts)[1] is None
    *sections, key = place.split(".")
    holder = portfolio
    for section in sections:
        holder = holder[section]
    value = holder[key]
    holder[key] = value + "x" if isinstance(value, str) else value * 1.01 + 1
    finding = check_portfolio(portfolio, accounts)[1]
    assert finding is not None
    assert finding.place == place


@functools.cache
def uneven_account(folder: Path, coin: str) -> CoinAccount:
    summary = read_summary(folder / f"{coin}_summary.json")
    source = market_source(summary.data["source"].removeprefix("files in "), folder)
    account = audit_coin(
        folder / f"{coin}_trades.csv", summary, load_again(summary, source)
    ).account
    assert account is not None
    return account


def test_the_value_at_risk_of_coins_in_step_is_recomputed_and_their_shares_are_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--demo", "--coins", "BTC", "ETH", "SOL", "--output", str(tmp_path)]
    together = ["--portfolio", "--weights", "BTC=0.5", "ETH=0.3", "SOL=0.2", "--capital", "30000"]
    days = ["--start", "2024-03-01", "--end", "2024-03-20", "--no-plot"]
    assert main.main([*arguments, *together, *days]) == 0
    path = tmp_path / "portfolio_summary.json"
    sound = json.loads(path.read_text())
    assert sound["value_at_risk"]["highest"] > 0.0
    capsys.readouterr()
    assert main.main(["--demo", "--audit", "--output", str(tmp_path)]) == 0
    assert "not checked: value_at_risk" not in capsys.readouterr().out
    for section, name in (("value_at_risk", "highest"), ("together", "steps")):
        wrong = {**sound, section: {**sound[section], name: sound[section][name] + 1}}
        path.write_text(json.dumps(wrong))
        assert main.main(["--demo", "--audit", "--output", str(tmp_path)]) == 1
        assert f"{section}.{name}" in capsys.readouterr().out
    weights = {"BTC": 0.4, "ETH": 0.4, "SOL": 0.2}
    path.write_text(json.dumps({**sound, "together": {**sound["together"], "weights": weights}}))
    assert main.main(["--demo", "--audit", "--output", str(tmp_path)]) == 1
    assert "together.weights" in capsys.readouterr().out


def test_a_portfolio_whose_coin_is_missing_is_found(
    uneven: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in uneven.glob("*_summary.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for path in uneven.glob("*_trades.csv"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "SOL_summary.json").unlink()
    assert audit_uneven(tmp_path) == 1
    assert "there is no summary of SOL" in capsys.readouterr().out


def test_a_portfolio_of_an_older_version_is_refused(uneven: Path, tmp_path: Path) -> None:
    portfolio = json.loads((uneven / "portfolio_summary.json").read_text())
    del portfolio["value_at_risk"]["volatility_period"]
    (tmp_path / "portfolio_summary.json").write_text(json.dumps(portfolio))
    with pytest.raises(DataError, match=r"lacks value_at_risk\.volatility_period; it is"):
        read_portfolio(tmp_path)
    del portfolio["data"]["ranges"]
    (tmp_path / "portfolio_summary.json").write_text(json.dumps(portfolio))
    with pytest.raises(DataError, match="of an older version: run the backtest again"):
        read_portfolio(tmp_path)
