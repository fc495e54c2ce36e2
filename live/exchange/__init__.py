"""Binance: the only room that knows it. Connection, budget, account, market, orders, errors."""
