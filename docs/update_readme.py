"""Renew the generated parts of README.md: ``python3 -m docs.update_readme``.

They stand between ``<!-- begin NAME -->`` and ``<!-- end NAME -->``: the demo's printed output, the
example's output and the table of parameters. The picture is drawn anew too.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Final

import main
from backtest.report.parameter_table import markdown_table

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = ROOT / "README.md"
PICTURE: Final = ROOT / "docs" / "demo_BTC_trades.png"


def block(text: str, name: str) -> str:
    """Return what stands between the markers of ``name``.

    Raises:
        ValueError: a marker is missing.
    """
    begin, end = _markers(name)
    return text[text.index(begin) + len(begin) : text.index(end)].strip("\n")


def with_block(text: str, name: str, content: str) -> str:
    """Return ``text`` with ``content`` between the markers of ``name``."""
    begin, end = _markers(name)
    head, tail = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    return f"{head}\n{content}\n{tail}"


def fenced(text: str, language: str = "text") -> str:
    """Return ``text`` as a Markdown code block."""
    return f"```{language}\n{text.rstrip()}\n```"


def unfenced(text: str) -> str:
    """Return the content of a Markdown code block."""
    return text.strip().split("\n", 1)[1].rsplit("\n", 1)[0]


def demo_output(folder: Path) -> str:
    """Run the README's demo with its files in ``folder`` and return what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        main.main(["--demo", "--output", str(folder)])
    return printed.getvalue()


def example_output(readme: str) -> str:
    """Run the README's Python example and return what it prints."""
    printed = io.StringIO()
    code = compile(unfenced(block(readme, "example")), "README.md", "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, {})  # noqa: S102 - the project's own example
    return printed.getvalue()


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- begin {name} -->", f"<!-- end {name} -->"


def update() -> None:
    """Write README and picture."""
    text = README.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        text = with_block(text, "demo-output", fenced(demo_output(Path(folder))))
        PICTURE.write_bytes((Path(folder) / "BTC_trades.png").read_bytes())
    text = with_block(text, "example-output", fenced(example_output(text)))
    text = with_block(text, "parameters", markdown_table().rstrip())
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    update()
