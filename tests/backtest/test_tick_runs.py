"""The short grid on ticks: figures against plain sums, files, the table, and what is refused."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import main as main_module
from backtest.report.ticks import interval_text, tick_table
from backtest.results.ticks import fills_csv, tick_document
from backtest.runs.ticks import (
    Latency,
    Recording,
    TickResult,
    figures_of,
    mean_of,
    round_trips,
    run_recordings,
)
from backtest.ticks.demo import demo_ticks
from backtest.ticks.rules import decimal_step, given_rules, infer_rules
from core.errors import DataError
from core.recording import SECOND_NS, EventKind
from engine.registry import SHORT_GRID
from engine.short_grid.params import STEP_NS
from engine.short_grid.slots import ENTRY
from engine.short_grid.types import E8
from engine.short_grid.venue import QueueModel
from tests.backtest.test_ticks_reader import record

PARAMS = SHORT_GRID.read({"warmup_s": 20.0, "trend_30s_bps": 300.0, "pump_threshold": 0.5})


def recording(minutes: int = 10) -> Recording:
    demo = demo_ticks(minutes, faults=False)
    return Recording(
        "demo", demo.symbols, demo.events, given_rules(demo.rules, demo.symbols, 2.0, 5.0)
    )


@pytest.fixture(scope="module")
def result() -> TickResult:
    return run_recordings([recording()], PARAMS, list(QueueModel), Latency())


@pytest.mark.parametrize("model", QueueModel)
def test_net_is_the_cash_of_all_fills_and_what_is_left_bought_back(
    result: TickResult, model: QueueModel
) -> None:
    part, outcome = result.recordings[0], result.outcomes[model][0]
    figures = result.figures[model]
    assert figures["round_trips"] > 5
    units = [int(rules.unit_e8) for rules in part.rules]
    cash, held = 0, dict.fromkeys(range(len(units)), 0)
    for fill in outcome.fills:
        sign = 1 if fill["slot"] == ENTRY else -1
        symbol = int(fill["symbol"])
        held[symbol] += sign * int(fill["steps"])
        cash += sign * int(fill["ticks"]) * int(fill["steps"]) * units[symbol]
        cash -= int(fill["fee_e8"])
    left = sum(
        steps * _last_ask(part, symbol) * units[symbol] for symbol, steps in held.items() if steps
    )
    closing = cash / E8 - left / E8 - outcome.closing_fee_usd + outcome.funding_usd
    assert figures["net_usd"] == pytest.approx(closing, abs=1e-6)
    parts = figures["gross_usd"] - figures["fees_usd"] + figures["funding_usd"]
    assert figures["net_usd"] == pytest.approx(parts)


def _last_ask(part: Recording, symbol: int) -> int:
    """Return the ask that is known at the last step."""
    events = part.events
    known = events["t_ns"] < int(events["t_ns"][-1]) // STEP_NS * STEP_NS
    books = events[known & (events["symbol"] == symbol) & (events["kind"] == int(EventKind.BOOK))]
    return round(float(books["price2"][-1]) / float(part.rules[symbol].tick_size))


def test_every_way_out_is_counted_once(result: TickResult) -> None:
    for model, figures in result.figures.items():
        fills = result.outcomes[model][0].fills
        closes = fills[fills["slot"] != ENTRY]
        assert sum(found["n"] for found in figures["exits"].values()) == len(closes)
        total = math.fsum(found["net_usd"] for found in figures["exits"].values())
        assert total == pytest.approx(closes["net_e8"].sum() / E8)


def test_round_trips_are_told_apart_by_being_flat() -> None:
    names = ["t_ns", "symbol", "slot", "net_e8", "held", "layers"]
    rows = [
        (1 * SECOND_NS, 0, ENTRY, 0, 5, 1),
        (2 * SECOND_NS, 1, ENTRY, 0, 5, 1),
        (3 * SECOND_NS, 0, ENTRY, 0, 9, 2),
        (4 * SECOND_NS, 0, 4, 30 * E8, 4, 1),
        (6 * SECOND_NS, 0, 4, -10 * E8, 0, 0),
        (8 * SECOND_NS, 0, ENTRY, 0, 1, 1),
        (9 * SECOND_NS, 0, 2, -5 * E8, 0, 0),
    ]
    fills = np.array(rows, dtype=[(name, "i8") for name in names])
    assert round_trips(fills) == [
        {"symbol": 0, "net": 20.0, "seconds": 5.0, "layers": 2},
        {"symbol": 0, "net": -5.0, "seconds": 1.0, "layers": 1},
    ]


def test_markouts_are_those_of_a_plain_loop(result: TickResult) -> None:
    part, model = result.recordings[0], QueueModel.PESSIMISTIC
    fills = result.outcomes[model][0].fills
    wanted = []
    for symbol, rules in enumerate(part.rules):
        books = part.events[
            (part.events["symbol"] == symbol) & (part.events["kind"] == int(EventKind.BOOK))
        ]
        for fill in fills[(fills["slot"] == ENTRY) & (fills["symbol"] == symbol)]:
            later = int(fill["t_ns"]) + 5 * SECOND_NS
            known = books[books["t_ns"] <= later]
            if later > int(books["t_ns"][-1]):
                continue
            mid = (float(known["price"][-1]) + float(known["price2"][-1])) / 2.0
            price = int(fill["ticks"]) * float(rules.tick_size)
            wanted.append((1.0 - mid / price) * 1e4)
    assert len(wanted) > 5
    assert result.figures[model]["markouts_bps"]["5"] == pytest.approx(mean_of(wanted))


def test_two_recordings_add_up(result: TickResult) -> None:
    twice = run_recordings([recording(), recording(6)], PARAMS, [QueueModel.PESSIMISTIC], Latency())
    alone = result.figures[QueueModel.PESSIMISTIC]
    second = figures_of(twice.recordings[1:], twice.outcomes[QueueModel.PESSIMISTIC][1:])
    both = twice.figures[QueueModel.PESSIMISTIC]
    for name in ("net_usd", "fees_usd", "round_trips", "turnover_usd"):
        assert both[name] == pytest.approx(alone[name] + second[name])


def with_nets(result: TickResult, *nets: float) -> TickResult:
    figures = {
        model: {**result.figures[model], "net_usd": net}
        for model, net in zip(QueueModel, nets, strict=True)
    }
    return TickResult(result.recordings, result.outcomes, figures, PARAMS, Latency())


@pytest.mark.parametrize(
    ("nets", "verdict"),
    [
        ((1.0, 2.0, 3.0), "gain"),
        ((-3.0, -2.0, -1.0), "loss"),
        ((-1.0, 0.5, 2.0), "undecided"),
        ((0.0, 0.0, 1.0), "undecided"),
        ((0.0, 0.0, 0.0), "nothing"),
    ],
)
def test_where_the_models_differ_in_sign_nothing_is_decided(
    result: TickResult, nets: tuple[float, float, float], verdict: str
) -> None:
    found = with_nets(result, *nets)
    assert found.verdict == verdict
    text = interval_text(found)
    assert text.startswith(f"net {nets[0]:+.2f}")
    assert ("undecided" in text) == (verdict == "undecided")


def test_the_table_says_how_little_was_recorded(result: TickResult) -> None:
    text = tick_table(result)
    assert "0.01 of 14 days: no result of so few may be called an edge" in text
    assert text.splitlines()[1] == interval_text(result)


def test_fills_in_the_file_are_those_of_the_run(result: TickResult) -> None:
    model = QueueModel.OPTIMISTIC
    rows = list(csv.DictReader(fills_csv(result, model).decode().splitlines()))
    fills = result.outcomes[model][0].fills
    assert len(rows) == len(fills)
    assert math.fsum(float(row["fee"]) for row in rows) == pytest.approx(fills["fee_e8"].sum() / E8)
    assert {row["side"] for row in rows} == {"BUY", "SELL"}
    assert all(float(row["held"]) >= 0.0 for row in rows)


def test_a_document_holds_only_what_json_can(result: TickResult) -> None:
    assert json.loads(json.dumps(tick_document(result)))["verdict"] == result.verdict


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([0.1, 0.25, 3.0], 0.05),
        ([0.01, 3.0], 0.01),
        ([100.0, 2_500.0], 100.0),
        ([0.00012, 0.00013], 1e-5),
        ([1.05, 2.5], 0.05),
        ([1.0], 1.0),
    ],
)
def test_a_step_is_the_largest_that_fits(values: list[float], step: float) -> None:
    assert decimal_step(np.array(values)) == pytest.approx(step)


@pytest.mark.parametrize("values", [[], [math.nan], [0.0, -1.0], [math.pi]])
def test_values_without_a_step_are_refused(values: list[float]) -> None:
    with pytest.raises(DataError, match="step"):
        decimal_step(np.array(values))


def test_inferred_rules_are_those_the_demo_was_made_with() -> None:
    demo = demo_ticks(3, ("KITUSDT", "ORBUSDT"))
    found, notices = infer_rules(demo.events, demo.symbols, 2.0, 5.0)
    known = given_rules(demo.rules, demo.symbols, 2.0, 5.0)
    assert [float(r.tick_size) for r in found] == pytest.approx([float(r.tick_size) for r in known])
    assert "assumed" in notices[0]


# --- the command ----------------------------------------------------------------------------------


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main_module.main(["--strategy", "short_grid", *arguments])
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.fixture
def short_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    from backtest.commands import ticks  # noqa: PLC0415

    monkeypatch.setattr(ticks, "DEMO_MINUTES", 6)


@pytest.mark.usefixtures("short_demo")
def test_the_demo_writes_its_files_and_prints_an_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = command(capsys, "--demo", "--output", str(tmp_path))
    assert code == 0
    assert out.splitlines()[1].startswith("net ")
    assert "made up" in err
    names = {path.name for path in tmp_path.iterdir()}
    assert {"short_grid_summary.json", "short_grid.png", "short_grid_fills_optimistic.csv"} <= names


@pytest.mark.usefixtures("short_demo")
def test_one_model_is_one_column_and_json_is_one_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = command(
        capsys,
        "--demo",
        "--queue",
        "optimistic",
        "--latency",
        "1,2,3",
        "--json",
        "--no-plot",
        "--output",
        str(tmp_path),
    )
    document = json.loads(out)
    assert code == 0
    assert list(document["models"]) == ["optimistic"]
    assert document["latency_ms"] == {"up": 1.0, "down": 2.0, "feed": 3.0}
    assert not (tmp_path / "short_grid.png").exists()


def test_a_recording_is_read_and_says_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, demo = tmp_path / "ticks", demo_ticks(3, ("KITUSDT",))
    record(folder, demo.events, demo.symbols, 60 * SECOND_NS)
    code, out, err = command(
        capsys, "--ticks", str(folder), "--no-plot", "--output", str(tmp_path / "out")
    )
    assert code == 0
    assert "Gates (pessimistic)" in out
    assert "rules read off the recorded prices" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name their folder with --ticks DIR, or use --demo"),
        (["--data", "x"], "--data is not for short_grid"),
        (["--demo", "--bands"], "--bands is not for short_grid"),
        (["--demo", "--start", "2024-01-01"], "--start is not for short_grid"),
        (["--demo", "--queue", "hopeful"], "--queue hopeful must be one of pessimistic"),
        (["--demo", "--latency", "5,5"], "--latency 5,5 must be three numbers of ms"),
        (["--demo", "--latency", "5,-1,5"], "must be three numbers"),
        (["--demo", "--latency", "nan,1,1"], "must be three numbers"),
        (["--demo", "--coins", "BTC"], "the demo has no ticks of BTCUSDT"),
        (["--demo", "--set", "max_loss_bps=900"], "max_loss_bps"),
        (["--demo", "--set", "grid_levels=3"], "grid_levels belongs to grid_v4"),
        (["--ticks", "/nowhere"], "does not exist or is not a folder"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = command(capsys, *arguments, "--output", str(tmp_path))
    assert (code, out) == (2, "")
    assert said in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("flag", [["--ticks", "x"], ["--queue", "all"], ["--latency", "1,1,1"]])
def test_flags_about_ticks_are_refused_by_strategies_on_candles(
    flag: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    extra: list[Any] = [] if flag[0] == "--ticks" else ["--demo"]
    assert main_module.main([*extra, *flag]) == 2
    assert "is not for grid_v4, which runs on candles" in capsys.readouterr().err
