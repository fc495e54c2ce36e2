"""The optimizer: what is searched, on which bars, how a parameter set is judged."""
