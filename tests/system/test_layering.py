"""Who may import whom: the table in ARCHITECTURE.md, read from the imports."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

LAYERS = ("config", "core", "engine", "backtest", "live", "docs", "benchmarks", "tests", "main")

ALLOWED = {
    "config": set(),
    "core": {"core"},
    "engine": {"engine", "core", "config"},
    "backtest": {"backtest", "engine", "core", "config", "live"},  # of live only live.exchange
    "live": {"live", "engine", "core", "config"},
}
CORE_LIBRARIES = {"numpy", "numba", "sklearn", "threadpoolctl"}


def imported_modules(source: str) -> set[str]:
    """Return the full names of all modules a source imports, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            found.add(node.module or "")
    return found


def layer_of(module: str) -> str | None:
    top = module.partition(".")[0]
    return top if top in LAYERS or (ROOT / f"{top}.py").exists() else None


def sources(layer: str) -> list[Path]:
    single = ROOT / f"{layer}.py"
    return [single] if single.exists() else sorted((ROOT / layer).rglob("*.py"))


@pytest.mark.parametrize("layer", ALLOWED)
def test_a_layer_imports_only_what_the_table_allows(layer: str) -> None:
    files = sources(layer)
    assert files
    for path in files:
        ours = {layer_of(name) for name in imported_modules(path.read_text(encoding="utf-8"))}
        assert ours - {None} <= ALLOWED[layer], path


def test_a_backtest_knows_of_live_only_how_the_exchange_is_spoken_to() -> None:
    """Binance is spoken once: market data is asked for by live trading's client."""
    found = {
        (path.relative_to(ROOT).parts[1], name)
        for path in sources("backtest")
        for name in imported_modules(path.read_text(encoding="utf-8"))
        if layer_of(name) == "live"
    }
    assert found
    for room, name in found:
        assert (room, name.rpartition(".")[0].startswith("live.exchange")) == ("market", True), name


def test_core_uses_no_library_but_numpy_numba_and_scikit_learn() -> None:
    for path in sources("core"):
        names = imported_modules(path.read_text(encoding="utf-8"))
        libraries = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
        assert libraries - {"core"} <= CORE_LIBRARIES, path


def test_only_core_jit_knows_numba() -> None:
    for layer in ("core", "engine", "backtest", "live"):
        for path in sources(layer):
            names = imported_modules(path.read_text(encoding="utf-8"))
            knows = any(name.partition(".")[0] == "numba" for name in names)
            assert not knows or path == ROOT / "core" / "jit.py", path


def test_the_documented_table_names_every_layer() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for layer in ALLOWED:
        assert f"`{layer}" in text


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("import core.jit", {"core.jit"}),
        ("from engine import types", {"engine"}),
        ("def f():\n    from live.session.runner import go", {"live.session.runner"}),
        ("if x:\n    import backtest", {"backtest"}),
    ],
)
def test_imports_are_found_wherever_they_stand(source: str, modules: set[str]) -> None:
    assert imported_modules(source) == modules
