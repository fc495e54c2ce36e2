"""Clocks a test turns."""
