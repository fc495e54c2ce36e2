"""State files of an earlier layout, brought to the present one.

Schema 1 named neither program nor strategy (there was one), numbered the labels of market exits,
and called two fields otherwise. Until schema 2 an order's position side was called direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from engine.types import LABEL_NAMES

READABLE: Final = (1, 2, 3)
"""Layouts this version reads; the last is the one it writes."""
_FIRST_PROGRAM: Final = "before 4.1.0"
_FIRST_STRATEGY: Final = "grid_v4"


def upgraded(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole document of a layout in ``READABLE`` in the present one.

    Raises:
        KeyError: it lacks what its layout has.
        IndexError: a label has a number that stands for none.
    """
    if document["schema"] == READABLE[-1]:
        return dict(document)
    session = dict(document["session"])
    program = {}
    if document["schema"] == READABLE[0]:
        program = {"program": _FIRST_PROGRAM, "strategy": _FIRST_STRATEGY}
        session["progress"] = _renamed(session["progress"], "strange_orders", "foreign_orders")
        session["orders"] = [_order_of_schema_1(order) for order in session["orders"]]
    orders = [_renamed(order, "direction", "position_side") for order in session["orders"]]
    return {**document, **program, "schema": READABLE[-1], "session": {**session, "orders": orders}}


def _order_of_schema_1(order: Mapping[str, Any]) -> dict[str, Any]:
    label = order["label"]
    renamed = _renamed(order, "told_qty", "reported_qty")
    return {**renamed, "label": LABEL_NAMES[label] if label >= 0 else ""}


def _renamed(fields: Mapping[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if name == old else name: value for name, value in fields.items()}
