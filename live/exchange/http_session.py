"""HTTP to the exchange: a deadline over the whole request, no redirects, answers of bounded size.

A timeout of the HTTP library limits the time between two bytes. A proxy that sends one byte a
second can hold a request for hours, so the request is made by a thread of its own and waited for
until its deadline; then its socket is shut down, which ends the thread. What was given up may
still reach the exchange, so the outcome is unknown; a signed order carries a time after which the
exchange refuses it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import zlib
from dataclasses import dataclass
from typing import Any, Final, final
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

MEGABYTE: Final = 1 << 20
STOP_GRACE_S: Final = 1.0
"""How much longer a request may take that is under way when the program is asked to end."""
_SLICE_S: Final = 0.1  # a request to hurry is noticed within this time
_CHUNK: Final = 1 << 16
_MOST_HOPS: Final = 3
_FIRST_REDIRECT, _FIRST_ERROR = 300, 400
_AUTO_GZIP: Final = 32 + zlib.MAX_WBITS  # a gzip or a zlib header


class AnswerRefused(requests.RequestException):
    """An answer came that is not taken: a redirect, or one that is too large; says which."""


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """How large an answer may be.

    Attributes:
        received: bytes, as received.
        decoded: bytes, decompressed.
        ratio: decompressed over received bytes; counts from one decompressed megabyte on.
    """

    received: int = 32 * MEGABYTE
    decoded: int = 64 * MEGABYTE
    ratio: int = 200


@final
class _Call:
    """One request in its thread.

    Attributes:
        deadline_s: when it is given up, ``time.monotonic()``.
        response: the answer, with its whole body.
        error: what was raised instead.
    """

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.response: requests.Response | None = None
        self.error: BaseException | None = None
        self._done = threading.Event()
        self._connection: HTTPConnection | None = None
        self._is_given_up = False

    def run(self, perform: Any) -> None:
        """Keep what ``perform`` returns or raises; the thread's whole life."""
        _THREAD.call = self
        try:
            self.response = perform()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self.error = error
        self._done.set()

    def is_answered(self) -> bool:
        """Wait until the answer is there or the deadline has passed; the deadline may move."""
        while not self._done.is_set():
            left_s = self.deadline_s - time.monotonic()
            if left_s <= 0.0:
                return False
            self._done.wait(min(left_s, _SLICE_S))
        return True

    def uses(self, connection: HTTPConnection) -> None:
        """Note the connection, whose socket is shut down at the deadline.

        Raises:
            TimeoutError: it has passed: nothing may be sent any more.
        """
        self._connection = connection
        if self._is_given_up:
            raise TimeoutError("given up at its deadline")

    def give_up(self) -> None:
        """Shut the socket down, which wakes the thread that reads from it."""
        self._is_given_up = True
        sock = getattr(self._connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # below TLS: that would wait


class _Thread(threading.local):
    call: _Call | None = None


_THREAD: Final = _Thread()


def _note(connection: HTTPConnection) -> None:
    if _THREAD.call is not None:
        _THREAD.call.uses(connection)


@final
class _PlainConnection(HTTPConnection):
    """A connection that its request can be found by."""

    def connect(self) -> None:
        _note(self)
        super().connect()
        _note(self)

    def putrequest(self, *args: Any, **options: Any) -> None:
        _note(self)
        super().putrequest(*args, **options)


@final
class _SecureConnection(HTTPSConnection):
    """Likewise, with TLS."""

    def connect(self) -> None:
        _note(self)
        super().connect()
        _note(self)

    def putrequest(self, *args: Any, **options: Any) -> None:
        _note(self)
        super().putrequest(*args, **options)


@final
class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


@final
class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


@final
class WatchedAdapter(HTTPAdapter):
    """The HTTP library's own, whose connections can be shut down from another thread."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Use our connections."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}


def _new_session(*, uses_environment: bool) -> requests.Session:
    session = requests.Session()
    session.trust_env = uses_environment
    for scheme in ("http://", "https://"):
        session.mount(scheme, WatchedAdapter())
    return session


@final
class HttpSession:
    """Sends requests one at a time; takes the place of a ``requests.Session`` below ccxt."""

    def __init__(
        self,
        session: requests.Session | None = None,
        *,
        deadline_s: float,
        limits: AnswerLimits | None = None,
        uses_environment: bool = False,
    ) -> None:
        """Connect when first needed.

        Args:
            session: what to send with; None makes one.
            deadline_s: longest time from the beginning of a request to its answer's last byte.
            limits: of an answer's size.
            uses_environment: whether proxies and passwords come from the environment; never for
                what is signed.
        """
        self._is_ours, self._uses_environment = session is None, uses_environment
        self._session = self._renewed() if session is None else session
        self._deadline_s = deadline_s
        self._limits = limits or AnswerLimits()
        self._call: _Call | None = None

    @property
    def cookies(self) -> Any:
        """The session's cookies, which ccxt clears before every request."""
        return self._session.cookies

    @property
    def headers(self) -> Any:
        """The session's headers, which ccxt sends with its own."""
        return self._session.headers

    def close(self) -> None:
        """Close idle connections."""
        self._session.close()

    def hurry(self) -> None:
        """Give the request under way ``STOP_GRACE_S`` more; may be called by a signal handler."""
        call = self._call
        if call is not None:
            call.deadline_s = min(call.deadline_s, time.monotonic() + STOP_GRACE_S)

    def request(self, method: str, url: str, **options: Any) -> requests.Response:
        """Return the answer, its whole body read.

        Raises:
            requests.ReadTimeout: the deadline has passed; whether it was done is not known.
            AnswerRefused: it is a redirect or too large.
            requests.RequestException: as of the library.
        """
        call = _Call(time.monotonic() + self._deadline_s)
        self._call, session = call, self._session

        encodings = {"Accept-Encoding": "gzip, deflate"}  # what is decompressed within limits
        headers = {**(options.pop("headers", None) or {}), **encodings}
        options.update(headers=headers, allow_redirects=False, stream=True)

        def perform() -> requests.Response:
            response = session.request(method, url, **options)
            try:
                return self._taken(response)
            finally:
                if response.raw is not None:
                    response.close()

        thread = threading.Thread(target=call.run, args=(perform,), daemon=True, name="request")
        thread.start()
        is_answered = False
        try:
            is_answered = call.is_answered()
        finally:  # also where a second signal ends the wait
            self._call = None
            if not is_answered:
                call.give_up()
                if self._is_ours:
                    self._session = self._renewed()
        if not is_answered:
            raise requests.ReadTimeout("Read timed out: no whole answer by the deadline")
        thread.join()
        if call.response is None:
            raise call.error or RuntimeError("a request ended without answer or error")
        return call.response

    def get(self, url: str) -> requests.Response:
        """Return the answer to an unsigned question; redirects only within the host, by TLS.

        Raises:
            requests.RequestException: as of ``request``.
        """
        host = urlsplit(url).netloc
        for _ in range(_MOST_HOPS):
            try:
                return self.request("GET", url, timeout=self._deadline_s)
            except AnswerRefused as refused:
                redirect = refused.response
                if redirect is None or "Location" not in redirect.headers:
                    raise
                url = urljoin(url, redirect.headers["Location"])
                parts = urlsplit(url)
                if (parts.scheme, parts.netloc) != ("https", host):
                    raise
        raise AnswerRefused("the answer is one redirect after another; not followed")

    def _renewed(self) -> requests.Session:
        return _new_session(uses_environment=self._uses_environment)

    def _taken(self, response: requests.Response) -> requests.Response:
        """Return a response with its body, if it is one to be believed."""
        if _FIRST_REDIRECT <= response.status_code < _FIRST_ERROR:
            raise AnswerRefused(
                f"the answer is a redirect (status {response.status_code}); not followed",
                response=response,
            )
        body = _read_body(response, self._limits)
        response._content, response._content_consumed = body, True  # noqa: SLF001 - the way to set it
        return response


def _read_body(response: requests.Response, limits: AnswerLimits) -> bytes:
    raw: Any = response.raw
    if raw is None:
        _check_size(len(response.content), len(response.content), limits)
        return response.content
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower() or "identity"
    if encoding not in {"identity", "gzip", "x-gzip", "deflate"}:
        raise AnswerRefused(f"the answer's encoding {encoding[:20]!r} was not asked for")
    decoder = None if encoding == "identity" else _Inflate(limits)
    received, body = 0, bytearray()
    try:
        for chunk in raw.stream(_CHUNK, decode_content=False):
            received += len(chunk)
            body += chunk if decoder is None else decoder.feed(chunk, len(body))
            _check_size(len(body), received, limits)
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error, response=response) from error
    if decoder is not None and received and not decoder.is_complete:
        raise requests.exceptions.ContentDecodingError("the compressed answer is cut off")
    return bytes(body)


def _check_size(size: int, received: int, limits: AnswerLimits) -> None:
    """Raise ``AnswerRefused`` where ``size`` bytes out of ``received`` ones are too many."""
    if received > limits.received or size > limits.decoded:
        raise AnswerRefused(f"the answer is larger than {limits.decoded // MEGABYTE} MB; not read")
    if size > max(MEGABYTE, limits.ratio * received):
        raise AnswerRefused(
            f"the answer is compressed more than {limits.ratio} to 1; not decompressed further"
        )


@final
class _Inflate:
    """Decompresses gzip and deflate, never more than the limits allow at a time."""

    def __init__(self, limits: AnswerLimits) -> None:
        self._most = limits.decoded
        self._inflate = zlib.decompressobj(_AUTO_GZIP)

    @property
    def is_complete(self) -> bool:
        """Whether the end of the compressed data has come."""
        return self._inflate.eof

    def feed(self, chunk: bytes, have: int) -> bytes:
        """Return what ``chunk`` decompresses to, at most one byte over what may still come.

        Raises:
            requests.ContentDecodingError: it is no such data.
        """
        if self._inflate.eof:
            return b""  # what follows the end is not the answer's
        try:
            return self._inflate.decompress(chunk, self._most - have + 1)
        except zlib.error as error:
            raise requests.exceptions.ContentDecodingError(error) from error
