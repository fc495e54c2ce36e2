"""The state a restart continues from: one JSON file per symbol, replaced as a whole, and snapshots.

Layout of the file: an object with one key per line. Its second line holds the SHA-256 of every
byte behind that line, so a file that was cut off or edited is noticed. The seal is for damage, not
against attackers: who may write the file can seal it anew, so its rights are 0600. JSON has no NaN
and no infinity; such numbers are written as the texts ``float:nan``, ``float:inf`` and
``float:-inf``, and no other text may begin with ``float:``.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from core.errors import ConfigError, StateError
from core.version import VERSION
from engine.contract import StrategySpec
from live.exchange.port import Clock
from live.store.durable_file import plain_symbol, read_file, write_atomically
from live.store.older_states import READABLE, upgraded

SCHEMA: Final = READABLE[-1]
"""Version of the file's layout."""
MODES: Final = ("live", "testnet", "dry")
_KEYS: Final = (
    "schema",
    "program",
    "strategy",
    "symbol",
    "mode",
    "saved_at",
    "code_fingerprint",
    "capacities",
    "parameters",
    "engine",
    "session",
)
_OF_FIRST_SCHEMA: Final = frozenset(_KEYS) - {"program", "strategy"}
_SEAL: Final = re.compile(rb'\{\n"sha256": "([0-9a-f]{64})",\n')
_MARK: Final = "float:"
_ABSENT: Final = "absent"


@dataclass(frozen=True, slots=True)
class JsonText:
    """A section of the session that is JSON already, as ``encode`` writes it."""

    text: str


@dataclass(frozen=True, slots=True)
class LoadedState:
    """The findings of ``StateManager.load``.

    Attributes:
        saved_at: ms UTC.
        program: version of the program that wrote it.
        code_fingerprint: of its decision code.
        engine: as ``Strategy.state_dict`` gave it.
        session: as the runner gave it.
    """

    saved_at: int
    program: str
    code_fingerprint: str
    engine: dict[str, Any]
    session: dict[str, Any]


class StateManager:
    """The state file ``{SYMBOL}_state.json`` in ``folder``, and ``snapshots/`` beside it.

    Args:
        symbol: such as BTCUSDT or BTC/USDT.
        folder: made when first written.
        spec: the strategy whose state it is.
        params: of it; a state is of use with the very parameters it was written with only.
        mode: live, testnet or dry.
        clock: of ``saved_at``.
        snapshots: how many are kept.
        is_copy: the state is kept elsewhere; this is ``{SYMBOL}_status.json``, for people.
    """

    def __init__(
        self,
        symbol: str,
        folder: Path,
        *,
        spec: StrategySpec,
        params: Any,
        mode: str,
        clock: Clock,
        snapshots: int = 10,
        is_copy: bool = False,
    ) -> None:
        if mode not in MODES:
            raise ConfigError(f"mode = {mode!r} must be one of {', '.join(MODES)}")
        if snapshots < 1:
            raise ConfigError(f"snapshots = {snapshots} must be at least 1")
        self.symbol = plain_symbol(symbol)
        self.path = folder / f"{self.symbol}_{'status' if is_copy else 'state'}.json"
        self._snapshots, self._keep = folder / "snapshots", snapshots
        self._mode, self._clock = mode, clock
        self._parameters = params.to_dict()
        self._strategy = spec.create(params, None)
        self._capacities = dict(self._strategy.capacities)
        self._saved_at, self._body = 0, b""

    def save(self, engine: Mapping[str, Any], session: Mapping[str, Any]) -> None:
        """Replace the state file; what is in it is on the disk when this returns.

        Args:
            engine: ``Strategy.state_dict()``.
            session: what the runner wants back; JSON-ready or ``JsonText``, keys are text.

        Raises:
            StateError: the file cannot be written, or the data are not JSON-ready.
        """
        saved_at = self._clock.now_ms()
        head = (
            SCHEMA,
            VERSION,
            self._strategy.name,
            self.symbol,
            self._mode,
            saved_at,
            self._strategy.fingerprint,
            self._capacities,
            self._parameters,
        )
        texts = [*map(_encode, head), _encode_engine(engine), _encode_session(session)]
        lines = [f'"{key}": {text}' for key, text in zip(_KEYS, texts, strict=True)]
        sealed = (",\n".join(lines) + "\n}\n").encode()
        seal = f'{{\n"sha256": "{hashlib.sha256(sealed).hexdigest()}",\n'
        body = seal.encode() + sealed
        write_atomically(self.path, body)
        self._saved_at, self._body = saved_at, body

    def snapshot(self) -> Path:
        """Keep a copy of what was saved last and remove the oldest beyond the number kept.

        Raises:
            StateError: nothing was saved yet, or the folder cannot be written.
        """
        if not self._body:
            raise StateError("there is nothing to take a snapshot of: save the state first")
        path = self._snapshots / f"{self.symbol}_{self._saved_at}.json"
        write_atomically(path, self._body)
        surplus = [item for item in self._snapshots_by_age() if item != path][self._keep - 1 :]
        # A killed process may have left the temporary file of a snapshot, which has a new name
        # every time.
        surplus += self._snapshots.glob(f".{self.symbol}_*.tmp")
        for old in surplus:
            try:
                old.unlink(missing_ok=True)
            except OSError as error:
                raise StateError(
                    f"cannot remove {old}: {error.strerror or error}; make rights there"
                ) from None
        return path

    def load(self, *, accept_code_change: bool = False) -> LoadedState | None:
        """Return the saved state; None if there is no file.

        Args:
            accept_code_change: take a state written by another version of the decision code.

        Raises:
            StateError: the file cannot be read, is damaged, or was written by another schema,
                symbol, mode, code, by other capacities or parameters.
        """
        document = read_document(self.path)
        if document is None:
            return None
        if not document:
            self._refuse_damage(accept_code_change)
        return self._accept(self.path, document, accept_code_change)

    def _accept(self, path: Path, document: dict[str, Any], code_change: bool) -> LoadedState:
        """Return the state of an undamaged file, or refuse it with the difference."""
        own = {"strategy": self._strategy.name, "symbol": self.symbol, "mode": self._mode}
        for what, now in own.items():
            if document[what] != now:
                raise StateError(
                    f"{path} is of {what} {document[what]}, this is {now}: name another folder, or "
                    "move the file away"
                )
        for what, mine in (("capacities", self._capacities), ("parameters", self._parameters)):
            if different := _differences(document[what], mine):
                raise StateError(
                    f"{path} was written with other {what}: {'; '.join(different)}. Restore them, "
                    "or move the file away and start anew"
                )
        written_by, own_code = document["code_fingerprint"], self._strategy.fingerprint
        if written_by != own_code and not code_change:
            raise StateError(
                f"{path} was written by decision code {written_by}, this is {own_code}: go "
                "on with the code that wrote it, or accept the change with --accept-code-change"
            )
        engine = decode(document["engine"])
        try:
            self._strategy.load_state_dict(engine)
        except (ValueError, TypeError, OverflowError) as error:
            raise StateError(
                f"{path} (decision code {written_by}) does not fit this code's state: {error}; go "
                "on with the code that wrote it"
            ) from None
        return LoadedState(
            document["saved_at"],
            document["program"],
            written_by,
            engine,
            decode(document["session"]),
        )

    def _refuse_damage(self, accept_code_change: bool) -> NoReturn:
        """Say that the state file is damaged, and what to go on with."""
        remedy = (
            "there is no usable snapshot: cancel this bot's orders and close its positions at the "
            "exchange, move the file away and start anew"
        )
        for path in self._snapshots_by_age():
            try:
                document = read_document(path)
                if document:
                    state = self._accept(path, document, accept_code_change)
                    saved = datetime.fromtimestamp(state.saved_at / 1000, UTC)
                    remedy = (
                        f"the newest usable snapshot is {path}, saved {saved:%Y-%m-%d %H:%M:%S} "
                        f"UTC: copy it over {self.path.name} and resume, but only if no order was "
                        "sent since (RUNBOOK.md, «Copies, and restoring one»)"
                    )
                    break
            except StateError:  # of no use either; the next older one may be
                continue
        raise StateError(
            f"{self.path} is damaged: it was cut off or changed after it was written; {remedy}"
        )

    def _snapshots_by_age(self) -> list[Path]:
        """Return the snapshots, newest first."""
        name = re.compile(rf"{self.symbol}_(\d+)\.json")
        found = [(name.fullmatch(path.name), path) for path in self._snapshots.glob("*.json")]
        dated = [(int(match[1]), path) for match, path in found if match]
        return [path for _, path in sorted(dated, reverse=True)]


def read_document(path: Path) -> dict[str, Any] | None:
    """Return what stands in ``path``: None if it is not there, empty if it is damaged.

    A file of an earlier layout is answered in the present one.

    Raises:
        StateError: it cannot be read, or is of another layout.
    """
    data = read_file(path)
    if data is None:
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    schema = document.get("schema", SCHEMA) if isinstance(document, dict) else SCHEMA
    if schema not in READABLE:
        raise StateError(
            f"{path} is of schema {schema!r}, this version reads schema "
            f"{' and '.join(map(str, READABLE))}: go on with the version that wrote it"
        )
    seal = _SEAL.match(data)
    is_whole = seal and hashlib.sha256(data[seal.end() :]).hexdigest().encode() == seal[1]
    keys = _OF_FIRST_SCHEMA if schema == READABLE[0] else frozenset(_KEYS)
    if not is_whole or set(document) != {"sha256", *keys}:
        return {}
    try:
        return upgraded(document)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise StateError(
            f"{path} is not of this version's layout: {error}; go on with the code that wrote it"
        ) from None


def _differences(file: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} = {file.get(name, _ABSENT)} in the file, {now.get(name, _ABSENT)} now"
        for name in sorted(file.keys() | now.keys())
        if file.get(name, _ABSENT) != now.get(name, _ABSENT)
    ]


def _encode(data: Any) -> str:
    """Return ``data`` as JSON in one line.

    Raises:
        StateError: a value is of a type that JSON lacks.
    """
    try:
        return json.dumps(data, allow_nan=False, separators=(",", ":"))
    except (TypeError, RecursionError) as error:
        raise StateError(f"the state cannot be written as JSON: {error}") from None


def _encode_engine(engine: Mapping[str, Any]) -> str:
    """Return the engine's state, whose keys are text and which holds no texts, as JSON.

    A number that JSON lacks is rare and the tables are long, so values are looked at one by one
    only when there is such a number.
    """
    try:
        return _encode(engine)
    except ValueError:
        return _encode(_marked(engine))


def _encode_session(session: Mapping[str, Any]) -> str:
    """Return what the runner keeps as JSON, section by section."""
    parts = []
    for key, section in session.items():
        if not isinstance(key, str):
            raise StateError(f"the state holds the key {key!r}; keys must be text")
        text = section.text if isinstance(section, JsonText) else encode(section)
        parts.append(f"{_encode(key)}:{text}")
    return "{" + ",".join(parts) + "}"


def encode(data: Any) -> str:
    """Return ``data`` as JSON that ``decode`` undoes.

    Most data are as JSON has them, which is proved by reading them back; values are looked at one
    by one only in the others.

    Raises:
        StateError: JSON lacks a value's type, or a text looks like a marked number.
    """
    try:
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))
        if _MARK not in text and json.loads(text) == data:
            return text
    except (TypeError, ValueError, RecursionError):
        pass
    return _encode(_marked(data))


def _marked(data: Any) -> Any:
    """Return ``data`` with every NaN and infinity as text.

    Raises:
        StateError: a text looks like such a number, or a key would not come back as it was.
    """
    if isinstance(data, str) and data.startswith(_MARK):
        raise StateError(f"the state holds the text {data!r}; {_MARK} marks numbers: reword it")
    if isinstance(data, float) and not math.isfinite(data):
        return f"{_MARK}{float(data)}"
    if isinstance(data, str | int | float):  # most are; this is done with every save
        return data
    if isinstance(data, list | tuple):
        return [_marked(item) for item in data]
    if isinstance(data, Mapping):
        for key in data:
            if not isinstance(key, str):
                raise StateError(f"the state holds the key {key!r}; keys must be text")
        return {key: _marked(value) for key, value in data.items()}
    return data


def decode(data: Any) -> Any:
    """Undo ``_marked``."""
    if isinstance(data, dict):
        return {key: decode(value) for key, value in data.items()}
    if isinstance(data, list):
        return [decode(item) for item in data]
    if isinstance(data, str) and data.startswith(_MARK):
        return float(data.removeprefix(_MARK))
    return data
