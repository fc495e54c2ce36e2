"""``--flatten``: cancel every order of a session, close its positions, save."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass

from core.errors import GridError, NetworkError, StateError
from core.text import money
from engine.contract import CLOSE_END, POSITION_SIDES
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
    """

    target: Target
    yes: bool
    log_level: str


def flatten(request: FlattenRequest) -> int:
    """Close everything of a session and return the exit code.

    The strategy's parameters are those of the state file, whatever ``config.py`` says now.

    Raises:
        GridError: there is no state, another process trades, or not all is certainly closed.
    """
    target = request.target
    question = f"Close all of this, {target.mode_name}"
    check_answerable(question, yes=request.yes)
    with ExitStack() as stack:
        stack.enter_context(InstanceLock(target.lock_path))
        saved = saved_state(target.state_path)
        if saved is None:
            raise StateError(
                f"nothing of {target.symbol} is known: {target.state_path} does not exist; what is "
                "open at the exchange is not this bot's"
            )
        process = find_process(target, saved.spec.bar_ms(saved.params))
        print(_to_be_closed(target, saved), flush=True)  # noqa: T201
        confirm(target.symbol, question, yes=request.yes)
        alerts = stack.enter_context(closing(AlertSender(process.urls, target.title)))
        with silence():
            saved.spec.load_code()
        log = stack.enter_context(closing(open_log(process, request.log_level)))
        equipment = equip(process, StopRequest(), log, alerts)
        assembled = assemble(_plan(target, saved), process, equipment, log)
        stack.enter_context(closing(equipment.monitor))
        try:
            _close_all(assembled, process)
        except GridError as error:
            alerts.send(f"{target.symbol} could not be closed: {error}")
            raise
        wallet = money(assembled.session.strategy.view().wallet)
        text = f"everything of this session is closed; wallet {wallet}"
        assembled.session.log.info("%s", text)
        alerts.send(f"{target.symbol} {text}")
        note_control(process, alerts, "flatten", wallet=wallet)
        _report_foreign_position(assembled, process)
    return 0


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
