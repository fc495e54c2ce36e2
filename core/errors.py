"""The exception tree: everything this project raises on purpose.

GridError
├── ConfigError          a parameter is unknown, of the wrong type or out of range
├── DataError            candles or funding cannot be used as they are
├── NetworkError         the exchange cannot be reached, or did not do what was asked
│   └── UnknownOutcome   whether a request was carried out is not known
├── ExchangeError        the exchange answered, and refused
│   ├── CredentialsError keys, their permissions or the address they are used from
│   │   └── KeyRightsError the key may do more than trade, or less
│   ├── AccountError     the account's mode, margin or positions do not allow it
│   │   └── RestrictedError  the exchange takes orders that reduce only
│   ├── RateLimitError   too many requests; says how long to wait
│   └── ReplyError       an answer that is not of the shape it must have
├── StateError           a state file cannot be used or written
└── CapitalError         the capital is too small for any order of this market
"""

from __future__ import annotations


class GridError(Exception):
    """Base of all expected failures; its text says what to do. The command line exits with 2.

    Attributes:
        code: the exchange's error code behind it; 0 where there is none.
    """

    code: int = 0


class ConfigError(GridError, ValueError):
    """A parameter is unknown, of the wrong type or out of range."""


class DataError(GridError, ValueError):
    """Candles or funding rates cannot be used as they are."""


class NetworkError(GridError):
    """The exchange cannot be reached, or said that it did not do what was asked."""


class UnknownOutcome(NetworkError):  # noqa: N818 - it is no failure yet
    """Whether a request was carried out is not known."""


class ExchangeError(GridError):
    """The exchange answered, and refused."""


class CredentialsError(ExchangeError):
    """The keys, their permissions or the address they are used from are not accepted."""


class KeyRightsError(CredentialsError):
    """The key may do more than trade, or less."""


class AccountError(ExchangeError):
    """The account's mode, margin or positions do not allow what was asked."""


class RestrictedError(AccountError):
    """The account or the symbol may only reduce: closing goes on, nothing may be opened."""


class RateLimitError(ExchangeError):
    """Too many requests.

    Attributes:
        retry_after: seconds to wait before the next request.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ReplyError(ExchangeError):
    """An answer that is not of the shape it must have, so nothing in it may be believed."""


class StateError(GridError):
    """A state file cannot be used or written."""


class CapitalError(GridError, ValueError):
    """The capital is too small for any order of this market."""
