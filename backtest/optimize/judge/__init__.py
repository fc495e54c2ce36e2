"""The judgement of a search: robust choice, walk-forward, permutations, holdout, statistics."""
