"""A result to look at: its chart, its report, and what a notebook shows of it."""

from __future__ import annotations

import json
import pickle
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from backtest.report.document import coin_document
from backtest.report.template import Numbers
from backtest.report.view import as_coin
from backtest.runs.coin_result import CoinResult
from backtest.runs.portfolio_result import PORTFOLIO
from backtest.simulator import BacktestSimulator
from core.errors import ConfigError, DataError
from engine.fixed_strategy import FixedGrid
from engine.result_dict import ResultDict
from engine.strategy import GridStrategyV4
from tests.support.markets.synthetic import synthetic_candles
from tests.support.results.typed import typed

PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def results() -> ResultDict:
    return BacktestSimulator(source="demo").run_multi(["BTC", "ETH"], "2024-01-10", "2024-02-10")


@pytest.fixture(scope="module")
def of_grid_v4() -> ResultDict:
    changed = {"spacing_floor": 0.004, "grid_spacing_k": 1.0}
    return GridStrategyV4(changed, "BTC").run(synthetic_candles(3_000, 5))


@pytest.fixture(scope="module")
def of_fixed_grid() -> ResultDict:
    changed = {"step_s": 900, "quantity_usd": 500.0}
    return FixedGrid(changed, "BTC").run(synthetic_candles(3_000, 5))


@pytest.fixture(params=["of_grid_v4", "of_fixed_grid"])
def bare(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


class Balanced(HTMLParser):
    """Notes which elements are open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, _attrs: Any) -> None:
        """Open an element."""
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        """An element without content."""

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost element."""
        assert self.open.pop() == tag


def test_a_report_of_a_coin_is_that_of_the_command(results: ResultDict, tmp_path: Path) -> None:
    path = results["BTC"].report(tmp_path / "new" / "BTC.html")
    assert path == tmp_path / "new" / "BTC.html"
    text = path.read_text()
    assert "BTC grid backtest" in text
    inside = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert inside is not None
    document = json.loads(inside[1])
    assert document == coin_report_numbers(results["BTC"].typed)
    assert document["metrics"]["total_trades"] == results["BTC"]["metrics"]["total_trades"] > 0


def test_a_folder_gets_a_file_of_the_results_name(results: ResultDict, tmp_path: Path) -> None:
    assert results["ETH"].report(tmp_path) == tmp_path / "ETH_report.html"
    assert results.report(str(tmp_path)) == tmp_path / "portfolio_report.html"
    assert "Portfolio of BTC, ETH" in (tmp_path / "portfolio_report.html").read_text()
    assert results[PORTFOLIO].report(tmp_path).name == "portfolio_report.html"


def test_a_report_that_cannot_be_written_says_what_to_do(bare: ResultDict, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*give another path"):
        bare.report(tmp_path / "file" / "report.html")


def test_a_run_over_a_frame_has_a_report_too(bare: ResultDict, tmp_path: Path) -> None:
    text = bare.report(tmp_path).read_text()
    assert "candles grid backtest" in text
    document = coin_report_numbers(as_coin(bare.typed))
    assert document["metrics"]["total_return_pct"] == bare["metrics"]["total_return_pct"]
    assert abs(document["attribution"]["identity"]["difference"]) < 1e-6
    assert document["data"]["bars"] == 3_000
    assert document["data"]["funding"] == bare["funding_source"]


def test_a_frame_run_is_reported_as_the_same_candles_named(of_grid_v4: ResultDict) -> None:
    """The same candles by way of the simulator: every table of the document is the same."""
    frame, changed = synthetic_candles(3_000, 5), {"spacing_floor": 0.004, "grid_spacing_k": 1.0}
    simulator = BacktestSimulator(changed, {"warmup_bars": 0}, source={"BTC": frame})
    first, last = (pd.Timestamp(frame["timestamp"].iloc[k], unit="ms") for k in (0, -1))
    named = simulator.run_single("BTC", first, last + pd.Timedelta("15min"))
    assert named["trades"] == of_grid_v4["trades"]
    ours, theirs = (coin_report_numbers(as_coin(result.typed)) for result in (of_grid_v4, named))
    for name in ("metrics", "attribution", "parameters", "code_fingerprint", "strategy"):
        assert ours[name] == theirs[name], name


def test_a_result_of_prepared_tables_says_that_it_has_no_report(of_grid_v4: ResultDict) -> None:
    alone = typed({**of_grid_v4, "coin": "X"}).run.to_dict()
    with pytest.raises(DataError, match="does not know its parameters"):
        alone.report("anywhere.html")
    with pytest.raises(DataError, match="without the times of its bars"):
        _ = alone.equity


def test_a_chart_is_a_figure_that_a_notebook_shows(results: ResultDict, bare: ResultDict) -> None:
    for result in (results, results[PORTFOLIO], results["BTC"], bare):
        figure = result.plot()
        assert isinstance(figure, Figure)
        assert figure._repr_png_().startswith(PNG)  # type: ignore[attr-defined]
        lines = figure.axes[0].get_lines()
        assert lines[0].get_ydata()[-1] == result.equity.iloc[-1]  # type: ignore[index]
    for result in (results["BTC"], bare):
        assert len(result.plot("trades").axes[0].collections) > 0


def test_a_chart_that_there_is_not_is_refused_by_name(results: ResultDict) -> None:
    with pytest.raises(ConfigError, match=r"plot\('candles'\): must be one of equity, trades"):
        results["BTC"].plot("candles")
    with pytest.raises(ConfigError, match=r"results\['BTC'\].plot\('trades'\)"):
        results.plot("trades")


def test_a_notebook_shows_the_figures_and_the_course(results: ResultDict, bare: ResultDict) -> None:
    for result in (results, results["BTC"], bare):
        text = result._repr_html_()
        Balanced(text)
        total = result.typed.metrics["total_return_pct"]
        assert f"{total:+.2f} %" in text
        points = re.search(r'points="([^"]*)"', text)
        assert points is not None
        heights = [float(point.split(",")[1]) for point in points[1].split()]
        span = result.equity.max() - result.equity.min()
        drawn = (max(heights) - min(heights)) / 86.0  # of the whole height
        initial = 10_000.0 * len(coins_of(result))
        whole = max(result.equity.max(), initial) - min(result.equity.min(), initial)
        assert drawn == pytest.approx(span / whole, abs=0.002)  # its extremes are there


def coins_of(result: ResultDict) -> list[str]:
    """Return the coins whose capital a result begins with."""
    return list(getattr(result.typed, "coins", ["one"]))


def test_several_coins_trades_stand_together_by_time(results: ResultDict) -> None:
    frame = results.trades
    assert frame["time"].is_monotonic_increasing
    for coin in ("BTC", "ETH"):
        own = frame[frame["coin"] == coin].drop(columns="coin").reset_index(drop=True)
        assert own.equals(results[coin].trades)
    assert len(frame) == len(results["BTC"].trades) + len(results["ETH"].trades) > 0


def test_several_coins_answer_a_dict_by_coin(results: ResultDict) -> None:
    assert list(results) == ["BTC", "ETH", PORTFOLIO]
    assert list(results[PORTFOLIO]) == [
        "coins",
        "timestamp",
        "equity_curve",
        "initial_capital",
        "common_bars",
        "metrics",
        "var",
    ]
    assert results.equity.to_numpy().tolist() == results[PORTFOLIO]["equity_curve"].tolist()
    again = pickle.loads(pickle.dumps(results))  # noqa: S301 - our own
    assert list(again) == list(results)
    assert again["ETH"]["trades"] == results["ETH"]["trades"]
    assert again.trades.equals(results.trades)


def test_a_typed_result_and_its_dict_say_the_same(results: ResultDict) -> None:
    """Reports of a dict that somebody kept and read back are those of the run."""
    read = {coin: CoinResult.read(dict(results[coin])) for coin in ("BTC", "ETH")}
    for coin, found in read.items():
        assert coin_report_numbers(found) == coin_report_numbers(results[coin].typed)
        assert list(found.to_dict()) == list(results[coin])
    kept = {coin: dict(results[coin]) for coin in ("BTC", "ETH")}
    again = BacktestSimulator(source="demo").portfolio(kept)
    assert again["equity_curve"].tobytes() == results[PORTFOLIO]["equity_curve"].tobytes()
    assert again["metrics"] == results[PORTFOLIO]["metrics"]
    assert again["var"] == results[PORTFOLIO]["var"]


def coin_report_numbers(result: Any) -> dict[str, Any]:
    return Numbers(coin_document(result)).document
