"""Evidence about luck: uniform where there is nothing, clear where there is something."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from backtest.market.market_data import MarketData, slice_time
from backtest.market.sources import MarketSource
from backtest.market.timeframes import format_time
from backtest.optimize.judge import evidence, monte_carlo
from backtest.optimize.judge.deflated_sharpe import DeflatedSharpe
from backtest.optimize.judge.final_choice import choose_final, parameter_importance
from backtest.optimize.judge.findings import Unseen
from backtest.optimize.judge.holdout_run import HoldoutResult, PortfolioRun
from backtest.optimize.judge.luck_of_choosing import (
    LuckOfChoosing,
    measure_luck,
    static_grid_returns,
)
from backtest.optimize.judge.monte_carlo import (
    PermutationTest,
    compare_with_permuted,
    permute_from,
    permuted_returns,
    unseen_bars,
)
from backtest.optimize.judge.overfitting import Overfitting
from backtest.optimize.judge.superior import SuperiorAbility
from backtest.optimize.judge.walk_forward import Pick, WalkForward, walk_forward
from backtest.optimize.search.study import FinishedTrial, Search
from backtest.optimize.search.study_identity import StudyIdentity
from backtest.optimize.search.trial_ledger import DataSet, SeenBefore, TrialLedger
from backtest.optimize.trial.prepare import Coins, Prepared, prepare
from backtest.optimize.trial.range_runs import run_range
from backtest.optimize.trial.space import read_space
from backtest.optimize.trial.trial import TrialOutcome, WindowScore
from backtest.optimize.trial.windows import SharedPlan, plan_shared
from backtest.runs.variants import cut_window
from backtest.simulator import BacktestSimulator
from config import PRESETS, STRATEGY_PARAMS
from core.errors import DataError
from core.times import DAY_MS
from tests.support.markets.synthetic import BAR_MS, FIRST_MS, synthetic_settlements

Floats = npt.NDArray[np.float64]

WARMUP = 300
BASE = {"grid_spacing_k": 1.0, "spacing_floor": 0.004, "max_position_age_hours": 6.0}
SPACE = read_space(
    {
        "grid_spacing_k": {"type": "float", "low": 0.8, "high": 6.0},
        "spacing_floor": {"type": "float", "low": 0.004, "high": 0.03},
        "grid_levels": {"type": "int", "low": 2, "high": 6},
    }
)


def candles(closes: Floats, rng: np.random.Generator, sigma: float) -> pd.DataFrame:
    """Return candles on the tick that open where the one before closed."""
    opens = np.concatenate((closes[:1], closes[:-1]))
    wick = np.exp(np.abs(rng.normal(0.0, sigma / 2.0, (2, closes.size))))
    columns = {
        "open": opens,
        "high": np.maximum(opens, closes) * wick[0],
        "low": np.minimum(opens, closes) / wick[1],
        "close": closes,
    }
    rounded = {name: np.round(values * 10.0) / 10.0 for name, values in columns.items()}
    times = FIRST_MS + BAR_MS * np.arange(closes.size)
    return pd.DataFrame(
        {"timestamp": times, **rounded, "volume": rng.exponential(100.0, closes.size)}
    )


def random_walk(seed: int, n_bars: int = 8_000, sigma: float = 0.003) -> pd.DataFrame:
    """Return a market in which there is nothing to find: every bar is drawn on its own."""
    rng = np.random.default_rng(seed)
    return candles(20_000.0 * np.exp(np.cumsum(rng.normal(0.0, sigma, n_bars))), rng, sigma)


def volatile_walk(seed: int, n_bars: int = 8_000) -> pd.DataFrame:
    """Return a random walk whose volatility comes in clusters of about a day."""
    rng = np.random.default_rng(seed)
    kept = 0.5 ** (1.0 / 96.0)
    level, levels = 0.0, []
    for shock in rng.normal(0.0, 0.8 * math.sqrt(1.0 - kept**2), n_bars):
        level = kept * level + float(shock)
        levels.append(level)
    sigma = 0.003 * np.exp(np.array(levels) - 0.8**2)
    fine = rng.normal(0.0, 1.0, (n_bars, 20)) * (sigma / math.sqrt(20.0))[:, None]
    path = 20_000.0 * np.exp(np.cumsum(fine).reshape(n_bars, 20))
    opens = np.concatenate((path[:1, 0], path[:-1, -1]))
    columns = {
        "open": opens,
        "high": np.maximum(opens, path.max(axis=1)),
        "low": np.minimum(opens, path.min(axis=1)),
        "close": path[:, -1],
    }
    return pd.DataFrame(
        {
            "timestamp": FIRST_MS + BAR_MS * np.arange(n_bars),
            **{name: np.round(values * 10.0) / 10.0 for name, values in columns.items()},
            "volume": rng.exponential(100.0, n_bars) * sigma / 0.003,
        }
    )


def reverting_market(seed: int, n_bars: int = 8_000, sigma: float = 0.003) -> pd.DataFrame:
    """Return a market in which the price keeps coming back, which is what a grid lives on."""
    rng = np.random.default_rng(seed)
    shocks, place, path = rng.normal(0.0, sigma, n_bars), 0.0, []
    for shock in shocks:
        place = 0.95 * place + float(shock)
        path.append(place)
    return candles(20_000.0 * np.exp(np.array(path)), rng, sigma)


def prepared_of(frames: dict[str, pd.DataFrame], **options: Any) -> Prepared:
    """Return what ``prepare`` makes of candles by coin: one window, a third set aside."""
    markets = {
        coin: MarketData(
            coin=coin,
            candles=frame,
            funding=synthetic_settlements(frame, 1),
            detail=None,
            bar_ms=BAR_MS,
            source="test",
        )
        for coin, frame in frames.items()
    }

    def load(
        coin: str, start_ms: int, end_ms: int, /, *, timeframe: str, detail: str | None
    ) -> MarketData:
        del timeframe, detail
        item = markets[coin]
        return replace(
            item,
            candles=slice_time(item.candles, start_ms, end_ms),
            funding=slice_time(item.funding, start_ms, end_ms + 1),
        )

    last = max(int(frame["timestamp"].iloc[-1]) for frame in frames.values())
    simulator = BacktestSimulator(BASE, {"warmup_bars": WARMUP}, MarketSource(load))
    return prepare(
        simulator,
        SPACE,
        coins=list(frames),
        start=format_time(FIRST_MS + WARMUP * BAR_MS),
        end=format_time(last + BAR_MS),
        **{"windows": 1, "holdout": 0.35, **options},
    )


def permuted(
    prepared: Prepared, taken: Coins, drawn: Mapping[str, Any] = {}, **options: Any
) -> PermutationTest:
    asked: dict[str, Any] = {"n": 19, "seed": 1, "jobs": 2, "warmup_bars": WARMUP, **options}
    found = permuted_returns(prepared, drawn, **asked)
    return compare_with_permuted(prepared, taken, drawn, found, warmup_bars=WARMUP)


def first_unseen_ms(prepared: Prepared) -> int:
    return prepared.plan.time_of(prepared.plan.plan.windows[-1].test_start)


# --- permuted bars ------------------------------------------------------------------------------


@pytest.mark.slow
def test_on_random_walks_p_is_spread_evenly() -> None:
    found = []
    for seed in range(30):
        prepared = prepared_of({"BTC": random_walk(seed)})
        result = permuted(prepared, prepared.holdout.take(), seed=seed)
        assert len({*result.permuted, result.observed}) == 20  # every run traded
        found.append(result.p_value)
    steps = np.sort(found) - np.arange(1, 31) / 30.0
    # Kolmogorov-Smirnov; beyond 0.30 lie 0.7 % of 30 even draws.
    assert np.abs(steps).max() < 0.30
    assert sum(p <= 0.1 for p in found) <= 8
    assert sum(p > 0.5 for p in found) >= 8


@pytest.mark.slow
def test_clusters_of_volatility_are_not_taken_for_an_edge() -> None:
    # The grid does better where calm and wild days alternate than where they are mixed: were bars
    # mixed over all of the range, 12 of these 30 would be at or under 0.1.
    found = [
        permuted(prepared, prepared.holdout.take(), PRESETS["documented"], seed=seed).p_value
        for seed in range(30)
        for prepared in [prepared_of({"BTC": volatile_walk(seed)})]
    ]
    steps = np.sort(found) - np.arange(1, 31) / 30.0
    assert np.abs(steps).max() < 0.30
    assert sum(p <= 0.1 for p in found) <= 8


@pytest.mark.slow
def test_a_search_finds_a_planted_edge_and_the_permutations_confirm_it(tmp_path: Path) -> None:
    prepared = prepared_of({"BTC": reverting_market(1), "ETH": reverting_market(2)})
    identity = StudyIdentity(
        name="planted",
        space=SPACE.to_dict(),
        fixed={},
        coins=prepared.coins,
        start="",
        end="",
        data_hash=prepared.data_hash,
        windows=1,
        holdout=0.35,
        objective=prepared.objective,
        seed=3,
        rules={},
        fingerprint="",
        scoring="",
    )
    with Search(identity, SPACE, f"sqlite:///{tmp_path}/s.db", jobs=2) as search:
        search.run(prepared.evaluate, 24)
        trials = search.trials()
    choice = choose_final(trials, SPACE, prepared.evaluate)
    assert choice.outcome.score > prepared.evaluate(STRATEGY_PARAMS).score > -9.0
    taken = prepared.holdout.take()
    result = permuted(prepared, taken, choice.params, n=39)
    assert result.observed > 0.0
    assert result.p_value == 1 / 40
    shares = parameter_importance(trials, SPACE)
    assert shares is not None
    assert list(shares) == list(SPACE.entries)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_permutations_depend_on_the_seed_and_not_on_the_number_of_threads() -> None:
    prepared = prepared_of({"BTC": random_walk(1)})
    taken = prepared.holdout.take()
    one = permuted(prepared, taken, n=4, jobs=1)
    assert one == permuted(prepared, taken, n=4, jobs=3)
    other = permuted(prepared, taken, n=4, seed=2)
    assert other.observed == one.observed
    assert not {*other.permuted} & {*one.permuted}


def test_the_observed_return_is_that_of_a_backtest_of_the_unseen_bars() -> None:
    frames = {"BTC": random_walk(1), "ETH": random_walk(2)}
    prepared = prepared_of(frames)
    start_ms = first_unseen_ms(prepared)
    observed = permuted(prepared, prepared.holdout.take(), n=1).observed
    whole = prepared_of(frames, holdout=0.0)  # the same bars, nothing set aside
    cuts = [
        cut_window(data.market, data.rules, start_ms, whole.plan.end_ms, WARMUP)
        for data in whole.data.values()
    ]
    runs = [run_range(cut, whole.how, whole.params) for cut in cuts]
    expected = np.mean([run.metrics["total_return_pct"] for run in runs])
    assert observed == pytest.approx(expected, rel=1e-12)


def test_only_bars_no_train_window_has_seen_are_permuted_and_all_of_them() -> None:
    prepared = prepared_of({"BTC": random_walk(3)})
    start_ms = first_unseen_ms(prepared)
    assert start_ms > prepared.plan.time_of(prepared.plan.plan.windows[-1].train_end)
    real = unseen_bars(prepared, prepared.holdout.take(), start_ms, WARMUP)["BTC"]
    changed = permute_from(real, start_ms, 7).market.candles
    kept = real.market.candles
    assert int(kept["timestamp"].iloc[-1]) + BAR_MS == prepared.plan.end_ms
    before = kept["timestamp"] < start_ms
    assert before.sum() == WARMUP
    pd.testing.assert_frame_equal(changed[before], kept[before])
    assert (changed["close"] != kept["close"])[~before].mean() > 0.99
    assert sorted(changed["volume"]) == sorted(kept["volume"])
    assert np.array_equal(changed["timestamp"], kept["timestamp"])


def test_permuted_prices_are_on_the_tick_and_inside_their_bar() -> None:
    prepared = prepared_of({"BTC": random_walk(3)})
    start_ms = first_unseen_ms(prepared)
    real = unseen_bars(prepared, prepared.holdout.take(), start_ms, WARMUP)["BTC"]
    changed = permute_from(real, start_ms, 7).market.candles
    for name in ("open", "high", "low", "close"):
        values = changed[name].to_numpy()
        assert np.array_equal(values, np.round(values * 10.0) / 10.0)
    # What moved together stays together: the ranges are the same ones, up to the tick.
    spans = [np.sort(np.log(item["high"] / item["low"])) for item in (changed, real.market.candles)]
    np.testing.assert_allclose(spans[0], spans[1], atol=2e-5)


@pytest.mark.parametrize("tick", [0.1, 0.01, 5.0, 0.0005])
def test_a_price_is_moved_to_the_nearest_tick_and_never_to_zero(tick: float) -> None:
    prices = np.array([20_000.123, 0.3 * tick, 17.26 * tick])
    found = monte_carlo._on_tick(prices, tick)  # noqa: SLF001 - every tick size
    assert found[1] == pytest.approx(tick)
    assert found[2] == pytest.approx(17 * tick)
    assert abs(found[0] - prices[0]) <= 0.5001 * tick


def test_all_coins_are_permuted_alike_also_where_one_lacks_bars() -> None:
    frame, lacking = random_walk(4), random_walk(4)
    lacking = lacking.drop(index=[6_000, 6_001, 7_100]).reset_index(drop=True)
    prepared = prepared_of({"BTC": frame, "ETH": lacking})
    start_ms = first_unseen_ms(prepared)
    real = unseen_bars(prepared, prepared.holdout.take(), start_ms, WARMUP)
    assert len(real["BTC"].market.candles) == len(real["ETH"].market.candles)
    shuffled = [permute_from(data, start_ms, 5).market.candles for data in real.values()]
    assert np.array_equal(shuffled[0]["volume"], shuffled[1]["volume"])
    assert np.array_equal(shuffled[0]["timestamp"], shuffled[1]["timestamp"])


# --- walk-forward -------------------------------------------------------------------------------


def row(score: float, return_pct: float) -> WindowScore:
    return WindowScore(score, return_pct, 1.0, 1.0, 1.0, 30)


def outcome(train: list[float], test: list[float], coins: int = 1) -> TrialOutcome:
    """Return an outcome whose returns, percent, are its scores, the coins alike."""
    names = ("BTC", "ETH")[:coins]
    return TrialOutcome(
        score=min(train),
        train={coin: [row(value, value) for value in train] for coin in names},
        test={coin: [row(value, value) for value in test] for coin in names},
        daily_returns=np.zeros(3),
    )


def plan(n_windows: int = 3) -> SharedPlan:
    times = FIRST_MS + BAR_MS * np.arange(40_000)
    return plan_shared({"BTC": times}, BAR_MS, n_windows, 0.15, 700)


def test_each_window_is_judged_by_what_its_own_search_chose() -> None:
    chosen = [
        ("median", outcome([3.0, 0.1, 5.0], [-1.0, -9.0, -9.0])),
        ("medoid", outcome([2.0, 2.0, 0.0], [-9.0, 4.0, -9.0])),
        ("median", outcome([1.0, 1.0, 1.0], [-9.0, -9.0, 7.0])),
    ]
    walk = walk_forward(chosen, outcome([1.0] * 3, [0.5, -0.5, 0.25]), plan())
    assert [(pick.window, pick.kind) for pick in walk.picks] == [
        (1, "median"),
        (2, "medoid"),
        (3, "median"),
    ]
    assert [pick.train_score for pick in walk.picks] == [3.0, 2.0, 1.0]
    assert [pick.test_return_pct for pick in walk.picks] == [-1.0, 4.0, 7.0]
    assert walk.profitable == 2
    assert walk.profitable_share == pytest.approx(2 / 3)
    assert walk.own_test_return_pct == (0.5, -0.5, 0.25)


def test_a_window_whose_search_had_nothing_to_choose_is_not_traded() -> None:
    walk = walk_forward(
        [None, ("median", outcome([1.0, 1.0], [9.0, 2.0]))], outcome([1.0] * 2, [1.0] * 2), plan(2)
    )
    assert walk.picks[0].kind == ""
    assert math.isnan(walk.picks[0].train_score)
    assert [pick.test_return_pct for pick in walk.picks] == [0.0, 2.0]


def test_a_coin_that_does_badly_counts_in_a_pick() -> None:
    good = outcome([2.0], [1.0], coins=2)
    lame = replace(good, train={"BTC": [row(9.0, 9.0)], "ETH": [row(0.0, 0.0)]})
    assert walk_forward([("median", lame)], good, plan(1)).picks[0].train_score == 0.0


def test_efficiency_compares_returns_per_day() -> None:
    shared = plan(1)
    window = shared.plan.windows[0]
    train_days, test_days = (
        bars * BAR_MS / DAY_MS for bars in (window.train_end, window.test_end - window.test_start)
    )
    own = outcome([train_days / 10.0], [test_days / 40.0])
    walk = walk_forward([("median", own)], own, shared)
    assert walk.train_daily_pct == pytest.approx(0.1)
    assert walk.efficiency == pytest.approx(0.25)
    lost = outcome([-1.0], [2.0])
    assert math.isnan(walk_forward([("median", lost)], lost, shared).efficiency)


# --- verdicts -----------------------------------------------------------------------------------


def walk_of(*returns: float, train: float = 0.1, test: float = 0.05) -> WalkForward:
    picks = tuple(
        Pick(
            window=k + 1,
            kind="median",
            train_score=1.0,
            test_score=0.0,
            train_return_pct=1.0,
            test_return_pct=value,
        )
        for k, value in enumerate(returns)
    )
    return WalkForward(
        picks=picks, train_daily_pct=train, test_daily_pct=test, own_test_return_pct=returns
    )


def portfolio(return_pct: float, n_days: int = 60, seed: int = 0) -> PortfolioRun:
    """Return a noisy run that comes to ``return_pct`` in the end."""
    times = FIRST_MS + BAR_MS * np.arange(96 * n_days)
    noise = np.random.default_rng(seed).normal(0.0, 0.001, times.size).cumsum()
    path = noise - noise[-1] * np.linspace(0.0, 1.0, times.size)
    end = math.log1p(return_pct / 100.0)
    equity = 1_000.0 * np.exp(path + end * np.linspace(0.0, 1.0, times.size))
    return PortfolioRun(times, equity, 1_000.0, {})


def unseen(
    own: float, now: float = 0.0, looks: int = 0, days: int = 60, trained: int = 0
) -> Unseen:
    before = SeenBefore(looks=looks, trained=trained)
    result = HoldoutResult(portfolio(own, days), portfolio(now, days, 1), before)
    return Unseen(holdout=result, monte_carlo=None)


def luck(**changes: Any) -> LuckOfChoosing:
    sharpe = DeflatedSharpe(n_days=400, n_trials=200, sharpe=0.05, psr=0.9, dsr=0.5)
    ability = SuperiorAbility(n_days=400, n_models=200, dropped=0, consistent=0.3)
    fields: dict[str, Any] = {
        "n_ever": 200,
        "n_effective": 20,
        "raw": sharpe,
        "effective": sharpe,
        "overfitting": Overfitting(n_days=400, n_trials=200, dropped=0, pbo=0.4),
        "versus_nothing": ability,
        "versus_static": ability,
    }
    return LuckOfChoosing(**{**fields, **changes})


def monte(p: float, observed: float = 1.0, n: int = 50) -> Unseen:
    test = PermutationTest(start_ms=0, end_ms=1, observed=observed, permuted=(0.0,) * n, p_value=p)
    return replace(unseen(1.0), monte_carlo=test)


@pytest.mark.parametrize(("p", "passes"), [(0.049, True), (0.05, False), (0.6, False)])
def test_permutations_are_significant_only_under_five_percent(p: float, *, passes: bool) -> None:
    line = evidence._permutations(monte(p))  # noqa: SLF001 - one line at a time
    assert line.passes is passes
    assert (evidence.LUCK in line.verdict) is not passes


def test_a_significant_loss_is_said_to_be_one() -> None:
    assert "did not gain" in evidence._permutations(monte(0.02, -1.0)).verdict  # noqa: SLF001


def test_too_few_permutations_are_said_to_show_nothing() -> None:
    few, enough = monte(1 / 20, n=19), monte(0.3, n=20)
    assert "so few permutations" in evidence._permutations(few).verdict  # noqa: SLF001
    assert "so few" not in evidence._permutations(enough).verdict  # noqa: SLF001


def test_what_was_not_done_has_no_verdict_but_a_reason() -> None:
    skipped = evidence._permutations(unseen(1.0))  # noqa: SLF001
    assert (skipped.passes, skipped.value) == (None, "-")
    assert "--skip-mc" in skipped.verdict
    for line in (evidence._permutations(None), evidence._holdout(None)):  # noqa: SLF001
        assert line.passes is None
        assert "interrupted" in line.verdict


@pytest.mark.parametrize(
    ("raw", "effective", "passes", "words"),
    [
        (0.96, 0.99, True, "more than the luck of so many trials"),
        (0.90, 0.96, True, "as far as they differ"),
        (0.90, 0.94, False, evidence.LUCK),
        (0.95, 0.95, False, evidence.LUCK),
    ],
)
def test_the_deflated_sharpe_ratio_passes_with_the_independent_trials_counted(
    raw: float, effective: float, words: str, *, passes: bool
) -> None:
    base = luck().raw
    found = luck(raw=replace(base, dsr=raw), effective=replace(base, dsr=effective))
    line = evidence._deflated_sharpe(found)  # noqa: SLF001
    assert line.passes is passes
    assert words in line.verdict


@pytest.mark.parametrize(
    ("pbo", "passes", "words"),
    [(0.04, True, "the other half too"), (0.3, False, evidence.LUCK), (0.5, False, "drawing lots")],
)
def test_overfitting_is_judged_in_words(pbo: float, words: str, *, passes: bool) -> None:
    line = evidence._overfitting(replace(luck().overfitting, pbo=pbo))  # noqa: SLF001
    assert line.passes is passes
    assert words in line.verdict


@pytest.mark.parametrize(("p", "passes"), [(0.049, True), (0.05, False)])
def test_superior_ability_is_significant_only_under_five_percent(p: float, *, passes: bool) -> None:
    found = replace(luck().versus_static, consistent=p)
    line = evidence._superior("SPA", found, "the static grid")  # noqa: SLF001
    assert line.passes is passes
    assert (evidence.LUCK in line.verdict) is not passes


def test_what_cannot_be_computed_says_why() -> None:
    few = "20 days are too few: at least 30"
    lines = [
        evidence._deflated_sharpe(luck(raw=replace(luck().raw, reason=few))),  # noqa: SLF001
        evidence._overfitting(replace(luck().overfitting, reason=few)),  # noqa: SLF001
        evidence._superior("SPA", replace(luck().versus_static, reason=few), ""),  # noqa: SLF001
    ]
    for line in lines:
        assert line.passes is None
        assert few in line.verdict


@pytest.mark.parametrize(
    ("returns", "passes", "words"),
    [
        ((1.0, 1.0, 1.0, 1.0), True, "as any number of 4 would be"),
        ((1.0, 1.0, -1.0, -1.0), True, "at least half; not distinguishable from luck"),
        ((1.0, -1.0, -1.0, -1.0), False, "fewer than half; not distinguishable from luck"),
        ((1.0,) * 5, True, "more than luck would (p = 0.031)"),
        ((1.0,) * 4 + (-1.0,), True, "not distinguishable from luck (p = 0.19)"),
    ],
)
def test_few_windows_are_not_taken_for_proof(
    returns: tuple[float, ...], words: str, *, passes: bool
) -> None:
    line = evidence._test_windows(walk_of(*returns))  # noqa: SLF001
    assert line.passes is passes
    assert words in line.verdict


@pytest.mark.parametrize(
    ("train", "test", "passes", "words"),
    [
        (0.1, 0.05, True, "at least half of"),
        (0.1, 0.04, False, "less than half of"),
        (0.1, -0.01, False, "nothing of what"),
        (-0.1, 0.05, None, "lost there already"),
    ],
)
def test_efficiency_is_judged_in_words(
    train: float, test: float, passes: bool | None, words: str
) -> None:
    line = evidence._efficiency(walk_of(1.0, train=train, test=test))  # noqa: SLF001
    assert line.passes is passes
    assert words in line.verdict


@pytest.mark.parametrize(
    ("count", "words"),
    [(1, "it lies in no train"), (2, "test 1 lies inside a later train"), (4, "tests 1 to 3 lie")],
)
def test_the_choices_own_tests_say_which_lie_inside_later_trains(count: int, words: str) -> None:
    line = evidence._own_tests(walk_of(*[1.0] * (count - 1), -2.0))  # noqa: SLF001
    assert words in line.verdict
    assert line.verdict.endswith("it lost")
    assert line.passes is False


def test_a_holdout_gain_is_compared_with_nothing_with_config_and_with_luck() -> None:
    line = evidence._holdout(unseen(1.0, 2.0))  # noqa: SLF001
    assert line.passes is True
    assert "+1.00 %" in line.value
    assert "config now +2.00 %; doing nothing 0 %" in line.value
    assert evidence.LUCK in line.verdict
    assert "worse than config now" in line.verdict
    assert "more than luck would" in evidence._holdout(unseen(30.0)).verdict  # noqa: SLF001
    lost = evidence._holdout(unseen(-1.0, -2.0))  # noqa: SLF001
    assert lost.passes is False
    assert lost.verdict == "did not gain; better than config now"


def test_a_short_holdout_and_one_looked_at_before_are_said_to_be_so() -> None:
    assert "too few days" in evidence._holdout(unseen(1.0, days=10)).verdict  # noqa: SLF001
    again = evidence._holdout(unseen(1.0, looks=2)).verdict  # noqa: SLF001
    assert "looked at 2 times before, so no longer untouched" in again
    assert "untouched" not in evidence._holdout(unseen(1.0)).verdict  # noqa: SLF001


def test_the_holdouts_p_value_is_small_for_a_steady_gain_only() -> None:
    assert portfolio(30.0).p_value < 0.01
    assert 0.2 < portfolio(0.0).p_value < 0.8
    assert portfolio(-30.0).p_value > 0.99
    assert math.isnan(portfolio(1.0, 29).p_value)


def test_a_good_verdict_comes_with_what_it_does_not_tell() -> None:
    lines = [
        evidence._test_windows(walk_of(1.0, 1.0)),  # noqa: SLF001
        evidence._permutations(monte(0.01)),  # noqa: SLF001
        evidence._overfitting(luck().overfitting),  # noqa: SLF001
    ]
    found = evidence.warnings_of(lines, SeenBefore(looks=1))
    assert found == [
        "not distinguishable from luck by: Test windows, Overfitting (PBO)",
        "the holdout was looked at once before, so no longer untouched",
    ]
    assert evidence.warnings_of(lines[1:2], SeenBefore()) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.3137, "p = 0.31"), (0.0312, "p = 0.031"), (0.0, "p < 0.001"), (1.0, "p = 1.00")],
)
def test_a_p_value_is_never_printed_as_zero(value: float, text: str) -> None:
    assert evidence.p_text(value) == text


# --- the luck of choosing -----------------------------------------------------------------------


def returns_of(matrix: Floats) -> list[FinishedTrial]:
    one = outcome([1.0], [1.0])
    return [
        FinishedTrial(k, {}, replace(one, daily_returns=column), 0.1)
        for k, column in enumerate(matrix.T)
    ]


def test_trials_of_other_studies_count_as_alike_as_those_at_hand() -> None:
    rng = np.random.default_rng(1)
    groups = rng.normal(0.0, 0.01, (200, 4))
    matrix = np.repeat(groups, 5, axis=1) + rng.normal(0.0, 0.001, (200, 20))
    found = measure_luck(returns_of(matrix), matrix[:, 0], np.zeros(200), n_ever=100, seed=1)
    groups_apart = 1.0 - 4.0 * 20.0 / 380.0  # of the pairs, those that do not move together
    assert found.n_ever == found.raw.n_trials == 100
    assert found.n_effective == pytest.approx(100 * groups_apart, abs=8)
    assert found.effective.n_trials == found.n_effective
    assert found.raw.variance == 1.0 / 199.0
    alone = measure_luck(returns_of(matrix), matrix[:, 0], np.zeros(200), n_ever=3, seed=1)
    assert alone.n_ever == 20
    assert alone.n_effective == pytest.approx(20 * groups_apart, abs=2)


def test_noise_is_luck_and_an_edge_is_not() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(0.0, 0.01, (500, 12))
    edge = noise + np.r_[0.004, np.zeros(11)]
    lucky = measure_luck(returns_of(noise), noise[:, 0], np.zeros(500), n_ever=12, seed=1)
    real = measure_luck(returns_of(edge), edge[:, 0], np.zeros(500), n_ever=12, seed=1)
    assert 1.0 - lucky.raw.dsr > 0.05 > 1.0 - real.raw.dsr
    assert lucky.versus_nothing.consistent > 0.05 > real.versus_nothing.consistent
    assert real.overfitting.pbo < 0.05 < lucky.overfitting.pbo
    same = measure_luck(returns_of(edge), edge[:, 0], edge[:, 0], n_ever=12, seed=1)
    assert same.versus_static.consistent > 0.05  # nothing beats the static grid if it is the edge


def test_the_static_grid_has_a_return_for_every_day_of_the_trials() -> None:
    prepared = prepared_of({"BTC": random_walk(1), "ETH": random_walk(2)})
    found = static_grid_returns(prepared)
    outcome_returns = prepared.evaluate({}).daily_returns
    assert found.shape == outcome_returns.shape
    assert np.std(found) > 0.0
    assert not np.array_equal(found, outcome_returns)
    assert prepared.holdout.reads == 0


# --- choosing -----------------------------------------------------------------------------------


def scored(number: int, spacing: float, score: float) -> FinishedTrial:
    params = {"grid_spacing_k": spacing, "spacing_floor": 0.01, "grid_levels": 3}
    return FinishedTrial(number, params, outcome([score], [99.0]), 0.1)


@pytest.mark.parametrize(("median_score", "kind"), [(2.0, "median"), (0.5, "medoid")])
def test_the_better_of_median_and_medoid_in_training_is_taken(
    median_score: float, kind: str
) -> None:
    asked: list[float] = []

    def evaluate(params: Any) -> TrialOutcome:
        asked.append(params["grid_spacing_k"])
        return outcome([median_score], [-99.0])

    trials = [scored(k, 1.0 + 0.1 * k * k, 1.0 + 0.01 * k) for k in range(6)]
    choice = choose_final(trials, SPACE, evaluate)
    assert asked == [choice.candidates.median_params["grid_spacing_k"]]
    assert choice.kind == kind
    assert choice.outcome.score == max(median_score, choice.medoid_score)
    assert choice.best.number == 5


def test_a_median_that_contradicts_itself_is_not_taken() -> None:
    def evaluate(_: Any) -> TrialOutcome:
        return replace(outcome([5.0], [0.0]), note="kelly_min_trades must be <= kelly_window")

    choice = choose_final([scored(k, 1.0 + k, 1.0) for k in range(5)], SPACE, evaluate)
    assert choice.kind == "medoid"
    assert math.isnan(choice.median_score)


def test_four_trials_are_too_few_for_a_choice() -> None:
    trials = [scored(k, 1.0 + k, 1.0) for k in range(4)]
    with pytest.raises(DataError, match="4 trials are complete, a robust choice needs at least 5"):
        choose_final(trials, SPACE, lambda _: trials[0].outcome)


def test_importance_is_not_reported_where_scores_do_not_differ() -> None:
    assert parameter_importance([scored(k, 1.0 + k, 1.0) for k in range(9)], SPACE) is None


# --- the ledger ---------------------------------------------------------------------------------

DATA = DataSet(
    data_hash="a" * 16,
    source="test",
    coins=("BTC", "ETH"),
    start_ms=0,
    holdout_ms=1_000,
    end_ms=1_200,
    closes={"BTC": {"0": 1.0, "7": 2.0}, "ETH": {"0": 3.0}},
)


def enter(ledger: TrialLedger, trials: int, study: str = "one") -> None:
    """Enter a search that evaluates so many trials."""
    with ledger.begin(study) as entry:
        for _ in range(trials):
            entry.count()


def test_the_ledger_adds_up_what_searches_on_the_same_bars_have_tried(tmp_path: Path) -> None:
    ledger = TrialLedger(tmp_path / "deep", DATA)
    assert (ledger.count_trials(), ledger.seen_before()) == (0, SeenBefore(0, 0))
    enter(ledger, 30, "one")
    enter(ledger, 12, "two")
    ledger.add_look("two")
    assert (ledger.count_trials(), ledger.seen_before()) == (42, SeenBefore(1, 0))
    lines = ledger.path.read_text().splitlines()
    assert [json.loads(line)["study"] for line in lines] == ["one", "two", "two"]


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"data_hash": "b"}, True),  # the same dates, one candle revised
        ({"data_hash": "b", "holdout_ms": 1_010, "end_ms": 1_300}, True),  # a day later
        ({"data_hash": "b", "coins": ("SOL", "BTC")}, True),
        ({"data_hash": "b", "start_ms": 501}, False),  # less than half in common
        ({"data_hash": "b", "coins": ("SOL",)}, False),
        ({"data_hash": "b", "source": "a copy"}, True),
        ({"data_hash": "b", "source": "a copy", "closes": {"BTC": {"0": 5.0, "7": 2.0}}}, True),
        ({"data_hash": "b", "closes": {"BTC": {"0": 5.0, "7": 6.0}, "ETH": {"0": 5.0}}}, False),
        ({"data_hash": "b", "closes": {"BTC": {"0": 5.0, "7": 6.0}, "ETH": {"0": 3.0}}}, True),
        ({"data_hash": "b", "closes": {"BTC": {"9": 5.0}, "ETH": {"0": 5.0}}}, True),
    ],
)
def test_searches_on_much_the_same_bars_count_too(
    tmp_path: Path, changes: dict[str, Any], *, counts: bool
) -> None:
    enter(TrialLedger(tmp_path, replace(DATA, **changes)), 5)
    assert TrialLedger(tmp_path, DATA).count_trials() == (5 if counts else 0)


def test_a_look_counts_for_every_holdout_that_shares_a_bar(tmp_path: Path) -> None:
    ledger = TrialLedger(tmp_path, DATA)
    ledger.add_look("one")
    later = replace(DATA, data_hash="b", holdout_ms=1_199, end_ms=1_400)
    assert TrialLedger(tmp_path, later).seen_before().looks == 1
    after = replace(DATA, data_hash="b", holdout_ms=1_200, end_ms=1_400)
    assert TrialLedger(tmp_path, after).seen_before().looks == 0


def test_a_holdout_an_earlier_search_trained_on_is_not_called_untouched(tmp_path: Path) -> None:
    longer = replace(DATA, data_hash="b", holdout_ms=1_001, end_ms=2_000)
    enter(TrialLedger(tmp_path, longer), 0)
    assert TrialLedger(tmp_path, DATA).seen_before() == SeenBefore(0, 0)
    enter(TrialLedger(tmp_path, longer), 3)
    assert TrialLedger(tmp_path, DATA).seen_before() == SeenBefore(0, 1)
    other = replace(DATA, coins=("SOL",), closes={})
    assert TrialLedger(tmp_path, other).seen_before() == SeenBefore(0, 0)
    line = evidence._holdout(unseen(1.0, trained=1)).verdict  # noqa: SLF001
    assert "trained or tested on in part by 1 earlier search, so no longer untouched" in line


def test_a_search_that_is_killed_has_its_trials_in_the_ledger(tmp_path: Path) -> None:
    ledger = TrialLedger(tmp_path, DATA)
    with ledger.begin("killed later") as entry:
        entry.count()
        enter(TrialLedger(tmp_path, DATA), 2)  # another one, meanwhile
        entry.count()
        assert ledger.count_trials() == 4  # at any moment, not only at the end
    assert [json.loads(line)["trials"] for line in ledger.path.read_text().splitlines()] == [2, 2]


@pytest.mark.parametrize("damage", [b"{", b"[1]", b'{"trials": "many"}', b"\xff\xfe", b"7"])
def test_damaged_lines_of_the_ledger_do_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    ledger = TrialLedger(tmp_path, DATA)
    enter(ledger, 3)
    with ledger.path.open("ab") as file:
        file.write(damage)  # torn: no line end
    enter(ledger, 4)
    assert ledger.count_trials() == 7
    assert "1 damaged lines do not count" in caplog.text


def test_several_searches_may_write_the_ledger_at_once(tmp_path: Path) -> None:
    def add() -> None:
        for _ in range(20):
            enter(TrialLedger(tmp_path, DATA), 1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert TrialLedger(tmp_path, DATA).count_trials() == 80


@pytest.mark.parametrize("act", [lambda x: x.count_trials(), lambda x: x.begin("one")])
def test_a_ledger_that_cannot_be_used_is_named(
    tmp_path: Path, act: Callable[[TrialLedger], object]
) -> None:
    (tmp_path / "trial_ledger.jsonl").mkdir()
    with pytest.raises(DataError, match=r"trial_ledger\.jsonl"):
        act(TrialLedger(tmp_path, DATA))
