"""A live session that is asked to end, ends at once, may not trade, or keeps secrets."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.live_hour import Hour, HourExchange, Outcome, Point, hour_wish, state_of
from tests.live_nursery import Nursery
from tests.live_process import trade
from tests.sim_exchange import READ, FaultKind, SimServer

FAILED: Final = 2
INTERRUPTED: Final = 130
KEY: Final = "KeyThatMustStayHidden0123456789"
SECRET: Final = "SecretThatMustStayHidden+/=&%9"


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that every run of the hour empties."""
    return tmp_path_factory.mktemp("hour")


@pytest.fixture(scope="module")
def undisturbed(nursery: Nursery, folder: Path) -> Outcome:
    return Hour(nursery, folder).run()


# --- asked to end ---------------------------------------------------------------------------------


def signalled(hour: Hour, number: int, *signals: signal.Signals) -> int:
    """Run the hour, send signals over a request whose reply is late; return the exit code."""

    def ask(now: int, method: str, path: str) -> None:  # noqa: ARG001 - a hook's
        if now == number:
            for sent in signals:
                hour.send(sent)
            time.sleep(0.05)

    with hour.served() as port:
        hour.exchange.after_request = ask
        return hour.session(hour.wish(port))


def resumed(hour: Hour) -> Outcome:
    """Go on to the end of the hour."""
    with hour.served() as port:
        assert hour.session(hour.wish(port, "--resume")) == 0, hour.console()
    return hour.outcome()
