"""The fixed grid: one direction, a fixed take-profit and step, a way out for stuck positions."""
