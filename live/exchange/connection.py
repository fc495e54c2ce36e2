"""One way to the exchange for every request: time, limits, retries and errors in one place.

A request is *attempted* (sent once, the outcome is a value) or *read* (repeated until it is
answered). Only what changes nothing when done twice is read: questions and cancels.
"""

from __future__ import annotations

import functools
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, final

import requests

from core.errors import (
    CredentialsError,
    GridError,
    NetworkError,
    RateLimitError,
    ReplyError,
    UnknownOutcome,
)
from live.exchange.budget import LONGEST_WAIT_S, RequestBudget, demanded_wait
from live.exchange.errors import CLOCK_CODES, HttpReply, error_code, scrub, translate
from live.exchange.http_session import HttpSession
from live.exchange.port import Clock
from live.exchange.replies.market import server_time
from live.exchange.replies.shapes import wrong
from live.exchange.request import InFlight, Outcome, Request
from live.exchange.transport import NO_SIGNATURES, BinanceClient
from live.exchange.types import Usage

T = TypeVar("T")

TIME_KEPT_MS: Final = 10 * 60_000
"""How long a measured clock offset is good for: ordinary clocks drift 30 ms in that time."""

_log: Final = logging.getLogger("live.exchange.binance")
_FIRST_BACKOFF_S: Final = 0.5
_LONGEST_BACKOFF_S: Final = 16.0
_REPORTED_EVERY_MS: Final = 60_000


@final
class Connection:
    """The exchange as one account and one clock see it.

    Without keys it asks public questions only. Every request has the deadline
    ``request_timeout_s`` over all of it, from the address look-up to the last byte.

    Attributes:
        clock: the time, and where waiting happens.
        recv_window_ms: how long after its timestamp the exchange takes a signed request.
        in_flight: the request under way, None between requests; may be read by other threads.
    """

    def __init__(
        self,
        *,
        api_key: str,
        api_secret: str,
        testnet: bool,
        clock: Clock,
        session: requests.Session | None,
        settings: Mapping[str, Any],
        seed: str,
        budget: RequestBudget | None = None,
    ) -> None:
        """Send nothing yet.

        Args:
            api_key: '' for public data only.
            api_secret: likewise.
            testnet: demo trading instead of real money.
            clock: the time, and where waiting happens.
            session: HTTP session; None takes a new one.
            settings: ``LIVE_CONFIG``.
            seed: of the jitter between tries, so that several bots do not try in step; '': none.
            budget: of the address this is one connection of several from; None: its own.
        """
        config: dict[str, Any] = {
            "apiKey": api_key,
            "secret": api_secret,
            "enableRateLimit": False,  # our own budget, which knows the exchange's count
            "timeout": settings["request_timeout_s"] * 1_000,
            "options": {"fetchCurrencies": False, "recvWindow": settings["recv_window_ms"]},
            "logger": _silent_logger(),
        }
        self._http = HttpSession(session, deadline_s=float(settings["request_timeout_s"]))
        config["session"] = self._http
        logging.getLogger("urllib3.connectionpool").addFilter(NO_SIGNATURES)
        self._client = BinanceClient(config, clock)
        if testnet:
            self._client.enable_demo_trading(True)
        self.clock: Final = clock
        self.recv_window_ms: Final = int(settings["recv_window_ms"])
        self._retries = int(settings["retries"])
        self._budget = budget or RequestBudget(
            clock, self._corrected_ms, settings["max_weight_share"]
        )
        self._another = functools.partial(
            Connection,
            api_key=api_key,
            api_secret=api_secret,
            testnet=testnet,
            clock=clock,
            settings=settings,
            budget=self._budget,
        )
        self._secrets = tuple(text for text in (api_key, api_secret) if text)
        spread = random.Random(seed)  # noqa: S311 - spreads retries, guards nothing
        self._jitter = spread.random if seed else lambda: 0.0
        self.in_flight: InFlight | None = None
        self._hurries = 0
        self._reported_ms: dict[str, int] = {}
        self._offset_ms = 0
        self._measured_ms: int | None = None

    def another(self, seed: str, session: requests.Session | None = None) -> Connection:
        """Return a connection for another thread: same keys and limits, requests of its own.

        One connection sends one request at a time and is for one thread.
        """
        return self._another(seed=seed, session=session)

    @property
    def has_keys(self) -> bool:
        """Whether requests can be signed."""
        return len(self._secrets) == 2  # noqa: PLR2004 - key and secret

    def require_keys(self) -> None:
        """Raise ``CredentialsError`` if requests cannot be signed."""
        if not self.has_keys:
            raise CredentialsError("this needs an API key and its secret; none are set")

    def hurry(self) -> None:
        """End the request under way within a second; it is not repeated, later ones are sent.

        May be called by a signal handler and by other threads. The request's outcome is unknown.
        """
        self._hurries += 1
        self._http.hurry()

    def leave(self) -> None:
        """Hurry, and repeat later questions and cancels once only: the program is to end.

        Where nothing answers, five tries of each would hold it for minutes.
        """
        self._retries = min(self._retries, 1)
        self.hurry()

    def server_ms(self) -> int:
        """Return the exchange's time, ms UTC, measured first where that is due.

        Raises:
            NetworkError, ExchangeError: it could not be measured yet.
        """
        if self._measured_ms is None:
            self.read(_TIME, server_time)
        self._keep_time()
        return self._corrected_ms()

    def measure_clock(self) -> None:
        """Measure the exchange's time now, with one question.

        Raises:
            GridError: it could not be; the last measurement counts on.
        """
        self.read_once(_TIME, server_time)

    def usage(self) -> Usage:
        """Return what the last replies said; asks nothing."""
        return Usage(
            weight_1m=self._budget.weight_1m,
            orders_10s=self._budget.orders_10s,
            orders_1m=self._budget.orders_1m,
            clock_offset_ms=self._offset_ms,
        )

    def refusal(self, code: int, text: str) -> GridError:
        """Return our error for a refusal inside a batch."""
        return self._translated(self._client.error_for(code, text), HttpReply(body=text))

    def read(self, request: Request, parse: Callable[[Any], T]) -> T:
        """Ask until the answer can be read.

        Args:
            request: may be repeated without harm.
            parse: returns what the answer says; raises ``ReplyError`` if it is unreadable.

        Raises:
            NetworkError, ReplyError: no readable answer in all tries.
            RateLimitError: it would be a long wait.
            ExchangeError: refused.
        """
        answer: T = self._ask(request, parse, frozenset()).reply
        return answer

    def read_once(self, request: Request, parse: Callable[[Any], T]) -> T:
        """Ask as ``read`` does, but once: whoever asks has something to do between tries."""
        answer: T = self._ask(request, parse, frozenset(), retries=0).reply
        return answer

    def find(self, request: Request, parse: Callable[[Any], T], absent: frozenset[int]) -> T | None:
        """Ask as ``read`` does; None if the exchange answers with one of the codes ``absent``."""
        answer: T | None = self._ask(request, parse, absent).reply
        return answer

    def attempt(self, request: Request) -> Outcome:
        """Send a request once; again only if the exchange refused its timestamp.

        An error that is neither ``UnknownOutcome`` nor ``ReplyError`` says that nothing was done.
        """
        if request is _TIME:
            return self._measure_time()
        timeless = self._keep_time()
        if timeless is not None:
            return Outcome(error=timeless)
        outcome = self._send(request)
        if outcome.code in CLOCK_CODES:
            self._measure_time()
            outcome = self._send(request)
        return outcome

    def _ask(
        self,
        request: Request,
        parse: Callable[[Any], Any],
        absent: frozenset[int],
        *,
        retries: int | None = None,
    ) -> Outcome:
        tries, most, hurries = 0, self._retries if retries is None else retries, self._hurries
        while True:
            outcome = self.attempt(request)
            error = outcome.error
            if outcome.code in absent:
                return Outcome(code=outcome.code)
            if error is None:
                try:
                    return Outcome(reply=parse(outcome.reply))
                except ReplyError as unreadable:
                    error = unreadable
            if tries >= most or hurries != self._hurries or not _may_pass(error):
                raise error
            self._wait_to_repeat(request, error, tries)
            tries += 1

    def _wait_to_repeat(self, request: Request, error: GridError, tries: int) -> None:
        """Wait before a question is asked again; the budget waits as the exchange demands."""
        wait_s = 0.0 if isinstance(error, RateLimitError) else self._backoff_s(tries)
        if self._is_news("repeat"):
            _log.info("%s: %s; asking again in %.1f s", request.endpoint, error, wait_s)
        if wait_s:
            self.clock.sleep(wait_s)

    def _send(self, request: Request) -> Outcome:
        try:
            self._budget.wait_for(request.weight, request.orders, urgent=request.urgent)
        except RateLimitError as ban:
            return Outcome(error=ban)
        sent_ms = self.clock.now_ms()
        self.in_flight = InFlight(request.endpoint, time.monotonic())
        try:
            answer, heard, problem = self._client.call(request)
        finally:
            self.in_flight = None
        self._budget.note(heard.headers)
        if problem is not None:
            error = self._translated(problem, heard, is_question=request.is_question)
            return Outcome(error=error, code=error_code(problem), sent_ms=sent_ms)
        if not isinstance(answer, dict | list):
            text = scrub(str(answer), self._secrets)
            error = wrong(f"answer to {request.endpoint}", text, "JSON")
            return Outcome(error=error, sent_ms=sent_ms)
        return Outcome(reply=answer, sent_ms=sent_ms)

    def _translated(
        self, problem: Exception, heard: HttpReply, *, is_question: bool = False
    ) -> GridError:
        wait_s = demanded_wait(heard, self._corrected_ms())
        error = translate(
            problem, heard, retry_after=wait_s, secrets=self._secrets, is_question=is_question
        )
        if isinstance(error, RateLimitError):
            self._budget.pause(error.retry_after)
        return error

    def _keep_time(self) -> GridError | None:
        """Measure the exchange's time where that is due; return why there is none at all."""
        if self._measured_ms is not None:
            age_ms = self.clock.now_ms() - self._measured_ms
            if 0 <= age_ms < TIME_KEPT_MS:  # under 0: somebody set our clock back
                return None
        error = self._measure_time().error
        return None if error is None or self._measured_ms is not None else _nothing_sent(error)

    def _measure_time(self) -> Outcome:
        """Ask for the exchange's time; it is taken as that of the middle of the round trip."""
        before_ms = self.clock.now_ms()
        outcome = self._send(_TIME)
        after_ms = self.clock.now_ms()
        if outcome.error is not None:
            if self._is_news("time"):
                _log.warning("cannot measure the exchange's time: %s", outcome.error)
            return outcome
        try:
            server_ms = server_time(outcome.reply)
        except ReplyError as unreadable:
            return Outcome(error=unreadable)
        self._offset_ms = (before_ms + after_ms) // 2 - server_ms
        self._measured_ms = after_ms
        self._client.options["timeDifference"] = self._offset_ms
        return outcome

    def _is_news(self, subject: str) -> bool:
        """Return whether a minute has passed since this was logged: an outage is one message."""
        now_ms, last_ms = self.clock.now_ms(), self._reported_ms.get(subject)
        if last_ms is not None and 0 <= now_ms - last_ms < _REPORTED_EVERY_MS:
            return False
        self._reported_ms[subject] = now_ms
        return True

    def _corrected_ms(self) -> int:
        return self.clock.now_ms() - self._offset_ms

    def _backoff_s(self, tries: int) -> float:
        """Return 0.5, 1, 2, ... s, longer by up to a quarter."""
        wait_s: float = min(_FIRST_BACKOFF_S * 2**tries, _LONGEST_BACKOFF_S)
        return wait_s * (1.0 + 0.25 * self._jitter())


_TIME: Final = Request("fapiPublicGetTime")


def _silent_logger() -> logging.Logger:
    """Return a logger for ccxt that nothing can turn on: its debug log holds the key."""
    return logging.Logger("ccxt", logging.CRITICAL + 1)  # noqa: LOG001 - outside the tree


def _may_pass(error: GridError) -> bool:
    """Return whether asking again may help and is allowed."""
    if isinstance(error, RateLimitError):
        return error.retry_after <= LONGEST_WAIT_S
    return isinstance(error, NetworkError | ReplyError)


def _nothing_sent(error: GridError) -> GridError:
    """Return ``error`` of another request, such that it does not leave this one's outcome open."""
    unclear = isinstance(error, UnknownOutcome | ReplyError)
    return NetworkError(f"the exchange's time is not known: {error}") if unclear else error
