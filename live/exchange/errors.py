"""Errors of ccxt, in our words, and their meaning for an order.

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
    RestrictedError,
    UnknownOutcome,
)
from core.orders import OrderKind
from live.exchange.http_session import AnswerRefused
from live.exchange.types import Answer, Meaning

CLOCK_CODES: Final = frozenset({-1021, -5028})
"""Our time is not the exchange's; nothing was done."""
GONE_CODES: Final = frozenset({-2011, -2013, -20124})
"""No such order: filled, cancelled, or never there; the last of conditional ones."""
TOO_OLD_CODES: Final = frozenset({-4166})
"""A question about a time that the records of the exchange no longer hold."""
RESTRICTED_CODES: Final = frozenset(
    {-4192, -4400, -4401, -4402, -4403, -4411, -4087, -4088, -4109, *range(-4206, -4201)}
)
"""Only what reduces is taken: compliance, region, cooling-off, agreements not signed, an inactive
account, quantitative rules (-4400). Not about the keys, as ccxt has it for most."""
RULES_CODES: Final = frozenset(
    {-1111, -4003, -4004, -4005, -4013, -4014, -4016, -4023, -4024, -4108, -4140, -4141, -4164}
)
"""Refused by the symbol's rules or status: they may have changed since they were read."""
LATER_CODES: Final = frozenset({-1112, -2020, -2025, -4045, -4131, -4509, -5022, -2021, -4142})
"""The same would be taken another time: no counterpart, too many open orders or stops, a position
that does not show yet, a price on the wrong side."""
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
    **dict.fromkeys(RESTRICTED_CODES, RestrictedError),
    **dict.fromkeys((-1125, -2008, -4425, -5000, -5029), ExchangeError),  # not about the keys
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
    -4509: Answer.NOTHING_TO_CLOSE,  # no position is seen, which may follow its first fill
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
    UnknownOutcome: "no answer says whether it was done; it must be looked up",
    NetworkError: "it was not done; it may be repeated",
    ExchangeError: "the exchange refused",
    RestrictedError: "the exchange takes only orders that reduce; closing goes on, entries wait",
    CredentialsError: "check the key, its futures permission and the addresses it may be used from",
    AccountError: "check the account's mode, margin and open positions",
    ReplyError: "the answer cannot be read",
}
_MEANING_BY_CODE: Final[dict[int, Meaning]] = {
    **dict.fromkeys(TOO_OLD_CODES, Meaning.TOO_OLD),
    **dict.fromkeys(RULES_CODES, Meaning.RULES),
    **dict.fromkeys(LATER_CODES, Meaning.LATER),
    **dict.fromkeys(DUPLICATE_CODES, Meaning.UNKNOWN),
    -4130: Meaning.STOP_EXISTS,
}
_MEANING_BY_CLASS: Final[dict[type, Meaning]] = {
    GridError: Meaning.REFUSED,
    UnknownOutcome: Meaning.UNKNOWN,
    NetworkError: Meaning.NOT_DONE,
    ReplyError: Meaning.UNKNOWN,
    RateLimitError: Meaning.LATER,
    RestrictedError: Meaning.ENTRIES_OFF,
    CredentialsError: Meaning.KEYS,
}
_NO_ANSWER: Final = "no answer from the exchange; nothing was changed by asking"
_TOO_OLD: Final = "this lies further back than the records of the exchange"
_FORBIDDEN: Final = 403
_NOT_HERE: Final = 451
_OVERLOADED: Final = 503
_FIRST_SERVER_ERROR: Final = 500
_CODE: Final = re.compile(r'"code"\s*:\s*"?(-?\d{1,9})\b')
_QUERY: Final = re.compile(r"(https?://[^\s?]+)\?\S*")
_SIGNATURE: Final = re.compile(r"signature=[^&\s\"']+", re.IGNORECASE)
_LONGEST_TEXT: Final = 300
_LONGEST_SCRUBBED: Final = 20_000  # characters looked at; more than the longest text a log wants
_PAGE: Final = re.compile(r"<(!doctype|html|head|body)\b.*", re.IGNORECASE | re.DOTALL)
_TITLE: Final = re.compile(r"<title[^>]*>([^<]*)", re.IGNORECASE)


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
    """Return ``text`` on one line, cut, without ``secrets``, signatures and addresses' queries.

    Of an HTML page the title is left. Characters that steer a terminal, or turn the direction of
    writing, are replaced. Secrets go first: a cut in the middle of one would show its half.
    """
    for secret in secrets:
        text = text.replace(secret, "***")
    text = _QUERY.sub(r"\1", text[:_LONGEST_SCRUBBED])
    text = _SIGNATURE.sub("signature=***", text)
    text = " ".join(_PAGE.sub(_page_title, text).split())
    return "".join(letter if letter.isprintable() else "�" for letter in text[:_LONGEST_TEXT])


def _page_title(page: re.Match[str]) -> str:
    title = _TITLE.search(page[0])
    return f"(an HTML page: {title[1].strip()})" if title else "(an HTML page)"


def translate(
    problem: Exception,
    reply: HttpReply | None = None,
    *,
    retry_after: float = 0.0,
    secrets: Iterable[str] = (),
    is_question: bool = False,
) -> GridError:
    """Return our error for anything a ccxt call may raise.

    Args:
        problem: what was raised.
        reply: the reply it came with, None if none came.
        retry_after: seconds to wait, should it be a rate limit.
        secrets: texts that must not appear in the error.
        is_question: whether the request changes nothing, so that nothing is left open.
    """
    ours = _class_of(problem, reply or HttpReply())
    code = error_code(problem)
    text = f"{type(problem).__name__}: {scrub(_words(problem), secrets)}"
    if ours is RateLimitError:
        advice = f"too many requests; nothing may be sent for {retry_after:.0f} s"
        error: GridError = RateLimitError(f"{advice} ({text})", retry_after)
    elif is_question and issubclass(ours, NetworkError):
        error = ours(f"{_NO_ANSWER} ({text})")
    else:
        advice = _TOO_OLD if code in TOO_OLD_CODES else _ADVICE[ours]
        error = ours(f"{advice} ({text})")
    error.code = code
    return error


def _words(problem: Exception) -> str:
    """Return what a problem says; ccxt hides why we refused an answer."""
    cause = problem.__cause__
    return f"{problem}: {cause}" if isinstance(cause, AnswerRefused) else str(problem)


def meaning_of(error: GridError) -> Meaning:
    """Return what an error means for whoever must act on it.

    Of a question an unknown outcome only means that it was not answered.
    """
    by_code = _MEANING_BY_CODE.get(error.code)
    if by_code is not None:
        return by_code
    return next(
        _MEANING_BY_CLASS[base] for base in type(error).__mro__ if base in _MEANING_BY_CLASS
    )


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
    if isinstance(cause, AnswerRefused):
        return ReplyError
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
