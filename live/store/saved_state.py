"""A state file, read for people and for closing, whichever parameters it was written with."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from core.errors import StateError
from core.params import StrategyParams
from engine.contract import Strategy
from engine.strategy import create
from live.execution.books import Progress
from live.execution.order_register import OrderRecord
from live.store.state_file import decode, read_document


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedState:
    """What stands in a state file.

    Attributes:
        saved_at: ms UTC.
        code_fingerprint: of the decision code that wrote it.
        parameters: of the strategy, as ``StrategyParams.to_dict`` gave them.
        strategy: as it was saved; it can be read only.
        orders: every order still remembered.
        progress: how far the session has come.
    """

    saved_at: int
    code_fingerprint: str
    parameters: dict[str, Any]
    strategy: Strategy
    orders: list[OrderRecord]
    progress: Progress


def saved_state(path: Path) -> SavedState | None:
    """Return what is saved in ``path``, None if there is no such file.

    Raises:
        StateError: it cannot be read, is damaged, or is not of this version's layout.
    """
    document = read_document(path)
    if document is None:
        return None
    if not document:
        raise StateError(
            f"{path} is damaged: it was cut off or changed after it was written; --resume names "
            "the newest usable snapshot"
        )
    session = decode(document["session"])
    known = {item.name for item in fields(Progress)}
    try:
        parameters = decode(document["parameters"])
        strategy = create(StrategyParams.from_dict(parameters), None)
        strategy.load_state_dict(decode(document["engine"]))
        return SavedState(
            saved_at=int(document["saved_at"]),
            code_fingerprint=str(document["code_fingerprint"]),
            parameters=parameters,
            strategy=strategy,
            orders=[OrderRecord.from_dict(row) for row in session["orders"]],
            progress=Progress(**{k: v for k, v in session["progress"].items() if k in known}),
        )
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise StateError(
            f"{path} is not of this version's layout: {error}; go on with the code that wrote it"
        ) from None
