"""``--flatten``: cancel every order of a session, close its positions, save."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, cast

from core.errors import ConfigError, GridError, NetworkError, StateError
from core.orders import POSITION_SIDES
from core.text import money
from engine.contract import CLOSE_END, Rebuilding, StrategySpec
from live.commands.process import (
    Process,
    assemble,
    equip,
    find_process,
    note_control,
    open_log,
    silence,
)
from live.commands.status import SavedState, order_lines, position_lines, qty_text, saved_state
from live.commands.target import Target
from live.commands.texts import check_answerable, confirm, left_open
from live.health.alerts import AlertSender
from live.session.assembly import Assembled, Plan
from live.session.shutdown import LAST_ATTEMPTS, StopRequest
from live.store.instance_lock import InstanceLock


@dataclass(frozen=True, kw_only=True)
class FlattenRequest:
    """Closing as asked for on the command line.

    Attributes:
        target: coin, mode, settings.
        yes: it is meant.
        log_level: of the console.
        spec: of the strategy named; what is saved in a file says itself whose it is.
        params: of it, where its state is at the exchange.
        cycle: the one cycle to close, as client ids spell it; '': everything.
    """

    target: Target
    yes: bool
    log_level: str
    spec: StrategySpec
    params: Any
    cycle: str = ""

    @property
    def plan(self) -> Plan:
        """The session, where its state is at the exchange."""
        return Plan(
            symbol=self.target.symbol,
            spec=self.spec,
            params=self.params,
            mode=self.target.mode,
            capital=None,
            resume=False,
            accept_code_change=False,
            settings=self.target.settings,
            only_closes=True,
        )


def flatten(request: FlattenRequest) -> int:
    """Close everything of a session, or one cycle of it, and return the exit code.

    The parameters of a saved strategy are those of the state file, whatever ``config.py`` says now.

    Raises:
        GridError: there is no state, another process trades, or not all is certainly closed.
    """
    target = request.target
    what = f"cycle {request.cycle}" if request.cycle else "all of this"
    question = f"Close {what}, {target.mode_name}"
    check_answerable(question, yes=request.yes)
    with ExitStack() as stack:
        stack.enter_context(InstanceLock(target.lock_path))
        plan, text = _what_there_is(request)
        process = find_process(target, plan.spec.bar_ms(plan.params))
        print(text, flush=True)  # noqa: T201
        confirm(target.symbol, question, yes=request.yes)
        alerts = stack.enter_context(closing(AlertSender(process.urls, target.title)))
        with silence():
            plan.spec.load_code()
        log = stack.enter_context(closing(open_log(process, request.log_level)))
        equipment = equip(process, StopRequest(), log, alerts)
        assembled = assemble(plan, process, equipment, log)
        stack.enter_context(closing(equipment.monitor))
        try:
            _close(request, assembled, process)
        except GridError as error:
            alerts.send(f"{target.symbol} could not be closed: {error}")
            raise
        wallet = money(assembled.session.strategy.view().wallet)
        text = f"everything of this session is closed; wallet {wallet}"
        if request.cycle:
            text = f"cycle {request.cycle} is closed; wallet {wallet}"
        assembled.session.log.info("%s", text)
        alerts.send(f"{target.symbol} {text}")
        note_control(process, alerts, "flatten", wallet=wallet)
    return 0


def _close(request: FlattenRequest, assembled: Assembled, process: Process) -> None:
    """Close what is asked for; report what the account holds besides.

    Raises:
        GridError: something may still be open.
    """
    if request.cycle:
        _close_cycle(assembled, request.cycle)
        return
    _close_all(assembled, process)
    assembled.session.show()
    _report_foreign_position(assembled, process)


def _what_there_is(request: FlattenRequest) -> tuple[Plan, str]:
    """Return how the session is taken up, and what is known of it before the exchange is asked.

    Raises:
        StateError: nothing is known of it.
        ConfigError: one cycle is to be closed of a strategy without cycles, or on paper.
    """
    target, plan = request.target, request.plan
    if plan.truth == "exchange":
        return plan, f"{target.symbol}, {target.mode_name}: its state is read from the exchange"
    if request.cycle:
        raise ConfigError(
            "--close-cycle is for cycles of the fixed grid at the exchange: name --strategy "
            "fixed_grid, without --dry-run"
        )
    saved = saved_state(target.state_path)
    if saved is None:
        raise StateError(
            f"nothing of {target.symbol} is known: {target.state_path} does not exist; what is "
            "open at the exchange is not this bot's"
        )
    return _plan(target, saved), _to_be_closed(target, saved)


def _close_cycle(assembled: Assembled, cycle: str) -> None:
    """Close one cycle at market, all its legs.

    Raises:
        ConfigError: there is none of that name.
        GridError: it may still be open.
    """
    session, broker = assembled.session, assembled.broker
    exits = cast("Rebuilding", session.strategy).exits_of(cycle, "RECOVERY_CLOSE")
    if not exits:
        open_now = ", ".join(cast("Rebuilding", session.strategy).cycles()) or "none"
        raise ConfigError(f"--close-cycle {cycle}: no such cycle is open (open: {open_now})")
    broker.close(exits)
    broker.secure()
    session.save()
    session.show()


def _to_be_closed(target: Target, saved: SavedState) -> str:
    lines = [f"{target.symbol}, {target.mode_name}, saved in {target.state_path}"]
    for position_side in POSITION_SIDES:
        lines += position_lines(target, saved, position_side)
    return "\n".join([*lines, *order_lines(target, saved)])


def _plan(target: Target, saved: SavedState) -> Plan:
    return Plan(
        symbol=target.symbol,
        spec=saved.spec,
        params=saved.params,
        mode=target.mode,
        capital=None,
        resume=True,
        accept_code_change=True,
        settings=target.settings,
        only_closes=True,
    )


def _close_all(assembled: Assembled, process: Process) -> None:
    """Close, trying again; then have the ledger agree with the account.

    Raises:
        GridError: something may still be open.
    """
    session, broker, now_ms = assembled.session, assembled.broker, process.clock.now_ms()
    if process.target.mode == "dry":
        assembled.runner.settle(
            now_ms // session.bar_ms
        )  # what the candles since have done on paper
    session.go_to(now_ms)
    for attempt in range(LAST_ATTEMPTS):
        try:
            broker.flatten(CLOSE_END)
            broker.check_positions()
            break
        except GridError as error:
            if attempt + 1 == LAST_ATTEMPTS:
                raise NetworkError(
                    f"not all is certainly closed: {error}; try again, or close at the exchange"
                ) from None
            session.log.error("closing: %s", error)  # noqa: TRY400 - expected: it says it all
            process.clock.sleep(1.0)
    if session.strategy.view().has_position:
        raise NetworkError(
            f"not all is closed: {left_open(session, process.target.mode)}; try again, or close "
            "at the exchange"
        )


def _report_foreign_position(assembled: Assembled, process: Process) -> None:
    """Report what the account still holds of this symbol: it is not this session's."""
    if process.target.mode == "dry":
        return
    for name, side in process.executor(retries=1).positions().items():
        if side.qty > assembled.facts.rules.step_size / 2:
            assembled.session.log.warning(
                "the account holds %s %s that is not this session's; it is left alone",
                name,
                qty_text(side.qty),
            )
