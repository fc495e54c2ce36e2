"""The cache on disk stays whole, whatever happens to it."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from backtest.market.cache import SeriesCache
from backtest.market.market_data import empty_candles
from backtest.market.rest import MARKETS_FILE
from core.files import write_atomically
from core.frames import check_candles
from core.times import DAY_MS
from tests.support.exchanges.public_data import BAR, FEB, MAR, NOW, FakeBinance, candles
from tests.support.paths import ROOT


@pytest.fixture
def binance() -> FakeBinance:
    return FakeBinance()


def open_cache(path: Path) -> SeriesCache:
    return SeriesCache(
        path,
        empty=empty_candles(),
        step_ms=BAR,
        check=lambda frame, where: check_candles(frame, where, BAR),
    )


def download(start_ms: int, end_ms: int) -> Iterator[pd.DataFrame]:
    yield candles(start_ms, end_ms)


def extend(cache: SeriesCache, start_ms: int, end_ms: int) -> None:
    cache.extend(start_ms, end_ms, download, now_ms=NOW, arrived=lambda _: None)


def damaged_table(body: bytes) -> bytes:
    frame = pd.read_parquet(io.BytesIO(body))
    frame.loc[3, "high"] = 0.5
    return bytes(frame.to_parquet())


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda body: body[: len(body) // 2],
    "empty": lambda _: b"",
    "overwritten": lambda body: b"\0" * len(body),
    "another table": lambda _: pd.DataFrame({"a": [1]}).to_parquet(),
    "without ranges": lambda _: candles(FEB, MAR).to_parquet(),
    "impossible": damaged_table,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_set_aside_and_fetched_anew(
    binance: FakeBinance, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    market = binance.fetch(tmp_path, FEB, FEB + DAY_MS)
    path = tmp_path / "BTC-15m.parquet"
    broken = DAMAGES[damage](path.read_bytes())
    for number in (1, 2):
        path.write_bytes(broken)
        caplog.clear()
        assert binance.fetch(tmp_path, FEB, FEB + DAY_MS).data_hash == market.data_hash
        aside = tmp_path / f"BTC-15m.parquet.corrupt-{number}"
        assert aside.read_bytes() == broken
        assert "BTC-15m.parquet is damaged" in caplog.text
        assert aside.name in caplog.text


def test_a_damaged_rules_file_is_looked_up_again(binance: FakeBinance, tmp_path: Path) -> None:
    (tmp_path / MARKETS_FILE).write_text('{"BTC": [')
    assert binance.fetch(tmp_path).rules is not None
    assert "BTC" in json.loads((tmp_path / MARKETS_FILE).read_text())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_read_only_disk_does_not_stop_the_run(
    binance: FakeBinance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    def fsync(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    market = binance.fetch(tmp_path, FEB, FEB + DAY_MS)
    pd.testing.assert_frame_equal(market.candles, candles(FEB, FEB + DAY_MS))
    assert os.strerror(code) in caplog.text
    assert "BTC-15m.parquet" in caplog.text
    assert list(tmp_path.iterdir()) == [], "no temporary files stay behind"


def test_a_cache_folder_that_cannot_be_made_does_not_stop_the_run(
    binance: FakeBinance, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    market = binance.fetch(tmp_path / "file" / "cache", FEB, FEB + DAY_MS)
    assert len(market.candles) == 96
    assert "going on without it" in caplog.text


def test_a_failed_write_leaves_the_former_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "BTC-15m.parquet"
    extend(open_cache(path), FEB, FEB + DAY_MS)
    before = path.read_bytes()

    def replace(*_: object) -> None:
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "replace", replace)
    cache = open_cache(path)
    extend(cache, FEB, FEB + 2 * DAY_MS)
    assert len(cache.rows(FEB, FEB + 2 * DAY_MS)) == 192, "this run has the rows nevertheless"
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, sys
from pathlib import Path
from tests.backtest.test_cache_damage import FEB, DAY_MS, extend, open_cache
os.replace = lambda *paths: os._exit(9)
extend(open_cache(Path(sys.argv[1])), FEB, FEB + 2 * DAY_MS)
"""

WRITING = """
import sys
from pathlib import Path
from tests.backtest.test_cache_damage import FEB, DAY_MS, extend, open_cache
for day in range(int(sys.argv[2]), 16, 2):
    extend(open_cache(Path(sys.argv[1])), FEB + day * DAY_MS, FEB + (day + 1) * DAY_MS)
"""


def run_python(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", script, *arguments], cwd=ROOT)  # noqa: S603


@pytest.mark.slow
def test_a_kill_between_writing_and_replacing_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "BTC-15m.parquet"
    extend(open_cache(path), FEB, FEB + DAY_MS)
    before = path.read_bytes()
    assert run_python(KILLED, str(path)).wait() == 9
    assert path.read_bytes() == before
    (left,) = tmp_path.glob(".*.tmp")
    assert len(left.read_bytes()) > len(before), "it was killed after writing"
    assert open_cache(path).missing(FEB, FEB + 2 * DAY_MS) == [(FEB + DAY_MS, FEB + 2 * DAY_MS)]

    extend(open_cache(path), FEB, FEB + 2 * DAY_MS)
    assert left.exists(), "another process might be writing it"
    os.utime(left, (time.time() - 7_200, time.time() - 7_200))
    extend(open_cache(path), FEB, FEB + 3 * DAY_MS)
    assert list(tmp_path.iterdir()) == [path], "abandoned files are swept up"


@pytest.mark.slow
def test_two_processes_may_write_the_same_cache(tmp_path: Path) -> None:
    path = tmp_path / "BTC-15m.parquet"
    processes = [run_python(WRITING, str(path), start) for start in ("0", "1")]
    assert [process.wait() for process in processes] == [0, 0]
    assert list(tmp_path.iterdir()) == [path], "nothing was found damaged, nothing is left over"
    extend(open_cache(path), FEB, FEB + 16 * DAY_MS)
    rows = open_cache(path).rows(FEB, FEB + 16 * DAY_MS)
    pd.testing.assert_frame_equal(rows, candles(FEB, FEB + 16 * DAY_MS))


def test_what_another_process_has_written_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "BTC-15m.parquet"
    one, other = open_cache(path), open_cache(path)
    extend(one, FEB, FEB + DAY_MS)
    extend(other, FEB + DAY_MS, FEB + 2 * DAY_MS)
    assert open_cache(path).missing(FEB, FEB + 2 * DAY_MS) == []


def test_an_atomic_write_replaces_the_content_and_makes_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.json"
    for body in (b"one", b"two"):
        write_atomically(path, body)
        assert path.read_bytes() == body
        assert list(path.parent.iterdir()) == [path]
