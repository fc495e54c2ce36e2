"""A slow, obvious implementation of the fixed grid, used as an oracle for the compiled one.

It is written from the strategy's definition alone and imports nothing of the project, so that an
error shared with the engine is unlikely. Lists, dataclasses and floats; clarity over speed.

Where the definition is silent, this holds here:

Time and candles
 1. The first and the last 15-minute interval are no exception: cut by the ends of the data, they
    are walked as one candle with one step (and counted as holes).
 2. An interval without any candle and without a 15-minute candle of its own is not walked; the
    next candle's gap leg jumps it, and funding settled in it is paid at the last close before it.
 3. ``bar`` counts walked candles, so the equity curve has one value for each of these; a hole's
    records carry the open time of its interval.
 4. With several candles in a step, the path jumps to the open of each; only the one that begins a
    step has a gap leg (where stops fill at its open).
 5. A settlement is due in (open, next candle's open], at the candle's close, after the walk.

Entries
 6. The order that would rest is ``e`` where there is no working order or ``e`` is nearer, else the
    working order. The gates test it in the order of A15.18; a replacement that only the cooldown
    stops leaves the working order where it is, and counts.
 7. "Within 1e-9" of sums of money is relative, like 1e-12 of thresholds.
 8. An entry price that would be 0 counts as ``blocked_minimum``.
 9. The size gate counts the positions' own legs, not their hedges.
10. After ``stop_price`` the run goes on to its end without a position: every later step counts
    ``blocked_stopped``. A step with a liquidation counts no gate.
11. A stop at ``stop_price`` off the tick lies on the next tick beyond it; phase 1 judges the
    number itself. A stop fired at it stops the session although ``p`` has come back.

Exits
12. A close order that is not passive lies at the first tick at or beyond ``p`` + 1 tick.
13. No order at a price under one tick: a short's take-profit rests there at the lowest.
14. An exit order keeps its age while its price stands. Stops at one price fire in the order of
    their oldest position. A shared stop whose last position left is gone.
15. Rungs under the minimum quantity join the next nearer one; a first one under it takes the next.
16. Labels of hedge legs: STOP_PRICE, LIQUIDATION and CLOSE_END as any other leg;
    RECOVERY_HEDGE_CLOSE in phase 4. A hedge's own records have their own ``fill_id``, the cycle
    and slot of their position, and the opposite direction.
17. The position's leg closed at a hedge's end is a loss exit.
18. A hedge under the exchange's minimum for an opening order (notional at ``h``) is refused:
    RECOVERY_CLOSE.
19. Phase 4 asks each hedged position for release, then for its end, worst position first. The end
    comes at ``hedge_max_hours``, escalation at ``escalation_min`` (inclusive).
20. The check of a loss beyond the stop comes before "a second time"; both are RECOVERY_CLOSE.
    ``stuck_total`` counts a cycle once. ``recovery_attempts`` counts an escalation's close too.
21. A liquidation closes long legs first, worst first on each side; the fee is split by notional.

Figures
22. Returns begin with the capital; buy and hold buys at the first open. Exposure, ``stuck_now``
    and ``current_exposure`` (notional of both legs at the last close) are before CLOSE_END.
    ``total_trades`` and what follows from round trips include CLOSE_END.
23. Where no stop is wanted, none is missing for the health. The age for the health restarts on
    release like ``opened``; ``hold_minutes_median`` counts from the first execution, in candles'
    times.
24. ``stop_execution_s``, mismatches and ``double_exit`` exist live only: NaN and 0 here.
"""

from __future__ import annotations

from tests.engine.fixed_grid_reference.run import ReferenceRun, run_fixed_grid

__all__ = ["ReferenceRun", "run_fixed_grid"]
