"""Asking before money moves."""

from __future__ import annotations

import sys

from core.errors import ConfigError


def check_answerable(what: str, *, yes: bool) -> None:
    """Refuse at once what would be asked for later where nobody can answer.

    Args:
        what: a question without its mark.
        yes: answered on the command line.

    Raises:
        ConfigError: nobody can be asked.
    """
    if not yes and not sys.stdin.isatty():
        raise ConfigError(
            f"{what}? Nobody can be asked, standard input is not a terminal: say so with --yes"
        )


def confirm(symbol: str, what: str, *, yes: bool) -> None:
    """Ask whether ``what`` is meant; the symbol must be typed.

    Args:
        symbol: such as BTCUSDT.
        what: a question without its mark.
        yes: answered on the command line.

    Raises:
        ConfigError: the answer was another, or nobody can be asked.
    """
    check_answerable(what, yes=yes)
    if yes:
        return
    try:
        answer = input(f"{what}? Type {symbol} if so: ")
    except EOFError:
        answer = ""
    if answer.strip().upper() != symbol:
        raise ConfigError("not confirmed: nothing was done")
