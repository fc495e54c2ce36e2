"""Market data of a running session: closed candles and funding rates."""
