"""Events of the fixed grid's cycles: a JSON line each, for readers and ``--review``.

``{SYMBOL}_fixed_events.jsonl``: ``ts event cycle slot price qty entry pnl fee duration_s reason
n_open margin health``; amounts in quote, ``margin`` as a share of its cap. The file is output: no
session reads it, and where it cannot be written trading goes on.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from core.files import open_private
from core.text import money, number
from engine.contract import CycleState
from live.health.events import Events, Notice, StepDone, TradeBooked
from live.store.durable_file import plain_symbol
from live.store.trade_files import LiveTrade

_ENTRIES: Final = ("BUY_OPEN_LONG", "SELL_OPEN_SHORT", "ADOPTED")
_STOPS: Final = ("STOP_LONG", "STOP_SHORT", "STOP_PRICE")
_OF_MARKS: Final = {
    "STUCK": "STUCK",
    "LADDER": "RECOVERY",
    "HEDGE": "RECOVERY",
    "RELEASED": "RECOVERY",
    "RUNG": "EXIT_PLACED",
    "ESCALATION": "ESCALATION",
}


class CycleStrategy(Protocol):
    """A strategy that knows cycles."""

    def cycle_state(self) -> CycleState:
        """Return how its cycles stand."""
        ...

    def take_marks(self) -> list[dict[str, Any]]:
        """Return what happened to cycles without a trade since the last call."""
        ...


def events_path(symbol: str, folder: Path) -> Path:
    """Return the file of a symbol."""
    return folder / f"{plain_symbol(symbol)}_fixed_events.jsonl"


@dataclass(slots=True)
class _Open:
    """A cycle that has entered."""

    ts_ms: int
    slot: int
    entry: float
    qty: float
    pnl: float = 0.0
    fee: float = 0.0
    exit: float = 0.0
    last_ms: int = 0
    reason: str = ""
    is_known: bool = False
    """Its last trade is one that an earlier process has reported."""


class CycleEvents:
    """Writes the events of one session.

    What an earlier process has reported is taken in and not written again: a cycle that it opened
    has its entry and its age when this one closes it.

    Args:
        strategy: whose cycles they are.
        path: appended to.
        events: of the session.
        log: of the session.
    """

    def __init__(
        self, strategy: CycleStrategy, path: Path, events: Events, log: logging.Logger
    ) -> None:
        self._strategy, self._path, self._events, self._log = strategy, path, events, log
        self._open: dict[int, _Open] = {}
        self._before: CycleState | None = None
        self._is_silent = self._is_begun = False
        events.subscribe(
            TradeBooked, lambda booked: self._trade(booked.trade, is_known=booked.is_known)
        )
        events.subscribe(StepDone, self._step)

    def _trade(self, trade: LiveTrade, *, is_known: bool) -> None:
        if trade.cycle is None:
            return
        cycle = trade.cycle
        more: dict[str, Any] = {
            "cycle": cycle,
            "slot": trade.slot,
            "price": trade.price,
            "qty": trade.qty,
        }
        more |= {"fee": trade.fee, "pnl": trade.pnl, "reason": trade.label}
        if trade.label in _ENTRIES:
            known = self._open.setdefault(
                cycle, _Open(trade.timestamp, trade.slot or 0, trade.price, 0.0)
            )
            known.qty += trade.qty
            known.fee, known.is_known = known.fee + trade.fee, is_known
            if not is_known:
                self._write(trade.timestamp, "ENTRY_FILLED", more)
            return
        known = self._open.setdefault(cycle, _Open(trade.timestamp, trade.slot or 0, 0.0, 0.0))
        known.pnl, known.fee = known.pnl + trade.pnl, known.fee + trade.fee
        known.exit, known.last_ms, known.reason = trade.price, trade.timestamp, trade.label
        more["entry"], known.is_known = known.entry, is_known
        if is_known:
            return
        if trade.label in _STOPS:
            self._write(trade.timestamp, "STOP", more)
        elif trade.label.startswith("RECOVERY"):
            self._write(trade.timestamp, "RECOVERY", more)

    def _step(self, done: StepDone) -> None:
        state = self._strategy.cycle_state()
        for mark in self._strategy.take_marks():
            more = {name: mark[name] for name in ("cycle", "slot", "price", "qty")}
            self._write(mark["ts_ms"], _OF_MARKS[mark["event"]], more | {"reason": mark["event"]})
            if mark["event"] == "ESCALATION":
                text = f"cycle {state.name_of(mark['cycle'])} has stood on its ladder for too long"
                self._events.publish(Notice(text))
        for cycle in [cycle for cycle in self._open if cycle not in state.open_cycles]:
            self._closed(cycle, self._open.pop(cycle))
        self._changes(done.ts_ms, state)
        self._before = state

    def _closed(self, cycle: int, known: _Open) -> None:
        if known.is_known:
            return
        duration_s = (known.last_ms - known.ts_ms) // 1000
        net = known.pnl - known.fee
        self._write(
            known.last_ms,
            "CYCLE_CLOSED",
            {
                "cycle": cycle,
                "slot": known.slot,
                "price": known.exit,
                "qty": known.qty,
                "entry": known.entry,
                "pnl": net,
                "fee": known.fee,
                "duration_s": duration_s,
                "reason": known.reason,
            },
        )
        self._log.info(
            "GRID_TRADE | Action=%s | Size=%s | Entry=%s | Exit=%s | PnL=%s | Duration=%ds",
            known.reason,
            f"{known.qty:g}",
            number(known.entry, 2),
            number(known.exit, 2),
            money(net, signed=True),
            duration_s,
        )

    def _changes(self, ts_ms: int, state: CycleState) -> None:
        before = self._before
        if before is None:
            self._write(ts_ms, "REBUILT", {"reason": f"{len(state.open_cycles)} cycles open"})
            before = CycleState((), "", "HEALTHY", is_wrong=False, is_paused=False)
        if state.working != before.working:
            more: dict[str, Any] = {"cycle": state.working, "price": state.working_price}
            more["qty"] = state.working_qty
            is_laid = state.working >= 0
            self._write(ts_ms, "ENTRY_PLACED" if is_laid else "READY", more if is_laid else {})
        if state.gate != before.gate:
            self._write(ts_ms, "GATE", {"reason": state.gate or "none"})
        if state.health != before.health:
            self._write(ts_ms, "HEALTH", {"reason": f"{before.health} -> {state.health}"})
            self._log.warning("health: %s, was %s", state.health, before.health)
        if state.is_wrong and not before.is_wrong:
            self._write(ts_ms, "MISMATCH", {"reason": "ledger and account differ"})
            self._events.publish(Notice("ledger and account differ: nothing is entered"))
        if state.is_paused != before.is_paused:
            self._write(ts_ms, "PAUSE" if state.is_paused else "RESUME", {})

    def _write(self, ts_ms: int, event: str, more: Mapping[str, Any]) -> None:
        state = self._strategy.cycle_state()
        row = {
            "ts": ts_ms,
            "event": event,
            **more,
            "n_open": len(state.open_cycles),
            "margin": round(state.margin, 6),
            "health": state.health,
        }
        try:
            number_of_file = open_private(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            with os.fdopen(number_of_file, "ab") as file:
                file.write(self._line_break() + json.dumps(row, allow_nan=False).encode() + b"\n")
            self._is_silent, self._is_begun = False, True
        except OSError as error:
            if not self._is_silent:
                self._log.warning(
                    "the events of cycles cannot be written: %s: %s", self._path, error
                )
            self._is_silent = True

    def _line_break(self) -> bytes:
        """Return what ends a line that a killed process has left torn: nothing where there is none.

        Raises:
            OSError: the file cannot be read.
        """
        if self._is_begun or self._path.stat().st_size == 0:
            return b""
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return b"" if file.read(1) == b"\n" else b"\n"
