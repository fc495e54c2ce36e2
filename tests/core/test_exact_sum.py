"""Exact sums: as the standard library's, in every bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.exact_sum import exact_sum, sum_of_partials
from core.funding import MODEL_BARS, model_rates
from tests.support.markets.synthetic import BAR_MS, FIRST_MS, HOUR_MS, synthetic_candles

WHOLE = st.floats(-1e300, 1e300, allow_subnormal=True)
NEAR = st.sampled_from([1.0, -1.0, 2.0**-53, -(2.0**-53), 2.0**-54, 2.0**-106, 1e16, -1e16, 0.0])


def bits(value: float) -> bytes:
    return np.float64(value).tobytes()


@given(st.lists(st.one_of(WHOLE, NEAR), max_size=100))
def test_a_sum_is_the_double_nearest_to_the_exact_one(values: list[float]) -> None:
    assert bits(exact_sum(np.array(values, np.float64))) == bits(math.fsum(values))
    assert bits(sum_of_partials(np.array(values, np.float64))) == bits(math.fsum(values))


@given(st.lists(st.floats(19_000.0, 21_000.0), min_size=1, max_size=96))
def test_prices_are_summed_to_the_last_bit(values: list[float]) -> None:
    assert bits(exact_sum(np.array(values))) == bits(math.fsum(values))


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2.0**-53, 2.0**-106],
        [1.0, 2.0**-53, -(2.0**-106)],
        [1.0, 2.0**-53],
        [1.0 + 2.0**-52, 2.0**-53],
        [1e16, 1.0, -1e16],
        [1e-200, 2.0**-718, 2.0**-771],
        [0.1] * 10,
    ],
    ids=[
        "tie, a trace above",
        "tie, a trace below",
        "tie to even",
        "odd tie",
        "cancels",
        "tiny",
        "tenths",
    ],
)
def test_ties_are_decided_by_what_lies_below_them(values: list[float]) -> None:
    assert bits(exact_sum(np.array(values))) == bits(math.fsum(values))


def test_modelled_rates_are_those_of_the_formula_in_every_bit() -> None:
    candles = synthetic_candles(2_000, 3)
    times, closes = np.array(candles["timestamp"]), np.array(candles["close"])
    settlements = FIRST_MS + 8 * HOUR_MS * np.arange(62)
    expected = []
    for at in settlements.tolist():
        n = int(np.sum(times + BAR_MS <= at))
        window = closes[max(0, n - MODEL_BARS) : n]
        rate = math.nan
        if n:
            rate = 0.0001 + 0.02 * (closes[n - 1] / (math.fsum(window) / len(window)) - 1.0)
            rate = min(0.0003, max(-0.0003, rate))
        expected.append(rate)
    found = model_rates(settlements, times, closes, BAR_MS)
    assert found.tobytes() == np.array(expected).tobytes()
    assert len(set(found[1:].tolist())) > 10
