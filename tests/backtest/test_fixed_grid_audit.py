"""The audit of a fixed grid: it passes honest files and names the row of every forgery."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backtest.audit.audit import AuditRequest, audit_fixed_coin, run_audit
from backtest.audit.files import read_summary
from backtest.market.market_data import MarketData
from backtest.results.files import summary_json, trades_csv
from backtest.simulator import BacktestSimulator
from tests.support.results.typed import typed

START, END = "2024-02-01", "2024-02-15"
BUSY: dict[str, Any] = {
    "recovery_mode": "hedge",
    "stuck_distance_pct": 1.0,
    "position_timeout_min": 60.0,
    "quantity_usd": 500.0,
    "grid_step": 0.001,
    "hedge_max_hours": 2.0,
    "hedge_release_pct": 0.1,
    "stop_loss_pct": 1.0,
}
Row = dict[str, Any]
Forgery = Callable[[list[Row]], None]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MarketData]:
    folder = tmp_path_factory.mktemp("run")
    simulator = BacktestSimulator(BUSY, source="demo", strategy="fixed_grid")
    result = simulator.run_single("BTC", START, END)
    (folder / "BTC_trades.csv").write_bytes(trades_csv(typed(result)))
    (folder / "BTC_summary.json").write_bytes(summary_json(typed(result)))
    return folder, simulator.load("BTC", START, END).market


@pytest.mark.parametrize("direction", ["buy", "sell"])
@pytest.mark.parametrize("mode", ["ladder", "hedge", "aggressive", "none"])
@pytest.mark.parametrize("step_s", [60, 900])
def test_honest_runs_pass(tmp_path: Path, direction: str, mode: str, step_s: int) -> None:
    changes = {**BUSY, "direction": direction, "recovery_mode": mode, "step_s": step_s}
    simulator = BacktestSimulator(changes, source="demo", strategy="fixed_grid")
    result = simulator.run_single("BTC", START, END)
    (tmp_path / "BTC_trades.csv").write_bytes(trades_csv(typed(result)))
    (tmp_path / "BTC_summary.json").write_bytes(summary_json(typed(result)))
    report = audit_fixed_coin(
        tmp_path / "BTC_trades.csv",
        read_summary(tmp_path / "BTC_summary.json"),
        simulator.load("BTC", START, END).market,
    )
    assert report.finding is None
    assert f"{len(result['trades']):,} rows" in report.lines[1]
    assert len(result["trades"]) > 50


def test_modelled_funding_is_said_to_be_unchecked_and_no_honest_run_called_wrong(
    tmp_path: Path,
) -> None:
    market = BacktestSimulator(BUSY, source="demo", strategy="fixed_grid").load("BTC", START, END)
    market.market.candles.to_csv(tmp_path / "BTCUSDT-1m.csv", index=False)
    simulator = BacktestSimulator(BUSY, source=str(tmp_path), strategy="fixed_grid")
    result = simulator.run_single("BTC", START, END)
    assert result["data"]["funding"] == "modelled"
    assert result["metrics"]["funding_pnl"] != 0.0
    (tmp_path / "BTC_trades.csv").write_bytes(trades_csv(typed(result)))
    (tmp_path / "BTC_summary.json").write_bytes(summary_json(typed(result)))
    report = audit_fixed_coin(
        tmp_path / "BTC_trades.csv",
        read_summary(tmp_path / "BTC_summary.json"),
        simulator.load("BTC", START, END).market,
    )
    assert report.finding is None
    assert any("funding_pnl" in text for text in report.not_checked)


def of_label(rows: list[Row], label: str) -> Row:
    return next(row for row in rows if row["label"] == label)


def change(label: str, /, **values: Any) -> Forgery:
    """Return what changes cells of the first row with a label; a function gets the old number."""

    def forge(rows: list[Row]) -> None:
        row = of_label(rows, label)
        for name, value in values.items():
            row[name] = value(float(row[name])) if callable(value) else value

    return forge


def swap_first_two_cycles(rows: list[Row]) -> None:
    first, second = [row for row in rows if row["label"] == "BUY_OPEN_LONG"][:2]
    second["cycle"] = first["cycle"]


FORGERIES: dict[str, tuple[Forgery, str]] = {
    "an entry off the tick": (change("BUY_OPEN_LONG", price=lambda x: x + 0.03), "off the tick"),
    "an entry under its bar": (change("BUY_OPEN_LONG", price=lambda x: x - 900.0), "bar's path"),
    "a size too large": (change("BUY_OPEN_LONG", qty=lambda x: 2 * x), "qty is"),
    "a fee too small": (change("BUY_OPEN_LONG", fee=lambda x: 0.5 * x), "fee is"),
    "a profit too large": (change("SELL_CLOSE_LONG", pnl=lambda x: x + 1.0), "pnl is"),
    "a stop without slippage": (change("STOP_LONG", price=lambda x: x + 900.0), "price is"),
    "a market order at another price": (
        change("RECOVERY_HEDGE_OPEN", price=lambda x: x + 0.1),
        "price is",
    ),
    "a hedge of another size": (
        change("RECOVERY_HEDGE_OPEN", qty=lambda x: x + 0.001),
        "fits no position",
    ),
    "a fill closed twice": (
        lambda rows: rows.insert(
            rows.index(of_label(rows, "SELL_CLOSE_LONG")), dict(of_label(rows, "SELL_CLOSE_LONG"))
        ),
        "is not open",
    ),
    "a missing close": (lambda rows: rows.remove(of_label(rows, "SELL_CLOSE_LONG")), ""),
    "one cycle for two entries": (swap_first_two_cycles, "cycle is"),
    "a label that there is not": (change("SELL_CLOSE_LONG", label="GIFT"), "label is"),
    "another time": (change("SELL_CLOSE_LONG", timestamp="1706745600001"), "timestamp is"),
    "a word for a number": (change("SELL_CLOSE_LONG", qty="much"), "no number"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_row_is_found(files: tuple[Path, MarketData], tmp_path: Path, name: str) -> None:
    folder, market = files
    forge, wrong = FORGERIES[name]
    rows = list(csv.DictReader((folder / "BTC_trades.csv").read_text().splitlines()))
    columns = list(rows[0])
    forge(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    (tmp_path / "BTC_trades.csv").write_text(text.getvalue())
    report = audit_fixed_coin(
        tmp_path / "BTC_trades.csv", read_summary(folder / "BTC_summary.json"), market
    )
    assert report.finding is not None
    assert wrong in report.finding.wrong


@pytest.mark.parametrize(
    "figure", ["final_capital", "funding_pnl", "total_trades", "win_rate_pct", "fees_paid"]
)
def test_a_forged_figure_is_found(
    files: tuple[Path, MarketData], tmp_path: Path, figure: str
) -> None:
    folder, market = files
    content = json.loads((folder / "BTC_summary.json").read_text())
    content["metrics"][figure] += 1.0
    (tmp_path / "BTC_summary.json").write_text(json.dumps(content))
    report = audit_fixed_coin(
        folder / "BTC_trades.csv", read_summary(tmp_path / "BTC_summary.json"), market
    )
    assert report.finding is not None
    assert report.finding.place == f"metrics.{figure}"


def test_a_narrower_grid_than_the_parameters_allow_is_found(
    files: tuple[Path, MarketData], tmp_path: Path
) -> None:
    folder, market = files
    for name, value in (("grid_step", 0.05), ("max_orders", 1), ("max_margin_usd", 600.0)):
        content = json.loads((folder / "BTC_summary.json").read_text())
        content["parameters"][name] = value
        (tmp_path / "BTC_summary.json").write_text(json.dumps(content))
        report = audit_fixed_coin(
            folder / "BTC_trades.csv", read_summary(tmp_path / "BTC_summary.json"), market
        )
        assert report.finding is not None, name


def test_the_command_finds_the_audit_of_the_strategy(
    files: tuple[Path, MarketData], capsys: pytest.CaptureFixture[str]
) -> None:
    request = AuditRequest(
        coins=None, source="demo", folder=files[0], start=None, end=None, detail=None, params={}
    )
    assert run_audit(request) == 0
    assert "distance, size and caps" in capsys.readouterr().out
