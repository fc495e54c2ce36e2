"""The search space: what may be searched, in which ranges, and what a mistake says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from backtest.optimize.trial.space import Entry, read_space
from config import OPTIMIZER_SPACE, STRATEGY_PARAMS
from core.errors import ConfigError
from core.params import PruneRule, StrategyParams, read_value

LEVELS = {"type": "int", "low": 2, "high": 6}
SPACING = {"type": "float", "low": 0.8, "high": 6.0}


def test_the_shipped_space_is_valid_and_keeps_its_order() -> None:
    space = read_space()
    assert list(space.entries) == list(OPTIMIZER_SPACE)
    assert list(space.distributions()) == list(OPTIMIZER_SPACE)


@pytest.mark.parametrize("end", ["low", "high"])
def test_either_end_of_the_shipped_space_is_a_valid_parameter_set(end: str) -> None:
    drawn = {name: getattr(entry, end) for name, entry in read_space().entries.items()}
    params = StrategyParams.from_dict({**STRATEGY_PARAMS, **drawn})
    assert params.grid_levels == drawn["grid_levels"]


def test_entries_become_distributions_of_their_kind() -> None:
    space = read_space(
        {
            "grid_levels": {**LEVELS, "log": True},
            "grid_spacing_k": SPACING,
            "grid_mode": {"type": "cat", "choices": ["geometric", "ARITHMETIC"]},
            "regime_timeframe_mult": {"type": "cat", "choices": (1, 4, 16)},
            "trailing_enabled": {"type": "cat", "choices": [True, False]},
        }
    )
    assert space.distributions() == {
        "grid_levels": IntDistribution(2, 6, log=True),
        "grid_spacing_k": FloatDistribution(0.8, 6.0),
        "grid_mode": CategoricalDistribution(("geometric", "arithmetic")),
        "regime_timeframe_mult": CategoricalDistribution((1, 4, 16)),
        "trailing_enabled": CategoricalDistribution((True, False)),
    }


def test_choices_of_prunings_are_texts_that_read_back_as_the_rules() -> None:
    given_choices = [("OLDEST", "GAP"), "deviance", ()]
    entry = read_space({"prune_enabled": {"type": "cat", "choices": given_choices}}).entries[
        "prune_enabled"
    ]
    assert entry.choices == ("OLDEST,GAP", "DEVIANCE", "none")
    read = [read_value("prune_enabled", choice) for choice in entry.choices]
    assert read == [PruneRule.OLDEST | PruneRule.GAP, PruneRule.DEVIANCE, PruneRule(0)]


def test_the_space_survives_json() -> None:
    space = read_space({"grid_levels": LEVELS, "allow_short": {"type": "cat", "choices": [1, 0]}})
    data = space.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["grid_levels"] == {"kind": "int", "low": 2, "high": 6, "choices": [], "log": False}
    assert data["allow_short"]["choices"] == [True, False]


@pytest.mark.parametrize(
    ("name", "entry", "said"),
    [
        ("grid_level", LEVELS, ["grid_level", "did you mean grid_levels?"]),
        ("initial_capital", SPACING, ["initial_capital", "cannot be searched", "yardstick"]),
        ("grid_levels", {**LEVELS, "high": 40}, ["grid_levels", "high", "40", "[1, 24]"]),
        ("grid_levels", {**LEVELS, "low": 2.5}, ["low", "2.5", "a whole number"]),
        ("grid_levels", {**LEVELS, "low": 6}, ["low = 6", "under high = 6", "STRATEGY_PARAMS"]),
        ("grid_levels", {**LEVELS, "type": "float"}, ["'float'", "must be 'int'"]),
        ("gamma", {"type": "int", "low": 1, "high": 2}, ["'int'", "must be 'float'"]),
        ("allow_short", {"type": "int", "low": 0, "high": 1}, ["'int'", "must be 'cat'"]),
        ("grid_mode", {"type": "float", "low": 0, "high": 1}, ["'float'", "must be 'cat'"]),
        ("grid_levels", {**LEVELS, "type": "integer"}, ["'integer'", "int, float, cat"]),
        ("grid_levels", {"low": 2, "high": 6}, ["type = None"]),
        ("grid_levels", {"type": "int", "low": 2}, ["lacks high"]),
        ("grid_levels", {**LEVELS, "step": 2}, ["'step'", "type, low, high, log"]),
        ("grid_levels", {**LEVELS, "hihg": 2}, ["did you mean high?"]),
        ("grid_levels", {**LEVELS, "log": "yes"}, ["log = 'yes'"]),
        (
            "funding_threshold",
            {"type": "float", "low": 0.0, "high": 0.1, "log": True},
            ["low = 0", "above 0", "log"],
        ),
        ("gamma", {"type": "float", "low": float("nan"), "high": 1.0}, ["low", "nan"]),
        ("grid_mode", {"type": "cat", "choices": []}, ["at least 2"]),
        ("grid_mode", {"type": "cat", "choices": ["arithmetic"]}, ["at least 2"]),
        ("grid_mode", {"type": "cat", "choices": ["arithmetic", "ARITHMETIC"]}, ["different"]),
        ("grid_mode", {"type": "cat", "choices": "geometric"}, ["a list of values"]),
        ("grid_mode", {"type": "cat", "choices": ["linear", "geometric"]}, ["'linear'"]),
        ("grid_mode", {"type": "cat", "low": 0, "high": 1}, ["'low'", "type, choices"]),
        ("grid_mode", {"type": "cat"}, ["lacks choices"]),
    ],
)
def test_an_impossible_entry_is_refused_by_name(
    name: str, entry: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        read_space({"grid_spacing_k": SPACING, name: entry})
    for text in ["OPTIMIZER_SPACE", name, *said]:
        assert text in str(error.value)


@pytest.mark.parametrize("entry", [3, None, "float", [0.1, 2.0]])
def test_an_entry_that_is_no_dict_is_refused(entry: Any) -> None:
    with pytest.raises(ConfigError, match=r"OPTIMIZER_SPACE\['gamma'\]: is .*must be a dict"):
        read_space({"gamma": entry})


@pytest.mark.parametrize("space", [5, ["gamma"], "gamma", {1: {"type": "float"}}])
def test_a_space_that_is_no_dict_of_parameters_is_refused(space: Any) -> None:
    with pytest.raises(ConfigError, match="OPTIMIZER_SPACE"):
        read_space(space)


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(ConfigError, match="OPTIMIZER_SPACE is empty"):
        read_space({})


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_clipping_answers_a_value_of_the_entry_and_keeps_those_inside(value: float) -> None:
    space = read_space({"grid_levels": LEVELS, "grid_spacing_k": SPACING})
    levels, spacing = space.clip("grid_levels", value), space.clip("grid_spacing_k", value)
    assert isinstance(levels, int)
    assert 2 <= levels <= 6
    assert isinstance(spacing, float)
    assert 0.8 <= spacing <= 6.0
    if 2 <= value <= 6:
        assert abs(levels - value) <= 0.5
        assert spacing == value


def test_clipping_a_choice_accepts_any_spelling_of_it_and_nothing_else() -> None:
    space = read_space({"prune_enabled": {"type": "cat", "choices": ["GAP", "none"]}})
    assert space.clip("prune_enabled", ("gap",)) == "GAP"
    with pytest.raises(ConfigError, match="must be one of GAP, none"):
        space.clip("prune_enabled", "OLDEST")
    with pytest.raises(ConfigError, match="did you mean prune_enabled"):
        space.clip("prune_enable", "GAP")


def test_bounding_values_are_the_range_the_choices_or_the_fixed_value() -> None:
    space = read_space(
        {"grid_levels": LEVELS, "prune_enabled": {"type": "cat", "choices": ["GAP", "OLDEST"]}}
    )
    assert space.bounding_values("grid_levels", 5) == (2, 6)
    assert space.bounding_values("prune_enabled", None) == (PruneRule.GAP, PruneRule.OLDEST)
    assert space.bounding_values("gamma", 0.5) == (0.5,)


def test_an_entry_that_is_not_given_a_scale_is_drawn_evenly() -> None:
    assert read_space({"gamma": SPACING}).entries["gamma"] == Entry("float", 0.8, 6.0, (), False)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "int", "low": "4", "high": 6}, "low = '4' is a text, must be a number"),
        ({"type": "cat", "choices": ["4", 5]}, "choices: '4' is a text, must be a number"),
    ],
)
def test_a_number_in_quotes_is_no_number(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_space({"grid_levels": entry})
