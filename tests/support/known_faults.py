"""Campaigns that find a fault which is known and not mended yet: they run, and say so."""

from __future__ import annotations

import pytest


def known_fault(reason: str) -> pytest.MarkDecorator:
    """Mark a test that fails at present; ``reason`` says what is wrong, and it runs all the same.

    Not strict: some of these pass or fail with the machine's load.
    """
    return pytest.mark.xfail(strict=False, reason=reason)
