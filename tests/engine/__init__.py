"""Tests of the decision engines."""
