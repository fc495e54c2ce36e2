"""Strategies by name, and the option that chooses one on every command."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

import pytest

import apply_optimized_params
import live_trade
import main
import optimizer
from config import OPTIMIZER_SPACE, PRESETS, STRATEGY_PARAMS
from core.errors import ConfigError
from core.market import MarketRules
from engine.options import chosen_strategy
from engine.registry import SPECS, find_strategy
from engine.strategy import CODE_FINGERPRINT
from tests.support.paths import ROOT

PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "main": main.build_parser,
    "live_trade": live_trade.build_parser,
    "optimizer": optimizer.build_parser,
    "apply_optimized_params": apply_optimized_params.build_parser,
}


def test_grid_v4_stands_for_what_the_configuration_says_of_it() -> None:
    spec = find_strategy("grid_v4")
    assert spec.defaults == STRATEGY_PARAMS
    assert spec.presets == PRESETS
    assert spec.space == OPTIMIZER_SPACE
    assert spec.fingerprint == CODE_FINGERPRINT
    assert spec.read({"grid_levels": 7}).to_dict() == {**spec.read().to_dict(), "grid_levels": 7}


def test_every_strategy_that_trades_live_is_made_as_drivers_see_it() -> None:
    live = {name: spec for name, spec in SPECS.items() if spec.live}
    assert {"grid_v4", "fixed_grid"} <= set(live)
    for name, spec in live.items():
        strategy = spec.create(spec.read(), MarketRules.inferred(100.0))
        assert strategy.name == name
        assert strategy.fingerprint == spec.fingerprint
        assert strategy.needs.bar_ms == spec.bar_ms(strategy.params)


@pytest.mark.parametrize("more", [["--capital", "1000"], ["--testnet"], ["--status"]])
def test_live_trading_refuses_a_strategy_that_does_not_trade_live(
    more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert live_trade.main(["--coin", "BTC", "--strategy", "short_grid", *more]) == 2
    assert "short_grid does not trade at the exchange" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.live])
def test_a_strategy_is_created_under_its_name_and_fingerprint(name: str) -> None:
    spec = find_strategy(name)
    strategy = spec.create(spec.read(), MarketRules.inferred(100.0))
    assert strategy.name == name
    assert strategy.needs == spec.needs
    assert strategy.fingerprint == spec.fingerprint


def test_an_unknown_strategy_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"unknown strategy 'gird_v4'; did you mean grid_v4\?"):
        find_strategy("gird_v4")


@pytest.mark.parametrize("command", PARSERS)
def test_every_command_lets_the_strategy_be_chosen_and_says_so(command: str) -> None:
    parser = PARSERS[command]()
    assert "--strategy NAME" in parser.format_help()
    without = argparse.Namespace(strategy=parser.get_default("strategy"))
    assert chosen_strategy(without) is find_strategy("grid_v4")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (main.main, ["--demo", "--strategy", "grid_v3"]),
        (optimizer.main, ["--demo", "--strategy", "grid_v3"]),
        (live_trade.main, ["--coin", "BTC", "--strategy", "grid_v3"]),
        (apply_optimized_params.main, ["--strategy", "grid_v3"]),
    ],
    ids=list(PARSERS),
)
def test_every_command_refuses_a_strategy_that_there_is_not(
    command: Callable[[list[str]], int], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(arguments) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: unknown strategy 'grid_v3'; did you mean grid_v4?")
    assert line.count("\n") == 1


def test_asking_which_strategies_there_are_loads_no_compiler() -> None:
    code = "import sys, engine.options; sys.exit('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)  # noqa: S603 - our code
    assert done.returncode == 0
