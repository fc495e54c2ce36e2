"""The table of strategy parameters, for ``main.py --list-params`` and the README.

``python3 -m backtest.report.parameter_table`` prints it as Markdown.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any, Final, NamedTuple, get_type_hints

from config import PRESETS, STRATEGY_PARAMS
from core.params import StrategyParams, param_fields

_DOCUMENTED: Final = "documented"


class Row(NamedTuple):
    """One parameter as text."""

    name: str
    default: str
    documented: str
    values: str
    meaning: str


def parameter_rows() -> list[Row]:
    """Return every strategy parameter: default, the documented preset's value, what is allowed."""
    kinds = get_type_hints(StrategyParams)
    preset: dict[str, Any] = PRESETS[_DOCUMENTED]
    defaults: dict[str, Any] = STRATEGY_PARAMS
    return [
        Row(
            name,
            value_text(defaults[name]),
            value_text(preset[name]) if name in preset else "",
            _allowed(kinds[name], field.metadata),
            field.metadata["doc"],
        )
        for name, field in param_fields().items()
    ]


def markdown_table() -> str:
    """Return the parameters as a Markdown table, ending in a line break."""
    head = "| parameter | default | `documented` | allowed | meaning |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| `{row.name}` | {row.default} | {row.documented} | {row.values} | {row.meaning} |\n"
        for row in parameter_rows()
    )


def text_table() -> str:
    """Return the parameters as lines for a terminal."""
    rows = parameter_rows()
    name_width = max(len(row.name) for row in rows)
    return "\n".join(
        f"{row.name:<{name_width}}  {row.default}"
        + (f" (documented: {row.documented})" if row.documented else "")
        + f"\n    {row.meaning}; {row.values}"
        for row in rows
    )


def value_text(value: Any) -> str:
    """Return a parameter's value as a person types it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return " ".join(value)
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value)


def _allowed(kind: type, metadata: Any) -> str:
    if kind is bool:
        return "true, false"
    if issubclass(kind, IntFlag):
        return "any of " + " ".join(rule.name or "" for rule in kind)
    if issubclass(kind, IntEnum):
        return ", ".join(item.name.lower() for item in kind)
    return f"{metadata['low']:.12g} to {metadata['high']:.12g} {metadata['unit']}".rstrip()


if __name__ == "__main__":
    print(markdown_table(), end="")  # noqa: T201
