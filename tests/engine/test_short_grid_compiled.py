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
SESSION = """
from backtest.ticks.demo import demo_ticks
from tests.engine.short_grid_venue import Session, Trouble
session = Session(demo_ticks(2), 4, Trouble(lost=0.05, twice=0.2, late=0.3, unknown=0.1),
                  warmup_s=20.0, trend_30s_bps=300.0, pump_threshold=0.5)
session.run(900)
print(len(session.commands), len(session.booked), session.commands, session.booked)
print([int(state.ledger.net_e8) for state in session.states])
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


@pytest.mark.slow
def test_decisions_are_the_same_interpreted_and_compiled() -> None:
    compiled = printed(SESSION, interpreted=False)
    assert int(compiled.split()[0]) > 30
    assert int(compiled.split()[1]) > 3
    assert printed(SESSION, interpreted=True) == compiled
