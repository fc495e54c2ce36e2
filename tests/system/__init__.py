"""Tests of the whole: rooms, documents, commands, trade files."""
