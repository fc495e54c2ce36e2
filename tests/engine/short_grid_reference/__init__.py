"""The short grid once more, slow and obvious, written from its definition."""
