"""Parameters of the short grid: typed, bounded, frozen; defaults and the original's values.

Bounds of safety values are the shipped values themselves on the side of more risk: they can be
tightened, never loosened or switched off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from core.errors import ConfigError
from core.params import bounded, meaning, plain_values, read_values

DECIDE_MS: Final = 100
"""Decisions are taken at multiples of this, UTC; every window is a whole number of them."""
STEP_NS: Final = DECIDE_MS * 1_000_000
STEPS_PER_SECOND: Final = 1_000 // DECIDE_MS
MAX_LATCH_S: Final = 30.0
"""Capacity of the latch of the pump signal, seconds."""
MAX_LAYERS: Final = 32
"""Capacity of a position, in layers."""
MAX_ZONES: Final = 5
"""Capacity of the inverse ladder, in orders."""
NET_SAMPLES: Final = 120
"""Capacity of the memory of net closes, exit slippages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortGridParams:
    """Every value a decision of the short grid may depend on, besides market data and state."""

    # Signals.
    pump_weight_return: float = bounded(0.0, 10.0, "", "z(r_2s) in the pump")
    pump_weight_imbalance: float = bounded(0.0, 10.0, "", "z(TI_2s) in the pump")
    pump_weight_queue: float = bounded(0.0, 10.0, "", "z(QI) in the pump")
    pump_halflife_s: float = bounded(0.5, 600.0, "s", "moments of the pump's z-scores")
    exhaust_halflife_s: float = bounded(0.5, 600.0, "s", "moments of the exhaustion's z-scores")
    pump_latch_s: float = bounded(0.0, MAX_LATCH_S, "s", "a pump is remembered this long")
    sigma_halflife_s: float = bounded(1.0, 3600.0, "s", "live volatility")
    ofi_halflife_s: float = bounded(0.1, 600.0, "s", "order flow imbalance")
    touch_halflife_s: float = bounded(0.5, 3600.0, "s", "mean size at the touch")
    warmup_s: float = bounded(10.0, 3600.0, "s", "of books before the first entry")
    rewarm_s: float = bounded(1.0, 3600.0, "s", "after an outage or restart")
    stale_ms: float = bounded(100.0, 3000.0, "ms", "a book older than this is stale")
    max_lag_ms: float = bounded(50.0, 500.0, "ms", "median delay of messages that is stale")

    # Volatility regime.
    vol_weight_1m: float = bounded(0.0, 1.0, "", "1m candles in the baseline")
    vol_weight_5m: float = bounded(0.0, 1.0, "", "5m candles in the baseline")
    vol_weight_15m: float = bounded(0.0, 1.0, "", "15m candles in the baseline")
    vol_lookback_1m_h: float = bounded(1.0, 72.0, "h", "1m candles looked at")
    vol_lookback_5m_h: float = bounded(2.0, 168.0, "h", "5m candles looked at")
    vol_lookback_15m_h: float = bounded(6.0, 720.0, "h", "15m candles looked at")
    vol_refresh_s: float = bounded(10.0, 3600.0, "s", "between readings of candles")
    vol_live_weight: float = bounded(0.0, 1.0, "", "live volatility in the blend")
    drift_min: float = bounded(0.1, 1.0, "x", "smallest blended over baseline")
    drift_max: float = bounded(1.0, 20.0, "x", "largest blended over baseline")
    tail_ratio: float = bounded(1.0, 100.0, "x baseline", "live volatility that pauses adds")
    tail_cooldown_s: float = bounded(0.0, 3600.0, "s", "pause of adds in a tail, up to 3 times it")
    spacing_horizon_s: float = bounded(1.0, 3600.0, "s", "horizon of the volatility in distances")
    baseline_live: bool = meaning("recordings without candles: live volatility as baseline")

    # Entry gates.
    spread_min_bps: float = bounded(0.0, 1000.0, "bps", "smallest spread")
    spread_max_bps: float = bounded(0.1, 1000.0, "bps", "largest spread")
    pump_threshold: float = bounded(-10.0, 20.0, "", "pump that triggers")
    exhaust_threshold: float = bounded(-10.0, 20.0, "", "exhaustion that triggers")
    trend_2s_bps: float = bounded(0.1, 1000.0, "bps", "largest rise in 2 s")
    trend_30s_bps: float = bounded(0.1, 1000.0, "bps", "largest move in 30 s")
    buy_ratio_max: float = bounded(0.0, 1.0, "", "buyers' share of the volume of 2 s")
    waterfall_max: float = bounded(0.1, 100.0, "x vol of 30 s", "largest recent fall")
    waterfall_halflife_s: float = bounded(1.0, 600.0, "s", "a fall is forgotten")
    funding_window_s: float = bounded(300.0, 28_800.0, "s", "no entries before a settlement")
    funding_max_bps: float = bounded(-75.0, 5.0, "bps", "shorts may pay at that settlement")
    squeeze_bps: float = bounded(1.0, 100.0, "bps", "largest median rise of all in 60 s")
    squeeze_share: float = bounded(0.0, 0.30, "of held", "symbols that may be deep")
    squeeze_symbols: int = bounded(1, 3, "symbols", "fewer deep ones are no squeeze")
    squeeze_layers: int = bounded(1, 4, "layers", "a position that is deep")
    min_edge_bps: float = bounded(0.0, 100.0, "bps", "smallest edge")
    edge_slope_bps: float = bounded(0.0, 100.0, "bps", "bonus per unit of strength")
    edge_bonus_max_bps: float = bounded(0.0, 100.0, "bps", "largest bonus")
    edge_buffer_bps: float = bounded(0.0, 100.0, "bps", "part of the cost")
    edge_slip_bps: float = bounded(0.0, 100.0, "bps", "exit slippage until measured")
    edge_z: float = bounded(0.0, 5.0, "", "deviations of net closes taken off")
    edge_min_samples: int = bounded(1, NET_SAMPLES, "closes", "needed for own figures")
    liquidity_share: float = bounded(0.001, 0.5, "of touch", "largest order")

    # Sizes and layers.
    min_notional: float = bounded(5.0, 80.0, "USDT", "first layer at the smallest spread")
    max_notional: float = bounded(5.0, 80.0, "USDT", "largest layer")
    size_growth: float = bounded(1.0, 5.0, "x", "a layer over the one before")
    size_spread_low_bps: float = bounded(0.0, 1000.0, "bps", "spread of the smallest size")
    size_spread_high_bps: float = bounded(0.1, 1000.0, "bps", "spread of the largest size")
    max_layers: int = bounded(1, MAX_LAYERS, "layers", "of a position")
    symbol_cap: float = bounded(5.0, 480.0, "USDT", "position and entries of a symbol")
    portfolio_cap: float = bounded(5.0, 2000.0, "USDT", "positions and entries of all")
    max_symbols_held: int = bounded(1, 25, "symbols", "held at once")
    spacing_growth: float = bounded(1.0, 8.0, "x", "a distance over the one before")
    add_loss_bps: float = bounded(0.0, 1000.0, "bps", "loss at the bid before an add")
    add_improve_bps: float = bounded(0.0, 100.0, "bps", "fall of the hurdle an add must bring")
    add_cooldown_s: float = bounded(0.0, 3600.0, "s", "between adds")
    adds_per_hour: int = bounded(1, 60, "adds", "of a symbol")
    fill_cooldown_s: float = bounded(0.0, 3600.0, "s", "after any entry fill")

    # Entry orders.
    entry_amend_ms: float = bounded(100.0, 60_000.0, "ms", "between amends")
    entry_max_amends: int = bounded(0, 100, "amends", "of one entry order")
    entry_max_age_s: float = bounded(0.5, 600.0, "s", "an entry order is cancelled")
    entry_min_age_s: float = bounded(0.1, 600.0, "s", "before gates cancel it")
    entry_latch_exit: float = bounded(-10.0, 20.0, "", "pump peak that cancels")
    reject_pause_ms: float = bounded(100.0, 60_000.0, "ms", "after a refused post-only order")

    # Exits.
    tp_spread_mult: float = bounded(0.0, 20.0, "spreads", "profit asked")
    min_tp_bps: float = bounded(0.0, 500.0, "bps", "profit asked at least")
    tp_halflife_s: float = bounded(60.0, 864_000.0, "s", "the profit asked decays")
    tp_decay_floor: float = bounded(0.0, 1.0, "x", "decay ends")
    tp_vol_capture: float = bounded(0.0, 5.0, "x vol", "profit asked")
    tp_vol_cap_bps: float = bounded(0.0, 1000.0, "bps", "of it")
    tp_amend_bps: float = bounded(0.1, 100.0, "bps", "smallest move of the take-profit")
    tp_amend_s: float = bounded(0.0, 3600.0, "s", "between such moves")
    fast_tp_imbalance: float = bounded(-1.0, 0.0, "", "TI_0.5 of a quick exit")
    fast_tp_bps: float = bounded(-100.0, 500.0, "bps", "profit of a quick exit")
    inverse_layers: int = bounded(2, MAX_LAYERS, "layers", "that start inverse mode")
    inverse_zones: int = bounded(2, MAX_ZONES, "orders", "of the inverse ladder")
    inverse_cap_s: float = bounded(60.0, 86_400.0, "s", "inverse mode lasts at most")
    inverse_max_bps: float = bounded(1.0, 1000.0, "bps", "farthest zone")
    signal_exit_net_bps: float = bounded(0.0, 100.0, "bps", "net asked of signal exits")
    signal_exit_fee_share: float = bounded(0.0, 5.0, "x fees", "net asked of signal exits")
    signal_max_age_ms: float = bounded(100.0, 60_000.0, "ms", "of signals a profit exit uses")
    exit_passive_ms: float = bounded(0.0, 10_000.0, "ms", "post-only part of an exit")
    exit_wait_ms: float = bounded(0.0, 300.0, "ms", "a loss exit waits for cancels")
    exit_retry_ms: float = bounded(50.0, 250.0, "ms", "between tries of an exit")
    exit_slip_bps: float = bounded(0.0, 100.0, "bps", "an exit goes through the ask")

    # Safety.
    leverage: int = bounded(1, 3, "x", "isolated margin")
    max_loss_bps: float = bounded(10.0, 500.0, "bps", "stop above the average entry")
    symbol_loss_usd: float = bounded(0.1, 25.0, "USDT", "of a symbol in 24 h")
    portfolio_loss_usd: float = bounded(0.1, 100.0, "USDT", "of all in 24 h")
    total_loss_usd: float = bounded(0.1, 300.0, "USDT", "since the start")
    max_fees_usd: float = bounded(0.1, 40.0, "USDT", "fees in 24 h")
    breaker_stops: int = bounded(1, 2, "stops", "within 24 h that bar a symbol")
    stop_move_bps: float = bounded(0.1, 5.0, "bps", "smallest move of the stop")
    stop_confirm_s: float = bounded(0.5, 3.0, "s", "a stop must be confirmed")
    local_stop_s: float = bounded(0.1, 1.0, "s", "mark beyond the stop")
    mark_silent_s: float = bounded(1.0, 5.0, "s", "mark silence that is safe mode")
    win_cooldown_s: float = bounded(0.0, 86_400.0, "s", "after a profitable take-profit")
    loss_cooldown_1_s: float = bounded(0.0, 86_400.0, "s", "after any other close")
    loss_cooldown_2_s: float = bounded(0.0, 86_400.0, "s", "after the second in a row")
    loss_cooldown_3_s: float = bounded(0.0, 86_400.0, "s", "after the third")
    loss_cooldown_4_s: float = bounded(0.0, 86_400.0, "s", "after the fourth and more")
    stop_cooldown_factor: float = bounded(1.5, 100.0, "x", "cooldown after a stop")
    orders_per_10s: int = bounded(10, 200, "orders", "budget")
    orders_per_minute: int = bounded(30, 900, "orders", "budget")
    entry_budget_share: float = bounded(0.25, 1.0, "of budget", "below it entries pause")
    deadman_symbols: int = bounded(1, 40, "symbols", "with a countdown at once")

    # Recovery debt.
    debt_ratio: float = bounded(0.0, 1.0, "x debt", "asked of the next trade")
    debt_cap_usd: float = bounded(0.0, 10_000.0, "USDT", "beyond it debt is forgiven")
    debt_hurdle_max_bps: float = bounded(0.0, 1000.0, "bps", "largest hurdle")
    debt_edge_max_bps: float = bounded(0.0, 1000.0, "bps", "of it asked of an entry's edge")
    debt_notional_floor: float = bounded(1.0, 1e6, "USDT", "smallest divisor of the hurdle")
    debt_lookback_h: float = bounded(1.0, 720.0, "h", "older debt is forgiven")
    debt_min_usd: float = bounded(0.0, 1000.0, "USDT", "less does not bar adds")

    # Costs.
    fee_maker_bps: float = bounded(-5.0, 100.0, "bps", "where the account's rate is unknown")
    fee_taker_bps: float = bounded(-5.0, 100.0, "bps", "where the account's rate is unknown")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ShortGridParams:
        """Validate ``values``, which must hold every parameter.

        Raises:
            ConfigError: a key is unknown or missing, a value of the wrong type or out of range, or
                two contradict each other.
        """
        params = cls(**read_values(cls, values))
        params.check_relations()
        return params

    def check_relations(self) -> None:
        """Raise ConfigError where values contradict each other."""
        ordered = (
            ("spread_min_bps", "<", "spread_max_bps"),
            ("size_spread_low_bps", "<", "size_spread_high_bps"),
            ("min_notional", "<=", "max_notional"),
            ("max_notional", "<=", "symbol_cap"),
            ("symbol_cap", "<=", "portfolio_cap"),
            ("entry_min_age_s", "<=", "entry_max_age_s"),
            ("symbol_loss_usd", "<=", "portfolio_loss_usd"),
            ("portfolio_loss_usd", "<=", "total_loss_usd"),
        )
        for low, sign, high in ordered:
            a, b = getattr(self, low), getattr(self, high)
            if not (a < b if sign == "<" else a <= b):
                raise ConfigError(f"{low} = {a} must be {sign} {high} = {b}")
        if self.vol_weight_1m + self.vol_weight_5m + self.vol_weight_15m <= 0.0:
            raise ConfigError(
                "vol_weight_1m, vol_weight_5m and vol_weight_15m are all 0; one must be above 0"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that ``from_dict`` accepts and JSON can hold."""
        return plain_values(self)
