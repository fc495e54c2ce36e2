"""Contracts of the Gaussian mixture: scikit-learn is the oracle, threads and compiler are not."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # has no types

import core.gaussian_mixture
from core.gaussian_mixture import (
    COVARIANCE_FLOOR,
    GaussianMixture,
    fit_gaussian_mixture,
    k_means_labels,
    settle_clusters,
)
from core.regime_gmm import GMM_WINDOW, calculate_gmm_regime, gmm_features, refit_bars
from tests.core.test_indicators import Candles, random_candles, real_candles
from tests.core.test_regime import atr_of
from tests.support.paths import ROOT

INTERPRETED = os.environ.get("NUMBA_DISABLE_JIT", "0") != "0"
ALL_BARS = 122_592

Rows = npt.NDArray[np.float64]


def fit_oracle(rows: Rows, seed: int, **changes: object) -> Any:
    """Return scikit-learn's mixture; loaded late, because that takes a second."""
    from sklearn import mixture  # type: ignore[import-untyped]  # noqa: PLC0415  has no types

    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mixture.GaussianMixture(3, random_state=seed, **changes).fit(rows)


def cluster_oracle(rows: Rows, seed: int = 0, init: object = "k-means++") -> list[int]:
    from sklearn.cluster import KMeans  # type: ignore[import-untyped]  # noqa: PLC0415  no types

    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = KMeans(3, init=init, n_init=1, random_state=np.random.RandomState(seed)).fit(rows)
    labels: list[int] = model.labels_.tolist()
    return labels


def assert_equals_oracle(ours: GaussianMixture | None, theirs: Any, rows: Rows) -> None:
    """Compare parameters to 1e-9, iterations and labels exactly."""
    assert ours is not None
    assert ours.n_iter == theirs.n_iter_
    for name in ("weights", "means", "covariances", "lower_bound"):
        mine, other = getattr(ours, name), getattr(theirs, f"{name}_")
        # A mean or a covariance that cancels to zero is known to the rounding of its terms only.
        scale = 1e-14 * float(np.abs(other).max())
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=scale, err_msg=name)
    assert ours.predict(rows).tolist() == theirs.predict(rows).tolist()


def windows_of(candles: Candles, every: int) -> list[Rows]:
    """Return what every ``every``-th refit of the regime is fitted to."""
    features = gmm_features(candles.close, atr_of(candles))
    windows = [features[i + 1 - GMM_WINDOW : i + 1] for i in refit_bars(candles.ts_ms)[::every]]
    return [rows[np.isfinite(rows).all(axis=1)] for rows in windows]


def blobs(seed: int, n: int) -> Rows:
    rng = np.random.default_rng(seed)
    centres = rng.normal(0.0, 1.5, (3, 2))
    return rng.normal(centres[rng.integers(0, 3, n)], rng.uniform(0.1, 1.0, (n, 2)))


def with_duplicates(seed: int, n: int) -> Rows:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2))[rng.integers(0, max(2, n // 4), n)]


SHAPES: dict[str, Callable[[int, int], Rows]] = {
    "blobs": blobs,
    "one cloud": lambda seed, n: np.random.default_rng(seed).normal(size=(n, 2)),
    "heavy tails": lambda seed, n: np.random.default_rng(seed).standard_cauchy((n, 2)),
    "like returns and ranges": lambda seed, n: 0.01 * blobs(seed, n) * [1.0, 0.1] + [0.0, 0.005],
    "far from zero": lambda seed, n: 0.02 * blobs(seed, n) + [0.5, 5.0],
    "duplicates": with_duplicates,
}


# --- against scikit-learn -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("coin", ["BTC", "ETH", "SOL"])
def test_fits_of_recorded_windows_equal_scikit_learns(coin: str) -> None:
    for rows in windows_of(real_candles(coin, ALL_BARS), every=200 if INTERPRETED else 15):
        assert k_means_labels(rows, 42).tolist() == cluster_oracle(rows, 42)
        assert_equals_oracle(fit_gaussian_mixture(rows, 42), fit_oracle(rows, 42), rows)


@pytest.mark.slow
def test_fits_of_invented_windows_equal_scikit_learns() -> None:
    candles = random_candles(GMM_WINDOW + 96 * 60, seed=5)
    for seed, rows in enumerate(windows_of(candles, every=20 if INTERPRETED else 1)):
        assert_equals_oracle(fit_gaussian_mixture(rows, seed), fit_oracle(rows, seed), rows)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_fits_of_few_rows_equal_scikit_learns(shape: str) -> None:
    for seed in range(15 if INTERPRETED else 80):
        rows = SHAPES[shape](seed, 3 + 7 * seed % 300)
        assert k_means_labels(rows, seed).tolist() == cluster_oracle(rows, seed)
        assert_equals_oracle(fit_gaussian_mixture(rows, seed), fit_oracle(rows, seed), rows)


@pytest.mark.slow
@pytest.mark.parametrize("max_iter", [1, 2, 5])
def test_a_fit_cut_short_equals_scikit_learns(
    monkeypatch: pytest.MonkeyPatch, max_iter: int
) -> None:
    monkeypatch.setattr(core.gaussian_mixture, "EM_MAX_ITER", max_iter)
    rows = blobs(1, 300)
    theirs = fit_oracle(rows, 1, max_iter=max_iter)
    assert not theirs.converged_
    assert_equals_oracle(fit_gaussian_mixture(rows, 1), theirs, rows)


@pytest.mark.slow
@pytest.mark.parametrize("n_distinct", [1, 2])
def test_fewer_distinct_rows_than_components_are_fitted_as_scikit_learn_does(
    n_distinct: int,
) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(n_distinct, 2))[rng.integers(0, n_distinct, 5 + 3 * seed)]
        assert k_means_labels(rows, seed).tolist() == cluster_oracle(rows, seed)
        assert_equals_oracle(fit_gaussian_mixture(rows, seed), fit_oracle(rows, seed), rows)


@pytest.mark.slow
@pytest.mark.parametrize("n_far", [1, 2])
def test_clusters_that_start_without_rows_are_filled_as_scikit_learn_fills_them(n_far: int) -> None:
    for seed in range(100):
        rows = blobs(seed, 4 + seed % 10)
        centred = rows - rows.mean(axis=0)
        centres = centred[:3].copy()
        for k in range(n_far):
            centres[(seed + k) % 3] = 1_000.0 + k  # nearest to no row
        tolerance = 1e-4 * float(rows.var(axis=0).mean())
        labels = settle_clusters(centred, centres, tolerance)
        assert labels.tolist() == cluster_oracle(rows, init=centres + rows.mean(axis=0))


# --- by definition ------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(3, 80), shape=st.sampled_from(sorted(SHAPES)))
def test_the_mixture_has_the_mean_and_the_covariance_of_its_rows(
    seed: int, n: int, shape: str
) -> None:
    rows = SHAPES[shape](seed, n)
    model = fit_gaussian_mixture(rows, seed)
    assert model is not None
    assert model.weights.sum() == pytest.approx(1.0, abs=1e-12)
    mean = model.weights @ model.means
    scale = np.abs(rows).max()
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=0.0, atol=1e-11 * scale)
    away = model.means - mean
    within = np.einsum("k,kij->ij", model.weights, model.covariances)
    between = np.einsum("k,ki,kj->ij", model.weights, away, away)
    expected = np.cov(rows.T, ddof=0) + COVARIANCE_FLOOR * np.eye(2)
    np.testing.assert_allclose(within + between, expected, rtol=0.0, atol=1e-11 * scale**2)
    assert (np.linalg.eigvalsh(model.covariances) > 0.0).all()


def literal_log_density(model: GaussianMixture, row: Rows, k: int) -> float:
    """Follow the textbook: ``ln w - ln(2 pi) - ln(det S)/2 - d' S^-1 d / 2``."""
    covariance, distance = model.covariances[k], row - model.means[k]
    quadratic = float(distance @ np.linalg.inv(covariance) @ distance)
    log_det = math.log(np.linalg.det(covariance))
    return math.log(model.weights[k]) - math.log(2.0 * math.pi) - (log_det + quadratic) / 2.0


def test_a_row_belongs_to_the_component_of_highest_weighted_density() -> None:
    model = fit_gaussian_mixture(blobs(3, 200), 3)
    assert model is not None
    drawn = np.random.default_rng(4).normal(0.0, 3.0, (100, 2))
    logs = [[literal_log_density(model, row, k) for k in range(3)] for row in drawn]
    assert model.predict(drawn).tolist() == np.argmax(logs, axis=1).tolist()
    assert len(set(model.predict(drawn).tolist())) == 3


def test_no_rows_are_predicted_as_no_components() -> None:
    model = fit_gaussian_mixture(blobs(3, 50), 3)
    assert model is not None
    assert model.predict(np.empty((0, 2))).shape == (0,)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_rows_than_components_have_no_mixture(n: int) -> None:
    assert fit_gaussian_mixture(np.zeros((n, 2)), 42) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_have_no_mixture(value: float) -> None:
    rows = blobs(0, 30)
    rows[7, 1] = value
    assert fit_gaussian_mixture(rows, 42) is None


def on_a_line() -> Rows:
    """Return rows on the diagonal, so far apart that the floor of the variance rounds away."""
    along = np.tile([-(2.0**28), 2.0**28], 48) + np.repeat([-(2.0**40), 0.0, 2.0**40], 32)
    return np.column_stack((along, along))


def test_a_singular_covariance_has_no_mixture() -> None:
    assert fit_gaussian_mixture(on_a_line(), 42) is None


@pytest.mark.slow
def test_what_is_singular_to_scikit_learn_is_singular_here() -> None:
    with pytest.raises(ValueError, match="ill-defined empirical covariance"):
        fit_oracle(on_a_line(), 42)


def test_the_layout_of_the_rows_in_memory_does_not_matter_and_they_stay_as_they_are() -> None:
    rows = blobs(6, 120)
    expected, before = content_of(fit_gaussian_mixture(rows, 6)), rows.copy()
    rows.flags.writeable = False
    for layout in (rows, np.asfortranarray(rows), np.repeat(rows, 2, axis=0)[::2]):
        assert content_of(fit_gaussian_mixture(layout, 6)) == expected
    assert rows.tolist() == before.tolist()


def test_the_seed_decides_where_the_clusters_start() -> None:
    rows = np.random.default_rng(8).normal(size=(200, 2))
    fits = {content_of(fit_gaussian_mixture(rows, seed)) for seed in (1, 2, 3, 1, 2, 3)}
    assert len(fits) == 3


# --- threads, libraries, compiler ---------------------------------------------------------------


def content_of(model: GaussianMixture | None) -> bytes:
    assert model is not None
    parts = (model.weights, model.means, model.covariances, model.terms)
    return b"".join(part.tobytes() for part in parts) + repr(model.lower_bound).encode()


def regime_of(seed: int) -> list[int]:
    candles = random_candles(GMM_WINDOW + (100 if INTERPRETED else 1_000), seed=seed)
    regime = calculate_gmm_regime(candles.ts_ms, candles.close, atr_of(candles))
    return [int(value) for value in regime]


@pytest.mark.slow
def test_coins_in_threads_get_the_regimes_they_get_one_after_the_other() -> None:
    coins = [20, 21, 22, 23]
    expected = [regime_of(coin) for coin in coins]
    assert expected[0] != expected[1]
    with ThreadPoolExecutor(len(coins)) as pool:
        assert list(pool.map(regime_of, coins)) == expected


def test_fits_in_threads_are_equal_to_the_last_bit() -> None:
    n = 30 if INTERPRETED else 200
    tables = [blobs(seed, 50 + seed) for seed in range(n)]

    def fit(seed: int) -> bytes:
        return content_of(fit_gaussian_mixture(tables[seed], seed))

    expected = [fit(seed) for seed in range(n)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fit, range(n))) == expected
        assert list(pool.map(fit, reversed(range(n)))) == expected[::-1]


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_the_threads_of_blas_and_openmp_do_not_matter(limit: int) -> None:
    rows = blobs(9, 700)
    expected = content_of(fit_gaussian_mixture(rows, 9))
    with threadpool_limits(limits=limit):
        assert content_of(fit_gaussian_mixture(rows, 9)) == expected


def test_a_fit_leaves_the_warning_filters_and_the_global_random_state_alone() -> None:
    rows = np.repeat([[0.01, 0.001], [-0.01, 0.001]], 50, axis=0)  # of these scikit-learn warns
    filters, state = list(warnings.filters), repr(np.random.get_state(legacy=False))  # noqa: NPY002
    assert fit_gaussian_mixture(rows, 42) is not None
    assert list(warnings.filters) == filters
    assert repr(np.random.get_state(legacy=False)) == state  # noqa: NPY002


def digest() -> str:
    """Return one digest of fits over every shape of rows."""
    fits = [content_of(fit_gaussian_mixture(make(2, 90), 2)) for make in SHAPES.values()]
    return hashlib.sha256(b"".join(fits)).hexdigest()


@pytest.mark.slow
def test_compiled_and_interpreted_fits_are_equal_to_the_last_bit() -> None:
    code = "from tests.core.test_gaussian_mixture import digest; print(digest())"
    run = subprocess.run(  # noqa: S603  this interpreter, the code above
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "0" if INTERPRETED else "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == digest()
