"""Runs of a strategy over candles: one run, variants of it, step by step, several coins."""
