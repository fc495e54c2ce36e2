"""Tests of the backtest's rooms."""
