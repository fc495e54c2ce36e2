"""The commands of live_trade.py, their arguments read."""
