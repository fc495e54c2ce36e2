"""Properties of the compiled fixed grid: accounting, caps, scale, no lookahead, whole = in pieces.

Its agreement with the slow reference stands in ``test_fixed_grid_agreement``.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.market import MarketRules
from core.records import dtype_of, to_jsonable
from engine.fixed_grid.loop import FixedLog
from engine.fixed_grid.params import MAX_POSITIONS
from engine.fixed_grid.strategy import FixedGridStrategy
from engine.fixed_grid.types import FixedState, FixedTape, new_fixed_state
from engine.types import LIQUIDATION, RECOVERY_HEDGE_OPEN
from tests.engine.fixed_grid_reference.scenarios import MARKET, QUIET, columns
from tests.engine.test_fixed_grid_agreement import drawn_params
from tests.engine.test_fixed_grid_reference import (
    PARAMS,
    SEEDS,
    random_candles,
    random_market,
    read_params,
    settlements,
)
from tests.support.markets.fixed_grid import engine_run, fixed_params, frame_of
from tests.support.paths import ROOT

RULES = MarketRules(**{**MARKET, "brackets": tuple(MARKET["brackets"])})


def run_random(seed: int, drawn: dict[str, Any]) -> tuple[FixedGridStrategy, Any]:
    rows = random_market(seed)
    return engine_run(rows, read_params(drawn, rows[1][0]), MARKET, settlements(rows))


@settings(max_examples=40)
@given(SEEDS, PARAMS)
def test_records_and_funding_make_the_wallet_and_the_equity_of_every_bar(
    seed: int, drawn: dict[str, Any]
) -> None:
    strategy, result = run_random(seed, drawn)
    capital, sign = (
        strategy.params.initial_capital,
        np.where(result.trades["direction"] == 0, 1, -1),
    )
    trades, log = result.trades, result.log
    opening = (trades["label"] <= 1) | (trades["label"] == RECOVERY_HEDGE_OPEN)
    signed = np.where(opening, 1.0, -1.0) * trades["qty"]
    bars = strategy.tables(frame_of(random_market(seed))).bars
    earned = paid = long = short = 0.0
    at = 0
    for i, row in enumerate(log[:-1]):
        paid += row["funding"]
        while at < len(trades) and trades["bar"][at] <= i:
            earned += trades["pnl"][at] - trades["fee"][at]
            long += signed[at] * (sign[at] > 0)
            short += signed[at] * (sign[at] < 0)
            at += 1
        assert row["wallet"] == pytest.approx(capital + earned + paid, abs=1e-6)
        assert (row["long_qty"], row["short_qty"]) == (
            pytest.approx(long, abs=1e-9),
            pytest.approx(short, abs=1e-9),
        )
    closed = float(np.sum(trades["pnl"] - trades["fee"]) + np.sum(log["funding"]))
    assert log["wallet"][-1] == pytest.approx(capital + closed, abs=1e-6)
    assert log["equity"][-1] == pytest.approx(log["wallet"][-1], abs=1e-6)
    assert (log["long_qty"][-1], log["short_qty"][-1]) == (0.0, 0.0)
    assert len(bars) == len(log)


@settings(max_examples=40)
@given(SEEDS, PARAMS)
def test_margin_and_positions_stay_within_their_caps_whatever_fills(
    seed: int, drawn: dict[str, Any]
) -> None:
    strategy, result = run_random(seed, drawn)
    params, log = strategy.params, result.log
    assert np.all(log["margin"] <= params.max_margin_usd * (1 + 1e-9))
    assert np.all(log["n_open"] <= params.max_orders)
    own = log["long_qty"] if params.sign > 0 else log["short_qty"]
    if params.max_position_size > 0.0:
        assert np.all(own <= params.max_position_size + 1e-9)
    assert result.metrics["margin_utilization_max"] <= 1.0 + 1e-9
    assert set(result.trades["slot"].tolist()) <= set(range(params.max_orders))


@settings(max_examples=25)
@given(SEEDS, PARAMS)
def test_prices_times_a_thousand_change_nothing_but_prices(
    seed: int, drawn: dict[str, Any]
) -> None:
    rows = random_market(seed)
    params = read_params({**drawn, "fill_through_ticks": 0}, rows[1][0])
    _, small = engine_run(rows, params, MARKET, settlements(rows))
    for name in ("quantity_usd", "max_margin_usd", "initial_capital", "stop_price", "pause_price"):
        params[name] = None if params[name] is None else params[name] * 1000.0
    big_rows = [
        rows[0],
        *([float(round(1000.0 * x)) for x in column] for column in rows[1:5]),
        rows[5],
    ]
    market = {**MARKET, "tick_size": 100.0, "min_notional": 5000.0}
    _, big = engine_run(big_rows, params, market, settlements(rows))
    for name in ("bar", "label", "qty", "fill_id", "cycle", "slot", "direction"):
        assert np.array_equal(small.trades[name], big.trades[name])
    assert big.trades["price"] == pytest.approx(1000.0 * small.trades["price"])


@settings(max_examples=25)
@given(SEEDS, SEEDS, st.integers(2, 15), PARAMS)
def test_what_comes_later_changes_no_earlier_decision(
    seed: int, other: int, quarters: int, drawn: dict[str, Any]
) -> None:
    k = 15 * quarters
    candles = random_candles(seed)
    shift = candles[k][0] - random_candles(other)[0][0]
    tail = [tuple(round(x + shift, 1) for x in candle) for candle in random_candles(other)]
    changed = [*candles[:k], *((o, h, low, c) for o, h, low, c in tail[: len(candles) - k])]
    params = read_params(drawn, candles[0][0])
    seen = []
    for market in (candles, changed):
        _, result = engine_run(columns(market), params, MARKET)
        seen.append((result.log[:k].tobytes(), result.trades[result.trades["bar"] < k].tobytes()))
    assert seen[0] == seen[1]


def pieces(seed: int, cuts: set[int]) -> tuple[bytes, bytes, bytes, str]:
    """Run a market, the state going through its JSON text at every cut."""
    rows = random_market(seed)
    rng = random.Random(seed)  # noqa: S311 - no secret
    changes = drawn_params(rng, rows[1][0]) | {"quantity_usd": 1400.0}
    strategy = FixedGridStrategy(fixed_params(changes), RULES)
    tables = strategy.tables(frame_of(rows))
    log: Any = np.zeros(len(tables.bars), dtype_of(FixedLog))
    trades, marks = [], []
    edges = [0, *sorted(cut for cut in cuts if cut < len(tables.bars)), len(tables.bars)]
    for start, stop in pairwise(edges):
        run = strategy.compiled_run(tables, log)
        run.advance(start, stop)
        if stop == len(tables.bars):
            run.close()
        trades.append(run.trades)
        marks.append(run.taken("marks"))
        text = json.dumps(to_jsonable(strategy.state))
        strategy.state = new_fixed_state(1.0)
        strategy.load_state_dict(json.loads(text))
        assert json.dumps(to_jsonable(strategy.state)) == text
    return (np.concatenate(trades).tobytes(), np.concatenate(marks).tobytes(), log.tobytes(), text)


@settings(max_examples=15)
@given(SEEDS, st.sets(st.integers(1, 239), max_size=6))
def test_a_run_in_pieces_through_saved_states_equals_one_in_one_go(
    seed: int, cuts: set[int]
) -> None:
    assert pieces(seed, cuts) == pieces(seed, set())


def digest() -> str:
    """Return a digest of trades, marks, accounts and states of many random markets."""
    found = hashlib.sha256()
    for seed in range(20):
        for part in pieces(seed, set()):
            found.update(part if isinstance(part, bytes) else part.encode())
    return found.hexdigest()


def answer_under(**environment: str) -> str:
    command = "from tests.engine.test_fixed_grid import digest; print(digest())"
    return subprocess.run(  # noqa: S603 - our own code, no shell
        [sys.executable, "-c", command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


@pytest.mark.slow
def test_the_interpreter_gives_the_compiled_results_to_the_last_bit() -> None:
    other = "0" if os.environ.get("NUMBA_DISABLE_JIT") == "1" else "1"
    assert answer_under(NUMBA_DISABLE_JIT=other) == digest()


def test_memory_per_candle_is_far_under_a_kilobyte() -> None:
    # Candle, flags, funding and log; state and tape are of fixed size.
    per_candle = sum(dtype_of(row).itemsize for row in (FixedLog,)) + 40 + 3 + 16
    assert per_candle < 200
    assert dtype_of(FixedState).itemsize + dtype_of(FixedTape).itemsize < 4_000_000


def test_a_full_tape_is_emptied_between_candles() -> None:
    rows = random_market(4, 600)
    changes = {
        "quantity_usd": 1400.0,
        "initial_capital": 1e6,
        "max_margin_usd": 1e6,
        "max_orders": MAX_POSITIONS,
        "grid_step": 0.0005,
        "take_profit": 0.001,
        "wait_time": 0.0,
    }
    strategy = FixedGridStrategy(fixed_params(changes), RULES)
    tables = strategy.tables(frame_of(rows))
    whole = strategy.run_tables(tables)
    strategy.reset()
    run = strategy.compiled_run(tables)
    strategy.tape.n_trades = len(strategy.tape.trades) - 40  # as if full of earlier records
    strategy.tape.n_marks = len(strategy.tape.marks) - 40
    run.advance(0, len(tables.bars))
    run.close()
    written = run.trades[len(strategy.tape.trades) - 40 :]
    assert len(written) > 50
    assert written.tobytes() == whole.trades.tobytes()


def test_a_liquidation_leaves_nothing_open_and_ends_a_run_without_equity() -> None:
    seen = 0
    for seed in range(60):
        changes = {
            "quantity": 5.0,
            "leverage": 50.0,
            "initial_capital": 400.0,
            "max_orders": 6,
            "stop_loss_enabled": False,
            "max_margin_usd": 1e5,
        }
        strategy, result = engine_run(random_market(seed), changes, MARKET)
        if LIQUIDATION in result.trades["label"]:
            seen += 1
            assert strategy.state.ended or result.metrics["liquidations"] >= 1
            if strategy.state.ended:
                assert result.equity_curve[-1] == 0.0
                assert np.all(result.equity_curve >= 0.0)
    assert seen > 5


def test_where_the_first_touch_does_not_fill_the_next_bar_does() -> None:
    # The entry rests at 999.9; bar 0 reaches it, and so does bar 1. T = 1009.9: bars 15 and 16.
    dip, rise = (1000.0, 1000.0, 999.0, 999.0), (1009.0, 1011.0, 1009.0, 1011.0)
    candles = [dip, *[(999.0,) * 4] * 14, rise, *[(1011.0,) * 4] * 14]
    filled = {}
    for refuses in (False, True):
        params = replace(fixed_params({**QUIET, "max_orders": 1}), refuse_first_touch=refuses)
        strategy = FixedGridStrategy(params, RULES)
        tables = strategy.tables(frame_of(columns(candles)))
        filled[refuses] = [
            (t["bar"], t["label"], t["price"])
            for t in strategy.run_tables(tables).trade_dicts
            if t["label"] != "CLOSE_END"
        ][:2]
    assert filled[False] == [(0, "BUY_OPEN_LONG", 999.9), (15, "SELL_CLOSE_LONG", 1009.9)]
    assert filled[True] == [(1, "BUY_OPEN_LONG", 999.9), (16, "SELL_CLOSE_LONG", 1009.9)]


@settings(max_examples=25)
@given(SEEDS, PARAMS)
def test_a_refused_first_touch_fills_no_limit_earlier(seed: int, drawn: dict[str, Any]) -> None:
    rows = random_market(seed)
    changes = read_params({**drawn, "max_orders": 1}, rows[1][0])
    first = {}
    for refuses in (False, True):
        params = replace(fixed_params(changes), refuse_first_touch=refuses)
        strategy = FixedGridStrategy(params, RULES)
        trades = strategy.run_tables(strategy.tables(frame_of(rows))).trades
        first[refuses] = int(trades["bar"][0]) if len(trades) else len(rows[0])
    assert first[True] > first[False] or first[False] == len(rows[0])
