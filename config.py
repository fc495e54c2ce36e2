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
