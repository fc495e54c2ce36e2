"""Reads the parameters of a request, and refuses what cannot be read."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from live.simulated.filters import ApiError

Params = dict[str, str]


def text_of(params: Params, name: str) -> str:
    """Return a mandatory parameter (-1102)."""
    value = params.get(name, "")
    if not value:
        raise ApiError(-1102, name)
    return value


def number_of(params: Params, name: str) -> Decimal:
    """Return a mandatory number (-1102, -1130)."""
    try:
        number = Decimal(text_of(params, name))
    except InvalidOperation:
        raise ApiError(-1130, name) from None
    if not number.is_finite():
        raise ApiError(-1130, name)
    return number


def whole_of(params: Params, name: str) -> int | None:
    """Return an optional whole number (-1130)."""
    if not params.get(name):
        return None
    try:
        return int(params[name])
    except ValueError:
        raise ApiError(-1130, name) from None


def limit_of(params: Params, usual: int, most: int) -> int:
    """Return how many rows are asked for (-1130)."""
    limit = whole_of(params, "limit")
    if limit is None:
        return usual
    if not 1 <= limit <= most:
        raise ApiError(-1130, "limit")
    return limit


def is_true(params: Params, name: str) -> bool:
    """Return whether an optional switch is on."""
    return params.get(name, "").lower() == "true"
