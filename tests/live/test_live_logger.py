"""The log of a session and its trade files: console, log file, CSV and JSONL."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import live.health.logger
from backtest.audit.files import read_trades
from backtest.results.files import trades_csv
from core.errors import ConfigError, StateError
from core.market import MarketRules
from core.text import decimals_of, money, number
from engine.contract import SideView, View
from engine.trade_tables import FILE_COLUMNS as BACKTEST_COLUMNS
from engine.trade_tables import TRADE_FIELDS
from live.health.events import StepDone
from live.health.logger import SecretFilter, TradeLogger, equity_text, session_logger, trade_text
from live.store.trade_files import TRADE_COLUMNS, Close, LiveTrade, TradeFiles, close_figures
from tests.live.test_instance_lock import FULL, READ_ONLY, break_at, open_files
from tests.support.results.typed import typed

WHEN = 1_705_329_000_000
"""2024-01-15 14:30:00 UTC."""
RULES = MarketRules(tick_size=0.1, step_size=0.001, min_qty=0.001, min_notional=100.0)
FLAT = SideView(
    qty=0.0,
    avg_entry=0.0,
    unrealized=0.0,
    n_fills=0,
    stop=0.0,
    risk=0.0,
    centre=0.0,
    spacing_pct=0.0,
)
VIEW = View(
    price=43_250.0,
    wallet=10_100.0,
    equity=10_234.56,
    funding=0.0,
    long=replace(FLAT, unrealized=80.0),
    short=replace(FLAT, unrealized=54.56),
    regime="NOISE",
    halted=False,
    ended=False,
    too_small=False,
    capital_needed=0.0,
    counters={},
)
KEY, SECRET = "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zv", "NhqPtmdSJYdKjVHjA7PZj4Mge3R5+8/IP=4lTQ"
CLOSE = Close(net=12.45, net_pct=0.57, r_multiple=1.23, hold_hours=2.5)
SALE = LiveTrade(
    bar=57,
    timestamp=WHEN,
    price=43_250.0,
    qty=0.023,
    label="SELL_CLOSE_LONG",
    regime="NOISE",
    pnl=12.85,
    fee=0.2,
    direction="LONG",
    fill_id=9,
    trade_id="123456:0",
    client_id="a-57-L3-1",
    close=CLOSE,
    executed_ms=WHEN + 1_234,
)
PURCHASE = replace(
    SALE, label="BUY_OPEN_LONG", pnl=0.0, trade_id="123450:0", client_id="a-47-L3-1", close=None
)
HALT = replace(
    PURCHASE,
    label="CIRCUIT_BREAKER_HALT",
    qty=0.0,
    fee=0.0,
    direction="",
    trade_id="n1",
    client_id="",
    executed_ms=None,
)


@pytest.fixture
def open_logger(tmp_path: Path) -> Iterator[Callable[..., tuple[TradeLogger, io.StringIO]]]:
    """Return a function that makes a logger with its own console; closed afterwards."""
    made: list[TradeLogger] = []

    def build(
        level: str = "INFO", stream: io.StringIO | None = None, **more: Any
    ) -> tuple[TradeLogger, io.StringIO]:
        console = stream or io.StringIO()
        made.append(TradeLogger("BTCUSDT", tmp_path, level, stream=console, **more))
        made[-1].rules = RULES
        return made[-1], console

    yield build
    for logger in made:
        logger.close()


def log_text(folder: Path) -> str:
    return (folder / "BTCUSDT.log").read_text(encoding="utf-8")


# --- the console ----------------------------------------------------------------------------------


def test_the_console_shows_trades_and_equity_in_exactly_this_form(
    open_logger: Callable[..., Any],
) -> None:
    logger, console = open_logger()
    logger.trade(SALE)
    logger.step(StepDone(WHEN + 900_000, VIEW))
    assert console.getvalue() == (
        "[2024-01-15 14:30:00] SELL_CLOSE_LONG | BTC/USDT\n"
        "  Price: $43,250.00 | Qty: 0.023 | PnL: +$12.45 (+0.57%)\n"
        "  Hold: 2.5h | R: +1.23 | Regime: NOISE\n"
        "[2024-01-15 14:45:00] EQUITY | $10,234.56 | Wallet: $10,100.00\n"
        "  UPnL_L: +$80.00 | UPnL_S: +$54.56 | Regime: NOISE\n"
    )


def test_an_entry_shows_its_fee_instead_of_a_profit() -> None:
    assert trade_text(PURCHASE, "BTC/USDT", RULES) == (
        "[2024-01-15 14:30:00] BUY_OPEN_LONG | BTC/USDT\n"
        "  Price: $43,250.00 | Qty: 0.023 | Fee: $0.20\n"
        "  Regime: NOISE"
    )


def test_a_halt_shows_where_the_price_stood() -> None:
    assert trade_text(HALT, "BTC/USDT", RULES) == (
        "[2024-01-15 14:30:00] CIRCUIT_BREAKER_HALT | BTC/USDT\n  Price: $43,250.00 | Regime: NOISE"
    )


def test_losses_and_rebates_have_their_sign_before_the_currency() -> None:
    loss = Close(net=-12.45, net_pct=-0.57, r_multiple=-1.0, hold_hours=0.25)
    text = trade_text(replace(SALE, label="STOP_LONG", close=loss), "BTC/USDT", RULES)
    assert "PnL: -$12.45 (-0.57%)\n  Hold: 0.2h | R: -1.00" in text
    assert "Fee: -$0.05" in trade_text(replace(PURCHASE, fee=-0.05), "BTC/USDT", RULES)
    assert "UPnL_L: -$1,080.00 | UPnL_S: +$0.00" in equity_text(WHEN, 1.0, 1.0, -1080.0, 0.0, "X")


def test_figures_nobody_knows_show_as_not_available() -> None:
    text = trade_text(replace(SALE, close=None), "BTC/USDT", RULES)
    assert "PnL: n/a (n/a)\n  Hold: n/a | R: n/a | Regime: NOISE" in text
    assert "EQUITY | n/a | Wallet: n/a" in equity_text(WHEN, math.nan, math.inf, 0.0, 0.0, "NOISE")


@pytest.mark.parametrize(
    ("tick", "step", "price", "qty", "shown"),
    [
        (0.1, 0.001, 43_250.1, 0.023, "Price: $43,250.10 | Qty: 0.023"),
        (0.00001, 1.0, 0.08123, 1500.0, "Price: $0.08123 | Qty: 1,500"),
        (1e-07, 1.0, 1.25e-05, 3.0, "Price: $0.0000125 | Qty: 3"),
        (5.0, 0.5, 105.0, 2.5, "Price: $105.00 | Qty: 2.5"),
    ],
)
def test_prices_and_quantities_have_the_decimals_of_tick_and_lot(
    tick: float, step: float, price: float, qty: float, shown: str
) -> None:
    rules = MarketRules(tick_size=tick, step_size=step, min_qty=step, min_notional=5.0)
    assert shown in trade_text(replace(PURCHASE, price=price, qty=qty), "X", rules)


def test_without_market_rules_a_number_shows_all_its_decimals() -> None:
    shown = trade_text(replace(PURCHASE, price=0.123456, qty=7.25), "X", None)
    assert "Price: $0.123456 | Qty: 7.25" in shown


@settings(max_examples=200)
@given(st.floats(-1e12, 1e12), st.integers(0, 8))
def test_a_number_reads_back_as_itself_and_never_as_minus_zero(value: float, decimals: int) -> None:
    text = number(value, decimals, signed=True, unit="$")
    assert text[0] in "+-"
    assert text[1] == "$"
    assert float(text.replace("$", "").replace(",", "")) == round(value, decimals)
    assert text[0] == "+" or float(text.replace("$", "").replace(",", "")) < 0.0


@pytest.mark.parametrize(("value", "text"), [(0.0, "$0.00"), (-0.001, "$0.00"), (-5.0, "-$5.00")])
def test_money_is_shown_to_the_cent(value: float, text: str) -> None:
    assert money(value) == text


@pytest.mark.parametrize(
    ("step", "decimals"), [(0.1, 1), (0.5, 1), (1.0, 0), (10.0, 0), (1e-05, 5), (math.nan, 0)]
)
def test_decimals_follow_from_the_step(step: float, decimals: int) -> None:
    assert decimals_of(step) == decimals


class Terminal(io.StringIO):
    """A console that is a terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def test_colours_appear_on_a_terminal_only_and_not_against_no_color(
    open_logger: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    logger, terminal = open_logger(stream=Terminal())
    logger.trade(SALE)
    first, rest = terminal.getvalue().split("\n", 1)
    assert first == "\x1b[32m[2024-01-15 14:30:00] SELL_CLOSE_LONG | BTC/USDT\x1b[0m"
    assert "\x1b" not in rest
    logger.close()
    monkeypatch.setenv("NO_COLOR", "1")
    logger, terminal = open_logger(stream=Terminal())
    logger.trade(SALE)
    logging.getLogger("live.any").error("wrong")
    assert "\x1b" not in terminal.getvalue()
    logger.close()
    monkeypatch.delenv("NO_COLOR")
    logger, file = open_logger()
    logger.trade(SALE)
    assert "\x1b" not in file.getvalue()


def test_other_records_stand_behind_their_time_and_level(open_logger: Callable[..., Any]) -> None:
    _, console = open_logger()
    record = logging.makeLogRecord(
        {"msg": "book of %s", "args": ("BTC",), "levelno": 30, "levelname": "WARNING"}
    )
    record.created = WHEN / 1000 + 0.5
    logging.getLogger().handle(record)
    assert console.getvalue() == "[2024-01-15 14:30:00] WARNING | book of BTC\n"


# --- the file -------------------------------------------------------------------------------------


def test_the_file_has_everything_from_info_on_whatever_the_console_shows(
    open_logger: Callable[..., Any], tmp_path: Path
) -> None:
    logger, console = open_logger("ERROR")
    logger.trade(SALE)
    logging.getLogger("live.any").info("reported")
    logging.getLogger("live.any").debug("detail")
    logging.getLogger("live.any").error("wrong")
    assert console.getvalue().endswith("ERROR | wrong\n")
    assert console.getvalue().count("\n") == 1
    lines = log_text(tmp_path).splitlines()
    reported = " | ".join(line.strip() for line in trade_text(SALE, "BTC/USDT", RULES).splitlines())
    assert [line.split(" ", 1)[1] for line in lines] == [
        f"INFO session.BTCUSDT: {reported}",
        "INFO live.any: reported",
        "ERROR live.any: wrong",
    ]


def test_of_two_sessions_in_a_process_each_log_has_its_own_records(tmp_path: Path) -> None:
    with (
        closing(TradeLogger("BTCUSDT", tmp_path, stream=io.StringIO())),
        closing(TradeLogger("ETHUSDT", tmp_path, stream=io.StringIO())),
    ):
        session_logger("BTC/USDT").warning("of the first")
        session_logger("ETHUSDT").warning("of the second")
        logging.getLogger("live.exchange").warning("of both")
    texts = [(tmp_path / f"{coin}USDT.log").read_text("utf-8") for coin in ("BTC", "ETH")]
    assert [text.count("of the first") for text in texts] == [1, 0]
    assert [text.count("of the second") for text in texts] == [0, 1]
    assert [text.count("of both") for text in texts] == [1, 1]


def test_the_files_times_are_iso_and_utc(open_logger: Callable[..., Any], tmp_path: Path) -> None:
    open_logger()
    record = logging.makeLogRecord({"msg": "x", "levelno": 20, "levelname": "INFO", "name": "n"})
    record.created = WHEN / 1000 + 0.25
    logging.getLogger().handle(record)
    assert log_text(tmp_path) == "2024-01-15T14:30:00.250+00:00 INFO n: x\n"


def test_debug_reaches_the_console_only_when_asked_for(open_logger: Callable[..., Any]) -> None:
    logger, quiet = open_logger()
    logging.getLogger("live.any").debug("detail")
    logger.close()
    _, loud = open_logger("debug")
    logging.getLogger("live.any").debug("detail")
    assert "detail" not in quiet.getvalue()
    assert loud.getvalue().endswith("DEBUG | detail\n")


@pytest.mark.parametrize("name", ["ccxt.base.exchange", "urllib3.connectionpool"])
def test_libraries_are_heard_from_warning_on(
    open_logger: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    _, console = open_logger("DEBUG")
    logging.getLogger(name).debug("chatter")
    logging.getLogger(name).info("chatter")
    logging.getLogger(name).warning("trouble")
    assert "chatter" not in console.getvalue() + log_text(tmp_path)
    assert "trouble" in console.getvalue()
    assert "trouble" in log_text(tmp_path)


def test_the_file_is_rotated_and_five_old_ones_are_kept(
    open_logger: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (live.health.logger.LOG_BYTES, live.health.logger.LOG_FILES) == (10 * 1024 * 1024, 5)
    monkeypatch.setattr(live.health.logger, "LOG_BYTES", 1_000)
    before = open_files()
    logger, _ = open_logger()
    for number_ in range(200):
        logging.getLogger("live.any").info("record %d", number_)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"BTCUSDT.log", *(f"BTCUSDT.log.{n}" for n in range(1, 6))}
    assert all(path.stat().st_size <= 1_000 for path in tmp_path.iterdir())
    assert "record 199" in log_text(tmp_path)
    assert open_files() == before + 1
    logger.close()
    assert open_files() == before


def test_a_log_that_cannot_be_written_at_the_start_is_refused(tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT.log").mkdir()
    with pytest.raises(StateError, match=r"BTCUSDT\.log"):
        TradeLogger("BTC/USDT", tmp_path)


def test_an_unknown_level_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="log level = 'LOUD' must be one of DEBUG, INFO"):
        TradeLogger("BTC/USDT", tmp_path, "LOUD")


def test_a_full_disk_is_reported_once_and_does_not_stop_the_session(
    open_logger: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger, console = open_logger()

    def refuse(*_: Any) -> None:
        raise FULL

    monkeypatch.setattr(RotatingFileHandler, "shouldRollover", refuse)
    for _ in range(3):
        logger.trade(SALE)
    assert console.getvalue().count("SELL_CLOSE_LONG") == 3
    reported = capsys.readouterr().err
    assert reported.count("\n") == 1
    assert f"the log {tmp_path / 'BTCUSDT.log'} cannot be written: [Errno 28] No space" in reported


def test_closing_puts_everything_back(tmp_path: Path) -> None:
    root, library = logging.getLogger(), logging.getLogger("urllib3")
    before = (root.level, [*root.handlers], library.level, open_files())
    for _ in range(50):
        TradeLogger("BTCUSDT", tmp_path, "DEBUG", stream=io.StringIO()).close()
    assert (root.level, [*root.handlers], library.level, open_files()) == before


def test_the_log_is_ours_alone_from_the_start_also_when_rotated(
    open_logger: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live.health.logger, "LOG_BYTES", 300)
    (tmp_path / "BTCUSDT.log").write_text("of an earlier version\n")
    (tmp_path / "BTCUSDT.log").chmod(0o644)
    open_logger()
    for number_ in range(9):
        logging.getLogger("live.any").info("record %d", number_)
    files = [*tmp_path.iterdir()]
    assert len(files) == 2
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


def test_a_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("theirs")
    (tmp_path / "BTCUSDT.log").symlink_to(tmp_path / "victim")
    with pytest.raises(StateError, match=r"cannot write .*BTCUSDT\.log"):
        TradeLogger("BTC/USDT", tmp_path)
    assert (tmp_path / "victim").read_text() == "theirs"


def test_control_characters_reach_neither_terminal_nor_file(
    open_logger: Callable[..., Any], tmp_path: Path
) -> None:
    _, console = open_logger()
    logging.getLogger("live.any").warning("the exchange says \x1b]0;title\x07\x1b[2J")
    for text in (console.getvalue(), log_text(tmp_path)):
        assert "\x1b" not in text
        assert "\\x1b]0;title" in text


def test_what_urllib3_says_of_a_malformed_header_shows_no_signature(
    open_logger: Callable[..., Any], tmp_path: Path
) -> None:
    _, console = open_logger("DEBUG", secrets=(KEY,))
    url = f"https://fapi.binance.com/fapi/v1/order?symbol=BTCUSDT&signature={'0f' * 32}"
    logging.getLogger("urllib3.connection").warning(
        "Failed to parse headers (url=%s): %s", url, KEY[:20], exc_info=ValueError(url)
    )
    for text in (console.getvalue(), log_text(tmp_path)):
        assert "Failed to parse headers" in text
        assert "0f0f" not in text
        assert KEY[:20] not in text


# --- secrets --------------------------------------------------------------------------------------


def raise_chain() -> None:
    try:
        int(SECRET)
    except ValueError as error:
        raise RuntimeError(f"key {KEY}") from error


def log_with_exception() -> None:
    try:
        raise_chain()
    except RuntimeError:
        logging.getLogger("live.session.runner").exception("it failed")


WAYS: dict[str, Callable[[], None]] = {
    "message": lambda: logging.getLogger("live.any").warning(f"key {KEY}"),  # noqa: G004
    "argument": lambda: logging.getLogger("ccxt").error("headers %s", {"X-MBX-APIKEY": KEY}),
    "url": lambda: logging.getLogger("urllib3").warning(
        "GET /x?s=%s&t=%s", urllib.parse.quote(SECRET, safe=""), urllib.parse.quote_plus(SECRET)
    ),
    "exception": log_with_exception,
    "stack": lambda: logging.getLogger("else").error(SECRET, stack_info=True),
    "root": lambda: logging.getLogger().critical(SECRET),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_secret_reaches_console_or_file_by_any_logger(
    open_logger: Callable[..., Any], tmp_path: Path, way: str
) -> None:
    _, console = open_logger("DEBUG", secrets=(KEY, SECRET, ""))
    WAYS[way]()
    for text in (console.getvalue(), log_text(tmp_path)):
        assert "***" in text
        for secret in (KEY, SECRET, urllib.parse.quote(SECRET, safe="")):
            assert secret not in text


def test_a_record_whose_arguments_do_not_fit_is_scrubbed_and_kept() -> None:
    record = logging.makeLogRecord({"msg": f"%d {KEY}", "args": (SECRET, 5)})
    assert SecretFilter([KEY, SECRET]).filter(record)
    assert record.getMessage() == "%d *** ('***', 5)"


def test_a_scrubbed_exception_still_shows_where_it_happened(
    open_logger: Callable[..., Any],
) -> None:
    _, console = open_logger(secrets=(KEY, SECRET))
    log_with_exception()
    assert "ValueError: invalid literal for int() with base 10: '***'" in console.getvalue()
    assert "RuntimeError: key ***" in console.getvalue()
    assert "in raise_chain" in console.getvalue()


# --- figures of a close ---------------------------------------------------------------------------


def test_the_figures_of_a_partial_close_bear_their_share_of_the_entry_fee() -> None:
    figures = close_figures(
        pnl=5.0,
        fee=0.20,
        qty=0.25,
        ts_ms=WHEN + 9_000_000,
        entry_price=1000.0,
        entry_qty=1.0,
        entry_fee=0.40,
        entry_ts_ms=WHEN,
        stop_distance=35.0,
    )
    assert figures.net == pytest.approx(5.0 - 0.20 - 0.10)
    assert figures.net_pct == pytest.approx(100.0 * 4.70 / 250.0)
    assert figures.r_multiple == pytest.approx(4.70 / (35.0 * 0.25))
    assert figures.hold_hours == 2.5


@pytest.mark.parametrize("distance", [0.0, math.nan])
def test_without_a_known_risk_there_is_no_r(distance: float) -> None:
    figures = close_figures(
        pnl=5.0,
        fee=0.2,
        qty=1.0,
        ts_ms=WHEN,
        entry_price=1000.0,
        entry_qty=1.0,
        entry_fee=0.4,
        entry_ts_ms=WHEN,
        stop_distance=distance,
    )
    assert math.isnan(figures.r_multiple)
    assert figures.net == pytest.approx(4.4)


# --- trade files ----------------------------------------------------------------------------------


def trade(place: int, sequence: int = 0) -> LiveTrade:
    """Return a record with its own identity and numbers."""
    base = SALE if place % 2 else PURCHASE
    return replace(
        base,
        bar=place,
        timestamp=WHEN + 1_000 * place,
        trade_id=f"{1000 + place}:{sequence}",
        price=43_000.1 + place / 7.0,
    )


def rows_of(folder: Path) -> list[str]:
    """Return the identities in both files, which must hold the same rows in the same order."""
    lines = (folder / "BTCUSDT_trades.csv").read_text().splitlines()
    table = list(csv.DictReader(lines))
    objects = [
        json.loads(line) for line in (folder / "BTCUSDT_trades.jsonl").read_text().splitlines()
    ]
    assert lines[0] == ",".join(TRADE_COLUMNS)
    assert [[*row] for row in objects] == [[*TRADE_COLUMNS]] * len(objects)
    as_text = [{k: "" if v is None else str(v) for k, v in row.items()} for row in objects]
    assert as_text == table
    return [row["trade_id"] for row in objects]


def test_the_columns_are_those_of_a_backtest_and_then_the_live_ones() -> None:
    assert TRADE_COLUMNS[: len(BACKTEST_COLUMNS)] == BACKTEST_COLUMNS
    live_only = ("trade_id", "client_id", "r_multiple", "hold_hours", "executed_ms")
    assert TRADE_COLUMNS[len(BACKTEST_COLUMNS) :] == live_only


def test_both_files_hold_the_same_rows(tmp_path: Path) -> None:
    files = TradeFiles("BTC/USDT", tmp_path)
    assert files.append([PURCHASE, SALE]) == 2
    assert files.append([HALT]) == 1
    assert rows_of(tmp_path) == ["123450:0", "123456:0", "n1"]
    moment = "57,1705329000000,2024-01-15 14:30:00,43250.0"
    assert (tmp_path / "BTCUSDT_trades.csv").read_text().splitlines()[1:] == [
        f"{moment},0.023,BUY_OPEN_LONG,NOISE,0.0,0.2,LONG,9,123450:0,a-47-L3-1,,,1705329001234",
        f"{moment},0.023,SELL_CLOSE_LONG,NOISE,12.85,0.2,LONG,9,123456:0,a-57-L3-1,1.23,2.5,1705329001234",
        f"{moment},0.0,CIRCUIT_BREAKER_HALT,NOISE,0.0,0.0,,9,n1,,,,",
    ]


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(FINITE, FINITE, FINITE, FINITE), min_size=1, max_size=5))
def test_the_columns_of_a_backtest_are_written_as_a_backtest_writes_them_and_the_audit_reads_them(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[tuple[float, float, float, float]]
) -> None:
    folder = tmp_path_factory.mktemp("trades")
    trades = [
        replace(trade(place), price=price, qty=qty, pnl=pnl, fee=fee)
        for place, (price, qty, pnl, fee) in enumerate(numbers)
    ]
    TradeFiles("BTCUSDT", folder).append(trades)
    path = folder / "BTCUSDT_trades.csv"
    cut = [row[: len(BACKTEST_COLUMNS)] for row in csv.reader(path.read_text().splitlines())]
    path.write_text("".join(",".join(row) + "\n" for row in cut))
    backtest = {
        "trades": [{k: v for k, v in asdict(t).items() if k in TRADE_FIELDS} for t in trades]
    }
    assert path.read_bytes() == trades_csv(typed(backtest))
    read = read_trades(path)
    assert read.damage is None
    assert [(row.price, row.qty, row.pnl, row.fee) for row in read.rows] == numbers


def test_a_record_is_written_once_however_often_it_comes(tmp_path: Path) -> None:
    files = TradeFiles("BTCUSDT", tmp_path)
    assert files.append([trade(1), trade(1), trade(2)]) == 2
    assert files.append([trade(2), trade(1)]) == 0
    assert TradeFiles("BTCUSDT", tmp_path).append([trade(1), trade(2), trade(2, 1)]) == 1
    assert rows_of(tmp_path) == ["1001:0", "1002:0", "1002:1"]
    assert "1002:1" in TradeFiles("BTCUSDT", tmp_path)
    assert "1003:0" not in files


def test_a_record_comes_back_from_the_form_it_has_in_the_state() -> None:
    for record in (SALE, PURCHASE):
        assert LiveTrade.from_dict(json.loads(json.dumps(asdict(record)))) == record
    with pytest.raises(StateError, match="cannot be read"):
        LiveTrade.from_dict({"bar": 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"price": math.nan}, "price = nan"),
        ({"pnl": math.inf}, "pnl = inf"),
        ({"client_id": "two\nlines"}, "client_id"),
        ({"trade_id": ""}, "trade_id = ''"),
    ],
)
def test_a_record_that_could_not_be_read_back_is_refused_and_nothing_is_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    files = TradeFiles("BTCUSDT", tmp_path)
    with pytest.raises(StateError, match=message):
        files.append([trade(1), replace(trade(2), **changes)])
    assert rows_of(tmp_path) == []
    assert files.append([trade(1)]) == 1


def test_texts_with_commas_and_quotes_survive(tmp_path: Path) -> None:
    TradeFiles("BTCUSDT", tmp_path).append([replace(SALE, client_id='web,"quoted"')])
    TradeFiles("BTCUSDT", tmp_path)
    assert rows_of(tmp_path) == ["123456:0"]


def test_unknown_figures_are_empty_in_csv_and_null_in_json(tmp_path: Path) -> None:
    unknown = Close(net=1.0, net_pct=0.1, r_multiple=math.nan, hold_hours=math.inf)
    TradeFiles("BTCUSDT", tmp_path).append([replace(SALE, close=unknown)])
    assert (tmp_path / "BTCUSDT_trades.csv").read_text().endswith(f",a-57-L3-1,,,{WHEN + 1_234}\n")
    assert (
        '"r_multiple": null, "hold_hours": null, "executed_ms"'
        in (tmp_path / "BTCUSDT_trades.jsonl").read_text()
    )


def as_an_older_version_wrote(folder: Path, trades: Sequence[LiveTrade]) -> None:
    """Write both trade files without the time of execution."""
    rows = [{k: v for k, v in t.row().items() if k != "executed_ms"} for t in trades]
    jsonl = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "BTCUSDT_trades.jsonl").write_text(jsonl)
    with (folder / "BTCUSDT_trades.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0], lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


@pytest.mark.parametrize("torn", [0, 7])
def test_files_without_the_time_of_execution_are_read_and_gone_on_with(
    tmp_path: Path, torn: int, caplog: pytest.LogCaptureFixture
) -> None:
    as_an_older_version_wrote(tmp_path, [PURCHASE, SALE])
    for name in ("BTCUSDT_trades.csv", "BTCUSDT_trades.jsonl"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[: -torn or None])
    files = TradeFiles("BTCUSDT", tmp_path)
    assert files.append([PURCHASE, SALE, HALT, trade(5)]) == (2 if torn == 0 else 3)
    assert rows_of(tmp_path) == ["123450:0", "123456:0", "n1", "1005:0"]
    times = [row["executed_ms"] for row in files.rows()]
    assert times == [None, None if torn == 0 else WHEN + 1_234, None, WHEN + 1_234]
    assert caplog.text.count("has a new column") == 2
    caplog.clear()
    TradeFiles("BTCUSDT", tmp_path)
    assert caplog.text == ""


@pytest.mark.parametrize("older", ["BTCUSDT_trades.csv", "BTCUSDT_trades.jsonl"])
def test_a_process_killed_between_the_new_columns_of_both_files_goes_on(
    tmp_path: Path, older: str
) -> None:
    as_an_older_version_wrote(tmp_path, [PURCHASE, SALE])
    before = (tmp_path / older).read_bytes()
    TradeFiles("BTCUSDT", tmp_path)
    (tmp_path / older).write_bytes(before)
    TradeFiles("BTCUSDT", tmp_path)
    assert rows_of(tmp_path) == ["123450:0", "123456:0"]


@pytest.mark.parametrize("name", ["BTCUSDT_trades.csv", "BTCUSDT_trades.jsonl"])
def test_a_file_torn_anywhere_in_its_last_lines_is_made_whole_from_the_other(
    tmp_path: Path, name: str
) -> None:
    TradeFiles("BTCUSDT", tmp_path).append([trade(1), trade(2), trade(3)])
    whole = (tmp_path / name).read_bytes()
    for length in range(0, len(whole), 13):
        (tmp_path / name).write_bytes(whole[:length])
        TradeFiles("BTCUSDT", tmp_path)
        assert (tmp_path / name).read_bytes() == whole
    (tmp_path / name).unlink()
    TradeFiles("BTCUSDT", tmp_path)
    assert (tmp_path / name).read_bytes() == whole


def test_rows_only_one_file_has_are_added_to_the_other(tmp_path: Path) -> None:
    files = TradeFiles("BTCUSDT", tmp_path)
    files.append([trade(1), trade(2)])
    for path, skipped in ((files.csv_path, 2), (files.jsonl_path, 0)):
        lines = path.read_text().splitlines(keepends=True)
        del lines[skipped]
        path.write_text("".join(lines))
    TradeFiles("BTCUSDT", tmp_path)
    assert sorted(rows_of(tmp_path)) == ["1001:0", "1002:0"]


def test_what_is_torn_in_both_files_is_cut_off_and_can_be_written_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = TradeFiles("BTCUSDT", tmp_path)
    files.append([trade(1), trade(2)])
    for path in (files.csv_path, files.jsonl_path):
        path.write_bytes(path.read_bytes()[:-5])
    again = TradeFiles("BTCUSDT", tmp_path)
    assert rows_of(tmp_path) == ["1001:0"]
    assert caplog.text.count("repaired: it holds 1 trades") == 2
    assert again.append([trade(1), trade(2)]) == 1
    assert rows_of(tmp_path) == ["1001:0", "1002:0"]


def test_a_last_line_of_rubbish_is_cut_off(tmp_path: Path) -> None:
    files = TradeFiles("BTCUSDT", tmp_path)
    files.append([trade(1)])
    for path in (files.csv_path, files.jsonl_path):
        path.write_bytes(path.read_bytes() + b"\0\0\0\0\n")
    TradeFiles("BTCUSDT", tmp_path)
    assert rows_of(tmp_path) == ["1001:0"]


@pytest.mark.parametrize(("name", "line"), [("BTCUSDT_trades.csv", 3), ("BTCUSDT_trades.jsonl", 2)])
@pytest.mark.parametrize("rubbish", [b"rubbish", b"", b"\xff\xfe", b"[1]", b"1,2,3"])
def test_damage_before_the_last_line_is_refused_and_the_advice_works(
    tmp_path: Path, name: str, line: int, rubbish: bytes
) -> None:
    TradeFiles("BTCUSDT", tmp_path).append([trade(1), trade(2), trade(3)])
    path = tmp_path / name
    whole = path.read_bytes()
    lines = whole.split(b"\n")
    lines[line - 1] = rubbish
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(StateError, match=f"{name} line {line} cannot be read.*move the file away"):
        TradeFiles("BTCUSDT", tmp_path)
    path.unlink()
    TradeFiles("BTCUSDT", tmp_path)
    assert path.read_bytes() == whole


def test_a_csv_with_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT_trades.csv").write_text("bar,price\n1,2\n")
    with pytest.raises(StateError, match="line 1 must be bar,timestamp,datetime"):
        TradeFiles("BTCUSDT", tmp_path)


def test_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    files = TradeFiles("BTCUSDT", tmp_path)
    files.append([trade(1), trade(2)])
    files.csv_path.write_text(files.csv_path.read_text().replace(",0.023,", ",0.024,", 1))
    with pytest.raises(StateError, match="trade 1001:0 stands twice, with different values"):
        TradeFiles("BTCUSDT", tmp_path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT_trades.jsonl").mkdir()
    with pytest.raises(StateError, match="cannot read"):
        TradeFiles("BTCUSDT", tmp_path)


APPEND_SITES = [(name, nth) for name in ("open", "write", "fsync") for nth in (1, 2)]


@pytest.mark.parametrize(
    "error", [FULL, READ_ONLY, KeyboardInterrupt()], ids=["full", "ro", "kill"]
)
@pytest.mark.parametrize(("name", "nth"), APPEND_SITES)
def test_an_append_that_fails_anywhere_can_be_repeated_and_writes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int, error: BaseException
) -> None:
    files = TradeFiles("BTCUSDT", tmp_path)
    files.append([trade(1)])
    fresh = [trade(2), trade(3), trade(4)]
    before = open_files()
    with monkeypatch.context() as patch:
        happened = break_at(patch, name, nth, error)
        with pytest.raises(StateError if isinstance(error, OSError) else KeyboardInterrupt):
            files.append(fresh)
        assert happened()
    assert open_files() == before
    if isinstance(error, KeyboardInterrupt):
        files = TradeFiles("BTCUSDT", tmp_path)
    files.append(fresh)
    assert rows_of(tmp_path) == ["1001:0", "1002:0", "1003:0", "1004:0"]
    assert files.append(fresh) == 0


@pytest.mark.parametrize(
    ("name", "nth"),
    [(name, nth) for name in ("open", "write", "fsync", "replace") for nth in (1, 2)],
)
def test_a_repair_that_fails_anywhere_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int
) -> None:
    files = TradeFiles("BTCUSDT", tmp_path)
    files.append([trade(1), trade(2)])
    whole = [path.read_bytes() for path in (files.csv_path, files.jsonl_path)]
    files.csv_path.write_bytes(whole[0][:-5])
    files.jsonl_path.write_bytes(whole[1][: len(whole[1]) // 2] + b"x")
    with monkeypatch.context() as patch:
        happened = break_at(patch, name, nth, FULL)
        with pytest.raises(StateError, match="No space left"):
            TradeFiles("BTCUSDT", tmp_path)
        assert happened()
    TradeFiles("BTCUSDT", tmp_path).append([trade(1), trade(2)])
    assert [path.read_bytes() for path in (files.csv_path, files.jsonl_path)] == whole
    assert len(list(tmp_path.iterdir())) == 2


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.integers(1, 3),
            st.sampled_from(["", "write", "fsync", "open"]),
            st.integers(1, 4),
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_after_any_run_of_failures_and_restarts_every_record_is_there_once(
    tmp_path_factory: pytest.TempPathFactory, story: list[tuple[int, int, str, int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("trades")
    files, wanted = TradeFiles("BTCUSDT", folder), set[str]()
    for first, count, site, nth, restart in story:
        batch = [trade(place) for place in range(first, first + count)]
        wanted |= {item.trade_id for item in batch}
        with pytest.MonkeyPatch.context() as patch:
            if site:
                break_at(patch, site, nth, FULL)
            try:
                files.append(batch)
            except StateError:
                assert site
        if restart:
            files = TradeFiles("BTCUSDT", folder)
        files.append(batch)
    written = rows_of(folder)
    assert len(written) == len(wanted)
    assert set(written) == wanted


def test_a_file_removed_while_the_session_runs_is_made_again(tmp_path: Path) -> None:
    files = TradeFiles("BTCUSDT", tmp_path)
    files.append([trade(1)])
    files.csv_path.unlink()
    with pytest.raises(StateError, match=r"BTCUSDT_trades\.csv"):
        files.append([trade(2)])
    files.append([trade(2)])
    assert rows_of(tmp_path) == ["1001:0", "1002:0"]


def test_hundreds_of_appends_leave_no_handle(tmp_path: Path) -> None:
    files = TradeFiles("BTCUSDT", tmp_path)
    before = open_files()
    for place in range(150):
        files.append([trade(place)])
    assert open_files() == before
