"""The exception tree: everything this project raises on purpose.

GridError
├── ConfigError      a parameter is unknown, of the wrong type or out of range
├── DataError        candles or funding cannot be used as they are
├── NetworkError     the exchange cannot be reached
└── CapitalError     the capital is too small for any order of this market
"""

from __future__ import annotations


class GridError(Exception):
    """Base of all expected failures; its text says what to do. The command line exits with 2."""


class ConfigError(GridError, ValueError):
    """A parameter is unknown, of the wrong type or out of range."""


class DataError(GridError, ValueError):
    """Candles or funding rates cannot be used as they are."""


class NetworkError(GridError):
    """The exchange cannot be reached."""


class CapitalError(GridError, ValueError):
    """The capital is too small for any order of this market."""
