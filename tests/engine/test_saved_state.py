"""States that earlier versions saved go on as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from backtest.market.market_data import MarketData
from backtest.runs.step_run import StepRun, run_tables
from config import PRESETS
from engine.strategy import GridStrategyV4, read_config
from tests.support.markets.oracle import coin_rules
from tests.support.markets.recording import write_recording

SAVED = Path(__file__).parent / "stored/grid_v4_state_schema_1.json"
"""After the steps 0 to 2599 over the recording, documented preset: 335 round trips, three fills."""
STEPS_DONE, N_BARS = 2_600, 3_840


def schema_1() -> dict[str, Any]:
    return dict(json.loads(SAVED.read_text(encoding="ascii")))


def step_run(folder: Path) -> StepRun:
    write_recording(folder)
    candles = pd.read_csv(folder / "BTCUSDT-15m.csv")
    funding = pd.read_csv(folder / "BTCUSDT-funding.csv")
    params = read_config(PRESETS["documented"])
    market = MarketData(
        coin="BTC", candles=candles, funding=funding, detail=None, bar_ms=900_000, source="made up"
    )
    return StepRun(run_tables(market, params, 0), params, coin_rules("BTC"))


@pytest.mark.parametrize("stale", [False, True])
def test_a_state_of_schema_1_goes_on_as_one_that_was_never_saved(
    tmp_path: Path, stale: bool
) -> None:
    whole, resumed = step_run(tmp_path), step_run(tmp_path)
    whole.run_compiled(0, STEPS_DONE)
    before = len(whole.trades)
    resumed.strategy.load_state_dict(schema_1() | {"kelly_stale": stale})
    for run in (whole, resumed):
        run.run_compiled(STEPS_DONE, N_BARS)
        run.close(N_BARS)
    assert len(resumed.trades) > 100
    assert resumed.trades.tobytes() == whole.trades[before:].tobytes()
    assert resumed.strategy.state_dict() == whole.strategy.state_dict()


def test_a_state_of_schema_1_is_what_this_version_has_at_that_step(tmp_path: Path) -> None:
    run, strategy = step_run(tmp_path), GridStrategyV4(PRESETS["documented"], "BTC")
    run.run_compiled(0, STEPS_DONE)
    strategy.load_state_dict(schema_1())
    ours, theirs = run.strategy.state_dict(), strategy.state_dict()
    for side in (*ours["sides"], *theirs["sides"]):
        # Brought up to date where entries are chosen, no longer where a fill opens or closes.
        for fill in side["fills"]:
            fill["busy"] = None
        side["n_busy"] = side["stage1_done"] = None
        # Says now that the fills are those of the last choice, not that every level rests.
        side["settled"] = None
        for level in side["levels"]:
            level["armed"] = None
    assert ours == theirs


def test_a_state_with_an_unknown_field_is_refused() -> None:
    strategy = GridStrategyV4(PRESETS["documented"], "BTC")
    with pytest.raises(ValueError, match="unknown \\['surprise'\\]"):
        strategy.load_state_dict(schema_1() | {"surprise": 1})
