"""Tests, in rooms that mirror the program's, and the stand-ins they share."""
