"""The version of the program, as people quote it."""

from __future__ import annotations

from typing import Final

VERSION: Final = "4.1.0"
