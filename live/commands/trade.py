"""The command to trade: look, ask, begin, run, and say how it ended."""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, Final

from core.errors import CredentialsError, GridError, KeyRightsError, NetworkError
from core.text import money
from core.version import VERSION
from engine.contract import StrategySpec
from live.commands.acknowledge import acknowledged_ms
from live.commands.machine_checks import refuse_weaknesses, weaknesses
from live.commands.process import (
    Process,
    assemble,
    equip,
    find_process,
    note_control,
    open_log,
    silence,
)
from live.commands.target import Target
from live.commands.texts import (
    changed_text,
    check_answerable,
    confirm,
    end_text,
    left_open,
    start_text,
)
from live.exchange.types import MarketFacts
from live.health.alerts import AlertSender
from live.health.escalation import Escalation
from live.health.logger import session_logger
from live.session.admission import allowed_capital, refuse_key_rights
from live.session.assembly import Assembled, Plan, check_state
from live.session.shutdown import Ending, StopRequest
from live.store.instance_lock import InstanceLock

EXIT_INTERRUPTED: Final = 130
QUESTION: Final = "Trade with REAL MONEY"
_TALKATIVE: Final = ("DEBUG", "INFO")
"""Levels of the console that show how a session ends."""


@dataclass(frozen=True, kw_only=True)
class TradeRequest:
    """Trading as asked for on the command line.

    Attributes:
        target: coin, mode, settings.
        spec: the strategy.
        params: of it; the capital in them is not used but by a dry run.
        capital: quote; None: the whole wallet, in a dry run ``initial_capital`` of ``params``.
        resume: go on from the state file where there is one.
        accept_code_change: also where other decision code wrote it.
        once: end after one step; at an exchange as a stop does, without entries.
        yes: real money is meant.
        accepted_rights: of ``RIGHTS``; real money is traded with a key that has them.
        log_level: of the console.
        adopts: what no order explains becomes a position.
    """

    target: Target
    spec: StrategySpec
    params: Any
    capital: float | None
    resume: bool = False
    accept_code_change: bool = False
    once: bool = False
    yes: bool = False
    accepted_rights: frozenset[str] = frozenset()
    log_level: str = "INFO"
    adopts: bool = False

    @property
    def leaves_unwatched(self) -> bool:
        """Whether what rests at the exchange after the step would have nobody to follow it."""
        return self.once and self.target.mode != "dry"

    @property
    def plan(self) -> Plan:
        """The same for the session."""
        return Plan(
            symbol=self.target.symbol,
            spec=self.spec,
            params=self.params,
            mode=self.target.mode,
            capital=self.capital,
            resume=self.resume,
            accept_code_change=self.accept_code_change,
            settings=self.target.settings,
            adopts=self.adopts,
        )


def trade(request: TradeRequest) -> int:
    """Trade until asked to stop and return the exit code.

    Raises:
        GridError: the session could not begin; no order was sent.
    """
    target, plan = request.target, request.plan
    is_saved = request.resume and plan.truth == "file" and target.state_path.exists()
    if target.mode == "live" and not is_saved:
        check_answerable(QUESTION, yes=request.yes)
    refuse_weaknesses(target)
    process = find_process(target, request.spec.bar_ms(request.params))
    with ExitStack() as stack:
        alerts = stack.enter_context(closing(AlertSender(process.urls, target.title)))
        with silence():
            is_saved = is_saved and target.mode != "dry"
            # The stops of a saved session come before any question that can wait, and before
            # machine code, which may have to be compiled: it is loaded once they stand.
            found = None if is_saved else _look(process, request.accepted_rights)
            if not is_saved and plan.truth == "file":
                request.spec.load_code()
            stack.enter_context(InstanceLock(target.lock_path))
            goes_on = check_state(plan, process.clock)
        if found is not None:
            capital = _capital_text(request, found[1], goes_on=goes_on)
            _print_start(request, process, found[0], capital)
        if target.mode == "live" and not goes_on:
            confirm(target.symbol, QUESTION, yes=request.yes)
        stop = StopRequest(process.wake)
        stack.enter_context(stop.listening())
        return _run(request, process, stop, alerts, is_announced=found is not None)


def _print_start(request: TradeRequest, process: Process, facts: MarketFacts, capital: str) -> None:
    target, notes = request.target, weaknesses(request.target)
    text = start_text(
        target, request.spec, request.params, facts, capital, len(process.urls), notes
    )
    print(text, flush=True)  # noqa: T201


def _look(process: Process, accepted: frozenset[str]) -> tuple[MarketFacts, float]:
    """Return the symbol's rules and, with keys, the wallet: whatever is wrong shows here first.

    Somebody waits for the answer, so it is not long tried again.

    Raises:
        NetworkError: the exchange cannot be reached.
        CredentialsError: it does not accept the keys, or they may do more than trade.
        GridError: something else.
    """
    executor = process.executor(retries=1)
    try:
        facts = executor.read_market()
        wallet = 0.0 if process.target.mode == "dry" else executor.balance().wallet
        if process.target.mode == "live":
            refuse_key_rights(executor.key_rights(), accepted)
    except KeyRightsError:
        raise
    except CredentialsError as error:
        whose = "demo trading" if process.target.on_testnet else "the real exchange"
        raise CredentialsError(f"{whose} does not accept these keys: {error}") from None
    except NetworkError as error:
        raise NetworkError(
            f"the exchange cannot be asked: {error}; check the network, nothing was begun"
        ) from None
    return facts, wallet


def _capital_text(request: TradeRequest, wallet: float, *, goes_on: bool) -> str:
    if goes_on:
        return "the saved session's; --capital is for new ones"
    if request.target.mode == "dry":
        return f"{money(request.capital or request.params.initial_capital)}, on paper"
    log = session_logger(request.target.symbol)
    capital = allowed_capital(request.target.settings, request.capital, wallet, log)
    return f"{money(capital)} of a wallet of {money(wallet)}"


def _run(
    request: TradeRequest,
    process: Process,
    stop: StopRequest,
    alerts: AlertSender,
    *,
    is_announced: bool,
) -> int:
    """Begin, run and end a session."""
    symbol = request.target.symbol
    with closing(open_log(process, request.log_level)) as log:
        equipment = equip(process, stop, log, alerts)
        try:
            assembled = assemble(request.plan, process, equipment, log)
            if not is_announced:
                capital = _capital_text(request, 0.0, goes_on=True)
                _print_start(request, process, assembled.facts, capital)
            assembled.runner.read_history()
        except GridError as error:
            alerts.send(f"{symbol} did not start: {error}")
            raise
        with (
            closing(AlertSender(process.second_urls, request.target.title)) as second,
            closing(equipment.monitor),
        ):
            path = request.target.acknowledged_path
            equipment.monitor.escalate_to(Escalation(second, lambda: acknowledged_ms(path)))
            equipment.monitor.watch()
            _tell_start(request, assembled, alerts)
            note_control(process, alerts, "start", **_control_facts(request, assembled))
            try:
                ending = assembled.runner.run(once=request.once)
                if request.leaves_unwatched and ending is Ending.ASKED:
                    ending = Ending.ASKED if assembled.runner.withdraw() else Ending.FAILED
            except KeyboardInterrupt:
                return _interrupted(request, assembled, alerts)
        _tell_end(request, assembled, ending, alerts)
        note_control(process, alerts, "end", ending=ending.name)
        return int(ending)


def _control_facts(request: TradeRequest, assembled: Assembled) -> dict[str, Any]:
    return {
        "mode": request.target.mode,
        "program": VERSION,
        "code": assembled.session.strategy.fingerprint,
        "wallet": float(assembled.session.strategy.view().wallet),
        "resume": request.resume,
        "accepted_rights": sorted(request.accepted_rights),
    }


def _tell_start(request: TradeRequest, assembled: Assembled, alerts: AlertSender) -> None:
    strategy = assembled.session.strategy
    text = (
        f"started: {request.target.mode_name}, wallet {money(strategy.view().wallet)}, "
        f"leverage {strategy.params.leverage:g}"
    )
    changed = changed_text(request.spec, request.params)
    session_logger(request.target.symbol).info(
        "%s; changed: %s; decision code %s", text, changed, strategy.fingerprint
    )
    if not request.once:
        alerts.send(f"{request.target.symbol} {text}")


def _tell_end(
    request: TradeRequest, assembled: Assembled, ending: Ending, alerts: AlertSender
) -> None:
    text = end_text(ending, assembled.session, request.target.mode, once=request.once)
    went_well = ending is Ending.ASKED
    session_logger(request.target.symbol).log(
        logging.INFO if went_well else logging.ERROR, "%s", text
    )
    if not went_well or request.log_level not in _TALKATIVE:
        print(text, file=sys.stdout if went_well else sys.stderr)
    if not (request.once and went_well):
        alerts.send(f"{request.target.symbol} {text}")


def _interrupted(request: TradeRequest, assembled: Assembled, alerts: AlertSender) -> int:
    """Say what stays open where nobody waited for an orderly end."""
    left = left_open(assembled.session, request.target.mode)
    text = f"ended at once; still open as far as is known: {left}"
    print(f"{text}; go on with --resume, or close with --flatten", file=sys.stderr)  # noqa: T201
    alerts.send(f"{request.target.symbol} {text}")
    alerts.close(timeout=1.0)
    return EXIT_INTERRUPTED
