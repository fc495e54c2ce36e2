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

from core.code_cache import cache_folder
from core.jit import has_machine_code
from core.market import MarketRules
from core.orders import OrderKind
from core.processes import child_environment
from core.records import zeros, zeros_table
from core.signals import Signal, compute_signals
from core.times import BAR_MS
from engine.contract import (
    CLOSE_END,
    LIQUIDATION,
    CloseAll,
    Fill,
    ForeignClose,
    FundingPaid,
    Liquidation,
    LiquidationDecided,
    StopFired,
)
from engine.grid_v4.decision import PROTECT_PHASES
from engine.grid_v4.execution import execute_exits
from engine.grid_v4.types import new_state
from engine.grid_v4.walk import walk_bar, walk_gap
from engine.strategy import GridStrategyV4, create, read_config
from engine.types import Bar, Tape

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
            [sys.executable, "-c", command],
            cwd=ROOT,
            env=child_environment(),
            stderr=subprocess.DEVNULL,
        )
        compile_decisions()
    if helper is not None:
        helper.wait()  # if it failed, what it has not done is compiled below
    _strategy().run(_flat_candles())


def compile_notice() -> str:
    """Return what is said before code is compiled: how long it takes, and how often."""
    if cache_folder() is not None:
        return "compiling the strategy: about half a minute, this first time only"
    return (
        "compiling the strategy: about half a minute, and again at every start: machine code can "
        f"be kept neither in {ROOT / '.numba_cache'} nor in the user's cache; make one of them "
        "writable for this user alone (XDG_CACHE_HOME names another)"
    )


def load_live_code() -> None:
    """Load what a session runs; compile it where that was never done, and say so."""
    if not is_compiled():
        print(compile_notice(), file=sys.stderr, flush=True)  # noqa: T201
    load_machine_code()
    _rehearse()


def _rehearse() -> None:
    """Book one of everything an exchange can report, on a ledger nobody looks at."""
    strategy = create(read_config(None), MarketRules.inferred(_PRICE))

    def fill(kind: OrderKind, qty: float) -> None:
        strategy.book(
            Fill(
                ts_ms=BAR_MS,
                kind=kind,
                position_side="LONG",
                price=_PRICE,
                qty=qty,
                fee=0.0,
                order_price=_PRICE,
                level=0,
                label=LIQUIDATION,
                exits=((1, qty),),
            )
        )

    entry = Fill(
        ts_ms=BAR_MS,
        kind=OrderKind.ENTRY,
        position_side="LONG",
        price=_PRICE,
        qty=1.0,
        fee=0.0,
        level=0,
    )
    list(strategy.desired([entry]))
    fill(OrderKind.ENTRY, 1.0)
    strategy.restore_stops()
    fill(OrderKind.TAKE_PROFIT, 0.1)
    fill(OrderKind.EXIT, 0.1)
    strategy.book(FundingPaid(amount=0.0, rate=0.0, mark=_PRICE))
    strategy.book(StopFired("LONG", BAR_MS))
    fill(OrderKind.STOP, 0.1)
    strategy.book(ForeignClose(ts_ms=BAR_MS, position_side="LONG", price=_PRICE, qty=0.1))
    strategy.book(LiquidationDecided())
    strategy.book(Liquidation(ts_ms=BAR_MS, position_side="LONG", price=_PRICE, qty=0.1, fee=0.0))
    strategy.simulate(CloseAll(_PRICE, CLOSE_END))
    for position_side in ("LONG", "SHORT"):
        strategy.cancel(position_side, keep_stop=True)
    strategy.view()
    strategy.take_trades()


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
    return pd.DataFrame({"timestamp": row * BAR_MS, "volume": row + 1.0, **prices})
