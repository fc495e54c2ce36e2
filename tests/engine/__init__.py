"""Tests of the engine, and independent references of its strategies."""
