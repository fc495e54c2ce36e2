"""Code is named by what it does: every file that can reach a kernel counts, comments do not."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from core.code_cache import ROOT, make_private
from core.fingerprint import SourceTree

FILES = {
    "core/levels/spacing.py": '"""Spacing."""\nFACTOR = 2.0  # of one step\n',
    "core/ledger.py": "from core.levels import spacing\ncost = lambda x: x * spacing.FACTOR\n",
    "engine/first/loop.py": "from core.ledger import cost\n\n\ndef run(x):\n    return cost(x)\n",
    "engine/second/loop.py": "import core.ledger\ndef run(x):\n    return -core.ledger.cost(x)\n",
    "engine/second/gates.py": "LIMIT = 3\n",
    "config.py": "VALUES = {}\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def digests(root: Path) -> tuple[str, str]:
    tree = SourceTree(root, memory=root / "sources.json")
    return tree.fingerprint("engine.first.loop"), tree.fingerprint("engine.second.loop")


def edit(root: Path, name: str, old: str, new: str) -> None:
    text = (root / name).read_text(encoding="utf-8")
    assert old in text
    (root / name).write_text(text.replace(old, new), encoding="utf-8")


def test_a_constant_in_a_nested_folder_changes_every_fingerprint_that_reaches_it(
    root: Path,
) -> None:
    before = digests(root)
    edit(root, "core/levels/spacing.py", "2.0", "7.0")
    after = digests(root)
    assert before[0] != after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("core/ledger.py", "\n", "\n# a comment\n"),
        ("core/levels/spacing.py", '"""Spacing."""', '"""What stands between two levels."""'),
        ("core/levels/spacing.py", "# of one step", '\n"""Of one step."""\n'),
        ("engine/first/loop.py", "    return cost(x)", "    return cost(\n        x\n    )"),
        ("config.py", "{}", "{1: 2}"),
    ],
)
def test_what_computes_nothing_changes_nothing(root: Path, name: str, old: str, new: str) -> None:
    before = digests(root)
    edit(root, name, old, new)
    assert digests(root) == before


def test_an_edit_of_one_strategy_leaves_the_other_alone(root: Path) -> None:
    before = digests(root)
    edit(root, "engine/second/loop.py", "-core", "+core")
    after = digests(root)
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_a_module_that_is_newly_imported_counts_from_then_on(root: Path) -> None:
    edit(root, "engine/second/loop.py", "import core.ledger", "import core.ledger\nimport os.path")
    before = digests(root)
    edit(root, "engine/second/gates.py", "3", "4")
    assert digests(root) == before
    edit(root, "engine/second/loop.py", "import os.path", "from engine.second import gates")
    imported = digests(root)
    edit(root, "engine/second/gates.py", "4", "5")
    assert imported[1] != before[1]
    assert digests(root)[1] != imported[1]


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00"])
def test_a_damaged_memory_is_made_anew(root: Path, text: str) -> None:
    before = digests(root)
    (root / "sources.json").write_text(text, encoding="ascii")
    assert digests(root) == before


def test_circles_end(root: Path) -> None:
    edit(root, "core/levels/spacing.py", "FACTOR", "import core.ledger\nFACTOR")
    closure = SourceTree(root).closure("engine.first.loop")
    assert {"core.ledger", "core.levels.spacing", "engine.first.loop"} <= set(closure)


def test_an_unknown_module_is_an_error(root: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"engine\.third"):
        SourceTree(root).fingerprint("engine.third")


KERNEL_FILES = {
    "core/levels/__init__.py": "",
    "core/levels/factor.py": "FACTOR = 10.0\n",
    "engine/probe.py": (
        "from core.jit import kernel\nfrom core.levels.factor import FACTOR\n\n\n"
        "@kernel\ndef scaled(x):\n    return x * FACTOR\n"
    ),
}


def evaluate(root: Path, *, compiled: bool = True) -> float:
    """Run the probe's kernel in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", "from engine.probe import scaled; print(scaled(1.0))"],
        cwd=root,
        env={**os.environ, "NUMBA_DISABLE_JIT": "0" if compiled else "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def machine_code(root: Path) -> set[str]:
    return {path.parent.name for path in (root / ".numba_cache").rglob("*scaled-*.nbc")}


@pytest.mark.slow
def test_machine_code_follows_a_constant_in_a_nested_file_and_survives_a_comment(
    tmp_path: Path,
) -> None:
    for name in ("__init__", "jit", "fingerprint", "code_cache"):
        source = (ROOT / "core" / f"{name}.py").read_text(encoding="utf-8")
        (tmp_path / "core").mkdir(exist_ok=True)
        (tmp_path / "core" / f"{name}.py").write_text(source, encoding="utf-8")
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").touch()
    (tmp_path / "core" / "levels").mkdir()
    for name, text in KERNEL_FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert evaluate(tmp_path) == evaluate(tmp_path, compiled=False) == 10.0
    first = machine_code(tmp_path)
    assert len(first) == 1
    edit(tmp_path, "engine/probe.py", "@kernel", "# a comment moves the function down\n\n\n@kernel")
    assert evaluate(tmp_path) == 10.0
    assert machine_code(tmp_path) == first, "a comment has recompiled a kernel"
    edit(tmp_path, "core/levels/factor.py", "10.0", "70.0")
    assert evaluate(tmp_path) == evaluate(tmp_path, compiled=False) == 70.0
    assert len(machine_code(tmp_path)) == 2


def test_a_cache_folder_is_made_for_us_alone(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    assert make_private(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    assert make_private(folder), "nobody else could write to it"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o722])
def test_a_folder_that_others_can_write_to_keeps_no_machine_code(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    assert not make_private(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == mode, "what others made is left as it is"


@pytest.mark.parametrize(("mode", "is_safe"), [(0o755, True), (0o777, False), (0o1777, True)])
def test_a_folder_above_that_others_can_write_to_keeps_no_machine_code(
    tmp_path: Path, mode: int, *, is_safe: bool
) -> None:
    above = tmp_path / "shared"
    (above / "project").mkdir(parents=True)
    above.chmod(mode)
    assert make_private(above / "project" / "cache") is is_safe


def test_a_link_keeps_no_machine_code(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    assert not make_private(tmp_path / "cache")


@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give folders away"
)
def test_somebody_elses_folder_keeps_no_machine_code(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    assert not make_private(folder)
