"""The robust choice, its stability, and what happens around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.optimize.judge.robust import (
    DISQUALIFIED,
    ScoredTrial,
    choose,
    gower_distance,
    measure_stability,
    robust_candidates,
    variation_text,
)
from backtest.optimize.judge.sensitivity import Curve, measure_sensitivity, sparkline, with_pairs
from backtest.optimize.trial.space import Entry, Space
from core.errors import DataError

K = Entry("float", 0.0, 10.0)
LEVELS = Entry("int", 1, 9)
MODE = Entry("cat", choices=("geometric", "arithmetic"))
ENTRIES = {"k": K, "levels": LEVELS, "mode": MODE}


def trials(rows: list[tuple[float, int, str, float]]) -> list[ScoredTrial]:
    return [
        ScoredTrial(number, {"k": k, "levels": levels, "mode": mode}, score)
        for number, (k, levels, mode, score) in enumerate(rows)
    ]


def same(count: int, score: Callable[[int], float]) -> list[ScoredTrial]:
    return [ScoredTrial(number, {"k": 1.0}, score(number)) for number in range(count)]


# --- which trials -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "expected"), [(1, 1), (4, 4), (5, 5), (50, 5), (51, 6), (100, 10), (101, 11)]
)
def test_the_top_is_a_tenth_and_at_least_five(count: int, expected: int) -> None:
    found = robust_candidates(same(count, float), {"k": K})
    assert len(found.top_numbers) == expected
    assert found.top_numbers == tuple(range(count - 1, count - 1 - expected, -1))
    assert f"best {expected} of {count} scored trials" in found.sentence()


def test_of_equal_scores_the_earlier_trials_are_taken() -> None:
    found = robust_candidates(list(reversed(same(60, lambda _: 1.0))), {"k": K})
    assert found.top_numbers == (0, 1, 2, 3, 4, 5)


def test_trials_that_were_disqualified_or_have_no_score_do_not_count() -> None:
    scores = [1.0, math.nan, 0.5, -math.inf, DISQUALIFIED, -1000.0, math.inf, DISQUALIFIED + 0.1]
    found = robust_candidates(same(8, lambda number: scores[number]), {"k": K})
    assert found.top_numbers == (0, 2, 7)
    assert found.scored == 3


@pytest.mark.parametrize("score", [math.nan, -9.5])
def test_without_any_trial_that_counts_there_is_no_choice(score: float) -> None:
    with pytest.raises(DataError, match="none of 7 trials has a score above -9"):
        robust_candidates(same(7, lambda _: score), {"k": K})


def test_a_trial_of_another_search_is_refused() -> None:
    with pytest.raises(DataError, match="trial 0 has no value for levels"):
        robust_candidates(same(1, float), {"k": K, "levels": LEVELS})


# --- median and medoid --------------------------------------------------------------------------

FIVE = [
    (1.0, 2, "geometric", 5.0),
    (2.0, 3, "arithmetic", 4.0),
    (3.0, 3, "arithmetic", 3.0),
    (4.0, 4, "geometric", 2.0),
    (10.0, 9, "arithmetic", 1.0),
]


def test_the_median_is_taken_by_parameter_and_is_not_the_best_trial() -> None:
    found = robust_candidates(trials(FIVE), ENTRIES)
    assert found.median_params == {"k": 3.0, "levels": 3, "mode": "arithmetic"}
    assert isinstance(found.median_params["levels"], int)
    assert found.medoid_number == 2
    assert found.medoid_params == {"k": 3.0, "levels": 3, "mode": "arithmetic"}


def test_the_medoid_has_the_smallest_sum_of_distances() -> None:
    rows = trials(FIVE)
    sums = [
        sum(gower_distance(one.params, other.params, ENTRIES) for other in rows) for one in rows
    ]
    best = min(range(5), key=sums.__getitem__)
    assert robust_candidates(rows, ENTRIES).medoid_number == best


def test_of_equally_near_trials_the_better_is_the_medoid_despite_rounding() -> None:
    values = (0.1, 0.2, 9.8, 9.9)
    rows = [ScoredTrial(i, {"k": value}, -float(i)) for i, value in enumerate(values)]
    assert robust_candidates(rows, {"k": K}).medoid_number == 1


def test_an_even_number_of_whole_numbers_has_the_lower_middle_one() -> None:
    rows = [(1.0, levels, "geometric", 1.0) for levels in (2, 3, 4, 7)]
    assert robust_candidates(trials(rows), ENTRIES).median_params["levels"] == 3


def test_of_equally_frequent_categories_the_better_trial_s_is_the_mode() -> None:
    rows = [(1.0, 1, "geometric", 1.0), (1.0, 1, "arithmetic", 2.0)]
    assert robust_candidates(trials(rows), ENTRIES).median_params["mode"] == "arithmetic"


def test_what_is_not_searched_is_not_chosen() -> None:
    row = ScoredTrial(3, {"k": 1.0, "leverage": 2.0}, 1.0)
    found = robust_candidates([row], {"k": K})
    assert found.median_params == found.medoid_params == {"k": 1.0}


def test_distances_are_shares_of_the_range_of_logarithms_where_these_were_drawn() -> None:
    entries = ENTRIES | {"log": Entry("float", 0.01, 100.0, log=True)}
    one = {"k": 2.0, "levels": 1, "mode": "geometric", "log": 0.1}
    other = {"k": 7.0, "levels": 3, "mode": "arithmetic", "log": 1.0}
    expected = (0.5 + 0.25 + 1.0 + 0.25) / 4
    assert gower_distance(one, other, entries) == pytest.approx(expected, rel=1e-12)
    assert gower_distance(one, one, entries) == 0.0


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 10.0),
            st.integers(1, 9),
            st.sampled_from(MODE.choices),
            st.floats(-8.0, 8.0),
        ),
        min_size=1,
        max_size=70,
    )
)
def test_the_choice_lies_inside_the_best_trials_and_ignores_their_order(rows: Any) -> None:
    given_trials = trials(rows)
    found = robust_candidates(given_trials, ENTRIES)
    for name in ("k", "levels"):
        values = [params[name] for params in found.top_params]
        assert min(values) <= found.median_params[name] <= max(values)
    assert found.medoid_number in found.top_numbers
    assert given_trials[found.medoid_number].params == found.medoid_params
    assert robust_candidates(given_trials[::-1], ENTRIES) == found


@pytest.mark.parametrize(
    ("median", "medoid", "expected"),
    [
        (2.0, 1.0, "median"),
        (1.0, 2.0, "medoid"),
        (1.0, 1.0, "median"),
        (math.nan, -9.0, "medoid"),
        (-9.0, math.nan, "median"),
        (math.nan, math.nan, "medoid"),
    ],
)
def test_the_better_of_the_two_is_taken_by_name(
    median: float, medoid: float, expected: str
) -> None:
    assert choose(median, medoid) == expected


# --- stability ----------------------------------------------------------------------------------


def spread_of(entry: Entry, values: Iterable[Any]) -> Any:
    return measure_stability([{"x": value} for value in values], {"x": entry}).spreads[0]


@pytest.mark.parametrize(
    ("values", "cv"),
    [
        ((4.0, 4.0, 4.0), 0.0),
        ((4.0, 5.0, 6.0), 0.2),
        ((3.0, 4.0, 5.0), 0.25),
        ((2.0, 4.0, 6.0), 0.5),
        ((1.0, 4.0, 7.0), 0.75),
        ((-6.0, -4.0, -2.0), 0.5),
    ],
)
def test_a_number_s_variation_is_its_deviation_over_its_mean(
    values: tuple[float, ...], cv: float
) -> None:
    assert spread_of(K, values).cv == pytest.approx(cv, rel=1e-12)


def test_around_zero_the_range_is_the_yardstick() -> None:
    entry = Entry("float", -5.0, 5.0)
    assert spread_of(entry, (-0.1, 0.0, 0.1)).cv == pytest.approx(0.1, rel=1e-9)
    assert spread_of(entry, (-5.0, 0.0, 5.0)).cv == pytest.approx(5.0, rel=1e-9)


def test_a_category_s_variation_is_the_share_that_is_not_the_mode() -> None:
    values = ["geometric"] * 4 + ["arithmetic"]
    found = spread_of(MODE, values)
    assert (found.cv, found.centre) == (0.2, "geometric")
    assert found.random_cv == 0.5


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (Entry("float", 0.0, 10.0), 1.0 / math.sqrt(3.0)),
        (Entry("int", 1, 3), math.sqrt(2.0 / 3.0) / 2.0),
        (Entry("float", 1.0, math.e, log=True), math.sqrt((math.e + 1) / (math.e - 1) / 2 - 1)),
    ],
)
def test_the_variation_of_random_draws_is_that_of_the_even_distribution(
    entry: Entry, expected: float
) -> None:
    assert spread_of(entry, (2.0, 2.0)).random_cv == pytest.approx(expected, rel=2e-3)


def test_the_robustness_score_is_the_mean_variation() -> None:
    top = [{"k": 4.0, "mode": "geometric"}, {"k": 6.0, "mode": "arithmetic"}]
    found = measure_stability(top, {"k": K, "mode": MODE})
    assert found.score == pytest.approx((math.sqrt(2.0) / 5.0 + 0.5) / 2.0, rel=1e-12)


def test_a_single_trial_shows_no_stability() -> None:
    found = measure_stability([{"k": 4.0, "mode": "geometric"}], {"k": K, "mode": MODE})
    assert all(math.isnan(spread.cv) for spread in found.spreads)
    assert math.isnan(found.score)
    assert variation_text(found.score) == "-"


# --- sensitivity --------------------------------------------------------------------------------


def clip(name: str, value: Any) -> Any:
    entry = ENTRIES[name]
    assert entry.low is not None
    assert entry.high is not None
    inside = min(max(value, entry.low), entry.high)
    return round(inside) if entry.kind == "int" else float(inside)


def curves(
    params: Mapping[str, Any], score: Callable[[Mapping[str, Any]], float], **more: Any
) -> dict[str, Curve]:
    searched = {name: ENTRIES[name] for name in ENTRIES if name in params}
    found = measure_sensitivity(params, searched, clip, score, **more)
    return {curve.name: curve for curve in found.curves}


def test_each_number_is_moved_by_ten_and_twenty_percent_either_way() -> None:
    points = curves({"k": 5.0}, lambda params: params["k"])["k"].points
    assert [point.step for point in points] == [-0.2, -0.1, 0.0, 0.1, 0.2]
    assert [point.value for point in points] == pytest.approx([4.0, 4.5, 5.0, 5.5, 6.0])
    assert [point.score for point in points] == [point.value for point in points]


def test_values_stay_in_bounds_and_are_tried_once() -> None:
    tried: list[float] = []

    def score(params: Mapping[str, Any]) -> float:
        tried.append(params["k"])
        return 1.0

    points = curves({"k": 9.5}, score)["k"].points
    assert [point.value for point in points] == pytest.approx([7.6, 8.55, 9.5, 10.0])
    assert len(tried) == 4
    assert points[-1].step == 0.1


@pytest.mark.parametrize(
    ("levels", "values"),
    [(3, [2, 3, 4]), (5, [4, 5, 6]), (7, [6, 7, 8]), (8, [6, 7, 8, 9]), (1, [1, 2])],
)
def test_whole_numbers_move_by_at_least_one(levels: int, values: list[int]) -> None:
    points = curves({"levels": levels}, lambda _: 1.0)["levels"].points
    assert [point.value for point in points] == values
    assert all(isinstance(point.value, int) for point in points)


def test_a_zero_moves_by_shares_of_the_range_and_a_negative_number_keeps_its_direction() -> None:
    entries = {"z": Entry("float", -10.0, 10.0)}
    zero = measure_sensitivity({"z": 0.0}, entries, lambda _, value: value, lambda _: 1.0)
    assert [point.value for point in zero.curves[0].points] == [-4.0, -2.0, 0.0, 2.0, 4.0]
    found = measure_sensitivity({"z": -5.0}, entries, lambda _, value: value, lambda _: 1.0)
    points = found.curves[0].points
    assert [point.step for point in points] == [-0.2, -0.1, 0.0, 0.1, 0.2]
    assert [point.value for point in points] == pytest.approx([-6.0, -5.5, -5.0, -4.5, -4.0])


def test_a_category_is_tried_at_every_choice_and_is_no_cliff() -> None:
    def score(params: Mapping[str, Any]) -> float:
        return 2.0 if params["mode"] == "arithmetic" else -10.0

    curve = curves({"mode": "arithmetic"}, score)["mode"]
    assert [(point.value, point.score) for point in curve.points] == [
        ("geometric", -10.0),
        ("arithmetic", 2.0),
    ]
    assert curve.cliffs == ()


def test_one_parameter_moves_while_all_others_stay() -> None:
    params = {"k": 5.0, "levels": 5, "mode": "geometric", "fixed": 7}
    seen: list[Mapping[str, Any]] = []

    def score(moved: Mapping[str, Any]) -> float:
        seen.append(moved)
        return 1.0

    curves(params, score)
    changes = [sum(moved[name] != params[name] for name in params) for moved in seen]
    assert changes == [0] + [1] * (len(seen) - 1)
    assert len(seen) == 1 + 4 + 2 + 1


@pytest.mark.parametrize(
    ("score_at", "cliffs"),
    [
        ({4.5: 0.9}, []),
        ({4.5: 0.5}, []),
        ({4.5: 0.49}, [4.5]),
        ({5.5: -3.0, 4.5: 0.2}, [4.5, 5.5]),
        ({4.5: -10.0}, [4.5]),
        ({5.5: math.nan}, [5.5]),
        ({4.0: -10.0, 6.0: math.nan}, [4.0, 6.0]),
        ({4.0: 0.01, 6.0: 0.51}, [4.0]),
        ({4.5: 5.0}, []),
    ],
)
def test_a_cliff_is_a_fall_by_more_than_half_at_any_step(
    score_at: dict[float, float], cliffs: list[float]
) -> None:
    def score(params: Mapping[str, Any]) -> float:
        return score_at.get(round(params["k"], 6), 1.0)

    assert sorted(curves({"k": 5.0}, score)["k"].cliffs) == pytest.approx(cliffs)


def test_around_zero_a_small_fall_is_no_cliff() -> None:
    def falling(by: float) -> Callable[[Mapping[str, Any]], float]:
        return lambda params: 0.01 - (by if params["k"] < 4.9 else 0.0)

    assert curves({"k": 5.0}, falling(0.049))["k"].cliffs == ()
    assert len(curves({"k": 5.0}, falling(0.051))["k"].cliffs) == 2


def test_the_next_whole_number_counts_as_a_step() -> None:
    curve = curves({"levels": 3}, lambda params: 1.0 if params["levels"] == 3 else -10.0)["levels"]
    assert sorted(curve.cliffs) == [2, 4]


@pytest.mark.parametrize("centre", [math.nan, -9.5])
def test_a_choice_without_a_score_has_nothing_to_fall_from(centre: float) -> None:
    found = measure_sensitivity({"k": 5.0}, {"k": K}, clip, lambda _: centre)
    assert found.cliffs() == {}


def test_side_by_side_gives_the_same_curves() -> None:
    params = {"k": 5.0, "levels": 5, "mode": "geometric"}

    def score(moved: Mapping[str, Any]) -> float:
        return float(moved["k"] * moved["levels"])

    with ThreadPoolExecutor(3) as pool:
        assert repr(curves(params, score, run=pool.map)) == repr(curves(params, score))


def test_a_sparkline_spans_its_scale_and_crosses_out_what_does_not_count() -> None:
    assert sparkline([0.0, 1.0, 2.0, math.nan, -10.0], -9.0, (0.0, 2.0)) == "▁▅█xx"
    assert sparkline([1.0, 1.0], -9.0, (1.0, 1.0)) == "▅▅"


def test_a_parameter_that_changes_nothing_is_said_to_have_no_effect() -> None:
    def score(params: Mapping[str, Any]) -> float:
        return 1.0 + (0.0 if params["k"] > 0.0 else 1.0) + 0.5 * float(params["s"])

    entries = {"k": Entry("float", 1.0, 9.0), "s": Entry("float", 0.1, 9.0)}
    found = measure_sensitivity({"k": 4.0, "s": 4.0}, entries, clip_into(entries), score)
    assert found.without_effect() == ["k"]
    nowhere = replace(found, centre=-9.0)
    assert nowhere.without_effect() == []


@pytest.mark.parametrize(
    ("formula", "kinds"),
    [
        (lambda p: 5.0 - abs(p["a"] * p["b"] - 4.0), ["product"]),
        (lambda p: 5.0 - abs(p["a"] / p["b"] - 1.0), ["ratio"]),
        (lambda p: 5.0 - abs(p["a"] - 2.0) - abs(p["b"] - 2.0), []),
        (lambda p: 5.0 - abs(p["a"] - 2.0), []),
        (lambda _: -9.0, []),
    ],
)
def test_parameters_that_act_as_one_are_found(formula: Any, kinds: list[str]) -> None:
    entries = {"a": Entry("float", 1.0, 9.0), "b": Entry("float", 1.0, 9.0)}
    params, clip = {"a": 2.0, "b": 2.0}, clip_into(entries)
    found = measure_sensitivity(params, entries, clip, formula)
    found = with_pairs(found, params, entries, clip, formula)
    assert [(pair.one, pair.other, pair.kind) for pair in found.pairs] == [
        ("a", "b", kind) for kind in kinds
    ]


def clip_into(entries: Mapping[str, Entry]) -> Any:
    return Space(entries).clip
