"""No decision knows the future: what happens from bar k on changes nothing before it.

Bars from ``k`` on are replaced by quite different ones; of bar ``k`` only its open ``O_k`` stays,
which step ``k`` may know, and the funding settled up to then. Then every trade and the account
before bar ``k`` must be the same to the last bit, and so must be what step ``k`` does at ``O_k``:
its market exits, the orders it leaves resting, and the whole state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import PRESETS
from core.market import MarketRules
from engine.grid_v4.book import OrderBook
from engine.strategy import GridStrategyV4
from tests.support.markets.oracle import (
    COINS,
    Inputs,
    StepLoop,
    coin_rules,
    inputs_of,
    real_candles,
)
from tests.support.markets.synthetic import (
    BAR_MS,
    CONFIGS,
    RULES,
    SEEDS,
    synthetic_candles,
    synthetic_detail,
    synthetic_settlements,
)

STARTS = {"BTC": "2024-02-20", "ETH": "2025-01-10", "SOL": "2022-11-01"}
Build = Callable[..., Inputs]


def with_other_future(
    candles: pd.DataFrame, funding: pd.DataFrame, k: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a market that is the same up to the open of bar ``k`` and another one after it.

    The times stay: which settlements are missing from a record is not a market's future.
    """
    open_k = float(candles["open"].iloc[k])
    other = synthetic_candles(len(candles) - k, seed, price=open_k)
    other["timestamp"] = candles["timestamp"].iloc[k:].to_numpy()
    other.loc[0, ["open", "high", "low"]] = [
        open_k,
        max(open_k, other["high"].iloc[0]),
        min(open_k, other["low"].iloc[0]),
    ]
    later = funding["timestamp"] // 60_000 * 60_000 > candles["timestamp"].iloc[k]
    mirrored = (0.001 - 3.0 * funding["rate"]).clip(-0.05, 0.05)
    rates = funding["rate"].where(~later, mirrored)
    altered = pd.concat([candles.iloc[:k], other], ignore_index=True)
    return altered, funding.assign(rate=rates)


def differences(ours: Inputs, theirs: Inputs, k: int) -> set[str]:
    """Return what differs up to and including the decisions of step ``k``."""
    first, second = what_happened(ours, k), what_happened(theirs, k)
    return {name for name in first if first[name] != second[name]}


def what_happened(inputs: Inputs, k: int) -> dict[str, Any]:
    """Return everything that is done before the close of bar ``k`` is known, to the last bit."""
    loop = StepLoop(inputs)
    loop.run_compiled(0, k)
    before = loop.trades.tobytes()
    if loop.acts(k):
        loop.decide(k)
    state: Any = loop.state
    return {
        "trades": before,
        "account": loop.log[:k].tobytes(),
        "exits": loop.trades.tobytes(),
        "orders": resting(loop),
        "state": state.tobytes(),
    }


def resting(loop: StepLoop) -> list[Any]:
    """Return the orders that rest now."""
    return list(OrderBook(loop.state, loop.inputs.config["grid_levels"]))


def lookahead(
    candles: pd.DataFrame,
    funding: pd.DataFrame,
    config: dict[str, Any],
    rules: MarketRules,
    k: int,
    *,
    seed: int,
    build: Build = inputs_of,
) -> set[str]:
    """Return what another future from bar ``k`` on changes; nothing, if there is no lookahead."""
    other_candles, other_funding = with_other_future(candles, funding, k, seed)
    ours = build(candles, config, rules, funding)
    return differences(ours, build(other_candles, config, rules, other_funding), k)


# --- real candles -------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["documented", "shipped"])
@pytest.mark.parametrize("coin", COINS)
@pytest.mark.slow
def test_another_future_changes_no_decision_on_real_candles(coin: str, preset: str) -> None:
    candles, funding = real_candles(coin, STARTS[coin], 3_000)
    rng, config = np.random.default_rng(len(coin + preset)), dict(PRESETS[preset])
    for k in sorted(rng.integers(60, 2_990, 10).tolist()):
        found = lookahead(candles, funding, config, coin_rules(coin), k, seed=k)
        assert found == set(), f"bar {k}"


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["documented", "shipped"])
@pytest.mark.parametrize("coin", COINS)
def test_another_future_changes_nothing_before_any_of_many_bars(coin: str, preset: str) -> None:
    candles, funding = real_candles(coin, STARTS[coin], 12_000)
    rng, config = np.random.default_rng(len(coin + preset)), dict(PRESETS[preset])
    for k in sorted(rng.integers(60, 11_990, 50).tolist()):
        found = lookahead(candles, funding, config, coin_rules(coin), k, seed=k)
        assert found == set(), f"bar {k}"


@pytest.mark.parametrize("preset", ["documented", "shipped"])
@pytest.mark.parametrize("coin", COINS)
def test_a_run_over_fewer_or_other_bars_has_the_same_trades_until_then(
    coin: str, preset: str
) -> None:
    candles, funding = real_candles(coin, STARTS[coin], 3_000)
    strategy = GridStrategyV4(PRESETS[preset], coin_rules(coin))
    whole = strategy.run(candles, funding=funding)
    for k in (500, 1_377, 2_800):
        other_candles, other_funding = with_other_future(candles, funding, k, seed=k)
        for frame, rates in ((candles.iloc[:k], funding), (other_candles, other_funding)):
            part = strategy.run(frame.reset_index(drop=True), funding=rates)
            known = k - 1  # at its last close a run over fewer bars closes everything
            assert until(part["trades"], known) == until(whole["trades"], known)
            assert np.array_equal(part["equity_curve"][:known], whole["equity_curve"][:known])
            assert np.array_equal(part["regime_log"][:k], whole["regime_log"][:k])
    assert len(until(whole["trades"], 500)) > 0


def until(trades: list[dict[str, Any]], bar: int) -> list[dict[str, Any]]:
    return [trade for trade in trades if trade["bar"] < bar]


# --- invented candles ---------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, config=CONFIGS, share=st.floats(0.15, 0.95), with_funding=st.booleans())
def test_another_future_changes_no_decision_whatever_the_parameters(
    seed: int, config: dict[str, Any], share: float, *, with_funding: bool
) -> None:
    candles, k = synthetic_candles(500, seed), int(500 * share)
    funding = synthetic_settlements(candles, seed)
    if not with_funding:
        funding = funding[:0]  # all rates are modelled from closes
    assert lookahead(candles, funding, config, RULES, k, seed=seed + 1) == set()


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(seed=SEEDS, config=CONFIGS, k=st.integers(60, 290))
def test_every_step_up_to_k_leaves_the_same_orders(
    seed: int, config: dict[str, Any], k: int
) -> None:
    candles = synthetic_candles(300, seed)
    funding = synthetic_settlements(candles, seed, hours=4)
    other_candles, other_funding = with_other_future(candles, funding, k, seed + 1)
    ours = StepLoop(inputs_of(candles, config, RULES, funding))
    theirs = StepLoop(inputs_of(other_candles, config, RULES, other_funding))
    for i in range(k + 1):
        for loop in (ours, theirs):
            if loop.acts(i):
                loop.decide(i)
        assert resting(ours) == resting(theirs)
        first, second = cast(Any, ours.state), cast(Any, theirs.state)
        assert first.tobytes() == second.tobytes()
        for loop in (ours, theirs):
            if i < k and loop.acts(i):
                loop.match(i)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, config=CONFIGS, k=st.integers(60, 290))
def test_later_sub_bars_change_no_decision(seed: int, config: dict[str, Any], k: int) -> None:
    candles = synthetic_candles(300, seed)
    detail = synthetic_detail(candles, seed)
    earlier = detail[detail["timestamp"] < candles["timestamp"].iloc[k]]
    ours = inputs_of(candles, config, RULES, None, detail)
    theirs = inputs_of(candles, config, RULES, None, earlier)
    assert differences(ours, theirs, k) == set()


@pytest.mark.slow
@pytest.mark.parametrize("k", [2_977, 3_072, 3_100])
def test_another_future_changes_no_decision_of_the_mixture(k: int) -> None:
    candles = synthetic_candles(3_200, 11)
    config = {**PRESETS["documented"], "use_ml_regime": True, "adx_veto_enabled": False}
    funding = synthetic_settlements(candles, 11)
    assert inputs_of(candles, config, RULES, funding).signals["regime"][2_880:k].any()
    assert lookahead(candles, funding, config, RULES, k, seed=k) == set()


@pytest.mark.parametrize("preset", ["documented", "shipped"])
def test_no_future_data_access(preset: str) -> None:
    """Two frames share their first 200 bars, trade in them and have equal equity there."""
    config = {**PRESETS[preset], "spacing_floor": 0.005, "grid_spacing_k": 1.0}
    ours = synthetic_candles(400, 3)
    theirs, _ = with_other_future(ours, synthetic_settlements(ours, 3), 200, seed=4)
    assert ours[:200].equals(theirs[:200])
    strategy = GridStrategyV4(config, RULES)
    first, second = strategy.run(ours), strategy.run(theirs)
    shared = until(first["trades"], 200)
    assert len([trade for trade in shared if trade["qty"] > 0.0]) > 10
    assert shared == until(second["trades"], 200)
    assert np.array_equal(first["equity_curve"][:200], second["equity_curve"][:200])
    assert first["equity_curve"][200] != second["equity_curve"][200]


# --- the check itself ---------------------------------------------------------------------------


def knows_the_next_bar(*args: Any) -> Inputs:
    """Read the indicators of the bar that is just opening."""
    inputs = inputs_of(*args)
    return replace(inputs, signals=np.roll(inputs.signals, -1))


def knows_the_close(candles: pd.DataFrame, *args: Any) -> Inputs:
    """Centre the grid on the close of the bar that will fill it."""
    return inputs_of(candles.assign(open=candles["close"]), *args)


def knows_the_next_rate(*args: Any) -> Inputs:
    """Read a funding rate before it is settled."""
    inputs = inputs_of(*args)
    funding = inputs.funding.copy()
    funding["known"] = np.roll(funding["known"], -48)
    return replace(inputs, funding=funding)


def knows_the_mean(candles: pd.DataFrame, *args: Any) -> Inputs:
    """Scale one indicator by its mean over the whole series, the future included."""
    inputs = inputs_of(candles, *args)
    signals = inputs.signals.copy()
    signals["atr_mean"] *= 1.0 + 1e-6 * float(np.mean(candles["volume"]))
    return replace(inputs, signals=signals)


@pytest.mark.parametrize(
    "leak", [knows_the_next_bar, knows_the_close, knows_the_next_rate, knows_the_mean]
)
@pytest.mark.slow
def test_a_leak_is_caught(leak: Build) -> None:
    candles = synthetic_candles(600, 21)
    funding = synthetic_settlements(candles, 21)
    config = {**PRESETS["documented"], "spacing_floor": 0.0005, "grid_spacing_k": 0.1}
    caught: set[str] = set()
    for k in range(100, 600, 50):
        caught |= lookahead(candles, funding, config, RULES, k, seed=k, build=leak)
        assert lookahead(candles, funding, config, RULES, k, seed=k) == set()
    assert {"orders", "state"} <= caught


def test_the_other_future_is_another_one_from_bar_k_on_only() -> None:
    candles = synthetic_candles(300, 1)
    funding = synthetic_settlements(candles, 1)
    altered, rates = with_other_future(candles, funding, 200, seed=2)
    assert altered[:200].equals(candles[:200])
    assert altered["timestamp"].equals(candles["timestamp"])
    assert altered["open"][200] == candles["open"][200]
    for name in ("high", "low", "close", "volume"):
        assert (altered[name][200:] != candles[name][200:]).mean() > 0.95
    settled = funding["timestamp"] <= candles["timestamp"][200]
    assert (rates["rate"] == funding["rate"]).tolist() == settled.tolist()
    assert (candles["timestamp"].diff()[1:] == BAR_MS).all()
