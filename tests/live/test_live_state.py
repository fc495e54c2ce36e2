"""The state file: complete, sealed, refused where it does not fit, never half written."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine.grid_v4.face
import engine.strategy
import live.store.state_file
from config import STRATEGY_PARAMS
from core.errors import ConfigError, StateError
from core.orders import OrderKind
from core.params import MAX_LEVELS, MAX_STOP_EVENTS, StrategyParams
from core.records import dtype_of, table_capacities
from core.version import VERSION
from engine.grid_v4.types import LATTICE, State
from engine.registry import GRID_V4
from engine.strategy import CODE_FINGERPRINT, GridStrategyV4
from engine.types import KELLY_MEMORY, LABEL_NAMES, LONG, MAX_FILLS, SHORT
from live.execution.books import Progress
from live.execution.order_register import OrderRegister
from live.store.state_file import SCHEMA, LoadedState, StateManager
from tests.live.test_instance_lock import FULL, READ_ONLY, WRITE_SITES, break_at, open_files
from tests.support.clocks.virtual import VirtualClock

START = 1_705_329_000_000
"""2024-01-15 14:30:00 UTC."""
ENGINE = GridStrategyV4(market="BTC").state_dict()
SESSION: dict[str, Any] = {"last_trade_id": 123_456, "intents": [{"id": "a-1", "price": 43_250.1}]}
CHANGED = {**SESSION, "last_trade_id": 200_000}


def params(changes: Mapping[str, Any] | None = None) -> StrategyParams:
    return StrategyParams.from_dict({**STRATEGY_PARAMS, **(changes or {})})


def states(
    folder: Path,
    changes: Mapping[str, Any] | None = None,
    *,
    symbol: str = "BTC/USDT",
    mode: str = "dry",
    snapshots: int = 10,
) -> StateManager:
    return StateManager(
        symbol,
        folder,
        spec=GRID_V4,
        params=params(changes),
        mode=mode,
        clock=VirtualClock(START - 1_000, step_ms=1_000),
        snapshots=snapshots,
    )


def load(folder: Path) -> LoadedState:
    state = states(folder).load()
    assert state is not None
    return state


def filled_strategy() -> GridStrategyV4:
    """Return a strategy whose tables are full of numbers that need all their digits."""
    strategy = GridStrategyV4(market="BTC")
    random = np.random.default_rng(7)
    for side in (LONG, SHORT):
        position = strategy.state.sides[side]
        position.n_fills = MAX_FILLS
        for row in range(MAX_FILLS):
            fill = position.fills[row]
            fill.fill_id, fill.ts_ms = row, START + row
            fill.price, fill.qty, fill.entry_fee = random.random(3) * [1e5, 1.0, -0.1]
            fill.busy = bool(row % 2)
    strategy.state.n_closed = KELLY_MEMORY
    for row in range(KELLY_MEMORY):
        strategy.state.closed[row].net_return = random.normal()
    return strategy


# --- what is in it --------------------------------------------------------------------------------


def test_the_file_says_what_wrote_it_and_is_plain_json(tmp_path: Path) -> None:
    manager = states(tmp_path)
    manager.save(ENGINE, SESSION)
    assert manager.path == tmp_path / "BTCUSDT_state.json"
    document = json.loads(manager.path.read_text())
    assert document["schema"] == SCHEMA
    assert (document["symbol"], document["mode"]) == ("BTCUSDT", "dry")
    assert (document["program"], document["strategy"]) == (VERSION, "grid_v4")
    assert document["saved_at"] == START
    assert document["code_fingerprint"] == CODE_FINGERPRINT
    assert document["parameters"] == params().to_dict()
    assert document["engine"] == ENGINE
    assert document["session"] == SESSION


def test_the_capacities_are_those_of_the_engine() -> None:
    assert table_capacities(dtype_of(State)) == {
        "sides": 2,
        "sides.entries": MAX_LEVELS,
        "sides.levels": MAX_LEVELS,
        "sides.exits": LATTICE,
        "sides.fills": MAX_FILLS,
        "stop_events": MAX_STOP_EVENTS,
        "closed": KELLY_MEMORY,
    }


def test_a_full_engine_comes_back_bit_for_bit(tmp_path: Path) -> None:
    before, after = filled_strategy(), GridStrategyV4(market="BTC")
    states(tmp_path).save(before.state_dict(), SESSION)
    state = load(tmp_path)
    after.load_state_dict(state.engine)
    assert after.state_dict() == before.state_dict()
    assert state.session == SESSION
    assert (state.saved_at, state.code_fingerprint) == (START, CODE_FINGERPRINT)


def test_nan_and_infinity_in_the_engine_survive_as_text(tmp_path: Path) -> None:
    before, after = GridStrategyV4(market="BTC"), GridStrategyV4(market="BTC")
    before.state.now.er, before.state.now.z, before.state.now.kama = math.nan, math.inf, -math.inf
    manager = states(tmp_path)
    manager.save(before.state_dict(), {})
    assert "NaN" not in manager.path.read_text()
    assert '"er":"float:nan"' in manager.path.read_text()
    after.load_state_dict(load(tmp_path).engine)
    now = after.state.now
    assert math.isnan(now.er)
    assert (now.z, now.kama) == (math.inf, -math.inf)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
).filter(lambda value: '"float:' not in json.dumps(value))


@settings(deadline=None, max_examples=20)
@given(session=st.dictionaries(st.text(), JSON))
def test_any_session_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, session: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("state")
    states(folder).save(ENGINE, session)
    assert repr(load(folder).session) == repr(session)


@pytest.mark.parametrize(
    ("session", "message"),
    [
        ({"note": "float:nan"}, "marks numbers"),
        ({"fills": {3: "by number"}}, "keys must be text"),
        ({"ids": {1, 2}}, "set is not JSON serializable"),
        ({"when": np.int64(3)}, "int64 is not JSON serializable"),
    ],
)
def test_what_would_not_come_back_as_it_was_is_refused_and_the_old_file_stays(
    tmp_path: Path, session: dict[str, Any], message: str
) -> None:
    manager = states(tmp_path)
    manager.save(ENGINE, SESSION)
    with pytest.raises(StateError, match=message):
        manager.save(ENGINE, session)
    assert load(tmp_path).session == SESSION


def test_without_a_file_there_is_no_state(tmp_path: Path) -> None:
    assert states(tmp_path).load() is None
    assert states(tmp_path / "missing").load() is None
    assert not (tmp_path / "missing").exists()


def test_a_file_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT_state.json").mkdir()
    with pytest.raises(StateError, match="cannot read"):
        states(tmp_path).load()


# --- what is refused ------------------------------------------------------------------------------


def test_other_parameters_are_refused_one_by_one(tmp_path: Path) -> None:
    states(tmp_path, {"grid_levels": 7, "prune_enabled": ("GAP",)}).save(ENGINE, SESSION)
    with pytest.raises(StateError) as refusal:
        states(tmp_path).load()
    text = str(refusal.value)
    assert "grid_levels = 7 in the file, 5 now" in text
    assert "prune_enabled = ['GAP'] in the file, ['DEVIANCE'," in text
    assert "gamma" not in text


def test_a_parameter_only_one_version_knows_is_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = states(tmp_path)
    old = {key: value for key, value in params().to_dict().items() if key != "gamma"}
    monkeypatch.setattr(manager, "_parameters", old)
    manager.save(ENGINE, SESSION)
    with pytest.raises(StateError, match=r"gamma = absent in the file, 0\.5 now"):
        states(tmp_path).load()


def test_other_capacities_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smaller = {**table_capacities(dtype_of(State)), "sides.fills": 128}
    with monkeypatch.context() as patch:
        patch.setattr(engine.grid_v4.face, "table_capacities", lambda _: smaller)
        states(tmp_path).save(ENGINE, SESSION)
    with pytest.raises(StateError, match=r"sides\.fills = 128 in the file, 256 now"):
        states(tmp_path).load()


def test_other_code_is_refused_unless_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(engine.strategy, "CODE_FINGERPRINT", "0123456789abcdef")
        states(tmp_path).save(ENGINE, SESSION)
    with pytest.raises(StateError, match=f"0123456789abcdef, this is {CODE_FINGERPRINT}.*accept"):
        states(tmp_path).load()
    accepted = states(tmp_path).load(accept_code_change=True)
    assert accepted is not None
    assert accepted.code_fingerprint == "0123456789abcdef"
    assert accepted.session == SESSION


def test_accepted_code_must_still_have_the_same_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = {key: value for key, value in ENGINE.items() if key != "too_small"}
    with monkeypatch.context() as patch:
        patch.setattr(engine.strategy, "CODE_FINGERPRINT", "0123456789abcdef")
        states(tmp_path).save(older, SESSION)
    with pytest.raises(StateError, match=r"does not fit.*too_small"):
        states(tmp_path).load(accept_code_change=True)


def test_another_mode_symbol_or_schema_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states(tmp_path, mode="testnet").save(ENGINE, SESSION)
    with pytest.raises(StateError, match="of mode testnet, this is dry"):
        states(tmp_path).load()
    states(tmp_path, symbol="ETHUSDT").save(ENGINE, SESSION)
    (tmp_path / "ETHUSDT_state.json").replace(tmp_path / "BTCUSDT_state.json")
    with pytest.raises(StateError, match="of symbol ETHUSDT, this is BTCUSDT"):
        states(tmp_path).load()
    with monkeypatch.context() as patch:
        patch.setattr(live.store.state_file, "SCHEMA", 4)
        states(tmp_path).save(ENGINE, SESSION)
    with pytest.raises(StateError, match="of schema 4, this version reads schema 1 and 2 and 3"):
        states(tmp_path).load()


def test_a_state_of_another_strategy_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(engine.grid_v4.face.GridV4, "name", "fixed_grid")
        states(tmp_path).save(ENGINE, SESSION)
    with pytest.raises(StateError, match="of strategy fixed_grid, this is grid_v4"):
        states(tmp_path).load()


def older_schema(body: bytes, schema: int) -> bytes:
    """Return a state file in the layout of an earlier ``schema``, sealed."""
    document = json.loads(body)
    session = document["session"]
    for order in session["orders"]:
        order["direction"] = order.pop("position_side")
    names = [name for name in document if name != "sha256"]
    if schema == 1:
        names = [name for name in names if name not in {"program", "strategy"}]
        make_first(session)
    old = {**document, "schema": schema, "session": session}
    lines = [f'"{name}": {json.dumps(old[name])}' for name in names]
    sealed = (",\n".join(lines) + "\n}\n").encode()
    return f'{{\n"sha256": "{hashlib.sha256(sealed).hexdigest()}",\n'.encode() + sealed


def make_first(session: dict[str, Any]) -> None:
    """Give a session the names it had in schema 1."""
    session["progress"]["strange_orders"] = session["progress"].pop("foreign_orders")
    for order in session["orders"]:
        order["told_qty"] = order.pop("reported_qty")
        order["label"] = LABEL_NAMES.index(order["label"]) if order["label"] else -1


@pytest.mark.parametrize("schema", [1, 2])
def test_a_state_of_an_earlier_schema_is_read_as_one_of_the_present(
    tmp_path: Path, schema: int
) -> None:
    register = OrderRegister("a")
    entry = register.new(OrderKind.ENTRY, "LONG", 100.0, 1.0, 7, level=3, generation=2)
    entry.reported_qty = 0.25
    register.new(OrderKind.EXIT, "SHORT", 0.0, 0.5, 7, label="STOP_SHORT", exits=[(4, 0.5)])
    progress = Progress(start_ms=START, bar=7, foreign_orders=["web_1"])
    session = {"progress": asdict(progress), "orders": register.to_list(), "entries": {}}
    manager = states(tmp_path)
    manager.save(ENGINE, session)
    new = manager.load()
    manager.path.write_bytes(older_schema(manager.path.read_bytes(), schema))
    old = manager.load()

    assert new is not None
    assert old is not None
    assert old.session == new.session == session
    assert old.engine == new.engine
    assert new.program == VERSION
    assert old.program == (VERSION if schema > 1 else "before 4.1.0")


def test_a_state_of_schema_1_that_lacks_something_is_refused_with_a_reason(tmp_path: Path) -> None:
    manager = states(tmp_path)
    manager.save(ENGINE, {"progress": {"foreign_orders": []}, "orders": []})
    body = older_schema(manager.path.read_bytes(), 1).partition(b"\n")[2].partition(b"\n")[2]
    sealed = body.replace(b'"orders": []', b'"orders": [{}]')
    seal = hashlib.sha256(sealed).hexdigest()
    manager.path.write_bytes(f'{{\n"sha256": "{seal}",\n'.encode() + sealed)
    with pytest.raises(StateError, match="is not of this version's layout: 'label'"):
        manager.load()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [({"mode": "paper"}, "mode = 'paper' must be one of live"), ({"snapshots": 0}, "snapshots")],
)
def test_settings_that_make_no_sense_are_refused(
    tmp_path: Path, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        states(tmp_path, **keywords)


# --- damage ---------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_no_changed_byte_and_no_cut_is_overlooked(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("state")
    manager = states(folder)
    manager.save(ENGINE, SESSION)
    body = bytearray(manager.path.read_bytes())
    place = data.draw(st.integers(0, len(body) - 1))
    if data.draw(st.booleans()):
        del body[place:]
    else:
        body[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != body[place]))
    manager.path.write_bytes(body)
    with pytest.raises(StateError):
        states(folder).load()


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"schema": 1}'],
    ids=["nothing", "no keys", "a list", "null", "nested deeply", "no text", "one key"],
)
def test_any_rubbish_is_called_damaged(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "BTCUSDT_state.json").write_bytes(body)
    with pytest.raises(StateError, match=r"is damaged.*no usable snapshot"):
        states(tmp_path).load()


def damaged(manager: StateManager) -> None:
    manager.path.write_bytes(manager.path.read_bytes()[:-100])


def test_damage_names_the_newest_usable_snapshot_and_the_advice_works(tmp_path: Path) -> None:
    manager = states(tmp_path)
    kept = []
    for number in range(4):
        manager.save(ENGINE, {"number": number})
        kept.append(manager.snapshot())
    damaged(manager)
    kept[3].write_bytes(kept[3].read_bytes()[:-1])
    other = states(tmp_path, {"grid_levels": 7})
    other.save(ENGINE, SESSION)
    shutil.copy(other.path, kept[2])
    damaged(manager)
    with pytest.raises(StateError) as refusal:
        states(tmp_path).load()
    text = str(refusal.value)
    assert "is damaged" in text
    assert f"{kept[1]}, saved 2024-01-15 14:30:01 UTC: copy it over BTCUSDT_state.json" in text
    assert "only if no order was sent since" in text
    shutil.copy(kept[1], manager.path)
    assert load(tmp_path).session == {"number": 1}


# --- snapshots ------------------------------------------------------------------------------------


def test_the_last_ten_snapshots_are_kept_and_those_of_others_are_not_touched(
    tmp_path: Path,
) -> None:
    manager, other = states(tmp_path), states(tmp_path, symbol="BTCUSD")
    other.save(ENGINE, SESSION)
    foreign = other.snapshot()
    note = foreign.with_name("BTCUSDT_note.json")
    note.write_text("mine")
    paths = []
    for number in range(14):
        manager.save(ENGINE, {"number": number})
        paths.append(manager.snapshot())
    assert paths[0].name == f"BTCUSDT_{START}.json"
    assert {*foreign.parent.iterdir()} == {*paths[-10:], foreign, note}


def test_a_snapshot_is_the_state_file_as_saved_last(tmp_path: Path) -> None:
    manager = states(tmp_path)
    manager.save(ENGINE, SESSION)
    manager.save(ENGINE, CHANGED)
    assert manager.snapshot().read_bytes() == manager.path.read_bytes()


def test_a_snapshot_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="nothing to take a snapshot of"):
        states(tmp_path).snapshot()


def test_a_clock_set_back_does_not_cost_the_newest_snapshot(tmp_path: Path) -> None:
    manager = states(tmp_path, snapshots=2)
    for _ in range(3):
        manager.save(ENGINE, SESSION)
        manager.snapshot()
    late = states(tmp_path, snapshots=2)
    late.save(ENGINE, CHANGED)
    path = late.snapshot()
    assert path.exists()
    assert len(list(path.parent.iterdir())) == 2


def test_what_a_killed_process_left_of_a_snapshot_is_removed(tmp_path: Path) -> None:
    manager = states(tmp_path)
    manager.save(ENGINE, SESSION)
    path = manager.snapshot()
    (path.parent / ".BTCUSDT_1.json.tmp").write_text("torn")
    manager.snapshot()
    assert [*path.parent.iterdir()] == [path]


def test_a_snapshot_that_cannot_be_removed_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = states(tmp_path, snapshots=1)
    for _ in range(2):
        manager.save(ENGINE, SESSION)
        path = manager.snapshot()
    manager.save(ENGINE, SESSION)

    def refuse(item: Path, **_: Any) -> None:
        if item == path:
            raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StateError, match=r"cannot remove .*Permission denied"):
        manager.snapshot()


# --- a disk that fails ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [FULL, READ_ONLY, KeyboardInterrupt()], ids=["full disk", "read-only", "kill"]
)
@pytest.mark.parametrize(("name", "nth"), WRITE_SITES)
def test_a_save_that_fails_anywhere_leaves_a_state_that_loads_and_no_stray_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int, error: BaseException
) -> None:
    manager = states(tmp_path)
    manager.save(ENGINE, SESSION)
    with monkeypatch.context() as patch:
        happened = break_at(patch, name, nth, error)
        with pytest.raises(StateError if isinstance(error, OSError) else KeyboardInterrupt):
            manager.save(ENGINE, CHANGED)
        assert happened()
    assert load(tmp_path).session == (CHANGED if nth == 2 else SESSION)
    assert [item.name for item in tmp_path.iterdir()] == ["BTCUSDT_state.json"]
    manager.save(ENGINE, CHANGED)
    assert load(tmp_path).session == CHANGED


@pytest.mark.parametrize(("name", "nth"), WRITE_SITES)
def test_a_snapshot_that_fails_anywhere_leaves_the_state_and_whole_snapshots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int
) -> None:
    manager = states(tmp_path)
    manager.save(ENGINE, SESSION)
    first = manager.snapshot()
    manager.save(ENGINE, CHANGED)
    with monkeypatch.context() as patch:
        happened = break_at(patch, name, nth, FULL)
        with pytest.raises(StateError, match="No space left"):
            manager.snapshot()
        assert happened()
    assert load(tmp_path).session == CHANGED
    expected = {first.read_bytes()} | ({manager.path.read_bytes()} if nth == 2 else set())
    assert {path.read_bytes() for path in first.parent.iterdir()} == expected


def test_the_first_save_may_fail_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = states(tmp_path / "data" / "live_state")
    with monkeypatch.context() as patch:
        break_at(patch, "mkdir", 1, READ_ONLY)
        with pytest.raises(StateError, match="Read-only file system; make room or rights"):
            manager.save(ENGINE, SESSION)
    assert manager.load() is None
    manager.save(ENGINE, SESSION)
    assert manager.load() is not None


def test_hundreds_of_saves_snapshots_and_loads_leave_no_handle(tmp_path: Path) -> None:
    manager = states(tmp_path)
    before = open_files()
    for _ in range(100):
        manager.save(ENGINE, SESSION)
        manager.snapshot()
        manager.load()
    assert open_files() == before
