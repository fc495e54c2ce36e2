r"""``live_trade.py`` on the simulated exchange, in a process of its own, which a test can kill.

    python3 -m tests.support.processes.live_process \
        '{"port": 4711, "folder": "here", "arguments": ["--resume"]}'

trades on the exchange at that port, in its time, keeps everything in that folder, prints how it
ended and exits with that. ``tests.support.processes.forked_sessions`` runs many of them, quickly.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import requests

import live.commands.process
import live.exchange.http_session as http_session_module
import live_trade
from config import LIVE_CONFIG
from live.execution.books import LiveSession
from live.health.monitor import HealthMonitor
from live.simulated.adapter import LoopbackAdapter
from live.simulated.clock import RemoteClock

SYMBOL: Final = "BTCUSDT"
STATE: Final = Path("data/live_state")
"""Where a session keeps its state, within its folder."""
CALLS: Final = ("write", "fsync", "replace")
"""Functions of ``os`` by which a session changes its files."""
UNHURRIED_S: Final = 60.0
"""Time for a request of a session in virtual time: the machine's load must decide nothing."""
_UNSEEN: Final = ("requests", "faults", "max_weight")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The orders to a session in a process.

    Attributes:
        port: of the exchange.
        folder: of everything it keeps.
        arguments: of ``live_trade.py``, after ``--coin BTC --yes``.
        settings: changes of ``LIVE_CONFIG``.
        key: of the API.
        secret: likewise.
        until_ms: fall asleep for good then, as if cut off; 0: never.
        kill_at: (number of the file operation, 'before', 'torn' or 'after'); (0, ''): never.
        is_survey: write every file operation and the world around it to ``survey.jsonl``.
        is_measured: write memory, open files and more to ``vitals.jsonl`` at every step.
    """

    port: int
    folder: str
    arguments: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    key: str = "sim-key"
    secret: str = "sim-secret"  # noqa: S105 - the simulation's
    until_ms: int = 0
    kill_at: Sequence[Any] = (0, "")
    is_survey: bool = False
    is_measured: bool = False


# --- the session ----------------------------------------------------------------------------------


class CutOffError(BaseException):
    """The end of the scene: nobody is asked to shut down."""


class StageClock(RemoteClock):
    """The exchange's time; it goes on in our sleep only, so it is asked for once a sleep."""

    def __init__(self, port: int, until_ms: int) -> None:
        super().__init__(port)
        self._until_ms = until_ms or sys.maxsize
        self._known_ms = 0
        self._is_woken = False
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        """Return the time, ms UTC."""
        with self._lock:  # the thread that watches the health asks too
            self._known_ms = self._known_ms or super().now_ms()
            return self._known_ms

    def sleep(self, seconds: float) -> None:
        """Let time go on; at the end of the scene there is no waking up."""
        if self._is_woken:
            self._is_woken = False
            return
        target_ms = min(self.now_ms() + max(1, round(seconds * 1e3)), self._until_ms)
        with self._lock:
            self._known_ms = int(self.ask(f"advance?to={target_ms}")["now"])
        if self._known_ms >= self._until_ms:
            raise CutOffError

    def wake(self) -> None:
        """Let the next sleep end at once: the one under way takes no time."""
        self._is_woken = True


def trade(wish: Wish) -> int:
    """Run a session and return its exit code."""
    folder = Path(wish.folder)
    folder.mkdir(parents=True, exist_ok=True)
    clock = StageClock(wish.port, wish.until_ms)
    stack = ExitStack()

    def http_session() -> requests.Session:
        http = stack.enter_context(requests.Session())
        http.mount("https://", LoopbackAdapter(wish.port))
        return http

    with stack, closing(clock), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("BINANCE_API_KEY", wish.key)
        patch.setenv("BINANCE_API_SECRET", wish.secret)
        patch.delenv("GRID_ALERT_URLS", raising=False)
        settings = {**LIVE_CONFIG, "request_timeout_s": UNHURRIED_S, **wish.settings}
        patch.setattr(live_trade, "LIVE_CONFIG", settings)
        patch.setattr(http_session_module, "STOP_GRACE_S", UNHURRIED_S)
        # Its thread looks in real time, and would write files and ask for the time in between.
        patch.setattr(HealthMonitor, "watch", lambda _: None)
        patch.setattr(live.commands.process, "system_clock", lambda: clock)
        patch.setattr(live.commands.process, "http_session", http_session)
        if wish.is_survey or wish.kill_at[0]:
            FileOperations(wish, clock).install(patch)
        if wish.is_measured:
            measure(patch, folder / "vitals.jsonl")
        try:
            code = live_trade.main(["--coin", "BTC", "--yes", *wish.arguments])
        except CutOffError:
            code = 0
    _tell(f"exit code {code}")
    return code


def measure(patch: pytest.MonkeyPatch, path: Path) -> None:
    """Write memory, the number of open files and the size of the state down at every step."""
    save = LiveSession.save

    def saved(session: LiveSession, *, snapshot: bool = False) -> None:
        save(session, snapshot=snapshot)
        if snapshot:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            vitals = {
                "bar": session.progress.bar,
                "rss_mb": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
                "files": len(list(Path("/proc/self/fd").iterdir())),
                "state_kb": (path.parent / STATE / f"{SYMBOL}_state.json").stat().st_size / 1e3,
            }
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(vitals) + "\n")

    patch.setattr(LiveSession, "save", saved)


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


# --- what it writes -------------------------------------------------------------------------------


def world_of(exchange: Mapping[str, Any], folder: Path) -> str:
    """Return a fingerprint of all that outlives a killed session: the account and its files.

    Sessions killed in the same world are the same experiment. Logs, health and the temporary file
    of a write under way are read by nobody.

    Args:
        exchange: ``SimExchange.dump()``.
        folder: of the session.
    """
    seen = {name: value for name, value in exchange.items() if name not in _UNSEEN}
    digest = hashlib.sha256(json.dumps(seen, sort_keys=True).encode())
    for path in sorted((folder / STATE).rglob("*.*")):
        if path.suffix in {".json", ".csv", ".jsonl"} and "_health" not in path.name:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


class FileOperations:
    """Counts what a session does to its files, and kills it at one of them."""

    def __init__(self, wish: Wish, clock: RemoteClock) -> None:
        self._wish, self._clock, self._folder = wish, clock, Path(wish.folder)
        self._count = 0

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put the count into ``os``."""
        for name in CALLS:
            patch.setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self._count += 1
            number, when = self._wish.kill_at
            is_last, file = self._count == number, _file_of(arguments)
            self._note(name, file, "before")
            if is_last and when == "torn":
                call(arguments[0], arguments[1][: len(arguments[1]) // 2])
            if is_last and when != "after":
                os.kill(os.getpid(), signal.SIGKILL)
            answer = call(*arguments)
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)
            self._note(name, file, "after")
            return answer

        return counted

    def _note(self, call: str, file: str, when: str) -> None:
        if not self._wish.is_survey:
            return
        row = {
            "time": time.monotonic_ns(),
            "n": self._count,
            "when": when,
            "call": call,
            "file": file,
            "world": world_of(self._clock.ask("state"), self._folder),
        }
        with (self._folder / "survey.jsonl").open("a", encoding="utf-8") as survey:
            survey.write(json.dumps(row) + "\n")


def _file_of(arguments: Sequence[Any]) -> str:
    """Return the name of the file a call is about: its descriptor's, or the target's."""
    if isinstance(arguments[0], int):
        return Path(f"/proc/self/fd/{arguments[0]}").readlink().name
    return Path(arguments[1]).name


if __name__ == "__main__":
    sys.exit(trade(Wish(**json.loads(sys.argv[1]))))
