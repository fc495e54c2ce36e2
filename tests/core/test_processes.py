"""Keys stay in the process that trades: children, core files and other programs get none."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.processes import child_environment
from tests.support.paths import ROOT

KEYS = {
    "BINANCE_API_KEY": "k",
    "BINANCE_API_SECRET": "s",
    "GRID_ALERT_URLS": "tgram://x",
    "GRID_ALERT_URLS_SECOND": "tgram://y",
    "GRID_STORAGE": "postgresql://u:p@h/d",
    "PGPASSWORD": "p",
    "MY_TOKEN": "t",
}


def test_a_child_gets_the_environment_without_what_is_secret() -> None:
    ordinary = {"PATH": "/bin", "HOME": "/root", "NUMBA_DISABLE_JIT": "1", "LANG": "C"}
    assert child_environment({**KEYS, **ordinary}) == ordinary


def child_calls() -> list[tuple[Path, ast.Call]]:
    """Return every call in the program that starts another program."""
    found = []
    sources = [*ROOT.glob("*.py")]
    for folder in ("core", "engine", "backtest", "live"):
        sources += (ROOT / folder).rglob("*.py")
    for path in sources:
        found += [
            (path, node)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("subprocess.")
        ]
    return found


def test_every_child_process_is_started_without_keys() -> None:
    calls = child_calls()
    assert len(calls) >= 2
    for path, call in calls:
        given = [ast.unparse(item.value) for item in call.keywords if item.arg == "env"]
        assert given, path
        assert "child_environment()" in given[0], path


PROTECTED = """
import ctypes, os, resource, sys
from core.processes import forbid_memory_dumps
if len(sys.argv) > 1:
    os.setuid(int(sys.argv[1]))
worked = forbid_memory_dumps()
print(worked, resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
sys.stdout.flush()
sys.stdin.read()
"""
READS = """
import os, sys
os.setuid(int(sys.argv[2]))
for name in ("environ", "mem"):
    try:
        with open(f"/proc/{sys.argv[1]}/{name}", "rb") as file:
            file.read(1)
        print(name, "read")
    except OSError as error:
        print(name, type(error).__name__)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PR_SET_DUMPABLE is Linux's")
def test_a_process_with_keys_leaves_no_core_file_and_cannot_be_dumped() -> None:
    with subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-c", PROTECTED],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "True (0, 0) 0\n"
        child.kill()


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="only root can be others"
)
def test_a_program_of_the_same_user_reads_neither_memory_nor_environment() -> None:
    user = 12345
    for script, expected in ((PROTECTED, "PermissionError"), (OPEN, "read")):
        with subprocess.Popen(  # noqa: S603 - this interpreter
            [sys.executable, "-c", script, str(user)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline()
            done = subprocess.run(  # noqa: S603 - this interpreter
                [sys.executable, "-c", READS, str(child.pid), str(user)],
                capture_output=True,
                text=True,
                check=True,
            )
            assert done.stdout.splitlines()[0] == f"environ {expected}"
            child.kill()


OPEN = """
import ctypes, os, sys
os.setuid(int(sys.argv[1]))
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # a change of user forbids dumps, as a new program does not
print("open", flush=True)
sys.stdin.read()
"""
