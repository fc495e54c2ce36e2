"""The charts and the page of a search: what they show, and that a real browser shows it."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from backtest.optimize.report import charts
from backtest.optimize.report.chart_data import (
    bar_limits,
    capital_before,
    cloud_limits,
    course,
    curve,
    disqualified,
    histogram,
    numbers,
    onto,
    picks,
    score_limits,
    windows,
)
from backtest.optimize.report.optimizer_report import optimizer_page
from backtest.optimize.report.parameter_figures import (
    BEST_SHOWN,
    MAX_SHOWN,
    drawn_trials,
    sensitivity_charts,
    trial_charts,
)
from backtest.optimize.report.report_figures import histogram_chart, progress_chart, stability_chart
from backtest.optimize.report.verdict_tones import verdict
from backtest.report.png import png
from config import STRATEGY_PARAMS
from core.errors import DataError
from tests.backtest import test_html_report as pages
from tests.support.results.optimizer_document import (
    COINS,
    N_WINDOWS,
    SPACE,
    full_document,
    hollow_document,
    sparse_document,
)

Document = dict[str, Any]
PNG = b"\x89PNG\r\n"
NAMES = ["holdout", "importance", "progress", "stability", "train_test"]
INCOMPLETE = [{}, sparse_document(), hollow_document()]
PROMISES = ("guarante", "will earn", "will gain", "will make", "profitable", "proven", "risk-free")
browser = pages.browser


@pytest.fixture(scope="module")
def document() -> Document:
    return full_document(
        120, ("spacing_floor", "gamma", "funding_harvest_threshold", "trailing_enabled")
    )


@pytest.fixture(scope="module")
def large() -> Document:
    """Return the results of a search over all parameters."""
    return full_document()


@pytest.fixture(scope="module")
def page(document: Document) -> str:
    return optimizer_page(document).decode()


def shown_text(page: str) -> str:
    """Return the words between the tags of the page's body, without scripts and styles."""
    body = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def words_of(document: Document) -> str:
    """Return the text of the page of ``document``, made without most of its charts."""
    drawn = ("trials", "sensitivity", "param_stability", "importance", "windows")
    return shown_text(optimizer_page({**document, **dict.fromkeys(drawn)}).decode())


def embedded(page: str) -> Any:
    inside = re.search(r'id="report-data">(.*?)</script>', page, re.DOTALL)
    assert inside
    return json.loads(inside[1])


def with_trials(document: Document, count: int) -> Document:
    """Return ``document`` with its trials repeated until there are ``count``."""
    trials = document["trials"]
    return {**document, "trials": [{**trials[k % len(trials)], "number": k} for k in range(count)]}


def rectangles(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def changed(document: Document, path: str, value: Any) -> Document:
    """Return a copy of ``document`` that has ``value`` at ``path``."""
    result = copy.deepcopy(document)
    *parents, last = path.split(".")
    part: Any = result
    for name in parents:
        part = part[int(name)] if isinstance(part, list) else part[name]
    part[last] = value
    return result


def check_numbers(shown: list[tuple[str, str]], document: Document) -> None:
    """Hold every number against the document; what is absent shows as a dash."""
    pages.check_numbers([item for item in shown if item[1] != "-"], document)
    for path, text in shown:
        assert (text == "-") == (absent(document, path)), path


def absent(document: Any, path: str) -> bool:
    for part in path.split("."):
        if document is None:
            return True
        document = document[int(part)] if isinstance(document, list) else document.get(part)
    return document is None


# --- charts as PNG ------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_chart_is_written_and_small(document: Document, tmp_path: Path) -> None:
    paths = charts.write_charts(document, tmp_path / "data" / "charts")
    assert sorted(path.name for path in paths) == [f"optimizer_{name}.png" for name in NAMES]
    for path in paths:
        assert path.read_bytes().startswith(PNG)
        assert path.stat().st_size < 200_000


@pytest.mark.parametrize("incomplete", INCOMPLETE)
def test_a_chart_with_nothing_to_draw_is_not_written_and_an_old_one_goes(
    incomplete: Document, tmp_path: Path
) -> None:
    for name in NAMES:
        (tmp_path / f"optimizer_{name}.png").write_bytes(b"of an earlier search")
    (tmp_path / "BTC_equity.png").write_bytes(b"of a backtest")
    assert charts.write_charts(incomplete, tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["BTC_equity.png"]


def test_a_folder_that_cannot_be_made_is_an_error_that_says_so(
    document: Document, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot write"):
        charts.write_charts(document, tmp_path / "file" / "charts")
    with pytest.raises(DataError, match="cannot write"):
        charts.write_charts({}, tmp_path / "file" / "charts")


@pytest.mark.slow
def test_the_same_document_gives_the_same_picture(document: Document) -> None:
    for draw in charts.CHARTS.values():
        one, other = draw(document), draw(document)
        assert one is not None
        assert other is not None
        assert png(one) == png(other)


def test_progress_shows_every_trial_and_the_best_so_far(document: Document) -> None:
    figure = charts.progress_figure(document)
    assert figure is not None
    (axes,) = figure.axes
    scores = [trial["score"] for trial in document["trials"] if trial["score"] is not None]
    drawn = [len(np.asarray(cloud.get_offsets())) for cloud in axes.collections]
    assert drawn == [sum(score > -9.0 for score in scores), sum(score <= -9.0 for score in scores)]
    best = np.asarray(axes.lines[0].get_ydata())
    assert best[-1] == max(scores)
    assert np.all(np.diff(best[np.isfinite(best)]) >= 0.0)


def test_bars_of_stability_have_their_verdicts_colours_and_the_mark_of_random_draws(
    document: Document,
) -> None:
    spreads = document["param_stability"]
    figure = charts.stability_figure(document)
    assert figure is not None
    (axes,) = figure.axes
    bars = rectangles(axes)
    assert [bar.get_width() for bar in bars] == [row["spread"] for row in spreads.values()]
    names = [label.get_text() for label in axes.get_yticklabels()]
    colours = {name: to_hex(bar.get_facecolor()) for name, bar in zip(names, bars, strict=True)}
    assert colours["gamma"] != colours["spacing_floor"] == "#15803d"
    marks = np.asarray(axes.collections[0].get_offsets())
    assert marks[:, 0].tolist() == [row["random_spread"] for row in spreads.values()]


def test_train_and_test_scores_stand_side_by_side(document: Document) -> None:
    figure = charts.train_test_figure(document)
    assert figure is not None
    choice, walk = figure.axes
    assert len(choice.patches) == 2 * len(COINS) * N_WINDOWS
    assert len(walk.patches) == 2 * N_WINDOWS
    heights = [bar.get_height() for bar in rectangles(choice)]
    rows = document["windows"]
    assert heights == [row[part]["score"] for part in ("train", "test") for row in rows]
    assert [bar.get_hatch() for bar in choice.patches].count("//") == 1


def test_the_holdout_is_drawn_against_the_current_parameters(document: Document) -> None:
    figure = charts.holdout_figure(document)
    assert figure is not None
    upper = figure.axes[0]
    holdout = document["holdout"]
    assert f"{holdout['return_pct']:+.2f} %" in upper.get_title(loc="left")
    assert f"{holdout['baseline_return_pct']:+.2f} %" in upper.get_title(loc="left")
    legend = upper.get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["chosen parameters", "start", "current parameters"]
    assert np.asarray(upper.lines[1].get_ydata())[0] == pytest.approx(30_000.0)
    alone = charts.holdout_figure(changed(document, "holdout.baseline_equity", None))
    assert alone is not None
    assert "current" not in alone.axes[0].get_title(loc="left")


# --- what the charts are made of ----------------------------------------------------------------


@given(st.lists(st.one_of(st.none(), st.floats(-1_000.0, 50.0)), max_size=60))
def test_every_point_of_a_cloud_lies_on_its_axis(values: list[float | None]) -> None:
    scores = numbers(values)
    for limits in (score_limits(scores), cloud_limits(scores)):
        assert limits[0] < limits[1]
        known = scores[np.isfinite(scores)]
        places = onto(known, limits)
        assert np.all((limits[0] < places) & (places < limits[1]))


@given(st.lists(st.floats(-5.0, 50.0), min_size=1, max_size=30), st.floats(-900.0, -9.0))
def test_a_penalty_does_not_stretch_the_axis(scores: list[float], penalised: float) -> None:
    alone = np.array(scores)
    assert score_limits(np.append(alone, penalised)) == score_limits(alone)


def test_a_few_far_worse_trials_do_not_stretch_the_axis_of_a_cloud() -> None:
    scores = np.append(np.linspace(0.0, 1.0, 100), -8.0)
    assert cloud_limits(scores)[0] > -4.0
    assert score_limits(scores)[0] < -8.0


def test_a_penalised_bar_is_seen_below_the_axis_where_all_others_are_above() -> None:
    document = {
        "windows": [
            {"coin": "BTC", "window": 1, "train": {"score": 2.0}, "test": {"score": -9.5}},
            {"coin": "BTC", "window": 2, "train": {"score": 1.0}, "test": None},
        ]
    }
    found = windows(document)
    assert found.names == ["BTC 1", "BTC 2"]
    assert math.isnan(found.test[1])
    low, high = bar_limits(found)
    assert -1.0 < low < -0.1
    assert high > 2.0


def test_the_best_so_far_begins_with_the_first_trial_that_is_not_disqualified() -> None:
    trials = [
        {"number": 2, "score": 0.5},
        {"number": 0, "score": -10.0},
        {"number": 1, "score": None},
        {"number": 3, "score": 0.2},
    ]
    found = course({"trials": trials})
    assert found.number.tolist() == [0, 1, 2, 3]
    assert np.isnan(found.best[:2]).all()
    assert found.best[2:].tolist() == [0.5, 0.5]
    assert disqualified(found.score).tolist() == [True, False, False, False]


def test_picks_are_named_by_window(document: Document) -> None:
    found = picks(document)
    assert len(found.names) == N_WINDOWS
    assert found.names[0] == "window 1"
    assert found.train.tolist() == [1.1, 1.2, 1.3, 1.4]


def test_a_curve_needs_two_points() -> None:
    one = {"equity": {"timestamp": [1, 2], "value": [None, 5.0]}}
    assert curve(one, "equity") is None
    uneven = {"equity": {"timestamp": [1], "value": [4.0, 5.0]}}
    assert curve(uneven, "equity") is None
    both = curve({"equity": {"timestamp": [1, 2, 3], "value": [4.0, None, 5.0]}}, "equity")
    assert both is not None
    assert both.time.tolist() == [1, 3]


@pytest.mark.parametrize(("return_pct", "capital"), [(10.0, 100.0), (None, 99.0), (-100.0, 99.0)])
def test_the_capital_before_the_curve_follows_from_the_return(
    return_pct: float | None, capital: float
) -> None:
    found = curve({"equity": {"timestamp": [1, 2], "value": [99.0, 110.0]}}, "equity")
    assert found is not None
    assert capital_before(found, return_pct) == pytest.approx(capital)


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=300), st.floats(-2e6, 2e6))
def test_a_histogram_counts_every_value_and_holds_the_mark(
    values: list[float | None], mark: float
) -> None:
    known = [value for value in values if value is not None]
    found = histogram(values, mark)
    if not known:
        assert found is None
        return
    assert found is not None
    counts, edges = found
    assert counts.sum() == len(known)
    assert edges[0] <= mark <= edges[-1]


# --- figures of the page ------------------------------------------------------------------------


def test_the_histogram_marks_what_was_observed() -> None:
    chart = histogram_chart("Return", [0.0, 1.0, 2.0], 5.0, "the real ones")
    assert chart.title.text == "Return (line: the real ones)"
    assert [span.location for span in chart.center if hasattr(span, "location")] == [5.0]
    unmarked = histogram_chart("Return", [0.0, 1.0], None, "the real ones")
    assert unmarked.title.text == "Return"
    assert histogram_chart("Return", [None], 1.0, "") is None


def test_a_histogram_by_sign_is_red_below_the_mark() -> None:
    chart = histogram_chart("Rank", [-2.0, -1.0, 1.0, 2.0], 0.0, "middle", by_sign=True)
    data = chart.renderers[0].data_source.data
    reds = [colour == "#b91c1c" for colour in data["colour"]]
    assert reds == (data["left"] + data["right"] < 0.0).tolist()
    assert any(reds)
    assert not all(reds)


def test_stability_in_the_page_carries_the_random_draws(document: Document) -> None:
    data = stability_chart(document).renderers[0].data_source.data
    assert data["name"] == list(document["space"])
    spreads = document["param_stability"].values()
    assert data["random"].tolist() == [row["random_spread"] for row in spreads]


def test_progress_in_the_page_is_empty_and_says_so_without_trials() -> None:
    assert progress_chart({}).title.text == "No trial has a score"


def test_every_parameter_has_a_curve_and_cliffs_are_flagged(document: Document) -> None:
    drawn = sensitivity_charts(document)
    assert list(drawn) == list(document["space"])
    flagged = [name for name, chart in drawn.items() if "cliff" in chart.title.text]
    assert flagged == ["gamma"]
    data = drawn["gamma"].renderers[0].data_source.data
    assert data["marker"] == ["circle"] * 3 + ["x"] * 2
    assert np.isnan(data["line"][3:]).all()
    assert len({chart.y_range.start for chart in drawn.values()}) == 1


def test_the_choice_is_marked_in_every_cloud_of_trials(document: Document) -> None:
    drawn = trial_charts(document)
    assert list(drawn) == list(document["space"])
    for name, chart in drawn.items():
        (mark,) = [item.location for item in chart.center if hasattr(item, "location")]
        if name == "trailing_enabled":
            assert (
                mark == ["false", "true"].index(str(document["robust_params"][name]).lower()) + 0.5
            )
        else:
            assert mark == document["robust_params"][name]
    source = drawn["gamma"].renderers[0].data_source
    assert len(source.data["trial"]) == len([t for t in document["trials"] if t["score"]])
    assert source.data["colour"].count("#b45309") == document["top_trials_used"]
    assert source.data["colour"][-1] == "#b45309"
    assert all(chart.renderers[0].data_source is source for chart in drawn.values())


def test_a_choice_that_no_trial_had_is_not_marked(document: Document) -> None:
    other = changed(document, "robust_params.trailing_enabled", "sometimes")
    chart = trial_charts(other)["trailing_enabled"]
    assert not [item for item in chart.center if hasattr(item, "location")]


def test_without_a_recorded_space_the_trials_name_the_parameters(document: Document) -> None:
    assert list(trial_charts({**document, "space": None})) == list(document["space"])


def test_of_very_many_trials_the_best_are_all_drawn() -> None:
    scores = np.random.default_rng(3).normal(size=20_000)
    scores[::7] = math.nan
    rows = drawn_trials(scores)
    assert len(rows) == MAX_SHOWN == len(set(rows.tolist()))
    assert np.isfinite(scores[rows]).all()
    best = np.argsort(-np.nan_to_num(scores, nan=-99.0))[:BEST_SHOWN]
    assert set(best.tolist()) <= set(rows.tolist())


# --- the page without a browser -----------------------------------------------------------------


@pytest.mark.slow
def test_every_number_on_the_page_is_the_documents(document: Document, page: str) -> None:
    shown = pages.NumberReader(page).found
    assert len(shown) > 250
    check_numbers(shown, document)


def test_the_check_of_numbers_notices_a_wrong_digit(document: Document, page: str) -> None:
    shown = pages.NumberReader(page).found
    with pytest.raises(AssertionError):
        check_numbers([(path, text.replace("1", "2")) for path, text in shown], document)


def test_the_page_carries_its_document_without_the_trials_parameters(
    document: Document, page: str
) -> None:
    trials = [
        {key: row[key] for key in ("number", "score", "seconds")} for row in document["trials"]
    ]
    assert embedded(page) == json.loads(json.dumps({**document, "trials": trials}))


def test_the_page_asks_the_network_for_nothing(page: str) -> None:
    assert "default-src 'none'" in page
    assert not re.search(r'<(script|link|img|iframe)[^>]*(src|href)="(?!data:)', page)


def test_the_headline_says_what_was_chosen_and_what_came_of_it(
    document: Document, page: str
) -> None:
    text = shown_text(page)
    for expected in (
        "Optimizer: BTC, ETH, SOL",
        "2024-01-01 to 2025-06-30 UTC",
        "120 trials",
        "4 windows",
        "Verdict: failed",
        "What to do: keep your config: the choice lost",
        "Holdout v. nothing: -0.31 % in 83 days",
        "gamma and kappa act as a product",
        f"Chosen: the median of the best {document['top_trials_used']} of 120 trials",
        f"Holdout return {document['holdout']['return_pct']:+.2f} %",
        "Seeds that gained in the last test 3 of 4",
        "Train score 0.41",
    ):
        assert expected in text, expected


@pytest.mark.parametrize(
    ("answer", "tone"),
    [("held", "gain"), ("undecided", "fair"), ("failed", "loss"), (None, "open")],
)
def test_the_verdict_comes_first_in_its_colour(
    document: Document, answer: str | None, tone: str
) -> None:
    made = optimizer_page(changed(document, "verdict.answer", answer)).decode()
    assert f'<b id="verdict" class="{tone}">{answer or "not known"}</b>' in made
    assert made.index('id="verdict"') < made.index('class="cards"')


def test_evidence_is_coloured_by_whether_its_criterion_is_met(page: str) -> None:
    rows = re.findall(
        r'<td class="text (\w+)">([^<]*)</td><td class="text"><b class="\w+">(\w+)', page
    )
    assert [(tone, word) for tone, _, word in rows] == [
        ("loss", "no"),
        ("loss", "no"),
        ("fair", "yes"),  # not a gain, where the whole has failed
        ("open", "open"),
    ]
    assert rows[2][1] == "the best trial is better than the &lt;static&gt; grid"


@pytest.mark.slow
def test_it_is_said_when_the_current_parameters_did_better(document: Document) -> None:
    better = changed(document, "holdout.baseline_return_pct", 99.0)
    assert "the current parameters did better than the choice" in words_of(better)
    worse = changed(document, "holdout.baseline_return_pct", -99.0)
    assert "did better than the choice" not in words_of(worse)


def test_parameters_go_from_old_to_new(document: Document, page: str) -> None:
    row = re.search(r"<tr[^>]*><td><code>spacing_floor</code></td>.*?</tr>", page)
    assert row
    text = shown_text(row[0]).split()
    assert text[1] == f"{STRATEGY_PARAMS['spacing_floor']:g}"
    assert float(text[2]) == pytest.approx(document["robust_params"]["spacing_floor"], rel=1e-3)
    assert 'class="changed"' in row[0]
    same = {"robust_params": {"spacing_floor": STRATEGY_PARAMS["spacing_floor"]}}
    assert "<tr><td><code>spacing_floor</code>" in optimizer_page(same).decode()


def test_windows_say_why_they_are_penalised_and_which_lie_in_a_later_train(page: str) -> None:
    text = shown_text(page)
    assert "ETH 2, test: 6 trades, fewer than 20" in text
    assert text.count("2024-09-28 * ") == len(COINS)
    assert "2024-12-28 * " not in text


def test_whoever_looked_at_the_holdout_before_is_counted(document: Document, page: str) -> None:
    assert "Earlier searches looked at them 2 times" in shown_text(page)
    first = changed(document, "holdout.looks_before", 0)
    assert "Earlier searches" not in words_of(first)


def test_a_search_that_trained_on_the_holdout_is_said_to_have(document: Document) -> None:
    trained = changed(document, "holdout.trained_before", 2)
    assert "Earlier searches chose by part of them" in words_of(trained)
    assert "Earlier searches chose" not in words_of(document)


def test_what_luck_may_explain_is_not_green(document: Document) -> None:
    verdicts = {"by itself not distinguishable from luck": "fair", "beyond luck": "gain"}
    evidence = [{"name": "x", "value": "-", "verdict": words, "passes": True} for words in verdicts]
    made = optimizer_page({**document, "oos_pass": True, "evidence": evidence}).decode()
    for words, tone in verdicts.items():
        assert f'<td class="text {tone}">{words}</td>' in made
        assert f'<td class="text"><b class="{tone}">yes</b>' in made


def test_what_the_verdict_does_not_tell_is_named(document: Document) -> None:
    made = words_of({**document, "oos_warnings": ["the holdout was looked at"]})
    assert "Whatever the verdict: the holdout was looked at." in made


def test_a_test_that_was_left_out_is_said_to_be_left_out(document: Document) -> None:
    assert "Permuted bars were not run." in words_of({**document, "monte_carlo": None})
    reason = changed(document, "overfitting.reason", "59 days are too few")
    assert "None: 59 days are too few." in words_of(reason)


def test_seeds_fingerprints_and_space_are_on_the_page(page: str) -> None:
    text = shown_text(page)
    for expected in (
        "Seed 42",
        "9f2c1ab04e",
        "77aa10c3d2",
        "btc_eth_sol_calmar_pf",
        "true, false",
        "by ratio",
        "seconds searching 390.1",
    ):
        assert expected in text, expected


def test_only_a_complete_set_of_parameters_is_listed(document: Document, page: str) -> None:
    assert "all parameters of the choice" in page
    partly = {**document, "params": {"gamma": 0.5}}
    assert "all parameters of the choice" not in words_of(partly)


@pytest.mark.parametrize("incomplete", INCOMPLETE)
def test_what_was_not_computed_is_a_dash(incomplete: Document) -> None:
    page = optimizer_page(incomplete).decode()
    check_numbers(pages.NumberReader(page).found, incomplete)
    text = shown_text(page)
    assert "nan" not in text.lower().split()
    assert "None" not in text.split()
    assert text.count("nothing to draw") == 9


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.sets(st.sampled_from(sorted(full_document(120, ["gamma"]))), min_size=1))
def test_the_page_does_without_any_of_its_parts(missing: set[str]) -> None:
    known = full_document(120, ["gamma"])
    partly = {name: part for name, part in known.items() if name not in missing}
    check_numbers(pages.NumberReader(optimizer_page(partly).decode()).found, partly)


def test_nothing_on_the_page_promises_a_profit(page: str) -> None:
    text = shown_text(page).lower()
    assert "no promise" in text
    for promise in PROMISES:
        assert promise not in text, promise


def test_names_from_outside_cannot_become_markup() -> None:
    text = optimizer_page({"study_name": "</script><b>x</b>"}).decode()
    assert "<b>x</b>" not in text
    assert "&lt;b&gt;x&lt;/b&gt;" in text


@pytest.mark.parametrize(
    ("text", "tone"), [("agrees", "gain"), ("as random", "open"), (None, "open")]
)
def test_verdicts_have_a_colour(text: str | None, tone: str) -> None:
    assert f'class="{tone}"' in verdict(text)
    assert (text or "-") in verdict(text)


@pytest.mark.slow
def test_ten_thousand_trials_stay_under_four_megabytes(large: Document) -> None:
    many = with_trials(large, 10_000)
    page = optimizer_page(many)
    assert len(page) < 4_000_000
    assert "2,000 of 9,950 trials with a score are drawn" in page.decode()


# --- in a browser -------------------------------------------------------------------------------


@pages.needs_browser
@pytest.mark.slow
def test_a_browser_draws_the_page_without_complaint(
    browser: Any, large: Document, tmp_path: Path
) -> None:
    path, page = tmp_path / "optimizer_report.html", optimizer_page(large)
    path.write_bytes(page)
    assert pages.show(browser, path) == []
    painted = browser.execute_script(pages.PAINTED)
    assert len(painted) == 9 + 2 * len(SPACE)
    assert min(painted) > 3
    check_numbers(pages.numbers_shown(browser), large)
    inside = "return JSON.parse(document.getElementById('report-data').textContent)"
    assert browser.execute_script(inside) == embedded(page.decode())


@pages.needs_browser
@pytest.mark.slow
@pytest.mark.parametrize(
    ("incomplete", "answer"),
    list(zip(INCOMPLETE, ("not known", "not known", "failed"), strict=True)),
)
def test_a_browser_shows_results_of_which_nothing_could_be_computed(
    browser: Any, incomplete: Document, answer: str, tmp_path: Path
) -> None:
    path = tmp_path / "optimizer_report.html"
    path.write_bytes(optimizer_page(incomplete))
    assert pages.show(browser, path) == []
    check_numbers(pages.numbers_shown(browser), incomplete)
    assert len(browser.execute_script(pages.PAINTED)) == 1
    assert browser.find_element("id", "verdict").text == answer


@pages.needs_browser
@pytest.mark.slow
def test_colours_of_verdicts_reach_the_screen(
    browser: Any, document: Document, tmp_path: Path
) -> None:
    path = tmp_path / "optimizer_report.html"
    path.write_bytes(optimizer_page({**document, "oos_pass": True}))  # else nothing is green
    pages.show(browser, path)
    colours = {
        tone: browser.find_element("css selector", f"#evidence b.{tone}").value_of_css_property(
            "color"
        )
        for tone in ("gain", "loss", "open")
    }
    assert colours["gain"].startswith("rgba(21, 128, 61")
    assert colours["loss"].startswith("rgba(185, 28, 28")
    assert len(set(colours.values())) == 3
