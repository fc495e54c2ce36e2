"""Makes the machine code ready: loads it, or compiles it the first time, on two processors.

Compiling is mostly single-threaded work inside numba. The kernels of the first run fall into two
halves that share little: the decisions, and the indicators with the simulated exchange. A second
process compiles one of them into the common cache on disk.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

from core.jit import has_machine_code
from core.market import MarketRules
from core.records import zeros, zeros_table
from core.signals import Signal, compute_signals
from engine.execution import execute_exits
from engine.grid_v4.decision import PROTECT_PHASES
from engine.matching import walk_bar, walk_gap
from engine.strategy import GridStrategyV4
from engine.types import Bar, Tape, new_state

ROOT: Final = Path(__file__).resolve().parent.parent
_PRICE: Final = 100.0
_N_BARS: Final = 3


def is_compiled() -> bool:
    """Return whether the loop's machine code is on disk, so that starting is quick."""
    return has_machine_code("engine.grid_v4.loop", "run_bars")


@functools.cache
def load_machine_code() -> None:
    """Run the compiled loop over three flat bars, compiling first where there is no machine code.

    Results' times then hold neither compiling nor loading.
    """
    helper = None
    if not is_compiled() and (os.cpu_count() or 1) > 1:
        command = "from engine.compiling import compile_exchange; compile_exchange()"
        helper = subprocess.Popen(  # noqa: S603 - our own code, no shell
            [sys.executable, "-c", command], cwd=ROOT, stderr=subprocess.DEVNULL
        )
        compile_decisions()
    if helper is not None:
        helper.wait()  # if it failed, what it has not done is compiled below
    _strategy().run(_flat_candles())


def compile_decisions() -> None:
    """Compile ``protect`` and ``arrange`` and what they call."""
    strategy = _strategy()
    signal = zeros_table(Signal, 1)[0]
    strategy.open_step(1, 0, _PRICE, _PRICE, signal, 0.0)
    for phase in range(PROTECT_PHASES):
        strategy.protect(phase)
    strategy.arrange()


def compile_exchange() -> None:
    """Compile the indicators and the simulated exchange."""
    strategy = _strategy()
    market, params = strategy.rules, strategy.frozen_params
    state, tape, bar = new_state(_PRICE), zeros(Tape), zeros_table(Bar, 1)[0]
    walk_bar(state, params, market, bar, tape)
    walk_gap(state, params, market, _PRICE, _PRICE, tape)
    execute_exits(state, params, market, tape)
    candles = _flat_candles()
    compute_signals(
        candles["timestamp"],
        candles["high"],
        candles["low"],
        candles["close"],
        candles["volume"],
        strategy.params,
    )


def _strategy() -> GridStrategyV4:
    return GridStrategyV4(market=MarketRules.inferred(_PRICE))


def _flat_candles() -> Any:
    import pandas as pd  # noqa: PLC0415 - only the border to frames needs it

    row = np.arange(_N_BARS)
    prices = dict.fromkeys(("open", "high", "low", "close"), np.full(_N_BARS, _PRICE))
    return pd.DataFrame({"timestamp": row * 900_000, "volume": row + 1.0, **prices})
