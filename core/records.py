"""Records: one annotated class is the field list, the documentation, the dtype and the type."""

from __future__ import annotations

from dataclasses import is_dataclass
from enum import IntEnum, IntFlag
from functools import cache
from typing import (
    Annotated,
    Any,
    Final,
    Protocol,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_SCALARS: dict[Any, str] = {float: "f8", int: "i8", bool: "?"}
_DTYPES: dict[type[Any], np.dtype[Any]] = {}
_SHADOWED = frozenset(dir(np.record))
MEMO: Final = "memo"
"""Name of the field for what was worked out from the others: it is neither saved nor loaded."""


class Table(Protocol[T_co]):
    """Fixed-length array of records; ``table[i]`` is a view, never a copy."""

    def __getitem__(self, index: int) -> T_co: ...

    def __setitem__(self, index: int, value: Any) -> None: ...

    def __len__(self) -> int: ...


def _row_and_shape(hint: Any) -> tuple[Any, tuple[int, ...]]:
    if get_origin(hint) is not Annotated:
        return hint, ()
    table, length = get_args(hint)
    return get_args(table)[0], (length,)


def _scalar_code(row: Any) -> str | None:
    """Return the dtype code of a scalar field; enumerations are stored as their numbers."""
    if isinstance(row, type) and issubclass(row, IntEnum | IntFlag):
        return "i8"
    return _SCALARS.get(row)


def dtype_of(cls: type[Any]) -> np.dtype[Any]:
    """Return the aligned dtype that stores the annotated fields of ``cls``."""
    if cls not in _DTYPES:
        _DTYPES[cls] = _read_fields(cls)
    return _DTYPES[cls]


def _read_fields(cls: type[Any]) -> np.dtype[Any]:
    fields: list[Any] = []
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if name in _SHADOWED:
            raise TypeError(f"{cls.__name__}.{name} is shadowed by np.record.{name}; rename it")
        row, shape = _row_and_shape(hint)
        fields.append((name, _scalar_code(row) or dtype_of(row), shape))
    return np.dtype((np.record, np.dtype(fields, align=True)))


def zeros(cls: type[T]) -> T:
    """Return a zero-filled record with the fields of ``cls``."""
    return cast(T, np.zeros(1, dtype_of(cls))[0])


def zeros_table(cls: type[T], length: int) -> Table[T]:
    """Return a zero-filled table of ``length`` records."""
    return cast(Table[T], np.zeros(length, dtype_of(cls)))


def freeze(instance: T) -> T:
    """Copy a (nested) dataclass into a read-only record with the same field names."""

    def fill(record: Any, source: Any) -> None:
        for name in record.dtype.names:
            value = getattr(source, name)
            if is_dataclass(value):
                fill(record[name], value)
            else:
                record[name] = value

    buffer = np.zeros(1, dtype_of(type(instance)))
    fill(buffer[0], instance)
    buffer.flags.writeable = False
    return cast(T, buffer[0])


def _rows_in_use(record: Any, name: str) -> int | None:
    """Return the count in ``n_<name>`` if the record keeps one for its table ``name``."""
    counter = f"n_{name}"
    return int(record[counter]) if counter in record.dtype.names else None


@cache
def _is_flat(dtype: np.dtype[Any]) -> bool:
    """Return whether every field of a row is a scalar that is kept."""
    fields = [dtype[name] for name in dtype.names or ()]
    return MEMO not in (dtype.names or ()) and not any(f.shape or f.names for f in fields)


def to_jsonable(record: Any) -> Any:
    """Convert a record to nested dicts, lists and scalars.

    Of a table with a counter beside it (``fills`` and ``n_fills``) only the rows in use are kept,
    and no field named ``MEMO``. Live trading asks several times a step: tables are read at once.
    """
    if isinstance(record, np.ndarray):
        names = record.dtype.names
        if names is None:
            return record.tolist()
        if _is_flat(record.dtype):
            return [dict(zip(names, row, strict=True)) for row in record.tolist()]
        return [to_jsonable(item) for item in record]
    if not isinstance(record, np.void):
        return record.item()
    found = {}
    for name in record.dtype.names or ():
        if name == MEMO:
            continue
        value = record[name]
        if isinstance(value, np.ndarray):
            value = value[: _rows_in_use(record, name)]
        found[name] = to_jsonable(value)
    return found


def load_jsonable(record: Any, data: Any) -> None:
    """Fill ``record`` in place from ``to_jsonable`` output; rows not in use and memos become zero.

    Raises:
        ValueError: if the keys or lengths of ``data`` differ from the record's.
    """
    names = set(record.dtype.names or ()) - {MEMO}
    if MEMO in (record.dtype.names or ()):
        record[MEMO] = np.zeros((), record.dtype[MEMO])
    if names != set(data):
        raise ValueError(
            f"state fields differ: missing {sorted(names - set(data))}, "
            f"unknown {sorted(set(data) - names)}"
        )
    for name in names:
        if isinstance(record[name], np.ndarray):
            counter = f"n_{name}"
            rows = int(data[counter]) if counter in names else len(record[name])
            _load_table(record[name], data[name], rows, name)
        elif isinstance(record[name], np.void):
            load_jsonable(record[name], data[name])
        else:
            record[name] = data[name]


def _load_table(table: Any, rows: Any, expected: int, name: str) -> None:
    if len(rows) != expected or expected > len(table):
        raise ValueError(f"state table {name} has {len(rows)} rows, expected {expected}")
    table[:] = np.zeros(1, table.dtype)[0]
    for i, item in enumerate(rows):
        if isinstance(table[i], np.void):
            load_jsonable(table[i], item)
        else:
            table[i] = item


def table_capacities(dtype: np.dtype[Any], prefix: str = "") -> dict[str, int]:
    """Return the length of every saved table in a record's ``dtype``, by its dotted name."""
    lengths: dict[str, int] = {}
    for name in dtype.names or ():
        if name == MEMO:
            continue
        field = dtype[name]
        if field.shape:
            lengths[prefix + name] = field.shape[0]
        lengths |= table_capacities(field.base, f"{prefix}{name}.")
    return lengths
