"""The table of strategy parameters, for ``main.py --list-params`` and the README.

``python3 -m backtest.report.parameter_table`` prints it as Markdown.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any, NamedTuple, get_type_hints

from core.params import param_fields
from engine.contract import StrategySpec
from engine.registry import GRID_V4


class Row(NamedTuple):
    """One parameter as text."""

    name: str
    default: str
    documented: str
    values: str
    meaning: str


def original_preset(spec: StrategySpec) -> str:
    """Return the name of the preset with the values of the strategy's description."""
    return next(name for name, changes in spec.presets.items() if changes)


def parameter_rows(spec: StrategySpec = GRID_V4) -> list[Row]:
    """Return every strategy parameter: default, the description's value, what is allowed."""
    kinds = get_type_hints(spec.params)
    preset = spec.presets[original_preset(spec)]
    return [
        Row(
            name,
            value_text(spec.defaults[name]),
            value_text(preset[name]) if name in preset else "",
            _allowed(kinds[name], field.metadata),
            field.metadata["doc"],
        )
        for name, field in param_fields(spec.params).items()
    ]


def markdown_table(spec: StrategySpec = GRID_V4) -> str:
    """Return the parameters as a Markdown table, ending in a line break."""
    head = (
        f"| parameter | default | `{original_preset(spec)}` | allowed | meaning |\n"
        "|---|---|---|---|---|\n"
    )
    return head + "".join(
        f"| `{row.name}` | {row.default} | {row.documented} | {row.values} | {row.meaning} |\n"
        for row in parameter_rows(spec)
    )


def text_table(spec: StrategySpec = GRID_V4) -> str:
    """Return the parameters as lines for a terminal."""
    rows, original = parameter_rows(spec), original_preset(spec)
    name_width = max(len(row.name) for row in rows)
    return "\n".join(
        f"{row.name:<{name_width}}  {row.default}"
        + (f" ({original}: {row.documented})" if row.documented else "")
        + f"\n    {row.meaning}; {row.values}".rstrip("; ")
        for row in rows
    )


def value_text(value: Any) -> str:
    """Return a parameter's value as a person types it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return " ".join(value_text(item) for item in value)
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value)


def _allowed(kind: Any, metadata: Any) -> str:
    if kind is bool:
        return "true, false"
    if isinstance(kind, type) and issubclass(kind, IntFlag):
        return "any of " + " ".join(rule.name or "" for rule in kind)
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return ", ".join(item.name.lower() for item in kind)
    if "low" not in metadata:
        return ""
    return f"{metadata['low']:.12g} to {metadata['high']:.12g} {metadata['unit']}".rstrip()


if __name__ == "__main__":
    print(markdown_table(), end="")  # noqa: T201
