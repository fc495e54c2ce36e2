"""The levels the report draws are the ones the strategy had."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backtest.report.grid_levels import SIDES, entry_levels, generations, level_segments
from core.params import StrategyParams
from engine.grid_v4.generation import lay_entries
from tests.support.markets.oracle import StepLoop, coin_rules, inputs_of
from tests.support.markets.synthetic import synthetic_candles
from tests.support.results.typed import typed


@pytest.fixture(scope="module")
def loop_and_levels() -> tuple[StepLoop, dict[str, list[list[float]]]]:
    """Return a loop run step by step, and the entry levels it had at every bar's end."""
    loop = StepLoop(inputs_of(synthetic_candles(1_500, 5), {}, coin_rules("BTC")))
    seen: dict[str, list[list[float]]] = {"long": [], "short": []}
    for i in range(len(loop.inputs.bars)):
        loop.step(i)
        assert loop.trades is not None
        for row, (side, _) in enumerate(SIDES):
            position = loop.state.sides[row]
            if position.generation > 0:  # prices are laid out when they are first asked for
                lay_entries(loop.inputs.params, loop.inputs.market, position, row)
            entries: Any = position.entries
            seen[side].append([float(price) for price in entries[:5]])
    return loop, seen


def params_of(loop: StepLoop) -> StrategyParams:
    return StrategyParams.from_dict(loop.inputs.config)


@pytest.mark.parametrize(("side", "heading"), SIDES)
def test_levels_worked_out_from_the_log_are_those_of_the_state(
    loop_and_levels: Any, side: str, heading: float
) -> None:
    loop, seen = loop_and_levels
    found = generations(loop.log, side)
    prices = entry_levels(found, heading, params_of(loop), coin_rules("BTC"))
    assert len(prices) > 3
    for first, last, row in zip(found.first, found.last, prices, strict=True):
        for bar in (first, last):
            assert seen[side][bar] == row.tolist()


def test_generations_cover_every_bar_from_the_first_grid_on_once(loop_and_levels: Any) -> None:
    loop, _ = loop_and_levels
    found = generations(loop.log, "long")
    assert (found.first[1:] == found.last[:-1] + 1).all()
    assert found.last[-1] == len(loop.log) - 1
    assert loop.log["long_centre"][found.first[0] - 1] == 0.0


def test_where_there_are_too_many_the_longest_lived_are_kept(loop_and_levels: Any) -> None:
    loop, _ = loop_and_levels
    result = {"log": loop.log, "params": loop.inputs.config, "market": coin_rules("BTC")}
    found = generations(loop.log, "long")
    (first, last, prices), hidden = level_segments(typed(result), loop.log, -1.0, "long", 15)
    assert hidden == len(found.first) - 3
    assert len(prices) == len(first) == 15
    lengths = np.sort(found.last - found.first)[::-1]
    assert sorted(set((last - first).tolist())) == sorted(set(lengths[:3].tolist()))


def test_a_run_without_a_grid_has_no_levels(loop_and_levels: Any) -> None:
    loop, _ = loop_and_levels
    result = {"log": loop.log[:3], "params": loop.inputs.config, "market": coin_rules("BTC")}
    (first, _, prices), hidden = level_segments(typed(result), loop.log[:3], 1.0, "short", 100)
    assert first.size == prices.size == hidden == 0
