"""Execute the notebook in this folder anew: ``python3 -m docs.update_notebook``.

Plain Python: a cell's code is run, what it prints and what its last expression shows is kept, as
Jupyter would. No kernel is needed, and no server.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

NOTEBOOK: Final = Path(__file__).resolve().parent / "results.ipynb"
_RICH: Final = {"_repr_html_": "text/html", "_repr_png_": "image/png"}
"""Method of an object by which it shows itself, and what that is."""


def read_notebook() -> dict[str, Any]:
    """Return the notebook (format 4.5)."""
    found: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return found


def executed(notebook: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return ``notebook`` with the outputs of its cells, run in ``folder`` one after the other.

    Raises:
        Exception: whatever a cell raised.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    with _inside(folder):
        for cell in notebook["cells"]:
            if cell["cell_type"] != "code":
                cells.append(cell)
                continue
            count += 1
            outputs = _outputs("".join(cell["source"]), names, count)
            cells.append({**cell, "execution_count": count, "outputs": outputs})
    return {**notebook, "cells": cells}


def _outputs(code: str, names: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Run a cell and return what it printed and showed."""
    body = ast.parse(code).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed, shown = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "cell", "exec"), names)  # noqa: S102 - our own text
        if isinstance(last, ast.Expr):
            shown = eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # noqa: S307
    outputs: list[dict[str, Any]] = []
    if text := printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(text)})
    if shown is not None:
        outputs.append(
            {
                "data": _data(shown),
                "execution_count": count,
                "metadata": {},
                "output_type": "execute_result",
            }
        )
    return outputs


def _data(shown: Any) -> dict[str, Any]:
    """Return an object in every form it has: as it shows itself, else as text."""
    data: dict[str, Any] = {}
    for method, kind in _RICH.items():
        value = getattr(shown, method)() if hasattr(shown, method) else None
        if isinstance(value, bytes):
            data[kind] = base64.b64encode(value).decode() + "\n"
        elif value is not None:
            data[kind] = _lines(value)
    return data or {"text/plain": _lines(repr(shown))}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def update() -> None:
    """Write the notebook with its outputs of now."""
    with tempfile.TemporaryDirectory() as folder:
        found = executed(read_notebook(), Path(folder))
    text = json.dumps(found, indent=1, ensure_ascii=False)
    NOTEBOOK.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    update()
