"""Candles, funding and rules: from the exchange, from files or made up, checked and cached."""
