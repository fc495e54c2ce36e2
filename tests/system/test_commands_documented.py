"""Every flag of every command is explained where its users read."""

from __future__ import annotations

import argparse
import importlib

import pytest

from tests.support.paths import ROOT

DOCUMENTS = {
    "main": "README.md",
    "optimizer": "README.md",
    "apply_optimized_params": "README.md",
    "live_trade": "RUNBOOK.md",
}


def long_options(command: str) -> list[str]:
    parser: argparse.ArgumentParser = importlib.import_module(command).build_parser()
    return [
        option
        for action in parser._actions  # noqa: SLF001 - argparse shows them no other way
        for option in action.option_strings
        if option.startswith("--")
    ]


@pytest.mark.parametrize("command", DOCUMENTS)
def test_every_flag_is_named_in_the_document_of_its_command(command: str) -> None:
    text = (ROOT / DOCUMENTS[command]).read_text(encoding="utf-8")
    missing = [option for option in long_options(command) if option not in text]
    assert missing == []


@pytest.mark.parametrize("command", DOCUMENTS)
def test_every_command_is_named_in_the_readme(command: str) -> None:
    assert f"python3 {command}.py" in (ROOT / "README.md").read_text(encoding="utf-8")
