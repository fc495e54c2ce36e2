"""Makes the fixed grid's machine code ready: loads it, or compiles it the first time."""

from __future__ import annotations

import functools
from typing import Final

import numpy as np

from core.jit import has_machine_code
from core.market import MarketRules
from core.times import MINUTE_MS
from engine.contract import CLOSE_END, Bar, CloseAll, ExitsDone, Gap, Moment
from engine.fixed_grid.face import FixedGridFace
from engine.fixed_grid.params import FixedGridParams
from engine.fixed_grid.strategy import FixedGridStrategy

_PRICE: Final = 100.0
_N_BARS: Final = 15


def is_fixed_grid_compiled() -> bool:
    """Return whether the loop's machine code is on disk, so that starting is quick."""
    return has_machine_code("engine.fixed_grid.loop", "run_fixed_bars")


def is_live_fixed_grid_compiled() -> bool:
    """Return whether the machine code of a live session's steps and bookings is at hand."""
    return load_live_fixed_grid.cache_info().currsize > 0 or all(
        has_machine_code(f"engine.fixed_grid.{module}", name)
        for module, name in (
            ("decision", "protect"),
            ("decision", "arrange"),
            ("stops", "deal_stops"),
        )
    )


@functools.cache
def load_fixed_grid(params: FixedGridParams) -> None:
    """Run the compiled loop over a few flat candles, so that results' times hold no compiling."""
    import pandas as pd  # noqa: PLC0415 - only the border to frames needs it

    prices = dict.fromkeys(("open", "high", "low", "close"), np.full(_N_BARS, _PRICE))
    length = params.step_s * 1000 if params.step_s * 1000 < _N_BARS * MINUTE_MS else MINUTE_MS
    frame = pd.DataFrame({"timestamp": np.arange(_N_BARS) * length, **prices})
    FixedGridStrategy(params, MarketRules.inferred(_PRICE)).run(frame)


@functools.cache
def load_live_fixed_grid(params: FixedGridParams) -> None:
    """Load what a live session calls: a step of a ledger that is its own exchange, and bookings."""
    face = FixedGridFace(params, MarketRules.inferred(_PRICE), "")
    bar_ms = face.needs.bar_ms
    for bar in range(2):
        face.begin(Moment(bar * bar_ms, signal=True, price=_PRICE, prev_close=_PRICE))
        face.simulate(Gap(_PRICE, _PRICE))
        for phase in range(face.phases):
            face.exits(phase)
        face.simulate(ExitsDone())
        face.arrange()
        face.simulate(
            Bar(ts_ms=bar * bar_ms, open=_PRICE, high=_PRICE, low=0.99 * _PRICE, close=_PRICE)
        )
    face.restore_stops()
    face.simulate(CloseAll(_PRICE, CLOSE_END))
    face.take_trades()
