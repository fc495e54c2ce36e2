"""How the capital of an account is shared among several strategies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import Final

from core.errors import CapitalError, ConfigError

CENT: Final = Decimal("0.01")
WEIGHT_SLACK: Final = 1e-6
"""Largest difference of the sum of weights from 1."""


def equal_weights(names: Sequence[str]) -> dict[str, float]:
    """Return the same weight for each of ``names``.

    Raises:
        ConfigError: there are none, or one is there twice.
    """
    _check_names(names)
    return dict.fromkeys(names, 1.0 / len(names))


def given_weights(names: Sequence[str], weights: Mapping[str, float]) -> dict[str, float]:
    """Return the weights a person gave, checked.

    Args:
        names: of all that share.
        weights: of each; positive, together 1.

    Raises:
        ConfigError: a weight is missing, unknown or no positive number, or their sum is not 1.
    """
    _check_names(names)
    missing = [name for name in names if name not in weights]
    unknown = [name for name in weights if name not in names]
    if missing or unknown:
        raise ConfigError(
            f"weights must name each of {', '.join(names)} once; "
            f"missing: {', '.join(missing) or 'none'}, unknown: {', '.join(unknown) or 'none'}"
        )
    for name, weight in weights.items():
        if not 0.0 < weight < math.inf:
            raise ConfigError(f"weight of {name} = {weight!r} must be a positive number")
    total = math.fsum(weights.values())
    if abs(total - 1.0) > WEIGHT_SLACK:
        raise ConfigError(f"weights add up to {total:.6g}; they must add up to 1")
    return {name: weights[name] / total for name in names}


def volatility_weights(volatilities: Mapping[str, float]) -> dict[str, float]:
    """Return weights by the inverse of each one's volatility.

    Args:
        volatilities: mean ATR of the last seven days, relative to price, by name.

    Raises:
        ConfigError: there are none, or one is no positive number.
    """
    _check_names(list(volatilities))
    for name, value in volatilities.items():
        if not 0.0 < value < math.inf:
            raise ConfigError(
                f"volatility of {name} is {value!r}, so no share can be made of it; "
                "give weights, or share equally"
            )
    inverse = {name: 1.0 / value for name, value in volatilities.items()}
    total = math.fsum(inverse.values())
    return {name: value / total for name, value in inverse.items()}


def shares_of(capital: float, weights: Mapping[str, float]) -> dict[str, float]:
    """Return each one's money, quote: whole cents that add up to the whole cents of ``capital``.

    Raises:
        ConfigError: ``capital`` is no sum of money.
    """
    if not 0.0 < capital < math.inf:
        raise ConfigError(f"capital = {capital!r} must be a positive number")
    cents = Decimal(repr(capital)).quantize(CENT, ROUND_FLOOR)
    shares: dict[str, float] = {}
    given, weight_so_far = Decimal(0), 0.0
    for place, (name, weight) in enumerate(weights.items(), 1):
        weight_so_far += weight
        upto = cents
        if place < len(weights):
            upto = (cents * Decimal(repr(weight_so_far))).quantize(CENT)
        shares[name], given = float(upto - given), upto
    return shares


def check_shares(capital: float, weights: Mapping[str, float], needed: Mapping[str, float]) -> None:
    """Refuse a capital of which a share is too small for any order.

    Args:
        capital: of all, quote.
        weights: of each, together 1.
        needed: quote that each needs for its smallest order.

    Raises:
        CapitalError: names the first whose share is too small, and the capital that would do.
    """
    shares = shares_of(capital, weights)
    short = [name for name, least in needed.items() if shares[name] < least]
    if not short:
        return
    enough = max(least / weights[name] for name, least in needed.items())
    name = short[0]
    raise CapitalError(
        f"{name} gets {shares[name]:,.2f} of {capital:,.2f} USDT, less than its smallest order "
        f"needs ({needed[name]:,.2f}); {math.ceil(enough):,d} USDT in all would do"
    )


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise ConfigError("there is nothing to share the capital among; name at least one coin")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ConfigError(f"{', '.join(twice)} is there twice; name each coin once")
