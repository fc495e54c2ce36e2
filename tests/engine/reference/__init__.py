"""A slow, obvious implementation of the strategy, used as an oracle for the compiled one.

It is written from the strategy's definition alone and imports nothing of the project, so that an
error shared with the engine is unlikely. Lists, dataclasses and floats; clarity over speed.
"""

from __future__ import annotations

from tests.engine.reference.engine import ReferenceResult, run_reference

__all__ = ["ReferenceResult", "run_reference"]
