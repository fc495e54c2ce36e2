"""Parameters of the fixed grid: accepted, refused in one line, and notes at load."""

from __future__ import annotations

import math
from typing import Any

import pytest

from config import FIXED_GRID_PARAMS, FIXED_GRID_PRESETS, FIXED_GRID_SPACE, STRATEGY_PARAMS
from core.errors import ConfigError, DataError, GridError
from core.market import MarketRules
from core.params import param_fields
from engine.fixed_grid.frozen import freeze_params
from engine.fixed_grid.params import Direction, FixedGridParams, RecoveryMode, load_warnings
from engine.fixed_grid.sizes import check_market, market_warnings
from engine.fixed_grid.strategy import FixedGridStrategy
from engine.registry import FIXED_GRID, GRID_V4, read_params
from tests.engine.fixed_grid_reference.params import Params, reachable_stuck_distance
from tests.engine.fixed_grid_reference.scenarios import MINUTE_MS, columns, flat
from tests.support.markets.fixed_grid import fixed_params, frame_of

BTC = MarketRules(tick_size=0.1, step_size=0.001, min_qty=0.001, min_notional=100.0)


def read(**changes: Any) -> FixedGridParams:
    params: FixedGridParams = read_params(FIXED_GRID, {**FIXED_GRID_PARAMS, **changes})
    return params


def test_the_shipped_values_are_those_of_the_definition() -> None:
    shipped = read()
    expected = Params()
    for name in param_fields(FixedGridParams):
        if not hasattr(expected, name):
            continue
        value = shipped.to_dict()[name]
        wanted = getattr(expected, name)
        assert (tuple(value) if isinstance(value, list) else value) == wanted, name
    assert FIXED_GRID_PRESETS["original"] == {"stop_loss_pct": 2.0}


def test_parameters_survive_the_way_through_plain_values() -> None:
    params = read(direction="sell", ladder_pct="1, 2.5 4", stop_price="70000", recovery_mode="none")
    assert params.ladder_pct == (1.0, 2.5, 4.0)
    assert (params.direction, params.recovery_mode) == (Direction.SELL, RecoveryMode.NONE)
    assert FixedGridParams.from_dict(params.to_dict()) == params


def test_the_space_lies_within_the_bounds() -> None:
    assert FIXED_GRID_SPACE
    for name, entry in FIXED_GRID_SPACE.items():
        for edge in ("low", "high"):
            read(**{name: entry[edge]})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"direction": "both"}, r"direction = 'both' must be one of buy, sell"),
        ({"quantity": 0.01}, r"exactly one must be above 0"),
        ({"quantity_usd": 0.0}, r"exactly one must be above 0"),
        ({"take_profit": 0.0004}, r"take_profit = 0.0004 must exceed 2 \* fee_maker = 0.0004"),
        ({"take_profit": math.nan}, r"take_profit = nan is outside"),
        ({"grid_step": math.inf}, r"grid_step = inf is outside"),
        ({"max_margin_usd": "much"}, r"max_margin_usd = 'much' must be a number"),
        ({"stop_loss_pct": 0.4}, r"stop_loss_pct = 0.4 is outside \[0.5, 10\] % of entry"),
        ({"stop_loss_pct": 10.1}, r"stop_loss_pct = 10.1 is outside"),
        ({"position_timeout_min": 4}, r"position_timeout_min = 4 is outside \[5, 1440\] min"),
        ({"ladder_pct": (3.0, 1.5)}, r"ladder_pct = \[3.0, 1.5\] must be 1 to 25 rungs"),
        ({"ladder_pct": (1.5, 1.5)}, r"each above the one before"),
        ({"ladder_pct": (0.5, 1.5)}, r"ladder_pct = \(0.5, 1.5\) is outside \[1, 5\]"),
        ({"ladder_pct": ()}, r"must be 1 to 25 rungs"),
        ({"ladder_pct": 3.0}, r"must be a list of numbers"),
        ({"step_s": 61}, r"step_s = 61 must be one of 60, 300, 900 s"),
        ({"stop_price": -1.0}, r"stop_price = -1.0 is outside"),
        ({"stop_price": math.nan}, r"stop_price = nan is outside"),
        ({"pause_price": "high"}, r"pause_price = 'high' must be a number or none"),
        ({"max_orders": 65}, r"max_orders = 65 is outside \[1, 64\] positions"),
        ({"max_stop_orders": 10}, r"max_stop_orders = 10 is outside \[2, 9\]"),
        ({"escalation": "shout"}, r"escalation = 'shout' must be one of alert, close, hedge"),
        ({"leverage": 0.5}, r"leverage = 0.5 is outside \[1, 125\]"),
        ({"grid_levels": 5}, r"grid_levels belongs to grid_v4, not to fixed_grid"),
        ({"max_order": 5}, r"unknown strategy parameter 'max_order'; did you mean max_orders\?"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        read(**changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantity": 0.0015, "quantity_usd": 0.0}, r"off the lot of 0.001; 0.001 would do"),
        ({"quantity": 0.001, "quantity_usd": 0.0}, r"under the exchange's minimum"),
        ({"quantity_usd": 90.0}, r"quantity_usd = 150 would do"),
        ({"max_margin_usd": 140.0}, r"max_margin_usd = 140 is under the margin of one order, 200"),
        ({"stop_price": 50_001.0}, r"stop_price = 50001 must be below the price, which is 50000"),
        (
            {"stop_price": 49_999.0, "direction": "sell"},
            r"stop_price = 49999 must be above the price",
        ),
    ],
)
def test_what_the_market_does_not_allow_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_market(read(**changes), BTC, 50_000.0)


def test_what_a_refusal_proposes_is_accepted() -> None:
    check_market(read(quantity_usd=150.0), BTC, 50_000.0)


def test_a_run_refuses_what_its_first_price_does_not_allow() -> None:
    strategy = FixedGridStrategy(read(stop_price=60_000.0), BTC)
    with pytest.raises(ConfigError, match="must be below the price"):
        strategy.run(frame_of(columns(flat(50_000.0, 15))))


@pytest.mark.parametrize(
    ("step_ms", "step_s", "message"),
    [
        (15 * MINUTE_MS, 60, "set step_s=900 for 15-minute candles"),
        (5 * MINUTE_MS, 60, "coarser than a step of 60 s"),
        (7 * MINUTE_MS, 900, "do not fit into steps of 900 s"),
    ],
)
def test_candles_that_do_not_fit_the_step_are_refused(
    step_ms: int, step_s: int, message: str
) -> None:
    strategy = FixedGridStrategy(read(step_s=step_s), BTC)
    rows = columns(flat(50_000.0, 30), step_ms)
    with pytest.raises(DataError, match=message):
        strategy.run(frame_of(rows))


def test_a_refusal_is_an_error_that_commands_print() -> None:
    assert issubclass(ConfigError, GridError)
    assert issubclass(DataError, GridError)


@pytest.mark.parametrize("direction", ["buy", "sell"])
def test_recovery_out_of_reach_is_said_with_both_numbers(direction: str) -> None:
    original = read(**FIXED_GRID_PRESETS["original"], direction=direction)
    theirs = reachable_stuck_distance(Params(direction=direction, stop_loss_pct=2.0))
    assert original.stuck_bound_pct == theirs
    (warning,) = [text for text in load_warnings(original) if "recovery" in text]
    assert "3 %" in warning
    assert f"{theirs:.4g} %" in warning
    assert not [text for text in load_warnings(read()) if "recovery" in text]
    assert not [
        text
        for text in load_warnings(read(stop_loss_pct=2.0, recovery_mode="none"))
        if "recovery" in text
    ]


def test_a_cap_above_the_capital_and_a_short_wait_are_said() -> None:
    assert any("equity is the cap" in text for text in load_warnings(read(initial_capital=3000.0)))
    assert any("counts as one step, 60 s" in text for text in load_warnings(read()))
    assert load_warnings(read(wait_time=120.0)) == []
    assert load_warnings(read(wait_time=0.0)) == []


def test_rounding_of_sizes_is_said() -> None:
    order, ladder = market_warnings(read(), BTC, 95_000.0)
    assert "quantity_usd = 200 buys 190 USDT at 95000, and between 133.3 and 200" in order
    assert ladder == "a position of 2 lots makes a ladder of 1 of 3 rungs"
    assert market_warnings(read(quantity_usd=5000.0), BTC, 95_000.0) == []


def test_the_kernels_view_follows_from_the_parameters() -> None:
    record = freeze_params(
        fixed_params({"direction": "sell", "stop_loss_pct": 2.0, "wait_time": 10.0})
    )
    assert (record.side, record.hedge_side, record.sign) == (1, 0, -1.0)
    assert (record.stop_factor, record.cooldown_s) == (1.02, 60.0)
    assert (record.stop_price, record.pause_price, record.n_ladder) == (0.0, 0.0, 3)


def test_no_parameter_of_both_strategies_differs_without_a_reason() -> None:
    shared = set(FIXED_GRID_PARAMS) & set(STRATEGY_PARAMS)
    assert shared == {
        "initial_capital",
        "leverage",
        "funding_enabled",
        "fee_maker",
        "fee_taker",
        "slippage",
        "liquidation_fee",
        "fill_through_bps",
        "fill_through_ticks",
        "refuse_first_touch",
        "intrabar_path",
    }
    assert {name: FIXED_GRID_PARAMS[name] for name in shared} == {
        name: STRATEGY_PARAMS[name] for name in shared
    }


def test_a_quantity_given_alone_replaces_the_other() -> None:
    params = read_params(FIXED_GRID, {"quantity": 0.01})
    assert (params.quantity, params.quantity_usd) == (0.01, 0.0)
    assert read_params(FIXED_GRID, {"quantity_usd": 500.0}).quantity == 0.0
    assert read_params(FIXED_GRID, {}).quantity_usd == 200.0


def test_the_other_strategy_refuses_a_key_of_this_one() -> None:
    with pytest.raises(ConfigError, match="max_orders belongs to fixed_grid, not to grid_v4"):
        read_params(GRID_V4, {"max_orders": 5})
