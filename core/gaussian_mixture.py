"""Mixture of three Gaussians in the plane, fitted as scikit-learn's ``GaussianMixture`` fits it.

It follows scikit-learn 1.9 formula by formula, on the same random numbers: clusters by k-means to
start from, then expectation maximisation. Parameters agree to rounding. BLAS, OpenMP and warning
filters, whose effect depends on processor and other threads, are not involved: a fit depends on
nothing but its rows and its seed.

Shapes: rows ``(n, 2)``, labels ``(n,)``, shares ``(n, 3)``, centres ``(3, 2)``; components
``(3, 6)``: weight, mean x, mean y, variance x, covariance, variance y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from core.atr import FloatArray, IntArray
from core.jit import kernel

COMPONENTS: Final = 3
SEED_TRIALS: Final = 2 + int(math.log(COMPONENTS))
"""Candidates for each k-means++ seed after the first; the best is taken."""
KMEANS_MAX_ITER: Final = 300
KMEANS_TOLERANCE: Final = 1e-4
"""Squared shift of the centres that ends k-means, over the mean variance of a feature."""
EM_MAX_ITER: Final = 100
EM_TOLERANCE: Final = 1e-3
"""Gain of mean log-likelihood per row, in nats, that ends the fit."""
COVARIANCE_FLOOR: Final = 1e-6
"""Added to the variances, in squared units of the features."""
COUNT_FLOOR: Final = 10.0 * float(np.finfo(np.float64).eps)
"""Added to the number of rows of a component, so that none is empty."""
LOG_2PI: Final = math.log(2.0 * math.pi)


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A fitted mixture; the order of its components means nothing.

    ``lower_bound``: mean log-likelihood of a row, in nats, before the last of ``n_iter`` rounds.
    """

    weights: FloatArray  # (3,), of sum 1
    means: FloatArray  # (3, 2)
    covariances: FloatArray  # (3, 2, 2)
    terms: FloatArray  # (3, 6), see density_terms
    n_iter: int
    lower_bound: float

    def predict(self, rows: FloatArray) -> IntArray:
        """Return the most probable component of every row, ``(n,)``; of equals, the first."""
        return most_probable(np.array(rows, dtype=np.float64, order="C"), self.terms)


def fit_gaussian_mixture(rows: FloatArray, seed: int) -> GaussianMixture | None:
    """Return ``GaussianMixture(3, random_state=seed)`` of scikit-learn, fitted to ``rows``.

    None where there are fewer rows than components, a row is not finite or a covariance singular.
    """
    if len(rows) < COMPONENTS or not np.isfinite(rows).all():
        return None
    table = np.array(rows, dtype=np.float64, order="C")
    return fit_em(table, k_means_labels(table, seed))


def k_means_labels(rows: FloatArray, seed: int) -> IntArray:
    """Return each row's cluster, as ``KMeans(3, n_init=1, random_state=seed)`` labels it."""
    # This generator, drawn from in this order, is part of what is computed.
    random = np.random.RandomState(seed)
    first = int(random.choice(len(rows), p=np.full(len(rows), 1.0) / len(rows)))
    draws = random.uniform(size=(COMPONENTS - 1, SEED_TRIALS))
    centred = rows - rows.mean(axis=0)
    tolerance = float(rows.var(axis=0).mean()) * KMEANS_TOLERANCE
    return settle_clusters(centred, seed_centres(centred, first, draws), tolerance)


def seed_centres(rows: FloatArray, first: int, draws: FloatArray) -> FloatArray:
    """Return row ``first`` and two more by greedy k-means++ (Arthur and Vassilvitskii 2007).

    Args:
        rows: features.
        first: index of the first centre.
        draws: uniform in [0, 1), ``(2, SEED_TRIALS)``; they choose candidates for the other two,
            of which the one that leaves the rows nearest to their centres is taken.
    """
    seeds = [first]
    nearest = squared_distances(rows, rows[first])  # to the nearest centre so far
    for shares in draws:
        running = nearest.cumsum()
        drawn = np.searchsorted(running, shares * running[-1]).clip(max=len(rows) - 1)
        lowered = [np.minimum(nearest, squared_distances(rows, rows[c])) for c in drawn]
        best = int(np.argmin([left.cumsum()[-1] for left in lowered]))
        nearest = lowered[best]
        seeds.append(int(drawn[best]))
    return rows[seeds]


def squared_distances(rows: FloatArray, centre: FloatArray) -> FloatArray:
    """Return the squared distance of every row to ``centre``, ``(n,)``."""
    (x, y), (u, v) = centre, rows.T
    # Written like this, distances that are equal round as scikit-learn's do.
    square: FloatArray = x * x + y * y - 2.0 * (x * u + y * v) + (u * u + v * v)
    return np.maximum(square, 0.0)


def settle_clusters(rows: FloatArray, centres: FloatArray, tolerance: float) -> IntArray:
    """Return the cluster of every row after Lloyd's iterations from ``centres`` (Lloyd 1982).

    They end when no label changes or the squared shifts of the centres sum to ``tolerance``.
    """
    labels = np.full(len(rows), -1, dtype=np.int64)
    sums, count = np.empty_like(centres), np.empty(COMPONENTS)
    for _ in range(KMEANS_MAX_ITER):
        if assign_rows(rows, centres, labels, sums, count) == 0:
            return labels
        if not count.all():
            fill_clusters(rows, labels, centres, sums, count)
        largest = count.argmax()
        for k in range(COMPONENTS):
            sums[k] = sums[k] * (1.0 / count[k]) if count[k] > 0.0 else sums[largest]
        shift = sums - centres
        centres = sums.copy()
        if (shift * shift).sum() <= tolerance:
            break
    assign_rows(rows, centres, labels, sums, count)
    return labels


@kernel
def assign_rows(
    rows: FloatArray, centres: FloatArray, labels: IntArray, sums: FloatArray, count: FloatArray
) -> int:
    """Label every row with its nearest centre, and set ``sums`` and ``count`` of each cluster.

    Returns:
        How many labels changed.
    """
    for k in range(COMPONENTS):
        sums[k, 0] = sums[k, 1] = count[k] = 0.0
    changed = 0
    for i in range(rows.shape[0]):
        label, least = 0, math.inf
        for k in range(COMPONENTS):
            x, y = centres[k, 0], centres[k, 1]
            # Less the row's own square, which is the same for every centre.
            distance = x * x + y * y - 2.0 * (rows[i, 0] * x + rows[i, 1] * y)
            if distance < least:
                label, least = k, distance
        changed += label != labels[i]
        labels[i] = label
        count[label] += 1.0
        sums[label, 0] += rows[i, 0]
        sums[label, 1] += rows[i, 1]
    return changed


def fill_clusters(
    rows: FloatArray, labels: IntArray, centres: FloatArray, sums: FloatArray, count: FloatArray
) -> None:
    """Move the rows farthest from their centres into the clusters that have none, in place.

    Only ``sums`` and ``count`` change. Where all rows lie on their centres, nothing moves.
    """
    distance = ((rows - centres[labels]) ** 2).sum(axis=1)
    if distance.max() == 0.0:
        return
    empty = np.flatnonzero(count == 0.0)
    farthest = np.argpartition(distance, -empty.size)[: -empty.size - 1 : -1]
    for k, row in zip(empty, farthest, strict=True):
        sums[labels[row]] -= rows[row]
        count[labels[row]] -= 1.0
        sums[k], count[k] = rows[row], 1.0


def fit_em(rows: FloatArray, labels: IntArray) -> GaussianMixture | None:
    """Return the mixture fitted by expectation maximisation from the clusters ``labels``.

    Dempster, Laird and Rubin 1977. None where a covariance is singular or overflows.
    """
    shares = np.eye(COMPONENTS)[labels]
    components, terms = np.empty((COMPONENTS, 6)), np.empty((COMPONENTS, 6))
    bound = -math.inf
    for n_iter in range(EM_MAX_ITER + 1):
        before = bound
        if n_iter > 0:
            bound = expect(rows, terms, shares)
        maximise(rows, shares, components)
        components[:, 0] /= components[:, 0].sum() if n_iter > 0 else len(rows)
        if not density_terms(components, terms):
            return None
        if abs(bound - before) < EM_TOLERANCE:
            break
    weights, means = components[:, 0], components[:, 1:3]
    covariances = components[:, [[3, 4], [4, 5]]]
    return GaussianMixture(weights, means, covariances, terms, n_iter, bound)


@kernel
def expect(rows: FloatArray, terms: FloatArray, shares: FloatArray) -> float:
    """Set ``shares`` to the components' responsibilities; return the mean log-likelihood."""
    total = 0.0
    for i in range(rows.shape[0]):
        for k in range(COMPONENTS):
            shares[i, k] = weighted_log_density(rows[i, 0], rows[i, 1], terms[k])
        top = max(shares[i, 0], shares[i, 1], shares[i, 2])
        whole = 0.0
        for k in range(COMPONENTS):
            shares[i, k] = math.exp(shares[i, k] - top)
            whole += shares[i, k]
        for k in range(COMPONENTS):
            shares[i, k] /= whole
        total += math.log(whole) + top
    return float(total / rows.shape[0])


@kernel
def maximise(rows: FloatArray, shares: FloatArray, components: FloatArray) -> None:
    """Set each component to the count, mean and covariance of the rows by their ``shares``."""
    components[:] = 0.0
    for i in range(rows.shape[0]):
        for k in range(COMPONENTS):
            components[k, 0] += shares[i, k]
            components[k, 1] += shares[i, k] * rows[i, 0]
            components[k, 2] += shares[i, k] * rows[i, 1]
    for k in range(COMPONENTS):
        components[k, 0] += COUNT_FLOOR
        components[k, 1] /= components[k, 0]
        components[k, 2] /= components[k, 0]
    for i in range(rows.shape[0]):
        for k in range(COMPONENTS):
            x, y = rows[i, 0] - components[k, 1], rows[i, 1] - components[k, 2]
            components[k, 3] += shares[i, k] * x * x
            components[k, 4] += shares[i, k] * x * y
            components[k, 5] += shares[i, k] * y * y
    for k in range(COMPONENTS):
        components[k, 3] = components[k, 3] / components[k, 0] + COVARIANCE_FLOOR
        components[k, 4] /= components[k, 0]
        components[k, 5] = components[k, 5] / components[k, 0] + COVARIANCE_FLOOR


@kernel
def density_terms(components: FloatArray, terms: FloatArray) -> bool:
    """Set what :func:`weighted_log_density` reads; return False if a covariance is singular.

    With ``P`` the upper triangle for which ``P P'`` is the inverse of the covariance, the terms
    of a component are ``P00, P01, P11``, the two of ``mean' P``, and ``ln det P + ln weight``.
    """
    for k in range(COMPONENTS):
        weight, mean_x, mean_y, variance_x, covariance, variance_y = components[k]
        if not 0.0 < variance_x < math.inf:
            return False
        spread = math.sqrt(variance_x)
        slope = covariance / spread
        rest = variance_y - slope * slope
        if not 0.0 < rest < math.inf:
            return False
        p00, p11 = 1.0 / spread, 1.0 / math.sqrt(rest)
        p01 = -slope * p00 * p11
        terms[k, 0], terms[k, 1], terms[k, 2] = p00, p01, p11
        terms[k, 3], terms[k, 4] = mean_x * p00, mean_x * p01 + mean_y * p11
        terms[k, 5] = math.log(p00) + math.log(p11) + math.log(weight)
    return True


@kernel
def weighted_log_density(x: float, y: float, terms: FloatArray) -> float:
    """Return ``ln(weight N(x, y | mean, covariance))`` of the component with these ``terms``."""
    u = x * terms[0] - terms[3]
    v = x * terms[1] + y * terms[2] - terms[4]
    return float(terms[5] - LOG_2PI - 0.5 * (u * u + v * v))


@kernel
def most_probable(rows: FloatArray, terms: FloatArray) -> IntArray:
    """Return the component of highest weighted density for every row, ``(n,)``."""
    out = np.zeros(rows.shape[0], np.int64)
    for i in range(rows.shape[0]):
        best = -math.inf
        for k in range(COMPONENTS):
            log_density = weighted_log_density(rows[i, 0], rows[i, 1], terms[k])
            if log_density > best:
                best = log_density
                out[i] = k
    return out
