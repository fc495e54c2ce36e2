"""Shares of an account's capital: sums, cents and refusals."""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.capital import check_shares, equal_weights, given_weights, shares_of, volatility_weights
from core.errors import CapitalError, ConfigError

names = st.lists(st.sampled_from("ABCDEFGH"), min_size=1, unique=True)
money = st.floats(1.0, 1e9)


@given(names, money)
def test_shares_are_cents_that_add_up_to_the_capital(coins: list[str], all_: float) -> None:
    shares = shares_of(all_, equal_weights(coins))
    total = sum(Decimal(repr(share)) for share in shares.values())
    assert total == Decimal(repr(all_)).quantize(Decimal("0.01"), ROUND_FLOOR)
    assert max(shares.values()) - min(shares.values()) < 0.011


def test_equal_shares_of_fifteen_thousand() -> None:
    shares = shares_of(15_000.0, equal_weights(["BTC", "ETH", "SOL"]))
    assert shares == {"BTC": 5_000.0, "ETH": 5_000.0, "SOL": 5_000.0}


def test_weights_are_taken_as_they_are() -> None:
    weights = given_weights(["BTC", "ETH"], {"ETH": 0.25, "BTC": 0.75})
    assert shares_of(1_000.0, weights) == {"BTC": 750.0, "ETH": 250.0}
    assert list(weights) == ["BTC", "ETH"]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"BTC": 0.5}, "missing: ETH"),
        ({"BTC": 0.5, "ETH": 0.25, "SOL": 0.25}, "unknown: SOL"),
        ({"BTC": 0.5, "ETH": 0.4}, "add up to 0.9"),
        ({"BTC": 1.5, "ETH": -0.5}, "weight of ETH = -0.5 must be a positive number"),
        ({"BTC": 1.0, "ETH": 0.0}, "weight of ETH = 0.0 must be a positive number"),
        ({"BTC": math.nan, "ETH": 1.0}, "weight of BTC = nan"),
        ({"BTC": math.inf, "ETH": 1.0}, "weight of BTC = inf"),
    ],
)
def test_weights_that_are_none_are_refused(weights: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        given_weights(["BTC", "ETH"], weights)


@pytest.mark.parametrize("coins", [[], ["BTC", "ETH", "BTC"]])
def test_no_coin_and_a_coin_twice_are_refused(coins: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"at least one coin|BTC is there twice"):
        equal_weights(coins)


@given(st.dictionaries(st.sampled_from("ABCDEF"), st.floats(1e-5, 0.5), min_size=1))
def test_twice_the_volatility_has_half_the_weight(volatilities: dict[str, float]) -> None:
    weights = volatility_weights(volatilities)
    assert math.fsum(weights.values()) == pytest.approx(1.0)
    products = [weights[name] * volatilities[name] for name in weights]
    assert products == pytest.approx([products[0]] * len(products))


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_volatility_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="volatility of SOL"):
        volatility_weights({"BTC": 0.01, "SOL": value})


@pytest.mark.parametrize("capital", [0.0, -5.0, math.nan, math.inf])
def test_a_capital_that_is_no_sum_of_money_is_refused(capital: float) -> None:
    with pytest.raises(ConfigError, match="capital"):
        shares_of(capital, {"BTC": 1.0})


def test_a_share_under_one_order_names_the_capital_that_would_do() -> None:
    weights = {"BTC": 0.5, "SOL": 0.5}
    with pytest.raises(CapitalError, match=r"BTC gets 500\.00 .* 4,000 USDT in all would do"):
        check_shares(1_000.0, weights, {"BTC": 2_000.0, "SOL": 100.0})
    check_shares(4_000.0, weights, {"BTC": 2_000.0, "SOL": 100.0})
