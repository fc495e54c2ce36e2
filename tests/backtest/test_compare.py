"""The worth of each mechanism: removed one at a time, and all of them: the static grid."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backtest.commands.compare
import main
from backtest.commands.compare import print_comparison
from backtest.runs.variants import Variants
from backtest.simulator import BacktestSimulator
from backtest.trust.compare import (
    FULL,
    MECHANISMS,
    STATIC,
    STATIC_GRID,
    add_outcomes,
    coin_rows,
    mechanisms,
    overall_rows,
    removals,
    static_grid,
    without,
    without_all,
)
from config import PRESETS
from core.errors import ConfigError
from core.params import PruneRule, param_fields
from engine.strategy import GridStrategyV4, read_config
from engine.types import LABEL_NAMES
from tests.support.results.typed import typed, typed_coins

START, END = "2024-08-10", "2024-09-20"
"""Around the demo's crash."""
RANGE = ["--start", START, "--end", END]
COSTS = {"funding_enabled"}
"""Switches of what a static grid pays too."""


def variants_of(config: dict[str, Any], coin: str = "SOL") -> Variants:
    simulator = BacktestSimulator(config, source="demo")
    return Variants(simulator.load(coin, START, END), simulator.params)


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the tests the remark about compiling."""
    monkeypatch.setattr(backtest.commands.compare, "is_compiled", lambda _: True)


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    simulator = BacktestSimulator(PRESETS["documented"], source="demo", also=add_outcomes)
    return {coin: simulator.run_single(coin, START, END) for coin in ("BTC", "SOL")}


# --- the static grid ----------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_everything_removed_equals_the_static_grid(preset: str) -> None:
    variants = variants_of(PRESETS[preset])
    bare, static = without_all(variants.params), static_grid(variants.params)
    assert bare == static
    ours, theirs = variants.run(bare), variants.run(static)
    assert len(ours.trades) > 0
    assert np.array_equal(ours.trades, theirs.trades)
    assert np.array_equal(ours.equity_curve, theirs.equity_curve)


def test_everything_switched_off_by_hand_equals_the_static_grid() -> None:
    variants = variants_of({})
    off = {name: value for name, value in STATIC_GRID.items() if name != "regen_drift_mult"} | {
        "regen_drift_mult": 100.0
    }
    data = variants.data
    by_hand = GridStrategyV4(off, data.rules).run(
        data.market.candles, funding=data.market.funding, first_bar=data.first_bar
    )
    static = variants.run(static_grid(variants.params))
    assert repr(by_hand["metrics"]) == repr(static.metrics)
    assert np.array_equal(by_hand["trade_table"], static.trades)


def test_a_static_grid_has_every_switch_off_but_its_costs() -> None:
    switches = {name for name in param_fields() if name.endswith("_enabled")} - COSTS
    assert switches <= set(STATIC_GRID)
    assert all(not STATIC_GRID[name] for name in switches)


def test_a_static_grid_trades_at_its_first_levels_only_and_is_never_protected() -> None:
    params = read_config(PRESETS["documented"])
    trades = variants_of(PRESETS["documented"]).run(static_grid(params)).trades
    labels = {LABEL_NAMES[code] for code in trades["label"].tolist()}
    assert labels == {
        "BUY_OPEN_LONG",
        "SELL_CLOSE_LONG",
        "SELL_OPEN_SHORT",
        "BUY_CLOSE_SHORT",
        "CLOSE_END",
    }
    assert set(trades["regime"].tolist()) == {0}
    for label in ("BUY_OPEN_LONG", "SELL_OPEN_SHORT"):
        prices = trades["price"][trades["label"] == LABEL_NAMES.index(label)]
        assert 0 < len(set(prices.tolist())) <= params.grid_levels


def test_the_static_grid_keeps_geometry_limits_and_costs() -> None:
    params = read_config({"grid_levels": 7, "order_pct": 0.03, "fee_maker": 0.0001})
    static = static_grid(params)
    for name in param_fields():
        assert name in STATIC_GRID or getattr(static, name) == getattr(params, name)


# --- one at a time ------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", mechanisms())
def test_a_removed_mechanism_leaves_all_others(mechanism: str) -> None:
    params = read_config({})
    changed = {
        name
        for name in param_fields()
        if getattr(without(params, mechanism), name) != getattr(params, name)
    }
    assert changed == set(MECHANISMS.get(mechanism, ("prune_enabled",)))


def test_pruning_rules_are_removed_one_by_one() -> None:
    params = read_config({})
    assert without(params, "prune gap").prune_enabled == params.prune_enabled & ~PruneRule.GAP
    assert sum(name.startswith("prune ") for name in mechanisms()) == len(PruneRule)


def test_what_is_off_already_is_not_removed_again() -> None:
    names = removals(read_config({"kelly_enabled": False, "prune_enabled": ["GAP"]}))
    assert "Kelly" not in names
    assert "prune oldest" not in names
    assert {"prune gap", "trailing", STATIC} <= set(names)


@pytest.mark.parametrize("mechanism", ["regime", "ADX veto", "Kelly", "re-centring"])
def test_a_variant_is_what_a_backtest_without_the_mechanism_answers(mechanism: str) -> None:
    variants = variants_of(PRESETS["documented"])
    params, data = without(variants.params, mechanism), variants.data
    alone = GridStrategyV4(params, data.rules).run(
        data.market.candles, funding=data.market.funding, first_bar=data.first_bar
    )
    ours = variants.run(params)
    assert repr(ours.metrics) == repr(alone["metrics"])
    assert np.array_equal(ours.trades, alone["trade_table"])


@pytest.mark.parametrize("changes", [{"atr_period": 20}, {"regime_threshold": 0.9}])
def test_a_variant_may_not_change_what_the_shared_indicators_are_made_of(
    changes: dict[str, Any],
) -> None:
    variants = variants_of({})
    with pytest.raises(ConfigError, match=next(iter(changes))):
        variants.run(read_config(changes))


def test_a_regime_that_was_never_computed_cannot_be_switched_on() -> None:
    with pytest.raises(ConfigError, match="regime_enabled"):
        variants_of({"regime_enabled": False}).run(read_config({}))


# --- tables -------------------------------------------------------------------------------------


def test_rows_are_sorted_by_what_the_removal_costs(results: dict[str, dict[str, Any]]) -> None:
    for rows in (
        coin_rows(typed(results["SOL"])),
        overall_rows(list(typed_coins(results).values())),
    ):
        assert [row.name for row in rows[:2]] == [STATIC, FULL]
        costs = [row.cost for row in rows[2:]]
        assert costs == sorted(costs, reverse=True)
        assert {row.name for row in rows[2:]} == set(mechanisms())


def test_the_full_strategys_row_is_the_backtest(results: dict[str, dict[str, Any]]) -> None:
    row = next(row for row in coin_rows(typed(results["BTC"])) if row.name == FULL)
    metrics = results["BTC"]["metrics"]
    assert (row.total_return_pct, row.max_drawdown_pct) == (
        metrics["total_return_pct"],
        metrics["max_drawdown_pct"],
    )
    assert (row.trades, row.fees, row.cost) == (metrics["total_trades"], metrics["fees_paid"], 0.0)


def test_cost_is_the_return_the_full_strategy_has_more(results: dict[str, dict[str, Any]]) -> None:
    rows = coin_rows(typed(results["SOL"]))
    full = next(row.total_return_pct for row in rows if row.name == FULL)
    assert all(row.cost == full - row.total_return_pct for row in rows)
    assert len({row.cost for row in rows}) > 5


def test_over_all_coins_money_adds_up(results: dict[str, dict[str, Any]]) -> None:
    whole = {row.name: row for row in overall_rows(list(typed_coins(results).values()))}
    parts = [{row.name: row for row in coin_rows(typed(result))} for result in results.values()]
    for name, row in whole.items():
        assert row.trades == sum(part[name].trades for part in parts)
        assert row.fees == pytest.approx(sum(part[name].fees for part in parts))
        mean = np.mean([part[name].total_return_pct for part in parts])
        assert row.total_return_pct == pytest.approx(mean)
        assert row.max_drawdown_pct <= max(part[name].max_drawdown_pct for part in parts) + 1e-9


def test_the_number_of_threads_does_not_matter(results: dict[str, dict[str, Any]]) -> None:
    also = partial(add_outcomes, threads=1)
    again = BacktestSimulator(PRESETS["documented"], source="demo", also=also)
    assert coin_rows(typed(again.run_single("SOL", START, END))) == coin_rows(typed(results["SOL"]))


def test_the_tables_are_no_wider_than_a_terminal(results: dict[str, dict[str, Any]]) -> None:
    printed: list[str] = []
    print_comparison(typed_coins(results), printed.append)
    lines = "\n".join(printed).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert sum(line.startswith(FULL) for line in lines) == 3
    assert any(line.endswith("no effect") for line in lines)


# --- the command --------------------------------------------------------------------------------


def test_the_command_prints_a_table_per_coin_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["--demo", "--coins", "BTC", "ETH", *RANGE, "--compare"]) == 0
    out = capsys.readouterr().out
    assert [out.count(f"\n{name}") for name in (STATIC, FULL)] == [3, 3]
    assert "All coins" in out
    assert list(tmp_path.iterdir()) == []


def test_the_command_answers_machines_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["--demo", "--coins", "BTC", *RANGE, "--compare", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["coins"]["BTC"][:2]] == [STATIC, FULL]
    assert len(found["all_coins"]) == len(mechanisms()) + 2


def test_a_coin_that_fails_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["--demo", "--coins", "BTC", "DOGE", *RANGE, "--compare"]) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("BTC")
    [error] = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert "DOGE" in error


def test_a_table_over_some_of_the_coins_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    coins = ["--coins", "BTC", "DOGE", "ETH"]
    assert main.main(["--demo", *coins, *RANGE, "--compare"]) == 2
    out = capsys.readouterr().out
    assert "All coins" not in out
    assert "\nBTC + ETH  " in out


def test_bands_and_comparison_are_not_asked_for_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main.main(["--demo", "--compare", "--bands"])
    assert stopped.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


def test_json_without_any_coin_is_still_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["--demo", "--coins", "DOGE", *RANGE, "--compare", "--json"]) == 2
    failed = {"DOGE": "the demo has no coin DOGE; it has: BTC, ETH, SOL"}
    found = json.loads(capsys.readouterr().out)
    assert found == {"coins": {}, "all_coins": [], "failed": failed}
