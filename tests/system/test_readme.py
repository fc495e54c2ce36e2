"""The README keeps its promises: commands, output, example, table, picture, requirements."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import main
from backtest.report.parameter_table import markdown_table, parameter_rows
from core.params import param_fields
from docs.update_readme import (
    PICTURE,
    README,
    ROOT,
    block,
    demo_output,
    example_output,
    unfenced,
    with_block,
)
from engine.registry import FIXED_GRID

TEXT = README.read_text(encoding="utf-8")
HINT = "run python3 -m docs.update_readme"
VARYING = re.compile(r"^(Bars per second|Decision code) .*$", re.MULTILINE)


def requirements(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def commands_in_table() -> list[list[str]]:
    cells = re.findall(r"^\| `(python3 [^`]+)` \|", TEXT, re.MULTILINE)
    return [shlex.split(cell) for cell in cells]


@pytest.mark.slow
def test_the_printed_output_is_what_the_demo_prints(tmp_path: Path) -> None:
    shown, printed = unfenced(block(TEXT, "demo-output")), demo_output(tmp_path).rstrip()
    assert VARYING.sub(r"\1", shown) == VARYING.sub(r"\1", printed), HINT


def test_the_example_prints_what_is_shown() -> None:
    assert unfenced(block(TEXT, "example-output")) == example_output(TEXT).rstrip(), HINT


def test_the_table_of_parameters_is_the_current_one() -> None:
    assert block(TEXT, "parameters") == markdown_table().rstrip(), HINT


def test_the_table_of_the_fixed_grids_parameters_is_the_current_one() -> None:
    assert block(TEXT, "fixed-parameters") == markdown_table(FIXED_GRID).rstrip(), HINT


def test_the_table_of_parameters_names_each_once_in_order() -> None:
    assert [row.name for row in parameter_rows()] == list(param_fields())


@pytest.mark.parametrize(
    ("name", "file"),
    [("run-command", "requirements.txt"), ("test-command", "requirements-dev.txt")],
)
def test_a_command_is_one_line_that_starts_from_nothing(name: str, file: str) -> None:
    command = unfenced(block(TEXT, name))
    assert "\n" not in command
    assert command.startswith(
        f"python3 -m venv .venv && .venv/bin/pip install -r {file} && .venv/bin/python "
    )


def test_the_two_commands_run_the_demo_and_the_tests() -> None:
    assert unfenced(block(TEXT, "run-command")).endswith(".venv/bin/python main.py --demo")
    assert ".venv/bin/python -m pytest" in unfenced(block(TEXT, "test-command"))


def test_continuous_integration_takes_its_command_from_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "begin test-command" in script
    assert "ruff check ." in script
    assert "ruff format --check ." in script
    assert "mypy ." in script


def test_continuous_integration_leaves_your_environment_as_it_is() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "folder=.ci/venv" in script
    assert "${command//.venv/$folder}" in script
    assert ".ci/venv/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()


def test_every_command_in_the_table_exists() -> None:
    commands = commands_in_table()
    assert len(commands) > 10
    for command in commands:
        if command[1].endswith(".py"):
            script = importlib.import_module(command[1].removesuffix(".py"))
            if not {"--help", "--version"} & set(command):
                script.build_parser().parse_args(command[2:])
        else:
            assert command[1] == "-m"
            path = command[2].replace(".", "/")
            modules = (ROOT / f"{path}.py", ROOT / path / "__main__.py")
            assert command[2] == "pytest" or any(module.exists() for module in modules), modules


def test_every_flag_is_shown_in_the_table() -> None:
    shown = {word for command in commands_in_table() for word in command}
    for action in main.build_parser()._actions:  # noqa: SLF001 - argparse shows them no other way
        assert shown & set(action.option_strings), action.option_strings


def test_every_link_leads_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lower().lstrip("# ")).replace(" ", "-")
        for line in TEXT.splitlines()
        if line.startswith("#")
    }
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert links
    for link in links:
        assert link[1:] in headings if link.startswith("#") else (ROOT / link).exists(), link


def test_the_picture_is_small_enough_to_commit() -> None:
    assert PICTURE.read_bytes().startswith(b"\x89PNG")
    assert PICTURE.stat().st_size < 200_000


def test_the_risk_stands_before_the_first_command() -> None:
    assert TEXT.index("**Risk.**") < TEXT.index("python3")
    assert "break-even" in TEXT


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_has_a_lower_and_an_upper_bound(name: str) -> None:
    for requirement in requirements(name):
        signs = {part.operator for part in requirement.specifier}
        assert signs == {">=", "<"}, str(requirement)


def test_the_installed_libraries_are_within_the_bounds() -> None:
    for requirement in requirements("requirements.txt"):
        installed = importlib.metadata.version(requirement.name)
        assert requirement.specifier.contains(installed, prereleases=True), str(requirement)


def test_a_block_is_replaced_between_its_markers_only() -> None:
    text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n"
    renewed = with_block(text, "x", "new")
    assert renewed == "a\n<!-- begin x -->\nnew\n<!-- end x -->\nb\n"
    assert block(renewed, "x") == "new"
