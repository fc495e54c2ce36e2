"""The runbook keeps its promises: messages, commands, files, health fields, service and image."""

from __future__ import annotations

import ast
import configparser
import functools
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import core.errors
import live_trade
from config import LIVE_CONFIG
from docs.update_readme import README, ROOT
from live.alerts import AlertSender
from live.credentials import KEY, SECRET
from live.exchange_errors import _ADVICE
from live.monitor import HealthMonitor
from live.status import SILENT_MS
from tests.sim_exchange import SimClock

TEXT = (ROOT / "RUNBOOK.md").read_text(encoding="utf-8")
DEPLOY = ROOT / "deploy"
GAP = "…"
"""Stands for what differs from case to case."""
FEWEST_LETTERS = 12
"""Of a message that says anything by itself."""
TELLING = {"_alert", "alert", "send", "tell"}
LOGGING = {"warning", "error", "critical"}
PLACEHOLDER = re.compile(r"%[-+ #0]*\d*(?:\.\d+)?[a-z]")
ERRORS = {name for name, item in vars(core.errors).items() if isinstance(item, type)}


def text_of(node: ast.expr) -> str:
    """Return the text of an expression with a gap for everything that is not constant."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return GAP


def messages_in(source: str) -> Iterator[str]:
    """Yield what a source raises, logs as a warning or worse, and tells a person."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "text":
            yield text_of(node.value)  # told by whoever made it
        if isinstance(node, ast.Tuple) and node.elts and isinstance(node.elts[-1], ast.JoinedStr):
            yield text_of(node.elts[-1])
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name == "Condition":
            yield text_of(node.args[0])
            yield text_of(node.args[2])
        elif name in ERRORS | TELLING:
            yield text_of(node.args[0])
        elif name in LOGGING:
            parts = text_of(node.args[0]).split("%%")
            yield "%".join(PLACEHOLDER.sub(GAP, part) for part in parts)


@functools.cache
def messages() -> frozenset[str]:
    """Return every message of live trading."""
    sources = [*sorted((ROOT / "live").glob("*.py")), ROOT / "live_trade.py"]
    found = {text for path in sources for text in messages_in(path.read_text(encoding="utf-8"))}
    return frozenset(found | set(_ADVICE.values()))


def quoted() -> list[str]:
    """Return the messages in the first column of the runbook's tables of messages."""
    section = TEXT[TEXT.index("## What to do when it says") :]
    section = section[: section.index("\n## ", 5)]
    return re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
