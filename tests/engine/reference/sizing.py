"""Order size and caps: Kelly, cooldown after stops, funding harvest, minimum order, liquidity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.engine.reference.ledger import Account, Step
from tests.engine.reference.market import LONG

REMEMBERED_CLOSED_FILLS = 500


def kelly_scale(
    params: Mapping[str, Any], closed_fills: list[tuple[int, float]], regime: int
) -> float:
    """Return clip(kelly_fraction * K, kelly_min, 1), K = W/avg_loss - (1-W)/avg_win.

    Both sides' fully closed fills that were entered in ``regime`` count, the last
    ``kelly_window`` of them among the last 500 closed fills.
    """
    if not params["kelly_enabled"]:
        return 1.0
    remembered = closed_fills[-REMEMBERED_CLOSED_FILLS:]
    recent = [gain for entered, gain in remembered if entered == regime]
    recent = recent[-params["kelly_window"] :]
    if len(recent) < params["kelly_min_trades"]:
        return float(params["kelly_default"])
    wins = [gain for gain in recent if gain > 0.0]
    losses = [-gain for gain in recent if gain <= 0.0]
    if sum(losses) == 0.0:
        return 1.0
    if not wins:
        return float(params["kelly_min"])
    share = len(wins) / len(recent)
    kelly = share / (sum(losses) / len(losses)) - (1.0 - share) / (sum(wins) / len(wins))
    return float(min(max(params["kelly_fraction"] * kelly, params["kelly_min"]), 1.0))


def cooldown_scale(account: Account, bar: int) -> float:
    """Return the scale while the last cluster of stop events is recent."""
    params = account.params
    if not params["stop_cooldown_enabled"] or account.cooldown_from is None:
        return 1.0
    if bar - account.cooldown_from <= params["stop_cooldown_bars"]:
        return float(params["stop_cooldown_factor"])
    return 1.0


def harvest_scale(params: Mapping[str, Any], step: Step, side: int) -> float:
    """Return the scale for the side that receives or pays high funding in NOISE."""
    if not params["funding_harvest_enabled"] or step.regime != 0:
        return 1.0
    if abs(step.funding_rate) <= params["funding_harvest_threshold"]:
        return 1.0
    pays = side * step.funding_rate > 0.0
    return float(params["funding_harvest_cut"] if pays else params["funding_harvest_boost"])


def entry_lots(account: Account, step: Step, side: int, equity: float, price: float) -> int:
    """Return the lots of a new entry at ``price``; 0 when the level is passed over.

    qty = equity * order_pct * kelly * cooldown * harvest * leverage / price. Where only the
    scales bring it under the exchange's minimum, the minimum is placed.
    """
    params, market = account.params, account.market
    scale = kelly_scale(params, account.closed_fills, step.regime)
    scale *= cooldown_scale(account, step.bar) * harvest_scale(params, step, side)
    full = equity * params["order_pct"] * params["leverage"] / price
    lots = market.lots_down(full * scale)
    if not market.is_too_small(lots, price):
        return lots
    if not market.is_too_small(market.lots_down(full), price):
        return market.smallest_entry(price)
    return 0


def position_cap(account: Account, step: Step, side: int, equity: float) -> float:
    """Return cap = equity * max_position_pct * leverage * liquidity * reserve, in quote."""
    params = account.params
    cap = equity * params["max_position_pct"] * params["leverage"]
    if step.signal["volume_ratio"] < params["low_volume_threshold"]:
        cap *= params["low_volume_factor"]
    if side == LONG and params["trailing_enabled"] and not step.trailing_active:
        cap *= 1.0 - params["trailing_reserve_pct"]
    return float(cap)
