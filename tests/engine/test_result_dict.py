"""The dict a run answers with: a plain dict to whoever uses it as one, and an object to look at."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine.fixed_strategy import FixedGrid
from engine.result_dict import ResultDict, later
from engine.results import RUN_KEYS
from engine.strategy import GridStrategyV4
from engine.trade_tables import TRADE_FIELDS
from tests.support.markets.synthetic import synthetic_candles

N_BARS = 3_000


def grid_v4() -> ResultDict:
    candles = synthetic_candles(N_BARS, 5)
    return GridStrategyV4({"spacing_floor": 0.004, "grid_spacing_k": 1.0}, "BTC").run(candles)


def fixed_grid() -> ResultDict:
    candles = synthetic_candles(N_BARS, 5)
    return FixedGrid({"step_s": 900, "quantity_usd": 500.0}, "BTC").run(candles)


RUNS = pytest.mark.parametrize("run", [grid_v4, fixed_grid])


class Nothing:
    """A result that shows nothing."""

    def trade_frame(self) -> pd.DataFrame:
        """Return an empty frame."""
        return pd.DataFrame()

    def equity_series(self) -> pd.Series:
        """Return an empty series."""
        return pd.Series(dtype=np.float64)


def counted() -> tuple[ResultDict, list[str]]:
    """Return a dict of which ``b`` is made later, and the list that notes every making."""
    made: list[str] = []

    def make() -> list[int]:
        made.append("b")
        return [1, 2]

    return ResultDict(Nothing(), {"a": 1, "b": later(make), "c": {"x": math.pi}}), made


PLAIN = {"a": 1, "b": [1, 2], "c": {"x": math.pi}}


def by_keywords(**entries: Any) -> dict[str, Any]:
    return entries


def by_update(result: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    found.update(result)
    return found


READERS: dict[str, Callable[[ResultDict], Any]] = {
    "dict": dict,
    "stars": lambda r: {**r},
    "keywords": lambda r: by_keywords(**r),
    "update": by_update,
    "copy": lambda r: r.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda r: pickle.loads(pickle.dumps(r)),  # noqa: S301 - our own
    "json": lambda r: json.loads(json.dumps(r)),
    "json, indented": lambda r: json.loads(json.dumps(r, indent=1)),
    "items": lambda r: dict(r.items()),
    "values": lambda r: dict(zip(r.keys(), r.values(), strict=True)),
    "keys": lambda r: {key: r[key] for key in r},
    "get": lambda r: {key: r.get(key) for key in r},
    "or": lambda r: r | {},
    "or, from the left": lambda r: {} | r,
    "in place": lambda r: r.__ior__({}),
    "pop": lambda r: {key: r.pop(key) for key in list(r)},
    "popitem": lambda r: dict([r.popitem() for _ in range(len(r))][::-1]),
    "setdefault": lambda r: {key: r.setdefault(key, None) for key in r},
    "repr": lambda r: eval(repr(r)),  # noqa: S307 - our own text
    "reversed": lambda r: {key: r[key] for key in [*reversed(r)][::-1]},
    "format": lambda r: {"a": 1, "b": json.loads("{b}".format(**r)), "c": r["c"]},
}


@pytest.mark.parametrize("how", READERS)
def test_however_it_is_read_every_value_is_there_in_its_order(how: str) -> None:
    result, _ = counted()
    found = READERS[how](result)
    assert found == PLAIN
    assert list(found) == list(PLAIN)
    assert type(found["b"]) is list


def test_it_equals_the_plain_dict_from_both_sides_and_nothing_else() -> None:
    result, again = counted()[0], counted()[0]
    assert (result == PLAIN, result == PLAIN, result == again) == (True, True, True)
    assert (result != PLAIN, result != PLAIN, result != again) == (False, False, False)
    other = counted()[0]
    other["b"] = [1]
    assert (result == other, result != other, other == PLAIN) == (False, True, False)
    assert result != [("a", 1)]
    with pytest.raises(TypeError, match="unhashable"):
        hash(result)


def test_a_value_is_made_once_and_only_when_it_is_asked_for() -> None:
    result, made = counted()
    assert ("b" in result, len(result), list(result.keys()), result["a"]) == (
        True,
        3,
        ["a", "b", "c"],
        1,
    )
    assert made == []
    first = result["b"]
    assert result["b"] is first is result.get("b") is dict(result)["b"]
    assert made == ["b"]


def test_it_can_be_changed_like_any_dict() -> None:
    result, made = counted()
    result["b"] = "mine"
    result["d"] = 4
    del result["a"]
    assert result == {"b": "mine", "c": {"x": math.pi}, "d": 4}
    assert made == []
    result.update({"b": 5})
    result |= {"e": 6}
    assert dict(result) == {"b": 5, "c": {"x": math.pi}, "d": 4, "e": 6}
    assert result.pop("none", 7) == 7
    with pytest.raises(KeyError, match="none"):
        result["none"]
    result.clear()
    assert not result


def test_copies_and_unions_still_show_the_run() -> None:
    result, _ = counted()
    for other in (result.copy(), copy.copy(result), result | {"more": 1}):
        assert type(other) is ResultDict
        assert other.typed is result.typed
    assert type({} | result) is dict


@RUNS
def test_a_run_answers_the_documented_dict(run: Callable[[], ResultDict]) -> None:
    result = run()
    assert isinstance(result, dict)
    assert list(result) == [key for key in RUN_KEYS if key in result]
    assert set(RUN_KEYS) - set(result) <= {"marks"}
    trades = result["trades"]
    assert type(trades) is list
    assert trades[0].keys() >= set(TRADE_FIELDS)
    assert len(trades) == len(result["trade_table"]) > 20
    plain = dict(result)
    assert type(plain) is dict
    assert list(plain) == list(result)
    assert all(plain[key] is result[key] for key in plain)
    assert result == plain
    again = pickle.loads(pickle.dumps(result))  # noqa: S301 - our own
    assert again["trades"] == trades
    assert again["log"].tobytes() == result["log"].tobytes()
    assert again.trades.equals(result.trades)


@RUNS
def test_trades_are_a_frame_of_the_same_records_with_times(run: Callable[[], ResultDict]) -> None:
    result = run()
    frame = result.trades
    assert list(frame.columns) == ["time", *result["trades"][0]]
    rows = frame.drop(columns="time").astype(object).to_dict("records")
    assert rows == result["trades"]
    assert str(frame["time"].dt.tz) == "UTC"
    since = pd.Timestamp("1970-01-01", tz="UTC")
    assert ((frame["time"] - since) // pd.Timedelta("1ms")).tolist() == frame["timestamp"].tolist()
    opened = frame[frame["label"] == "BUY_OPEN_LONG"]
    assert len(opened) == sum(t["label"] == "BUY_OPEN_LONG" for t in result["trades"])


@RUNS
def test_equity_is_a_series_by_the_open_of_the_bars(run: Callable[[], ResultDict]) -> None:
    result, candles = run(), synthetic_candles(N_BARS, 5)
    series = result.equity
    assert series.to_numpy().tolist() == result["equity_curve"].tolist()
    expected = pd.to_datetime(candles["timestamp"], unit="ms", utc=True)
    assert series.index.equals(pd.DatetimeIndex(expected))
    assert (series.name, series.index.name) == ("equity", "time")


def test_a_run_without_trades_has_an_empty_frame_of_the_same_columns() -> None:
    never = {"spacing_floor": 0.5, "allow_short": False, "circuit_breaker_enabled": False}
    quiet = GridStrategyV4(never, "BTC").run(synthetic_candles(900, 2))
    assert quiet["trades"] == []
    assert list(quiet.trades.columns) == ["time", *TRADE_FIELDS]
    assert len(quiet.trades) == 0


@RUNS
def test_a_runs_dict_shows_the_run_not_what_was_changed(run: Callable[[], ResultDict]) -> None:
    result = run()
    count, last = len(result.trades), float(result.equity.iloc[-1])
    result["trades"] = []
    result["metrics"] = {}
    assert (len(result.trades), result.equity.iloc[-1]) == (count, last)
