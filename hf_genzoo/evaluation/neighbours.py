"""Precision, recall, density and coverage of two samples of features, (N, D) and (M, D): overlaps of their supports.

Papers
- Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models".
- Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models": density and coverage.
"""

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hf_genzoo.evaluation.distances import Array, as_pair, squared_distances
from hf_genzoo.evaluation.intervals import GROUPS, Estimate, from_replicates, group_of


@dataclass(frozen=True)
class Overlap:
    """Precision, recall, density and coverage."""

    precision: float
    recall: float
    density: float
    coverage: float


def overlap(real: ArrayLike, fake: ArrayLike, k: int = 5) -> Overlap:
    """How much of each sample lies within balls around the other's points, which reach to their k-th neighbour.

    Precision and recall: Kynkaanniemi et al. 2019, eq. 1 and 2; density and coverage: Naeem et al. 2020, eq. 5 and 6.
    All depend on both counts and on k: compare at equal numbers only. Two samples of one law and equal size score a
    coverage of about 1 - 2^-k and a density of 1.

    Raises:
        ValueError: if there are no more than k samples of a kind.
    """
    a, b = as_pair(real, fake, at_least=k + 1)
    return _count(squared_distances(a, b), _Neighbours(a, k).reach(), _Neighbours(b, k).reach(), k)


def overlap_estimates(real: ArrayLike, fake: ArrayLike, k: int = 5) -> dict[str, Estimate]:
    """The four numbers of `overlap` with their standard errors (jackknife), by name.

    Raises:
        ValueError: as `overlap`.
    """
    a, b = as_pair(real, fake, at_least=k + 1)
    neighbours_a, neighbours_b = _Neighbours(a, k), _Neighbours(b, k)
    between = squared_distances(a, b)
    names = list(Overlap.__dataclass_fields__)
    whole = astuple(_count(between, neighbours_a.reach(), neighbours_b.reach(), k))
    if min(len(a), len(b)) < 2 * GROUPS:
        return {name: Estimate(value) for name, value in zip(names, whole, strict=True)}
    groups_a, groups_b = group_of(len(a)), group_of(len(b))
    replicates = []
    for group in range(GROUPS):
        kept_a, kept_b = groups_a != group, groups_b != group
        reach_a, reach_b = neighbours_a.reach(without=group)[kept_a], neighbours_b.reach(without=group)[kept_b]
        replicates.append(astuple(_count(between[np.ix_(kept_a, kept_b)], reach_a, reach_b, k)))
    columns = np.array(replicates).T
    return {name: from_replicates(value, column) for name, value, column in zip(names, whole, columns, strict=True)}


def _count(between: Array, reach_a: Array, reach_b: Array, k: int) -> Overlap:
    """The four numbers from squared distances (N, M) and squared reaches (N,), (M,)."""
    in_real, in_fake = between < reach_a[:, None], between < reach_b[None]
    around = np.count_nonzero(in_real, axis=0)  # real balls around each generated sample
    return Overlap(
        precision=float((around > 0).mean()),
        recall=float(in_fake.any(axis=1).mean()),
        density=float(around.mean() / k),
        coverage=float(in_real.any(axis=1).mean()),
    )


class _Neighbours:
    """The nearest others of each of N points, enough of them to find the k-th when one group is left out."""

    def __init__(self, points: Array, k: int) -> None:
        among = squared_distances(points, points)
        np.fill_diagonal(among, np.inf)
        largest_group = -(-len(points) // GROUPS)
        kept = min(k + largest_group, 8 * k, len(points) - 1)
        nearest = np.argpartition(among, kept - 1, axis=1)[:, :kept]
        order = np.argsort(np.take_along_axis(among, nearest, axis=1), axis=1)
        self._nearest: NDArray[np.int64] = np.take_along_axis(nearest, order, axis=1)
        self._squared: Array = np.take_along_axis(among, self._nearest, axis=1)
        self._groups = group_of(len(points))[self._nearest]
        self._k = k

    def reach(self, without: int | None = None) -> Array:
        """Squared distance of each point to its k-th neighbour, itself not counted, (N,).

        Of 8 k neighbours, more than 7 k in one group of twenty does not happen by chance; the farthest one kept would
        then be taken.
        """
        if without is None:
            return self._squared[:, self._k - 1]
        rank = np.cumsum(self._groups != without, axis=1)
        place = np.where(rank[:, -1] >= self._k, (rank >= self._k).argmax(axis=1), rank.shape[1] - 1)
        return np.take_along_axis(self._squared, place[:, None], axis=1)[:, 0]
