"""Secrets leave no text: whole, cut off, escaped, one piece of an address."""

from __future__ import annotations

import base64
import html
import json
import random
import string
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.redaction import REMOVED, SHORTEST_PART, Redactor, printable

DICE = random.Random(7)  # noqa: S311 - a key of nobody
KEY = "".join(DICE.choices(string.ascii_letters + string.digits, k=64))
PASSWORD = 'p/ä+"ss w=rd&' + KEY[:8]


@pytest.mark.parametrize(
    "form",
    [
        lambda text: text,
        lambda text: quote(text, safe=""),
        lambda text: quote(text, safe="").lower(),
        quote_plus,
        lambda text: quote(quote(text, safe=""), safe=""),
        json.dumps,
        repr,
        lambda text: repr(text.encode()),
        html.escape,
        lambda text: base64.b64encode(text.encode()).decode(),
    ],
)
def test_a_secret_is_taken_out_in_every_form(form: object) -> None:
    assert callable(form)
    shown = Redactor([PASSWORD]).redact(f"before {form(PASSWORD)} after")
    assert REMOVED in shown
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert not any(form(PASSWORD)[k : k + 9] in shown for k in range(len(form(PASSWORD)) - 9))


@given(begin=st.integers(0, 63), length=st.integers(SHORTEST_PART, 64), text=st.text(max_size=20))
def test_a_part_of_a_secret_is_taken_out_wherever_it_was_cut(
    begin: int, length: int, text: str
) -> None:
    part = KEY[begin : begin + length]
    shown = Redactor([KEY]).redact(f"{text}«{part}»{text}")
    if len(part) >= SHORTEST_PART:
        assert shown == f"{text}«{REMOVED}»{text}"


@given(st.text(max_size=200))
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert Redactor([KEY]).redact(text) == text


def test_every_piece_of_an_alert_address_counts() -> None:
    token, chat = "123456789:AAHsecretTOKENsecret", "-100987654321"
    redactor = Redactor([f"tgram://{token}/{chat}/?thread=topic99"])
    reported = f"POST https://api.telegram.org/bot{token}/sendMessage chat {chat} topic99 refused"
    assert redactor.redact(reported) == (
        f"POST https://api.telegram.org/bot{REMOVED}/sendMessage chat {REMOVED} {REMOVED} refused"
    )
    mail = Redactor(["mailtos://bot:pa%40ss%2Fword@mail.example.com?to=me@example.org&format=text"])
    shown = mail.redact("login bot pa@ss/word pa%40ss%2Fword to me@example.org as text")
    assert shown == f"login bot {REMOVED} {REMOVED} to {REMOVED} as text"


@pytest.mark.parametrize(
    "text",
    [
        f"Failed to parse headers (url=https://fapi/order?symbol=BTCUSDT&signature={'a1' * 32})",
        f"signature%3D{'a1' * 32}&x",
        f"{{'signature': '{'a1' * 32}'}}",
        f'{{"signature":"{"a1" * 32}"}}',
        f"X-MBX-APIKEY: {'a1' * 32}",
        f"/ws?listenKey={'a1' * 32}",
        f"signature={'a1' * 8}",
    ],
)
def test_signatures_are_taken_out_without_knowing_a_key(text: str) -> None:
    shown = Redactor().redact(text)
    assert "a1a1" not in shown
    assert REMOVED in shown


def test_words_about_signatures_stay() -> None:
    text = "Signature for this request is not valid; signatures differ: ok"
    assert Redactor().redact(text) == text


def test_control_characters_are_written_out() -> None:
    assert printable("\x1b[2J\x07one\ntwo\tthree\r\u202e") == (
        "\\x1b[2J\\x07one\ntwo\tthree\\r\\u202e"
    )
