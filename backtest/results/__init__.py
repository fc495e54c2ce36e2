"""Files a run leaves, the register of runs, and the difference between two of them."""
