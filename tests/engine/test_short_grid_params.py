"""Parameters of the short grid: every one has a default in its bounds; wrong ones are refused."""

from __future__ import annotations

import pytest

from core.errors import ConfigError
from core.params import param_fields
from core.records import freeze
from engine.registry import SHORT_GRID
from engine.short_grid.params import ShortGridParams


def test_defaults_name_every_parameter_and_are_valid() -> None:
    assert SHORT_GRID.defaults.keys() == param_fields(ShortGridParams).keys()
    assert SHORT_GRID.read({}).to_dict() == dict(SHORT_GRID.defaults)


def test_the_originals_values_are_valid() -> None:
    assert SHORT_GRID.read(SHORT_GRID.presets["short_grid_documented"]).max_layers == 32


def test_the_record_holds_every_value() -> None:
    params = SHORT_GRID.read({"max_layers": 4})
    record = freeze(params)
    assert all(
        getattr(record, name) == getattr(params, name) for name in param_fields(ShortGridParams)
    )
    with pytest.raises(ValueError, match="read-only"):
        record.max_layers = 5


@pytest.mark.parametrize(
    "loosened",
    [
        {"max_loss_bps": 501.0},
        {"symbol_loss_usd": 26.0},
        {"portfolio_loss_usd": 101.0},
        {"total_loss_usd": 301.0},
        {"leverage": 4},
        {"portfolio_cap": 2001.0},
        {"symbol_cap": 481.0},
        {"max_symbols_held": 26},
        {"breaker_stops": 3},
        {"stop_confirm_s": 4.0},
    ],
)
def test_safety_cannot_be_loosened(loosened: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="is outside"):
        SHORT_GRID.read(loosened)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_layer": 5}, "did you mean max_layers"),
        ({"max_layers": 2.5}, "max_layers = 2.5 must be a whole number"),
        ({"max_layers": True}, "must be a whole number"),
        ({"pump_threshold": "x"}, "pump_threshold = 'x' must be a number"),
        ({"pump_threshold": float("nan")}, "is outside"),
        ({"baseline_live": "maybe"}, "must be true or false"),
        ({"spread_min_bps": 40.0}, "spread_min_bps = 40.0 must be < spread_max_bps = 40.0"),
        ({"symbol_loss_usd": 10.0, "portfolio_loss_usd": 5.0}, "must be <= portfolio_loss_usd"),
        ({"vol_weight_1m": 0, "vol_weight_5m": 0, "vol_weight_15m": 0}, "all 0"),
    ],
)
def test_a_wrong_value_is_refused_with_its_reason(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SHORT_GRID.read(values)


def test_text_of_the_command_line_is_read() -> None:
    params = SHORT_GRID.read({"max_layers": "3", "baseline_live": "on", "edge_z": "1.5"})
    assert (params.max_layers, params.baseline_live, params.edge_z) == (3, True, 1.5)
