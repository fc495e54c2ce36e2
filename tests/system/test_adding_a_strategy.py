"""The example in docs/adding_a_strategy.md runs through backtest, replay and reports."""

from __future__ import annotations

import csv
import math
import re
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest

import live_trade
from backtest.market.demo import demo_market
from backtest.report.console import print_report
from backtest.report.document import coin_document
from backtest.results.files import trades_csv
from backtest.simulator import BacktestSimulator
from config import STRATEGY_PARAMS
from core.market import lots_down, tick_down
from core.orders import OrderKind
from core.params import StrategyParams
from core.records import Table, dtype_of, freeze, table_capacities, zeros
from core.times import BAR_MS
from engine import registry
from engine.contract import Bar, CloseAll, Exit, ExitsDone, Gap, Needs, RestingOrder, StrategySpec
from engine.ledger import close_side, equity_at, open_fill, settle_funding
from engine.stepped import SteppedBacktest
from engine.types import LABEL_NAMES, LONG, TAKE_PROFIT, Account, Fill, SideLedger, Tape
from engine.views import account_view, open_fills, taken_trades
from tests.support.paths import ROOT
from tests.support.results.typed import typed, typed_all

DOCUMENT = ROOT / "docs" / "adding_a_strategy.md"
PLACES = (
    *(Annotated, Table, SideLedger, Fill, Account, Tape, StrategySpec, StrategyParams, Needs),
    *(Bar, CloseAll, Exit, ExitsDone, Gap, RestingOrder, OrderKind, SteppedBacktest),
)
START, END = "2024-01-10", "2024-03-10"


def example() -> StrategySpec:
    """Return the example's entry, made of the document's text."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    assert blocks[0].count("\n") <= 100
    names: dict[str, Any] = {
        "__name__": __name__,
        **{getattr(item, "__name__", "Annotated"): item for item in PLACES},
        "STRATEGY_PARAMS": STRATEGY_PARAMS,
        "BAR_MS": BAR_MS,
        "LONG": LONG,
        "TAKE_PROFIT": TAKE_PROFIT,
        "LABEL_NAMES": LABEL_NAMES,
        "zeros": zeros,
        "freeze": freeze,
        "dtype_of": dtype_of,
        "table_capacities": table_capacities,
        "tick_down": tick_down,
        "lots_down": lots_down,
        "equity_at": equity_at,
        "open_fill": open_fill,
        "close_side": close_side,
        "settle_funding": settle_funding,
        "account_view": account_view,
        "open_fills": open_fills,
        "taken_trades": taken_trades,
        "partial": partial,
    }
    exec(compile(blocks[0], str(DOCUMENT), "exec", dont_inherit=True), names)  # noqa: S102 - the document's own code
    spec: StrategySpec = names["DIP"]
    return spec


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    simulator = BacktestSimulator(source="demo", strategy=example())
    return simulator.run_single("BTC", START, END)


@pytest.mark.slow
def test_the_example_trades_and_its_money_adds_up(result: dict[str, Any]) -> None:
    trades, metrics = result["trades"], result["metrics"]
    assert len(trades) > 10
    assert {trade["label"] for trade in trades} <= {"BUY_OPEN_LONG", "SELL_CLOSE_LONG", "CLOSE_END"}
    net = math.fsum(trade["pnl"] - trade["fee"] for trade in trades) + metrics["funding_pnl"]
    assert metrics["final_capital"] == pytest.approx(10_000.0 + net, abs=1e-9)
    assert result["equity_curve"][-1] == pytest.approx(metrics["final_capital"], abs=1e-9)


@pytest.mark.slow
def test_the_example_is_reported_as_any_other_strategy(result: dict[str, Any]) -> None:
    printed: list[str] = []
    print_report(typed_all({"BTC": result}), printed.append)
    text = "\n".join(printed)
    assert "Return" in text
    assert "Round trips" in text
    assert "Breaker halts" not in text
    document = coin_document(typed(result))
    assert document["metrics"]["total_trades"] == result["metrics"]["total_trades"]
    assert trades_csv(typed(result)).count(b"\n") == len(result["trades"]) + 1


@pytest.mark.slow
def test_the_example_trades_in_a_replay_as_in_its_backtest(
    result: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    market, spec = demo_market("BTC"), example()
    folder = tmp_path / "candles"
    folder.mkdir()
    market.candles.to_csv(folder / "BTC_15m.csv", index=False)
    market.funding.to_csv(folder / "BTC_funding.csv", index=False)
    monkeypatch.setitem(registry.SPECS, spec.name, spec)
    monkeypatch.chdir(tmp_path)
    arguments = ["--coin", "BTC", "--strategy", "dip", "--replay", str(folder)]
    assert live_trade.main([*arguments, "--start", START, "--end", END]) == 0
    assert "BTC replayed: 2024-01-10" in capsys.readouterr().out
    path = tmp_path / "data" / "live_replay" / "BTCUSDT_replay_trades.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = ("timestamp", "price", "qty", "label", "pnl", "fee", "direction", "fill_id")
    replayed = [[row[name] for name in names] for row in rows]
    assert replayed == [[str(trade[name]) for name in names] for trade in result["trades"]]
