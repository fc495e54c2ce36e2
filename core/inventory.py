"""Avellaneda-Stoikov inventory model, in units relative to price.

Avellaneda and Stoikov, "High-frequency trading in a limit order book", Quantitative Finance 8
(2008), equations (29) and (30). Volatility is per bar and relative, the horizon ``T`` in bars,
inventory ``q`` in [-1, 1]. ``kappa`` is the decay of the fill rate per one-bar sigma of distance,
so the paper's decay per unit of relative distance is ``kappa / sigma``.
"""

from __future__ import annotations

import math

from core.jit import kernel


@kernel
def normalize_inventory(position_notional: float, cap: float) -> float:
    """Return the share of ``cap`` that is used, clamped to [0, 1]; 1 if there is no cap."""
    if cap <= 0.0:
        return 1.0
    return min(1.0, max(0.0, position_notional / cap))


@kernel
def calculate_reservation_price(
    mid_price: float,
    inventory_q: float,
    gamma: float,
    volatility: float,
    time_horizon: float = 96.0,
) -> float:
    """Return ``r = mid * (1 - q * gamma * sigma^2 * T)``; positive ``q`` is a long inventory."""
    return mid_price * (1.0 - inventory_q * gamma * volatility * volatility * time_horizon)


@kernel
def calculate_optimal_spread(
    volatility: float, gamma: float, kappa: float, time_horizon: float = 96.0
) -> float:
    """Return ``gamma*sigma^2*T + (2/gamma)*ln(1 + gamma*sigma/kappa)``, relative to price."""
    risk = gamma * volatility * volatility * time_horizon
    return risk + (2.0 / gamma) * math.log(1.0 + gamma * volatility / kappa)


@kernel
def get_skewed_grid_params(
    mid_price: float,
    inventory_q: float,
    gamma: float,
    volatility: float,
    kappa: float,
    time_horizon: float = 96.0,
    min_spacing: float = 0.0,
) -> tuple[float, float, float]:
    """Return buy spacing, sell spacing (both quote units) and the skewed anchor price."""
    half = calculate_optimal_spread(volatility, gamma, kappa, time_horizon) / 2.0 * mid_price
    spacing = max(half, min_spacing)
    anchor = calculate_reservation_price(mid_price, inventory_q, gamma, volatility, time_horizon)
    return spacing, spacing, anchor
