"""A live session in a process of its own, which a test can kill.

    python3 -m tests.live_process --port PORT --folder FOLDER [--resume] [--wish JSON]

trades on the simulated exchange at PORT, in its time, with everything it keeps in FOLDER, prints
how it ended and exits with that. ``--nursery`` starts a process that has imported and compiled
everything and forks such sessions on demand, each in some milliseconds; ``Nursery`` is the test's
end of it.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self

import requests

from core.errors import GridError
from engine.compiling import compile_decisions, load_machine_code
from engine.strategy import read_config
from live.assembly import Assembled, Equipment, Plan, assemble_live
from live.executor import BinanceExecutor
from live.instance_lock import InstanceLock
from live.logger import TradeLogger
from live.monitor import HealthMonitor
from live.stop_request import StopRequest
from tests.live_scene import KEYS, Ears, settings_in
from tests.sim_exchange import LoopbackAdapter, RemoteClock

ROOT: Final = Path(__file__).resolve().parents[1]
COIN: Final = "BTC"
SYMBOL: Final = "BTCUSDT"
REFUSED: Final = 2
"""Exit code of a session that could not be put together."""
INTERRUPTED: Final = 130
CALLS: Final = ("write", "fsync", "replace")
"""Functions of ``os`` by which a session changes its files."""
_UNSEEN: Final = ("requests", "faults", "max_weight")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a session is to do.

    Attributes:
        port: of the exchange.
        folder: of everything it keeps.
        resume: go on from the saved state.
        config: changes of ``STRATEGY_PARAMS``.
        settings: changes of ``LIVE_CONFIG``.
        capital: quote; None: the wallet, as far as allowed.
        keys: api_key and api_secret.
        until_ms: fall asleep for good then, without shutting down; 0: never.
        kill_at: (number of the file operation, 'before', 'torn' or 'after'); (0, ''): never.
        is_survey: write every file operation and the world around it to ``survey.jsonl``.
        is_measured: write memory and open files to ``vitals.jsonl`` at every step.
    """

    port: int
    folder: str
    resume: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    capital: float | None = None
    keys: Mapping[str, str] = field(default_factory=lambda: KEYS)
    until_ms: int = 0
    kill_at: tuple[int, str] = (0, "")
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

    def now_ms(self) -> int:
        """Return the time, ms UTC."""
        self._known_ms = self._known_ms or super().now_ms()
        return self._known_ms

    def sleep(self, seconds: float) -> None:
        """Let time go on; at the end of the scene there is no waking up."""
        left_s = (self._until_ms - self.now_ms()) / 1e3
        super().sleep(min(seconds, left_s))
        self._known_ms = 0
        if self.now_ms() >= self._until_ms:
            raise CutOffError


def trade(wish: Wish) -> int:
    """Run a session and return its exit code."""
    folder, stop = Path(wish.folder), StopRequest()
    settings = settings_in(folder, **wish.settings)
    with stop.listening(), InstanceLock(folder / "state" / f"{SYMBOL}.lock"):
        log = TradeLogger(SYMBOL, folder / "logs", secrets=wish.keys.values())
        clock = StageClock(wish.port, wish.until_ms)
        FileOperations(wish, clock).install()
        monitor = HealthMonitor(SYMBOL, folder / "state", settings, clock, Ears())
        try:
            live = _assemble(wish, settings, Equipment(
                clock=clock, stop=stop, monitor=monitor, log=log, alert=_tell))  # fmt: skip
            if wish.is_measured:
                _measure(live, folder / "vitals.jsonl")
            ending = live.runner.run()
        except GridError as error:
            _tell(f"{type(error).__name__}: {error}")
            return REFUSED
        except CutOffError:
            _tell("cut off")
            return 0
        except KeyboardInterrupt:
            _tell("interrupted")
            return INTERRUPTED
        finally:
            monitor.close()
            log.close()
    _tell(f"ended: {ending.name}")
    return int(ending)


def _assemble(wish: Wish, settings: Mapping[str, Any], equipment: Equipment) -> Assembled:
    http = requests.Session()
    http.mount("https://", LoopbackAdapter(wish.port))
    executor = BinanceExecutor(
        COIN, **wish.keys, clock=equipment.clock, session=http, settings=settings
    )
    plan = Plan(
        symbol=SYMBOL, params=read_config(wish.config), mode="live", capital=wish.capital,
        resume=wish.resume, accept_code_change=False, settings=settings,
    )  # fmt: skip
    return assemble_live(plan, executor, equipment)


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _measure(live: Assembled, path: Path) -> None:
    """Write resident memory (MB) and the number of open files down after every step."""
    session, save = live.session, live.session.save

    def saved(*, snapshot: bool = False) -> None:
        save(snapshot=snapshot)
        if snapshot:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            vitals = {
                "bar": session.progress.bar,
                "rss_mb": pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
                "files": len(os.listdir("/proc/self/fd")),
            }
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(vitals) + "\n")

    session.save = saved  # type: ignore[method-assign] - a test's ear at the seam


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
    for path in sorted((folder / "state").rglob("*.*")):
        if path.suffix in {".json", ".csv", ".jsonl"} and "_health" not in path.name:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


class FileOperations:
    """Counts what a session does to its files, and kills it at one of them."""

    def __init__(self, wish: Wish, clock: RemoteClock) -> None:
        self._wish, self._clock = wish, clock
        self._count = 0

    def install(self) -> None:
        """Put the count into ``os``."""
        if self._wish.is_survey or self._wish.kill_at[0]:
            for name in CALLS:
                setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self._count += 1
            at, when = self._wish.kill_at
            target = _target(arguments)
            self._note(name, target, "before")
            if self._count == at and when == "torn":
                call(arguments[0], arguments[1][: len(arguments[1]) // 2])
            if self._count == at and when != "after":
                os.kill(os.getpid(), signal.SIGKILL)
            answer = call(*arguments)
            if self._count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            self._note(name, target, "after")
            return answer

        return counted

    def _note(self, name: str, target: str, when: str) -> None:
        if not self._wish.is_survey:
            return
        folder = Path(self._wish.folder)
        world = world_of(self._clock.ask("state"), folder)
        row = {
            "time": time.monotonic_ns(), "n": self._count, "when": when, "world": world,
            "call": name, "file": target,
        }  # fmt: skip
        with (folder / "survey.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _target(arguments: tuple[Any, ...]) -> str:
    """Return the name of the file a call is about."""
    first = arguments[-1] if len(arguments) == 2 and not isinstance(arguments[0], int) else None
    path = os.readlink(f"/proc/self/fd/{arguments[0]}") if first is None else str(first)
    return Path(path).name


# --- many sessions --------------------------------------------------------------------------------


def run_nursery() -> NoReturn:
    """Fork a session for every wish on standard input; tell its process id, then its end."""
    load_machine_code()
    compile_decisions()
    BinanceExecutor(COIN, clock=RemoteClock(0))
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        wish = Wish(**json.loads(line))
        child = os.fork()
        if child == 0:
            _be_child(wish)
        _tell(json.dumps(child))
        _tell(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
    sys.exit(0)


def _be_child(wish: Wish) -> NoReturn:
    """Run a session with a console of its own.

    Nothing is forced to the disk: what a killed process has written the kernel still has.
    """
    code = 70
    os.fsync = lambda descriptor: None  # noqa: ARG005 - stands for os.fsync
    try:
        console = Path(wish.folder) / "console.txt"
        console.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        code = trade(wish)
    except BaseException:  # noqa: BLE001 - the process's outermost edge
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


class Nursery:
    """The test's end of a process that forks sessions; a context manager.

    The process has one thread when it forks, and the exchange is in the test's own, so a session
    starts with nothing half done in it.
    """

    def __enter__(self) -> Self:
        """Start the process; it is ready when the first session answers."""
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(  # noqa: S603 - our own code, no shell
            [sys.executable, "-m", "tests.live_process", "--nursery"], cwd=ROOT, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
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

    def run(self, wish: Wish) -> int:
        """Run a session to its end and return its exit code."""
        self.start(wish)
        return self.wait()

    def _read(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())


def main() -> int:
    """Run as told on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nursery", action="store_true")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--wish", type=json.loads, default={}, help="the rest, as JSON")
    arguments = parser.parse_args()
    if arguments.nursery:
        run_nursery()
    return trade(
        Wish(port=arguments.port, folder=arguments.folder, resume=arguments.resume,
             **arguments.wish)
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
