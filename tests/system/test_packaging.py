"""Packaging: one list of requirements, a lock for live trading, a task per check."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from core.version import VERSION
from tests.support.paths import ROOT

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
LOCK = (ROOT / "deploy" / "requirements.lock").read_text(encoding="utf-8")
PINNED = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", LOCK, re.MULTILINE)
}
DISTRIBUTIONS = {"dotenv": "python-dotenv"}


def lines(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in text if line and line[0] not in "#-"]


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def libraries_of(path: Path) -> set[str]:
    """Return the libraries a source imports, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    ours = {item.stem for item in ROOT.iterdir()}
    modules = found - ours - set(sys.stdlib_module_names)
    return {canonicalize_name(DISTRIBUTIONS.get(module, module)) for module in modules}


def test_the_requirement_files_hold_what_the_project_file_says() -> None:
    running = PROJECT["dependencies"] + EXTRAS["live"] + EXTRAS["optimize"] + EXTRAS["report"]
    assert sorted(lines("requirements.txt")) == sorted(running)
    assert sorted(lines("requirements-dev.txt")) == sorted(EXTRAS["test"] + EXTRAS["dev"])
    assert "-r requirements.txt" in (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")


def test_what_only_tests_need_is_not_on_a_traders_machine() -> None:
    tools = names(lines("requirements-dev.txt"))
    assert {"pytest", "hypothesis", "selenium", "ta-lib", "ruff", "mypy"} <= tools
    assert not tools & names(lines("requirements.txt"))
    assert not tools & PINNED.keys()


def test_everything_the_program_imports_is_required() -> None:
    required = names(lines("requirements.txt"))
    sources = [*ROOT.glob("*.py")]
    for folder in ("core", "engine", "backtest", "live"):
        sources += (ROOT / folder).rglob("*.py")
    assert len(sources) > 100
    for path in sources:
        assert libraries_of(path) <= required, path


def test_the_version_is_that_of_the_program() -> None:
    assert PROJECT["dynamic"] == ["version"]
    module, _, name = PYPROJECT["tool"]["setuptools"]["dynamic"]["version"]["attr"].rpartition(".")
    assert getattr(importlib.import_module(module), name) == VERSION


def test_every_entry_point_is_a_command_of_the_project() -> None:
    assert len(PROJECT["scripts"]) == 4
    for target in PROJECT["scripts"].values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
        assert module in PYPROJECT["tool"]["setuptools"]["py-modules"]


# --- the lock file of live trading ----------------------------------------------------------------


def test_the_lock_pins_what_live_trading_requires_within_its_bounds() -> None:
    for text in PROJECT["dependencies"] + EXTRAS["live"]:
        requirement = Requirement(text)
        pinned = PINNED[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pinned, prereleases=True), text


def test_every_pin_of_the_lock_has_hashes_and_names_no_host() -> None:
    blocks = re.split(r"\n(?=[\w.-]+==)", LOCK)[1:]
    assert len(blocks) >= len(PINNED) - 1 > 20
    for block in blocks:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), block[:60]
    assert "://" not in LOCK


def test_live_trading_installs_no_other_commands_libraries() -> None:
    others = names(EXTRAS["optimize"] + EXTRAS["report"] + EXTRAS["dev"] + EXTRAS["test"])
    assert not others & PINNED.keys()
    assert len(PINNED) < 45


def test_the_lock_holds_what_live_trading_imports() -> None:
    sources = [ROOT / "live_trade.py", ROOT / "main.py", ROOT / "config.py"]
    for folder in ("core", "engine", "live"):
        sources += (ROOT / folder).rglob("*.py")
    for path in sources:
        assert libraries_of(path) <= PINNED.keys(), path


# --- tasks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task", ["setup", "quick", "test", "lint", "docs", "bench", "lock", "sbom", "audit"]
)
def test_the_task_exists_and_is_documented(task: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{task}:.*  ## \S", makefile, re.MULTILINE)
    assert f"make {task}" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_lint_task_and_continuous_integration_check_the_same() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for check in ("ruff check .", "ruff format --check .", "mypy ."):
        assert f"-m {check}" in makefile
        assert f'"{check}"' in script


def test_hooks_fetch_nothing() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"repo: (\S+)", text) == ["local"]
    assert set(re.findall(r"language: (\S+)", text)) <= {"system", "fail"}
