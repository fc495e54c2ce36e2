"""Secrets out of texts: whole, in part, and in the forms of addresses, JSON and headers."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

REMOVED: Final = "***"
SHORTEST_PART: Final = 10
"""Characters in a row of a secret that are taken out where the rest of it was cut off."""
_SHORTEST_PIECE: Final = 6
"""Of an address; shorter ones are words such as ``high`` and no secrets."""
_SIGNATURE: Final = re.compile(
    r"((?:signature|listenKey|X-MBX-APIKEY)\W{1,12}?(?:3D)?)([A-Za-z0-9+/_-]{12,})", re.IGNORECASE
)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Redactor:
    """Takes secrets out of texts.

    A text that holds ``SHORTEST_PART`` characters of a secret in a row holds a part of it: whoever
    cuts a long value before it is logged does not know what is in it. Signatures are taken out
    whatever the keys: each signs one request, but a request can be repeated for some seconds.

    Args:
        secrets: texts that must not appear; '' is ignored. Of an address (``scheme://...``) every
            piece counts: user, password, host, path and values of the query.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {piece for text in secrets if text for piece in _pieces(text)}
        forms = {form for piece in known for form in _forms(piece)}
        self._whole = sorted(forms, key=len, reverse=True)
        self._parts = {
            form[k : k + SHORTEST_PART]
            for form in forms
            for k in range(len(form) - SHORTEST_PART + 1)
        }

    def redact(self, text: str) -> str:
        """Return ``text`` with ``***`` where a secret, a part of one or a signature stood."""
        for form in self._whole:
            text = text.replace(form, REMOVED)
        return _SIGNATURE.sub(rf"\1{REMOVED}", self._without_parts(text))

    def _without_parts(self, text: str) -> str:
        if not self._parts:
            return text
        kept, begin, k = [], 0, 0
        while k <= len(text) - SHORTEST_PART:
            if text[k : k + SHORTEST_PART] not in self._parts:
                k += 1
                continue
            end = k + SHORTEST_PART
            while text[end - SHORTEST_PART + 1 : end + 1] in self._parts and end < len(text):
                end += 1
            kept += [text[begin:k], REMOVED]
            begin = k = end
        return "".join([*kept, text[begin:]])


def printable(text: str) -> str:
    """Return ``text`` with control characters, which a terminal obeys, written as escapes."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def _pieces(secret: str) -> Iterator[str]:
    """Yield a secret; of an address also its parts, which services quote one by one."""
    yield secret
    if "://" not in secret:
        return
    try:
        address = urlsplit(secret)
    except ValueError:  # no address after all
        return
    parts = [address.netloc, *re.split(r"[@:]", address.netloc), *re.split(r"[/@]", address.path)]
    parts += [value for _, value in parse_qsl(address.query)]
    for part in parts:
        for piece in {part, unquote(part)}:
            if len(piece) >= _SHORTEST_PIECE:
                yield piece


def _forms(text: str) -> Iterator[str]:
    """Yield the forms a text takes where it is quoted."""
    yield text
    for quoted in (quote(text, safe=""), quote(text), quote_plus(text)):
        yield quoted
        yield re.sub("%..", lambda found: found[0].lower(), quoted)
        yield quoted.replace("%", "%25")  # quoted once more
    yield json.dumps(text)[1:-1]
    yield json.dumps(text)[1:-1].replace("/", "\\/")
    yield repr(text)[1:-1]
    yield repr(text.encode())[2:-1]
    yield html.escape(text)
    for encoded in (base64.b64encode(text.encode()), base64.urlsafe_b64encode(text.encode())):
        yield encoded.decode().rstrip("=")
