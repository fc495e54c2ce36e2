"""The verdict on a choice: what it takes to hold, what fails it, and the tests it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from backtest.optimize.judge.agreement import (
    Agreement,
    measure_agreement,
    pair_spread,
    random_choices,
)
from backtest.optimize.judge.block_bootstrap import block_days, gain_p_value, stationary_places
from backtest.optimize.judge.findings import Known, Unseen
from backtest.optimize.judge.holdout_run import HoldoutResult, PortfolioRun
from backtest.optimize.judge.monte_carlo import PermutationTest
from backtest.optimize.judge.repeated_searches import (
    RepeatedChoice,
    other_seed,
    repeat_searches,
    search_in_memory,
)
from backtest.optimize.judge.verdict import Answer, Verdict, judge
from backtest.optimize.judge.walk_forward import Pick, WalkForward
from backtest.optimize.search.trial_ledger import SeenBefore
from backtest.optimize.trial.prepare import Prepared
from backtest.optimize.trial.space import Entry, Space
from core.times import DAY_MS
from tests.optimize.test_optimize_study import SEED, memory_study, search_in
from tests.support.processes.optimize_worker import CURRENT, SPACE, evaluate

K = Entry("float", 0.0, 10.0)
LEVELS = Entry("int", 1, 9)
MODE = Entry("cat", choices=("geometric", "arithmetic"))
ENTRIES = {"k": K, "levels": LEVELS, "mode": MODE}


# --- bootstrap of blocks ------------------------------------------------------------------------


def test_a_steady_gain_is_more_than_chance_and_a_loss_is_not() -> None:
    noise = np.random.default_rng(1).normal(0.0, 0.01, 200)
    noise -= noise.mean()
    assert gain_p_value(noise + 0.003, 1) < 0.01
    assert 0.4 < gain_p_value(noise, 1) < 0.6
    assert gain_p_value(noise - 0.003, 1) > 0.99
    assert gain_p_value(noise + 0.003, 1) == gain_p_value(noise + 0.003, 1)


@pytest.mark.parametrize("days", [np.zeros(100), np.full(100, 0.01), np.arange(29.0)])
def test_too_few_days_or_days_all_alike_have_no_p_value(days: Any) -> None:
    assert math.isnan(gain_p_value(days, 1))


@pytest.mark.slow
@pytest.mark.parametrize("n_days", [60, 250])
def test_where_there_is_nothing_the_level_is_kept(n_days: int) -> None:
    rng = np.random.default_rng(7)
    found = []
    for k in range(400):
        shocks = rng.standard_t(4, n_days + 1)
        found.append(gain_p_value(0.01 * (shocks[1:] + 0.2 * shocks[:-1]), k, reps=500))
    # 5 % +- 2.5 standard errors, and what short, dependent and heavy-tailed days add
    assert sum(p < 0.05 for p in found) <= 40
    assert sum(p > 0.5 for p in found) >= 160


def test_days_are_drawn_in_blocks_that_wrap_around() -> None:
    places = stationary_places(125, 200, np.random.default_rng(1))
    assert places.shape == (200, 125)
    assert set(places.ravel().tolist()) == set(range(125))
    follow = (np.diff(places, axis=1) % 125 == 1).mean()
    assert block_days(125) == 5
    assert follow == pytest.approx(1.0 - 1.0 / 5.0, abs=0.02)


# --- repeated searches --------------------------------------------------------------------------


def test_a_search_in_memory_tries_what_the_search_of_one_process_tries() -> None:
    tried: list[tuple[Mapping[str, Any], float]] = []

    def score(params: Mapping[str, Any]) -> float:
        tried.append((params, evaluate(params).score))
        return tried[-1][1]

    assert search_in_memory(score, SPACE, CURRENT, seed=SEED, n_trials=30) is not None
    kept = search_in(memory_study(), 30)
    assert tried[:30] == [(params, value) for _, params, value in kept]


def test_a_search_whose_trials_are_all_disqualified_chooses_nothing() -> None:
    found = search_in_memory(lambda _: -12.0, Space({"k": K}), {"k": 1.0}, seed=1, n_trials=10)
    assert found is None


class FakePrepared:
    """A search of which only the number of windows and the scores are made up."""

    def __init__(self, windows: int) -> None:
        self.asked: list[int] = []
        self.plan = SimpleNamespace(plan=SimpleNamespace(windows=[None] * windows))

    def train_score(self, params: Mapping[str, Any], windows: int) -> float:
        """Return a score that is best at ``k = 2 * windows``."""
        self.asked.append(windows)
        return -abs(float(params["k"]) - 2.0 * windows)


def test_each_window_gets_a_search_of_its_train_and_the_last_ones_of_other_seeds() -> None:
    fake = FakePrepared(3)
    found = repeat_searches(
        cast("Prepared", fake), Space({"k": K}), {"k": 1.0}, n_trials=40, seed=3, seeds=3, jobs=1
    )
    assert found.n_trials == 40
    assert [round(item.params["k"]) for item in found.windows if item] == [2, 4]
    assert [round(item.params["k"]) for item in found.seeds if item] == [6, 6]
    counts = {windows: fake.asked.count(windows) for windows in (1, 2, 3)}
    assert counts == {1: 41, 2: 41, 3: 82}  # the trials, and the median of the best


def test_other_seeds_are_all_different_and_no_small_number() -> None:
    seeds = {other_seed(seed, k) for seed in range(50) for k in range(1, 5)}
    assert len(seeds) == 200
    assert min(seeds) > 1_000


# --- agreement ----------------------------------------------------------------------------------


def chosen(k: float, levels: int, mode: str, kind: str = "median") -> RepeatedChoice:
    return RepeatedChoice(kind, {"k": k, "levels": levels, "mode": mode}, 1.0, 6)


def agreement_of(choices: list[RepeatedChoice], n_seeds: int = 0, **changes: Any) -> Agreement:
    fields: dict[str, Any] = {
        "n_seeds": n_seeds or len(choices),
        "n_trials": 60,
        "test_return_pct": [1.0] * len(choices),
        "seed": 1,
    }
    return measure_agreement(choices, ENTRIES, **{**fields, **changes})


def test_seeds_that_choose_alike_agree_and_those_that_do_not_are_as_random() -> None:
    near = [chosen(4.0 + 0.01 * k, k % 2 * 8 + 1, "geometric") for k in range(4)]
    found = agreement_of(near)
    words = {item.name: item.word for item in found.parameters}
    assert words["k"] == "agrees"
    assert words["levels"] == "as random"
    assert found.parameters[0].spread == pytest.approx(0.01 * 10 / 6 / 10)
    assert found.parameters[2].values == ("geometric",) * 4
    assert found.parameters[2].spread == 0.0


@pytest.mark.parametrize("kind", ["median", "medoid"])
def test_random_searches_agree_at_the_level_said(kind: str) -> None:
    made = random_choices([chosen(1.0, 1, "geometric", kind)] * 4, ENTRIES, 5)
    spread = pair_spread(made, np.array([False, False, True])).mean(axis=1)
    other = random_choices([chosen(1.0, 1, "geometric", kind)] * 4, ENTRIES, 6)
    against = pair_spread(other, np.array([False, False, True])).mean(axis=1)
    p_values = [(1 + (against <= item).sum()) / (1 + against.size) for item in spread]
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09


def test_draws_of_whole_numbers_and_categories_are_possible_values() -> None:
    made = random_choices([chosen(1.0, 1, "geometric")] * 2, ENTRIES, 5)
    assert set(np.round(made[:, :, 1] * 8).ravel()) <= set(map(float, range(9)))
    assert set(made[:, :, 2].ravel()) == {0.0, 1.0}


def test_one_choice_alone_can_be_compared_with_nothing() -> None:
    found = agreement_of([chosen(1.0, 1, "geometric")], n_seeds=4)
    assert math.isnan(found.p_value)
    assert {item.word for item in found.parameters} == {"not known"}
    assert found.agree is False


def test_seeds_agree_only_if_each_has_chosen_and_gained() -> None:
    choices = [chosen(4.0, 2, "geometric")] * 3
    assert agreement_of(choices).agree
    assert not agreement_of(choices, n_seeds=4).agree
    assert not agreement_of(choices, test_return_pct=[1.0, 0.0, 1.0]).agree


# --- the verdict --------------------------------------------------------------------------------


def run_of(return_pct: float, n_days: int = 120, seed: int = 0) -> PortfolioRun:
    """Return a noisy run, a bar a day, that comes to ``return_pct`` in the end."""
    noise = np.random.default_rng(seed).normal(0.0, 0.002, n_days).cumsum()
    steps = np.linspace(0.0, 1.0, n_days)
    equity = 1_000.0 * np.exp(noise - noise[-1] * steps + math.log1p(return_pct / 100.0) * steps)
    return PortfolioRun(DAY_MS * np.arange(n_days), equity, 1_000.0, {})


def walk_of(*returns: float) -> WalkForward:
    picks = tuple(
        Pick(
            window=k,
            kind="median",
            train_score=1.0,
            test_score=1.0,
            train_return_pct=1.0,
            test_return_pct=value,
        )
        for k, value in enumerate(returns, 1)
    )
    return WalkForward(
        picks=picks, train_daily_pct=0.1, test_daily_pct=0.1, own_test_return_pct=returns
    )


class Scored:
    """Stands for a trial, or a choice, of which only the score is asked."""

    def __init__(self, score: float, best: float = 2.0) -> None:
        self.outcome = self
        self.score = score
        if best != score:
            self.best = Scored(best, best)


def known(score: float = 1.0, best: float = 2.0, **changes: Any) -> Known:
    fields: dict[str, Any] = {
        "choice": Scored(score, best),
        "baseline_score": 0.5,
        "walk": walk_of(1.0, 1.0, 0.5),
        "agreement": agreement_of([chosen(4.0, 2, "geometric")] * 4),
        "sensitivity": None,
        "luck": None,
    }
    return Known(**{**fields, **changes})


def unseen(
    own: float = 30.0, now: float = 1.0, p: float | None = 0.01, days: int = 120, **before: int
) -> Unseen:
    seen = SeenBefore(**{"looks": 0, "trained": 0, **before})
    result = HoldoutResult(run_of(own, days), run_of(now, days, 1), seen)
    test = PermutationTest(
        start_ms=0, end_ms=1, observed=own, permuted=(0.0,) * 99, p_value=p or 1.0
    )
    return Unseen(holdout=result, monte_carlo=None if p is None else test)


def answers(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.answer.value for check in verdict.checks}


def test_a_choice_that_passes_every_test_held() -> None:
    verdict = judge(known(), unseen())
    assert verdict.answer is Answer.HELD
    assert set(answers(verdict).values()) == {"held"}
    assert len(verdict.why) == len(verdict.checks) == 8
    assert verdict.level == 0.05


@pytest.mark.parametrize(
    ("found", "seen", "check"),
    [
        (known(best=-0.1), unseen(), "Train"),
        (known(score=-0.1), unseen(), "Train"),
        (known(), unseen(own=0.0, now=-1.0), "Holdout v. nothing"),
        (known(), unseen(own=-2.0, now=-9.0), "Holdout v. nothing"),
        (known(), unseen(now=31.0), "Holdout v. config now"),
        (known(walk=walk_of(1.0, 9.0, -0.01)), unseen(), "The choice's clean test"),
        (known(walk=walk_of(-3.0, 1.0, 1.0)), unseen(), "Clean walk-forward"),
    ],
)
def test_one_test_that_was_lost_fails_the_choice(found: Known, seen: Unseen, check: str) -> None:
    verdict = judge(found, seen)
    assert verdict.answer is Answer.FAILED
    assert answers(verdict)[check] == "failed"
    assert [text.partition(":")[0] for text in verdict.why] == [check]
    assert verdict.to_do.startswith("keep your config")


@pytest.mark.parametrize(
    ("found", "seen", "check"),
    [
        (known(), unseen(own=0.5, now=-30.0), "Holdout v. nothing"),
        (known(), unseen(now=29.5), "Holdout v. config now"),
        (known(), unseen(days=20), "Holdout v. nothing"),
        (known(), unseen(p=0.05), "Permuted bars"),
        (known(), unseen(p=None), "Permuted bars"),
        (known(), unseen(trained=1), "Holdout untouched"),
        (known(agreement=None), unseen(), "Agreement of seeds"),
        (
            known(agreement=agreement_of([chosen(4.0, 2, "geometric")] * 3, n_seeds=4)),
            unseen(),
            "Agreement of seeds",
        ),
        (known(walk=None), unseen(), "Clean walk-forward"),
        (known(walk=walk_of(0.0, 0.0)), unseen(), "Clean walk-forward"),
    ],
)
def test_one_test_that_luck_may_explain_leaves_the_choice_undecided(
    found: Known, seen: Unseen, check: str
) -> None:
    verdict = judge(found, seen)
    assert verdict.answer is Answer.UNDECIDED
    assert answers(verdict)[check] == "undecided"
    assert any(text.startswith(check) for text in verdict.why)


def test_the_level_is_divided_among_all_looks_at_the_holdout() -> None:
    once = judge(known(), unseen(p=0.02))
    third = judge(known(), unseen(p=0.02, looks=2))
    assert once.answer is Answer.HELD
    assert third.level == pytest.approx(0.05 / 3)
    assert third.answer is Answer.UNDECIDED
    assert "must be under 0.0167" in " ".join(third.why)


def test_a_space_without_any_gain_in_training_is_said_to_be_one() -> None:
    verdict = judge(known(score=-0.2, best=-0.1), unseen())
    assert verdict.why == (
        "Train: nothing in this space made money on train: the best score is -0.1",
    )


def test_a_choice_that_is_the_config_is_no_better_than_it() -> None:
    same = run_of(30.0)
    seen = unseen()
    seen = replace(seen, holdout=replace(seen.holdout, choice=same, baseline=same))
    verdict = judge(known(), seen)
    assert answers(verdict)["Holdout v. config now"] == "undecided"
    assert "no difference" in " ".join(verdict.why)


def test_the_verdict_is_written_whole() -> None:
    written = judge(known(), unseen(p=0.5)).to_dict()
    assert written["answer"] == "undecided"
    assert written["why"] == ["Permuted bars: 99 permutations, p = 0.50 (must be under 0.05)"]
    assert {row["answer"] for row in written["checks"]} == {"held", "undecided"}
    assert written["rule"].startswith("held: ")
