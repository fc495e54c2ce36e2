"""The search space of a strategy, read once and checked against the parameters' bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, get_type_hints

from core.errors import ConfigError
from core.params import PruneRule, param_fields, read_value, unknown_key
from engine.contract import StrategySpec
from engine.registry import DEFAULT

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

KINDS: Final = {"int": int, "float": float, "cat": None}
"""Type of an entry, and the type of the parameters it may be given for; None: any."""
NOT_SEARCHABLE: Final = {
    "initial_capital": "the account's size is a fact, not a choice, and the yardstick returns "
    "are measured by",
    "step_s": "it decides which candles are loaded, and all trials share them",
}
_KEYS: Final = {"cat": ("type", "choices"), "number": ("type", "low", "high", "log")}
_FEWEST_CHOICES: Final = 2
_EXAMPLE: Final = '"leverage": {"type": "float", "low": 1.0, "high": 3.0}'


@dataclass(frozen=True, slots=True)
class Entry:
    """The values one parameter may be drawn from.

    Attributes:
        kind: ``int``, ``float`` or ``cat``.
        low: smallest value, inclusive; None for ``cat``.
        high: largest value, inclusive; None for ``cat``.
        choices: values of a ``cat``: numbers, bools or texts the parameter can be read from.
        log: whether ratios rather than differences are drawn evenly.
    """

    kind: str
    low: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    log: bool = False

    def distribution(self) -> BaseDistribution:
        """Return the entry as optuna draws from it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: PLC0415 - 0.2 s, for the search only

        if self.low is None or self.high is None:
            return CategoricalDistribution(self.choices)
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)


@dataclass(frozen=True, slots=True)
class Space:
    """All parameters that are searched.

    Attributes:
        entries: by name of the parameter, in the order given.
        declared: class of the strategy's parameters.
    """

    entries: Mapping[str, Entry]
    declared: type[Any] = DEFAULT.params

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return what optuna draws each parameter from."""
        return {name: entry.distribution() for name, entry in self.entries.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the entries as JSON-ready data."""
        return {
            name: asdict(entry) | {"choices": list(entry.choices)}
            for name, entry in self.entries.items()
        }

    def clip(self, name: str, value: Any) -> Any:
        """Return ``value`` moved into the range of ``name`` and in its type.

        Raises:
            ConfigError: ``name`` is not searched, or ``value`` none of its choices.
        """
        if name not in self.entries:
            raise ConfigError(unknown_key(name, self.entries, "entry of the search space"))
        entry = self.entries[name]
        if entry.low is None or entry.high is None:
            plain = _plain_choice(self.read_value(name, value))
            if plain not in entry.choices:
                raise ConfigError(
                    f"{name} = {value!r} must be one of {', '.join(map(str, entry.choices))}"
                )
            return plain
        inside = min(max(value, entry.low), entry.high)
        return round(inside) if entry.kind == "int" else float(inside)

    def read_value(self, name: str, value: Any) -> Any:
        """Return ``value`` as parameter ``name``.

        Raises:
            ConfigError: it is of the wrong type or out of range.
        """
        return read_value(name, value, self.declared)

    def bounding_values(self, name: str, fixed: Any) -> tuple[Any, ...]:
        """Return typed values of parameter ``name`` that bound every draw of it.

        Args:
            name: a strategy parameter.
            fixed: its value where it is not searched.
        """
        entry = self.entries.get(name)
        if entry is None:
            return (fixed,)
        if entry.kind == "cat":
            return tuple(self.read_value(name, choice) for choice in entry.choices)
        return (entry.low, entry.high)


def read_space(
    entries: Mapping[str, Mapping[str, Any]] | None = None, spec: StrategySpec = DEFAULT
) -> Space:
    """Return the checked search space.

    Args:
        entries: by parameter: ``type`` (``int``, ``float``, ``cat``), and ``low``, ``high`` and
            optionally ``log``, or ``choices``; None: the strategy's own in ``config.py``. What is
            not among them stays fixed.
        spec: of the strategy.

    Raises:
        ConfigError: an entry is no strategy parameter or not searchable, a key or type is
            unknown or does not suit the parameter, a bound is outside the parameter's own, the
            range is empty, or there are no entries.
    """
    return _Reader(spec).space(spec.space if entries is None else entries)


class _Reader:
    """Reads the search space of one strategy; errors begin with its name in ``config.py``."""

    def __init__(self, spec: StrategySpec) -> None:
        self._declared = spec.params
        self._space, self._params = spec.space_name, spec.params_name

    def space(self, given: Any) -> Space:
        """Return the space; see ``read_space``."""
        if not isinstance(given, Mapping):
            raise ConfigError(
                f"{self._space} = {given!r} must be a dict of parameters, such as {{{_EXAMPLE}}}"
            )
        if not given:
            raise ConfigError(
                f"{self._space} is empty; must hold at least one parameter, such as {_EXAMPLE}"
            )
        entries = {name: self._entry(name, entry) for name, entry in given.items()}
        return Space(entries, self._declared)

    def _entry(self, name: str, given: Mapping[str, Any]) -> Entry:
        if not isinstance(name, str):
            raise ConfigError(f"{self._space}: {name!r} must be the name of a parameter")
        known = param_fields(self._declared)
        if name not in known:
            raise ConfigError(f"{self._space}: " + unknown_key(name, known, "strategy parameter"))
        if name in NOT_SEARCHABLE:
            raise self._error(name, f"cannot be searched: {NOT_SEARCHABLE[name]}; leave it out")
        if not isinstance(given, Mapping):
            raise self._error(
                name,
                f"is {given!r}, must be a dict such as "
                '{"type": "float", "low": 0.8, "high": 6.0}; to keep the parameter fixed, comment '
                f"the entry out and set its value in {self._params}",
            )
        kind = self._kind(name, given)
        allowed = _KEYS.get(kind, _KEYS["number"])
        for key in given:
            if key not in allowed:
                unknown = unknown_key(key, dict.fromkeys(allowed), "key")
                raise self._error(name, f"{unknown}; must be {', '.join(allowed)}")
        if missing := [key for key in allowed if key not in given and key != "log"]:
            raise self._error(name, f"lacks {', '.join(missing)}")
        return self._choices(name, given) if kind == "cat" else self._range(name, kind, given)

    def _kind(self, name: str, given: Mapping[str, Any]) -> str:
        kind = given.get("type")
        if not isinstance(kind, str) or kind not in KINDS:
            raise self._error(name, f"type = {kind!r} must be one of {', '.join(KINDS)}")
        wanted, declared = KINDS[kind], get_type_hints(self._declared)[name]
        if wanted not in {None, declared}:
            right = declared.__name__ if declared in KINDS.values() else "cat"
            raise self._error(
                name, f"type = {kind!r} must be {right!r}, which is what the parameter holds"
            )
        return kind

    def _range(self, name: str, kind: str, given: Mapping[str, Any]) -> Entry:
        low, high = (self._bound(name, key, given[key]) for key in ("low", "high"))
        log = given.get("log", False)
        if not isinstance(log, bool):
            raise self._error(name, f"log = {log!r} must be true or false")
        if low >= high:
            raise self._error(
                name,
                f"low = {low:g} must be under high = {high:g}; to keep the parameter fixed, "
                f"comment the entry out and set its value in {self._params}",
            )
        if log and low <= 0:
            raise self._error(name, f"low = {low:g} must be above 0 where log is true")
        return Entry(kind, low, high, log=log)

    def _bound(self, name: str, key: str, value: Any) -> float:
        if isinstance(value, str):
            raise self._error(name, f"{key} = {value!r} is a text, must be a number without quotes")
        try:
            bound: float = read_value(name, value, self._declared)
        except ConfigError as error:
            raise self._error(name, f"{key}: {error}") from None
        return bound

    def _choices(self, name: str, given: Mapping[str, Any]) -> Entry:
        values = given["choices"]
        if isinstance(values, str) or not isinstance(values, list | tuple):
            raise self._error(name, f"choices = {values!r} must be a list of values")
        choices = []
        is_number = get_type_hints(self._declared)[name] in {int, float}
        for value in values:
            if is_number and isinstance(value, str):
                raise self._error(
                    name, f"choices: {value!r} is a text, must be a number without quotes"
                )
            try:
                choices.append(_plain_choice(read_value(name, value, self._declared)))
            except ConfigError as error:
                raise self._error(name, f"choices: {error}") from None
        if len(set(choices)) != len(choices) or len(choices) < _FEWEST_CHOICES:
            raise self._error(
                name,
                f"choices = {values!r} must hold at least {_FEWEST_CHOICES} values, all different; "
                "to keep the parameter fixed, comment the entry out and set its value in "
                f"{self._params}",
            )
        return Entry("cat", choices=tuple(choices))

    def _error(self, name: str, text: str) -> ConfigError:
        return ConfigError(f"{self._space}[{name!r}]: {text}")


def _plain_choice(value: Any) -> Any:
    """Return a parameter's value as optuna can store it and ``read_value`` can read it."""
    if isinstance(value, PruneRule):
        return ",".join(rule.name or "" for rule in PruneRule if rule in value) or "none"
    if isinstance(value, tuple):
        return ",".join(f"{item!r}" for item in value)
    return value.name.lower() if isinstance(value, IntEnum) else value
