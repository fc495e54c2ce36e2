"""Interpreted, the short grid's kernels do the same as compiled, to the last bit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

SIGNALS = """
import hashlib, sys
import numpy as np
from backtest.ticks.demo import demo_ticks
from engine.short_grid.params import STEP_NS
from tests.engine.short_grid_ticks import random_events, walk
for events in (demo_ticks(2, ("KITUSDT",)).events, random_events(7, 400, 30.0)):
    log = walk(events, int(events["t_ns"][-1]) // STEP_NS + 20)
    data = b"".join(np.ascontiguousarray(log[name]).tobytes() for name in log.dtype.names)
    print(len(log), hashlib.sha256(data).hexdigest())
"""


def printed(code: str, *, interpreted: bool) -> str:
    """Return what ``code`` prints in a process of its own."""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1" if interpreted else "0"}
    done = subprocess.run(  # noqa: S603 - our own code, no shell
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_signals_are_the_same_interpreted_and_compiled() -> None:
    compiled = printed(SIGNALS, interpreted=False)
    assert len(compiled.split()) == 4
    assert printed(SIGNALS, interpreted=True) == compiled
