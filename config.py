"""Everything a person edits, as plain dicts.

``core.params`` holds the type, the bounds, the unit and the meaning of every strategy parameter
and validates these values once, when they are read. ``apply_optimized_params.py`` rewrites values
of ``STRATEGY_PARAMS`` in place and keeps the comments.
"""

STRATEGY_PARAMS = {
    # --- account -------------------------------------------------------------------------------
    "initial_capital": 10_000.0,  # USDT
    "leverage": 1.0,
    "allow_short": True,
    # --- indicators ----------------------------------------------------------------------------
    "kama_period": 10,
    "kama_fast": 2,
    "kama_slow": 30,
    "atr_period": 14,
    "adx_period": 14,
    "z_score_period": 20,
    "volatility_period": 14,
    # --- regime --------------------------------------------------------------------------------
    "regime_enabled": True,
    "regime_timeframe_mult": 4,
    "regime_threshold": 0.30,
    "er_trend_threshold": 0.5,
    "adx_veto_enabled": True,
    "adx_trend_threshold": 25.0,
    "regime_hysteresis_bars": 3,
    "use_ml_regime": False,
    "gmm_seed": 42,
    # --- grid ----------------------------------------------------------------------------------
    "grid_mode": "geometric",
    "grid_levels": 5,
    "grid_spacing_k": 4.0,
    "spacing_floor": 0.020,
    "adaptive_floor_scale": 1.0,
    "regen_drift_mult": 2.0,
    "round_number_nudge": 0.0015,
    "tp_concentration": 1.0,
    "tp_below_entry": False,
    # --- Avellaneda-Stoikov --------------------------------------------------------------------
    "skew_enabled": True,
    "optimal_spread_enabled": True,
    "gamma": 0.5,
    "kappa": 1.5,
    "as_time_horizon": 96.0,
    # --- trailing up ---------------------------------------------------------------------------
    "trailing_enabled": True,
    "trailing_activation_er": 0.65,
    "trailing_reserve_pct": 0.25,
    "trailing_cap_price": 0.0,
    # --- size ----------------------------------------------------------------------------------
    "order_pct": 0.05,
    "max_position_pct": 0.7,
    "max_inventory_per_side": 5,
    "max_capital_pct": 0.95,
    "low_volume_threshold": 0.3,
    "low_volume_factor": 0.7,
    "kelly_enabled": True,
    "kelly_fraction": 0.25,
    "kelly_min": 0.25,
    "kelly_default": 0.5,
    "kelly_window": 50,
    "kelly_min_trades": 20,
    "stop_cooldown_enabled": True,
    "stop_cooldown_bars": 48,
    "stop_cooldown_thresh": 2,
    "stop_cooldown_factor": 0.5,
    # --- funding -------------------------------------------------------------------------------
    "funding_enabled": True,
    "funding_bias_enabled": True,
    "funding_threshold": 0.0003,
    "funding_bias_factor": 1.2,
    "funding_harvest_enabled": True,
    "funding_harvest_threshold": 0.0002,
    "funding_harvest_boost": 1.25,
    "funding_harvest_cut": 0.75,
    # --- circuit breaker and stops -------------------------------------------------------------
    "circuit_breaker_enabled": True,
    "halt_z_threshold": -4.0,
    "resume_z_threshold": -1.0,
    "stop1_enabled": True,
    "stop2_enabled": True,
    "atr_sl_mult": 5.0,
    "stop1_mult": 1.0,
    "stop2_mult": 1.5,
    "stop1_close_pct": 0.5,
    # --- pruning -------------------------------------------------------------------------------
    "prune_enabled": ("DEVIANCE", "OLDEST", "GAP", "FUNDING", "OFFSET"),
    "prune_cooldown_bars": 4,
    "deviance_sigma": 5.0,
    "max_position_age_hours": 72.0,
    "gap_prune_mult": 6.0,
    "funding_cost_ratio": 0.5,
    "offset_min_loss": 1.0,
    "offset_prune_ratio": 3.0,
    # --- value at risk -------------------------------------------------------------------------
    "max_drawdown_pct": 0.15,
    "var_block_enabled": True,
    "var_horizon_bars": 96.0,
    "var_deleverage_enabled": True,
    "var_deleverage_ratio": 0.75,
    "high_corr_threshold": 0.80,
    # --- costs and matching --------------------------------------------------------------------
    "fee_maker": 0.0002,
    "fee_taker": 0.0005,
    "slippage": 0.0005,
    "liquidation_fee": 0.0125,
    "fill_through_bps": 0.0,
    "fill_through_ticks": 0,
    "refuse_first_touch": False,
    "intrabar_path": "auto",
}

# Complete alternatives, chosen with ``--preset``: each lists what it changes.
PRESETS = {
    "shipped": {},
    # The values in the strategy's description. They trade about ten times as often.
    "documented": {
        "grid_spacing_k": 1.0,
        "spacing_floor": 0.005,
        "grid_levels": 10,
        "max_inventory_per_side": 10,
        "tp_concentration": 0.6,
        "regen_drift_mult": 1.0,
        "regime_threshold": 0.15,
        "regime_timeframe_mult": 1,
        "atr_sl_mult": 3.5,
        "deviance_sigma": 3.0,
        "gap_prune_mult": 3.0,
        "offset_prune_ratio": 1.0,
        "max_position_age_hours": 24.0,
        "halt_z_threshold": -3.0,
        "low_volume_threshold": 0.5,
        "var_horizon_bars": 1.0,
    },
}

# The fixed grid (``--strategy fixed_grid``): one direction, a fixed take-profit and step.
FIXED_GRID_PARAMS = {
    # --- account -------------------------------------------------------------------------------
    "initial_capital": 10_000.0,  # USDT
    "leverage": 1.0,
    "direction": "buy",
    "step_s": 60,  # s; candles must not be coarser
    # --- orders --------------------------------------------------------------------------------
    "quantity": 0.0,  # base; or, in USDT:
    "quantity_usd": 200.0,
    "take_profit": 0.008,
    "grid_step": 0.002,
    "max_orders": 25,
    "wait_time": 10.0,  # s
    "max_margin_usd": 5_000.0,
    "max_position_size": 0.0,
    # --- stops ---------------------------------------------------------------------------------
    "stop_loss_enabled": True,
    "stop_loss_pct": 5.0,
    "stop_price": None,
    "pause_price": None,
    "max_stop_orders": 8,  # the exchange allows 10 conditional orders
    # --- recovery of stuck positions -----------------------------------------------------------
    "position_timeout_min": 60.0,
    "stuck_distance_pct": 3.0,
    "recovery_mode": "ladder",
    "ladder_pct": (1.5, 3.0, 4.5),
    "escalation_min": 120.0,
    "escalation": "alert",
    "hedge_release_pct": 0.5,
    "hedge_max_hours": 24.0,
    # --- costs and matching --------------------------------------------------------------------
    "funding_enabled": True,
    "fee_maker": 0.0002,
    "fee_taker": 0.0005,
    "slippage": 0.0005,
    "liquidation_fee": 0.0125,
    "fill_through_bps": 0.0,
    "fill_through_ticks": 0,
    "refuse_first_touch": False,
    "intrabar_path": "auto",
}

FIXED_GRID_PRESETS = {
    "shipped": {},
    # The values in the strategy's description. With them recovery cannot happen: the stop acts
    # before a position counts as stuck.
    "original": {"stop_loss_pct": 2.0},
}

# The short grid (``--strategy short_grid``): many coins, short only, on books and trades.
# Values of safety can be tightened, never loosened.
SHORT_GRID_PARAMS = {
    # Signals.
    "pump_weight_return": 0.4,
    "pump_weight_imbalance": 0.8,
    "pump_weight_queue": 0.6,
    "pump_halflife_s": 5.0,
    "exhaust_halflife_s": 3.0,
    "pump_latch_s": 5.0,
    "sigma_halflife_s": 30.0,
    "ofi_halflife_s": 2.0,
    "touch_halflife_s": 30.0,
    "warmup_s": 60.0,
    "rewarm_s": 30.0,
    "stale_ms": 3000.0,
    "max_lag_ms": 500.0,
    # Volatility regime.
    "vol_weight_1m": 0.5,
    "vol_weight_5m": 0.3,
    "vol_weight_15m": 0.2,
    "vol_lookback_1m_h": 6.0,
    "vol_lookback_5m_h": 48.0,
    "vol_lookback_15m_h": 168.0,
    "vol_refresh_s": 120.0,
    "vol_live_weight": 0.45,
    "drift_min": 0.8,
    "drift_max": 3.0,
    "tail_ratio": 2.2,
    "tail_cooldown_s": 20.0,
    "spacing_horizon_s": 60.0,
    "baseline_live": False,
    # Entry gates.
    "spread_min_bps": 7.0,
    "spread_max_bps": 40.0,
    "pump_threshold": 2.0,
    "exhaust_threshold": 1.0,
    "trend_2s_bps": 12.0,
    "trend_30s_bps": 30.0,
    "buy_ratio_max": 0.72,
    "waterfall_max": 3.0,
    "waterfall_halflife_s": 30.0,
    "funding_window_s": 300.0,
    "funding_max_bps": 5.0,
    "squeeze_bps": 100.0,
    "squeeze_share": 0.30,
    "squeeze_symbols": 3,
    "squeeze_layers": 4,
    "min_edge_bps": 2.0,
    "edge_slope_bps": 1.0,
    "edge_bonus_max_bps": 5.0,
    "edge_buffer_bps": 0.3,
    "edge_slip_bps": 0.5,
    "edge_z": 0.75,
    "edge_min_samples": 5,
    "liquidity_share": 0.5,
    # Sizes and layers.
    "min_notional": 50.0,
    "max_notional": 80.0,
    "size_growth": 1.5,
    "size_spread_low_bps": 7.0,
    "size_spread_high_bps": 21.0,
    "max_layers": 6,
    "symbol_cap": 480.0,
    "portfolio_cap": 2000.0,
    "max_symbols_held": 25,
    "spacing_growth": 2.0,
    "add_loss_bps": 35.0,
    "add_improve_bps": 0.75,
    "add_cooldown_s": 20.0,
    "adds_per_hour": 8,
    "fill_cooldown_s": 2.0,
    # Entry orders.
    "entry_amend_ms": 1000.0,
    "entry_max_amends": 6,
    "entry_max_age_s": 8.0,
    "entry_min_age_s": 2.0,
    "entry_latch_exit": 1.0,
    "reject_pause_ms": 500.0,
    # Exits.
    "tp_spread_mult": 1.2,
    "min_tp_bps": 10.0,
    "tp_halflife_s": 1800.0,
    "tp_decay_floor": 0.5,
    "tp_vol_capture": 0.15,
    "tp_vol_cap_bps": 50.0,
    "tp_amend_bps": 2.0,
    "tp_amend_s": 30.0,
    "fast_tp_imbalance": -0.25,
    "fast_tp_bps": 10.0,
    "inverse_layers": 3,
    "inverse_zones": 5,
    "inverse_cap_s": 1800.0,
    "inverse_max_bps": 150.0,
    "signal_exit_net_bps": 1.0,
    "signal_exit_fee_share": 0.2,
    "signal_max_age_ms": 1200.0,
    "exit_passive_ms": 200.0,
    "exit_wait_ms": 300.0,
    "exit_retry_ms": 250.0,
    "exit_slip_bps": 5.0,
    # Safety.
    "leverage": 3,
    "max_loss_bps": 500.0,
    "symbol_loss_usd": 25.0,
    "portfolio_loss_usd": 100.0,
    "total_loss_usd": 300.0,
    "max_fees_usd": 40.0,
    "breaker_stops": 2,
    "stop_move_bps": 5.0,
    "stop_confirm_s": 3.0,
    "local_stop_s": 1.0,
    "mark_silent_s": 5.0,
    "win_cooldown_s": 8.0,
    "loss_cooldown_1_s": 8.0,
    "loss_cooldown_2_s": 30.0,
    "loss_cooldown_3_s": 90.0,
    "loss_cooldown_4_s": 300.0,
    "stop_cooldown_factor": 1.5,
    "orders_per_10s": 200,
    "orders_per_minute": 900,
    "entry_budget_share": 0.25,
    "deadman_symbols": 40,
    # Recovery debt.
    "debt_ratio": 0.25,
    "debt_cap_usd": 75.0,
    "debt_hurdle_max_bps": 25.0,
    "debt_edge_max_bps": 5.0,
    "debt_notional_floor": 450.0,
    "debt_lookback_h": 24.0,
    "debt_min_usd": 0.10,
    # Costs: the exchange's lowest tier.
    "fee_maker_bps": 2.0,
    "fee_taker_bps": 5.0,
}
SHORT_GRID_PRESETS = {
    "shipped": {},
    # The original's values where they differ; safety still applies.
    "short_grid_documented": {
        "pump_latch_s": 0.0,
        "warmup_s": 30.0,
        "max_layers": 32,
        "fast_tp_bps": -10.0,
        "fee_maker_bps": 2.52,
        "fee_taker_bps": 3.36,
        "loss_cooldown_2_s": 8.0,
        "loss_cooldown_3_s": 8.0,
        "loss_cooldown_4_s": 8.0,
    },
}

# Several coins on one account (``main.py --portfolio``).
PORTFOLIO_CONFIG = {
    "portfolio_var_enabled": True,  # entries are bounded by the value at risk of all positions
    "portfolio_drawdown_pct": 0.15,  # its budget, of the sum of equity
}

BACKTEST_CONFIG = {
    "coins": ("BTC", "ETH", "SOL"),
    "start": "2024-01-01",
    "end": "",  # empty: now
    "timeframe": "15m",
    "warmup_bars": 3_000,  # loaded before ``start``, not traded
    "cache_dir": "data/cache",
    "output_dir": "data/output",
    "chart_dir": "data/charts",
    # Exchange rules per coin; other coins are looked up at the exchange.
    "markets": {
        "BTC": {"tick_size": 0.1, "step_size": 0.001, "min_qty": 0.001, "min_notional": 100.0},
        "ETH": {"tick_size": 0.01, "step_size": 0.001, "min_qty": 0.001, "min_notional": 20.0},
        "SOL": {
            "tick_size": 0.01,
            "step_size": 0.01,
            "min_qty": 0.01,
            "min_notional": 5.0,
            "liquidation_fee": 0.015,
        },
    },
}

LIVE_CONFIG = {
    "state_dir": "data/live_state",
    "log_dir": "data/live_logs",
    "max_capital_pct": 0.95,  # of the wallet, whatever --capital says
    "instance": "a",  # in every order's identity, for the exchange's order history; see RUNBOOK.md
    # --- the step -----------------------------------------------------------------------------
    "candle_grace_s": 0.25,  # wait after a candle's close before reading it
    "poll_s": 5.0,  # between looks at fills while a candle forms
    "buffer_bars": 3_000,  # candles the indicators are computed from, at least
    "stop_trigger": "CONTRACT_PRICE",  # price that fires the wick stop; or "MARK_PRICE"
    # --- the exchange -------------------------------------------------------------------------
    "request_timeout_s": 10.0,
    "recv_window_ms": 10_000,
    "max_weight_share": 0.5,  # of the exchange's limits that are used before waiting
    "retries": 4,  # of a request that may safely be repeated
    # --- health -------------------------------------------------------------------------------
    "heartbeat_max_s": 1_200.0,  # alert when no step has ended for this long
    "position_sync_tolerance_pct": 2.0,
    "equity_warn_pct": 10.0,  # loss against start or peak that alerts
    "equity_emergency_pct": 25.0,  # loss that closes everything and stops
    "account_emergency_pct": 25.0,  # the same of all sessions of an account together
    "max_errors_in_row": 5,  # refusals; an exchange that does not answer is an outage
    "max_outage_h": 12.0,  # an outage ends the session after so long; until then entries are off
    "clock_warn_ms": 1_000,
    "candle_max_age_s": 120.0,  # alert when the newest closed candle is older than that
    "snapshots": 10,
    "alert_urls": (),  # leave it empty: addresses are secrets and belong into GRID_ALERT_URLS
}

# What optimizer.py searches. An entry commented out stays at its value in STRATEGY_PARAMS.
OPTIMIZER_SPACE = {
    "grid_spacing_k": {"type": "float", "low": 0.8, "high": 6.0},
    "spacing_floor": {"type": "float", "low": 0.004, "high": 0.030},
    "tp_concentration": {"type": "float", "low": 0.4, "high": 1.0},
    "grid_levels": {"type": "int", "low": 2, "high": 6},
    "regen_drift_mult": {"type": "float", "low": 1.0, "high": 4.0},
    "adaptive_floor_scale": {"type": "float", "low": 0.5, "high": 3.0},
    "gamma": {"type": "float", "low": 0.3, "high": 2.0},
    "kappa": {"type": "float", "low": 0.5, "high": 3.0},
    "max_inventory_per_side": {"type": "int", "low": 2, "high": 6},
    "as_time_horizon": {"type": "float", "low": 32.0, "high": 288.0},
    "regime_hysteresis_bars": {"type": "int", "low": 1, "high": 6},
    "adx_trend_threshold": {"type": "float", "low": 20.0, "high": 35.0},
    "atr_sl_mult": {"type": "float", "low": 2.0, "high": 10.0},
    "max_position_pct": {"type": "float", "low": 0.3, "high": 0.7},
    "stop_cooldown_bars": {"type": "int", "low": 24, "high": 96},
    "low_volume_threshold": {"type": "float", "low": 0.30, "high": 0.70},
    "deviance_sigma": {"type": "float", "low": 2.5, "high": 6.0},
    "gap_prune_mult": {"type": "float", "low": 2.5, "high": 7.0},
    "offset_prune_ratio": {"type": "float", "low": 0.8, "high": 4.0},
    "prune_cooldown_bars": {"type": "int", "low": 1, "high": 8},
    "kelly_window": {"type": "int", "low": 30, "high": 100},
    "funding_harvest_threshold": {"type": "float", "low": 0.0001, "high": 0.0005},
}

# The same for the fixed grid.
FIXED_GRID_SPACE = {
    "take_profit": {"type": "float", "low": 0.002, "high": 0.020},
    "grid_step": {"type": "float", "low": 0.001, "high": 0.010},
    "max_orders": {"type": "int", "low": 5, "high": 40},
    "wait_time": {"type": "float", "low": 0.0, "high": 3600.0},
    "stop_loss_pct": {"type": "float", "low": 1.0, "high": 10.0},
    "position_timeout_min": {"type": "float", "low": 15.0, "high": 720.0},
    "stuck_distance_pct": {"type": "float", "low": 0.5, "high": 6.0},
    "escalation_min": {"type": "float", "low": 30.0, "high": 1440.0},
    "hedge_release_pct": {"type": "float", "low": 0.1, "high": 2.0},
    "hedge_max_hours": {"type": "float", "low": 2.0, "high": 72.0},
}
