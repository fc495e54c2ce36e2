"""Recorded and made-up ticks: what a backtest on order books and trades reads."""
