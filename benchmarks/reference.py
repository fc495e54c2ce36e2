"""A tuned backtest loop with simple rules: what this machine can do, to which figures compare.

Longs and shorts on a static grid: enter at each level away from the anchor, take profit one level
back, close a side by a stop, centre anew where a side holds nothing. No regime, no pruning, no
sizes by equity, no resting orders. It is compiled with the settings of the strategy's loop and
writes a row of equity and quantities at every bar.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from core.jit import kernel

N_LEVELS: Final = 10
SPACING: Final = 0.01
STOP: Final = 0.15
NOTIONAL: Final = 500.0
FEE: Final = 0.0002

Floats = npt.NDArray[np.float64]


@kernel
def run_reference(
    opens: Floats, highs: Floats, lows: Floats, closes: Floats, slots: Floats, log: Floats
) -> int:
    """Trade a static grid over candles; return the number of trades.

    Args:
        opens: quote, (n_bars,).
        highs: likewise.
        lows: likewise.
        closes: likewise.
        slots: overwritten, base held from each level, and the anchor, (2, N_LEVELS + 1).
        log: written, at every close: equity, wallet, quantity of longs and of shorts, (n_bars, 4).
    """
    slots[:, :] = 0.0
    wallet, trades = 10_000.0, 0
    for i in range(len(opens)):
        unrealized = 0.0
        for side in range(2):
            sign = 1.0 if side == 0 else -1.0
            if i == 0 or log[i - 1, 2 + side] == 0.0:
                slots[side, N_LEVELS] = opens[i]
            anchor = slots[side, N_LEVELS]
            reached = lows[i] if side == 0 else -highs[i]
            returned = highs[i] if side == 0 else -lows[i]
            stop = sign * anchor * (1.0 - sign * STOP)
            qty, cost, level = 0.0, 0.0, anchor
            for k in range(N_LEVELS):
                target = level
                level = level / (1.0 + SPACING) if side == 0 else level * (1.0 + SPACING)
                held = slots[side, k]
                if held > 0.0 and (returned >= sign * target or reached <= stop):
                    price = target if returned >= sign * target else sign * stop
                    wallet += sign * (price - level) * held - FEE * price * held
                    slots[side, k] = 0.0
                    trades += 1
                elif held == 0.0 and reached <= sign * level and reached > stop:
                    slots[side, k] = NOTIONAL / level
                    wallet -= FEE * NOTIONAL
                    trades += 1
                qty += slots[side, k]
                cost += slots[side, k] * level
            log[i, 2 + side] = qty
            unrealized += sign * (closes[i] * qty - cost)
        log[i, 0], log[i, 1] = wallet + unrealized, wallet
    return trades


class Reference:
    """The loop over fixed candles.

    Args:
        candles: a frame with the columns open high low close.
    """

    def __init__(self, candles: Any) -> None:
        self._opens, self._highs, self._lows, self._closes = (
            np.array(candles[name], dtype=np.float64) for name in ("open", "high", "low", "close")
        )
        self._slots = np.zeros((2, N_LEVELS + 1))
        self.log = np.zeros((len(candles["open"]), 4))

    def __call__(self) -> int:
        """Run it once; return the number of trades."""
        return run_reference(
            self._opens, self._highs, self._lows, self._closes, self._slots, self.log
        )
