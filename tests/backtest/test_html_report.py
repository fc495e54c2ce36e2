"""The HTML report: what is in it, and that a real browser shows it, without a network."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bokeh.models import Scatter

import backtest.commands.backtest
import main
from backtest.report.document import coin_document
from backtest.report.figures import MAX_POINTS, TimeAxis, line_source
from backtest.report.grid_levels import generations, levels_sentence, standing_log
from backtest.report.html import coin_report, portfolio_report
from backtest.report.legend import legend_rows
from backtest.report.png import MARKERS
from backtest.report.price_chart import SHAPES, price_chart, price_columns, regime_runs
from backtest.report.template import FORMATS, Numbers, embedded_json, number_text
from backtest.simulator import BacktestSimulator
from benchmarks.browser import missing, start_browser
from benchmarks.report import opening_seconds
from config import PRESETS
from engine.types import LABEL_NAMES
from tests.support.paths import ROOT
from tests.support.results.typed import portfolio_of_all, typed

Result = dict[str, Any]
START, END = "2024-01-10", "2024-04-10"
BANDS = [
    {
        "about": "",
        "assumption": "as run",
        "total_return_pct": 1.5,
        "max_drawdown_pct": 2.0,
        "calmar_ratio": 0.75,
    },
    {
        "about": "slippage",
        "assumption": "slippage x 3",
        "total_return_pct": -0.5,
        "max_drawdown_pct": 3.0,
        "calmar_ratio": float("nan"),
    },
]
EDGES = ("pessimistic", "central", "optimistic")
BANDS_SUMMARY = {
    **{
        name: dict(zip(EDGES, (-0.5, 1.5, 1.5), strict=True))
        for name in ("total_return_pct", "max_drawdown_pct", "calmar_ratio")
    },
    "moves_most": {"about": "slippage", "assumption": "slippage x 3", "points": -2.0},
    "sign_depends_on": ["slippage x 3"],
    "runs": 2,
    "distinct": 2,
    "no_detail": "no such file",
}
MISSING = missing()
needs_browser = pytest.mark.skipif(
    bool(MISSING),
    reason=f"not installed: {', '.join(MISSING)} (Debian: apt-get install chromium "
    "chromium-driver; pip install selenium)",
)


class NumberReader(HTMLParser):
    """Collects the texts of elements that carry the path of a number."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._path: str | None = None
        self.feed(page)

    def handle_starttag(self, _: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember the path of the element whose text comes next."""
        self._path = dict(attrs).get("data-path") or None

    def handle_data(self, data: str) -> None:
        """Take the text of an element that has a path."""
        if self._path is not None:
            self.found.append((self._path, data))
            self._path = None


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    simulator = BacktestSimulator(
        {**PRESETS["documented"], "allow_short": True, "gamma": 0.4}, source="demo"
    )
    return simulator.run_multi(["BTC", "ETH"], START, END)


@pytest.fixture(scope="module")
def quiet() -> Result:
    """Return a run that never traded."""
    never = {"grid_levels": 1, "spacing_floor": 0.5, "allow_short": False}
    result = BacktestSimulator(never, source="demo").run_single("BTC", "2024-01-10", "2024-01-20")
    assert result["trades"] == []
    return result


@pytest.fixture(scope="module")
def page(results: dict[str, Result]) -> str:
    return coin_report(typed(results["BTC"])).decode()


def look_up(document: Any, path: str) -> Any:
    """Return what stands at ``path``; a name may hold dots nowhere."""
    for part in path.split("."):
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def check_numbers(shown: list[tuple[str, str]], document: Any) -> None:
    """Hold every number shown against the JSON document, to half its last digit."""
    for path, text in shown:
        value = look_up(document, path)
        if value is None:
            assert text == "-", path
            continue
        digits = re.sub(r"[^0-9.+-]", "", text)
        last = len(digits.partition(".")[2])
        assert float(digits) == pytest.approx(value, abs=0.5000001 * 10.0**-last), path


# --- the page without a browser -----------------------------------------------------------------


@pytest.mark.slow
def test_every_number_on_the_page_is_the_documents(results: dict[str, Result], page: str) -> None:
    shown = NumberReader(page).found
    assert len(shown) > 500
    check_numbers(shown, json.loads(json.dumps(coin_document(typed(results["BTC"])))))


def test_the_check_of_numbers_notices_a_wrong_digit(page: str, results: dict[str, Result]) -> None:
    shown = NumberReader(page).found
    wrong = [(path, text.replace("1", "2")) for path, text in shown]
    with pytest.raises(AssertionError):
        check_numbers(wrong, coin_document(typed(results["BTC"])))


def test_the_page_carries_its_document(results: dict[str, Result], page: str) -> None:
    inside = re.search(r'id="report-data">(.*?)</script>', page, re.DOTALL)
    assert inside
    assert json.loads(inside[1]) == Numbers(coin_document(typed(results["BTC"]))).document


def test_the_page_asks_the_network_for_nothing(page: str) -> None:
    assert "default-src 'none'" in page
    assert not re.search(r'<(script|link|img|iframe)[^>]*(src|href)="(?!data:)', page)


def test_the_page_shows_what_the_reader_must_know(results: dict[str, Result], page: str) -> None:
    result = results["BTC"]
    for text in (
        result["data"]["hash"],
        result["fingerprint"],
        "made up",
        "2024-01-10 to 2024-04-10",
        "are the entry levels of ",
        "BUY_OPEN_LONG",
        "BREAKOUT_UP",
    ):
        assert text in page, text


def test_changed_parameters_are_marked(page: str) -> None:
    marked = re.findall(r'<tr class="changed"><td><code>(\w+)</code>', page)
    assert set(marked) == {*PRESETS["documented"], "gamma"}
    assert "<code>kappa</code>" in page


def test_shipped_parameters_are_said_to_be_shipped(quiet: Result) -> None:
    shipped = {**quiet, "params": BacktestSimulator({}).params.to_dict()}
    assert "All parameters have their shipped values" in coin_report(typed(shipped)).decode()


@pytest.mark.slow
def test_bands_have_a_section_only_where_there_are_any(quiet: Result, page: str) -> None:
    assert 'id="bands"' not in page
    with_bands = coin_report(
        typed({**quiet, "bands": BANDS, "bands_summary": BANDS_SUMMARY})
    ).decode()
    assert 'id="bands"' in with_bands
    assert "The sign of the return depends on: slippage x 3." in with_bands
    assert "Not tried: 1m candles (no such file)." in with_bands
    warning = with_bands.index("The sign of the return is not settled. It depends on:")
    assert warning < with_bands.index('class="cards"')
    shown = dict(NumberReader(with_bands).found)
    assert shown["bands.1.total_return_pct"] == "-0.50 %"
    assert shown["bands.1.calmar_ratio"] == "-"
    assert shown["bands_summary.total_return_pct.pessimistic"] == "-0.50 %"
    alone = coin_report(typed({**quiet, "bands": BANDS})).decode()
    assert "slippage x 3" in alone
    assert "sign of the return" not in alone


def test_notices_and_gaps_are_shown(quiet: Result) -> None:
    gap = {"from": "2024-01-12 00:00", "to": "2024-01-12 01:00", "bars": 4}
    data = {**quiet["data"], "gaps": [gap], "missing_bars": 4, "zero_volume_bars": 7}
    text = coin_report(
        typed({**quiet, "data": data, "notices": ["BTC: nothing was traded"]})
    ).decode()
    assert '<div class="notice">BTC: nothing was traded</div>' in text
    assert "1 (4 candles), not filled" in text
    assert "<td>2024-01-12 00:00</td>" in text


def test_names_from_outside_cannot_become_markup(quiet: Result) -> None:
    data = {**quiet["data"], "source": "files in </script><b>x</b>"}
    text = coin_report(typed({**quiet, "data": data})).decode()
    assert "<b>x</b>" not in text
    assert "&lt;b&gt;x&lt;/b&gt;" in text


def test_embedded_json_cannot_end_its_element() -> None:
    text = embedded_json('{"a": "</script><!--"}')
    assert "<" not in text
    assert json.loads(text) == {"a": "</script><!--"}


@pytest.mark.slow
def test_the_run_is_named_where_it_is_on_record(quiet: Result) -> None:
    assert "not on record" in coin_report(typed(quiet)).decode()
    assert "<dd>0123abcd</dd>" in coin_report(typed({**quiet, "run_id": "0123abcd"})).decode()


def test_the_portfolio_links_its_coins_and_correlates_them(results: dict[str, Result]) -> None:
    text = portfolio_report(portfolio_of_all(results)).decode()
    shown = NumberReader(text).found
    paths = [path for path, _ in shown]
    assert paths.count("correlation.prices.BTC/ETH") == 2
    assert paths.count("correlation.equity.BTC/ETH") == 2
    assert 'href="BTC_report.html"' in text
    inside = re.search(r'id="report-data">(.*?)</script>', text, re.DOTALL)
    assert inside
    check_numbers(shown, json.loads(inside[1]))


@pytest.mark.slow
def test_two_years_with_all_their_trades_stay_under_eight_megabytes() -> None:
    result = BacktestSimulator(PRESETS["documented"], source="demo").run_single("SOL")
    assert len(result["equity_curve"]) > 70_000
    assert len(result["trades"]) > 10_000
    assert len(coin_report(typed(result))) < 8_000_000


@pytest.mark.slow
def test_very_many_trades_leave_out_what_is_said_to_be_left_out(
    results: dict[str, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = len(coin_report(typed(results["BTC"])))
    monkeypatch.setattr("backtest.report.price_chart.FULL_DETAIL", 100)
    monkeypatch.setattr("backtest.report.html.FULL_DETAIL", 100)
    text = coin_report(typed(results["BTC"])).decode()
    assert "markers tell time and price only" in text
    assert len(text) < full


def test_the_page_says_how_many_grids_are_not_drawn(
    results: dict[str, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backtest.report.grid_levels.MAX_LEVEL_LINES", 1_000_000)
    assert "are the entry levels of both grids while they stood" in levels_sentence(
        typed(results["BTC"])
    )
    monkeypatch.setattr("backtest.report.grid_levels.MAX_LEVEL_LINES", 100)
    log = results["BTC"]["log"]
    counts = {side: len(generations(log, side).first) for side in ("long", "short")}
    sentence = levels_sentence(typed(results["BTC"]))
    assert f"(10 of {counts['long']:,} long and 10 of {counts['short']:,} short ones" in sentence
    assert "both grids" not in sentence
    assert sentence in coin_report(typed(results["BTC"])).decode()


def test_levels_end_with_the_liquidation_that_left_nothing(results: dict[str, Result]) -> None:
    result = results["BTC"]
    last = {**result["trades"][-1], "bar": 2_000, "label": "LIQUIDATION"}
    lost = {**result, "trades": [*result["trades"], last]}
    assert len(standing_log(typed(lost))) == len(result["log"])  # something was left
    curve = result["equity_curve"].copy()
    curve[2_000:] = 0.0
    assert len(standing_log(typed({**lost, "equity_curve": curve}))) == 2_001


def test_the_portfolio_does_not_claim_to_draw_trades(results: dict[str, Result]) -> None:
    assert "every trade is drawn" not in portfolio_report(portfolio_of_all(results)).decode()
    assert "Every trade is drawn." in coin_report(typed(results["BTC"])).decode()


def test_a_legend_names_only_what_is_there(quiet: Result, results: dict[str, Result]) -> None:
    names = [row.name for row in legend_rows(price_chart(axis_of(quiet), typed(quiet)))]
    assert not any("held" in name or "(0)" in name for name in names)
    busy = legend_rows(price_chart(axis_of(results["BTC"]), typed(results["BTC"])))
    assert all(row.models and row.mark and row.colour.startswith("#") for row in busy)
    assert {"held, ended in profit", "held, ended in loss"} <= {row.name for row in busy}


def test_halts_trade_nothing_and_cover_no_trade() -> None:
    assert MARKERS[0].labels == ("CIRCUIT_BREAKER_HALT",)
    assert MARKERS[0].size < min(marker.size for marker in MARKERS[1:])


def test_the_readmes_picture_is_small_enough_to_commit() -> None:
    picture = ROOT / "docs" / "demo_BTC_report.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 200_000


@pytest.mark.slow
def test_without_plots_no_charting_library_is_loaded(tmp_path: Path) -> None:
    arguments = [
        "--demo",
        "--no-plot",
        "--coins",
        "BTC",
        "--start",
        START,
        "--end",
        "2024-01-20",
        "--output",
        str(tmp_path),
    ]
    script = (
        f"import sys, main; main.main({arguments}); "
        "print([name for name in ('bokeh', 'jinja2', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run(  # noqa: S603 - this project's own command
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert not list(tmp_path.glob("*.html"))


def test_an_account_that_was_wiped_out_has_a_report_too(results: dict[str, Result]) -> None:
    ruined = {**results["BTC"], "equity_curve": results["BTC"]["equity_curve"].copy()}
    ruined["equity_curve"][4_000:] = 0.0
    shown = dict(NumberReader(coin_report(typed(ruined)).decode()).found)
    assert shown["attribution.drawdowns.deepest.0.depth_pct"] == "100.00 %"
    assert shown["attribution.by_month.1.return_pct"] == "-100.00 %"
    assert shown["attribution.by_month.2.return_pct"] == "-"


# --- charts -------------------------------------------------------------------------------------


def axis_of(result: Result) -> TimeAxis:
    times = result["candles"]["timestamp"]
    return TimeAxis(int(times.iloc[0]), int(times.iloc[-1]) + 900_000)


def test_no_trade_is_thinned_away(results: dict[str, Result]) -> None:
    chart = price_chart(axis_of(results["BTC"]), typed(results["BTC"]))
    markers = [drawn for drawn in chart.renderers if isinstance(drawn.glyph, Scatter)]
    shown = sorted(
        (time, price)
        for drawn in markers
        for time, price in zip(
            drawn.data_source.data["time"], drawn.data_source.data["price"], strict=True
        )
    )
    expected = sorted(
        (float(trade["timestamp"]), np.float32(trade["price"]))
        for trade in results["BTC"]["trades"]
    )
    assert shown == expected


def test_every_marker_has_a_shape_in_both_libraries() -> None:
    assert {marker.shape for marker in MARKERS} == set(SHAPES)
    for label in LABEL_NAMES:
        assert any(label.startswith(marker.labels) for marker in MARKERS)


def test_lines_keep_their_extremes_when_thinned() -> None:
    values = np.sin(np.arange(100_000) / 9_000.0)
    values[54_321] = -9.0
    source = line_source(np.arange(100_000), values)
    assert len(source.data["value"]) <= MAX_POINTS + 2
    assert np.min(source.data["value"]) == -9.0
    assert source.data["time"][-1] == 99_999


def test_stretches_of_bars_span_their_lows_and_highs() -> None:
    candles = {
        "low": np.array([5.0, 3.0, 4.0, 2.0, 6.0]),
        "high": np.array([7.0, 8.0, 9.0, 6.0, 7.0]),
        "close": np.array([6.0, 4.0, 5.0, 3.0, 6.5]),
    }
    columns = price_columns(candles, np.arange(5) * 10, most=3)
    assert columns["time"].tolist() == [0.0, 20.0, 40.0]
    assert columns["low"].tolist() == [3.0, 2.0, 6.0]
    assert columns["high"].tolist() == [8.0, 9.0, 7.0]
    assert columns["close"].tolist() == [4.0, 3.0, 6.5]


def test_runs_of_a_regime_are_found_at_the_ends_too() -> None:
    first, last = regime_runs(np.array([1, 1, 0, 1, 0, 0, 1]), 1)
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == [(0, 1), (3, 3), (6, 6)]


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (1_234.567, "money", "1,234.57"),
        (-1e-12, "signed_money", "0.00"),
        (0.0, "signed_percent", "0.00 %"),
        (2.5, "signed_percent", "+2.50 %"),
        (-0.004, "percent", "0.00 %"),
        (None, "money", "-"),
        (12.0, "count", "12"),
    ],
)
def test_numbers_read_as_people_write_them(value: float | None, kind: str, text: str) -> None:
    assert kind in FORMATS
    assert number_text(value, kind) == text


# --- in a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a headless browser with an empty profile that logs console and network."""
    logs = {"browser": "ALL", "performance": "ALL"}
    driver = start_browser(tmp_path_factory.mktemp("profile"), {"goog:loggingPrefs": logs})
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Return the folder that the command wrote its pages to, and the JSON it printed."""
    folder = tmp_path_factory.mktemp("pages")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(backtest.commands.backtest, "is_compiled", lambda _: True)
        arguments = [
            "--demo",
            "--coins",
            "BTC",
            "ETH",
            "--start",
            START,
            "--end",
            END,
            "--preset",
            "documented",
            "--json",
            "--output",
            str(folder),
        ]
        assert main.main(arguments) == 0
    return folder, json.loads(printed.getvalue())


IDLE = (
    "return window.Bokeh && Bokeh.documents.length > 0 && Bokeh.documents.every(d => d.is_idle)"
    " && document.documentElement.dataset.drawn === 'all'"
)
PAINTED = """
const views = []
const visit = view => {
  if (view.canvas_view) views.push(view)
  for (const child of view.child_views || []) visit(child)
}
for (const root of Object.values(Bokeh.index.roots ? Bokeh.index.roots : Bokeh.index)) visit(root)
return views.map(view => {
  const layer = view.canvas_view.primary
  const pixels = layer.ctx.getImageData(0, 0, layer.canvas.width, layer.canvas.height).data
  const colours = new Set()
  for (let i = 0; i < pixels.length; i += 4 * 7) {
    if (pixels[i + 3]) colours.add((pixels[i] << 16) + (pixels[i + 1] << 8) + pixels[i + 2])
  }
  return colours.size
})
"""


def wait_for(browser: Any, script: str) -> None:
    deadline = time.monotonic() + 60.0
    while not browser.execute_script(script):
        assert time.monotonic() < deadline, f"not so after a minute: {script}"
        time.sleep(0.05)


def show(browser: Any, path: Path) -> list[dict[str, Any]]:
    """Open ``path`` and return what the console said; every request must stay on this machine."""
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(path.as_uri())
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")  # draws everything
    wait_for(browser, IDLE)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert path.as_uri() in requests
    assert [url for url in requests if not url.startswith((path.as_uri(), "data:"))] == []
    return [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"]


def numbers_shown(browser: Any) -> list[tuple[str, str]]:
    script = (
        "return [...document.querySelectorAll('[data-path]')]"
        ".map(e => [e.dataset.path, e.textContent])"
    )
    return [(path, text) for path, text in browser.execute_script(script)]


@needs_browser
@pytest.mark.slow
def test_a_browser_draws_the_report_without_complaint(
    browser: Any, written: tuple[Path, Any]
) -> None:
    assert show(browser, written[0] / "BTC_report.html") == []
    painted = browser.execute_script(PAINTED)
    assert len(painted) == 9
    assert min(painted) > 3


@needs_browser
@pytest.mark.slow
def test_numbers_in_the_browser_are_those_of_the_printed_json(
    browser: Any, written: tuple[Path, Any]
) -> None:
    folder, document = written
    show(browser, folder / "BTC_report.html")
    shown = numbers_shown(browser)
    assert len(shown) > 500
    check_numbers(shown, document["coins"]["BTC"])
    inside = "return JSON.parse(document.getElementById('report-data').textContent)"
    assert browser.execute_script(inside) == document["coins"]["BTC"]
    assert document["coins"]["BTC"]["run_id"] in browser.page_source


@needs_browser
@pytest.mark.slow
def test_the_portfolio_is_drawn_and_equals_the_printed_json(
    browser: Any, written: tuple[Path, Any]
) -> None:
    folder, document = written
    assert show(browser, folder / "portfolio_report.html") == []
    check_numbers(numbers_shown(browser), document["portfolio"])
    painted = browser.execute_script(PAINTED)
    assert len(painted) == 3
    assert min(painted) > 3


@needs_browser
@pytest.mark.slow
def test_a_drag_over_one_chart_zooms_all(browser: Any, written: tuple[Path, Any]) -> None:
    from selenium.webdriver import ActionChains  # noqa: PLC0415 - only where it is installed

    show(browser, written[0] / "BTC_report.html")
    views = (
        "const charts = Object.values(Bokeh.index.roots ? Bokeh.index.roots : Bokeh.index)"
        ".filter(v => v.model.x_range);"
    )
    ranges = (
        f"{views} return charts"
        ".map(v => [v.model.x_range.id, v.model.x_range.start, v.model.x_range.end])"
    )
    prices = f"{views} const r = charts[2].model.y_range; return r.end - r.start"
    all_prices = browser.execute_script(prices)
    place = (
        f"{views} charts[0].el.scrollIntoView({{block: 'center', behavior: 'instant'}});"
        "return charts[0].el"
    )
    before = browser.execute_script(ranges)[:4]
    assert len({name for name, _, _ in before}) == 1
    drag = ActionChains(browser).move_to_element(browser.execute_script(place))
    drag.click_and_hold().move_by_offset(120, 2).move_by_offset(130, 3).release().perform()
    after = browser.execute_script(ranges)[:4]
    for (_, start, end), (_, low, high) in zip(before, after, strict=True):
        assert start < low < high < end
    assert len({low for _, low, _ in after}) == 1
    wait_for(browser, f"return (() => {{ {prices} }})() < {0.9 * all_prices}")


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
def test_no_page_is_wider_than_the_window(
    browser: Any, tmp_path: Path, written: tuple[Path, Any], quiet: Result, width: int
) -> None:
    (tmp_path / "quiet.html").write_bytes(coin_report(typed(quiet)))
    mobile = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", mobile)
    try:
        for page in (
            written[0] / "BTC_report.html",
            written[0] / "portfolio_report.html",
            tmp_path / "quiet.html",
        ):
            assert show(browser, page) == []
            wide = (
                "const page = document.documentElement;"
                "return [page.scrollWidth - page.clientWidth, window.innerWidth]"
            )
            assert browser.execute_script(wide) == [0, width], page.name
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@needs_browser
@pytest.mark.slow
def test_a_click_on_a_name_hides_what_it_names(browser: Any, written: tuple[Path, Any]) -> None:
    show(browser, written[0] / "BTC_report.html")
    button = browser.find_element("xpath", "//button[contains(., 'open long')]")
    model = button.get_attribute("data-models")
    shown = f"return Bokeh.documents[0].get_model_by_id('{model}').visible"
    assert browser.execute_script(shown) is True  # drawn once the page stood
    browser.execute_script("arguments[0].click()", button)
    assert browser.execute_script(shown) is False
    assert button.get_attribute("aria-pressed") == "false"
    browser.execute_script("arguments[0].click()", button)
    assert browser.execute_script(shown) is True


@needs_browser
@pytest.mark.slow
def test_the_opening_of_a_report_can_be_measured(browser: Any, written: tuple[Path, Any]) -> None:
    stands, drawn = opening_seconds(browser, written[0] / "BTC_report.html")
    assert 0.0 < stands <= drawn


@needs_browser
@pytest.mark.slow
def test_charts_further_down_are_drawn_when_they_come_into_view(
    browser: Any, written: tuple[Path, Any]
) -> None:
    browser.get("about:blank")
    browser.get((written[0] / "BTC_report.html").as_uri())
    wait_for(browser, IDLE)
    assert browser.execute_script("return Bokeh.documents.length") == 1
    browser.execute_script("document.getElementById('trips').scrollIntoView()")
    wait_for(browser, "return Bokeh.documents.length == 2")
    wait_for(browser, IDLE)
    assert len(browser.execute_script(PAINTED)) == 9


@needs_browser
@pytest.mark.slow
def test_a_run_without_trades_is_drawn_too(browser: Any, tmp_path: Path, quiet: Result) -> None:
    path = tmp_path / "quiet.html"
    path.write_bytes(coin_report(typed(quiet)))
    assert show(browser, path) == []
    check_numbers(numbers_shown(browser), Numbers(coin_document(typed(quiet))).document)
    assert browser.find_element("css selector", "#trips").text.count("nothing to draw") == 2


@needs_browser
@pytest.mark.slow
def test_the_browser_test_notices_an_error_and_a_request(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    stub = "<html data-drawn='all'><script>Bokeh = {documents: [{is_idle: true}]}</script>"
    path.write_text(f"{stub}<script>throw new Error('broken')</script>")
    assert "broken" in show(browser, path)[0]["message"]
    path.write_text(f"{stub}<img src='http://localhost:9/x.png'>")
    with pytest.raises(AssertionError, match="localhost"):
        show(browser, path)
