"""One trial: the space it is drawn from, its windows, its runs and its score."""
