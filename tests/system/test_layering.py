"""Who may import whom: the table in ARCHITECTURE.md, read from the imports."""

from __future__ import annotations

import ast
import re
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


def test_a_benchmark_imports_nothing_of_the_tests() -> None:
    for path in sources("benchmarks"):
        for name in imported_modules(path.read_text(encoding="utf-8")):
            assert layer_of(name) != "tests", (path, name)


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


def test_the_engine_names_one_module_of_the_backtest_and_imports_it_where_it_draws() -> None:
    """Results show themselves: the module that draws them is found by its name, when asked for."""
    named = {
        (path.name, node.value)
        for path in sources("engine")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.fullmatch(r"(backtest|live)(\.\w+)+", node.value)
    }
    assert named == {("result_dict.py", "backtest.report.view")}
    assert (ROOT / "backtest" / "report" / "view.py").is_file()


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


# --- rooms --------------------------------------------------------------------------------------

ROOMS = {
    "core": "",
    "engine.kit": "core",
    "engine.contract": "core engine.kit",
    "engine.views": "core engine.kit engine.contract",
    "engine.stepped": "core engine.kit engine.contract",
    "engine.grid_v4": "core engine.kit engine.contract engine.views",
    "engine.fixed_grid": "core engine.kit engine.contract engine.views",
    "engine.short_grid": "core engine.kit engine.contract engine.views",
    "engine.strategy": "core config engine.kit engine.contract engine.grid_v4",
    "engine.registry": "core config engine.contract engine.strategy engine.fixed_grid "
    "engine.short_grid engine.compiling",
    "engine.fixed_strategy": "core engine.kit engine.fixed_grid engine.strategy engine.registry",
    "engine.compiling": "core engine.kit engine.contract engine.grid_v4 engine.strategy",
    "engine.options": "core engine.contract engine.registry",
    "live.exchange": "core",
    "live.simulated": "core live.exchange",
    "live.feed": "core engine.contract live.exchange",
    "live.store": "core engine.kit engine.contract engine.registry live.exchange",
    "live.health": "core engine.contract live.exchange live.store",
    "live.execution": "core engine.contract live.exchange live.feed live.store live.health",
    "live.session": "core engine.contract engine.registry live.exchange live.feed live.store "
    "live.health live.execution",
    "live.host": "core engine.contract engine.registry live.exchange live.feed live.store "
    "live.health live.execution live.session",
    "live.bridge": "core engine.contract backtest.results",
    "live.commands": "core config engine.contract engine.registry live.exchange "
    "live.feed live.store live.health live.execution live.session live.host live.bridge",
    "backtest.data_fetcher": "core config backtest.market",
    "backtest.market": "core live.exchange",
    "backtest.ticks": "core engine.short_grid backtest.market",
    "backtest.runs": "core engine.kit engine.contract engine.grid_v4 engine.fixed_grid "
    "engine.short_grid engine.strategy engine.registry engine.compiling backtest.market "
    "backtest.ticks",
    "backtest.simulator": "core config engine.kit engine.contract engine.compiling "
    "engine.registry backtest.market backtest.runs",
    "backtest.results": "core engine.kit engine.contract engine.registry engine.short_grid "
    "backtest.market backtest.runs",
    "backtest.audit": "core config backtest.market",
    "backtest.trust": "core config engine.kit engine.contract engine.compiling engine.registry "
    "engine.fixed_grid backtest.market backtest.runs backtest.simulator",
    "backtest.report": "core engine.kit engine.contract engine.registry engine.fixed_grid "
    "engine.short_grid "
    "backtest.market backtest.results backtest.runs backtest.trust",
    "backtest.optimize.trial": "core engine.kit engine.contract engine.grid_v4 "
    "engine.fixed_grid engine.strategy engine.registry engine.compiling backtest.market "
    "backtest.runs backtest.simulator",
    "backtest.optimize.search": "core config backtest.results backtest.optimize.trial",
    "backtest.optimize.apply": "core config backtest.results",
    "backtest.optimize.judge": "core backtest.market backtest.results backtest.runs "
    "backtest.trust "
    "backtest.optimize.trial backtest.optimize.search backtest.optimize.apply",
    "backtest.optimize.report": "core backtest.market backtest.report backtest.results "
    "backtest.optimize.trial backtest.optimize.search backtest.optimize.apply "
    "backtest.optimize.judge",
    "backtest.optimize": "core engine.contract engine.compiling engine.registry backtest.market "
    "backtest.runs backtest.report backtest.results backtest.simulator backtest.optimize.trial "
    "backtest.optimize.search backtest.optimize.apply backtest.optimize.report "
    "backtest.optimize.judge",
    "backtest.commands": "core config engine.contract engine.compiling engine.options "
    "engine.registry engine.short_grid backtest.ticks backtest.market "
    "backtest.audit backtest.report backtest.results backtest.runs "
    "backtest.simulator backtest.trust",
}
"""A room a line: what it may import besides itself."""
STANDING_ALONE = {
    "contract",
    "strategy",
    "fixed_strategy",
    "registry",
    "compiling",
    "options",
    "views",
    "stepped",
}
STRATEGIES = {"grid_v4", "fixed_grid", "short_grid"}


def room_of(module: str) -> str:
    """Return the room a module lies in."""
    parts = module.split(".")
    if parts[0] == "engine":
        name = parts[1] if len(parts) > 1 else ""
        return f"engine.{name}" if name in STANDING_ALONE | STRATEGIES else "engine.kit"
    if parts[:2] == ["backtest", "optimize"]:
        inside = len(parts) > 2 and (ROOT / "backtest" / "optimize" / parts[2]).is_dir()
        return ".".join(parts[:3] if inside else parts[:2])
    return ".".join(parts[:2]) if parts[0] in {"backtest", "live"} else parts[0]


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def house() -> list[tuple[str, ast.Module]]:
    """Return every module of the house and its syntax."""
    return [
        (module_of(path), ast.parse(path.read_text(encoding="utf-8")))
        for layer in ("core", "engine", "backtest", "live")
        for path in sources(layer)
    ]


def arrows() -> set[tuple[str, str, str]]:
    """Return (room, imported room, modules) of every import from one room to another."""
    found = set()
    for module, tree in house():
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [
                    name
                    if ROOT.joinpath(*name.split(".")).with_suffix(".py").exists()
                    else node.module
                    for name in whole
                ]
            for name in names:
                ours = layer_of(name) is not None and room_of(name) != room_of(module)
                if ours:
                    found.add((room_of(module), room_of(name), f"{module} imports {name}"))
    return found


def test_a_room_imports_only_what_its_line_allows() -> None:
    found = arrows()
    assert len(found) > 200
    wrong = {text for room, other, text in found if other not in ROOMS[room].split()}
    assert wrong == set()


def test_the_table_of_rooms_has_no_circle() -> None:
    left = {room: set(allowed.split()) - {"config"} for room, allowed in ROOMS.items()}
    while left:
        free = {room for room, needs in left.items() if not needs & set(left)}
        assert free, f"rooms in a circle, or reaching into one: {sorted(left)}"
        left = {room: needs for room, needs in left.items() if room not in free}


def test_no_strategy_imports_another() -> None:
    for name in STRATEGIES:
        others = {f"engine.{other}" for other in STRATEGIES - {name}}
        assert not others & set(ROOMS[f"engine.{name}"].split())


def test_no_room_imports_a_private_name_of_another() -> None:
    looked_at, found = 0, []
    for module, tree in house():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or layer_of(node.module or "") is None:
                continue
            looked_at += len(node.names)
            private = [alias.name for alias in node.names if alias.name.startswith("_")]
            if private and room_of(node.module or "") != room_of(module):
                found.append((module, node.module, private))
    assert looked_at > 1_000
    assert found == []
