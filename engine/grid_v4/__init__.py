"""GridStrategyV4: when its grid is made, which orders rest, how it is protected and pruned."""
