"""Values in the source of a Python file, replaced without touching anything around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, PositionProvider

from core.errors import ConfigError


def rewritten(
    source: bytes, name: str, values: Mapping[str, Any], shown: str
) -> tuple[bytes, dict[str, tuple[str, str]]]:
    """Return ``source`` with new values in its dict ``name``, and the texts of these values.

    Args:
        source: a Python file that compiles.
        name: of the dict, assigned once at the top level as ``{...}``.
        values: new values by key: bool, int, float, str, or a list of str.
        shown: the file's name in errors.

    Returns:
        The new source; old and new text by key, in the order of the source.

    Raises:
        ConfigError: the dict is not there or not a plain one, or a value to replace is not a
            literal; the text names the line.
    """
    return _Source(source, shown).with_values(name, values)


class _Source:
    """A parsed file, and which line its parts stand on."""

    def __init__(self, source: bytes, shown: str) -> None:
        try:
            module = cst.parse_module(source)
        except cst.ParserSyntaxError as error:
            raise ConfigError(f"{shown} line {error.raw_line}: {error.message}") from None
        self._wrapper = MetadataWrapper(module, unsafe_skip_copy=True)
        self._lines = self._wrapper.resolve(PositionProvider)
        self._module = module
        self._shown = shown

    def with_values(
        self, name: str, values: Mapping[str, Any]
    ) -> tuple[bytes, dict[str, tuple[str, str]]]:
        new: dict[cst.BaseDictElement, cst.BaseExpression] = {}
        texts: dict[str, tuple[str, str]] = {}
        entries = self._entries(self._dict(name), name)
        for key, entry in entries.items():
            if key in values:
                new[entry] = self._replacement(key, entry, values[key])
                texts[key] = self._text(entry.value), self._text(new[entry])
        if missing := values.keys() - entries.keys():
            raise ConfigError(f"{self._shown}: {name} does not list {', '.join(sorted(missing))}")
        changed = self._module.visit(_NewValues(new))
        return changed.bytes, texts

    def _dict(self, name: str) -> cst.Dict:
        found = [item for item in self._assignments() if name in item[0]]
        if not found:
            raise ConfigError(f"{self._shown}: has no line {name} = {{...}} at its top level")
        if len(found) > 1:
            lines = " and ".join(str(self._line(value)) for _, value in found)
            raise ConfigError(f"{self._shown}: {name} is assigned on lines {lines}; keep one")
        value = found[0][1]
        if not isinstance(value, cst.Dict):
            raise self._refusal(value, f"{name} must be a plain {{...}}")
        return value

    def _assignments(self) -> list[tuple[set[str], cst.BaseExpression]]:
        """Return names and value of every assignment at the top level."""
        found: list[tuple[set[str], cst.BaseExpression]] = []
        lines = [line for line in self._module.body if isinstance(line, cst.SimpleStatementLine)]
        for statement in (part for line in lines for part in line.body):
            if isinstance(statement, cst.AnnAssign) and statement.value is not None:
                found.append((_names([statement.target]), statement.value))
            elif isinstance(statement, cst.Assign):
                targets = [item.target for item in statement.targets]
                found.append((_names(targets), statement.value))
        return found

    def _entries(self, node: cst.Dict, name: str) -> dict[str, cst.DictElement]:
        entries: dict[str, cst.DictElement] = {}
        for entry in node.elements:
            if not isinstance(entry, cst.DictElement):
                raise self._refusal(entry.value, f"{name} must list its keys, without **")
            key = entry.key.evaluated_value if isinstance(entry.key, cst.SimpleString) else None
            if not isinstance(key, str):
                raise self._refusal(entry.key, f"a key of {name} must be written out as text")
            if key in entries:
                first = self._line(entries[key].key)
                raise self._refusal(entry.key, f"{key!r} is set on line {first} already; keep one")
            entries[key] = entry
        return entries

    def _replacement(self, key: str, entry: cst.DictElement, value: Any) -> cst.BaseExpression:
        old = entry.value
        if not _is_literal(old):
            raise self._refusal(
                entry.key,
                f"{key} = {self._text(old)} is worked out, not a plain value; edit it by hand",
            )
        if m.findall(old, m.Comment()):
            raise self._refusal(entry.key, f"{key} has a comment inside its value; edit it by hand")
        if isinstance(old, cst.Tuple | cst.List):
            return old.with_changes(elements=_elements(old.elements, value))
        text = self._text(old)
        if isinstance(value, list):  # a text such as "GAP OFFSET" stood for several names
            return cst.parse_expression(_quoted(" ".join(value) or "NONE", text))
        if isinstance(value, str):
            return _literal(_quoted(value, text), old)
        # A person who groups digits goes on doing so.
        grouped = "_" in text and not isinstance(value, bool)
        return _literal(f"{value:_}" if grouped else repr(value), old)

    def _refusal(self, node: cst.CSTNode, message: str) -> ConfigError:
        return ConfigError(f"{self._shown} line {self._line(node)}: {message}")

    def _line(self, node: cst.CSTNode) -> int:
        return self._lines[node].start.line

    def _text(self, node: cst.CSTNode) -> str:
        return " ".join(self._module.code_for_node(node).split())


class _NewValues(cst.CSTTransformer):
    """Gives entries of a dict new values."""

    def __init__(self, values: Mapping[cst.BaseDictElement, cst.BaseExpression]) -> None:
        super().__init__()
        self._values = values

    def leave_DictElement(  # noqa: N802 - libcst's name
        self, original_node: cst.DictElement, updated_node: cst.DictElement
    ) -> cst.DictElement:
        value = self._values.get(original_node)
        return updated_node if value is None else updated_node.with_changes(value=value)


def _names(targets: Sequence[cst.BaseExpression]) -> set[str]:
    return {target.value for target in targets if isinstance(target, cst.Name)}


def _is_literal(node: cst.BaseExpression) -> bool:
    match node:
        case cst.Integer() | cst.Float() | cst.SimpleString():
            return True
        case cst.Name(value="True" | "False"):
            return True
        case cst.UnaryOperation(operator=cst.Minus() | cst.Plus(), expression=number):
            return isinstance(number, cst.Integer | cst.Float)
        case cst.Tuple(elements=elements) | cst.List(elements=elements):
            return all(
                isinstance(item, cst.Element) and isinstance(item.value, cst.SimpleString)
                for item in elements
            )
    return False


def _literal(text: str, old: cst.BaseExpression) -> cst.BaseExpression:
    """Return the expression ``text`` in the parentheses of ``old``."""
    new: cst.BaseExpression = cst.parse_expression(text)
    return new.with_changes(lpar=old.lpar, rpar=old.rpar)


def _quoted(text: str, like: str) -> str:
    """Return a plain word in the quotes of the source text ``like``, else in double ones."""
    quote = "'" if "'" in like and '"' not in like else '"'
    return f"{quote}{text}{quote}"


def _elements(old: Sequence[cst.BaseElement], names: Sequence[str]) -> list[cst.BaseElement]:
    """Return the names as elements, spaced and separated as the old ones are."""
    like = cst.Module([]).code_for_node(old[0].value) if old else ""
    between = old[0].comma if len(old) > 1 else cst.MaybeSentinel.DEFAULT
    last = old[-1].comma if old else cst.MaybeSentinel.DEFAULT
    return [
        cst.Element(
            cst.SimpleString(_quoted(name, like)), comma=last if number == len(names) else between
        )
        for number, name in enumerate(names, 1)
    ]
