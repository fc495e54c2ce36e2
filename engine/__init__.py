"""The decisions and the ledger: a kit every strategy shares, and a room for each strategy."""
