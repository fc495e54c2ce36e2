"""The example in docs/adding_a_strategy.md runs through backtest and reports as it stands there."""

from __future__ import annotations

import math
import re
import time
from typing import Annotated, Any

import numpy as np
import pytest

from backtest.report.console import print_report
from backtest.report.document import coin_document
from backtest.results.files import trades_csv
from backtest.simulator import BacktestSimulator
from config import STRATEGY_PARAMS
from core.errors import ConfigError
from core.market import lots_down, tick_up
from core.params import StrategyParams
from core.records import Table, dtype_of, freeze, zeros
from core.times import BAR_MS
from engine.contract import Needs, StrategySpec
from engine.ledger import close_side, equity_at, open_fill
from engine.results import RunResult, run_metrics
from engine.tables import BarLog, bar_table
from engine.types import CLOSE_END, LONG, TAKE_PROFIT, Account, Fill, SideLedger, Tape, take_trades
from tests.support.paths import ROOT
from tests.support.results.typed import typed, typed_all

DOCUMENT = ROOT / "docs" / "adding_a_strategy.md"
IMPORTS = (
    *(Annotated, Any, Table, SideLedger, Fill, Account, Tape, BarLog, RunResult, Needs),
    *(StrategySpec, StrategyParams),
)


def no_live_trading(*_: Any) -> Any:
    raise ConfigError("dip only runs backtests")


def example() -> StrategySpec:
    """Return the example's entry, made of the document's text."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    assert blocks[0].count("\n") <= 80
    names: dict[str, Any] = {
        "__name__": __name__,
        **{getattr(item, "__name__", "Annotated"): item for item in IMPORTS},
        "np": np,
        "time": time,
        "BAR_MS": BAR_MS,
        "DAY": 96,
        "STRATEGY_PARAMS": STRATEGY_PARAMS,
        "LONG": LONG,
        "TAKE_PROFIT": TAKE_PROFIT,
        "CLOSE_END": CLOSE_END,
        "zeros": zeros,
        "freeze": freeze,
        "dtype_of": dtype_of,
        "bar_table": bar_table,
        "tick_up": tick_up,
        "lots_down": lots_down,
        "equity_at": equity_at,
        "open_fill": open_fill,
        "close_side": close_side,
        "take_trades": take_trades,
        "run_metrics": run_metrics,
        "no_live_trading": no_live_trading,
    }
    exec(compile(blocks[0], str(DOCUMENT), "exec", dont_inherit=True), names)  # noqa: S102 - the document's own code
    spec: StrategySpec = names["DIP"]
    return spec


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    simulator = BacktestSimulator(source="demo", strategy=example())
    return simulator.run_single("BTC", "2024-01-10", "2024-03-10")


@pytest.mark.slow
def test_the_example_trades_and_its_money_adds_up(result: dict[str, Any]) -> None:
    trades, metrics = result["trades"], result["metrics"]
    assert len(trades) > 10
    assert {trade["label"] for trade in trades} <= {"BUY_OPEN_LONG", "SELL_CLOSE_LONG", "CLOSE_END"}
    net = math.fsum(trade["pnl"] - trade["fee"] for trade in trades)
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


def test_the_example_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ConfigError, match="only runs backtests"):
        example().create(StrategyParams.from_dict(STRATEGY_PARAMS), None)
