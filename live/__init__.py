"""Live trading: the exchange, orders, fills, state on disk, health, sessions and their commands."""
