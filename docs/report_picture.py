"""Renew the README's picture of the HTML report: ``python3 -m docs.report_picture``.

Needs the package chromium of Debian.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from PIL import Image

import main

PICTURE: Final = Path(__file__).resolve().parent / "demo_BTC_report.png"
_SIZE: Final = (1240, 1880)
_COLOURS: Final = 256
_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=20000",
)


def photograph(page: Path, picture: Path, folder: Path) -> None:
    """Write what a browser shows of ``page`` to ``picture``, PNG, its profile in ``folder``."""
    command = [
        "chromium",
        *_FLAGS,
        f"--user-data-dir={folder / 'profile'}",
        f"--window-size={_SIZE[0]},{_SIZE[1]}",
        f"--screenshot={picture}",
        page.as_uri(),
    ]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - as written above


def update() -> None:
    """Run the demo and write the picture of its report, in few colours so that it is small."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        silent = io.StringIO()
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            main.main(["--demo", "--coins", "BTC", "--output", str(folder)])
        photograph(folder / "BTC_report.html", folder / "page.png", folder)
        with Image.open(folder / "page.png") as page:
            small = page.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
        small.save(PICTURE, optimize=True)


if __name__ == "__main__":
    update()
