"""Rounding to tick and lot, and the validation of market rules, parameters and state records."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Annotated, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import PRESETS, STRATEGY_PARAMS
from core.errors import ConfigError
from core.grid import order_quantity
from core.market import MarketRules, lots_down, lots_nearest, lots_up, tick_down, tick_up
from core.params import StrategyParams, param_fields, read_value
from core.records import Table, dtype_of, freeze, load_jsonable, to_jsonable, zeros
from core.risk import MAX_BRACKETS
from engine.grid_v4.types import State, new_state
from engine.strategy import GridStrategyV4

STEPS = ["0.1", "0.01", "0.001", "0.00001", "1e-8", "0.5", "0.25", "0.0005", "1", "5", "10", "100"]
RULES: dict[str, Any] = {
    "tick_size": 0.1,
    "step_size": 0.001,
    "min_qty": 0.001,
    "min_notional": 5.0,
}
COUNTS = st.floats(0.0, 4e6)
"""In ticks or lots; the slack of 1e-9 of one covers what doubles miss up to 2^24 of them."""


def market(step: str, **more: Any) -> Any:
    rules = {**RULES, "tick_size": float(step), "step_size": float(step), **more}
    return MarketRules.from_dict(rules).to_record(0.0125)


# --- rounding -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(step=st.sampled_from(STEPS), count=COUNTS)
def test_rounded_values_are_on_the_step_to_the_last_digit(step: str, count: float) -> None:
    rules, value, unit = market(step), count * float(step), Decimal(step)
    for function in (tick_down, tick_up, lots_down, lots_up, lots_nearest):
        rounded = function(rules, value)
        assert rounded == float(round(Decimal(rounded) / unit) * unit)
        assert function(rules, rounded) == rounded  # there already


@settings(deadline=None)
@given(step=st.sampled_from(STEPS), count=COUNTS)
def test_down_is_down_up_is_up_and_at_most_one_step_away(step: str, count: float) -> None:
    rules, size = market(step), float(step)
    value, slack = count * size, 2e-9 * size
    for down, up in ((tick_down, tick_up), (lots_down, lots_up)):
        assert value - size - slack < down(rules, value) <= value + slack
        assert value - slack <= up(rules, value) < value + size + slack
    assert abs(lots_nearest(rules, value) - value) <= size / 2.0 + slack


@settings(deadline=None)
@given(step=st.sampled_from(STEPS), count=st.integers(0, 4_000_000), noise=st.floats(-1, 1))
def test_what_misses_a_step_by_rounding_alone_counts_as_on_it(
    step: str, count: int, noise: float
) -> None:
    rules, size = market(step), Decimal(step)
    exact = float(count * size)
    value = exact + noise * 4e-10 * float(step)
    for function in (tick_down, tick_up, lots_down, lots_up, lots_nearest):
        assert function(rules, value) == exact


def test_an_order_too_small_when_reduced_is_placed_at_the_minimum() -> None:
    rules = market("0.001", tick_size=0.1, min_notional=100.0)
    assert order_quantity(rules, 500.0, 1.0, 50_000.0) == 0.01
    assert order_quantity(rules, 500.0, 0.5, 50_000.0) == 0.005
    assert order_quantity(rules, 110.0, 0.25, 50_000.0) == 0.002
    assert order_quantity(rules, 99.0, 1.0, 50_000.0) == 0.0
    assert order_quantity(rules, 100.0, 1.0, 30_000.0) == 0.0  # 0.003 * 30,000 is 90
    assert order_quantity(rules, 1e6, 1.0, 30_000.0) == 33.333


# --- market rules -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tick_size", "step_size"])
@pytest.mark.parametrize("value", [0.0, -0.1, math.nan, math.inf])
def test_a_step_that_is_not_positive_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} = .* must be positive"):
        MarketRules.from_dict({**RULES, name: value})


@pytest.mark.parametrize("name", ["min_qty", "min_notional"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_negative_minimum_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} = .* must be >= 0"):
        MarketRules.from_dict({**RULES, name: value})
    assert MarketRules.from_dict({**RULES, name: 0.0}).to_record(0.0).min_qty == 0.001


def test_market_rules_name_what_is_unknown_or_missing() -> None:
    with pytest.raises(ConfigError, match=r"rule 'ticksize'; did you mean tick_size\?$"):
        MarketRules.from_dict({**RULES, "ticksize": 0.1})
    with pytest.raises(ConfigError, match="min_notional"):
        MarketRules.from_dict({k: v for k, v in RULES.items() if k != "min_notional"})


def test_brackets_out_of_order_and_a_negative_liquidation_fee_are_refused() -> None:
    with pytest.raises(ConfigError, match="must rise by floor"):
        MarketRules.from_dict({**RULES, "brackets": ((50e3, 0.01, 100.0), (0.0, 0.004, 0.0))})
    with pytest.raises(ConfigError, match=r"liquidation_fee = -0\.01 must be in"):
        MarketRules.from_dict({**RULES, "liquidation_fee": -0.01})


@pytest.mark.parametrize("count", [0, MAX_BRACKETS + 1])
def test_no_brackets_and_too_many_are_refused(count: int) -> None:
    rows = tuple((float(k), 0.01, 0.0) for k in range(count))
    with pytest.raises(ConfigError, match=f"{count} margin brackets are outside"):
        MarketRules.from_dict({**RULES, "brackets": rows})


def test_a_coin_without_a_liquidation_fee_takes_the_strategys() -> None:
    assert MarketRules.from_dict(RULES).to_record(0.02).liquidation_fee == 0.02
    own = MarketRules.from_dict({**RULES, "liquidation_fee": 0.015})
    assert own.to_record(0.02).liquidation_fee == 0.015


# --- parameters ---------------------------------------------------------------------------------

PLAIN = StrategyParams.from_dict(STRATEGY_PARAMS)
NUMBERS = {name: item.metadata for name, item in param_fields().items() if "low" in item.metadata}


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_survive_json(preset: str) -> None:
    params = StrategyParams.from_dict({**STRATEGY_PARAMS, **PRESETS[preset]})
    assert StrategyParams.from_dict(json.loads(json.dumps(params.to_dict()))) == params


def test_an_unknown_parameter_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"parameter 'grid_level'; did you mean grid_levels\?$"):
        GridStrategyV4({"grid_level": 5})
    with pytest.raises(ConfigError, match=r"^unknown strategy parameter 'xyzzy'$"):
        GridStrategyV4({"xyzzy": 5})


def test_missing_parameters_are_named() -> None:
    with pytest.raises(ConfigError, match="missing strategy parameters: gamma, leverage"):
        StrategyParams.from_dict(
            {k: v for k, v in STRATEGY_PARAMS.items() if k not in {"leverage", "gamma"}}
        )


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_is_held_to_its_bounds(name: str) -> None:
    low, high = NUMBERS[name]["low"], NUMBERS[name]["high"]
    assert (read_value(name, low), read_value(name, high)) == (low, high)
    assert low <= getattr(PLAIN, name) <= high
    whole = isinstance(getattr(PLAIN, name), int)
    below, above = (low - 1, high + 1) if whole else np.nextafter((low, high), (-1e99, 1e99))
    for value in (below, above):
        with pytest.raises(ConfigError) as caught:
            GridStrategyV4({name: value})
        text = str(caught.value)
        assert text.startswith(f"{name} = {value!r} is outside [{low:g}, {high:g}]")
        assert text.endswith(NUMBERS[name]["unit"])
    for value in (math.nan, math.inf):
        with pytest.raises(ConfigError, match=f"^{name} = "):
            read_value(name, value)


def test_the_message_reads_as_promised() -> None:
    with pytest.raises(ConfigError) as caught:
        GridStrategyV4({"grid_levels": 40})
    assert str(caught.value) == "grid_levels = 40 is outside [1, 24] levels per side"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("grid_levels", 2.5, "must be a whole number"),
        ("grid_levels", True, "must be a whole number"),
        ("grid_levels", "five", "must be a whole number"),
        ("leverage", "abc", "must be a number"),
        ("leverage", None, "must be a number"),
        ("leverage", True, "must be a number"),
        ("leverage", [1.0], "must be a number"),
        ("allow_short", 2, "must be true or false"),
        ("allow_short", "perhaps", "must be true or false"),
        ("grid_mode", "linear", "must be one of geometric, arithmetic"),
        ("grid_mode", 7, "must be one of geometric, arithmetic"),
        ("intrabar_path", None, "must be one of auto, low_first, high_first"),
        ("prune_enabled", ("GAP", "HEDGE"), "must be a list out of DEVIANCE, OLDEST, GAP"),
        ("prune_enabled", 3.5, "must be a list out of DEVIANCE, OLDEST, GAP"),
        ("prune_enabled", ("GAP", 4), "must be a list out of DEVIANCE, OLDEST, GAP"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} = .*{expected}"):
        GridStrategyV4({name: value})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("leverage", "2.5", 2.5),
        ("grid_levels", "7", 7),
        ("grid_levels", 7.0, 7),
        ("allow_short", "no", False),
        ("allow_short", 1, True),
        ("kelly_enabled", " TRUE ", True),
        ("grid_mode", "Arithmetic", 1),
        ("intrabar_path", "high_first", 2),
        ("prune_enabled", "gap, oldest", 6),
        ("prune_enabled", "none", 0),
        ("prune_enabled", (), 0),
    ],
)
def test_text_from_a_command_line_is_read(name: str, text: Any, value: Any) -> None:
    assert read_value(name, text) == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kama_fast": 30, "kama_slow": 30}, "kama_fast = 30 must be < kama_slow = 30"),
        ({"halt_z_threshold": -1.0}, "halt_z_threshold = -1.0 must be < resume_z_threshold = -1.0"),
        ({"stop1_mult": 1.6}, "stop1_mult = 1.6 must be <= stop2_mult = 1.5"),
        ({"kelly_min_trades": 51}, "kelly_min_trades = 51 must be <= kelly_window = 50"),
    ],
)
def test_values_that_contradict_each_other_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{message}$"):
        GridStrategyV4(changes)


# --- records ------------------------------------------------------------------------------------


class Row:
    """A row of a small table."""

    price: float
    busy: bool


class Holder:
    """A record with a counted table and a plain one."""

    name: int
    n_rows: int
    rows: Annotated[Table[Row], 3]
    numbers: Annotated[Table[float], 2]


def test_a_record_survives_json_and_unused_rows_become_zero() -> None:
    record: Any = zeros(Holder)
    record.name, record.n_rows = 7, 1
    record.rows[0].price, record.rows[0].busy, record.rows[2].price = 0.1, True, 9.0
    record.numbers[1] = 1e300
    plain = to_jsonable(record)
    assert plain == {
        "name": 7,
        "n_rows": 1,
        "rows": [{"price": 0.1, "busy": True}],
        "numbers": [0.0, 1e300],
    }
    other: Any = zeros(Holder)
    other.rows[1].price = 5.0
    load_jsonable(other, json.loads(json.dumps(plain)))
    assert to_jsonable(other) == plain
    assert (other.rows[1].price, other.rows[2].price) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"name": None}, r"missing \['name'\]"),
        ({"extra": 1}, r"unknown \['extra'\]"),
        ({"n_rows": 2}, "rows has 1 rows, expected 2"),
        ({"numbers": [1.0]}, "numbers has 1 rows"),
        ({"n_rows": 4, "rows": [{"price": 0.0, "busy": False}] * 4}, "rows has 4 rows"),
        ({"rows": [{"price": 0.0}]}, r"missing \['busy'\]"),
    ],
)
def test_data_of_another_form_is_refused(damage: dict[str, Any], message: str) -> None:
    record: Any = zeros(Holder)
    record.n_rows = 1
    data = {**to_jsonable(record), **damage}
    data = {key: value for key, value in data.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        load_jsonable(zeros(Holder), data)


def test_a_field_that_a_record_would_shadow_is_refused() -> None:
    class Shadowed:
        sort: float

    with pytest.raises(TypeError, match=r"Shadowed\.sort is shadowed"):
        dtype_of(Shadowed)


def test_the_whole_state_survives_json() -> None:
    state: Any = new_state(123.25)
    text = json.dumps(to_jsonable(state))
    other: Any = zeros(State)
    load_jsonable(other, json.loads(text))
    assert other.tobytes() == state.tobytes()


def test_frozen_parameters_cannot_be_written() -> None:
    frozen = freeze(PLAIN)
    assert frozen.leverage == PLAIN.leverage
    with pytest.raises(ValueError, match="read-only"):
        frozen.leverage = 2.0  # type: ignore[misc]  # frozen is what this is about
