"""A headless chromium (Debian: ``chromium chromium-driver``; ``pip install selenium``)."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1300,1000",
)


def missing() -> list[str]:
    """Return what is not installed of what the measurement needs."""
    programs = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    return programs + ([] if importlib.util.find_spec("selenium") else ["selenium"])


def start_browser(profile: Path, capabilities: Mapping[str, Any] | None = None) -> Any:
    """Return a headless browser with an empty profile.

    Args:
        profile: an empty folder.
        capabilities: asked of the driver, by name.
    """
    from selenium.webdriver import Chrome  # noqa: PLC0415 - only where it is installed
    from selenium.webdriver.chrome.options import Options  # noqa: PLC0415
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    for name, wanted in (capabilities or {}).items():
        options.set_capability(name, wanted)
    return Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
