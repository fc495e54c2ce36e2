"""The fixed grid's parameters as kernels read them, with what follows from them."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np

from core.records import Table, zeros
from engine.fixed_grid.params import MAX_RUNGS, FixedGridParams


class FixedParams:
    """``FixedGridParams`` as kernels read them, with what follows from them."""

    side: int  # LONG or SHORT, of the positions
    hedge_side: int
    sign: float  # +1 or -1
    step_s: int
    leverage: float
    quantity: float  # base
    quantity_usd: float  # quote
    take_profit: float
    grid_step: float
    max_orders: int
    cooldown_s: float  # 0 = none
    max_margin_usd: float
    max_position_size: float
    stop_loss_enabled: bool
    stop_share: float  # of entry
    stop_factor: float  # S over entry
    timeout_s: float
    stuck_share: float  # of the close price
    recovery_mode: int
    escalation_s: float
    escalation: int
    hedge_release_share: float
    hedge_max_s: float
    stop_price: float  # quote, 0 = none
    pause_price: float  # quote, 0 = none
    max_stop_orders: int
    funding_enabled: bool
    fee_maker: float
    fee_taker: float
    slippage: float
    through_share: float  # the path must pass a limit by this share of its price
    fill_through_ticks: int
    refuse_first_touch: bool
    intrabar_path: int
    n_ladder: int
    ladder: Annotated[Table[float], MAX_RUNGS]  # % of price


def freeze_params(params: FixedGridParams) -> FixedParams:
    """Return the kernels' view of ``params``, read-only."""
    record: Any = zeros(FixedParams)
    for name in record.dtype.names:
        if hasattr(params, name) and name not in {"stop_price", "pause_price"}:
            record[name] = getattr(params, name)
    record.side, record.hedge_side = int(params.direction), 1 - int(params.direction)
    record.stop_price = params.stop_price or 0.0
    record.pause_price = params.pause_price or 0.0
    record.stop_share = params.stop_loss_pct / 100.0
    record.stop_factor = 1.0 - params.sign * params.stop_loss_pct / 100.0
    record.timeout_s = params.position_timeout_min * 60.0
    record.stuck_share = params.stuck_distance_pct / 100.0
    record.escalation_s = params.escalation_min * 60.0
    record.hedge_release_share = params.hedge_release_pct / 100.0
    record.hedge_max_s = params.hedge_max_hours * 3600.0
    record.cooldown_s = max(params.wait_time, params.step_s) if params.wait_time > 0.0 else 0.0
    record.through_share = params.fill_through_bps / 10_000.0
    record.n_ladder = len(params.ladder_pct)
    record.ladder[: record.n_ladder] = params.ladder_pct
    np.asarray(record).flags.writeable = False
    typed: FixedParams = record
    return typed
