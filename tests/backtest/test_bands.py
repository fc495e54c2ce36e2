"""The bands: every assumption run, worst and best named, the sign of the return reported."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backtest.commands.backtest
import main
from backtest.market.fetch import load_market
from backtest.market.market_data import MarketData
from backtest.market.timeframes import parse_time
from backtest.report.console import print_report
from backtest.runs.variants import Variants, cut_window
from backtest.simulator import BacktestSimulator, choose_rules
from backtest.trust import bands as module
from backtest.trust.bands import METRICS, TOGETHER, add_bands, assumptions, run_bands, summarize
from backtest.trust.bands_text import band_lines, print_bands, sign_sentence
from config import BACKTEST_CONFIG, PRESETS
from core.errors import DataError
from core.market import MarketRules
from core.params import IntrabarPath, StrategyParams
from engine.strategy import GridStrategyV4, read_config
from tests.support.paths import MARKET
from tests.support.results.typed import typed, typed_all

START, END = "2024-01-10", "2024-02-10"
RANGE = ["--start", START, "--end", END]
BAR_MS, MINUTE_MS = 900_000, 60_000
Band = dict[str, Any]


def simulate(config: dict[str, Any] | None = None, *, coin: str = "BTC", **more: Any) -> Any:
    simulator = BacktestSimulator(config, source="demo", also=add_bands, **more)
    return simulator.run_single(coin, START, END)


@pytest.fixture(scope="module")
def result() -> Any:
    return simulate(PRESETS["documented"])


def band(about: str, text: str, total: float, fall: float = 1.0, calmar: float = 1.0) -> Band:
    values = dict(zip(METRICS, (total, fall, calmar), strict=True))
    return {"about": about, "assumption": text, **values}


# --- which runs ---------------------------------------------------------------------------------


def test_the_same_run_is_made_under_at_least_twelve_assumptions(result: Any) -> None:
    assert len(result["bands"]) >= 12
    assert len({item["assumption"] for item in result["bands"]}) == len(result["bands"])
    assert result["bands_summary"]["runs"] == len(result["bands"])


def test_the_first_band_is_the_run_itself(result: Any) -> None:
    first = result["bands"][0]
    assert first["assumption"] == "as run"
    assert all(first[name] == result["metrics"][name] for name in METRICS)


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("low first", {"intrabar_path": "low_first"}),
        ("high first", {"intrabar_path": "high_first"}),
        ("limits fill 1 tick through", {"fill_through_ticks": 1}),
        ("limits fill 2 bps through", {"fill_through_bps": 2.0}),
        ("the first touch does not fill", {"refuse_first_touch": True}),
        ("slippage x 0", {"slippage": 0.0}),
        ("slippage x 3", {"slippage": 0.0015}),
        (
            "strictest fills, no slippage",
            {
                "fill_through_ticks": 1,
                "fill_through_bps": 2.0,
                "refuse_first_touch": True,
                "slippage": 0.0,
            },
        ),
    ],
)
def test_a_band_is_what_a_backtest_with_that_assumption_answers(
    result: Any, text: str, changes: dict[str, Any]
) -> None:
    (found,) = [item for item in result["bands"] if item["assumption"] == text]
    config = {**PRESETS["documented"], **changes}
    alone = BacktestSimulator(config, source="demo").run_single("BTC", START, END)
    assert all(found[name] == alone["metrics"][name] for name in METRICS)


def test_pessimistic_and_optimistic_combinations_are_among_the_runs(result: Any) -> None:
    names = [item["assumption"] for item in result["bands"] if item["about"] == TOGETHER]
    assert sum("all pessimistic" in name for name in names) == len(IntrabarPath)
    assert sum("all optimistic" in name for name in names) == len(IntrabarPath)


def test_what_the_run_assumes_already_is_not_run_again() -> None:
    params = read_config({"intrabar_path": "low_first", "refuse_first_touch": True})
    texts = [item.text for item in assumptions(params, detailed=False)]
    assert "low first" not in texts
    assert "extremes in the candle's direction" in texts
    assert "the first touch fills" in texts
    assert "the first touch does not fill" not in texts
    assert "slippage x 1" not in texts


@pytest.mark.parametrize("own", [0.0, 0.0002])
def test_slippage_varies_around_the_shipped_one_where_the_runs_own_is_smaller(own: float) -> None:
    shipped = float(PRESETS["shipped"].get("slippage", 0.0005))
    tried = {
        item.text: item.params.slippage
        for item in assumptions(read_config({"slippage": own}), detailed=False)
        if item.about == "slippage"
    }
    expected = {"no slippage": 0.0, "slippage 5 bps": shipped, "slippage 15 bps": 3.0 * shipped}
    if own == 0.0:
        del expected["no slippage"]  # that is the run itself
    assert tried == pytest.approx(expected)


def test_the_pessimistic_corners_of_a_run_without_slippage_have_some() -> None:
    for item in assumptions(read_config({"slippage": 0.0}), detailed=False):
        if "pessimistic" in item.text or "most slippage" in item.text:
            assert item.params.slippage == pytest.approx(0.0015)


def test_a_factor_that_the_bound_cuts_is_called_what_it_is() -> None:
    texts = [item.text for item in assumptions(read_config({"slippage": 0.25}), detailed=False)]
    assert "slippage x 2" in texts
    assert "slippage x 3" not in texts


def test_pessimistic_fills_are_never_kinder_than_the_run_itself() -> None:
    params = read_config({"fill_through_bps": 7.0, "fill_through_ticks": 3})
    for item in assumptions(params, detailed=False):
        if "pessimistic" in item.text or "strictest" in item.text:
            assert item.params.fill_through_bps == 7.0
            assert item.params.fill_through_ticks == 3
        if "optimistic" in item.text or "kindest" in item.text:
            assert item.params.fill_through_bps == item.params.fill_through_ticks == 0


@settings(max_examples=20)
@given(st.floats(0.0, 0.5), st.floats(0.0, 1000.0), st.integers(0, 1000), st.booleans())
def test_every_assumption_is_within_the_bounds_of_the_parameters(
    slippage: float, bps: float, ticks: int, refuse: bool
) -> None:
    params = read_config(
        {
            "slippage": slippage,
            "fill_through_bps": bps,
            "fill_through_ticks": ticks,
            "refuse_first_touch": refuse,
        }
    )
    for item in assumptions(params, detailed=False):
        StrategyParams.from_dict(item.params.to_dict())


def test_the_number_of_threads_does_not_matter(result: Any) -> None:
    simulator = BacktestSimulator(PRESETS["documented"], source="demo")
    variants = Variants(simulator.load("BTC", START, END), simulator.params)
    assert repr(run_bands(variants, result["metrics"], threads=1)) == repr(result["bands"])
    assert repr(run_bands(variants, result["metrics"], threads=4)) == repr(result["bands"])


# --- finer candles ------------------------------------------------------------------------------


def load_demo_minutes(coin: str, start_ms: int, end_ms: int) -> MarketData:
    source = BacktestSimulator(source="demo").source
    return source.load(coin, start_ms, end_ms, timeframe="15m", detail="1m")


def test_finer_candles_are_tried_where_there_are_any() -> None:
    also = partial(add_bands, load_minutes=load_demo_minutes)
    result = BacktestSimulator(source="demo", also=also).run_single("SOL", START, END)
    (found,) = [item for item in result["bands"] if item["about"] == "1m detail"]
    alone = BacktestSimulator(source="demo", detail="1m").run_single("SOL", START, END)
    assert all(found[name] == alone["metrics"][name] for name in METRICS)
    assert result["bands_summary"]["no_detail"] is None


def test_a_run_on_finer_candles_is_compared_with_the_candles_alone() -> None:
    result = simulate(detail="1m")
    (found,) = [item for item in result["bands"] if item["about"] == "1m detail"]
    alone = simulate()
    assert found["assumption"] == "candles alone"
    assert all(found[name] == alone["metrics"][name] for name in METRICS)


def test_why_no_finer_candles_were_tried_is_reported(result: Any) -> None:
    def refuse(*_: Any) -> MarketData:
        raise DataError("no such file")

    assert "--detail 1m" in result["bands_summary"]["no_detail"]
    asked = BacktestSimulator(source="demo", also=partial(add_bands, load_minutes=refuse))
    found = asked.run_single("BTC", START, END)
    assert found["bands_summary"]["no_detail"] == "no such file"
    assert "not tried: 1m candles (no such file)" in band_lines(typed(found))


# --- what they say together ---------------------------------------------------------------------

PERCENT = st.floats(-99.0, 400.0)


@given(st.lists(st.tuples(PERCENT, st.floats(0.0, 99.0), PERCENT), min_size=2, max_size=20))
def test_every_run_lies_within_the_band(values: list[tuple[float, float, float]]) -> None:
    runs = [band("slippage", str(row), *value) for row, value in enumerate(values)]
    summary = summarize(runs)
    for name, sign in zip(METRICS, (1, -1, 1), strict=True):
        edges = summary[name]
        assert edges["central"] == runs[0][name]
        for item in runs:
            assert sign * edges["pessimistic"] <= sign * item[name] <= sign * edges["optimistic"]


def test_the_assumption_that_moves_the_return_most_is_named() -> None:
    runs = [
        band("", "as run", 5.0),
        band("slippage", "slippage x 3", 3.0),
        band("path", "low first", 9.0),
        band(TOGETHER, "all pessimistic", -20.0),
    ]
    most = summarize(runs)["moves_most"]
    assert most == {"about": "path", "assumption": "low first", "points": 4.0}


def test_the_first_line_says_on_which_assumption_the_sign_depends() -> None:
    runs = [
        band("", "as run", 5.0),
        band("slippage", "slippage x 3", -3.0),
        band("path", "low", 5.0),
        band(TOGETHER, "all pessimistic", -20.0),
    ]
    result = {"coin": "BTC", "bands": runs, "bands_summary": summarize(runs)}
    assert sign_sentence(typed(result)) == (
        "BTC: the sign of the return depends on an assumption: +5.00 % as run, -3.00 % with "
        '"slippage x 3"'
    )


def test_combinations_are_named_only_where_no_single_assumption_turns_the_sign() -> None:
    runs = [
        band("", "as run", 1.0),
        band("slippage", "slippage x 3", 0.5),
        band(TOGETHER, "all pessimistic", -2.0),
        band(TOGETHER, "strictest fills", -1.0),
    ]
    result = {"coin": "BTC", "bands": runs, "bands_summary": summarize(runs)}
    assert "depends on several assumptions together" in sign_sentence(typed(result))
    assert sign_sentence(typed(result)).endswith('with "all pessimistic", and 1 more change it')


@pytest.mark.parametrize(("total", "word"), [(2.0, "positive"), (-2.0, "negative"), (0.0, "zero")])
def test_a_sign_that_depends_on_nothing_is_reported_too(total: float, word: str) -> None:
    runs = [band("", "as run", total), band("slippage", "slippage x 3", 2.0 * total)]
    result = {"coin": "BTC", "bands": runs, "bands_summary": summarize(runs)}
    count = "2 distinct results" if total else "1 distinct result"
    assert sign_sentence(typed(result)) == (
        f"BTC: the return is {word} under all 2 assumptions tried, which came to {count}"
    )


def test_without_trades_nothing_moves_the_return() -> None:
    result = simulate({"grid_spacing_k": 50.0, "spacing_floor": 0.5, "grid_levels": 1})
    summary = result["bands_summary"]
    assert result["metrics"]["total_trades"] == 0
    assert summary["moves_most"] is None
    assert summary["sign_depends_on"] == []
    assert math.isnan(summary["calmar_ratio"]["pessimistic"])
    assert "No single assumption moves the return." in band_lines(typed(result))


def test_nan_ratios_do_not_hide_the_others() -> None:
    runs = [band("", "as run", 0.0, 0.0, math.nan), band("slippage", "x 3", -1.0, 1.0, -1.0)]
    edges = summarize(runs)["calmar_ratio"]
    assert edges["pessimistic"] == edges["optimistic"] == -1.0
    assert math.isnan(edges["central"])


# --- printed ------------------------------------------------------------------------------------


def test_the_printed_bands_are_no_wider_than_a_terminal(result: Any) -> None:
    printed: list[str] = []
    print_bands(typed_all({"BTC": result, "ETH": simulate(coin="ETH")}), printed.append)
    lines = "\n".join(printed).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert sum(line.startswith("Calmar") for line in lines) == 2


def test_coins_whose_sign_is_uncertain_come_first() -> None:
    sure = [band("", "as run", 1.0), band("slippage", "slippage x 3", 0.5)]
    unsure = [band("", "as run", 1.0), band("slippage", "slippage x 3", -0.5)]
    results = {
        coin: {"coin": coin, "bands": runs, "bands_summary": summarize(runs) | {"no_detail": None}}
        for coin, runs in (("BTC", sure), ("ETH", unsure))
    }
    printed: list[str] = []
    print_bands(typed_all(results), printed.append)
    assert printed[0].startswith("ETH: the sign of the return depends on an assumption")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(backtest.commands.backtest, "is_compiled", lambda _: True)
    return tmp_path


def test_the_command_prints_the_bands_before_the_report(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--demo", "--coins", "BTC", *RANGE, "--no-plot", "--preset", "documented"]
    assert main.main([*arguments, "--bands"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("BTC: the ")
    assert out.index("pessimistic") < out.index("Final capital")
    assert "1m candles where there are any" in out
    assert main.main(arguments) == 0
    assert "pessimistic" not in capsys.readouterr().out
    assert folder.exists()


def test_a_sign_that_is_not_settled_is_said_under_the_table(result: Any) -> None:
    doubtful = {
        **result,
        "bands_summary": {**result["bands_summary"], "sign_depends_on": ["low first"]},
    }
    printed: list[str] = []
    print_report(typed_all({"BTC": doubtful}), printed.append)
    text = "\n".join(printed)
    assert "BTC: the sign of the return depends on 'low first' (see --bands)" in text
    assert text.index("Liquidations") < text.index("sign of the return") < text.index("Decision")
    printed.clear()
    certain = {**result["bands_summary"], "sign_depends_on": []}
    print_report(typed_all({"BTC": {**result, "bands_summary": certain}}), printed.append)
    print_report(
        typed_all({"BTC": {k: v for k, v in result.items() if "bands" not in k}}), printed.append
    )
    assert "sign of the return" not in "\n".join(printed)


def test_minutes_are_tried_whenever_bands_are_computed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["--demo", "--coins", "BTC", *RANGE, "--output", "."]) == 0
    assert capsys.readouterr().out
    summary = json.loads((folder / "BTC_summary.json").read_text())
    assert "1m detail" in [item["about"] for item in summary["bands"]]
    assert summary["bands_summary"]["no_detail"] is None


def test_the_summary_file_holds_the_bands_that_were_asked_for(folder: Path) -> None:
    assert main.main(["--demo", "--coins", "BTC", *RANGE, "--no-plot", "--bands"]) == 0
    summary = json.loads((folder / "data" / "output" / "BTC_summary.json").read_text())
    assert len(summary["bands"]) >= 12
    assert summary["bands"][0]["total_return_pct"] == summary["metrics"]["total_return_pct"]
    assert set(METRICS) < set(summary["bands_summary"])


# --- on recorded candles ------------------------------------------------------------------------

NERVOUS = {
    **PRESETS["documented"],
    "grid_spacing_k": 0.3,
    "spacing_floor": 0.001,
    "leverage": 3.0,
    "adaptive_floor_scale": 0.3,
    "atr_sl_mult": 0.4,
    "optimal_spread_enabled": False,
    "tp_below_entry": True,
}
"""Stops inside the grid: several orders meet in one candle, so that their order matters."""
DAYS, WARMUP_BARS = 3, 3_000


def detailed_windows(market: MarketData) -> Iterator[int]:
    """Yield the start of every window of whole days that has 1m candles throughout, ms."""
    assert market.detail is not None
    times = market.detail["timestamp"].to_numpy()
    for part in np.split(times, np.flatnonzero(np.diff(times) != MINUTE_MS) + 1):
        first = -(-int(part[0]) // BAR_MS) * BAR_MS
        yield from range(first, int(part[-1]) - DAYS * 86_400_000 + 1, DAYS * 86_400_000)


def window_outcome(
    market: MarketData, rules: MarketRules, start_ms: int, config: dict[str, Any]
) -> tuple[bool, bool]:
    """Return whether the detailed return is inside the band, and whether it differs at all."""
    data = cut_window(market, rules, start_ms, start_ms + DAYS * 86_400_000, WARMUP_BARS)
    variants = Variants(data, read_config(config))
    plain = [
        variants.run(case.params).metrics["total_return_pct"]
        for case in assumptions(variants.params, detailed=False)
    ]
    detail = variants.sub_bars(data.market.detail)
    exact = variants.run(variants.params, detail).metrics["total_return_pct"]
    inside = min(plain) - 1e-9 <= exact <= max(plain) + 1e-9
    return inside, abs(exact - plain[0]) > 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "least_different"),
    [(PRESETS["shipped"], 0), (PRESETS["documented"], 0), (NERVOUS, 20)],
    ids=["shipped", "documented", "nervous"],
)
def test_results_on_recorded_minutes_lie_within_the_band(
    config: dict[str, Any], least_different: int
) -> None:
    if not MARKET.is_dir():
        pytest.skip("no recorded candles beside the checkout: ../shared/market is missing")
    known: Any = BACKTEST_CONFIG["markets"]
    found = []
    for coin in ("BTC", "ETH", "SOL"):
        start_ms = parse_time("2023-05-01", "start")
        market = load_market(coin, start_ms, 2**42, data_dir=MARKET, timeframe="15m", detail="1m")
        rules = choose_rules(coin, market, known)[0]
        found += [window_outcome(market, rules, t, config) for t in detailed_windows(market)]
    inside, differs = (sum(column) for column in zip(*found, strict=True))
    assert len(found) >= 50
    assert inside >= 0.9 * len(found)
    assert differs >= least_different  # where the order within candles decides something


def test_a_variant_is_exactly_the_engines_run() -> None:
    simulator = BacktestSimulator(PRESETS["documented"], source="demo", detail="1m")
    data = simulator.load("SOL", START, END)
    market = data.market
    variants = Variants(data, simulator.params)
    for detail in (None, market.detail):
        ours = variants.run(simulator.params, variants.sub_bars(detail))
        engine = GridStrategyV4(simulator.params, data.rules).run(
            market.candles, funding=market.funding, detail=detail, first_bar=data.first_bar
        )
        assert repr(ours.metrics) == repr(engine["metrics"])
        assert np.array_equal(ours.equity_curve, engine["equity_curve"])
        assert np.array_equal(ours.trades, engine["trade_table"])


def test_the_band_module_names_every_assumption_it_changes() -> None:
    params = read_config({})
    changed = {
        name
        for item in assumptions(params, detailed=False)
        for name, value in item.params.to_dict().items()
        if value != params.to_dict()[name]
    }
    assert changed == {
        "intrabar_path",
        "fill_through_bps",
        "fill_through_ticks",
        "refuse_first_touch",
        "slippage",
    }
    assert module.THROUGH_BPS == 2.0
