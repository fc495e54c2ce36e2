"""What ccxt raises, in our words, and what it means for an order.

Three questions decide: was the request carried out, may it be repeated, and who must act. The
exchange's own rule is the base: with an answer 4xx it was not carried out, an answer 5xx says
nothing about it. Codes that say more come first, then the way the reply came (or did not), then
ccxt's class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import ccxt  # type: ignore[import-untyped]  # it has no stubs
import requests

from core.errors import (
    AccountError,
    CredentialsError,
    ExchangeError,
    GridError,
    NetworkError,
    RateLimitError,
    ReplyError,
    UnknownOutcome,
)
from live.exchange.types import Answer, OrderKind

CLOCK_CODES: Final = frozenset({-1021, -5028})
"""Our time is not the exchange's; nothing was done."""
GONE_CODES: Final = frozenset({-2011, -2013})
"""No such order: filled, cancelled, or never there."""
DUPLICATE_CODES: Final = frozenset({-4116, -20132})
"""An open order has this client id already, so the order exists."""

_BY_CODE: Final[dict[int, type[GridError]]] = {
    -1000: UnknownOutcome,
    -1006: UnknownOutcome,
    -1007: UnknownOutcome,
    -1001: NetworkError,  # internal error, not carried out
    -1008: NetworkError,  # overloaded, not carried out
    **dict.fromkeys(CLOCK_CODES, NetworkError),
    **dict.fromkeys((-1112, -2020, -4131), NetworkError),  # nobody to trade with right now
    -4400: ExchangeError,  # only reducing orders for a while: not about the keys, as ccxt has it
    **dict.fromkeys(
        (-2023, -2027, -2028, -4028, -4047, -4048, -4061, -4067, -4068, -4161, -4168, -4208, -4209),
        AccountError,
    ),
}
_ANSWER_BY_CODE: Final[dict[int, Answer]] = {
    -5022: Answer.WOULD_CROSS,
    -2021: Answer.PASSED,
    -4142: Answer.PASSED,
    **dict.fromkeys((-2022, -2024, -4118), Answer.NOTHING_TO_CLOSE),
    -4130: Answer.NOTHING_TO_CLOSE,  # another stop closes this side already
    -4509: Answer.NOTHING_TO_CLOSE,  # a stop for a side without a position
    **dict.fromkeys((-2018, -2019, -4050, -4051), Answer.NO_MARGIN),
    **dict.fromkeys(DUPLICATE_CODES, Answer.UNKNOWN),
}
_BY_CLASS: Final[dict[type[Exception], type[GridError]]] = {
    ccxt.BaseError: UnknownOutcome,
    # refused
    ccxt.ExchangeError: ExchangeError,
    ccxt.ArgumentsRequired: ExchangeError,
    ccxt.BadRequest: ExchangeError,
    ccxt.BadSymbol: ExchangeError,
    ccxt.OperationRejected: ExchangeError,
    ccxt.NoChange: ExchangeError,
    ccxt.MarginModeAlreadySet: ExchangeError,
    ccxt.MarketClosed: ExchangeError,
    ccxt.InvalidAddress: ExchangeError,
    ccxt.AddressPending: ExchangeError,
    ccxt.InvalidOrder: ExchangeError,
    ccxt.OrderNotFound: ExchangeError,
    ccxt.OrderNotCached: ExchangeError,
    ccxt.OrderImmediatelyFillable: ExchangeError,
    ccxt.OrderNotFillable: ExchangeError,
    ccxt.DuplicateOrderId: ExchangeError,
    ccxt.ContractUnavailable: ExchangeError,
    ccxt.NotSupported: ExchangeError,
    ccxt.InvalidProxySettings: ExchangeError,
    ccxt.ExchangeClosedByUser: ExchangeError,
    ccxt.UnsubscribeError: ExchangeError,
    # a person must act
    ccxt.AuthenticationError: CredentialsError,
    ccxt.PermissionDenied: CredentialsError,
    ccxt.AccountNotEnabled: CredentialsError,
    ccxt.AccountSuspended: CredentialsError,
    ccxt.RestrictedLocation: CredentialsError,
    ccxt.ManualInteractionNeeded: AccountError,
    ccxt.InsufficientFunds: AccountError,
    # not carried out
    ccxt.ExchangeNotAvailable: NetworkError,
    ccxt.OnMaintenance: NetworkError,
    ccxt.InvalidNonce: NetworkError,
    ccxt.ChecksumError: NetworkError,
    ccxt.DDoSProtection: RateLimitError,
    ccxt.RateLimitExceeded: RateLimitError,
    # not known
    ccxt.OperationFailed: UnknownOutcome,
    ccxt.NetworkError: UnknownOutcome,
    ccxt.RequestTimeout: UnknownOutcome,
    ccxt.CancelPending: UnknownOutcome,
    ccxt.BadResponse: ReplyError,
    ccxt.NullResponse: ReplyError,
}
_ADVICE: Final[dict[type[GridError], str]] = {
    UnknownOutcome: "no answer tells whether it was done; it must be looked up",
    NetworkError: "it was not done; it may be repeated",
    ExchangeError: "the exchange refused",
    CredentialsError: "check the key, its futures permission and the addresses it may be used from",
    AccountError: "check the account's mode, margin and open positions",
    ReplyError: "the answer cannot be read",
}
_FORBIDDEN: Final = 403
_NOT_HERE: Final = 451
_OVERLOADED: Final = 503
_FIRST_SERVER_ERROR: Final = 500
_CODE: Final = re.compile(r'"code"\s*:\s*"?(-?\d+)')
_QUERY: Final = re.compile(r"(https?://[^\s?]+)\?\S*")
_SIGNATURE: Final = re.compile(r"signature=[^&\s\"']+", re.IGNORECASE)
_LONGEST_TEXT: Final = 300


@dataclass(frozen=True, slots=True)
class HttpReply:
    """The reply under a parsed answer.

    Attributes:
        status: HTTP status; 0 if no reply came.
        body: as received, without surrounding blanks.
        headers: as received.
    """

    status: int = 0
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def error_code(problem: BaseException) -> int:
    """Return the exchange's error code in ccxt's text, 0 if there is none."""
    match = _CODE.search(str(problem))
    return int(match[1]) if match else 0


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` on one line, cut, without ``secrets``, signatures and addresses' queries."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = _QUERY.sub(r"\1", text)
    text = _SIGNATURE.sub("signature=***", text)
    return " ".join(text.split())[:_LONGEST_TEXT]


def translate(
    problem: Exception,
    reply: HttpReply | None = None,
    *,
    retry_after: float = 0.0,
    secrets: Iterable[str] = (),
) -> GridError:
    """Return our error for anything a ccxt call may raise.

    Args:
        problem: what was raised.
        reply: the reply it came with, None if none came.
        retry_after: seconds to wait, should it be a rate limit.
        secrets: texts that must not appear in the error.
    """
    ours = _class_of(problem, reply or HttpReply())
    text = f"{type(problem).__name__}: {scrub(str(problem), secrets)}"
    if ours is RateLimitError:
        advice = f"too many requests; nothing may be sent for {retry_after:.0f} s"
        return RateLimitError(f"{advice} ({text})", retry_after)
    return ours(f"{_ADVICE[ours]} ({text})")


def order_answer(error: GridError, code: int, kind: OrderKind) -> Answer:
    """Return what an error means for the order it answered; UNKNOWN: it must be looked up."""
    answer = _ANSWER_BY_CODE.get(code)
    if answer is Answer.PASSED and kind is not OrderKind.STOP:
        return Answer.WOULD_CROSS
    if answer is not None:
        return answer
    if isinstance(error, UnknownOutcome | ReplyError):
        return Answer.UNKNOWN
    if isinstance(error, NetworkError | RateLimitError):
        return Answer.NOT_SENT
    return Answer.FORBIDDEN if isinstance(error, CredentialsError) else Answer.REFUSED


def _class_of(problem: Exception, reply: HttpReply) -> type[GridError]:
    by_code = _BY_CODE.get(error_code(problem))
    if by_code is not None:
        return by_code
    if reply.status == 0:
        by_way = _without_reply(problem)
    elif error_code(problem) == 0:
        by_way = _by_status(problem, reply)
    else:
        undocumented = type(problem) is ccxt.ExchangeError
        failed = reply.status >= _FIRST_SERVER_ERROR
        by_way = UnknownOutcome if undocumented and failed else None
    if by_way is not None:
        return by_way
    known = (_BY_CLASS[base] for base in type(problem).__mro__ if base in _BY_CLASS)
    return next(known, ReplyError)


def _without_reply(problem: Exception) -> type[GridError] | None:
    """Return the class of a failure below HTTP, None where no request was tried at all."""
    cause = problem.__cause__ or problem
    if not isinstance(cause, OSError):  # the requests library's exceptions are OSErrors
        return None
    return NetworkError if _never_connected(cause) else UnknownOutcome


def _never_connected(cause: BaseException) -> bool:
    if isinstance(cause, requests.ConnectTimeout):
        return True
    reason = getattr(cause.args[0], "reason", None) if cause.args else None
    return type(reason).__name__ in {"NewConnectionError", "NameResolutionError"}


def _by_status(problem: Exception, reply: HttpReply) -> type[GridError] | None:
    """Return the class of a reply without a code, None where ccxt's class says enough."""
    if reply.status == _FORBIDDEN:  # the firewall in front of the exchange
        return RateLimitError
    if reply.status == _NOT_HERE:
        return CredentialsError
    if reply.status < _FIRST_SERVER_ERROR or isinstance(problem, ccxt.RequestTimeout):
        return None
    says_so = "service unavailable" in reply.body.lower() and "<" not in reply.body
    return NetworkError if reply.status == _OVERLOADED and says_so else UnknownOutcome
