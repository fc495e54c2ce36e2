"""The optimizer on the fixed grid: trials are its backtests, an hour of bars is permuted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apply_optimized_params
import optimizer
from backtest.optimize.judge.permutation import block_of
from backtest.optimize.trial.prepare import Prepared, prepare
from backtest.optimize.trial.space import read_space
from backtest.simulator import BacktestSimulator
from config import FIXED_GRID_PARAMS
from core.errors import ConfigError
from core.params import read_value
from core.performance import bar_returns
from core.times import BAR_MS, DAY_MS, MINUTE_MS
from engine.fixed_grid.params import FixedGridParams
from engine.registry import FIXED_GRID
from tests.support.paths import ROOT

SPACE = read_space(FIXED_GRID.space, FIXED_GRID)
START, END = "2025-10-15", "2025-11-19"
DRAWN: dict[str, Any] = {"take_profit": 0.006, "max_orders": 12, "wait_time": 600.0}
SEARCH = [
    *("--strategy", "fixed_grid", "--demo", "--coins", "SOL", "--start", START, "--end", END),
    *("--windows", "1", "--trials", "6", "--seeds", "2", "--mc-perms", "5", "--no-plot"),
]


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    simulator = BacktestSimulator(source="demo", strategy="fixed_grid")
    return prepare(simulator, SPACE, coins=["SOL"], start=START, end=END, windows=1)


def test_a_trials_days_are_those_of_a_backtest(prepared: Prepared) -> None:
    outcome = prepared.evaluate(DRAWN)
    run = prepared.evaluate_range(DRAWN)["SOL"]
    ends = np.flatnonzero(np.diff(run.times_ms // DAY_MS, append=-1))
    expected = bar_returns(run.equity_curve[ends], prepared.params.initial_capital)
    assert len(expected) > 10
    assert np.count_nonzero(expected) > 5
    # At the very end a backtest closes what is open, and a trial values it.
    np.testing.assert_array_equal(outcome.daily_returns[:-1], expected[:-1])
    assert outcome.train["SOL"][0].trades > 0


def test_what_is_drawn_changes_what_comes_out(prepared: Prepared) -> None:
    assert prepared.evaluate(DRAWN).score != prepared.evaluate({**DRAWN, "grid_step": 0.004}).score


def test_values_that_contradict_each_other_are_a_trial_of_the_worst_score(
    prepared: Prepared,
) -> None:
    outcome = prepared.evaluate({"take_profit": 0.0003})
    assert outcome.score == -1_000.0
    assert "must exceed 2 * fee_maker" in outcome.note


@pytest.mark.parametrize(("bar_ms", "bars"), [(MINUTE_MS, 60), (5 * MINUTE_MS, 12), (BAR_MS, 4)])
def test_bars_are_permuted_within_an_hour_whatever_their_length(bar_ms: int, bars: int) -> None:
    assert block_of(bar_ms) == bars


def test_every_bound_of_the_shipped_space_is_a_value_of_its_parameter() -> None:
    assert set(SPACE.entries) == set(FIXED_GRID.space)
    for name, entry in SPACE.entries.items():
        for value in (entry.low, entry.high):
            assert read_value(name, value, FixedGridParams) == value


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"step_s": {"type": "cat", "choices": [60, 900]}}, "decides which candles are loaded"),
        ({"grid_levels": {"type": "int", "low": 2, "high": 6}}, "unknown strategy parameter"),
        ({"stop_loss_pct": {"type": "float", "low": 0.1, "high": 9.0}}, "is outside"),
        ({}, "is empty"),
    ],
)
def test_an_impossible_space_is_refused_by_its_own_name(
    entries: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"FIXED_GRID_SPACE.*{message}"):
        read_space(entries, FIXED_GRID)


def test_ladders_can_be_choices() -> None:
    entry = {"type": "cat", "choices": [(1.5, 3.0), [2.0, 4.0]]}
    space = read_space({"ladder_pct": entry}, FIXED_GRID)
    read = [space.read_value("ladder_pct", text) for text in space.entries["ladder_pct"].choices]
    assert read == [(1.5, 3.0), (2.0, 4.0)]


@pytest.mark.slow
def test_a_search_ends_in_a_verdict_and_its_choice_is_written_where_it_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert optimizer.main([*SEARCH, "--output", "out"]) == 0
    printed = capsys.readouterr()
    assert "study fixed_grid_wfo" in printed.out
    document = json.loads(Path("out/optimizer_results_robust.json").read_text(encoding="utf-8"))
    assert document["strategy"] == "fixed_grid"
    assert set(document["robust_params"]) == set(FIXED_GRID.space)
    config = Path(shutil.copy(ROOT / "config.py", tmp_path / "other.py"))
    results = ["--params", "out/optimizer_results_robust.json", "--config", str(config)]
    assert apply_optimized_params.main([*results, "--yes", "--force"]) == 0
    names: dict[str, Any] = {}
    exec(config.read_text(encoding="utf-8"), names)  # noqa: S102 - our own file
    assert names["FIXED_GRID_PARAMS"] == {**FIXED_GRID_PARAMS, **document["robust_params"]}
    code = apply_optimized_params.main([*results, "--strategy", "grid_v4", "--preview"])
    assert code == 2
    assert "is of strategy fixed_grid, not of grid_v4" in capsys.readouterr().err
