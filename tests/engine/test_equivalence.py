"""One step after the other equals the compiled loop; stopped and resumed equals run through.

Equal means to the last bit: the tables of trades and of every bar's account are compared as
bytes, the states as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import PRESETS
from core.records import load_jsonable, to_jsonable
from engine.exit_ladder import advance_ladder
from engine.grid_v4.types import new_state
from engine.strategy import GridStrategyV4
from tests.support.markets.oracle import (
    COINS,
    Inputs,
    StepLoop,
    coin_rules,
    inputs_of,
    real_candles,
    real_detail,
)
from tests.support.markets.synthetic import (
    CONFIGS,
    RULES,
    SEEDS,
    synthetic_candles,
    synthetic_detail,
    synthetic_settlements,
)
from tests.support.paths import ROOT

BUSY: dict[str, Any] = {
    "grid_levels": 8,
    "grid_spacing_k": 0.5,
    "spacing_floor": 0.003,
    "tp_concentration": 0.4,
    "leverage": 10.0,
    "kelly_min_trades": 5,
    "atr_sl_mult": 2.0,
    "funding_cost_ratio": 0.01,
    "offset_prune_ratio": 0.1,
    "trailing_activation_er": 0.3,
    "max_drawdown_pct": 0.1,
}
"""Parameters with which every mechanism is at work within a few hundred bars."""


def outcome(loop: StepLoop) -> tuple[bytes, bytes, str]:
    """Return trades, log and state of a loop."""
    return loop.trades.tobytes(), loop.log.tobytes(), json.dumps(to_jsonable(loop.state))


def through_json(loop: StepLoop) -> None:
    """Replace the state of ``loop`` by a new one, loaded from its JSON text."""
    text = json.dumps(to_jsonable(loop.state))
    loop.state = new_state(1.0)
    load_jsonable(loop.state, json.loads(text))
    assert json.dumps(to_jsonable(loop.state)) == text


def in_one_go(inputs: Inputs) -> tuple[bytes, bytes, str]:
    loop = StepLoop(inputs)
    loop.run_compiled(0, len(inputs.bars))
    loop.close()
    return outcome(loop)


def labels_of(inputs: Inputs) -> set[int]:
    loop = StepLoop(inputs)
    loop.run_compiled(0, len(inputs.bars))
    return set(loop.trades["label"].tolist())


def step_by_step(inputs: Inputs, restarts: set[int]) -> tuple[bytes, bytes, str]:
    loop = StepLoop(inputs)
    for i in range(len(inputs.bars)):
        if i in restarts:
            through_json(loop)
        loop.step(i)
    loop.close()
    return outcome(loop)


def in_pieces(inputs: Inputs, stops: list[int]) -> tuple[bytes, bytes, str]:
    loop, n_bars = StepLoop(inputs), len(inputs.bars)
    for start, stop in pairwise([0, *(stop for stop in sorted(stops) if stop < n_bars), n_bars]):
        through_json(loop)
        loop.run_compiled(start, stop)
    loop.close()
    return outcome(loop)


def some_bars(seed: str, n_bars: int, count: int) -> list[int]:
    """Return ``count`` random bars out of ``n_bars``."""
    rng = np.random.default_rng(list(seed.encode()))
    return [int(bar) for bar in rng.integers(1, n_bars, count)]


def real_inputs(coin: str, preset: str, start: str, n_bars: int, *, fine: bool = False) -> Inputs:
    candles, funding = real_candles(coin, start, n_bars)
    detail = real_detail(coin, candles) if fine else None
    return inputs_of(candles, PRESETS[preset], coin_rules(coin), funding, detail)


def invented_inputs(
    seed: int, n_bars: int, config: dict[str, Any], *, fine: bool = False
) -> Inputs:
    candles = synthetic_candles(n_bars, seed, missing=0.01)
    detail = synthetic_detail(candles, seed) if fine else None
    return inputs_of(candles, config, RULES, synthetic_settlements(candles, seed), detail)


# --- one step = the compiled loop ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["documented", "shipped"])
@pytest.mark.parametrize("coin", COINS)
def test_single_steps_equal_the_compiled_loop_on_real_candles(coin: str, preset: str) -> None:
    inputs = real_inputs(coin, preset, "2024-02-20", 2_500)
    restarts = set(some_bars(coin + preset, 2_500, 60))
    assert step_by_step(inputs, restarts) == in_one_go(inputs)


@pytest.mark.slow
def test_single_steps_equal_the_compiled_loop_on_real_minutes() -> None:
    inputs = real_inputs("ETH", "documented", "2025-01-30", 900, fine=True)
    assert len(inputs.detail) > 10_000
    assert step_by_step(inputs, {100, 350, 500, 501}) == in_one_go(inputs)


@pytest.mark.parametrize("preset", ["documented", "shipped"])
def test_single_steps_equal_the_compiled_loop(preset: str) -> None:
    inputs = invented_inputs(7, 400, {**PRESETS[preset], **BUSY})
    assert len(labels_of(inputs)) > 8
    assert step_by_step(inputs, set(range(60, 400, 7))) == in_one_go(inputs)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, config=CONFIGS, fine=st.booleans(), restarts=st.sets(st.integers(1, 199)))
def test_single_steps_equal_the_compiled_loop_whatever_the_parameters(
    seed: int, config: dict[str, Any], restarts: set[int], *, fine: bool
) -> None:
    inputs = invented_inputs(seed, 200, config, fine=fine)
    assert step_by_step(inputs, restarts) == in_one_go(inputs)


def test_the_methods_of_the_strategy_are_those_steps() -> None:
    inputs = invented_inputs(9, 300, {**PRESETS["documented"], **BUSY})
    loop, strategy = StepLoop(inputs), GridStrategyV4(inputs.config, RULES)
    for i in range(1, 300):
        if not loop.acts(i):
            continue
        loop.run_compiled(i, i)
        bar, close = inputs.bars[i], float(inputs.bars["close"][i - 1])
        strategy.open_step(
            i,
            int(bar.ts_ms),
            float(bar.open),
            close,
            inputs.signals[i - 1],
            float(inputs.funding["known"][i]),
        )
        assert all(strategy.protect(phase) == [] for phase in range(4))
        orders = list(strategy.arrange())
        loop.decide(i)
        assert orders == list(strategy.book)
        assert strategy.state_dict() == to_jsonable(loop.state)
        return


# --- stopped and resumed ------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["documented", "shipped"])
@pytest.mark.parametrize("coin", COINS)
@pytest.mark.slow
def test_a_run_in_pieces_equals_the_whole_on_real_candles(coin: str, preset: str) -> None:
    inputs = real_inputs(coin, preset, "2024-02-20", 8_000)
    stops = some_bars(preset + coin, 8_000, 25)
    assert in_pieces(inputs, stops) == in_one_go(inputs)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, config=CONFIGS, stops=st.sets(st.integers(1, 499), max_size=12))
def test_a_run_in_pieces_equals_the_whole(
    seed: int, config: dict[str, Any], stops: set[int]
) -> None:
    inputs = invented_inputs(seed, 500, config)
    assert in_pieces(inputs, sorted(stops)) == in_one_go(inputs)


def test_the_public_run_is_that_whole() -> None:
    candles = synthetic_candles(600, 13)
    funding = synthetic_settlements(candles, 13)
    config = {**PRESETS["documented"], **BUSY}
    strategy = GridStrategyV4(config, RULES)
    first = strategy.run(candles, funding=funding)
    trades, log, _ = in_one_go(inputs_of(candles, config, RULES, funding))
    assert (first["trade_table"].tobytes(), first["log"].tobytes()) == (trades, log)
    again = strategy.run(candles, funding=funding)  # nothing is left of the run before
    assert again["trades"] == first["trades"]


def test_a_state_that_lost_something_is_noticed() -> None:
    inputs = invented_inputs(7, 400, {**PRESETS["documented"], **BUSY})
    loop = StepLoop(inputs)
    bar = 300
    loop.run_compiled(0, bar)
    while loop.state.sides[0].n_fills == 0:
        loop.run_compiled(bar, bar + 1)
        bar += 1
    loop.state.sides[0].fills[0].entry_fee = 0.0
    loop.run_compiled(bar, len(inputs.bars))
    loop.close()
    assert outcome(loop) != in_one_go(inputs)


# --- compiled, interpreted, with bounds checked --------------------------------------------------


def digest() -> str:
    """Return a hash of trades, log and state over a few hundred bars of several markets."""
    sha = hashlib.sha256()
    for k, preset in enumerate(["documented", "shipped", "documented"]):
        config = {**PRESETS[preset], **(BUSY if k < 2 else {"leverage": 125.0, "order_pct": 0.2})}
        inputs = invented_inputs(30 + k, 260, config, fine=k == 1)
        trades, log, state = in_one_go(inputs)
        assert len(trades) > 20 * inputs.bars.itemsize, "too quiet a market to compare anything"
        sha.update(trades + log + state.encode())
    return sha.hexdigest()


def reads_beyond_a_table() -> str:
    """Return what happens where a take-profit points beyond the lattice."""
    side = new_state(1.0).sides[0]
    side.fills[0].tp_count, side.fills[0].tp_next = 1, 1_000
    try:
        advance_ladder(side, side.fills[0])
    except IndexError:
        return "refused"
    return "read"


def answer_under(name: str, **environment: str) -> str:
    """Return what ``name()`` answers in a fresh interpreter with other settings of the compiler."""
    ran = subprocess.run(  # noqa: S603 - this interpreter, this module
        [sys.executable, "-W", "error", "-c", f"import {__name__} as m; print(m.{name}())"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.mark.slow
def test_the_interpreted_engine_equals_the_compiled_one() -> None:
    other = "0" if os.environ.get("NUMBA_DISABLE_JIT") == "1" else "1"
    assert answer_under("digest", NUMBA_DISABLE_JIT=other) == digest()


@pytest.mark.slow
def test_no_kernel_reads_beyond_a_table() -> None:
    assert answer_under("reads_beyond_a_table", NUMBA_BOUNDSCHECK="1") == "refused"
    assert answer_under("digest", NUMBA_BOUNDSCHECK="1") == digest()


def test_the_digest_notices_a_single_changed_candle(monkeypatch: pytest.MonkeyPatch) -> None:
    before, original = digest(), synthetic_candles

    def altered(*args: Any, **more: Any) -> pd.DataFrame:
        candles = original(*args, **more)
        candles.loc[200, "low"] = np.round(0.99 * candles["low"][200], 1)
        return candles

    monkeypatch.setattr(sys.modules[__name__], "synthetic_candles", altered)
    assert digest() != before
