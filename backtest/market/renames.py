"""Coins whose contract goes by another name now, and contracts of many coins at once.

A rename is not followed: the exchange settled the old contract in cash and listed the new one hours
or days later, so nobody held a position through it. Both are named, each with its range.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Rename:
    """A coin that was exchanged for another.

    Attributes:
        old: its base coin while its contract traded.
        new: the base coin of the contract since.
        units: of the new coin for one of the old; another price by that factor.
        merged: the new coin had a contract of its own before.
    """

    old: str
    new: str
    units: float = 1.0
    merged: bool = False

    def rate(self) -> str:
        """Return how many of the new coin one old one became, as text."""
        return f"1 {self.old} = {self.units:,.10g} {self.new}"


RENAMES: Final = (
    Rename("MATIC", "POL"),
    Rename("FTM", "S"),
    Rename("RNDR", "RENDER"),
    Rename("EOS", "A"),
    Rename("KLAY", "KAIA"),
    Rename("TOMO", "VIC"),
    Rename("MKR", "SKY", units=24_000.0),
    Rename("OM", "MANTRA", units=4.0),
    Rename("AGIX", "FET", units=0.433350, merged=True),
    Rename("OCEAN", "FET", units=0.433226, merged=True),
)
_LUNA: Final = (
    "LUNA collapsed in May 2022: its own coin trades as 1000LUNC since (1,000 LUNC), and LUNA2 is "
    "another coin"
)
_MANY: Final = {"1000": "1,000", "10000": "10,000", "1000000": "1,000,000", "1M": "1,000,000"}


def now_called(coin: str, until: str = "") -> str:
    """Return what a coin that is no longer listed became, as the end of a sentence; '' unknown.

    Args:
        coin: base coin.
        until: UTC date or time at which its candles end, as for ``--start``; empty: not known.
    """
    if coin == "LUNA":
        return f"; {_LUNA}"
    for rename in RENAMES:
        if rename.old == coin:
            start = f" --start {until}" if until else ""
            verb = "it went into" if rename.merged else "it is"
            return (
                f"; {verb} {rename.new} now ({rename.rate()}): for the time since run "
                f"--coins {rename.new}{start}"
            )
    return ""


def called_before(coin: str, since: str) -> str:
    """Return the name under which to ask for a coin's earlier time, as a sentence; '' unknown.

    Args:
        coin: base coin.
        since: UTC date or time at which its candles begin, as for ``--end``.
    """
    for rename in RENAMES:
        if rename.new == coin and not rename.merged:
            return (
                f"{coin} was {rename.old} before its candles begin ({rename.rate()}), a contract "
                "of its own that was settled in cash when it ended, so the two are not joined: "
                f"for the time before run --coins {rename.old} --end {since}"
            )
    return ""


def of_many(coin: str, listed: Iterable[str]) -> str:
    """Return the contract on many of a coin, as the end of a sentence; '' if none is listed.

    Args:
        coin: base coin that is not listed itself.
        listed: base coins that are.
    """
    for name in listed:
        found = re.fullmatch(r"(10+|1M)(.+)", name)
        if found and found[2] == coin and found[1] in _MANY:
            return f"; the contract is on {_MANY[found[1]]} {coin} at once: {name}"
    return ""
