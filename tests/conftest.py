"""Fixtures of several test files."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.support.processes.forked_sessions import ForkedSessions

Run = Callable[..., tuple[int, str, str]]

# The suite says the same of the same code each time; looking for new examples is a run of its own:
# ``--hypothesis-profile explore``.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile("repeatable")

# A shell that starts the tests in the background has them ignore Ctrl+C, and so would every program
# they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def sessions() -> Iterator[ForkedSessions]:
    """Yield a process that forks live sessions."""
    # Imports all of live trading.
    from tests.support.processes.forked_sessions import ForkedSessions  # noqa: PLC0415

    with ForkedSessions() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that every run of an hour empties."""
    return tmp_path_factory.mktemp("hour")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return ``main.main`` in an empty folder: exit code, standard output, standard error."""
    # Only for those who ask: pandas and numba are 1.3 s of every process of the suite.
    import backtest.commands.backtest as command  # noqa: PLC0415
    import main  # noqa: PLC0415

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "is_compiled", lambda _: True)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main.main(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call
