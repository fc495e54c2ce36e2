"""How far a result can be believed: lookahead, warm-up, parity, bands, worth of mechanisms."""
