"""Every folder of code is a room: its ``__init__`` says in one sentence what belongs there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support.paths import ROOT

HOUSES = ("core", "engine", "backtest", "live", "benchmarks", "tests")
ROOMS = sorted(
    folder
    for house in HOUSES
    for folder in (ROOT / house, *(ROOT / house).rglob("*"))
    if folder.is_dir() and any(folder.glob("*.py"))
)


def name(folder: Path) -> str:
    return str(folder.relative_to(ROOT))


def test_there_are_rooms() -> None:
    assert len(ROOMS) > 30


@pytest.mark.parametrize("folder", ROOMS, ids=name)
def test_a_room_says_what_belongs_there_and_exports_nothing(folder: Path) -> None:
    path = folder / "__init__.py"
    assert path.is_file(), "a folder without __init__ is no room"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "its first line is the sentence"
    if "tests" not in folder.parts:
        assert len(tree.body) == 1, "a room re-exports nothing"


@pytest.mark.parametrize("house", HOUSES)
def test_a_docstring_says_what_a_thing_is_not_what_what_is(house: str) -> None:
    found = []
    for path in (ROOT / house).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                text = node.value.value
                if isinstance(text, str) and text.startswith("What "):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {text.splitlines()[0]}")
    assert found == []
