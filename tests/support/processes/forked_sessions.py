"""Live sessions in processes of their own, each started in some milliseconds.

``python3 -m tests.support.processes.forked_sessions`` is a process that has imported and compiled
everything and forks sessions on demand; ``ForkedSessions`` is the test's end of it.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

import live.commands.trade  # noqa: F401 - its import is what a session would wait for
from engine.compiling import compile_decisions, load_live_code
from tests.support.paths import ROOT
from tests.support.processes.live_process import Wish, trade

BROKEN: Final = 70
"""Exit code of a session that ended by an error nobody caught; the console holds it."""


def run_fork_server() -> NoReturn:
    """Fork a session for every wish on standard input; tell its process id, then its end."""
    load_live_code()
    compile_decisions()
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _be_child(Wish(**json.loads(line)))
        _tell(str(child))
        _tell(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
    sys.exit(0)


def _be_child(wish: Wish) -> NoReturn:
    """Run a session with a console of its own.

    Nothing is forced to the disk: what a killed process has written the kernel still has.
    """
    code = BROKEN
    os.fsync = lambda fd: None  # noqa: ARG005 - stands for os.fsync
    try:
        Path(wish.folder).mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        console = os.open(Path(wish.folder) / "console.txt", flags, 0o644)
        os.dup2(console, sys.stdout.fileno())
        os.dup2(console, sys.stderr.fileno())
        code = trade(wish)
    except BaseException:  # noqa: BLE001 - the process's outermost edge
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class ForkedSessions:
    """The test's end of a process that forks sessions, one at a time; a context manager.

    That process has one thread when it forks, and the exchange is in the test's own, so nothing
    is half done in a session that starts.
    """

    def __enter__(self) -> Self:
        """Start the process; it is ready when the first session has a number."""
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.processes.forked_sessions"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self._process.communicate()

    def start(self, wish: Wish) -> int:
        """Start a session and return its process id; ``wait`` must follow."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(wish)) + "\n")
        self._process.stdin.flush()
        return self._read()

    def wait(self) -> int:
        """Return the exit code of the session, negative: the signal that killed it."""
        return self._read()

    def _read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    run_fork_server()
