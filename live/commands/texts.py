"""Texts at the beginning and the end of a session."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable
from typing import Any, Final

from core.errors import ConfigError
from core.orders import POSITION_SIDES, OrderKind
from core.text import money, number
from engine.contract import StrategySpec
from live.commands.status import qty_text, stop_text
from live.commands.target import Target
from live.exchange.types import MarketFacts
from live.execution.books import LiveSession
from live.session.shutdown import Ending

_WIDTH: Final = 100


def changed_text(spec: StrategySpec, params: Any) -> str:
    """Return the parameters that differ from the shipped ones, in words."""
    shipped = spec.read().to_dict()
    changed = {name: v for name, v in params.to_dict().items() if v != shipped[name]}
    return ", ".join(f"{name} = {_plain(v)}" for name, v in changed.items()) or "nothing"


def start_text(
    target: Target,
    spec: StrategySpec,
    params: Any,
    facts: MarketFacts,
    capital: str,
    n_alerts: int,
    notes: Iterable[str],
) -> str:
    """Return what must be known before a session begins.

    Args:
        target: which session.
        spec: the strategy.
        params: of it, as configured.
        facts: of the symbol.
        capital: what it trades with, in words.
        n_alerts: addresses that alerts go to.
        notes: warnings.
    """
    warn, most = (
        number(target.settings[f"equity_{name}_pct"], 1) for name in ("warn", "emergency")
    )
    rows = {
        "capital": capital,
        "leverage": f"{params.leverage:g}",
        "sides": _sides_text(params),
        "changed": f"{changed_text(spec, params)} (against config.py)",
        "fees": _fees(params, facts),
        "losses": f"{warn} % is reported, {most} % closes everything and ends the session",
        "alerts": f"to {n_alerts} addresses" if n_alerts else "to nobody (see alert_urls)",
        "files": f"{target.state_folder}/{target.symbol}_* and {target.log_path}",
        "to stop": "Ctrl+C or SIGTERM once: entries and take-profits are cancelled, positions "
        "keep their stops; twice: at once, everything stays as it is",
        "to close": f"python3 live_trade.py {target.flags} --flatten",
    }
    lines = [_row(name, text) for name, text in rows.items()]
    lines += [_row("note", text) for text in notes]
    return "\n".join([f"{target.symbol}, {target.mode_name}", *lines])


def _row(name: str, text: str) -> str:
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=f"  {name:<10}",
        subsequent_indent=" " * 12,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _sides_text(params: Any) -> str:
    names = [name.lower() for name in params.position_sides]
    return f"{names[0]} only" if len(names) == 1 else " and ".join(names)


def _fees(params: Any, facts: MarketFacts) -> str:
    """Return the fees the session reckons with."""
    whose = "of config.py" if facts.fee_maker is None else "of this account"
    maker = params.fee_maker if facts.fee_maker is None else facts.fee_maker
    taker = params.fee_taker if facts.fee_taker is None else facts.fee_taker
    return f"maker {100.0 * maker:g} %, taker {100.0 * taker:g} %, {whose}"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def left_open(session: LiveSession, mode: str) -> str:
    """Return what a session leaves open, as far as it knows."""
    view, parts = session.strategy.view(), []
    for name in POSITION_SIDES:
        side = view.side(name)
        if side.n_fills:
            protection = stop_text(session.orders, name, side.stop, mode)
            parts.append(f"{name} {qty_text(side.qty)} {protection}")
    limits = session.orders.alive(OrderKind.ENTRY, OrderKind.TAKE_PROFIT, OrderKind.EXIT)
    if mode == "dry":
        limits = []
    if limits:
        parts.append(f"{len(limits)} entries, take-profits or market exits")
    return ", ".join(parts) or "nothing"


def end_text(ending: Ending, session: LiveSession, mode: str, *, once: bool) -> str:
    """Return how a session ended and what to do next."""
    left = left_open(session, mode)
    if ending is Ending.ASKED and once:
        # On paper nothing can happen unwatched: the candles since are gone through later.
        done = "" if mode == "dry" else ", its entries and take-profits are cancelled"
        return f"the step is done{done}; left open: {left}; go on with --resume"
    if ending is Ending.ASKED:
        return f"stopped; left open: {left}; go on with --resume, or close with --flatten"
    if ending is Ending.EMERGENCY:
        wallet = money(session.strategy.view().wallet)
        return f"ended by the loss limit; left open: {left}; wallet {wallet}"
    if ending is Ending.RUINED:
        return f"ended: nothing is left of the capital; left open: {left}"
    return (
        f"ended after errors; left open: {left}; look at the log, then go on with --resume, or "
        "close with --flatten"
    )


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
