"""Effective number of trials: how many different strategies a search really tried.

A search tries mostly variations of one thing. Trials whose daily returns move together are one
trial in the arithmetic of luck. They are clustered by correlation; the number of clusters is the
effective number.

This is a simpler equivalent of ONC (Lopez de Prado and Lewis, "Detection of False Investment
Strategies Using Unsupervised Learning Methods", Quantitative Finance 19(9), 2019): the same
distance and the same judge, the silhouette, over the cuts of one hierarchical tree instead of
repeated random k-means, so that no seed is needed. ONC always finds clusters; here trials without
any count one each, which is the strict side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import cut_tree, fcluster, linkage  # type: ignore[import-untyped]  # no stubs
from scipy.spatial.distance import squareform  # type: ignore[import-untyped]  # no stubs

from backtest.optimize.judge.deflated_sharpe import MIN_DAYS, Floats, as_matrix, varying_columns

Ints = npt.NDArray[np.int64]

MIN_SILHOUETTE: Final = 0.25
"""Below it there is no substantial structure (Kaufman and Rousseeuw, "Finding Groups in Data",
1990, table 4 of chapter 2). Unrelated groups reach it when their members correlate by 0.44."""
MAX_CLUSTERED: Final = 3_000
"""Distinct trials above which none are clustered: time grows with the cube of their number."""
_SAME: Final = 1e-6
"""Distance below which two series are copies (one may be a multiple of the other)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EffectiveTrials:
    """The effective number of trials.

    Attributes:
        number: clusters; at least 1.
        labels: cluster of every trial, from 0, shape ``(n_trials,)``; -1: left out.
        silhouette: mean over the distinct trials, of the clustering chosen; NaN if each distinct
            trial counts as its own.
        left_out: trials with constant returns or a day without a value.
        reason: why each distinct trial counts as its own; empty if they were clustered.
    """

    number: int
    labels: Ints
    left_out: int
    silhouette: float = math.nan
    reason: str = ""


def effective_trials(returns: npt.ArrayLike) -> EffectiveTrials:
    """Return the effective number of trials by their daily returns.

    Distance ``d = sqrt((1 - correlation) / 2)``, from 0 (the same) over 0.71 (unrelated) to 1
    (opposite). Copies are merged first. Then the tree of average linkage over the distinct trials
    is cut where the mean silhouette is highest. Where even that is under 0.25 there are no
    clusters, and every distinct trial counts; so N trials of independent noise count N. 1,000
    trials take about 0.3 s, 3,000 about 10 s.

    Args:
        returns: daily returns of the trials, shape ``(n_days, n_trials)``.

    Raises:
        DataError: ``returns`` are not a matrix.
    """
    matrix = as_matrix(returns)
    used = np.flatnonzero(varying_columns(matrix))
    labels = np.full(matrix.shape[1], -1, np.int64)
    left_out = matrix.shape[1] - len(used)
    if len(used) == 0:
        return EffectiveTrials(
            number=1,
            labels=labels,
            left_out=left_out,
            reason="no trial has returns that vary: nothing to tell apart",
        )
    if len(matrix) < MIN_DAYS:
        labels[used] = np.arange(len(used))
        return EffectiveTrials(
            number=len(used),
            labels=labels,
            left_out=left_out,
            reason=f"{len(matrix)} days are too few to correlate: at least {MIN_DAYS}",
        )
    distance = _distances(matrix[:, used])
    copies = _copies(distance)
    _, first = np.unique(copies, return_index=True)
    clusters, silhouette, reason = _clusters(distance[np.ix_(first, first)])
    labels[used] = clusters[copies]
    return EffectiveTrials(
        number=int(clusters.max()) + 1,
        labels=labels,
        left_out=left_out,
        silhouette=silhouette,
        reason=reason,
    )


def mean_silhouettes(distance: Floats, merges: Floats) -> Floats:
    """Return the mean silhouette of every cut of a tree, indexed by the number of clusters.

    ``s = (b - a) / max(a, b)``: ``a`` the mean distance to the other members of the own cluster,
    ``b`` to the nearest other cluster; 0 for a member on its own (Rousseeuw, "Silhouettes",
    Journal of Computational and Applied Mathematics 20, 1987, section 2). The merges are replayed
    on the matrix of mean distances between clusters and trials: O(n^3) for all cuts together.

    Args:
        distance: between trials, shape ``(n, n)``.
        merges: scipy's linkage, shape ``(n - 1, 4)``.

    Returns:
        shape ``(n,)``; NaN where there is none: 0 and 1 cluster.
    """
    n = len(distance)
    others = distance.copy()  # row: a cluster; its mean distance to each trial, inf to its own
    np.fill_diagonal(others, np.inf)
    own = np.zeros(n)  # each trial's summed distance to its own cluster
    sizes = np.ones(n)
    size_of = np.ones(n)  # of each trial's cluster
    row_of, cluster_in = list(range(n)), list(range(n))
    found = np.full(n, np.nan)
    for step in range(n - 2):
        keep, gone = (row_of[int(merges[step, side])] for side in (0, 1))
        _merge_rows(others, own, sizes, size_of, keep, gone)
        row_of.append(keep)
        cluster_in[keep] = n + step
        last = n - 1 - step  # its row fills the gap: rows 0..last-1 are the clusters left
        others[gone], sizes[gone] = others[last], sizes[last]
        cluster_in[gone] = cluster_in[last]
        row_of[cluster_in[gone]] = gone
        within = own / np.maximum(size_of - 1.0, 1.0)
        nearest = others[:last].min(axis=0)
        score = (nearest - within) / np.maximum(nearest, within)
        found[last] = score[size_of > 1.0].sum() / n
    return found


def _merge_rows(
    others: Floats, own: Floats, sizes: Floats, size_of: Floats, keep: int, gone: int
) -> None:
    """Merge cluster ``gone`` into ``keep``, in place."""
    in_keep, in_gone = np.isinf(others[keep]), np.isinf(others[gone])
    own[in_keep] += sizes[gone] * others[gone, in_keep]
    own[in_gone] += sizes[keep] * others[keep, in_gone]
    total = sizes[keep] + sizes[gone]
    others[keep] = (sizes[keep] * others[keep] + sizes[gone] * others[gone]) / total
    sizes[keep] = total
    size_of[in_keep | in_gone] = total


def _distances(returns: Floats) -> Floats:
    scaled = returns / np.abs(returns).max(axis=0)  # squares of tiny returns would vanish
    correlation = np.atleast_2d(np.corrcoef(scaled, rowvar=False))
    distance: Floats = np.sqrt(np.clip((1.0 - correlation) / 2.0, 0.0, 1.0))
    np.fill_diagonal(distance, 0.0)
    return np.maximum(distance, distance.T)


def _copies(distance: Floats) -> Ints:
    """Return the group of copies each trial belongs to, from 0, shape ``(n,)``."""
    if len(distance) == 1:
        return np.zeros(1, np.int64)
    tree = linkage(squareform(distance, checks=False), "average")
    groups: Ints = np.asarray(fcluster(tree, _SAME, "distance"), dtype=np.int64) - 1
    return groups


def _clusters(distance: Floats) -> tuple[Ints, float, str]:
    """Return the cluster of each distinct trial, the mean silhouette, and why there is none."""
    n = len(distance)
    apart: Ints = np.arange(n, dtype=np.int64)
    if n <= 2:  # noqa: PLR2004 - nothing between one cluster and one each
        return apart, math.nan, f"{n} distinct trials: nothing to cluster"
    if n > MAX_CLUSTERED:
        return apart, math.nan, f"{n} distinct trials, more than {MAX_CLUSTERED}: not clustered"
    tree = linkage(squareform(distance, checks=False), "average")
    found = mean_silhouettes(distance, tree)
    number = n - 1 - int(np.argmax(found[:1:-1]))  # of equal ones, the most clusters
    best = float(found[number])
    if best < MIN_SILHOUETTE:
        return apart, math.nan, f"no clusters: the best mean silhouette is {best:.2f}"
    return np.asarray(cut_tree(tree, n_clusters=number)[:, 0], dtype=np.int64), best, ""
