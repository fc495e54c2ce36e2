"""Backtests and the optimizer: market data, runs, results, reports, and how far to trust them."""
