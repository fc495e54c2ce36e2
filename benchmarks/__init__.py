"""Measurements, each run by a command."""
