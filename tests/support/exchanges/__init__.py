"""Stand-ins for the exchange."""
