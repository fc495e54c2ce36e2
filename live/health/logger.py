"""The log of a session: trades and equity on the console, everything in a rotating file."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final, TextIO

from core.errors import ConfigError
from core.files import make_folder, open_private
from core.market import MarketRules
from core.redaction import Redactor, printable
from core.text import MISSING, decimals_of, money, number
from core.times import utc_text
from live.health.events import Events, Notice, StepDone, TradeBooked
from live.store.durable_file import not_writable, plain_symbol
from live.store.trade_files import Close, LiveTrade

LOG_BYTES: Final = 10 * 1024 * 1024
LOG_FILES: Final = 5
"""Rotated files kept beside the one being written."""
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_CHATTY: Final = ("ccxt", "urllib3", "requests", "asyncio")
_ENTRIES: Final = ("BUY_OPEN_LONG", "SELL_OPEN_SHORT")
_HALT: Final = "CIRCUIT_BREAKER_HALT"
_UNKNOWN: Final = Close(net=math.nan, net_pct=math.nan, r_multiple=math.nan, hold_hours=math.nan)
_GREEN, _RED, _YELLOW, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[0m"
_SESSIONS: Final = "session."
"""How the names of the sessions' loggers begin."""


def trade_text(trade: LiveTrade, symbol: str, rules: MarketRules | None) -> str:
    """Return the lines that report a trade.

    Args:
        trade: what happened.
        symbol: as shown.
        rules: whose tick and lot say how many decimals; None: those of the numbers themselves.
    """
    tick, step = (rules.tick_size, rules.step_size) if rules else (trade.price, trade.qty)
    price = f"Price: {number(trade.price, max(2, decimals_of(tick)), unit='$')}"
    qty = f"Qty: {number(trade.qty, decimals_of(step))}"
    regime = f"Regime: {trade.regime}"
    if trade.label == _HALT:
        lines = [f"{price} | {regime}"]
    elif trade.label in _ENTRIES:
        lines = [f"{price} | {qty} | Fee: {money(trade.fee)}", regime]
    else:
        close = trade.close or _UNKNOWN
        percent = number(close.net_pct, 2, signed=True)
        percent = percent if percent == MISSING else f"{percent}%"
        hold = number(close.hold_hours, 1)
        hold = hold if hold == MISSING else f"{hold}h"
        lines = [
            f"{price} | {qty} | PnL: {money(close.net, signed=True)} ({percent})",
            f"Hold: {hold} | R: {number(close.r_multiple, 2, signed=True)} | {regime}",
        ]
    head = f"[{utc_text(trade.timestamp)}] {trade.label} | {symbol}"
    return "\n  ".join([head, *lines])


def equity_text(
    ts_ms: int, equity: float, wallet: float, upnl_long: float, upnl_short: float, regime: str
) -> str:
    """Return the lines that report the account, amounts in quote."""
    return (
        f"[{utc_text(ts_ms)}] EQUITY | {money(equity)} | Wallet: {money(wallet)}\n"
        f"  UPnL_L: {money(upnl_long, signed=True)} | UPnL_S: {money(upnl_short, signed=True)} | "
        f"Regime: {regime}"
    )


def session_logger(symbol: str) -> logging.Logger:
    """Return the logger of the session that trades ``symbol``, such as BTCUSDT or BTC/USDT."""
    return logging.getLogger(f"{_SESSIONS}{plain_symbol(symbol)}")


class _OneSession(logging.Filter):
    """Lets pass what a session logs, and what belongs to none; not what another session logs."""

    def __init__(self, own: str) -> None:
        super().__init__()
        self._own = own

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether ``record`` is not of another session."""
        name = record.name or ""  # whoever makes records by hand may leave it out
        return not name.startswith(_SESSIONS) or name == self._own


class SecretFilter(logging.Filter):
    """Takes secrets and control characters out of records, whichever logger they come from.

    It sits on the handlers: a filter of a logger does not see what the loggers below it say.

    Args:
        secrets: see :class:`core.redaction.Redactor`.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        self._redactor = Redactor(secrets)
        self._formatter = logging.Formatter()

    def scrub(self, text: str) -> str:
        """Return ``text`` without the secrets, on lines a terminal only shows."""
        return printable(self._redactor.redact(text))

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite ``record`` in place; let it pass."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError, IndexError, AttributeError):
            message = f"{record.msg} {record.args!r}"  # arguments that do not fit the text
        record.msg, record.args = self.scrub(message), None
        if record.exc_info and not record.exc_text:
            record.exc_text = self._formatter.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self.scrub(record.exc_text)
        if record.stack_info:
            record.stack_info = self.scrub(record.stack_info)
        return True


class _ConsoleFormatter(logging.Formatter):
    """Events as they are, other records behind their time and level; colours on a terminal."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__("[%(asctime)s] %(levelname)s | %(message)s")
        self._colours = colours

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Return the record's time, UTC."""
        del datefmt
        return utc_text(int(record.created * 1000))

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of ``record``."""
        colour = getattr(record, "colour", "")
        text = record.getMessage() if getattr(record, "is_event", False) else super().format(record)
        if record.levelno >= logging.WARNING:
            colour = _RED if record.levelno >= logging.ERROR else _YELLOW
        if not self._colours or not colour:
            return text
        first, line_break, rest = text.partition("\n")
        return f"{colour}{first}{_PLAIN}{line_break}{rest}"


class _FileFormatter(logging.Formatter):
    """One line per event, behind an ISO time, UTC, and the logger's name."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Return the record's time, ISO 8601, UTC."""
        del datefmt
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of ``record``."""
        text = super().format(record)
        return text.replace("\n  ", " | ") if getattr(record, "is_event", False) else text


class _LogFile(RotatingFileHandler):
    """The rotating file, ours alone; a full disk is reported once and does not stop the session."""

    _failing = False

    def _open(self) -> TextIOWrapper:
        descriptor = open_private(Path(self.baseFilename), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return TextIOWrapper(
            os.fdopen(descriptor, "ab"), encoding=self.encoding, errors=self.errors
        )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say once why records do not reach the file."""
        if not self._failing:
            self._failing = True
            error = sys.exc_info()[1]
            sys.stderr.write(f"the log {self.baseFilename} cannot be written: {error}\n")
        del record


class TradeLogger:
    """Console and log file of a session, on the root logger.

    Of several sessions in a process each file has its own records and those of no session, such as
    the exchange's.

    Args:
        symbol: such as BTC/USDT or BTCUSDT.
        folder: of ``{SYMBOL}.log``; made if there is none.
        level: of the console; the file holds INFO and above whatever it is.
        secrets: texts that must never be written, such as API key and secret.
        stream: of the console; standard output unless given.

    Raises:
        ConfigError: unknown level.
        StateError: the file cannot be written.
    """

    def __init__(
        self,
        symbol: str,
        folder: Path,
        level: str = "INFO",
        *,
        secrets: Iterable[str] = (),
        stream: TextIO | None = None,
    ) -> None:
        if level.upper() not in LEVELS:
            raise ConfigError(f"log level = {level!r} must be one of {', '.join(LEVELS)}")
        plain = plain_symbol(symbol)
        self.symbol = f"{plain.removesuffix('USDT')}/USDT" if plain.endswith("USDT") else plain
        self.rules: MarketRules | None = None
        """Once known, they say how many decimals prices and quantities have."""
        self._log = session_logger(plain)
        self._handlers = self._open(folder / f"{plain}.log", level.upper(), stream, secrets)
        root = logging.getLogger()
        self._levels = {name: logging.getLogger(name).level for name in ("", *_CHATTY)}
        root.setLevel(min(logging.INFO, self._handlers[1].level))
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        for handler in self._handlers:
            handler.addFilter(_OneSession(self._log.name))
            root.addHandler(handler)

    @staticmethod
    def _open(
        path: Path, level: str, stream: TextIO | None, secrets: Iterable[str]
    ) -> tuple[logging.Handler, logging.Handler]:
        try:
            make_folder(path.parent, private=True)
            file = _LogFile(
                path,
                maxBytes=LOG_BYTES,
                backupCount=LOG_FILES,
                encoding="utf-8",
                errors="backslashreplace",
            )
        except OSError as error:
            raise not_writable(path, error) from None
        file.setFormatter(_FileFormatter())
        file.setLevel(logging.INFO)
        console: logging.StreamHandler[TextIO] = logging.StreamHandler(stream or sys.stdout)
        terminal = console.stream.isatty() and not os.environ.get("NO_COLOR")
        console.setFormatter(_ConsoleFormatter(colours=terminal))
        console.setLevel(level)
        scrubbing = SecretFilter(secrets)
        for handler in (file, console):
            handler.addFilter(scrubbing)
        return file, console

    def listen(self, events: Events) -> None:
        """Log trades, steps and what a person should hear of."""
        events.subscribe(
            TradeBooked, lambda booked: None if booked.is_known else self.trade(booked.trade)
        )
        events.subscribe(StepDone, self.step)
        events.subscribe(Notice, lambda notice: self._log.warning("%s", notice.text))

    def trade(self, trade: LiveTrade) -> None:
        """Log a trade record."""
        net = trade.close.net if trade.close else 0.0
        colour = _GREEN if net > 0.0 else _RED if net < 0.0 else ""
        self._event(trade_text(trade, self.symbol, self.rules), colour)

    def step(self, done: StepDone) -> None:
        """Log the account after a step, amounts in quote."""
        view = done.view
        upnl_long, upnl_short = view.long.unrealized, view.short.unrealized
        text = equity_text(done.ts_ms, view.equity, view.wallet, upnl_long, upnl_short, view.regime)
        self._event(text, "")

    def _event(self, text: str, colour: str) -> None:
        extra: dict[str, Any] = {"is_event": True, "colour": colour}
        self._log.info("%s", text, extra=extra)

    def close(self) -> None:
        """Take the handlers off, close the file, put the levels back."""
        root = logging.getLogger()
        for handler in self._handlers:
            root.removeHandler(handler)
            handler.close()
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)
