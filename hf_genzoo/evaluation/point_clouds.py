"""Distances between point clouds, and between sets of them.

A cloud is (P, 3); a set of clouds is (N, P, 3).

Papers
- Fan, Su & Guibas 2017, "A Point Set Generation Network for 3D Object Reconstruction from a Single Image": Chamfer and
  earth mover's distance.
- Achlioptas et al. 2018, "Learning Representations and Generative Models for 3D Point Clouds": MMD and coverage.
- Lopez-Paz & Oquab 2017; Yang et al. 2019, "PointFlow": 1-nearest-neighbour accuracy.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hf_genzoo.evaluation.distances import Array, squared_distances
from hf_genzoo.evaluation.points import wasserstein

CloudDistance = Callable[[Array, Array], float]


def chamfer_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Mean squared distance to the nearest point of the other cloud, both ways added (Fan et al. 2017, eq. 1)."""
    between = squared_distances(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
    return float(between.min(axis=1).mean() + between.min(axis=0).mean())


def earth_movers_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Mean distance under the best one-to-one assignment of equally large clouds (Fan et al. 2017, eq. 2; mean)."""
    return wasserstein(a, b, order=1)


@dataclass(frozen=True)
class CloudReport:
    """How a set of generated clouds compares with a set of real ones.

    Attributes:
        minimum_matching_distance: Mean distance of a real cloud to the nearest generated one: fidelity.
        coverage: Share of real clouds that are the nearest one to some generated cloud: diversity.
        nearest_neighbour_accuracy: Accuracy of telling the sets apart by the nearest other cloud: 0.5 if they cannot
            be told apart, 1 if they are.
    """

    minimum_matching_distance: float
    coverage: float
    nearest_neighbour_accuracy: float


def cloud_report(real: ArrayLike, fake: ArrayLike, distance: CloudDistance = chamfer_distance) -> CloudReport:
    """Compare equally many real and generated clouds, (N, P, 3) each; quadratic in N.

    Raises:
        ValueError: if the numbers of clouds differ, which would shift the accuracy away from 0.5.
    """
    x, y = np.asarray(real, dtype=np.float64), np.asarray(fake, dtype=np.float64)
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(f"{len(x)} real clouds against {len(y)} generated: compare equally many, at least 2")
    within_real, within_fake = _symmetric(x, distance), _symmetric(y, distance)
    between = np.array([[distance(a, b) for b in y] for a in x])
    everything = np.block([[within_real, between], [between.T, within_fake]])
    np.fill_diagonal(everything, np.inf)
    is_fake = np.repeat([False, True], len(x))
    return CloudReport(
        minimum_matching_distance=float(between.min(axis=1).mean()),
        coverage=len(np.unique(between.argmin(axis=0))) / len(x),
        nearest_neighbour_accuracy=float((is_fake[everything.argmin(axis=1)] == is_fake).mean()),
    )


def _symmetric(clouds: Array, distance: CloudDistance) -> Array:
    found = np.zeros((len(clouds), len(clouds)))
    for i in range(len(clouds)):
        for j in range(i):
            found[i, j] = found[j, i] = distance(clouds[i], clouds[j])
    return found
