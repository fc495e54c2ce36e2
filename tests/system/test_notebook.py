"""The notebook in docs runs, and shows what it showed when it was written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from docs.update_notebook import executed, read_notebook

HINT = "run python3 -m docs.update_notebook"


def outputs(notebook: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return what every cell printed and showed; of pictures that they are there."""
    found: list[tuple[str, Any]] = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            found += [("text", "".join(output["text"]))] if "text" in output else []
            for kind, value in output.get("data", {}).items():
                found.append((kind, "" if kind.startswith("image/") else "".join(value)))
    return found


@pytest.mark.slow
def test_the_notebook_shows_what_its_cells_show(tmp_path: Path) -> None:
    kept = read_notebook()
    again = executed(kept, tmp_path)
    assert outputs(again) == outputs(kept), HINT
    assert (tmp_path / "BTC_report.html").stat().st_size > 100_000


def test_the_notebook_is_whole_short_and_executed_in_order() -> None:
    notebook = read_notebook()
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert 5 < len(cells) < 20
    kinds = {kind for kind, _ in outputs(notebook)}
    assert kinds == {"text", "text/html", "text/plain", "image/png"}
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)


def test_the_notebook_asks_no_exchange_and_shows_no_path_of_a_machine() -> None:
    notebook = read_notebook()
    code = "".join(
        "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"
    )
    assert 'source="demo"' in code
    assert "BacktestSimulator(" in code
    for simulator in re.findall(r"BacktestSimulator\(.*\)", code):
        assert 'source="demo"' in simulator
    text = "".join(value for _, value in outputs(notebook))
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)
