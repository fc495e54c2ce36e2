"""Docstrings say what the names do not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

HOUSES = ("core", "engine", "backtest", "live", "benchmarks", "tests")
EMPTY = frozenset(
    re.findall(
        r"\w+",
        "a an the of its it in to for this that these those as is are be which what whose such and "
        "or one by with on at from all see above their they was were",
    )
)
"""Words that say nothing of their own."""
ENDINGS = ("ing", "ies", "es", "ed", "s", "e")


def stem(word: str) -> str:
    """Return a word in small letters without its ending."""
    word = word.lower()
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def only_repeats(name: str, text: str) -> bool:
    """Return whether ``text`` says no more than ``name`` does."""
    words = {stem(word) for word in re.findall(r"\w+", text) if word.lower() not in EMPTY}
    return words <= {stem(part) for part in name.split("_")}


def entries(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of every line under Args and Attributes; a text may be continued."""
    blocks = re.findall(r"^(?:Args|Attributes):\n((?: {4}.*\n?|\n)+)", docstring, re.MULTILINE)
    for block in blocks:
        yield from re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", block, re.MULTILINE)


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yield where every docstring of a module stands, and its text."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", text


@pytest.mark.parametrize("house", HOUSES)
def test_no_line_about_an_argument_only_repeats_its_name(house: str) -> None:
    looked_at, found = 0, []
    for path in sorted((ROOT / house).rglob("*.py")):
        for where, docstring in docstrings(path):
            for name, text in entries(docstring):
                looked_at += 1
                if only_repeats(name, text):
                    found.append(f"{where} {name}: {text}")
    assert looked_at > 0
    assert found == []


@pytest.mark.parametrize(
    ("name", "text", "repeats"),
    [
        ("candles", "the candles.", True),
        ("n_request", "which request.", True),
        ("n_bars", "of all.", True),
        ("version", "2 or 3.", False),
        ("qty", "base.", False),
        ("orders", "ours only.", False),
    ],
)
def test_a_repetition_is_told_from_a_description(name: str, text: str, *, repeats: bool) -> None:
    assert only_repeats(name, text) is repeats


def test_entries_are_found_in_both_sections_and_over_several_lines() -> None:
    text = "Do.\n\nArgs:\n    one: first\n        and more.\n    two: second.\n\nReturns:\n    x: y"
    assert list(entries(text)) == [("one", "first\n        and more."), ("two", "second.")]


METAPHORS = re.compile(
    r"(?<![A-Za-z])(strangers?|nursery|gardener|watchman|fates?|departures?|intake|"
    r"barred|(?:is|are|was|were)[ _]told(?!(?:[ _](?:apart|from))))(?![A-Za-z])",
    re.IGNORECASE,
)
"""Pictures for what the field has a word for."""


def test_names_and_texts_use_the_words_of_the_field() -> None:
    files = [
        *ROOT.glob("*.py"),
        *(path for house in HOUSES for path in (ROOT / house).rglob("*.py")),
    ]
    assert len(files) > 500
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in files
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for match in METAPHORS.finditer(line)
    ]
    assert found == []


def test_every_file_is_laid_out_by_the_formatter() -> None:
    marks = re.compile(r"#\s*fmt:\s*(?:skip|off)")
    sources = [path for house in HOUSES for path in (ROOT / house).rglob("*.py")]
    assert len(sources) > 500
    texts = ((path, path.read_text(encoding="utf-8")) for path in sources)
    assert [
        str(path) for path, text in texts if path != Path(__file__) and marks.search(text)
    ] == []
